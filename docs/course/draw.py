"""Draws the pictures of the course: figures/03.png by drawings/03.py, and so on.

    python docs/course/draw.py [NUMBER ...]

Each is 900 pixels wide. What they show is computed: no number in them is typed in. Needs
matplotlib.
"""

import sys
from pathlib import Path

COURSE = Path(__file__).resolve().parent
sys.path[:0] = [str(COURSE), str(COURSE.parent)]  # drawings use tiny.py, and docs/pictures.py

from checks.judge import load  # noqa: E402 - once it can be found


def main() -> None:
    wanted = [int(word) for word in sys.argv[1:]]
    for path in sorted((COURSE / "drawings").glob("*.py")):
        if not wanted or int(path.stem) in wanted:
            drawing = load(path, f"drawing_{path.stem}")
            drawing.draw(COURSE / "figures" / f"{path.stem}.png")


if __name__ == "__main__":
    main()
