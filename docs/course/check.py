"""Checks an exercise of the course: what is right in it, what is wrong, and one hint.

    python docs/course/check.py 3 my.py

The file is run in a process of its own, which is stopped after a few seconds: an endless loop does
no harm. The exit code is 0 if everything is right.
"""

import argparse
import subprocess
import sys
from pathlib import Path

COURSE = Path(__file__).resolve().parent
SECONDS = 5.0
GRACE = 5.0  # a loop in compiled code is stopped from outside, so much later


def numbers() -> list[int]:
    """The exercises that there are."""
    return sorted(int(path.stem) for path in (COURSE / "exercises").glob("*.py"))


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check an exercise of the course.")
    parser.add_argument(
        "number", type=int, choices=numbers(), metavar="NUMBER", help="of the exercise, from 1"
    )
    parser.add_argument("file", type=Path, help="your solution, such as my.py")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="how long it may run (default: %(default)s)"
    )
    args = parser.parse_args(words)
    if not args.file.is_file():
        parser.error(f"file: there is no {args.file}")
    return args


def main() -> int:
    args = parsed()
    command = [sys.executable, "-m", "checks.judge", str(args.number), str(args.file.resolve())]
    try:
        done = subprocess.run(
            [*command, str(args.seconds)],
            cwd=COURSE,
            stdin=subprocess.DEVNULL,
            timeout=args.seconds + GRACE,
        )
    except subprocess.TimeoutExpired:
        print(f"\nstopped: {args.file} does not end. Does a loop run forever?")
        return 1
    except KeyboardInterrupt:
        return 130
    return min(abs(done.returncode), 1)


if __name__ == "__main__":
    sys.exit(main())
