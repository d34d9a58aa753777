"""Matrix products: exact for whole numbers, within 8 u |A||B|, the same bits for every layout,
packed or not."""

import itertools

import numpy as np
import pytest

import minigrad as mg
from minigrad.core.kernels import PackedProduct

SIZES = list(itertools.product((1, 2, 5, 13, 25), (1, 3, 16, 33, 130), (1, 7, 16, 257, 300)))


def laid_out(x):
    """x in C order, Fortran order, and with strides of -2 and 2."""
    wide = np.zeros((2 * x.shape[0], 2 * x.shape[1]), x.dtype)
    view = wide[::-2, ::2]
    view[...] = x
    return x, np.asfortranarray(x), view


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_are_exact(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in SIZES:
        a, b = rng.integers(-8, 9, (m, k)), rng.integers(-8, 9, (k, n))
        product = mg.matmul(mg.Tensor(a.astype(dtype)), mg.Tensor(b.astype(dtype))).numpy()
        assert np.array_equal(product, (a @ b).astype(dtype)), (m, n, k)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_error_layouts_packing_and_rows(dtype):
    rng = np.random.default_rng(1)
    for m, n, k in SIZES:
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        first = mg.matmul(mg.Tensor(a), mg.Tensor(b)).numpy()
        exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
        assert (np.abs(first - exact) <= 4 * np.finfo(dtype).eps * (np.abs(a) @ np.abs(b))).all(), (
            m,
            n,
            k,
        )
        for left, right in itertools.product(laid_out(a), laid_out(b)):
            other = mg.matmul(mg.Tensor(left, copy=False), mg.Tensor(right, copy=False)).numpy()
            assert np.array_equal(first, other), (m, n, k)
        assert np.array_equal(first, PackedProduct(b)(a))
        assert np.array_equal(first[:1], mg.matmul(mg.Tensor(a[:1]), mg.Tensor(b)).numpy())
