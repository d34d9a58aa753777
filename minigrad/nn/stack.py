"""Cells stacked in layers and directions: what all recurrent layers share.

The checks of what a layer is called with, the order of layers and directions, merging the two
directions, dropout between layers. How one cell runs over a sequence is the business of the classes
that derive from Stack: in C in fused_stack.py, by a loop over any cell in recurrent.py.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from minigrad.checks import flag, integer, probability, size
from minigrad.core.operands import zeros
from minigrad.core.tensor import Tensor
from minigrad.nn.arguments import Steps, checked_clip
from minigrad.nn.cell import Cell, check_tensor
from minigrad.nn.module import Module
from minigrad.nn.sequence import Joining, Merge, check_merge, merge_directions
from minigrad.ops.join import stack
from minigrad.random import dropped

__all__ = ["MAX_LAYERS", "LayerState", "Stack", "Trace"]

MAX_LAYERS = 10_000

# What a layer returns as its last state: a named tuple with a field for each of the cells' states.
LayerState = TypeVar("LayerState", bound=tuple[Tensor, ...])
Trace = dict[str, NDArray[Any]]  # arrays over time, by name


class Stack(Module, Generic[LayerState]):
    """What recurrent layers share: layers on top of each other, each in one direction or both.

    `cells` holds for each layer the forward cell and, if bidirectional, the backward one.
    """

    op: str
    cells: list[Any]
    hidden_size: int
    num_layers: int
    bidirectional: bool
    merge: Merge
    dropout: float
    recurrent_dropout: float
    clip_state_grad: float | None

    def _new_state(self, states: list[Tensor]) -> LayerState:
        """A state of this layer, as a call returns it."""
        raise NotImplementedError(f"{self.op} has no _new_state")

    def _check_options(self) -> None:
        """The options that all layers have, and the directions."""
        self.op = op = type(self).__name__
        self.num_layers = size(op, "num_layers", self.num_layers)
        integer(op, "num_layers", self.num_layers, 1, MAX_LAYERS)
        self.bidirectional = flag(op, "bidirectional", self.bidirectional)
        check_merge(op, self.merge)
        self.dropout = probability(op, "dropout", self.dropout)
        self.recurrent_dropout = probability(op, "recurrent_dropout", self.recurrent_dropout)
        checked_clip(op, "clip_state_grad", self.clip_state_grad)
        self.directions = ("forward", "backward") if self.bidirectional else ("forward",)

    def _merged_size(self) -> int:
        """The features that a layer hands to the next one."""
        if not self.bidirectional:
            return self.hidden_size
        probe = zeros((1, 1, self.hidden_size), self.cells[0]._dtype)
        return int(self._merged([probe, probe], self._joining()).shape[-1])

    def _joining(self) -> Joining:
        """How the layers below the last one merge: with merge=None they concatenate."""
        return "concat" if self.merge is None else self.merge

    def _merged(self, outputs: list[Tensor], merge: Merge) -> Any:
        """The outputs of the two directions as one, or as a pair; a function of the user's must
        return a Tensor of as many steps and rows."""
        merged = merge_directions(outputs[0], outputs[1], merge)
        if callable(merge):
            T, B, _ = outputs[0].shape
            if not isinstance(merged, Tensor):
                raise TypeError(
                    f"{self.op}: merge must return a Tensor, got {type(merged).__name__}"
                )
            if merged.ndim != 3 or merged.shape[:2] != (T, B) or not merged.shape[2]:
                raise ValueError(
                    f"{self.op}: merge must return the shape ({T}, {B}, features) = "
                    f"(time, batch, features), got {merged.shape}"
                )
        return merged

    # -- checks: all of them before anything runs

    def _checked_state(self, state: Any, B: int) -> tuple[Tensor, ...]:
        """The state that a layer is called with, with a leading axis over layers and directions."""
        cell: Cell[Any] = self.cells[0]
        names = cell.state_names
        if isinstance(state, Tensor) and len(names) == 1:
            state = (state,)
        leading = "num_layers * 2" if self.bidirectional else "num_layers"
        rest = "batch, hidden_size" if cell._has_plain_states() else "*the shape of initial(batch)"
        if not isinstance(state, tuple) or len(state) != len(names):
            expected = "h0" if names == ("h",) else f"({', '.join(f'{name}0' for name in names)})"
            got = type(state).__name__
            if isinstance(state, tuple):
                got += f" of length {len(state)}"
            raise TypeError(
                f"{self.op}: state must be {expected}, each of shape "
                f"(num_layers * directions, {rest}), got {got}"
            )
        for name, value, (shape, dtype) in zip(names, state, cell._state_specs(B), strict=True):
            expected_shape = (len(self.cells), *shape)
            check_tensor(self.op, f"{name}0", value, dtype, expected_shape, f"({leading}, {rest})")
        return state

    def _check_layer(self) -> None:
        """What a user may have changed since the layer was made."""
        expected = self.num_layers * len(self.directions)
        if len(self.cells) != expected:
            raise ValueError(
                f"{self.op}: cells must be {expected} = num_layers * directions, "
                f"got {len(self.cells)}"
            )
        checked_clip(self.op, "clip_state_grad", self.clip_state_grad)
        if self.dropout:
            probability(self.op, "dropout", self.dropout)
        if self.recurrent_dropout:
            probability(self.op, "recurrent_dropout", self.recurrent_dropout)

    # -- running

    def _run(
        self,
        x: Tensor,
        states: tuple[Tensor, ...] | None,
        steps: Steps,
        traces: list[Trace] | None = None,
    ) -> tuple[Any, LayerState]:
        """All layers: the output of the last one, and the last states of all."""
        finals: list[list[Tensor]] = []
        out: Any = x
        for layer in range(self.num_layers):
            out = self._run_layer(layer, out, states, steps, finals, traces)
            if self.dropout and layer < self.num_layers - 1:
                out = dropped(self.op, out, self.dropout, self.training, None)
        return out, self._new_state([stack(parts) for parts in zip(*finals, strict=True)])

    def _run_layer(
        self,
        layer: int,
        x: Tensor,
        states: tuple[Tensor, ...] | None,
        steps: Steps,
        finals: list[list[Tensor]],
        traces: list[Trace] | None,
    ) -> Any:
        """The merged output of one layer; its final states and traces are appended."""
        raise NotImplementedError(f"{self.op} has no _run_layer")

    def _merge_of(self, layer: int) -> Merge:
        """How a layer merges its directions."""
        return self.merge if layer == self.num_layers - 1 else self._joining()
