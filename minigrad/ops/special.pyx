# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Functions of one variable whose plain formula loses digits: expm1, log1p, and the normal
distribution that gelu is made of.

As in elementwise.pyx each op is one block: the formula and its derivative, the value, the rule.
"""
cimport numpy as cnp
from minigrad.core.tape cimport saved
from minigrad.core.tensor cimport Node, Tensor
from minigrad.ops.elementwise cimport add, div, exp, mul, of_input

from minigrad.core.tensor import install

cnp.import_array()

cdef extern from "kernels.h" nogil:
    enum: mg_map_expm1, mg_map_log1p, mg_map_normal_cdf


# y = e^x - 1      dx = dy e^x   (and not dy (y + 1), which is 0 / 1 ulp far to the left)

cpdef Tensor expm1(x):
    """e ** x - 1, within 1.1 ulp, also where x is small and e ** x is nearly 1.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.expm1(mg.Tensor([1e-10, 1.0, -800.0], dtype="float64"))
    Tensor([ 1.00000000e-10,  1.71828183e+00, -1.00000000e+00], dtype=float64)
    """
    return of_input(x, mg_map_expm1, expm1_rule, "expm1")

cdef int expm1_rule(Node node, Tensor dy) except -1:
    return node.give(0, mul(dy, exp(saved(node, 0))), True)


# y = log(1 + x)           dx = dy / (1 + x)

cpdef Tensor log1p(x):
    """log(1 + x), within 1 ulp, also where x is small and 1 + x is nearly 1; -inf at -1, NaN below.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.log1p(mg.Tensor([1e-10, 1.0, -1.0], dtype="float64"))
    Tensor([1.00000000e-10, 6.93147181e-01,           -inf], dtype=float64)
    """
    return of_input(x, mg_map_log1p, log1p_rule, "log1p")

cdef int log1p_rule(Node node, Tensor dy) except -1:
    return node.give(0, div(dy, add(saved(node, 0), 1.0)), True)


# y = Phi(x) = (1 + erf(x / sqrt 2)) / 2           dx = dy e^(-x^2 / 2) / sqrt(2 pi)

cdef double DENSITY_AT_0 = 0.3989422804014327

cpdef Tensor normal_cdf(x):
    """The probability that a standard normal number is below x, within 2 ulp.

    x: a Tensor of any shape, or what makes one.
    """
    return of_input(x, mg_map_normal_cdf, normal_cdf_rule, "normal_cdf")

cdef int normal_cdf_rule(Node node, Tensor dy) except -1:
    cdef Tensor x = saved(node, 0)
    cdef Tensor density = mul(exp(mul(mul(x, x), -0.5)), DENSITY_AT_0)
    return node.give(0, mul(dy, density), True)


for _function in (expm1, log1p):
    install(_function.__name__, _function)
