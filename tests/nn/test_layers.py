"""Layers and cells: Linear, Embedding, Dropout, initial weights, gates by name, layer
normalisation, two directions."""

import numpy as np
import pytest
from modules import CELLS, Net, draw, each_cell, randomised

import minigrad as mg

nn = mg.nn

# ---------------------------------------------------------------- Linear, Embedding, Dropout


@pytest.mark.parametrize("shape", [(3,), (2, 3), (5, 2, 3), (0, 3), (2, 0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    """y = x W + b; dW = x^T dy, db = the sum of dy, dx = dy W^T."""
    layer = randomised(nn.Linear(3, 4, bias=bias, dtype=np.float64))
    x, dy = mg.Tensor(draw(*shape), requires_grad=True), draw(*shape[:-1], 4, seed=2)
    W, b = layer.weight.numpy(), layer.bias.numpy() if bias else 0.0
    y = layer(x)
    np.testing.assert_allclose(y.numpy(), x.numpy() @ W + b, rtol=1e-12, atol=1e-13)
    (y * mg.Tensor(dy)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), dy @ W.T, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        layer.weight.grad.numpy(),
        x.numpy().reshape(-1, 3).T @ dy.reshape(-1, 4),
        rtol=1e-12,
        atol=1e-13,
    )
    if bias:
        np.testing.assert_allclose(
            layer.bias.grad.numpy(), dy.reshape(-1, 4).sum(0), rtol=1e-12, atol=1e-13
        )


def test_linear_refuses():
    layer = nn.Linear(3, 4)
    for shape in ((), (4,), (2, 4), (3, 2)):
        with pytest.raises(
            ValueError, match=r"Linear: x must have shape \(..., 3\) = \(..., d\), got "
        ):
            layer(mg.zeros(shape))
    with pytest.raises(TypeError, match="Linear: x has dtype float64, the weights have float32"):
        layer(mg.zeros((2, 3), np.float64))
    with pytest.raises(TypeError, match="Linear: x has dtype float64, the weights have float32"):
        layer(np.zeros((2, 3)))
    for x in (None, "text"):
        with pytest.raises(TypeError, match=f"Linear: x must be numbers, got {type(x).__name__}"):
            layer(x)
    with pytest.raises(TypeError, match="Linear: x must not be a masked array"):
        layer(np.ma.zeros((2, 3), np.float32))


def test_layers_and_cells_take_arrays():
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    for layer in (nn.Linear(3, 4), nn.RNNCell(3, 4), nn.GRUCell(3, 4)):
        expected = layer(mg.Tensor(x)).numpy().tobytes()
        assert layer(x).numpy().tobytes() == expected
        assert layer(x.tolist()).numpy().tobytes() == expected


def test_embedding():
    layer = randomised(nn.Embedding(5, 3, dtype=np.float64))
    indices, dy = np.array([[0, 4], [4, 4], [1, 0]]), draw(3, 2, 3)
    y = layer(indices)
    assert np.array_equal(y.numpy(), layer.weight.numpy()[indices])
    (y * mg.Tensor(dy)).sum().backward()
    expected = np.zeros((5, 3))
    np.add.at(expected, indices, dy)
    np.testing.assert_allclose(layer.weight.grad.numpy(), expected, rtol=1e-12, atol=1e-14)
    for bad, error in (([5], IndexError), ([-6], IndexError), ([1.0], TypeError)):
        with pytest.raises(error, match="^Embedding: "):
            layer(bad)


def test_dropout():
    layer = nn.Dropout(0.25, mg.Generator(3))
    x = mg.Tensor(np.ones(10000), requires_grad=True)
    y = layer(x)
    y.sum().backward()
    kept = y.numpy() != 0
    assert (
        abs(kept.mean() - 0.75) < 0.02
        and np.allclose(y.numpy()[kept], 1 / 0.75)
        and np.array_equal(x.grad.numpy(), y.numpy())
    )
    assert layer.eval()(x) is x and layer.generator.state["draws"] == 1
    assert not nn.Dropout(1.0)(x).numpy().any() and nn.Dropout(0.0)(x) is x


BAD = {
    "linear 0": (lambda: nn.Linear(0, 3), ValueError, "Linear: d must be at least 1, got 0"),
    "linear -1": (
        lambda: nn.Linear(3, -1),
        ValueError,
        "Linear: k must be at least 1, got -1",
    ),
    "linear float": (lambda: nn.Linear(2.5, 3), TypeError, "Linear: d must be an int, got float"),
    "linear bool": (lambda: nn.Linear(True, 3), TypeError, "Linear: d must be an int, got bool"),
    "linear bias": (
        lambda: nn.Linear(2, 3, bias=1),
        TypeError,
        "Linear: bias must be a bool, got int",
    ),
    "linear dtype": (
        lambda: nn.Linear(2, 3, dtype=np.float16),
        TypeError,
        "Linear: dtype .*float16",
    ),
    "linear int": (lambda: nn.Linear(2, 3, dtype=int), TypeError, "Linear: dtype .*int64"),
    "linear rng": (
        lambda: nn.Linear(2, 3, rng=7),
        TypeError,
        "Linear: rng must be a numpy.random.Generator or None, got int",
    ),
    "linear typo": (lambda: nn.Linear(2, 3, Bias=True), TypeError, "Bias"),
    "embedding 0": (
        lambda: nn.Embedding(0, 3),
        ValueError,
        "Embedding: n must be at least 1, got 0",
    ),
    "embedding str": (
        lambda: nn.Embedding(2, "3"),
        TypeError,
        "Embedding: d must be an int, got str",
    ),
    "embedding rng": (
        lambda: nn.Embedding(2, 3, rng="a"),
        TypeError,
        "Embedding: rng must be a numpy.random.Generator or None, got str",
    ),
    "dropout 1.5": (
        lambda: nn.Dropout(1.5),
        ValueError,
        "Dropout: p must be at least 0 and at most 1, got 1.5",
    ),
    "dropout NaN": (
        lambda: nn.Dropout(float("nan")),
        ValueError,
        "Dropout: p must be at least 0 and at most 1, got nan",
    ),
    "dropout str": (lambda: nn.Dropout("0.5"), TypeError, "Dropout: p must be a number, got str"),
    "cell rng": (
        lambda: nn.GRUCell(2, 3, rng=7),
        TypeError,
        "GRUCell: rng must be a numpy.random.Generator or None, got int",
    ),
    "dropout generator": (
        lambda: nn.Dropout(0.5, 7),
        TypeError,
        "Dropout: generator must be a minigrad.Generator or None, got int",
    ),
}


@pytest.mark.parametrize("call, error, message", BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------- initial weights


@each_cell
def test_the_recurrent_matrix_starts_orthogonal_gate_by_gate(name):
    cell = CELLS[name](5, 16, dtype=np.float64)
    for gate in cell.gates:
        U = cell.gate(gate).U.numpy()
        np.testing.assert_allclose(U.T @ U, np.eye(16), atol=1e-13)
    assert len({cell.gate(gate).U.numpy().tobytes() for gate in cell.gates}) == len(cell.gates)


@each_cell
def test_the_input_matrix_starts_within_glorots_bound(name):
    cell = CELLS[name](40, 60, dtype=np.float64)
    bound = np.sqrt(6 / (40 + 60))
    for gate in cell.gates:
        W = abs(cell.gate(gate).W.numpy())
        assert 0.98 * bound < W.max() <= bound and abs(W.mean() - bound / 2) < 0.03 * bound


@each_cell
def test_biases_start_at_zero_but_the_forget_gate_at_one(name):
    cell = CELLS[name](3, 4)
    for gate in cell.gates:
        assert np.array_equal(
            cell.gate(gate).b.numpy(), np.full(4, float(gate == "f" and "f" in cell.gates))
        )
    assert cell.b.numpy().sum() == (4 if isinstance(cell, nn.LSTMCell) else 0)
    assert cell.p is None or not cell.p.numpy().any()


def test_linear_and_embedding_start():
    W = nn.Linear(40, 60).weight.numpy()
    bound = np.sqrt(6 / 100)
    assert 0.98 * bound < abs(W).max() <= bound * (1 + 1e-7) and abs(W.mean()) < 0.03 * bound
    assert not nn.Linear(40, 60).bias.numpy().any()
    E = nn.Embedding(100, 100).weight.numpy()
    assert abs(E.mean()) < 0.05 and abs(E.std() - 1) < 0.05


def test_manual_seed_makes_the_same_weights():
    def weights(seed):
        if seed is not None:
            mg.manual_seed(seed)
        modules = Net(), nn.LSTM(3, 4, num_layers=2, bidirectional=True), nn.GRUCell(3, 4)
        return [p.numpy().tobytes() for module in modules for p in module.parameters()]

    first, more, again, other = weights(5), weights(None), weights(5), weights(6)
    assert first == again and first != more and first != other


def test_rng_makes_the_same_weights_and_leaves_the_default_generator_alone():
    before = mg.default_generator.state
    a, b = (nn.LSTM(3, 4, rng=np.random.default_rng(1)).state_dict() for _ in range(2))
    assert all(np.array_equal(a[k], b[k]) for k in a) and mg.default_generator.state == before


# ---------------------------------------------------------------- gates by name


GATES = {
    "rnn": "h",
    "relu": "h",
    "lstm": "ifgo",
    "peepholes": "ifgo",
    "layer norm": "ifgo",
    "gru": "rzn",
    "gru after": "rzn",
}


@each_cell
def test_gates_by_name(name):
    cell = randomised(CELLS[name](3, 4))
    assert cell.gates == tuple(GATES[name])
    for k, gate in enumerate(cell.gates):
        W, U, b = cell.gate(gate)
        part = slice(4 * k, 4 * k + 4)
        assert np.array_equal(W.numpy(), cell.W.numpy()[:, part]) and np.array_equal(
            U.numpy(), cell.U.numpy()[:, part]
        )
        assert np.array_equal(b.numpy(), cell.b.numpy()[part])
    with pytest.raises(
        ValueError,
        match=rf"{type(cell).__name__}: name must be .*'{cell.gates[-1]}', got 'x'",
    ):
        cell.gate("x")
    for bad in (None, 0, ["i"]):
        with pytest.raises(TypeError, match="name must be '"):
            cell.gate(bad)
    assert CELLS[name](3, 4, bias=False).gate(cell.gates[0]).b is None


def test_a_gate_can_be_written():
    cell = nn.LSTMCell(3, 4)
    with mg.no_grad():
        cell.gate("f").b[...] = 5.0
    assert cell.b.numpy().tolist() == [0] * 4 + [5] * 4 + [0] * 8


def test_gates_mean_what_their_names_say():
    """A closed forget gate and an open input gate: c' = g; a closed update gate: h' = n."""
    big = 1e4
    lstm = randomised(nn.LSTMCell(3, 4, dtype=np.float64))
    with mg.no_grad():
        for name, value in (("i", big), ("f", -big), ("o", big)):
            lstm.gate(name).b[...] = value
    x, h, c = (mg.Tensor(draw(2, n, seed=n)) for n in (3, 4, 5))
    c = c[:, :4]
    W, U, b = lstm.gate("g")
    _, new = lstm(x, (h, c))
    np.testing.assert_allclose(
        new.numpy(), np.tanh(x.numpy() @ W.numpy() + h.numpy() @ U.numpy() + b.numpy()), rtol=1e-12
    )
    gru = randomised(nn.GRUCell(3, 4, dtype=np.float64))
    with mg.no_grad():
        gru.gate("z").b[...] = -big
        gru.gate("r").b[...] = big
    W, U, b = gru.gate("n")
    np.testing.assert_allclose(
        gru(x, h).numpy(),
        np.tanh(x.numpy() @ W.numpy() + h.numpy() @ U.numpy() + b.numpy()),
        rtol=1e-12,
    )


# ---------------------------------------------------------------- layer normalisation


def test_layer_norm_by_hand():
    """Ba, Kiros and Hinton 2016, equations 20 to 22."""
    cell = randomised(nn.LSTMCell(3, 4, layer_norm=True, dtype=np.float64))
    x, h, c = draw(2, 3), draw(2, 4, seed=2), draw(2, 4, seed=3)

    def norm(a):
        return (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 1e-5)

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    w = {name: p.numpy() for name, p in cell.named_parameters()}
    a = norm(x @ w["W"]) * w["scale_x"] + norm(h @ w["U"]) * w["scale_h"] + w["b"]
    i, f, g, o = np.split(a, 4, 1)
    new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    new_h = sigmoid(o) * np.tanh(norm(new_c) * w["scale_c"] + w["shift_c"])
    found = cell(mg.Tensor(x), (mg.Tensor(h), mg.Tensor(c)))
    np.testing.assert_allclose(found[0].numpy(), new_h, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[1].numpy(), new_c, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@each_cell
def test_gradients_of_two_steps(name):
    cell = randomised(CELLS[name](3, 4, dtype=np.float64), 4)
    parameters = list(cell.parameters())
    leaves = [mg.Tensor(p.numpy().copy(), requires_grad=True) for p in parameters]
    names = [n for n, _ in cell.named_parameters()]
    two = isinstance(cell, nn.LSTMCell)

    def steps(x, h, *weights):
        for n, w in zip(names, weights, strict=True):
            setattr(cell, n, w)
        state = (h, h * 0.5) if two else h
        for t in range(2):
            state = cell(x[t], state)
        return state

    x, h = (mg.Tensor(draw(*s, seed=7), requires_grad=True) for s in ((2, 2, 3), (2, 4)))
    assert mg.gradcheck(steps, (x, h, *leaves))


@each_cell
def test_a_cell_starts_from_zeros(name):
    cell = randomised(CELLS[name](3, 4, dtype=np.float64))
    x, zero = mg.Tensor(draw(2, 3)), mg.zeros((2, 4), np.float64)
    two = isinstance(cell, nn.LSTMCell)
    found, expected = cell(x), cell(x, (zero, zero) if two else zero)
    for a, b in zip(found if two else [found], expected if two else [expected], strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


# ---------------------------------------------------------------- two directions


@pytest.mark.parametrize("lengths", [None, [5, 2]])
def test_bidirectional_reads_from_both_ends(lengths):
    forward, backward = (
        randomised(nn.GRUCell(3, 4, dtype=np.float64), 1),
        randomised(nn.GRUCell(3, 4, dtype=np.float64), 2),
    )
    x = draw(5, 2, 3)
    y = nn.bidirectional(forward, backward, mg.Tensor(x), lengths=lengths).numpy()
    for row, n in enumerate(lengths or [5, 5]):
        h = g = mg.zeros((1, 4), np.float64)
        hs, gs = [], []
        for t in range(n):
            h, g = (
                forward(mg.Tensor(x[t, row : row + 1]), h),
                backward(mg.Tensor(x[n - 1 - t, row : row + 1]), g),
            )
            hs.append(h.numpy()[0])
            gs.append(g.numpy()[0])
        np.testing.assert_allclose(y[:n, row], np.concatenate([hs, gs[::-1]], 1), rtol=1e-13)
        assert not y[n:, row].any()


@pytest.mark.parametrize(
    "merge", ["concat", "sum", "mean", "mul", None, lambda h, g: h - g], ids=str
)
def test_merges(merge):
    forward, backward = (randomised(nn.LSTMCell(3, 4, dtype=np.float64), k) for k in (1, 2))
    x = mg.Tensor(draw(5, 2, 3))
    h, g = nn.bidirectional(forward, backward, x, None)
    expected = {
        "concat": lambda: np.concatenate([h.numpy(), g.numpy()], -1),
        "sum": lambda: h.numpy() + g.numpy(),
        "mean": lambda: (h.numpy() + g.numpy()) / 2,
        "mul": lambda: h.numpy() * g.numpy(),
    }
    found = nn.bidirectional(forward, backward, x, merge)
    if merge is None:
        assert isinstance(found, tuple) and all(
            np.array_equal(a.numpy(), b.numpy()) for a, b in zip(found, (h, g), strict=True)
        )
    else:
        assert np.array_equal(found.numpy(), expected.get(merge, lambda: h.numpy() - g.numpy())())
    layer = nn.LSTM(3, 4, bidirectional=True, merge=merge, dtype=np.float64)
    layer.cells[:] = forward, backward
    fused = layer(x)[0]
    for a, b in zip(
        fused if merge is None else [fused], found if merge is None else [found], strict=True
    ):
        assert np.array_equal(a.numpy(), b.numpy())


def test_merges_that_are_none():
    for bad in ("add", 3, ["concat"]):
        with pytest.raises(
            ValueError,
            match="merge_directions: merge must be 'concat', 'sum', 'mean', 'mul', None or a func",
        ):
            nn.merge_directions(mg.ones(2), mg.ones(2), bad)
        with pytest.raises(
            ValueError, match="LSTM: merge must be 'concat', 'sum', 'mean', 'mul', None or a func"
        ):
            nn.LSTM(2, 3, bidirectional=True, merge=bad)
