"""examples/char_lm.py as a user runs it: it learns a text, prints samples of it, goes on after
Ctrl-C with the same bits, refuses what does not fit in one line."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from running import Script

import minigrad as mg

SCRIPT = Script("char_lm")
run = SCRIPT.run
SMALL = ("--hidden", "16", "--batch", "4", "--length", "16", "--layers", "2", "--plot", "")
ENGLISH = "the quick brown fox jumps over the lazy dog. " * 60
RUSSIAN = "съешь же ещё этих мягких французских булок, да выпей чаю. " * 50


posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")


def text_file(folder, text=ENGLISH, name="text.txt"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def works(*arguments):
    done = run(*arguments)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def fails(message, *arguments):
    done = run(*arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert (
        done.stderr.startswith("char_lm: ")
        and done.stderr.count("\n") == 1
        and message in done.stderr
    ), done.stderr


def interrupted(*arguments, at="step "):
    """Ctrl-C when the first line that starts with `at` is out."""
    child = SCRIPT.start(*arguments)
    try:
        for line in child.stdout:
            if line.startswith(at):
                break
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    return out, errors, child.returncode


def curve(path):
    return mg.load(path)[0]["history.loss"]


@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN], ids=["English", "Russian"])
def test_it_learns_and_prints_samples(tmp_path, text):
    out = works(
        "--text",
        text_file(tmp_path, text),
        "--steps",
        "120",
        "--lr",
        "0.01",
        "--save",
        tmp_path / "m",
        *SMALL,
    )
    losses = curve(tmp_path / "m")
    assert (
        len(losses) == 120
        and abs(losses[0] - np.log(len(set(text)))) < 0.5
        and np.mean(losses[-10:]) < 0.6 * losses[0]
    )
    assert (
        "step 120/120" in out and f"{len(set(text))} different ones" in out and "held out: " in out
    )
    assert f"saved {tmp_path / 'm'} at step 120" in out
    samples = out.split("goes on:\n")[1:]
    assert len(samples) == 3 and all(
        len(s.split("\n---")[0].rstrip("\n")) in (199, 200) for s in samples
    )
    assert set("".join(s.split("\n---")[0] for s in samples)) <= set(text) | {"\n"}


def test_without_a_text_it_takes_the_help_topics(tmp_path):
    assert "step 2/2" in works("--steps", "2", *SMALL)


def test_the_same_seed_is_the_same_run(tmp_path):
    text = text_file(tmp_path)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        works("--text", text, "--steps", "5", "--seed", seed, "--save", tmp_path / name, *SMALL)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.slow
@posix
def test_resuming_gives_the_bits_of_one_run(tmp_path):
    """Also across the start of a new pass over the text, where the state is zeros again (a pass has
    37 steps here)."""
    text, start = text_file(tmp_path), ("--lr", "0.01", *SMALL)
    whole = "--text", text, "--steps", "1000", *start
    works(*whole, "--save", tmp_path / "whole")
    out, errors, status = interrupted(*whole, "--save", tmp_path / "half")
    assert status == 130 and 0 < len(curve(tmp_path / "half")) < 1000
    works(*whole, "--resume", tmp_path / "half", "--save", tmp_path / "resumed")
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.slow
@posix
def test_ctrl_c_saves_and_leaves(tmp_path):
    arguments = (
        "--text",
        text_file(tmp_path, ENGLISH * 10),
        "--steps",
        "1000000",
        "--save",
        tmp_path / "m",
        *SMALL,
    )
    out, errors, status = interrupted(*arguments)
    arrays, _ = mg.load(tmp_path / "m")
    assert status == 130 and errors == ""
    assert out.endswith(
        f"saved {tmp_path / 'm'} at step {len(arrays['history.loss'])}\ninterrupted\n"
    )
    assert all(np.isfinite(a).all() for a in arrays.values())


@pytest.mark.slow
@posix
def test_ctrl_c_outside_of_the_training(tmp_path):
    arguments = (
        "--text",
        text_file(tmp_path),
        "--steps",
        "1",
        "--hidden",
        "128",
        "--batch",
        "4",
        "--length",
        "16",
    )
    for at in ("  embed", "held out"):
        out, errors, status = interrupted(*arguments, at=at)
        assert (status, errors) == (130, "") and out.endswith("interrupted\n"), at


@pytest.mark.slow
def test_a_terminal_without_the_characters(tmp_path):
    done = SCRIPT.run_alone(
        "--text", text_file(tmp_path, RUSSIAN), "--steps", "2", *SMALL, encoding="ascii"
    )
    assert done.returncode == 0 and done.stderr == "" and "goes on:\n??" in done.stdout


def test_texts_that_cannot_be_used(tmp_path):
    (tmp_path / "latin").write_bytes("ё".encode("koi8-r") * 2000)
    fails("No such file", "--text", tmp_path / "missing")
    fails(
        "latin, line 1, as UTF-8 text: 'utf-8' codec can't decode byte",
        "--text",
        tmp_path / "latin",
    )
    fails("Is a directory" if os.name == "posix" else "cannot read", "--text", tmp_path)
    fails("0 characters of text are too few", "--text", text_file(tmp_path, ""))
    fails("5 characters of text are too few", "--text", text_file(tmp_path, "short"))
    fails(
        "too few for --batch 500 and --length 16",
        "--text",
        text_file(tmp_path),
        "--batch",
        "500",
        "--length",
        "16",
    )
    works("--text", text_file(tmp_path, "a" * 2000), "--steps", "2", *SMALL)


def test_what_is_learnt_of_a_file(tmp_path):
    """A byte order mark is no character, CRLF is one, U+2028, U+0085 and emoji stay: checked by the
    checkpoint's characters."""
    file = Path(__file__).parents[1] / "files" / "verse.txt"
    raw = file.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") and b"\r\n" in raw
    works("--text", file, "--steps", "1", "--save", tmp_path / "m", *SMALL)
    characters = mg.load(tmp_path / "m")[1]["config"]["characters"]
    assert characters == "".join(sorted(set(raw.decode("utf-8-sig").replace("\r\n", "\n"))))
    assert {"\n", "\u2028", "\u0085", "🙂"} < set(characters) and not {"\ufeff", "\r"} & set(
        characters
    )


def test_texts_of_another_encoding(tmp_path):
    for name, message in (
        ("utf-16", "it is UTF-16 text"),
        ("utf-16-be", "line 1: it holds a zero byte"),
        ("utf-32", "it is UTF-32 text"),
    ):
        (tmp_path / name).write_bytes(ENGLISH.encode(name))
        fails(message, "--text", tmp_path / name)


def test_options_that_cannot_be(tmp_path):
    text = text_file(tmp_path)
    bad = {
        "--steps": [0],
        "--batch": [-1],
        "--length": [0],
        "--hidden": [0],
        "--layers": [0],
        "--temperature": [0, "nan", "inf"],
        "--lr": [-1, 0, "nan", "inf"],
        "--clip": [-1, 0, "1e-300", "nan"],
        "--seed": [-1, 2**128],
        "--dropout": [-0.1, 1, "nan"],
    }
    for option, value in ((option, value) for option, values in bad.items() for value in values):
        fails(option, "--text", text, *SMALL, option, value)
    fails("the gradient of ", "--text", text, "--steps", "9", "--lr", "1e38", *SMALL)
    done = run("--text", text, "--steps", "many")
    assert done.returncode == 2 and "invalid int value: 'many'" in done.stderr


def test_a_place_that_cannot_be_written_is_told_before_training(tmp_path):
    for place in (tmp_path / "missing" / "m", tmp_path):
        fails(
            f"argument --save: cannot write {place}: ",
            "--text",
            text_file(tmp_path),
            "--steps",
            "1",
            "--save",
            place,
            *SMALL,
        )


def test_checkpoints_that_do_not_fit(tmp_path):
    text, path = text_file(tmp_path), tmp_path / "m"
    works("--text", text, "--steps", "2", "--save", path, *SMALL)
    good, (arrays, extra) = path.read_bytes(), mg.load(path)

    def refuses(message, *options):
        fails(message, "--text", text, "--steps", "3", "--resume", path, *(options or SMALL))

    refuses("belongs to another training: hidden is 16, not 8", *SMALL, "--hidden", "8")
    other = text_file(tmp_path, RUSSIAN, "other")
    fails(
        "belongs to another training: characters is",
        "--text",
        other,
        "--steps",
        "3",
        "--resume",
        path,
        *SMALL,
    )
    fails("No such file", "--text", text, "--steps", "3", "--resume", tmp_path / "missing", *SMALL)
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    for message, data in (
        ("cut off", b""),
        ("cut off", good[:-1]),
        ("damaged", flipped),
        ("header", b"x" * 999),
    ):
        path.write_bytes(data)
        refuses(message)
    mg.save(path, {"w": np.ones(3)}, {"step": 3})
    refuses("holds no training")
    states = {name: array for name, array in arrays.items() if name.startswith("bptt.state")}
    assert [a.shape for a in states.values()] == [(2, 4, 16)] * 2
    foreign = {
        "the state's shape": arrays | {name: array[:, :2] for name, array in states.items()},
        "the state's dtype": arrays | {name: array.astype("f8") for name, array in states.items()},
        "a weight": {k: v for k, v in arrays.items() if k != "model.head.bias"},
        "the curve": arrays | {"history.loss": np.ones((2, 2))},
    }
    for changed in foreign.values():
        mg.save(path, changed, extra)
        refuses("the training ends: load_training: ")
    path.write_bytes(good)
    works("--text", text, "--steps", "3", "--resume", path, *SMALL)


def test_a_run_that_is_over_can_be_resumed(tmp_path):
    """Nothing is trained, samples are printed."""
    text, path = text_file(tmp_path), tmp_path / "m"
    works("--text", text, "--steps", "3", "--save", path, *SMALL)
    out = works(
        "--text", text, "--steps", "3", "--resume", path, "--save", tmp_path / "again", *SMALL
    )
    assert "held out: " in out and "step 3/3" not in out
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_a_curve_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="skipped: matplotlib is not installed")
    done = run(
        "--text", text_file(tmp_path), "--steps", "3", *SMALL, "--plot", tmp_path / "curve.png"
    )
    assert done.returncode == 0 and (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "the losses are drawn in " in done.stdout
    done = run(
        "--text",
        text_file(tmp_path),
        "--steps",
        "3",
        *SMALL,
        "--plot",
        tmp_path / "missing" / "curve.png",
    )
    assert (
        done.returncode == 2
        and done.stdout == ""
        and "cannot write" in done.stderr
        and "No such file" in done.stderr
    )
