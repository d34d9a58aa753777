# The modes of a thread, as the compiled modules see them.

cdef class Mode:
    cdef Mode outer             # the change that this thread made before
    cdef int *flag              # what was changed: recording or anomaly, of this thread
    cdef int before
    cdef object owner           # the context that made the change
    cdef int enter(self, int *flag, int value, object owner) except -1
    cdef void leave(self) noexcept

cdef bint recording() noexcept          # is this thread recording?
cdef bint checking() noexcept           # is it in anomaly mode?
cdef int *recording_flag() noexcept
