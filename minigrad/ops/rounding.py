"""Functions that are constant between their jumps: sign, floor, ceil and round.

Their gradient is 0 everywhere, at the jumps too, and never infinite or NaN. It is a gradient all
the same: what lies behind such an op gets zeros, not None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad import checks
from minigrad.core.operands import as_tensor
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor, install
from minigrad.ops.elementwise import where

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["ceil", "floor", "round", "sign"]


# y = sign x, floor x, ceil x, round x        dx = 0


def no_gradient(dy: Tensor) -> Tensor:
    """Zeros, which are also the derivative of themselves."""
    return where(False, dy, 0.0)


def constant_in_pieces(name: str, x: Tensor, values: Any) -> Tensor:
    """The array `values`, computed from x, as an op whose gradient is 0."""
    y: Tensor = record(name, np.asarray(values), (x,), no_gradient)
    return y


def sign(x: Operand) -> Tensor:
    """1 above 0, -1 below, 0 at 0; NaN stays NaN. The gradient is 0.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.sign(mg.Tensor([-2.5, 0.0, 3.0]))
    Tensor([-1.,  0.,  1.])
    """
    x = as_tensor(x, "sign")
    return constant_in_pieces("sign", x, np.sign(x.numpy()))


def floor(x: Operand) -> Tensor:
    """The largest whole number that is not above x. The gradient is 0.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.floor(mg.Tensor([-1.5, 1.5]))
    Tensor([-2.,  1.])
    """
    x = as_tensor(x, "floor")
    return constant_in_pieces("floor", x, np.floor(x.numpy()))


def ceil(x: Operand) -> Tensor:
    """The smallest whole number that is not below x. The gradient is 0.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.ceil(mg.Tensor([-1.5, 1.5]))
    Tensor([-1.,  2.])
    """
    x = as_tensor(x, "ceil")
    return constant_in_pieces("ceil", x, np.ceil(x.numpy()))


def round(x: Operand, decimals: int = 0) -> Tensor:
    """The nearest whole number, the even one of two that are equally near. The gradient is 0.

    Python's own round(x) makes a number of a Tensor with one element.

    Args:
        x: Of any shape.
        decimals: An int from -300 to 300, to round to a multiple of 10 ** -decimals; then x times
            10 ** decimals is what is rounded, in float64. Default: 0.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or decimals is not an int.
        ValueError: decimals is out of its range.

    >>> import minigrad as mg
    >>> mg.round(mg.Tensor([0.5, 1.5, 2.6]))
    Tensor([0., 2., 3.])
    >>> mg.round(mg.Tensor([1.234, 128.0]), -1)
    Tensor([  0., 130.])
    """
    x = as_tensor(x, "round")
    decimals = checks.integer("round", "decimals", decimals, -300, 300)
    array = x.numpy()
    if decimals == 0:
        return constant_in_pieces("round", x, np.rint(array))
    power = 10.0 ** abs(decimals)
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
        if decimals < 0:
            rounded = np.rint(wide / power) * power
        else:
            scaled = wide * power
            rounded = np.where(np.isfinite(scaled), np.rint(scaled) / power, wide)
        return constant_in_pieces("round", x, rounded.astype(array.dtype))


for _function in (sign, floor, ceil, round):
    install(_function.__name__, _function)
