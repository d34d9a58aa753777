"""Gradient clipping: clip_grad_norm_ and clip_grad_value_."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minigrad.checks import flag, number
from minigrad.core.modes import no_grad
from minigrad.core.tensor import Tensor
from minigrad.optim import step as update
from minigrad.optim.groups import tensors_of

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def _named(
    op: str, parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]]
) -> list[tuple[str, Tensor]]:
    """(what to call it in a message, parameter) for Tensors, or for pairs (name, Tensor) as
    named_parameters gives them."""
    if hasattr(parameters, "__iter__") and not isinstance(parameters, (Tensor, set, frozenset)):
        parameters = list[Any](parameters)
    if (
        isinstance(parameters, list)
        and parameters
        and all(isinstance(p, tuple) and len(p) == 2 for p in parameters)
    ):
        tensors = tensors_of(op, [p for _, p in parameters])
        return [(repr(name), p) for (name, _), p in zip(parameters, tensors, strict=True)]
    return [
        (f"parameter {i}, shape {p.shape},", p) for i, p in enumerate(tensors_of(op, parameters))
    ]


def _norm(gradients: list[Tensor], p: float) -> float:
    """(the sum of |g|^p over all elements)^(1/p), in float64. By minigrad's own kernels: BLAS sums
    in another order on another CPU or number of threads, and the bits of a whole training would
    follow."""
    if p == 2:
        total = _sum(part for g in gradients for part in update.squares(g, 1.0))
        if 1e-200 < total < math.inf:
            return math.sqrt(total)
    with no_grad():
        sizes = [abs(g.astype(np.float64)) for g in gradients if g.size]
        largest = float(np.max([size.max().item() for size in sizes], initial=0.0))  # NaN if any is
        if p == math.inf or not 0 < largest < math.inf:
            return largest
        # The largest becomes about 1, by a power of two: no power of it overflows.
        scale = math.ldexp(1.0, min(-math.frexp(largest)[1], 1000))
        total = _sum(((size * scale) ** p).sum().item() for size in sizes) ** (1 / p)
        return float(total / scale)


def _sum(numbers: Iterable[float]) -> float:
    """The sum, rounded once; inf where it overflows."""
    try:
        return math.fsum(numbers)
    except OverflowError:
        return math.inf


def clip_grad_norm_(
    parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = True,
) -> float:
    """Scale all gradients by the same number so that their norm, taken over all of them together,
    is at most `max_norm`.

    The norm is computed in float64 and does not overflow.

    Args:
        parameters: Tensors, or pairs of names and Tensors as `Module.named_parameters` gives them.
            Those without a gradient are left out.
        max_norm: The largest norm allowed, at least 0.
        norm_type: The p of the p-norm, above 0, or inf. Default: 2.
        error_if_nonfinite: Whether a gradient that is infinite or NaN is an error (True, the
            default). With False the gradients are scaled all the same.

    Returns:
        The norm before.

    Raises:
        RuntimeError: A gradient is not finite. The message names the parameter, and nothing has
            changed.
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> p = mg.Tensor([3.0, 4.0], requires_grad=True)
    >>> (p * p).sum().backward()
    >>> mg.optim.clip_grad_norm_([p], 1.0)
    10.0
    >>> p.grad
    Tensor([0.59999996, 0.7999999 ])
    """
    op = "clip_grad_norm_"
    named = [(name, p.grad) for name, p in _named(op, parameters) if p.grad is not None]
    max_norm, norm_type = (
        number(op, "max_norm", max_norm, ends="[]"),
        number(op, "norm_type", norm_type, ends="(]"),
    )
    flag(op, "error_if_nonfinite", error_if_nonfinite)
    gradients = [g for _, g in named]
    total = _norm(gradients, norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        for name, g in named:
            finite = np.isfinite(g.numpy())
            if not finite.all():
                place = tuple(int(i) for i in np.unravel_index(np.argmin(finite), g.shape))
                raise RuntimeError(
                    f"{op}: the gradient of {name} is not finite: {g.numpy()[place]} at {place}"
                )
        raise RuntimeError(f"{op}: the norm of the gradients is above the largest float64")
    scale = max_norm / (total + 1e-6)
    if not scale >= 1:
        update.scale_(gradients, scale, op)
    return total


def clip_grad_value_(
    parameters: Iterable[Tensor] | Iterable[tuple[str, Tensor]], clip_value: float
) -> None:
    """Replace each element of the gradients above `clip_value` by `clip_value`, and each one below
    -`clip_value` by -`clip_value`.

    Args:
        parameters: Tensors, or pairs of names and Tensors as `Module.named_parameters` gives them.
            Those without a gradient are left out.
        clip_value: The largest absolute value allowed, at least 0.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> p = mg.Tensor([3.0, -4.0], requires_grad=True)
    >>> (p * p).sum().backward()
    >>> mg.optim.clip_grad_value_([p], 7.0)
    >>> p.grad
    Tensor([ 6., -7.])
    """
    op = "clip_grad_value_"
    bound = number(op, "clip_value", clip_value, ends="[]")
    update.clamp_([p.grad for _, p in _named(op, parameters) if p.grad is not None], bound, op)
