# What a Tensor may hold, as the compiled modules see it.
cimport numpy as cnp
from minigrad.core.kernels cimport K32, K64, mg_kernels

cdef extern from "numpy/arrayobject.h":
    int PyArray_CHKFLAGS(cnp.ndarray, int flags) noexcept

cdef tuple ints_of(object numbers)
cdef double as_double(object x, str op) except? -1
cdef int refuse_inside(object kind) except -1
cdef cnp.ndarray as_array(object data, object dtype, bint copy, str op)
cdef cnp.ndarray copied(cnp.ndarray source)
cdef bint same_form(cnp.ndarray a, cnp.ndarray b) noexcept
cdef int add_into(cnp.ndarray y, cnp.ndarray x) except -1
cdef cnp.ndarray rows_first(cnp.ndarray x, tuple shape)
cdef int rows_into(cnp.ndarray y, cnp.ndarray low, cnp.ndarray x) except -1
cdef int round_sums(cnp.ndarray y, cnp.ndarray low) except -1

cdef inline const mg_kernels *kernels_of(cnp.ndarray array) noexcept:
    return K32 if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT else K64
