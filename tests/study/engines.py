"""What the tests of the reference engine share: comparing bits, watching a sweep, and random
programs that run on both engines."""

from types import SimpleNamespace

import numpy as np

import minigrad as mg
from minigrad.study import reference as ref


def compiled_function(name):
    return lambda x: getattr(mg, name)(mg.Tensor(x)).numpy()


def same_bits(a, b):
    a, b = (np.ascontiguousarray(x.array if isinstance(x, ref.Tensor) else x) for x in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def equal(a, b):
    """To the bit, but for the sign of zero and for what kind of NaN it is."""
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def gru_after_step(x, h, W, U_rz, U_n, b, b_u):
    """cuDNN's form of the GRU, with the reset gate after the product:
    n = tanh(x W + b + r (h U + b_u))."""
    H = len(U_n.array)
    a_rz, a_n = ref.split(ref.addmm(b, x, W), 2 * H, H)
    u = ref.addmm(b_u, h, U_n)
    r, z = ref.split(ref.sigmoid(ref.addmm(a_rz, h, U_rz)), H, H)
    n = ref.tanh(a_n + r * u)
    return [(1 - z) * n + z * h]


def order_of_visits(nodes):
    """A list that the nodes' rules write to when they run."""
    visited = []

    def watched(node, rule):
        def run(*arguments):
            visited.append(node)
            return rule(*arguments)

        return run

    for node in nodes:
        if isinstance(node, ref.Node):
            node.rule = watched(node, node.rule)
    return visited


# ---------------------------------------------------------------- random programs

# What programs are made of, once for each engine.
REFERENCE = SimpleNamespace(
    tensor=lambda x, wanted: ref.Tensor(x, wanted),
    tanh=ref.tanh,
    sigmoid=ref.sigmoid,
    matmul=ref.matmul,
    addmm=ref.addmm,
    transpose=ref.transpose,
    reshape=ref.reshape,
    total=ref.total,
    stack=ref.stack,
    shape=lambda x: x.array.shape,
)
COMPILED = SimpleNamespace(
    tensor=lambda x, wanted: mg.Tensor(x, requires_grad=wanted),
    tanh=mg.tanh,
    sigmoid=mg.sigmoid,
    matmul=mg.matmul,
    addmm=mg.addmm,
    transpose=lambda x: x.swapaxes(0, 1),
    reshape=lambda x, shape: x.reshape(shape),
    total=lambda x, shape=(): x.sum(summed_axes(x.shape, shape), keepdims=shape != ()),
    stack=mg.stack,
    shape=lambda x: x.shape,
)


def summed_axes(of, shape):
    return None if shape == () else tuple(d for d in range(len(of)) if of[d] != shape[d])


def random_program(rng, length=8):
    """A list of (op, places of the operands, an argument). Tensors are numbered: leaves first."""
    shapes = [(2, 3), (3,), (1, 3), (2, 1), (3, 2), (3,), ()]
    steps = []
    for _ in range(length):
        step, shape = random_step(rng, shapes)
        steps.append(step)
        shapes.append(shape)
    return steps


def random_step(rng, shapes):
    """One op that the tensors of these shapes allow, and the shape of its value."""
    ops = ["add", "sub", "mul", "mul", "div", "square", "tanh", "sigmoid", "matmul", "addmm"]
    ops += ["transpose", "reshape", "total", "stack", "index"]
    while True:
        op = str(rng.choice(ops))
        i, j, k = (int(n) for n in rng.integers(0, len(shapes), 3))
        a, b = shapes[i], shapes[j]
        product = len(a) == len(b) == 2 and a[1] == b[0]
        if op in ("add", "sub", "mul", "div"):
            try:
                return (op, (i, j), None), np.broadcast_shapes(a, b)
            except ValueError:
                continue
        if op in ("square", "tanh", "sigmoid"):
            return (op, (i,), None), a
        if op == "matmul" and product:
            return (op, (i, j), None), (a[0], b[1])
        if op == "addmm" and product and shapes[k] in ((), (b[1],), (a[0], b[1]), (a[0], 1)):
            return (op, (k, i, j), None), (a[0], b[1])
        if op == "transpose" and len(a) == 2:
            return (op, (i,), None), a[::-1]
        if op == "reshape":
            return (op, (i,), a[::-1]), a[::-1]
        if op == "total":
            shape = () if rng.random() < 0.3 else tuple(n * (rng.random() < 0.5) or 1 for n in a)
            return (op, (i,), tuple(map(int, shape))), tuple(map(int, shape))
        if op == "stack" and a == b and len(a) == 1:
            return (op, (i, j), None), (2, *a)
        if op == "index" and len(a) == 2:
            return (op, (i,), (slice(None), slice(0, 1))), (a[0], 1)


def run_step(engine, step, tensors):
    op, places, argument = step
    operands = [tensors[i] for i in places]
    a, b = operands[0], operands[-1]
    if op in ("add", "sub", "mul", "div", "square"):
        return {
            "add": lambda: a + b,
            "sub": lambda: a - b,
            "mul": lambda: a * b,
            "div": lambda: a / b,
            "square": lambda: a * a,
        }[op]()
    if op == "index":
        return a[argument]
    if op == "stack":
        return engine.stack(operands)
    if op in ("reshape", "total"):
        return getattr(engine, op)(a, argument)
    return getattr(engine, op)(*operands)


def run_program(engine, steps, leaves, wanted, factors):
    """All tensors of the program, and a loss to which each of the last three contributes."""
    tensors = [engine.tensor(x, w) for x, w in zip(leaves, wanted, strict=True)]
    for step in steps:
        tensors.append(run_step(engine, step, tensors))
    loss = engine.total(tensors[0] * factors[0])
    for y, factor in zip(tensors[-3:], factors[1:], strict=True):
        loss = loss + engine.total(y * factor)
    return tensors, loss


def program_case(seed, dtype):
    rng = np.random.default_rng(seed)
    shapes = [(2, 3), (3,), (1, 3), (2, 1), (3, 2), (3,), ()]
    steps = random_program(rng)
    leaves = [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    wanted = [True, *(rng.random(len(shapes) - 1) < 0.8)]
    factors = [float(f) for f in rng.standard_normal(4)]
    return steps, leaves, [bool(w) for w in wanted], factors
