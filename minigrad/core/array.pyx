# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""What a Tensor may hold: data from outside becomes an array of float32 or float64, or is refused;
and what is done with such arrays in place. Nothing here knows the class Tensor.

In core/ no list of objects is made by a comprehension: where memory runs out while it grows, code
of Cython 3.3 gives up a reference twice.
"""
cimport numpy as cnp
from minigrad.core.kernels cimport MAX_DIMS, array_like, csrc, mg_kernels

import operator
import reprlib
import sys

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    double PyFloat_AsDouble(object x) except? -1
    bint PySequence_Check(object x) noexcept
    bint PyObject_CheckBuffer(object x) noexcept
    ctypedef struct PyTypeObject:
        pass

cdef extern from "numpy/arrayobject.h":
    object PyArray_New(PyTypeObject *type, int nd, cnp.npy_intp *dims, int typenum,
                       cnp.npy_intp *strides, void *data, int itemsize, int flags, object base)
    PyTypeObject PyArray_Type

cdef object float32 = np.dtype(np.float32)
cdef object float64 = np.dtype(np.float64)
cdef object differentiable = ()         # the class whose instances would lose their gradient
cdef tuple array_protocols = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")


# ---------------------------------------------------------------- dtype, shape, numbers

cpdef bint is_masked(object data) except -1:
    """Is it one of NumPy's masked arrays? There is none before somebody has imported numpy.ma: this
    library does not, since that takes a tenth of the time of NumPy's own import."""
    module = sys.modules.get("numpy.ma")
    return module is not None and isinstance(data, getattr(module, "MaskedArray", ()))


def checked_dtype(dtype, str op) -> np.dtype:
    """`dtype` as one of the two that tensors have, else a TypeError that names them."""
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except MemoryError:
        raise
    except Exception:                   # its attributes may raise what they like
        raise TypeError(
            f"{op}: dtype must be float32 or float64, got {reprlib.repr(dtype)}") from None
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
    if len(dims) > MAX_DIMS:
        raise ValueError(f"{op}: shape must have at most {MAX_DIMS} dimensions, got {len(dims)}")
    return dims


cdef object as_int(object x):
    """Python's own int for whatever counts as one; None for anything else."""
    if type(x) is int:
        return x
    try:
        return operator.index(x)
    except MemoryError:
        raise
    except Exception:                   # __index__ may raise what it likes
        return None


cdef tuple ints_of(object numbers):
    """An int, or several, as a tuple of Python's own; None for anything else."""
    if type(numbers) is not tuple and type(numbers) is not list:
        number = as_int(numbers)
        if number is not None:
            return (number,)
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
        raise TypeError(f"{op}: {type(x).__name__} is no number: "
                        f"{type(error).__name__}: {error}") from error


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
    """check_data for what lies `depth` lists deep in the data."""
    if type(data) is float or type(data) is int or type(data) is range:
        return 0
    if isinstance(data, (np.generic, str, bytes)):
        return 0
    if isinstance(data, differentiable):
        if depth:
            raise TypeError(f"{op}: {name} must not be made of Tensors, they would lose their "
                            f"gradient: join them with mg.stack, or mg.concatenate")
        return 0
    if isinstance(data, np.ndarray):
        if is_masked(data):
            raise TypeError(f"{op}: {name} must not be a masked array, the mask would be lost: "
                            f"use {name}.filled(value)")
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
    if cnp.PyArray_CheckExact(data) and (<cnp.ndarray>data).descr.kind != c"O":
        return data
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
        raise TypeError(f"{op}: {name} cannot be made an array: "
                        f"{type(error).__name__}: {error}") from error


cdef cnp.ndarray as_array(object data, object dtype, bint copy, str op):
    """NumPy's view of `data` as an array that a Tensor may hold; see Tensor for the rules."""
    cdef cnp.ndarray array
    if isinstance(data, (str, bytes, bytearray)) or data is None:
        raise TypeError(f"{op}: data must be numbers, got {type(data).__name__}")
    array = made_array(data, op, "data")
    cdef bint typed = has_dtype(data)
    if not typed and array.dtype.kind == "O" and all_ints(array.ravel().tolist()):
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise ValueError(
                f"{op}: data holds whole numbers beyond the range of floats") from None
    kind = array.dtype.kind
    if dtype is not None:
        dtype = checked_dtype(dtype, op)
        if kind not in "fiub":
            raise TypeError(f"{op}: data of dtype {array.dtype} cannot become {dtype}: "
                            f"only real numbers can")
    elif typed:
        if kind != "f" or array.dtype.itemsize not in (4, 8):
            raise TypeError(
                f"{op}: data has dtype {array.dtype}, supported are float32 and float64: "
                f"convert it, or give dtype=; integer arrays are for indexing")
        dtype = array.dtype.newbyteorder("=")
    else:
        if kind not in "fiub":
            raise TypeError(
                f"{op}: data must be numbers, got {type(data).__name__} of {array.dtype}")
        dtype = float32
    with np.errstate(all="ignore"):
        result = np.array(array, dtype=dtype, order="K", copy=True if copy else None,
                          subok=False)
    cdef bint usable = result.flags.aligned
    for stride in result.strides:
        usable &= stride % result.itemsize == 0
    return result if usable else result.copy()


cdef bint has_dtype(object data) except -1:
    """Does the data say what its dtype is, be it by the first number in its lists?"""
    if type(data) is list or type(data) is tuple:
        while isinstance(data, (list, tuple)) and len(data):
            data = data[0]
        return isinstance(data, (np.ndarray, np.generic))
    if isinstance(data, (np.ndarray, np.generic)):
        return True
    return hasattr(data, "__array__") or hasattr(data, "__dlpack__")


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
    cdef ptrdiff_t sx[MAX_DIMS]
    cdef ptrdiff_t sy[MAX_DIMS]
    cdef int d
    for d in range(cnp.PyArray_NDIM(source)):
        sx[d] = cnp.PyArray_STRIDE(source, d) // <ptrdiff_t>K.itemsize
        sy[d] = cnp.PyArray_STRIDE(target, d) // <ptrdiff_t>K.itemsize
    csrc.copy_strided(K.itemsize, cnp.PyArray_NDIM(source),
                      <const ptrdiff_t *>cnp.PyArray_DIMS(source),
                      cnp.PyArray_DATA(source), sx, cnp.PyArray_DATA(target), sy)
    return target


cdef cnp.ndarray view_of(cnp.ndarray x, int nd, cnp.npy_intp *shape, cnp.npy_intp *strides,
                         char *data):
    """An array of another shape and strides (in bytes) that looks at x's memory from `data` on."""
    cdef int flags = 0
    if PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_WRITEABLE):
        flags = cnp.NPY_ARRAY_WRITEABLE
    cdef cnp.ndarray view = <cnp.ndarray>PyArray_New(
        &PyArray_Type, nd, shape, cnp.PyArray_TYPE(x), strides, data, 0, flags, None)
    cnp.set_array_base(view, x)
    return view


cdef bint repeats_elements(cnp.ndarray x) noexcept:
    """Do several elements share one memory location, as in an expanded view?"""
    cdef int d
    for d in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_STRIDE(x, d) == 0 and cnp.PyArray_DIM(x, d) > 1 and cnp.PyArray_SIZE(x):
            return True
    return False


cdef int add_into(cnp.ndarray y, cnp.ndarray x) except -1:
    """y += x in place, for a y of our own."""
    cdef const mg_kernels *K = kernels_of(y)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(y)
    cdef int d
    if not same_form(x, y):
        raise RuntimeError(f"backward: a gradient must have shape {(<object>y).shape} and dtype "
                           f"{(<object>y).dtype}, got {(<object>x).shape} and {(<object>x).dtype}")
    if (PyArray_CHKFLAGS(y, cnp.NPY_ARRAY_C_CONTIGUOUS)
            and PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS)):
        K.accumulate(n, cnp.PyArray_DATA(x), 1, cnp.PyArray_DATA(y))
        return 0
    cdef ptrdiff_t sx[MAX_DIMS]
    cdef ptrdiff_t sy[MAX_DIMS]
    for d in range(cnp.PyArray_NDIM(y)):
        sx[d] = cnp.PyArray_STRIDE(x, d) // <ptrdiff_t>K.itemsize
        sy[d] = cnp.PyArray_STRIDE(y, d) // <ptrdiff_t>K.itemsize
    csrc.accumulate_strided(K, cnp.PyArray_NDIM(y), <const ptrdiff_t *>cnp.PyArray_DIMS(y),
                            cnp.PyArray_DATA(x), sx, cnp.PyArray_DATA(y), sy)
    return 0


cdef bint ends_with(cnp.ndarray x, tuple shape) except -1:
    """Are the last dimensions of x those of `shape`?"""
    cdef int lead = cnp.PyArray_NDIM(x) - <int>len(shape), d
    for d in range(<int>len(shape)):
        if lead < 0 or cnp.PyArray_DIM(x, lead + d) != <Py_ssize_t>shape[d]:
            return False
    return True


cdef cnp.ndarray rows_first(cnp.ndarray x, tuple shape):
    """x, contiguous, with the dimensions in front along which an array of `shape` was broadcast to
    x's shape."""
    cdef int lead = cnp.PyArray_NDIM(x) - <int>len(shape), d
    if ends_with(x, shape):
        return x if PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS) else copied(x)
    kept, summed = [], []
    for d in range(cnp.PyArray_NDIM(x)):
        if d >= lead and (shape[d - lead] != 1 or cnp.PyArray_DIM(x, d) == 1):
            kept.append(d)
        else:
            summed.append(d)
    return np.ascontiguousarray((<object>x).transpose(tuple(summed + kept)))


cdef int rows_into(cnp.ndarray y, cnp.ndarray low, cnp.ndarray x) except -1:
    """(y, low) += the sum of x over its leading elements; all contiguous."""
    cdef Py_ssize_t cols = cnp.PyArray_SIZE(y), rows
    if cols == 0:
        return 0
    rows = cnp.PyArray_SIZE(x) // cols
    kernels_of(x).add_rows(rows, cols, cnp.PyArray_DATA(x), cols, cnp.PyArray_DATA(y),
                           <double *>cnp.PyArray_DATA(low))
    return 0


cdef int round_sums(cnp.ndarray y, cnp.ndarray low) except -1:
    """y += low, rounded once."""
    kernels_of(y).round_sums(cnp.PyArray_SIZE(y), <const double *>cnp.PyArray_DATA(low),
                             cnp.PyArray_DATA(y))
    return 0
