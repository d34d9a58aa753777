"""Dynamics of trained networks: memory, gates, fixed points of hand-made and trained units, and
paths of the state."""

import numpy as np
import pytest
from dynamics_networks import (
    KINDS,
    LENGTHS,
    RESET,
    B,
    H,
    T,
    bistable,
    by_autograd,
    initial,
    network,
    sequence,
)

import minigrad as mg

dynamics = mg.study.dynamics


# ---------------------------------------------------------------- memory and gates


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_the_derivative(kind):
    made, x = network(kind, num_layers=2, bidirectional=True, merge="mean"), sequence()
    start = initial(made)
    seen = dynamics.memory(made, x, start, LENGTHS, RESET)
    whole = mg.jacobian(lambda v: made(v, start, LENGTHS, RESET)[0], x).numpy()
    for t in range(T):
        for s in range(T):
            for b in range(B):
                expected = np.linalg.norm(whole[t, b, :, s, b, :], 2)
                assert np.isclose(seen.norms[t, s, b], expected, rtol=1e-9, atol=1e-15)
    assert (seen.norms[:, :, 1] == 0).all() and (seen.reach[:, 1] == 0).all()
    assert np.isnan(seen.mean_lag[:, 1]).all()


def test_memory_looks_back_and_not_ahead():
    """h' = h / 2 + x, by relu: |dy_t / dx_s| = 2^-(t - s), and 1 % is reached at 6 steps."""
    made = mg.nn.RNN(1, 1, bias=False, nonlinearity="relu", dtype=np.float64)
    with mg.no_grad():
        made.cells[0].U[...], made.cells[0].W[...] = 0.5, 1.0
    seen = dynamics.memory(made, np.ones((20, 1, 1)), steps=[0, 19])
    assert (seen.norms[0, 1:] == 0).all() and seen.norms[0, 0] == 1
    assert np.allclose(seen.norms[1, :, 0], 0.5 ** np.arange(19, -1, -1), rtol=1e-15)
    assert seen.steps.tolist() == [0, 19] and seen.reach.ravel().tolist() == [0, 6]
    assert seen.mean_lag[1, 0] == pytest.approx(1, abs=1e-3)  # of 2^-k k, summed, over 2^-k


def test_memory_of_both_directions_apart_and_of_clipped_gradients():
    x = sequence()
    together = dynamics.memory(network("GRU", bidirectional=True), x)
    apart = dynamics.memory(network("GRU", bidirectional=True, merge=None), x)
    assert np.allclose(together.norms, apart.norms, rtol=1e-12)
    assert (together.norms > 0).all()
    clipped = dynamics.memory(network("GRU", bidirectional=True, clip_state_grad=1e-6), x)
    assert (clipped.norms == together.norms).all()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU reset_after"])
def test_gates(kind):
    made, x = network(kind, size=2.0), sequence()
    seen = dynamics.gates(made, x, lengths=LENGTHS)
    with mg.no_grad():
        _, _, (trace,) = made(x, lengths=LENGTHS, trace=True)
    alive = np.arange(T)[:, None] < LENGTHS
    for k, name in enumerate(seen.names):
        values = trace[name][alive]
        assert np.allclose(seen.mean[k], values.mean(axis=0), rtol=1e-14)
        assert np.array_equal(seen.closed[k], (values < 0.1).mean(axis=0))
        assert np.array_equal(seen.open[k], (values > 0.9).mean(axis=0))
    product = np.prod(trace[seen.keeping][alive], axis=0)  # over 8 steps
    assert np.allclose(product, 0.5 ** (8 / seen.half_life), rtol=1e-12)


def test_half_life():
    """f = 0.5 halves in one step, 1 never, 0 at once."""
    made = network("LSTM", size=0.0)
    with mg.no_grad():
        made.cells[0].gate("f").b[...] = np.array([0.0, 1e3, -1e3, np.log(0.75 / 0.25)])
    seen = dynamics.gates(made, sequence())
    assert seen.half_life.tolist() == pytest.approx([1, np.inf, 0, np.log(0.5) / np.log(0.75)])


# ---------------------------------------------------------------- fixed points


def test_fixed_points_of_a_bistable_unit():
    """h = tanh(2 h): 0 and two solutions of atanh(h) = 2 h, with the derivative 2 (1 - h^2)."""
    made = bistable("RNN")
    with mg.no_grad():
        made.cells[0].U[...] = 2.0
    found = dynamics.fixed_points(made, np.linspace(-2, 2, 21)[:, None])
    h = 0.9575040240772687
    assert np.allclose(found.points.ravel(), [-h, h, 0], rtol=0, atol=1e-14)
    assert np.allclose(found.eigenvalues.ravel(), [2 * (1 - h**2)] * 2 + [2], rtol=1e-13)
    assert found.stable.tolist() == [True, True, False]
    assert found.unstable_directions.tolist() == [0, 0, 1]
    assert found.starts.sum() == 21 and found.left_over == 0 and (found.speeds < 1e-30).all()


def test_fixed_points_of_a_flip_flop():
    """Two units that do not see each other: nine points, four of them stable."""
    made = mg.nn.RNN(1, 2, bias=False, dtype=np.float32)
    with mg.no_grad():
        made.cells[0].U[...] = np.diag([2.0, 3.0]).astype(np.float32)
    starts = np.random.default_rng(0).uniform(-1.5, 1.5, (100, 2))
    found = dynamics.fixed_points(made, starts)
    a = b = 1.0
    for _ in range(100):
        a, b = np.tanh(2 * a), np.tanh(3 * b)
    expected = {(x, y) for x in (-a, 0, a) for y in (-b, 0, b)}
    assert len(found) == 9 and found.stable.sum() == 4
    for x, y in expected:
        assert abs(found.points - [x, y]).max(axis=1).min() < 1e-14
    assert sorted(found.unstable_directions) == [0] * 4 + [1] * 4 + [2]


def test_fixed_points_of_a_memory_cell():
    """An LSTM unit with o = 1, i f g so that c' = c / 2 + tanh(4 h) / 2, h = tanh(c): by hand."""
    made = bistable("LSTM")
    cell = made.cells[0]
    with mg.no_grad():
        cell.gate("o").b[...] = 1e3
        cell.gate("g").U[...] = 4.0
    found = dynamics.fixed_points(made, np.random.default_rng(0).uniform(-1, 1, (50, 2)))
    c = 1.0
    for _ in range(200):
        c = np.tanh(4 * np.tanh(c))
    expected = [[-np.tanh(c), -c], [np.tanh(c), c], [0, 0]]
    assert np.allclose(found.points, expected, rtol=0, atol=1e-13)
    assert found.stable.tolist() == [True, True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_points_under_an_input(kind):
    """Each is one of the layer itself, under the same input, and its eigenvalues are those of
    mg.jacobian."""
    made = network(kind, size=0.5, bidirectional=True)
    x = np.array([0.5, -0.25])
    names = made.cell_type.state_names
    starts = np.random.default_rng(0).standard_normal((20, H * len(names)))
    margin = 10.0 if kind == "RNN relu" else 1.0  # relu has no bound
    found = dynamics.fixed_points(made, starts, x, direction="backward", margin=margin)
    assert len(found) and found.starts.sum() + found.left_over == 20
    cell, X = made.cells[1], mg.Tensor(np.tile(x, (1, 1, 1)))
    for point, eigenvalues in zip(found.points, found.eigenvalues, strict=True):
        states = np.split(point, len(names))
        J, new = by_autograd(cell, X, states, 0, 0)
        assert np.allclose(np.concatenate(new), point, rtol=0, atol=1e-6)
        expected = np.linalg.eigvals(J)
        for value in eigenvalues:
            assert abs(expected - value).min() < 1e-5


def test_start_states():
    made = network("RNN", size=0.5)
    starts = np.random.default_rng(0).standard_normal((3, 100, H))
    starts[2, 50:] = np.nan
    few = dynamics.fixed_points(made, starts, count=40, noise=0.1, rng=np.random.default_rng(1))
    again = dynamics.fixed_points(made, starts, count=40, noise=0.1, rng=np.random.default_rng(1))
    assert few.starts.sum() + few.left_over == 40
    assert np.array_equal(few.points, again.points)
    every = dynamics.fixed_points(made, mg.Tensor(starts), count=1000)
    assert every.starts.sum() + every.left_over == 250


def test_the_search_stays_near_the_start_states():
    made = bistable("RNN")
    with mg.no_grad():
        made.cells[0].U[...] = 2.0
    starts = np.linspace(0.5, 0.6, 5)[:, None]
    found = dynamics.fixed_points(made, starts)
    assert found.points.tolist() == [[pytest.approx(0.9575040240772687)]]
    near = dynamics.fixed_points(made, starts, margin=0.1)
    assert len(near) == 0 and near.left_over == 5


@pytest.mark.parametrize("kind", ["RNN", "RNN relu", "GRU"])
def test_lines_of_fixed_points(kind):
    """Units that keep what they have: each state, or each near 0, is a fixed point, and A = J - 1
    is singular."""
    name, own = KINDS[kind]
    made = getattr(mg.nn, name)(1, 3, bias=kind == "GRU", dtype=np.float64, **own)
    with mg.no_grad():
        made.cells[0].U[...] = 0.0
        if kind == "GRU":
            made.cells[0].gate("z").b[...] = 50.0
        else:
            made.cells[0].U[...] = np.diag([1.0, 1.0, -1.0])
    starts = np.random.default_rng(0).uniform(0.1, 1, (30, 3))
    found = dynamics.fixed_points(made, starts, tolerance=1e-10)
    assert found.starts.sum() == 30 and found.left_over == 0
    largest = np.abs(found.eigenvalues[:, 0])
    assert np.allclose(largest, 1, atol=0.02) and (kind != "RNN") == (len(found) == 30)


def test_slow_points():
    """h' = relu(h + 0.001) never stands still; with a higher tolerance it does, nearly."""
    made = bistable("RNN relu")
    with mg.no_grad():
        made.cells[0].U[...], made.cells[0].b[...] = 1.0, 1e-3
    starts = np.linspace(0, 1, 5)[:, None]
    none = dynamics.fixed_points(made, starts)
    assert len(none) == 0 and none.left_over == 5 and none.eigenvalues.shape == (0, 1)
    slow = dynamics.fixed_points(made, starts, tolerance=1e-6)
    assert len(slow) == 5 and np.allclose(slow.speeds, 0.5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_a_trained_flip_flop_has_eight_stable_points(kind):
    """Three bits, each set by pulses (Sussillo and Barak 2013): one stable state for
    each of the 8 memories."""
    import flipflop

    args = flipflop.settings(["--kind", kind])
    trained, readout, right = flipflop.train(args)
    assert right > 0.99
    found, _ = flipflop.analyse(trained, args)
    bits = readout(mg.Tensor(found.points[found.stable].astype(np.float32))).numpy() > 0
    assert found.stable.sum() == 8 and len({tuple(row) for row in bits}) == 8
    assert len(found) == 27 and np.bincount(found.unstable_directions).tolist() == [8, 12, 6, 1]


# ---------------------------------------------------------------- trajectories


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_trajectories(kind):
    made, x = network(kind), sequence()
    found = dynamics.trajectories(made, x, lengths=LENGTHS, components=2)
    n = H * len(made.cell_type.state_names)
    with mg.no_grad():
        out, _ = made(x, lengths=LENGTHS)
    alive = np.arange(T)[:, None] < LENGTHS
    assert np.array_equal(found.states[..., :H][alive], out.numpy()[alive])
    assert np.isnan(found.states[~alive]).all() and np.isnan(found.projected[~alive]).all()
    rows = found.states[alive]
    covariance = np.cov(rows.T, bias=True)
    values = np.linalg.eigvalsh(covariance)[::-1]
    assert np.allclose(found.variance, values[:2] / values.sum(), rtol=1e-10)
    assert np.allclose(found.axes @ found.axes.T, np.eye(2), atol=1e-13)
    assert np.allclose(found.project(rows), found.projected[alive], atol=1e-13)
    every = dynamics.trajectories(made, x, components=n)
    back = every.projected @ every.axes + every.mean
    assert np.allclose(back, every.states, atol=1e-12) and every.variance.sum() == pytest.approx(1)


def test_trajectories_of_few_states():
    one = dynamics.trajectories(network("LSTM"), sequence(steps=1, rows=1))
    assert one.axes.shape == (3, 8) and (one.variance == 0).all()
    assert abs(one.projected).max() < 1e-15
    assert dynamics.trajectories(bistable("RNN"), np.ones((4, 1, 1))).axes.shape == (1, 1)
