"""fit: what it trains and what a loss may return; schedules and other things that it calls; bad
arguments."""

import contextlib
import io
import os

import numpy as np
import pytest
from fits import BATCHES, Net, Run, rates

import minigrad as mg
from minigrad.training.bptt import accumulate
from minigrad.training.loop import fit

posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")

# ---------------------------------------------------- what the optimizer has is clipped and cleared


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


# ------------------------------------------------------- schedules and other things that are called


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
