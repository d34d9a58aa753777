"""Every way in which fit ends: exceptions, Ctrl-C, patience, nothing to do."""

import builtins
import contextlib
import io
import os
import signal
import sys

import numpy as np
import pytest
from fits import BATCHES, Run

import minigrad as mg
from minigrad.training.loop import fit

posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")


class Stop(Exception):
    pass


def raiser(error):
    def function(*_):
        raise error

    return function


class Data:
    """Batches whose iterator raises at the third."""

    def __init__(self, error):
        self.error = error

    def __iter__(self):
        yield from BATCHES[:2]
        raise self.error


WHERE = (
    "loss",
    "backward",
    "validate",
    "after_step",
    "after_epoch",
    "line",
    "save",
    "batches",
    "step",
    "best weights",
)


def failing(where, run, error, monkeypatch):
    """The loss function, batches and options of a fit that fails there."""
    fail = raiser(error)
    options, batches, loss = {"validate": lambda: 1.0}, BATCHES, run.loss
    if where == "loss":

        def loss(x, y):
            return fail() if len(run.seen) == 2 else run.loss(x, y)
    elif where == "backward":

        def loss(x, y):
            value = run.loss(x, y)
            if len(run.seen) == 2:
                value.register_hook(fail)
            return value * 1.0
    elif where == "batches":
        batches = Data(error)
    elif where == "save":
        monkeypatch.setattr(os, "replace", fail)
    elif where == "step":
        step, made = run.optimizer.step, []
        monkeypatch.setattr(
            run.optimizer,
            "step",
            lambda: fail() if made[2:] else (made.append(1), step()),
            raising=False,
        )
    elif where == "best weights":
        monkeypatch.setattr(run.net, "load_state_dict", fail, raising=False)
    else:
        options[where] = fail if where in ("validate", "line") else [fail]
    return loss, batches, options


@pytest.mark.parametrize(
    "error",
    [Stop("x"), KeyboardInterrupt(), MemoryError("x"), RecursionError("x"), SystemExit(1)],
    ids=repr,
)
@pytest.mark.parametrize("where", WHERE)
def test_every_exception_leaves_a_whole_file_and_the_modes(where, error, tmp_path, monkeypatch):
    run, path = Run(), tmp_path / "a"
    run.net.drop.eval()  # deliberately: it must stay so
    with contextlib.redirect_stdout(io.StringIO()):
        fit(run.net, run.optimizer, run.loss, BATCHES, steps=4, save=path)
    whole = path.read_bytes()
    loss, batches, options = failing(where, run, error, monkeypatch)
    before = {name: mode for name, mode in enumerate(m.training for m in run.net.modules())}
    with pytest.raises(type(error)) as caught:
        run.fit(loss, batches, save=path, **options)
    assert caught.value is error or where == "backward"
    assert {name: mode for name, mode in enumerate(m.training for m in run.net.modules())} == before
    assert path.read_bytes() == whole or where in (
        "best weights",
        "after_epoch",
        "validate",
        "line",
    )
    load = Run()
    with contextlib.redirect_stdout(io.StringIO()):
        fit(
            load.net, load.optimizer, load.loss, BATCHES, steps=0, resume=path
        )  # whatever it holds, it is whole
    assert os.listdir(tmp_path) == ["a"] and all(p.grad is None for p in run.net.parameters())
    if run.seen:
        history = run.seen[-1]
        assert len(history.loss) == len(history.norm)
        assert history.ended == f"{type(error).__name__}: {error}"
        assert (
            f"ended at step {history.step}, in epoch {history.epoch}, by {history.ended}; the "
            f"model has the last" in run.out
        )
    assert mg.is_grad_enabled() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@posix
@pytest.mark.parametrize("moment", range(1, 40, 3))
def test_ctrl_c_anywhere(moment, tmp_path):
    """Two signals after so many calls of minigrad's Python functions."""
    run, path, calls = Run(), tmp_path / "a", []

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_filename.endswith(
            ("training.py", "optim.py", "checkpoint.py", "module.py")
        ):
            calls.append(1)
            if len(calls) in (10 * moment, 10 * moment + 3):
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    sys.setprofile(profile)
    try:
        run.fit(save=path, steps=40, validate=lambda: 1.0)
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    assert signal.getsignal(signal.SIGINT) is before and run.net.training and mg.is_grad_enabled()
    if path.exists():
        mg.load(path)
    assert all(p.grad is None for p in run.net.parameters())
    if run.seen:
        assert len(run.seen[-1].loss) == len(run.seen[-1].norm) and run.seen[-1].ended


def test_normal_ends_say_what_ended_it():
    run = Run()
    assert run.fit(steps=5).ended == "steps" and "ended" not in run.out
    run = Run()
    assert run.fit(steps=None, epochs=2).ended == "epochs"
    run, values = Run(), iter([3.0, 1.0, 2.0, 2.0])
    history = run.fit(steps=None, epochs=99, validate=lambda: next(values), patience=2)
    assert history.ended == "patience" and history.epoch == 4 and run.net.training
    assert run.out.splitlines()[-1] == (
        "ended at step 16: the validation has not fallen for 2 epochs; the model has the weights "
        "of "
        "epoch 1, validation 1"
    )


def test_validations_that_are_all_nan_end_with_patience():
    run = Run()
    history = run.fit(steps=None, epochs=99, validate=lambda: np.nan, patience=3)
    assert (
        history.ended == "patience"
        and history.epoch == 3
        and history.best is None
        and history.weights is None
    )
    assert (
        run.out.splitlines()[-1]
        == "ended at step 12: no validation in 3 epochs was a number, patience 3"
    )
    run, values = Run(), iter([np.nan, 2.0, np.nan, np.nan, 1.0])
    history = run.fit(steps=None, epochs=99, validate=lambda: next(values), patience=2)
    assert history.ended == "patience" and history.epoch == 4 and history.best == 1
    run = Run()
    assert (
        run.fit(steps=4, validate=lambda: np.nan).best is None
        and "no validation was a number: the model has the last" in run.out
    )


def test_the_mode_is_as_it_was():
    """A model in eval mode is trained in train mode and put back; a layer that was put into eval
    mode alone stays so."""
    run, modes = Run(), []
    run.net.eval()
    run.fit(after_step=[lambda: modes.append(run.net.drop.training)], validate=lambda: 1.0)
    assert all(modes) and not any(m.training for m in run.net.modules())
    run, modes = Run(), []
    run.net.drop.eval()
    run.fit(
        after_step=[lambda: modes.append((run.net.training, run.net.drop.training))],
        validate=lambda: 1.0,
    )
    assert set(modes) == {(True, False)} and run.net.training and not run.net.drop.training


def test_nothing_to_do_is_said(tmp_path):
    Run().fit(save=tmp_path / "a")
    run = Run()
    history = run.fit(resume=tmp_path / "a")
    assert (
        history.step == 8
        and run.seen == []
        and "ended at step 8: no step was left to do: the steps are over" in run.out
    )


def test_a_stdout_that_is_closed_does_not_hide_the_error(monkeypatch):
    run = Run()
    real = builtins.print

    def broken(*a, **k):
        if a[0].startswith("ended"):
            raise BrokenPipeError
        real(*a, **k)

    monkeypatch.setattr(builtins, "print", broken)
    with pytest.raises(Stop):
        run.fit(raiser(Stop()))
