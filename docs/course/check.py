"""Checks an exercise of the course.

    python docs/course/check.py 3 my.py

Prints what is right, and for the first thing that is wrong what was expected, what came, and a
hint. The exit status is 0 if all is right.
"""

import argparse
import subprocess
import sys
import traceback
from pathlib import Path

from checks import CHECKS, Wrong

SECONDS = 10  # for all checks of an exercise


def load(path: Path) -> dict:
    """What the student's file defines. What goes wrong in it is shown with its line."""
    names: dict = {"__name__": "exercise", "__file__": str(path)}
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    except SyntaxError as error:
        sys.exit(f"{path}:{error.lineno}: this is not Python yet: {error.msg}")
    except Exception as error:
        sys.exit(f"{place_in(path, error)}{type(error).__name__}: {error}")
    return names


def place_in(path: Path, error: BaseException) -> str:
    """The line of the student's file where an error arose."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{path}:{lines[-1]}: " if lines else ""


def run(number: int, path: Path) -> None:
    """Run the checks one after the other, up to the first that fails."""
    names = load(path)
    for check in CHECKS[number]:
        what = check.__doc__.strip()
        try:
            check(names)
        except Wrong as wrong:
            sys.exit(f"wrong  {what}\n{wrong}")
        except NotImplementedError:
            sys.exit(f"to do  {what}\nhint: replace the raise in the stub by your code")
        except RecursionError:
            sys.exit(f"wrong  {what}\nhint: this calls itself too often: use a loop and a list")
        except Exception as error:
            where = place_in(path, error)
            sys.exit(f"wrong  {what}\n{where}{type(error).__name__}: {error}")
        print(f"right  {what}", flush=True)
    print(f"exercise {number} is solved")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", type=int, choices=sorted(CHECKS), help="of the exercise")
    parser.add_argument("file", type=Path, help="your solution")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.file.is_file():
        parser.error(f"there is no file {args.file}")
    if args.inside:
        run(args.number, args.file.resolve())
        return
    command = [sys.executable, __file__, str(args.number), str(args.file), "--inside"]
    try:
        done = subprocess.run(command, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        sys.exit(
            f"stopped after {SECONDS} s\nhint: does a loop never end, or is the same work done "
            "again and again? A node that is reached by two ways must be visited once"
        )
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
