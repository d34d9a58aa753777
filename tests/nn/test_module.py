"""Modules: parameters by name, states, train and eval, what repr shows; Linear, Embedding, Dropout;
initial weights, gates and layer normalisation of the cells; two directions."""

import collections
import copy
import dataclasses
import functools
import pickle
import types
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest

import minigrad as mg

nn = mg.nn
CELLS = {
    "rnn": lambda I, H, **o: nn.RNNCell(I, H, **o),
    "relu": lambda I, H, **o: nn.RNNCell(I, H, nonlinearity="relu", **o),
    "lstm": lambda I, H, **o: nn.LSTMCell(I, H, **o),
    "peepholes": lambda I, H, **o: nn.LSTMCell(I, H, peepholes=True, **o),
    "layer norm": lambda I, H, **o: nn.LSTMCell(I, H, layer_norm=True, **o),
    "gru": lambda I, H, **o: nn.GRUCell(I, H, **o),
    "gru after": lambda I, H, **o: nn.GRUCell(I, H, reset_after=True, **o),
}
each_cell = pytest.mark.parametrize("name", CELLS)


class Net(nn.Module):
    def __init__(self):
        self.embed = nn.Embedding(5, 3)
        self.layers = [nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 4, bias=False)]
        self.scale = nn.Parameter([2.0])
        self.label = "not a module"

    def forward(self, indices):
        x = self.embed(indices)
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


NAMES = ["scale", "embed.weight", "layers.0.weight", "layers.0.bias", "layers.2.weight"]


def randomised(module, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    with mg.no_grad():
        for p in module.parameters():
            p[...] = scale * rng.standard_normal(p.shape).astype(p.dtype)
    return module


def draw(*shape, seed=1, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------- parameters


def test_a_parameter_is_a_leaf_with_a_copy_of_its_data():
    data = np.ones(3, np.float32)
    p = nn.Parameter(data)
    data[0] = 5
    assert (
        isinstance(p, mg.Tensor)
        and p.requires_grad
        and p.is_leaf
        and p.numpy().tolist() == [1, 1, 1]
    )
    assert nn.Parameter([1.0], np.float64).dtype == np.float64


def test_parameters_have_names_in_the_order_of_assignment():
    net = Net()
    named = list(net.named_parameters())
    assert [name for name, _ in named] == NAMES
    assert named[2][1] is net.layers[0].weight and [p for _, p in named] == list(net.parameters())
    assert [name for name, _ in net.children()] == ["embed", "layers.0", "layers.1", "layers.2"]
    assert list(net.modules()) == [net, net.embed, *net.layers]


def test_shared_parameters_come_once():
    class Tied(nn.Module):
        def __init__(self):
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.again = self.a

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    assert list(tied.state_dict()) == ["a.weight", "a.bias", "b.bias"]
    assert "15 parameters" in repr(tied).splitlines()[0]


def test_a_replaced_or_removed_parameter_is_seen():
    layer = nn.Linear(2, 2)
    layer.weight = new = nn.Parameter(np.zeros((2, 2), np.float32))
    layer.bias = None
    assert list(layer.named_parameters()) == [("weight", new)]


def test_zero_grad():
    net = Net()
    net([0, 1]).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_module_needs_a_forward():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)


# ---------------------------------------------------------------- train and eval


def test_train_and_eval_reach_all_modules():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    assert not net.train(False).layers[1].training
    with pytest.raises(TypeError, match="train: mode must be a bool, got int"):
        net.train(1)


def test_eval_switches_dropout_off():
    net = Net()
    calls = [net([0, 1, 2, 3]).numpy() for _ in range(4)]
    assert any(not np.array_equal(calls[0], c) for c in calls[1:])
    net.eval()
    assert np.array_equal(net([0, 1, 2, 3]).numpy(), net([0, 1, 2, 3]).numpy())


def test_eval_switches_the_dropout_of_layers_off():
    layer = nn.LSTM(3, 4, num_layers=2, dropout=0.5, recurrent_dropout=0.5)
    x = mg.Tensor(draw(5, 2, 3, dtype=np.float32))
    assert not np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    layer.eval()
    assert np.array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())


# ---------------------------------------------------------------- states


def test_a_state_is_a_copy_and_comes_back():
    net, other = randomised(Net(), 1), randomised(Net(), 2)
    state = net.state_dict()
    assert list(state) == NAMES and all(type(a) is np.ndarray for a in state.values())
    arrays = [p.numpy() for p in other.parameters()]
    other.load_state_dict(state)
    for name, p in other.named_parameters():
        assert (
            np.array_equal(p.numpy(), state[name])
            and p.requires_grad
            and not np.shares_memory(p.numpy(), state[name])
        )
    assert all(
        np.shares_memory(a, p.numpy()) for a, p in zip(arrays, other.parameters(), strict=True)
    )
    state["scale"][...] = 99
    assert net.scale.item() != 99 and other.scale.item() != 99


def test_a_state_of_tensors_and_of_any_layout():
    net, other = randomised(Net(), 1), randomised(Net(), 2)
    state = {k: mg.Tensor(np.asfortranarray(v)) for k, v in net.state_dict().items()}
    other.load_state_dict(state)
    assert all(
        np.array_equal(p.numpy(), state[name].numpy()) for name, p in other.named_parameters()
    )


def test_all_that_does_not_fit_is_one_error_and_changes_nothing():
    net = randomised(Net())
    before = net.state_dict()
    state = {k: v + 1 for k, v in before.items()} | {
        "scale": np.ones(2, np.float32),
        "embed.weight": np.ones((5, 3)),
        "other": np.ones(1),
        7: np.ones(1),
    }
    del state["layers.0.bias"]
    with pytest.raises(ValueError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "load_state_dict: Net does not fit the state: missing: layers.0.bias; unexpected: other; unexpected: 7; "
        "scale must have shape (1,), got (2,); embed.weight must have dtype float32, got float64"
    )
    assert all(np.array_equal(before[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize("value", [None, "text", [1.0, None], [[1.0], [1.0, 2.0]], {}, object()])
def test_values_that_are_no_arrays_change_nothing(value):
    net = randomised(Net())
    before = net.state_dict()
    with pytest.raises(
        ValueError, match="load_state_dict: Net does not fit the state: layers.2.weight must"
    ):
        net.load_state_dict({k: v + 1 for k, v in before.items()} | {"layers.2.weight": value})
    assert all(np.array_equal(before[k], v) for k, v in net.state_dict().items())


def test_weights_can_be_swapped():
    net = nn.RNN(3, 3)
    cell = net.cells[0]
    W, U = cell.W.numpy().copy(), cell.U.numpy().copy()
    net.load_state_dict(
        net.state_dict() | {"cells.0.W": cell.U.numpy(), "cells.0.U": cell.W.numpy()}
    )
    assert np.array_equal(cell.W.numpy(), U) and np.array_equal(cell.U.numpy(), W)


def test_a_masked_array_is_no_state():
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="weight must not be a masked array"):
        layer.load_state_dict(layer.state_dict() | {"weight": np.ma.ones((2, 2), np.float32)})


@pytest.mark.parametrize("state", [None, [], "text", 3])
def test_a_state_is_a_dict(state):
    with pytest.raises(
        TypeError,
        match=f"load_state_dict: state must be a dict of arrays, got {type(state).__name__}",
    ):
        Net().load_state_dict(state)


def test_loading_spoils_a_graph_that_still_needs_the_old_weights():
    net = Net().eval()
    loss = (net([0, 1]) ** 2).sum()
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        loss.backward()


# ---------------------------------------------------------------- repr


def test_repr_counts_parameters():
    assert (
        repr(Net())
        == """\
Net(                                     # 48 parameters
  embed: Embedding(5, 3)                 # 15 parameters
  layers.0: Linear(3, 4)                 # 16 parameters
  layers.1: Dropout(0.5)                 # 0 parameters
  layers.2: Linear(4, 4, bias=False)     # 16 parameters
)"""
    )
    assert repr(nn.Linear(1000, 2000)) == "Linear(1000, 2000)     # 2,002,000 parameters"
    assert "LSTMCell(3, 4)" in repr(nn.LSTM(3, 4))
    assert repr(nn.GRUCell(2, 3, reset_after=True)).startswith("GRUCell(2, 3, reset_after=True) ")


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
        with pytest.raises(error, match="embedding"):
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
        match=rf"{type(cell).__name__}: name must be one of {', '.join(cell.gates)}, got 'x'",
    ):
        cell.gate("x")
    for bad in (None, 0, ["i"]):
        with pytest.raises(ValueError, match="name must be one of"):
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


# ---------------------------------------------------------------- containers, and what is out of reach


class Pair(NamedTuple):
    """Two things side by side."""

    left: object
    right: object


class Held(nn.Module):
    """Holds one thing as an attribute."""

    def __init__(self, thing):
        self.thing = thing

    def forward(self, x):
        return x


def parameter(k=1.0):
    return nn.Parameter(np.full(2, k, np.float32))


@pytest.mark.parametrize(
    "make, names",
    [
        (lambda: [parameter(), parameter()], ["thing.0", "thing.1"]),
        (lambda: (nn.Linear(1, 2), parameter()), ["thing.1", "thing.0.weight", "thing.0.bias"]),
        (
            lambda: {"a": nn.Linear(1, 2), "b": parameter()},
            ["thing.b", "thing.a.weight", "thing.a.bias"],
        ),
        (lambda: [[parameter()], {"a": [nn.Embedding(2, 2)]}], ["thing.0.0", "thing.1.a.0.weight"]),
        (
            lambda: OrderedDict(a=parameter(), b=[1, "x", None, parameter()]),
            ["thing.a", "thing.b.3"],
        ),
        (lambda: Pair(parameter(), [nn.Linear(1, 2, bias=False)]), ["thing.0", "thing.1.0.weight"]),
        (lambda: Held(Held([parameter()])), ["thing.thing.thing.0"]),
    ],
    ids=["list", "tuple", "dict", "nested", "ordered", "named", "modules"],
)
def test_what_containers_hold_is_found_everywhere(make, names):
    net = Held(make())
    assert (
        sorted(name for name, _ in net.named_parameters())
        == sorted(names)
        == sorted(net.state_dict())
    )
    assert [name for name, _ in net.named_parameters()] == names
    assert f"{sum(p.size for p in net.parameters())} parameters" in repr(net)
    assert not any(module.training for module in net.eval().modules())
    copied, pickled = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    for p in net.parameters():
        p.grad = mg.ones(p.shape)
    other = Held(make())
    with mg.no_grad():
        for p in other.parameters():
            p[...] = np.arange(p.size, dtype=np.float32).reshape(p.shape)
    for target in (net, copied, pickled):
        assert [name for name, _ in target.named_parameters()] == names
        target.load_state_dict(other.state_dict())
        assert all(
            np.array_equal(a.numpy(), b.numpy())
            for a, b in zip(target.parameters(), other.parameters(), strict=True)
        )
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


class Plain:
    """An object that is no module."""


def attribute_of(thing, kind=Plain):
    holder = kind()
    holder.inside = thing
    return holder


@dataclasses.dataclass
class Data:
    """A dataclass that is no module."""

    weight: object


HIDDEN = {
    "set": lambda p: {p},
    "frozenset": lambda p: frozenset([p]),
    "deque": lambda p: collections.deque([p]),
    "object": attribute_of,
    "dataclass": Data,
    "closure": lambda p: lambda x: x * p,
    "default": lambda p: lambda x, w=p: x * w,
    "partial": lambda p: functools.partial(max, p),
    "object array": lambda p: np.array([p, None], object)[:1],
    "int keys": lambda p: {0: p},
    "generator": lambda p: (q for q in [p]),
    "keys": lambda p: {p: 1},
    "method": lambda p: attribute_of(p).__eq__,
    "list in an object": lambda p: attribute_of([p]),
    "object in a list": lambda p: [1, attribute_of(p)],
    "view": lambda p: {"a": p}.values(),
    "mapping": lambda p: types.MappingProxyType({"a": p}),
    "map": lambda p: map(abs, [p]),
}


@pytest.mark.parametrize("thing", [parameter, lambda: nn.Dropout(0.5)], ids=["parameter", "module"])
@pytest.mark.parametrize("kind", HIDDEN)
def test_what_is_out_of_reach_is_an_error(kind, thing):
    held = HIDDEN[kind](thing())
    for use in (
        lambda net: net(1),
        lambda net: list(net.parameters()),
        lambda net: net.state_dict(),
        lambda net: net.eval(),
        lambda net: net.zero_grad(),
        lambda net: list(net.children()),
        lambda net: net.load_state_dict({}),
        lambda net: list(net.modules()),
        repr,
        lambda net: Held([net])(1),
    ):
        with pytest.raises(
            TypeError,
            match=r"Held: (thing\.0\.)?thing holds a .* where it is neither trained nor saved",
        ):
            use(Held(held))


@pytest.mark.parametrize("kind", HIDDEN)
def test_what_is_reached_in_another_way_too_is_no_error(kind):
    p = parameter()
    net = Held(HIDDEN[kind](p))
    net.also = [p]
    assert net(1) == 1 and [name for name, _ in net.named_parameters()] == ["also.0"]


def test_class_attributes_and_slots():
    class Shared(Held):
        weight = parameter()

    class Slotted(Held):
        __slots__ = ("inside",)

    with pytest.raises(TypeError, match="weight holds a Parameter in a class attribute"):
        Shared(1)(1)
    net = Slotted(1)
    net.inside = parameter()
    with pytest.raises(TypeError, match="inside holds a Parameter"):
        net(1)


def test_a_module_may_change_between_calls():
    net = Held([parameter()])
    net(1)
    net.thing.append(parameter(2.0))
    assert [name for name, _ in net.named_parameters()] == ["thing.0", "thing.1"]
    net.more = {parameter()}
    with pytest.raises(TypeError, match="more holds a Parameter in a set"):
        net(1)
    del net.more
    net.thing[0] = net
    net(1)
    assert [name for name, _ in net.named_parameters()] == ["thing.1"]


def test_two_things_of_one_name():
    net = Held({"a": parameter()})
    setattr(net, "thing.a", parameter())
    for use in (lambda: net(1), lambda: list(net.parameters()), lambda: net.state_dict()):
        with pytest.raises(
            ValueError, match=r"Held: two parameters or modules have the name thing\.a"
        ):
            use()


def test_cycles():
    net = Held([parameter()])
    net.thing.append(net.thing)
    net.child = Held([net, parameter()])
    assert [name for name, _ in net.named_parameters()] == ["thing.0", "child.thing.1"]
    assert list(net.modules()) == [net, net.child] and net.eval().child.training is False
    assert "Held(...)" in repr(net)
    duplicate = copy.deepcopy(net)
    assert duplicate.child.thing[0] is duplicate and len(list(duplicate.parameters())) == 2


def test_a_parameter_replaced_by_a_tensor_is_not_forgotten_silently():
    layer = nn.Linear(2, 2)
    layer.weight = layer.weight * 2.0
    assert layer(mg.ones((1, 2))).shape == (1, 2)
    for use in (lambda: list(layer.parameters()), layer.state_dict, layer.zero_grad):
        with pytest.raises(TypeError, match="Linear: weight was a Parameter and is a Tensor now"):
            use()
    layer.weight = None
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


# ---------------------------------------------------------------- states from elsewhere


class Unreadable:
    """Has __array__, but no array."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("call detach first")


def test_load_state_dict_takes_all_or_nothing(tmp_path):
    layer = nn.Linear(2, 2)
    before = layer.state_dict()
    mg.save(tmp_path / "model", before)
    with pytest.raises(
        TypeError,
        match=r"got tuple: load returns \(arrays, extra\), so use load_state_dict\(mg.load\(path\)\[0\]\)",
    ):
        layer.load_state_dict(mg.load(tmp_path / "model"))
    layer.load_state_dict(mg.load(tmp_path / "model")[0])
    with pytest.raises(TypeError, match=r"got Linear: use load_state_dict\(other.state_dict\(\)\)"):
        layer.load_state_dict(layer)
    new = {"weight": np.ones((2, 2), np.float32)}
    for bad, message in (
        (np.zeros(2), "bias must have dtype float32, got float64"),
        ({"a": 1}, "bias must be an array, got dict"),
        (Unreadable(), "NumPy cannot read"),
        (None, "bias must be an array, got NoneType"),
        ("x", "got str"),
        (np.zeros((2, 1), np.float32), r"bias must have shape \(2,\), got \(2, 1\)"),
        ([[1], [1, 2]], "nested lists"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.load_state_dict(new | {"bias": bad})
    with pytest.raises(ValueError, match="missing: bias; unexpected: weight_ih_l0; unexpected: 0"):
        layer.load_state_dict(new | {"weight_ih_l0": np.zeros(2), 0: 1})
    assert all(np.array_equal(before[name], p.numpy()) for name, p in layer.named_parameters())
    layer.load_state_dict({"weight": layer.weight.numpy().T, "bias": layer.weight.numpy()[0]})
    assert np.array_equal(layer.weight.numpy(), before["weight"].T) and np.array_equal(
        layer.bias.numpy(), before["weight"][0]
    )
