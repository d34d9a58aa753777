# Indexing as the other compiled modules call it.
cimport numpy as cnp
from minigrad.core.tensor cimport Tensor

cdef bint all_plain(object index) noexcept
cdef object plain(object index, str op)
cdef cnp.ndarray region(cnp.ndarray x, object index, str op)
cdef object owned(object index, str op)
cdef object get_item(object x, object index)
cdef int set_item(object x, object index, object value) except -1
cdef Tensor getitem(Tensor x, object index)
cdef Tensor sliced(Tensor x, object index, str name)
cdef Tensor put(Tensor values, object index, tuple shape)
