"""Ops of the user, by mg.Function and mg.record: their gradients, their errors, what they save and
leave behind."""

import gc
import weakref

import numpy as np
import pytest
from graphs import Polar, Scale, broken, close, leaf

import minigrad as mg


class Exp(mg.Function):
    @staticmethod
    def forward(ctx, x):
        y = mg.Tensor(np.exp(x.numpy()))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, dy):
        (y,) = ctx.saved_tensors
        return dy * y


def test_function():
    x = leaf(0.5, -1.0)
    assert Scale.apply(x, 3.0).grad_fn.name == "Scale"
    assert mg.gradcheck(lambda x: Scale.apply(x, 3.0), x)
    assert mg.gradcheck(Exp.apply, x) and mg.gradgradcheck(Exp.apply, x)
    r, a = leaf(1.0, 2.0), leaf(0.3, -0.4)
    assert mg.gradcheck(Polar.apply, (r, a)) and mg.gradgradcheck(Polar.apply, (r, a))
    assert mg.gradgradcheck(lambda r, a: Polar.apply(r, a)[1], (r, a))
    assert mg.gradcheck(lambda r: Polar.apply(r, mg.Tensor(np.array([0.3, 0.4]))), r)
    with mg.no_grad():
        assert Exp.apply(x).grad_fn is None
    assert Exp.apply(x.detach()).grad_fn is None


def test_function_results_and_saved_results_meet():
    """In a second sweep gradients reach a result both directly and through what backward had saved
    of it."""

    def composed(r, a):
        return r * mg.cos(a), r * mg.sin(a)

    found = []
    for op in (Polar.apply, composed):
        r, a = leaf(1.0, 2.0), leaf(0.3, -0.4)
        x, y = op(r, a)
        (da,) = mg.grad((x * y).sum(), a, create_graph=True)
        found.append(mg.grad((da * da + x * x * y).sum(), (r, a)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-14)


def test_function_result_that_was_not_used_gets_zeros():
    seen = []

    class Two(mg.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1.0, x * 2.0

        @staticmethod
        def backward(ctx, da, db):
            seen.append((da.tolist(), db.tolist()))
            return da + db * 2.0

    x = leaf(1.0)
    a, b = Two.apply(x)
    del a
    (b * 5.0).backward()
    assert seen == [([0], [5])] and close(x.grad, 10)


def test_function_needs_input_grad_and_mode():
    seen = []

    class Probe(mg.Function):
        @staticmethod
        def forward(ctx, a, b, k):
            seen.extend([ctx.needs_input_grad, mg.is_grad_enabled()])
            return a + b

        @staticmethod
        def backward(ctx, dy):
            seen.append(mg.is_grad_enabled())
            return dy, None, None

    x = leaf(1.0)
    Probe.apply(x, mg.ones(1, np.float64), 3).backward()
    assert seen == [(True, False, False), False, False] and close(x.grad, 1)


@pytest.mark.parametrize(
    "backward, error, text",
    [
        (
            lambda ctx, dy: dy,
            RuntimeError,
            "Broken: backward must return a gradient for each of the 2 arguments of forward, got 1",
        ),
        (
            lambda ctx, dy: (dy, None, None),
            RuntimeError,
            "Broken: .* each of the 2 arguments of forward, got 3",
        ),
        (
            lambda ctx, dy: (dy, dy),
            RuntimeError,
            "Broken: backward must return None for argument 1, which is no Tensor, got Tensor",
        ),
        (
            lambda ctx, dy: (mg.ones(3, np.float64), None),
            RuntimeError,
            r"Broken: .*gradient of shape \(3,\).* expected shape \(1,\)",
        ),
        (
            lambda ctx, dy: (mg.ones(1), None),
            RuntimeError,
            "Broken: .*dtype float32 for input 0, expected .*float64",
        ),
        (
            lambda ctx, dy: (np.ones(1), None),
            TypeError,
            "Broken: backward must return Tensors or None, got ndarray for input 0",
        ),
        (lambda ctx, dy: 1 / 0, ZeroDivisionError, "division by zero"),
    ],
    ids=range(7),
)
def test_function_with_a_wrong_backward(backward, error, text):
    x = leaf(1.0)
    y = broken(backward=backward).apply(x, 3)
    with pytest.raises(error, match=text):
        y.backward()
    assert x.grad is None


def test_function_errors():
    x = leaf(1.0)
    with pytest.raises(
        TypeError, match="Broken: forward must return a Tensor or a tuple of them, got ndarray"
    ):
        broken(lambda ctx, x, k: np.ones(1)).apply(x, 3)
    with pytest.raises(
        TypeError,
        match="save_for_backward: can keep Tensors, got int: set an attribute of ctx instead",
    ):
        broken(lambda ctx, x, k: ctx.save_for_backward(x, k)).apply(x, 3)
    with pytest.raises(NotImplementedError, match="Function: a subclass must define forward"):
        mg.Function.apply(x)


def test_function_that_saved_an_intermediate_is_not_differentiated_twice():
    class Square(mg.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x * 2.0)
            return x * x

        @staticmethod
        def backward(ctx, dy):
            return dy * ctx.saved_tensors[0]

    x = leaf(3.0)
    assert mg.gradcheck(Square.apply, x)
    with pytest.raises(
        RuntimeError,
        match="Square: cannot be differentiated twice, since it saved a tensor that is neither",
    ):
        mg.grad(Square.apply(x), x, create_graph=True)


@pytest.mark.parametrize(
    "values, error, text",
    [
        (np.ones(2, np.float16), TypeError, "float16"),
        (np.ones(2, bool), TypeError, "bool"),
        (np.ones(2, int), TypeError, "int64"),
        (np.ones(2, np.longdouble), TypeError, "dtype"),
        (np.ones(2, complex), TypeError, "complex128"),
        (None, TypeError, "NoneType"),
        (np.ma.masked_array([1.0, 2.0], [False, True]), TypeError, "masked"),
        ("a", TypeError, "str"),
        ((), ValueError, "at least one"),
        ((np.ones(2), None), TypeError, "NoneType"),
        (np.array([None]), TypeError, "object"),
    ],
    ids=range(11),
)
def test_record_with_values_that_no_tensor_holds(values, error, text):
    with pytest.raises(error, match=f"twice: .*{text}"):
        mg.record("twice", values, (leaf(1.0, 2.0),), lambda dy: dy * 2.0)


@pytest.mark.parametrize(
    "values",
    [
        np.frombuffer(bytearray(17), np.uint8)[1:].view(np.float64),
        np.zeros(2, ">f8"),
        np.zeros(4)[::-2],
        np.zeros((2, 2)).T[0],
        np.lib.stride_tricks.as_strided(np.zeros(3, [("a", "f8"), ("b", "i4")])["a"], (2,)),
    ],
    ids=["misaligned", "big-endian", "backwards", "column", "field"],
)
def test_record_makes_proper_arrays(values):
    x = leaf(1.0, 2.0)
    y = mg.record("op", values, (x,), lambda dy: dy * 2.0)
    (mg.exp(y) * y).sum().backward()
    assert y.tolist() == [0, 0] and close(x.grad, 2, 2)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"saved": (None,)}, "saved must be Tensors, got NoneType at position 0"),
        ({"saved": (leaf(1.0), np.ones(2))}, "saved must be Tensors, got ndarray at position 1"),
        ({"saved": None}, "saved must be a tuple of Tensors, got None"),
        ({"saved": [leaf(1.0)]}, "'saved' .*tuple"),
        ({"inputs": (1,)}, "inputs must be Tensors, got int at position 0"),
        ({"inputs": leaf(1.0)}, "'inputs' .*tuple"),
        ({"inputs": None}, "'inputs' .*tuple"),
        ({"name": 3}, "'name' .*str"),
        ({"name": None}, "'name' .*str"),
        ({"backward": None}, "backward must be callable, got NoneType"),
    ],
    ids=range(10),
)
def test_record_with_wrong_arguments(options, text):
    arguments = {
        "name": "op",
        "values": np.ones(1),
        "inputs": (leaf(1.0),),
        "backward": lambda dy: dy,
    }
    with pytest.raises(TypeError, match=text):
        mg.record(**(arguments | options))


def test_function_that_returns_its_argument():
    """The result is another tensor with the same memory; what was saved is the argument."""

    class Same(mg.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, x)
            return x

        @staticmethod
        def backward(ctx, dy):
            x, again = ctx.saved_tensors
            return dy * x * again

    x = leaf(1.0, 2.0)
    y = Same.apply(x)
    assert y is not x and x.is_leaf and np.shares_memory(y.numpy(), x.numpy())
    (dx,) = mg.grad(y.sum(), x, create_graph=True)
    assert close(dx, 1, 4) and close(mg.grad(dx.sum(), x)[0], 2, 4)


def test_function_whose_results_share_memory():
    class Views(mg.Function):
        @staticmethod
        def forward(ctx, x):
            y = x * 2.0
            ctx.save_for_backward(y)
            return y, y, y[:1], x[1:]

        @staticmethod
        def backward(ctx, da, db, dc, dd):
            dx = 2.0 * (da + db).numpy()
            dx[:1] += 2.0 * dc.numpy()
            dx[1:] += dd.numpy()
            return mg.Tensor(dx)

    x = leaf(1.0, 2.0)
    a, b, c, d = Views.apply(x)
    (a * 1.0 + b * 10.0).sum().backward(retain_graph=True)
    assert close(x.grad, 22, 22)
    (c.sum() * 3.0 + d.sum() * 5.0).backward(retain_graph=True)
    assert close(x.grad, 28, 27)
    with mg.no_grad():
        a[0] = 7.0
    with pytest.raises(RuntimeError, match="Views: .*modified by an in-place operation"):
        b.sum().backward()


def test_function_that_comes_back_to_itself():
    """backward of the same op, inside of its own backward: each sees what was saved, before and
    after."""

    class Square(mg.Function):
        depth = 0

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, dy):
            before = ctx.saved_tensors
            Square.depth += 1
            if Square.depth < 4:
                with mg.enable_grad():
                    assert close(mg.grad(y, x, retain_graph=True)[0], 6)
            assert ctx.saved_tensors is before
            return dy * 2.0 * before[0]

    x = leaf(3.0)
    y = Square.apply(x)
    assert close(mg.grad(y, x)[0], 6)
    empty = broken(lambda ctx, x, k: ())
    with pytest.raises(
        TypeError, match=r"Broken: forward must return a Tensor or a tuple of them, got \(\)"
    ):
        empty.apply(x, 3)


def test_function_without_gradient():
    x = leaf(1.0)
    y = broken(backward=lambda ctx, dy: (None, None)).apply(x, 3)
    y.backward()
    assert x.grad is None
    with pytest.raises(RuntimeError, match="was not used"):
        mg.grad(broken(backward=lambda ctx, dy: (None, None)).apply(x, 3), x)


def test_function_leaves_nothing_behind():
    x = leaf(1.0)
    y = Exp.apply(x)
    alive = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert alive() is None
    finally:
        gc.enable()
