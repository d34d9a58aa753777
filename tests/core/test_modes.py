"""Recording on and off, anomaly mode: as contexts, as decorators, in generators and threads."""

import asyncio
import inspect
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from graphs import anomalies, broken, close, leaf, run_threads

import minigrad as mg

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


def test_contexts_inside_of_each_other_are_let_go():
    outer, inner = mg.no_grad(), mg.enable_grad()
    gone = [weakref.ref(outer), weakref.ref(inner)]
    with outer:
        with inner:
            pass
    del outer, inner
    assert [ref() for ref in gone] == [None, None]


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


# ---------------------------------------------------------------- anomaly mode


def test_anomaly_forward_names_op_and_line():
    x = leaf(1.0, 0.0)
    with mg.detect_anomaly():
        with pytest.raises(
            RuntimeError,
            match=(
                r"anomaly: log made the first non-finite value, of shape \(2,\), at "
                r".*test_modes.py:\d+: mg.log\(x\)"
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
                r"anomaly: the backward of sqrt made the first non-finite gradient, for its input "
                r"0; the op was recorded at "
                r".*test_modes.py:\d+: y = mg.sqrt\(x\) \* 2.0"
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
                r"mul: the memory of a saved tensor .* was changed behind minigrad's "
                r"back.*test_modes.py:\d+: y = "
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
        "import sys\nsys.path.pop(0)\nimport minigrad as mg\nx = mg.Tensor([0.0], "
        "requires_grad=True)\n"
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
