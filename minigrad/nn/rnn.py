"""The RNN: first the cell, one step, then the layer, which runs it over sequences."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from minigrad.checks import choice
from minigrad.core.tensor import Tensor
from minigrad.nn.cell import HiddenState
from minigrad.nn.fused_stack import FusedStack
from minigrad.nn.gated import GatedCell, Weights, gates_of
from minigrad.ops.elementwise import relu, tanh

__all__ = ["RNN", "Nonlinearity", "RNNCell", "check_nonlinearity"]

Nonlinearity = Literal["tanh", "relu"]


class RNNCell(GatedCell[Tensor]):
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
        nonlinearity: Nonlinearity = "tanh",
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        check_nonlinearity(type(self).__name__, nonlinearity)
        self.kind = f"rnn_{nonlinearity}"
        super().__init__(input_size, hidden_size, bias, dtype, rng)

    def next_states(
        self, weights: Weights, x: Tensor, states: tuple[Tensor, ...], h_masked: Tensor
    ) -> tuple[Tensor, ...]:
        activation = tanh if self.kind == "rnn_tanh" else relu
        return (activation(gates_of(weights, x, h_masked)),)


def check_nonlinearity(op: str, nonlinearity: Any) -> None:
    """It must be one of the two."""
    choice(op, "nonlinearity", nonlinearity, ("tanh", "relu"))


@dataclass(eq=False, repr=False)
class RNN(FusedStack[HiddenState]):
    """A recurrent network over whole sequences: h_t = tanh(x_t W + h_{t-1} U + b).

    A call takes sequences x (T, B, input_size) and returns the outputs (T, B, features) and the
    last state; `forward` says more. The weights are in the cells, in the list `cells`: for each
    layer the forward one and, if bidirectional, the backward one.

    Args:
        input_size: features of the input, I.
        hidden_size: features of the state, H.
        num_layers: layers on top of each other. Default: 1.
        bidirectional: run each layer from both ends of the sequence. Default: False.
        merge: how the outputs of two directions, each (T, B, H), become one: "concat" (default) to
            (T, B, 2 H), "sum", "mean", "mul", a function of both that returns (T, B, features), or
            None for a pair of outputs.
        bias: add b, one for each gate. Default: True.
        dropout: probability of dropout between layers, from 0 to 1. Default: 0.0.
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
    state_type = HiddenState

    _: KW_ONLY
    nonlinearity: Nonlinearity = "tanh"

    def __post_init__(self, rng: np.random.Generator | None) -> None:
        check_nonlinearity(type(self).__name__, self.nonlinearity)
        super().__post_init__(rng)

    def new_cell(self, features: int, rng: np.random.Generator | None) -> RNNCell:
        return RNNCell(features, self.hidden_size, self.bias, self.nonlinearity, self.dtype, rng)
