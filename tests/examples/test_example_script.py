"""What all examples share, examples/_script.py: reading text, options, and how a script ends where
its output cannot be shown."""

import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import _script
import pytest
from running import Script

EXAMPLES = Path(_script.__file__).parent
SHORT = {  # each script, with options that end it within seconds
    "adding": ("--length", "4", "--cells", "GRU", "--steps", "1", "--hidden", "4"),
    "char_lm": ("--steps", "1", "--hidden", "4", "--batch", "2", "--length", "8"),
    "classify": ("--train", "w.ts", "--test", "w.ts", "--epochs", "1", "--seed", "0"),
    "flipflop": ("--steps", "1", "--hidden", "4", "--batch", "2", "--length", "8"),
    "forecast": ("--csv", "w.csv", "--epochs", "1", "--season", "4", "--horizon", "4"),
    "music": ("--data", "synthetic", "--epochs", "1"),
    "scratch": ("--steps", "1", "--hidden", "4"),
    "tagging": ("--train", "w.txt", "--test", "w.txt", "--epochs", "1"),
    "vanishing": ("--steps", "1", "--length", "4", "--radii", "1", "--hidden", "4"),
}
WORD = "résumé→🙂"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Small files in which names hold letters that ASCII lacks."""
    (tmp_path / "w.ts").write_text(
        f"@classLabel true a {WORD}\n1,2,3:a\n3,2,1:{WORD}\n", encoding="utf-8"
    )
    rows = "".join(f"{k},{(k * k) % 7}\n" for k in range(60))
    (tmp_path / "w.csv").write_text(f"t,{WORD}\n{rows}", encoding="utf-8")
    (tmp_path / "w.txt").write_text(f"the\tDET\n{WORD}\t{WORD}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_script_is_here():
    assert set(SHORT) == {path.stem for path in EXAMPLES.glob("*.py")} - {"_script"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_an_ascii_terminal(folder, name):
    done = Script(name).run_alone(*SHORT[name], folder=folder, encoding="ascii")
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") > 1, done.stderr
    if name in ("forecast", "tagging"):
        assert "r?sum??" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_refusal(folder, name):
    done = Script(name).run_alone("--seed", -1, folder=folder)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"{name}: argument --seed: must be at least 0, got -1\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_notebook(folder, monkeypatch, name):
    """Its stdout is no file: it has no reconfigure, no fileno, no encoding."""

    class Output:
        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text
            return len(text)

        def flush(self):
            pass

    output = Output()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *SHORT[name]])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert output.text.count("\n") > 1
    if name in ("forecast", "tagging"):
        assert WORD in output.text


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX pipes here")
@pytest.mark.parametrize("name", SHORT)
def test_a_pipe_that_nobody_reads(folder, name):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *SHORT[name]]
    try:
        done = subprocess.run(
            command,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            timeout=240,
        )
    finally:
        os.close(write)
    assert done.returncode == 1 and done.stderr == "", done.stderr


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"\xef\xbb\xbf", ""),
        (b"a", "a"),
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
        ("\ufeffa\u2028b\u0085c\x0b\x0cd\ufeff".encode(), "a\u2028b\u0085c\x0b\x0cd\ufeff"),
    ],
)
def test_reading_text(tmp_path, data, text):
    (tmp_path / "a").write_bytes(data)
    assert _script.Script("x", "").read_text(tmp_path / "a") == text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"ok\r\nok\rok\n\xe9t\xe9",
            ", line 4, as UTF-8 text: 'utf-8' codec can't decode byte 0xe9",
        ),
        (b"\xef\xbb\xbfok\n\xe9t\xe9", ", line 2, as UTF-8 text"),
        (b"a\nb\0", ", line 2: it holds a zero byte"),
        ("a".encode("utf-16"), ": it is UTF-16 text"),
        ("a".encode("utf-32"), ": it is UTF-32 text"),
        (b"\x1f\x8b\x08", ": it is compressed by gzip"),
        (b"BZh9", ": it is compressed by bzip2"),
        (b"\xfd7zXZ\0", ": it is compressed by xz"),
        (b"PK\x03\x04", ": it is a zip archive"),
    ],
)
def test_what_is_no_text(tmp_path, capsys, data, message):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(SystemExit) as left:
        _script.Script("x", "").read_text(tmp_path / "a")
    assert left.value.code == 2 and capsys.readouterr().err.startswith(
        f"x: cannot read {tmp_path / 'a'}{message}"
    )


def test_a_text_that_does_not_end(monkeypatch, capsys):
    if not os.path.exists("/dev/zero"):
        pytest.skip("skipped: no /dev/zero here")
    monkeypatch.setattr(_script, "LARGEST_TEXT", 10**6)
    with pytest.raises(SystemExit):
        _script.Script("x", "").read_text("/dev/zero")
    assert "larger than 1,000,000 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("name", SHORT)
def test_every_number_among_the_options_has_bounds(name):
    """No option is a bare int or float: 0, -1, nan or 10^30 would reach the training."""
    calls = [
        node
        for node in ast.walk(ast.parse((EXAMPLES / f"{name}.py").read_text("utf-8")))
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]).startswith("'--")
    ]
    types = [
        ast.unparse(keyword.value)
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "type"
    ]
    assert types and not {"int", "float", "type(default)"} & set(types)


def test_memory_that_is_not_there(capsys):
    def main():
        raise MemoryError("Unable to allocate 1 PiB")

    with pytest.raises(SystemExit) as left:
        _script.Script("x", "").run(main)
    assert (
        left.value.code == 2
        and capsys.readouterr().err == "x: out of memory: Unable to allocate 1 PiB\n"
    )


def test_a_message_is_one_line(capsys):
    with pytest.raises(SystemExit):
        _script.Script("x", "").fail("two\nlines\x1b[31m and \u2028 more")
    assert capsys.readouterr().err == "x: two lines [31m and more\n"


def test_names_with_a_dollar_are_drawn_as_they_are(tmp_path):
    pytest.importorskip("matplotlib")
    drawn = _script.Script("x", "").draw(
        str(tmp_path / "a.svg"), lambda f: f.suptitle(_script.literal("US$ and $^$")), 2, 2
    )
    assert drawn and (tmp_path / "a.svg").stat().st_size > 0
