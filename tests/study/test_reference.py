"""The reference engine against the compiled one, to the bit: recurrent layers, a whole model, the
tape; and what it promises as an engine: order, errors, no cycles, its length. Random programs, and
sums and products, are in test_reference_oracle.py.

"The same bits" holds with the compiled engine's tanh, sigmoid, exp and log, which the fixture
`same_functions` puts in. Shapes are small: an exact multiply-add takes some microseconds here.
"""

import ast
import gc
import re
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from engines import (
    COMPILED,
    REFERENCE,
    compiled_function,
    equal,
    gru_after_step,
    order_of_visits,
    same_bits,
)

import minigrad as mg
from minigrad.study import reference as ref

SOURCE = Path(ref.__file__).read_text(encoding="utf-8")
DTYPES = ("float32", "float64")
with_same_functions = pytest.mark.usefixtures("same_functions")


def difference_in_ulp(pairs):
    """The largest difference, in units of the last place of the largest element of all."""
    differences = [np.abs(a - b).max() for a, b in pairs]
    return max(differences) / np.spacing(max(np.abs(b).max() for _, b in pairs))


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
        outputs, state = mg.nn.unroll(cell, leaves["x"], cell._as_state(tuple(states)))
        last = cell._states_of("test", state)
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
    "gru after": gru_after_step,
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
def test_numpys_functions_differ_by_few_units_in_the_last_place(dtype):
    """tanh by 2, sigmoid by 3, of each value, at both ends too."""
    x = np.concatenate([np.linspace(-12, 12, 20_001), [-80, 80, -1e4, 1e4]]).astype(dtype)
    for name, ulps in (("tanh", 2), ("sigmoid", 3)):
        found, expected = ref.functions[name](x), compiled_function(name)(x)
        assert (np.abs(found - expected) <= ulps * np.spacing(np.abs(expected))).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", STEPS)
def test_layers_with_numpys_functions(kind, dtype):
    """Outputs differ by 4 units in the last place of the largest one; gradients by 7 of the largest
    gradient, in most networks by 2."""
    differences = []
    for seed in range(5):
        values, cotangents, layer = layer_case(kind, dtype, 0.5, seed=seed)
        outputs, _, gradients = reference_run(kind, values, cotangents)
        found, _, expected = compiled_run(values, cotangents, layer, fused=True)
        assert difference_in_ulp([(outputs, found)]) <= 4
        differences.append(difference_in_ulp([(gradients[n], expected[n]) for n in gradients]))
    assert max(differences) <= 7 and np.median(differences) <= 2


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


@with_same_functions
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 5, 20])
def test_cross_entropy(dtype, C):
    """Many classes, a sure prediction, which right or wrong has few digits left, and ties."""
    rng = np.random.default_rng(C)
    x = (rng.standard_normal((3, 4, C)) * 10).astype(dtype)
    x[0, 0] = x[0, 0, 0]
    x[0, 1, 0] += 60
    x[1, 1, -1] += 60
    classes = rng.integers(0, C, (3, 4))
    classes[:2, :2] = 0
    ours, theirs = ref.Tensor(x, True), mg.Tensor(x, requires_grad=True)
    loss, other = ref.cross_entropy(ours, classes), mg.cross_entropy(theirs, classes)
    loss.backward()
    other.backward()
    assert same_bits(loss, other.numpy()) and equal(ours.grad.array, theirs.grad.numpy())


@with_same_functions
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cross_entropy_of_a_sure_prediction_keeps_its_digits(dtype):
    rng = np.random.default_rng(0)
    for size in np.linspace(0, 40, 30):
        x = rng.standard_normal((1, 4)).astype(dtype)
        x[0, 2] += size
        assert same_bits(ref.cross_entropy(ref.Tensor(x), [2]), mg.cross_entropy(x, [2]).numpy())


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
    z, _ = mg.nn.unroll(cell, x, cell._as_state(tuple(states)))
    logits = ref.reshape(y, (6, 3))
    loss = ref.cross_entropy(logits, [0, 1, 2, 0, 1, 2])
    other = mg.cross_entropy(z.reshape((6, 3)), [0, 1, 2, 0, 1, 2], reduction="sum") / 6
    partner = same_graph(loss.grad_fn, other.grad_fn)
    assert len(partner) > 20
    visited = order_of_visits(list(partner))
    loss.backward()
    assert [node.serial for node in visited] == sorted((n.serial for n in visited), reverse=True)
    assert len(visited) == sum(isinstance(node, ref.Node) for node in partner)


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
    y.backward()
    y.backward()  # the graph is still there
    assert x.grad.array == 12


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
                y.backward()
            del y
            assert [node() for node in nodes] == [None, None]
    finally:
        gc.enable()


# ---------------------------------------------------------------- the file


def code_lines(text):
    """The numbers of the lines that are neither empty nor comment nor docstring."""
    texts = set()
    for node in ast.walk(ast.parse(text)):
        may_have_one = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if may_have_one and ast.get_docstring(node):
            texts |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = [line.strip() for line in text.splitlines()]
    return [n for n, line in enumerate(lines, 1) if line and line[0] != "#" and n not in texts]


def test_it_stays_short():
    """250 lines of code: all lines but the empty ones, comments and docstrings."""
    assert 200 < len(code_lines(SOURCE)) <= 250
    assert max(map(len, SOURCE.splitlines())) <= 100


def test_each_op_tells_its_formula_above_and_its_rule_below_its_value():
    """The comment before an op has the value, two spaces or more, and the gradients."""
    lines = SOURCE.splitlines()
    for node in ast.parse(SOURCE).body:
        recorded = isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Return)
        call = ast.unparse(node.body[-1]) if recorded else ""
        if "record(" in call and node.name != "add_up":
            comment = lines[node.lineno - 2]
            assert re.match(r"# \w.* = .*\s\sd", comment), node.name


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
