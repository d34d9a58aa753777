"""How much a recurrent matrix stretches: its spectral radius and the norms of its powers.

The slide on explosion and vanishing multiplies a gradient n times by W1 transposed. Three numbers
say what this can do to it:

    norm              sigma = max |v A| / |v|, the largest singular value: one product stretches
                      by sigma at most, n by sigma^n
    spectral radius   rho = the largest modulus of an eigenvalue: |A^n|^(1/n) goes to rho
                      (Gelfand); rho <= sigma
    norms of powers   |A^n|: what n products stretch by at most, if nothing stands between them

rho = sigma for normal matrices, as the orthogonal ones that the layers start with are, times any
number. A matrix and its transpose have the same three. All is computed in float64 by LAPACK,
through NumPy.
"""

from typing import Any

import numpy as np

from minigrad.checks import integer, number
from minigrad.core.modes import no_grad
from minigrad.core.tensor import Tensor

__all__ = ["power_norms", "scale_spectral_radius_", "spectral_radius"]


def _matrix(op: str, matrix: Any) -> np.ndarray:
    """The values of a square matrix, in float64."""
    if not isinstance(matrix, (Tensor, np.ndarray)):
        raise TypeError(f"{op}: matrix must be a Tensor or an array, got {type(matrix).__name__}")
    values = matrix.numpy() if isinstance(matrix, Tensor) else matrix
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{op}: matrix must hold real numbers, got {values.dtype}")
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(
            f"{op}: matrix must be square, such as one gate's (hidden_size, hidden_size), "
            f"got shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{op}: matrix must be finite, got NaN or infinity")
    return values.astype(np.float64)


def spectral_radius(matrix: Tensor | np.ndarray) -> float:
    """The largest modulus of an eigenvalue.

    Args:
        matrix: a square matrix (H, H), a Tensor or an array.

    Raises:
        TypeError: matrix is neither, or does not hold real numbers.
        ValueError: matrix is not square, or not finite.

    The eigenvalues here are 2i and -2i:

    >>> import minigrad as mg
    >>> round(mg.nn.spectral_radius(mg.Tensor([[0.0, 2.0], [-2.0, 0.0]])), 6)
    2.0
    """
    return float(np.max(np.abs(np.linalg.eigvals(_matrix("spectral_radius", matrix))), initial=0.0))


def power_norms(matrix: Tensor | np.ndarray, n: int) -> np.ndarray:
    """The norms (largest singular values) of the powers 0 to n: 1, |A|, |A^2|, ..., |A^n|.

    Args:
        matrix: A, a square matrix (H, H), a Tensor or an array.
        n: the highest power, at least 0.

    Returns:
        An array (n + 1,) of float64.

    Raises:
        TypeError: matrix is neither, or does not hold real numbers; n is no int.
        ValueError: matrix is not square, or not finite; n is below 0.

    With a spectral radius of 0.5 they grow first, then shrink:

    >>> import minigrad as mg
    >>> mg.nn.power_norms(mg.Tensor([[0.5, 4.0], [0.0, 0.5]]), 3).round(3)
    array([1.   , 4.062, 4.016, 3.005])
    """
    values = _matrix("power_norms", matrix)
    n = integer("power_norms", "n", n, 0)
    norms, power = [], np.eye(len(values))
    for _ in range(n + 1):
        norms.append(np.linalg.norm(power, 2) if power.size else 0.0)
        power = power @ values
    return np.array(norms)


def scale_spectral_radius_(matrix: Tensor, radius: float) -> Tensor:
    """Multiply a Tensor in place by the number that gives it this spectral radius; return it.

    For a cell with gates give each gate's part: ``scale_spectral_radius_(cell.gate("f").U, 0.9)``.

    Args:
        matrix: a square Tensor (H, H).
        radius: the spectral radius that it gets, at least 0.

    Raises:
        TypeError: matrix is no Tensor; radius is no number.
        ValueError: matrix is not square, not finite, or has the spectral radius 0; radius is
            negative.

    >>> import minigrad as mg
    >>> mg.nn.scale_spectral_radius_(mg.Tensor([[2.0, 1.0], [0.0, 4.0]]), 1.0)
    Tensor([[0.5 , 0.25],
            [0.  , 1.  ]])
    """
    op = "scale_spectral_radius_"
    if not isinstance(matrix, Tensor):
        raise TypeError(f"{op}: matrix must be a Tensor, got {type(matrix).__name__}")
    radius = number(op, "radius", radius)
    values = _matrix(op, matrix)
    present = spectral_radius(values)
    if not present and radius:
        raise ValueError(
            f"{op}: the matrix has the spectral radius 0, no number scales it to {radius}"
        )
    with no_grad():
        matrix[...] = (values * (radius / present if radius else 0.0)).astype(matrix.dtype)
    return matrix
