"""Recurrent cells, one step at a time, written out of ops: the specification of the fused layers of rnn.py. Loops over them are
in sequence.py.

B, I, H: batch, inputs, hidden units. Weights are stored (in, out): W (I, G H) for the input and U (H, G H) for the state, G
gates side by side; one bias a gate, b (G H). U starts orthogonal gate by gate, W Glorot-uniform, b zero but 1 for the LSTM's
forget gate. The products of a gate are one chain, b + x W + h U (see addmm): so a cell in a loop has the bits of the fused
layer.
"""
from typing import Any, NamedTuple

import numpy as np

from minigrad.elementwise import relu, sigmoid, sqrt, tanh
from minigrad.matmul import addmm, matmul
from minigrad.module import Module, Parameter, check_memory, flag, glorot, numbers, size, tensor_of
from minigrad.reduce import mean, var
from minigrad.shape import split
from minigrad.tensor import Tensor, checked_dtype, zeros


class Gate(NamedTuple):
    """The weights of one gate: views W (I, H), U (H, H), and b (H) or None."""
    W: Tensor
    U: Tensor
    b: Tensor | None


class Weights(NamedTuple):
    """What a step computes with, in the order of recurrent.sequence: b and p are None where the cell has none."""
    W: Tensor
    U: Tensor
    b: Tensor | None
    p: Tensor | None


def orthogonal(rng: np.random.Generator, n: int) -> np.ndarray:
    """An (n, n) orthogonal matrix, uniformly distributed: Q of a QR decomposition, signs fixed by R's diagonal (Mezzadri
    2007)."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    return q * np.sign(np.diag(r))


class Cell(Module):
    """What the cells share: the weights, their initial values, gates by name."""

    gates: tuple[str, ...]      # their names in the order of the columns of W and U
    biases: tuple[str, ...]     # the same for b
    kind: str                   # the name of the cell in recurrent.CELLS

    def __init__(self, input_size: int, hidden_size: int, bias: bool, dtype: Any, rng: np.random.Generator | None) -> None:
        self.op = type(self).__name__
        I, H = size(self.op, "input_size", input_size), size(self.op, "hidden_size", hidden_size)
        rng, dtype = numbers(self.op, rng), checked_dtype(dtype, self.op)
        check_memory(self.op, (I + H) * H * len(self.gates), f"(input_size, hidden_size) = ({I}, {H})")
        self.input_size, self.hidden_size = I, H
        self.W = Parameter(np.concatenate([glorot(rng, I, H) for _ in self.gates], axis=1), dtype)
        self.U = Parameter(np.concatenate([orthogonal(rng, H) for _ in self.gates], axis=1), dtype)
        self.b = (
            Parameter(np.concatenate([np.full(H, float(name == "f")) for name in self.biases]), dtype)
            if flag(self.op, "bias", bias)
            else None
        )
        self.p: Parameter | None = None

    def gate(self, name: str) -> Gate:
        """The weights of one gate by its name, e.g. "f" for the LSTM's forget gate."""
        if name not in self.gates:
            raise ValueError(f"{self.op}: name must be one of {', '.join(self.gates)}, got {name!r}")
        H, k = self.hidden_size, self.gates.index(name)
        part = slice(k * H, (k + 1) * H)
        return Gate(self.W[:, part], self.U[:, part], None if self.b is None else self.b[part])

    def weights(self) -> Weights:
        """All weights as one value."""
        return Weights(self.W, self.U, self.b, self.p)

    def start(self, weights: Weights) -> Any:
        """What `step` takes as weights: here the weights themselves. Called once for a sequence."""
        return weights

    def step(self, weights: Any, x: Tensor, h: Tensor, c: Tensor | None, hm: Tensor) -> Any:
        """The formulas: x (B, I), h and c (B, H) to the new h, or (h, c). hm is h with recurrent dropout, what the products
        see."""
        raise NotImplementedError

    def checked_weights(self, op: str, weights: Weights | None = None) -> Weights:
        """The weights, or others in their place, if their shapes and dtypes fit: they can be replaced at any time."""
        if weights is None:
            weights = self.weights()
        elif not isinstance(weights, tuple) or len(weights) != 4:
            raise TypeError(f"{op}: weights must be a Weights (W, U, b, p), got {type(weights).__name__}")
        W, U, b, p = weights
        I, H = self.input_size, self.hidden_size
        if not isinstance(W, Tensor):
            raise TypeError(f"{op}: W must be a Tensor, got {type(W).__name__}")
        dtype, columns = W.dtype, len(self.gates) * H
        if W.shape != (I, columns):
            raise ValueError(f"{op}: W must have shape {(I, columns)} = (input_size, gates * hidden_size), got {W.shape}")
        _check_tensor(op, "U", U, dtype, (H, columns), "(hidden_size, gates * hidden_size)")
        if b is not None:
            _check_tensor(op, "b", b, dtype, (len(self.biases) * H,), "(biases * hidden_size,)")
        if p is not None:
            _check_tensor(op, "p", p, dtype, (3, H), "(3, hidden_size)")
        return weights if isinstance(weights, Weights) else Weights(*weights)

    def checked_sequence(self, op: str, x: Any, weights: Weights) -> Tensor:
        """x (T, B, I) as a Tensor."""
        x = tensor_of(op, "x", x, weights.W.dtype)
        if x.ndim != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"{op}: x must have shape (T, B, {self.input_size}) = (time, batch, input_size), got {x.shape}")
        return x

    def check_state(self, op: str, name: str, value: Any, B: int, dtype: Any) -> None:
        """A state, or a mask of it, must be a Tensor (B, H)."""
        _check_tensor(op, name, value, dtype, (B, self.hidden_size), "(batch, hidden_size)")

    def _check_weights(self) -> None:
        self.checked_weights(self.op)

    def _check(self, x: Any, *states: tuple[str, Any]) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"{self.op}: x must be a Tensor, got {type(x).__name__}")
        if x.dtype != self.W.dtype:
            raise TypeError(
                f"{self.op}: x has dtype {x.dtype}, the weights have {self.W.dtype}: "
                f"convert the input with x.astype('{self.W.dtype}')"
            )
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ValueError(f"{self.op}: x must have shape (B, {self.input_size}) = (batch, input_size), got {x.shape}")
        for name, value in states:
            self.check_state(self.op, name, value, x.shape[0], self.W.dtype)

    def initial(self, B: int) -> Tensor:
        """A state of zeros, (B, H)."""
        return zeros((B, self.hidden_size), self.W.dtype)

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """One step: x (B, I), h (B, H) or None for zeros -> h (B, H)."""
        if h is None and isinstance(x, Tensor) and x.ndim:
            h = self.initial(x.shape[0])
        self._check(x, ("h", h))
        return self.step(self.start(self.weights()), x, h, None, h)

    def options(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.b is not None else ", bias=False")


def _check_tensor(op: str, name: str, value: Any, dtype: Any, shape: tuple[int, ...], meaning: str) -> None:
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


class RNNCell(Cell):
    """The slide's recurrent network: h' = tanh(h U + x W + b), or relu. RNNCell(input_size, hidden_size, bias=True,
    nonlinearity="tanh", dtype=float32, rng=None).

    >>> import minigrad as mg
    >>> mg.nn.RNNCell(3, 4)(mg.ones((2, 3))).shape
    (2, 4)
    """

    gates = biases = ("h",)

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", dtype: Any = np.float32,
                 rng: np.random.Generator | None = None) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        self.kind = f"rnn_{nonlinearity}"
        super().__init__(input_size, hidden_size, bias, dtype, rng)

    def step(self, weights: Weights, x: Tensor, h: Tensor, c: None, hm: Tensor) -> Tensor:
        return (tanh if self.kind == "rnn_tanh" else relu)(gates_of(weights, x, hm))


class LSTMCell(Cell):
    """The slides' LSTM. LSTMCell(input_size, hidden_size, bias=True, peepholes=False, layer_norm=False, dtype=float32, rng=None).

    i, f, o = sigmoid(x W + h U + b), g = tanh(x W + h U + b), each with its own columns; c' = f c + i g; h' = o tanh c'. The
    gates stand in the order i, f, g, o. peepholes: i and f see p_i c and p_f c, o sees p_o c' (Gers and Schmidhuber 2000).
    layer_norm: x W and h U and, before its tanh, c' are normalised over the units and scaled (Ba, Kiros and Hinton 2016,
    equations 20 to 22).

    >>> import minigrad as mg
    >>> h, c = mg.nn.LSTMCell(3, 4)(mg.ones((2, 3)))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    gates = biases = ("i", "f", "g", "o")
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

    def start(self, weights: Weights) -> tuple:
        """The weights, the peepholes one by one, and the scales and the shift of the layer norm; None for what is not there."""
        p = None if weights.p is None else [weights.p[k] for k in range(3)]
        if not self.layer_norm:
            return weights, p, None
        return weights, p, (self.scale_x, self.scale_h, self.scale_c, self.shift_c)

    def step(self, weights: tuple, x: Tensor, h: Tensor, c: Tensor, hm: Tensor) -> tuple[Tensor, Tensor]:
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

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step: x (B, I), state (h, c), each (B, H), or None for zeros -> (h, c)."""
        if state is None:
            self._check(x)
            state = self.initial(x.shape[0]), self.initial(x.shape[0])
        if not isinstance(state, tuple) or len(state) != 2:
            got = type(state).__name__ + (f" of length {len(state)}" if isinstance(state, tuple) else "")
            raise TypeError(f"{self.op}: state must be (h, c), got {got}")
        self._check(x, ("h", state[0]), ("c", state[1]))
        return self.step(self.start(self.weights()), x, *state, state[0])


def normalised(x: Tensor) -> Tensor:
    """x (B, N) with mean 0 and variance 1 over N."""
    return (x - mean(x, 1, keepdims=True)) / sqrt(var(x, 1, keepdims=True) + 1e-5)


class GRUCell(Cell):
    """The slide's GRU. GRUCell(input_size, hidden_size, bias=True, reset_after=False, dtype=float32, rng=None).

    r, z = sigmoid(x W + h U + b); n = tanh(x W + (r h) U + b) (Cho et al. 2014); h' = (1 - z) n + z h. The gates stand in the
    order r, z, n. reset_after=True: n = tanh(x W + b + r u), u = h U + b_u, the form of cuDNN and PyTorch; b then holds b_u as
    a fourth part.

    >>> import minigrad as mg
    >>> mg.nn.GRUCell(3, 4, reset_after=True)(mg.ones((2, 3))).shape
    (2, 4)
    """

    gates = ("r", "z", "n")

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, reset_after: bool = False, dtype: Any = np.float32,
                 rng: np.random.Generator | None = None) -> None:
        self.reset_after = flag("GRUCell", "reset_after", reset_after)
        self.kind = "gru_after" if reset_after else "gru"
        self.biases = ("r", "z", "n", "u") if reset_after else ("r", "z", "n")
        super().__init__(input_size, hidden_size, bias, dtype, rng)

    def start(self, weights: Weights) -> tuple:
        """The parts of the weights, cut once for a sequence, so that each part's gradient is one chain over the steps."""
        H = weights.U.shape[0]
        W, U, b, _ = weights
        inner = b[3 * H:] if b is not None and self.reset_after else None
        return W, U[:, :2 * H], U[:, 2 * H:], b[:3 * H] if b is not None and self.reset_after else b, inner

    def step(self, weights: tuple, x: Tensor, h: Tensor, c: None, hm: Tensor) -> Tensor:
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
