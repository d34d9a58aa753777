# The elementwise ops that other compiled modules call directly.
from minigrad.core.tensor cimport Node, Rule, Tensor

# y = f(x) for a kernel of kernels.h, by its number there, and a rule that needs x.
cdef Tensor of_input(object x, int id, Rule rule, str name)

# z = f(a, b), of two tensors of one dtype: the value, its node, and how the rule gives a gradient.
cdef Tensor map2(Tensor a, Tensor b, int id, str op, bint *broadcast)
cdef Node record_pair(Tensor z, Rule rule, str name, Tensor a, Tensor b, bint broadcast)
cdef int deliver(Node node, Py_ssize_t i, Tensor dx, bint fresh) except -1

cpdef Tensor add(a, b)
cpdef Tensor sub(a, b)
cpdef Tensor mul(a, b)
cpdef Tensor div(a, b)
cpdef Tensor neg(x)
cpdef Tensor exp(x)
cpdef Tensor where(condition, a, b)
