"""Random programs of views, assignments, in-place operators, detach and no_grad, against a replay
in NumPy.

The replay holds each tensor as two NumPy arrays: its values, and its derivative in one random
direction of the leaves. Views are views of both, so NumPy's own aliasing says what a write changes.
detach shares the values and starts with a derivative of zeros, as does all that is made under
no_grad, where writes change values alone: that is what PyTorch means by them. An op takes a complex
step, f(values + i h derivative), so no derivative is written down here.

A program may be refused, but only for a reason that the replay knows too.
"""

import numpy as np
import pytest

import minigrad as mg

H = 1e-30
SHAPES = [(3,), (4,), (2, 3), (2, 2), (3, 2), (1, 4), (2, 1, 2)]


class Dual:
    """One tensor in the replay."""

    def __init__(self, value, derivative, memory, kind):
        self.value, self.derivative, self.memory, self.kind = value, derivative, memory, kind

    def view(self, function, recording):
        value = function(self.value)
        shares = np.shares_memory(value, self.value) or value.size == 0
        if not recording:
            kind = "unrecorded" if shares else "own"
            return Dual(value, np.zeros(value.shape), self.memory if shares else Memory(), kind)
        kind = self.kind if self.kind in ("detached", "unrecorded") else "view"
        return Dual(
            value,
            function(self.derivative),
            self.memory if shares else Memory(),
            kind if shares else "own",
        )

    def complex(self):
        return self.value + 1j * H * self.derivative


class Memory:
    """What happened to one block of memory."""

    def __init__(self, leaf=False):
        self.leaf, self.read, self.changed, self.recorded, self.detached, self.unrecorded = (
            leaf,
            False,
            False,
            False,
            False,
            False,
        )


def of_complex(z, recording):
    z = np.ascontiguousarray(z).reshape(np.shape(z))
    derivative = (
        np.array(z.imag / H) if recording else np.zeros(z.shape)
    )  # an array also for one number
    return Dual(z.real.copy(), derivative, Memory(), "own")


def flipped(x):
    """np.flip, which gives a copy of an array without dimensions."""
    return x[(*[slice(None, None, -1)] * x.ndim, ...)]


VIEWS = [
    lambda rng, s: lambda x: x.reshape(-1),
    lambda rng, s: lambda x: x.reshape(s[::-1]),
    lambda rng, s: lambda x: x.reshape((1, *s)),
    lambda rng, s: lambda x: x.T,
    lambda rng, s: lambda x: x.swapaxes(0, -1),
    lambda rng, s: lambda x: x[::-1],
    lambda rng, s: lambda x: x[1:],
    lambda rng, s: lambda x: x[:-1],
    lambda rng, s: lambda x: x[::2],
    lambda rng, s: lambda x: x[..., 0:1],
    lambda rng, s: lambda x: x[0, ...],
    lambda rng, s: lambda x: x[-1:],
    lambda rng, s: lambda x: x[None],
    lambda rng, s: lambda x: x[..., ::-1],
    lambda rng, s: lambda x: x.squeeze(),
    lambda rng, s: lambda x: x.flip() if isinstance(x, mg.Tensor) else flipped(x),
    lambda rng, s: (
        lambda x: (
            x.broadcast_to((2, *s)) if isinstance(x, mg.Tensor) else np.broadcast_to(x, (2, *s))
        )
    ),
    lambda rng, s: lambda x: x.unsqueeze(-1) if isinstance(x, mg.Tensor) else x[..., None],
]
OPS1 = {
    "tanh": (mg.tanh, np.tanh),
    "sin": (mg.sin, np.sin),
    "half": (lambda x: x * 0.5, lambda x: x * 0.5),
}
OPS2 = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}


def by_zero(y):
    """A complex step is no derivative there: (0 + ih) / (0 + ih) = 1."""
    return (np.abs(np.real(y)) < 1e-6).any()


def operate(name, x, y):
    return {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "/": lambda: x / y}[name]()


def operate_in_place(name, x, y):
    before = x
    if name == "+":
        x += y
    elif name == "-":
        x -= y
    elif name == "*":
        x *= y
    elif name == "/":
        x /= y
    elif name == "**":
        x **= y
    else:
        x @= y
    assert x is before
    return x


def random_index(rng, shape):
    """A basic or other index of an array of this shape, which has at least one dimension."""
    n = shape[0]
    choices = [
        slice(0, 1),
        slice(None),
        slice(None, None, -1),
        slice(1, None),
        int(rng.integers(-n, n)),
        Ellipsis,
        (Ellipsis, 0),
        rng.integers(-n, n, rng.integers(1, 4)),
        rng.random(shape) < 0.5,
        [0, n - 1],
        (None, slice(0, 1)),
    ]
    return choices[rng.integers(len(choices))]


def sensible(value):
    return np.isfinite(value).all() and np.abs(value).max(initial=0) < 100


class Program:
    """Draws a program and replays it at once; `steps` are then run on Tensors by `run`."""

    def __init__(self, seed, length, pure=False):
        self.rng, self.pure = np.random.default_rng(seed), pure
        self.duals, self.steps, self.reasons = [], [], set()
        self.leaves, self.starts, self.memories = [], [], set()
        for k in range(int(self.rng.integers(3, 6))):
            value = self.rng.uniform(-1.5, 1.5, SHAPES[self.rng.integers(len(SHAPES))])
            leaf = k == 0 or (k == 1 and self.rng.random() < 0.6)
            direction = self.rng.standard_normal(value.shape) if leaf else np.zeros(value.shape)
            self.duals.append(
                Dual(value.copy(), direction.copy(), Memory(leaf), "leaf" if leaf else "own")
            )
            self.starts.append((value, leaf))
            self.memories.add(self.duals[-1].memory)
            self.leaves.append(direction if leaf else None)
        for k, (_, leaf) in enumerate(self.starts):
            if leaf:  # most programs go on from an op of the leaf, which can be changed
                self.add("op1", k, "half", True)
        while len(self.steps) < length:
            self.draw()
        self.ends = [k for k, dual in enumerate(self.duals) if dual is not None]
        self.cotangents = {
            k: self.rng.standard_normal(self.duals[k].value.shape) for k in self.ends
        }
        self.kinds = {k: int(self.rng.integers(3)) for k in self.ends}

    def pick(self):
        alive = [k for k, dual in enumerate(self.duals) if dual is not None]
        return alive[self.rng.integers(len(alive))]

    def operand(self, shape, same=False):
        """The number of a tensor that broadcasts into `shape`, or a number, or an array."""
        fits = []
        for k, dual in enumerate(self.duals):
            if dual is not None:
                try:
                    if np.broadcast_shapes(dual.value.shape, shape) == tuple(shape):
                        fits.append(k)
                except ValueError:
                    pass
        if fits and self.rng.random() < 0.8:
            return ("tensor", fits[self.rng.integers(len(fits))])
        if self.rng.random() < 0.5:
            return ("constant", float(self.rng.uniform(0.5, 1.5)))
        return ("constant", self.rng.uniform(0.5, 1.5, shape))

    def draw(self):
        rng, k = self.rng, self.pick()
        recording, x = self.pure or bool(rng.random() < 0.85), self.duals[k]
        what = rng.choice(
            [
                "view",
                "view",
                "view",
                "op1",
                "op2",
                "set",
                "set",
                "set",
                "inplace",
                "inplace",
                "item",
                "item",
                "detach",
                "forget",
            ]
        )
        shape = x.value.shape
        if (
            x.memory.leaf
            and what in ("set", "item", "inplace")
            and recording
            and rng.random() < 0.97
        ):
            return  # always refused
        if what == "view":
            self.add("view", k, int(rng.integers(len(VIEWS))), recording)
        elif what == "op1":
            self.add("op1", k, str(rng.choice(list(OPS1))), recording)
        elif what == "op2":
            self.add("op2", k, str(rng.choice(list("+-*/"))), self.operand(shape), recording)
        elif what == "detach" and not self.pure:
            self.add("detach", k)
        elif what == "forget" and sum(dual is not None for dual in self.duals) > 4:
            self.add("forget", k)
        elif what == "inplace":
            name = str(rng.choice(["+", "-", "*", "/", "**", "@"]))
            y = ("constant", 2.0) if name == "**" and rng.random() < 0.7 else self.operand(shape)
            self.add("inplace", k, name, y, recording)
        elif what in ("set", "item") and shape:
            index = random_index(rng, shape)
            try:
                place = x.value[index]
            except IndexError:
                return
            if what == "set":
                self.add("set", k, index, self.operand(np.shape(place)), recording)
            else:
                self.add(
                    "item",
                    k,
                    index,
                    str(rng.choice(["+", "*", "-"])),
                    self.operand(np.shape(place)),
                    recording,
                )

    def value_of(self, y):
        return self.duals[y[1]].complex() if y[0] == "tensor" else y[1]

    def read(self, *numbers):
        for k in numbers:
            self.duals[k].memory.read = True

    def may_write(self, x):
        return (
            not any(
                step == 0 and n > 1 for step, n in zip(x.value.strides, x.value.shape, strict=True)
            )
            and x.value.flags.writeable
        )

    def add(self, what, k, *rest):
        """Replay one step, and keep it if its values are sensible."""
        x = self.duals[k]
        shape = x.value.shape
        new = None
        if what == "view":
            number, recording = rest
            function = VIEWS[number](self.rng, shape)
            try:
                new = x.view(function, recording)
            except (IndexError, ValueError):
                return
            if new.value.size == 0 or new.value.ndim > 4 or new.value.size > 24:
                return
            rest = (function, recording)
            x.memory.unrecorded |= not recording
        elif what == "detach":
            new = Dual(x.value, np.zeros(shape), x.memory, "detached")
            x.memory.detached = True
        elif what == "op1":
            new = of_complex(OPS1[rest[0]][1](x.complex()), rest[1])
        elif what == "op2":
            if rest[0] == "/" and by_zero(self.value_of(rest[1])):
                return
            with np.errstate(all="ignore"):
                new = of_complex(OPS2[rest[0]](x.complex(), self.value_of(rest[1])), rest[2])
        elif what == "forget":
            self.reasons.add("forgotten")
            self.duals[k] = None
        else:
            if not self.write(what, x, rest):
                return
        if new is not None:
            if not sensible(new.value) or not sensible(new.derivative):
                return
            self.duals.append(new)
            self.memories.add(new.memory)
        if what in ("op1", "op2"):
            self.read(k, *[y[1] for y in rest if isinstance(y, tuple) and y[0] == "tensor"])
            self.duals[-1].memory.read = True
        self.steps.append((what, k, *rest))

    def write(self, what, x, rest):
        if not self.may_write(x):
            return False
        shape, y, recording = x.value.shape, rest[-2], rest[-1]
        with np.errstate(all="ignore"):
            if what == "inplace":
                name, index = rest[0], Ellipsis
                a, b = x.complex(), self.value_of(y)
                if name == "@":
                    if np.ndim(b) != 2 or len(shape) != 2 or np.shape(b) != (shape[1], shape[1]):
                        return False
                    z = a @ b
                elif name == "**":
                    square = y == ("constant", 2.0) if np.ndim(y[1]) == 0 else False
                    if not square and (a.real <= 0.1).any():
                        return False
                    z = a * a if square else a**b
                elif name == "/" and by_zero(b):
                    return False
                else:
                    z = OPS2[name](a, b)
            elif what == "set":
                index, z = rest[0], self.value_of(y) + np.zeros(np.shape(x.value[rest[0]]), complex)
            else:
                index = rest[0]
                z = OPS2[rest[1]](x.complex()[index], self.value_of(y))
        z = np.array(z)
        if not sensible(z.real) or not sensible(z.imag / H):
            return False
        x.value[index] = z.real
        x.memory.changed = True
        if what != "set" or y[0] == "tensor":
            x.memory.read = True
        if recording:
            x.derivative[index] = z.imag / H
            x.memory.recorded = True
        if y[0] == "tensor":
            self.read(y[1])
        return True

    def expected(self):
        """The loss and its derivative."""
        total = 0
        for k in self.ends:
            z = self.duals[k].complex()
            total = total + (self.cotangents[k] * (z, z * z, np.sin(z))[self.kinds[k]]).sum()
        return total.real, total.imag / H

    def run(self, moved=0.0, create_graph=False):
        """The program on Tensors: the loss, the leaves and all tensors that are left."""
        tensors, leaves = [], []

        def value_of(y):
            return tensors[y[1]] if y[0] == "tensor" else y[1]

        for (value, leaf), direction in zip(self.starts, self.leaves, strict=True):
            tensors.append(
                mg.Tensor(value + moved * direction if leaf else value, requires_grad=leaf)
            )
            leaves.append(tensors[-1] if leaf else None)
        for what, k, *rest in self.steps:
            x = tensors[k]
            with mg.no_grad() if rest and rest[-1] is False else mg.enable_grad():
                if what == "view":
                    tensors.append(rest[0](x))
                elif what == "detach":
                    tensors.append(x.detach())
                elif what == "op1":
                    tensors.append(OPS1[rest[0]][0](x))
                elif what == "op2":
                    tensors.append(operate(rest[0], x, value_of(rest[1])))
                elif what == "set":
                    x[rest[0]] = value_of(rest[1])
                elif what == "inplace":
                    operate_in_place(rest[0], x, value_of(rest[1]))
                elif what == "item":
                    y = value_of(rest[2])
                    if rest[1] == "+":
                        x[rest[0]] += y
                    elif rest[1] == "*":
                        x[rest[0]] *= y
                    else:
                        x[rest[0]] -= y
                elif what == "forget":
                    tensors[k] = None
            del x
        loss = None
        for k in self.ends:
            x = tensors[k]
            term = ((x, x * x, mg.sin(x))[self.kinds[k]] * self.cotangents[k]).sum()
            loss = term if loss is None else loss + term
        return loss, [leaf for leaf in leaves if leaf is not None], tensors


def reason_of(error):
    """The kind of a refusal, by its message."""
    for words, reason in (
        ("modified by an in-place operation", "saved"),
        ("leaf that requires grad", "leaf"),
        ("stale view", "stale"),
        ("shares memory", "shared"),
    ):
        if words in str(error):
            return reason
    return "unknown"


def needed(program, reason):
    """Does the replay know a reason for this refusal?"""
    memories = program.memories
    if reason == "saved":
        return any(m.read and m.changed for m in memories)
    if reason == "leaf":
        return any(m.leaf and m.changed for m in memories)
    if reason == "stale":
        return any(
            m.recorded and (m.unrecorded or "forgotten" in program.reasons) for m in memories
        )
    if reason == "shared":
        return any(m.recorded and (m.detached or m.unrecorded) for m in memories)
    return False


def check(seed, length):
    """Run one program; return why it was refused, or None."""
    program = Program(seed, length)
    value, derivative = program.expected()
    try:
        loss, leaves, tensors = program.run()
        if not loss.requires_grad:
            assert derivative == 0, (
                f"program {seed}: the loss does not depend on the leaves, its derivative is "
                f"{derivative}"
            )
            found = 0
        else:
            loss.backward()
            found = sum(
                (leaf.grad.numpy() * direction).sum()
                for leaf, direction in zip(
                    leaves, [d for d in program.leaves if d is not None], strict=True
                )
                if leaf.grad is not None
            )
    except RuntimeError as error:
        reason = reason_of(error)
        assert needed(program, reason), f"program {seed}: refused without need: {error}"
        return reason
    for k in program.ends:
        np.testing.assert_allclose(
            tensors[k].numpy(),
            program.duals[k].value,
            rtol=1e-9,
            atol=1e-9,
            err_msg=f"program {seed}, {k}",
        )
    assert loss.item() == pytest.approx(value, rel=1e-9, abs=1e-9), f"program {seed}"
    assert found == pytest.approx(derivative, rel=1e-8, abs=1e-8), f"program {seed}"
    return None


def check_many(seeds):
    found = [check(seed, 3 + seed % 13) for seed in seeds]
    ran = found.count(None)
    assert ran > len(found) // 3, (
        f"only {ran} of {len(found)} ran: {sorted({str(reason) for reason in found})}"
    )
    return found


@pytest.mark.slow
def test_programs_of_views_and_assignments():
    check_many(range(400))


@pytest.mark.slow
@pytest.mark.long
def test_many_programs_of_views_and_assignments():
    check_many(range(1000, 21000))


def test_second_order_of_programs():
    """The derivative of a gradient in the random direction, by differences of gradients of the same
    program: without detach and no_grad, of which differences know nothing."""
    compared = 0
    for seed in range(50_000, 50_120):
        program = Program(seed, 3 + seed % 9, pure=True)
        try:
            loss, leaves, _ = program.run()
            if not loss.requires_grad:
                continue
            rng = np.random.default_rng(seed)
            cotangents = [rng.standard_normal(leaf.shape) for leaf in leaves]
            gradients = mg.grad(loss, leaves, create_graph=True, allow_unused=True)
            inner = sum(
                (
                    (g * v).sum()
                    for g, v in zip(gradients, cotangents, strict=True)
                    if g is not None
                ),
                mg.zeros((), "float64"),
            )
            if not inner.requires_grad:
                continue
            inner.backward()
            directions = [d for d in program.leaves if d is not None]
            found = sum(
                (leaf.grad.numpy() * d).sum()
                for leaf, d in zip(leaves, directions, strict=True)
                if leaf.grad is not None
            )
            ends = []
            for step in (1e-5, -1e-5):
                moved, at, _ = program.run(step)
                parts = mg.grad(moved, at, allow_unused=True)
                ends.append(
                    sum(
                        (g.numpy() * v).sum()
                        for g, v in zip(parts, cotangents, strict=True)
                        if g is not None
                    )
                )
        except RuntimeError as error:
            assert needed(program, reason_of(error)), f"program {seed}: {error}"
            continue
        expected = (ends[0] - ends[1]) / 2e-5
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-4), f"program {seed}"
        compared += 1
    assert compared > 30
