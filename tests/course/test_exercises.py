"""Every exercise of the course: the solution passes; the stub and each planted mistake fail, and
each gets a hint of its own. The first line of a mistake has words of the hint that it must get."""

from pathlib import Path

import pytest
from checks.judge import judge

HERE = Path(__file__).parent
EXERCISES = HERE.parents[1] / "docs" / "course" / "exercises"
NUMBERS = sorted(int(path.stem) for path in EXERCISES.glob("*.py"))
MISTAKES = sorted((HERE / "mistakes").glob("*.py"))
SEEDS = (None, 101, 102, 103)


def number_of(path):
    return int(path.stem[:2])


def hint_of(path, seed=None):
    return judge(number_of(path), path, [].append, seed)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_passes(number):
    for seed in SEEDS:
        said = []
        hint = judge(number, HERE / "solutions" / f"{number:02}.py", said.append, seed)
        assert hint is None, said


@pytest.mark.parametrize("number", NUMBERS)
def test_the_stub_is_told_where_to_write(number):
    assert "still to be written" in hint_of(EXERCISES / f"{number:02}.py")


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_a_mistake_gets_its_hint(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# hint: ")
    for seed in SEEDS:
        said = []
        hint = judge(number_of(path), path, said.append, seed)
        assert hint is not None and first.removeprefix("# hint: ") in hint, said


@pytest.mark.parametrize("number", NUMBERS)
def test_mistakes_have_hints_of_their_own(number):
    hints = [hint_of(path) for path in MISTAKES if number_of(path) == number]
    assert len(hints) >= 5
    assert len(set(hints)) == len(hints)
