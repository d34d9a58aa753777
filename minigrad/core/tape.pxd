# The tape, as the op modules see it.
from minigrad.core.tensor cimport Node, Rule, Slot, Tensor

cdef Node record1(Tensor y, Rule rule, str name, Tensor x)
cdef Node record2(Tensor y, Rule rule, str name, Tensor a, Tensor b)
cdef Node recordn(Tensor y, Rule rule, str name, tuple inputs)
cdef int record_outputs(Node main, tuple ys) except -1
cdef Slot checked_slot(Tensor x, str name)
cdef Tensor savable(Tensor x)
cdef int save(Node node, Py_ssize_t i, Tensor x) except -1
cdef int save_output(Node node, Py_ssize_t i, Tensor y) except -1
cdef Tensor saved(Node node, Py_ssize_t i)
cdef object already_freed(Node node)
cdef object changed_since(Node node, Tensor x, long version)
cdef int python_rule(Node node, Tensor dy) except -1
cdef Tensor owner_of(Tensor x)
cdef int settle(Tensor x) except -1
cdef int bump(Tensor x) except -1
cdef int mark_view(Tensor y, Tensor x) except -1
cdef Tensor own(Tensor x, bint create_graph)
