"""The pool of threads: after fork, nested and from several Python threads, at exit, and Ctrl-C
during a long sequence."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import minigrad as mg

PREPARE = textwrap.dedent("""
    import os, signal, sys, threading, time
    import numpy as np
    import minigrad as mg
    mg.set_num_threads(3)
    rng = np.random.default_rng(0)
    a = mg.Tensor(rng.standard_normal((300, 300)))
    layer = mg.nn.LSTM(32, 64)
    x = mg.Tensor(rng.standard_normal((50, 16, 32)).astype(np.float32))
""")


LIMIT = 600 if os.environ.get("MINIGRAD_SANITIZED") else 60  # seconds


def run(code, seconds=LIMIT):
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_after_a_parallel_run_works():
    assert (
        run("""
        product, out = (a @ a).numpy(), layer(x)[0].numpy()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                same = (product == (a @ a).numpy()).all() and (out == layer(x)[0].numpy()).all()
                os._exit(0 if same else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert (product == (a @ a).numpy()).all()
        print("ok")
    """)
        == "ok\n"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_during_backward_goes_backward():
    """In a hook, and during the backward of another thread; through the same tensors."""
    assert (
        run("""
        x = mg.Tensor([1.0], requires_grad=True)
        y = x * 3.0

        @mg.enable_grad
        def sweep():
            x.grad = None
            (x * 2.0 + y * 1.0).backward(retain_graph=True)
            return x.grad.item()

        def in_child(dy):
            child = os.fork()
            if child == 0:
                os._exit(0 if sweep() == 5 else 1)
            assert os.waitpid(child, 0)[1] == 0

        def after_hook(dy):
            child = os.fork()
            if child == 0:
                raise KeyError("this is the child")
            assert os.waitpid(child, 0)[1] == 0

        for hook in (in_child, after_hook):
            z = y * 1.0
            z.register_hook(hook)
            x.grad = None
            try:
                (z + x).backward(retain_graph=True)
            except KeyError:
                os._exit(0 if x.grad is None and sweep() == 5 else 1)
            assert x.grad.item() == 4

        started, go_on = threading.Event(), threading.Event()

        def wait(dy):
            started.set()
            go_on.wait(20)

        z = y * 1.0
        z.register_hook(wait)
        x.grad = None
        thread = threading.Thread(target=lambda: (z * x).backward(retain_graph=True))
        thread.start()
        started.wait(20)
        child = os.fork()
        if child == 0:
            os._exit(0 if sweep() == 5 else 1)
        assert os.waitpid(child, 0)[1] == 0
        go_on.set()
        thread.join()
        assert x.grad.item() == 6
        print("ok")
    """)
        == "ok\n"
    )


@pytest.mark.slow
def test_interpreters_end_cleanly():
    for _ in range(10):
        assert run("print((a @ a).shape)") == "(300, 300)\n"


def test_several_python_threads_share_weights():
    layer, x = (
        mg.nn.LSTM(16, 32),
        mg.Tensor(np.random.default_rng(0).standard_normal((40, 8, 16)).astype(np.float32)),
    )
    before = mg.get_num_threads()
    expected, found = layer(x)[0].numpy(), []

    def work():
        for _ in range(20):
            with mg.no_grad():
                found.append(np.array_equal(layer(x)[0].numpy(), expected))

    try:
        mg.set_num_threads(4)
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        mg.set_num_threads(before)
    assert len(found) == 160 and all(found)


def test_the_number_may_change_at_any_time():
    a = mg.Tensor(np.random.default_rng(0).standard_normal((257, 257)))
    before, expected = mg.get_num_threads(), (a @ a).numpy()
    try:
        for n in (8, 1, 3, 2, 8, 1):
            mg.set_num_threads(n)
            assert mg.get_num_threads() == n and np.array_equal((a @ a).numpy(), expected)
    finally:
        mg.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity here")
def test_the_default_is_the_affinity():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "import minigrad; print(minigrad.get_num_threads())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MINIGRAD_NUM_THREADS"}
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        ).stdout
        == "1\n"
    )


@pytest.mark.slow
def test_ctrl_c_is_answered_during_a_long_sequence():
    """The signal comes while C is at work; the KeyboardInterrupt comes long before the call would
    have ended."""
    told = run("""
        big = mg.nn.LSTM(64, 256)
        long = mg.Tensor(rng.standard_normal((2000, 64, 64)).astype(np.float32))
        start = time.perf_counter()
        with mg.no_grad():
            big(long)
        whole = time.perf_counter() - start
        sent = []

        def press():
            time.sleep(whole / 3)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        late = []
        for grad in (False, True):
            sent.clear()
            if grad:
                out = big(long[:1000])[0].sum()
            threading.Thread(target=press).start()
            try:
                while True:
                    if grad:
                        mg.grad(out, [big.cells[0].W], retain_graph=True)
                    else:
                        with mg.no_grad():
                            big(long)
            except KeyboardInterrupt:
                late.append(time.perf_counter() - sent[0])
            assert big.cells[0].W.grad is None
            assert big(long[:3])[0].shape == (3, 64, 256)
        print(max(late) < whole / 3)
    """)
    assert told == "True\n", "not answered before the call ended"
