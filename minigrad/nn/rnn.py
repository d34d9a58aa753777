"""The slide's RNN: the cell, one step at a time, and the layer that runs it over sequences."""

from typing import Any

import numpy as np

from minigrad.core.tensor import Tensor
from minigrad.nn.cell import Cell, HiddenState, Weights, gates_of
from minigrad.nn.stack import _Recurrent
from minigrad.ops.elementwise import relu, tanh


class RNNCell(Cell):
    """The slide's recurrent network: h' = tanh(h U + x W + b), or relu. RNNCell(input_size,
    hidden_size, bias=True, nonlinearity="tanh", dtype=float32, rng=None).

    >>> import minigrad as mg
    >>> mg.nn.RNNCell(3, 4)(mg.ones((2, 3))).shape
    (2, 4)
    """

    gates = biases = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: Any = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}"
            )
        self.kind = f"rnn_{nonlinearity}"
        super().__init__(input_size, hidden_size, bias, dtype, rng)

    def step(self, weights: Weights, x: Tensor, h: Tensor, c: None, hm: Tensor) -> Tensor:
        return (tanh if self.kind == "rnn_tanh" else relu)(gates_of(weights, x, hm))


class RNN(_Recurrent[HiddenState]):
    """h_t = tanh(h_{t-1} U + x_t W + b) over a whole sequence (slide: the hidden state).

    (input_size, hidden_size, num_layers=1, bidirectional=False, merge="concat", bias=True,
    dropout=0.0, recurrent_dropout=0.0, nonlinearity="tanh" or "relu", checkpoint=None or "sqrt",
    clip_state_grad=None, dtype=float32, rng=None). merge: "concat", "sum", "mean", "mul", None (a
    pair of outputs) or a function of the two directions' outputs. dropout acts between layers,
    recurrent_dropout on h_{t-1} with one mask for the whole sequence. checkpoint="sqrt" keeps
    O(sqrt T) of what backward needs and computes the rest again, with the same bits.
    clip_state_grad: at every step back in time each element of the gradient that the step hands to
    the state before it is clipped to this bound (slide: gradient clipping); with it a gradient
    cannot be differentiated again (create_graph=True).

    >>> import numpy as np, minigrad as mg
    >>> layer = mg.nn.RNN(3, 4)
    >>> out, state = layer(mg.Tensor(np.ones((5, 2, 3), np.float32)))
    >>> out.shape, state.h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    cell_type = RNNCell

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
        nonlinearity: str = "tanh",
        checkpoint: str | None = None,
        clip_state_grad: float | None = None,
        dtype: Any = np.float32,
        rng: Any = None,
    ) -> None:
        super().__init__(
            lambda size: RNNCell(
                size, hidden_size, bias=bias, nonlinearity=nonlinearity, dtype=dtype, rng=rng
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
