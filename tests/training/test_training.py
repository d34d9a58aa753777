"""Truncated BPTT against brute force, accumulated gradients against the whole batch, fit, and
trainings that go on with the same bits in a new process."""

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad.training.bptt import TruncatedBPTT, accumulate
from minigrad.training.loop import fit
from minigrad.training.saving import load_training, save_training

posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")


def same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert np.asarray(found[name]).tobytes() == np.asarray(expected[name]).tobytes(), name


# ---------------------------------------------------------------- truncated BPTT

B, I, H = 2, 3, 4


class Net(mg.nn.Module):
    """A recurrent layer and a head: out of every step."""

    def __init__(self, kind="LSTM", dtype=np.float64, layers=1, dropout=0.0):
        rng = np.random.default_rng(0)
        self.layer = getattr(mg.nn, kind)(I, H, layers, dropout=dropout, dtype=dtype, rng=rng)
        self.head = mg.nn.Linear(H, 2, dtype=dtype, rng=rng)

    def forward(self, x, state=None):
        out, state = self.layer(x, state)
        return self.head(out), state


def series(T, dtype=np.float64):
    rng = np.random.default_rng(T)
    return mg.Tensor(rng.standard_normal((T, B, I)).astype(dtype)), mg.Tensor(
        rng.standard_normal((T, B, 2)).astype(dtype)
    )


def gradients(net):
    found = {name: p.grad.numpy().copy() for name, p in net.named_parameters()}
    net.zero_grad()
    return found


def total(net, x, y, k1, k2):
    """The sum of the windows' gradients, their losses, and the object."""
    bptt, losses = TruncatedBPTT(net, lambda out, y: ((out - y) ** 2).sum(), k1, k2), []
    for loss in bptt.over(x, y):
        loss.backward()
        losses.append(loss.item())
    return gradients(net), losses, bptt


def brute_force(net, x, y, k1, k2):
    """Each step gets its own copies of the weights, so that the gradient of a step's loss with
    respect to the copies of another step is that step's share. Windows are then sums over a table
    of shares [loss of step t, copies of step j]."""
    T, cell, head = len(x), net.layer.cells[0], net.head
    names = [name for name, _ in net.named_parameters()]
    owners = {id(p): name for name, p in net.named_parameters()}
    copies, outs = [], []
    state = None
    for t in range(T):
        weights = [
            None if w is None else mg.Tensor(w.numpy(), requires_grad=True) for w in cell.weights()
        ]
        W, b = (mg.Tensor(p.numpy(), requires_grad=True) for p in (head.weight, head.bias))
        out, state = mg.nn.unroll(cell, x[t : t + 1], state, weights=type(cell.weights())(*weights))
        outs.append(out @ W + b)
        own = {
            owners[id(p)]: copy
            for p, copy in zip(cell.weights(), weights, strict=True)
            if p is not None
        }
        copies.append(own | {owners[id(head.weight)]: W, owners[id(head.bias)]: b})
    shares = []
    for t in range(T):
        ((outs[t] - y[t : t + 1]) ** 2).sum().backward(retain_graph=True)
        shares.append(
            [
                {n: 0 if c[n].grad is None else c[n].grad.numpy().copy() for n in names}
                for c in copies
            ]
        )
        for c in copies:
            for tensor in c.values():
                tensor.grad = None
    found = {n: np.zeros(p.shape) for n, p in net.named_parameters()}
    for begin in range(0, T, k1):
        end = min(begin + k1, T)
        for t in range(begin, end):
            for j in range(begin if k1 == k2 else max(0, end - k2), t + 1):
                for n in names:
                    found[n] += shares[t][j][n]
    return found


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "k1, k2, T",
    [
        (1, 1, 5),
        (1, 3, 7),
        (2, 2, 7),
        (2, 3, 9),
        (2, 5, 11),
        (3, 4, 10),
        (3, 7, 10),
        (4, 9, 9),
        (5, 50, 12),
        (7, 7, 7),
        (9, 9, 7),
    ],
)
def test_windows_are_those_of_brute_force(kind, k1, k2, T):
    net, (x, y) = Net(kind), series(T)
    found, expected = total(net, x, y, k1, k2)[0], brute_force(net, x, y, k1, k2)
    for name in expected:
        assert np.abs(found[name] - expected[name]).max() <= 1e-12 * max(
            1, np.abs(expected[name]).max()
        ), name


def test_brute_force_tells_windows_apart():
    """The check above would see a window that is one step longer or shorter."""
    net, (x, y) = Net(), series(9)
    for k1, k2 in ((2, 4), (3, 3)):
        right, wrong = brute_force(net, x, y, k1, k2), brute_force(net, x, y, k1, k2 + 1)
        assert max(np.abs(right[n] - wrong[n]).max() for n in right) > 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_k1_is_k2_is_the_plain_form_to_the_bit(dtype):
    net, (x, y) = Net(dtype=dtype, layers=2), series(11, dtype)
    found, losses, bptt = total(net, x, y, 4, 4)
    state, plain = None, []
    for at in (0, 4, 8):
        out, state = net(x[at : at + 4], state)
        state = state.detach()
        loss = ((out - y[at : at + 4]) ** 2).sum()
        loss.backward()
        plain.append(loss.item())
    assert losses == plain
    same(found, gradients(net))
    same(bptt.state._asdict(), state._asdict())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_window_of_the_whole_sequence_is_the_full_gradient_to_the_bit(dtype):
    net, (x, y) = Net(dtype=dtype, layers=2), series(11, dtype)
    found, losses, _ = total(net, x, y, 11, 11)
    loss = ((net(x)[0] - y) ** 2).sum()
    loss.backward()
    assert losses == [loss.item()]
    same(found, gradients(net))


@pytest.mark.parametrize("k1", [1, 2, 5])
def test_k2_of_the_whole_sequence_cuts_nothing(k1):
    """Also with several windows the losses' gradients add up to the full one; the outputs, hence
    the losses, have its bits."""
    net, (x, y) = Net(), series(11)
    found, losses, _ = total(net, x, y, k1, 11)
    out = net(x)[0]
    assert losses == [
        ((out[at : at + k1] - y[at : at + k1]) ** 2).sum().item() for at in range(0, 11, k1)
    ]
    ((out - y) ** 2).sum().backward()
    for name, expected in gradients(net).items():
        assert np.abs(found[name] - expected).max() <= 1e-13 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("k1, k2", [(2, 2), (2, 3), (3, 7), (4, 4)])
def test_the_state_that_is_carried_has_the_bits_of_one_run(k1, k2):
    net, (x, y) = Net(dtype=np.float32, layers=2), series(12, np.float32)
    _, losses, bptt = total(net, x, y, k1, k2)
    out, _ = net(x)
    assert losses == [
        ((out[at : at + k1] - y[at : at + k1]) ** 2).sum().item() for at in range(0, 12, k1)
    ]
    begin = 12 + k1 - k2
    assert (bptt.past is None) == (begin == 12) and (
        bptt.past is None or len(bptt.past) == 12 - begin
    )
    same(bptt.state._asdict(), net(x[:begin])[1]._asdict())
    assert not bptt.state.h.requires_grad


def test_a_window_uses_the_weights_of_now():
    """Weights that change between chunks: each gradient is that of the window from its carried
    state with the present weights."""
    net, (x, y) = Net("GRU"), series(12)
    bptt = TruncatedBPTT(net, mg.mse, 2, 5)
    for end in range(2, 13, 2):
        state, begin = bptt.state, max(0, end - 5)
        bptt(x[end - 2 : end], y[end - 2 : end]).backward()
        found = gradients(net)
        mg.mse(net(x[begin:end], state)[0][-2:], y[end - 2 : end]).backward()
        for name, expected in gradients(net).items():
            assert np.abs(found[name] - expected).max() <= 1e-13
        with mg.no_grad():
            for p in net.parameters():
                p[...] = p.numpy() * 0.9


def test_tokens_and_calls_with_chunks():
    """x may be an array of whole numbers; a sequence may come in several calls of `over`."""

    class Model(mg.nn.Module):
        def __init__(self):
            self.embed, self.net = (
                mg.nn.Embedding(5, I, rng=np.random.default_rng(1)),
                Net(dtype=np.float32),
            )

        def forward(self, x, state):
            return self.net(self.embed(x), state)

    model, rng = Model(), np.random.default_rng(2)
    x, y = rng.integers(0, 5, (8, B)), rng.integers(0, 2, (8, B))
    whole, parts = (TruncatedBPTT(model, mg.cross_entropy, 2, 4) for _ in range(2))
    expected = [loss.item() for loss in whole.over(x, y)]
    assert expected == [
        loss.item() for at in (0, 4) for loss in parts.over(x[at : at + 4], y[at : at + 4])
    ]
    parts.reset()
    assert expected == [loss.item() for loss in parts.over(x, y)]


def test_bad_windows():
    with pytest.raises(ValueError, match="TruncatedBPTT: k2 must be at least k1 = 3, .* got 2"):
        TruncatedBPTT(Net(), mg.mse, 3, 2)
    with pytest.raises(ValueError, match="TruncatedBPTT: k1 must be at least 1, got 0"):
        TruncatedBPTT(Net(), mg.mse, 0)
    with pytest.raises(TypeError, match="TruncatedBPTT: k1 must be an int, got float"):
        TruncatedBPTT(Net(), mg.mse, 2.5)
    bptt, (x, y) = TruncatedBPTT(Net(), mg.mse, 3, 5), series(6)
    bptt(x[:3], y[:3])
    before = bptt.state_dict()
    for bad_x, bad_y, message in (
        (x[:4], y[:4], "must both have 1 to k1 = 3 steps, got 4 and 4"),
        (x[:0], y[:0], "got 0 and 0"),
        (x[:3], y[:2], "got 3 and 2"),
        (x[:3, :1], y[:3, :1], "steps of shape .2, 3. as before"),
    ):
        with pytest.raises(ValueError, match=message):
            bptt(bad_x, bad_y)
    after = bptt.state_dict()
    same(dict(enumerate(after["state"])), dict(enumerate(before["state"])))
    same({"past": after["past"]}, {"past": before["past"]})


# ---------------------------------------------------------------- gradients over several batches


@pytest.mark.parametrize("parts", [(6,), (3, 3), (1, 5), (2, 1, 3), (1,) * 6])
def test_accumulated_is_the_whole_batch(parts):
    """Parts of any sizes, sequences of any lengths: the mean is over all steps that count."""
    net, rng = Net(), np.random.default_rng(3)
    x, lengths = rng.standard_normal((7, 6, I)), np.array([7, 1, 4, 0, 6, 2])
    y = np.where(np.arange(7)[:, None] < lengths, rng.integers(0, 2, (7, 6)), -100)

    def loss(rows, reduction):
        return mg.cross_entropy(
            net.head(net.layer(mg.Tensor(x[:, rows]), lengths=lengths[rows])[0]),
            y[:, rows],
            reduction=reduction,
        )

    whole = loss(slice(0, 6), "mean")
    whole.backward()
    expected = gradients(net)
    ends = np.cumsum(parts)
    value = accumulate(
        (loss(slice(end - n, end), "sum") for n, end in zip(parts, ends, strict=True)),
        count=lengths.sum(),
    )
    assert abs(value - whole.item()) <= 1e-13
    found = gradients(net)
    for name in expected:
        assert np.abs(found[name] - expected[name]).max() <= 1e-13, name
    if len(parts) == 1:
        same(found, expected)


def test_accumulate_refuses():
    for count in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="accumulate: count must be above 0"):
            accumulate([], count)


# ---------------------------------------------------------------- fit

X = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
BATCHES = [(mg.Tensor(X[i::4]), mg.Tensor(3 * X[i::4] + 1)) for i in range(4)]


class Line(mg.nn.Module):
    """One linear layer and what fit needs; run(...) fits it to a line."""

    def __init__(self):
        self.linear, self.seen = mg.nn.Linear(1, 1, rng=np.random.default_rng(0)), []
        self.optimizer = mg.optim.SGD(self.parameters(), lr=0.1)

    def loss(self, x, y):
        assert self.training
        self.seen.append(x.numpy()[0, 0])
        return mg.mse(self.linear(x), y)

    def run(self, batches=BATCHES, **options):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            history = fit(self, self.optimizer, self.loss, batches, **options)
        self.out = out.getvalue()
        return history


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


# ---------------------------------------------------------------- checkpoints of a whole training


def parts_of(net):
    return {"model": net, "optimizer": net.optimizer}


def test_what_is_saved_comes_back(tmp_path):
    class Part:
        state = {
            "b": [1, {"c": np.arange(3)}],
            "tuple": (1, (np.float32(2), "x")),
            "inf": float("inf"),
            "none": None,
            "true": True,
            "nan": [float("nan"), -float("inf"), 0.1],
            "empty": {},
            "text": "слой",
            "a.b": np.ones((2, 2)),
        }
        loaded = None

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.loaded = state

    part = Part()
    mg.manual_seed(3)
    mg.dropout(mg.ones(4), 0.5)
    state = mg.default_generator.state
    save_training(tmp_path / "a", {"part": part}, config={"x": [1, 2]})
    mg.manual_seed(4)
    load_training(tmp_path / "a", {"part": part}, config={"x": [1, 2]})
    assert mg.default_generator.state == state and repr(part.loaded).replace(
        "array(2., dtype=float32)", "np.float32(2.0)"
    ) == repr(part.state)
    assert list(mg.load(tmp_path / "a")[0]) == ["part.b.1.c", "part.tuple.1.0", "part.a.b"]


def test_states_that_cannot_be_saved(tmp_path):
    def part(state):
        return {"p": types.SimpleNamespace(state_dict=lambda: state)}

    bad = [
        ({1: 2}, ValueError, "save_training: p must have keys that are str"),
        ({"@array": "x"}, ValueError, "save_training: p must have keys that are str"),
        (
            {"a": {"b": np.ones(1)}, "a.b": np.ones(1)},
            ValueError,
            "save_training: two arrays have the name p.a.b",
        ),
        ({"a": {1, 2}}, TypeError, "JSON"),
        ({"a": np.ones(1, complex)}, TypeError, "p.a must have one of the dtypes"),
    ]
    for state, error, message in bad:
        with pytest.raises(error, match=message):
            save_training(tmp_path / "a", part(state))
    assert os.listdir(tmp_path) == []


def test_what_does_not_fit_changes_nothing(tmp_path):
    """Every way in which a file can be of another training, or be made by an enemy:
    CheckpointError, all parts as before."""
    net, path = Line(), tmp_path / "a"
    net.run(
        steps=5,
        validate=lambda: 1.0,
        save=path,
        config={"h": 1},
        parts={"schedule": mg.optim.schedule.StepLR(net.optimizer, 2)},
    )
    arrays, extra = mg.load(path)
    net.run(steps=2)
    schedule, history = mg.optim.schedule.StepLR(net.optimizer, 2), mg.training.History(net)
    parts = {"model": net, "optimizer": net.optimizer, "history": history, "schedule": schedule}
    mg.manual_seed(11)

    def everything():
        return repr([part.state_dict() for part in parts.values()]) + repr(mg.default_generator)

    before = everything()

    def training(**changes):
        return extra | {"training": extra["training"] | changes}

    model, optimizer = extra["training"]["model"], extra["training"]["optimizer"]
    bad = {
        "no training": (arrays, {"step": 3}),
        "no dict": (arrays, None),
        "parts null": (arrays, extra | {"training": None}),
        "other config": (arrays, extra | {"config": {"h": 2}}),
        "config null": (arrays, extra | {"config": None}),
        "no generator": (arrays, {k: v for k, v in extra.items() if k != "generator"}),
        "generator null": (arrays, extra | {"generator": None}),
        "generator -1": (arrays, extra | {"generator": {"seed": -1, "draws": 0}}),
        "a part more": (arrays, training(more={})),
        "model null": (arrays, training(model=None)),
        "model list": (arrays, training(model=[])),
        "model of numbers": (arrays, training(model=dict.fromkeys(model, 1))),
        "model empty": (arrays, training(model={})),
        "array twice": (arrays, training(history={"loss": model["linear.bias"]})),
        "array missing": ({k: v for k, v in arrays.items() if k != "model.linear.bias"}, extra),
        "array of another shape": (arrays | {"model.linear.bias": np.ones(2, "f4")}, extra),
        "array of another dtype": (arrays | {"model.linear.bias": np.ones(1)}, extra),
        "array left": (arrays | {"more": np.ones(2)}, extra),
        "array named 3": (arrays, training(model={"@array": 3})),
        "array named by a list": (arrays, training(model={"@array": []})),
        "float": (arrays, training(model={"@float": "x"})),
        "float list": (arrays, training(model={"@float": []})),
        "tuple": (arrays, training(model={"@tuple": 3})),
        "optimizer null": (arrays, training(optimizer=None)),
        "optimizer empty": (arrays, training(optimizer={})),
        "lr": (arrays, training(optimizer=json.loads(json.dumps(optimizer).replace("0.1", "-1")))),
        "lr text": (
            arrays,
            training(optimizer=json.loads(json.dumps(optimizer).replace("0.1", '"x"'))),
        ),
        "history null": (arrays, training(history=None)),
        "history of loss": (arrays | {"history.loss": np.ones(3, "f4")}, extra),
        "history of 2": (arrays | {"history.loss": np.ones(2)}, extra),
        "history 2-D": (arrays | {"history.norm": np.ones((5, 1))}, extra),
        "epoch": (arrays, training(history=extra["training"]["history"] | {"epoch": -1})),
        "batch": (arrays, training(history=extra["training"]["history"] | {"batch": 1.5})),
        "best weights list": (
            arrays,
            training(history=extra["training"]["history"] | {"weights": []}),
        ),
        "best weights of another shape": (
            arrays | {"history.weights.linear.bias": np.ones(2, "f4")},
            extra,
        ),
        "best weights fewer": (
            {k: v for k, v in arrays.items() if k != "history.weights.linear.bias"},
            training(
                history=extra["training"]["history"]
                | {"weights": {"linear.weight": {"@array": "history.weights.linear.weight"}}}
            ),
        ),
        "schedule null": (arrays, training(schedule=None)),
        "schedule empty": (arrays, training(schedule={})),
    }
    for name, (changed, more) in bad.items():
        mg.save(path, changed, more)
        with pytest.raises(mg.CheckpointError, match="^load_training: "):
            load_training(path, parts, {"h": 1})
            pytest.fail(name)
        assert everything() == before, name
    for fewer in (parts_of(net), parts | {"more": net}):
        mg.save(path, arrays, extra)
        with pytest.raises(
            mg.CheckpointError, match="has the parts model, optimizer, history, schedule, not"
        ):
            load_training(path, fewer, {"h": 1})
    load_training(path, parts, {"h": 1})
    assert everything() != before and history.step == 5 and history.weights


def test_another_config_is_told_by_name(tmp_path):
    net = Line()
    save_training(tmp_path / "a", parts_of(net), {"hidden": 3, "layers": 2, "text": "x" * 1000})
    with pytest.raises(
        mg.CheckpointError,
        match="belongs to another training: hidden is 3, not 4; text is 'x.{,40}', not 'y'$",
    ):
        load_training(tmp_path / "a", parts_of(net), {"hidden": 4, "layers": 2, "text": "y"})


def test_a_list_of_batches_goes_on_within_an_epoch(tmp_path):
    """What has no state is passed over up to the place where the epoch was broken off."""
    whole, half, rest = Line(), Line(), Line()
    expected = whole.run(steps=10)
    half.run(steps=6, save=tmp_path / "a")
    history = rest.run(steps=10, resume=tmp_path / "a")
    assert (
        history.loss == expected.loss and half.seen + rest.seen == whole.seen and history.epoch == 2
    )
    same(rest.state_dict(), whole.state_dict())


def test_a_disk_that_is_full_after_an_epoch(tmp_path, monkeypatch):
    """fit raises the OSError that names the file; what was saved before is whole."""
    net, path = Line(), tmp_path / "a"
    net.run(epochs=1, save=path)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device.*a'$") as caught:
            net.run(epochs=2, save=path)
    assert (
        caught.value.filename == str(path)
        and path.read_bytes() == before
        and os.listdir(tmp_path) == ["a"]
    )


RESUME = """
    import sys
    import numpy as np
    import minigrad as mg

    class Net(mg.nn.Module):
        def __init__(self, kind):
            self.embed = mg.nn.Embedding(20, 16)
            self.layer = getattr(mg.nn, kind)(16, 64, 2, dropout=0.3, recurrent_dropout=0.2)
            self.head = mg.nn.Linear(64, 20)

        def forward(self, x, state=None):
            out, state = self.layer(self.embed(x), state)
            return self.head(mg.dropout(out, 0.1, self.training)), state

    tokens = np.random.default_rng(1).integers(0, 20, 3000)
    optimizers = {
        "SGD": (mg.optim.SGD, {}), "momentum": (mg.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        "RMSprop": (mg.optim.RMSprop, {}), "RMSprop2": (mg.optim.RMSprop, {"centered": True, "momentum": 0.9}),
        "Adam": (mg.optim.Adam, {}), "amsgrad": (mg.optim.Adam, {"amsgrad": True, "maximize": True}),
        "AdamW": (mg.optim.AdamW, {}), "Adagrad": (mg.optim.Adagrad, {"lr_decay": 0.1}),
    }
    folder, source, target, seed, steps = sys.argv[1:]
    for k, (name, (Optimizer, options)) in enumerate(optimizers.items()):
        mg.manual_seed(int(seed))
        net = Net(("LSTM", "GRU", "RNN")[k % 3])
        first, *others = net.parameters()
        optimizer = Optimizer([{"params": [first]}, {"params": others, "lr": 0.003}], lr=0.01, **options)
        schedule, bptt = mg.optim.schedule.ExponentialLR(optimizer, 0.9), mg.training.TruncatedBPTT(net, mg.cross_entropy, 6, 10)
        plateau = mg.optim.schedule.ReduceLROnPlateau(optimizer, patience=0)
        batches = mg.data.Stream(tokens, 32, 6)
        mg.training.fit(
            net, optimizer, bptt, batches, steps=int(steps), clip=1.0, after_step=[lambda h: schedule.step()],
            validate=lambda: float(np.abs(net.head.bias.numpy()).max()),
            after_epoch=[lambda h: bptt.reset(), lambda h: plateau.step(h.validation[-1])],
            save=f"{folder}/{target}-{name}", resume=f"{folder}/{source}-{name}" if source else None,
            parts={"bptt": bptt, "schedule": schedule, "plateau": plateau})
"""


@pytest.mark.slow
def test_a_resumed_training_has_the_bits_of_one_run(tmp_path):
    """For every optimizer: 12 steps, and 9 in a new process with 2 threads, are the 21 steps of one
    process with 1 thread: the checkpoints, with weights, states, history, generator and place in
    the data, are the same files. An epoch has 15 steps."""

    def run(source, target, seed, steps, threads):
        code = textwrap.dedent(RESUME)
        subprocess.run(
            [sys.executable, "-c", code, tmp_path, source, target, str(seed), str(steps)],
            check=True,
            env=os.environ | {"MINIGRAD_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
        )

    run("", "whole", 5, 21, 1)
    run("", "half", 5, 12, 1)
    run("half", "resumed", 6, 21, 2)
    names = [path.name[6:] for path in tmp_path.glob("whole-*")]
    optimizers = {
        c
        for c in vars(mg.optim).values()
        if isinstance(c, type) and issubclass(c, mg.optim.Optimizer)
    }
    assert all(c.__name__ in names for c in optimizers - {mg.optim.Optimizer}), (
        "an optimizer of optim.py is not in this test"
    )
    for name in names:
        whole, half, resumed = (
            (tmp_path / f"{run}-{name}").read_bytes() for run in ("whole", "half", "resumed")
        )
        assert resumed == whole != half, name


# ---------------------------------------------------------------- trainings that are killed

NAMES = (
    "adam",
    "accumulated",
    "plateau",
    "patience",
    "bptt",
    "bptt, list",
    "onecycle",
    "list",
    "epochs alone",
)


def killed(folder, seed, kills, *names):
    """Each of the named trainings of kill_training.py, left alone and killed so many times, ends in
    the same two files: the parameters, the state of the optimizer and the schedule, the generators,
    the History, the place in the data."""
    script = Path(__file__).with_name("kill_training.py")
    done = subprocess.run(
        [sys.executable, script, folder, str(seed), str(kills), *names],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in names:
        for kind in ("", ".weights"):
            whole, resumed = (
                (folder / f"{name}.{run}{kind}").read_bytes() for run in ("whole", "killed")
            )
            assert whole == resumed, (name, kind)
        arrays, extra = mg.load(folder / f"{name}.whole")
        assert len(arrays["history.loss"]) >= 20 and np.isfinite(arrays["history.loss"]).all()
        assert extra["config"] == {"name": name, "pair": (1, 2)}
    return int(done.stdout)


@pytest.mark.slow
@posix
def test_a_killed_training_has_the_bits_of_one_run(tmp_path):
    assert killed(tmp_path, 1, 2, "adam", "bptt, list", "plateau", "list") == 8


@posix
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("seed, name", list(enumerate(NAMES)))
def test_207_killed_trainings_have_the_bits_of_one_run(tmp_path, seed, name):
    """23 kills of each configuration, with 1 and 2 threads in turn."""
    assert killed(tmp_path, seed, 23, name) == 23
