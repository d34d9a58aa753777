"""vjp, jvp, jacobian, hvp and hessian: against closed forms, against each other, and against JAX's
numbers (tests/fixtures/derivatives/make.py)."""

from pathlib import Path

import numpy as np
import pytest

import minigrad as mg

JAX = np.load(Path(__file__).parents[1] / "fixtures" / "derivatives" / "jax_derivatives.npz")
T, B, I, H = 4, 2, 3, 3
LENGTHS = [4, 2]


def leaf(*values):
    return mg.Tensor(np.array(values), requires_grad=True)


def close(t, *values):
    return not t.requires_grad and np.array_equal(t.numpy().ravel(), np.array(values).ravel())


def near(t, expected):
    expected = np.asarray(expected)
    scale = np.abs(expected).max()
    return t.shape == expected.shape and np.abs(t.numpy() - expected).max() <= 1e-12 * scale


# ---------------------------------------------------------------- the functions of make.py


def smooth(a, b):
    y = mg.tanh(a @ b) * mg.exp(-a[:, :1])
    return y, mg.logsumexp(y * b.sum(), axis=1)


def smooth_scalar(a, b):
    y, z = smooth(a, b)
    return (y**3).sum() + (mg.sin(z) * z).mean()


def fused(layer):
    """The layer as a function of its input and weights."""
    (cell,) = layer.cells
    lengths = LENGTHS if isinstance(layer, mg.nn.LSTM) else None

    def run(x, W, U, b):
        cell.W, cell.U, cell.b = W, U, b
        return layer(x, lengths=lengths)[0]

    return run


def op_by_op(layer):
    """The same by its cell, step by step."""
    (cell,) = layer.cells
    lengths = LENGTHS if isinstance(layer, mg.nn.LSTM) else None

    def run(x, W, U, b):
        cell.W, cell.U, cell.b = W, U, b
        return mg.nn.unroll(cell, x, lengths=lengths)[0]

    return run


def weighted(fn, weight):
    """The sum of what fn returns, with weights: a scalar."""
    return lambda *inputs: (fn(*inputs) * weight).sum()


LAYERS = {"lstm": mg.nn.LSTM(I, H, dtype="float64"), "gru": mg.nn.GRU(I, H, dtype="float64")}
CASES = {
    "smooth": (smooth, smooth_scalar),
    **{
        f"{name}-{form.__name__}": (form(layer), weighted(form(layer), JAX[f"{name}/weight"]))
        for name, layer in LAYERS.items()
        for form in (fused, op_by_op)
    },
}
each_case = pytest.mark.parametrize("case", CASES)


def numbers(case, kind):
    """What JAX says: the parts of one kind."""
    prefix = f"{case.split('-')[0]}/{kind}/"
    count = sum(key.startswith(prefix) and key.count("/") == 2 for key in JAX.files)
    return [JAX[f"{prefix}{i}"] for i in range(count)]


def inputs_of(case):
    return [mg.Tensor(array) for array in numbers(case, "input")]


@each_case
def test_jvp_against_jax(case):
    value, tangents = mg.jvp(CASES[case][0], inputs_of(case), numbers(case, "direction"))
    values = value if isinstance(value, tuple) else (value,)
    tangents = tangents if isinstance(tangents, tuple) else (tangents,)
    for y, expected in zip(values, numbers(case, "value"), strict=True):
        assert near(y, expected) and not y.requires_grad
    for dy, expected in zip(tangents, numbers(case, "tangent"), strict=True):
        assert near(dy, expected) and not dy.requires_grad


@each_case
def test_hvp_against_jax(case):
    inputs = inputs_of(case)
    value, products = mg.hvp(CASES[case][1], inputs, numbers(case, "direction"))
    assert value.item() == pytest.approx(CASES[case][1](*inputs).item(), rel=1e-15)
    for found, expected in zip(products, numbers(case, "hvp"), strict=True):
        assert near(found, expected) and not found.requires_grad


@each_case
def test_hessian_against_jax(case):
    """By the input and the bias, or by all where they are few."""
    inputs, loss = inputs_of(case), CASES[case][1]
    chosen = range(len(inputs)) if len(inputs) == 2 else (0, 3)

    def of_chosen(*points):
        full = list(inputs)
        for i, point in zip(chosen, points, strict=True):
            full[i] = point
        return loss(*full)

    blocks = mg.hessian(of_chosen, [inputs[i] for i in chosen])
    for i, row in zip(chosen, blocks, strict=True):
        for j, block in zip(chosen, row, strict=True):
            assert near(block, JAX[f"{case.split('-')[0]}/hessian/{i}/{j}"])


# ---------------------------------------------------------------- vjp and jacobian


def test_vjp():
    x, y = mg.Tensor(np.array([1.0, 2.0])), mg.Tensor(np.array([3.0, 4.0]))
    value, (dx, dy) = mg.vjp(lambda x, y: x * y, (x, y), np.array([1.0, 10.0]))
    assert close(value, 3, 8) and close(dx, 3, 40) and close(dy, 1, 20) and not value.requires_grad
    values, (dx,) = mg.vjp(lambda x: (x * 2.0, x * x), x, (np.ones(2), np.ones(2)))
    assert close(values[1], 1, 4) and close(dx, 4, 6)
    value, (dx,) = mg.vjp(lambda x: mg.ones(2, np.float64), x, np.ones(2))
    assert close(dx, 0, 0)
    _, (a, b) = mg.vjp(lambda a, b: a * b * b, (x, x), np.ones(2))
    assert close(a, 1, 4) and close(b, 2, 8)
    with pytest.raises(
        ValueError, match="vjp: v must have one entry for each of the 1 outputs, got 2"
    ):
        mg.vjp(lambda x: x * x, x, (np.ones(2), np.ones(2)))
    with pytest.raises(TypeError, match="vjp: inputs must be Tensors, got ndarray at position 0"):
        mg.vjp(lambda x: x, np.ones(2))
    with pytest.raises(
        TypeError, match="vjp: what fn returns must be Tensors, got float at position 0"
    ):
        mg.vjp(lambda x: 1.0, x)
    with pytest.raises(RuntimeError, match="only for a scalar"):
        mg.vjp(lambda x: x * x, x)


def test_vjp_and_jacobian_can_be_differentiated():
    x = leaf(0.5, -1.0)
    _, (dx,) = mg.vjp(lambda x: x**3, x, np.ones(2), create_graph=True)
    (ddx,) = mg.grad(dx.sum(), x)
    np.testing.assert_allclose(ddx.numpy(), 6 * x.numpy(), rtol=1e-14)
    assert mg.gradcheck(lambda x: mg.jacobian(lambda x: mg.exp(x) * x, x, create_graph=True), x)
    _, (a, b) = mg.vjp(lambda a, b: a * b * b, (x, x), np.ones(2), create_graph=True)
    np.testing.assert_allclose(a.numpy(), x.numpy() ** 2, rtol=1e-14)


def test_jacobian():
    rng = np.random.default_rng(0)
    a, b = mg.Tensor(rng.normal(size=(2, 3))), mg.Tensor(rng.normal(size=(3, 4)))
    da, db = mg.jacobian(mg.matmul, (a, b))
    assert da.shape == (2, 4, 2, 3) and db.shape == (2, 4, 3, 4) and not da.requires_grad
    np.testing.assert_array_equal(da.numpy(), np.einsum("ik,lj->ijkl", np.eye(2), b.numpy()))
    np.testing.assert_array_equal(db.numpy(), np.einsum("il,jk->ijlk", a.numpy(), np.eye(4)))
    assert mg.jacobian(mg.exp, mg.zeros((0, 2))).shape == (0, 2, 0, 2)
    assert mg.jacobian(lambda x: mg.ones(3), mg.ones(2)).numpy().tolist() == [[0, 0]] * 3
    with pytest.raises(TypeError, match="jacobian: fn must return a Tensor, got tuple"):
        mg.jacobian(lambda x: (x, x), a)
    with mg.no_grad():
        assert mg.jacobian(mg.exp, mg.zeros(1)).tolist() == [[1]]


# ---------------------------------------------------------------- jvp, hvp, hessian


def test_jvp_is_the_transpose_of_vjp():
    rng = np.random.default_rng(2)
    x, v = mg.Tensor(rng.normal(size=(3, 4))), rng.normal(size=(3, 4))
    u = rng.normal(size=(3, 1))

    def fn(x):
        return (mg.softmax(x, axis=1) * x).sum(axis=1, keepdims=True)

    _, tangent = mg.jvp(fn, x, v)
    _, (gradient,) = mg.vjp(fn, x, u)
    assert (tangent.numpy() * u).sum() == pytest.approx((gradient.numpy() * v).sum(), rel=1e-13)
    full = np.einsum("iajb,jb->ia", mg.jacobian(fn, x).numpy(), v)
    np.testing.assert_allclose(tangent.numpy(), full, rtol=1e-13)


def test_jvp_of_several():
    x, y = mg.Tensor(np.array([1.0, 2.0])), mg.Tensor(np.array([3.0, 4.0]))
    value, tangent = mg.jvp(lambda x, y: x * y, (x, y), ([1.0, 0.0], np.array([0.0, 10.0])))
    assert close(value, 3, 8) and close(tangent, 3, 20)
    values, tangents = mg.jvp(lambda x: [x * 2.0, x * x, y], x, [1.0, 1.0])
    assert isinstance(values, tuple) and close(values[1], 1, 4)
    assert isinstance(tangents, tuple) and [t.tolist() for t in tangents] == [
        [2, 2],
        [2, 4],
        [0, 0],
    ]
    _, tangent = mg.jvp(lambda a, b: a * b * b, (x, x), ([1.0, 1.0], [0.0, 0.0]))
    assert close(tangent, 1, 4)  # one tensor in two places is two inputs
    assert x.grad is None and not x.requires_grad
    with mg.no_grad():
        assert mg.jvp(mg.exp, mg.zeros(1), [2.0])[1].tolist() == [2]


def test_hvp_and_hessian_of_several():
    a, b = mg.Tensor(np.array([1.0, 2.0])), mg.Tensor(np.array([[3.0]]))

    def fn(a, b):
        return (a * a * b).sum()

    (aa, ab), (ba, bb) = mg.hessian(fn, (a, b))
    assert (aa.shape, ab.shape, ba.shape, bb.shape) == ((2, 2), (2, 1, 1), (1, 1, 2), (1, 1, 1, 1))
    assert close(aa, 6, 0, 0, 6) and close(ab, 2, 4) and close(ba, 2, 4) and close(bb, 0)
    value, (da, db) = mg.hvp(fn, (a, b), ([1.0, -1.0], [[0.5]]))
    assert close(value, 15) and close(da, 6 + 1, -6 + 2) and close(db, 2 - 4)
    assert mg.hessian(lambda x: mg.ones((1, 1)).sum(), mg.ones(2)).tolist() == [[0, 0]] * 2
    assert mg.hessian(lambda x: x.sum(), mg.ones(2)).tolist() == [[0, 0]] * 2
    assert mg.hessian(lambda x: x.sum(), mg.ones((0, 2))).shape == (0, 2, 0, 2)


@pytest.mark.parametrize(
    "derivative",
    [
        lambda fn, x: mg.jvp(fn, x, np.array([2.0, -1.0]), create_graph=True)[1],
        lambda fn, x: mg.hvp(lambda x: fn(x).sum(), x, [2.0, -1.0], create_graph=True)[1][0],
        lambda fn, x: mg.hessian(lambda x: fn(x).sum(), x, create_graph=True),
    ],
    ids=["jvp", "hvp", "hessian"],
)
def test_they_can_be_differentiated(derivative):
    x = leaf(0.5, -1.0)
    assert mg.gradcheck(lambda x: derivative(lambda x: mg.exp(x) * x * x[:1], x), x)
    assert x.grad is None


def test_where_the_value_keeps_its_graph():
    x = leaf(0.5, -1.0)
    value, _ = mg.jvp(lambda x: x**3, x, [1.0, 1.0], create_graph=True)
    assert np.allclose(mg.grad(value.sum(), x)[0].numpy(), 3 * x.numpy() ** 2)
    value, _ = mg.hvp(lambda x: (x**3).sum(), x, [1.0, 1.0], create_graph=True)
    assert np.allclose(mg.grad(value, x)[0].numpy(), 3 * x.numpy() ** 2)


def test_jvp_and_hvp_refuse():
    x = mg.ones(2)
    with pytest.raises(ValueError, match=r"jvp: v must have shape \(2,\) like input 0, got \(3,\)"):
        mg.jvp(lambda x: x * x, x, mg.ones(3))
    with pytest.raises(TypeError, match="jvp: v must have dtype float32 like input 0, got float64"):
        mg.jvp(lambda x: x * x, x, np.ones(2))
    with pytest.raises(TypeError, match="jvp: v must have one entry for each input, got Tensor"):
        mg.jvp(lambda x: x * x, [x], x)
    with pytest.raises(ValueError, match="hvp: v must have one entry for each of the 2 inputs"):
        mg.hvp(lambda x, y: (x * y).sum(), (x, x), (x,))
    with pytest.raises(TypeError, match="hvp: inputs must be Tensors, got ndarray at position 0"):
        mg.hvp(lambda x: x.sum(), np.ones(2), np.ones(2))
    with pytest.raises(TypeError, match="jvp: what fn returns must be Tensors, got float"):
        mg.jvp(lambda x: 1.0, x, x)
    for derivative in (mg.hessian, lambda fn, x: mg.hvp(fn, x, x)):
        with pytest.raises(ValueError, match=r"fn must return a scalar, got shape \(2,\)"):
            derivative(lambda x: x * x, x)
        with pytest.raises(TypeError, match="fn must return a Tensor, got tuple"):
            derivative(lambda x: (x, x), x)


class Opaque(mg.Function):
    """x², with a backward that cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        kept = mg.Tensor(2 * x.numpy())
        ctx.save_for_backward(kept)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        (kept,) = ctx.saved_tensors
        return dy * kept


def test_a_rule_that_cannot_be_differentiated():
    x = mg.ones(2)
    assert mg.vjp(Opaque.apply, x, x)[1][0].tolist() == [2, 2]
    for derivative in (
        lambda: mg.jvp(Opaque.apply, x, x),
        lambda: mg.hvp(lambda x: Opaque.apply(x).sum(), x, x),
        lambda: mg.hessian(lambda x: Opaque.apply(x).sum(), x),
    ):
        with pytest.raises(RuntimeError, match="Opaque: cannot be differentiated twice"):
            derivative()
    layer = mg.nn.RNN(2, 3, clip_state_grad=0.1)
    with pytest.raises(RuntimeError, match="clip_state_grad"):
        mg.jvp(lambda x: layer(x)[0], mg.ones((3, 1, 2)), mg.ones((3, 1, 2)))
