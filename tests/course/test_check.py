"""The command that checks a student's file: what it prints, and that no file can hang it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "docs" / "course" / "check.py"


def run(*words, folder):
    done = subprocess.run(
        [sys.executable, str(COMMAND), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def check(text, folder, *words, number="1"):
    (folder / "my.py").write_text(text, encoding="utf-8")
    return run(number, "my.py", *words, folder=folder)


def test_a_right_file(tmp_path):
    code, printed = run("1", str(ROOT / "tests/course/solutions/01.py"), folder=tmp_path)
    assert code == 0
    assert printed.startswith("exercise 1: 01.py\n  right  y\n")
    assert printed.endswith("  right  dy/da, along two paths\nEverything is right.\n")


def test_a_wrong_file(tmp_path):
    path = ROOT / "tests/course/mistakes/01_one_path.py"
    code, printed = run("1", str(path), folder=tmp_path)
    assert code == 1
    assert printed.count("  right  ") == 3 and printed.count("  hint   ") == 1
    assert "expected  dy/da = " in printed and "got       dy/da = " in printed


HOSTILE = {
    "does not parse": ("x = 1\ndef f(:\n", ["line 2: def f(:", "SyntaxError", "Look at this line"]),
    "raises": ("x = 1\ny = x / 0\n", ["line 2: y = x / 0", "ZeroDivisionError: division by zero"]),
    "leaves": ("import sys\nsys.exit(0)\n", ["line 2: sys.exit(0)", "SystemExit", "Take the call"]),
    "asks": ("x = input()\n", ["line 1: x = input()", "EOFError", "Take that out"]),
    "other names": ("x = 1\n", ["no function value_and_gradients", "exercises/01.py"]),
    "recursion": (
        "def value_and_gradients(a, b, c):\n    return value_and_gradients(a, b, c)\n",
        ["line 2: return value_and_gradients(a, b, c)", "RecursionError", "Use a loop"],
    ),
    "text": (
        "def value_and_gradients(a, b, c):\n    return ['y', 1, 2, 3]\n",
        ["got       y of type str", "Return numbers for y"],
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_error_is_told_in_a_few_lines(name, tmp_path):
    text, words = HOSTILE[name]
    code, printed = check(text, tmp_path)
    assert code == 1
    assert [word for word in words if word not in printed] == [], printed
    assert "Traceback" not in printed and len(printed.splitlines()) <= 6


@pytest.mark.slow
def test_a_loop_without_an_end_is_stopped(tmp_path):
    code, printed = check("x = 1\nwhile x:\n    x += 1\n", tmp_path, "--seconds", "1")
    assert code == 1
    assert "stopped after 1 seconds, in line " in printed and "Does this loop end?" in printed


@pytest.mark.slow
def test_a_list_without_an_end_is_stopped(tmp_path):
    text = "x = []\nwhile True:\n    x.append(bytes(1 << 24))\n"
    code, printed = check(text, tmp_path, "--seconds", "20")
    assert code == 1
    assert "stopped after" in printed or "MemoryError" in printed


@pytest.mark.parametrize("words", [("11", "my.py"), ("x", "my.py"), ("1", "none.py"), ("1",)])
def test_wrong_arguments(words, tmp_path):
    (tmp_path / "my.py").write_text("", encoding="utf-8")
    code, printed = run(*words, folder=tmp_path)
    assert code != 0 and "usage: check.py" in printed
