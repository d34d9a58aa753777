"""Dynamics of trained networks: Jacobians against mg.jacobian, products and exponents against known
values, fixed points of hand-made units, what each function refuses, and that nothing changes."""

import copy
import sys

import numpy as np
import pytest

import minigrad as mg

dynamics = mg.study.dynamics
T, B, I, H = 5, 3, 2, 4
KINDS = {
    "RNN": ("RNN", {}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "LSTM": ("LSTM", {}),
    "LSTM peepholes": ("LSTM", {"peepholes": True}),
    "GRU": ("GRU", {}),
    "GRU reset_after": ("GRU", {"reset_after": True}),
}
LENGTHS = np.array([5, 0, 3])
RESET = np.zeros((T, B), bool)
RESET[2] = [True, True, False]
RESET[4, 2] = True  # past the end of this row


def network(kind, size=1.0, dtype=np.float64, seed=0, **options):
    """A layer with normal weights, those of biases and peepholes included."""
    name, own = KINDS[kind]
    rng = np.random.default_rng(seed)
    made = getattr(mg.nn, name)(I, H, dtype=dtype, rng=rng, **own, **options)
    with mg.no_grad():
        for p in made.parameters():
            p[...] = (size * rng.standard_normal(p.shape)).astype(dtype)
    return made


def sequence(steps=T, rows=B, dtype=np.float64, seed=1):
    return mg.Tensor(np.random.default_rng(seed).standard_normal((steps, rows, I)).astype(dtype))


def initial(made, rows=B, seed=2):
    """A state for a network."""
    rng = np.random.default_rng(seed)
    shape = (len(made.cells), rows, H)
    names = made.cell_type.state_names
    return tuple(mg.Tensor(rng.standard_normal(shape).astype(made.cells[0].W.dtype)) for _ in names)


def by_autograd(cell, x, states, t, b):
    """The Jacobian of one step of a cell, by mg.jacobian, and the new state."""
    names = cell.state_names

    def step(s):
        parts = mg.split(s, len(names), axis=1)
        new = cell(x[t][b : b + 1], cell.as_state(tuple(parts)))
        return mg.concatenate(list(cell.states_of("test", new)), 1)

    before = mg.Tensor(np.concatenate(states)[None])
    with mg.no_grad():
        new = step(before).numpy()[0]
    return mg.jacobian(step, before).numpy()[0, :, 0, :], np.split(new, len(names))


def expected_jacobians(cell, x, start, lengths, reset, reverse=False):
    """As jacobians(), row by row and step by step."""
    steps, rows, _ = x.shape
    n = H * len(cell.state_names)
    J = np.empty((steps, rows, n, n))
    for b in range(rows):
        states = [s[b] for s in start]
        for t in reversed(range(steps)) if reverse else range(steps):
            if t >= lengths[b]:
                J[t, b] = np.eye(n)
                continue
            if reset[t, b]:
                states = [np.zeros_like(s) for s in states]
            J[t, b], states = by_autograd(cell, x, states, t, b)
            if reset[t, b]:
                J[t, b] = 0
    return J


def close(found, expected, tolerance=4e-15):
    return abs(found - expected).max() <= tolerance * max(1.0, abs(expected).max())


# ---------------------------------------------------------------- jacobians


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians(kind):
    made, x = network(kind), sequence()
    start = initial(made)
    J = dynamics.jacobians(made, x, start)
    assert J.dtype == np.float64
    everywhere = np.full(B, T)
    expected = expected_jacobians(
        made.cells[0], x, [s.numpy()[0] for s in start], everywhere, np.zeros((T, B), bool)
    )
    assert close(J, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_with_lengths_and_reset(kind):
    made, x = network(kind, bidirectional=True), sequence()
    x.numpy()[3:, 2] = np.nan  # past the end of the row
    start = initial(made)
    for k, direction in enumerate(("forward", "backward")):
        J = dynamics.jacobians(made, x, start, LENGTHS, RESET, direction=direction)
        states = [s.numpy()[k] for s in start]
        expected = expected_jacobians(
            made.cells[k], x, states, LENGTHS, RESET & (np.arange(T)[:, None] < LENGTHS), k == 1
        )
        assert close(J, expected), direction
        assert (J[:, 1] == np.eye(J.shape[-1])).all()
        assert (J[2, 0] == 0).all() and (J[4, 2] == np.eye(J.shape[-1])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_without_bias(kind):
    made, x = network(kind, bias=False), sequence()
    zeros = [np.zeros((B, H)) for _ in made.cell_type.state_names]
    expected = expected_jacobians(made.cells[0], x, zeros, np.full(B, T), np.zeros((T, B), bool))
    assert close(dynamics.jacobians(made, x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_of_saturated_gates(kind):
    """Weights of some 20: gates at 0, at 1, and tanh at 1 to rounding."""
    made, x = network(kind, size=20.0 if kind != "RNN relu" else 2.0), sequence()
    start = initial(made)
    J = dynamics.jacobians(made, x, start)
    states = [s.numpy()[0] for s in start]
    expected = expected_jacobians(made.cells[0], x, states, np.full(B, T), np.zeros((T, B), bool))
    assert np.isfinite(J).all() and close(J, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_of_float32(kind):
    small, x = network(kind, dtype=np.float32), sequence(dtype=np.float32)
    large = network(kind)
    J = dynamics.jacobians(small, x)
    expected = dynamics.jacobians(large, sequence())
    assert J.dtype == np.float64 and close(J, expected, 1e-5)


def test_jacobians_of_an_upper_layer():
    made, x = network("LSTM", num_layers=2, bidirectional=True, merge="sum"), sequence()
    lower = network("LSTM", bidirectional=True, merge="sum")
    for cell, own in zip(lower.cells, made.cells[:2], strict=True):
        cell.load_state_dict(own.state_dict())
    with mg.no_grad():
        between, _ = lower(x)
    zeros = [np.zeros((B, H))] * 2
    for k, direction in ((2, "forward"), (3, "backward")):
        J = dynamics.jacobians(made, x, layer=1, direction=direction)
        nowhere = np.zeros((T, B), bool)
        expected = expected_jacobians(made.cells[k], between, zeros, np.full(B, T), nowhere, k == 3)
        assert close(J, expected), direction


@pytest.mark.parametrize("kind", KINDS)
def test_no_steps(kind):
    made = network(kind)
    n = H * len(made.cell_type.state_names)
    J = dynamics.jacobians(made, sequence(steps=0))
    assert J.shape == (0, B, n, n)
    assert dynamics.singular_values(J).log.shape == (0, B, n)
    assert dynamics.memory(made, sequence(steps=0)).norms.shape == (0, 0, B)
    assert dynamics.jacobians(made, sequence(rows=0)).shape == (T, 0, n, n)


# ---------------------------------------------------------------- products


def test_singular_values_of_a_short_product():
    rng = np.random.default_rng(0)
    J = rng.standard_normal((4, 2, 3, 3))
    found = dynamics.singular_values(J)
    back = dynamics.singular_values(J, backward=True)
    for t in range(4):
        for b in range(2):
            forward = np.linalg.multi_dot([*J[t::-1, b], np.eye(3)])
            suffix = np.linalg.multi_dot([*J[:t:-1, b], J[t, b], np.eye(3)])
            for log, product in ((found.log, forward), (back.log, suffix)):
                expected = np.log(np.linalg.svd(product, compute_uv=False))
                assert np.allclose(log[t, b], expected, rtol=0, atol=1e-12)
    assert np.allclose(found.whole, back.whole, rtol=0, atol=1e-12)


def test_singular_values_of_a_long_product():
    """10,000 steps: e^(-20000) to e^(2000), where products of matrices are 0 or infinite. Those of
    the inverse are the inverses, in reverse order, and their sum is log |det|."""
    J = np.random.default_rng(0).standard_normal((10_000, 1, 3, 3)) * 0.9
    found = dynamics.singular_values(J).whole[0]
    inverse = dynamics.singular_values(np.linalg.inv(J)[::-1]).whole[0]
    assert found[0] > -1e4 and found[2] < -1e4 and np.isfinite(found).all()
    assert np.allclose(found, -inverse[::-1], rtol=1e-11)
    assert np.isclose(found.sum(), np.linalg.slogdet(J)[1].sum(), rtol=1e-12)


def test_singular_values_of_known_products():
    """Powers of a normal matrix, with equal values; a rotation; and a matrix of zeros."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    values = np.array([3.0, 3.0, 2.0, 1e-3])
    powers = np.tile(rotation @ np.diag(values) @ rotation.T, (500, 1, 1, 1))
    assert np.allclose(dynamics.singular_values(powers).whole, 500 * np.log(values), rtol=1e-11)
    turned = np.tile(rotation, (500, 1, 1, 1))
    assert abs(dynamics.singular_values(turned).log).max() < 1e-12
    turned[7] = 0
    log = dynamics.singular_values(turned).log
    assert abs(log[:7]).max() < 1e-12 and (log[7:] == -np.inf).all()


def test_singular_values_close_together():
    """Values that differ by 1 in 1000, which many passes would not separate, beside others that are
    e^300 times as small."""
    values = np.array([1.001, 1.0, 0.999, 1e-130, 1e-131])
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((5, 5)))[0] for _ in range(2))
    # U diag diag V is the product of two, each of which float64 holds to all digits.
    J = np.stack([np.diag(np.sqrt(values)) @ right, left @ np.diag(np.sqrt(values))])[:, None]
    found = dynamics.singular_values(J).whole[0]
    assert np.allclose(found, np.log(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_value_bounds_the_gradient(kind):
    """|dL/ds_t| <= sigma_max(J_{T-1} ... J_{t+1}) |dL/ds_{T-1}|: the left side is what the layer's
    backward pass measured."""
    made, x = network(kind, size=0.7), sequence(steps=20, rows=1)
    out, _ = made(x)
    dy = np.random.default_rng(3).standard_normal(H)
    (out[-1] * mg.Tensor(dy)).sum().backward()
    told = made.telemetry[0]
    squares = told.dh_norm**2 + (0 if told.dc_norm is None else told.dc_norm**2)
    J = dynamics.jacobians(made, x)
    bound = np.exp(dynamics.singular_values(J, backward=True).log[1:, 0, 0])
    # Of the last step's state h has dy; c has what comes through h: not a state before the step.
    last = np.linalg.norm(dy)
    assert (told.dh_norm[:-1] <= bound * last * (1 + 1e-9)).all()
    assert told.dh_norm[-1] == pytest.approx(last) and (squares > 0).all()
    assert (told.dh_norm[:-1] > 1e-9 * bound * last).any()


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_the_gradients(kind):
    """dL/dh_0 by backward() is dL/dh_T times the product of the Jacobians."""
    made, x = network(kind, size=0.7), sequence()
    start = tuple(s.requires_grad_() for s in initial(made))
    out, _ = made(x, start)
    dy = np.random.default_rng(3).standard_normal((B, H))
    gradients = mg.grad([out], list(start), [np.concatenate([np.zeros((T - 1, B, H)), dy[None]])])
    J = dynamics.jacobians(made, x, start)
    gradient = np.zeros((B, J.shape[-1]))
    gradient[:, :H] = dy
    for t in reversed(range(T)):
        gradient = np.einsum("bi,bij->bj", gradient, J[t])
    expected = np.concatenate([g.numpy()[0] for g in gradients], axis=1)
    assert np.allclose(gradient, expected, rtol=1e-12, atol=1e-15)


# ---------------------------------------------------------------- Lyapunov exponents


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_of_exponents_is_the_mean_log_determinant(kind):
    J = dynamics.jacobians(network(kind), sequence(steps=30))
    if kind == "RNN relu":  # its Jacobians are singular
        J = J + 0.1 * np.eye(H)
    found = dynamics.lyapunov(J)
    expected = np.linalg.slogdet(J)[1].mean(axis=0)
    assert np.allclose(found.exponents.sum(axis=1), expected, rtol=0, atol=1e-11)
    warm = dynamics.lyapunov(J, warm=10)
    expected = np.linalg.slogdet(J[10:])[1].mean(axis=0)
    assert np.allclose(warm.exponents.sum(axis=1), expected, rtol=0, atol=1e-11)


def test_exponents_of_a_linear_network():
    """relu stays linear where nothing is negative. The exponents of powers of U are the logarithms
    of its eigenvalues."""
    made = mg.nn.RNN(1, 2, nonlinearity="relu", dtype=np.float64, bias=False)
    with mg.no_grad():
        made.cells[0].U[...] = np.array([[0.9, 0.3], [0.2, 0.5]])
    J = dynamics.jacobians(made, np.zeros((400, 1, 1)), mg.ones((1, 1, 2), np.float64))
    expected = np.log(np.sort(np.linalg.eigvals(np.array([[0.9, 0.3], [0.2, 0.5]])))[::-1])
    assert np.allclose(dynamics.lyapunov(J, warm=100).exponents[0], expected, atol=1e-12)
    only = dynamics.lyapunov(J, count=1, warm=100)
    assert only.exponents.shape == (1, 1) and np.isclose(only.exponents[0, 0], expected[0])


def test_exponents_with_lengths_and_reset():
    J = dynamics.jacobians(network("GRU"), sequence(steps=12), lengths=[12, 5, 7])
    found = dynamics.lyapunov(J, lengths=[12, 5, 7])
    alone = dynamics.lyapunov(J[:5, 1:2])
    assert np.allclose(found.exponents[1], alone.exponents[0], rtol=0, atol=1e-13)
    J[3, 0] = 0
    assert (dynamics.lyapunov(J).exponents[0] == -np.inf).all()


@pytest.mark.parametrize("gain, chaotic", [(0.5, False), (0.9, False), (1.5, True), (2.5, True)])
def test_the_threshold_of_chaos(gain, chaotic):
    """h' = tanh(h U) with normal U of variance gain^2 / H is chaotic above a gain of 1 (Sompolinsky,
    Crisanti and Sommers, Chaos in random neural networks, 1988)."""
    units, rng = 100, np.random.default_rng(0)
    made = mg.nn.RNN(1, units, bias=False, dtype=np.float64, rng=rng)
    with mg.no_grad():
        made.cells[0].U[...] = gain * rng.standard_normal((units, units)) / np.sqrt(units)
    start = mg.Tensor(rng.standard_normal((1, 1, units)))
    J = dynamics.jacobians(made, np.zeros((300, 1, 1)), start)
    largest = dynamics.lyapunov(J, count=1, warm=100).exponents[0, 0]
    assert (largest > 0.02) == chaotic and (largest < -0.02) != chaotic


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


def bistable(kind, **options):
    """A layer of one unit without input whose state keeps its sign."""
    name, own = KINDS[kind]
    made = getattr(mg.nn, name)(1, 1, dtype=np.float64, **own, **options)
    with mg.no_grad():
        for p in made.parameters():
            p[...] = 0.0
    return made


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
    a, b = 0.9575040240772687, 0.9948467
    expected = {(x, y) for x in (-a, 0, a) for y in (-b, 0, b)}
    assert len(found) == 9 and found.stable.sum() == 4
    for x, y in expected:
        assert abs(found.points - [x, y]).max(axis=1).min() < 1e-7
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
    found = dynamics.fixed_points(made, starts, x, direction="backward")
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
    """Three bits, each set by pulses (Sussillo and Barak 2013, section 3): one stable state for
    each of the 8 memories."""
    import flipflop

    args = flipflop.settings(["--kind", kind, "--plot", ""])
    trained, readout, right = flipflop.train(args)
    assert right > 0.99
    found, _ = flipflop.analyse(trained, args)
    bits = readout(mg.Tensor(found.points[found.stable].astype(np.float32))).numpy() > 0
    assert found.stable.sum() == 8 and len({tuple(row) for row in bits}) == 8


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


# ---------------------------------------------------------------- nothing changes


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_network_stays_as_it_is(kind, training):
    options = {} if training else {"recurrent_dropout": 0.5, "dropout": 0.5}
    made = network(kind, num_layers=2, clip_state_grad=0.5, **options)
    made.train(training)
    x, start = sequence(), initial(made)
    x.requires_grad_()
    out, _ = made(x, start)
    out.sum().backward()
    attributes = dict(vars(made))
    told = copy.deepcopy(vars(made.telemetry[0]))
    before = [(p.numpy().copy(), p.grad.numpy().copy()) for p in (*made.parameters(), x)]
    drawn = mg.default_generator.get_state() if hasattr(mg.default_generator, "get_state") else None
    J = dynamics.jacobians(made, x, start, layer=1)
    dynamics.memory(made, x, start)
    dynamics.fixed_points(made, np.zeros((2, J.shape[-1])))
    dynamics.trajectories(made, x, start)
    if kind != "RNN":
        dynamics.gates(made, x, start)
    assert vars(made) == attributes and mg.is_grad_enabled()
    for name, value in told.items():
        assert np.array_equal(getattr(made.telemetry[0], name), value), name
    for p, (value, gradient) in zip((*made.parameters(), x), before, strict=True):
        assert np.array_equal(p.numpy(), value) and np.array_equal(p.grad.numpy(), gradient)
    if drawn is not None:
        assert mg.default_generator.get_state() == drawn
    assert made.training is training and all(cell.training is training for cell in made.cells)


# ---------------------------------------------------------------- how results are shown


def test_results_are_readable():
    made, x = network("LSTM"), sequence()
    J = dynamics.jacobians(made, x)
    assert repr(dynamics.singular_values(J)).startswith(
        "SingularValues of the products of 5 steps, from the first to each step: 3 rows, n = 8\n"
    )
    assert repr(dynamics.lyapunov(J, warm=1)).startswith(
        "Lyapunov: 8 exponents of 3 rows, per step, over 4 steps\n  mean of the rows: "
    )
    assert repr(dynamics.memory(made, x)).startswith(
        "Memory: 5 output steps, 5 input steps, 3 rows\n  step 4 looks "
    )
    lines = repr(dynamics.gates(made, x)).splitlines()
    assert lines[:2] == ["Gates of 4 units", "  gate    mean   < 0.1   > 0.9"] and len(lines) == 6
    assert repr(dynamics.trajectories(made, x, components=1)).startswith(
        "Trajectories: 5 steps, 3 rows, n = 8\n  variance along 1 axis: "
    )
    points = dynamics.fixed_points(made, np.zeros((1, 8)), tolerance=0)
    assert repr(points) == str(points)
    assert (
        repr(points) == "FixedPoints: 0 points, 0 stable, n = 8, from 1 start state (1 left over)"
    )
    assert str(dynamics.memory(made, sequence(steps=0))) == (
        "Memory: 0 output steps, 0 input steps, 3 rows"
    )


def test_plots():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    made, x = network("GRU"), sequence()
    J = dynamics.jacobians(made, x)
    points = dynamics.fixed_points(made, np.zeros((2, H)))
    path = dynamics.trajectories(made, x, lengths=LENGTHS)
    for draw in (
        dynamics.singular_values(J).plot,
        dynamics.singular_values(J, backward=True).plot,
        dynamics.lyapunov(J).plot,
        dynamics.memory(made, x, lengths=LENGTHS).plot,
        dynamics.memory(made, x, steps=[1, 4]).plot,
        dynamics.gates(made, x).plot,
        lambda ax: dynamics.gates(made, x).plot(ax, unit=1),
        points.plot,
        path.plot,
        lambda ax: path.plot(ax, points=points),
    ):
        figure.clear()
        ax = draw(figure.add_subplot())
        assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title()
    figure.clear()
    ax = path.plot(figure.add_subplot(projection="3d"), points=points, rows=2)
    assert ax.get_zlabel().startswith("axis 3 (") and len(ax.lines) == 2
    figure.savefig("path.png")


def test_plots_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="plot: a plot needs matplotlib: pip install matplotlib"):
        dynamics.lyapunov(np.ones((3, 1, 1, 1))).plot()


# ---------------------------------------------------------------- what is refused

MADE, X = network("LSTM"), sequence()
GOOD = np.ones((3, 2, 4, 4))
LOOKS = ("jacobians", "memory", "gates", "trajectories")


def refuses(error, message, name, *arguments, **options):
    with pytest.raises(error) as raised:
        getattr(dynamics, name)(*arguments, **options)
    assert str(raised.value) == message


@pytest.mark.parametrize("name", (*LOOKS, "fixed_points"))
def test_networks_that_cannot_be_looked_at(name):
    refuses(
        TypeError,
        f"{name}: network must be an RNN, an LSTM or a GRU, got Linear",
        name,
        mg.nn.Linear(2, 3),
        X,
    )
    message = (
        f"{name}: network has {{}} = 0.5 and is in training mode, where each call draws a new mask: "
        "call network.eval() first"
    )
    made = network("GRU", recurrent_dropout=0.5)
    refuses(ValueError, message.format("recurrent_dropout"), name, made, X)
    refuses(
        ValueError, message.format("dropout"), name, network("GRU", num_layers=2, dropout=0.5), X
    )
    made.eval()
    getattr(dynamics, name)(made, np.zeros((1, H)) if name == "fixed_points" else X)


@pytest.mark.parametrize("name", [look for look in (*LOOKS, "fixed_points") if look != "memory"])
def test_places_that_are_not_there(name):
    second = X if name in LOOKS else np.zeros((1, 2 * H))
    for error, message, options in (
        (ValueError, "layer must be at most 0, got 1", {"layer": 1}),
        (ValueError, "layer must be at least 0, got -1", {"layer": -1}),
        (TypeError, "layer must be an int, got str", {"layer": "first"}),
        (ValueError, "direction must be 'forward', got 'backward'", {"direction": "backward"}),
        (ValueError, "direction must be 'forward', got None", {"direction": None}),
    ):
        refuses(error, f"{name}: {message}", name, MADE, second, **options)
    both = network("LSTM", bidirectional=True)
    message = f"{name}: direction must be 'forward' or 'backward', got 'up'"
    refuses(ValueError, message, name, both, second, direction="up")


@pytest.mark.parametrize("name", LOOKS)
def test_what_the_network_refuses(name):
    """Its own checks, in its own words."""
    for error, message, arguments, options in (
        (
            ValueError,
            "LSTM: x must have shape (T, B, 2) = (time, batch, input_size), got (5, 3, 7)",
            (np.zeros((5, 3, 7)),),
            {},
        ),
        (
            TypeError,
            "LSTM: state must be (h0, c0), each of shape "
            "(num_layers * directions, batch, hidden_size), got int",
            (X, 3),
            {},
        ),
        (ValueError, "LSTM: lengths must be from 0 to 5", (X,), {"lengths": [1, 2, 9]}),
        (ValueError, "LSTM: reset must have shape (5, 3)", (X,), {"reset": np.zeros((5, 2), bool)}),
    ):
        with pytest.raises(error) as raised:
            getattr(dynamics, name)(MADE, *arguments, **options)
        assert str(raised.value).startswith(message[:30]), str(raised.value)


@pytest.mark.parametrize("name", ["singular_values", "lyapunov"])
def test_jacobians_that_are_none(name):
    shape = f"{name}: J must have shape (T, B, n, n) = (time, batch, state, state), got "
    bad = GOOD.copy()
    bad[1, 1, 0, 2] = np.nan
    for error, message, J in (
        (TypeError, f"{name}: J must be an array, got list", [[1.0]]),
        (TypeError, f"{name}: J must hold real numbers, got complex128", GOOD + 0j),
        (ValueError, shape + "(2, 4, 4)", GOOD[0]),
        (ValueError, shape + "(3, 2, 4, 3)", GOOD[..., :3]),
        (ValueError, shape + "(3, 2, 0, 0)", GOOD[..., :0, :0]),
        (ValueError, f"{name}: J must be finite, got NaN or infinity in J[1, 1]", bad),
    ):
        refuses(error, message, name, J)


@pytest.mark.parametrize(
    "error, message, name, arguments, options",
    [
        (
            TypeError,
            "singular_values: backward must be a bool, got int",
            "singular_values",
            (GOOD,),
            {"backward": 1},
        ),
        (
            ValueError,
            "lyapunov: count must be at most 4, got 5",
            "lyapunov",
            (GOOD,),
            {"count": 5},
        ),
        (
            ValueError,
            "lyapunov: warm must be below the number of steps, 3, so that at least one is left, "
            "got 3",
            "lyapunov",
            (GOOD,),
            {"warm": 3},
        ),
        (
            ValueError,
            "lyapunov: warm must be below the number of steps, 0, so that at least one is left, "
            "got 0",
            "lyapunov",
            (GOOD,),
            {"lengths": [3, 0]},
        ),
        (
            ValueError,
            "memory: steps must be at most 4, got 5",
            "memory",
            (MADE, X),
            {"steps": [0, 5]},
        ),
        (
            ValueError,
            "memory: threshold must be above 0 and at most 1, got 0",
            "memory",
            (MADE, X),
            {"threshold": 0},
        ),
        (
            TypeError,
            "gates: network must be an LSTM or a GRU, an RNN has no gates",
            "gates",
            (network("RNN"), X),
            {},
        ),
        (
            ValueError,
            "gates: there is no step to look at: (T, B) = (0, 3)",
            "gates",
            (MADE, sequence(steps=0)),
            {},
        ),
        (
            ValueError,
            "trajectories: there is no step to look at: (T, B) = (5, 3)",
            "trajectories",
            (MADE, X),
            {"lengths": [0, 0, 0]},
        ),
        (
            ValueError,
            "trajectories: components must be at most 8, got 9",
            "trajectories",
            (MADE, X),
            {"components": 9},
        ),
    ],
)
def test_options_that_cannot_be(error, message, name, arguments, options):
    refuses(error, message, name, *arguments, **options)


@pytest.mark.parametrize(
    "error, message, states, options",
    [
        (ValueError, "states must have shape (..., 8) = (..., state), got (3, 4)", (3, 4), {}),
        (ValueError, "states must hold at least one state, got (0, 8)", (0, 8), {}),
        (
            ValueError,
            "states must be finite, got NaN or infinity",
            np.array([[np.nan] + [0.0] * 7]),
            {},
        ),
        (
            ValueError,
            "states must hold at least one state, got (2, 8)",
            np.full((2, 8), np.nan),
            {},
        ),
        (TypeError, "states must hold real numbers, got complex128", np.zeros((1, 8), complex), {}),
        (
            ValueError,
            "input must have shape (2,) = (features of the layer's input,), got (3,)",
            (1, 8),
            {"input": np.zeros(3)},
        ),
        (
            ValueError,
            "input must be finite, got NaN or infinity",
            (1, 8),
            {"input": np.array([0, np.inf])},
        ),
        (TypeError, "input must hold real numbers, got <U1", (1, 8), {"input": ["a", "b"]}),
        (ValueError, "count must be at least 1, got 0", (1, 8), {"count": 0}),
        (ValueError, "iterations must be at least 1, got 0", (1, 8), {"iterations": 0}),
        (ValueError, "noise must be at least 0 and finite, got -1", (1, 8), {"noise": -1}),
        (
            ValueError,
            "tolerance must be at least 0 and finite, got nan",
            (1, 8),
            {"tolerance": np.nan},
        ),
        (TypeError, "distance must be a number, got str", (1, 8), {"distance": "small"}),
        (TypeError, "rng must be a numpy.random.Generator, got int", (1, 8), {"rng": 3}),
    ],
)
def test_start_states_that_cannot_be(error, message, states, options):
    states = np.zeros(states) if isinstance(states, tuple) else states
    refuses(error, f"fixed_points: {message}", "fixed_points", MADE, states, **options)


def test_plots_that_cannot_be():
    pytest.importorskip("matplotlib")
    J = dynamics.jacobians(MADE, X)
    path = dynamics.trajectories(MADE, X, components=1)
    for error, message, draw in (
        (
            ValueError,
            "plot: row must be at most 2, got 3",
            lambda: dynamics.lyapunov(J).plot(row=3),
        ),
        (
            ValueError,
            "plot: unit must be at most 3, got 4",
            lambda: dynamics.gates(MADE, X).plot(unit=4),
        ),
        (TypeError, "plot: points must be a FixedPoints, got int", lambda: path.plot(points=3)),
        (
            ValueError,
            "project: states must have shape (..., 8) = (..., state), got (2,)",
            lambda: path.project(np.zeros(2)),
        ),
    ):
        with pytest.raises(error) as raised:
            draw()
        assert str(raised.value) == message
    figure = pytest.importorskip("matplotlib.figure").Figure()
    with pytest.raises(ValueError, match="needs as many components, got 1: call trajectories with"):
        path.plot(figure.add_subplot())
