"""The recurrent layers that run whole sequences in C: RNN, LSTM, GRU, several layers deep, in one
direction or both.

A layer is a stack of cells of cells.py: the cells hold the weights, and the layer runs them over
the sequence by recurrent.pyx instead of op by op. Both forms compute the same; sequence.unroll runs
a cell op by op. What is added here: the checks of what a layer is called with, stacking, merging
the two directions, dropout between layers.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, overload

import numpy as np

from minigrad.checks import check_memory, flag, probability, size
from minigrad.core.tensor import Tensor, zeros
from minigrad.nn.cell import Cell, HiddenState, Weights
from minigrad.nn.fused import (
    Telemetry,
    checked_clip,
    checked_lengths,
    checked_reset,
    room_for_directions,
    sequence,
)
from minigrad.nn.module import Module, tensor_of
from minigrad.nn.sequence import checked_merge, merge_directions, unroll
from minigrad.ops.shape import adjoin, stack
from minigrad.random import dropout, dropout_mask

S = TypeVar("S", bound=tuple[Tensor, ...])  # the state: HiddenState or CellState

MAX_LAYERS = 10_000


class _Recurrent(Module, Generic[S]):
    """What RNN, LSTM and GRU share: everything but the cell."""

    State: ClassVar[Any] = HiddenState
    cell_type: ClassVar[type]

    if TYPE_CHECKING:  # With merge=None the output is a pair of Tensors, which no type says.

        @overload
        def __call__(
            self,
            x: Any,
            state: Any = None,
            lengths: Any = None,
            reset: Any = None,
            trace: Literal[False] = False,
        ) -> tuple[Tensor, S]: ...

        @overload
        def __call__(
            self,
            x: Any,
            state: Any = None,
            lengths: Any = None,
            reset: Any = None,
            *,
            trace: bool,
        ) -> tuple[Tensor, S, list[dict[str, Any]]]: ...

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __init__(
        self,
        make_cell: Callable[[int], Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        merge: Any,
        dropout: float,
        recurrent_dropout: float,
        checkpoint: str | None,
        clip_state_grad: float | None,
    ) -> None:
        self.op = op = type(self).__name__
        self.input_size, self.hidden_size = (
            size(op, "input_size", input_size),
            size(op, "hidden_size", hidden_size),
        )
        self.num_layers = size(op, "num_layers", num_layers)
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"{op}: num_layers must be at most {MAX_LAYERS}, got {num_layers}")
        self.bidirectional = flag(op, "bidirectional", bidirectional)
        self.merge = checked_merge(op, merge)
        self.dropout = probability(op, "dropout", dropout)
        self.recurrent_dropout = probability(op, "recurrent_dropout", recurrent_dropout)
        if checkpoint is not None and not (isinstance(checkpoint, str) and checkpoint == "sqrt"):
            raise ValueError(f"{op}: checkpoint must be None or 'sqrt', got {checkpoint!r}")
        self.checkpoint = checkpoint
        checked_clip(op, "clip_state_grad", clip_state_grad)
        self.clip_state_grad = clip_state_grad
        self.directions = ("forward", "backward") if self.bidirectional else ("forward",)
        self.cells: list[Cell] = []
        features = self.input_size
        for layer in range(self.num_layers):
            self.cells += [make_cell(features) for _ in self.directions]
            if layer == 0 and self.num_layers > 1:
                features = self._merged_size()
                parameters = (features + self.hidden_size) * self.hidden_size * len(self.directions)
                check_memory(op, self.num_layers * parameters, f"num_layers = {self.num_layers}")
        self.telemetry: list[Telemetry] = []

    def _merged_size(self) -> int:
        """The features that a layer hands to the next one."""
        if not self.bidirectional:
            return self.hidden_size
        probe = zeros((1, 1, self.hidden_size), self.cells[0].W.dtype)
        merged = self._merged([probe, probe], self._merge_of(last=False))
        return int(merged.shape[-1])

    def _merged(self, outputs: list[Tensor], merge: Any) -> Any:
        """The outputs of the two directions as one; a function of the user's must return a Tensor
        of as many steps and rows."""
        forward, backward = outputs
        merged = merge_directions(forward, backward, merge)
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

    def _merge_of(self, last: bool) -> Any:
        """How a layer merges: None keeps the last layer's two outputs apart, those of the layers
        below it are concatenated."""
        return "concat" if self.merge is None and not last else self.merge

    # -- checks: all of them before anything runs

    def _check_input(self, x: Any) -> Any:
        dtype = self.cells[0].W.dtype
        if not isinstance(x, Tensor):
            x = tensor_of(self.op, "x", x, dtype)
        if x.dtype != dtype:
            raise TypeError(
                f"{self.op}: x has dtype {x.dtype}, the weights have {dtype}: convert the input with x.astype('{dtype}') "
                f"or make the layer with dtype={x.dtype}"
            )
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(
                f"{self.op}: x must have shape (T, B, {self.input_size}) = (time, batch, input_size), got {x.shape}"
            )
        return x

    def _check_state(self, state: Any, B: int) -> tuple[Tensor, ...]:
        names = self.State._fields
        if isinstance(state, Tensor) and len(names) == 1:
            state = (state,)
        if not isinstance(state, tuple) or len(state) != len(names):
            expected = "(h0, c0)" if len(names) == 2 else "h0"
            raise TypeError(
                f"{self.op}: state must be {expected}, each of shape (num_layers * directions, batch, hidden_size), "
                f"got {type(state).__name__}"
                + (f" of length {len(state)}" if isinstance(state, tuple) else "")
            )
        shape = (len(self.cells), B, self.hidden_size)
        checked = []
        for name, value in zip(names, state, strict=True):
            if not isinstance(value, Tensor):
                raise TypeError(f"{self.op}: {name}0 must be a Tensor, got {type(value).__name__}")
            if value.dtype != self.cells[0].W.dtype:
                raise TypeError(
                    f"{self.op}: {name}0 has dtype {value.dtype}, the weights have {self.cells[0].W.dtype}"
                )
            if value.shape != shape:
                leading = "num_layers * 2" if self.bidirectional else "num_layers"
                raise ValueError(
                    f"{self.op}: {name}0 must have shape {shape} = ({leading}, batch, hidden_size), got {value.shape}"
                )
            checked.append(value)
        return tuple(checked)

    def _check_layer(self) -> None:
        """What a user may have changed since the layer was made."""
        if len(self.cells) != self.num_layers * len(self.directions):
            expected = self.num_layers * len(self.directions)
            raise ValueError(
                f"{self.op}: cells must be {expected} = num_layers * directions, got {len(self.cells)}"
            )
        for k, cell in enumerate(self.cells):
            if type(cell) is not self.cell_type or getattr(cell, "layer_norm", False):
                got = "one with layer_norm" if type(cell) is self.cell_type else type(cell).__name__
                raise TypeError(
                    f"{self.op}: cells[{k}] must be a plain {self.cell_type.__name__}, whose "
                    f"formulas the fused layer computes, got {got}: run other cells with nn.unroll"
                )

    # -- running

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Any = None,
        reset: Any = None,
        trace: bool = False,
    ) -> tuple[Any, ...]:
        """Run the layer over x (T, B, input_size); return out (T, B, features) and the state after
        each sequence's own end.

        state: as returned, or None for zeros. lengths: B integers from 0 to T in any order: steps
        past a row's length are not computed, their output is zero, and whatever x holds there, even
        NaN, changes nothing. reset: bool (T, B): row b starts anew, from zeros, before step t, and
        no gradient passes. trace=True returns a third value: for each layer and direction a dict of
        read-only arrays (T, B, H): the gates by name, "c" and "h". Where no step runs (T = 0, B =
        0, all lengths 0) the output is empty or zero, the final state is the initial one, and x and
        the weights get a gradient of zeros.
        """
        self._check_layer()
        x, trace = self._check_input(x), flag(self.op, "trace", trace)
        T, B, _ = x.shape
        states = None if state is None else self._check_state(state, B)
        lengths = None if lengths is None else checked_lengths(self.op, lengths, T, B)
        reset = None if reset is None else checked_reset(self.op, reset, T, B)
        if self.clip_state_grad is not None:
            checked_clip(self.op, "clip_state_grad", self.clip_state_grad)
        finals, traces = [], []
        vars(self)[
            "telemetry"
        ] = []  # as an attribute it would be checked like one that a user sets
        for layer in range(self.num_layers):
            last, outputs = layer == self.num_layers - 1, []
            merge = self._merge_of(last) if self.bidirectional else None
            concatenated = self.bidirectional and merge == "concat"
            room, halves = (
                room_for_directions(x, self.hidden_size) if concatenated else (None, [None] * 2)
            )
            for d, direction in enumerate(self.directions):
                k = layer * len(self.directions) + d
                initial: Any = (
                    [None] * 2
                    if states is None
                    else [s[k] for s in states] + [None] * (2 - len(states))
                )
                reverse = direction == "backward"
                h0, c0 = initial
                out, *final = self._run(
                    self.cells[k], x, h0, c0, lengths, reset, reverse, layer, trace, halves[d]
                )
                if trace:
                    traces.append(final.pop() | {"h": out.numpy()})
                outputs.append(out)
                finals.append(final)
            if room is not None:
                x = adjoin(room, outputs)
            else:
                x = self._merged(outputs, merge) if self.bidirectional else outputs[0]
            if self.dropout and not last:
                x = dropout(x, self.dropout, self.training)
        state = self.State(*map(stack, zip(*finals, strict=True)))
        return (x, state, traces) if trace else (x, state)

    def _run(
        self,
        cell: Cell,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        lengths: np.ndarray | None,
        reset: np.ndarray | None,
        reverse: bool,
        layer: int,
        trace: bool,
        out: Tensor | None,
    ) -> tuple[Any, ...]:
        mask = None
        if self.recurrent_dropout and self.training:
            mask = dropout_mask((x.shape[1], self.hidden_size), self.recurrent_dropout, x.dtype)
        telemetry = Telemetry(layer, "backward" if reverse else "forward")
        self.telemetry.append(telemetry)

        def composed(
            x: Tensor, h0: Tensor | None, c0: Tensor | None, *weights: Any
        ) -> tuple[Any, ...]:
            state = None if h0 is None else (h0, c0) if len(self.State._fields) == 2 else h0
            out, state = unroll(
                cell,
                x,
                state,
                lengths=lengths,
                reset=reset,
                reverse=reverse,
                mask=mask,
                weights=Weights(*weights),
            )
            return (out, *(state if isinstance(state, tuple) else (state,)))

        return sequence(
            cell.kind,
            x,
            h0,
            c0,
            cell.W,
            cell.U,
            cell.b,
            cell.p,
            mask=mask,
            lengths=lengths,
            reset=reset,
            reverse=reverse,
            checkpoint=self.checkpoint == "sqrt",
            clip=self.clip_state_grad,
            telemetry=telemetry,
            composed=composed,
            trace=trace,
            out=out,
        )

    def first_nonfinite(self) -> dict[str, Any] | None:
        """Where the first value that is not finite arose in the last forward pass, also one within
        no_grad(), and in the backward pass after it: pass, layer, direction, step, row, gate (see
        Telemetry); or None. A value that came in not finite, in x, a state or a weight, counts
        where it is first used, also where a saturated gate hides it. A backward pass with
        create_graph=True is not looked at."""
        places = [t.nonfinite for t in self.telemetry if t.nonfinite]
        forward = [place for place in places if place["pass"] == "forward"]
        return forward[0] if forward else places[-1] if places else None
