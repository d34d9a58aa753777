# Axes, as the op modules see them.

cdef int one_axis(object axis, int nd, str op) except -1
cdef object plain_axis(object axis, str op)
cdef int mark_axes(bint *marked, object axis, int nd, str op) except -1
