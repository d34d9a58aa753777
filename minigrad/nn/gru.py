"""The GRU: the cell, one step at a time, and the layer that runs it over sequences."""

from typing import Any

import numpy as np

from minigrad.checks import flag
from minigrad.core.tensor import Tensor
from minigrad.nn.cell import Cell, HiddenState, Weights
from minigrad.nn.stack import _Recurrent
from minigrad.ops.elementwise import sigmoid, tanh
from minigrad.ops.matmul import addmm, matmul
from minigrad.ops.shape import split


class GRUCell(Cell):
    """The slide's GRU. GRUCell(input_size, hidden_size, bias=True, reset_after=False,
    dtype=float32, rng=None).

    r, z = sigmoid(x W + h U + b); n = tanh(x W + (r h) U + b) (Cho et al. 2014); h' = (1 - z) n + z
    h. The gates stand in the order r, z, n. reset_after=True: n = tanh(x W + b + r u), u = h U +
    b_u, the form of cuDNN and PyTorch; b then holds b_u as a fourth part.

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
        dtype: Any = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.reset_after = flag("GRUCell", "reset_after", reset_after)
        self.kind = "gru_after" if reset_after else "gru"
        self.biases = ("r", "z", "n", "u") if reset_after else ("r", "z", "n")
        super().__init__(input_size, hidden_size, bias, dtype, rng)

    def start(self, weights: Weights) -> tuple[Any, ...]:
        """The parts of the weights, cut once for a sequence, so that each part's gradient is one
        chain over the steps."""
        H = weights.U.shape[0]
        W, U, b, _ = weights
        inner = b[3 * H :] if b is not None and self.reset_after else None
        return (
            W,
            U[:, : 2 * H],
            U[:, 2 * H :],
            b[: 3 * H] if b is not None and self.reset_after else b,
            inner,
        )

    def step(self, weights: tuple[Any, ...], x: Tensor, h: Tensor, c: None, hm: Tensor) -> Tensor:
        W, U_rz, U_n, b, b_u = weights
        H = U_n.shape[0]
        a = matmul(x, W) if b is None else addmm(b, x, W)
        a_rz, a_n = split(a, [2 * H, H], axis=1)
        if self.reset_after:
            u = matmul(hm, U_n) if b_u is None else addmm(b_u, hm, U_n)
        r, z = split(sigmoid(addmm(a_rz, hm, U_rz)), 2, axis=1)
        n = tanh(a_n + r * u if self.reset_after else addmm(a_n, r * hm, U_n))
        return (1 - z) * n + z * h

    def options(self) -> str:
        return super().options() + (", reset_after=True" if self.reset_after else "")


class GRU(_Recurrent[HiddenState]):
    """Gated recurrent unit over a whole sequence (slide: GRU): r, z = sigmoid, h' = (1 - z) n + z
    h.

    reset_after=False: n = tanh(x W + (r h) U + b), Cho et al. 2014. reset_after=True: n = tanh(x W
    + b + r (h U + b_u)), as in cuDNN and PyTorch. Other arguments as for RNN.

    >>> import numpy as np, minigrad as mg
    >>> layer = mg.nn.GRU(3, 4, num_layers=2, reset_after=True)
    >>> out, state = layer(mg.Tensor(np.ones((5, 2, 3), np.float32)))
    >>> out.shape, state.h.shape
    ((5, 2, 4), (2, 2, 4))
    """

    cell_type = GRUCell

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
        reset_after: bool = False,
        checkpoint: str | None = None,
        clip_state_grad: float | None = None,
        dtype: Any = np.float32,
        rng: Any = None,
    ) -> None:
        super().__init__(
            lambda size: GRUCell(
                size, hidden_size, bias=bias, reset_after=reset_after, dtype=dtype, rng=rng
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
