"""What the rule of a recorded op computes, in the words of its source: `Node.rule`.

The source of each op has a comment above its rule, such as ``# z = a b   da = dz b, db = dz a``. It
is read from the .pyx files that are installed beside the compiled modules, when somebody asks.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RULE_FUNCTIONS", "Rule", "rule_in_python", "rule_named"]

# Names of ops that stand beside no rule in the source -> the function that is their rule.
RULE_FUNCTIONS: dict[str, str] = dict.fromkeys(("+=", "-=", "*=", "/=", "**=", "@="), "change_rule")

# How an op is named where it is recorded: beside its rule; in a call of a helper that records it;
# in a call of record() in Python.
_NAMED = re.compile(
    r"\b(?:(?P<rule>\w+_rule),|(?:record_extreme|gathered|sliced|record|constant_in_pieces)\("
    r'(?:.*,)?)\s*"(?P<name>\w+)"'
)
_RULE = re.compile(r"^cdef int (\w+_rule)\(Node", re.MULTILINE)
# Comments at the left margin; those that tell a gradient: `dx = `, `d(dy) = `, `dx[index] += `.
_COMMENT = re.compile(r"^# (?!-).*(?:\n# (?!-).*)*", re.MULTILINE)
_GRADIENT = re.compile(r"\bd(?:\w+|\(\w+\))(?:\[.*\]|'s parts)? \+?= |\bgets dy\b")


class Rule(NamedTuple):
    """A rule as its source tells it: the text, and the file and line where it stands."""

    text: str
    file: str
    line: int

    def __str__(self) -> str:
        return self.text


def rule_named(name: str) -> Rule | None:
    """The rule of one of the package's ops, by the op's name or by that of the rule's function."""
    return _rules().get(RULE_FUNCTIONS.get(name, name))


def rule_in_python(backward: Any, name: str) -> Rule | None:
    """The rule of an op that was recorded from Python, with the function `backward`: the first line
    of its docstring, or else of its source. For the package's own ops, as rule_named."""
    # A subclass of Function has its backward recorded inside of an object.
    backward = getattr(getattr(backward, "function", None), "backward", backward)
    if str(getattr(backward, "__module__", "")).startswith("minigrad."):
        return rule_named(name)
    try:
        lines, line = inspect.getsourcelines(backward)
        file = inspect.getsourcefile(backward)
    except (OSError, TypeError):
        return None
    text = (inspect.getdoc(backward) or lines[0]).strip().splitlines()[0]
    return Rule(text, file or "", line)


@functools.cache
def _rules() -> dict[str, Rule]:
    """The rules of the package's ops: by the name of the op, and by that of the rule."""
    from pathlib import Path  # not at the top: it takes a tenth of the time of the whole import

    package = Path(__file__).resolve().parents[1]
    found: dict[str, Rule] = {}
    for path in [*sorted(package.rglob("*.pyx")), *sorted(package.rglob("*.py"))]:
        if not path.is_relative_to(package / "study"):
            for name, rule in _rules_of(path):
                found.setdefault(name, rule)
    return found


def _rules_of(path: Path) -> Iterator[tuple[str, Rule]]:
    """The rules of a file: each is told by the last comment with a gradient above it. A rule that
    several ops share is told by the comment above each op."""
    text = path.read_text(encoding="utf-8")
    comments = [found for found in _COMMENT.finditer(text) if _GRADIENT.search(found.group())]

    def above(place: int) -> Iterator[Rule]:
        earlier = [found for found in comments if found.end() < place]
        if earlier:
            lines = [line.removeprefix("# ") for line in earlier[-1].group().splitlines()]
            words = re.sub(r" *\n(?=d[\w(])", "   ", "\n".join(lines)).replace("\n", " ")
            told = re.sub(r"  +", "   ", words)
            yield Rule(told, str(path), text.count("\n", 0, earlier[-1].start()) + 1)

    begins = {found[1]: found.start() for found in _RULE.finditer(text)}
    for name, place in begins.items():
        yield from ((name, rule) for rule in above(place))
    named = list(_NAMED.finditer(text))
    users = Counter(rule for rule, _ in {(found["rule"], found["name"]) for found in named})
    for found in named:
        alone = users[found["rule"]] == 1 and found["rule"] in begins
        place = begins[found["rule"]] if alone else found.start()
        yield from ((found["name"], rule) for rule in above(place))
