"""What is recorded while a block runs: each op with the user's line, the module and the time step
that it belongs to, what it saved, its values and its time.

The notes themselves are made in core/recording.pyx.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from minigrad import checks
from minigrad.core.recording import Entry, Recorder, Source, Summary, close_scope, open_scope
from minigrad.core.tensor import Node, Tensor

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Entry", "Recording", "Source", "Summary", "record", "scope"]

ROWS = 20  # of a recording that is printed


class Recording:
    """A context that notes each op which this thread records inside of it; `mg.study.record` makes
    one. It may be entered several times, and go on; the notes are added up.

    Attributes:
        entries: An `Entry` for each op, in the order in which they ran. They stay when the block
            has ended, and go with this object; no Node holds them.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0, 2.0], requires_grad=True)
    >>> with mg.study.record() as rec:
    ...     y = mg.tanh(x * 3.0).sum()
    >>> [(entry.name, entry.shape) for entry in rec.entries]
    [('mul', (2,)), ('tanh', (2,)), ('sum', ())]
    >>> rec.entry(y.grad_fn).saved_bytes
    0
    """

    def __init__(
        self, values: Literal["strips", "full"] | None, times: bool, alone: bool = False
    ) -> None:
        if values is None:
            self.values = None
        else:
            self.values = checks.choice("record", "values", values, ("strips", "full"))
        self.times = checks.flag("record", "times", times)
        full = self.values == "full"
        self._recorder = Recorder(self.values is not None, full, self.times, alone)
        self._open = 0

    @property
    def entries(self) -> list[Entry]:
        """An `Entry` for each op."""
        return self._recorder.entries

    def entry(self, made: Node | Tensor | int) -> Entry | None:
        """The entry of one op, or None if it was not recorded here.

        Args:
            made: A Node; a Tensor, for the op that made it; or a serial.

        Raises:
            TypeError: `made` is none of these.
        """
        if isinstance(made, Tensor):
            made_by = made.grad_fn
            return None if made_by is None else self.entry(made_by)
        if isinstance(made, Node):
            return self._recorder.find(made.serial)
        if isinstance(made, (int, np.integer)) and not isinstance(made, bool):
            return self._recorder.find(checks.integer("record", "made", made))
        raise TypeError(
            f"record: made must be a Node, a Tensor or a serial, got {type(made).__name__}"
        )

    def __enter__(self) -> Recording:
        if self._open:
            raise RuntimeError("record: this recording is open already: begin another one")
        self._recorder.open()
        self._open = 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._open:
            raise RuntimeError("record: this recording is not open")
        if not self._recorder.close():
            raise RuntimeError("record: a recording must be ended by the thread that began it")
        self._open = 0

    def __repr__(self) -> str:
        return f"<Recording of {len(self.entries)} ops>"

    def __str__(self) -> str:
        """A line for each kind of op, the most frequent first."""
        counts = Counter((entry.scope, entry.name) for entry in self.entries)
        lines = [repr(self)]
        for (where, name), count in counts.most_common(ROWS):
            lines.append(f"{count:8d} {name:16s} {where}")
        if len(counts) > ROWS:
            lines.append(f"     ... {len(counts) - ROWS} more kinds")
        return "\n".join(lines)


def record(values: Literal["strips", "full"] | None = None, times: bool = False) -> Recording:
    """A context that notes each op which this thread records inside of it.

    Each entry has the op's name and shape, the user's line, the path of the module and the time
    step that it belongs to, its inputs and what it saved; see `Entry`. The same is told by `where`,
    `scope`, `t`, `shape` and `dtype` of a Node, as long as the recording is there.

    Recordings may stand inside each other: an op is noted in all that are open. In generators they
    may end in any order. Other threads are not recorded, nor is what runs within `mg.no_grad`.

    The recording may be opened again, and goes on: ``with rec: loss.backward()`` adds the gradients
    to the entries that are there.

    Args:
        values: "strips" keeps a `Summary` of each output, of constants, and of the gradients of
            backward passes inside the block: range, mean, norm, and 48 of the numbers; "full" keeps
            a copy of all numbers too. Default: None, keep no values.
        times: Whether to keep the nanoseconds from one op to the next, and those of each rule in
            backward passes inside of the block. Default: False.

    Returns:
        A `Recording`.

    Raises:
        TypeError: `times` is not a bool, or `values` no str.
        ValueError: `values` is another word.

    >>> import minigrad as mg
    >>> cell = mg.nn.RNNCell(2, 3)
    >>> with mg.study.record() as rec, mg.study.scope("encoder"):
    ...     out, h = mg.nn.unroll(cell, mg.ones((2, 1, 2)))
    >>> for entry in rec.entries[:4]:
    ...     print(entry.t, entry.name, entry.scope)
    0 addmm encoder/RNNCell
    0 addmm encoder/RNNCell
    0 tanh encoder/RNNCell
    1 reshape encoder/RNNCell
    """
    return Recording(values, times)


class scope:
    """A context that gives a name to what this thread records inside of it: a part of
    `Entry.scope`. It counts in recordings that are open around it, and in those that begin inside
    of it; in no recording it does nothing. It may be used again, inside of itself too, and by
    several threads.

    Args:
        name: A name without "/".

    Raises:
        TypeError: `name` is not a str.
        ValueError: `name` is empty or has a "/" in it.

    >>> import minigrad as mg
    >>> x = mg.ones(2, requires_grad=True)
    >>> with mg.study.record() as rec:
    ...     with mg.study.scope("loss"):
    ...         y = (x * x).sum()
    >>> y.grad_fn.scope
    'loss'
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"scope: name must be a str, got {type(name).__name__}")
        self.name = str.__str__(name)  # of a subclass, the plain str
        if not self.name or "/" in self.name:
            raise ValueError(
                f"scope: name must not be empty or have a / in it, got {reprlib.repr(self.name)}"
            )

    def __enter__(self) -> scope:
        open_scope(self.name, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        close_scope(self)
