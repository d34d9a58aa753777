# The checks of a fused layer's tensors, as fused.pyx sees them.
cimport numpy as cnp
from minigrad.core.kernels cimport mg_cell_kind
from minigrad.core.tensor cimport Tensor

cdef object shape_of(Tensor t)
cdef int check_tensors(
    str op, const mg_cell_kind *kind, Tensor x, Tensor h0, Tensor c0, Tensor W, Tensor U, Tensor b,
    Tensor p
) except -1
cdef int check_out(str op, Tensor out, cnp.ndarray x, Py_ssize_t H) except -1
