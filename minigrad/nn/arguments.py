"""The checks of what a recurrent layer or loop is called with beside tensors: lengths, reset, mask
and the bound of the state's gradient."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.core.array import check_data, is_masked

__all__ = [
    "Steps",
    "checked_clip",
    "checked_lengths",
    "checked_mask",
    "checked_reset",
    "no_second_order",
]

Array = NDArray[Any]


class Steps:
    """In which steps a row of a batch takes part, and where it starts anew: `lengths` and `reset`,
    checked and copied once for all layers and directions. What it holds cannot be changed.

    Args:
        op: how messages name what was called.
        T: the steps of the sequence.
        B: the rows of the batch.
        lengths: (B,) ints from 0 to T, or None: T for all.
        reset: bool (T, B), or None: nowhere.

    Raises:
        TypeError: lengths are not ints, or reset is not of bool.
        ValueError: one of them has the wrong shape, or a length is outside 0 to T.
    """

    __slots__ = ("B", "T", "lengths", "reset")

    T: int
    B: int
    lengths: Array | None
    reset: Array | None

    def __init__(self, op: str, T: int, B: int, lengths: Any, reset: Any) -> None:
        if lengths is not None:
            lengths = checked_lengths(op, lengths, T, B)
            lengths.flags.writeable = False
        if reset is not None:
            reset = checked_reset(op, reset, T, B)
            reset.flags.writeable = False
        keep = object.__setattr__
        keep(self, "T", T)
        keep(self, "B", B)
        keep(self, "lengths", lengths)
        keep(self, "reset", reset)

    def __setattr__(self, name: str, value: Any) -> None:
        """The layers in C read beyond their arrays where this was not checked."""
        raise AttributeError(f"Steps: {name} cannot be changed: make new Steps")


def checked_mask(op: str, mask: Any, dtype: np.dtype[Any], B: int, H: int) -> Array:
    """A copy of the mask (B, H) that nobody else can change."""
    if is_masked(mask):
        raise TypeError(
            f"{op}: mask must not be a masked array, the mask would be lost: use mask.filled(value)"
        )
    array = np.array(mask)
    if array.dtype != dtype:
        raise TypeError(
            f"{op}: mask has dtype {array.dtype}, x has {dtype}: both must have one dtype"
        )
    if array.shape != (B, H):
        raise ValueError(
            f"{op}: mask must have shape {(B, H)} = (batch, hidden_size), got {array.shape}"
        )
    return np.ascontiguousarray(array, dtype)


def checked_lengths(op: str, lengths: Any, T: int, B: int) -> Array:
    """lengths as B int64 from 0 to T, in memory of their own: copied first, then checked, so that
    nobody changes them in between."""
    array = _owned(op, "lengths", lengths)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{op}: lengths must be integers, got {array.dtype}")
    if array.shape != (B,):
        raise ValueError(f"{op}: lengths must have shape ({B},) = (batch,), got {array.shape}")
    for index in np.flatnonzero((array < 0) | (array > T))[:1]:
        raise ValueError(
            f"{op}: lengths must be from 0 to T = {T}, got {array[index]} at index {index}"
        )
    return array.astype(np.int64)


def checked_reset(op: str, reset: Any, T: int, B: int) -> Array:
    """reset as an array of bool (T, B), in memory of its own."""
    array = _owned(op, "reset", reset)
    if array.dtype != np.bool_:
        raise TypeError(f"{op}: reset must be an array of bool, got {array.dtype}")
    if array.shape != (T, B):
        raise ValueError(
            f"{op}: reset must have shape ({T}, {B}) = (time, batch), got {array.shape}"
        )
    return array


def _owned(op: str, name: str, value: Any) -> Array:
    """A copy of `value` as an array in C order."""
    check_data(value, op, name)
    try:
        return np.array(value, order="C", copy=True, subok=False)
    except ValueError:
        raise ValueError(
            f"{op}: {name} must be an array, got nested lists of different lengths"
        ) from None


def checked_clip(op: str, name: str, clip: Any) -> float:
    """The bound of the state's gradient as a float above 0; 0.0, which is none, for None."""
    if clip is None:
        return 0.0
    numbers = (int, float, np.integer, np.floating)
    if isinstance(clip, (bool, np.bool_)) or not isinstance(clip, numbers):
        raise TypeError(f"{op}: {name} must be a number or None, got {type(clip).__name__}")
    if not clip > 0:
        raise ValueError(f"{op}: {name} must be above 0, got {clip}")
    try:
        return float(clip)
    except OverflowError:  # an int beyond float: no bound for any number
        return math.inf


def no_second_order(op: str) -> RuntimeError:
    """The error where a clipped gradient is to be differentiated again.

    What the later sweep brings back to the layer is the sum of two kinds of gradients: those of the
    loss, which are to be clipped, and those that come from the derivative of the first sweep, which
    must not be. A layer or an op above that is not linear adds them up.
    """
    return RuntimeError(
        f"{op}: with clip_state_grad a gradient cannot be differentiated again "
        f"(create_graph=True): a clipped gradient is not the derivative of a value, and the second "
        f"sweep could not tell what is to be clipped from what is not. Make the layer without "
        f"clip_state_grad"
    )
