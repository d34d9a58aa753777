"""What RNN, LSTM and GRU share: cells stacked in layers and directions, run in C.

The cells hold the weights; fused.pyx runs each over the whole sequence, with the same results as
the loop of ops in sequence.unroll. What is added here: the checks of what a layer is called with,
stacking, merging the two directions, dropout between layers.
"""

import reprlib
from typing import Any, ClassVar

import numpy as np

from minigrad.checks import check_memory, flag, integer, probability, size
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
from minigrad.nn.sequence import Merge, checked_merge, merge_directions, unroll
from minigrad.ops.shape import adjoin, stack
from minigrad.random import dropout, dropout_mask

MAX_LAYERS = 10_000


class Recurrent(Module):
    """What RNN, LSTM and GRU share: everything but the cell."""

    state_type: ClassVar[type] = HiddenState
    cell_type: ClassVar[type[Cell]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        merge: Merge,
        dropout: float,
        recurrent_dropout: float,
        checkpoint: str | None,
        clip_state_grad: float | None,
        **cell_options: Any,
    ) -> None:
        self.op = op = type(self).__name__
        self.input_size = size(op, "input_size", input_size)
        self.hidden_size = size(op, "hidden_size", hidden_size)
        self.num_layers = integer(
            op, "num_layers", size(op, "num_layers", num_layers), 1, MAX_LAYERS
        )
        self.bidirectional = flag(op, "bidirectional", bidirectional)
        self.merge = checked_merge(op, merge)
        self.dropout = probability(op, "dropout", dropout)
        self.recurrent_dropout = probability(op, "recurrent_dropout", recurrent_dropout)
        if checkpoint is not None and not (isinstance(checkpoint, str) and checkpoint == "sqrt"):
            raise ValueError(
                f"{op}: checkpoint must be None or 'sqrt', got {reprlib.repr(checkpoint)}"
            )
        self.checkpoint = checkpoint
        checked_clip(op, "clip_state_grad", clip_state_grad)
        self.clip_state_grad = clip_state_grad
        self.directions = ("forward", "backward") if self.bidirectional else ("forward",)
        self.cells: list[Cell] = []
        features = self.input_size
        for layer in range(self.num_layers):
            self.cells += [
                self.cell_type(features, self.hidden_size, **cell_options) for _ in self.directions
            ]
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
        return self._merged([probe, probe], self._merge_of(last=False)).shape[-1]

    def _merged(self, outputs: list[Tensor], merge: Any) -> Any:
        """The outputs of the two directions as one; a function of the user's must return a Tensor
        of as many steps and rows."""
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

    def _merge_of(self, last: bool) -> Any:
        """How a layer merges: None keeps the last layer's two outputs apart, those of the layers
        below it are concatenated."""
        return "concat" if self.merge is None and not last else self.merge

    # -- checks: all of them before anything runs

    def _check_input(self, x: Any) -> Tensor:
        dtype = self.cells[0].W.dtype
        if not isinstance(x, Tensor):
            x = tensor_of(self.op, "x", x, dtype)
        if x.dtype != dtype:
            raise TypeError(
                f"{self.op}: x has dtype {x.dtype}, the weights have {dtype}: "
                f"convert the input with x.astype('{dtype}') or make the layer with dtype={x.dtype}"
            )
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(
                f"{self.op}: x must have shape (T, B, {self.input_size}) = "
                f"(time, batch, input_size), got {x.shape}"
            )
        return x

    def _check_state(self, state: Any, B: int) -> tuple[Tensor, ...]:
        names = self.cell_type.state_names
        if isinstance(state, Tensor) and len(names) == 1:
            state = (state,)
        if not isinstance(state, tuple) or len(state) != len(names):
            expected = "(h0, c0)" if len(names) == 2 else "h0"
            got = type(state).__name__
            if isinstance(state, tuple):
                got += f" of length {len(state)}"
            raise TypeError(
                f"{self.op}: state must be {expected}, each of shape "
                f"(num_layers * directions, batch, hidden_size), got {got}"
            )
        shape = (len(self.cells), B, self.hidden_size)
        checked = []
        for name, value in zip(names, state, strict=True):
            if not isinstance(value, Tensor):
                raise TypeError(f"{self.op}: {name}0 must be a Tensor, got {type(value).__name__}")
            if value.dtype != self.cells[0].W.dtype:
                raise TypeError(
                    f"{self.op}: {name}0 has dtype {value.dtype}, "
                    f"the weights have {self.cells[0].W.dtype}"
                )
            if value.shape != shape:
                leading = "num_layers * 2" if self.bidirectional else "num_layers"
                raise ValueError(
                    f"{self.op}: {name}0 must have shape {shape} = "
                    f"({leading}, batch, hidden_size), got {value.shape}"
                )
            checked.append(value)
        return tuple(checked)

    def _check_layer(self) -> None:
        """What a user may have changed since the layer was made."""
        if len(self.cells) != self.num_layers * len(self.directions):
            expected = self.num_layers * len(self.directions)
            raise ValueError(
                f"{self.op}: cells must be {expected} = num_layers * directions, "
                f"got {len(self.cells)}"
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
        """Run the layer over sequences.

        Args:
            x: (T, B, input_size), of the dtype of the weights.
            state: the state to start from, as a call returned it. Default: zeros.
            lengths: (B,) ints from 0 to T, in any order. Steps past a row's length are not
                computed, their output is zero, and whatever x holds there, even NaN, changes
                nothing. Default: T for all.
            reset: bool (T, B): row b starts anew, from zeros, before step t, and no gradient
                passes. Default: nowhere.
            trace: return a third value. Default: False.

        Returns:
            The output (T, B, features) and the state after each sequence's own end, h (and c) of
            shape (num_layers * directions, B, hidden_size). With trace=True also, for each layer
            and direction, a dict of read-only arrays (T, B, H): the gates by name, "c" and "h".
            Where no step runs (T = 0, B = 0, all lengths 0) the output is empty or zero, the final
            state is the initial one, and x and the weights get a gradient of zeros.

        Raises:
            TypeError: an argument is of the wrong type or dtype.
            ValueError: an argument has the wrong shape, or a length is outside 0 to T.
        """
        self._check_layer()
        x, trace = self._check_input(x), flag(self.op, "trace", trace)
        T, B, _ = x.shape
        states = None if state is None else self._check_state(state, B)
        lengths = None if lengths is None else checked_lengths(self.op, lengths, T, B)
        reset = None if reset is None else checked_reset(self.op, reset, T, B)
        if self.clip_state_grad is not None:
            checked_clip(self.op, "clip_state_grad", self.clip_state_grad)
        finals: list[list[Tensor]] = []
        traces: list[dict[str, Any]] = []
        # Not set as an attribute: that would be checked like one that a user sets.
        vars(self)["telemetry"] = []
        for layer in range(self.num_layers):
            x = self._run_layer(layer, x, states, lengths, reset, finals, traces if trace else None)
            if self.dropout and layer < self.num_layers - 1:
                x = dropout(x, self.dropout, self.training)
        state = self.state_type(*map(stack, zip(*finals, strict=True)))
        return (x, state, traces) if trace else (x, state)

    def _run_layer(
        self,
        layer: int,
        x: Tensor,
        states: tuple[Tensor, ...] | None,
        lengths: np.ndarray | None,
        reset: np.ndarray | None,
        finals: list[list[Tensor]],
        traces: list[dict[str, Any]] | None,
    ) -> Any:
        """The merged output of one layer; its final states and traces are appended."""
        merge = self._merge_of(last=layer == self.num_layers - 1) if self.bidirectional else None
        concatenated = self.bidirectional and merge == "concat"
        # For "concat" both directions write into one array, each into its half.
        whole: Tensor | None = None
        halves: list[Any] = [None, None]
        if concatenated:
            whole, halves = room_for_directions(x, self.hidden_size)
        outputs = []
        for d, direction in enumerate(self.directions):
            k = layer * len(self.directions) + d
            h0 = None if states is None else states[0][k]
            c0 = states[1][k] if states is not None and len(states) > 1 else None
            out, *final = self._run(
                self.cells[k],
                x,
                h0,
                c0,
                lengths,
                reset,
                direction == "backward",
                layer,
                traces is not None,
                halves[d],
            )
            if traces is not None:
                traces.append(final.pop() | {"h": out.numpy()})
            outputs.append(out)
            finals.append(final)
        if concatenated:
            return adjoin(whole, outputs)
        return self._merged(outputs, merge) if self.bidirectional else outputs[0]

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
            x: Tensor, h0: Tensor | None, c0: Tensor | None, *weights: Tensor | None
        ) -> tuple[Any, ...]:
            states = (h0, c0)[: len(cell.state_names)]
            out, state = unroll(
                cell,
                x,
                None if h0 is None else cell.as_state(states),
                lengths=lengths,
                reset=reset,
                reverse=reverse,
                mask=mask,
                weights=Weights(*weights),
            )
            return (out, *cell.states_of(self.op, state))

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
