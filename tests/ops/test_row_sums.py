"""Sums over many terms: gradients of what was broadcast, of rows named many times, reductions,
running sums. They are rounded once: at most 1 ulp from the exact sum (math.fsum), however many
terms there are, and the same bits in every form.
"""

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad.core.kernels import _usable, _use_isa, get_num_threads, isa_in_use, set_num_threads

nn = mg.nn
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def random(shape, dtype, seed=0):
    """Numbers of both signs and very different sizes."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-8, 8, shape)).astype(dtype)


def ulps(found, columns):
    """The largest distance of found (k,) from the exact sums of columns (n, k), in ulps of
    these."""
    exact = np.array([math.fsum(column) for column in columns.astype(np.float64).T.tolist()])
    found = np.asarray(found).reshape(-1)
    assert found.shape == exact.shape
    spacing = np.spacing(np.abs(exact).astype(found.dtype)).astype(np.float64)
    return float(np.max(np.abs(found.astype(np.float64) - exact) / spacing))


def summed_first(array, shape):
    """array as (terms, elements of shape), for a shape that broadcasts to the array's."""
    wide = (1,) * (array.ndim - len(shape)) + shape
    summed = [d for d in range(array.ndim) if wide[d] == 1]
    kept = [d for d in range(array.ndim) if wide[d] != 1]
    return array.transpose(summed + kept).reshape(math.prod(array.shape[d] for d in summed), -1)


# ---------------------------------------------------------------- gradients of what was broadcast


@pytest.mark.slow
def test_a_bias_of_twenty_million_rows():
    rows, b = mg.zeros((2**20, 3)), mg.zeros(3, requires_grad=True)
    total = rows + b
    for _ in range(19):
        total = total + (rows + b)
    total.backward(mg.ones(total.shape))
    assert b.grad.tolist() == [20 * 2**20] * 3


@both_types
@pytest.mark.parametrize(
    ("wide", "shape"),
    [
        ((30000, 11), (11,)),
        ((500, 60, 7), (7,)),
        ((500, 60, 7), (1, 60, 1)),
        ((500, 60, 7), (500, 1, 7)),
        ((500, 60, 7), (60, 1)),
        ((40000,), ()),
        ((40000,), (1,)),
        ((300, 133), (1, 1)),
        ((20000, 33), (1, 33)),
    ],
)
def test_a_gradient_summed_over_what_was_broadcast(wide, shape, dtype):
    w, dy = mg.Tensor(random(shape, dtype, 1), requires_grad=True), random(wide, dtype, 2)
    (mg.zeros(wide, dtype) + w).backward(mg.Tensor(dy))
    assert w.grad.shape == shape and ulps(w.grad.numpy(), summed_first(dy, shape)) <= 0.51
    (dw,) = mg.grad(mg.zeros(wide, dtype) + w, w, mg.Tensor(dy), create_graph=True)
    assert np.array_equal(dw.numpy(), w.grad.numpy())


@both_types
def test_the_bias_of_a_linear_layer_over_time_and_batch(dtype):
    layer, dy = nn.Linear(3, 5, dtype=dtype), random((200, 50, 5), dtype)
    layer(mg.Tensor(random((200, 50, 3), dtype))).backward(mg.Tensor(dy))
    assert ulps(layer.bias.grad.numpy(), dy.reshape(-1, 5)) <= 0.51


@both_types
def test_rows_in_several_ops_and_other_contributions(dtype):
    """The sum goes on from op to op: the later op comes first. A contribution that is no sum is
    added to it."""
    x, first = random((5000, 9), dtype), random(9, dtype)
    b, zeros = mg.zeros(9, dtype, requires_grad=True), mg.zeros((5000, 9), dtype)

    def outputs(parts):
        return [zeros[part] + b for part in reversed(parts)]

    found = []
    for parts in ([slice(0, 5000)], [slice(0, 1), slice(1, 4000), slice(4000, 5000)]):
        seeds = [mg.Tensor(x[part]) for part in reversed(parts)]
        for create_graph in (False, True):
            (db,) = mg.grad(outputs(parts), b, seeds, create_graph=create_graph)
            found.append(db.numpy())
            assert ulps(db.numpy(), x) <= 0.51
            (db,) = mg.grad(
                [*outputs(parts), b * 1.0], b, [*seeds, mg.Tensor(first)], create_graph=create_graph
            )
            assert ulps(db.numpy(), np.concatenate([x, first[None]])) <= 0.51
    assert all(np.array_equal(found[0], other) for other in found)


def random_program(seed, dtype):
    """A loss, and the vectors that it was made from: each used in a random order by ops that
    broadcast it and by ops that do not."""
    rng = np.random.default_rng(seed)
    b = mg.Tensor(random(3, dtype, rng), requires_grad=True)
    c = mg.exp(b * 0.01)
    loss = mg.zeros((), dtype)
    for op in rng.integers(0, 8, rng.integers(2, 12)):
        v = c if rng.random() < 0.4 else b
        y = [
            lambda v: mg.Tensor(random((5, 3), dtype, rng)) + v,
            lambda v: v * mg.Tensor(random(3, dtype, rng)),
            lambda v: mg.Tensor(random((4, 1), dtype, rng)) - v,
            lambda v: v - mg.Tensor(random(3, dtype, rng)),
            lambda v: v / mg.Tensor(random((2, 2, 3), dtype, rng)),
            lambda v: mg.tanh(v),
            lambda v: v[1:] * mg.Tensor(random((6, 2), dtype, rng)),
            lambda v: mg.broadcast_to(v, (7, 3)),
        ][op](v)
        loss = loss + (y * mg.Tensor(random(y.shape, dtype, rng))).sum()
    return loss, (b, c)


@both_types
def test_the_same_bits_with_create_graph(dtype):
    """Also where contributions that are sums and others take turns."""
    for seed in range(200):
        loss, inputs = random_program(seed, dtype)
        plain = mg.grad(loss, inputs, retain_graph=True, allow_unused=True)
        recorded = mg.grad(loss, inputs, create_graph=True, allow_unused=True)
        for one, other in zip(plain, recorded, strict=True):
            assert (one is None) == (other is None)
            assert one is None or one.numpy().tobytes() == other.numpy().tobytes(), seed


@both_types
def test_infinities_and_overflow(dtype):
    largest = np.finfo(dtype).max
    small = (
        largest / 2**20 if dtype == np.float32 else 3.0
    )  # a double holds the sum of the first two
    for terms, expected in (
        ([1, np.inf, 2], np.inf),
        ([np.inf, -np.inf, 1], np.nan),
        ([-np.inf, largest, 1], -np.inf),
        ([largest, largest, 1], np.inf),
        ([np.nan, 1, np.inf], np.nan),
        ([largest, -largest, small], small),
        ([-largest, 1], -largest),
    ):
        dy = np.array(terms, dtype)[:, None]
        b = mg.zeros(1, dtype, requires_grad=True)
        (mg.zeros(dy.shape, dtype) + b).backward(mg.Tensor(dy))
        for found in (
            b.grad.item(),
            mg.Tensor(dy).sum(0).item(),
            mg.Tensor(np.repeat(dy, 3, 1)).sum(0)[1].item(),
            mg.cumsum(mg.Tensor(dy), 0)[-1].item(),
        ):
            assert found == expected or (np.isnan(found) and np.isnan(expected)), (terms, found)


def test_hooks_and_anomaly_mode_see_the_sum():
    dy = random((1000, 4), np.float32)
    b, seen = mg.zeros(4, requires_grad=True), []
    c = b * 1.0
    for x in (b, c):
        x.register_hook(lambda gradient: seen.append(gradient.numpy().copy()))
    (mg.zeros((1000, 4)) + c).backward(mg.Tensor(dy))
    assert len(seen) == 2 and all(ulps(gradient, dy) <= 0.51 for gradient in seen)
    dy[3, 2] = np.inf
    for create_graph in (False, True):
        with mg.detect_anomaly():
            y = mg.zeros((1000, 4)) + b
            with pytest.raises(
                RuntimeError, match="the backward of add made the first non-finite gradient"
            ):
                y.backward(mg.Tensor(dy), create_graph=create_graph)
    assert np.array_equal(b.grad.numpy(), seen[-1])


def test_second_derivatives_through_a_sum_over_rows():
    x = mg.Tensor(random((7, 3), np.float64) / 256)
    mg.gradcheck(
        lambda w: mg.grad(
            [(mg.sin(x * w) * w), w * w], w, [mg.ones((7, 3), np.float64), w], create_graph=True
        )[0],
        [mg.Tensor([0.3, -0.2, 0.5], dtype=np.float64, requires_grad=True)],
    )


@both_types
def test_the_same_bits_for_threads_and_instruction_sets(dtype):
    layer = nn.LSTM(40, 40, peepholes=True, dtype=dtype)
    x, dy = mg.Tensor(random((60, 30, 40), dtype)), mg.Tensor(random((60, 30, 40), dtype, 3))
    before, threads, found = isa_in_use(), get_num_threads(), []
    try:
        for isa in _usable():
            _use_isa(isa)
            for count in (1, 3):
                set_num_threads(count)
                layer.zero_grad()
                layer(x)[0].backward(dy)
                found.append(
                    [p.grad.numpy().copy() for p in layer.parameters()]
                    + [dy.sum((0, 1)).numpy(), dy.sum(1).numpy()]
                )
    finally:
        _use_isa(before)
        set_num_threads(threads)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


# ---------------------------------------------------------------- recurrent layers

LAYERS = {
    "rnn": lambda **o: nn.RNN(4, 4, **o),
    "lstm": lambda **o: nn.LSTM(16, 4, peepholes=True, **o),
    "gru": lambda **o: nn.GRU(12, 4, **o),
    "gru after": lambda **o: nn.GRU(12, 4, reset_after=True, **o),
}


@pytest.mark.slow
@both_types
@pytest.mark.parametrize("name", LAYERS)
def test_the_bias_of_a_long_sequence(name, dtype):
    """With W = 1 the gradient of x is that of the gates, element by element, so the gradient of b
    is the sum of its rows."""
    layer = LAYERS[name](dtype=dtype)
    cell = layer.cells[0]
    weights = dict(cell.named_parameters())
    with mg.no_grad():
        for weight in weights.values():
            weight[...] = 0.5 * random(weight.shape, dtype) / 16
        weights["W"][...] = np.eye(layer.input_size, dtype=dtype)
    T, B = 1500, 3
    x, dy = (
        mg.Tensor(random((T, B, layer.input_size), dtype) / 16, requires_grad=True),
        mg.Tensor(random((T, B, 4), dtype)),
    )
    found = []
    for call in (layer, lambda x: nn.unroll(cell, x)):
        layer.zero_grad()
        x.grad = None
        call(x)[0].backward(dy)
        found.append({key: weight.grad.numpy().copy() for key, weight in weights.items()})
        da = x.grad.numpy().reshape(T * B, -1)
        assert ulps(weights["b"].grad.numpy().reshape(-1)[: da.shape[1]], da) <= 0.51
        if name == "lstm":
            c = cells_over_time(cell, x)
            before, da = np.concatenate([np.zeros((1, B, 4), dtype), c[:-1]]), x.grad.numpy()
            terms = [da[..., :4] * before, da[..., 4:8] * before, da[..., 12:] * c]
            assert (
                ulps(weights["p"].grad.numpy(), np.concatenate(terms, -1).reshape(T * B, -1))
                <= 0.51
            )
    for key in weights:
        assert np.array_equal(found[0][key], found[1][key]), key


def cells_over_time(cell, x):
    """c of an LSTM cell after each step, as an array."""
    state, cells = None, []
    with mg.no_grad():
        for step in x:
            state = cell(step, state)
            cells.append(state[1].numpy())
    return np.stack(cells)


@both_types
def test_the_gradient_of_an_initial_state_that_was_broadcast(dtype):
    layer = nn.GRU(3, 5, dtype=dtype)
    x, dy = mg.Tensor(random((1, 4000, 3), dtype)), mg.Tensor(random((1, 4000, 5), dtype))
    h0 = mg.Tensor(random((1, 1, 5), dtype), requires_grad=True)
    wide = mg.broadcast_to(h0, (1, 4000, 5))
    each = mg.Tensor(wide.numpy().copy(), requires_grad=True)
    for state in (wide, each):
        layer(x, state)[0].backward(dy)
    assert ulps(h0.grad.numpy(), each.grad.numpy()[0]) <= 0.51


# ---------------------------------------------------------------- rows named many times


@pytest.mark.slow
@both_types
@pytest.mark.parametrize("columns", [1, 7, 40])
def test_a_row_that_is_named_many_times(columns, dtype):
    rng = np.random.default_rng(0)
    rows = rng.choice(50, 20000, p=[0.51] + [0.01] * 49)
    dy = random((20000, columns), dtype)
    for pick in (
        lambda table: mg.embedding(table, rows),
        lambda table: table[rows],
        lambda table: table[rows, :],
        lambda table: table[rows][:, :],
    ):
        table = mg.zeros((60, columns), dtype, requires_grad=True)
        pick(table).backward(mg.Tensor(dy))
        for row in (0, 1, 49):
            assert ulps(table.grad.numpy()[row], dy[rows == row]) <= 0.51
        assert not table.grad.numpy()[50:].any()
    few = mg.zeros(
        (10**6, columns), dtype, requires_grad=True
    )  # ordered by sorting, not by counting
    few[rows].backward(mg.Tensor(dy))
    assert np.array_equal(few.grad.numpy()[:60], table.grad.numpy())


@both_types
def test_elements_that_an_index_names_many_times(dtype):
    rng = np.random.default_rng(0)
    i, j, dy = rng.integers(0, 3, 9000), rng.integers(0, 2, 9000), random(9000, dtype)
    x = mg.zeros((3, 4, 2), dtype, requires_grad=True)
    x[i, 1, j].backward(mg.Tensor(dy))
    for place in np.ndindex(3, 2):
        assert (
            ulps(
                x.grad.numpy()[place[0], 1, place[1]],
                dy[(i == place[0]) & (j == place[1])][:, None],
            )
            <= 0.51
        )
    assert np.count_nonzero(x.grad.numpy()) == 6


# ---------------------------------------------------------------- reductions


@both_types
@pytest.mark.parametrize("axis", [None, 0, 1, 2, (0, 1), (0, 2), (1, 2)])
def test_sums_along_every_axis(axis, dtype):
    x = random((70, 41, 33), dtype)
    axes = range(3) if axis is None else (axis,) if isinstance(axis, int) else axis
    terms = x.transpose([*axes, *(d for d in range(3) if d not in axes)]).reshape(
        math.prod(x.shape[d] for d in axes), -1
    )
    y = mg.sum(mg.Tensor(x), axis)
    assert ulps(y.numpy(), terms) <= 0.51
    assert np.array_equal(y.numpy(), mg.sum(mg.Tensor(np.asfortranarray(x)), axis).numpy())
    assert ulps(mg.mean(mg.Tensor(x), axis).numpy() * dtype(len(terms)), terms) <= 2


@both_types
def test_a_sum_of_each_length(dtype):
    x = random(1100, dtype)
    for n in (1, 2, 15, 16, 17, 31, 32, 33, 511, 512, 513, 1100):
        assert ulps(mg.Tensor(x[:n]).sum().numpy(), x[:n, None]) <= 0.51
        columns = np.repeat(x[:n, None], 5, 1)
        assert (mg.Tensor(columns).sum(0) == mg.Tensor(x[:n]).sum()).all()


@both_types
def test_the_variance_of_a_series_far_from_zero(dtype):
    """Exact in rational numbers; the first mean alone would be off by more than the spread of
    float32 numbers near 1e6."""
    from fractions import Fraction

    x = (10**6 + np.random.default_rng(0).integers(-30, 30, 3000) / 16).astype(dtype)
    numbers = [Fraction(float(value)) for value in x]
    mean = sum(numbers) / len(numbers)
    exact = float(sum((value - mean) ** 2 for value in numbers) / len(numbers))
    leaf = mg.Tensor(x, requires_grad=True)
    y = mg.var(leaf)
    assert abs(y.item() - exact) <= 4 * np.spacing(dtype(exact))
    y.backward()
    dx = np.array([float(2 * (value - mean) / len(numbers)) for value in numbers])
    assert np.abs(leaf.grad.numpy() - dx).max() <= 4 * np.finfo(dtype).eps * np.abs(dx).max()


@both_types
@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_of_many_losses(weighted, dtype):
    rng = np.random.default_rng(0)
    x, target = mg.Tensor(random((20000, 5), dtype)), rng.integers(0, 5, 20000)
    weight = np.array([0.3, 2.1, 0.7, 1.9, 1.1], dtype) if weighted else None
    losses = mg.cross_entropy(x, target, weight, reduction="none").numpy().astype(np.float64)
    count = math.fsum(weight[target].astype(float)) if weighted else 20000
    for reduction, exact in (("sum", math.fsum(losses)), ("mean", math.fsum(losses) / count)):
        found = mg.cross_entropy(x, target, weight, reduction=reduction).item()
        assert abs(found - exact) <= 2 * np.spacing(dtype(exact))


@both_types
def test_logsumexp_of_many(dtype):
    x = np.zeros(3 * 10**6, dtype)
    expected = math.log(3 * 10**6)
    assert abs(mg.logsumexp(mg.Tensor(x)).item() - expected) <= np.spacing(dtype(expected))
    y = mg.softmax(mg.Tensor(x[: 2**18])).numpy()
    assert (y == 2.0**-18).all()


@both_types
def test_running_sums(dtype):
    x = random((3000, 3), dtype)
    y = mg.cumsum(mg.Tensor(x), 0).numpy()
    for n in (1, 2, 100, 2999, 3000):
        assert ulps(y[n - 1], x[:n]) <= 0.51
    assert np.array_equal(mg.cumsum(mg.Tensor(np.ascontiguousarray(x.T)), -1).numpy().T, y)
    leaf = mg.Tensor(x, requires_grad=True)
    dy = random((3000, 3), dtype, 5)
    mg.cumsum(leaf, 0).backward(mg.Tensor(dy))
    assert ulps(leaf.grad.numpy()[7], dy[7:]) <= 0.51
    assert mg.cumsum(mg.zeros((0, 2), dtype), 0).shape == (0, 2)


@pytest.mark.parametrize("shape", [(300000,), (300000, 2), (3, 100000, 2)])
def test_the_mean_of_a_scaler(shape):
    x = 1.7e9 + np.random.default_rng(0).random(shape)
    scaler = mg.data.Scaler().fit(x)
    columns = x.reshape(-1, shape[-1] if len(shape) > 1 else 1)
    exact = [math.fsum(column) / len(columns) for column in columns.T.tolist()]
    assert np.abs(np.ravel(scaler.mean) - exact).max() <= 4 * np.spacing(1.7e9)
    assert scaler.mean.shape == (shape[-1:] if len(shape) > 1 else ())
    spread = [
        math.sqrt(math.fsum((column - mean) ** 2) / len(columns))
        for column, mean in zip(columns.T, exact, strict=True)
    ]
    assert np.allclose(np.ravel(scaler.scale), spread, rtol=1e-12, atol=0)
