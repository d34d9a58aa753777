"""Elementwise ops where the table of ops cannot go: kinks, ties, zeros and infinities, by the
documented values."""

import math

import numpy as np
import pytest

import minigrad as mg

inf, nan = np.inf, np.nan


def gradients(fn, *values, create_graph=False):
    inputs = [mg.Tensor(np.array(value, np.float64), requires_grad=True) for value in values]
    y = fn(*inputs)
    found = mg.grad(y, inputs, np.ones(y.shape), create_graph=create_graph, allow_unused=True)
    return [dx.tolist() for dx in found]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    "fn, x, dx",
    [
        (mg.abs, [0.0, -0.0, 2.0], [0, 0, 1]),
        (mg.relu, [0.0, -0.0, -1.0, 2.0], [0, 0, 0, 1]),
        (lambda x: mg.clip(x, -1, 1), [-1.0, 1.0, -1.5, 1.5, 0.0], [1, 1, 0, 0, 1]),
        (mg.sqrt, [0.0, 4.0], [inf, 0.25]),
        (mg.log, [0.0, 2.0], [inf, 0.5]),
        (mg.tanh, [400.0, -400.0, inf], [0, 0, 0]),
        (mg.sigmoid, [800.0, -800.0, inf, -inf], [0, 0, 0, 0]),
        (mg.softplus, [800.0, -800.0, inf, -inf], [1, 0, 1, 0]),
        (mg.exp, [-800.0, -inf], [0, 0]),
        (lambda x: x**0, [0.0, 3.0], [0, 0]),
        (lambda x: x**1, [0.0, 3.0], [1, 1]),
        (lambda x: x**2, [0.0, 3.0], [0, 6]),
        (lambda x: x**3, [0.0, -2.0], [0, 12]),
        (lambda x: x**0.5, [0.0, 4.0], [inf, 0.25]),
        (lambda x: x**-1, [-2.0, 4.0], [-0.25, -0.0625]),
        (lambda x: 0.0**x, [2.0, 0.0], [0, 0]),
        (lambda x: 1.0**x, [2.0, -3.0], [0, 0]),
    ],
    ids=range(17),
)
def test_gradient_at_a_special_point(fn, x, dx, create_graph):
    assert gradients(fn, x, create_graph=create_graph) == [dx]


@pytest.mark.parametrize(
    "fn, a, b, da, db",
    [
        (mg.maximum, [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [0.5, 0, 1], [0.5, 1, 0]),
        (mg.minimum, [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [0.5, 1, 0], [0.5, 0, 1]),
        (
            mg.pow,
            [0.0, 0.0, 0.0, 2.0],
            [0.0, 1.0, 2.0, 3.0],
            [0, 1, 0, 12],
            [0, 0, 0, 8 * np.log(2)],
        ),
        (
            lambda a, b: mg.where(np.array([True, False]), a, b),
            [nan, 1.0],
            [1.0, nan],
            [1, 0],
            [0, 1],
        ),
        (
            lambda a, b: mg.where(np.array([True, False]), a * 2.0, mg.log(b)),
            [1.0, 1.0],
            [0.0, 4.0],
            [2, 0],
            [nan, 0.25],
        ),
        (mg.mul, [inf, 0.0], [0.0, inf], [0, inf], [inf, 0]),
        (mg.div, [1.0, 6.0], [0.0, 2.0], [inf, 0.5], [-inf, -1.5]),
    ],
    ids=["maximum", "minimum", "pow", "where", "where after log", "mul", "div"],
)
def test_gradients_of_a_special_pair(fn, a, b, da, db):
    np.testing.assert_array_equal(gradients(fn, a, b), [da, db])


def test_powers_by_number_equal_powers_by_tensor():
    x = mg.Tensor(np.linspace(0.1, 3, 50))
    for exponent in (2, 1, 0.5, -1, 3):
        np.testing.assert_allclose(
            (x**exponent).numpy(), mg.pow(x, np.full(50, float(exponent))).numpy(), rtol=1e-15
        )


def test_operators_with_numbers_and_arrays_on_either_side():
    x = mg.Tensor([2.0, 4.0])
    array = np.array([1.0, 2.0], np.float32)
    cases = [
        (x + 1, [3, 5]),
        (1 + x, [3, 5]),
        (x - 1, [1, 3]),
        (1 - x, [-1, -3]),
        (x * 3, [6, 12]),
        (3 * x, [6, 12]),
        (x / 2, [1, 2]),
        (8 / x, [4, 2]),
        (x**2, [4, 16]),
        (2**x, [4, 16]),
        (-x, [-2, -4]),
        (+x, [2, 4]),
        (abs(-x), [2, 4]),
        (array + x, [3, 6]),
        (array - x, [-1, -2]),
        (array * x, [2, 8]),
        (array / x, [0.5, 0.5]),
        (array**x, [1, 16]),
        (array @ x, 10),
        (x @ array, 10),
        (np.float32(2) * x, [4, 8]),
        (np.float64(2) * x, [4, 8]),
    ]
    for got, expected in cases:
        assert type(got) is mg.Tensor and got.dtype == np.float32 and got.tolist() == expected
    y = x
    y += 1
    assert y is x and x.tolist() == [3, 5]


@pytest.mark.parametrize(
    "bound",
    [
        *(float(np.finfo(np.float32).max) * factor for factor in (1.0, 1 + 2e-8, 1 + 4e-8, -2.0)),
        *(1e300, 1e-45, 1e-50, 0.1, -0.0, 7, 10**30, np.float32(2), math.inf, -math.inf, math.nan),
    ],
)
def test_a_bound_is_rounded_as_numpy_rounds_it(bound):
    """To infinity where float32 cannot hold it, whatever NumPy does with floating-point errors."""
    x = np.array([-np.inf, -1, -0.0, 1, np.inf], np.float32)
    with np.errstate(all="ignore"):
        expected = [np.clip(x, None, np.float32(bound)), np.clip(x, np.float32(bound), None)]
    with np.errstate(all="raise"):
        found = [mg.clip(mg.Tensor(x), high=bound), mg.clip(mg.Tensor(x), low=bound)]
    for y, z in zip(found, expected, strict=True):
        assert y.numpy().tobytes() == z.tobytes()
