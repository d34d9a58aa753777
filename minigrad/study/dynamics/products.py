"""Products of many Jacobians: their singular values and the Lyapunov exponents.

A product of T steps, P = J_T ... J_1, stretches the state like e^(lambda T): after some thousand
steps its numbers are outside of float64's range, and long before its columns all look the same. So
P is never formed. It is kept as

    P = Q R,   R = D X     Q orthogonal; R upper triangular, as D = diag(e^d) and rows X of size 1

and a step is J Q = Q' R_t (a QR factorisation), R' = R_t D X. Logarithms d of any size are no
problem, and the singular values of P are those of D X.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.checks import flag, integer
from minigrad.core.tensor import Tensor
from minigrad.nn.arguments import checked_lengths
from minigrad.study.dynamics.figures import axes_of, number_of
from minigrad.study.dynamics.run import Array

__all__ = ["Lyapunov", "SingularValues", "lyapunov", "singular_values"]

# Products that are decomposed at once hold at most so many numbers.
CHUNK = 2**20
# Two groups of singular values count as apart if the entries between them are below this.
NEGLIGIBLE = 1e-17
# A group whose singular values differ by a factor of e^100 at most goes to LAPACK. Its matrix is
# triangular with rows in the order of their size, for which LAPACK finds the small values as
# exactly as the large ones: 1e-12 in the logarithm, against a computation with 400 digits.
SPREAD = 100.0
# Passes at most. A pass divides the entry between two values by their ratio, so that after 30 a
# group holds no neighbours of a ratio above 4.
PASSES = 30


def _checked_jacobians(op: str, J: Any) -> Array:
    if not isinstance(J, (np.ndarray, Tensor)):
        raise TypeError(f"{op}: J must be an array, got {type(J).__name__}")
    values = J.numpy() if isinstance(J, Tensor) else J
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{op}: J must hold real numbers, got {values.dtype}")
    if values.ndim != 4 or values.shape[2] != values.shape[3] or not values.shape[3]:
        raise ValueError(
            f"{op}: J must have shape (T, B, n, n) = (time, batch, state, state), "
            f"got {values.shape}"
        )
    if not np.isfinite(values).all():
        t, b = np.argwhere(~np.isfinite(values).all(axis=(2, 3)))[0]
        raise ValueError(f"{op}: J must be finite, got NaN or infinity in J[{t}, {b}]")
    return values.astype(np.float64)


def _log(values: NDArray[Any]) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))


# ---------------------------------------------------------------- singular values


@dataclass(frozen=True, eq=False, repr=False)
class SingularValues:
    """The singular values of products of Jacobians.

    Attributes:
        log: (T, B, n), their natural logarithms, the largest first; -inf for the value 0. log[t]
            belongs to the product of the steps 0 to t, or with backward=True of t to T - 1.
        backward: which of the two.

    >>> import minigrad as mg
    >>> mg.study.dynamics.singular_values(np.tile(np.eye(2), (7, 3, 1, 1)))
    SingularValues of the products of 7 steps, from the first to each step: 3 rows, n = 2
      all steps, mean of the rows: largest e^0, smallest e^0
    """

    log: Array
    backward: bool = False

    @property
    def whole(self) -> Array:
        """The logarithms for the product of all steps, (B, n)."""
        return np.asarray(self.log[0 if self.backward else -1])

    def __repr__(self) -> str:
        T, B, n = self.log.shape
        steps = "from each step to the last" if self.backward else "from the first to each step"
        lines = [
            f"SingularValues of the products of {number_of(T, 'step')}, {steps}: "
            f"{number_of(B, 'row')}, n = {n}"
        ]
        if self.log.size:
            largest, smallest = self.whole[:, 0].mean(), self.whole[:, -1].mean()
            lines.append(
                f"  all steps, mean of the rows: largest e^{largest:.4g}, smallest e^{smallest:.4g}"
            )
        return "\n".join(lines)

    def plot(self, ax: Any = None, row: int = 0, count: int = 10) -> Any:
        """Draw the largest singular values over the steps, as powers of ten; return the Axes.

        Args:
            ax: where to draw. Default: a new figure.
            row: whose. Default: 0.
            count: how many. Default: 10.
        """
        row = integer("plot", "row", row, 0, self.log.shape[1] - 1)
        count = integer("plot", "count", count, 1)
        ax = axes_of("plot", ax)
        ax.plot(self.log[:, row, :count] / np.log(10))
        span = "from step t to the last" if self.backward else "from the first step to t"
        ax.set(
            xlabel="step t", ylabel="log₁₀ of the singular value", title=f"Product of steps, {span}"
        )
        return ax


def singular_values(J: Any, backward: bool = False) -> SingularValues:
    """The singular values of the products of 1, 2, ..., T steps, of any length, by QR.

    The largest one bounds what the steps make of a change of the state, and of a gradient on its
    way back: |dL/ds_t| <= sigma_max(J_{T-1} ... J_{t+1}) |dL/ds_{T-1}|, if the loss depends on the
    last state alone. The sum of all logarithms is the sum of log |det J|.

    Each value has a small relative error, however far apart they are: the factors of P are kept
    with logarithmic scales, and QR factorisations of P and its transpose in turn separate values of
    different size. This is Rutishauser's LR algorithm for P^T P, which Stewart takes to long
    products (A new algorithm for the SVD of a long product of matrices and the stability of
    products, Electronic Transactions on Numerical Analysis 5, 1997). What is left are groups of
    values of similar size, which LAPACK decomposes.

    Args:
        J: the steps, (T, B, n, n), as `jacobians` returns them: the first one comes first.
        backward: False (default): the products J_t ... J_0 from the first step on. True: the
            products J_{T-1} ... J_t, which a gradient meets on its way back.

    Returns:
        A SingularValues with `log`, (T, B, n).

    Raises:
        TypeError: J is no array of numbers.
        ValueError: J has the wrong shape, or is not finite.

    >>> J = np.tile(np.diag([2.0, 0.5]), (10_000, 1, 1, 1))
    >>> import minigrad as mg
    >>> mg.study.dynamics.singular_values(J).whole / np.log(2)
    array([[ 10000., -10000.]])
    """
    op = "singular_values"
    J = _checked_jacobians(op, J)
    if flag(op, "backward", backward):
        # The singular values of J_{T-1} ... J_t are those of its transpose.
        return SingularValues(_of_prefixes(J.swapaxes(2, 3)[::-1])[::-1], True)
    return SingularValues(_of_prefixes(J))


def _of_prefixes(J: Array) -> Array:
    """The logarithms for J_0, J_1 J_0, J_2 J_1 J_0, ..., (T, B, n)."""
    T, B, n, _ = J.shape
    logs = np.empty((T, B, n))
    Q = X = np.broadcast_to(np.eye(n), (B, n, n))
    d = np.zeros((B, n))
    chunk = max(1, CHUNK // max(1, B * n * n))
    for first in range(0, T, chunk):
        last = min(first + chunk, T)
        scales, rows = np.empty((last - first, B, n)), np.empty((last - first, B, n, n))
        for t in range(first, last):
            Q, R = np.linalg.qr(J[t] @ Q)
            d, X = _multiply(R, d, X)
            scales[t - first], rows[t - first] = d, X
        logs[first:last] = _of_scaled(scales.reshape(-1, n), rows.reshape(-1, n, n)).reshape(
            last - first, B, n
        )
    return logs


def _multiply(R: Array, d: Array, X: Array) -> tuple[Array, Array]:
    """R diag(e^d) X as diag(e^d') X' with rows of size 1, or of zeros with d' = -inf."""
    size = np.where(R == 0, -np.inf, d[..., None, :])
    largest = size.max(axis=-1)  # of the terms of each row
    base = np.where(np.isfinite(largest), largest, 0.0)
    rows = (R * np.exp(size - base[..., None])) @ X
    return _normalised(base, rows)


def _normalised(d: Array, X: Array) -> tuple[Array, Array]:
    """The same matrix diag(e^d) X with rows of size 1, or of zeros with d = -inf."""
    size = np.abs(X).max(axis=-1)
    return d + _log(size), X / np.where(size == 0, 1.0, size)[..., None]


def _of_scaled(d: Array, X: Array) -> Array:
    """The logarithms of the singular values of N matrices diag(e^d) X, (N, n).

    A pass: with rows in the order of d, X^T = Q R gives diag(e^d) X = (Q R diag(e^d))^T, which has
    the singular values of R diag(e^d) = diag(e^d) X', where X'_ij = R_ij e^(d_j - d_i). This X' is
    upper triangular, so d_j <= d_i wherever it is not 0: nothing overflows. Its entries between
    values of different size get smaller with each pass.
    """
    N, n = d.shape
    logs = np.empty((N, n))
    left = np.arange(N)  # the matrices whose groups are not known yet
    for last_pass in [False] * PASSES + [True]:
        order = np.argsort(-d, axis=1, kind="stable")
        d = np.take_along_axis(d, order, 1)
        X = np.take_along_axis(X, order[:, :, None], 1)
        R = np.linalg.qr(X.swapaxes(1, 2), mode="r")
        with np.errstate(invalid="ignore"):  # -inf - (-inf), of rows of zeros
            ratio = np.exp(np.minimum(d[:, None, :] - d[:, :, None], 0.0))
        X = np.triu(R * np.nan_to_num(ratio))
        d, X = _normalised(d, X)
        apart = _apart(X)
        done = np.full(len(d), last_pass) | (_largest_spread(d, apart) <= SPREAD)
        logs[left[done]] = _of_groups(d[done], X[done], apart[done])
        left, d, X = left[~done], d[~done], X[~done]
        if not len(left):
            break
    return -np.sort(-logs, axis=1)


def _apart(X: Array) -> NDArray[np.bool_]:
    """(N, n - 1): no entry of the upper triangular X joins the first k + 1 rows to the others."""
    n = X.shape[1]
    apart = np.empty((len(X), n - 1), bool)
    for k in range(n - 1):
        apart[:, k] = (np.abs(X[:, : k + 1, k + 1 :]) <= NEGLIGIBLE).all(axis=(1, 2))
    return apart


def _largest_spread(d: Array, apart: NDArray[np.bool_]) -> Array:
    """The largest difference of the scales within a group, (N,); values of 0 count as apart."""
    largest = np.zeros(len(d))
    start = d[:, 0]
    for k in range(1, d.shape[1]):
        start = np.where(apart[:, k - 1], d[:, k], start)
        with np.errstate(invalid="ignore"):
            spread = np.nan_to_num(np.abs(start - d[:, k]), nan=0.0, posinf=0.0)
        largest = np.maximum(largest, spread)
    return largest


def _of_groups(d: Array, X: Array, apart: NDArray[np.bool_]) -> Array:
    """The logarithms of the singular values, group by group, (N, n)."""
    logs = np.empty_like(d)
    bounds = np.concatenate([np.ones((len(d), 1), bool), apart, np.ones((len(d), 1), bool)], axis=1)
    groups: dict[tuple[int, int], list[int]] = {}
    for row, bound in enumerate(bounds):
        edges = np.flatnonzero(bound)
        for i, j in zip(edges[:-1], edges[1:], strict=True):
            groups.setdefault((int(i), int(j)), []).append(row)
    for (i, j), rows in groups.items():
        scale, block = d[rows, i:j], X[rows, i:j, i:j]
        base = scale.max(axis=1, keepdims=True)
        base = np.where(np.isfinite(base), base, 0.0)
        matrix = np.exp(scale - base)[:, :, None] * block
        logs[rows, i:j] = base + _log(np.linalg.svd(matrix, compute_uv=False))
    return logs


# ---------------------------------------------------------------- Lyapunov exponents


@dataclass(frozen=True, eq=False, repr=False)
class Lyapunov:
    """Lyapunov exponents of a sequence of Jacobians.

    Attributes:
        exponents: (B, k), the mean of the logarithms over the steps, the largest first: a change of
            the state grows like e^(exponent t). -inf where a step maps it to 0.
        growth: (T, B, k), the logarithm of how much each step stretches in each direction.
        warm: the first steps, which the mean leaves out.

    >>> import minigrad as mg
    >>> mg.study.dynamics.lyapunov(np.tile(np.diag([1.5, 0.25]), (1000, 1, 1, 1)))
    Lyapunov: 2 exponents of 1 row, per step, over 1000 steps
      mean of the rows: 0.4055, -1.386
    """

    exponents: Array
    growth: Array = field(repr=False)
    warm: int = 0

    def __repr__(self) -> str:
        T, B, k = self.growth.shape
        shown = ", ".join(f"{e:.4g}" for e in self.exponents.mean(axis=0)[:5])
        more = ", ..." if k > 5 else ""
        return (
            f"Lyapunov: {number_of(k, 'exponent')} of {number_of(B, 'row')}, per step, over "
            f"{number_of(T - self.warm, 'step')}\n  mean of the rows: {shown}{more}"
        )

    def plot(self, ax: Any = None, row: int = 0) -> Any:
        """Draw the exponents, the largest first; return the Axes.

        Args:
            ax: where to draw. Default: a new figure.
            row: whose. Default: 0.
        """
        row = integer("plot", "row", row, 0, len(self.exponents) - 1)
        ax = axes_of("plot", ax)
        ax.axhline(0, color="0.6", linewidth=1)
        ax.plot(range(1, self.exponents.shape[1] + 1), self.exponents[row], "o-", markersize=4)
        ax.set(xlabel="number", ylabel="exponent, 1 / step", title="Lyapunov exponents")
        return ax


def lyapunov(J: Any, count: int | None = None, warm: int = 0, lengths: Any = None) -> Lyapunov:
    """The Lyapunov exponents of a sequence of steps, by QR.

    `count` directions are carried along, J_t Q = Q' R_t, and the mean of log |R_ii| is the exponent
    i (Benettin, Galgani, Giorgilli and Strelcyn, Lyapunov characteristic exponents, Meccanica 15,
    1980). A positive exponent says that small changes of the state grow: chaos. With count = n the
    sum of the exponents is the mean of log |det J|.

    Args:
        J: the steps, (T, B, n, n), as `jacobians` returns them: the first one comes first.
        count: how many exponents, the largest first. Default: all n.
        warm: leave out the first steps, in which the directions turn to their places. Default: 0.
        lengths: (B,) ints, the steps of each row that count, each above `warm`. Default: T for all.

    Returns:
        A Lyapunov with `exponents`, (B, count).

    Raises:
        TypeError: J is no array of numbers, or an argument is of the wrong type.
        ValueError: an argument has the wrong shape or is outside its range, or J is not finite.

    >>> import minigrad as mg
    >>> J = np.tile(np.diag([1.5, 0.25]), (1000, 1, 1, 1))
    >>> mg.study.dynamics.lyapunov(J).exponents
    array([[ 0.40546511, -1.38629436]])
    """
    op = "lyapunov"
    J = _checked_jacobians(op, J)
    T, B, n, _ = J.shape
    k = n if count is None else integer(op, "count", count, 1, n)
    warm = integer(op, "warm", warm, 0)
    ends = np.full(B, T) if lengths is None else checked_lengths(op, lengths, T, B)
    shortest = T if lengths is None else int(ends.min(initial=T))
    if warm >= shortest:
        raise ValueError(
            f"{op}: warm must be below the number of steps, {shortest}, so that at least one is "
            f"left, got {warm}"
        )
    growth = np.zeros((T, B, k))
    Q = np.broadcast_to(np.eye(n)[:, :k], (B, n, k))
    for t in range(T):
        Q, R = np.linalg.qr(J[t] @ Q)
        growth[t] = _log(np.abs(np.diagonal(R, axis1=1, axis2=2)))
    counted = np.arange(T)[:, None] < ends
    counted[:warm] = False
    total = np.where(counted[:, :, None], growth, 0.0).sum(axis=0)
    return Lyapunov(-np.sort(-total / (ends - warm)[:, None], axis=1), growth, warm)
