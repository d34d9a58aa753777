"""Reductions where the table of ops does not reach: ties, zeros, empty and one-element inputs,
infinities, axes, bits."""

import warnings

import numpy as np
import pytest

import minigrad as mg


def leaf(values):
    return mg.Tensor(values, dtype=np.float64, requires_grad=True)


def gradient(y, x, seed=None, **options):
    return mg.grad(y, x, seed, **options)[0]


# ---------------------------------------------------------------- empty, one element, infinite


def test_sum_and_product_of_nothing():
    assert mg.sum(mg.zeros((0,))).item() == 0 and mg.prod(mg.zeros((0,))).item() == 1
    assert mg.sum(mg.zeros((0, 2)), axis=0).tolist() == [0, 0]
    assert mg.logsumexp(mg.zeros((2, 0)), axis=1).tolist() == [-np.inf, -np.inf]


def test_mean_and_variance_of_too_few_are_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y in (
            mg.mean(mg.zeros(0)),
            mg.var(mg.zeros(0)),
            mg.var(mg.zeros(1), ddof=1),
            mg.mean(mg.zeros((0, 2)), axis=0),
        ):
            assert np.isnan(y.numpy()).all()
        assert mg.var(mg.Tensor([1.0, 3.0]), ddof=3).item() == np.inf  # as in NumPy: 2 / 0
    x = leaf(np.zeros((0, 2)))
    assert gradient(mg.mean(x), x).shape == (0, 2)


@pytest.mark.parametrize("op", [mg.softmax, mg.log_softmax], ids=["softmax", "log_softmax"])
def test_softmax_along_an_empty_axis(op):
    x = leaf(np.zeros((3, 0)))
    y = op(x)
    assert y.shape == (3, 0) and gradient(y, x, np.zeros((3, 0))).shape == (3, 0)
    assert op(x, axis=0).shape == (3, 0)


def test_extremes_of_an_empty_array_whose_result_is_empty():
    assert (
        mg.max(mg.zeros((0, 3)), axis=1).shape == mg.argmax(mg.zeros((0, 3)), axis=1).shape == (0,)
    )


def test_infinities():
    inf = np.inf
    assert (
        mg.logsumexp(mg.Tensor([-inf, -inf])).item() == -inf
        and mg.logsumexp(mg.Tensor([0.0, inf])).item() == inf
    )
    assert mg.logsumexp(mg.Tensor([-inf, 3.0])).item() == 3
    x = leaf([-inf, 1.0, 1.0])
    assert mg.softmax(x).tolist() == [0, 0.5, 0.5] and mg.log_softmax(x).tolist()[0] == -inf
    assert gradient(mg.logsumexp(x), x).tolist() == [0, 0.5, 0.5]
    assert gradient(mg.softmax(x), x, np.array([5.0, 1.0, 0.0])).tolist() == [0, 0.25, -0.25]
    assert gradient(mg.log_softmax(x), x, np.array([0.0, 1.0, 0.0])).tolist() == [0, 0.5, -0.5]
    assert (
        mg.max(mg.Tensor([-inf, -inf])).item() == -inf
        and mg.min(mg.Tensor([inf, inf])).item() == inf
    )


def test_large_arguments_do_not_overflow():
    x = mg.Tensor([1e4, 1e4, -1e4])
    np.testing.assert_allclose(mg.logsumexp(x).item(), 1e4 + np.log(2), rtol=1e-6)
    assert mg.softmax(x).tolist() == [0.5, 0.5, 0]
    np.testing.assert_allclose(
        mg.log_softmax(x).tolist(), [-np.log(2), -np.log(2), -2e4 - np.log(2)], rtol=1e-6
    )


# ---------------------------------------------------------------- ties and NaN


@pytest.mark.parametrize("op, sign", [(mg.max, 1), (mg.min, -1)], ids=["max", "min"])
def test_ties_share_the_gradient(op, sign):
    x = leaf(sign * np.array([[1.0, 7, 7, 7], [2, 2, 0, 1], [5, 4, 3, 2]]))
    dx = gradient(op(x, axis=1), x, np.array([3.0, 10, 1]))
    assert dx.tolist() == [[0, 1, 1, 1], [5, 5, 0, 0], [1, 0, 0, 0]]
    assert (
        gradient(op(x, axis=1, keepdims=True), x, np.array([[3.0], [10], [1]])).tolist()
        == dx.tolist()
    )
    assert gradient(op(x), x).numpy().sum() == 1
    dy = leaf([3.0, 10, 1])
    through = gradient(op(x, axis=1), x, dy, create_graph=True)
    assert gradient(through, dy, np.ones((3, 4))).tolist() == [1, 1, 1]


@pytest.mark.parametrize("op", [mg.max, mg.min], ids=["max", "min"])
def test_nan_wins_and_takes_the_gradient(op):
    x = leaf([1.0, np.nan, 9.0, np.nan])
    y = op(x)
    assert np.isnan(y.item()) and gradient(y, x).tolist() == [0, 0.5, 0, 0.5]


def test_argmax():
    x = np.array([[1.0, 5, 5], [np.nan, 7, np.nan]])
    found = mg.argmax(mg.Tensor(x), axis=1)
    assert type(found) is np.ndarray and found.dtype == np.int64 and found.tolist() == [1, 0]
    assert mg.argmax(mg.Tensor(x)).shape == () and mg.argmax(mg.Tensor(x)) == 3
    assert mg.argmax(mg.Tensor(x), axis=0, keepdims=True).tolist() == [[1, 1, 1]]


# ---------------------------------------------------------------- the product's gradient with zeros


@pytest.mark.parametrize("zeros", range(4))
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13])
def test_product_with_zeros(n, zeros):
    rng = np.random.default_rng(n)
    values = rng.normal(size=(2, n))
    for row in values:
        row[rng.permutation(n)[:zeros]] = 0
    x = leaf(values)
    dy = rng.normal(size=2)
    others = np.array([[np.prod(np.delete(row, i)) for i in range(n)] for row in values])
    dx = gradient(mg.prod(x, axis=1), x, dy)
    np.testing.assert_allclose(dx, dy[:, None] * others, rtol=1e-14)
    assert mg.gradgradcheck(lambda x: mg.prod(x, axis=1), x)
    assert mg.gradgradcheck(lambda x: mg.prod(x, axis=0), x)


def test_product_of_three_to_third_order():
    x = leaf([0.0, 0.0, 0.0])
    (dx,) = mg.grad(mg.prod(x), x, create_graph=True)
    (ddx,) = mg.grad(dx[0], x, create_graph=True)
    (dddx,) = mg.grad(ddx[1], x)
    assert dddx.tolist() == [0, 0, 1]


# ---------------------------------------------------------------- axes


def test_every_choice_of_axes():
    """All subsets of the axes of four dimensions: the values of NumPy, and the same bits for a
    transposed array."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 5))
    transposed = x.transpose(2, 0, 3, 1).copy().transpose(1, 3, 0, 2)
    assert not transposed.flags.c_contiguous
    for bits in np.ndindex(2, 2, 2, 2):
        axes = tuple(d for d in range(4) if bits[d])
        for keepdims in (False, True):
            for name in ("sum", "mean", "var", "prod", "max", "min"):
                y = getattr(mg, name)(mg.Tensor(x), axis=axes[::-1], keepdims=keepdims)
                z = getattr(np, name)(x, axis=axes, keepdims=keepdims)
                np.testing.assert_allclose(y, z, rtol=1e-12, atol=1e-14)
                other = getattr(mg, name)(
                    mg.Tensor(transposed, copy=False), axis=axes, keepdims=keepdims
                )
                assert y.shape == z.shape and y.numpy().tobytes() == other.numpy().tobytes(), (
                    name,
                    axes,
                )
        total = mg.softmax(mg.Tensor(x), axis=axes).sum(axis=axes)
        np.testing.assert_allclose(total, np.ones(total.shape), rtol=1e-14)


def test_a_row_has_the_bits_it_has_alone():
    x = np.random.default_rng(1).normal(size=(300, 70)).astype(np.float32)
    for op in (mg.sum, mg.mean, mg.var, mg.prod, mg.logsumexp, mg.softmax, mg.log_softmax):
        whole = op(mg.Tensor(x), axis=1).numpy()
        columns = op(mg.Tensor(np.ascontiguousarray(x.T)), axis=0).numpy()
        for i in range(300):
            alone = op(mg.Tensor(x[i]), axis=0).numpy()
            assert (
                whole[i].tobytes()
                == alone.tobytes()
                == np.ascontiguousarray(columns[..., i]).tobytes()
            ), op.__name__


def test_gradient_of_a_sum_is_spread():
    """The rule of sum gives dy with strides of zero; a hook, grad() and the leaf get memory that
    can be written to."""
    x = leaf(np.ones((1000, 1000)))
    seen = []
    y = x * 1
    y.register_hook(lambda dy: seen.append(dy))
    y.sum().backward()
    seen += [x.grad, *mg.grad(x.sum(), x)]
    for dx in seen:
        assert dx.numpy().strides == (8000, 8)
        dx[0, 0] = 5.0
        assert dx.numpy().sum() == 1000 * 1000 + 4


def test_methods():
    x = mg.Tensor([[1.0, 2.0], [4.0, 8.0]])
    for name in ("sum", "mean", "var", "prod", "max", "min", "logsumexp", "softmax", "log_softmax"):
        assert getattr(x, name)(axis=1).tolist() == getattr(mg, name)(x, axis=1).tolist()
    assert x.argmax(axis=1).tolist() == [1, 1]


def test_variance_far_from_zero():
    """Two passes: the mean is taken out first, so that a large mean costs no digits."""
    x = np.random.default_rng(2).normal(size=1000)
    np.testing.assert_allclose(
        mg.var(mg.Tensor(x + 2**30)).item(), np.var((x + 2**30) - 2**30), rtol=1e-9
    )


@pytest.mark.parametrize("ddof", [1, 2])
def test_the_variance_of_too_few_elements_is_nan_with_its_gradient(ddof):
    x = mg.Tensor([[3.0], [4.0]], dtype=np.float64, requires_grad=True)
    y = mg.var(x, axis=1, ddof=ddof)
    (dx,) = mg.grad(y, x, np.array([1.5, -0.5]))
    assert np.isnan(y.numpy()).all() and np.isnan(dx.numpy()).all()
