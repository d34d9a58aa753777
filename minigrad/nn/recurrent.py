"""Layers of any cell: Recurrent runs yours as RNN, LSTM and GRU run theirs, by a loop of steps."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from minigrad.checks import size
from minigrad.core.tensor import Tensor
from minigrad.nn.arguments import Steps, checked_clip
from minigrad.nn.cell import Cell, CellState, HiddenState
from minigrad.nn.sequence import Merge, check_cell, unroll_steps
from minigrad.nn.stack import Stack, Trace
from minigrad.random import dropout_mask

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["Recurrent"]


class Recurrent(Stack[Any]):
    """A recurrent layer of any cell: several layers, both directions, dropout.

    A call takes sequences x (T, B, input_size) and returns the outputs (T, B, features) and the
    last state; `forward` says more. The cells are in the list `cells`: for each layer the forward
    one and, if bidirectional, the backward one.

    Args:
        cell_factory: makes a cell for inputs with so many features: ``cell_factory(features)``. It
            is called once for each layer and direction. All cells must have one hidden_size, and
            states of the same names and shapes.
        input_size: features of the input, I.
        num_layers: layers on top of each other. Default: 1.
        bidirectional: run each layer from both ends of the sequence. Default: False.
        merge: how the outputs of two directions, each (T, B, H), become one: "concat" (default) to
            (T, B, 2 H), "sum", "mean", "mul", a function of both that returns (T, B, features), or
            None for a pair of outputs.
        dropout: probability of dropout between layers, from 0 to 1. Default: 0.0.
        recurrent_dropout: probability of dropout on what the cell's `masked` is given, with one
            mask for the whole sequence. Default: 0.0.
        clip_state_grad: at every step back in time clip each element of the gradient of the state
            to this bound (slide: gradient clipping). Such a gradient cannot be differentiated
            again (create_graph=True). Default: None, no clipping.

    Raises:
        TypeError: an argument is of the wrong type, or cell_factory returns no nn.Cell.
        ValueError: an argument is outside its range, or the cells do not fit each other.

    >>> import minigrad as mg
    >>> layer = mg.nn.Recurrent(lambda features: mg.nn.GRUCell(features, 4), 3, num_layers=2)
    >>> out, (h,) = layer(mg.ones((5, 2, 3)), lengths=[5, 2])
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 2, 4))
    """

    def __init__(
        self,
        cell_factory: Callable[[int], Cell[Any]],
        input_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: Merge = "concat",
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        *,
        clip_state_grad: float | None = None,
    ) -> None:
        self.num_layers, self.bidirectional, self.merge = num_layers, bidirectional, merge
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        self.clip_state_grad = clip_state_grad
        self._check_options()
        if not callable(cell_factory):
            raise TypeError(
                f"{self.op}: cell_factory must be a function of the number of features, "
                f"got {type(cell_factory).__name__}"
            )
        self.input_size = features = size(self.op, "input_size", input_size)
        self.cells: list[Cell[Any]] = []
        for layer in range(self.num_layers):
            for _ in self.directions:
                self.cells.append(self._new_cell(cell_factory, features))
            if layer == 0:
                self.hidden_size = self.cells[0].hidden_size
                features = self._merged_size()
        state_type(self.cells[0].state_names)  # from now on files that hold one can be loaded

    def _new_state(self, states: list[Tensor]) -> tuple[Tensor, ...]:
        return state_type(self.cells[0].state_names)(*states)

    def _new_cell(self, cell_factory: Callable[[int], Cell[Any]], features: int) -> Cell[Any]:
        """A cell for so many features, if it fits the first one."""
        cell = cell_factory(features)
        check_cell(self.op, "what cell_factory returns", cell)
        if cell.input_size not in (None, features):
            raise ValueError(
                f"{self.op}: cell_factory({features}) must return a cell for {features} features, "
                f"got input_size {cell.input_size}"
            )
        if any(cell is other for other in self.cells):
            raise ValueError(f"{self.op}: cell_factory must return a new cell at each call")
        first = self.cells[0] if self.cells else cell
        for what in ("hidden_size", "state_names", "_dtype"):
            if getattr(cell, what) != getattr(first, what):
                raise ValueError(
                    f"{self.op}: all cells must have one {what.lstrip('_')}, "
                    f"got {getattr(first, what)} and {getattr(cell, what)}"
                )
        return cell

    def forward(
        self,
        x: Operand,
        state: tuple[Tensor, ...] | Tensor | None = None,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[Any, Any]:
        """Run the layer over sequences.

        Args:
            x: (T, B, input_size), of the dtype of the weights.
            state: the state to start from, as a call returned it. Default: that of the cells'
                `initial`, zeros unless they say otherwise.
            lengths: (B,) ints from 0 to T, in any order. Steps past a row's length are not
                computed, their output is zero, and whatever x holds there, even NaN, changes
                nothing. Default: T for all.
            reset: bool (T, B): row b starts anew before step t, and no gradient passes. Default:
                nowhere.

        Returns:
            The output (T, B, features) and the state after each sequence's own end: a named tuple
            with a Tensor (num_layers * directions, B, ...) for each of the cell's `state_names`.

        Raises:
            TypeError: an argument is of the wrong type or dtype.
            ValueError: an argument has the wrong shape, or a length is outside 0 to T.
        """
        self._check_layer()
        for k, cell in enumerate(self.cells):
            check_cell(self.op, f"cells[{k}]", cell)
        found = self.cells[0]._checked_sequence(self.op, x)
        T, B, features = found.shape
        if features != self.input_size:
            raise ValueError(
                f"{self.op}: x must have shape (T, B, {self.input_size}) = "
                f"(time, batch, input_size), got {found.shape}"
            )
        states = None if state is None else self._checked_state(state, B)
        return self._run(found, states, Steps(self.op, T, B, lengths, reset))

    def _run_layer(
        self,
        layer: int,
        x: Tensor,
        states: tuple[Tensor, ...] | None,
        steps: Steps,
        finals: list[list[Tensor]],
        traces: list[Trace] | None,
    ) -> Any:
        bound = checked_clip(self.op, "clip_state_grad", self.clip_state_grad)
        outputs = []
        for d, direction in enumerate(self.directions):
            k = layer * len(self.directions) + d
            cell = self.cells[k]
            if states is None:
                start = cell._checked_states(self.op, None, steps.B)
            else:
                start = tuple(s[k] for s in states)
            mask = None
            if self.recurrent_dropout and self.training:
                shape = (steps.B, cell.hidden_size)
                mask = Tensor(dropout_mask(shape, self.recurrent_dropout, x.dtype))
            out, after = unroll_steps(cell, x, start, steps, direction == "backward", mask, bound)
            outputs.append(out)
            finals.append(list(after))
        return self._merged(outputs, self._merge_of(layer)) if self.bidirectional else outputs[0]

    def options(self) -> str:
        """What is shown of the layer."""
        shown = [str(self.input_size), str(self.hidden_size)]
        if self.num_layers > 1:
            shown.append(f"num_layers={self.num_layers}")
        if self.bidirectional:
            shown.append("bidirectional=True")
        return ", ".join(shown)


@functools.cache
def state_type(names: tuple[str, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """The class of a layer's state: a named tuple with a field for each name, and `detach`."""
    if names == ("h",):
        return HiddenState
    if names == ("h", "c"):
        return CellState
    return type("RecurrentState", (namedtuple("_Fields", names), _Detachable), {})


class _Detachable(tuple[Tensor, ...]):
    """What the states of one's own cells have besides their fields."""

    def detach(self) -> Any:
        """The same values, cut from the graph: for truncated BPTT."""
        return type(self)(*(state.detach() for state in self))
