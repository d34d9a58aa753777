"""Activations that are made of other ops: gelu, silu, elu and leaky_relu.

Each is its formula. Its gradient, of first and of higher order, is that of its parts. Activations
with a kernel of their own (tanh, sigmoid, relu, softplus) are in elementwise.pyx.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minigrad import checks
from minigrad.core.operands import as_tensor
from minigrad.core.tensor import Tensor, install
from minigrad.ops.bounds import clip
from minigrad.ops.elementwise import sigmoid, where
from minigrad.ops.special import expm1, normal_cdf

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["elu", "gelu", "leaky_relu", "silu"]


def gelu(x: Operand, approximate: str = "none") -> Tensor:
    """x times the probability that a standard normal number is below x (Hendrycks and Gimpel 2016).

    Args:
        x: Of any shape.
        approximate: "none" (the default) for x (1 + erf(x / sqrt 2)) / 2; "tanh" for
            x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, which is within 5e-4 of it.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or approximate is not a str.
        ValueError: approximate is another word.

    >>> import minigrad as mg
    >>> mg.gelu(mg.Tensor([-1.0, 0.0, 1.0]))
    Tensor([-0.15865526,  0.        ,  0.8413447 ])
    """
    approximate = checks.choice("gelu", "approximate", approximate, ("none", "tanh"))
    x = as_tensor(x, "gelu")
    if approximate == "none":
        return x * normal_cdf(x)
    # (1 + tanh u) / 2 = sigmoid(2 u) keeps its digits where it is small. It is exactly 0 or 1 long
    # before |x| = 32; from there on x^3 would only overflow.
    near = clip(x, -32, 32)
    return x * sigmoid(near * (near * near * 0.044715 + 1) * math.sqrt(8 / math.pi))


def silu(x: Operand) -> Tensor:
    """x sigmoid(x), also called swish.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.silu(mg.Tensor([-1.0, 0.0, 1.0]))
    Tensor([-0.26894143,  0.        ,  0.7310586 ])
    """
    x = as_tensor(x, "silu")
    return x * sigmoid(x)


def elu(x: Operand, alpha: float = 1.0) -> Tensor:
    """x above 0, alpha (e ** x - 1) elsewhere (Clevert, Unterthiner and Hochreiter 2015).

    Args:
        x: Of any shape.
        alpha: A finite number: minus the value far to the left, and the gradient at 0. Default: 1.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or alpha is not a number.
        ValueError: alpha is not finite.

    >>> import minigrad as mg
    >>> mg.elu(mg.Tensor([-1.0, 0.0, 1.0]))
    Tensor([-0.63212055,  0.        ,  1.        ])
    """
    x = as_tensor(x, "elu")
    alpha = checks.number("elu", "alpha", alpha, -math.inf, ends="()")
    above = x > 0
    return where(above, x, expm1(where(above, 0.0, x)) * alpha)


def leaky_relu(x: Operand, negative_slope: float = 0.01) -> Tensor:
    """x above 0, negative_slope times x elsewhere (Maas, Hannun and Ng 2013).

    Args:
        x: Of any shape.
        negative_slope: A finite number, which is also the gradient at 0. Default: 0.01.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or negative_slope is not a number.
        ValueError: negative_slope is not finite.

    >>> import minigrad as mg
    >>> mg.leaky_relu(mg.Tensor([-1.0, 0.0, 1.0]), 0.1)
    Tensor([-0.1,  0. ,  1. ])
    """
    x = as_tensor(x, "leaky_relu")
    slope = checks.number("leaky_relu", "negative_slope", negative_slope, -math.inf, ends="()")
    return where(x > 0, x, x * slope)


for _function in (gelu, silu, elu, leaky_relu):
    install(_function.__name__, _function)
