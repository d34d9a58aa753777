"""Views, assignment, versions and the flow of gradients in minigrad/ops/index.pyx and shape.pyx:
what the table cannot say."""

import time

import numpy as np
import pytest

import minigrad as mg


def leaf(*shape):
    return mg.Tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)


def test_assignment_into_a_fresh_buffer_is_recorded():
    x, v = leaf(4, 3), np.random.default_rng(1).standard_normal((4, 3))
    out = mg.zeros((4, 3), np.float64)
    for t in range(4):
        out[t] = mg.tanh(x[t])
    out.backward(v)
    np.testing.assert_allclose(x.grad.numpy(), v * (1 - np.tanh(x.numpy()) ** 2), rtol=1e-14)


def test_an_overwritten_value_gets_no_gradient():
    a, b = leaf(3), leaf(3)
    out = a * 1.0
    out[1:] = b[1:]
    out.backward(np.ones(3))
    assert a.grad.tolist() == [1, 0, 0] and b.grad.tolist() == [0, 1, 1]


def test_where_places_repeat_the_last_value_gets_the_gradient():
    v = leaf(3)
    out = mg.zeros(2, np.float64)
    out[np.array([0, 0, 1])] = v
    out.backward(np.array([5.0, 7.0]))
    assert v.grad.tolist() == [0, 5, 7]


def test_assignment_leaves_the_given_gradient_alone():
    x = leaf(3)
    out = x * 1.0
    out[0] = 2.0
    seed = mg.ones(3, np.float64)
    out.backward(seed)
    assert seed.tolist() == [1, 1, 1] and x.grad.tolist() == [0, 1, 1]


def test_a_leaf_cannot_be_assigned_to_while_recording():
    x = leaf(3)
    before = x.numpy().copy()
    with pytest.raises(RuntimeError, match="a leaf that requires grad"):
        x[0] = 1.0
    assert np.array_equal(x.numpy(), before)
    with mg.no_grad():
        x[0] = 1.0
    assert x[0].item() == 1.0


def test_views_are_assigned_to_while_recording():
    x = leaf(3)
    y = x * 1.0
    y[1:][0] = 1.0
    y.backward(np.array([1.0, 2.0, 3.0]))
    assert y.numpy()[1] == 1.0 and x.grad.tolist() == [1, 0, 3]
    with pytest.raises(RuntimeError, match="expanded view"):
        mg.broadcast_to(mg.zeros(1), (3,))[0] = 1.0


def test_a_view_taken_before_a_change_knows_of_it():
    x = leaf(3)
    y = x * 1.0
    view = y[1:]
    y[1] = 5.0
    (view * 2.0).backward(np.array([3.0, 4.0]))
    assert x.grad.tolist() == [0, 0, 8]


def test_assignment_is_caught_through_views_of_what_was_saved():
    x = leaf(3)
    c = mg.ones(3, np.float64)
    y = x * c
    c[1:][0] = 2.0
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        y.backward(np.ones(3))
    assert x.grad is None


def test_read_only_memory_is_refused():
    array = np.zeros(3)
    array.flags.writeable = False
    x = mg.Tensor(array, copy=False)
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1.0


def test_slices_of_a_sequence_cost_one_buffer():
    """The gradients of x[t] meet in one buffer: the sum over 300 steps has the bits of one
    chain."""
    x = leaf(300, 2)
    total = x[0]
    for t in range(1, 300):
        total = total + x[t]
    total.backward(np.array([0.1, 0.3]))
    assert (x.grad.numpy() == np.array([0.1, 0.3])).all()


def test_methods():
    x = leaf(2, 3)
    assert (
        x.T.shape
        == x.transpose(1, 0).shape
        == x.transpose((1, 0)).shape
        == x.swapaxes(0, 1).shape
        == (3, 2)
    )
    assert x.reshape(3, 2).shape == x.reshape((3, -1)).shape == (3, 2) and x.reshape(6).shape == (
        6,
    )
    assert [t.tolist() for t in x] == x.tolist() and len(x) == 2
    with pytest.raises(TypeError, match="0-d"):
        iter(mg.ones(()))
    assert (
        x[0, 1].shape == ()
        and x[..., 0].shape == (2,)
        and x[None].shape == (1, 2, 3)
        and x[True].shape == (1, 2, 3)
    )


def test_list_index_and_mask():
    x = mg.Tensor([1.0, -2.0, 3.0])
    assert x[x > 0].tolist() == [1, 3] and x[[2, 0]].tolist() == [3, 1] and x[[]].shape == (0,)


def test_assigning_a_part_of_the_tensor_itself():
    x = leaf(4)
    out = x * 1.0
    out[1:] = out[:-1]
    assert np.array_equal(out.numpy(), x.numpy()[[0, 0, 1, 2]])
    out.backward(np.array([1.0, 2.0, 3.0, 4.0]))
    assert x.grad.tolist() == [3, 3, 4, 0]


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize(
    "index",
    [
        np.ones(4, bool),
        np.array([True, True, True, False]),
        [0, 1, 2, 3],
        [3, 1],
        slice(None),
        (Ellipsis, np.ones(4, bool)),
    ],
    ids=str,
)
def test_assigning_a_view_of_the_memory_that_is_changed(index, tracked):
    """The values are those from before, also where NumPy itself reads what it has just written: a
    mask."""
    start, dy = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, -1.0, 2.0, 7.0])
    w = mg.Tensor(start, requires_grad=tracked)
    x = w * 1.0
    places = np.arange(4)[index]
    x[index] = x[::-1][: len(places)]
    source = np.arange(4)
    source[places] = np.arange(4)[::-1][: len(places)]
    assert x.tolist() == start[source].tolist()
    if tracked:
        x.backward(dy)
        assert w.grad.tolist() == [dy[source == i].sum() for i in range(4)]


def test_a_stale_view_is_refused_before_anything_changes():
    x = leaf(3)
    out = x * 1.0
    with mg.no_grad():
        view = out[:1]
    out[2] = 0.0
    before = out.numpy().copy()
    with pytest.raises(RuntimeError, match="assignment: an input .* is a stale view"):
        out[1:2] = view
    assert np.array_equal(out.numpy(), before)


@pytest.mark.parametrize(
    "index, value",
    [
        (0, np.ones(2)),
        (3, 1.0),
        ([0, 3], 1.0),
        (slice(None), np.ones((1, 3))),
        (0, "x"),
        (0, mg.ones(())),
        ("a", 1.0),
        (mg.ones(1), 1.0),
    ],
    ids=str,
)
def test_a_refused_assignment_changes_nothing(index, value):
    x = leaf(3)
    out = x * 1.0
    node, before = out.grad_fn, out.numpy().copy()
    saved = out * out
    with pytest.raises((ValueError, IndexError, TypeError)):
        out[index] = value
    assert out.grad_fn is node and np.array_equal(out.numpy(), before)
    saved.backward(np.ones(3))
    assert np.array_equal(x.grad.numpy(), 2 * x.numpy())


def test_views_of_a_constant_stay_usable_when_it_is_assigned_to():
    """Nothing of that is on the tape; once something is, the views know of it, and views of
    these."""
    buffer = mg.zeros((2, 3), np.float64)
    first, row = buffer[0], buffer[1]
    row[...] = 2.0
    buffer[0] = 1.0
    x = leaf(3)
    (row * x + first * x).backward(np.ones(3))
    assert x.grad.tolist() == [3, 3, 3] and buffer.tolist() == [[1, 1, 1], [2, 2, 2]]
    buffer[1] = x
    assert not buffer.detach()[0].requires_grad
    for view in (row, row[:], row.reshape(3, 1).T[0], buffer[1]):
        assert view.requires_grad
        x.grad = None
        (view * x).backward(np.ones(3), retain_graph=True)
        assert x.grad.tolist() == (2 * x.numpy()).tolist()


def test_assignment_leaves_the_gradients_that_others_see_alone():
    """retain_grad, hooks, and grad() for a tensor in the middle see the whole gradient, not one
    with a hole."""

    def made():
        x = leaf(3)
        out = x * 1.0
        out[0] = 5.0
        return x, out

    x, out = made()
    out.retain_grad()
    (out * 2.0).backward(np.ones(3))
    assert out.grad.tolist() == [2, 2, 2] and x.grad.tolist() == [0, 2, 2]

    x, out = made()
    dout, dx = mg.grad(out * 2.0, [out, x], np.ones(3))
    assert dout.tolist() == [2, 2, 2] and dx.tolist() == [0, 2, 2]

    x, out = made()
    seen = []
    out.register_hook(seen.append)
    (out * 2.0).backward(np.ones(3))
    assert seen[0].tolist() == [2, 2, 2] and x.grad.tolist() == [0, 2, 2]


def test_the_index_may_be_changed_after_its_use():
    """A loop that fills one array of indices again and again."""
    x, W = leaf(4), leaf(4, 2)
    rows, mask = np.array([0, 1]), np.array([True, False, False, True])
    out = x * 1.0
    y, z, e, m = x[rows], x[[rows]], mg.embedding(W, rows), x[mask]
    out[rows] = 5.0
    rows[:], mask[:] = 3, False
    (y.sum() + z.sum() + m.sum() + out.sum()).backward()
    assert x.grad.tolist() == [3, 2, 1, 2]
    e.sum().backward()
    assert W.grad.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


def random_index(rng, shape):
    """An index as users write them, mostly a valid one: a part for some of the dimensions, masks
    and arrays that fit together."""
    parts, axis = [], 0
    length = int(rng.integers(0, 4))
    while axis < len(shape) and rng.random() < 0.85:
        n, kind = (
            shape[axis],
            rng.choice(
                [
                    "int",
                    "slice",
                    "slice",
                    "None",
                    "array",
                    "list",
                    "column",
                    "mask",
                    "mask2",
                    "scalar",
                ]
            ),
        )
        low, high = (-n, n) if n and rng.random() < 0.97 else (-n - 1, n + 1)
        axis += kind != "None"
        if kind == "int":
            parts.append(int(rng.integers(low, high)))
        elif kind == "slice":
            parts.append(
                slice(
                    *(
                        None if rng.random() < 0.4 else int(rng.integers(-n - 2, n + 3))
                        for _ in range(2)
                    ),
                    rng.choice([None, 1, 2, -1, -2]),
                )
            )
        elif kind == "None":
            parts.append(None)
        elif kind == "mask2" and axis < len(shape):
            parts.append(rng.random(shape[axis - 1 : axis + 1]) < 0.5)
            axis += 1
        elif kind.startswith("mask"):
            parts.append(rng.random(n) < 0.5)
        elif kind == "scalar":
            parts.append(np.int32(rng.integers(low, high)))
        else:
            array = rng.integers(low, high, (2, 1) if kind == "column" else length)
            array = array.astype(rng.choice([np.int64, np.int32, np.int8]))
            parts.append(array.tolist() if kind == "list" else array)
    if rng.random() < 0.3:
        parts.insert(int(rng.integers(0, len(parts) + 1)), Ellipsis)
    return parts[0] if len(parts) == 1 and rng.random() < 0.8 else tuple(parts)


@pytest.mark.parametrize("seed", range(8))
def test_random_indices_agree_with_numpy(seed):
    """Value, view or copy, gradient, assignment: on arrays of 0 to 4 dimensions."""
    rng = np.random.default_rng(seed)
    worked = 0
    for _ in range(400):
        shape = tuple(
            rng.choice([0, 1, 2, 3, 5], p=[0.05, 0.15, 0.3, 0.3, 0.2])
            for _ in range(rng.integers(0, 5))
        )
        shape = tuple(map(int, shape))
        array, index = rng.normal(size=shape), random_index(rng, shape)
        x = mg.Tensor(array, requires_grad=True)
        try:
            expected = np.asarray(array[index])
        except IndexError:
            with pytest.raises(IndexError, match="^index: "):
                x[index]
            with pytest.raises(IndexError, match="^assignment: "):
                mg.Tensor(array)[index] = 1.0
            continue
        worked += 1
        y = x[index]
        assert y.shape == expected.shape and np.array_equal(y.numpy(), expected), index
        assert expected.ndim == 0 or np.shares_memory(y.numpy(), x.numpy()) == np.shares_memory(
            expected, array
        ), index
        v = rng.normal(size=expected.shape)
        (dx,) = mg.grad(y, x, v)
        wanted = np.zeros(shape)
        np.add.at(wanted, index, v)
        np.testing.assert_allclose(dx.numpy(), wanted, rtol=1e-14, atol=1e-14, err_msg=str(index))

        value, out = mg.Tensor(rng.normal(size=expected.shape), requires_grad=True), x * 1.0
        out[index] = value
        wanted = array.copy()
        wanted[index] = value.numpy()
        assert np.array_equal(out.numpy(), wanted), index
        v = rng.normal(size=shape)
        dx, dvalue = mg.grad(out, [x, value], v)
        holes = v.copy()
        holes[index] = 0
        assert np.array_equal(dx.numpy(), holes), index
        assert np.array_equal(
            np.sort(dvalue.numpy()[dvalue.numpy() != 0]), np.sort(v[holes != v])
        ), index
    assert worked > 200


def test_the_parts_of_a_sequence_cost_linear_time():
    """20,000 steps of 64 numbers: with a buffer of zeros for each step this would move 200 GB."""
    T = 20_000
    x = mg.Tensor(np.ones((T, 64), np.float32), requires_grad=True)
    out = mg.zeros((T, 64))
    start = time.perf_counter()
    for t in range(T):
        out[t] = x[t]
    mg.stack([out[t] for t in range(T)]).backward(np.ones((T, 64), np.float32))
    assert time.perf_counter() - start < 10
    assert (x.grad.numpy() == 1).all()


def test_the_parts_of_a_joined_tensor_get_their_parts_of_the_gradient():
    """The rules hand on views of the gradient; a hook gets a copy, so it cannot change the
    caller's."""
    parts = [leaf(2, 3) for _ in range(3)]
    for joined, axis in ((mg.stack, 0), (mg.stack, 1), (mg.concatenate, 0), (mg.concatenate, 1)):
        inputs = [part * 1.0 for part in parts]
        seen = []
        for part in inputs:
            part.register_hook(seen.append)
        y = joined(inputs, axis)
        v = mg.Tensor(np.random.default_rng(1).standard_normal(y.shape))
        y.backward(v)
        rows = v.numpy() if joined is mg.concatenate else np.moveaxis(v.numpy(), axis, 0)
        expected = np.split(rows, 3, axis) if joined is mg.concatenate else list(rows)
        assert len(seen) == 3
        for dy, part in zip(seen[::-1], expected, strict=True):
            np.testing.assert_array_equal(dy.numpy(), part)
            assert not np.shares_memory(dy.numpy(), v.numpy())


def test_views_share_memory_and_know_of_changes():
    x = mg.zeros((2, 3, 1), np.float64)
    views = [
        x.reshape(3, 2),
        x.transpose(2, 0, 1),
        x.T,
        x.swapaxes(0, 1),
        x.squeeze(),
        x.unsqueeze(0),
        mg.broadcast_to(x, (4, 2, 3, 1)),
        x.flip(),
        *x.split(3, axis=1),
        x[0],
        x[..., 0],
    ]
    w = leaf(1)
    products = [view * w for view in views]
    assert all(np.shares_memory(view.numpy(), x.numpy()) for view in views)
    x[...] = 7.0
    assert all((view.numpy() == 7).all() for view in views)
    for product in products:
        with pytest.raises(RuntimeError, match="modified by an in-place operation"):
            product.sum().backward()
    assert not np.shares_memory(x.swapaxes(0, 1).reshape(6).numpy(), x.numpy())


def test_astype_rounds_and_overflows_without_a_word():
    x = mg.Tensor(np.array([1 / 3, 1e300, np.nan]))
    assert np.array_equal(
        x.astype(np.float32).numpy(), np.array([1 / 3, np.inf, np.nan], np.float32), equal_nan=True
    )
    assert x.astype(np.float64) is x


def test_rows_by_the_thousand():
    """Long enough for the kernels to run without the GIL."""
    rng = np.random.default_rng(0)
    W, rows = leaf(50, 16), rng.integers(0, 50, (40, 60))
    y, v = mg.embedding(W, rows), rng.integers(-8, 9, (40, 60, 16)).astype(float)
    assert np.array_equal(y.numpy(), W.numpy()[rows])
    y.backward(v)
    expected = np.zeros((50, 16))
    np.add.at(expected, rows, v)
    assert np.array_equal(W.grad.numpy(), expected)


@pytest.mark.parametrize("step", [2**62, -(2**62), 2**63 - 1, -(2**63)])
def test_a_step_beyond_the_array_takes_one_element(step):
    """Step times stride is beyond what an address can hold."""
    array = np.arange(6.0).reshape(2, 3)
    x = mg.Tensor(array, requires_grad=True)
    y = x[::step, ::step]
    assert np.array_equal(y.numpy(), array[::step, ::step])
    y.backward(mg.ones((1, 1), dtype=np.float64))
    expected = np.zeros((2, 3))
    expected[::step, ::step] = 1
    assert np.array_equal(x.grad.numpy(), expected)
