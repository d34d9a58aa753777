"""What a fused layer tells about its passes: the norms of gradients over time, and where the first
value that is not finite arose.

fused.pyx runs the kernels and asks here once it knows that something is not finite; nothing here is
called otherwise, so it may be slow.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Place",
    "Rows",
    "Telemetry",
    "bad_rows",
    "first_in_backward",
    "first_in_forward",
]

Array = NDArray[Any]


class Telemetry:
    """What one layer and direction tells about its last forward and backward pass.

    layer, direction: which one, e.g. 0 and "forward".
    dh_norm, dc_norm: arrays (T,), the norm of the loss's gradient with respect to h_t and (LSTM)
    c_t over all rows, for each step; None before backward. A backward pass with create_graph=True
    leaves them as they are.
    nonfinite: where the first value that is not finite arose, known after forward and again after
    backward, e.g. ``{"pass": "backward", "layer": 0, "direction": "forward", "step": 3, "row": 0,
    "gate": "f"}``, or None. The gate is one of the cell's gates, "c" or "h"; or "x", "h0", "c0",
    "W", "U", "b", "p" for what came in, or for its gradient, where no gate shows it: an infinite
    input behind a saturated gate, say. Step and row are those where the value is first used; both
    are None for the gradient of a weight, and the step is None for the state of a row of length 0.
    """

    def __init__(self, layer: int = 0, direction: str = "forward") -> None:
        self.layer, self.direction = layer, direction
        self.dh_norm: Array | None = None
        self.dc_norm: Array | None = None
        self.nonfinite: dict[str, Any] | None = None

    def found(self, run: str, step: int | None, row: int | None, gate: str) -> None:
        """Note the place of the first value that is not finite."""
        self.nonfinite = {
            "pass": run,
            "layer": self.layer,
            "direction": self.direction,
            "step": step,
            "row": row,
            "gate": gate,
        }

    def __repr__(self) -> str:
        return (
            f"Telemetry(layer={self.layer}, direction={self.direction!r}, "
            f"dh_norm={self.dh_norm}, dc_norm={self.dc_norm}, nonfinite={self.nonfinite})"
        )


class Place(NamedTuple):
    """A value that is not finite: see Telemetry.nonfinite."""

    step: int | None
    row: int | None
    gate: str


class Rows(NamedTuple):
    """Which rows take part in which steps."""

    T: int
    ends: Array  # (B,): the lengths of the rows
    reverse: bool

    def order(self, steps: Array) -> Array:
        """The numbers of steps in the order of processing."""
        return self.T - 1 - steps if self.reverse else steps

    def alive(self) -> Array:
        """Does row b take part in step t? bool (T, B)."""
        return np.arange(self.T)[:, None] < self.ends

    def first_steps(self) -> Array:
        """The step in which each row starts, (B,); of no meaning for a row of length 0."""
        return self.ends - 1 if self.reverse else np.zeros_like(self.ends)


def bad_rows(array: Array) -> Array:
    """Which of the last axis's rows hold a value that is not finite?"""
    return np.asarray(~np.isfinite(array).all(axis=-1))


def first_in_forward(
    rows: Rows,
    h: Array,
    x: Array,
    states: dict[str, Array | None],
    weights: dict[str, Array | None],
    reset: Array | None,
) -> Place | None:
    """Where, in the order of processing, the first value that is not finite was used or made.

    Args:
        rows: the rows and steps of the pass.
        h, x: the outputs (T, B, H) and the inputs (T, B, I).
        states: the initial states (B, H) by name; None for zeros.
        weights: the weights by name; None for one that is not there.
        reset: (T, B), not 0 where a row started anew, or None.

    Returns:
        The place, with "h" for the gate if the value arose in the step, else with the name of what
        came in; or None. Within a step h comes first, then x, the states and the weights.
    """
    alive = rows.alive()
    starts = np.zeros(alive.shape, bool)
    some = np.flatnonzero(rows.ends > 0)
    starts[rows.first_steps()[some], some] = True
    if reset is not None:
        starts &= reset == 0
    uses = {"h": bad_rows(h), "x": bad_rows(x)}
    uses |= {name: starts & bad_rows(state) for name, state in states.items() if state is not None}
    uses |= {
        name: alive
        for name, weight in weights.items()
        if weight is not None and not np.isfinite(weight).all()
    }
    found = []
    for rank, (name, bad) in enumerate(uses.items()):
        steps, at = np.nonzero(bad & alive)
        if len(steps):
            order = rows.order(steps)
            first = np.lexsort((at, order))[0]
            place = Place(int(steps[first]), int(at[first]), name)
            found.append((int(order[first]), place.row, rank, place))
    if found:
        return min(found)[-1]
    for name, state in states.items():
        if state is not None:
            for row in np.flatnonzero(bad_rows(state) & (rows.ends == 0)):
                return Place(None, int(row), name)
    return None


def first_in_backward(
    rows: Rows,
    dh: Array | None,
    dh_norm2: Array,
    dx: Array | None,
    states: dict[str, Array | None],
    weights: dict[str, Array | None],
) -> Place | None:
    """Where, in the order of the backward pass, the first gradient that is not finite arose, if no
    gradient of a gate shows it: in the gradient of an output, of which relu may have dropped some,
    or in one made of the gates' gradients.

    Args:
        rows: the rows and steps of the pass.
        dh: the gradient of the outputs (T, B, H), or None for zeros.
        dh_norm2: the squared norm of the gradient of h over the rows of each step, (T,).
        dx: the gradient of the inputs (T, B, I), or None.
        states, weights: the gradients of the initial states (B, H) and of the weights by name;
            None for one that is not wanted.

    Returns:
        The place, or None.
    """
    if dh is not None:
        doubtful = np.flatnonzero(~np.isfinite(dh_norm2))
        for step in doubtful if rows.reverse else doubtful[::-1]:
            for row in np.flatnonzero((step < rows.ends) & bad_rows(dh[step])):
                return Place(int(step), int(row), "h")
    if dx is not None:
        steps, at = np.nonzero(bad_rows(dx))
        if len(steps):
            first = np.lexsort((at, -rows.order(steps)))[0]
            return Place(int(steps[first]), int(at[first]), "x")
    for name, state in states.items():
        if state is not None:
            for row in np.flatnonzero(bad_rows(state)):
                step = int(rows.first_steps()[row]) if rows.ends[row] else None
                return Place(step, int(row), name)
    for name, weight in weights.items():
        if weight is not None and not np.isfinite(weight).all():
            return Place(None, None, name)
    return None
