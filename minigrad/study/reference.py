"""Automatic differentiation in one file: tape, sweep, ops, recurrent networks. Read it first.

An op computes a value and puts a Node on the tape. The sweep visits the Nodes, the newest first,
and runs their rules. A rule is a function of dy (or dz), the gradient of the loss with respect to
the op's output, which some texts call a cotangent; it returns the gradient for each input.

The compiled engine computes the same, to the bit, and some thousand times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from heapq import heappop, heappush
from itertools import count
from math import inf, isfinite, nextafter, prod
from typing import Any, NamedTuple

import numpy as np

Array = Any  # of NumPy, float32 or float64
recording = True
serials = count()


def logistic(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


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

    def backward(
        self, dy: Tensor | None = None, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add the gradient of this tensor to the `grad` of every leaf that it was made from."""
        if not self.requires_grad:
            raise RuntimeError("backward: the tensor was made from none with requires_grad=True")
        if dy is None and self.array.size == 1:
            dy = Tensor(np.ones_like(self.array))
        if dy is None or dy.array.shape != self.array.shape:
            raise RuntimeError(f"backward: give dy, of the tensor's shape {self.array.shape}")
        commit(sweep(self, dy, retain_graph or create_graph, create_graph))

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

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, tensor_like(self, other))


class Node:
    """A recorded op. It does not hold the Tensor that it made, which holds it: there is no cycle.

    inputs: for each input the Node that made it; itself, if it is a leaf; None, if a constant.
    """

    def __init__(self, name: str, y: Array, inputs: Tensors, rule: Rule, saved: Tensors) -> None:
        self.serial = next(serials)
        self.name = name
        self.array = y
        self.inputs = [slot_of(x) for x in inputs]
        self.rule: Rule | None = rule
        self.saved = [(x, x.changes[0]) for x in saved]

    def run(self, dy: Tensor) -> list[Any]:
        """The gradients for the inputs."""
        if self.rule is None:
            raise RuntimeError(f"{self.name} was freed; the first backward needs retain_graph=True")
        needed = []
        for x, changes in self.saved:
            if x.changes[0] != changes:
                raise RuntimeError(f"{self.name}: what it saved changed in place; give it a copy")
            if recording and x.array is self.array:  # the op's own output, which leads back to it
                x = Tensor(self.array, True, self)
            needed.append(x)
        return self.rule(dy, *needed)


Rule = Callable[..., list[Any]]
Tensors = Sequence[Tensor]
Shape = tuple[int, ...]


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
    output = Tensor(y)
    for x in (*inputs, *saved):
        if np.may_share_memory(x.array, output.array):
            output.changes = x.changes
    if recording and any(x.requires_grad for x in inputs):
        output.requires_grad = True
        output.grad_fn = Node(name, output.array, inputs, rule, saved)
    return output


@contextmanager
def no_grad(off: bool = True) -> Iterator[None]:
    """Record no ops for a while."""
    global recording
    before = recording
    recording = not off
    try:
        yield
    finally:
        recording = before


# ---------------------------------------------------------------- the sweep


def sweep(root: Tensor, dy: Tensor, retain: bool, create_graph: bool) -> dict[Any, Tensor]:
    """Walk back from the root; return the gradients of the leaves.

    A Node is newer than all it was made from: when it is the newest that is pending, its gradient
    is complete. With create_graph the rules, which are made of ops, are recorded in their turn.
    """
    arrived: dict[Any, Gradient] = {}
    pending: list[tuple[int, Node]] = []  # a heap, the newest Node on top

    def give(slot: Any, dx: Tensor | Product) -> None:
        if slot not in arrived:
            arrived[slot] = Gradient(slot.array)
            if isinstance(slot, Node):
                heappush(pending, (-slot.serial, slot))
        arrived[slot].add(dx)

    with no_grad(not create_graph):
        give(slot_of(root), dy)
        while pending:
            node = heappop(pending)[1]
            gradients = node.run(arrived.pop(node).whole())
            for slot, dx in zip(node.inputs, gradients, strict=True):
                if slot is not None and dx is not None:
                    give(slot, dx)
            if not retain:
                node.rule, node.inputs, node.saved = None, [], []
        return {leaf: gradient.whole() for leaf, gradient in arrived.items()}


def commit(gradients: dict[Any, Tensor]) -> None:
    """Only when the whole sweep has succeeded: after an error no `grad` has changed."""
    for leaf, dx in gradients.items():
        leaf.grad = dx if leaf.grad is None else leaf.grad + dx


class Product(NamedTuple):
    """The gradient a b, not multiplied yet: its sums go on from what has arrived."""

    a: Tensor
    b: Tensor


class Gradient:
    """What has arrived at a Node or leaf: `total`, and beside it `low` for its sums over rows."""

    def __init__(self, like: Array) -> None:
        self.total: Any = None  # at first nothing, then a Tensor
        self.zeros = np.zeros_like(like)
        self.low = np.zeros(like.shape)
        self.rows: list[Tensor] = []  # with create_graph: one op adds them up, at the end

    def add(self, dx: Tensor | Product) -> None:
        start = self.zeros if self.total is None else self.total.array
        if isinstance(dx, Product) and recording:
            dx = matmul(dx.a, dx.b)
        if isinstance(dx, Product):
            self.total = Tensor(product(start, dx.a.array, dx.b.array))
        elif dx.array.shape == start.shape:
            self.total = dx if self.total is None else self.total + dx
        elif recording:
            self.rows.append(dx)
        else:
            high, self.low = add_rows(start, self.low, dx.array)
            self.total = Tensor(high)

    def whole(self) -> Any:
        if self.rows:
            return sum_of_rows([self.total or Tensor(self.zeros), *self.rows])
        if self.low.any():
            return Tensor(rounded(self.total.array, self.low))
        return self.total


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
    for i, j in np.ndindex(y.shape):
        for k in range(a.shape[1]):
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


def rows_of(x: Array, shape: Shape) -> Array:
    """x as rows of `shape`, which are what broadcasting an array of that shape to x's repeats."""
    lead = x.ndim - len(shape)
    summed = [d for d in range(x.ndim) if d < lead or shape[d - lead] != x.shape[d]]
    kept = [d for d in range(x.ndim) if d not in summed]
    return x.transpose(summed + kept).reshape(prod(x.shape[d] for d in summed), *shape)


def add_rows(high: Array, low: Array, x: Array) -> tuple[Array, Array]:
    """(high, low) + the rows of x: one chain, the first row first."""
    for row in rows_of(x, high.shape):
        high, low = two_sum(high, low, row)
    return high, low


def sum_lanes(x: Array, shape: Shape) -> Array:
    """The sum of x's rows: row j goes to lane j % 16; then lane l + 8 to lane l, l + 4, 2, 1."""
    high = np.zeros((16, *shape), x.dtype)
    low = np.zeros((16, *shape))
    for j, row in enumerate(rows_of(x, shape)):
        high[j % 16], low[j % 16] = two_sum(high[j % 16], low[j % 16], row)
    for n in (8, 4, 2, 1):
        high, errors = two_sum(high[:n], low[:n], high[n:])
        low = errors + low[n:]
    return rounded(high[0], low[0])


# ---------------------------------------------------------------- ops: the value, below it the rule
# fmt: off

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
    if a is b and not recording:        # the compiled engine gives x * x its gradient as a whole
        return [dz * a + dz * a, None]
    return [dz * b, dz * a]

# z = a / b             db = -(dz / b) (a / b), da = dz / b
def div(a: Tensor, b: Tensor) -> Tensor:
    z = a.array / b.array
    return record("div", z, (b, a), lambda dz, a, b: [dz / b * (a / b) * -1.0, dz / b], (a, b))

# z = a b, of matrices  da = dz b^T, db = a^T dz
def matmul(a: Tensor, b: Tensor) -> Tensor:
    z = product(np.zeros((len(a.array), b.array.shape[1]), a.array.dtype), a.array, b.array)
    return record("matmul", z, (a, b), product_rule, (a, b))
def product_rule(dz: Tensor, a: Tensor, b: Tensor) -> list[Any]:
    return [Product(dz, transpose(b)), Product(transpose(a), dz)]

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
def put(x: Tensor, index: Any, shape: Shape) -> Tensor:
    y = np.zeros(shape, x.array.dtype)
    y[index] = x.array
    return record("put", y, (x,), lambda dy: [dy[index]])

# y_0, y_1, ... = so many columns of x each         dx = zeros, but dy_i in the place of y_i
def split(x: Tensor, *columns: int) -> list[Tensor]:
    ends = np.cumsum(columns)
    return [cut(x, np.s_[:, end - n : end], "split") for n, end in zip(columns, ends, strict=True)]

# y = x in another shape                dx = dy in x's shape
def reshape(x: Tensor, shape: Shape) -> Tensor:
    y = x.array.reshape(shape)
    return record("reshape", y, (x,), lambda dy: [reshape(dy, x.array.shape)])

# y[i] = x_i            dx_i = dy[i]
def stack(xs: Tensors) -> Tensor:
    y = np.stack([x.array for x in xs])
    return record("stack", y, xs, lambda dy: [dy[i] for i in range(len(xs))])

# y = the sum of x, of a shape that can be broadcast to x's             dx = dy, broadcast to x's
def total(x: Tensor, shape: Shape = ()) -> Tensor:
    y = sum_lanes(x.array, shape)
    return record("sum", y, (x,), lambda dy: [spread(dy, x.array.shape)])

# y = x, broadcast to a shape           dx = dy, which is summed when it arrives
def spread(x: Tensor, shape: Shape) -> Tensor:
    y = np.broadcast_to(x.array, shape)
    return record("spread", y, (x,), lambda dy: [dy])

# y = x_0 + the rows of x_1, x_2, ...   dx_i = dy, broadcast to the shape of x_i
def sum_of_rows(xs: Tensors) -> Tensor:
    high, low = xs[0].array, np.zeros(xs[0].array.shape)
    for x in xs[1:]:
        high, low = add_rows(high, low, x.array)
    return record("sum", rounded(high, low), xs, lambda dy: [spread(dy, x.array.shape) for x in xs])

# ---------------------------------------------------------------- the loss of a classifier

# l_i = log(sum_c e^x_ic) - x_i,t_i     dx_ic = dl_i (p_ic - [c = t_i]), p = softmax(x)
def cross_entropy(x: Tensor, targets: Any) -> Tensor:
    """The mean of -log softmax(x)[target]. x: (..., C); targets: the classes, (...) ints."""
    t = np.asarray(targets)[..., np.newaxis]
    top, ties, rest = exp_sums(x.array)
    both = ties + rest
    lost = np.where(rest < ties, (ties - both) + rest, 0)       # when `both` was rounded
    l = functions["log"](both) + lost / both - (np.take_along_axis(x.array, t, -1) - top)
    losses = record("cross_entropy", l, (x,), lambda dl, x: [cross_entropy_grad(dl, x, t)], (x,))
    return total(losses) / t.size

def exp_sums(x: Array) -> tuple[Array, Array, Array]:
    """Of each row the largest x, how many are equal to it, and sum e^(x - largest) of the rest."""
    top = x.max(-1, keepdims=True)
    powers = functions["exp"](x - top) * (x < top)
    return top, (x == top).sum(-1, keepdims=True, dtype=x.dtype), sum_lanes(powers, top.shape)

# z = dl (p - onehot)   d(dl) = sum_c g (p - onehot), dx = dl p (g - sum_c g p)
def cross_entropy_grad(dl: Tensor, x: Tensor, t: Array) -> Tensor:
    top, ties, rest = exp_sums(x.array)
    p = functions["exp"](x.array - top) / (ties + rest)
    only = (ties == 1) & (np.take_along_axis(x.array, t, -1) == top)    # 1 / (1 + rest) - 1
    of_t = np.where(only, -(rest / (ties + rest)), np.take_along_axis(p, t, -1) - 1)
    np.put_along_axis(p, t, of_t, -1)
    return record("cross_entropy_grad", p * dl.array, (dl, x),
                  lambda g, dl, x: second_order(g, dl, x, t), (dl, x))
def second_order(g: Tensor, dl: Tensor, x: Tensor, t: Array) -> list[Any]:
    onehot = np.arange(x.array.shape[-1]) == t
    less = cross_entropy_grad(Tensor(np.ones_like(dl.array)), x, t)
    p = less + Tensor(onehot.astype(x.array.dtype))
    shape = dl.array.shape
    return [total(g * less, shape), dl * p * (g - total(g * p, shape))]

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

def gru_after_step(x: Tensor, h: Tensor, W: Tensor, U_rz: Tensor, U_n: Tensor, b: Tensor,
                   b_u: Tensor) -> Tensors:
    """cuDNN's form, with the reset gate after the product: n = tanh(x W + b + r (h U + b_u))."""
    H = len(U_n.array)
    a_rz, a_n = split(addmm(b, x, W), 2 * H, H)
    u = addmm(b_u, h, U_n)
    r, z = split(sigmoid(addmm(a_rz, h, U_rz)), H, H)
    n = tanh(a_n + r * u)
    return [(1 - z) * n + z * h]

def unroll(step: Any, x: Tensor, states: Tensors, weights: Tensors) -> tuple[Tensor, Tensors]:
    """A step over x (T, B, I): the outputs h_1, ..., h_T as (T, B, H), and the last states."""
    outputs = []
    for t in range(len(x.array)):
        # A Node of its own adds up what later steps make of a state, before the output's gradient.
        before = [reshape(s, s.array.shape) for s in states]
        states = step(x[t], *before, *weights)
        outputs.append(states[0])
    return stack(outputs), states

__all__ = [
    "Gradient", "Node", "Product", "Tensor", "add", "addmm", "commit", "cross_entropy", "div",
    "fma", "functions", "gru_after_step", "gru_step", "lstm_step", "matmul", "mul", "no_grad",
    "product", "record", "reshape", "rnn_step", "sigmoid", "split", "spread", "stack", "sub",
    "sweep", "tanh", "total", "transpose", "unroll",
]
