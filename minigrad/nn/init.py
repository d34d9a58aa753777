"""Initial values of weights."""

from typing import Any

import numpy as np

from minigrad.random import default_generator

__all__ = ["check_rng", "glorot", "numbers", "orthogonal"]


def orthogonal(rng: np.random.Generator, n: int) -> np.ndarray:
    """An (n, n) orthogonal matrix, uniformly distributed: Q of a QR decomposition, signs fixed by
    R's diagonal (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


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


def glorot(rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
    """(fan_in, fan_out) numbers, uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio
    2010, equation 16)."""
    bound = np.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, (fan_in, fan_out))
