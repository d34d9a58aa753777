"""The RNN: first the cell, one step, then the layer, which runs it over sequences."""

import reprlib
from typing import Any

import numpy as np

from minigrad.core.tensor import Tensor
from minigrad.nn.cell import Cell, Weights, gates_of
from minigrad.nn.sequence import Merge
from minigrad.nn.stack import Recurrent
from minigrad.ops.elementwise import relu, tanh


class RNNCell(Cell):
    """One step of a recurrent network (slide: the hidden state): h' = tanh(x W + h U + b).

    Args:
        input_size: features of the input, I.
        hidden_size: features of the state, H.
        bias: add b, one for each gate. Default: True.
        nonlinearity: "tanh" (default) or "relu".
        dtype: of the weights, float32 (default) or float64.
        rng: a numpy.random.Generator for the initial weights. Default: minigrad's generator, see
            mg.manual_seed.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is outside its range.

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
                f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {reprlib.repr(nonlinearity)}"
            )
        self.kind = f"rnn_{nonlinearity}"
        super().__init__(input_size, hidden_size, bias, dtype, rng)

    def step(
        self, weights: Weights, x: Tensor, states: tuple[Tensor, ...], h_masked: Tensor
    ) -> tuple[Tensor, ...]:
        activation = tanh if self.kind == "rnn_tanh" else relu
        return (activation(gates_of(weights, x, h_masked)),)


class RNN(Recurrent):
    """A recurrent network over whole sequences: h_t = tanh(x_t W + h_{t-1} U + b).

    Args:
        input_size: features of the input, I.
        hidden_size: features of the state, H.
        num_layers: layers on top of each other. Default: 1.
        bidirectional: run each layer from both ends of the sequence. Default: False.
        merge: how the outputs of two directions become one: "concat" (default), "sum", "mean",
            "mul", a function of both, or None for a pair of outputs.
        bias: add b, one for each gate. Default: True.
        dropout: probability of dropout between layers. Default: 0.0.
        recurrent_dropout: probability of dropout on h_{t-1}, with one mask for the whole sequence.
            Default: 0.0.
        nonlinearity: "tanh" (default) or "relu".
        checkpoint: "sqrt" keeps O(sqrt T) of what backward needs and computes the rest again, with
            the same bits. Default: None, keep everything.
        clip_state_grad: at every step back in time clip each element of the gradient of the state
            to this bound (slide: gradient clipping). Such a gradient cannot be differentiated
            again (create_graph=True). Default: None, no clipping.
        dtype: of the weights, float32 (default) or float64.
        rng: a numpy.random.Generator for the initial weights. Default: minigrad's generator, see
            mg.manual_seed.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is outside its range.

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
        merge: Merge = "concat",
        bias: bool = True,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        *,
        nonlinearity: str = "tanh",
        checkpoint: str | None = None,
        clip_state_grad: float | None = None,
        dtype: Any = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bidirectional,
            merge,
            dropout,
            recurrent_dropout,
            checkpoint,
            clip_state_grad,
            bias=bias,
            nonlinearity=nonlinearity,
            dtype=dtype,
            rng=rng,
        )
