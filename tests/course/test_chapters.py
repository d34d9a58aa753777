"""The chapters of the course: their code runs and prints what they say, the source that they quote
is in the file that they link; each has its picture, exercise, checks and drawing."""

import re
from pathlib import Path

import pytest
from test_docs import LINK, run_blocks

COURSE = Path(__file__).parents[2] / "docs" / "course"
CHAPTERS = sorted(COURSE.glob("[0-9][0-9]_*.md"))
QUOTE = re.compile(r"^```(?:cython|c)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTING_LINK = re.compile(r"\[`([^`]+)`\]\(([^)\s]+\.(?:pyx|py|c|h|inc))\)")

each_chapter = pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)


@each_chapter
def test_code_prints_what_the_chapter_says(page):
    assert run_blocks(page) >= 2


@each_chapter
def test_length(page):
    assert 120 <= len(page.read_text(encoding="utf-8").splitlines()) <= 250


@each_chapter
def test_quoted_source_is_there(page):
    """A link `code` to a file: the code is in the file. A quoted block: it is in a linked file."""
    text = page.read_text(encoding="utf-8")
    for code, name in QUOTING_LINK.findall(text):
        if "/" in code:  # a path
            continue
        assert code in (page.parent / name).read_text(encoding="utf-8"), (code, name)
    linked = [page.parent / name for name in LINK.findall(text) if re.search(r"\.\w+$", name)]
    sources = [
        path.read_text(encoding="utf-8")
        for path in linked
        if path.suffix in (".pyx", ".py", ".c", ".h", ".inc")
    ]
    quotes = QUOTE.findall(text)
    for quote in quotes:
        assert any(quote in source for source in sources), quote
    assert quotes or QUOTING_LINK.search(text)


@each_chapter
def test_a_chapter_has_all_its_parts(page):
    number = page.stem[:2]
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(number)}. ")
    assert f"](figures/{number}.png)" in text
    assert f"](exercises/{number}.py)" in text
    assert f"python docs/course/check.py {int(number)} my.py" in text
    assert page.name in (COURSE / "README.md").read_text(encoding="utf-8")
    for part in (f"checks/{number}.py", f"drawings/{number}.py", f"figures/{number}.png"):
        assert (COURSE / part).is_file()


def test_every_exercise_has_a_chapter():
    numbers = [page.stem[:2] for page in CHAPTERS]
    assert numbers == [path.stem for path in sorted((COURSE / "exercises").glob("*.py"))]
    assert numbers == [f"{k:02}" for k in range(1, len(numbers) + 1)]
