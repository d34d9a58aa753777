"""Memory that tensors share with each other and with NumPy, and what changes it: views, in-place
operators, saved operands.

test_views_fuzz.py tries random programs of these; here are the rules one by one.
"""

import copy
import gc
import operator

import numpy as np
import pytest

import minigrad as mg

RNG = np.random.default_rng(5)
IN_PLACE = {
    "+=": (operator.iadd, np.add),
    "-=": (operator.isub, np.subtract),
    "*=": (operator.imul, np.multiply),
    "/=": (operator.itruediv, np.divide),
    "**=": (operator.ipow, np.power),
}


def leaf(value):
    return mg.Tensor(np.array(value, np.float64), requires_grad=True)


def check_gradients(function, *values):
    """The gradients of `function`, whose Tensors are made of values, against complex steps of the
    same function on NumPy arrays."""
    leaves = [leaf(value) for value in values]
    y = function(mg, *leaves)
    v = RNG.standard_normal(y.shape)
    y.backward(mg.Tensor(v))
    for k, x in enumerate(leaves):
        expected = np.zeros(x.shape)
        for place in np.ndindex(x.shape):
            moved = [np.array(value, complex) for value in values]
            moved[k][place] += 1e-30j
            expected[place] = (function(np, *moved) * v).sum().imag * 1e30
        found = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def buffer(module, *shape):
    return mg.zeros(shape, "float64") if module is mg else np.zeros(shape, complex)


# ---------------------------------------------------------------- views

VIEWS = {
    "reshape": lambda x: x.reshape((3, 2)),
    "flat": lambda x: x.reshape(-1),
    "transpose": lambda x: x.T,
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "slice": lambda x: x[:, 1:],
    "step": lambda x: x[::-1, ::2],
    "row": lambda x: x[1],
    "new axis": lambda x: x[None],
    "squeeze": lambda x: x[0:1].squeeze(),
    "of a view": lambda x: x.reshape((3, 2)).T[1:],
    "broadcast_to": lambda x: (
        x.broadcast_to((2, 2, 3)) if isinstance(x, mg.Tensor) else np.broadcast_to(x, (2, 2, 3))
    ),
    "flip": lambda x: x.flip(1) if isinstance(x, mg.Tensor) else np.flip(x, 1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_a_constant_buffer_sees_what_is_assigned_later(name):
    def function(module, w):
        x = buffer(module, 2, 3)
        view = VIEWS[name](x)
        x[0] = w * w
        x[1:, 1:] = w[1:] * 3.0
        return view * view + view

    check_gradients(function, [0.5, -1.0, 2.0])


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_of_a_tracked_tensor_sees_what_is_assigned_later(name):
    def function(module, w, v):
        x = w * 2.0
        view = VIEWS[name](x)
        before = view * 3.0
        x[:, 1] = v * v
        return view * view + before

    check_gradients(function, RNG.standard_normal((2, 3)), [0.5, -1.0])


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "broadcast_to"])
@pytest.mark.parametrize("tracked", [False, True])
def test_writing_through_a_view_changes_what_it_was_taken_from(name, tracked):
    def function(module, w):
        x = w * 2.0 if tracked else buffer(module, 2, 3)
        other = x[0]
        view = VIEWS[name](x)
        view[0:1] = VIEWS[name](w)[0:1] * 5.0
        view *= 1.5
        view[..., 0] += 2.0
        return (x * x).sum() + (view * 3.0).sum() + (other * other * other).sum()

    check_gradients(function, RNG.standard_normal((2, 3)))


def test_views_of_every_memory_layout():
    for array in (
        np.zeros((3, 2)).T,
        np.zeros((4, 6))[::2, ::-2],
        np.zeros((2, 3))[::-1],
        np.zeros((3, 2))[::-1].T,
    ):

        def function(module, w, array=array):
            x = (
                mg.Tensor(array, copy=False)
                if module is mg
                else np.lib.stride_tricks.as_strided(
                    np.zeros(100, complex)[50:], array.shape, [2 * step for step in array.strides]
                )
            )
            array[...] = 0
            first, second = x[:, 1:], x.T[0:2]
            x[0] = w
            first *= 2.0
            second[1] = w[:2] * w[1:]
            return (x * x).sum() + (first * first * 3.0).sum() + second.sum()

        check_gradients(function, [0.5, -1.5, 2.5])


def test_a_view_whose_owner_is_gone_owns_its_memory_if_it_is_alone():
    def function(module, w):
        x = (w * 2.0).reshape((3, 2))
        x[0] = 7.0
        x[1] *= x[2]
        return x * x

    check_gradients(function, RNG.standard_normal((2, 3)))


def test_a_stale_view_whose_owner_is_gone_is_refused():
    w = leaf([5.0])
    buf = mg.zeros(3, "float64")
    first, second = buf[0:2], buf[1:3]
    del buf
    first[1:2] = w
    with pytest.raises(
        RuntimeError,
        match=r"mul: an input of shape \(2,\) is a stale view: .* the tensor that it was taken "
        r"from is gone",
    ):
        second * second
    with mg.no_grad():
        np.testing.assert_array_equal(
            second * second, [25.0, 0.0]
        )  # the value is right all the same
    np.testing.assert_array_equal(first.numpy(), [0.0, 5.0])


def test_a_view_taken_under_no_grad_is_refused_when_its_memory_was_assigned_to():
    buf, w = mg.zeros(3, "float64"), leaf([5.0])
    with mg.no_grad():
        view = buf[0:2]
    assert (view * w).requires_grad
    with pytest.raises(
        RuntimeError,
        match=r"assignment: the tensor is a view that was taken under no_grad\(\) and shares "
        r"memory",
    ):
        view[0:1] = w
    buf[0:1] = w
    with pytest.raises(RuntimeError, match=r"is a stale view: it was taken under no_grad\(\)"):
        view * view


def test_a_buffer_that_becomes_a_leaf_is_known_to_its_views():
    x = mg.Tensor(np.array([1.0, 2.0, 3.0]))
    view = x[1:]
    x.requires_grad_()
    (view * view).sum().backward()
    np.testing.assert_array_equal(x.grad, [0.0, 4.0, 6.0])


def test_backward_of_a_view_that_was_assigned_to():
    x, w = mg.zeros((2, 2), "float64"), leaf([3.0])
    view = x[1, 1]
    x[1, 1:] = w * w
    assert view.requires_grad
    view.backward()
    np.testing.assert_array_equal(w.grad, [6.0])


def test_a_detached_tensor_shares_memory_and_no_gradient():
    w = leaf([2.0, 3.0])
    x = w * w
    alias = x.detach()
    x[0:1] = w[1:] * 10.0
    np.testing.assert_array_equal(alias.numpy(), [30.0, 9.0])
    assert not (alias * 2.0).requires_grad
    with pytest.raises(
        RuntimeError,
        match="assignment: the tensor shares memory with the one that it was detached from",
    ):
        alias[0:1] = w[0:1]
    with pytest.raises(RuntimeError, match="shares memory with the one that it was detached from"):
        alias[0:1] *= w[0:1]
    np.testing.assert_array_equal(alias.numpy(), [30.0, 9.0])  # nothing has changed
    y = x * x
    alias[1] = 5.0
    with pytest.raises(
        RuntimeError, match="mul: one of the tensors needed .* modified by an in-place operation"
    ):
        y.sum().backward()


def test_a_detached_tensor_that_is_alone_can_be_assigned_to():
    w = leaf([2.0, 3.0])
    x = (w * 2.0).detach()
    x[0:1] = w[1:] * w[1:]
    x[1] += w[0]
    (x * x).sum().backward()
    np.testing.assert_allclose(w.grad, [2 * (6 + 2), 2 * 9 * 6])


def test_a_tensor_made_of_a_tensor_without_a_copy_is_detached():
    x, w = mg.zeros(2, "float64"), leaf([3.0])
    alias = mg.Tensor(x, copy=False)
    x[0] = 4.0
    np.testing.assert_array_equal(alias, [4.0, 0.0])
    with pytest.raises(RuntimeError, match="shares memory"):
        alias[0:1] = w


@pytest.mark.slow
def test_what_looks_at_memory_goes_away_with_it():
    x = leaf([1.0, 2.0]) * 2.0
    views = [x[0:1], x.detach(), x.reshape((2, 1))]
    y = views[0] * views[2]
    del views, x
    gc.collect()
    y.sum().backward()
    cycle, other = mg.ones(3), mg.ones(3)
    cycle.grad, other.grad = other, cycle
    part = cycle[0:2]
    del cycle, other
    gc.collect()
    part += leaf([1.0]).astype("float32")
    assert part.requires_grad


# ---------------------------------------------------------------- in-place operators


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_operators_change_the_memory(name):
    operate, reference = IN_PLACE[name]
    for right in (
        2.0,
        np.array([1.0, 2.0, 0.5]),
        mg.Tensor(np.array([[1.5], [0.5]])),
        np.float64(1.5),
        2,
    ):
        x = mg.Tensor(RNG.uniform(0.5, 1.5, (2, 3)))
        before, view, expected = x, x[0], reference(x.numpy().copy(), np.asarray(right))
        x = operate(x, right)
        assert x is before
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-15)
        np.testing.assert_array_equal(view.numpy(), x.numpy()[0])


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize(
    "right", ["number", "constant", "tracked", "itself", "reversed", "row", "expanded"]
)
def test_gradients_of_in_place_operators(name, right):
    operate, _ = IN_PLACE[name]

    def function(module, w, v):
        x = w * 1.25
        x = operate(
            x,
            {
                "number": lambda: 1.75,
                "constant": lambda: np.array([0.5, 1.5, 2.0]),
                "tracked": lambda: v,
                "itself": lambda: x,
                "reversed": lambda: x[::-1],
                "row": lambda: x[1],
                "expanded": lambda: module.broadcast_to(v[0], (2, 3)),
            }[right](),
        )
        return x * x

    check_gradients(function, RNG.uniform(0.5, 1.5, (2, 3)), RNG.uniform(0.5, 1.5, (2, 3)))


def test_gradients_of_the_in_place_product():
    def function(module, w, v):
        x = w * 1.25
        x @= v
        x[0:1] @= v
        return x * x

    if not hasattr(np.ndarray, "__imatmul__") or np.lib.NumpyVersion(np.__version__) < "1.25.0":
        pytest.skip("this NumPy has no @=")
    check_gradients(function, RNG.standard_normal((3, 3)), RNG.standard_normal((3, 3)))


def test_second_order_of_in_place_operators():
    def gradient(value):
        w = leaf(value)
        x = w * w
        x[0:2] *= w[1:]
        x /= 2.0 + x
        x **= 2.0
        x -= w
        (dw,) = mg.grad((x * mg.sin(x)).sum(), w, create_graph=True)
        return w, dw

    value, v = RNG.uniform(0.5, 1.5, 3), RNG.standard_normal(3)
    w, dw = gradient(value)
    (found,) = mg.grad((dw * v).sum(), w)
    for k in range(3):
        ends = [gradient(value + step * np.eye(3)[k])[1].numpy() @ v for step in (1e-6, -1e-6)]
        assert found.numpy()[k] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-6)


def test_parameters_are_trained_in_place_under_no_grad():
    net = mg.nn.Linear(2, 1)
    for p in net.parameters():
        before = p.numpy().copy()
        p.grad = mg.ones(p.shape)
        with mg.no_grad():
            p -= 0.25 * p.grad
        np.testing.assert_allclose(p.numpy(), before - 0.25)
        assert p.requires_grad and p.is_leaf


@pytest.mark.parametrize("name", [*IN_PLACE, "@="])
def test_a_leaf_that_requires_grad_is_not_changed_while_recording(name):
    w = leaf(np.full((2, 2), 2.0))
    operate = IN_PLACE[name][0] if name in IN_PLACE else operator.imatmul
    for target in (w, w[0:2], w.reshape((2, 2)), w.T):
        with pytest.raises(
            RuntimeError,
            match=r"\S+ a (view of a )?leaf that requires grad cannot be changed in place while "
            r"recording: use no_grad",
        ):
            operate(target, np.full((2, 2), 3.0))
    np.testing.assert_array_equal(w, np.full((2, 2), 2.0))


def test_in_place_errors_change_nothing():
    x = mg.Tensor(np.array([1.0, 2.0, 3.0]))
    for right, error, message in (
        (np.ones((2, 3)), ValueError, r"\+=: the tensor has shape \(3,\), the result has \(2, 3\)"),
        (np.ones(2), ValueError, "add: operands could not be broadcast"),
        (
            np.ones(3, np.float32),
            TypeError,
            r"\+=: both operands must have one dtype, got float64 and float32",
        ),
        ([leaf(1.0), leaf(2.0), leaf(3.0)], TypeError, "mg.stack"),
        ("a", TypeError, r"\+=: data must be numbers"),
        (10**400, ValueError, r"\+=: the number is beyond"),
        (1j, TypeError, "real"),
    ):
        with pytest.raises(error, match=message):
            x += right
    with pytest.raises(
        RuntimeError, match=r"\*=: several elements of an expanded view share one memory location"
    ):
        view = x.broadcast_to((2, 3))
        view *= 2.0
    locked = np.ones(3)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="-=: the tensor's memory is read-only"):
        shared = mg.Tensor(locked, copy=False)
        shared -= 1.0
    np.testing.assert_array_equal(x, [1.0, 2.0, 3.0])
    y = mg.tanh(leaf([1.0]))
    y += 1.0
    with pytest.raises(
        RuntimeError,
        match="tanh: one of the tensors needed for gradient computation has been modified by an "
        "in-place",
    ):
        y.backward()


def test_a_sum_in_place_over_a_million_elements_keeps_its_dtype():
    x = mg.ones(1_000_000)
    x += np.True_
    assert x.dtype == np.float32 and x.numpy().min() == 2.0
    assert copy.deepcopy(x).numpy()[5] == 2.0


# -------------------------------------------------------- NumPy memory that changes before backward


@pytest.mark.parametrize(
    "op",
    [
        lambda x, a: x * a,
        lambda x, a: a * x,
        lambda x, a: x / a,
        lambda x, a: a / x,
        lambda x, a: x**a,
        lambda x, a: a**x,
        lambda x, a: mg.matmul(x, a),
        lambda x, a: mg.matmul(a, x),
        lambda x, a: mg.addmm(a, x, a),
        lambda x, a: mg.addmm(x, a, x),
        lambda x, a: mg.maximum(x, a),
        lambda x, a: mg.minimum(a, x),
        lambda x, a: mg.where(a > 1.0, x, a),
        lambda x, a: mg.mse(x, a),
        lambda x, a: mg.huber(x, a),
        lambda x, a: x * mg.reshape(a, (2, 2)).T,
        lambda x, a: x * mg.Tensor(a, copy=False)[::-1],
        lambda x, a: mg.tanh(mg.Tensor(a, copy=False)) * x,
        lambda x, a: mg.nn.LSTM(2, 2, dtype="float64")(mg.reshape(a, (1, 2, 2)))[0] * x,
        lambda x, a: mg.cross_entropy(x, [0, 1], weight=a[0]),
    ],
)
def test_operands_of_numpy_may_change_before_backward(op):
    value, found = RNG.uniform(0.5, 1.5, (2, 2)), []
    for change in (False, True):
        mg.manual_seed(3)
        a, x = np.array([[1.5, 0.75], [2.0, 0.5]]), leaf(value)
        y = op(x, a)
        if change:
            a[...] = 0.0
        y.sum().backward()
        found.append(x.grad.numpy())
    np.testing.assert_array_equal(*found)


def test_masks_and_indices_may_change_before_backward():
    found = []
    for change in (False, True):
        mask, rows, places, targets = (
            np.array([True, False, True]),
            np.array([0, 2]),
            np.array([1, 1]),
            np.array([0, 1, 0]),
        )
        start, axis = np.array(1), np.array(0)
        x = leaf(np.arange(6.0).reshape(3, 2))
        z = x * 1.0
        z[rows] = x[places] * 2.0
        y = (
            mg.where(mask[:, None], x, 0.0).sum()
            + (x[rows] * 2.0).sum()
            + (x[mask] * 3.0).sum()
            + (x[start:] * x[:2]).sum()
        )
        y = (
            y
            + x.sum(axis).sum()
            + mg.flip(x, axis)[0].sum()
            + mg.cross_entropy(x, targets)
            + (z * z).sum()
            + mg.var(x, axis).sum()
        )
        y = (
            y
            + mg.softmax(x, axis)[0, 0]
            + mg.cumsum(x, axis)[1].sum()
            + x.transpose((start, axis))[0].sum()
        )
        y = y + mg.embedding(x, rows).sum() + (x[..., start] * 5.0).sum()
        if change:
            mask[:], rows[:], places[:], targets[:], start[...], axis[...] = True, 1, 0, 1, 3, 1
        y.backward()
        found.append(x.grad.numpy())
    np.testing.assert_array_equal(*found)


def test_a_slice_bound_that_changes_cannot_write_out_of_bounds():
    x, stop = leaf(np.zeros(3)), np.array(1)
    y = x[:stop] * 2.0
    stop[...] = 3
    y.backward(mg.Tensor(np.array([1.0])))
    np.testing.assert_array_equal(x.grad, [2.0, 0.0, 0.0])

    class Moving:
        calls = 0

        def __index__(self):
            self.calls += 1
            return self.calls

    z = leaf(np.zeros(3)) * 1.0
    index = Moving()
    z[:index] = 5.0
    z[index] = 6.0
    np.testing.assert_array_equal(z.numpy(), [5.0, 0.0, 6.0])
    z.sum().backward()
    assert mg.ones((2, 3)).transpose((Moving(), 0)).shape == (3, 2)


def test_a_leaf_that_shares_memory_with_numpy():
    a = np.array([3.0, 4.0])
    x = mg.Tensor(a, requires_grad=True, copy=False)
    y = x * x * x
    (first,) = mg.grad(y.sum(), x, create_graph=True, retain_graph=True)
    a[:] = 0.0
    (second,) = mg.grad(first.sum(), x)
    np.testing.assert_array_equal(first, [27.0, 48.0])
    np.testing.assert_array_equal(second, [18.0, 24.0])


def test_a_quotient_may_be_changed_in_place():
    def function(module, w, v):
        z = w / v
        z *= w
        z /= v + z
        return z * z

    check_gradients(function, RNG.uniform(0.5, 1.5, 3), RNG.uniform(0.5, 1.5, 3))


def test_ops_written_in_python_see_stale_views():
    class Twice(mg.Function):
        @staticmethod
        def forward(ctx, x):
            return mg.Tensor(2 * x.numpy())

        @staticmethod
        def backward(ctx, dy):
            return dy * 2.0

    for op, factor in (
        (Twice.apply, 2.0),
        (lambda x: mg.record("thrice", 3 * x.numpy(), (x,), lambda dy: dy * 3.0), 3.0),
        (lambda x: mg.dropout(x, 0.5, generator=mg.Generator(1)), None),
    ):
        w, buf = leaf([5.0]), mg.zeros(2, "float64")
        view = buf[0:1]
        buf[0:1] = w
        y = op(view)
        y.backward()
        assert w.grad.item() == (factor if factor is not None else y.item() / 5.0)
        with mg.no_grad():
            constant = buf[0:1]
        buf[1:] = w
        with pytest.raises(RuntimeError, match="stale view"):
            op(constant)
