# The reductions that other compiled modules call directly.
from minigrad.core.tensor cimport Tensor

cpdef Tensor sum(x, axis=*, bint keepdims=*)
cpdef Tensor mean(x, axis=*, bint keepdims=*)
cpdef Tensor logsumexp(x, axis=*, bint keepdims=*)
cpdef Tensor softmax(x, axis=*)
cpdef Tensor log_softmax(x, axis=*)
