"""Threads with graphs of their own, with shared leaves, and with a graph that they share."""

import sys
import threading

import numpy as np
import pytest
from graphs import Polar, Scale, anomalies, close, leaf, run_threads

import minigrad as mg


@pytest.fixture
def hasty():
    """Threads take turns as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


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
