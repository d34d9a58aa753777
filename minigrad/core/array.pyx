# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""What a Tensor may hold: data from outside becomes an array of float32 or float64, or is refused;
and what is done with such arrays in place. Nothing here knows the class Tensor.

In core/ no list of objects is made by a comprehension: where memory runs out while it grows, code
of Cython 3.3 gives up a reference twice.
"""
cimport numpy as cnp
from minigrad.core.kernels cimport accumulate_strided, array_like, copy_strided, mg_kernels

import operator
import reprlib

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    double PyFloat_AsDouble(object x) except? -1
    bint PySequence_Check(object x) noexcept
    bint PyObject_CheckBuffer(object x) noexcept

cdef object float32 = np.dtype(np.float32)
cdef object float64 = np.dtype(np.float64)
cdef object masked_array = np.ma.MaskedArray
cdef object differentiable = ()         # the class whose instances would lose their gradient
cdef tuple array_protocols = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")


# ---------------------------------------------------------------- dtype, shape, numbers

def checked_dtype(dtype, str op) -> np.dtype:
    """`dtype` as one of the two that tensors have, else a TypeError that names them."""
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise TypeError(f"{op}: dtype must be float32 or float64, got {reprlib.repr(dtype)}") from None
    if found != float32 and found != float64:
        raise TypeError(f"{op}: dtype must be float32 or float64, got {found}")
    return found


def checked_shape(shape, str op) -> tuple:
    """`shape` as a tuple of dimensions whose product can be addressed."""
    cdef tuple dims = ints_of(shape)
    if dims is None:
        raise TypeError(f"{op}: shape must be made of ints, got {reprlib.repr(shape)}")
    size = 1
    for d in dims:
        if d < 0:
            raise ValueError(f"{op}: shape must not have negative dimensions, got {dims}")
        size *= max(d, 1)
    if size * 8 >= 2**63:
        raise ValueError(f"{op}: shape {dims} has too many elements to be addressed")
    if len(dims) > 64:
        raise ValueError(f"{op}: shape must have at most 64 dimensions, got {len(dims)}")
    return dims


cdef tuple ints_of(object numbers):
    """An int, or several, as a tuple of Python's own; None for anything else."""
    try:
        return (operator.index(numbers),)
    except MemoryError:
        raise
    except Exception:                   # it may be several; and __index__ may raise what it likes
        pass
    try:
        return tuple(map(operator.index, numbers))
    except MemoryError:
        raise
    except Exception:
        return None


cdef double as_double(object x, str op) except? -1:
    """A number as a double."""
    if isinstance(x, np.timedelta64):
        raise TypeError(f"{op}: operands must be real numbers, got {type(x).__name__}")
    try:
        return PyFloat_AsDouble(x)
    except OverflowError:
        raise ValueError(f"{op}: the number is beyond the range of floats") from None
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"{op}: {type(x).__name__} is no number: {type(error).__name__}: {error}") from error


# ---------------------------------------------------------------- data as an array

cdef int refuse_inside(object kind) except -1:
    """From now on, data that is made of instances of the class `kind` is refused."""
    global differentiable
    differentiable = kind
    return 0


def check_data(data, str op not None, str name not None) -> None:
    """Refuse data that would lose something as an array: Tensors within it their gradient, masked
    arrays their mask."""
    look_through(data, op, name, 0)


cdef bint has_protocol(object data) except -1:
    for way in array_protocols:
        if hasattr(data, way):
            return True
    return False


cdef int look_through(object data, str op, str name, int depth) except -1:
    if type(data) is float or type(data) is int or type(data) is range or isinstance(data, (np.generic, str, bytes)):
        return 0
    if isinstance(data, differentiable):
        if depth:
            raise TypeError(f"{op}: {name} must not be made of Tensors, they would lose their gradient: join them with mg.stack, "
                            f"or mg.concatenate")
        return 0
    if isinstance(data, np.ndarray):
        if isinstance(data, masked_array):
            raise TypeError(f"{op}: {name} must not be a masked array, the mask would be lost: use {name}.filled(value)")
        if (<cnp.ndarray>data).descr.kind != c"O":
            return 0
        parts = data.ravel().tolist()
    elif isinstance(data, (list, tuple, set, frozenset)):
        parts = data
    elif isinstance(data, dict):
        parts = data.values()
    elif PySequence_Check(data) and not PyObject_CheckBuffer(data) and not has_protocol(data):
        try:
            parts = []
            for i in range(len(data)):
                parts.append(data[i])
        except MemoryError:
            raise
        except Exception:               # no sequence after all: NumPy says what it is
            return 0
    elif depth and hasattr(data, "__array__"):
        parts = (converted(data, op, name),)
    else:
        return 0
    if depth >= 64:
        raise ValueError(f"{op}: {name} is nested deeper than 64 lists")
    for part in parts:
        look_through(part, op, name, depth + 1)
    return 0


def made_array(data, str op not None, str name not None) -> np.ndarray:
    """`data` as a NumPy array, which may be its own memory; nothing is lost, and exceptions name
    the op."""
    look_through(data, op, name, 0)
    found = converted(data, op, name)
    look_through(found, op, name, 0)
    return np.asarray(found)


cdef object converted(object data, str op, str name):
    try:
        return np.asanyarray(data)
    except ValueError as error:
        raise ValueError(f"{op}: {name} is ragged or not an array: {error}") from None
    except MemoryError:
        raise
    except Exception as error:
        raise TypeError(f"{op}: {name} cannot be made an array: {type(error).__name__}: {error}") from error


cdef cnp.ndarray as_array(object data, object dtype, bint copy, str op):
    """NumPy's view of `data` as an array that a Tensor may hold;
    see Tensor for the rules."""
    cdef cnp.ndarray array
    if isinstance(data, (str, bytes, bytearray)) or data is None:
        raise TypeError(f"{op}: data must be numbers, got {type(data).__name__}")
    typed = isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "__array__") or hasattr(data, "__dlpack__")
    array = made_array(data, op, "data")
    if type(data) is list or type(data) is tuple:
        first = data
        while isinstance(first, (list, tuple)) and len(first):
            first = first[0]
        typed = isinstance(first, (np.ndarray, np.generic)) and not isinstance(first, (list, tuple))
    if not typed and array.dtype.kind == "O" and all_ints(array.ravel().tolist()):
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise ValueError(f"{op}: data holds whole numbers beyond the range of floats") from None
    kind = array.dtype.kind
    if dtype is not None:
        dtype = checked_dtype(dtype, op)
        if kind not in "fiub":
            raise TypeError(f"{op}: data of dtype {array.dtype} cannot become {dtype}: only real numbers can")
    elif typed:
        if kind != "f" or array.dtype.itemsize not in (4, 8):
            raise TypeError(f"{op}: data has dtype {array.dtype}, supported are float32 and float64: "
                            f"convert it, or give dtype=; integer arrays are for indexing")
        dtype = array.dtype.newbyteorder("=")
    else:
        if kind not in "fiub":
            raise TypeError(f"{op}: data must be numbers, got {type(data).__name__} of {array.dtype}")
        dtype = float32
    with np.errstate(all="ignore"):
        result = np.array(array, dtype=dtype, order="K", copy=True if copy else None, subok=False)
    cdef bint usable = result.flags.aligned
    for stride in result.strides:
        usable &= stride % result.itemsize == 0
    return result if usable else result.copy()


cdef bint all_ints(list numbers):
    for number in numbers:
        if not isinstance(number, int):
            return False
    return True


# ---------------------------------------------------------------- arrays of ours

cdef cnp.ndarray copied(cnp.ndarray source):
    """A copy in C order."""
    cdef cnp.ndarray target = array_like(source)
    cdef const mg_kernels *K = kernels_of(source)
    cdef ptrdiff_t sx[64]
    cdef ptrdiff_t sy[64]
    cdef int d
    for d in range(cnp.PyArray_NDIM(source)):
        sx[d] = cnp.PyArray_STRIDE(source, d) // <ptrdiff_t>K.itemsize
        sy[d] = cnp.PyArray_STRIDE(target, d) // <ptrdiff_t>K.itemsize
    copy_strided(K.itemsize, cnp.PyArray_NDIM(source), <const ptrdiff_t *>cnp.PyArray_DIMS(source),
                 cnp.PyArray_DATA(source), sx, cnp.PyArray_DATA(target), sy)
    return target


cdef bint same_form(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Have they one shape and dtype?"""
    cdef int d
    if cnp.PyArray_TYPE(a) != cnp.PyArray_TYPE(b) or cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(b, d):
            return False
    return True


cdef int add_into(cnp.ndarray y, cnp.ndarray x) except -1:
    """y += x in place, for a y of our own."""
    cdef const mg_kernels *K = kernels_of(y)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(y)
    cdef bint fits = cnp.PyArray_NDIM(x) == cnp.PyArray_NDIM(y)
    cdef int d
    if fits:
        for d in range(cnp.PyArray_NDIM(y)):
            fits &= cnp.PyArray_DIM(x, d) == cnp.PyArray_DIM(y, d)
    if not fits or cnp.PyArray_TYPE(x) != cnp.PyArray_TYPE(y):
        raise RuntimeError(f"backward: a gradient must have shape {(<object>y).shape} and dtype {(<object>y).dtype}, "
                           f"got {(<object>x).shape} and {(<object>x).dtype}")
    if PyArray_CHKFLAGS(y, cnp.NPY_ARRAY_C_CONTIGUOUS) and PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS):
        K.accumulate(n, cnp.PyArray_DATA(x), 1, cnp.PyArray_DATA(y))
        return 0
    cdef ptrdiff_t sx[64]
    cdef ptrdiff_t sy[64]
    for d in range(cnp.PyArray_NDIM(y)):
        sx[d] = cnp.PyArray_STRIDE(x, d) // <ptrdiff_t>K.itemsize
        sy[d] = cnp.PyArray_STRIDE(y, d) // <ptrdiff_t>K.itemsize
    accumulate_strided(K, cnp.PyArray_NDIM(y), <const ptrdiff_t *>cnp.PyArray_DIMS(y),
                       cnp.PyArray_DATA(x), sx, cnp.PyArray_DATA(y), sy)
    return 0


cdef cnp.ndarray rows_first(cnp.ndarray x, tuple shape):
    """x, contiguous, with the dimensions in front along which an array of `shape` was broadcast to
    x's shape."""
    cdef tuple from_shape = (<object>x).shape
    cdef int lead = len(from_shape) - len(shape)
    if from_shape[lead:] == shape:
        return np.ascontiguousarray(x)
    keep, summed = [], []
    for d in range(len(from_shape)):
        kept = d >= lead and (shape[d - lead] != 1 or from_shape[d] == 1)
        (keep if kept else summed).append(d)
    return np.ascontiguousarray(x.transpose(tuple(summed + keep)))


cdef int rows_into(cnp.ndarray y, cnp.ndarray low, cnp.ndarray x) except -1:
    """(y, low) += the sum of x over its leading elements; all contiguous."""
    cdef Py_ssize_t cols = cnp.PyArray_SIZE(y), rows
    if cols == 0:
        return 0
    rows = cnp.PyArray_SIZE(x) // cols
    kernels_of(x).add_rows(rows, cols, cnp.PyArray_DATA(x), cols, cnp.PyArray_DATA(y), <double *>cnp.PyArray_DATA(low))
    return 0


cdef int round_sums(cnp.ndarray y, cnp.ndarray low) except -1:
    """y += low, rounded once."""
    kernels_of(y).round_sums(cnp.PyArray_SIZE(y), <const double *>cnp.PyArray_DATA(low), cnp.PyArray_DATA(y))
    return 0
