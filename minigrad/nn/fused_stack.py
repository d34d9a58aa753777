"""What RNN, LSTM and GRU share: stacks whose cells run in C.

The cells hold the weights; fused.pyx runs each over the whole sequence, with the same results as
the loop of ops in sequence.unroll. Layers, directions and states are those of any stack, see
stack.py.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from minigrad.checks import check_memory, flag, size
from minigrad.core.array import checked_dtype
from minigrad.core.tensor import Tensor
from minigrad.nn.arguments import Steps
from minigrad.nn.cell import CellState, HiddenState
from minigrad.nn.fused import allocate_directions, sequence
from minigrad.nn.gated import GatedCell, Weights
from minigrad.nn.init import check_rng
from minigrad.nn.sequence import Merge, unroll_steps
from minigrad.nn.stack import LayerState, Stack, Trace
from minigrad.nn.telemetry import Telemetry
from minigrad.ops.join import adjoin
from minigrad.random import dropout_mask

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["FusedStack"]


@dataclass(eq=False, repr=False)
class FusedStack(Stack[LayerState]):
    """What RNN, LSTM and GRU share: everything but the cell.

    The fields are the arguments of the constructors, and attributes of the layers. A layer adds
    those of its own cell.
    """

    cell_type: ClassVar[type[GatedCell[Any]]]
    state_type: ClassVar[type[HiddenState] | type[CellState]]

    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    merge: Merge = "concat"
    bias: bool = True
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    _: KW_ONLY
    checkpoint: Literal["sqrt"] | None = None
    clip_state_grad: float | None = None
    dtype: DTypeLike = np.float32
    rng: InitVar[np.random.Generator | None] = None

    if TYPE_CHECKING:  # what Module does, with the types of forward

        @overload
        def __call__(
            self,
            x: Operand,
            state: tuple[Tensor, ...] | Tensor | None = None,
            lengths: ArrayLike | None = None,
            reset: ArrayLike | None = None,
            trace: Literal[False] = False,
        ) -> tuple[Tensor, LayerState]: ...
        @overload
        def __call__(
            self,
            x: Operand,
            state: tuple[Tensor, ...] | Tensor | None = None,
            lengths: ArrayLike | None = None,
            reset: ArrayLike | None = None,
            *,
            trace: Literal[True],
        ) -> tuple[Tensor, LayerState, list[Trace]]: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __post_init__(self, rng: np.random.Generator | None) -> None:
        op = type(self).__name__
        self.input_size = size(op, "input_size", self.input_size)
        self.hidden_size = size(op, "hidden_size", self.hidden_size)
        self._check_options()
        self.bias = flag(op, "bias", self.bias)
        is_sqrt = isinstance(self.checkpoint, str) and self.checkpoint == "sqrt"
        if self.checkpoint is not None and not is_sqrt:
            raise ValueError(
                f"{op}: checkpoint must be None or 'sqrt', got {reprlib.repr(self.checkpoint)}"
            )
        self.dtype = checked_dtype(self.dtype, op)
        check_rng(op, rng)
        self.telemetry: list[Telemetry] = []
        self.cells: list[GatedCell[Any]] = []
        self._make_cells(rng)

    def _make_cells(self, rng: np.random.Generator | None) -> None:
        """The cells of all layers, each layer's forward and backward one."""
        H, directions = self.hidden_size, len(self.directions)
        features = self.input_size
        self.cell_type._check_memory(self.op, features, H, directions)
        for layer in range(self.num_layers):
            for _ in self.directions:
                self.cells.append(self.new_cell(features, rng))
            if layer == 0 and self.num_layers > 1:
                features = self._merged_size()
                parameters = (features + H) * H * directions * self.num_layers
                check_memory(self.op, parameters, f"num_layers = {self.num_layers}")

    def new_cell(self, features: int, rng: np.random.Generator | None) -> GatedCell[Any]:
        """A cell with the layer's options.

        Args:
            features: the size of its input (B, features).
            rng: a numpy.random.Generator for its initial weights, or None.
        """
        raise NotImplementedError(f"{self.op} has no new_cell")

    def _new_state(self, states: list[Tensor]) -> Any:
        return self.state_type(*states)

    def _check_layer(self) -> None:
        super()._check_layer()
        for k, cell in enumerate(self.cells):
            if type(cell) is not self.cell_type or getattr(cell, "layer_norm", False):
                got = "one with layer_norm" if type(cell) is self.cell_type else type(cell).__name__
                raise TypeError(
                    f"{self.op}: cells[{k}] must be a plain {self.cell_type.__name__}, whose "
                    f"formulas the fused layer computes, got {got}: run other cells with "
                    f"nn.Recurrent or nn.unroll"
                )

    # -- running

    def forward(
        self,
        x: Operand,
        state: tuple[Tensor, ...] | Tensor | None = None,
        lengths: ArrayLike | None = None,
        reset: ArrayLike | None = None,
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
        trace = flag(self.op, "trace", trace)
        out = self.cells[0]._checked_sequence(self.op, x)
        T, B, _ = out.shape
        states = None if state is None else self._checked_state(state, B)
        steps = Steps(self.op, T, B, lengths, reset)
        traces: list[Trace] = []
        # Not set as an attribute: that would be checked like one that a user sets.
        vars(self)["telemetry"] = []
        out, final = self._run(out, states, steps, traces if trace else None)
        return (out, final, traces) if trace else (out, final)

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
        merge = self._merge_of(layer)
        whole: Tensor | None = None
        halves: Sequence[Tensor | None] = (None, None)
        if self.bidirectional and merge == "concat":
            # Both directions write into one array, each into its half.
            whole, halves = allocate_directions(x, self.hidden_size)
        outputs = []
        for d, direction in enumerate(self.directions):
            k = layer * len(self.directions) + d
            cell = self.cells[k]
            mask = None
            if self.recurrent_dropout and self.training:
                mask = dropout_mask((x.shape[1], self.hidden_size), self.recurrent_dropout, x.dtype)
            telemetry = Telemetry(layer, direction)
            self.telemetry.append(telemetry)
            reverse = direction == "backward"
            out, *final = sequence(
                cell.kind,
                x,
                None if states is None else states[0][k],
                None if states is None or len(states) == 1 else states[1][k],
                cell.W,
                cell.U,
                cell.b,
                cell.p,
                mask=mask,
                op=self.op,
                steps=steps,
                reverse=reverse,
                checkpoint=self.checkpoint == "sqrt",
                clip=self.clip_state_grad,
                telemetry=telemetry,
                composed=partial(_op_by_op, cell, steps=steps, reverse=reverse, mask=mask),
                trace=traces is not None,
                out=halves[d],
            )
            if traces is not None:
                traces.append(final.pop() | {"h": out.numpy()})
            outputs.append(out)
            finals.append(final)
        if whole is not None:
            return adjoin(whole, outputs)
        return self._merged(outputs, merge) if self.bidirectional else outputs[0]

    def first_nonfinite(self) -> dict[str, Any] | None:
        """Where the first value that is not finite arose in the last forward pass, also one within
        no_grad(), and in the backward pass after it: pass, layer, direction, step, row, gate (see
        Telemetry); or None. A value that came in not finite, in x, a state or a weight, counts
        where it is first used, also where a saturated gate hides it. A backward pass with
        create_graph=True is not looked at."""
        places = [t.nonfinite for t in self.telemetry if t.nonfinite]
        forward = [place for place in places if place["pass"] == "forward"]
        return forward[0] if forward else places[-1] if places else None


def _op_by_op(
    cell: GatedCell[Any],
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    *weights: Any,
    steps: Steps,
    reverse: bool,
    mask: NDArray[Any] | None,
    bound: float = 0.0,
) -> tuple[Tensor, ...]:
    """What `sequence` computes for this cell, made of ops: it can be differentiated again, if the
    gradient of the state has no bound."""
    given = tuple(state for state in (h0, c0) if state is not None)
    states = given or cell._checked_states("unroll", None, steps.B, x.dtype)
    factors = None if mask is None else Tensor(mask)
    out, states = unroll_steps(cell, x, states, steps, reverse, factors, bound, Weights(*weights))
    return (out, *states)
