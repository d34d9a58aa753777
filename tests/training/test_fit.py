"""fit: what it trains and what it says; every exit of it; bad arguments; what goes wrong in a
resumed training."""

import builtins
import collections
import contextlib
import io
import os
import signal
import sys
import warnings

import numpy as np
import pytest

import minigrad as mg
from minigrad.training.bptt import TruncatedBPTT, accumulate
from minigrad.training.history import History
from minigrad.training.loop import fit
from minigrad.training.saving import load_training, save_training

posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")
RNG = np.random.default_rng(3)
BATCHES = [
    (mg.Tensor(RNG.standard_normal((4, 2, 3))), mg.Tensor(RNG.standard_normal((4, 2, 2))))
    for _ in range(4)
]


class Net(mg.nn.Module):
    """A recurrent layer, dropout and a head, in float64."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.layer = mg.nn.GRU(3, 4, dtype=np.float64, rng=rng)
        self.drop = mg.nn.Dropout(0.2)
        self.head = mg.nn.Linear(4, 2, dtype=np.float64, rng=rng)

    def forward(self, x):
        return self.head(self.drop(self.layer(x)[0]))


class Run:
    """A net, its optimizer and what a fit of them has printed."""

    def __init__(self, optimizer=None, **options):
        mg.manual_seed(4)
        self.net = Net()
        self.optimizer = (
            mg.optim.SGD(self.net.parameters(), **({"lr": 0.1} | options))
            if optimizer is None
            else optimizer(self.net)
        )
        self.seen, self.out = [], ""

    def loss(self, x, y):
        return mg.mse(self.net(x), y)

    def fit(self, loss=None, batches=BATCHES, **options):
        out = io.StringIO()
        mg.manual_seed(4)
        see = [lambda history: self.seen.append(history)]
        options = {"steps": 8} | options
        options["after_step"] = see + list(options.get("after_step", []))
        try:
            with contextlib.redirect_stdout(out):
                return fit(self.net, self.optimizer, loss or self.loss, batches, **options)
        finally:
            self.out = out.getvalue()

    def weights(self):
        return {name: array.tobytes() for name, array in self.net.state_dict().items()}


# ---------------------------------------------------------------- what the optimizer has is clipped and cleared


def test_only_what_the_optimizer_has_is_clipped_and_cleared():
    """The oracle is the loop by hand, with the norm of the head's gradients alone, in NumPy."""
    run, other = (Run(lambda net: mg.optim.SGD(net.head.parameters(), lr=0.1)) for _ in range(2))
    layer = run.net.layer.state_dict()
    history = run.fit(clip=0.3, steps=6)
    assert (
        "not trained, since the optimizer does not have it: layer." in run.out
        and "head" not in run.out.splitlines()[0]
    )
    mg.manual_seed(4)
    other = Run(lambda net: mg.optim.SGD(net.head.parameters(), lr=0.1))
    total = {name: np.zeros(p.shape) for name, p in other.net.layer.named_parameters()}
    for k in range(6):
        other.net.zero_grad()
        other.loss(*BATCHES[k % 4]).backward()
        for name, p in other.net.layer.named_parameters():
            total[name] += p.grad.numpy()
        gradients = [p.grad.numpy() for p in other.net.head.parameters()]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        assert abs(history.norm[k] - norm) <= 1e-12 * norm
        with mg.no_grad():
            for p, g in zip(other.net.head.parameters(), gradients, strict=True):
                p[...] = p.numpy() - 0.1 * g * min(1.0, 0.3 / (norm + 1e-6))
    for name, array in run.net.head.state_dict().items():
        assert np.abs(array - dict(other.net.head.named_parameters())[name].numpy()).max() < 1e-14
    for name, p in run.net.layer.named_parameters():
        assert (p.numpy() == layer[name]).all()
        assert (
            np.abs(p.grad.numpy() - total[name]).max() < 1e-13
        )  # not the optimizer's: they add up, unclipped
    assert all(p.grad is None for p in run.net.head.parameters())


def test_a_frozen_parameter_is_not_spoken_of_and_a_parameter_outside_the_model_is_clipped_too():
    scale = mg.Tensor([3.0], dtype=np.float64, requires_grad=True)
    run = Run(lambda net: mg.optim.SGD([*net.parameters(), scale], lr=0.01))
    run.net.head.bias.requires_grad = False
    before = run.net.head.bias.numpy().copy()
    history = run.fit(lambda x, y: mg.mse(run.net(x) * scale, y), steps=1, clip=1e-3)
    assert "not trained" not in run.out and (run.net.head.bias.numpy() == before).all()
    step = 3.0 - scale.item()
    assert 0 < abs(step) < 0.01 * 1e-3 < 0.01 * history.norm[0] and scale.grad is None


def test_a_shared_parameter_counts_once():
    run = Run()
    run.net.again = run.net.head
    alone = Run()
    assert run.fit().norm == alone.fit().norm


def test_gradients_from_before_do_not_count():
    run, other = Run(), Run()
    for p in run.net.parameters():
        p.grad = mg.Tensor(np.full(p.shape, 1e6))
    assert run.fit().norm == other.fit().norm


# ---------------------------------------------------------------- what a loss function returns


def constant(net, x, y):
    with mg.no_grad():
        return mg.mse(net(x), y)


LOSSES = {
    "item": (
        lambda net, x, y: mg.mse(net(x), y).item(),
        TypeError,
        "return the loss itself, not its item()",
    ),
    "float": (
        lambda net, x, y: float(mg.mse(net(x), y)),
        TypeError,
        "got the float .* no parameter of the optimizer has a gradient",
    ),
    "float32": (lambda net, x, y: np.float32(1.0), TypeError, "got the float32 1.0"),
    "None": (
        lambda net, x, y: None,
        TypeError,
        "fit: loss must return a Tensor of shape .*, got NoneType",
    ),
    "None after backward": (
        lambda net, x, y: mg.mse(net(x), y).backward(),
        TypeError,
        "loss must return .*, got NoneType",
    ),
    "array": (lambda net, x, y: mg.mse(net(x), y).numpy(), TypeError, "got ndarray"),
    "bool": (lambda net, x, y: True, TypeError, "got bool"),
    "str": (lambda net, x, y: "0.3", TypeError, "got str"),
    "tuple": (lambda net, x, y: (mg.mse(net(x), y), net), TypeError, "got tuple"),
    "detached": (
        lambda net, x, y: mg.mse(net(x), y).detach(),
        RuntimeError,
        "loss must return one number .* without a graph",
    ),
    "no_grad": (constant, RuntimeError, "without a graph"),
    "constant": (lambda net, x, y: mg.Tensor(1.0), RuntimeError, "graph"),
    "not one number": (
        lambda net, x, y: mg.mse(net(x), y, reduction="none"),
        ValueError,
        r"loss must return one number .* got shape \(4, 2, 2\): take its mean\(\) or sum\(\)",
    ),
    "of nothing": (
        lambda net, x, y: mg.mse(net(x), y, reduction="none")[:0],
        ValueError,
        r"got shape \(0, 2, 2\)",
    ),
    "of others": (
        lambda net, x, y: mg.mse(Net()(x), y),
        RuntimeError,
        "does not depend on any parameter of the optimizer",
    ),
}


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_that_trains_nothing_is_an_error(case):
    function, error, message = LOSSES[case]
    run = Run()
    before = run.weights()
    with pytest.raises(error, match=message):
        run.fit(lambda x, y: function(run.net, x, y))
    assert run.weights() == before and all(p.grad is None for p in run.net.parameters())


def test_losses_that_are_fine():
    """A Tensor of one element, and a number or a constant after an own backward."""
    expected = Run().fit().loss

    def own(as_what):
        def loss(net, x, y):
            value = mg.mse(net(x), y)
            value.backward()
            return as_what(value)

        return loss

    functions = [
        lambda net, x, y: mg.mse(net(x), y).reshape(1, 1),
        own(float),
        own(lambda v: np.float64(v.item())),
        own(lambda v: v.detach()),
    ]
    for function in functions:
        run = Run()
        assert run.fit(lambda x, y, f=function, run=run: f(run.net, x, y)).loss == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error_before_the_step(value):
    """Also where its gradients are finite."""
    run = Run()
    with pytest.raises(RuntimeError, match=f"fit: the loss is {value} in step 2"):
        run.fit(lambda x, y: run.loss(x, y) + (value if len(run.seen) == 2 else 0.0))
    assert run.seen[-1].step == 2 and run.seen[-1].ended.startswith(
        "RuntimeError: fit: the loss is"
    )


ACCUMULATE = {
    "float": (([1.0], 2), TypeError, r"accumulate: losses\[0\] must be one number .*, got float"),
    "None": (([None], 2), TypeError, "got NoneType"),
    "no graph": (([mg.Tensor(1.0)], 2), RuntimeError, "without a graph"),
    "no losses": (([], 2), ValueError, "losses must give at least one Tensor, got none"),
    "a Tensor": (
        (mg.ones(3, requires_grad=True), 2),
        TypeError,
        "losses must be a list or a generator of Tensors, got Tensor",
    ),
    "vector": (([mg.ones(3, requires_grad=True) * 2.0], 2), ValueError, r"got shape \(3,\)"),
    "count inf": (([], np.inf), ValueError, "count must be above 0 and finite, got inf"),
    "count str": (([], "2"), TypeError, "count must be a number, got str"),
    "count bool": (([], True), TypeError, "count must be a number, got bool"),
}


@pytest.mark.parametrize("case", ACCUMULATE)
def test_accumulate_refuses(case):
    arguments, error, message = ACCUMULATE[case]
    with pytest.raises(error, match=message):
        accumulate(*arguments)


# ---------------------------------------------------------------- every exit


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
    whole, fail = path.read_bytes(), raiser(error)
    raises, options, batches, loss = (
        pytest.raises(type(error)),
        {"validate": lambda: 1.0},
        BATCHES,
        run.loss,
    )
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
    before = {name: mode for name, mode in enumerate(m.training for m in run.net.modules())}
    with raises as caught:
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
            f"ended at step {history.step}, in epoch {history.epoch}, by {history.ended}; the model has the last"
            in run.out
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
        "ended at step 16: the validation has not fallen for 2 epochs; the model has the weights of "
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


# ---------------------------------------------------------------- schedules and other things that are called


def rates(run, **options):
    found = []
    run.fit(
        after_step=[
            *options.pop("after_step", []),
            lambda: found.append(run.optimizer.param_groups[0]["lr"]),
        ],
        **options,
    )
    return found


@pytest.mark.parametrize(
    "how", ["schedule", "its step", "a function of the History", "a function of nothing"]
)
def test_schedules_in_after_step(how):
    run = Run()
    schedule = mg.optim.schedule.StepLR(run.optimizer, 2, 0.5)
    given = {
        "schedule": schedule,
        "its step": schedule.step,
        "a function of the History": lambda history: schedule.step(),
        "a function of nothing": lambda: schedule.step(),
    }[how]
    assert rates(run, after_step=[given], steps=5) == [0.1, 0.05, 0.05, 0.025, 0.025]


@pytest.mark.parametrize("bound", [False, True])
def test_reduce_on_plateau_gets_the_validation(bound):
    run = Run()
    plateau = mg.optim.schedule.ReduceLROnPlateau(run.optimizer, factor=0.5, patience=0)
    values = iter([3.0, 4.0, 2.0, 5.0])
    run.fit(
        steps=None,
        epochs=4,
        validate=lambda: next(values),
        after_epoch=[plateau.step if bound else plateau],
    )
    assert (
        run.optimizer.param_groups[0]["lr"] == 0.1 / 4
        and plateau.best == 2.0
        and plateau.steps == 4
    )


def calls(**options):
    return lambda run: run.fit(**options)


REFUSED = {
    "plateau in after_step": (
        lambda run: run.fit(
            after_step=[mg.optim.schedule.ReduceLROnPlateau(run.optimizer)], validate=float
        ),
        ValueError,
        r"fit: after_step\[1\]: ReduceLROnPlateau steps by the validation: give it in after_epoch",
    ),
    "plateau without validate": (
        lambda run: run.fit(after_epoch=[mg.optim.schedule.ReduceLROnPlateau(run.optimizer).step]),
        ValueError,
        r"after_epoch\[0\]: ReduceLROnPlateau .* and give validate",
    ),
    "optimizer's step": (
        lambda run: run.fit(after_step=[run.optimizer.step]),
        TypeError,
        "the optimizer, whose step fit makes",
    ),
    "no list": (
        lambda run: run.fit(after_epoch=mg.optim.schedule.StepLR(run.optimizer, 2)),
        TypeError,
        "fit: after_epoch must be a list of functions of the History, got StepLR",
    ),
    "function alone": (
        calls(after_epoch=print),
        TypeError,
        "after_epoch must be a list of functions of the History, got builtin",
    ),
    "no function": (
        calls(after_epoch=[3]),
        TypeError,
        r"after_epoch\[0\] must be a function of the History or a schedule, got int",
    ),
    "two arguments": (
        calls(after_epoch=[lambda a, b: 0]),
        TypeError,
        r"after_epoch\[0\] must take the History or nothing, got <lambd",
    ),
    "schedule for optimizer": (
        lambda run: fit(
            run.net, mg.optim.schedule.StepLR(run.optimizer, 2), run.loss, BATCHES, steps=1
        ),
        TypeError,
        "fit: optimizer must be an optimiser of minigrad.optim, got StepLR",
    ),
    "order of arguments": (
        lambda run: fit(run.net, run.loss, run.optimizer, BATCHES, steps=1),
        TypeError,
        "fit: optimizer must be",
    ),
    "no model": (
        lambda run: fit(run.loss, run.optimizer, run.loss, BATCHES, steps=1),
        TypeError,
        "fit: model must be a Module",
    ),
    "no loss": (
        lambda run: fit(run.net, run.optimizer, None, BATCHES, steps=1),
        TypeError,
        "fit: loss must be a function, got None",
    ),
    "validate": (calls(validate=1.0), TypeError, "fit: validate must be a function, got float"),
    "batches a Tensor": (
        calls(batches=mg.ones((4, 2))),
        TypeError,
        "fit: batches must be an iterable of tuples",
    ),
    "batches a dict": (
        calls(batches={}),
        TypeError,
        "fit: batches must be an iterable of tuples.*got dict",
    ),
    "batches None": (
        calls(batches=3),
        TypeError,
        "fit: batches must be an iterable of tuples.*got int",
    ),
    "a batch is a Tensor": (
        calls(batches=[BATCHES[0][0]]),
        TypeError,
        "fit: batches must give tuples, .* got Tensor",
    ),
    "a batch is a dict": (
        calls(batches=[{"x": 1}]),
        TypeError,
        "fit: batches must give tuples, .* got dict",
    ),
    "no batches": (calls(batches=[]), ValueError, "fit: batches gave none in epoch 0"),
    "used up": (
        calls(batches=iter(BATCHES)),
        ValueError,
        "fit: batches gave none in epoch 1; a generator is used up",
    ),
    "epochs": (calls(epochs=2.0), TypeError, "fit: epochs must be an int, got float"),
    "steps": (calls(steps=-1), ValueError, "fit: steps must be at least 0, got -1"),
    "clip 0": (calls(clip=0), ValueError, "fit: clip must be above 0, got 0"),
    "clip NaN": (calls(clip=np.nan), ValueError, "fit: clip must be above 0, got nan"),
    "clip None": (calls(clip=None), TypeError, "fit: clip must be a number, got NoneType"),
    "patience 0": (
        calls(patience=0, validate=float),
        ValueError,
        "fit: patience must be at least 1, got 0",
    ),
    "patience alone": (calls(patience=1), ValueError, "fit: patience needs validate"),
    "save_every alone": (calls(save_every=1), ValueError, "fit: save_every needs save"),
    "validate None": (
        calls(validate=lambda: None),
        TypeError,
        "fit: validate must return a number, got NoneType",
    ),
    "validate text": (
        calls(validate=lambda: "3"),
        TypeError,
        "fit: validate must return a number, got str",
    ),
    "parts list": (
        calls(parts=[1]),
        TypeError,
        "fit: parts must be a dict of what has a state_dict, got list",
    ),
    "part list": (
        calls(parts={"a": [1]}),
        TypeError,
        r"fit: parts\['a'\] must have state_dict and load_state_dict, got list",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, error, message = REFUSED[case]
    run = Run()
    with pytest.raises(error, match=message):
        call(run)
    assert run.net.training and all(p.grad is None for p in run.net.parameters())


def test_what_is_given_as_a_generator_is_called_at_each_step():
    run, calls = Run(), []
    with contextlib.redirect_stdout(io.StringIO()):
        fit(
            run.net,
            run.optimizer,
            run.loss,
            BATCHES,
            steps=3,
            after_step=(lambda: calls.append(1) for _ in range(2)),
        )
    assert len(calls) == 6


# ---------------------------------------------------------------- saved before the first step, saved whole

State = collections.namedtuple("State", "h c")


class Part:
    def __init__(self, state=None, error=None):
        self.state, self.error = state, error

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        if self.error is not None:
            raise self.error
        self.state = state


UNSAVABLE = {
    "config set": {"config": {"a": {1}}},
    "config array": {"config": np.ones(2)},
    "config object": {"config": object()},
    "config number": {"config": {"a": np.float32(1)}},
    "config keys": {"config": {1: 2}},
    "config bytes": {"config": b"a"},
    "config of itself": {"config": (lambda a: (a.append(a), a)[1])([])},
    "part set": {"parts": {"p": Part({1})}},
    "part complex": {"parts": {"p": Part({"a": np.ones(1, complex)})}},
    "part keys": {"parts": {"p": Part({1: 2})}},
    "part masked": {"parts": {"p": Part({"a": np.ma.masked_array([1.0], [True])})}},
    "part Tensor": {"parts": {"p": Part({"a": mg.ones(2, requires_grad=True)})}},
    "part list": {"parts": {"p": Part([0] * 140_000)}},
    "part deep": {"parts": {"p": Part((lambda a: [a := [a] for _ in range(5000)][-1])([]))}},
}


@pytest.mark.parametrize("case", UNSAVABLE)
def test_what_cannot_be_saved_is_told_before_the_first_step(case, tmp_path):
    run = Run()
    before = run.weights()
    with pytest.raises((TypeError, ValueError), match="save"):
        run.fit(save=tmp_path / "a", **UNSAVABLE[case])
    assert run.seen == [] and run.weights() == before and os.listdir(tmp_path) == []


def test_what_the_first_step_makes_unsavable_is_told_after_it(tmp_path):
    run, part = Run(), Part()
    with pytest.raises(TypeError, match=r"extra\['training'\]\['p'\] must be .*, got set"):
        run.fit(
            save=tmp_path / "a", parts={"p": part}, after_step=[lambda: part.load_state_dict({1})]
        )
    assert run.seen[-1].step == 1


@pytest.mark.parametrize(
    "config", [{"a": (1, (2, [3, (4,)]))}, (), {"x": np.nan, "y": [np.inf, -0.0]}, None, {"a": {}}]
)
def test_a_config_can_be_loaded_again(config, tmp_path):
    Run().fit(save=tmp_path / "a", config=config)
    assert Run().fit(resume=tmp_path / "a", config=config, steps=9).step == 9


def test_a_config_that_differs_in_a_tuple_is_another(tmp_path):
    Run().fit(save=tmp_path / "a", config={"a": (1, 2)})
    with pytest.raises(
        mg.CheckpointError, match=r"belongs to another training: a is \(1, 2\), not \(1, 3\)"
    ):
        Run().fit(resume=tmp_path / "a", config={"a": (1, 3)})


def test_states_come_back_as_they_were(tmp_path):
    state = {
        "named": State(np.ones(2), State(mg.Tensor([1.0]), None)),
        "list": [1, (2.5, [mg.ones((2, 2), np.float64)])],
        "scalar": np.float32(0.1),
        "0-d": np.array(3),
        "int": np.int64(3),
        "inf": [-np.inf, (np.nan,)],
        "none": None,
        "dict": {"a": {}, "b": (), "c": []},
        "true": True,
        "big": 2**70,
        "minus": -0.0,
    }
    part = Part(state)
    save_training(tmp_path / "a", {"p": part})
    part.state = None
    load_training(tmp_path / "a", {"p": part})
    assert (
        repr(part.state) == repr(state)
        and type(part.state["named"]) is State
        and type(part.state["scalar"]) is np.float32
    )


def test_a_named_tuple_that_is_not_defined_is_refused(tmp_path):
    save_training(tmp_path / "a", {"p": Part(State(1, 2))})
    arrays, extra = mg.load(tmp_path / "a")
    for name, fields in (
        ("Unknown", ["h", "c"]),
        ("State", ["h", "d"]),
        ("State", ["h"]),
        (3, []),
        ("Popen", ["args"]),
    ):
        mg.save(
            tmp_path / "b",
            arrays,
            extra | {"training": {"p": {"@named": name, "@parts": dict.fromkeys(fields, 1)}}},
        )
        part = Part("before")
        with pytest.raises(mg.CheckpointError, match="holds a named tuple .* not defined here"):
            load_training(tmp_path / "b", {"p": part})
        assert part.state == "before"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("x"),
        KeyboardInterrupt(),
        RecursionError("x"),
        MemoryError(),
        AssertionError("x"),
        OSError("x"),
        KeyError("x"),
        SystemExit(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_loading_is_all_or_nothing(error, position, tmp_path):
    """A part that raises, wherever it stands: all others and the generator are as before."""
    run = Run()
    parts = [("model", run.net), ("optimizer", run.optimizer), ("part", Part(1))]
    parts.insert(position, ("bad", Part({"x": 1}, error)))
    save_training(tmp_path / "a", dict(parts))
    run.fit(steps=3)
    parts[-1][1].state = 2
    mg.manual_seed(77)

    def everything():
        return repr([part.state_dict() for _, part in parts]) + repr(mg.default_generator)

    before = everything()
    converted = isinstance(error, Exception) and not isinstance(error, (MemoryError, OSError))
    with pytest.raises(mg.CheckpointError if converted else type(error)) as caught:
        load_training(tmp_path / "a", dict(parts))
    assert everything() == before
    if converted:
        assert "load_training: " in str(caught.value) and ": bad: " in str(caught.value)


@pytest.mark.parametrize("depth", [200, 400, 600, 900])
def test_a_part_that_is_nested_deeply_changes_nothing(depth, tmp_path):
    """It is loaded, or refused as a file that is none."""
    nested = []
    for _ in range(depth):
        nested = [nested]
    run, part = Run(), Part(3)
    try:
        mg.save(
            tmp_path / "a",
            {},
            {"training": {"p": nested}, "generator": {"seed": 1, "draws": 2}, "config": None},
        )
    except ValueError:
        assert depth >= 600
        return
    mg.manual_seed(5)
    state = mg.default_generator.state
    try:
        load_training(tmp_path / "a", {"p": part})
        assert part.state != 3 and mg.default_generator.state == {"seed": 1, "draws": 2}
    except mg.CheckpointError:
        assert part.state == 3 and mg.default_generator.state == state and depth >= 200
    assert run.seen == []


def test_generators_are_parts(tmp_path):
    generator = mg.Generator(3)
    save_training(tmp_path / "a", {"g": generator})
    mg.dropout_mask(3, 0.5, generator=generator)
    load_training(tmp_path / "a", {"g": generator})
    assert generator.state == {"seed": 3, "draws": 0}


def test_a_generator_of_a_layer_is_saved(tmp_path):
    def run():
        made = Run()
        made.net.drop = mg.nn.Dropout(0.5, mg.Generator(9))
        return made

    expected = run().fit(steps=8).loss
    run().fit(steps=3, save=tmp_path / "a")
    assert run().fit(steps=8, resume=tmp_path / "a").loss == expected


def test_schedules_and_losses_with_a_state_are_saved_without_being_named(tmp_path):
    def go(steps, **options):
        run = Run()
        bptt = TruncatedBPTT(
            lambda x, state: (run.net.head((out := run.net.layer(x, state))[0]), out[1]), mg.mse, 4
        )
        history = run.fit(
            bptt,
            steps=steps,
            after_step=[mg.optim.schedule.ExponentialLR(run.optimizer, 0.8)],
            **options,
        )
        return history.loss, run.weights(), run.optimizer.param_groups[0]["lr"]

    expected = go(8)
    go(3, save=tmp_path / "a")
    assert go(8, resume=tmp_path / "a") == expected
    assert set(mg.load(tmp_path / "a")[1]["training"]) == {
        "model",
        "optimizer",
        "history",
        "fit.loss",
        "fit.after_step[1]",
    }


def test_another_lr_on_resume_is_told_and_can_be_set(tmp_path):
    Run().fit(steps=3, save=tmp_path / "a")
    run = Run(lr=0.02)
    assert rates(run, steps=4, resume=tmp_path / "a") == [0.1]
    assert f"resumed {tmp_path / 'a'} at step 3, in epoch 0\n" in run.out
    assert (
        "the optimizer has lr = 0.1 from the file, not 0.02 as it was made with now; after_resume can change it"
        in run.out
    )
    run = Run(lr=0.02)
    assert rates(
        run,
        steps=4,
        resume=tmp_path / "a",
        after_resume=[lambda: run.optimizer.param_groups[0].update(lr=0.02)],
    ) == [0.02]
    run = Run()
    run.fit(steps=4, resume=tmp_path / "a")
    assert "from the file" not in run.out


def test_a_schedule_that_has_moved_is_no_other_lr(tmp_path):
    def run(lr):
        made = Run(lr=lr)
        made.fit(
            steps=4 if lr == 0.1 and not (tmp_path / "a").exists() else 6,
            after_step=[mg.optim.schedule.StepLR(made.optimizer, 1)],
            save=tmp_path / "a",
            resume=tmp_path / "a" if (tmp_path / "a").exists() else None,
        )
        return made.out

    run(0.1)
    assert "from the file" not in run(0.1)
    assert "the optimizer has lr = " in run(0.3)


def test_other_batches_on_resume_are_told(tmp_path):
    Run().fit(steps=3, save=tmp_path / "a")
    with pytest.raises(
        ValueError,
        match="fit: batches must give at least the 3 that are over in epoch 0, got 2: other data",
    ):
        Run().fit(batches=BATCHES[:2], resume=tmp_path / "a")


# ---------------------------------------------------------------- states of truncated BPTT


def states(kind):
    """A model whose state is of a kind, made of the two tensors of an LSTM: (out of it, into
    it)."""
    return {
        "named": (lambda h, c: State(h, c), lambda s: (s.h, s.c)),
        "tuple": (lambda h, c: (h, c), lambda s: s),
        "list": (lambda h, c: [h, c], lambda s: tuple(s)),
        "dict": (lambda h, c: {"h": h, "c": c}, lambda s: (s["h"], s["c"])),
        "nested": (
            lambda h, c: {"a": [State(h, None), (c, 3, 0.5, "x", True)]},
            lambda s: (s["a"][0].h, s["a"][1][0]),
        ),
        "fused": (lambda h, c: mg.nn.CellState(h, c), lambda s: (s.h, s.c)),
    }[kind]


@pytest.mark.parametrize("kind", ["named", "tuple", "list", "dict", "nested", "fused"])
@pytest.mark.parametrize("k2", [2, 3])
def test_states_of_any_kind_go_on_after_resuming(kind, k2, tmp_path):
    rng = np.random.default_rng(1)
    x, y = (mg.Tensor(rng.standard_normal((10, 2, n))) for n in (3, 4))
    layer = mg.nn.LSTM(3, 4, dtype=np.float64, rng=np.random.default_rng(2))
    out_of, into = states(kind)

    def model(x, state):
        out, (h, c) = layer(x, None if state is None else into(state))
        return out, out_of(h, c)

    def run(bptt, chunks):
        losses = []
        for start in chunks:
            loss = bptt(x[start : start + 2], y[start : start + 2])
            loss.backward()
            losses.append(loss.item())
        return losses, [p.grad.numpy().tobytes() for p in layer.parameters()]

    expected = run(TruncatedBPTT(model, mg.mse, 2, k2), (0, 2, 4, 6, 8))
    layer.zero_grad()
    bptt, other = TruncatedBPTT(model, mg.mse, 2, k2), TruncatedBPTT(model, mg.mse, 2, k2)
    head = run(bptt, (0, 2, 4))
    save_training(tmp_path / "a", {"bptt": bptt})
    load_training(tmp_path / "a", {"bptt": other})
    assert repr(other.state) == repr(bptt.state) and type(other.state) is type(bptt.state)
    tail = run(other, (6, 8))
    assert (head[0] + tail[0], tail[1]) == expected
    with pytest.raises(mg.CheckpointError, match="TruncatedBPTT: state must be"):
        mg.save(tmp_path / "b", *changed(mg.load(tmp_path / "a")))
        load_training(tmp_path / "b", {"bptt": other})


def changed(file):
    arrays, extra = file
    arrays, name = dict(arrays), next(n for n in arrays if n.startswith("bptt.state"))
    arrays[name] = arrays[name].astype(np.float32)
    return arrays, extra


def test_a_state_that_is_none_of_these_is_refused():
    bptt = TruncatedBPTT(lambda x, state: (x * 1.0, {1, 2}), lambda out, y: out.sum(), 2)
    with pytest.raises(
        TypeError, match="TruncatedBPTT: the state must be made of Tensors, .* got set"
    ):
        bptt(mg.ones((2, 1, 1)), mg.ones((2, 1, 1)))


@pytest.mark.parametrize("kind", [np.array, mg.Tensor])
def test_steps_that_come_in_the_same_memory(kind):
    """The remembered steps are copies."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 2, 3)), rng.standard_normal((8, 2, 4))
    layer, found, memory = mg.nn.GRU(3, 4, dtype=np.float64, rng=rng), [], kind(x[:2])
    for same in (False, True):
        bptt, losses = TruncatedBPTT(layer, mg.mse, 2, 5), []
        for start in range(0, 8, 2):
            chunk = kind(x[start : start + 2])
            if same:
                memory[...] = chunk
                chunk = memory
            loss = bptt(chunk, mg.Tensor(y[start : start + 2]))
            loss.backward()
            losses.append(loss.item())
        found.append((losses, [p.grad.numpy().tobytes() for p in layer.parameters()]))
        layer.zero_grad()
    assert found[0] == found[1]


def test_history_before_the_first_step():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(History().recent) and History().ended is None
