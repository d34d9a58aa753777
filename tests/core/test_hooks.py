"""Hooks on tensors and leaves, and retain_grad: their order, what they may return, remove, call and
keep, and what an exception in one of them leaves."""

import gc
import weakref

import numpy as np
import pytest
from graphs import close, leaf

import minigrad as mg


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


@pytest.fixture
def collector_sees_only_the_test():
    """Each collection looks through what the test makes, not through all modules and tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
def test_hooks_that_make_and_kill_nodes(collector_sees_only_the_test):
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
