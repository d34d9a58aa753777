"""The LSTM: first the cell, one step, then the layer, which runs it over sequences."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minigrad.checks import flag
from minigrad.core.tensor import Tensor
from minigrad.nn.cell import CellState, check_tensor
from minigrad.nn.fused_stack import FusedStack
from minigrad.nn.gated import GatedCell, Weights, gates_of
from minigrad.nn.module import Parameter
from minigrad.ops.elementwise import sigmoid, sqrt, tanh
from minigrad.ops.join import split
from minigrad.ops.matmul import matmul
from minigrad.ops.reduce import mean, var

__all__ = ["LSTM", "LSTMCell", "LSTMWeights", "LayerNorm", "normalised"]


class LayerNorm(NamedTuple):
    """The scales of x W and h U, (4 H), and the scale and the shift of c, (H)."""

    scale_x: Tensor
    scale_h: Tensor
    scale_c: Tensor
    shift_c: Tensor


class LSTMWeights(NamedTuple):
    """What a step computes with: p are the three rows of the peepholes. None for what is not
    there."""

    weights: Weights
    p: list[Tensor] | None
    norm: LayerNorm | None


class LSTMCell(GatedCell[tuple[Tensor, Tensor]]):
    """One step of long short-term memory (slides: LSTM).

    i, f, o = sigmoid(x W + h U + b), g = tanh(x W + h U + b), each with its own columns;
    c' = f c + i g; h' = o tanh c'. The gates stand in the order i, f, g, o.

    Args:
        input_size: features of the input, I.
        hidden_size: features of the state, H.
        bias: add b, one for each gate. Default: True.
        peepholes: i and f see p_i c and p_f c, o sees p_o c' (Gers and Schmidhuber 2000). Default:
            False.
        layer_norm: normalise x W, h U and, before its tanh, c' over the units, and scale them (Ba,
            Kiros and Hinton 2016, equations 20 to 22). Default: False.
        dtype: of the weights, float32 (default) or float64.
        rng: a numpy.random.Generator for the initial weights. Default: minigrad's generator, see
            mg.manual_seed.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is outside its range.

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
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype, rng)
        H, dtype = self.hidden_size, self.W.dtype
        if flag(self.op, "peepholes", peepholes):
            self.p = Parameter(np.zeros((3, H)), dtype)
        self.layer_norm = flag(self.op, "layer_norm", layer_norm)
        if layer_norm:
            self.scale_x = Parameter(np.ones(4 * H), dtype)
            self.scale_h = Parameter(np.ones(4 * H), dtype)
            self.scale_c = Parameter(np.ones(H), dtype)
            self.shift_c = Parameter(np.zeros(H), dtype)

    def checked_weights(self, op: str, weights: Any = None) -> Weights:
        """The weights if they fit, the scales and the shift of the layer norm included.

        Args:
            op: how messages name what was called.
            weights: a Weights (W, U, b, p), or None for the cell's own. Default: None.
        """
        checked = super().checked_weights(op, weights)
        H = self.hidden_size
        if self.layer_norm:
            for name, gates in (("scale_x", 4), ("scale_h", 4), ("scale_c", 1), ("shift_c", 1)):
                value, shape = getattr(self, name), (gates * H,)
                check_tensor(op, name, value, checked.W.dtype, shape, f"({gates} * hidden_size,)")
        return checked

    def _start(self, weights: Weights) -> LSTMWeights:
        """The weights, cut once for a sequence."""
        p = None if weights.p is None else [weights.p[k] for k in range(3)]
        if not self.layer_norm:
            return LSTMWeights(weights, p, None)
        norm = LayerNorm(self.scale_x, self.scale_h, self.scale_c, self.shift_c)
        return LSTMWeights(weights, p, norm)

    def next_states(
        self, weights: LSTMWeights, x: Tensor, states: tuple[Tensor, ...], h_masked: Tensor
    ) -> tuple[Tensor, ...]:
        w, p, norm = weights
        _, c = states
        if norm is not None:
            a_x = normalised(matmul(x, w.W)) * norm.scale_x
            a = a_x + normalised(matmul(h_masked, w.U)) * norm.scale_h
            a = a if w.b is None else a + w.b
        else:
            a = gates_of(w, x, h_masked)
        i, f, g, o = split(a, 4, axis=1)
        if p is not None:
            i, f = i + p[0] * c, f + p[1] * c
        i, f, g = sigmoid(i), sigmoid(f), tanh(g)
        c = f * c + i * g
        o = sigmoid(o if p is None else o + p[2] * c)
        c_normed = c if norm is None else normalised(c) * norm.scale_c + norm.shift_c
        return o * tanh(c_normed), c


def normalised(x: Tensor) -> Tensor:
    """x (B, N) with mean 0 and variance 1 over N."""
    return (x - mean(x, 1, keepdims=True)) / sqrt(var(x, 1, keepdims=True) + 1e-5)


@dataclass(eq=False, repr=False)
class LSTM(FusedStack[CellState]):
    """Long short-term memory over whole sequences (slides: LSTM).

    i, f, o = sigmoid(x_t W + h_{t-1} U + b), g = tanh(x_t W + h_{t-1} U + b), each with its own
    columns; c_t = f c_{t-1} + i g; h_t = o tanh c_t.

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
        peepholes: i and f see p_i c_{t-1} and p_f c_{t-1}, o sees p_o c_t (Gers and Schmidhuber
            2000). Default: False.
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
    >>> layer = mg.nn.LSTM(3, 4, bidirectional=True)
    >>> out, (h, c) = layer(mg.Tensor(np.ones((5, 2, 3), np.float32)), lengths=[5, 2])
    >>> out.shape, h.shape, c.shape
    ((5, 2, 8), (2, 2, 4), (2, 2, 4))
    """

    cell_type = LSTMCell
    state_type = CellState

    _: KW_ONLY
    peepholes: bool = False

    def __post_init__(self, rng: np.random.Generator | None) -> None:
        self.peepholes = flag(type(self).__name__, "peepholes", self.peepholes)
        super().__post_init__(rng)

    def new_cell(self, features: int, rng: np.random.Generator | None) -> LSTMCell:
        return LSTMCell(
            features, self.hidden_size, self.bias, self.peepholes, dtype=self.dtype, rng=rng
        )
