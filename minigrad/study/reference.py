"""Automatic differentiation in one file: tape, sweep, ops, recurrent networks. Read it first.

An op computes a value and puts a Node on the tape. The sweep visits the Nodes, the newest first,
and runs their rules. A rule is a function of dy (or dz), the gradient of the loss with respect to
the op's output, which some texts call a cotangent; it returns the gradient for each input.

The compiled engine computes the same, to the bit, and some thousand times faster. It also lets go
of a graph while it sweeps through it; here a graph stays until it is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from heapq import heappop, heappush
from itertools import count
from math import inf, isfinite, nextafter
from typing import Any

import numpy as np

# fmt: off
__all__ = [
    "Node", "Tensor", "addmm", "cross_entropy", "functions", "gru_step", "lstm_step", "no_grad",
    "product", "record", "rnn_step", "sweep", "tanh", "total", "unroll",
]

Array = Any  # of NumPy, float32 or float64
Tensors = Sequence["Tensor"]
Rule = Callable[..., list[Any]]
recording = True
serials = count()

def logistic(x: Array) -> Array:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))  # so that neither overflows

# Put the compiled engine's functions of arrays in here, and every result has its bits.
functions: dict[str, Any] = {"tanh": np.tanh, "sigmoid": logistic, "exp": np.exp, "log": np.log}

# ---------------------------------------------------------------- the tape

class Tensor:
    """An array that remembers how it was made: grad_fn is the Node of its op, None for a leaf."""

    def __init__(self, data: Any, requires_grad: bool = False, grad_fn: Node | None = None) -> None:
        self.array: Array = np.asarray(data, getattr(data, "dtype", np.float32))
        self.requires_grad = requires_grad
        self.grad_fn = grad_fn
        self.grad: Tensor | None = None
        self.changes = [0]  # how many in place; tensors that share memory share this list

    def backward(self, dy: Tensor | None = None, create_graph: bool = False) -> None:
        """Add the gradient of this tensor to the `grad` of every leaf that it was made from."""
        if not self.requires_grad:
            raise RuntimeError("backward: the tensor was made from none with requires_grad=True")
        if dy is None and self.array.size == 1:
            dy = Tensor(np.ones_like(self.array))
        if dy is None or dy.array.shape != self.array.shape:
            raise RuntimeError(f"backward: give dy, of the tensor's shape {self.array.shape}")
        commit(sweep(self, dy, create_graph))

    def __setitem__(self, index: Any, value: Tensor) -> None:
        if recording and (self.requires_grad or value.requires_grad):
            raise RuntimeError("assignment: it would not be recorded, do it under no_grad()")
        self.array[index] = value.array
        self.changes[0] += 1

    def __getitem__(self, index: Any) -> Tensor:
        return cut(self, index)
    def __add__(self, other: Any) -> Tensor:
        return add(self, tensor_like(self, other))
    def __sub__(self, other: Any) -> Tensor:
        return sub(self, tensor_like(self, other))
    def __rsub__(self, other: Any) -> Tensor:
        return sub(tensor_like(self, other), self)
    def __mul__(self, other: Any) -> Tensor:
        return mul(self, tensor_like(self, other))
    def __truediv__(self, other: Any) -> Tensor:
        return div(self, tensor_like(self, other))

class Node:
    """A recorded op. It does not hold the Tensor that it made, which holds it: there is no cycle.

    inputs: for each input the Node that made it; itself, if it is a leaf; None, if a constant.
    """

    def __init__(self, name: str, y: Array, inputs: Tensors, rule: Rule, saved: Tensors) -> None:
        self.serial = next(serials)
        self.name = name
        self.array = y
        self.inputs = [slot_of(x) for x in inputs]
        self.rule = rule
        self.saved = [(x, x.changes[0]) for x in saved]

    def run(self, dy: Tensor) -> list[Any]:
        """The gradients for the inputs."""
        needed = []
        for x, changes in self.saved:
            if x.changes[0] != changes:
                raise RuntimeError(f"{self.name}: what it saved changed in place; give it a copy")
            if recording and x.array is self.array:  # the op's own output, which leads back to it
                x = Tensor(self.array, True, self)
            needed.append(x)
        return self.rule(dy, *needed)

def slot_of(x: Tensor) -> Node | Tensor | None:
    """Where the gradient of x is gathered."""
    return (x.grad_fn or x) if x.requires_grad else None

def tensor_like(like: Tensor, x: Any) -> Tensor:
    """A number beside a Tensor takes its dtype."""
    return x if isinstance(x, Tensor) else Tensor(np.asarray(x, like.array.dtype))

def record(name: str, y: Array, inputs: Tensors, rule: Rule, saved: Tensors = ()) -> Tensor:
    """An op's value y as a Tensor; the op goes on the tape if an input wants a gradient.

    The rule is called with dy and the saved Tensors.
    """
    tracked = recording and any(x.requires_grad for x in inputs)
    output = Tensor(y, tracked, Node(name, y, inputs, rule, saved) if tracked else None)
    for x in (*inputs, *saved):
        if np.may_share_memory(x.array, output.array):
            output.changes = x.changes
    return output

@contextmanager
def no_grad(off: bool = True) -> Iterator[None]:
    """Record no ops for a while."""
    global recording
    before, recording = recording, not off
    try:
        yield
    finally:
        recording = before

# ---------------------------------------------------------------- the sweep

def sweep(root: Tensor, dy: Tensor, create_graph: bool) -> dict[Any, Tensor]:
    """Walk back from the root; return the gradients of the leaves.

    A Node is newer than all it was made from: when it is the newest that is pending, its gradient
    is complete. With create_graph the rules, which are made of ops, are recorded in their turn.
    """
    arrived: dict[Any, list[Any]] = {}  # for a Node or leaf its gradients, in their order
    pending: list[tuple[int, Node]] = []  # a heap, the newest Node on top

    def give(slot: Any, dx: Any) -> None:
        if slot not in arrived and isinstance(slot, Node):
            heappush(pending, (-slot.serial, slot))
        arrived.setdefault(slot, []).append(dx)

    with no_grad(not create_graph):
        give(slot_of(root), dy)
        while pending:
            node = heappop(pending)[1]
            gradients = node.run(add_up(node.array, arrived.pop(node)))
            for slot, dx in zip(node.inputs, gradients, strict=True):
                if slot is not None and dx is not None:
                    give(slot, dx)
        return {leaf: add_up(leaf.array, dxs) for leaf, dxs in arrived.items()}

def commit(gradients: dict[Any, Tensor]) -> None:
    """Only when the whole sweep has succeeded: after an error no `grad` has changed."""
    for leaf, dx in gradients.items():
        leaf.grad = dx if leaf.grad is None else leaf.grad + dx

def add_up(like: Array, dxs: list[Any]) -> Tensor:
    """The sum of an array's gradients dxs, the first one first.

    A pair (a, b) is the product a b, not multiplied yet: its sums go on from what came before. What
    broadcasting has made larger than the array is summed to its shape.
    """
    if recording:  # create_graph: then a product is an op of its own
        dxs = [matmul(*dx) if isinstance(dx, tuple) else dx for dx in dxs]
    high, low = np.zeros_like(like), np.zeros(like.shape)
    for i, dx in enumerate(dxs):
        if isinstance(dx, tuple):
            high = product(high, dx[0].array, dx[1].array)
        elif dx.array.shape == like.shape:
            high = high + dx.array if i else dx.array
        else:
            for row in rows_of(dx.array, like.shape):
                high, low = two_sum(high, low, row)
    y = rounded(high, low) if low.any() else high
    if not recording:
        return Tensor(y)
    return record("sum", y, dxs, lambda dy: [spread(dy, dx.array.shape) for dx in dxs])

# ---------------------------------------------------------------- products and sums

def fma(a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""
    if not isfinite(a * b + c):
        return a * b + c
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    y = float(exact)
    if type(c) is np.float32 and y != exact and np.float64(y).view(np.int64) % 2 == 0:
        # To odd, so that rounding again, to float32, meets no new tie (Boldo and Melquiond 2008).
        y = nextafter(y, inf if exact > y else -inf)
    return type(c)(y)

def product(start: Array, a: Array, b: Array) -> Array:
    """start + a b: each element is one chain of fused multiply-adds, k ascending."""
    y = np.array(start)
    for i, j, k in np.ndindex(*y.shape, a.shape[1]):
        y[i, j] = fma(a[i, k], b[k, j], y[i, j])
    return y

def two_sum(high: Array, low: Array, x: Array) -> tuple[Array, Array]:
    """(high, low) + x in twice the precision of x: a float32 is added to low, which is float64; a
    float64 to high, while low adds up the rounding errors (Knuth's TwoSum)."""
    if x.dtype == np.float32:
        return high, low + x
    y = high + x
    added = y - high
    return y, low + ((high - (y - added)) + (x - added))

def rounded(high: Array, low: Array) -> Array:
    """high + low, rounded once; high, where a float64 sum has overflowed and low is NaN."""
    finite = np.isfinite(low) | (high.dtype == np.float32)
    return np.where(finite, high + low, high).astype(high.dtype)

def rows_of(x: Array, shape: tuple[int, ...]) -> Array:
    """x as rows of `shape`, which are what broadcasting an array of that shape to x's repeats."""
    padded = (1,) * (x.ndim - len(shape)) + shape
    repeated = [d for d in range(x.ndim) if x.shape[d] != padded[d]]
    return np.moveaxis(x, repeated, range(len(repeated))).reshape(-1, *shape)

def sum_lanes(x: Array, shape: tuple[int, ...]) -> Array:
    """The sum of x's rows: row j goes to lane j % 16; then lane l + 8 to lane l, l + 4, 2, 1."""
    high, low = np.zeros((16, *shape), x.dtype), np.zeros((16, *shape))
    for j, row in enumerate(rows_of(x, shape)):
        high[j % 16], low[j % 16] = two_sum(high[j % 16], low[j % 16], row)
    for n in (8, 4, 2, 1):
        high, errors = two_sum(high[:n], low[:n], high[n:])
        low = errors + low[n:]
    return rounded(high[0], low[0])

# ---------------------------------------------------------------- ops: the value, below it the rule

# z = a + b             da = dz, db = dz; what has the shape of z is summed to that of a, of b
def add(a: Tensor, b: Tensor) -> Tensor:
    z = a.array + b.array
    return record("add", z, (a, b), lambda dz: [dz, dz])

# z = a - b             da = dz, db = -dz
def sub(a: Tensor, b: Tensor) -> Tensor:
    z = a.array - b.array
    return record("sub", z, (a, b), lambda dz: [dz, dz * -1.0])

# z = a b               da = dz b, db = dz a
def mul(a: Tensor, b: Tensor) -> Tensor:
    z = a.array * b.array
    return record("mul", z, (a, b), mul_rule, (a, b))
def mul_rule(dz: Tensor, a: Tensor, b: Tensor) -> list[Any]:
    # The compiled engine gives x * x its gradient as a whole.
    return [dz * a + dz * a, None] if a is b and not recording else [dz * b, dz * a]

# z = a / b             db = -(dz / b) (a / b), da = dz / b
def div(a: Tensor, b: Tensor) -> Tensor:
    z = a.array / b.array
    return record("div", z, (b, a), lambda dz, a, b: [dz / b * (a / b) * -1.0, dz / b], (a, b))

# z = a b, of matrices  da = dz b^T, db = a^T dz
def matmul(a: Tensor, b: Tensor) -> Tensor:
    z = product(np.zeros((len(a.array), b.array.shape[1]), a.array.dtype), a.array, b.array)
    return record("matmul", z, (a, b), product_rule, (a, b))
def product_rule(dz: Tensor, a: Tensor, b: Tensor) -> list[Any]:
    return [(dz, transpose(b)), (transpose(a), dz)]

# z = c + a b           da = dz b^T, db = a^T dz, dc = dz       (slide: the linear layer, x W + b)
def addmm(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    z = product(np.broadcast_to(c.array, (len(a.array), b.array.shape[1])), a.array, b.array)
    return record("addmm", z, (a, b, c), lambda dz, a, b: [*product_rule(dz, a, b), dz], (a, b))

# y = x^T               dx = dy^T
def transpose(x: Tensor) -> Tensor:
    y = x.array.T
    return record("swapaxes", y, (x,), lambda dy: [transpose(dy)])

# y = tanh x            dx = dy (1 - y^2)
def tanh(x: Tensor) -> Tensor:
    y = Tensor(functions["tanh"](x.array))
    return record("tanh", y.array, (x,), lambda dy, y: [dy * (1 - y * y)], (y,))

# y = 1 / (1 + e^-x)    dx = dy y (1 - y)
def sigmoid(x: Tensor) -> Tensor:
    y = Tensor(functions["sigmoid"](x.array))
    return record("sigmoid", y.array, (x,), lambda dy, y: [dy * (y * (1 - y))], (y,))

# y = x[index]          dx = zeros, but dx[index] = dy
def cut(x: Tensor, index: Any, name: str = "index") -> Tensor:
    y = x.array[index]
    return record(name, y, (x,), lambda dy: [put(dy, index, x.array.shape)])

# y = zeros, but y[index] = x           dx = dy[index]
def put(x: Tensor, index: Any, shape: tuple[int, ...]) -> Tensor:
    y = np.zeros(shape, x.array.dtype)
    y[index] = x.array
    return record("put", y, (x,), lambda dy: [dy[index]])

# y_0, y_1, ... = so many columns of x each         dx = zeros, but dy_i in the place of y_i
def split(x: Tensor, *columns: int) -> list[Tensor]:
    ends = np.cumsum(columns)
    return [cut(x, np.s_[:, end - n : end], "split") for n, end in zip(columns, ends, strict=True)]

# y = x in another shape                dx = dy in x's shape
def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    y = x.array.reshape(shape)
    return record("reshape", y, (x,), lambda dy: [reshape(dy, x.array.shape)])

# y[i] = x_i            dx_i = dy[i]
def stack(xs: Tensors) -> Tensor:
    y = np.stack([x.array for x in xs])
    return record("stack", y, xs, lambda dy: [dy[i] for i in range(len(xs))])

# y = the sum of x, of a shape that can be broadcast to x's             dx = dy, broadcast to x's
def total(x: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    y = sum_lanes(x.array, shape)
    return record("sum", y, (x,), lambda dy: [spread(dy, x.array.shape)])

# y = x, broadcast to a shape           dx = dy, which is summed when it arrives
def spread(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    y = np.broadcast_to(x.array, shape)
    return record("spread", y, (x,), lambda dy: [dy])

# ---------------------------------------------------------------- the loss of a classifier

# l_i = log(sum_c e^x_ic) - x_i,t_i     dx_ic = dl_i (p_ic - [c = t_i]), p = softmax(x)
def cross_entropy(x: Tensor, targets: Any) -> Tensor:
    """The mean of -log softmax(x)[target]. x: (..., C); targets: the classes, (...) ints."""
    t = np.asarray(targets)[..., np.newaxis]
    top, ties, rest = exp_sums(x.array)
    both = ties + rest
    lost = np.where(rest < ties, (ties - both) + rest, 0)       # when `both` was rounded
    l = functions["log"](both) + lost / both - (np.take_along_axis(x.array, t, -1) - top)
    return total(record("cross_entropy", l, (x,), lambda dl, x: [dl * error(x, t)], (x,))) / t.size

# y = p - onehot        dx = p (dy - sum_c dy p), p = softmax(x)
def error(x: Tensor, t: Array) -> Tensor:
    onehot = tensor_like(x, np.arange(x.array.shape[-1]) == t)
    top, ties, rest = exp_sums(x.array)
    y = functions["exp"](x.array - top) / (ties + rest) - onehot.array
    sure = (onehot.array == 1) & (ties == 1) & (x.array == top)
    y = np.where(sure, -(rest / (ties + rest)), y)              # 1 / (1 + rest) - 1 loses digits
    return record("error", y, (x,), lambda dy, x: softmax_rule(dy, error(x, t) + onehot), (x,))
def softmax_rule(dy: Tensor, p: Tensor) -> list[Any]:
    return [p * (dy - total(dy * p, (*p.array.shape[:-1], 1)))]

def exp_sums(x: Array) -> tuple[Array, Array, Array]:
    """Of each row the largest x, how many are equal to it, and sum e^(x - largest) of the rest."""
    top = x.max(-1, keepdims=True)
    powers = functions["exp"](x - top) * (x < top)
    return top, (x == top).sum(-1, keepdims=True, dtype=x.dtype), sum_lanes(powers, top.shape)

# ---------------------------------------------------------------- the lecture's networks

def rnn_step(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensors:
    """The slide "hidden state": h' = tanh(x W + h U + b)."""
    return [tanh(addmm(addmm(b, x, W), h, U))]

def lstm_step(x: Tensor, h: Tensor, c: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensors:
    """The slide "LSTM" (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000):
    i, f, o = sigmoid(x W + h U + b), g = tanh(x W + h U + b); c' = f c + i g; h' = o tanh c'."""
    i, f, g, o = split(addmm(addmm(b, x, W), h, U), *[len(U.array)] * 4)
    i, f, g = sigmoid(i), sigmoid(f), tanh(g)
    c = f * c + i * g
    return [sigmoid(o) * tanh(c), c]

# The GRU's weights come cut into parts: so each part's gradient is one chain over all steps.
def gru_step(x: Tensor, h: Tensor, W: Tensor, U_rz: Tensor, U_n: Tensor, b: Tensor) -> Tensors:
    """The slide "GRU" (Cho et al. 2014): r, z = sigmoid(x W + h U + b);
    n = tanh(x W + (r h) U + b); h' = (1 - z) n + z h."""
    H = len(U_n.array)
    a_rz, a_n = split(addmm(b, x, W), 2 * H, H)
    r, z = split(sigmoid(addmm(a_rz, h, U_rz)), H, H)
    n = tanh(addmm(a_n, r * h, U_n))
    return [(1 - z) * n + z * h]

def unroll(step: Any, x: Tensor, states: Tensors, weights: Tensors) -> tuple[Tensor, Tensors]:
    """A step over x (T, B, I): the outputs h_1, ..., h_T as (T, B, H), and the last states."""
    outputs = []
    for t in range(len(x.array)):
        # A Node of its own adds up what later steps make of a state, before the output's gradient.
        states = step(x[t], *[reshape(s, s.array.shape) for s in states], *weights)
        outputs.append(states[0])
    return stack(outputs), states
