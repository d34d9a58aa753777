"""Changes of what a backward pass needs are caught, copies are independent, and a Tensor that was
not made properly is an error."""

import copy
import inspect
import pickle
import sys

import numpy as np
import pytest
from graphs import close, leaf

import minigrad as mg

# ---------------------------------------------------------------- changes in place


def test_changing_a_saved_tensor_is_caught():
    x, c = leaf(1.0, 2.0), mg.Tensor(np.array([3.0, 4.0]))
    y = (x * c).sum()
    c[0] = 10.0
    with pytest.raises(
        RuntimeError,
        match=(
            r"mul: one of the tensors needed for gradient computation has been modified by an "
            r"in-place operation: "
            r"a float64 tensor of shape \(2,\) is at version 1; expected version 0 instead. Hint: "
        ),
    ):
        y.backward()
    assert x.grad is None


def test_changing_what_is_not_saved_is_allowed():
    x, c = leaf(1.0, 2.0), mg.Tensor(np.array([3.0, 4.0]))
    y = (x + c).sum()
    c[0] = 10.0
    y.backward()
    assert close(x.grad, 1, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.__setitem__(0, 10.0),
        lambda c: c.detach().__setitem__(0, 10.0),
        lambda c: c[:1].__setitem__(0, 10.0),
        lambda c: c.reshape((2, 1)).__setitem__((0, 0), 10.0),
        lambda c: c.detach()[1:].reshape((1, 1)).__setitem__(..., 10.0),
    ],
    ids=["itself", "detached", "slice", "reshaped", "view of a view"],
)
def test_changes_through_other_names_are_caught(change):
    x, c = leaf(1.0, 2.0), mg.Tensor(np.array([3.0, 4.0]))
    y = (x * c).sum()
    change(c)
    with pytest.raises(RuntimeError, match="mul: .*modified by an in-place operation"):
        y.backward()


def test_changing_a_saved_view_through_its_base_is_caught():
    x, c = leaf(1.0), mg.Tensor(np.array([3.0, 4.0]))
    y = (x * c[:1]).sum()
    c[1] = 10.0
    with pytest.raises(RuntimeError, match="mul: .*modified by an in-place operation"):
        y.backward()


def test_changing_a_saved_output_is_caught():
    x = leaf(1.0, 2.0)
    y = mg.exp(x)
    y.detach()[0] = 5.0
    with pytest.raises(RuntimeError, match="exp: .*modified by an in-place operation"):
        y.sum().backward()


def test_assigning_to_a_leaf_that_requires_grad():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="leaf"):
        x[0] = 3.0
    with mg.no_grad():
        x[0] = 3.0
    assert close(x, 3, 2)


def test_assigning_to_a_view_that_repeats_elements():
    with pytest.raises(RuntimeError):
        mg.Tensor(np.broadcast_to(np.zeros(1, np.float32), (3,)), copy=False)[0] = 1.0


def test_numpy_is_read_only():
    x = leaf(1.0, 2.0)
    for view in (x.numpy(), mg.exp(x).numpy(), mg.ones(2).numpy(), np.asarray(x)):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 5.0


def test_constructor_copies():
    a = np.ones(2)
    x = mg.Tensor(a)
    a[0] = 7.0
    assert close(x, 1, 1)
    shared = mg.Tensor(a, copy=False)
    a[0] = 8.0
    assert close(shared, 8, 1)


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies(duplicate):
    x = leaf(1.0, 2.0)
    x.sum().backward()
    y = duplicate(x)
    assert (
        type(y) is mg.Tensor
        and y.requires_grad
        and y.is_leaf
        and y.grad is None
        and y.dtype == x.dtype
    )
    assert y.numpy().tobytes() == x.numpy().tobytes() and not np.shares_memory(y.numpy(), x.numpy())
    assert not duplicate(x.detach()).requires_grad
    assert duplicate(mg.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(RuntimeError, match="only leaf tensors"):
        duplicate(x * 2.0)


def test_deepcopy_keeps_sharing():
    x = leaf(1.0)
    one, two = copy.deepcopy([x, x])
    assert one is two and one is not x


# -------------------------------------------------------------- tensors that were not made properly


class Forgot(mg.Tensor):
    def __init__(self):
        pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: mg.Tensor.__new__(mg.Tensor),
        lambda: mg.nn.Parameter.__new__(mg.nn.Parameter),
        Forgot,
    ],
)
def test_tensor_without_init(make):
    """It is empty; every method and function gives an answer or an ordinary error."""
    t = make()
    assert t.shape == (0,) and t.dtype == np.float32 and t.tolist() == [] and not t.requires_grad
    calls = [
        getattr(t, name)
        for name in dir(t)
        if name not in ("__class__", "__new__", "__init__", "__init_subclass__")
    ]
    calls += [
        function
        for name, function in vars(mg).items()
        if callable(function)
        and not inspect.isclass(function)
        and name not in ("show_config", "save", "load", "manual_seed", "set_num_threads", "draw")
    ]
    for call in filter(callable, calls):
        for arguments in ((), (t,), (t, t), (1,), (t, 0), (None,)):
            try:
                call(*arguments)
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
                pass


def test_init_twice():
    x = leaf(1.0, 2.0)
    y = x + 1.0
    for tensor in (x, y, mg.nn.Parameter(np.ones(2))):
        with pytest.raises(RuntimeError, match="Tensor: __init__ has been called before"):
            mg.Tensor.__init__(tensor, np.ones(5))
    y.sum().backward()
    assert close(x.grad, 1, 1)
    late = mg.Tensor.__new__(mg.Tensor)
    late.requires_grad_()
    y = late.sum()
    late.__init__([1.0, 2.0], requires_grad=True)
    with pytest.raises(
        RuntimeError, match=r"__init__ after it had been used: .* \(0,\), it has shape \(2,\)"
    ):
        y.backward()
    with pytest.raises(TypeError):
        mg.Tensor("no")
    with pytest.raises(TypeError):
        type(x).__reduce__(x)[0](mg.Tensor, np.ones(2, int), False)


def test_insides_made_by_hand():
    """The classes that a user can reach through grad_fn and the module: empty objects, that nothing
    can be done with."""
    module = sys.modules["minigrad.core.tensor"]
    modes = sys.modules["minigrad.core.modes"]
    node = type(mg.exp(leaf(1.0)).grad_fn)
    for kind in (
        node,
        *node.__mro__[1:-1],
        module.Sweep,
        modes.Mode,
        module.Output,
        module.Version,
        module.LeafStandIn,
    ):
        thing = kind()
        repr(thing)
        for name in dir(thing):
            value = getattr(thing, name)
            if callable(value) and name != "__class__":
                try:
                    value()
                except TypeError:
                    pass
        for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                duplicate(thing)
