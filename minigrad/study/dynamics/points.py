"""Fixed points: states that a step maps to themselves, and whether they are stable."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.checks import number, plain_array, size
from minigrad.core.tensor import Tensor
from minigrad.study.dynamics.closed_form import closed_form
from minigrad.study.dynamics.figures import axes_of, number_of
from minigrad.study.dynamics.run import Array, Step, checked_network, checked_place

__all__ = ["FixedPoints", "fixed_points"]

# Levenberg-Marquardt: the damping at the start, its bounds, and its factor for a step that lowers
# the speed and for one that does not. It is in units of the largest element of A^T A, or of 1, so
# that the least one lets no singular A through.
DAMPING, LEAST, MOST = 1e-3, 1e-13, 1e12
DOWN, UP = 0.1, 10.0
# Below this speed a point stands still to rounding.
STANDS_STILL = 1e-31


@dataclass(frozen=True, eq=False, repr=False)
class FixedPoints:
    """The fixed points of a step, those with the fewest unstable directions first.

    Attributes:
        points: (K, n), the states.
        speeds: (K,), q = 1/2 |F(s) - s|^2 of each.
        eigenvalues: (K, n), complex, of the Jacobian there, the largest modulus first.
        stable: (K,), bool, whether all of them are inside the unit circle: states nearby come
            closer.
        starts: (K,), how many of the start states ended there.
        left_over: how many start states ended at no fixed point: at a speed above the tolerance.

    >>> import minigrad as mg
    >>> unit = mg.nn.RNN(1, 1, dtype="float64")
    >>> with mg.no_grad():
    ...     unit.cells[0].U[...] = 0.5
    >>> found = mg.study.dynamics.fixed_points(unit, np.zeros((3, 1)))
    >>> found
    FixedPoints: 1 point, 1 stable, n = 1, from 3 start states (0 left over)
       unstable   |eigenvalue|       speed   starts
              0         0.5000     0.0e+00        3
    """

    points: Array
    speeds: Array
    eigenvalues: NDArray[np.complex128]
    stable: NDArray[np.bool_]
    starts: NDArray[np.int64]
    left_over: int

    @property
    def unstable_directions(self) -> NDArray[np.int64]:
        """The number of eigenvalues on or outside the unit circle, (K,)."""
        return np.asarray((np.abs(self.eigenvalues) >= 1).sum(axis=1), np.int64)

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        K, n = self.points.shape
        total = int(self.starts.sum()) + self.left_over
        lines = [
            f"FixedPoints: {number_of(K, 'point')}, {int(self.stable.sum())} stable, n = {n}, "
            f"from {number_of(total, 'start state')} ({self.left_over} left over)"
        ]
        if K:
            lines.append("   unstable   |eigenvalue|       speed   starts")
        for k in range(min(K, 30)):
            largest = abs(self.eigenvalues[k, 0])
            lines.append(
                f"  {self.unstable_directions[k]:9d} {largest:14.4f} {self.speeds[k]:11.1e} "
                f"{self.starts[k]:8d}"
            )
        if K > 30:
            lines.append(f"  ... and {K - 30} more")
        return "\n".join(lines)

    def plot(self, ax: Any = None) -> Any:
        """Draw the eigenvalues in the complex plane, with the unit circle; return the Axes.

        Args:
            ax: where to draw. Default: a new figure.
        """
        ax = axes_of("plot", ax)
        angle = np.linspace(0, 2 * np.pi, 200)
        ax.plot(np.cos(angle), np.sin(angle), color="0.6", linewidth=1, label="unit circle")
        for stable, label in ((False, "of unstable points"), (True, "of stable points")):
            values = self.eigenvalues[self.stable == stable].ravel()
            color = "C3" if stable else "C0"
            ax.scatter(values.real, values.imag, s=14, color=color, label=label)
        ax.set(xlabel="real part", ylabel="imaginary part", title="Eigenvalues at the fixed points")
        ax.set_aspect("equal", adjustable="datalim")
        ax.legend()
        return ax


def fixed_points(
    network: Any,
    states: Any,
    input: Any = None,
    *,
    layer: int = 0,
    direction: str = "forward",
    count: int = 256,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
    tolerance: float = 1e-12,
    distance: float = 1e-4,
    margin: float = 1.0,
    iterations: int = 200,
) -> FixedPoints:
    """The fixed points F(s) = s of a step F under a constant input.

    From each of many start states, such as those of a trajectory, the speed

        q(s) = 1/2 |F(s) - s|^2

    is minimised (Sussillo and Barak, Opening the black box: low-dimensional dynamics in
    high-dimensional recurrent neural networks, Neural Computation 25, 2013; their q is
    1/2 |dx/dt|^2, and F(s) - s is what a step adds to the state). The method is that of Levenberg
    and Marquardt: with r = F(s) - s and A = J - 1 a step solves (A^T A + mu) ds = -A^T r, with a
    smaller mu after each step that lowers q and a larger one after each that does not. So unstable
    points are found as well as stable ones.

    Ends closer to each other than `distance` are one point. A higher tolerance also returns slow
    points, where the state moves, but little. Not every fixed point need be found: more starts find
    more.

    Args:
        network: an RNN, an LSTM or a GRU.
        states: the start states, (..., n), n as in `jacobians`. States of NaN, which `trajectories`
            has past a row's length, are left out.
        input: the input of the layer in all steps, (features,). Default: zeros.
        layer: which layer, from 0 up to num_layers - 1. Default: 0, the first one.
        direction: "forward" (default) or, in a network of both directions, "backward".
        count: take at most so many of the start states, at random. Default: 256.
        noise: add normal noise of this standard deviation to them. Default: 0.0.
        rng: a numpy.random.Generator for the choice and the noise. Default: one with the seed 0.
        tolerance: the largest speed that counts as standing still. Default: 1e-12.
        distance: see above; the largest difference of an element. Default: 1e-4.
        margin: how far the search may leave the range that the start states span, element by
            element. Default: 1.0. Far out a GRU whose gate z is 1 to rounding stands still
            anywhere: such points say nothing about the states that it takes.
        iterations: of the minimisation at most. Default: 200.

    Returns:
        A FixedPoints with points, speeds, eigenvalues and stability.

    Raises:
        TypeError: network is no recurrent layer, or an argument has the wrong type.
        ValueError: an argument has the wrong shape or is outside its range, there is no start
            state, or the network is in training mode with dropout.

    A unit with h' = tanh(2 h) keeps one bit: two stable points, h = 0.9575 and its opposite, and an
    unstable one between them.

    >>> import minigrad as mg
    >>> unit = mg.nn.RNN(1, 1, bias=False, dtype="float64")
    >>> with mg.no_grad():
    ...     unit.cells[0].U[...] = 2.0
    >>> found = mg.study.dynamics.fixed_points(unit, np.linspace(-1, 1, 9)[:, None])
    >>> found.points.ravel().round(4), found.stable
    (array([-0.9575,  0.9575,  0.    ]), array([ True,  True, False]))
    """
    op = "fixed_points"
    network = checked_network(op, network)
    cell = network.cells[checked_place(op, network, layer, direction)]
    n = cell.hidden_size * len(cell.state_names)
    starts = _checked_states(op, states, n)
    x = _checked_input(op, input, cell.input_size)
    count, iterations = size(op, "count", count), size(op, "iterations", iterations)
    noise, tolerance = number(op, "noise", noise), number(op, "tolerance", tolerance)
    distance, margin = number(op, "distance", distance), number(op, "margin", margin)
    if rng is None:
        rng = np.random.default_rng(0)
    elif not isinstance(rng, np.random.Generator):
        raise TypeError(f"{op}: rng must be a numpy.random.Generator, got {type(rng).__name__}")
    if len(starts) > count:
        starts = starts[np.sort(rng.choice(len(starts), count, replace=False))]
    if noise:
        starts = starts + noise * rng.standard_normal(starts.shape)
    step = Step(cell, x)
    low, high = starts.min(axis=0) - margin, starts.max(axis=0) + margin
    ends, speeds = _minimise(step, starts, low, high, iterations)
    still = speeds <= tolerance
    points, speeds, starts_of = _distinct(ends[still], speeds[still], distance)
    _, J = _residual_and_jacobian(step, points)
    eigenvalues = np.linalg.eigvals(J).astype(np.complex128).reshape(len(points), n)
    order = np.argsort(-np.abs(eigenvalues), axis=1, kind="stable")
    eigenvalues = np.take_along_axis(eigenvalues, order, 1)
    unstable = (np.abs(eigenvalues) >= 1).sum(axis=1)
    by = np.lexsort((*points.T[::-1].round(6), unstable))
    return FixedPoints(
        points[by],
        speeds[by],
        eigenvalues[by],
        unstable[by] == 0,
        starts_of[by],
        int((~still).sum()),
    )


def _checked_states(op: str, states: Any, n: int) -> Array:
    values = states.numpy() if isinstance(states, Tensor) else plain_array(op, "states", states)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{op}: states must hold real numbers, got {values.dtype}")
    if values.ndim < 1 or values.shape[-1] != n:
        raise ValueError(
            f"{op}: states must have shape (..., {n}) = (..., state), got {values.shape}"
        )
    rows = values.reshape(-1, n).astype(np.float64)
    rows = rows[~np.isnan(rows).all(axis=1)]
    if not np.isfinite(rows).all():
        raise ValueError(f"{op}: states must be finite, got NaN or infinity")
    if not len(rows):
        raise ValueError(f"{op}: states must hold at least one state, got {values.shape}")
    return rows


def _checked_input(op: str, input: Any, features: int) -> Array:
    if input is None:
        return np.zeros(features)
    values = input.numpy() if isinstance(input, Tensor) else plain_array(op, "input", input)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{op}: input must hold real numbers, got {values.dtype}")
    if values.shape != (features,):
        raise ValueError(
            f"{op}: input must have shape ({features},) = (features of the layer's input,), "
            f"got {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{op}: input must be finite, got NaN or infinity")
    return values.astype(np.float64)


def _residual_and_jacobian(step: Step, states: Array) -> tuple[Array, Array]:
    """F(s) - s and the Jacobian of F, for each state."""
    new, values, before = step(states)
    return new - states, closed_form(step.cell, values, before)


def _minimise(
    step: Step, states: Array, low: Array, high: Array, iterations: int
) -> tuple[Array, Array]:
    """The states between low and high where q is least, from each start, and the speeds q there."""
    states = states.copy()
    n = states.shape[1]
    damping = np.full(len(states), DAMPING)
    r, J = _residual_and_jacobian(step, states)
    speeds = 0.5 * (r**2).sum(axis=1)
    for _ in range(iterations):
        moving = np.flatnonzero((speeds > STANDS_STILL) & (damping < MOST))
        if not len(moving):
            break
        A = J[moving] - np.eye(n)
        transposed = A.swapaxes(1, 2)
        normal = transposed @ A
        unit = np.maximum(1.0, np.abs(normal).max(axis=(1, 2)))
        normal += (damping[moving] * unit)[:, None, None] * np.eye(n)
        ds = -np.linalg.solve(normal, transposed @ r[moving, :, None])[:, :, 0]
        tried = states[moving] + ds
        r_tried, J_tried = _residual_and_jacobian(step, tried)
        tried_speeds = 0.5 * (r_tried**2).sum(axis=1)
        within = ((low <= tried) & (tried <= high)).all(axis=1)
        better = within & (tried_speeds < speeds[moving])
        kept = moving[better]
        states[kept], speeds[kept] = tried[better], tried_speeds[better]
        r[kept], J[kept] = r_tried[better], J_tried[better]
        damping[moving] *= np.where(better, DOWN, UP)
        damping = np.maximum(damping, LEAST)
    return states, speeds


def _distinct(
    ends: Array, speeds: Array, distance: float
) -> tuple[Array, Array, NDArray[np.int64]]:
    """The ends that are further than `distance` from those of a lower speed, with their speeds, and
    how many ends each stands for."""
    chosen: list[int] = []
    counts: list[int] = []
    for k in np.argsort(speeds, kind="stable"):
        apart = np.abs(ends[chosen] - ends[k]).max(axis=1, initial=0.0)
        if len(chosen) and apart.min() <= distance:
            counts[int(apart.argmin())] += 1
        else:
            chosen.append(int(k))
            counts.append(1)
    return ends[chosen], speeds[chosen], np.asarray(counts, np.int64)
