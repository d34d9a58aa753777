"""examples/flipflop.py as a user runs it: what it learns, the fixed points that it finds, how it
refuses."""

import numpy as np
import pytest
from running import Script

SCRIPT = Script("flipflop")
run = SCRIPT.run
SMALL = ("--bits", 1, "--hidden", 4, "--batch", 16, "--length", 20)


@pytest.mark.slow
def test_one_bit(tmp_path):
    """Two stable points and a saddle between them, which hold the two values of the bit."""
    done = run(*SMALL, "--steps", 300, "--plot", "", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "step 300/300: loss " in done.stdout
    right = float(done.stdout.split("right: ")[1].split("%")[0])
    assert right > 99
    table = done.stdout.split("unstable directions   fixed points\n")[1].splitlines()
    assert [line.split() for line in table[:2]] == [["0", "2"], ["1", "1"]]
    assert "bits at the stable points: + -\n" in done.stdout
    assert "the last output looks back: " in done.stdout and "Gates" not in done.stdout


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gates_are_told_of(tmp_path, kind):
    done = run(*SMALL, "--steps", 1, "--kind", kind, "--plot", "", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "" and "Gates of 4 units" in done.stdout


def test_what_is_to_be_learnt():
    script = SCRIPT.load()
    args = script.settings(["--length", "30", "--batch", "5"])
    x, y = script.pulses(args, np.random.default_rng(0))
    assert x.shape == y.shape == (30, 5, 3) and set(np.unique(x)) == {-1, 0, 1}
    assert (x[0] != 0).all() and (y[x != 0] == x[x != 0]).all()
    assert (y[1:][x[1:] == 0] == y[:-1][x[1:] == 0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [1, 2, 4])
def test_the_picture(tmp_path, hidden):
    """Of one, two and three axes."""
    pytest.importorskip("matplotlib")
    arguments = ("--steps", 1, "--hidden", hidden, "--batch", 2, "--length", 8, "--starts", 5)
    done = run(*arguments, "--plot", "picture.png", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "picture: picture.png" in done.stdout
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_without_matplotlib(tmp_path):
    done = SCRIPT.run_alone(*SMALL, "--steps", 1, folder=tmp_path, without=("matplotlib",))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "no picture without matplotlib: pip install matplotlib" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--kind", "CNN"), "argument --kind: invalid choice: 'CNN'"),
        (("--bits", 0), "argument --bits: must be at least 1, got 0"),
        (("--bits", 10), "argument --bits: must be below 9, got 10"),
        (("--length", 1), "argument --length: must be at least 2, got 1"),
        (("--pulses", 1), "argument --pulses: must be at least 0.001 and below 1, got 1"),
        (("--lr", "nan"), "argument --lr: must be at least 1e-08 and below inf, got nan"),
        (("--starts", 0), "argument --starts: must be at least 1, got 0"),
        (("--seed", -1), "argument --seed: must be at least 0, got -1"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("flipflop: ") and message in done.stderr


def test_a_picture_that_cannot_be_written(tmp_path):
    done = run("--plot", tmp_path / "no" / "f.png", folder=tmp_path)
    assert done.returncode == 2 and "cannot write" in done.stderr and done.stdout == ""
