"""The benchmarks still run: what they share, their options, and that the contestants of
recurrent.py compute the same. No time is checked."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg

FOLDER = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the benchmarks of a clone")


@pytest.fixture
def benchmarks(monkeypatch):
    """Modules can be imported from the folder of the benchmarks; what that changed is undone."""
    modules = set(sys.modules)
    threads = mg.get_num_threads()
    monkeypatch.syspath_prepend(FOLDER)
    yield
    mg.set_num_threads(threads)
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == FOLDER:
            del sys.modules[name]


def test_interleave_calls_each_in_turn(benchmarks):
    from _measure import interleave

    calls = []
    times = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 1e-9, 3)
    assert list(times) == ["a", "b"] and all(0 < seconds < 1 for seconds in times.values())
    in_rounds = "".join(calls)[4:]  # the first two calls of each choose how often it is repeated
    assert in_rounds.count("ab") == 3 and in_rounds.count("ba") == 2


def test_table(benchmarks):
    from _measure import table

    assert table(["", "us"], [["a", "1.0"], ["long", "22.0"]]) == (
        "        us\na      1.0\nlong  22.0"
    )


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU", "BiLSTM"])
def test_contestants_compute_the_same(benchmarks, cell, mode):
    from _peers import PEERS, answer
    from recurrent import make_arrays

    arrays = make_arrays(cell, 5, 3, 4, 6)
    names = ["minigrad", "numpy"] if mode == "infer" else ["minigrad", "torch"]
    if "torch" in names:
        pytest.importorskip("torch")
    found = []
    for name in names:
        peer = PEERS[name](1)
        answer(peer, "setup", cell, arrays)
        found.append(answer(peer, "results", mode))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_the_products_cost(benchmarks):
    from recurrent import Case, flops

    assert flops(Case("infer", "RNN", (1, 1, 2, 3))) == 2 * (2 * 3 + 3 * 3)
    assert flops(Case("train", "RNN", (1, 1, 2, 3))) == 2 * (2 * (2 * 3 + 3 * 3) + 3 * 3)


@pytest.mark.parametrize(
    "script, options, message",
    [
        ("text", ["--steps", "0"], "must be at least 1, got 0"),
        ("recurrent", ["--shapes", "1,2,3"], "must be four sizes T,B,I,H, got 1,2,3"),
        ("recurrent", ["--seconds", "nan"], "must be above 0 and finite, got nan"),
        ("accuracy", ["nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_bad_options_are_refused(benchmarks, monkeypatch, capsys, script, options, message):
    module = importlib.import_module(script)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *options])
    with pytest.raises(SystemExit) as ended:
        module.settings()
    assert ended.value.code == 2 and message in capsys.readouterr().err
