# The modes of a thread, as the compiled modules see them.

cdef class Mode:
    cdef Mode outer             # the change that this thread made before
    cdef int *flag              # what was changed: one of the four modes, of this thread
    cdef int before
    cdef object owner           # the context that made the change
    cdef int enter(self, int *flag, int value, object owner) except -1
    cdef void leave(self) noexcept

cdef bint recording() noexcept          # is this thread recording?

# Are the ops of this thread looked at? ANOMALY and STUDYING, or both, or 0.
cdef enum:
    ANOMALY = 1
    STUDYING = 2
cdef int checking() noexcept

cdef int *recording_flag() noexcept
cdef int *studying_flag() noexcept
cdef int *scope_flag() noexcept
cdef Mode last_mode()                   # the last change of this thread
