"""What all recurrent cells share: their weights, checks and states.

The cells themselves, each with its layer, are in rnn.py, lstm.py and gru.py: one step, written out
of ops. They specify what the fused layers compute. Loops over cells are in sequence.py.

B, I, H: batch, inputs, hidden units. Weights are stored (in, out): W (I, G H) for the input and U
(H, G H) for the state, G gates side by side; one bias a gate, b (G H). U starts orthogonal gate by
gate, W Glorot-uniform, b zero but 1 for the LSTM's forget gate. The products of a gate are one
chain, b + x W + h U (see addmm): so a cell in a loop has the bits of the fused layer.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike

from minigrad.checks import check_memory, flag, size
from minigrad.core.array import checked_dtype
from minigrad.core.operands import zeros
from minigrad.core.tensor import Tensor
from minigrad.nn.init import glorot, numbers, orthogonal
from minigrad.nn.module import Module, Parameter, tensor_of
from minigrad.ops.matmul import addmm, matmul

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = [
    "Cell",
    "CellState",
    "Gate",
    "HiddenState",
    "State",
    "Weights",
    "check_tensor",
    "gates_of",
]

# The state of a cell as users write it: h, or a tuple such as (h, c).
State = TypeVar("State")


class Gate(NamedTuple):
    """The weights of one gate: views W (I, H), U (H, H), and b (H) or None."""

    W: Tensor
    U: Tensor
    b: Tensor | None


class Weights(NamedTuple):
    """What a step computes with, in the order of recurrent.sequence: b and p are None where the
    cell has none."""

    W: Tensor
    U: Tensor
    b: Tensor | None
    p: Tensor | None


class Cell(Module, Generic[State]):
    """What the cells share: the weights, their initial values, gates by name."""

    gates: tuple[str, ...]  # their names in the order of the columns of W and U
    biases: tuple[str, ...]  # the same for b
    state_names: tuple[str, ...] = ("h",)  # ("h", "c") for a cell with two states
    kind: str  # its name in fused.CELLS

    if TYPE_CHECKING:  # what Module does, with the types of forward

        def __call__(self, x: Operand, state: State | None = None) -> State: ...

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        dtype: DTypeLike,
        rng: np.random.Generator | None,
    ) -> None:
        self.op = type(self).__name__
        I, H = size(self.op, "input_size", input_size), size(self.op, "hidden_size", hidden_size)
        rng, dtype = numbers(self.op, rng), checked_dtype(dtype, self.op)
        self.check_memory(self.op, I, H)
        self.input_size, self.hidden_size = I, H
        self.W = Parameter(np.concatenate([glorot(rng, I, H) for _ in self.gates], axis=1), dtype)
        self.U = Parameter(np.concatenate([orthogonal(rng, H) for _ in self.gates], axis=1), dtype)
        self.b: Parameter | None = None
        if flag(self.op, "bias", bias):
            b = [np.full(H, float(name == "f")) for name in self.biases]
            self.b = Parameter(np.concatenate(b), dtype)
        self.p: Parameter | None = None

    @classmethod
    def check_memory(cls, op: str, I: int, H: int, cells: int = 1) -> None:
        """A MemoryError if this machine cannot hold the weights of so many cells."""
        what = f"(input_size, hidden_size) = ({I}, {H})"
        check_memory(op, cells * (I + H) * H * len(cls.gates), what)

    def gate(self, name: str) -> Gate:
        """The weights of one gate: views W (I, H), U (H, H), and b (H) or None.

        Args:
            name: one of `gates`, for example "f" for the LSTM's forget gate.
        """
        if name not in self.gates:
            raise ValueError(
                f"{self.op}: name must be one of {', '.join(self.gates)}, got {reprlib.repr(name)}"
            )
        H, k = self.hidden_size, self.gates.index(name)
        part = slice(k * H, (k + 1) * H)
        return Gate(self.W[:, part], self.U[:, part], None if self.b is None else self.b[part])

    def weights(self) -> Weights:
        """All weights as one value."""
        return Weights(self.W, self.U, self.b, self.p)

    def start(self, weights: Weights) -> Any:
        """What `step` takes as weights: here the weights themselves. Called once for a sequence."""
        return weights

    def step(
        self, weights: Any, x: Tensor, states: tuple[Tensor, ...], h_masked: Tensor
    ) -> tuple[Tensor, ...]:
        """The formulas of one step.

        Args:
            weights: what `start` returned.
            x: the input, (B, I).
            states: one Tensor (B, H) for each of `state_names`.
            h_masked: h after recurrent dropout, (B, H); the products with U see this.

        Returns:
            The new states, in the order of `state_names`.
        """
        raise NotImplementedError(f"{self.op} has no step")

    def checked_weights(self, op: str, weights: Any = None) -> Weights:
        """The weights, or others in their place, if their shapes and dtypes fit: they can be
        replaced at any time."""
        if weights is None:
            weights = self.weights()
        elif not isinstance(weights, tuple) or len(weights) != 4:
            raise TypeError(
                f"{op}: weights must be a Weights (W, U, b, p), got {type(weights).__name__}"
            )
        W, U, b, p = weights
        I, H = self.input_size, self.hidden_size
        dtype, columns = getattr(W, "dtype", None), len(self.gates) * H
        check_tensor(op, "W", W, dtype, (I, columns), "(input_size, gates * hidden_size)")
        check_tensor(op, "U", U, dtype, (H, columns), "(hidden_size, gates * hidden_size)")
        if b is not None:
            check_tensor(op, "b", b, dtype, (len(self.biases) * H,), "(biases * hidden_size,)")
        if p is not None:
            check_tensor(op, "p", p, dtype, (3, H), "(3, hidden_size)")
        return weights if isinstance(weights, Weights) else Weights(*weights)

    def checked_sequence(self, op: str, x: Any, dtype: np.dtype[Any]) -> Tensor:
        """x (T, B, I) as a Tensor of this dtype."""
        found = tensor_of(op, "x", x, dtype)
        if found.ndim != 3 or found.shape[2] != self.input_size:
            raise ValueError(
                f"{op}: x must have shape (T, B, {self.input_size}) = "
                f"(time, batch, input_size), got {found.shape}"
            )
        return found

    def check_state(self, op: str, name: str, value: Any, B: int, dtype: np.dtype[Any]) -> None:
        """A state, or a mask of it, must be a Tensor (B, H)."""
        check_tensor(op, name, value, dtype, (B, self.hidden_size), "(batch, hidden_size)")

    def _check_weights(self) -> None:
        self.checked_weights(self.op)

    def _check(self, x: Any, *states: tuple[str, Any]) -> Tensor:
        """x (B, I) as a Tensor, if it and the states fit."""
        found = tensor_of(self.op, "x", x, self.W.dtype)
        if found.ndim != 2 or found.shape[1] != self.input_size:
            raise ValueError(
                f"{self.op}: x must have shape (B, {self.input_size}) = "
                f"(batch, input_size), got {found.shape}"
            )
        for name, value in states:
            self.check_state(self.op, name, value, found.shape[0], self.W.dtype)
        return found

    def initial(self, B: int) -> tuple[Tensor, ...]:
        """States of zeros, each (B, H)."""
        return tuple(zeros((B, self.hidden_size), self.W.dtype) for _ in self.state_names)

    def states_of(self, op: str, state: Any) -> tuple[Any, ...]:
        """A state as users write it, h or (h, c), as a tuple in the order of `state_names`."""
        count = len(self.state_names)
        if count == 1:
            return (state,)
        if not isinstance(state, tuple) or len(state) != count:
            got = type(state).__name__
            if isinstance(state, tuple):
                got += f" of length {len(state)}"
            raise TypeError(f"{op}: state must be ({', '.join(self.state_names)}), got {got}")
        return state

    def as_state(self, states: tuple[Tensor, ...]) -> State:
        """The states as users read them: h, or (h, c)."""
        return cast(State, states[0] if len(states) == 1 else states)

    def forward(self, x: Operand, state: State | None = None) -> State:
        """Compute one step.

        Args:
            x: the input, (B, input_size), a Tensor or an array of the dtype of the weights.
            state: h of shape (B, hidden_size), or for an LSTMCell (h, c), each of this shape.
                Default: zeros.

        Returns:
            The new state, of the same form.

        Raises:
            TypeError: an argument is of the wrong type or dtype.
            ValueError: an argument has the wrong shape.
        """
        if state is None:
            x = self._check(x)
            states = self.initial(x.shape[0])
        else:
            states = self.states_of(self.op, state)
            x = self._check(x, *zip(self.state_names, states, strict=True))
        return self.as_state(self.step(self.start(self.weights()), x, states, states[0]))

    def options(self) -> str:
        bias = "" if self.b is not None else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}"


def check_tensor(
    op: str, name: str, value: Any, dtype: Any, shape: tuple[int, ...], meaning: str
) -> None:
    """A weight or a state must fit the weights W and the batch."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a Tensor, got {type(value).__name__}")
    if value.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape} = {meaning}, got {value.shape}")
    if value.dtype != dtype:
        raise TypeError(f"{op}: {name} has dtype {value.dtype}, the weights have {dtype}")


def gates_of(weights: Weights, x: Tensor, h: Tensor) -> Tensor:
    """b + x W + h U: each element one chain of fused multiply-adds."""
    start = addmm(weights.b, x, weights.W) if weights.b is not None else matmul(x, weights.W)
    return addmm(start, h, weights.U)


class HiddenState(NamedTuple):
    """The state of an RNN or GRU.

    Args:
        h: the hidden state of each layer and direction, (num_layers * directions, B, H).

    >>> import minigrad as mg
    >>> _, state = mg.nn.GRU(2, 3)(mg.zeros((5, 4, 2)))
    >>> state.h.shape, state.detach().h.requires_grad
    ((1, 4, 3), False)
    """

    h: Tensor

    def detach(self) -> HiddenState:
        """The same values, cut from the graph: for truncated BPTT."""
        return HiddenState(self.h.detach())


class CellState(NamedTuple):
    """The state of an LSTM.

    Args:
        h: the hidden state of each layer and direction, (num_layers * directions, B, H).
        c: the cell state of each, of the same shape.

    >>> import minigrad as mg
    >>> _, state = mg.nn.LSTM(2, 3)(mg.zeros((5, 4, 2)))
    >>> state.h.shape, state.c.shape
    ((1, 4, 3), (1, 4, 3))
    """

    h: Tensor
    c: Tensor

    def detach(self) -> CellState:
        """The same values, cut from the graph: for truncated BPTT."""
        return CellState(self.h.detach(), self.c.detach())
