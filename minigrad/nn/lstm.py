"""The LSTM: the cell, one step at a time, and the layer that runs it over sequences."""

from typing import Any

import numpy as np

from minigrad.checks import flag
from minigrad.core.tensor import Tensor
from minigrad.nn.cell import Cell, CellState, Weights, _check_tensor, gates_of
from minigrad.nn.module import Parameter
from minigrad.nn.stack import _Recurrent
from minigrad.ops.elementwise import sigmoid, sqrt, tanh
from minigrad.ops.matmul import matmul
from minigrad.ops.reduce import mean, var
from minigrad.ops.shape import split


class LSTMCell(Cell):
    """The slides' LSTM. LSTMCell(input_size, hidden_size, bias=True, peepholes=False,
    layer_norm=False, dtype=float32, rng=None).

    i, f, o = sigmoid(x W + h U + b), g = tanh(x W + h U + b), each with its own columns; c' = f c +
    i g; h' = o tanh c'. The gates stand in the order i, f, g, o. peepholes: i and f see p_i c and
    p_f c, o sees p_o c' (Gers and Schmidhuber 2000).
    layer_norm: x W and h U and, before its tanh, c' are normalised over the units and scaled (Ba,
    Kiros and Hinton 2016, equations 20 to 22).

    >>> import minigrad as mg
    >>> h, c = mg.nn.LSTMCell(3, 4)(mg.ones((2, 3)))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    gates = biases = ("i", "f", "g", "o")
    state_names = ("h", "c")
    kind = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        peepholes: bool = False,
        layer_norm: bool = False,
        dtype: Any = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype, rng)
        H, dtype = self.hidden_size, self.W.dtype
        if flag(self.op, "peepholes", peepholes):
            self.p = Parameter(np.zeros((3, H)), dtype)
        self.layer_norm = flag(self.op, "layer_norm", layer_norm)
        if layer_norm:
            self.scale_x, self.scale_h = (Parameter(np.ones(4 * H), dtype) for _ in range(2))
            self.scale_c, self.shift_c = Parameter(np.ones(H), dtype), Parameter(np.zeros(H), dtype)

    def checked_weights(self, op: str, weights: Weights | None = None) -> Weights:
        """As for every cell, with the scales and the shift of the layer norm."""
        weights = super().checked_weights(op, weights)
        H = self.hidden_size
        if self.layer_norm:
            for name, gates in (("scale_x", 4), ("scale_h", 4), ("scale_c", 1), ("shift_c", 1)):
                value, shape = getattr(self, name), (gates * H,)
                _check_tensor(op, name, value, weights.W.dtype, shape, f"({gates} * hidden_size,)")
        return weights

    def start(self, weights: Weights) -> tuple[Any, ...]:
        """The weights, the peepholes one by one, and the scales and the shift of the layer norm;
        None for what is not there."""
        p = None if weights.p is None else [weights.p[k] for k in range(3)]
        if not self.layer_norm:
            return weights, p, None
        return weights, p, (self.scale_x, self.scale_h, self.scale_c, self.shift_c)

    def step(
        self, weights: tuple[Any, ...], x: Tensor, h: Tensor, c: Tensor, hm: Tensor
    ) -> tuple[Tensor, Tensor]:
        w, p, norm = weights
        if norm is not None:
            scale_x, scale_h, scale_c, shift_c = norm
            a = normalised(matmul(x, w.W)) * scale_x + normalised(matmul(hm, w.U)) * scale_h
            a = a if w.b is None else a + w.b
        else:
            a = gates_of(w, x, hm)
        i, f, g, o = split(a, 4, axis=1)
        if p is not None:
            i, f = i + p[0] * c, f + p[1] * c
        i, f, g = sigmoid(i), sigmoid(f), tanh(g)
        c = f * c + i * g
        o = sigmoid(o if p is None else o + p[2] * c)
        seen = c if norm is None else normalised(c) * scale_c + shift_c
        return o * tanh(seen), c

    def forward(  # type: ignore[override]  # its state is a pair
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step: x (B, I), state (h, c), each (B, H), or None for zeros -> (h, c)."""
        if state is None:
            self._check(x)
            state = self.initial(x.shape[0]), self.initial(x.shape[0])
        if not isinstance(state, tuple) or len(state) != 2:
            got = type(state).__name__ + (
                f" of length {len(state)}" if isinstance(state, tuple) else ""
            )
            raise TypeError(f"{self.op}: state must be (h, c), got {got}")
        self._check(x, ("h", state[0]), ("c", state[1]))
        return self.step(self.start(self.weights()), x, *state, state[0])


def normalised(x: Tensor) -> Tensor:
    """x (B, N) with mean 0 and variance 1 over N."""
    return (x - mean(x, 1, keepdims=True)) / sqrt(var(x, 1, keepdims=True) + 1e-5)


class LSTM(_Recurrent[CellState]):
    """Long short-term memory over a whole sequence (slides: LSTM): i, f, o = sigmoid, g = tanh, c'
    = f c + i g, h' = o tanh c'.

    (input_size, hidden_size, num_layers=1, bidirectional=False, merge="concat", bias=True,
    dropout=0.0, recurrent_dropout=0.0, peepholes=False, checkpoint=None, clip_state_grad=None,
    dtype=float32, rng=None): as for RNN.

    >>> import numpy as np, minigrad as mg
    >>> layer = mg.nn.LSTM(3, 4, bidirectional=True)
    >>> out, (h, c) = layer(mg.Tensor(np.ones((5, 2, 3), np.float32)), lengths=[5, 2])
    >>> out.shape, h.shape, c.shape
    ((5, 2, 8), (2, 2, 4), (2, 2, 4))
    """

    State = CellState
    cell_type = LSTMCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: Any = "concat",
        bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        *,
        peepholes: bool = False,
        checkpoint: str | None = None,
        clip_state_grad: float | None = None,
        dtype: Any = np.float32,
        rng: Any = None,
    ) -> None:
        super().__init__(
            lambda size: LSTMCell(
                size, hidden_size, bias=bias, peepholes=peepholes, dtype=dtype, rng=rng
            ),
            input_size,
            hidden_size,
            num_layers,
            bidirectional,
            merge,
            dropout,
            recurrent_dropout,
            checkpoint,
            clip_state_grad,
        )
