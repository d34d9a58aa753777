"""Windows of a series: what a forecaster reads, and what it should predict."""

from typing import TYPE_CHECKING

import numpy as np

from minigrad.checks import size
from minigrad.data.arrays import _numbers

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["windows"]


def windows(
    series: "Operand", length: int, horizon: int = 1, step: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of `length` values of a series and the `horizon` values after them.

    Args:
        series: (T,) or (T, ...), with T at least length + horizon.
        length: How many values a window has, at least 1.
        horizon: How many values follow it, at least 1. Default: 1.
        step: The distance from the beginning of one window to the next, at least 1. Default: 1.

    Returns:
        x (length, N, ...) and y (horizon, N, ...), time first as everywhere: window n begins at
        n * step. Both are read-only views of one copy of the series, in its dtype. A list of floats
        is float64, so that times such as 1.7e9 keep their seconds: scale them before they become
        float32.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> x, y = mg.data.windows([1, 2, 3, 4, 5], length=2, horizon=1)
    >>> x.T.tolist(), y.T.tolist()
    ([[1, 2], [2, 3], [3, 4]], [[3], [4], [5]])
    """
    op = "windows"
    length = size(op, "length", length)
    horizon = size(op, "horizon", horizon)
    step = size(op, "step", step)
    series = _numbers(series, op, "series")
    if series.ndim == 0 or len(series) < length + horizon:
        got = f"{len(series)} values" if series.ndim else "a single number"
        raise ValueError(
            f"{op}: series must have at least {length + horizon} = length + horizon values, "
            f"got {got}"
        )
    view = np.lib.stride_tricks.sliding_window_view(series.copy(), length + horizon, axis=0)
    both = np.moveaxis(view[::step], -1, 0)  # (N, ..., window) to (window, N, ...)
    return both[:length], both[length:]
