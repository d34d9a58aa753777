"""Losses where the table of ops does not reach: their identities, extreme arguments, nothing to
average, targets in memory."""

import warnings

import numpy as np
import pytest

import minigrad as mg

rng = np.random.default_rng(5)


def leaf(values):
    return mg.Tensor(values, dtype=np.float64, requires_grad=True)


def test_cross_entropy_is_nll_of_log_softmax():
    x, target, weight = (
        rng.normal(size=(4, 3, 6)),
        rng.integers(0, 6, (4, 3)),
        rng.uniform(0.5, 2, 6),
    )
    target[1, 1] = 42
    for reduction in ("mean", "sum", "none"):
        for w in (None, weight):
            options = {"weight": w, "ignore_index": 42, "reduction": reduction}
            one, other = leaf(x), leaf(x)
            y, z = (
                mg.cross_entropy(one, target, **options),
                mg.nll(mg.log_softmax(other), target, **options),
            )
            np.testing.assert_allclose(y, z, rtol=1e-14, atol=1e-15)
            v = rng.normal(size=y.shape)
            np.testing.assert_allclose(
                mg.grad(y, one, v)[0], mg.grad(z, other, v)[0], rtol=1e-13, atol=1e-15
            )


def test_ignored_targets_have_no_loss_and_no_gradient_whatever_their_logits():
    x = leaf([[1.0, 2.0], [np.nan, np.inf], [0.0, 0.0]])
    target = np.array([0, -100, 1])
    losses = mg.cross_entropy(x, target, reduction="none")
    assert losses.tolist()[1] == 0 and np.isfinite(losses.numpy()).all()
    for create_graph in (False, True):
        (dx,) = mg.grad(losses, x, np.ones(3), create_graph=create_graph, retain_graph=True)
        assert dx.tolist()[1] == [0, 0] and np.isfinite(dx.numpy()).all()
    assert mg.nll(x, target, reduction="none").tolist()[1] == 0
    np.testing.assert_allclose(
        mg.cross_entropy(x, target).item(), losses.numpy().sum() / 2, rtol=1e-15
    )


def test_ignore_index_may_be_a_class():
    x = rng.normal(size=(3, 4))
    y = mg.cross_entropy(mg.Tensor(x), [0, 2, 3], ignore_index=0)
    np.testing.assert_allclose(
        y.item(), mg.cross_entropy(mg.Tensor(x[1:]), [2, 3]).item(), rtol=1e-14
    )


@pytest.mark.parametrize(
    "kind",
    [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">i4"],
)
def test_targets_of_every_int_type(kind):
    x = leaf(rng.normal(size=(5, 3)))
    plain = np.array([0, 2, 1, 2, 0])
    expected = mg.cross_entropy(x, plain, ignore_index=1)
    target = plain.astype(kind)
    for op in (mg.cross_entropy, mg.nll):
        y = op(x, target, ignore_index=1)
        assert np.isfinite(mg.grad(y, x)[0].numpy()).all()
    assert mg.cross_entropy(x, target, ignore_index=1).item() == expected.item()
    strided = np.repeat(target, 2)[::2]
    assert mg.cross_entropy(x, strided, ignore_index=1).item() == expected.item()


def test_targets_may_change_after_the_call():
    x, target = leaf(rng.normal(size=(3, 4))), np.array([0, 1, 2])
    for op in (mg.cross_entropy, mg.nll):
        expected = mg.grad(op(x, target.copy()), x)[0].tolist()
        y = op(x, target)
        target[:] = 10**9
        assert mg.grad(y, x)[0].tolist() == expected
        target[:] = [0, 1, 2]


def test_mean_of_nothing_is_nan_and_its_sum_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty, none = mg.zeros((0, 3)), np.zeros(0, int)
        for op in (mg.cross_entropy, mg.nll):
            assert np.isnan(op(empty, none).item()) and op(empty, none, reduction="sum").item() == 0
            assert op(empty, none, reduction="none").shape == (0,)
            assert np.isnan(op(mg.ones((2, 3)), [-100, -100]).item())
            assert np.isnan(op(mg.ones((1, 3)), [0], weight=[0.0, 1.0, 1.0]).item())
        for op in (mg.mse, mg.huber, mg.binary_cross_entropy_with_logits):
            assert (
                np.isnan(op(empty, empty).item()) and op(empty, empty, reduction="sum").item() == 0
            )


def test_cross_entropy_of_extreme_logits():
    x = leaf([[1e4, -1e4], [1e4, -1e4], [-np.inf, 0.0]])
    y = mg.cross_entropy(x, [0, 1, 1], reduction="none")
    assert y.tolist() == [0, 2e4, 0]
    assert mg.grad(y, x, np.ones(3))[0].tolist() == [[0, 0], [1, -1], [0, 0]]


def test_binary_cross_entropy_keeps_the_digits_of_small_losses():
    """-log sigmoid(x) is e^-x for large x: softplus(x) - x would be 0 from x = 37 on."""
    x = leaf([50.0, -50.0, 700.0, -1000.0, 1000.0])
    y = mg.binary_cross_entropy_with_logits(x, [1.0, 0.0, 1.0, 1.0, 0.0], reduction="none")
    np.testing.assert_allclose(
        y, [np.exp(-50.0), np.exp(-50.0), np.exp(-700.0), 1000, 1000], rtol=1e-14
    )
    np.testing.assert_allclose(
        mg.grad(y, x, np.ones(5))[0],
        [-np.exp(-50.0), np.exp(-50.0), -np.exp(-700.0), -1, 1],
        rtol=1e-14,
    )


def test_huber_meets_mse_and_absolute_error():
    x, t = rng.normal(size=50), rng.normal(size=50)
    np.testing.assert_allclose(
        mg.huber(mg.Tensor(x), t, delta=100).item(), mg.mse(mg.Tensor(x), t).item() / 2, rtol=1e-14
    )
    np.testing.assert_allclose(
        mg.huber(mg.Tensor(x), t, delta=1e-9).item() / 1e-9, abs(x - t).mean(), rtol=1e-8
    )
    d = leaf([-2.0, -1.0, 1.0, 2.0, np.inf, -np.inf])
    y = mg.huber(d, np.zeros(6), reduction="none")
    assert y.tolist() == [1.5, 0.5, 0.5, 1.5, np.inf, np.inf] and mg.grad(y, d, np.ones(6))[
        0
    ].tolist() == [-1, -1, 1, 1, 1, -1]


def test_the_gradient_reaches_the_targets_of_numbers():
    for op in (mg.mse, mg.huber, mg.binary_cross_entropy_with_logits):
        x, target = leaf(rng.normal(size=4)), leaf(rng.uniform(0.1, 0.9, size=4))
        assert mg.gradcheck(op, [x, target]) and mg.gradgradcheck(op, [x, target])


def test_a_bad_target_leaves_everything_as_it_was():
    x, target = leaf(rng.normal(size=(2, 3))), np.array([0, 3])
    before = x.numpy().copy()
    with pytest.raises(IndexError, match=r"cross_entropy: target\[1\] .* got 3"):
        mg.cross_entropy(x, target)
    assert x.grad is None and (x.numpy() == before).all() and target.tolist() == [0, 3]
