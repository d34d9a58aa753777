# The recording of ops beside the tape, as the compiled modules see it.
from minigrad.core.tensor cimport Node, Output, Tensor

cdef int note_op(Node node, Tensor y, tuple inputs) except -1
cdef int note_output(Output output, Tensor y) except -1
cdef int note_rule(Node node, Tensor dy, long long start) except -1
cdef long long nanoseconds() noexcept
cdef object user_frame()
cdef str line_of(object place)
