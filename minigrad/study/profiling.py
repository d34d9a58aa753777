"""Where the time of a function goes: its ops, forward and backward, and the lines of Python between
them."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from minigrad import checks
from minigrad.core.recording import Recorder
from minigrad.study.dynamics.figures import axes_of

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = ["Profile", "Row", "profile"]

PYTHON = "(python)"  # stands for an op in the rows of time between ops
SWEEP = "(sweep)"  # the same, for backward passes between two rules
NOTES = "(notes)"  # the same, for what the profiler itself takes
ROWS = 20  # of a profile that is printed
SOURCE = 44  # characters of a line of source that are printed
LIBRARIES = tuple(
    os.path.realpath(sysconfig.get_paths()[name]) + os.sep
    for name in ("stdlib", "purelib", "platlib")
)
PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep

Line = tuple[str, int] | None


class Row(NamedTuple):
    """One row of a profile.

    Attributes:
        op: the op's name; "(python)" for a line's own time, outside of ops; "(sweep)" for backward
            passes between two rules; "(notes)" for the profiler's own work.
        line: (file, line number) of the user's line, or None.
        scope: the modules that were running, see `Entry.scope`.
        calls: how often in one run; 0 for what is in brackets.
        forward_ns: nanoseconds in one run.
        backward_ns: nanoseconds of the op's rule in one run.
        share: of the whole time, from 0 to 1.

    >>> import minigrad as mg
    >>> row = mg.study.profile(lambda: mg.ones(3, requires_grad=True) * 2.0, repeat=1).rows[-1]
    >>> row.calls <= 1 and 0 <= row.share <= 1
    True
    """

    op: str
    line: Line
    scope: str
    calls: float
    forward_ns: float
    backward_ns: float
    share: float

    @property
    def where(self) -> str:
        """File, line number, source."""
        if self.line is None:
            return ""
        path, number = self.line
        return f"{os.path.basename(path)}:{number}: {linecache.getline(path, number).strip()}"


class Profile:
    """Where the time of a function went, as `mg.study.profile` makes it; printed as a table.

    Attributes:
        rows: a `Row` for each op at each line and in each scope, and for each line's own time; what
            took longest comes first.
        wall_ns: nanoseconds of one run, the profiler's own work included.

    >>> import minigrad as mg
    >>> x = mg.ones((50, 50), requires_grad=True)
    >>> found = mg.study.profile(lambda: mg.tanh(x @ x).sum().backward(), repeat=2)
    >>> sorted({row.op for row in found.rows})
    ['(notes)', '(python)', '(sweep)', 'matmul', 'sum', 'tanh']
    >>> sum(row.share for row in found.rows) > 0.95
    True
    """

    def __init__(self, rows: list[Row], wall_ns: float) -> None:
        self.rows = rows
        self.wall_ns = wall_ns

    def __repr__(self) -> str:
        return f"<Profile of {self.wall_ns / 1e6:.3g} ms, {len(self.rows)} rows>"

    def __str__(self) -> str:
        header = f"{'share':>6} {'calls':>7} {'forward':>9} {'backward':>9}  {'op':14} line"
        lines = [f"one run: {self.wall_ns / 1e6:.3f} ms; times in ms", header]
        for row in self.rows[:ROWS]:
            source = row.where if len(row.where) <= SOURCE else row.where[: SOURCE - 1] + "…"
            scope = f"  [{row.scope}]" if row.scope else ""
            lines.append(
                f"{row.share:6.1%} {row.calls:7.6g} {row.forward_ns / 1e6:9.3f} "
                f"{row.backward_ns / 1e6:9.3f}  {row.op:14} {source}{scope}"
            )
        rest = self.rows[ROWS:]
        if rest:
            lines.append(f"{sum(row.share for row in rest):6.1%} in {len(rest)} more rows")
        return "\n".join(lines)

    def plot(self, ax: Any = None, rows: int = 12) -> Any:
        """Draw the rows that took longest as bars, forward and backward; return the Axes.

        Args:
            ax: where to draw. Default: a new figure.
            rows: how many bars. Default: 12.
        """
        rows = checks.integer("plot", "rows", rows, 1)
        ax = axes_of("plot", ax)
        shown = self.rows[:rows][::-1]
        names = [f"{row.op}  {row.where.partition(': ')[0]}" for row in shown]
        places = range(len(shown))
        forward = [row.forward_ns / 1e6 for row in shown]
        ax.barh(places, forward, label="forward", color="#3b75af")
        backward = [row.backward_ns / 1e6 for row in shown]
        ax.barh(places, backward, left=forward, label="backward", color="#c44e52")
        ax.set_yticks(places, names)
        title = f"Where one run of {self.wall_ns / 1e6:.3g} ms goes"
        ax.set(xlabel="time of one run in ms", title=title)
        ax.legend()
        return ax


class _Lines:
    """A trace function that gives the time between ops to the lines of the user's code."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.spent: dict[Line, int] = {}
        self.here: Line = None
        self.above: list[Line] = []

    def mark(self) -> None:
        """What has passed since the last mark or op belongs to the line that is running."""
        self.spent[self.here] = self.spent.get(self.here, 0) + self.recorder.tick()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "call":
            made_by_python = frame.f_globals.get("__name__", "").startswith("namedtuple_")
            if made_by_python or not _is_of_user(frame.f_code):
                return None
            self.mark()
            self.above.append(self.here)
            self.here = (frame.f_code.co_filename, frame.f_lineno)
        elif event == "line":
            self.mark()
            self.here = (frame.f_code.co_filename, frame.f_lineno)
        elif event == "return":
            self.mark()
            self.here = self.above.pop()
        return self


_of_user: dict[str, bool] = {}


def _is_of_user(code: CodeType) -> bool:
    """Is this code neither minigrad's nor Python's nor that of an installed library?"""
    path = code.co_filename
    if path not in _of_user:
        real = os.path.realpath(path)
        _of_user[path] = not path.startswith("<frozen") and not real.startswith(
            (PACKAGE, *LIBRARIES)
        )
    return _of_user[path]


def profile(fn: Callable[[], Any], repeat: int = 5) -> Profile:
    """Run a function and tell where its time goes: to which ops, forward and backward, at which
    lines, in which modules; and to the lines of Python themselves.

    It runs once to warm up, then `repeat` times, traced line by line. The tracing makes Python
    slower, ops hardly. Only this thread is looked at.

    Args:
        fn: a function without arguments, such as one step of a training.
        repeat: how many runs are averaged. Default: 5.

    Returns:
        A `Profile`. Its rows add up to the whole time.

    Raises:
        TypeError: `fn` cannot be called, or `repeat` is no int.
        ValueError: `repeat` is below 1.

    What `fn` raises is passed on.

    >>> import minigrad as mg
    >>> layer, x = mg.nn.LSTM(8, 16), mg.ones((20, 4, 8))
    >>> found = mg.study.profile(lambda: layer(x)[0].sum().backward())
    >>> next(row for row in found.rows if row.op == "lstm").scope
    'LSTM'
    """
    if not callable(fn):
        raise TypeError(f"profile: fn must be a function, got {type(fn).__name__}")
    repeat = checks.integer("profile", "repeat", repeat, 1)
    fn()
    found: dict[tuple[str, Line, str], list[float]] = {}
    wall = 0
    for _ in range(repeat):
        wall += _run(fn, found)
    rows = []
    for (op, line, scope), numbers in found.items():
        calls, forward, backward = (number / repeat for number in numbers)
        share = (forward + backward) * repeat / wall
        rows.append(Row(op, line, scope, calls, forward, backward, share))
    rows.sort(key=lambda row: row.share, reverse=True)
    return Profile(rows, wall / repeat)


def _run(fn: Callable[[], Any], found: dict[tuple[str, Line, str], list[float]]) -> int:
    """One traced run, added to what was found: calls, forward and backward nanoseconds. Returns the
    nanoseconds of all of it."""
    recorder = Recorder(False, False, True)
    lines = _Lines(recorder)
    before = sys.gettrace()
    recorder.open()
    start = time.perf_counter_ns()
    recorder.tick()
    sys.settrace(lines)
    try:
        fn()
    finally:
        sys.settrace(before)
        lines.mark()
        wall = time.perf_counter_ns() - start
        recorder.close()
    for entry in recorder.entries:
        name = entry.name.partition("[")[0]
        total = found.setdefault((name, entry.line, entry.scope), [0, 0, 0])
        total[0] += "[" not in entry.name
        total[1] += entry.ns or 0
        total[2] += entry.backward_ns or 0
    for line, spent in lines.spent.items():
        found.setdefault((PYTHON, line, ""), [0, 0, 0])[1] += spent
    found.setdefault((SWEEP, None, ""), [0, 0, 0])[2] += recorder.between
    found.setdefault((NOTES, None, ""), [0, 0, 0])[1] += recorder.own
    return wall
