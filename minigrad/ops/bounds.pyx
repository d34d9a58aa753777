# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Bounds, element by element: maximum, minimum and clip.

As in elementwise.pyx each op is one block: the formula and its derivative, the value, the rule.
"""
cimport numpy as cnp
from libc.math cimport INFINITY, copysign, fabs
from minigrad.core.operands cimport as_input, as_operand, first_operand
from minigrad.core.tape cimport record1, save, saved
from minigrad.core.tensor cimport Node, Rule, Tensor, tracked, tracked2, wrap
from minigrad.ops.elementwise cimport deliver, map2, mul, record_pair, where

import numpy as np

from minigrad import checks
from minigrad.core.tensor import install

cnp.import_array()

cdef extern from "kernels.h" nogil:
    enum: mg_map2_maximum, mg_map2_minimum


# z = max(a, b)    da = 0 where a < b, dz / 2 where a = b, else dz; db the same with b < a. Where
# either is NaN both get dz.

cdef Tensor extreme(object a, object b, int id, Rule rule, str name):
    cdef Tensor x = first_operand(a, b, name), y = as_operand(b, x, name)
    cdef bint broadcast
    cdef Tensor z = map2(x, y, id, name, &broadcast)
    cdef Node node
    if tracked2(x, y):
        node = record_pair(z, rule, name, x, y, broadcast)
        save(node, 0, x)
        save(node, 1, y)
    return z

cpdef Tensor maximum(a, b):
    """The larger of a and b, element by element, with broadcasting; NaN where either is. Ties share
    the gradient.

    Args:
        a, b: Tensors, arrays or numbers of one dtype, whose shapes broadcast.

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not broadcast.

    >>> import minigrad as mg
    >>> mg.maximum(mg.Tensor([1.0, 5.0]), 3)
    Tensor([3., 5.])
    """
    return extreme(a, b, mg_map2_maximum, maximum_rule, "maximum")

cdef int maximum_rule(Node node, Tensor dz) except -1:
    a, b = saved(node, 0)._array, saved(node, 1)._array
    return extreme_rule(node, dz, a < b, b < a, a == b)

cdef int extreme_rule(Node node, Tensor dz, a_loses, b_loses, ties) except -1:
    if ties.any():
        shares = np.asarray(np.where(ties, 0.5, 1.0), dz._array.dtype)
        dz = mul(dz, wrap(shares))
    if node.wants(0):
        deliver(node, 0, where(a_loses, 0.0, dz), True)
    if node.wants(1):
        deliver(node, 1, where(b_loses, 0.0, dz), True)
    return 0


# z = min(a, b)    da = 0 where a > b, dz / 2 where a = b, else dz; db the same with b > a. Where
# either is NaN both get dz.

cpdef Tensor minimum(a, b):
    """The smaller of a and b, element by element, with broadcasting; NaN where either is. Ties
    share the gradient.

    Args:
        a, b: Tensors, arrays or numbers of one dtype, whose shapes broadcast.

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not broadcast.

    >>> import minigrad as mg
    >>> mg.minimum(mg.Tensor([1.0, 5.0]), 3)
    Tensor([1., 3.])
    """
    return extreme(a, b, mg_map2_minimum, minimum_rule, "minimum")

cdef int minimum_rule(Node node, Tensor dz) except -1:
    a, b = saved(node, 0)._array, saved(node, 1)._array
    return extreme_rule(node, dz, b < a, a < b, a == b)


# y = min(max(x, low), high)           dx = dy where low <= x <= high, else 0

# Doubles from here on are infinite as float32: half a unit in the last place above the largest.
cdef double BEYOND_FLOAT32 = 3.4028235677973366e38


cdef object clip_bound(object bound, object array, str name):
    """A bound as the input's dtype has it: infinite where that cannot hold it."""
    cdef double value = (
        bound if type(bound) is float else checks.real("clip", name, bound, "a number or None")
    )
    if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT64:
        return value
    if fabs(value) >= BEYOND_FLOAT32:
        return copysign(INFINITY, value)
    return <float>value


def clip(x, low=None, high=None) -> Tensor:
    """x with what is below `low` or above `high` (numbers, or None for no bound) replaced by the
    bound.

    The gradient passes where low <= x <= high, the bounds belong to it. If low is above high the
    result is high everywhere and no gradient passes; a bound that is NaN makes everything NaN. A
    bound that float32 cannot hold is infinite for a float32 x.

    Args:
        x: Of any shape.
        low: The lower bound, a number or None. Default: None.
        high: The upper bound, a number or None. Default: None.

    Raises:
        TypeError: A bound is not a number.

    >>> import minigrad as mg
    >>> mg.clip(mg.Tensor([-2.0, 0.5, 3.0]), -1, 1)
    Tensor([-1. ,  0.5,  1. ])
    """
    cdef Tensor t = as_input(x, "clip"), y
    if low is None and high is None:
        raise ValueError("clip: low and high must not both be None")
    array = t._array
    low = None if low is None else clip_bound(low, array, "low")
    high = None if high is None else clip_bound(high, array, "high")
    y = wrap(np.asarray(np.clip(array, low, high)))
    if tracked(t):
        crossed = low is not None and high is not None and low > high
        within = np.zeros_like(array, bool) if crossed else y._array == array
        record1(y, clip_rule, "clip", t).extra = np.asarray(within)
    return y


cdef int clip_rule(Node node, Tensor dy) except -1:
    return node.give(0, where(node.extra, dy, 0.0), True)


for _function in (clip, maximum, minimum):
    install(_function.__name__, _function)
