"""The GRU: first the cell, one step, then the layer, which runs it over sequences."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minigrad.checks import flag
from minigrad.core.tensor import Tensor
from minigrad.nn.cell import HiddenState
from minigrad.nn.fused_stack import FusedStack
from minigrad.nn.gated import GatedCell, Weights
from minigrad.ops.elementwise import sigmoid, tanh
from minigrad.ops.join import split
from minigrad.ops.matmul import addmm, matmul

__all__ = ["GRU", "GRUCell", "GRUWeights"]


class GRUWeights(NamedTuple):
    """What a step computes with: b_u is the bias inside of the reset gate's product. None for what
    is not there."""

    W: Tensor
    U_rz: Tensor
    U_n: Tensor
    b: Tensor | None
    b_u: Tensor | None


class GRUCell(GatedCell[Tensor]):
    """One step of a gated recurrent unit (slide: GRU; Cho et al. 2014).

    r, z = sigmoid(x W + h U + b); n = tanh(x W + (r h) U + b); h' = (1 - z) n + z h. The gates
    stand in the order r, z, n.

    Args:
        input_size: features of the input, I.
        hidden_size: features of the state, H.
        bias: add b, one for each gate. Default: True.
        reset_after: n = tanh(x W + b + r (h U + b_u)), the form of cuDNN and PyTorch; b then holds
            b_u as a fourth part. Default: False.
        dtype: of the weights, float32 (default) or float64.
        rng: a numpy.random.Generator for the initial weights. Default: minigrad's generator, see
            mg.manual_seed.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is outside its range.

    >>> import minigrad as mg
    >>> mg.nn.GRUCell(3, 4, reset_after=True)(mg.ones((2, 3))).shape
    (2, 4)
    """

    gates = ("r", "z", "n")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        reset_after: bool = False,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.reset_after = flag(type(self).__name__, "reset_after", reset_after)
        self.kind = "gru_after" if reset_after else "gru"
        self.biases = ("r", "z", "n", "u") if reset_after else ("r", "z", "n")
        super().__init__(input_size, hidden_size, bias, dtype, rng)

    def _start(self, weights: Weights) -> GRUWeights:
        """The parts of the weights, cut once for a sequence, so that each part's gradient is one
        chain over the steps."""
        H = weights.U.shape[0]
        W, U, b, _ = weights
        if b is None or not self.reset_after:
            return GRUWeights(W, U[:, : 2 * H], U[:, 2 * H :], b, None)
        b_u = b[3 * H :]
        return GRUWeights(W, U[:, : 2 * H], U[:, 2 * H :], b[: 3 * H], b_u)

    def next_states(
        self, weights: GRUWeights, x: Tensor, states: tuple[Tensor, ...], h_masked: Tensor
    ) -> tuple[Tensor, ...]:
        W, U_rz, U_n, b, b_u = weights
        (h,) = states
        H = U_n.shape[0]
        a = matmul(x, W) if b is None else addmm(b, x, W)
        a_rz, a_n = split(a, [2 * H, H], axis=1)
        if self.reset_after:
            u = matmul(h_masked, U_n) if b_u is None else addmm(b_u, h_masked, U_n)
        r, z = split(sigmoid(addmm(a_rz, h_masked, U_rz)), 2, axis=1)
        n = tanh(a_n + r * u if self.reset_after else addmm(a_n, r * h_masked, U_n))
        return ((1 - z) * n + z * h,)

    def options(self) -> str:
        return super().options() + (", reset_after=True" if self.reset_after else "")


@dataclass(eq=False, repr=False)
class GRU(FusedStack[HiddenState]):
    """A gated recurrent unit over whole sequences (slide: GRU; Cho et al. 2014).

    r, z = sigmoid(x_t W + h_{t-1} U + b); n = tanh(x_t W + (r h_{t-1}) U + b);
    h_t = (1 - z) n + z h_{t-1}.

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
        reset_after: n = tanh(x_t W + b + r (h_{t-1} U + b_u)), the form of cuDNN and PyTorch.
            Default: False.
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
    >>> layer = mg.nn.GRU(3, 4, num_layers=2, reset_after=True)
    >>> out, state = layer(mg.Tensor(np.ones((5, 2, 3), np.float32)))
    >>> out.shape, state.h.shape
    ((5, 2, 4), (2, 2, 4))
    """

    cell_type = GRUCell
    state_type = HiddenState

    _: KW_ONLY
    reset_after: bool = False

    def __post_init__(self, rng: np.random.Generator | None) -> None:
        self.reset_after = flag(type(self).__name__, "reset_after", self.reset_after)
        super().__post_init__(rng)

    def new_cell(self, features: int, rng: np.random.Generator | None) -> GRUCell:
        return GRUCell(features, self.hidden_size, self.bias, self.reset_after, self.dtype, rng)
