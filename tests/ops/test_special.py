"""expm1, log1p, activations and rounding where the table of ops cannot go: zeros, infinities, the
ends of the float types, far tails, jumps; and PyTorch's numbers for the same functions."""

import math

import numpy as np
import pytest
from test_nan_and_ties import each_dtype, each_isa, on_isa  # noqa: F401

import minigrad as mg

inf, nan = np.inf, np.nan


def value_and_slope(fn, x, dtype=np.float64):
    """fn and its gradient at the points x."""
    x = mg.Tensor(np.array(x, dtype), requires_grad=True)
    y = fn(x)
    return y.numpy(), mg.grad(y, x, np.ones(x.shape, dtype))[0].numpy()


def same_bits(found, expected):
    assert found.tobytes() == np.asarray(expected, found.dtype).tobytes(), (found, expected)


# ---------------------------------------------------------------- expm1 and log1p


@each_isa
@each_dtype
@pytest.mark.parametrize("name", ["expm1", "log1p"])
def test_what_is_exact(name, dtype, on_isa):  # noqa: F811
    tiny, least = np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal
    largest = np.finfo(dtype).max
    x = [0.0, -0.0, inf, least, -least, tiny, -tiny, tiny * 1.5]
    expected = [*x]
    more = {
        "expm1": ([-inf, -1000.0, largest, -largest], [-1, -1, inf, -1]),
        "log1p": ([-1.0, -inf, -2.0, -largest], [-inf, nan, nan, nan]),
    }[name]
    x, expected = np.array(x + more[0], dtype), np.array(expected + more[1], dtype)
    for copies in (1, 5):  # a tail, and whole vectors
        y = getattr(mg, name)(np.tile(x, copies)).numpy()
        np.testing.assert_array_equal(y, np.tile(expected, copies))
        np.testing.assert_array_equal(np.signbit(y[: len(x) - 4]), np.signbit(expected[:-4]))
    assert np.isnan(getattr(mg, name)(np.full(3, nan, dtype)).numpy()).all()


@each_isa
@each_dtype
@pytest.mark.parametrize(
    "name, low, high", [("expm1", -50, 88), ("log1p", -0.999999, 1e6)], ids=["expm1", "log1p"]
)
def test_errors_of_a_few_ulp_everywhere(name, low, high, dtype, on_isa):  # noqa: F811
    """Against the C library in double: within 1 ulp of it for float32, 2 for float64."""
    rng = np.random.default_rng(0)
    spread = np.exp(rng.uniform(-60, math.log(min(high, -low) if low < -1 else 0.9), 4000))
    x = np.concatenate([rng.uniform(low, high, 4000), spread, -spread]).astype(dtype)
    exact = np.array([getattr(math, name)(float(v)) for v in x])
    error = np.abs(getattr(mg, name)(x).numpy().astype(np.float64) - exact)
    assert (
        error <= (1 if dtype == np.float32 else 2) * np.spacing(np.abs(exact).astype(dtype))
    ).all()


def test_expm1_reaches_infinity_where_exp_does():
    for dtype in (np.float32, np.float64):
        last = np.log(np.finfo(dtype).max).astype(dtype)
        x = np.array([np.nextafter(last, dtype(0)), last + last / 100], dtype)
        assert np.isfinite(mg.expm1(x).numpy()).tolist() == [True, False]


def test_slopes_keep_their_digits():
    _, slope = value_and_slope(mg.expm1, [-300.0, -40.0, 0.0])
    np.testing.assert_allclose(slope, np.exp([-300.0, -40.0, 0.0]), rtol=1e-15)
    _, slope = value_and_slope(mg.log1p, [-1.0, 0.0, 1e300])
    np.testing.assert_allclose(slope, [inf, 1, 1e-300], rtol=1e-15)


# ---------------------------------------------------------------- activations


@each_dtype
@pytest.mark.parametrize(
    "fn",
    [mg.gelu, lambda x: mg.gelu(x, "tanh"), mg.silu],
    ids=["gelu", "gelu tanh", "silu"],
)
def test_gates_far_out(fn, dtype):
    """x on the right, nothing on the left, and finite slopes however far."""
    y, slope = value_and_slope(fn, [40.0, 1000.0, 1e30, -1000.0, -1e30], dtype)
    np.testing.assert_array_equal(y, np.array([40, 1000, 1e30, 0, 0], dtype))
    np.testing.assert_array_equal(slope, [1, 1, 1, 0, 0])


def test_left_tails_keep_their_digits():
    y, slope = value_and_slope(mg.silu, [-100.0])
    np.testing.assert_allclose(y, -100 * math.exp(-100), rtol=1e-14)
    np.testing.assert_allclose(slope, -99 * math.exp(-100), rtol=1e-14)
    y, slope = value_and_slope(mg.gelu, [-30.0])
    tail = 4.906713927148187e-198  # (1 + erf(-30 / sqrt 2)) / 2, by mpmath
    np.testing.assert_allclose(y, -30 * tail, rtol=1e-15)
    density = math.exp(-450) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(slope, tail - 30 * density, rtol=1e-12)
    y, _ = value_and_slope(mg.gelu, [-12.0], np.float32)
    np.testing.assert_allclose(y, -12 * 1.7764821120776762e-33, rtol=2e-7)
    y, slope = value_and_slope(mg.elu, [-1e-12, -50.0, -1e300, -inf])
    np.testing.assert_allclose(y, [-1e-12, -1, -1, -1], rtol=1e-12)
    np.testing.assert_allclose(slope, [1, math.exp(-50), 0, 0], rtol=1e-12)


def test_kinks():
    for fn, at_0 in ((lambda x: mg.elu(x, 0.5), 0.5), (lambda x: mg.leaky_relu(x, 0.25), 0.25)):
        y, slope = value_and_slope(fn, [0.0, -0.0, 1000.0, inf])
        assert y.tolist() == [0, 0, 1000, inf] and slope.tolist() == [at_0, at_0, 1, 1]


def test_nan_passes():
    for fn in (mg.gelu, lambda x: mg.gelu(x, "tanh"), mg.silu, mg.elu):
        y, slope = value_and_slope(fn, [nan])
        assert np.isnan(y).all() and np.isnan(slope).all()
    y, slope = value_and_slope(mg.leaky_relu, [nan])
    assert np.isnan(y).all() and slope.tolist() == [0.01]


# ---------------------------------------------------------------- rounding


@each_dtype
@pytest.mark.parametrize("name", ["sign", "floor", "ceil", "round"])
def test_rounding_is_that_of_numpy(name, dtype):
    x = np.array([-2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 3.49, 1e30, inf, -inf, nan], dtype)
    y, slope = value_and_slope(getattr(mg, name), x, dtype)
    same_bits(y, getattr(np, name)(x))
    same_bits(slope, np.zeros(len(x)))


def test_the_gradient_of_rounding_is_0_whatever_comes_back():
    x = mg.Tensor([1.5, 2.5, -3.0], requires_grad=True)
    for fn in (mg.sign, mg.floor, mg.ceil, mg.round, lambda x: mg.round(x, 1)):
        (dx,) = mg.grad(fn(x), x, np.array([inf, nan, 1], np.float32), create_graph=True)
        assert dx.tolist() == [0, 0, 0]
        x.grad = None
        (fn(x) * 2.0).sum().backward()
        assert x.grad.tolist() == [0, 0, 0]


def test_decimals():
    assert mg.round(mg.Tensor([1.25, 1.35, -0.05], dtype=np.float64), 1).tolist() == [1.2, 1.4, 0]
    assert mg.round(mg.Tensor([12345.0, 15.0, 25.0]), -1).tolist() == [12340, 20, 20]
    for dtype in (np.float32, np.float64):  # 10 ** decimals is beyond the type, or makes x so
        x = np.array([0.1, 1e30, -3e38, inf, nan], dtype)
        np.testing.assert_array_equal(mg.round(x, 300).numpy(), x)
        np.testing.assert_array_equal(mg.round(x, -300).numpy(), [0, 0, 0, inf, nan])


def test_python_rounds_a_tensor_of_one_element_to_a_number():
    x = mg.Tensor([2.5])
    assert round(x) == 2 and isinstance(round(x), int) and isinstance(x.round(), mg.Tensor)


# ---------------------------------------------------------------- PyTorch


POINTS = [nan, -30.0, -8.0, -2.0, -1.0, -0.3, -0.0, 0.0, 0.3, 0.5, 1.0, 2.0, 8.0, 30.0]


@pytest.mark.parametrize("f", [mg.expm1, mg.log1p, mg.gelu, mg.silu, mg.elu])
def test_nan_stays_nan(f):
    y, slope = value_and_slope(f, [nan, 0.5])
    assert np.isnan([y[0], slope[0]]).all()
    assert np.isfinite([y[1], slope[1]]).all()


@pytest.mark.filterwarnings("error")
def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    pairs = [
        (mg.expm1, torch.expm1),
        (mg.log1p, torch.log1p),
        (mg.gelu, functional.gelu),
        (
            lambda x: mg.gelu(x, approximate="tanh"),
            lambda p: functional.gelu(p, approximate="tanh"),
        ),
        (mg.silu, functional.silu),
        (mg.elu, functional.elu),
        (lambda x: mg.elu(x, 0.7), lambda p: functional.elu(p, 0.7)),
        (mg.leaky_relu, functional.leaky_relu),
        (lambda x: mg.leaky_relu(x, 0.2), lambda p: functional.leaky_relu(p, 0.2)),
        (mg.floor, torch.floor),
        (mg.ceil, torch.ceil),
        (mg.round, torch.round),
        (lambda x: mg.round(x, 1), lambda p: torch.round(p, decimals=1)),
    ]
    for number, (ours, theirs) in enumerate(pairs):
        y, slope = value_and_slope(ours, POINTS)
        p = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
        z = theirs(p)
        (expected,) = torch.autograd.grad(z, p, torch.ones(len(POINTS), dtype=torch.float64))
        np.testing.assert_allclose(y, z.detach(), rtol=1e-9, atol=1e-15, err_msg=str(number))
        # Not at NaN: there PyTorch's elu has a slope of 1 or of NaN, by the kernel that it chose.
        np.testing.assert_allclose(
            slope[1:], expected[1:], rtol=1e-9, atol=1e-14, err_msg=str(number)
        )
    x = [v for v in POINTS if v == v]  # PyTorch has 0 for the sign of NaN, NumPy has NaN
    np.testing.assert_array_equal(mg.sign(x).numpy(), torch.sign(torch.tensor(x)))
