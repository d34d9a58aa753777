"""The memory of graphs: what dies with the loss, no cycles, no leaks, and an allocation that fails
at any moment."""

import ctypes
import gc
import sys
import weakref

import numpy as np
import pytest
from graphs import Polar, leaf

import minigrad as mg


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
                assert isinstance(failure, MemoryError), n
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


def twice_rule(dy):
    """Not written where memory fails: CPython 3.12 and 3.13 crash when they cannot make a
    function."""
    return 2 * dy, None


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
        "record": lambda x: mg.record("twice", 2 * x.numpy(), (x, w), twice_rule),
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
                assert isinstance(failure, MemoryError), n
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
