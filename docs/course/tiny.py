"""The engine that chapters 1 to 5 build: a Tensor, the tape, the sweep, and some ops.

Chapters 6 to 10 begin with it. It is a shorter form of minigrad/study/reference.py, with the same
names. It answers exercises 2 to 4: do these first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np

Array = Any  # of NumPy, float64
Rule = Callable[[Array], list[Array]]
serials = count()


class Tensor:
    """An array that remembers how it was made: grad_fn is the Node of its op, None for a leaf."""

    def __init__(self, data: Any, requires_grad: bool = False, grad_fn: Node | None = None) -> None:
        self.array = np.asarray(data, dtype=np.float64)
        self.requires_grad = requires_grad
        self.grad_fn = grad_fn
        self.grad: Array | None = None

    def backward(self, dy: Any = 1.0) -> None:
        """Add the gradient of this tensor to the `grad` of every leaf that it was made from."""
        commit(sweep(self, dy))

    def __add__(self, other: Any) -> Tensor:
        return add(self, tensor_like(other))

    def __sub__(self, other: Any) -> Tensor:
        return sub(self, tensor_like(other))

    def __rsub__(self, other: Any) -> Tensor:
        return sub(tensor_like(other), self)

    def __mul__(self, other: Any) -> Tensor:
        return mul(self, tensor_like(other))

    def __matmul__(self, other: Any) -> Tensor:
        return matmul(self, tensor_like(other))


class Node:
    """A recorded op. It does not hold the Tensor that it made, which holds it: there is no cycle.

    inputs: for each input the Node that made it; itself, if it is a leaf; None, if a constant.
    """

    def __init__(self, name: str, y: Array, inputs: Sequence[Tensor], rule: Rule) -> None:
        self.serial = next(serials)
        self.name = name
        self.array = y
        self.inputs = [slot_of(x) for x in inputs]
        self.rule = rule


def tensor_like(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def slot_of(x: Tensor) -> Node | Tensor | None:
    """Where the gradient of x is gathered."""
    if not x.requires_grad:
        return None
    return x if x.grad_fn is None else x.grad_fn


def record(name: str, y: Array, inputs: Sequence[Tensor], rule: Rule) -> Tensor:
    """An op's value y as a Tensor; the op goes on the tape if an input wants a gradient."""
    if not any(x.requires_grad for x in inputs):
        return Tensor(y)
    return Tensor(y, True, Node(name, y, inputs, rule))


# ---------------------------------------------------------------- the sweep


def sweep(root: Tensor, dy: Any = 1.0) -> dict[Any, Array]:
    """Walk back from the root, the newest Node first; return the gradients of the leaves."""
    arrived: dict[Any, Array] = {}
    pending: list[tuple[int, Node]] = []  # a heap, the newest Node on top

    def give(slot: Any, dx: Array) -> None:
        dx = unbroadcast(dx, slot.array.shape)
        if slot in arrived:
            arrived[slot] = arrived[slot] + dx
        else:
            arrived[slot] = dx
            if isinstance(slot, Node):
                heappush(pending, (-slot.serial, slot))

    give(slot_of(root), np.broadcast_to(dy, root.array.shape))
    while pending:
        node = heappop(pending)[1]
        gradients = node.rule(arrived.pop(node))
        for slot, dx in zip(node.inputs, gradients, strict=True):
            if slot is not None:
                give(slot, dx)
    return arrived


def commit(gradients: dict[Any, Array]) -> None:
    """Only when the whole sweep has succeeded: after an error no `grad` has changed."""
    for leaf, dx in gradients.items():
        leaf.grad = np.array(dx) if leaf.grad is None else leaf.grad + dx


def unbroadcast(dz: Array, shape: tuple[int, ...]) -> Array:
    """dz, summed to a shape that broadcasting has turned into that of dz."""
    dz = np.asarray(dz)
    dz = dz.sum(axis=tuple(range(dz.ndim - len(shape))))
    stretched = tuple(d for d, size in enumerate(shape) if size == 1 and dz.shape[d] != 1)
    return dz.sum(axis=stretched, keepdims=True)


# ---------------------------------------------------------------- ops: the value, below it the rule


# z = a + b             da = dz, db = dz
def add(a: Tensor, b: Tensor) -> Tensor:
    return record("add", a.array + b.array, [a, b], lambda dz: [dz, dz])


# z = a - b             da = dz, db = -dz
def sub(a: Tensor, b: Tensor) -> Tensor:
    return record("sub", a.array - b.array, [a, b], lambda dz: [dz, -dz])


# z = a b               da = dz b, db = dz a
def mul(a: Tensor, b: Tensor) -> Tensor:
    return record("mul", a.array * b.array, [a, b], lambda dz: [dz * b.array, dz * a.array])


# z = a b, of matrices  da = dz b^T, db = a^T dz
def matmul(a: Tensor, b: Tensor) -> Tensor:
    z = a.array @ b.array
    return record("matmul", z, [a, b], lambda dz: [dz @ b.array.T, a.array.T @ dz])


# y = tanh x            dx = dy (1 - y^2)
def tanh(x: Tensor) -> Tensor:
    y = np.tanh(x.array)
    return record("tanh", y, [x], lambda dy: [dy * (1 - y * y)])


# y = 1 / (1 + e^-x)    dx = dy y (1 - y)
def sigmoid(x: Tensor) -> Tensor:
    y = 1 / (1 + np.exp(-x.array))
    return record("sigmoid", y, [x], lambda dy: [dy * y * (1 - y)])


# y = the sum of x      dx = dy, for each element
def total(x: Tensor) -> Tensor:
    return record("sum", x.array.sum(), [x], lambda dy: [np.broadcast_to(dy, x.array.shape)])


# y = x[index]          dx = zeros, but dx[index] = dy
def cut(x: Tensor, index: Any) -> Tensor:
    def rule(dy: Array) -> list[Array]:
        dx = np.zeros(x.array.shape)
        dx[index] = dy
        return [dx]

    return record("index", x.array[index], [x], rule)


# y = [a, b], side by side              da = the left columns of dy, db = the right ones
def concat(a: Tensor, b: Tensor) -> Tensor:
    columns = a.array.shape[-1]
    y = np.concatenate([a.array, b.array], axis=-1)
    return record("concat", y, [a, b], lambda dy: [dy[..., :columns], dy[..., columns:]])
