"""The modules of docs/course, which the chapters and the students' files import by these names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "course"))
