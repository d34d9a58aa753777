"""What stays the same at every step of a sequence that runs through a cell: slices of parameters,
the cut weights of a gated cell, the mask of recurrent dropout.

Each is made once for the sequence, however often `step` asks for it: one node on the tape, one
gradient over all steps. Per thread, like recording.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minigrad.core.modes import is_grad_enabled
from minigrad.core.recording import OpenScope, is_studied, name_of_module, open_recorders

if TYPE_CHECKING:
    from types import TracebackType

    from minigrad.core.tensor import Tensor

__all__ = ["Running", "index_key", "running"]

Index = tuple[Any, ...]


class Running:
    """A sequence that runs, as a context.

    In a recording it gives the ops the name of the cell as a scope, and the time step. Ctrl-C may
    come just where a `with` begins or ends: so who opens it calls `close` in a `finally` as well.

    Args:
        cell: the cell that it runs through.
        weights: what the cell has in place of its own weights, or None.
        mask: the mask of recurrent dropout (B, H), or None.
    """

    def __init__(self, cell: Any, weights: Any, mask: Tensor | None) -> None:
        self.cell = cell
        self.weights = weights
        self.mask = mask
        self.mask_was_used = False
        self._parts: dict[int, tuple[Any, Any]] = {}
        self._slices: dict[Any, tuple[Tensor, Tensor]] = {}
        self._outer = _this_thread.running
        self._scope: OpenScope | None = None

    def parts(self, cell: Any) -> Any:
        """What cell._start gave for the weights that the cell has in this sequence."""
        if id(cell) not in self._parts:
            weights = self.weights if cell is self.cell else None
            parts = cell._start(cell._weights() if weights is None else weights)
            # The cell is kept too: its id must not become another's.
            self._parts[id(cell)] = (cell, parts)
        return self._parts[id(cell)][1]

    def slice_of(self, parameter: Tensor, index: Index, make: Callable[[], Tensor]) -> Tensor:
        """The slice that `make` makes, or the one that was made in this sequence."""
        key = (id(parameter), index, is_grad_enabled())
        if key not in self._slices:
            # The parameter is kept too: its id must not become another's.
            self._slices[key] = (make(), parameter)
        return self._slices[key][0]

    def note_time(self, t: int) -> None:
        """Tell the recordings which step the next ops belong to."""
        if self._scope is not None:
            self._scope.note_time(t)

    def __enter__(self) -> Running:
        _this_thread.running = self
        if open_recorders and is_studied():
            self._scope = OpenScope(name_of_module(self.cell))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """What ran before runs again. To close twice does no harm."""
        _this_thread.running = self._outer
        if self._scope is not None:
            self._scope.end()


class _ThisThread(threading.local):
    running: Running | None = None


_this_thread = _ThisThread()


def running() -> Running | None:
    """The innermost sequence that runs in this thread."""
    return _this_thread.running


def index_key(index: Any) -> Index | None:
    """An index of ints, slices, None and ... as a key of a dict; None for other ones."""
    parts = index if isinstance(index, tuple) else (index,)
    key: list[Any] = []
    for part in parts:
        if isinstance(part, slice):
            bounds = (part.start, part.stop, part.step)
            if not all(type(bound) is int or bound is None for bound in bounds):
                return None
            key.append(("slice", *bounds))
        elif type(part) is int or part is None or part is Ellipsis:
            key.append(part)
        else:
            return None
    return tuple(key)
