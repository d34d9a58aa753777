"""NaN, ties and bounds, op by op: the rule of docs/autograd.md, which is PyTorch's; forward, first
and second order, on every instruction set, in every layout that takes another path."""

import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad.core import kernels

inf, nan = np.inf, np.nan

PAIRS = [
    (nan, 1),
    (1, nan),
    (nan, nan),
    (2, 2),
    (2, 1),
    (1, 2),
    (inf, inf),
    (-inf, -inf),
    (0.0, -0.0),
    (inf, nan),
    (-inf, inf),
]
A, B = (np.array(side, float) for side in zip(*PAIRS, strict=True))
# da and db of maximum for dz = 1
MAX_A = [1, 1, 1, 0.5, 1, 0, 0.5, 0.5, 0.5, 1, 0]
MAX_B = [1, 1, 1, 0.5, 0, 1, 0.5, 0.5, 0.5, 1, 1]
MIN_A = [1, 1, 1, 0.5, 0, 1, 0.5, 0.5, 0.5, 1, 1]
MIN_B = [1, 1, 1, 0.5, 1, 0, 0.5, 0.5, 0.5, 1, 0]

POINTS = [nan, -inf, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, inf]
# name: (fn, value, slope) at POINTS
ONE = {
    "relu": (mg.relu, [nan, 0, 0, 0, -0.0, 0, 0.5, 1, 2, inf], [1, 0, 0, 0, 0, 0, 1, 1, 1, 1]),
    "abs": (mg.abs, [nan, inf, 2, 1, 0, 0, 0.5, 1, 2, inf], [0, -1, -1, -1, 0, 0, 1, 1, 1, 1]),
    "clip": (
        lambda x: mg.clip(x, -1, 1),
        [nan, -1, -1, -1, 0, 0, 0.5, 1, 1, 1],
        [0, 0, 0, 1, 1, 1, 1, 1, 0, 0],
    ),
    "clip low": (
        lambda x: mg.clip(x, 0),
        [nan, 0, 0, 0, 0, 0, 0.5, 1, 2, inf],
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
    ),
    "clip high": (
        lambda x: mg.clip(x, high=0),
        [nan, -inf, -2, -1, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 0, 0, 0, 0],
    ),
    "clip low above high": (lambda x: mg.clip(x, 1, -1), [nan] + [-1] * 9, [0] * 10),
    "clip low NaN": (lambda x: mg.clip(x, nan, 1), [nan] * 10, [0] * 10),
    "clip high NaN": (lambda x: mg.clip(x, -1, nan), [nan] * 10, [0] * 10),
    "clip infinite": (lambda x: mg.clip(x, -inf, inf), POINTS, [0] + [1] * 9),
    "clip to one": (lambda x: mg.clip(x, 0.5, 0.5), [nan] + [0.5] * 9, [0] * 6 + [1] + [0] * 3),
}
each_isa = pytest.mark.parametrize("isa", kernels.isas_built())
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_order = pytest.mark.parametrize(
    "create_graph", [False, True], ids=["first", "to be differentiated"]
)


@pytest.fixture
def on_isa(isa):
    before = kernels.isa_in_use()
    try:
        kernels._use_isa(isa)
    except ValueError as error:
        pytest.skip(str(error))
    yield
    kernels._use_isa(before)


def layouts(array, dtype):
    """Short enough for a tail, long enough for whole vectors, and with strides: (tensor, what takes
    the result back)."""
    array = array.astype(dtype)
    n = len(array)
    gaps = np.zeros(2 * n, dtype)
    gaps[::2] = array
    yield mg.Tensor(array, requires_grad=True), lambda y: y
    yield mg.Tensor(np.tile(array, 40), requires_grad=True), lambda y: y.reshape(40, n)[17]
    yield mg.Tensor(gaps[::2], copy=False, requires_grad=True), lambda y: y


def same(found, expected):
    np.testing.assert_array_equal(found, np.asarray(expected, found.dtype))


@each_isa
@each_dtype
@each_order
@pytest.mark.parametrize("name", ONE)
def test_one_variable(name, create_graph, dtype, on_isa):
    fn, value, slope = ONE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, back in layouts(np.array(POINTS), dtype):
            dy = np.full(x.shape, 3, dtype)
            y = fn(x)
            same(back(y.numpy()), value)
            (dx,) = mg.grad(y, x, dy, create_graph=create_graph)
            same(back(dx.numpy()), 3 * np.array(slope))


@each_isa
@each_dtype
@each_order
@pytest.mark.parametrize(
    "fn, of_a, of_b",
    [(mg.maximum, MAX_A, MAX_B), (mg.minimum, MIN_A, MIN_B)],
    ids=["maximum", "minimum"],
)
def test_two_variables(fn, of_a, of_b, create_graph, dtype, on_isa):
    reference = np.maximum if fn is mg.maximum else np.minimum
    for (a, back), (b, _) in zip(layouts(A, dtype), layouts(B, dtype), strict=True):
        z = fn(a, b)
        same(back(z.numpy()), reference(A, B))
        da, db = mg.grad(z, [a, b], np.full(a.shape, 4, dtype), create_graph=create_graph)
        same(back(da.numpy()), 4 * np.array(of_a))
        same(back(db.numpy()), 4 * np.array(of_b))


def test_no_gradient_leaks_where_it_is_infinite():
    """0 * inf would be NaN: what loses gets 0 whatever comes back."""
    a, b = (mg.Tensor(v, dtype=np.float64, requires_grad=True) for v in ([1.0, 2.0], [2.0, 1.0]))
    da, db = mg.grad(mg.maximum(a, b), [a, b], np.array([inf, nan]))
    same(da.numpy(), [0, nan])
    same(db.numpy(), [inf, 0])


def test_ties_of_broadcast_operands():
    a = mg.Tensor([[1.0, 2.0], [3.0, 1.0]], requires_grad=True)
    for fn, da, db in (
        (mg.maximum, [[0.5, 1], [1, 0.5]], 1.0),
        (mg.minimum, [[0.5, 0], [0, 0.5]], 3.0),
    ):
        b = mg.Tensor(1.0, requires_grad=True)
        found = mg.grad(fn(a, b), [a, b], np.ones((2, 2), np.float32))
        assert found[0].tolist() == da and found[1].item() == db
    x = mg.Tensor([1.0, nan], requires_grad=True)
    same(mg.grad(mg.maximum(x, x), x, np.ones(2, np.float32))[0].numpy(), [1, 2])


@pytest.mark.parametrize("op, sign", [(mg.max, 1), (mg.min, -1)], ids=["max", "min"])
def test_reductions_share_among_ties_and_among_nans(op, sign):
    """Ties as torch.amax does it, whatever the axis; NaNs as torch.max() does it."""
    x = mg.Tensor(
        sign
        * np.array(
            [[1.0, 5, 5, 2], [nan, 7, nan, 1], [inf, inf, inf, 0], [0.0, -0.0, 0.0, -sign * sign]]
        ),
        requires_grad=True,
    )
    expected = np.array(
        [[0, 0.5, 0.5, 0], [0.5, 0, 0.5, 0], [1 / 3, 1 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3, 0]]
    )
    dy = np.array([2.0, 4.0, 3.0, 6.0])
    for create_graph in (False, True):
        (dx,) = mg.grad(op(x, axis=1), x, dy, create_graph=create_graph)
        np.testing.assert_allclose(dx, dy[:, None] * expected, rtol=1e-15)
    (dx,) = mg.grad(op(x), x)
    np.testing.assert_allclose(dx, [[0] * 4, [0.5, 0, 0.5, 0], [0] * 4, [0] * 4])


def test_second_order_at_ties_and_kinks():
    """The squares of the kinked functions: the second derivative is 2 slope^2, as in PyTorch."""
    for fn, _, slope in (ONE["relu"], ONE["abs"], ONE["clip"], ONE["clip low"]):
        points = [p for p in POINTS if abs(p) < inf]
        x = mg.Tensor(points, dtype=np.float64, requires_grad=True)
        (dx,) = mg.grad(fn(x) ** 2, x, np.ones(len(points)), create_graph=True)
        kept = np.array([s for s, p in zip(slope, POINTS, strict=True) if abs(p) < inf])
        same(mg.grad(dx, x, np.ones(len(points)))[0].numpy(), 2.0 * kept**2)
    a, b = (
        mg.Tensor(v, dtype=np.float64, requires_grad=True)
        for v in ([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    )
    da, db = mg.grad(mg.maximum(a, b) ** 2, [a, b], np.ones(3), create_graph=True)
    of_a, of_b = mg.grad([da, db], [a, b], [np.ones(3), np.ones(3)])
    assert of_a.tolist() == [1, 0, 2] and of_b.tolist() == [1, 2, 0]


@pytest.mark.filterwarnings("error")
def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    pairs = {"maximum": (mg.maximum, torch.maximum), "minimum": (mg.minimum, torch.minimum)}
    for ours, theirs in pairs.values():
        a, b = (mg.Tensor(v, requires_grad=True) for v in (A, B))
        p, q = (torch.tensor(v, requires_grad=True) for v in (A, B))
        dz = np.arange(1.0, len(A) + 1)
        z, y = ours(a, b), theirs(p, q)
        same(z.numpy(), y.detach().numpy())
        for found, expected in zip(
            mg.grad(z, [a, b], dz), torch.autograd.grad(y, [p, q], torch.tensor(dz)), strict=True
        ):
            same(found.numpy(), expected.numpy())
    singles = {
        "relu": torch.relu,
        "abs": torch.abs,
        "clip": lambda x: torch.clamp(x, -1, 1),
        "clip low": lambda x: torch.clamp(x, 0),
        "clip high": lambda x: torch.clamp(x, max=0),
        "clip low above high": lambda x: torch.clamp(x, 1, -1),
        "clip low NaN": lambda x: torch.clamp(x, nan, 1),
        "clip high NaN": lambda x: torch.clamp(x, -1, nan),
        "clip infinite": lambda x: torch.clamp(x, -inf, inf),
        "clip to one": lambda x: torch.clamp(x, 0.5, 0.5),
    }
    assert set(singles) == set(ONE)
    for name, theirs in singles.items():
        x, p = (
            mg.Tensor(np.array(POINTS), requires_grad=True),
            torch.tensor(POINTS, dtype=torch.float64, requires_grad=True),
        )
        y, z = ONE[name][0](x), theirs(p)
        same(y.numpy(), z.detach().numpy())
        dy = np.arange(1.0, len(POINTS) + 1)
        same(mg.grad(y, x, dy)[0].numpy(), torch.autograd.grad(z, p, torch.tensor(dy))[0].numpy())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bound", [1e300, np.float64(1e300), 10**300, np.longdouble(1e300), inf])
def test_a_bound_beyond_float32_is_infinite(bound):
    x = mg.Tensor([-3e38, 2.0, 3e38, inf], requires_grad=True)
    y = mg.clip(x, -bound, bound)
    assert y.tolist() == x.tolist() and mg.grad(y, x, np.ones(4, np.float32))[0].tolist() == [
        1,
        1,
        1,
        1,
    ]
    y = mg.clip(x, bound)
    assert y.tolist() == [inf] * 4 and mg.grad(y, x, np.ones(4, np.float32))[0].tolist() == [
        0,
        0,
        0,
        1,
    ]
    with pytest.raises(
        ValueError,
        match="clip: high must be a number that float64 holds, got an int of 1329 bits",
    ):
        mg.clip(x, 0, 10**400)


def test_a_layer_of_relu_cells_passes_the_gradient_of_nan_as_the_op_does():
    layer = mg.nn.RNN(2, 3, nonlinearity="relu", dtype=np.float64)
    x = np.random.default_rng(0).normal(size=(3, 2, 2))
    x[1, 0, 0] = nan
    fused, loop = (mg.Tensor(x, requires_grad=True) for _ in range(2))
    y, z = layer(fused)[0], mg.nn.unroll(layer.cells[0], loop)[0]
    same(y.numpy(), z.numpy())
    assert np.isnan(y.numpy()[1:, 0]).all()
    v = np.random.default_rng(1).normal(size=y.shape)
    dx, expected = mg.grad(y, fused, v)[0], mg.grad(z, loop, v)[0]
    same(dx.numpy(), expected.numpy())
    # Where all states are NaN every slope is 1: dx_t is linear in what comes back.
    cell = layer.cells[0]
    da = v[2, 0]
    same(dx.numpy()[2, 0], da @ cell.W.numpy().T)
