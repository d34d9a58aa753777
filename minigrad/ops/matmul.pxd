# The product ops that other compiled modules call directly.
cimport numpy as cnp
from minigrad.core.tensor cimport Tensor

cpdef Tensor matmul(a, b)
cpdef Tensor addmm(c, a, b)
