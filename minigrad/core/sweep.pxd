# The parts of a sweep, for one that stops before each node: see stepping.pyx.
from minigrad.core.tensor cimport Node, Slot, Sweep, Tensor

cdef Tensor check_seed(Tensor root, object gradient, str op)
cdef Tensor sum_of_rows(Tensor start, list parts, tuple shape)
cdef Tensor whole(Sweep run, Slot slot)
cdef Tensor leaf_of(Slot place)
cdef Tensor arrive(Sweep run, Node node)
cdef int keep_retained(Sweep run, Slot slot, Tensor gradient) except -1
cdef int run_rule(Sweep run, Node node, Tensor dy, bint *ran) except -1
cdef void close(Sweep run, Node node, bint ran) noexcept
cdef int finish_leaves(Sweep run) except -1
cdef int commit(Sweep run) except -1
cdef void close_all(Sweep run) noexcept
cdef set find_needed(list roots, dict wanted)
