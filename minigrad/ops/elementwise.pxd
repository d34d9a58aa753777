# The elementwise ops that other compiled modules call directly.
from minigrad.core.tensor cimport Rule, Tensor

# y = f(x) for a kernel of kernels.h, by its number there, and a rule that needs x.
cdef Tensor of_input(object x, int id, Rule rule, str name)

cpdef Tensor add(a, b)
cpdef Tensor sub(a, b)
cpdef Tensor mul(a, b)
cpdef Tensor div(a, b)
cpdef Tensor neg(x)
cpdef Tensor exp(x)
cpdef Tensor where(condition, a, b)
