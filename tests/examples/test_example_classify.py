"""examples/classify.py as a user runs it: it learns, reads .ts files, refuses bad ones in one
line."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from running import Script

ROOT = Path(__file__).parents[2]
SCRIPT = Script("classify", timeout=240)
run, run_alone = SCRIPT.run, SCRIPT.run_alone
FILES = Path(__file__).parents[1] / "files"
SHARED = Path(os.environ.get("MINIGRAD_SHARED", ROOT.parent / "shared")) / "data" / "JapaneseVowels"
HEADER = "# a comment\n@problemName waves\n@dimensions 2\n@classLabel  true slow fast\n@data\n"


@pytest.fixture(scope="module")
def classify():
    return SCRIPT.load()


def accuracies(out):
    return [float(found) / 100 for found in re.findall(r"test accuracy ([\d.]+)%", out)]


def waves(path, count, seed):
    """Slow and fast waves of 8 to 20 steps with noise, a sine and a cosine."""
    rng, lines = np.random.default_rng(seed), []
    for k in range(count):
        t = np.arange(rng.integers(8, 21)) * (0.4, 0.9)[k % 2] + rng.uniform(0, 6)
        rows = [np.sin(t) + rng.normal(0, 0.2, len(t)), np.cos(t) + rng.normal(0, 0.2, len(t))]
        lines.append(
            ":".join(
                [*(",".join(f"{v:.4f}" for v in row) for row in rows), ("slow", "fast")[k % 2]]
            )
        )
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_it_learns_a_file(tmp_path):
    train, test = waves(tmp_path / "w_TRAIN.ts", 120, 0), waves(tmp_path / "w_TEST.ts", 100, 1)
    done = run("--train", train, "--test", test, "--epochs", 6, "--seed", 0, 1, folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "120 sequences of 2 numbers a step; 100 to test; 2 classes" in done.stdout
    assert len(accuracies(done.stdout)) == 2 and min(accuracies(done.stdout)) >= 0.95, done.stdout
    again = run("--train", train, "--test", test, "--epochs", 6, "--seed", 1, folder=tmp_path)
    assert accuracies(again.stdout) == accuracies(done.stdout)[1:]


@pytest.mark.slow
def test_japanese_vowels(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("skipped: JapaneseVowels is not there (MINIGRAD_SHARED)")
    files = [SHARED / f"JapaneseVowels_{part}.ts" for part in ("TRAIN", "TEST")]
    done = run(
        "--train", files[0], "--test", files[1], "--epochs", 25, "--seed", 0, 1, folder=tmp_path
    )
    assert "270 sequences of 12 numbers a step; 370 to test; 9 classes" in done.stdout, done.stderr
    assert len(accuracies(done.stdout)) == 2 and min(accuracies(done.stdout)) >= 0.95, done.stdout


@pytest.mark.slow
def test_digits_and_the_picture(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    done = run("--epochs", 4, "--seed", 3, "--plot", "digits.png", folder=tmp_path)
    assert done.returncode == 0 and accuracies(done.stdout)[0] > 0.9, done.stdout + done.stderr
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_without_the_optional_packages(tmp_path):
    done = run_alone(folder=tmp_path, without=("sklearn",))
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr == "classify: the digits need scikit-learn: "
        "pip install scikit-learn (or give --train and --test)\n"
    )
    file = waves(tmp_path / "w.ts", 20, 0)
    done = run_alone(
        "--train",
        file,
        "--test",
        file,
        "--epochs",
        1,
        "--seed",
        0,
        folder=tmp_path,
        without=("matplotlib",),
    )
    assert (
        done.returncode == 0
        and "no picture without matplotlib: pip install matplotlib" in done.stdout
    ), done.stderr


def test_reading(classify, tmp_path):
    file = tmp_path / "a.ts"
    file.write_text(HEADER + "1,2,3:4,5,6:fast\n\n 7:8:slow \n", encoding="utf-8")
    sequences, labels, classes = classify.read_ts(file)
    assert [s.tolist() for s in sequences] == [[[1, 4], [2, 5], [3, 6]], [[7, 8]]] and sequences[
        0
    ].dtype == np.float32
    assert labels.tolist() == [1, 0] and classes == ["slow", "fast"]
    assert classify.read_ts(file, ["fast", "slow"], 2)[1].tolist() == [0, 1]


def test_a_file_with_all_that_may_surprise(classify):
    """A byte order mark, CRLF, U+2028 in a comment, keys in any case, spaces before labels and
    numbers, unequal lengths."""
    sequences, labels, classes = classify.read_ts(FILES / "vowels.ts")
    assert [s.tolist() for s in sequences] == [[[1, -4], [2, 0.5], [3, 0.5]], [[7, 8]]]
    assert labels.tolist() == [1, 0] and classes == ["slow", "fast🎈"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.ts", "line 6: a missing value ('?'): fill the gaps first"),
        ("unequal.ts", "line 7: 2 steps, but @equalLength true and 3"),
        ("stamps.ts", "line 1: time stamps cannot be read"),
    ],
)
def test_files_that_are_refused(classify, name, message, capsys):
    with pytest.raises(SystemExit):
        classify.read_ts(FILES / name)
    assert capsys.readouterr().err.startswith(f"classify: {FILES / name}, {message}")


BAD = {
    "word": (HEADER + "1,x:2,3:slow\n", "line 6: 'x' is not a number"),
    "missing value": (
        HEADER + "1,2:3,4:slow\n1,?:2,3:slow\n",
        "line 7: a missing value ('?'): fill the gaps first",
    ),
    "NaN": (HEADER + "1,NaN:2,3:slow\n", "line 6: a missing value ('NaN'): fill the gaps first"),
    "too large": (
        HEADER + "1,1e39:2,3:slow\n",
        "line 6: '1e39' is too large: a number must be below 1e+30",
    ),
    "other lengths": (
        HEADER + "1,2:3:slow\n",
        "line 6: expected 2 equally long rows of numbers below 1e+30, got lengths [2, 1]",
    ),
    "length 0": (
        HEADER + "::slow\n",
        "line 6: expected 2 equally long rows of numbers below 1e+30, got lengths [0, 0]",
    ),
    "no dimension": (
        HEADER + "slow\n",
        "line 6: expected 2 equally long rows of numbers below 1e+30, got lengths []",
    ),
    "other dimensions": (
        HEADER + "1:2:slow\n1:2:3:slow\n",
        "line 7: expected 2 equally long rows of numbers below 1e+30",
    ),
    "label": (
        HEADER + "1:2:medium\n",
        "line 6: label 'medium', the line @classLabel true names slow fast",
    ),
    "no label": (
        HEADER + "1,2\n",
        "line 6: label '1,2', the line @classLabel true names slow fast",
    ),
    "no classes": (
        "@data\n1:2:slow\n",
        "line 2: label 'slow', the line @classLabel true names none",
    ),
    "time stamps": (
        HEADER + "(0,1),(1,2):(0,3),(1,4):slow\n",
        "line 6: time stamps cannot be read",
    ),
    "time stamps by the header": (
        "@TimeStamps TRUE\n" + HEADER,
        "line 1: time stamps cannot be read",
    ),
    "regression": ("@targetLabel true\n" + HEADER, "line 1: @targetLabel is for regression"),
    "no class labels": (
        "@classLabel false\n@data\n1,2\n",
        "line 1: the cases have no class labels",
    ),
    "a label twice": ("@classLabel true a a\n", "line 1: @classLabel names a label twice"),
    "underscores": (HEADER + "1_0:2:slow\n", "line 6: '1_0' is not a number"),
    "comma at the end": (HEADER + "1,:2,3:slow\n", "line 6: a missing value ('')"),
    "dimensions by the header": (HEADER + "1:2:3:slow\n", "line 6: expected 2 equally long rows"),
    "univariate": (
        "@univariate true\n@classLabel true a\n@data\n1:2:a\n",
        "line 4: expected 1 equally long rows",
    ),
    "univariate of 2": (
        "@univariate true\n" + HEADER + "1:2:slow\n",
        "line 7: @univariate true, but 2 dimensions",
    ),
    "equal lengths": (
        "@equalLength true\n" + HEADER + "1,2:3,4:slow\n1:2:slow\n",
        "line 8: 1 steps, but @equalLength true",
    ),
    "series length": (
        "@equalLength true\n@seriesLength 3\n" + HEADER + "1,2:3,4:slow\n",
        "line 8: 2 steps, but @equalLength",
    ),
    "no number": ("@dimensions two\n", "line 1: @dimensions must be a whole number above 0"),
    "a late header": (
        HEADER + "1:2:slow\n@missing true\n",
        "line 7: a line of the header, '@missing true'",
    ),
    "no data": (HEADER, "holds no cases"),
    "empty": ("", "holds no cases"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(classify, case, tmp_path, capsys):
    text, message = BAD[case]
    file = tmp_path / "bad.ts"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        classify.read_ts(file)
    errors = capsys.readouterr().err
    assert left.value.code == 2 and errors.count("\n") == 1
    assert errors.startswith("classify: ") and str(file) in errors and message in errors, errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--train", "none.ts", "--test", "none.ts"),
            "cannot read none.ts: [Errno 2] No such file or directory",
        ),
        (("--train", ".", "--test", "."), "cannot read .: [Errno"),
        (("--train", "bytes.ts", "--test", "bytes.ts"), "cannot read bytes.ts: it is UTF-16 text"),
        (("--train", "w.ts"), "--train and --test come together"),
        (("--test", "w.ts"), "--train and --test come together"),
        (("--epochs", 0), "argument --epochs: must be at least 1, got 0"),
        (("--seed", 1, -1), "argument --seed: must be at least 0, got -1"),
        (
            ("--train", "one.ts", "--test", "one.ts"),
            "one.ts: all cases are of one class, slow: there is nothing to learn",
        ),
        (("--train", "w.ts", "--test", "one.ts"), "one.ts, line 2: expected 2 equally long rows"),
        (
            ("--train", "w.ts", "--test", "w.ts", "--epochs", 1, "--plot", "none/p.png"),
            "--plot: cannot write none/p.png",
        ),
        (
            ("--train", "w.ts", "--test", "w.ts", "--epochs", 1, "--plot", "p.xyz"),
            "--plot: cannot write p.xyz",
        ),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    waves(tmp_path / "w.ts", 4, 0)
    (tmp_path / "one.ts").write_text("@classLabel true slow\n1,2:slow\n")
    (tmp_path / "bytes.ts").write_bytes(b"\xff\xfe")
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, (
        done.stderr
    )
    assert done.stderr.startswith("classify: ")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")
def test_interrupting(tmp_path):
    file = waves(tmp_path / "w.ts", 400, 0)
    with SCRIPT.start("--train", file, "--test", file, "--epochs", 10**6, folder=tmp_path) as child:
        assert "sequences" in child.stdout.readline()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=60)
    assert child.returncode == 130 and out.endswith("interrupted\n") and errors == "", errors


def test_help(tmp_path):
    done = run("--help", folder=tmp_path)
    assert (
        done.returncode == 0
        and "python examples/classify.py" in done.stdout
        and "--train" in done.stdout
    )
