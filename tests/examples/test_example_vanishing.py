"""examples/vanishing.py as a user runs it: gradients below their bound, gates against the matrix, a
training that diverges."""

import numpy as np
import pytest
from running import Script

SCRIPT = Script("vanishing")
run = SCRIPT.run


@pytest.mark.slow
def test_what_it_measures(tmp_path):
    done = run("--steps", 300, folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    first, second = done.stdout.split("\n\n")
    rows = np.array([[float(v) for v in line.split()] for line in first.splitlines()[2:-1]])
    radius, bound, powers, rnn, lstm_c, lstm_h, gru = rows.T
    assert (
        len(rows) == 9
        and np.allclose(bound, radius**99, rtol=0.1)
        and np.allclose(bound, powers, rtol=0.1)
    )
    assert (rnn <= 1.1 * bound).all() and 0.9 < float(first.split(": ")[-1]) < 1
    assert (
        rnn[radius < 1] > 0.5 * bound[radius < 1]
    ).all()  # near the bound where tanh is nearly linear
    assert rnn[0] < 1e-28 and rnn[-1] > 1e10  # vanished and exploded
    assert (gru > 0.05).all() and (gru < 20).all()  # the gates decide, not W1
    assert (lstm_c > 10).all() and lstm_c.max() / lstm_c.min() < 1e4 and (lstm_h > 1).all()
    losses = [[float(v) for v in line.split()] for line in second.splitlines()[1:10]]
    assert (
        losses[0][1] == losses[0][2]
        and not np.isfinite(losses[-1][1])
        and losses[-1][2] < 0.2 < losses[0][2]
    ), second


@pytest.mark.slow
def test_gates_that_forget(tmp_path):
    """With a bias of 0 the GRU halves its state at each step: its gradient vanishes too."""
    done = run("--radii", 0.5, "--keep", 0, "--steps", 1, folder=tmp_path)
    assert float(done.stdout.splitlines()[2].split()[-1]) < 1e-15


@pytest.mark.slow
def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    done = run("--steps", 5, "--radii", 1, "--length", 5, "--plot", "picture.png", folder=tmp_path)
    assert done.returncode == 0 and "picture: picture.png" in done.stdout, done.stderr
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--radii", -1), "argument --radii: must be at least 0.01 and below 100, got -1"),
        (("--radii", "nan"), "argument --radii: must be at least 0.01 and below 100, got nan"),
        (("--radii", "large"), "argument --radii: invalid float value: 'large'"),
        (("--length", 1), "argument --length: must be at least 2, got 1"),
        (("--hidden", 0), "argument --hidden: must be at least 1, got 0"),
        (("--clip", 0), "argument --clip: must be at least 1e-08 and below inf, got 0"),
        (("--clip", "1e-300"), "argument --clip: must be at least 1e-08 and below inf, got 1e-300"),
        (("--clip", "nan"), "argument --clip: must be at least 1e-08 and below inf, got nan"),
        (("--keep", "inf"), "argument --keep: must be at least -1e+06 and below 1e+06, got inf"),
        (
            ("--radii", 1, 99, "--length", 401),
            "--radii and --length: 99 to the power 400 is out of float64's range",
        ),
        (
            ("--radii", 0.01, "--length", 401),
            "--radii and --length: 0.01 to the power 400 is out of float64's range",
        ),
        (("--seed", -1), "argument --seed: must be at least 0, got -1"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    done = run(*arguments, folder=tmp_path)
    assert (
        done.returncode == 2
        and done.stderr.startswith("vanishing: ")
        and done.stderr.count("\n") == 1
    )
    assert message in done.stderr


def test_a_picture_that_cannot_be_written(tmp_path):
    done = run("--plot", tmp_path / "no" / "v.png", folder=tmp_path)
    assert done.returncode == 2 and "cannot write" in done.stderr and done.stdout == ""
