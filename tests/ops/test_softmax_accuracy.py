"""The softmax family and the losses over classes against mpmath: errors in units in the last place
of the exact result for the inputs as they are, at logits of any size; and rows that hold infinities
or NaN, as PyTorch has them."""

import numpy as np
import pytest

import minigrad as mg

mpmath = pytest.importorskip("mpmath")
mpmath.mp.prec = 2000  # exp(-1e17) is a number here

OFFSETS = [0.0, 100.0, 1e5, 1e8, 1e17, -1e8]
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_offset = pytest.mark.parametrize("offset", OFFSETS)
inf, nan = np.inf, np.nan


def logits(dtype, offset, rng):
    """Rows of four kinds: near to each other, far apart, one that dominates, ties of the
    largest."""
    x = rng.normal(size=(8, 7)) * np.array([1, 1, 10, 10, 3, 3, 1, 0])[:, None]
    x[4, 2] += 12
    x[5, 6] += 25
    x[6, [1, 3]] = 4
    return (x + offset).astype(dtype)


def exact_softmax(row):
    values = [mpmath.mpf(float(v)) for v in row]
    top = max(values)
    e = [mpmath.exp(v - top) for v in values]
    total = mpmath.fsum(e)
    return [v / total for v in e], top + mpmath.log(total), values


def ulps(found, exact, dtype):
    """How far `found` is from the mpmath numbers `exact`, each in units in the last place of it;
    subnormals count as 0."""
    tiny = float(np.finfo(dtype).tiny)
    worst = 0.0
    for value, z in zip(np.ravel(found), exact, strict=True):
        unit = np.spacing(dtype(max(abs(float(z)), tiny)))
        worst = max(worst, abs(float((mpmath.mpf(float(value)) - z) / mpmath.mpf(float(unit)))))
    return worst


def spread(x):
    """How far the logits are apart: exp(x - m) has an error of half of that in ulps, where x - m
    must be rounded."""
    return np.max(x.max(-1, keepdims=True) - x, initial=0)


@each_dtype
@each_offset
def test_cross_entropy_and_its_gradient(dtype, offset):
    """Also of the target that dominates: its gradient is -(what the others have), not a difference
    of 1 and nearly 1."""
    rng = np.random.default_rng(1)
    x = logits(dtype, offset, rng)
    for target in (np.argmax(x, -1), rng.integers(0, 7, 8)):
        t = mg.Tensor(x, requires_grad=True)
        losses = mg.cross_entropy(t, target, reduction="none")
        scale = rng.uniform(1, 2, 8).astype(dtype)
        (fused,) = mg.grad(losses, t, scale, retain_graph=True)
        (again,) = mg.grad(losses, t, scale, create_graph=True)
        assert fused.numpy().tobytes() == again.numpy().tobytes()
        for i, row in enumerate(x):
            p, lse, values = exact_softmax(row)
            assert ulps(losses.numpy()[i], [lse - values[target[i]]], dtype) <= 4 + spread(row)
            others = [mpmath.fsum(q for k, q in enumerate(p) if k != c) for c in range(7)]
            exact = [
                mpmath.mpf(float(scale[i])) * (-others[c] if c == target[i] else p[c])
                for c in range(7)
            ]
            assert ulps(fused.numpy()[i], exact, dtype) <= 5 + spread(row)


@each_dtype
@each_offset
def test_softmax_log_softmax_and_logsumexp(dtype, offset):
    x = logits(dtype, offset, np.random.default_rng(2))
    t = mg.Tensor(x, requires_grad=True)
    y, z, lse = mg.softmax(t), mg.log_softmax(t), mg.logsumexp(t, -1)
    weights = np.random.default_rng(3).uniform(1, 2, 8).astype(dtype)
    (of_lse,) = mg.grad(lse, t, weights)
    dy = np.random.default_rng(4).normal(size=x.shape).astype(dtype)
    of_log, of_softmax = mg.grad(z, t, dy)[0].numpy(), mg.grad(y, t, dy)[0].numpy()
    eps = np.finfo(dtype).eps
    for i, row in enumerate(x):
        p, exact_lse, values = exact_softmax(row)
        far = spread(row)
        assert ulps(y.numpy()[i], p, dtype) <= 4 + far
        assert ulps(z.numpy()[i], [v - exact_lse for v in values], dtype) <= 4 + far
        assert ulps(lse.numpy()[i], [exact_lse], dtype) <= 2 + abs(
            float(max(row))
        ) * eps / np.spacing(abs(dtype(exact_lse)))
        assert (
            ulps(of_lse.numpy()[i], [mpmath.mpf(float(weights[i])) * q for q in p], dtype)
            <= 5 + far
        )
        # Differences of cotangents: right to a few ulps of the largest of them.
        cotangent = [mpmath.mpf(float(v)) for v in dy[i]]
        total, dot = (
            mpmath.fsum(cotangent),
            mpmath.fsum(q * v for q, v in zip(p, cotangent, strict=True)),
        )
        bound = (8 + 2 * far) * eps * max(1, float(np.abs(dy[i]).sum()))
        exact = [float(v - q * total) for q, v in zip(p, cotangent, strict=True)]
        assert np.abs(of_log[i] - exact).max() <= bound
        exact = [float(q * (v - dot)) for q, v in zip(p, cotangent, strict=True)]
        assert np.abs(of_softmax[i] - exact).max() <= bound


def test_equal_logits_of_any_size_share_the_gradient():
    for dtype, size in [
        (np.float64, 1e17),
        (np.float64, 1e300),
        (np.float32, 1e8),
        (np.float32, 3e38),
        (np.float64, -1e17),
    ]:
        x = mg.Tensor(np.array([[size, size]], dtype), requires_grad=True)
        assert mg.grad(mg.cross_entropy(x, [0]), x)[0].tolist() == [[-0.5, 0.5]]
        assert mg.grad(mg.nll(mg.log_softmax(x), [0]), x)[0].tolist() == pytest.approx(
            np.array([[-0.5, 0.5]]), rel=1e-6
        )


@each_dtype
def test_options_do_not_lose_digits(dtype):
    """Class weights, ignored targets and the mean at an offset of 1e5: against float64 of the
    logits without it."""
    rng = np.random.default_rng(5)
    x = (np.round(64 * rng.normal(size=(6, 5))) / 64 + 1e5).astype(dtype)  # exact in float32
    target, weight = np.array([0, 4, -100, 2, 2, 1]), rng.uniform(0.5, 2, 5).astype(dtype)
    near = mg.Tensor(x.astype(np.float64) - 1e5, requires_grad=True)
    for options in (
        {},
        {"weight": weight.tolist()},
        {"weight": weight.tolist(), "reduction": "sum"},
    ):
        far = mg.Tensor(x, requires_grad=True)
        loss, expected = (
            mg.cross_entropy(far, target, **options),
            mg.cross_entropy(near, target, **options),
        )
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=8 * np.finfo(dtype).eps)
        np.testing.assert_allclose(
            mg.grad(loss, far)[0], mg.grad(expected, near)[0], rtol=16 * np.finfo(dtype).eps
        )


@each_dtype
def test_binary_cross_entropy_softplus_and_sigmoid(dtype):
    """The gradient of the loss is right relative to its larger part; a part that is exactly 0
    leaves the other alone."""
    x = np.array([0, 1, -1, 8, -8, 17, -17, 40, -40, 80, -80, 1e5, -1e5, 1e17, -1e17], dtype)
    exact = [mpmath.mpf(float(v)) for v in x]
    softplus = [mpmath.log1p(mpmath.exp(v)) if v < 700 else v for v in exact]
    sigmoid = [1 / (1 + mpmath.exp(-v)) if v > -700 else mpmath.exp(v) for v in exact]
    t = mg.Tensor(x, requires_grad=True)
    assert ulps(mg.softplus(t).numpy(), softplus, dtype) <= 2
    ones = np.ones(len(x), dtype)
    for create_graph in (False, True):
        assert (
            ulps(
                mg.grad(mg.softplus(t), t, ones, create_graph=create_graph)[0].numpy(),
                sigmoid,
                dtype,
            )
            <= 2
        )
        for target in (0, 1):
            losses = mg.binary_cross_entropy_with_logits(
                t, np.full(len(x), target, dtype), reduction="none"
            )
            (dx,) = mg.grad(losses, t, ones, create_graph=create_graph)
            signed = [v if target == 0 else -v for v in exact]
            value = [mpmath.log1p(mpmath.exp(v)) if v < 700 else v for v in signed]
            slope = [1 / (1 + mpmath.exp(-v)) if v > -700 else mpmath.exp(v) for v in signed]
            assert ulps(losses.numpy(), value, dtype) <= 3
            assert ulps(dx.numpy(), slope if target == 0 else [-v for v in slope], dtype) <= 3


def test_second_and_third_order_of_cross_entropy():
    rng = np.random.default_rng(6)
    target = np.array([0, -100, 3, 2])
    x = mg.Tensor(rng.normal(size=(4, 5)), requires_grad=True)
    for options in (
        {"reduction": "none"},
        {"weight": rng.uniform(0.5, 2, 5)},
        {"reduction": "sum"},
    ):

        def loss(x, options=options):
            return mg.cross_entropy(x, target, **options)

        assert mg.gradgradcheck(loss, x)

        def first(x, loss=loss):
            with mg.enable_grad():
                y = loss(x)
                return mg.grad(y, x, np.linspace(1, 2, y.size).reshape(y.shape), create_graph=True)[
                    0
                ]

        assert mg.gradgradcheck(first, x)


def test_an_ignored_row_may_hold_anything_at_second_order():
    x = mg.Tensor([[1.0, 2.0], [nan, inf]], requires_grad=True)
    (dx,) = mg.grad(mg.cross_entropy(x, [0, -100], reduction="sum"), x, create_graph=True)
    (ddx,) = mg.grad(dx, x, np.array([[1.0, 0.5], [0.25, 2.0]], np.float32))
    assert (
        np.isfinite(ddx.numpy()).all() and ddx.tolist()[1] == [0, 0] and ddx.tolist()[0] != [0, 0]
    )


# ---------------------------------------------------------------- infinities and NaN

ROWS = {
    "masked": [1.0, 2.0, -inf],
    "+inf": [1.0, inf, 2.0],
    "all -inf": [-inf] * 3,
    "NaN": [1.0, nan, 2.0],
    "two +inf": [inf, inf, 0.0],
    "both": [inf, -inf, 0.0],
    "one class left": [-inf, 3.0, -inf],
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_rows_with_infinities_or_nan(row):
    """A class that is -inf has the probability 0 and, unless it is the target, no gradient; +inf,
    NaN and nothing but -inf make the whole row NaN: PyTorch's values."""
    spoiled = nan in row or inf in row or row == [-inf] * 3
    x = mg.Tensor(row, dtype=np.float64, requires_grad=True)
    dy = np.array([1.0, 2.0, 3.0])
    with np.errstate(all="ignore"):
        e = np.exp(np.array(row) - max(row))
        p = np.full(3, nan) if spoiled else e / e.sum()
        log_p = np.log(p)
        expected = {"softmax": p, "log_softmax": log_p}
    for name, y in (("softmax", mg.softmax(x)), ("log_softmax", mg.log_softmax(x))):
        np.testing.assert_allclose(y, expected[name], rtol=1e-15, atol=1e-16)
    np.testing.assert_allclose(
        mg.grad(mg.softmax(x), x, dy)[0], p * (dy - (p * dy).sum()), rtol=1e-14
    )
    np.testing.assert_allclose(mg.grad(mg.log_softmax(x), x, dy)[0], dy - p * dy.sum(), rtol=1e-14)
    lse = (
        nan
        if nan in row
        else inf
        if inf in row
        else -inf
        if row == [-inf] * 3
        else max(row) + np.log(e.sum())
    )
    np.testing.assert_allclose(mg.logsumexp(x).item(), lse, rtol=1e-15)
    np.testing.assert_allclose(mg.grad(mg.logsumexp(x), x)[0], p, rtol=1e-14)
    for target in range(3):
        for create_graph in (False, True):
            loss = mg.cross_entropy(x, target)
            np.testing.assert_allclose(loss.item(), abs(log_p[target]), rtol=1e-15, atol=1e-16)
            (dx,) = mg.grad(loss, x, create_graph=create_graph)
            np.testing.assert_allclose(dx, p - (np.arange(3) == target), rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_rows_with_infinities_or_nan_in_pytorch(row):
    torch = pytest.importorskip("torch")
    for target in range(3):
        theirs = torch.tensor([row], dtype=torch.float64, requires_grad=True)
        ours = mg.Tensor([row], dtype=np.float64, requires_grad=True)
        loss, y = (
            torch.nn.functional.cross_entropy(theirs, torch.tensor([target])),
            mg.cross_entropy(ours, [target]),
        )
        np.testing.assert_allclose(y.item(), loss.item(), rtol=1e-14)
        np.testing.assert_allclose(
            mg.grad(y, ours)[0], torch.autograd.grad(loss, theirs)[0], rtol=1e-14, atol=1e-16
        )
        for name in ("softmax", "log_softmax"):
            np.testing.assert_allclose(
                getattr(mg, name)(ours),
                getattr(torch, name)(theirs, -1).detach(),
                rtol=1e-14,
                atol=1e-16,
            )
