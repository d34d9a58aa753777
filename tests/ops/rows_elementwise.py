"""Rows of the table of ops for minigrad/ops/elementwise.pyx and bounds.pyx."""

import numpy as np
from op_table import Op, shaped

import minigrad as mg


def normal(rng, dtype):
    return shaped(rng, dtype, lambda rng, shape: rng.normal(size=shape))


def wide(rng, dtype):
    """Both small and saturating arguments."""
    samples = normal(rng, dtype)
    return samples + [(20 * samples[3][0],), (samples[3][0] / 100,)]


def positive(rng, dtype):
    return shaped(rng, dtype, lambda rng, shape: rng.uniform(0.5, 4, size=shape))


def away_from(*kinks):
    """Arguments that stay off the points where the derivative jumps."""

    def samples(rng, dtype):
        def draw(rng, shape):
            x = rng.uniform(-3, 3, size=shape)
            for kink in kinks:
                x = np.where(abs(x - kink) < 0.05, x + 0.1, x)
            return x

        return shaped(rng, dtype, draw)

    return samples


def pairs(rng, dtype):
    samples = shaped(rng, dtype, lambda rng, shape: rng.normal(size=shape), 2)
    return samples + [
        (samples[3][0], np.array(1.5, dtype)),
        (samples[3][0][:, :1].copy(), samples[3][1][0]),
    ]


def pairs_apart(rng, dtype):
    """Pairs that differ by more than the step of a difference quotient."""
    return [
        (a, np.where(abs(a - b) < 0.05, b + 0.1, b).astype(dtype)) for a, b in pairs(rng, dtype)
    ]


def divisors(rng, dtype):
    return [(a, np.where(b < 0, b - 0.5, b + 0.5).astype(dtype)) for a, b in pairs(rng, dtype)]


def powers(rng, dtype):
    return [(np.abs(a) + np.asarray(0.5, dtype), b) for a, b in pairs(rng, dtype)]


def fixed_powers(rng, dtype):
    return [
        (x, {"exponent": exponent})
        for (x,) in positive(rng, dtype)
        for exponent in (3, 2, 1, 0, -1, -2, 0.5, 1.7)
    ]


def wheres(rng, dtype):
    samples = [
        (a, b, {"condition": rng.random(np.broadcast_shapes(a.shape, b.shape)) < 0.5})
        for a, b in pairs(rng, dtype)
    ]
    return samples + [
        (*samples[3][:2], {"condition": np.array([[True], [False], [True]])}),
        (*samples[0][:2], {"condition": np.ones(3, bool)}),
    ]


def clips(rng, dtype):
    x = np.linspace(-2, 2, 8, dtype=dtype)
    samples = [(x, {"low": -1, "high": 1.5}) for (x,) in away_from(-1, 1.5)(rng, dtype)]
    return samples + [(x, {"low": 0.5}), (x, {"high": np.float64(0.1)})]


def ref_clip(x, low=None, high=None):
    y = x if low is None else np.where(x.real < low, low, x)
    return y if high is None else np.where(y.real > high, high, y)


def ref_maximum(a, b):
    return np.where(np.isnan(a) | (a.real > b.real), a, b)


def ref_minimum(a, b):
    return np.where(np.isnan(a) | (a.real < b.real), a, b)


def ref_sigmoid(x):
    e = np.exp(np.where(x.real < 0, x, -x))
    return np.where(x.real < 0, e, 1) / (1 + e)


def ref_softplus(x):
    return np.where(x.real > 0, x, 0) + np.log1p(np.exp(np.where(x.real > 0, -x, x)))


def ref_pow(x, exponent):
    return x * x if exponent == 2 else x**exponent


def one_input(function):
    name = function.__name__
    return [
        (lambda: function(None), TypeError, f"{name}: data must be numbers, got NoneType"),
        (lambda: function("text"), TypeError, f"{name}: data must be numbers, got str"),
        (
            lambda: function(np.arange(3)),
            TypeError,
            f"{name}: data has dtype int64, supported are float32 and float64",
        ),
        (lambda: function(np.ones(2, np.float16)), TypeError, f"{name}: data has dtype float16"),
        (lambda: function(np.ones(2, complex)), TypeError, f"{name}: data has dtype complex128"),
        (
            lambda: function(np.ma.masked_array([1.0, 2.0], [0, 1])),
            TypeError,
            f"{name}: data must not be a masked array",
        ),
        (lambda: function([[1.0], [1.0, 2.0]]), ValueError, f"{name}: data is ragged"),
    ]


def two_inputs(function):
    name = function.__name__
    x = mg.ones((2, 3))
    shapes = f"{name}: operands could not be broadcast together with shapes"
    return [
        (lambda: function(x, mg.ones((4, 5))), ValueError, rf"{shapes} \(2, 3\) \(4, 5\)"),
        (lambda: function(x, mg.ones(2)), ValueError, rf"{shapes} \(2, 3\) \(2,\)"),
        (
            lambda: function(x, mg.ones(3, np.float64)),
            TypeError,
            f"{name}: both operands must have one dtype, got float32 and",
        ),
        (lambda: function(x, None), TypeError, f"{name}: data must be numbers, got NoneType"),
        (lambda: function(None, x), TypeError, f"{name}: data must be numbers, got NoneType"),
        (lambda: function(x, 1j), TypeError, f"{name}: operands must be real, got complex"),
        (
            lambda: function(x, np.arange(3)),
            TypeError,
            f"{name}: data has dtype int64, supported are float32 and float64",
        ),
    ]


def unary(function, ref, samples, **options):
    return Op(
        function.__name__, function, ref, samples, one_input(function), elementwise=True, **options
    )


def binary(function, ref, samples, **options):
    return Op(
        function.__name__, function, ref, samples, two_inputs(function), elementwise=True, **options
    )


ROWS = [
    unary(mg.abs, lambda x: np.where(x.real < 0, -x, x), away_from(0)),
    unary(mg.neg, lambda x: -x, normal),
    unary(mg.exp, np.exp, normal),
    unary(mg.log, np.log, positive),
    unary(mg.sqrt, np.sqrt, positive),
    unary(mg.sin, np.sin, wide),
    unary(mg.cos, np.cos, wide),
    unary(mg.tanh, np.tanh, wide),
    unary(mg.sigmoid, ref_sigmoid, wide),
    unary(mg.softplus, ref_softplus, wide),
    unary(mg.relu, lambda x: np.where(np.isnan(x) | (x.real > 0), x, 0), away_from(0)),
    binary(mg.add, lambda a, b: a + b, pairs),
    binary(mg.sub, lambda a, b: a - b, pairs),
    binary(mg.mul, lambda a, b: a * b, pairs),
    binary(mg.div, lambda a, b: a / b, divisors),
    binary(mg.pow, lambda a, b: a**b, powers),
    binary(mg.maximum, ref_maximum, pairs_apart),
    binary(mg.minimum, ref_minimum, pairs_apart),
    Op(
        "pow[number]",
        lambda x, exponent: mg.pow(x, exponent),
        ref_pow,
        fixed_powers,
        [],
        elementwise=True,
    ),
    Op(
        "clip",
        mg.clip,
        ref_clip,
        clips,
        one_input(mg.clip)[:2]
        + [
            (lambda: mg.clip(mg.ones(2)), ValueError, "clip: low and high must not both be None"),
            (
                lambda: mg.clip(mg.ones(2), "0"),
                TypeError,
                "clip: low must be a number or None, got str",
            ),
            (
                lambda: mg.clip(mg.ones(2), high=mg.ones(2)),
                TypeError,
                "clip: high must be a number or None, got Tensor",
            ),
            (
                lambda: mg.clip(mg.ones(2), True),
                TypeError,
                "clip: low must be a number or None, got bool",
            ),
        ],
        elementwise=True,
    ),
    Op(
        "where",
        lambda a, b, condition: mg.where(condition, a, b),
        lambda a, b, condition: np.where(condition, a, b),
        wheres,
        [
            (
                lambda: mg.where([1, 0], mg.ones(2), 0),
                TypeError,
                "where: condition must be an array of bool, got int64",
            ),
            (
                lambda: mg.where(mg.ones(2), mg.ones(2), 0),
                TypeError,
                "where: condition must be an array of bool, got float32",
            ),
            (
                lambda: mg.where([True, False], mg.ones(2), mg.ones(3)),
                ValueError,
                "where: .*broadcast",
            ),
            (
                lambda: mg.where([True, False], mg.ones(2), mg.ones(2, np.float64)),
                TypeError,
                "where: .*one dtype",
            ),
            (
                lambda: mg.where([True, False], None, mg.ones(2)),
                TypeError,
                "where: data must be numbers, got NoneType",
            ),
        ],
    ),
]
