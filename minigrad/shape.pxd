# The shape ops that other compiled modules call directly.
from minigrad.tensor cimport Node, Tensor

cdef int slice_rule(Node node, Tensor dy) except -1
cdef Tensor put(Tensor values, object index, tuple shape)
