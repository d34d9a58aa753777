"""mg.data.windows and Scaler: beside their formulas, beside fractions, and the types that they
keep."""

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

from minigrad.data.scaler import Scaler
from minigrad.data.series import windows

# ---------------------------------------------------------------- windows, Scaler


@pytest.mark.parametrize(
    ("length", "horizon", "step"), [(1, 1, 1), (4, 3, 1), (4, 3, 5), (17, 3, 1)]
)
@pytest.mark.parametrize("shape", [(20,), (20, 2)])
def test_windows(length, horizon, step, shape):
    series = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    x, y = windows(series, length, horizon, step)
    starts = range(0, 20 - length - horizon + 1, step)
    assert x.shape == (length, len(starts), *shape[1:]) and y.shape == (
        horizon,
        len(starts),
        *shape[1:],
    )
    for n, start in enumerate(starts):
        assert (x[:, n] == series[start : start + length]).all()
        assert (y[:, n] == series[start + length : start + length + horizon]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(50,), (50, 3), (5, 10, 3)])
def test_scaler(dtype, shape):
    x = (np.random.default_rng(0).standard_normal(shape) * 7 + 100).astype(dtype)
    scaler = Scaler().fit(x)
    z = scaler.transform(x)
    axes, eps = tuple(range(x.ndim - 1)) or (0,), np.finfo(dtype).eps
    assert (
        z.dtype == dtype
        and np.abs(z.mean(axes)).max() < 100 * eps
        and np.abs(z.std(axes) - 1).max() < 100 * eps
    )
    assert np.abs(scaler.inverse(z) - x).max() < 200 * eps


def test_scaler_leaves_constant_columns_finite():
    x = np.array([[0.1, 1.0, -5e300], [0.1, 2.0, -5e300], [0.1, 3.0, -5e300]])
    scaler = Scaler().fit(x)
    z = scaler.transform(x)
    assert (z[:, [0, 2]] == 0).all() and (scaler.inverse(z) == x).all()
    assert (
        scaler.transform(np.array([[0.6, 2.0, 0.0]]))[0, 0] == 0.5
    )  # a new value in that column is still seen


def test_scaler_of_whole_numbers_and_lists_is_float32():
    assert (
        Scaler().fit([1, 2, 3]).transform([1, 2]).dtype
        == Scaler().fit([1.0, 2.0]).transform([1.0]).dtype
        == np.float32
    )


# ------------------------------------------------------ whole numbers and doubles, beside fractions


def exact(x):
    """z of a list of numbers, by fractions: (values, mean, standard deviation)."""
    x = [Fraction(int(v)) if isinstance(v, (int, np.integer)) else Fraction(float(v)) for v in x]
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    root = Fraction(math.isqrt(int(variance * 10**60)), 10**30)
    return [float((v - mean) / root) for v in x], mean, root


NEAR = {
    "seconds": np.array([1_700_000_000, 1_700_000_001, 1_700_000_002]),
    "seconds as a list": [1_700_000_000, 1_700_000_001, 1_700_000_002],
    "floats as a list": [1.7e9, 1.7e9 + 0.25, 1.7e9 + 1.5, 1.7e9 + 3],
    "nanoseconds": np.array(
        [1_700_000_000_000_000_000, 1_700_000_000_000_000_001, 1_700_000_000_000_000_005]
    ),
    "beyond 2^53": np.array([2**60 + 3, 2**60 - 1, 2**60 + 77, -(2**60)]),
    "ends of int64": np.array([-(2**63), 2**63 - 1, 5, 0, 2**62]),
    "uint64": np.array([2**64 - 1, 2**64 - 3, 2**64 - 10], np.uint64),
    "uint8": np.array([250, 255, 3], np.uint8),
    "int32": np.array([-(2**31), 2**31 - 1, 7], np.int32),
    "float64": np.array([1e15, 1e15 + 0.125, 1e15 + 0.5]),
    "float64 high": np.array([1e16, 1e16 + 2, 1e16 + 4]),
    "float32": np.array([16777216, 16777218, 16777220, 16777226], np.float32),
    "small": np.array([1e-9, 2e-9, 4e-9]),
}


@pytest.mark.parametrize("name", NEAR)
def test_scaler_beside_fractions(name):
    x = NEAR[name]
    scaler = Scaler().fit(x)
    expected, mean, root = exact(x)
    z = scaler.transform(x)
    eps = np.finfo(z.dtype).eps
    assert z.dtype == (x.dtype if getattr(x, "dtype", np.dtype(int)).kind == "f" else np.float32)
    assert np.abs(z - expected).max() <= 2 * eps * max(map(abs, expected))
    assert abs(Fraction(float(scaler.mean)) - mean) <= (abs(mean) + root) * Fraction(2.3e-16)
    assert abs(Fraction(float(scaler.scale)) - root) <= root * Fraction(1e-15)
    back = scaler.inverse(z)
    assert back.dtype == (x.dtype if getattr(x, "dtype", np.dtype(int)).kind == "f" else np.float64)
    for v, b in zip(x, back, strict=True):
        v = Fraction(int(v)) if isinstance(v, (int, np.integer)) else Fraction(float(v))
        bound = (
            Fraction(float(np.spacing(np.abs(np.asarray(b, back.dtype)))))
            + 2 * root * Fraction(float(eps)) * 3
        )
        assert abs(Fraction(float(b)) - v) <= bound


def test_the_scaler_of_the_report():
    a = np.array([1_700_000_000, 1_700_000_001, 1_700_000_002])
    assert np.allclose(Scaler().fit(a).transform(a), [-np.sqrt(1.5), 0, np.sqrt(1.5)], atol=1e-7)


def test_a_mean_that_was_set_by_hand_counts():
    scaler, fitted = Scaler(), Scaler().fit(NEAR["nanoseconds"])
    scaler.mean, scaler.scale = np.float64(3.0), np.float64(2.0)
    assert scaler.transform(np.array([5.0])).tolist() == [1.0] and scaler.inverse(
        np.array([1.0])
    ).tolist() == [5.0]
    fitted.mean = np.float64(1_700_000_000_000_000_000)
    assert fitted.transform(np.array([1_700_000_000_000_000_000])).tolist() == [0.0]
    fresh = Scaler().fit(NEAR["nanoseconds"])
    for copied in (copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh))):
        assert (
            np.abs(copied.transform(NEAR["nanoseconds"]) - exact(NEAR["nanoseconds"])[0]).max()
            < 1e-6
        )


def test_columns_of_whole_numbers_are_scaled_each_by_itself():
    x = np.stack([np.arange(50) + 1_700_000_000, np.full(50, 2**62), (np.arange(50) * 7) % 11], 1)
    scaler = Scaler().fit(x)
    z = scaler.transform(x)
    assert (z[:, 1] == 0).all() and (scaler.inverse(z)[:, 1] == 2.0**62).all()
    for k in (0, 2):
        assert np.abs(z[:, k] - exact(x[:, k])[0]).max() < 3e-7


def test_windows_keep_what_they_are_given():
    times = [1_700_000_000.25, 1_700_000_001.5, 1_700_000_003.0, 1_700_000_007.75]
    x, y = windows(times, 2)
    assert x.dtype == np.float64 and x[:, 1].tolist() == times[1:3] and y[0].tolist() == times[2:]
    big = [2**60, 2**60 + 1, 2**60 + 2]
    assert (
        windows(big, 1)[0][0].tolist() == big[:2]
        and windows(np.array(times, np.float32), 1)[0].dtype == np.float32
    )
