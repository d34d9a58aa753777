"""Cells of one's own: those of docs/cells.md against formulas in NumPy, in every option of unroll
and Recurrent; states of any number and size; what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn

PAGE = Path(__file__).parents[2] / "docs" / "cells.md"
T, B, I, H = 5, 3, 4, 6
LENGTHS = [5, 0, 3]
RESET = np.zeros((T, B), bool)
RESET[2, 0] = RESET[1, 2] = True


def cells_of_the_page():
    """The classes that docs/cells.md defines."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    namespace = {}
    for block in blocks:
        if block.startswith("import") or re.search(r"^class ", block, re.M):
            exec(block, namespace)
    return namespace


CELLS = cells_of_the_page()


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normalised(v):
    return (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, keepdims=True) + 1e-5)


def mgu(p, x, h, mask):
    f = sigmoid(x @ p["W"][:, :H] + (h * mask) @ p["U"][:, :H] + p["b"][:H])
    n = np.tanh(x @ p["W"][:, H:] + (f * h * mask) @ p["U"][:, H:] + p["b"][H:])
    return (h + f * (n - h),)


def ind_rnn(p, x, h, mask):
    a = x @ p["W"] + p["u"] * h * mask + p["b"]
    return (np.where(a > 0, a, 0),)


def layer_norm_gru(p, x, h, mask):
    a = normalised(x @ p["W"]) * p["s"] + p["b"]
    u = normalised((h * mask) @ p["U"]) * p["q"]
    r, z = sigmoid(a[:, :H] + u[:, :H]), sigmoid(a[:, H : 2 * H] + u[:, H : 2 * H])
    return (z * h + (1 - z) * np.tanh(a[:, 2 * H :] + r * u[:, 2 * H :]),)


def zoneout_lstm(p, x, h, c, mask):
    """In evaluation, with keep = 0.1."""
    i, f, g, o = np.split(x @ p["W"] + (h * mask) @ p["U"] + p["b"], 4, axis=1)
    c_new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h_new = sigmoid(o) * np.tanh(c_new)
    return 0.1 * h + 0.9 * h_new, 0.1 * c + 0.9 * c_new


FORMULAS = {
    "MGU": mgu,
    "IndRNN": ind_rnn,
    "LayerNormGRU": layer_norm_gru,
    "ZoneoutLSTM": zoneout_lstm,
}
each_cell = pytest.mark.parametrize("name", FORMULAS)


def in_float64(cell, rng):
    """The cell with random weights in float64."""
    for name, p in list(cell.named_parameters()):
        setattr(cell, name, nn.Parameter(rng.normal(size=p.shape) * 0.7, np.float64))
    return cell.eval()


def make(name, seed=0):
    return in_float64(CELLS[name](I, H), np.random.default_rng(seed))


def expected(cell, x, states, lengths=None, reset=None, reverse=False, mask=1.0):
    """The outputs and the last states by NumPy, row by row."""
    p = {name: parameter.numpy() for name, parameter in cell.named_parameters()}
    formula = FORMULAS[type(cell).__name__]
    out, states = np.zeros((T, B, H)), [state.copy() for state in states]
    for b in range(B):
        steps = range(T if lengths is None else lengths[b])
        now = [state[b : b + 1] for state in states]
        row_mask = mask if np.isscalar(mask) else mask[b : b + 1]
        for t in reversed(steps) if reverse else steps:
            if reset is not None and reset[t, b]:
                now = [np.zeros_like(state) for state in now]
            now = formula(p, x[t, b : b + 1], *now, row_mask)
            out[t, b] = now[0][0]
        for state, last in zip(states, now, strict=True):
            state[b] = last[0]
    return out, states


def inputs(cell, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, B, I)), [rng.normal(size=(B, H)) * 0.5 for _ in cell.state_names]


@each_cell
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("reset", [None, RESET])
def test_unroll_against_formulas(name, reverse, lengths, reset):
    cell = make(name)
    x, states = inputs(cell)
    mask = np.random.default_rng(2).choice([0.0, 1.25], size=(B, H))
    for masked in (1.0, mask):
        out, after = nn.unroll(
            cell,
            mg.Tensor(x),
            cell._as_state(tuple(map(mg.Tensor, states))),
            lengths=lengths,
            reset=reset,
            reverse=reverse,
            mask=None if np.isscalar(masked) else mg.Tensor(masked),
        )
        want, want_states = expected(cell, x, states, lengths, reset, reverse, masked)
        np.testing.assert_allclose(out.numpy(), want, rtol=1e-12, atol=1e-13)
        for state, wanted in zip(cell._states_of("", after), want_states, strict=True):
            np.testing.assert_allclose(state.numpy(), wanted, rtol=1e-12, atol=1e-13)


@each_cell
def test_gradients(name):
    rng = np.random.default_rng(8)
    cell = in_float64(CELLS[name](2, 3), rng)
    arrays = [rng.normal(size=(3, 2, 2)), *(rng.normal(size=(2, 3)) for _ in cell.state_names)]
    leaves = [mg.Tensor(array, requires_grad=True) for array in arrays]
    reset = np.array([[False, False], [True, False], [False, True]])

    def run(x, *rest):
        state = cell._as_state(tuple(rest[: len(cell.state_names)]))
        out, after = nn.unroll(cell, x, state, lengths=[3, 2], reset=reset)
        return (out, *cell._states_of("", after))

    assert mg.gradcheck(run, [*leaves, *cell.parameters()])
    if name != "IndRNN":  # relu has no second derivative to check
        assert mg.gradgradcheck(lambda x, h: run(x, h, *leaves[2:])[0], leaves[:2])


@each_cell
def test_recurrent_is_unroll(name):
    """Two layers in both directions are four loops over the cells."""
    rng = np.random.default_rng(3)
    layer = nn.Recurrent(lambda n: in_float64(CELLS[name](n, H), rng), I, 2, True)
    x = mg.Tensor(rng.normal(size=(T, B, I)))
    out, state = layer(x, lengths=LENGTHS, reset=RESET)
    h, finals = x, []
    for k in (0, 2):
        both = []
        for cell, reverse in ((layer.cells[k], False), (layer.cells[k + 1], True)):
            part, final = nn.unroll(cell, h, lengths=LENGTHS, reset=RESET, reverse=reverse)
            both.append(part)
            finals.append(cell._states_of("", final))
        h = mg.concatenate(both, axis=2)
    assert (out.numpy() == h.numpy()).all()
    for part, stacked in zip(zip(*finals, strict=True), state, strict=True):
        assert (mg.stack(list(part)).numpy() == stacked.numpy()).all()
    again, _ = layer(x, state, lengths=LENGTHS)
    assert again.shape == out.shape and not np.array_equal(again.numpy(), out.numpy())
    assert type(state).__name__ == ("CellState" if name == "ZoneoutLSTM" else "HiddenState")


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_recurrent_of_a_librarys_cell_is_the_fused_layer(kind):
    """The same weights: outputs, states and gradients to the bit."""
    fused = getattr(nn, kind)(I, H, 2, bidirectional=True, clip_state_grad=0.05)
    cells = iter(fused.cells)
    loop = nn.Recurrent(lambda _: next(cells), I, 2, True, clip_state_grad=0.05)
    x = np.random.default_rng(4).normal(size=(T, B, I)).astype(np.float32)
    results = []
    for layer in (fused, loop):
        leaf = mg.Tensor(x, requires_grad=True)
        out, state = layer(leaf, lengths=LENGTHS, reset=RESET)
        for p in layer.parameters():
            p.grad = None
        weight = np.random.default_rng(5).normal(size=out.shape).astype(np.float32)
        ((out * weight).sum() + sum(s.sum() for s in state)).backward()
        results.append(
            [out, *state, leaf.grad, *(p.grad for _, p in sorted(layer.named_parameters()))]
        )
    for a, b in zip(*results, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_recurrent_dropout_has_one_mask_for_a_sequence():
    layer = nn.Recurrent(lambda n: CELLS["MGU"](n, 40), I, recurrent_dropout=0.5)
    seen = []
    inner = layer.cells[0].masked
    vars(layer.cells[0])["masked"] = lambda h: seen.append(inner(h)) or seen[-1]
    x, h0 = mg.ones((3, 2, I)), mg.ones((1, 2, 40))
    layer(x, h0)
    zeros = [(h.numpy() == 0) for h in seen]
    assert 20 < zeros[0].sum() < 60 and all((z >= zeros[0]).all() for z in zeros)
    layer.eval()
    seen.clear()
    layer(x, h0)
    assert (seen[0].numpy() == 1).all()


def test_dropout_between_layers_and_every_merge():
    for merge, features in (("concat", 2 * H), ("sum", H), (lambda f, g: f - g, H)):
        layer = nn.Recurrent(lambda n: CELLS["MGU"](n, H), I, 2, True, merge, dropout=0.5)
        x = mg.ones((T, B, I))
        assert layer(x)[0].shape == (T, B, features)
        assert layer.cells[2].W.shape[0] == features
        assert not np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
        layer.eval()
        assert np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    pair, _ = nn.Recurrent(lambda n: CELLS["MGU"](n, H), I, 1, True, None)(x)
    assert [part.shape for part in pair] == [(T, B, H)] * 2


# ---------------------------------------------------------------- states of any number and size


class Stacked(nn.Cell):
    """Three states of different sizes: a memory matrix, a learnt start, a count of steps."""

    state_names = ("h", "memory", "age")

    def __init__(self, input_size, hidden_size):
        super().__init__(hidden_size)
        self.W = nn.Parameter(nn.init.glorot(input_size, hidden_size, dtype="float64"))
        self.start_of_h = nn.Parameter(np.linspace(-1, 1, hidden_size))

    def initial(self, B):
        h = mg.broadcast_to(self.start_of_h, (B, self.hidden_size))
        return h, mg.zeros((B, 2, self.hidden_size), "float64"), mg.zeros((B,), "float64")

    def step(self, x, state):
        h, memory, age = state
        h = mg.tanh(x @ self.W + h * 0.5 + memory[:, 0])
        memory = mg.stack([memory[:, 1], h], axis=1)
        return h + age.reshape(-1, 1), (h, memory, age + 1.0)


def test_states_of_any_size():
    rng = np.random.default_rng(6)
    layer = nn.Recurrent(lambda n: Stacked(n, H), I)
    (cell,) = layer.cells
    x = rng.normal(size=(T, B, I))
    out, state = layer(mg.Tensor(x), lengths=LENGTHS, reset=RESET)
    want, ages = np.zeros((T, B, H)), np.zeros(B)
    for b in range(B):
        h, memory, age = cell.start_of_h.numpy(), np.zeros((2, H)), 0
        for t in range(LENGTHS[b]):
            if RESET[t, b]:
                h, memory, age = cell.start_of_h.numpy(), np.zeros((2, H)), 0
            h = np.tanh(x[t, b] @ cell.W.numpy() + h * 0.5 + memory[0])
            memory = np.stack([memory[1], h])
            want[t, b] = h + age
            age += 1
        ages[b] = age
        np.testing.assert_allclose(state.memory.numpy()[0, b], memory, rtol=1e-13)
    np.testing.assert_allclose(out.numpy(), want, rtol=1e-13, atol=1e-14)
    assert state.age.tolist() == [ages.tolist()] and state._fields == ("h", "memory", "age")
    out, after = layer(mg.Tensor(x), state.detach())
    assert not state.detach().h.requires_grad and after.age.tolist() == [[age + T for age in ages]]
    layer.zero_grad()
    (out * out).sum().backward()
    assert cell.start_of_h.grad is None  # the state was given
    assert mg.gradcheck(
        lambda *_: layer(mg.Tensor(x), lengths=LENGTHS, reset=RESET)[0],
        list(layer.parameters()),
    )


def test_no_steps_have_gradients_of_zeros():
    layer = nn.Recurrent(lambda n: Stacked(n, H), I)
    x = mg.zeros((0, B, I), "float64", requires_grad=True)
    out, state = layer(x)
    assert out.shape == (0, B, H) and state.memory.shape == (1, B, 2, H)
    (out.sum() + state.h.sum()).backward()
    assert x.grad.shape == x.shape and (layer.cells[0].W.grad.numpy() == 0).all()
    assert (layer.cells[0].start_of_h.grad.numpy() == B).all()


def test_truncated_bptt_over_own_cells():
    """Parts with detached states are the sequence as a whole, forwards."""
    layer = nn.Recurrent(lambda n: Stacked(n, H), I, 2)
    x = mg.Tensor(np.random.default_rng(7).normal(size=(T, B, I)))
    whole, last = layer(x)
    first, state = layer(x[:2])
    second, state = layer(x[2:], state.detach())
    assert np.array_equal(mg.concatenate([first, second]).numpy(), whole.numpy())
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(state, last, strict=True))


# ---------------------------------------------------------------- slices


def names_of_nodes(y):
    """How often each op stands in the graph of y."""
    seen, stack, count = set(), [y.grad_fn], {}
    while stack:
        node = stack.pop()
        if isinstance(node, mg.core.tensor.Node) and node not in seen:
            seen.add(node)
            count[node.name] = count.get(node.name, 0) + 1
            stack.extend(node.inputs)
    return count


def test_slices_of_parameters_are_made_once():
    cell = CELLS["MGU"](I, H)
    out, _ = nn.unroll(cell, mg.ones((50, B, I)))
    assert names_of_nodes(out)["index"] == 2  # of U; those of x need no gradient
    with mg.no_grad():
        nn.unroll(cell, mg.ones((2, B, I)))
    a, b = cell.U[:, :H], cell.U[:, :H]
    assert a is not b  # outside of a sequence nothing is kept
    (out * out).sum().backward()
    assert np.abs(cell.U.grad.numpy()).min() > 0


def test_a_slice_under_no_grad_is_not_that_of_the_tape():
    class Peeking(nn.Cell):
        def __init__(self):
            super().__init__(2)
            self.W = nn.Parameter(np.ones((2, 2)))

        def step(self, x, h):
            with mg.no_grad():
                constant = self.W[:1]
            h = x * constant + h * self.W[:1]
            assert not constant.requires_grad
            return h, h

    cell = Peeking()
    out, _ = nn.unroll(cell, mg.ones((3, 1, 2), "float64"))
    out.sum().backward()
    assert cell.W.grad[0].tolist() == [4, 4]  # of h1, h2 and h3: 0, 1 and 1 + 2


def test_a_sequence_inside_a_step_has_its_own_mask():
    class Outer(nn.Cell):
        def __init__(self):
            super().__init__(H)
            self.inner = CELLS["MGU"](H, H)

        def step(self, x, h):
            out, _ = nn.unroll(self.inner, mg.stack([x, x]))
            h = self.masked(out[-1]) + 0.0 * h
            return h, h

    mask = np.zeros((B, H), np.float32)
    out, _ = nn.unroll(Outer(), mg.ones((3, B, H)), mask=mask)
    assert (out.numpy() == 0).all()
    inner = Outer()
    assert (nn.unroll(inner, mg.ones((3, B, H)))[0].numpy() != 0).any()


# ---------------------------------------------------------------- errors


class Wrong(nn.Cell):
    """A cell whose step returns what it was made with."""

    def __init__(self, returned, names=("h",)):
        super().__init__(2)
        self.returned, self.state_names = returned, names

    def step(self, x, state):
        return self.returned(x, state)


@pytest.mark.parametrize(
    "returned, names, error, text",
    [
        (lambda x, h: h, ("h",), TypeError, r"step must return \(out, state\), got Tensor"),
        (lambda x, h: (h, None), ("h",), TypeError, "step must return h as a Tensor, got NoneType"),
        (lambda x, h: (1.0, h), ("h",), TypeError, "step must return out as a Tensor, got float"),
        (
            lambda x, h: (x, h),
            ("h",),
            ValueError,
            r"Wrong: step must return out of shape \(3, 2\), got \(3, 4\)",
        ),
        (
            lambda x, h: (h, x),
            ("h",),
            ValueError,
            r"Wrong: step must return h of shape \(3, 2\), got \(3, 4\)",
        ),
        (
            lambda x, h: (h, h.astype("float64")),
            ("h",),
            TypeError,
            "step must return h of dtype float32, got float64",
        ),
        (lambda x, s: (s[0], s[0]), ("h", "c"), TypeError, r"Wrong: step: state must be \(h, c\)"),
        (lambda x, s: (s[0], s[:1]), ("h", "c"), TypeError, "got tuple of length 1"),
    ],
)
def test_what_a_step_returns_is_checked(returned, names, error, text):
    cell, x = Wrong(returned, names), mg.ones((2, 3, 4))
    with pytest.raises(error, match=text):
        nn.unroll(cell, x)
    with pytest.raises(error, match=text):
        cell(x[0])


class Bare(nn.Cell):
    def __init__(self):
        self.x = 1


class WithInitial(nn.Cell):
    def __init__(self, initial):
        super().__init__(2)
        self.start_with = initial

    def initial(self, B):
        return self.start_with

    def step(self, x, h):
        return h, h


def test_cells_that_cannot_run():
    x = mg.ones((2, 3, 4))
    with pytest.raises(TypeError, match=r"Bare has no hidden_size: call super\(\).__init__"):
        nn.unroll(Bare(), x)
    with pytest.raises(NotImplementedError, match=r"Cell: define step\(x, state\)"):
        nn.unroll(nn.Cell(2), x)
    for names in ((), ["h"], ("h", "h"), ("class",), (1,), ("_h",), "h"):
        with pytest.raises(TypeError, match="state_names must be a tuple of different names"):
            nn.unroll(Wrong(None, names), x)
    with pytest.raises(TypeError, match="unroll: cell must be an RNNCell, .* got Linear"):
        nn.unroll(nn.Linear(2, 3), x)
    with pytest.raises(TypeError, match="weights cannot replace those of a MGU"):
        nn.unroll(CELLS["MGU"](4, 2), x, weights=nn.RNNCell(4, 2).weights())
    with pytest.raises(ValueError, match="hidden_size must be at least 1, got 0"):
        nn.Cell(0)
    with pytest.raises(TypeError, match="initial must give h as a Tensor, got int"):
        nn.unroll(WithInitial(0), x)
    with pytest.raises(ValueError, match=r"initial must give h with batch = 3 rows, got \(2, 2\)"):
        nn.unroll(WithInitial(mg.ones((2, 2))), x)
    with pytest.raises(ValueError, match=r"h must have shape \(3, 2\) = that of initial\(batch\)"):
        nn.unroll(WithInitial(mg.ones((3, 2))), x, mg.ones((3, 4)))


def test_sequences_that_do_not_fit():
    cell = CELLS["MGU"](4, 2)
    with pytest.raises(ValueError, match=r"unroll: x must have shape \(T, B, I\)"):
        nn.unroll(cell, mg.ones((2, 4)))
    with pytest.raises(TypeError, match="unroll: x has dtype float64, the weights have float32"):
        nn.unroll(cell, mg.ones((2, 3, 4), "float64"))
    with pytest.raises(ValueError, match=r"h must have shape \(3, 2\) = \(batch, hidden_size\)"):
        nn.unroll(cell, mg.ones((2, 3, 4)), mg.ones((3, 3)))
    with pytest.raises(ValueError, match=r"mask must have shape \(3, 2\)"):
        nn.unroll(cell, mg.ones((2, 3, 4)), mask=mg.ones((3, 4)))
    with pytest.raises(ValueError, match=r"matmul|shape"):
        nn.unroll(cell, mg.ones((2, 3, 5)))
    deaf = Wrong(lambda x, h: (h, h))
    with pytest.raises(ValueError, match=r"Wrong was given a mask .* did not use it"):
        nn.unroll(deaf, mg.ones((2, 3, 4)), mask=mg.ones((3, 2)))
    with pytest.raises(ValueError, match=r"did not use it: its step must write self.masked\(h\)"):
        nn.Recurrent(lambda n: Wrong(lambda x, h: (h, h)), 4, recurrent_dropout=0.5)(
            mg.ones((2, 3, 4))
        )


def test_recurrent_refuses():
    sizes, one = iter([2, 3]), CELLS["MGU"](4, 4)
    for make_layer, error, text in (
        (lambda: nn.Recurrent(None, 4), TypeError, "cell_factory must be a function"),
        (lambda: nn.Recurrent(lambda n: None, 4), TypeError, "what cell_factory returns must be"),
        (lambda: nn.Recurrent(lambda n: nn.RNNCell(3, 2), 4), ValueError, "a cell for 4 features"),
        (
            lambda: nn.Recurrent(lambda n: CELLS["MGU"](n, next(sizes)), 4, 2),
            ValueError,
            "all cells must have one hidden_size, got 2 and 3",
        ),
        (
            lambda: nn.Recurrent(lambda n: one, 4, 2),
            ValueError,
            "must return a new cell at each call",
        ),
        (lambda: nn.Recurrent(nn.GRUCell, 4), TypeError, "hidden_size"),
        (lambda: nn.Recurrent(lambda n: nn.GRUCell(n, 2), 0), ValueError, "input_size must be"),
        (lambda: nn.Recurrent(lambda n: nn.GRUCell(n, 2), 4, 0), ValueError, "num_layers must be"),
        (lambda: nn.Recurrent(lambda n: nn.GRUCell(n, 2), 4, dropout=2.0), ValueError, "dropout"),
        (lambda: nn.Recurrent(lambda n: nn.GRUCell(n, 2), 4, merge="x"), ValueError, "merge"),
    ):
        with pytest.raises(error, match=text):
            make_layer()
    layer = nn.Recurrent(lambda n: CELLS["MGU"](n, 2), 4, 2)
    x = mg.ones((2, 3, 4))
    for state, error, text in (
        (mg.ones((1, 3, 2)), ValueError, r"h0 must have shape \(2, 3, 2\) = \(num_layers, batch"),
        ((mg.ones((2, 3, 2)),) * 2, TypeError, "state must be h0, .* got tuple of length 2"),
        ([1], TypeError, "state must be h0, .* got list"),
        (mg.ones((2, 3, 2), "float64"), TypeError, "h0 has dtype float64"),
    ):
        with pytest.raises(error, match=f"Recurrent: {text}"):
            layer(x, state)
    with pytest.raises(ValueError, match=r"x must have shape \(T, B, 4\)"):
        layer(mg.ones((2, 3, 5)))
    layer.cells.pop()
    with pytest.raises(ValueError, match="cells must be 2 = num_layers"):
        layer(x)


def test_initial_values():
    W = nn.init.glorot(30, 50, np.random.default_rng(0))
    assert W.dtype == np.float32 and np.abs(W).max() <= np.sqrt(6 / 80) < np.abs(W).max() * 1.01
    U = nn.init.orthogonal(20, np.random.default_rng(0), "float64")
    assert np.abs(U.T @ U - np.eye(20)).max() < 1e-14
    mg.manual_seed(3)
    a = nn.init.glorot(2, 3)
    mg.manual_seed(3)
    assert np.array_equal(nn.init.glorot(2, 3), a) and not np.array_equal(nn.init.glorot(2, 3), a)
    with pytest.raises(ValueError, match="glorot: fan_in must be at least 1, got 0"):
        nn.init.glorot(0, 3)
    with pytest.raises(TypeError, match="orthogonal: rng must be a numpy.random.Generator"):
        nn.init.orthogonal(3, 1)
