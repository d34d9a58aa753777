"""The path of the state through its space, and its projection to the axes along which it moves
most."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.checks import integer, plain_array
from minigrad.core.tensor import Tensor
from minigrad.study.dynamics.figures import axes_of, number_of
from minigrad.study.dynamics.points import FixedPoints
from minigrad.study.dynamics.run import Array, run

__all__ = ["Trajectories", "trajectories"]


@dataclass(frozen=True, eq=False, repr=False)
class Trajectories:
    """States over time, and their projection to principal axes.

    Attributes:
        states: (T, B, n), the state after each step; NaN past a row's length.
        projected: (T, B, k), the same along the axes; NaN past a row's length.
        mean: (n,), the mean of all states, where the axes meet.
        axes: (k, n), the axes, each of length 1, the one of the largest variance first. Their
            largest element is positive.
        variance: (k,), the share of the variance along each axis; 0 if the state never moves.

    >>> import minigrad as mg
    >>> mg.study.dynamics.trajectories(mg.nn.RNN(3, 1), mg.ones((5, 2, 3)))
    Trajectories: 5 steps, 2 rows, n = 1
      variance along 1 axis: 100.0%
    """

    states: Array
    projected: Array
    mean: Array
    axes: Array
    variance: Array

    def project(self, states: Any) -> Array:
        """Other states (..., n), such as fixed points, along the same axes: (..., k)."""
        values = states.numpy() if isinstance(states, Tensor) else states
        values = plain_array("project", "states", values)
        n = len(self.mean)
        if values.ndim < 1 or values.shape[-1] != n:
            raise ValueError(
                f"project: states must have shape (..., {n}) = (..., state), got {values.shape}"
            )
        return np.asarray((values - self.mean) @ self.axes.T)

    def __repr__(self) -> str:
        T, B, n = self.states.shape
        shares = " + ".join(f"{share:.1%}" for share in self.variance)
        axes = "1 axis"
        if len(self.axes) > 1:
            axes = f"{len(self.axes)} axes"
            shares += f" = {self.variance.sum():.1%}"
        return (
            f"Trajectories: {number_of(T, 'step')}, {number_of(B, 'row')}, n = {n}\n"
            f"  variance along {axes}: {shares}"
        )

    def plot(self, ax: Any = None, points: FixedPoints | None = None, rows: int = 32) -> Any:
        """Draw the paths along the first two axes, or the first three if the Axes have three
        dimensions; return the Axes.

        Args:
            ax: where to draw. Default: a new figure, of two dimensions.
            points: fixed points to draw too: stable ones filled, others open. Default: none.
            rows: draw at most so many rows. Default: 32.
        """
        rows = integer("plot", "rows", rows, 0)
        if points is not None and not isinstance(points, FixedPoints):
            raise TypeError(f"plot: points must be a FixedPoints, got {type(points).__name__}")
        ax = axes_of("plot", ax)
        dimensions = 3 if hasattr(ax, "get_zlim") else 2
        if len(self.axes) < dimensions:
            raise ValueError(
                f"plot: a picture of {dimensions} dimensions needs as many components, got "
                f"{len(self.axes)}: call trajectories with components={dimensions}"
            )
        for b in range(min(rows, self.states.shape[1])):
            ax.plot(*self.projected[:, b, :dimensions].T, color="C0", linewidth=0.7, alpha=0.5)
        if points is not None:
            for stable, style in (
                (True, {"color": "C3", "label": "stable point", "zorder": 3}),
                (False, {"facecolors": "none", "edgecolors": "black", "label": "unstable point"}),
            ):
                at = self.project(points.points[points.stable == stable])[:, :dimensions]
                if len(at):
                    ax.scatter(*at.T, s=40, **style)
            ax.legend()
        names = [f"axis {k + 1} ({self.variance[k]:.0%})" for k in range(dimensions)]
        labels = dict(zip(("xlabel", "ylabel", "zlabel"), names, strict=False))
        ax.set(title="Path of the state", **labels)
        return ax


def trajectories(
    network: Any,
    x: Any,
    state: Any = None,
    lengths: Any = None,
    reset: Any = None,
    *,
    layer: int = 0,
    direction: str = "forward",
    components: int | None = None,
) -> Trajectories:
    """The states of a layer over time, and their principal components.

    The axes are the right singular vectors of the states of all steps and rows, less their mean.

    Args:
        network: an RNN, an LSTM or a GRU.
        x: the input of the network, (T, B, input_size).
        state: the state to start from, as the network takes it. Default: zeros.
        lengths: (B,) ints from 0 to T. Steps past a row's length have no state. Default: T for all.
        reset: bool (T, B), where a row starts anew before the step. Default: nowhere.
        layer: which layer, from 0 up to num_layers - 1. Default: 0, the first one.
        direction: "forward" (default) or, in a network of both directions, "backward".
        components: the number of axes k, from 1 to n. Default: 3, or n if that is less.

    Returns:
        A Trajectories with states, their projection, and the axes.

    Raises:
        TypeError: network is no recurrent layer, or an argument has the wrong type or dtype.
        ValueError: an argument has the wrong shape or is outside its range, no step runs, or the
            network is in training mode with dropout.

    >>> import minigrad as mg
    >>> path = mg.study.dynamics.trajectories(mg.nn.LSTM(3, 4), mg.ones((5, 2, 3)), components=2)
    >>> path.states.shape, path.projected.shape, path.axes.shape
    ((5, 2, 8), (5, 2, 2), (2, 8))
    """
    op = "trajectories"
    seen = run(op, network, x, state, lengths, reset, layer, direction)
    states = np.concatenate([seen.values[name] for name in seen.cell.state_names], axis=2)
    n = states.shape[2]
    k = min(3, n) if components is None else integer(op, "components", components, 1, n)
    states[~seen.alive] = np.nan
    rows = states[seen.alive]
    if not len(rows):
        T, B = seen.alive.shape
        raise ValueError(f"{op}: there is no step to look at: (T, B) = ({T}, {B})")
    mean = rows.mean(axis=0)
    # The full set of n axes, also where there are fewer states than that.
    _, sizes, axes = np.linalg.svd(rows - mean, full_matrices=len(rows) < n)
    share = np.zeros(n)
    share[: len(sizes)] = sizes**2
    share /= max(share.sum(), np.finfo(np.float64).tiny)
    axes = axes[:k]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], 1)
    axes = axes * np.where(largest < 0, -1.0, 1.0)
    return Trajectories(states, (states - mean) @ axes.T, mean, axes, share[:k])
