# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""What an op makes of its arguments: Tensors are taken as they are, numbers and arrays become
constants. And tensors made from nothing: zeros and ones."""
cimport numpy as cnp
from minigrad.core.array cimport as_double
from minigrad.core.tensor cimport Tensor, array_of, mark_foreign, wrap

import numpy as np

from minigrad.core.array import checked_dtype, checked_shape

cnp.import_array()

cdef extern from "Python.h":
    ctypedef struct PyFloatObject:
        double ob_fval

cdef tuple number_types = (np.floating, np.integer)     # beside Python's float and int


cdef Tensor as_constant(object data, object dtype, str op):
    """A Tensor of `data`, whose memory NumPy may have too."""
    cdef Tensor t = wrap(array_of(data, dtype, False, op))
    mark_foreign(t, data)
    return t


cdef Tensor as_input(object x, str op):
    """The one Tensor input of an op; other things become constants."""
    if isinstance(x, Tensor):
        return <Tensor>x
    return as_constant(x, None, op)


def as_tensor(x, str op not None) -> Tensor:
    """The Tensor input of an op written in Python: x itself, or a constant made of it."""
    return as_input(x, op)


cdef Tensor as_operand(object x, Tensor like, str op):
    """An operand beside the Tensor `like`: a Tensor of the same dtype, a number or an array of
    bool, which take that dtype, or an array that has it."""
    cdef Tensor t
    if isinstance(x, Tensor):
        t = <Tensor>x
    elif isinstance(x, float) or isinstance(x, int) or isinstance(x, number_types):
        return number_like(x, like, op)
    elif isinstance(x, complex):
        raise TypeError(f"{op}: operands must be real, got {type(x).__name__}")
    elif hasattr(x, "dtype") and not is_bool(x):
        t = as_constant(x, None, op)
    else:
        t = as_constant(x, like._array.dtype, op)
    if cnp.PyArray_TYPE(t._array) != cnp.PyArray_TYPE(like._array):
        raise TypeError(f"{op}: both operands must have one dtype, got {like._array.dtype} and "
                        f"{t._array.dtype}: convert one with .astype")
    return t


cdef bint is_bool(object x) except -1:
    """Is this an array of bool, or NumPy's bool?"""
    return isinstance(x, (np.ndarray, np.bool_)) and x.dtype.kind == "b"


cdef Tensor number_like(object x, Tensor like, str op):
    """A number as a 0-d Tensor of like's dtype."""
    cdef double number = (<PyFloatObject *>x).ob_fval if type(x) is float else as_double(x, op)
    cdef int typenum = cnp.PyArray_TYPE(like._array)
    cdef cnp.ndarray array = <cnp.ndarray>cnp.PyArray_SimpleNew(0, NULL, typenum)
    if typenum == cnp.NPY_FLOAT:
        (<float *>cnp.PyArray_DATA(array))[0] = <float>number
    else:
        (<double *>cnp.PyArray_DATA(array))[0] = number
    return wrap(array)


cdef Tensor filled(object make, object shape, object dtype, bint requires_grad, str op):
    dims = checked_shape(shape, op)
    kind = checked_dtype(dtype, op)
    try:
        t = wrap(make(dims, kind))
    except MemoryError:
        count = 1
        for d in dims:
            count *= d
        raise MemoryError(f"{op}: cannot allocate {count * kind.itemsize} bytes "
                          f"for shape {dims} and dtype {kind}") from None
    t._requires_grad = requires_grad
    return t


def zeros(shape, dtype=np.float32, requires_grad=False) -> Tensor:
    """A Tensor of zeros.

    Args:
        shape: An int or a tuple of ints.
        dtype: float32 (default) or float64.
        requires_grad: Whether gradients are computed for it. Default: False.

    Raises:
        TypeError: The shape is not made of ints, or the dtype is another one.
        ValueError: A dimension is negative, or there are too many.
        MemoryError: The machine does not have the memory.

    >>> import minigrad as mg
    >>> mg.zeros((2, 3))
    Tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return filled(np.zeros, shape, dtype, requires_grad, "zeros")


def ones(shape, dtype=np.float32, requires_grad=False) -> Tensor:
    """A Tensor of ones.

    Args:
        shape: An int or a tuple of ints.
        dtype: float32 (default) or float64.
        requires_grad: Whether gradients are computed for it. Default: False.

    Raises:
        TypeError: The shape is not made of ints, or the dtype is another one.
        ValueError: A dimension is negative, or there are too many.
        MemoryError: The machine does not have the memory.

    >>> import minigrad as mg
    >>> mg.ones(2)
    Tensor([1., 1.])
    """
    return filled(np.ones, shape, dtype, requires_grad, "ones")
