"""fit is the loop that one would write: when it ends, the best weights, progress, Ctrl-C."""

import contextlib
import io
import os
import signal
import sys
import threading
import types

import numpy as np
import pytest
from lines import BATCHES, Line, same

import minigrad as mg
from minigrad.training.bptt import accumulate
from minigrad.training.loop import fit

posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")


def test_fit_is_the_loop_that_one_would_write():
    net, other, losses, norms = Line(), Line(), [], []
    history = net.run(epochs=3, clip=0.5)
    for _ in range(3):
        for x, y in BATCHES:
            other.optimizer.zero_grad()
            loss = other.loss(x, y)
            loss.backward()
            norms.append(mg.optim.clip_grad_norm_(other.parameters(), 0.5))
            losses.append(loss.item())
            other.optimizer.step()
    assert history.loss == losses and history.norm == norms and max(norms) > 0.5
    assert (history.step, history.epoch, history.validation, history.interrupted) == (
        12,
        3,
        [],
        False,
    )
    same(net.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    "options, steps, epochs",
    [
        ({"steps": 10}, 10, 2),
        ({"steps": 8}, 8, 1),
        ({"epochs": 2, "steps": 100}, 8, 2),
        ({"epochs": 2, "steps": 3}, 3, 0),
        ({"epochs": 0}, 0, 0),
    ],
)
def test_when_fit_ends(options, steps, epochs):
    history = Line().run(**options)
    assert (history.step, history.epoch) == (steps, epochs)


def test_the_best_weights_are_kept_and_patience_ends_it():
    net, values, weights = Line(), iter([5.0, 3.0, 4.0, float("nan"), 3.5, 1.0]), []

    def validate():
        assert not net.training and not mg.is_grad_enabled()
        weights.append(net.state_dict())
        return next(values)

    history = net.run(epochs=99, validate=validate, patience=3)
    assert (
        history.epoch == 5
        and history.best == 1
        and np.isnan(history.validation[3])
        and net.training
    )
    assert history.validation[:3] == [5.0, 3.0, 4.0]
    same(net.state_dict(), weights[1])


def test_the_end_within_an_epoch_is_validated_too():
    net, values = Line(), iter([5.0, 3.0])
    history = net.run(steps=6, validate=lambda: next(values))
    assert history.validation == [5.0, 3.0] and history.epoch == 1
    same(net.state_dict(), history.weights)


def test_functions_are_called_after_steps_and_epochs():
    net, calls = Line(), []
    net.run(
        steps=6,
        validate=lambda: 1.0,
        after_step=[lambda h: calls.append(h.step), lambda h: calls.append("s")],
        after_epoch=[lambda h: calls.append((h.epoch, len(h.validation)))],
    )
    assert calls == [1, "s", 2, "s", 3, "s", 4, "s", (1, 1), 5, "s", 6, "s"]


def test_a_loss_that_went_backward_itself():
    net = Line()

    def loss(x, y):
        return accumulate(
            (
                mg.mse(net.linear(x[k : k + 2]), y[k : k + 2], reduction="sum")
                for k in range(0, 8, 2)
            ),
            8,
        )

    with contextlib.redirect_stdout(io.StringIO()):
        history = fit(net, net.optimizer, loss, BATCHES, epochs=2)
    np.testing.assert_allclose(history.loss, Line().run(epochs=2).loss, rtol=1e-5)


def test_progress_in_plain_lines(monkeypatch):
    times = iter(np.arange(0, 1000, 0.4))
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    net = Line()
    history = net.run(epochs=2, line=lambda h: f"<{h.loss[-1]:.3f}>")
    lines = net.out.splitlines()
    assert lines[0].startswith(f"step 1/8  <{history.loss[0]:.3f}>  ")
    assert lines[-1] == f"step 8/8  <{history.loss[-1]:.3f}>  0 s left"
    assert 3 < len(lines) < 8 and all(line.endswith(" s left") for line in lines)
    net.run(iter(BATCHES), epochs=1)
    assert net.out.startswith("step 1  loss ") and "gradient " in net.out and "left" not in net.out
    net.run(steps=5, validate=lambda: 0.25)
    assert "validation 0.25" in net.out


def test_progress_with_tqdm(monkeypatch):
    """A stand-in for tqdm, which need not be installed."""
    bars = []

    class Bar:
        def __init__(self, **options):
            self.options, self.n, self.texts, self.closed = options, 0, [], False
            bars.append(self)

        def set_postfix_str(self, text, refresh):
            self.texts.append(text)

        def update(self):
            self.n += 1

        def close(self):
            self.closed = True

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bar))
    net = Line()
    net.run(epochs=2)
    assert bars == [] and net.out  # stderr is no terminal
    monkeypatch.setattr(
        sys, "stderr", types.SimpleNamespace(isatty=lambda: True, write=len, flush=bool)
    )
    net.run(epochs=2, line=lambda h: f"<{h.step}>")
    net.run(iter(BATCHES), steps=3)
    assert (
        net.out == ""
        and [bar.options["total"] for bar in bars] == [8, 3]
        and all(bar.closed for bar in bars)
    )
    assert bars[0].n == 8 and bars[0].texts == [f"<{k}>" for k in range(1, 9)]


@posix
@pytest.mark.parametrize("where", ["loss", "after_step", "validate"])
def test_ctrl_c_ends_after_the_step_and_keeps_the_best(where):
    net, before = Line(), signal.getsignal(signal.SIGINT)

    def interrupt_at(step):
        if len(net.seen) == step:
            os.kill(os.getpid(), signal.SIGINT)

    loss = net.loss
    if where == "loss":
        net.loss = lambda x, y: (interrupt_at(9), loss(x, y))[1]
    history = net.run(
        epochs=99,
        validate=lambda: (where == "validate" and interrupt_at(12), float(len(net.seen)))[1],
        after_step=[lambda h: where == "after_step" and interrupt_at(10)],
    )
    steps = {"loss": 10, "after_step": 10, "validate": 12}[where]
    assert history.interrupted and history.step == steps == len(history.norm)
    assert (
        history.best == 0
        and history.epoch == steps // 4
        and len(history.validation) == history.epoch
    )
    other = Line()
    other.run(epochs=1)
    same(net.state_dict(), other.state_dict())
    assert signal.getsignal(signal.SIGINT) is before


@posix
def test_a_second_ctrl_c_is_an_exception():
    net, before = Line(), signal.getsignal(signal.SIGINT)

    def twice(_):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        net.run(epochs=99, after_step=[twice])
    assert signal.getsignal(signal.SIGINT) is before


def test_fit_in_a_thread():
    net, found = Line(), []
    thread = threading.Thread(
        target=lambda: found.append(fit(net, net.optimizer, net.loss, BATCHES, epochs=2))
    )
    thread.start()
    thread.join()
    assert found[0].step == 8


def test_fit_refuses(tmp_path):
    net = Line()
    with pytest.raises(
        ValueError, match="fit: epochs or steps must say when the training ends, got neither"
    ):
        net.run()
    with pytest.raises(
        ValueError,
        match="fit: batches gave none in epoch 1; a generator is used up after one epoch",
    ):
        net.run(iter(BATCHES), epochs=2)
    with pytest.raises(
        ValueError,
        match="fit: parts must have other names than model, optimizer, history, got model",
    ):
        net.run(epochs=1, parts={"model": net})
    steps = len(net.seen)
    for place, error in (
        (tmp_path / "missing" / "a", FileNotFoundError),
        (tmp_path, IsADirectoryError),
    ):
        with pytest.raises(error) as caught:
            net.run(epochs=1, save=place)
        assert caught.value.filename == str(place)
    with pytest.raises(FileNotFoundError):
        net.run(epochs=1, resume=tmp_path / "missing")
    assert len(net.seen) == steps and os.listdir(tmp_path) == []
    with mg.no_grad():
        net.linear.bias[...] = np.float32("nan")
    with pytest.raises(RuntimeError, match="linear"):
        net.run(epochs=1)
