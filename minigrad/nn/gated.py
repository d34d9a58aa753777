"""What the cells of the slides share: weights with gates side by side, and their checks.

B, I, H: batch, inputs, hidden units. Weights are stored (in, out): W (I, G H) for the input and U
(H, G H) for the state, G gates side by side; one bias a gate, b (G H). U starts orthogonal gate by
gate, W Glorot-uniform, b zero but 1 for the LSTM's forget gate. The products of a gate are one
chain, b + x W + h U (see addmm): so a cell in a loop has the bits of the fused layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import DTypeLike

from minigrad.checks import check_memory, choice, flag, size
from minigrad.core.array import checked_dtype
from minigrad.core.tensor import Tensor
from minigrad.nn.cell import Cell, State, check_tensor
from minigrad.nn.init import glorot, numbers, orthogonal
from minigrad.nn.module import Parameter
from minigrad.nn.running import running
from minigrad.ops.matmul import addmm, matmul

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["Gate", "GatedCell", "Weights", "gates_of"]


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


class GatedCell(Cell[State]):
    """What RNNCell, LSTMCell and GRUCell share: the weights, their initial values, gates by
    name."""

    gates: tuple[str, ...]  # their names in the order of the columns of W and U
    biases: tuple[str, ...]  # the same for b
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
        self.op = op = type(self).__name__
        self.input_size = I = size(op, "input_size", input_size)
        super().__init__(hidden_size)
        H = self.hidden_size
        rng, dtype = numbers(op, rng), checked_dtype(dtype, op)
        self._check_memory(op, I, H)
        W = [glorot(I, H, rng, np.float64) for _ in self.gates]
        U = [orthogonal(H, rng, np.float64) for _ in self.gates]
        self.W = Parameter(np.concatenate(W, axis=1), dtype)
        self.U = Parameter(np.concatenate(U, axis=1), dtype)
        self.b: Parameter | None = None
        if flag(self.op, "bias", bias):
            b = [np.full(H, float(name == "f")) for name in self.biases]
            self.b = Parameter(np.concatenate(b), dtype)
        self.p: Parameter | None = None

    @classmethod
    def _check_memory(cls, op: str, I: int, H: int, cells: int = 1) -> None:
        """A MemoryError if this machine cannot hold the weights of so many cells."""
        what = f"(input_size, hidden_size) = ({I}, {H})"
        check_memory(op, cells * (I + H) * H * len(cls.gates), what)

    def gate(self, name: str) -> Gate:
        """The weights of one gate: views W (I, H), U (H, H), and b (H) or None.

        Args:
            name: one of `gates`, for example "f" for the LSTM's forget gate.
        """
        name = choice(self.op, "name", name, self.gates)
        H, k = self.hidden_size, self.gates.index(name)
        part = slice(k * H, (k + 1) * H)
        return Gate(self.W[:, part], self.U[:, part], None if self.b is None else self.b[part])

    def weights(self) -> Weights:
        """All weights as one value."""
        return Weights(self.W, self.U, self.b, self.p)

    def _start(self, weights: Weights) -> Any:
        """The parts of the weights that `next_states` takes: here the weights themselves. Called
        once for a sequence."""
        return weights

    def next_states(
        self, weights: Any, x: Tensor, states: tuple[Tensor, ...], h_masked: Tensor
    ) -> tuple[Tensor, ...]:
        """The formulas of one step.

        Args:
            weights: what `_start` returned.
            x: the input, (B, I).
            states: one Tensor (B, H) for each of `state_names`.
            h_masked: h after recurrent dropout, (B, H); the products with U see this.

        Returns:
            The new states, in the order of `state_names`. The first one is the output, too.
        """
        raise NotImplementedError(f"{self.op} has no next_states")

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute one step.

        Args:
            x: the input, (B, I).
            state: h of shape (B, hidden_size), or for an LSTMCell (h, c).

        Returns:
            (h, state): the new h, and the new state.
        """
        after = self._after(x, self._states_of(self.op, state))
        return after[0], self._as_state(after)

    def _after(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The states after a step."""
        sequence = running()
        parts = self._start(self.weights()) if sequence is None else sequence.parts(self)
        return self.next_states(parts, x, states, self.masked(states[0]))

    def _checked_step(
        self, x: Tensor, states: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Only a step of the user's is checked."""
        if type(self).step is not GatedCell.step:
            return super()._checked_step(x, states)
        after = self._after(x, states)
        return after[0], after

    def checked_weights(self, op: str, weights: Any = None) -> Weights:
        """The weights, or others in their place, if their shapes and dtypes fit: they can be
        replaced at any time.

        Args:
            op: how messages name what was called.
            weights: a Weights (W, U, b, p), or None for the cell's own. Default: None.
        """
        if weights is None:
            weights = self.weights()
        elif not isinstance(weights, tuple) or len(weights) != 4:
            raise TypeError(
                f"{op}: weights must be a Weights (W, U, b, p), got {type(weights).__name__}"
            )
        W, U, b, p = weights
        I, H = cast(int, self.input_size), self.hidden_size
        dtype, columns = getattr(W, "dtype", None), len(self.gates) * H
        check_tensor(op, "W", W, dtype, (I, columns), "(input_size, gates * hidden_size)")
        check_tensor(op, "U", U, dtype, (H, columns), "(hidden_size, gates * hidden_size)")
        if b is not None:
            check_tensor(op, "b", b, dtype, (len(self.biases) * H,), "(biases * hidden_size,)")
        if p is not None:
            check_tensor(op, "p", p, dtype, (3, H), "(3, hidden_size)")
        return weights if isinstance(weights, Weights) else Weights(*weights)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return self.W.dtype

    def _weights(self) -> Weights:
        return self.weights()

    def _check(self, op: str) -> None:
        """Do the weights fit?"""
        super()._check(op)
        self.checked_weights(op)

    def _check_weights(self) -> None:
        self.checked_weights(self.op)

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
        found = self._checked_input(x)
        states = self._checked_states(self.op, state, found.shape[0])
        return self.step(found, self._as_state(states))[1]

    def options(self) -> str:
        bias = "" if self.b is not None else ", bias=False"
        return f"{self.input_size}, {self.hidden_size}{bias}"


def gates_of(weights: Weights, x: Tensor, h: Tensor) -> Tensor:
    """b + x W + h U: each element one chain of fused multiply-adds."""
    start = addmm(weights.b, x, weights.W) if weights.b is not None else matmul(x, weights.W)
    return addmm(start, h, weights.U)
