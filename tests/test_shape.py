"""Views, assignment, and the order of gradients in minigrad/shape.pyx: what the table of ops cannot say."""
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


def test_views_cannot_be_assigned_to_while_recording():
    x = leaf(3)
    y = x * 1.0
    with pytest.raises(RuntimeError, match="a view cannot be assigned to"):
        y[1:][0] = 1.0
    with pytest.raises(RuntimeError, match="expanded view"):
        mg.broadcast_to(mg.zeros(1), (3,))[0] = 1.0


def test_a_view_taken_before_a_change_is_not_used_after_it():
    x = leaf(3)
    y = x * 1.0
    view = y[1:]
    y[0] = 5.0
    with pytest.raises(RuntimeError, match="a view that was taken before its memory was changed in place"):
        view * 2.0


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
    """The gradients of x[t] meet in one buffer: the sum over 300 steps has the bits of one chain."""
    x = leaf(300, 2)
    total = x[0]
    for t in range(1, 300):
        total = total + x[t]
    total.backward(np.array([0.1, 0.3]))
    assert (x.grad.numpy() == np.array([0.1, 0.3])).all()


def test_methods():
    x = leaf(2, 3)
    assert x.T.shape == x.transpose(1, 0).shape == x.transpose((1, 0)).shape == x.swapaxes(0, 1).shape == (3, 2)
    assert x.reshape(3, 2).shape == x.reshape((3, -1)).shape == (3, 2) and x.reshape(6).shape == (6,)
    assert [t.tolist() for t in x] == x.tolist() and len(x) == 2
    with pytest.raises(TypeError, match="0-d"):
        iter(mg.ones(()))
    assert x[0, 1].shape == () and x[..., 0].shape == (2,) and x[None].shape == (1, 2, 3) and x[True].shape == (1, 2, 3)


def test_list_index_and_mask():
    x = mg.Tensor([1.0, -2.0, 3.0])
    assert x[x > 0].tolist() == [1, 3] and x[[2, 0]].tolist() == [3, 1] and x[[]].shape == (0,)
