"""The reference engine as an oracle of the compiled one: random programs, products and sums, second
order. Values and first gradients have the same bits."""

from types import SimpleNamespace

import numpy as np
import pytest
from engines import (
    COMPILED,
    REFERENCE,
    equal,
    order_of_visits,
    program_case,
    run_program,
    same_bits,
)

import minigrad as mg
from minigrad.study import reference as ref

DTYPES = ("float32", "float64")
with_same_functions = pytest.mark.usefixtures("same_functions")


@with_same_functions
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.slow
def test_random_programs(dtype):
    """Values, gradients, and the order of visits."""
    for seed in range(200):
        steps, leaves, wanted, factors = program_case(seed, dtype)
        with np.errstate(all="ignore"):
            xs, loss = run_program(REFERENCE, steps, leaves, wanted, factors)
            ys, other = run_program(COMPILED, steps, leaves, wanted, factors)
            nodes = {x.grad_fn: i for i, x in enumerate(xs) if x.grad_fn is not None}
            visited = order_of_visits(list(nodes))
            expected = []
            for i, y in enumerate(ys):
                if y.grad_fn is not None:
                    y.register_hook(lambda dy, i=i, expected=expected: expected.append(i))
            loss.backward()
            other.backward()
        assert equal(loss.array, other.numpy()), seed
        assert [i for i, x in enumerate(xs) if not equal(x.array, ys[i].numpy())] == [], seed
        assert [nodes[node] for node in visited] == expected, seed
        for x, y in zip(xs[: len(leaves)], ys, strict=False):
            assert (x.grad is None) == (y.grad is None), seed
            assert x.grad is None or equal(x.grad.array, y.grad.numpy()), (seed, steps)


# ---------------------------------------------------------------- products and sums


def edge_cases(dtype, n=1500):
    """Triples a, b, c: of all sizes, ties for the rounding, near cancellation, subnormal sums."""
    rng = np.random.default_rng(3)
    bits = {"float32": 24, "float64": 53}[dtype]
    a, b, c = rng.standard_normal((3, n)) * 2.0 ** rng.integers(-20, 20, (3, n))
    a[: n // 5] = rng.integers(2 ** (bits - 2), 2 ** (bits - 1), n // 5)
    b[: n // 5] = 1 + 2.0 ** rng.integers(1 - bits, 0, n // 5)
    c[: n // 10] = 2.0 ** -rng.integers(20, 60, n // 10)
    a, b, c = (x.astype(dtype) for x in (a, b, c))
    near = slice(n // 5, 2 * n // 5)
    c[near] = -(a[near] * b[near])
    small = slice(2 * n // 5, 3 * n // 5)
    a[small] *= np.finfo(dtype).tiny
    c[small] *= np.finfo(dtype).smallest_subnormal
    a[-4:], b[-4:], c[-4:] = [0, -0.0, np.inf, np.nan], [1, 1, 0.5, 1], [-0.0, -0.0, 1, 1]
    return a, b, c


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_multiply_add_is_rounded_once(dtype):
    a, b, c = edge_cases(dtype)
    found = np.array([ref.fma(*abc) for abc in zip(a, b, c, strict=True)])
    expected = [mg.addmm(z.reshape(1, 1), x.reshape(1, 1), y.reshape(1, 1)).item() for x, y, z in
                zip(a, b, c, strict=True)]  # fmt: skip
    assert equal(found, np.array(expected, dtype))
    with np.errstate(invalid="ignore"):
        assert (found != a * b + c).sum() > 200


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_sums(dtype, n):
    """Terms that nearly cancel, so that the order and the second half count."""
    rng = np.random.default_rng(n)
    x = (rng.standard_normal((n, 3)) * 10.0 ** rng.integers(0, 20, (n, 3))).astype(dtype)
    x = np.concatenate([x, -x[::-1], x[:1] * 1e-7]).astype(dtype)
    y = ref.total(ref.Tensor(x), (1, 3))
    assert same_bits(y.array, mg.Tensor(x).sum(0, keepdims=True).numpy())
    assert same_bits(ref.total(ref.Tensor(x)), mg.Tensor(x).sum().numpy())
    bias = ref.Tensor(np.zeros(3, dtype), requires_grad=True)
    (bias + ref.Tensor(x)).backward(ref.Tensor(x))
    other = mg.Tensor(np.zeros(3, dtype), requires_grad=True)
    (other + mg.Tensor(x)).backward(mg.Tensor(x))
    assert same_bits(bias.grad, other.grad.numpy())


def test_a_float64_sum_that_overflows_is_infinite():
    x = np.zeros(20)
    x[0] = x[16] = 1e308  # of one lane
    x[1] = -1e308
    with np.errstate(all="ignore"):
        y = ref.total(ref.Tensor(x))
    assert np.isposinf(y.array) and np.isposinf(mg.Tensor(x).sum().item())


# ---------------------------------------------------------------- second order


def second_order(engine, x, W, b, v, classes):
    """First gradients with create_graph, and the gradients of a function of them."""
    leaves = [engine.tensor(value, True) for value in (x, W, b)]
    y = engine.sigmoid(engine.tanh(engine.addmm(leaves[2], *leaves[:2])) * leaves[2])
    loss = engine.cross_entropy(y / (y * y + 2.0) - leaves[2], classes)
    loss.backward(create_graph=True)
    first = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    products = [engine.total(dx * engine.tensor(u, False)) for dx, u in zip(first, v, strict=True)]
    (products[0] + products[1] * products[2]).backward()
    return first, [leaf.grad for leaf in leaves]


@with_same_functions
@pytest.mark.parametrize("dtype", DTYPES)
def test_second_order(dtype):
    """First gradients to the bit, second ones but for rounding: there the rules are other ops."""
    rng = np.random.default_rng(5)
    x, W, b = (rng.standard_normal(shape).astype(dtype) for shape in ((3, 2), (2, 4), (4,)))
    v = [rng.standard_normal(value.shape).astype(dtype) for value in (x, W, b)]
    ours, theirs = (
        SimpleNamespace(**vars(engine), cross_entropy=loss)
        for engine, loss in ((REFERENCE, ref.cross_entropy), (COMPILED, mg.cross_entropy))
    )
    first, second = second_order(ours, x, W, b, v, [0, 3, 1])
    expected, others = second_order(theirs, x, W, b, v, [0, 3, 1])
    for a, c in zip(first, expected, strict=True):
        assert equal(a.array, c.numpy())
    tolerance = 100 * np.finfo(dtype).eps
    for a, c in zip(second, others, strict=True):
        assert np.abs(a.array - c.numpy()).max() <= tolerance * np.abs(a.array).max()


@with_same_functions
@pytest.mark.slow
def test_second_order_of_random_programs():
    for seed in range(60):
        steps, leaves, wanted, factors = program_case(seed, "float64")
        found = []
        for engine in (REFERENCE, COMPILED):
            with np.errstate(all="ignore"):
                xs, loss = run_program(engine, steps, leaves, wanted, factors)
                xs = [x for x, w in zip(xs, wanted, strict=False) if w]
                loss.backward(create_graph=True)
                first = [x.grad for x in xs if x.grad is not None]
                for x in xs:
                    x.grad = None
                y = engine.tensor(np.zeros(()), False)
                for dx in first:
                    y = y + engine.total(dx * dx)
                if y.requires_grad:
                    y.backward()
            found.append(([as_array(dx) for dx in first], [as_array(x.grad) for x in xs]))
        (first, second), (expected, others) = found
        assert len(first) == len(expected) and len(second) == len(others)
        for a, c in zip(first, expected, strict=True):
            assert equal(a, c), seed
        for a, c in zip(second, others, strict=True):
            size = max(np.abs(c).max(), 1.0)
            assert not np.isfinite(size) or np.abs(a - c).max() <= 1e-9 * size, seed


def as_array(x):
    """Of either engine; zero where there is no gradient."""
    if x is None:
        return np.zeros(())
    return x.array if isinstance(x, ref.Tensor) else x.numpy()
