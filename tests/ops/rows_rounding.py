"""Rows of the table of ops for minigrad/ops/rounding.py."""

import numpy as np
from op_table import Op
from rows_elementwise import away_from, one_input, unary

import minigrad as mg

between = away_from(-3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3)


def rounds(rng, dtype):
    plain = between(rng, dtype)
    return plain + [(100 * x, {"decimals": d}) for d in (1, -1, 300, -300) for (x,) in plain[:5]]


def ref_round(x, decimals=0):
    if decimals == 300:
        return x.real
    if decimals == -300:
        return np.where(np.isinf(x.real), x.real, 0 * x.real)
    return np.round(x.real, decimals)


ROWS = [
    unary(mg.sign, lambda x: np.sign(x.real), between),
    unary(mg.floor, lambda x: np.floor(x.real), between),
    unary(mg.ceil, lambda x: np.ceil(x.real), between),
    Op(
        "round",
        mg.round,
        ref_round,
        rounds,
        one_input(mg.round)
        + [
            (lambda: mg.round(1.5, 0.5), TypeError, "round: decimals must be an int, got float"),
            (lambda: mg.round(1.5, True), TypeError, "round: decimals must be an int, got bool"),
            (lambda: mg.round(1.5, None), TypeError, "round: decimals must be an int, got NoneT"),
            (lambda: mg.round(1.5, 301), ValueError, "round: decimals must be at most 300, got 3"),
            (
                lambda: mg.round(1.5, -301),
                ValueError,
                "round: decimals must be at least -300, got -301",
            ),
        ],
        elementwise=True,
    ),
]
