# Indexing as the other compiled modules call it.
cimport numpy as cnp
from minigrad.core.tensor cimport Tensor

cdef cnp.ndarray view_of(cnp.ndarray x, int nd, cnp.npy_intp *shape, cnp.npy_intp *strides, char *data)
cdef Tensor getitem(object x, object index)
cdef Tensor sliced(Tensor x, object index, str name)
