"""Spectral tools: against eigenvalues that are known, inequalities that hold for every matrix, and
the slide's gradient."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn


def random_matrix(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_radius_of_known_eigenvalues(dtype):
    """A similar matrix has the same eigenvalues; here 3 (cos 1 ± i sin 1), -2 and 1/2."""
    d = np.zeros((4, 4))
    d[:2, :2] = 3 * np.array([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
    d[2, 2], d[3, 3] = -2, 0.5
    s = np.eye(4) + 0.1 * random_matrix(4)
    matrix = (s @ d @ np.linalg.inv(s)).astype(dtype)
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    assert nn.spectral_radius(matrix) == pytest.approx(3, rel=tolerance)
    assert nn.spectral_radius(mg.Tensor(matrix)) == nn.spectral_radius(matrix)


def test_radius_where_no_vector_settles():
    """Two eigenvalues of one modulus: the power iteration would swing for ever."""
    assert nn.spectral_radius(np.array([[0.0, 1.0], [4.0, 0.0]])) == pytest.approx(2, rel=1e-12)


def test_powers():
    matrix = random_matrix(5)
    norms = nn.power_norms(matrix, 40)
    assert norms[0] == 1 and norms[1] == pytest.approx(np.linalg.svd(matrix)[1][0], rel=1e-12)
    assert norms[3] == pytest.approx(np.linalg.svd(matrix @ matrix @ matrix)[1][0], rel=1e-12)
    radius = nn.spectral_radius(matrix)
    assert (norms >= radius ** np.arange(41) * (1 - 1e-10)).all() and (
        norms <= norms[1] ** np.arange(41) * (1 + 1e-10)
    ).all()
    assert norms[40] ** (1 / 40) == pytest.approx(radius, rel=0.1)  # Gelfand
    assert np.allclose(nn.power_norms(matrix.T, 40), norms, rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_is_in_place_and_by_one_number(dtype):
    matrix = mg.Tensor(random_matrix(7), dtype=dtype, requires_grad=True)
    before = matrix.numpy().copy()
    assert (
        nn.scale_spectral_radius_(matrix, 0.75) is matrix
        and matrix.grad_fn is None
        and matrix.requires_grad
    )
    assert nn.spectral_radius(matrix) == pytest.approx(0.75, rel=1e-6)
    factor = matrix.numpy() / before
    assert np.allclose(factor, factor[0, 0], rtol=1e-6) and factor[0, 0] > 0
    assert nn.scale_spectral_radius_(matrix, 0).numpy().tolist() == np.zeros((7, 7)).tolist()


def test_a_gate_is_scaled_alone():
    cell = nn.LSTM(3, 6).cells[0]
    before = cell.U.numpy().copy()
    nn.scale_spectral_radius_(cell.gate("g").U, 1.5)
    after = cell.U.numpy()
    assert nn.spectral_radius(cell.gate("g").U) == pytest.approx(1.5, rel=1e-6)
    assert (after[:, :12] == before[:, :12]).all() and (after[:, 18:] == before[:, 18:]).all()


def test_layers_start_with_radius_and_norm_one():
    U = nn.RNN(3, 16, dtype=np.float64).cells[0].U
    assert nn.spectral_radius(U) == pytest.approx(1, rel=1e-12) and nn.power_norms(U, 1)[
        1
    ] == pytest.approx(1, rel=1e-12)


def layer_and_norms(matrix, T=30, size=1.0):
    """An RNN with W1 = matrix and |dL/dh_t|, where L looks at the last step alone."""
    rng, H = np.random.default_rng(1), len(matrix)
    layer = nn.RNN(2, H, dtype=np.float64, rng=rng)
    layer.cells[0].U = nn.Parameter(matrix, np.float64)
    out, _ = layer(mg.Tensor(size * rng.standard_normal((T, 4, 2))))
    (out[-1] * mg.Tensor(rng.standard_normal((4, H)))).sum().backward()
    return layer.telemetry[0].dh_norm


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("radius", [0.7, 1.0, 2.0])
def test_the_slides_bound_holds(radius, seed):
    """|dL/dh_t| <= |W1|^(T - t) |dL/dh_T| for any W1; with small inputs an orthogonal one comes
    close to it."""
    matrix = random_matrix(8, seed)
    matrix *= radius / nn.spectral_radius(matrix)
    dh = layer_and_norms(matrix)
    steps = np.arange(len(dh) - 1, -1, -1)
    assert (dh <= nn.power_norms(matrix, 1)[1] ** steps * dh[-1] * (1 + 1e-12)).all()


@pytest.mark.parametrize("radius", [0.5, 0.9])
def test_the_bound_is_reached_where_tanh_is_linear(radius):
    dh = layer_and_norms(radius * np.linalg.qr(random_matrix(8))[0], size=1e-6)
    assert np.allclose(dh, radius ** np.arange(len(dh) - 1, -1, -1) * dh[-1], rtol=1e-9)


def test_powers_alone_are_no_bound():
    """W1^2 = 0, but with tanh' between the two factors the gradient goes through: a bound must use
    |W1|^2."""
    matrix = np.array([[1.0, 1.0], [-1.0, -1.0]])
    assert nn.spectral_radius(matrix) < 1e-7 and nn.power_norms(matrix, 2)[2] == 0
    dh = layer_and_norms(matrix, T=3)
    assert 0.01 < dh[0] / dh[2] < nn.power_norms(matrix, 1)[1] ** 2


BAD = [
    (
        lambda: nn.spectral_radius([[1.0]]),
        TypeError,
        "matrix must be a Tensor or an array, got list",
    ),
    (
        lambda: nn.spectral_radius(np.zeros((2, 3))),
        ValueError,
        r"must be square.*got shape \(2, 3\)",
    ),
    (lambda: nn.spectral_radius(nn.GRUCell(2, 3).U), ValueError, r"one gate's.*got shape \(3, 9\)"),
    (lambda: nn.spectral_radius(np.array([[np.nan]])), ValueError, "must be finite"),
    (lambda: nn.spectral_radius(np.array([[1j]])), TypeError, "real numbers, got complex128"),
    (lambda: nn.power_norms(np.eye(2), -1), ValueError, "n must be at least 0, got -1"),
    (lambda: nn.power_norms(np.eye(2), 1.0), TypeError, "n must be an int, got float"),
    (lambda: nn.scale_spectral_radius_(np.eye(2), 1.0), TypeError, "must be a Tensor, got ndarray"),
    (
        lambda: nn.scale_spectral_radius_(mg.ones((2, 2)), "1"),
        TypeError,
        "radius must be a number, got str",
    ),
    (
        lambda: nn.scale_spectral_radius_(mg.ones((2, 2)), -1.0),
        ValueError,
        "radius must be at least 0 and finite, got -1.0",
    ),
    (
        lambda: nn.scale_spectral_radius_(mg.ones((2, 2)), float("nan")),
        ValueError,
        "radius must be at least 0 and finite, got nan",
    ),
    (lambda: nn.scale_spectral_radius_(mg.zeros((2, 2)), 1.0), ValueError, "spectral radius 0"),
]


@pytest.mark.parametrize("call, error, message", BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
