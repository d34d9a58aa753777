"""The tape and the sweep: accumulation, errors of state, hooks, grad(), modes, changes in place,
memory, depth, threads."""

import asyncio
import copy
import ctypes
import gc
import inspect
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from running import in_small_thread

import minigrad as mg


def leaf(*values, dtype=np.float64):
    return mg.Tensor(np.array(values, dtype), requires_grad=True)


def close(tensor, *values):
    np.testing.assert_allclose(tensor.numpy(), values, rtol=1e-14)
    return True


# ---------------------------------------------------------------- backward


def test_gradients_accumulate():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    first = x.grad
    assert close(x.grad, 2, 4)
    (x * 3.0).sum().backward()
    assert x.grad is first and close(x.grad, 5, 7)
    x.grad = None
    x.sum().backward()
    assert close(x.grad, 1, 1)


def test_grad_setter():
    x = leaf(1.0, 2.0)
    x.grad = mg.Tensor(np.array([5.0, 6.0]))
    (x * 2.0).sum().backward()
    assert close(x.grad, 7, 8)
    with pytest.raises(
        ValueError, match=r"grad: must have shape \(2,\) and dtype float64, got \(3,\) and float64"
    ):
        x.grad = mg.ones(3, np.float64)
    with pytest.raises(ValueError, match="grad: must have shape .* dtype float64, got .* float32"):
        x.grad = mg.ones(2)
    with pytest.raises(TypeError):
        x.grad = np.ones(2)


def test_backward_of_a_leaf():
    x = leaf(3.0)
    x.backward()
    x.backward(np.array([2.0]))
    assert close(x.grad, 3)


def test_shared_values_get_both_contributions():
    x = leaf(3.0)
    b = x + x
    c = b + b
    c.backward()
    assert close(x.grad, 4)
    x.grad = None
    (x * x).backward()
    assert close(x.grad, 6)
    x.grad = None
    y = mg.exp(x)
    (y * y + y).backward()
    assert close(x.grad, 2 * np.exp(6) + np.exp(3))


def test_sixty_doublings_take_sixty_visits():
    """2^60 paths lead from y to x, but each node is visited once."""
    x, visits = leaf(1.0), []
    y = x
    for _ in range(60):
        y = y + y
        y.register_hook(lambda dy: visits.append(None))
    y.backward()
    assert close(x.grad, 2.0**60) and len(visits) == 60


def test_backward_twice():
    x = leaf(1.0, 2.0)
    y = mg.tanh(x * x).sum()
    y.backward(retain_graph=True)
    first = x.grad.numpy().copy()
    y.backward()
    assert (x.grad.numpy() == 2 * first).all()
    with pytest.raises(
        RuntimeError,
        match=r"through the graph a second time, but \w+ has freed .* retain_graph=True",
    ):
        y.backward()
    assert (x.grad.numpy() == 2 * first).all()


def test_freed_graph_below_a_live_one():
    x = leaf(1.0)
    y = mg.exp(x)
    y.backward()
    with pytest.raises(
        RuntimeError, match="through the graph a second time, but exp has freed what it saved"
    ):
        (y * 2.0).backward()
    assert close(x.grad, np.e)


def test_state_errors():
    x = leaf(1.0, 2.0)
    with pytest.raises(
        RuntimeError, match=r"backward: .*implicitly only for a scalar, the output has shape \(2,\)"
    ):
        (x * x).backward()
    with pytest.raises(RuntimeError, match="backward: the tensor does not require grad"):
        mg.ones(()).backward()
    with pytest.raises(RuntimeError, match="backward: the tensor does not require grad"):
        x.detach().sum().backward()
    with mg.no_grad():
        y = x.sum()
    with pytest.raises(RuntimeError, match="backward: the tensor does not require grad"):
        y.backward()
    y = x * x
    with pytest.raises(
        ValueError, match=r"backward: gradient must have shape \(2,\) like the output, got \(3,\)"
    ):
        y.backward(np.ones(3))
    with pytest.raises(
        TypeError, match="backward: gradient must have dtype float64 like the output, got float32"
    ):
        y.backward(mg.ones(2))
    with pytest.raises(TypeError, match="int64"):
        y.backward(np.ones(2, int))
    assert x.grad is None
    y.backward([1.0, 1.0])
    assert close(x.grad, 2, 4)


def test_seed_is_not_touched():
    x = leaf(1.0, 2.0)
    seed = np.array([3.0, 4.0])
    y = x + 0.0
    y.backward(mg.Tensor(seed, copy=False), retain_graph=True)
    y.backward(mg.Tensor(seed, copy=False))
    assert close(x.grad, 6, 8) and seed.tolist() == [3, 4]


def test_only_what_needs_a_gradient_is_recorded():
    x, constant = leaf(1.0), mg.ones(1, np.float64)
    assert (constant * constant).grad_fn is None
    y = x * constant
    assert y.grad_fn.name == "mul" and y.grad_fn.inputs[0] is x and y.grad_fn.inputs[1] is None
    assert repr(y.grad_fn) == "<Node mul>"
    y.backward()
    assert constant.grad is None


def test_requires_grad():
    x = mg.ones(2)
    assert not x.requires_grad and x.requires_grad_() is x and x.requires_grad and x.is_leaf
    y = x * 2
    assert y.requires_grad and not y.is_leaf
    with pytest.raises(RuntimeError, match="requires_grad_: only a leaf"):
        y.requires_grad_(False)
    x.requires_grad = False
    assert not (x * 2).requires_grad


def test_retain_grad():
    x = leaf(2.0)
    y = x * x
    y.retain_grad()
    mg.exp(y).backward(retain_graph=True)
    assert close(y.grad, np.exp(4)) and y.grad.is_leaf


# ---------------------------------------------------------------- random graphs


def whole(x):
    """x, broadcast to (3, 3)."""
    return x + np.zeros((3, 3))


UNARY = [
    lambda lib, x: lib.tanh(x),
    lambda lib, x: lib.sin(x),
    lambda lib, x: lib.exp(x * 0.1),
    lambda lib, x: -x,
    lambda lib, x: x,
    lambda lib, x: whole(x).reshape((9,)).reshape((3, 3)),
    lambda lib, x: whole(x).T,
    lambda lib, x: whole(x)[1:2],
    lambda lib, x: whole(x)[:, ::-2][:, :1],
    lambda lib, x: whole(x)[[2, 0, 2]],
    lambda lib, x: whole(x).sum(0, keepdims=True),
    lambda lib, x: whole(x).mean(1, keepdims=True),
]
BINARY = [
    lambda lib, x, y: x + y,
    lambda lib, x, y: x - y,
    lambda lib, x, y: x * y * 0.5,
    lambda lib, x, y: x / (y * y + 2.0),
    lambda lib, x, y: whole(x) @ whole(y) * 0.3,
    lambda lib, x, y: lib.concatenate([whole(x)[:1], whole(y)[1:]]),
    lambda lib, x, y: lib.stack([whole(x), whole(y)])[1],
]


def random_program(seed):
    """A function of (lib, inputs) that makes 25 values, each from earlier ones, some of them used
    often, and adds up the last."""
    rng = np.random.default_rng(seed)
    steps = [
        (
            BINARY[rng.integers(len(BINARY))]
            if rng.random() < 0.6
            else UNARY[rng.integers(len(UNARY))],
            rng.integers(0, 3 + k),
            rng.integers(max(0, k - 2), 3 + k),
        )
        for k in range(25)
    ]
    weights = rng.normal(size=(28, 3, 3))

    def program(lib, inputs):
        values = list(inputs)
        for op, i, j in steps:
            values.append(op(lib, values[i], values[j]) if op in BINARY else op(lib, values[i]))
        total = 0.0
        for value, weight in list(zip(values, weights, strict=True))[-6:]:
            total = total + (whole(value) * weight).sum()
        return total

    return program


@pytest.mark.parametrize("seed", range(60))
def test_random_graph(seed):
    """Against the complex step on the same program in NumPy; backward, grad() and create_graph
    agree; nothing shares memory."""
    program = random_program(seed)
    rng = np.random.default_rng(1000 + seed)
    arrays = [rng.normal(size=shape) for shape in ((3, 3), (1, 3), (3, 1))]
    inputs = [mg.Tensor(array, requires_grad=True) for array in arrays]
    y = program(mg, inputs)
    np.testing.assert_allclose(y.item(), program(np, arrays), rtol=1e-12)
    found = mg.grad(y, inputs, retain_graph=True, allow_unused=True)
    for i, (array, dx) in enumerate(zip(arrays, found, strict=True)):
        expected = np.zeros(array.shape)
        for element in np.ndindex(array.shape):
            stepped = array.astype(complex)
            stepped[element] += 1e-30j
            expected[element] = program(np, [*arrays[:i], stepped, *arrays[i + 1 :]]).imag / 1e-30
        error = np.abs((dx.numpy() if dx is not None else 0) - expected).max()
        assert error <= 1e-12 + 1e-10 * np.abs(expected).max()
    again = mg.grad(y, inputs, retain_graph=True, create_graph=True, allow_unused=True)
    y.backward(retain_graph=True)
    first = [None if x.grad is None else x.grad.numpy().copy() for x in inputs]
    y.backward()
    for x, array, once, dx, graph_dx in zip(inputs, arrays, first, found, again, strict=True):
        assert x.numpy().tobytes() == array.tobytes()
        if dx is not None:
            assert once.tobytes() == dx.numpy().tobytes() and (x.grad.numpy() == 2 * once).all()
            np.testing.assert_allclose(graph_dx.numpy(), once, rtol=1e-9, atol=1e-12)
    grads = [x.grad.numpy() for x in inputs if x.grad is not None]
    assert not any(np.shares_memory(a, b) for k, a in enumerate(grads) for b in grads[k + 1 :])


# ---------------------------------------------------------------- hooks


def test_hooks_run_in_order_on_the_whole_gradient():
    x, seen = leaf(1.0), []
    y = x * 2.0
    y.register_hook(lambda dy: seen.append(("first", dy.item())))
    y.register_hook(lambda dy: dy * 10.0)
    y.register_hook(lambda dy: seen.append(("third", dy.item())))
    x.register_hook(lambda dx: seen.append(("leaf", dx.item())))
    (y * 3.0 + y * 4.0).backward()
    assert seen == [("first", 7), ("third", 70), ("leaf", 140)] and close(x.grad, 140)


def test_hook_on_a_leaf_replaces():
    x = leaf(1.0, 2.0)
    x.register_hook(lambda dx: mg.zeros(2, np.float64))
    x.sum().backward()
    x.sum().backward()
    assert close(x.grad, 0, 0)


def test_hook_result_shared_by_two_leaves():
    """A hook that hands out one Tensor twice must not make two leaves share their gradient."""
    x, y, one = leaf(1.0), leaf(1.0), mg.ones(1, np.float64)
    x.register_hook(lambda _: one)
    y.register_hook(lambda _: one)
    for _ in range(2):
        (x * 2.0 + y * 2.0).backward()
    assert close(x.grad, 2) and close(y.grad, 2) and close(one, 1)


def test_hook_removed():
    x = leaf(1.0)
    handle = x.register_hook(lambda dx: dx * 5.0)
    x.sum().backward()
    handle.remove()
    handle.remove()
    x.sum().backward()
    assert close(x.grad, 6)


@pytest.mark.parametrize("where", ["intermediate", "leaf"])
@pytest.mark.parametrize("kind", ["raises", "wrong shape", "wrong dtype", "wrong type"])
def test_failing_hook_changes_no_gradient(where, kind):
    """The exception of the hook comes out, no leaf has changed, the visited part of the graph is
    freed and nothing stays open."""
    a, b, c = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0, 6.0)
    (a * b * c).sum().backward()
    before = [x.grad.numpy().tobytes() for x in (a, b, c)]
    inner = a * b
    y = (inner * c).sum()

    def hook(dy):
        if kind == "raises":
            raise KeyError("mine")
        return {
            "wrong shape": mg.ones(3, np.float64),
            "wrong dtype": mg.ones(2),
            "wrong type": np.ones(2),
        }[kind]

    handle = (inner if where == "intermediate" else a).register_hook(hook)
    error, text = {
        "raises": (KeyError, "mine"),
        "wrong shape": (RuntimeError, r"hook: the gradient has shape \(2,\).*returned \(3,\)"),
        "wrong dtype": (RuntimeError, "hook: .*float64, the hook returned .*float32"),
        "wrong type": (TypeError, "hook: must return a Tensor or None, got ndarray"),
    }[kind]
    with pytest.raises(error, match=text):
        y.backward()
    assert [x.grad.numpy().tobytes() for x in (a, b, c)] == before
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()
    assert [x.grad.numpy().tobytes() for x in (a, b, c)] == before
    handle.remove()
    for x in (a, b, c):
        x.grad = None
    (a * b * c).sum().backward()
    assert [x.grad.numpy().tobytes() for x in (a, b, c)] == before


def test_failing_hook_with_retained_graph():
    """With retain_graph=True the graph outlives the failure."""
    x = leaf(2.0)
    y = mg.exp(x * x)
    handle = x.register_hook(lambda dx: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.backward(retain_graph=True)
    handle.remove()
    assert x.grad is None
    y.backward()
    assert close(x.grad, 4 * np.exp(4))


def test_backward_inside_a_hook():
    x, z = leaf(2.0), leaf(3.0)
    y = x * x
    y.register_hook(
        mg.enable_grad()(lambda dy: (z * z).backward())
    )  # a hook runs without recording
    (y * 2.0).backward()
    assert close(x.grad, 8) and close(z.grad, 6)


def test_backward_inside_a_hook_through_an_open_tensor():
    """x has its gradient gathered by the outer sweep: the inner one gathers beside it, and both are
    added."""
    x = leaf(2.0)
    y = x * x
    y.register_hook(mg.enable_grad()(lambda dy: (x * 3.0).backward()))
    z = x * 5.0 + y
    z.backward()
    assert close(x.grad, 3 + 5 + 4)


def test_grad_inside_a_hook_of_grad():
    """The inner grad() asks for the same leaf; the outer one still finds it."""
    x, inner = leaf(2.0), []
    y = x * x
    y.register_hook(mg.enable_grad()(lambda dy: inner.append(mg.grad(x * x * x, x)[0].item())))
    (dx,) = mg.grad(y * 2.0, x)
    assert close(dx, 8) and inner == [12]


def test_hook_that_holds_an_earlier_node():
    """The walk passes the node whose hook held the last reference to a node recorded before it."""
    for _ in range(20):
        x = leaf(1.0, 2.0)
        mask = mg.sigmoid(x)
        out = mg.exp(x)
        out.register_hook(lambda dy, mask=mask: dy * mask)
        loss = out.sum()
        del mask, out
        loss.backward()
        v = x.numpy()
        np.testing.assert_allclose(x.grad.numpy(), np.exp(v) / (1 + np.exp(-v)), rtol=1e-14)


@pytest.mark.slow
def test_hooks_that_make_and_kill_nodes():
    """Whatever a hook does to other graphs, to its own tensors and to the collector, the walk goes
    on."""
    x, others = leaf(0.5), []

    class Noisy:
        """Records, and goes backward, while something else is being released."""

        def __del__(self):
            with mg.enable_grad():
                mg.exp(mg.Tensor([1.0], requires_grad=True)).sum().backward()

    def hook(dy, noisy=None):
        others.append(mg.exp(x) * x)
        if len(others) > 2:
            del others[0]
        holder.clear()
        gc.collect()

    y, holder = x, []
    for _ in range(30):
        y = mg.tanh(y)
        noisy = Noisy()
        y.register_hook(lambda dy, noisy=noisy: hook(dy, noisy))
        holder.append(y)
    holder.append(y.sum())
    del y, noisy
    loss = holder[-1]
    holder.append(loss)
    loss.backward()
    expected, v = 1.0, 0.5
    for _ in range(30):
        v = np.tanh(v)
        expected *= 1 - v * v
    np.testing.assert_allclose(x.grad.numpy(), [expected], rtol=1e-13)


def test_hooks_that_remove_and_add_hooks():
    x, seen, handles = leaf(1.0), [], []

    def once(dx):
        seen.append("once")
        handles[0].remove()
        x.register_hook(lambda dx: seen.append("added"))

    handles.append(x.register_hook(once))
    x.backward()
    x.backward()
    assert seen == ["once", "added"] and close(x.grad, 2)
    handles[0].remove()  # a second time: the number is not that of another hook
    x.backward()
    assert seen == ["once", "added", "added"]


def test_hook_keeps_its_gradient():
    """What hooks keep does not change with later sweeps, nor when .grad is changed, and not what
    other hooks keep."""
    x, kept = leaf(1.0, 2.0), []
    y = x * 3.0
    for tensor in (x, x, y, y):
        tensor.register_hook(kept.append)
    for _ in range(2):
        y.sum().backward(retain_graph=True)
    x.grad[...] = 0.0
    assert [dx.tolist() for dx in kept] == [[1, 1], [1, 1], [3, 3], [3, 3]] * 2
    kept[0][...] = 9.0
    assert [dx.tolist() for dx in kept[1:]] == [
        [1, 1],
        [3, 3],
        [3, 3],
        [1, 1],
        [1, 1],
        [3, 3],
        [3, 3],
    ]


@pytest.mark.parametrize("create_graph", [False, True])
def test_hook_changes_its_gradient_in_place(create_graph):
    """That gradient changes, as in PyTorch; those of other branches and the caller's seed do
    not."""

    def hook(gradient):
        gradient[0] = 100.0

    a, b, seed = leaf(1.0, 2.0), leaf(1.0, 2.0), mg.Tensor(np.array([1.0, 2.0]))
    a.register_hook(hook)
    (a + b).backward(seed, create_graph=create_graph)
    assert close(a.grad, 100, 2) and close(b.grad, 1, 2) and close(seed, 1, 2)
    c, d = leaf(1.0, 2.0), leaf(1.0, 2.0)
    inner = c * 1.0
    inner.register_hook(hook)
    (inner + d).backward(seed, create_graph=create_graph)
    assert close(c.grad, 100, 2) and close(d.grad, 1, 2) and close(seed, 1, 2)


def test_rule_of_a_user_writes_to_what_it_is_given():
    class Careless(mg.Function):
        kept = mg.zeros(2, np.float64)

        @staticmethod
        def forward(ctx, x):
            return x * 1.0

        @staticmethod
        def backward(ctx, dy):
            dy[0] = 50.0
            Careless.kept[...] = dy  # one buffer for all calls
            return Careless.kept

    x, w, seed = leaf(1.0, 2.0), leaf(1.0, 2.0), mg.Tensor(np.array([1.0, 2.0]))
    (Careless.apply(x) + w).backward(seed)
    first = x.grad.numpy().copy()
    (Careless.apply(w * 3.0) + w).backward(seed)
    assert (
        first.tolist() == [50, 2]
        and close(x.grad, 50, 2)
        and close(w.grad, 1 + 150 + 1, 2 + 6 + 2)
        and close(seed, 1, 2)
    )


def test_results_of_grad_are_memory_of_their_own():
    x, w, seed = leaf(1.0, 2.0), leaf(1.0, 2.0), mg.Tensor(np.array([1.0, 2.0]))
    for create_graph in (False, True):
        y = x + w
        z = y * 1.0
        results = mg.grad(z, [x, w, y, z], seed, create_graph=create_graph) + mg.grad(
            x.sum(), x, create_graph=create_graph
        )
        for i, result in enumerate(results):
            with mg.no_grad():
                result[...] = float(i)
        assert [result.tolist() for result in results] == [[i, i] for i in range(5)] and close(
            seed, 1, 2
        )


def test_retain_grad_as_in_pytorch():
    """Twice is once, hooks registered later are seen, an assignment moves it on, later sweeps add,
    no gradient is an error."""
    x = leaf(2.0)
    y = x * x
    y.retain_grad()
    y.retain_grad()
    y.register_hook(lambda dy: dy * 10.0)
    (y * 3.0).sum().backward(retain_graph=True)
    assert close(y.grad, 30) and close(x.grad, 120)
    (y * 3.0).sum().backward()
    assert close(y.grad, 60)
    y = x * x
    y.retain_grad()
    y[...] = y * 5.0
    (y * 3.0).sum().backward()
    assert close(y.grad, 3)
    x.retain_grad()
    with pytest.raises(RuntimeError, match="retain_grad: the tensor does not require grad"):
        mg.ones(2).retain_grad()
    y = x * x
    y.retain_grad()
    x.register_hook(lambda dx: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.backward()
    assert y.grad is None
    y = x * x
    y.retain_grad()
    loss, watched = y.sum(), weakref.ref(y)
    del y
    assert watched() is None  # retaining does not keep the tensor
    mg.grad(loss, x.detach().requires_grad_(), allow_unused=True)


def test_hook_errors():
    with pytest.raises(RuntimeError, match="register_hook: the tensor does not require grad"):
        mg.ones(2).register_hook(print)
    with pytest.raises(TypeError, match="register_hook: hook must be callable, got int"):
        leaf(1.0).register_hook(3)


# ---------------------------------------------------------------- grad, vjp, jacobian


def test_grad_commits_nothing():
    x, w = leaf(2.0), leaf(3.0)
    y = x * w
    dx, dw = mg.grad(mg.exp(y), (x, w))
    assert (
        close(dx, 3 * np.exp(6)) and close(dw, 2 * np.exp(6)) and x.grad is None and w.grad is None
    )


def test_grad_of_an_intermediate():
    x = leaf(2.0)
    y = x * x
    z = mg.exp(y) + x
    dy, dx = mg.grad(z, [y, x], retain_graph=True)
    assert close(dy, np.exp(4)) and close(dx, 4 * np.exp(4) + 1)
    (dz,) = mg.grad(z, z)
    assert close(dz, 1)


def test_grad_several_outputs():
    x = leaf(1.0, 2.0)
    y, z = x * x, x * 3.0
    (dx,) = mg.grad([y, z], x, [np.array([1.0, 10.0]), mg.ones(2, np.float64)])
    assert close(dx, 5, 43)


def test_grad_unused():
    x, other = leaf(2.0), leaf(1.0)
    y = x * x
    with pytest.raises(
        RuntimeError,
        match="grad: input 1 was not used to compute the outputs; allow_unused=True gives",
    ):
        mg.grad(y, (x, other), retain_graph=True)
    dx, nothing = mg.grad(y, (x, other), allow_unused=True)
    assert close(dx, 4) and nothing is None


def test_grad_errors():
    x = leaf(2.0)
    y = x * x
    with pytest.raises(RuntimeError, match="grad: one of the inputs does not require grad"):
        mg.grad(y, x.detach())
    with pytest.raises(RuntimeError, match="grad: one of the outputs does not require grad"):
        mg.grad(y.detach(), x)
    with pytest.raises(TypeError, match="grad: inputs must be Tensors, got None"):
        mg.grad(y, [None])
    with pytest.raises(TypeError, match="grad: outputs must be Tensors, got None"):
        mg.grad([None], x)
    with pytest.raises(TypeError, match="grad: inputs must be Tensors, got ndarray"):
        mg.grad(y, [np.ones(1)])
    with pytest.raises(
        ValueError, match="grad: grad_outputs must have one entry for each of the 1 outputs, got 2"
    ):
        mg.grad(y, x, [None, None])
    with pytest.raises(ValueError, match="grad: gradient must have shape"):
        mg.grad(y, x, [np.ones(3)])
    assert close(mg.grad(y, x)[0], 4)


def test_grad_does_not_visit_what_it_does_not_need():
    x, w, seen = leaf(2.0), leaf(3.0), []
    side = mg.exp(w)
    side.register_hook(lambda _: seen.append("side"))
    y = x * side
    assert close(mg.grad(y, x)[0], np.exp(3)) and seen == []


def test_grad_frees_only_what_it_went_through():
    w = leaf(3.0)
    h = w * w
    assert close(mg.grad((h * h).sum(), h)[0], 18)
    (h * 3.0).sum().backward()
    assert close(w.grad, 18)
    layer = mg.nn.LSTM(2, 3)
    out, _ = layer(mg.ones((3, 2, 2)))
    mg.grad((out * out).sum(), out)
    out.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    x = leaf(2.0)
    y = mg.exp(x)
    handle = y.register_hook(lambda dy: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    handle.remove()
    y.sum().backward()  # the rule of exp had not run
    assert close(x.grad, np.exp(2))


def test_grad_of_tensors_with_their_own_equality():
    class Odd(mg.Tensor):
        def __hash__(self):
            return 1

        def __eq__(self, other):
            raise KeyError("never asked")

    x, y = Odd([1.0, 2.0], requires_grad=True), Odd([3.0, 4.0], requires_grad=True)
    dx, dy = mg.grad((x * y).sum(), [x, y])
    assert dx.tolist() == [3, 4] and dy.tolist() == [1, 2]
    (x * y).sum().backward()
    assert x.grad.tolist() == [3, 4]


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda x: mg.Tensor(np.broadcast_to(np.ones(1), (3,)), copy=False), "read-only"),
        (lambda x: mg.ones(1, np.float64).broadcast_to(3), "share one memory location"),
        (lambda x: x, "that of the tensor itself"),
        (lambda x: x.detach(), "that of the tensor itself"),
    ],
    ids=["read-only", "expanded", "itself", "detached"],
)
def test_grad_that_cannot_be_added_to(make, text):
    x = leaf(1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match=f"grad: .*{text}"):
        x.grad = make(x)
    assert x.grad is None
    buffer = np.ones(3)
    x.grad = mg.Tensor(buffer, copy=False)
    (x * 2.0).sum().backward()  # a buffer of the user's is added to in place
    assert buffer.tolist() == [3, 3, 3]


def test_third_order():
    x = leaf(0.5, -1.0)
    y = mg.sin(x) * x
    (d1,) = mg.grad(y.sum(), x, create_graph=True)
    (d2,) = mg.grad(d1.sum(), x, create_graph=True)
    (d3,) = mg.grad(d2.sum(), x)
    v = x.numpy()
    np.testing.assert_allclose(d1.numpy(), np.cos(v) * v + np.sin(v), rtol=1e-14)
    np.testing.assert_allclose(d2.numpy(), -np.sin(v) * v + 2 * np.cos(v), rtol=1e-14)
    np.testing.assert_allclose(d3.numpy(), -np.cos(v) * v - 3 * np.sin(v), rtol=1e-14)
    assert not d3.requires_grad


def test_backward_with_create_graph():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad and close(x.grad, 27)
    penalty = (x.grad * x.grad).sum()
    x.grad = None
    penalty.backward()
    assert close(x.grad, 2 * 27 * 18)


def test_gradient_penalty_accumulates_into_a_grad_with_graph():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    (x**2).backward(create_graph=True)
    assert close(x.grad, 12 + 4)
    (second,) = mg.grad(x.grad, x)
    assert close(second, 12 + 2)


def test_leaves_do_not_share_a_gradient():
    """dx and dw of x + w are one and the same for the sweep; adding to one later must not change
    the other, nor the seed."""
    for create_graph in (False, True):
        x, w, seed = leaf(1.0), leaf(1.0), mg.ones(1, np.float64)
        (x + w).backward(seed, create_graph=create_graph)
        (x * 2.0).backward()
        assert close(x.grad, 3) and close(w.grad, 1) and close(seed, 1)


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


# ---------------------------------------------------------------- ops of the user


class Scale(mg.Function):
    """y = x k for a number k."""

    @staticmethod
    def forward(ctx, x, k):
        ctx.k = k
        return x * k

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.k, None


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


class Polar(mg.Function):
    """(r cos a, r sin a), with both results and an argument saved."""

    @staticmethod
    def forward(ctx, r, a):
        x, y = r * mg.cos(a), r * mg.sin(a)
        ctx.save_for_backward(x, r, y)
        return x, y

    @staticmethod
    def backward(ctx, dx, dy):
        x, r, y = ctx.saved_tensors
        return (dx * x + dy * y) / r, dy * x - dx * y


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


def broken(forward=lambda ctx, x, k: x * 2.0, backward=lambda ctx, dy: (dy, None)):
    return type(
        "Broken",
        (mg.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward)},
    )


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


# ---------------------------------------------------------------- recording on and off


def test_no_grad_and_enable_grad_nest():
    x = leaf(1.0)
    with mg.no_grad():
        assert not mg.is_grad_enabled() and not (x * x).requires_grad
        with mg.enable_grad():
            assert (x * x).requires_grad
            with mg.no_grad():
                assert not mg.is_grad_enabled()
            assert mg.is_grad_enabled()
        assert not mg.is_grad_enabled()
    assert mg.is_grad_enabled()
    with pytest.raises(KeyError), mg.no_grad():
        raise KeyError
    assert mg.is_grad_enabled()


def test_one_context_object_used_twice():
    off = mg.no_grad()
    with off:
        with off:
            pass
        assert not mg.is_grad_enabled()
    assert mg.is_grad_enabled()


def test_decorators():
    @mg.no_grad()
    def silent(x, factor=2.0):
        """Doc."""
        return x * factor

    @mg.enable_grad()
    def loud(x):
        return x * x

    x = leaf(1.0)
    assert silent.__doc__ == "Doc." and silent.__name__ == "silent"
    assert not silent(x, factor=3.0).requires_grad and mg.is_grad_enabled()
    with mg.no_grad():
        assert loud(x).requires_grad and not mg.is_grad_enabled()


def test_backward_under_no_grad():
    """The mode of the caller does not matter to the sweep, and the sweep leaves it as it was."""
    x = leaf(2.0)
    y = x**3
    with mg.no_grad():
        (dx,) = mg.grad(y, x, create_graph=True)
        assert not mg.is_grad_enabled()
    assert close(mg.grad(dx, x)[0], 12)


def test_recording_is_per_thread():
    entered, left, seen = threading.Event(), threading.Event(), []

    def other():
        entered.wait(10)
        seen.append(mg.is_grad_enabled())
        left.set()

    thread = threading.Thread(target=other)
    thread.start()
    with mg.no_grad():
        entered.set()
        left.wait(10)
    thread.join()
    assert seen == [True]


def test_detach():
    x = leaf(1.0, 2.0)
    y = (x * x).detach()
    assert y.is_leaf and not y.requires_grad and y.grad_fn is None
    z = x.detach()
    assert np.shares_memory(z.numpy(), x.numpy()) and z.requires_grad_() is z
    (z * x).sum().backward()
    assert close(x.grad, 1, 2) and close(z.grad, 1, 2)


def test_decorated_generator():
    @mg.no_grad()
    def count(n):
        """Doc."""
        try:
            for _ in range(n):
                given = yield mg.is_grad_enabled()
                seen.append((given, mg.is_grad_enabled()))
        finally:
            seen.append(("closed", mg.is_grad_enabled()))
        return "end"

    seen = []
    assert inspect.isgeneratorfunction(count) and count.__doc__ == "Doc."
    generator = count(3)
    assert next(generator) is False and mg.is_grad_enabled()
    assert generator.send(5) is False and mg.is_grad_enabled() and seen == [(5, False)]
    generator.close()
    assert seen[-1] == ("closed", False) and mg.is_grad_enabled()
    generator = count(1)
    next(generator)
    with pytest.raises(StopIteration) as stopped:
        generator.send(None)
    assert stopped.value.value == "end"
    generator = count(2)
    next(generator)
    with pytest.raises(KeyError):
        generator.throw(KeyError())
    assert mg.is_grad_enabled()


def test_decorated_async_functions():
    @mg.no_grad
    async def work():
        await asyncio.sleep(0)
        return mg.is_grad_enabled()

    @mg.no_grad
    async def values():
        for _ in range(3):
            await asyncio.sleep(0)
            yield mg.is_grad_enabled()

    async def main():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        found = [mg.is_grad_enabled(), await task]
        async for value in values():
            found += [value, mg.is_grad_enabled()]
        return found

    assert inspect.iscoroutinefunction(work) and inspect.isasyncgenfunction(values)
    assert asyncio.run(main()) == [True, False] + [False, True] * 3


def test_decorators_without_brackets():
    @mg.no_grad
    def silent():
        return mg.is_grad_enabled()

    @mg.enable_grad
    def loud():
        return mg.is_grad_enabled()

    @mg.detect_anomaly
    def careful():
        return mg.log(leaf(0.0))

    assert silent() is False
    with mg.no_grad():
        assert loud() is True
    with pytest.raises(RuntimeError, match="anomaly: log"):
        careful()
    assert np.isinf(mg.log(leaf(0.0)).item())
    for wrong, text in ((5, "int"), (type("Model", (), {}), "a class")):
        with pytest.raises(TypeError, match=f"no_grad: can decorate functions, got {text}"):
            mg.no_grad(wrong)


def anomalies():
    """Is anomaly mode on?"""
    try:
        return not mg.log(leaf(0.0))
    except RuntimeError:
        return True


@pytest.mark.parametrize(
    "context, inside",
    [(mg.no_grad, mg.is_grad_enabled), (mg.detect_anomaly, lambda: not anomalies())],
    ids=["no_grad", "detect_anomaly"],
)
def test_contexts_that_end_in_any_order(context, inside):
    """Contexts held open by generators; one context object entered twice; by two threads at a
    time."""

    def held():
        with context():
            yield

    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)):
        generators = [held() for _ in range(3)]
        for generator in generators:
            next(generator)
        for i in order[:2]:
            generators[i].close()
            assert not inside()
        generators[order[2]].close()
        assert inside()
    shared, wrong, barrier = context(), [], threading.Barrier(2, timeout=20)

    def work(i):
        for k in range(20):
            with shared:
                barrier.wait()
                wrong.extend([k] * inside())
                if (i + k) % 2:
                    barrier.wait()
            wrong.extend([k] * (not inside()))
            if not (i + k) % 2:
                barrier.wait()

    run_threads(2, work)
    assert wrong == [] and inside()


def test_generator_that_outlives_the_sweep_it_was_started_in():
    """no_grad entered in a hook and left after backward brings back the mode of before the
    sweep."""
    generators = []

    def held():
        with mg.no_grad():
            yield

    def hook(dx):
        generators.append(held())
        next(generators[-1])

    x = leaf(1.0)
    x.register_hook(hook)
    x.backward()
    generators[0].close()
    assert mg.is_grad_enabled()


# ---------------------------------------------------------------- changes in place


def test_changing_a_saved_tensor_is_caught():
    x, c = leaf(1.0, 2.0), mg.Tensor(np.array([3.0, 4.0]))
    y = (x * c).sum()
    c[0] = 10.0
    with pytest.raises(
        RuntimeError,
        match=(
            r"mul: one of the tensors needed for gradient computation has been modified by an in-place operation: "
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


# ---------------------------------------------------------------- anomaly mode


def test_anomaly_forward_names_op_and_line():
    x = leaf(1.0, 0.0)
    with mg.detect_anomaly():
        with pytest.raises(
            RuntimeError,
            match=(
                r"anomaly: log made the first non-finite value, of shape \(2,\), at .*test_autograd.py:\d+: mg.log\(x\)"
            ),
        ):
            mg.log(x)
        with pytest.raises(RuntimeError, match="anomaly: mul got the first non-finite value"):
            mg.Tensor(np.array([np.nan, 1.0])) * x
    assert np.isinf(mg.log(x).numpy()).any()


def test_anomaly_backward_names_op_and_line():
    x = leaf(0.0, 1.0)
    with mg.detect_anomaly():
        y = mg.sqrt(x) * 2.0
        with pytest.raises(
            RuntimeError,
            match=(
                r"anomaly: the backward of sqrt made the first non-finite gradient, for its input 0; the op was recorded at "
                r".*test_autograd.py:\d+: y = mg.sqrt\(x\) \* 2.0"
            ),
        ):
            y.sum().backward()
    assert x.grad is None


def test_anomaly_notices_memory_changed_behind_its_back():
    a = np.array([1.0, 2.0])
    c, x = mg.Tensor(a), leaf(3.0, 4.0)
    with mg.detect_anomaly():
        y = (x * c).sum()
        c._array[0] = 100.0
        with pytest.raises(
            RuntimeError,
            match=(
                r"mul: the memory of a saved tensor .* was changed behind minigrad's back.*test_autograd.py:\d+: y = "
            ),
        ):
            y.backward()


def test_anomaly_where_a_rule_gives_nothing():
    """An input that is given no gradient is not visited, with one or several sweeps on their
    way."""
    x = leaf(1.0)
    y = mg.exp(x)
    z = broken(backward=lambda ctx, dy: (None, None)).apply(y, 3) + x
    with mg.detect_anomaly():
        z.register_hook(lambda dz: z.backward(retain_graph=True) if x.grad is None else None)
        x.grad = mg.ones(1, np.float64)
        z.backward(retain_graph=True)
    assert close(x.grad, 2)


def test_anomaly_names_a_line_in_a_folder_called_minigrad(tmp_path):
    script = tmp_path / "minigrad" / "train.py"
    script.parent.mkdir()
    script.write_text(
        "import sys\nsys.path.pop(0)\nimport minigrad as mg\nx = mg.Tensor([0.0], requires_grad=True)\n"
        "with mg.detect_anomaly():\n    y = mg.log(x)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert f"at {script}:6: y = mg.log(x)" in done.stderr


def test_anomaly_mode_leaves_right_things_alone():
    x = leaf(1.0, 2.0)
    with mg.detect_anomaly():
        with mg.detect_anomaly():
            pass
        mg.tanh(x * x).sum().backward()
        with pytest.raises(RuntimeError, match="anomaly"):
            mg.log(x * 0.0)
    assert np.isfinite(x.grad.numpy()).all()


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


# ---------------------------------------------------------------- tensors that were not made properly


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


# ---------------------------------------------------------------- memory


def test_intermediates_die_with_the_loss():
    x = leaf(1.0, 2.0)
    a = mg.tanh(x * x)
    b = mg.exp(a) * a
    loss = b.sum()
    watched = [weakref.ref(t) for t in (a, b, loss)]
    gc.disable()
    try:
        del a, b, loss
        assert [ref() for ref in watched] == [None] * 3
    finally:
        gc.enable()


def test_backward_frees_saved_tensors():
    x = leaf(1.0, 2.0)
    c = mg.ones(2, np.float64)
    watched = weakref.ref(c)
    y = x * c  # stays alive, and with it its node
    del c
    assert watched() is not None
    y.sum().backward()
    assert watched() is None


def train_step(w, x):
    w.grad = None
    h = mg.tanh(mg.addmm(w, x, x))
    loss = (h * h + mg.sigmoid(h) / 2.0).sum()
    loss.backward()


def test_no_cycles():
    """10^4 steps with the collector off: nothing is left that only the collector could free."""
    w, x = leaf(1.0, 2.0), mg.ones((2, 2), np.float64)
    for _ in range(10):
        train_step(w, x)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(10_000):
            train_step(w, x)
        assert len(gc.get_objects()) - before < 5
    finally:
        gc.enable()


class Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def allocated():
    """Bytes that the C library has given out."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("needs glibc 2.33")
    libc.mallinfo2.restype = Mallinfo2
    info = libc.mallinfo2()
    return info.uordblks + info.hblkhd


def failing_step(w, x):
    """The way out through an exception."""
    y = (w * w).sum()
    handle = w.register_hook(lambda dx: 1 / 0)
    try:
        y.backward()
    except ZeroDivisionError:
        handle.remove()


def second_order_step(w, x):
    (dw,) = mg.grad((w**3).sum(), w, create_graph=True)
    mg.grad((dw * dw).sum(), w)


def function_step(w, x):
    a, b = Polar.apply(w, w)
    (a * b).sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("step", [train_step, failing_step, second_order_step, function_step])
def test_no_leak(step):
    """0 bytes a step: a leak of a single pointer a step would show as 80 000."""
    w, x = leaf(1.0, 2.0), mg.ones((2, 2), np.float64)
    gc.disable()
    try:
        for _ in range(1000):
            step(w, x)
        gc.collect()
        memory, blocks = allocated(), sys.getallocatedblocks()
        for _ in range(10_000):
            step(w, x)
        gc.collect()
        assert allocated() - memory < 8000
        assert sys.getallocatedblocks() - blocks < 100
    finally:
        gc.enable()


def test_cycle_through_a_hook_is_collected():
    for make in (lambda: leaf(1.0), lambda: mg.exp(leaf(1.0))):
        x = make()
        x.register_hook(lambda dx, x=x: x * dx)
        watched = weakref.ref(x)
        del x
        gc.collect()
        assert watched() is None


def test_cycle_through_grad_is_collected():
    """backward(create_graph=True) makes x.grad hold the graph, and the graph hold x."""
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    watched = weakref.ref(x)
    del x
    gc.collect()
    assert watched() is None


def hooked(a, b, w):
    """A scalar made with an op of the user's, several outputs, hooks and a retained gradient."""
    p, q = Polar.apply(a, b)
    h = mg.tanh(a * b) * w[:2] + p * q
    h.register_hook(lambda dh: dh * 2.0)
    h.retain_grad()
    a.register_hook(lambda da: da * 1.0)
    return (h * h + mg.exp(b) + w[1:]).sum()


def fused(a, b, w):
    layer = mg.nn.LSTM(2, 3, dtype=np.float64)
    return (layer(mg.stack([a, b, a]).reshape((3, 1, 2)))[0] * w).sum()


def wide(a, b, w):
    """More pending nodes than fit into the sweep's first heap."""
    return mg.stack([(a * k).sum() * (b.sum() + k) for k in range(20)]).sum() + w.sum()


def first_grads(loss, leaves):
    loss.backward(retain_graph=True)


def more_grads(loss, leaves):
    """Added in place to what is there."""
    loss.backward(retain_graph=True)


def graph_grads(loss, leaves):
    loss.backward(create_graph=True)


def results(loss, leaves):
    return mg.grad(loss, leaves, retain_graph=True, create_graph=True)


@pytest.mark.slow
@pytest.mark.parametrize("run", [first_grads, more_grads, graph_grads, results])
@pytest.mark.parametrize("make", [hooked, fused, wide])
def test_out_of_memory(make, run):
    """Each allocation fails once: a MemoryError, no gradient changed, and the same bits when it is
    done again."""
    testcapi = pytest.importorskip("_testcapi")

    def prepared():
        mg.manual_seed(0)
        leaves = [leaf(1.0, 2.0), leaf(0.5, 0.25), leaf(1.0, 2.0, 3.0)]
        loss = make(*leaves)
        for x in leaves if run is more_grads else []:
            x.grad = mg.ones(x.shape, np.float64)
        return loss, leaves

    def bits(found, leaves):
        return [dx.numpy().tobytes() for dx in (found or [x.grad for x in leaves])]

    loss, leaves = prepared()
    expected = bits(run(loss, leaves), leaves)
    failed = 0
    gc.disable()  # or it is the collector that runs out of memory, and says so on stderr
    try:
        for n in range(2000):
            loss, leaves = prepared()
            before = [x.grad.numpy().tobytes() for x in leaves if x.grad is not None]
            failure = found = None
            testcapi.set_nomemory(n, n + 1)
            try:
                found = run(loss, leaves)
            except BaseException as error:
                failure = error
            testcapi.remove_mem_hooks()
            if failure is not None:
                assert type(failure) is MemoryError, n
                assert [x.grad.numpy().tobytes() for x in leaves if x.grad is not None] == before
                assert mg.is_grad_enabled()
                failed += 1
                found = run(loss, leaves)
            assert bits(found, leaves) == expected
            if failure is None and n > failed + 20:
                break
    finally:
        gc.enable()
    assert failed > 20


def forward_ops():
    """Functions of one tensor of shape (2, 3) whose forward, or checks, make lists as they go."""
    w = mg.Tensor(np.arange(3.0) + 1, requires_grad=True)
    layers = {}
    for checkpoint in (None, "sqrt"):
        layers[checkpoint] = mg.nn.LSTM(
            3, 2, num_layers=2, bidirectional=True, checkpoint=checkpoint, dtype=np.float64
        )
    target, rows = np.array([0, 2]), np.array([1, 0, 1])

    def put(index):
        def function(x):
            y = x * 1.0
            y[index] = 2.0 * w.sum()
            return y

        return function

    return {
        "transpose": lambda x: mg.transpose(x, [1, 0]),
        "flip": lambda x: mg.flip(x, (0, 1)),
        "stack": lambda x: mg.stack([x, np.ones((2, 3)), x]),
        "concatenate": lambda x: mg.concatenate([x, np.ones((2, 3))], 1),
        "split": lambda x: mg.stack(mg.split(x, [1, 1])),
        "pad": lambda x: mg.pad(x, [(1, 0), (2, 3)], 0.5),
        "slices": lambda x: x[np.int64(1) :, (np.array(0)) : 2],
        "rows": lambda x: x[rows],
        "several": lambda x: x[[0, 1], [2, 0]],
        "mask": lambda x: x[np.array([True, False])],
        "put rows": put([1, 0]),
        "put slice": put((slice(np.int64(0), 1), Ellipsis)),
        "sum": lambda x: mg.sum(x, axis=(np.int64(0),)),
        "mean": lambda x: mg.mean(x.T, axis=(0, 1)),
        "softmax": lambda x: mg.softmax(x, axis=0),
        "max": lambda x: mg.max(x, axis=0),
        "cross entropy": lambda x: mg.cross_entropy(x, target),
        "weighted": lambda x: mg.cross_entropy(x, target, weight=np.array([1.0, 2.0, 3.0])),
        "product of views": lambda x: (x.T @ x)[::-1],
        "layer": lambda x: layers[None](x.reshape((2, 1, 3)))[0],
        "checkpointed": lambda x: layers["sqrt"](x.reshape((2, 1, 3)))[0],
        "record": lambda x: mg.record("twice", 2 * x.numpy(), (x, w), lambda dy: (2 * dy, None)),
        "data": lambda x: x + mg.Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=np.float64),
    }


@pytest.mark.parametrize("name", forward_ops())
def test_forward_out_of_memory(name):
    """Each allocation of a forward fails once: a MemoryError, no crash, and the same bits when it
    is done again."""
    testcapi = pytest.importorskip("_testcapi")
    mg.manual_seed(0)
    function = forward_ops()[name]
    values = np.random.default_rng(0).standard_normal((2, 3))
    expected = function(mg.Tensor(values, requires_grad=True)).numpy().tobytes()
    failed = 0
    gc.disable()  # or it is the collector that runs out of memory, and says so on stderr
    try:
        for n in range(3000):
            x = mg.Tensor(values, requires_grad=True)
            failure = y = None
            testcapi.set_nomemory(n, n + 1)
            try:
                y = function(x)
            except BaseException as error:
                failure = error
            testcapi.remove_mem_hooks()
            if failure is not None:
                assert type(failure) is MemoryError, n
                assert mg.is_grad_enabled()
                failed += 1
                y = function(x)
            assert y.numpy().tobytes() == expected, n
            if failure is None and n > failed + 20:
                break
    finally:
        gc.enable()
    assert failed > 2
    assert n < 2999


# ---------------------------------------------------------------- depth


def chain(n):
    x = leaf(1.0)
    y = x
    gc.disable()  # which looks again and again through what will not go away, and is slow at that
    for _ in range(n):
        y = y + 1.0
    gc.enable()
    return x, y


@pytest.mark.slow
def test_a_million_nodes():
    def work():
        x, y = chain(1_000_000)
        y.backward()
        assert close(x.grad, 1)
        del y
        x, y = chain(1_000_000)
        (dx,) = mg.grad(y, x)
        assert close(dx, 1)
        x, y = chain(1_000_000)
        del x, y  # without a sweep
        return True

    assert in_small_thread(work)


@pytest.mark.slow
def test_deep_chains_of_other_kinds():
    """Saved outputs, several outputs, Python rules, create_graph, and a collected cycle: 20 000
    nodes each."""

    class Pair(mg.Function):
        @staticmethod
        def forward(ctx, x):
            return x + 0.0, x + 0.0

        @staticmethod
        def backward(ctx, da, db):
            return da + db

    def work():
        for op in (
            mg.tanh,
            lambda y: y * y,
            lambda y: Pair.apply(y)[1],
            lambda y: Scale.apply(y, 1.0),
            lambda y: y.reshape(1),
        ):
            for sweep in (True, False):
                x = leaf(0.0)
                y = x
                gc.disable()
                for _ in range(20_000):
                    y = op(y)
                gc.enable()
                if sweep:
                    y.backward()
                del y
        x, y = chain(20_000)
        (dx,) = mg.grad(mg.exp(y - 20_000.0), x, create_graph=True)
        mg.grad(dx, x)
        del dx, y
        x, y = chain(20_000)
        y.register_hook(lambda dy, y=y: y)
        del y
        gc.collect()
        return True

    assert in_small_thread(work)


# ---------------------------------------------------------------- threads


@pytest.fixture
def hasty():
    """Threads take turns as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_threads(count, work):
    errors = []

    def guarded(i):
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_with_separate_graphs(hasty):
    def work(i):
        for _ in range(100):
            x = leaf(1.0, 2.0)
            y = x
            for _ in range(10):
                y = Scale.apply(y, 1.0) + x
            y.sum().backward()
            assert close(x.grad, 11, 11)

    run_threads(4, work)


def test_threads_that_share_leaves(hasty):
    """Each sweep adds to the shared leaf as a whole."""
    shared = leaf(1.0, 2.0)
    shared.register_hook(lambda dx: None)

    def work(i):
        for _ in range(50):
            Scale.apply(Scale.apply(shared, 2.0) + shared, 1.0).sum().backward()
            (dx,) = mg.grad(Scale.apply(shared, 4.0).sum(), shared)
            assert close(dx, 4, 4)

    run_threads(4, work)
    assert close(shared.grad, 600, 600)


def test_threads_that_share_a_graph(hasty):
    """The same nodes in several sweeps at once, with a hook and a rule in Python, where threads
    take turns."""
    w = leaf(1.0, 2.0)
    h = w
    for _ in range(10):
        h = Scale.apply(mg.tanh(h) * w, 1.5)
    h.register_hook(lambda dy: None)
    a, b = Polar.apply(h, w)
    loss = (a * b).sum()
    (expected,) = mg.grad(loss, w, retain_graph=True)

    def work(i):
        for _ in range(20):
            loss.backward(retain_graph=True)
            for create_graph in (False, True):
                (dw,) = mg.grad(loss, w, retain_graph=True, create_graph=create_graph)
                np.testing.assert_allclose(dw.numpy(), expected.numpy(), rtol=1e-13)

    run_threads(4, work)
    np.testing.assert_allclose(w.grad.numpy(), 80 * expected.numpy(), rtol=1e-12)


def test_threads_that_free_a_shared_graph(hasty):
    """Without retain_graph one of them may succeed; the others get an error, and the gradient is
    that of whole sweeps."""
    for _ in range(30):
        w, done = leaf(1.0, 2.0), []
        h = w
        for _ in range(10):
            h = Scale.apply(h * w, 1.0)
        loss = h.sum()

        def work(i, loss=loss, done=done):
            try:
                loss.backward()
            except RuntimeError as error:
                assert "a second time" in str(error)
            else:
                done.append(i)

        run_threads(3, work)
        assert w.grad is None or close(w.grad, len(done) * 11, len(done) * 11 * 2.0**10)


def test_threads_that_commit_with_create_graph(hasty):
    """Each makes a new sum of the shared gradient: none is lost."""
    w = leaf(1.0, 2.0)

    def work(i):
        for _ in range(50):
            (w * 3.0).sum().backward(create_graph=True)

    run_threads(4, work)
    assert close(w.grad, 600, 600)


def test_hook_that_waits_for_another_backward():
    x = leaf(1.0)
    y = x * 2.0

    def hook(dy):
        thread = threading.Thread(target=lambda: (x * 5.0).backward())
        thread.start()
        thread.join(20)
        assert not thread.is_alive()

    y.register_hook(hook)
    y.backward()
    assert close(x.grad, 7)


def test_anomaly_mode_is_per_thread():
    found = []

    def work(i):
        with mg.detect_anomaly():
            found.append(anomalies())

    with mg.detect_anomaly():
        run_threads(1, lambda i: found.append(anomalies()))
    run_threads(2, work)
    assert found == [False, True, True] and not anomalies()
