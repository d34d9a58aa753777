"""Windows of a series: what a forecaster sees, and what it should say."""

from typing import Any

import numpy as np

from minigrad.checks import size
from minigrad.data.arrays import _numbers


def windows(
    series: Any, length: int, horizon: int = 1, step: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of `length` values of a series and the `horizon` values after them, every `step`
    places.

    series: (T,) or (T, ...). Returns x (length, N, ...) and y (horizon, N, ...), time first as
    everywhere: window n begins at n * step. Both are read-only views of one copy of the series, in
    its dtype; a list of floats is float64, so that times such as 1.7e9 keep their seconds: scale
    them, and make float32 of them then.

    >>> import minigrad as mg
    >>> x, y = mg.data.windows([1, 2, 3, 4, 5], length=2, horizon=1)
    >>> x.T.tolist(), y.T.tolist()
    ([[1, 2], [2, 3], [3, 4]], [[3], [4], [5]])
    """
    op = "windows"
    length, horizon, step = (
        size(op, "length", length),
        size(op, "horizon", horizon),
        size(op, "step", step),
    )
    series = _numbers(series, op, "series")
    if series.ndim == 0 or len(series) < length + horizon:
        got = f"{len(series)} values" if series.ndim else "a single number"
        raise ValueError(
            f"{op}: series must have at least {length + horizon} = length + horizon values, got {got}"
        )
    both = np.lib.stride_tricks.sliding_window_view(series.copy(), length + horizon, axis=0)[
        ::step
    ]  # (N, ..., window)
    both = np.moveaxis(both, -1, 0)
    return both[:length], both[length:]
