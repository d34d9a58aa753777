# The elementwise ops that other compiled modules call directly.
from minigrad.core.tensor cimport Tensor

cpdef Tensor add(a, b)
cpdef Tensor sub(a, b)
cpdef Tensor mul(a, b)
cpdef Tensor div(a, b)
cpdef Tensor neg(x)
cpdef Tensor exp(x)
cpdef Tensor where(condition, a, b)
