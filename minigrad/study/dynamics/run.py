"""Running a network to look at it: the checks of arguments, the values of all steps of one layer
and direction, and single steps from any state."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.checks import choice, integer
from minigrad.core.modes import no_grad
from minigrad.core.tensor import Tensor
from minigrad.nn.arguments import checked_lengths, checked_reset
from minigrad.nn.fused import sequence
from minigrad.nn.fused_stack import FusedStack
from minigrad.nn.gated import GatedCell

__all__ = ["Array", "Run", "Step", "Values", "checked_network", "checked_place", "quiet", "run"]

Array = NDArray[np.float64]
Values = dict[str, Array]  # gates and states by name


@dataclass
class Run:
    """The values of one layer and direction over a sequence.

    cell: the weights.
    values: gates by name, "h" and (LSTM) "c" after each step, each (T, B, H); 0 where no step runs.
    before: "h" and (LSTM) "c" before each step, each (T, B, H). Where a row is reset,
        this is what the reset throws away.
    alive: bool (T, B), where a step runs: before the end of its row.
    reset: bool (T, B), where the state is set to zero before the step.
    """

    cell: GatedCell[Any]
    values: Values
    before: Values
    alive: NDArray[np.bool_]
    reset: NDArray[np.bool_]


def checked_network(op: str, network: Any) -> FusedStack[Any]:
    """The network itself, if each call of it computes the same."""
    if not isinstance(network, FusedStack):
        raise TypeError(
            f"{op}: network must be an RNN, an LSTM or a GRU, got {type(network).__name__}"
        )
    if network.training:
        dropouts = {"recurrent_dropout": network.recurrent_dropout}
        if network.num_layers > 1:
            dropouts["dropout"] = network.dropout
        for name, probability in dropouts.items():
            if probability:
                raise ValueError(
                    f"{op}: network has {name} = {probability} and is in training mode, "
                    "where each call draws a new mask: call network.eval() first"
                )
    return network


def checked_place(op: str, network: FusedStack[Any], layer: Any, direction: Any) -> int:
    """The position among the cells of one layer and direction."""
    number = integer(op, "layer", layer, 0, network.num_layers - 1)
    direction = choice(op, "direction", direction, network.directions)
    return number * len(network.directions) + network.directions.index(direction)


def quiet(network: FusedStack[Any]) -> FusedStack[Any]:
    """The same weights in a copy that writes its telemetry to itself, and whose gradients are not
    clipped on their way back."""
    twin = copy.copy(network)
    twin.clip_state_grad = None
    return twin


def run(
    op: str,
    network: Any,
    x: Any,
    state: Any,
    lengths: Any,
    reset: Any,
    layer: Any,
    direction: Any,
) -> Run:
    """Run the network over x and return what happened in one layer and direction."""
    network = checked_network(op, network)
    place = checked_place(op, network, layer, direction)
    cell = network.cells[place]
    with no_grad():
        _, final, traces = quiet(network)(x, state, lengths, reset, trace=True)
    trace = traces[place]
    T, B, _ = trace["h"].shape
    ends = np.full(B, T) if lengths is None else checked_lengths(op, lengths, T, B)
    alive = np.arange(T)[:, None] < ends
    anew = np.zeros((T, B), bool)
    if reset is not None:
        anew = checked_reset(op, reset, T, B) & alive
    values = {
        name: np.where(alive[:, :, None], array, 0).astype(np.float64)
        for name, array in trace.items()
    }
    starts = [np.zeros_like(h.numpy()) for h in final]
    if state is not None:
        starts = [h.numpy() for h in ((state,) if isinstance(state, Tensor) else state)]
    before = {
        name: _before(values[name], start[place], ends, direction == "backward")
        for name, start in zip(cell.state_names, starts, strict=True)
    }
    return Run(cell, values, before, alive, anew)


def _before(
    after: Array,
    start: NDArray[Any],
    ends: NDArray[Any],
    backward: bool,
) -> Array:
    """The state before each step, from those after each step and the one at the start."""
    before = np.zeros_like(after)
    if backward:
        before[:-1] = after[1:]
        rows = np.flatnonzero(ends > 0)
        before[ends[rows] - 1, rows] = start[rows]
    elif len(after):
        before[1:] = after[:-1]
        before[0] = start
    return before


class Step:
    """The map F of one cell from a state to the next one, under a constant input, in float64.

    Args:
        cell: the weights.
        x: the input, (I,).
    """

    def __init__(self, cell: GatedCell[Any], x: Array) -> None:
        self.cell = cell
        self.x = x
        self.weights = [
            None if w is None else Tensor(w.numpy().astype(np.float64)) for w in cell.weights()
        ]

    def __call__(self, states: Array) -> tuple[Array, Values, Values]:
        """F of each state (N, n): the new states (N, n), and the values of the step and the states
        before it by name, each (N, H)."""
        names = self.cell.state_names
        before = dict(zip(names, np.split(states, len(names), axis=1), strict=True))
        h0, c0 = (
            Tensor(np.ascontiguousarray(before[k])) if k in before else None for k in ("h", "c")
        )
        x = Tensor(np.tile(self.x, (1, len(states), 1)))
        with no_grad():
            W, U, b, p = self.weights
            assert W is not None and U is not None
            out, *_, gates = sequence(self.cell.kind, x, h0, c0, W, U, b, p, trace=True)
        values = {name: array[0] for name, array in gates.items()} | {"h": out.numpy()[0]}
        return np.concatenate([values[name] for name in names], axis=1), values, before
