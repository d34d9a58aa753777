"""Rows of the table of ops for minigrad/ops/matmul.pyx."""

import numpy as np
from op_table import Op

import minigrad as mg

MATRICES = [
    ((1, 1), (1, 1)),
    ((3, 4), (4, 2)),
    ((1, 5), (5, 3)),
    ((4, 3), (3, 1)),
    ((17, 9), (9, 33)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((2, 3), (3, 0)),
]
BATCHES = [
    ((2, 3, 4), (4, 2)),
    ((3, 4), (2, 4, 2)),
    ((2, 3, 4), (2, 4, 2)),
    ((2, 1, 3, 4), (3, 4, 2)),
    ((1, 3, 4), (2, 4, 2)),
    ((2, 1, 1, 4), (1, 3, 4, 2)),
    ((0, 3, 4), (4, 2)),
]
VECTORS = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 4, 3), (3,)),
    ((3,), (2, 3, 4)),
    ((0,), (0,)),
    ((0,), (0, 2)),
    ((0, 3), (3,)),
]
SUMS = [
    ((2,), (3, 4), (4, 2)),
    ((), (3, 4), (4, 2)),
    ((3, 1), (3, 4), (4, 2)),
    ((3, 2), (3, 4), (4, 2)),
    ((33,), (17, 9), (9, 33)),
    ((2,), (2, 3, 4), (4, 2)),
    ((2, 1, 2), (2, 3, 4), (4, 2)),
    ((2,), (0, 4), (4, 2)),
    ((2,), (3, 0), (0, 2)),
]


def arrays(shapes):
    return lambda rng, dtype: [
        tuple(rng.normal(size=shape).astype(dtype) for shape in sample) for sample in shapes
    ]


def ones(*shape, dtype=np.float32):
    return mg.ones(shape, dtype)


DTYPES = "both operands must have one dtype, got float32 and float64"
ROWS = [
    Op(
        "matmul",
        mg.matmul,
        np.matmul,
        arrays(MATRICES),
        [
            (
                lambda: mg.matmul(ones(2, 3), ones(4, 5)),
                ValueError,
                "matmul: shapes cannot be multiplied: 2x3 and 4x5",
            ),
            (
                lambda: mg.matmul(ones(2, 3, 4), ones(3, 4, 5)),
                ValueError,
                r"matmul: batch dimensions could not be broadcast together with shapes \(2, 3, 4\) "
                r"\(3, 4, 5\)",
            ),
            (
                lambda: mg.matmul(ones(3), ones(2)),
                ValueError,
                "matmul: shapes cannot be multiplied: 3 and 2",
            ),
            (
                lambda: mg.matmul(ones(), ones(2)),
                ValueError,
                r"matmul: both operands must have at least one dimension, got shapes \(\) and "
                r"\(2,\)",
            ),
            (
                lambda: mg.matmul(ones(2, 3), ones(3, 2, dtype=np.float64)),
                TypeError,
                f"matmul: {DTYPES}",
            ),
            (
                lambda: mg.matmul(None, ones(2)),
                TypeError,
                "matmul: data must be numbers, got NoneType",
            ),
            (
                lambda: mg.matmul(ones(2), np.arange(2)),
                TypeError,
                "matmul: data has dtype int64, supported are float32 and float64",
            ),
        ],
    ),
    Op("matmul[batch]", mg.matmul, np.matmul, arrays(BATCHES), []),
    Op("matmul[vector]", mg.matmul, np.matmul, arrays(VECTORS), []),
    Op(
        "addmm",
        mg.addmm,
        lambda c, a, b: c + a @ b,
        arrays(SUMS),
        [
            (
                lambda: mg.addmm(ones(2), ones(3, 4), ones(5, 2)),
                ValueError,
                "addmm: shapes cannot be multiplied: 3x4 and 5x2",
            ),
            (
                lambda: mg.addmm(ones(3), ones(3, 4), ones(4, 2)),
                ValueError,
                r"addmm: c must broadcast to the product's shape \(3, 2\), got \(3,\)",
            ),
            (
                lambda: mg.addmm(ones(2), ones(4), ones(4, 2)),
                ValueError,
                "addmm: a must have at least 2 dimensions and b",
            ),
            (
                lambda: mg.addmm(ones(2, dtype=np.float64), ones(3, 4), ones(4, 2)),
                TypeError,
                f"addmm: {DTYPES}",
            ),
            (
                lambda: mg.addmm(None, ones(3, 4), ones(4, 2)),
                TypeError,
                "addmm: data must be numbers, got NoneType",
            ),
        ],
    ),
]
