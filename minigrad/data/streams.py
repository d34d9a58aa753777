"""A stream of tokens cut into pieces for truncated BPTT."""

from typing import TYPE_CHECKING

import numpy as np

from minigrad.checks import size
from minigrad.data.arrays import _array
from minigrad.data.place import _Place

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["Stream"]


class Stream(_Place):
    """A long sequence as contiguous pieces that are read side by side.

    It is for language models that carry their state on. One iteration is one pass of pairs (x, y),
    each (length, batch_size, ...). y is x one token later, and in every column each x begins where
    the one before ended, so the state may be carried on through the whole pass. Every iteration
    starts from the beginning, and there the state must start anew, too. Tokens that do not fill a
    window are left out: fewer than batch_size + length * batch_size at the ends of the pieces.

    Args:
        tokens: (N, ...), at least batch_size * (length + 1) of them.
        batch_size: The number of pieces, at least 1.
        length: The number of steps of a window, at least 1.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import numpy as np, minigrad as mg
    >>> for x, y in mg.data.Stream(np.arange(10), batch_size=2, length=2):
    ...     print(x.tolist(), y.tolist())
    [[0, 5], [1, 6]] [[1, 6], [2, 7]]
    [[2, 7], [3, 8]] [[3, 8], [4, 9]]
    """

    def __init__(self, tokens: "Operand", batch_size: int, length: int) -> None:
        op = "Stream"
        super().__init__()
        self.batch_size = size(op, "batch_size", batch_size)
        self.length = size(op, "length", length)
        tokens = _array(tokens, op, "tokens")
        if tokens.ndim == 0:
            raise ValueError(f"{op}: tokens must have shape (N, ...), got ()")
        piece = len(tokens) // self.batch_size
        if piece <= self.length:
            raise ValueError(
                f"{op}: tokens must be at least {self.batch_size * (self.length + 1)} = "
                f"batch_size * (length + 1), got {len(tokens)}"
            )
        pieces = tokens[: piece * self.batch_size].reshape(
            self.batch_size, piece, *tokens.shape[1:]
        )
        self._pieces = pieces.swapaxes(0, 1).copy()  # (piece, B, ...)
        self._pieces.flags.writeable = False  # the windows are views

    def __len__(self) -> int:
        """The number of windows of a pass."""
        return (len(self._pieces) - 1) // self.length

    def _order(self, drawn: dict[str, int] | None) -> range:
        return range(0, len(self) * self.length, self.length)

    def _batch(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        end = start + self.length
        return self._pieces[start:end], self._pieces[start + 1 : end + 1]
