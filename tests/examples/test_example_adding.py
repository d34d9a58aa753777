"""examples/adding.py as a user runs it: the task is the published one, gates learn it, refusals are
one line."""

import os
import signal

import numpy as np
import pytest
from running import Script

SCRIPT = Script("adding", timeout=240)
run = SCRIPT.run


def test_the_task():
    adding = SCRIPT.load()
    x, y = adding.sequences(np.random.default_rng(0), 50, 4000)
    assert x.shape == (50, 4000, 2) and y.shape == (4000, 1) and x.dtype == y.dtype == np.float32
    marks = x[:, :, 1]
    assert (
        (marks[:25].sum(0) == 1).all()
        and (marks[25:].sum(0) == 1).all()
        and set(np.unique(marks)) == {0, 1}
    )
    assert np.allclose((x[:, :, 0] * marks).sum(0), y[:, 0], atol=1e-6)
    assert np.mean((y - 1) ** 2) == pytest.approx(1 / 6, rel=0.05)  # chance
    assert (marks[:25].mean(1) > 0.02).all()  # every step is marked now and then


@pytest.mark.slow
@pytest.mark.parametrize("T", [40])
def test_gates_learn_it(tmp_path, T):
    done = run(
        "--length",
        T,
        "--cells",
        "GRU",
        "LSTM",
        "--hidden",
        32,
        "--steps",
        2500,
        "--lr",
        0.01,
        folder=tmp_path,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    result = next(
        line
        for line in done.stdout.splitlines()
        if line.startswith(f"T = {T} ") and "solved at" in line
    )
    assert result.count("solved at") == 2, done.stdout


@pytest.mark.slow
def test_the_rnn_stays_at_chance(tmp_path):
    done = run("--length", 100, "--cells", "RNN", "--steps", 300, folder=tmp_path)
    result = next(line for line in done.stdout.splitlines() if "not solved" in line)
    assert 0.1 < float(result.split()[3]) < 0.25, done.stdout


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    done = run(
        "--length", 4, 6, "--steps", 3, "--hidden", 4, "--plot", "picture.png", folder=tmp_path
    )
    assert done.returncode == 0 and (tmp_path / "picture.png").read_bytes().startswith(
        b"\x89PNG"
    ), done.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--length", 1), "argument --length: must be at least 2, got 1"),
        (("--length", "long"), "argument --length: invalid int value: 'long'"),
        (("--cells", "CNN"), "argument --cells: invalid choice: 'CNN'"),
        (("--steps", 0), "argument --steps: must be at least 1, got 0"),
        (("--steps", 10**30), "argument --steps: must be below 10000000000"),
        (("--batch", 0), "argument --batch: must be at least 1, got 0"),
        (("--hidden", 10**9), "argument --hidden: must be below 1000000, got 1000000000"),
        (("--lr", "nan"), "argument --lr: must be at least 1e-08 and below inf, got nan"),
        (("--lr", -1), "argument --lr: must be at least 1e-08 and below inf, got -1"),
        (("--lr", 0), "argument --lr: must be at least 1e-08 and below inf, got 0"),
        (("--seed", -1), "argument --seed: must be at least 0, got -1"),
        (("--plot", "picture.xyz"), "cannot write picture.xyz: its name must end in one of .png"),
        (("--plot", "no/such/folder.png"), "cannot write no/such/folder.png"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    done = run(*arguments, folder=tmp_path)
    assert (
        done.returncode == 2 and done.stderr.startswith("adding: ") and done.stderr.count("\n") == 1
    )
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")
def test_ctrl_c(tmp_path):
    child = SCRIPT.start("--length", 20, "--cells", "RNN", "--steps", 10**6, folder=tmp_path)
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    out, errors = child.communicate(timeout=60)
    assert child.returncode == 130 and out.endswith("interrupted\n") and errors == "", errors
