"""The table of ops: one row for each says what it computes and how it refuses; test_ops.py runs
every row through the same tests.

The rows are in rows_<module>.py, each with a list ROWS. A row, here with everything that most rows
leave out:

    Op("sum", mg.sum, lambda x, axis=None: x.sum(axis),
       samples=lambda rng, dtype: [(rng.normal(size=(3, 4)).astype(dtype), {"axis": 0}),
       (np.zeros((0, 2), dtype),)], errors=[(lambda: mg.sum(None), TypeError, "data must be numbers,
       got NoneType"), ...], ulps=64)
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Op:
    """One op, or one use of an op: the public name with a word in brackets, `matmul[vector]`."""

    name: str
    # Takes the Tensors (and the keyword arguments) of a sample; gives a Tensor or a tuple of them.
    fn: Callable
    # The same in NumPy, on arrays, by the formula itself; takes complex arrays when `analytic`.
    ref: Callable
    # samples(rng, dtype): tuples of float arrays, a last dict holding keyword arguments.
    samples: Callable
    # (call without arguments, exception, regular expression of the message); 3 for a public name.
    errors: list
    # ref is exact in the complex step; else gradients are held to differences of fn itself.
    analytic: bool = True
    # y[p] depends on the inputs at p only: held to all lengths and pairs of shapes.
    elementwise: bool = False
    # False: fn gives NumPy arrays (argmax).
    differentiable: bool = True
    # Documented to look at its input's memory.
    view: bool = False
    # Some sample has an array of size 0; False where the op refuses them.
    empty: bool = True
    # Allowed error, in epsilons of the dtype times the element if `elementwise`, else the largest.
    ulps: float = 16
    # NaNs come out where ref has them for infinite inputs too, not only for NaN ones.
    infinities: bool = True

    def __str__(self):
        return self.name

    @property
    def public(self) -> str:
        return self.name.partition("[")[0]


SHAPES = [(), (1,), (5,), (3, 4), (2, 1, 3), (2, 0, 3), (33,)]


def shaped(rng, dtype, draw, count=1):
    """Samples for an elementwise op: for each of SHAPES a tuple of `count` arrays, drawn by
    draw(rng, shape)."""
    return [tuple(np.asarray(draw(rng, shape), dtype) for _ in range(count)) for shape in SHAPES]


def split(sample):
    """The arrays and the keyword arguments of a sample."""
    arrays, options = (sample[:-1], sample[-1]) if isinstance(sample[-1], dict) else (sample, {})
    return [np.asarray(array) for array in arrays], options


def rows():
    """All rows of all rows_*.py."""
    return [
        row
        for path in sorted(Path(__file__).parent.glob("rows_*.py"))
        for row in importlib.import_module(path.stem).ROWS
    ]
