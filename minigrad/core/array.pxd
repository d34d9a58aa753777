# What a Tensor may hold, as the compiled modules see it.
cimport numpy as cnp
from minigrad.core.kernels cimport K32, K64, mg_kernels

cdef extern from "numpy/arrayobject.h":
    int PyArray_CHKFLAGS(cnp.ndarray, int flags) noexcept

cpdef bint is_masked(object data) except -1
cdef object as_int(object x)
cdef tuple ints_of(object numbers)
cdef double as_double(object x, str op) except? -1
cdef int refuse_inside(object kind) except -1
cdef cnp.ndarray as_array(object data, object dtype, bint copy, str op)
cdef cnp.ndarray copied(cnp.ndarray source)
cdef cnp.ndarray view_of(cnp.ndarray x, int nd, cnp.npy_intp *shape, cnp.npy_intp *strides,
                         char *data)
cdef bint repeats_elements(cnp.ndarray x) noexcept
cdef int add_into(cnp.ndarray y, cnp.ndarray x) except -1
cdef bint ends_with(cnp.ndarray x, tuple shape) except -1
cdef cnp.ndarray rows_first(cnp.ndarray x, tuple shape)
cdef int rows_into(cnp.ndarray y, cnp.ndarray low, cnp.ndarray x) except -1
cdef int round_sums(cnp.ndarray y, cnp.ndarray low) except -1

cdef inline const mg_kernels *kernels_of(cnp.ndarray array) noexcept:
    return K32 if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT else K64

cdef inline bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int d
    if cnp.PyArray_NDIM(a) != cnp.PyArray_NDIM(b):
        return False
    for d in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_DIM(a, d) != cnp.PyArray_DIM(b, d):
            return False
    return True

cdef inline bint same_form(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Have they one shape and dtype?"""
    return cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(b) and same_shape(a, b)
