"""Rows of the table of ops for minigrad/ops/activations.py."""

import math

import numpy as np
from op_table import Op
from rows_elementwise import away_from, normal, one_input, ref_sigmoid, unary, wide

import minigrad as mg


def with_tails(rng, dtype):
    """Arguments of gelu, no further out than math.erfc of a rounded argument is exact enough."""
    samples = normal(rng, dtype)
    return samples + [(1.5 * samples[3][0],), (samples[3][0] / 100,)]


def with_option(samples, name, *values):
    """Each sample without the option, and with each value of it."""

    def drawn(rng, dtype):
        plain = samples(rng, dtype)
        return plain + [(x, {name: value}) for value in values for (x,) in plain]

    return drawn


def ref_gelu(x, approximate="none"):
    if approximate == "tanh":
        return x * ref_sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    below = np.vectorize(lambda z: math.erfc(-z / math.sqrt(2)) / 2, otypes=[float])(x.real)
    density = np.exp(-x.real * x.real / 2) / math.sqrt(2 * math.pi)
    return x * (below + 1j * x.imag * density) if np.iscomplexobj(x) else x * below


def ref_elu(x, alpha=1.0):
    return np.where(x.real > 0, x, alpha * np.expm1(np.where(x.real > 0, 0, x)))


def ref_leaky_relu(x, negative_slope=0.01):
    return np.where(x.real > 0, x, negative_slope * x)


def refuses_no_number(function, name):
    """The errors of an option that must be a finite number."""
    op = function.__name__
    return [
        (lambda: function(1.0, "1"), TypeError, f"{op}: {name} must be a number, got str"),
        (lambda: function(1.0, True), TypeError, f"{op}: {name} must be a number, got bool"),
        (lambda: function(1.0, mg.ones(1)), TypeError, f"{op}: {name} must be a number, got Tens"),
        (lambda: function(1.0, math.inf), ValueError, f"{op}: {name} must be finite, got inf"),
        (lambda: function(1.0, -math.inf), ValueError, f"{op}: {name} must be finite, got -inf"),
        (lambda: function(1.0, math.nan), ValueError, f"{op}: {name} must be finite, got nan"),
    ]


ROWS = [
    unary(mg.silu, lambda x: x * ref_sigmoid(x), wide),
    Op(
        "gelu",
        mg.gelu,
        ref_gelu,
        with_option(with_tails, "approximate", "none"),
        one_input(mg.gelu)
        + [
            (
                lambda: mg.gelu(1.0, "erf"),
                ValueError,
                "gelu: approximate must be 'none' or 'tanh', got 'erf'",
            ),
            (
                lambda: mg.gelu(1.0, approximate=True),
                TypeError,
                "gelu: approximate must be 'none' or 'tanh', got bool",
            ),
            (
                lambda: mg.gelu(1.0, None),
                TypeError,
                "gelu: approximate must be 'none' or 'tanh', got NoneType",
            ),
        ],
        elementwise=True,
    ),
    Op(
        "gelu[tanh]",
        lambda x: mg.gelu(x, "tanh"),
        lambda x: ref_gelu(x, "tanh"),
        normal,
        [],
        elementwise=True,
    ),
    Op(
        "elu",
        mg.elu,
        ref_elu,
        with_option(away_from(0), "alpha", 0.3, -2, np.float64(1.5)),
        one_input(mg.elu) + refuses_no_number(mg.elu, "alpha"),
        elementwise=True,
    ),
    Op(
        "leaky_relu",
        mg.leaky_relu,
        ref_leaky_relu,
        with_option(away_from(0), "negative_slope", 0, 0.25, -1),
        one_input(mg.leaky_relu) + refuses_no_number(mg.leaky_relu, "negative_slope"),
        elementwise=True,
    ),
]
