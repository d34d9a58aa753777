"""Dynamics of trained networks: Jacobians against mg.jacobian, products and exponents against known
values, and that nothing changes."""

import copy

import numpy as np
import pytest
from dynamics_networks import (
    KINDS,
    LENGTHS,
    RESET,
    B,
    H,
    T,
    by_autograd,
    initial,
    network,
    sequence,
)

import minigrad as mg

dynamics = mg.study.dynamics


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
    made = network(kind, bidirectional=True)
    values = sequence().numpy().copy()
    values[3:, 2] = np.nan  # past the end of the row
    x, start = mg.Tensor(values), initial(made)
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


@pytest.mark.slow
def test_singular_values_of_a_long_product():
    """10,000 steps: e^2600 to e^(-7300), where a product of matrices is 0 or infinite. Those of the
    inverse are the inverses, in reverse order, and their sum is log |det|."""
    J = np.random.default_rng(0).standard_normal((10_000, 1, 3, 3)) * 0.9
    found = dynamics.singular_values(J).whole[0]
    inverse = dynamics.singular_values(np.linalg.inv(J)[::-1]).whole[0]
    assert found[0] > 2000 and found[2] < -7000
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


def test_singular_values_of_every_product():
    """From values of one size, in the first products, to a range of e^110: each time they are the
    inverses of those of the inverse product, whose large values are those that are small here."""
    J = np.random.default_rng(0).standard_normal((60, 2, 12, 12))
    found = dynamics.singular_values(J).log
    inverse = dynamics.singular_values(np.linalg.inv(J)[::-1], backward=True).log[::-1]
    assert (found[-1, :, 0] - found[-1, :, -1]).min() > 100
    assert np.allclose(found, -inverse[:, :, ::-1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_value_bounds_the_gradient(kind):
    """|dL/ds_t| <= sigma_max(J_{T-1} ... J_{t+1}) |dL/ds_{T-1}|: the left side is what the layer's
    backward pass measured."""
    made, x = network(kind, size=0.7), sequence(steps=20, rows=1)
    out, _ = made(x)
    dy = np.random.default_rng(3).standard_normal(H)
    (out[-1] * mg.Tensor(dy)).sum().backward()
    dh_norm = made.telemetry[0].dh_norm
    J = dynamics.jacobians(made, x)
    bound = np.exp(dynamics.singular_values(J, backward=True).log[1:, 0, 0])
    assert dh_norm[-1] == pytest.approx(np.linalg.norm(dy))
    share = dh_norm[:-1] / (bound * dh_norm[-1])
    assert (share <= 1 + 1e-9).all() and share[-1] > 0.05 and (share > 1e-6).all()


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
    J = dynamics.jacobians(network(kind, size=0.5), sequence(steps=30))
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
@pytest.mark.slow
def test_the_threshold_of_chaos(gain, chaotic):
    """h' = tanh(h U) with normal U of variance gain^2 / H is chaotic above a gain of 1
    (Sompolinsky, Crisanti and Sommers, Chaos in random neural networks, 1988)."""
    units, rng = 128, np.random.default_rng(0)
    made = mg.nn.RNN(1, units, bias=False, dtype=np.float64, rng=rng)
    with mg.no_grad():
        made.cells[0].U[...] = gain * rng.standard_normal((units, units)) / np.sqrt(units)
    start = mg.Tensor(rng.standard_normal((1, 1, units)))
    J = dynamics.jacobians(made, np.zeros((300, 1, 1)), start)
    largest = dynamics.lyapunov(J, count=1, warm=100).exponents[0, 0]
    assert largest > 0.005 if chaotic else largest < -0.05


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
