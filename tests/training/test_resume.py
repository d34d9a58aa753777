"""Checkpoints of a whole training: what is saved comes back, what does not fit changes nothing, and
a training that is stopped or killed ends with the bits of one run."""

import errno
import functools
import json
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import numpy as np
import pytest
from lines import Line, same

import minigrad as mg
from minigrad.training.saving import load_training, save_training

posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")

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


def changed_training(extra, **changes):
    return extra | {"training": extra["training"] | changes}


def spoilt_models(arrays, extra):
    """Files that hold no training, another one, or parameters that do not fit: arrays and extra."""
    training = functools.partial(changed_training, extra)
    model = extra["training"]["model"]
    return {
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
    }


def spoilt_parts(arrays, extra):
    """Files with an optimizer, a History or a schedule that do not fit: arrays and extra."""
    training = functools.partial(changed_training, extra)
    optimizer, history = extra["training"]["optimizer"], extra["training"]["history"]
    return {
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
        "epoch": (arrays, training(history=history | {"epoch": -1})),
        "batch": (arrays, training(history=history | {"batch": 1.5})),
        "best weights list": (
            arrays,
            training(history=history | {"weights": []}),
        ),
        "best weights of another shape": (
            arrays | {"history.weights.linear.bias": np.ones(2, "f4")},
            extra,
        ),
        "best weights fewer": (
            {k: v for k, v in arrays.items() if k != "history.weights.linear.bias"},
            training(
                history=history
                | {"weights": {"linear.weight": {"@array": "history.weights.linear.weight"}}}
            ),
        ),
        "schedule null": (arrays, training(schedule=None)),
        "schedule empty": (arrays, training(schedule={})),
    }


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

    bad = spoilt_models(arrays, extra) | spoilt_parts(arrays, extra)
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
        "SGD": (mg.optim.SGD, {}),
        "momentum": (mg.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        "RMSprop": (mg.optim.RMSprop, {}),
        "RMSprop2": (mg.optim.RMSprop, {"centered": True, "momentum": 0.9}),
        "Adam": (mg.optim.Adam, {}),
        "amsgrad": (mg.optim.Adam, {"amsgrad": True, "maximize": True}),
        "AdamW": (mg.optim.AdamW, {}),
        "Adagrad": (mg.optim.Adagrad, {"lr_decay": 0.1}),
    }
    folder, source, target, seed, steps = sys.argv[1:]
    for k, (name, (Optimizer, options)) in enumerate(optimizers.items()):
        mg.manual_seed(int(seed))
        net = Net(("LSTM", "GRU", "RNN")[k % 3])
        first, *others = net.parameters()
        groups = [{"params": [first]}, {"params": others, "lr": 0.003}]
        optimizer = Optimizer(groups, lr=0.01, **options)
        schedule = mg.optim.schedule.ExponentialLR(optimizer, 0.9)
        bptt = mg.training.TruncatedBPTT(net, mg.cross_entropy, 6, 10)
        plateau = mg.optim.schedule.ReduceLROnPlateau(optimizer, patience=0)
        batches = mg.data.Stream(tokens, 32, 6)
        mg.training.fit(
            net, optimizer, bptt, batches, steps=int(steps), clip=1.0,
            after_step=[lambda h: schedule.step()],
            validate=lambda: float(np.abs(net.head.bias.numpy()).max()),
            after_epoch=[lambda h: bptt.reset(), lambda h: plateau.step(h.validation[-1])],
            save=f"{folder}/{target}-{name}",
            resume=f"{folder}/{source}-{name}" if source else None,
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
