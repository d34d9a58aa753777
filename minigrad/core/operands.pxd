# What ops make of their arguments, as the op modules see it.
from minigrad.core.tensor cimport Tensor

cdef Tensor as_constant(object data, object dtype, str op)
cdef Tensor as_input(object x, str op)
cdef Tensor as_operand(object x, Tensor like, str op)

cdef inline Tensor first_operand(object a, object b, str op):
    """The first operand of an op with two: beside a Tensor it is what as_operand says."""
    if isinstance(a, Tensor):
        return <Tensor>a
    return as_operand(a, <Tensor>b, op) if isinstance(b, Tensor) else as_input(a, op)
