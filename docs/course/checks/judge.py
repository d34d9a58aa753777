"""Runs the checks of an exercise on a student's file. check.py starts it as a process of its own.

The checks stand in NN.py beside this file: `NAMES` are the functions that the student writes, and
`CHECKS` are functions of (student, rng), whose docstring says what is checked.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
from checks.tools import Hinted, Wrong

COURSE = Path(__file__).resolve().parents[1]
MEMORY = 4 << 30  # bytes of addresses that a student's file may use beside what is used already

HINTS = {
    NotImplementedError: "This part is still to be written: replace the line that raises.",
    RecursionError: "A function calls itself too often. Use a loop, and a list of what is waiting.",
    MemoryError: "All memory is used up. Does a list grow in an endless loop?",
    SystemExit: "The file leaves Python. Take the call of exit() out.",
    EOFError: "The file asks for input(). Take that out.",
}
USUAL_HINT = "Print what goes into this line, and compare the shapes with the chapter."
READ_ONLY = "Your code writes into an array that it was given. Make a new array instead."


def load(path: Path, name: str) -> ModuleType:
    """Run a file as a module. Unlike `import` it takes any file name, such as 03.py."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a dataclass looks for its module
    source = path.read_text(encoding="utf-8")
    exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    return module


def judge(
    number: int, path: Path, say: Callable[[str], Any] = print, seed: int | None = None
) -> str | None:
    """Check a file; say what is right and wrong. Return the hint, None if everything is right.

    The same file gets the same random numbers each time, unless there is a seed.
    """
    checks = load(Path(__file__).parent / f"{number:02}.py", f"checks_{number:02}")
    try:
        student = load(path, "student")
    except BaseException as error:
        return explain(error, path, say, "the file cannot be run")
    missing = [name for name in checks.NAMES if not callable(getattr(student, name, None))]
    if missing:
        hint = f"Begin with a copy of exercises/{number:02}.py, and keep the names."
        return tell(say, "wrong", f"the file has no function {', '.join(missing)}", hint)
    rng = np.random.default_rng(number if seed is None else seed)
    for check in checks.CHECKS:
        title = check.__doc__.splitlines()[0].rstrip(".")
        try:
            check(student, rng)
        except BaseException as error:
            return explain(error, path, say, title)
        say(f"  right  {title}")
    return None


def tell(say: Callable[[str], Any], *lines: str) -> str:
    """Say what is wrong, in lines of which the last is the hint."""
    mark, title, *more, hint = lines
    say(f"  {mark}  {title}")
    for line in more:
        say(f"         {line}")
    say(f"  hint   {hint}")
    return hint


def explain(error: BaseException, path: Path, say: Callable[[str], Any], title: str) -> str:
    """Say what went wrong in a few lines, without a traceback."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, Wrong):
        return tell(
            say, "wrong", title, f"expected  {error.expected}", f"got       {error.got}", error.hint
        )
    hint = error.hint if isinstance(error, Hinted) else None
    reason = error.__cause__ if isinstance(error, Hinted) else error
    if hint is None and isinstance(reason, ValueError) and "read-only" in str(reason):
        hint = READ_ONLY
    if isinstance(reason, SyntaxError):
        line, code = reason.lineno, (reason.text or "").strip()
        hint = "Python cannot read the file. Look at this line, and at the one before it."
    else:
        line, code = line_of(reason, path)
    if hint is None:
        hint = HINTS.get(type(reason), USUAL_HINT)
    if line is None and isinstance(reason, Exception):
        code = "(the error is not in your file)"
    message = getattr(reason, "msg", None) or str(reason)
    name = type(reason).__name__
    told = f"{name}: {message}" if message else name
    return tell(say, "error", title, f"line {line}: {code}" if line else code, told, hint)


def line_of(error: BaseException, path: Path) -> tuple[int | None, str]:
    """The innermost line of the student's file that the error went through, and its code."""
    inside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path and frame.lineno
    ]
    return (inside[-1].lineno, inside[-1].line or "") if inside else (None, "")


# ---------------------------------------------------------------- as a process


def stop_after(seconds: float, path: Path) -> None:
    """End this process if it runs for longer, and say where it was."""
    main = threading.main_thread().ident

    def stop() -> None:
        frame: FrameType | None = sys._current_frames().get(main)
        while frame is not None and Path(frame.f_code.co_filename) != path:
            frame = frame.f_back
        where = "" if frame is None else f", in line {frame.f_lineno}"
        print(f"  error  stopped after {seconds:g} seconds{where}", flush=True)
        print("  hint   Does this loop end? Print what it waits for.", flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()


def bound_memory() -> None:
    """A list that grows forever must not stop the whole machine. Only Linux keeps such a limit."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def say_now(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    number, path, seconds = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    sys.path += [str(path.parent), str(COURSE.parents[1])]  # other files, and minigrad's clone
    bound_memory()
    stop_after(seconds, path)
    say_now(f"exercise {number}: {path.name}")
    hint = judge(number, path, say_now)
    if hint is None:
        say_now("Everything is right.")
    return 0 if hint is None else 1


if __name__ == "__main__":
    sys.exit(main())
