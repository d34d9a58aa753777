"""Runs every ```python block of README.md and docs/, page by page; a block's printed output must be
what the ```text block after it says. Links between the pages, and to files, lead somewhere."""

import io
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAINS = {"cells.md", "slides.md"}  # their blocks train for seconds
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n*^```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)


def run_blocks(page):
    """Run the blocks of a page, and compare what they print; return how many there are."""
    namespace = {"__name__": page.stem}
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    for match in blocks:
        line = text[: match.start()].count("\n") + 2
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * (line - 1) + match.group(1), str(page), "exec"), namespace)
        if match.group(2) is not None:
            assert printed.getvalue() == match.group(2), f"{page.name}:{line} prints something else"
    return len(blocks)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow] * (page.name in TRAINS))
        for page in PAGES
    ],
)
def test_page(page):
    run_blocks(page)


def test_every_page_has_code_that_runs():
    assert PAGES and all(BLOCK.search(page.read_text(encoding="utf-8")) for page in PAGES)


# ---------------------------------------------------------------- commands

SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPED = "n\np dy\np dx\np saved\nb tanh\nc\nw\nc\nb\nq\n"  # at the prompt of minigrad.study


def commands_of(page):
    blocks = SHELL.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.slow
@pytest.mark.parametrize("command", commands_of("start.md"))
def test_commands_of_the_first_hour(command, tmp_path):
    program, *arguments = shlex.split(command)
    assert program == "python"
    arguments = [
        str(ROOT / argument) if argument.startswith("examples/") else argument
        for argument in arguments
    ]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        input=TYPED,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "minigrad.study" in command:
        assert "backward pass at" in done.stdout and "breaks: tanh" in done.stdout
        assert "y = tanh x   dx = dy (1 - y^2)" in done.stdout and "waiting:" in done.stdout


def test_the_first_hour_has_commands():
    assert len(commands_of("start.md")) >= 5


# ---------------------------------------------------------------- links

COURSE = sorted((ROOT / "docs" / "course").glob("*.md"))
LINKED = [*PAGES, *COURSE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def without_code(text):
    """The text without its fenced blocks and without code in backticks, which are no links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: "x" if "](" in code.group() else code.group(), text)


def anchors(page):
    """What GitHub and Sphinx make of the headings: `## How fast?` is #how-fast."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    dead = []
    for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []
