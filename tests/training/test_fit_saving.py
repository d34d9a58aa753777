"""What fit saves, before the first step and after it, and goes on from: parts of any kind, states
of truncated BPTT."""

import collections
import os
import warnings

import numpy as np
import pytest
from fits import BATCHES, Run, rates

import minigrad as mg
from minigrad.training.bptt import TruncatedBPTT
from minigrad.training.history import History
from minigrad.training.saving import load_training, save_training

# --------------------------------------------------------- saved before the first step, saved whole


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
        "the optimizer has lr = 0.1 from the file, not 0.02 as it was made with now; after_resume "
        "can change it" in run.out
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


@pytest.mark.parametrize("weights", [1.0, [1], {"weight": 1.0}, {"weight": None}, mg.ones(2)])
def test_a_history_refuses_weights_of_another_form(weights):
    from minigrad.training.history import History

    history = History()
    with pytest.raises(ValueError, match="History: the best weights must be those of the model"):
        history.load_state_dict(history.state_dict() | {"weights": weights})
