"""Recurrent cells: what a cell is, for the library's own and for yours, and the states that layers
return.

The cells of the slides, each with its layer, are in rnn.py, lstm.py and gru.py, and what they share
in gated.py. Loops over cells are in sequence.py, layers of any cell in recurrent.py.
"""

from __future__ import annotations

import keyword
import reprlib
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

import numpy as np

from minigrad.checks import size
from minigrad.core.operands import zeros
from minigrad.core.tensor import Tensor
from minigrad.nn.module import Module, tensor_of
from minigrad.nn.running import running

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["Cell", "CellState", "HiddenState", "State", "check_tensor"]

SHAPE_OF_STATE = "(batch, hidden_size)"

# The state of a cell as users write it: h, or a tuple such as (h, c).
State = TypeVar("State")


class Cell(Module, Generic[State]):
    """One step of a recurrent network. Subclass it to write your own: make the weights in
    ``__init__``, and define `step`.

    `nn.unroll`, `nn.bidirectional` and `nn.Recurrent` run any cell over sequences: with lengths,
    resets, recurrent dropout, clipped gradients of the state, in several layers and both
    directions.

    Slices of parameters, such as ``self.W[:, :H]``, are made once for a sequence, however often
    `step` asks for them.

    Args:
        hidden_size: features of the output of a step, H; also of each state, unless `initial` says
            otherwise.

    Attributes:
        state_names: the names of the states, in their order. Default: ("h",). With one name the
            state is a Tensor, with several a tuple of them.
        input_size: features of the input, if they are to be checked. Default: None.

    Raises:
        TypeError: hidden_size is not an int.
        ValueError: hidden_size is below 1.

    >>> import minigrad as mg
    >>> class Leaky(mg.nn.Cell):
    ...     '''h' = (1 - a) h + a tanh(x W + h U)'''
    ...     def __init__(self, input_size, hidden_size, a=0.1):
    ...         super().__init__(hidden_size)
    ...         self.W = mg.nn.Parameter(mg.nn.init.glorot(input_size, hidden_size))
    ...         self.U = mg.nn.Parameter(mg.nn.init.orthogonal(hidden_size))
    ...         self.a = a
    ...     def step(self, x, h):
    ...         h = (1 - self.a) * h + self.a * mg.tanh(x @ self.W + self.masked(h) @ self.U)
    ...         return h, h
    >>> out, h = mg.nn.unroll(Leaky(3, 4), mg.ones((5, 2, 3)), lengths=[5, 2])
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 4))
    """

    state_names: tuple[str, ...] = ("h",)
    input_size: int | None = None

    def __init__(self, hidden_size: int) -> None:
        self.hidden_size = size(type(self).__name__, "hidden_size", hidden_size)

    # -- what a subclass defines

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Compute one step.

        Args:
            x: the input, (B, I).
            state: the state before the step: a Tensor, or a tuple of them in the order of
                `state_names`.

        Returns:
            (out, state): the output (B, hidden_size), and the state after the step, of the same
            form, shapes and dtype.
        """
        raise NotImplementedError(f"{type(self).__name__}: define step(x, state) -> (out, state)")

    def initial(self, B: int) -> State:
        """The state that a sequence starts from, and a row after a reset: zeros, (B, hidden_size)
        for each name. Define it for states of other sizes, or learnt ones.

        Args:
            B: rows of the batch, the first axis of each state.
        """
        return self._as_state(self._zeros(B, self._dtype))

    # -- for use in step

    def masked(self, h: Tensor) -> Tensor:
        """h as products with recurrent weights see it: times the mask of recurrent dropout, if the
        sequence has one.

        Args:
            h: a state, (B, hidden_size).
        """
        sequence = running()
        if sequence is None or sequence.mask is None:
            return h
        sequence.mask_was_used = True
        return h * sequence.mask

    def options(self) -> str:
        return f"hidden_size={self.hidden_size}"

    # -- for those who run cells

    @property
    def _dtype(self) -> np.dtype[Any]:
        """That of the parameters; float32 if there are none."""
        return next((p.dtype for p in self.parameters()), np.dtype(np.float32))

    def forward(self, x: Operand, state: State | None = None) -> Any:
        """Compute one step, with its arguments checked.

        Args:
            x: the input, (B, I), a Tensor or an array of the dtype of the weights.
            state: the state before the step. Default: `initial`.

        Returns:
            (out, state), as `step` does.

        Raises:
            TypeError: an argument is of the wrong type or dtype.
            ValueError: an argument has the wrong shape.
        """
        found = self._checked_input(x)
        op, B = type(self).__name__, found.shape[0]
        states = self._checked_states(op, state, B)
        out, after = self._checked_step(found, states)
        return out, self._as_state(after)

    def _start(self, weights: Any) -> Any:
        """The parts of the weights that steps compute with, made once for a sequence."""
        return weights

    def _weights(self) -> Any:
        """All that a sequence has a gradient for, besides its input and state."""
        return list(self.parameters())

    def _check(self, op: str) -> None:
        """Is this a cell that can be run?"""
        names = self.state_names
        fine = isinstance(names, tuple) and names and all(map(is_name, names))
        if not fine or len(set(names)) < len(names):
            raise TypeError(
                f"{op}: state_names must be a tuple of different names, got {reprlib.repr(names)}"
            )
        if "hidden_size" not in vars(self):
            raise TypeError(
                f"{op}: {type(self).__name__} has no hidden_size: call "
                f"super().__init__(hidden_size) in its __init__"
            )

    def _checked_input(self, x: Any) -> Tensor:
        """x (B, I) as a Tensor, if it fits."""
        op = type(self).__name__
        found = tensor_of(op, "x", x, self._dtype)
        if found.ndim != 2 or self.input_size not in (None, found.shape[1]):
            features = "I" if self.input_size is None else self.input_size
            raise ValueError(
                f"{op}: x must have shape (B, {features}) = (batch, input_size), got {found.shape}"
            )
        return found

    def _checked_sequence(self, op: str, x: Any, dtype: np.dtype[Any] | None = None) -> Tensor:
        """x (T, B, I) as a Tensor of this dtype, by default that of the cell, if it fits."""
        found = tensor_of(op, "x", x, self._dtype if dtype is None else dtype)
        if found.ndim != 3 or self.input_size not in (None, found.shape[2]):
            features = "I" if self.input_size is None else self.input_size
            raise ValueError(
                f"{op}: x must have shape (T, B, {features}) = "
                f"(time, batch, input_size), got {found.shape}"
            )
        return found

    def _zeros(self, B: int, dtype: np.dtype[Any]) -> tuple[Tensor, ...]:
        return tuple(zeros((B, self.hidden_size), dtype) for _ in self.state_names)

    def _has_plain_states(self) -> bool:
        """Are the initial states those of this class, zeros (B, hidden_size)?"""
        return type(self).initial is Cell.initial

    def _fresh(self, B: int) -> tuple[Tensor | float, ...]:
        """What the states of a row become by a reset: 0.0, or what `initial` says."""
        if self._has_plain_states():
            return (0.0,) * len(self.state_names)
        return self._checked_states(type(self).__name__, None, B)

    def _state_specs(
        self, B: int, dtype: np.dtype[Any] | None = None
    ) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of each state."""
        if self._has_plain_states():
            spec = (B, self.hidden_size), self._dtype if dtype is None else dtype
            return [spec] * len(self.state_names)
        return [(state.shape, state.dtype) for state in self._checked_initial(B)]

    def _checked_states(
        self, op: str, state: Any, B: int, dtype: np.dtype[Any] | None = None
    ) -> tuple[Tensor, ...]:
        """The states to start from: those given, if they fit, or the initial ones."""
        if state is None and self._has_plain_states():
            return self._zeros(B, self._dtype if dtype is None else dtype)
        if state is None:
            return self._checked_initial(B)
        states = self._states_of(op, state)
        specs = self._state_specs(B, dtype)
        meaning = SHAPE_OF_STATE if self._has_plain_states() else "that of initial(batch)"
        for name, value, (shape, kind) in zip(self.state_names, states, specs, strict=True):
            check_tensor(op, name, value, kind, shape, meaning)
        return states

    def _checked_initial(self, B: int) -> tuple[Tensor, ...]:
        op = type(self).__name__
        initial = self._states_of(f"{op}: initial", self.initial(B))
        for name, value in zip(self.state_names, initial, strict=True):
            if not isinstance(value, Tensor):
                got = type(value).__name__
                raise TypeError(f"{op}: initial must give {name} as a Tensor, got {got}")
            if value.ndim == 0 or value.shape[0] != B:
                raise ValueError(
                    f"{op}: initial must give {name} with batch = {B} rows, got {value.shape}"
                )
        return initial

    def _checked_step(
        self, x: Tensor, states: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What `step` returns, if it has the right form and shapes."""
        op = type(self).__name__
        returned = self.step(x, self._as_state(states))
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(f"{op}: step must return (out, state), got {type(returned).__name__}")
        out, state = returned
        after = self._states_of(f"{op}: step", state)
        rows = (x.shape[0], self.hidden_size)
        check_result(op, "out", out, x.dtype, rows)
        for name, new, old in zip(self.state_names, after, states, strict=True):
            check_result(op, name, new, old.dtype, old.shape)
        return out, after

    def _states_of(self, op: str, state: Any) -> tuple[Any, ...]:
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

    def _as_state(self, states: tuple[Tensor, ...]) -> State:
        """The states as users read them: h, or (h, c)."""
        return cast(State, states[0] if len(states) == 1 else states)


def is_name(value: Any) -> bool:
    """Can this be the name of a field?"""
    if not isinstance(value, str) or keyword.iskeyword(value):
        return False
    return value.isidentifier() and not value.startswith("_")


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


def check_result(
    op: str, name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> None:
    """What a step returned must have the shape and dtype that the next one expects."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: step must return {name} as a Tensor, got {type(value).__name__}")
    if value.shape != shape:
        raise ValueError(f"{op}: step must return {name} of shape {shape}, got {value.shape}")
    if value.dtype != dtype:
        raise TypeError(f"{op}: step must return {name} of dtype {dtype}, got {value.dtype}")


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
