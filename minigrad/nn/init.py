"""Initial values of weights, as arrays: for the library's own layers and for yours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minigrad.checks import size
from minigrad.core.array import checked_dtype
from minigrad.random import default_generator

__all__ = ["check_rng", "glorot", "numbers", "orthogonal"]


def orthogonal(
    n: int, rng: np.random.Generator | None = None, dtype: DTypeLike = np.float32
) -> np.ndarray:
    """An orthogonal matrix (n, n), uniformly distributed: Q of a QR decomposition, with its signs
    fixed by the diagonal of R (Mezzadri 2007). For recurrent weights: h U is as long as h.

    Args:
        n: rows and columns.
        rng: where the numbers come from. Default: minigrad's generator, see mg.manual_seed.
        dtype: float32 (default) or float64.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: n is below 1.

    >>> import numpy as np, minigrad as mg
    >>> U = mg.nn.init.orthogonal(3, dtype="float64")
    >>> np.allclose(U.T @ U, np.eye(3))
    True
    """
    n = size("orthogonal", "n", n)
    kind = checked_dtype(dtype, "orthogonal")
    q, r = np.linalg.qr(numbers("orthogonal", rng).standard_normal((n, n)))
    return (q * np.sign(np.diag(r))).astype(kind)


def glorot(
    fan_in: int,
    fan_out: int,
    rng: np.random.Generator | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Numbers (fan_in, fan_out), uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio
    2010, equation 16). For input weights.

    Args:
        fan_in: rows, the features that come in.
        fan_out: columns, the features that go out.
        rng: where the numbers come from. Default: minigrad's generator, see mg.manual_seed.
        dtype: float32 (default) or float64.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a size is below 1.

    >>> import minigrad as mg
    >>> W = mg.nn.init.glorot(2, 4)
    >>> W.shape, bool((abs(W) <= 1).all())
    ((2, 4), True)
    """
    rows, columns = size("glorot", "fan_in", fan_in), size("glorot", "fan_out", fan_out)
    kind = checked_dtype(dtype, "glorot")
    bound = np.sqrt(6 / (rows + columns))
    return numbers("glorot", rng).uniform(-bound, bound, (rows, columns)).astype(kind)


def check_rng(op: str, rng: Any) -> None:
    """`rng`, an argument, must be a source of initial weights or None."""
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"{op}: rng must be a numpy.random.Generator or None, got {type(rng).__name__}"
        )


def numbers(op: str, rng: np.random.Generator | None) -> np.random.Generator:
    """The source of initial weights: `rng`, or a stream of minigrad's default generator (see
    manual_seed)."""
    check_rng(op, rng)
    return np.random.Generator(default_generator.stream()) if rng is None else rng
