"""The reference engine against the compiled one, to the bit: recurrent layers, a whole model, random
programs, sums and products; and what it promises as an engine: order, errors, no cycles, its length.

"The same bits" holds with the compiled engine's tanh, sigmoid, exp and log, which the fixture
`same_functions` puts in. Shapes are small: an exact multiply-add takes some microseconds here.
"""

import ast
import gc
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad as mg
from minigrad.study import reference as ref

SOURCE = Path(ref.__file__).read_text(encoding="utf-8")
DTYPES = ("float32", "float64")


@pytest.fixture
def same_functions(monkeypatch):
    """The compiled engine's functions."""
    for name in ref.functions:
        monkeypatch.setitem(ref.functions, name, compiled_function(name))


with_same_functions = pytest.mark.usefixtures("same_functions")


def compiled_function(name):
    return lambda x: getattr(mg, name)(mg.Tensor(x)).numpy()


def same_bits(a, b):
    a, b = (np.ascontiguousarray(x.array if isinstance(x, ref.Tensor) else x) for x in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def equal(a, b):
    """To the bit, but for the sign of zero and for what kind of NaN it is."""
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def difference_in_ulp(a, b):
    """The largest difference, in units of the last place of the largest element."""
    return np.abs(a - b).max() / np.spacing(np.abs(a).max())


# ---------------------------------------------------------------- recurrent layers


def layer_case(kind, dtype, scale=1.0, T=3, B=2, I=2, H=3, seed=0):
    """The arrays of a layer and its cotangents, and the compiled layer with these weights."""
    rng = np.random.default_rng(seed)
    gates = {"rnn": 1, "lstm": 4}.get(kind, 3)
    biases = 4 if kind == "gru after" else gates
    shapes = {"x": (T, B, I), "h": (B, H), "W": (I, gates * H), "U": (H, gates * H)}
    shapes |= {"b": (biases * H,)} | ({"c": (B, H)} if kind == "lstm" else {})
    values = {name: scale * rng.standard_normal(shape) for name, shape in shapes.items()}
    values = {name: value.astype(dtype) for name, value in values.items()}
    cotangents = [rng.standard_normal(shape).astype(dtype) for shape in ((T, B, H), (B, H), (B, H))]
    makers = {"rnn": mg.nn.RNN, "lstm": mg.nn.LSTM, "gru": mg.nn.GRU, "gru after": mg.nn.GRU}
    options = {"reset_after": True} if kind == "gru after" else {}
    layer = makers[kind](I, H, dtype=dtype, **options)
    with mg.no_grad():
        for name in "WUb":
            getattr(layer.cells[0], name)[...] = values[name]
    return values, cotangents, layer


def compiled_run(values, cotangents, layer, fused):
    """(outputs, loss, gradients by name) of the compiled layer, or of its cell in a loop."""
    cell = layer.cells[0]
    leaves = {name: mg.Tensor(value, requires_grad=True) for name, value in values.items()}
    names = [name for name in ("h", "c") if name in values]
    leaves |= {name: getattr(cell, name) for name in "WUb"}
    cell.W.grad = cell.U.grad = cell.b.grad = None
    if fused:
        states = [leaves[name].reshape((1, *leaves[name].shape)) for name in names]
        outputs, state = layer(leaves["x"], layer.state_type(*states))
        last = [s[0] for s in state]
    else:
        states = [leaves[name] for name in names]
        outputs, state = mg.nn.unroll(cell, leaves["x"], cell.as_state(tuple(states)))
        last = cell.states_of("test", state)
    loss = mg.Tensor(0.0, dtype=outputs.dtype)
    for y, dy in zip((outputs, *last), cotangents, strict=False):
        loss = loss + (y * mg.Tensor(dy)).sum()
    loss.backward()
    return outputs.numpy(), loss.numpy(), {name: x.grad.numpy() for name, x in leaves.items()}


def reference_weights(kind, leaves):
    """A GRU's weights are cut into their parts before the loop."""
    W, U, b = (leaves[name] for name in "WUb")
    H = len(U.array)
    if kind == "gru":
        return W, U[:, : 2 * H], U[:, 2 * H :], b
    if kind == "gru after":
        return W, U[:, : 2 * H], U[:, 2 * H :], b[: 3 * H], b[3 * H :]
    return W, U, b


STEPS = {
    "rnn": ref.rnn_step,
    "lstm": ref.lstm_step,
    "gru": ref.gru_step,
    "gru after": ref.gru_after_step,
}


def reference_run(kind, values, cotangents):
    leaves = {name: ref.Tensor(value, requires_grad=True) for name, value in values.items()}
    states = [leaves[name] for name in ("h", "c") if name in leaves]
    weights = reference_weights(kind, leaves)
    outputs, last = ref.unroll(STEPS[kind], leaves["x"], states, weights)
    loss = ref.Tensor(np.zeros((), outputs.array.dtype))
    for y, dy in zip((outputs, *last), cotangents, strict=False):
        loss = loss + ref.total(y * ref.Tensor(dy))
    loss.backward()
    return outputs.array, loss.array, {name: x.grad.array for name, x in leaves.items()}


@with_same_functions
@pytest.mark.parametrize("scale", [0.5, 20.0], ids=["", "saturated"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", STEPS)
def test_layers_have_the_same_bits(kind, dtype, scale):
    values, cotangents, layer = layer_case(kind, dtype, scale)
    outputs, loss, gradients = reference_run(kind, values, cotangents)
    for fused, same in ((False, same_bits), (True, equal)):
        found = compiled_run(values, cotangents, layer, fused)
        assert same_bits(outputs, found[0]) and same_bits(loss, found[1])
        assert gradients.keys() == found[2].keys()
        assert [n for n, dx in gradients.items() if not same(dx, found[2][n])] == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", STEPS)
def test_with_numpys_functions_few_units_in_the_last_place_differ(kind, dtype):
    for seed in range(3):
        values, cotangents, layer = layer_case(kind, dtype, 0.5, seed=seed)
        outputs, _, gradients = reference_run(kind, values, cotangents)
        found, _, expected = compiled_run(values, cotangents, layer, fused=True)
        assert difference_in_ulp(outputs, found) <= 3
        assert max(difference_in_ulp(gradients[n], expected[n]) for n in gradients) <= 8


@with_same_functions
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_whole_model(dtype):
    """Two layers, a head, the mean of the losses."""
    T, B, I, H, C = 3, 2, 2, 3, 4
    rng = np.random.default_rng(1)
    shapes = {"x": (T, B, I), "W": (I, 4 * H), "U": (H, 4 * H), "b": (4 * H,)}
    shapes |= {"W2": (H, H), "U2": (H, H), "b2": (H,), "V": (H, C), "a": (C,)}
    values = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    classes = rng.integers(0, C, T * B)

    p = {name: ref.Tensor(value, requires_grad=True) for name, value in values.items()}
    start = ref.Tensor(np.zeros((B, H), dtype))
    y, _ = ref.unroll(ref.lstm_step, p["x"], (start, start), (p["W"], p["U"], p["b"]))
    y, _ = ref.unroll(ref.rnn_step, y, (start,), (p["W2"], p["U2"], p["b2"]))
    logits = ref.addmm(p["a"], ref.reshape(y, (T * B, H)), p["V"])
    loss = ref.cross_entropy(logits, classes)
    loss.backward()

    q = {name: mg.Tensor(value, requires_grad=True) for name, value in values.items()}
    lstm, rnn = mg.nn.LSTM(I, H, dtype=dtype), mg.nn.RNN(H, H, dtype=dtype)
    lstm.cells[0].W, lstm.cells[0].U, lstm.cells[0].b = map(parameter, (q["W"], q["U"], q["b"]))
    rnn.cells[0].W, rnn.cells[0].U, rnn.cells[0].b = map(parameter, (q["W2"], q["U2"], q["b2"]))
    z, _ = rnn(lstm(q["x"])[0])
    expected = mg.cross_entropy(mg.addmm(q["a"], z.reshape((T * B, H)), q["V"]), classes)
    expected.backward()
    q |= {"W": lstm.cells[0].W, "U": lstm.cells[0].U, "b": lstm.cells[0].b}
    q |= {"W2": rnn.cells[0].W, "U2": rnn.cells[0].U, "b2": rnn.cells[0].b}
    assert same_bits(loss, expected.numpy())
    assert [n for n in p if not same_bits(p[n].grad, q[n].grad.numpy())] == []


def parameter(x):
    return mg.nn.Parameter(x.numpy(), x.dtype)


# ---------------------------------------------------------------- the same tape


def same_graph(a, b):
    """Walk both graphs side by side: the same ops with the same inputs, shared where shared."""
    partner = {}
    waiting = [(a, b)]
    while waiting:
        node, other = waiting.pop()
        if node is None or other is None:
            assert node is other
        elif partner.get(node) is None:
            partner[node] = other
            assert isinstance(node, ref.Node) == isinstance(other, type(b))
            if isinstance(node, ref.Node):
                assert node.name == other.name
                waiting += zip(in_compiled_order(node), other.inputs, strict=True)
        else:
            assert partner[node] is other
    return partner


def in_compiled_order(node):
    """The compiled addmm names c first, and div a."""
    if node.name == "addmm":
        return node.inputs[2:] + node.inputs[:2]
    if node.name == "div":
        return node.inputs[::-1]
    return node.inputs


@pytest.mark.parametrize("kind", STEPS)
def test_a_loop_records_the_same_ops_and_visits_them_in_the_same_order(kind):
    values, _, layer = layer_case(kind, "float32")
    cell = layer.cells[0]
    leaves = {name: ref.Tensor(value, requires_grad=True) for name, value in values.items()}
    names = [name for name in ("h", "c") if name in values]
    weights = reference_weights(kind, leaves)
    y, _ = ref.unroll(STEPS[kind], leaves["x"], [leaves[n] for n in names], weights)
    x, *states = (mg.Tensor(values[n], requires_grad=True) for n in ("x", *names))
    z, _ = mg.nn.unroll(cell, x, cell.as_state(tuple(states)))
    logits = ref.reshape(y, (6, 3))
    loss = ref.cross_entropy(logits, [0, 1, 2, 0, 1, 2])
    other = mg.cross_entropy(z.reshape((6, 3)), [0, 1, 2, 0, 1, 2], reduction="sum") / 6
    partner = same_graph(loss.grad_fn, other.grad_fn)
    assert len(partner) > 20
    visited = order_of_visits(list(partner))
    loss.backward()
    assert [node.serial for node in visited] == sorted((n.serial for n in visited), reverse=True)
    assert len(visited) == sum(isinstance(node, ref.Node) for node in partner)


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
    if op in ("add", "sub", "mul", "div", "matmul", "square"):
        return {
            "add": lambda: a + b,
            "sub": lambda: a - b,
            "mul": lambda: a * b,
            "div": lambda: a / b,
            "matmul": lambda: a @ b,
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


@with_same_functions
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_programs(dtype):
    """Values, gradients, and the order of visits."""
    for seed in range(200):
        steps, leaves, wanted, factors = program_case(seed, dtype)
        with np.errstate(all="ignore"):
            xs, loss = run_program(REFERENCE, steps, leaves, wanted, factors)
            ys, other = run_program(COMPILED, steps, leaves, wanted, factors)
            nodes = {x.grad_fn: i for i, x in enumerate(xs) if x.grad_fn is not None}
            visited = order_of_visits(list(nodes))
            expected = []
            for i, y in enumerate(ys):
                if y.grad_fn is not None:
                    y.register_hook(lambda dy, i=i, expected=expected: expected.append(i))
            loss.backward()
            other.backward()
        assert equal(loss.array, other.numpy()), seed
        assert [i for i, x in enumerate(xs) if not equal(x.array, ys[i].numpy())] == [], seed
        assert [nodes[node] for node in visited] == expected, seed
        for x, y in zip(xs[: len(leaves)], ys, strict=False):
            assert (x.grad is None) == (y.grad is None), seed
            assert x.grad is None or equal(x.grad.array, y.grad.numpy()), (seed, steps)


# ---------------------------------------------------------------- products and sums


def edge_cases(dtype, n=1500):
    """Triples a, b, c: of all sizes, ties for the rounding, near cancellation, subnormal results."""
    rng = np.random.default_rng(3)
    bits = {"float32": 24, "float64": 53}[dtype]
    a, b, c = rng.standard_normal((3, n)) * 2.0 ** rng.integers(-20, 20, (3, n))
    a[: n // 5] = rng.integers(2 ** (bits - 2), 2 ** (bits - 1), n // 5)
    b[: n // 5] = 1 + 2.0 ** rng.integers(1 - bits, 0, n // 5)
    c[: n // 10] = 2.0 ** -rng.integers(20, 60, n // 10)
    a, b, c = (x.astype(dtype) for x in (a, b, c))
    near = slice(n // 5, 2 * n // 5)
    c[near] = -(a[near] * b[near])
    small = slice(2 * n // 5, 3 * n // 5)
    a[small] *= np.finfo(dtype).tiny
    c[small] *= np.finfo(dtype).smallest_subnormal
    a[-4:], b[-4:], c[-4:] = [0, -0.0, np.inf, np.nan], [1, 1, 0.5, 1], [-0.0, -0.0, 1, 1]
    return a, b, c


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_multiply_add_is_rounded_once(dtype):
    a, b, c = edge_cases(dtype)
    found = np.array([ref.fma(*abc) for abc in zip(a, b, c, strict=True)])
    expected = [mg.addmm(z.reshape(1, 1), x.reshape(1, 1), y.reshape(1, 1)).item() for x, y, z in
                zip(a, b, c, strict=True)]  # fmt: skip
    assert equal(found, np.array(expected, dtype))
    with np.errstate(invalid="ignore"):
        assert (found != a * b + c).sum() > 200


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_sums(dtype, n):
    """Terms that nearly cancel, so that the order and the second half count."""
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((n, 3)) * 10.0 ** rng.integers(0, 20, (n, 3))).astype(dtype)
    x = np.concatenate([x, -x[::-1], x[:1] * 1e-7]).astype(dtype)
    y = ref.total(ref.Tensor(x), (1, 3))
    assert same_bits(y.array, mg.Tensor(x).sum(0, keepdims=True).numpy())
    assert same_bits(ref.total(ref.Tensor(x)), mg.Tensor(x).sum().numpy())
    bias = ref.Tensor(np.zeros(3, dtype), requires_grad=True)
    (bias + ref.Tensor(x)).backward(ref.Tensor(x))
    other = mg.Tensor(np.zeros(3, dtype), requires_grad=True)
    (other + mg.Tensor(x)).backward(mg.Tensor(x))
    assert same_bits(bias.grad, other.grad.numpy())


def test_a_float64_sum_that_overflows_is_infinite():
    x = np.zeros(20)
    x[0] = x[16] = 1e308  # of one lane
    x[1] = -1e308
    with np.errstate(all="ignore"):
        y = ref.total(ref.Tensor(x))
    assert np.isposinf(y.array) and np.isposinf(mg.Tensor(x).sum().item())


# ---------------------------------------------------------------- second order


def second_order(engine, x, W, b, v, classes):
    """First gradients with create_graph, and the gradients of a function of them."""
    leaves = [engine.tensor(value, True) for value in (x, W, b)]
    y = engine.sigmoid(engine.tanh(engine.addmm(leaves[2], *leaves[:2])) * leaves[2])
    loss = engine.cross_entropy(y / (y * y + 2.0) - leaves[2], classes)
    loss.backward(create_graph=True)
    first = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    products = [engine.total(dx * engine.tensor(u, False)) for dx, u in zip(first, v, strict=True)]
    (products[0] + products[1] * products[2]).backward()
    return first, [leaf.grad for leaf in leaves]


@with_same_functions
@pytest.mark.parametrize("dtype", DTYPES)
def test_second_order(dtype):
    """First gradients to the bit, second ones but for rounding: there the rules are other ops."""
    rng = np.random.default_rng(5)
    x, W, b = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 2), (2, 4), (4,)))
    v = [rng.standard_normal(value.shape).astype(dtype) for value in (x, W, b)]
    ours, theirs = (
        SimpleNamespace(**vars(engine), cross_entropy=loss)
        for engine, loss in ((REFERENCE, ref.cross_entropy), (COMPILED, mg.cross_entropy))
    )
    first, second = second_order(ours, x, W, b, v, [0, 3, 1])
    expected, others = second_order(theirs, x, W, b, v, [0, 3, 1])
    for a, c in zip(first, expected, strict=True):
        assert equal(a.array, c.numpy())
    tolerance = 100 * np.finfo(dtype).eps
    for a, c in zip(second, others, strict=True):
        assert np.abs(a.array - c.numpy()).max() <= tolerance * np.abs(a.array).max()


@with_same_functions
def test_second_order_of_random_programs():
    for seed in range(60):
        steps, leaves, wanted, factors = program_case(seed, "float64")
        found = []
        for engine in (REFERENCE, COMPILED):
            with np.errstate(all="ignore"):
                xs, loss = run_program(engine, steps, leaves, wanted, factors)
                xs = [x for x, w in zip(xs, wanted, strict=False) if w]
                loss.backward(create_graph=True)
                first = [x.grad for x in xs if x.grad is not None]
                for x in xs:
                    x.grad = None
                y = engine.tensor(np.zeros(()), False)
                for dx in first:
                    y = y + engine.total(dx * dx)
                if y.requires_grad:
                    y.backward()
            found.append(([as_array(dx) for dx in first], [as_array(x.grad) for x in xs]))
        (first, second), (expected, others) = found
        assert len(first) == len(expected) and len(second) == len(others)
        for a, c in zip(first, expected, strict=True):
            assert equal(a, c), seed
        for a, c in zip(second, others, strict=True):
            size = max(np.abs(c).max(), 1.0)
            assert not np.isfinite(size) or np.abs(a - c).max() <= 1e-9 * size, seed


def as_array(x):
    """Of either engine; zero where there is no gradient."""
    if x is None:
        return np.zeros(())
    return x.array if isinstance(x, ref.Tensor) else x.numpy()


# ---------------------------------------------------------------- the engine's promises


def leaf(*values):
    return ref.Tensor(list(values), requires_grad=True)


def test_a_diamond():
    """Two paths meet: each Node runs once, with the sum."""
    a = leaf(1.0)
    b = a + a
    c = b + b
    visited = order_of_visits([c.grad_fn, b.grad_fn])
    c.backward()
    assert a.grad.array == 4 and visited == [c.grad_fn, b.grad_fn]


def test_long_diamonds():
    """2^60 paths, 60 Nodes."""
    x = y = leaf(1.0)
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad.array == 2.0**60


def test_broadcasting():
    a, b = leaf(1.0, 2.0), ref.Tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    ref.total(a * b).backward()
    assert a.grad.array.tolist() == [6.0, 6.0] and b.grad.array.tolist() == [[3.0], [3.0], [3.0]]


def test_numbers_and_lists_become_float32_and_arrays_keep_their_dtype():
    assert ref.Tensor([1.0]).array.dtype == np.float32
    assert ref.Tensor(np.ones(1)).array.dtype == np.float64
    assert (1 - ref.Tensor([1.0]) * 2.0).array.dtype == np.float32


def test_grad_adds_up():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.array == 12


def test_a_freed_graph_says_what_to_do():
    x = leaf(3.0)
    y = ref.tanh(x * 2.0)
    y.backward()
    before = x.grad.array.copy()
    with pytest.raises(RuntimeError, match="tanh was freed.*retain_graph=True"):
        y.backward()
    assert x.grad.array == before


@pytest.mark.parametrize("engine", [REFERENCE, COMPILED], ids=["reference", "compiled"])
@pytest.mark.parametrize("changed", ["operand", "view", "output"])
def test_a_change_of_something_saved_is_an_error(engine, changed):
    x = engine.tensor(np.array([1.0, 2.0]), True)
    w = engine.tensor(np.array([1.0, 2.0]), False)
    y = engine.tanh(x * w)
    z = y * 3.0
    with mg.no_grad(), ref.no_grad():
        target = {"operand": w, "view": w[0:1], "output": y}[changed]
        target[0:1] = engine.tensor(np.array([5.0]), False)
    with pytest.raises(RuntimeError, match="changed in place|modified by an in-place"):
        engine.total(z).backward()
    assert x.grad is None


def test_a_change_of_what_no_rule_needs_is_none():
    x, w = leaf(1.0), ref.Tensor([2.0])
    y = x + w
    w[...] = ref.Tensor([7.0])
    y.backward()
    assert x.grad.array == 1


def test_an_output_changed_between_two_backwards_is_an_error():
    x = leaf(0.5)
    y = ref.tanh(x)
    y.backward(create_graph=True)
    with ref.no_grad():
        y[...] = ref.Tensor([0.25])
    with pytest.raises(RuntimeError, match="changed in place"):
        x.grad.backward()


def test_assignment_is_refused_where_it_would_not_be_recorded():
    x, y = leaf(1.0), ref.Tensor([2.0])
    for target, value in ((x, y), (y, x)):
        with pytest.raises(RuntimeError, match="no_grad"):
            target[...] = value
    assert x.array == 1 and y.array == 2


def test_no_grad():
    x = leaf(2.0)
    with ref.no_grad():
        y = x * x
        with ref.no_grad(False):
            assert (x * x).requires_grad
        assert not (x * x).requires_grad
    assert not y.requires_grad and y.grad_fn is None and (x * x).requires_grad
    with pytest.raises(ZeroDivisionError), ref.no_grad():
        _ = 1 / 0
    assert ref.recording
    with pytest.raises(RuntimeError, match="requires_grad"):
        y.backward()


def test_the_gradient_of_what_is_no_scalar_must_be_given():
    x = leaf(1.0, 2.0)
    for dy in (None, ref.Tensor([1.0])):
        with pytest.raises(RuntimeError, match=r"of the tensor's shape \(2,\)"):
            (x * x).backward(dy)
    assert x.grad is None


def test_nothing_is_committed_if_a_rule_raises():
    def fail(dy):
        raise OverflowError

    x, w = leaf(2.0), leaf(3.0)
    bad = ref.record("bad", x.array, (x,), fail)
    y = bad + w * 2.0 + w
    with pytest.raises(OverflowError):
        y.backward()
    assert x.grad is None and w.grad is None and ref.recording
    (w * 2.0).backward()
    assert w.grad.array == 2


def test_a_long_chain_and_no_recursion():
    x = y = leaf(0.0)
    for _ in range(5000):
        y = y + 1.0
    assert sys.getrecursionlimit() < 5000
    y.backward()
    assert x.grad.array == 1
    x = y = leaf(0.0)
    for _ in range(5000):
        y = y + 1.0
    del y


def test_no_cycles():
    """A graph is freed at once, without the collector, before a backward and after it."""
    gc.disable()
    try:
        for engage in (False, True):
            x = leaf(0.5, 1.0)
            y = ref.total(ref.sigmoid(ref.stack([ref.tanh(x * x), x]))[0])
            nodes = [weakref.ref(y.grad_fn), weakref.ref(y.grad_fn.inputs[0])]
            if engage:
                y.backward(retain_graph=True)
            del y
            assert [node() for node in nodes] == [None, None]
    finally:
        gc.enable()


# ---------------------------------------------------------------- the file


def code_lines(text):
    """The numbers of the lines that are neither empty nor comment nor docstring."""
    texts = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            texts |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = [line.strip() for line in text.splitlines()]
    return [n for n, line in enumerate(lines, 1) if line and line[0] != "#" and n not in texts]


def test_it_stays_short():
    """The engine, that is tape, sweep, sums and ops: 250 lines of code. With networks: 320."""
    numbers = code_lines(SOURCE)
    loss = SOURCE[: SOURCE.index("# ---------------------------------------------------------------- "
                                 "the loss")].count("\n")  # fmt: skip
    assert sum(n <= loss for n in numbers) <= 250
    assert len(numbers) <= 320
    assert max(map(len, SOURCE.splitlines())) <= 100


def test_it_imports_nothing_of_minigrad():
    imported = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy"}


def test_it_is_public():
    assert mg.study.reference is ref
