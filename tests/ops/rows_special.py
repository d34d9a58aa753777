"""Rows of the table of ops for minigrad/ops/special.pyx."""

import numpy as np
from op_table import shaped
from rows_elementwise import unary, wide

import minigrad as mg


def above_minus_1(rng, dtype):
    """Arguments of log1p: near -1, near 0 and large."""
    samples = shaped(rng, dtype, lambda rng, shape: rng.uniform(-0.95, 4, size=shape))
    return samples + [(samples[3][0] / 1000,), (1000 * (samples[3][0] + 1),)]


ROWS = [
    unary(mg.expm1, np.expm1, wide, ulps=2),
    unary(mg.log1p, np.log1p, above_minus_1, ulps=2),
]
