"""Checks of arguments: one wording for each kind."""

import math
import operator
import os
from typing import Any

import numpy as np

from minigrad.core.array import check_data


def size(op: str, name: str, value: Any) -> int:
    """`value` as a positive int; a bool or a float is a TypeError."""
    try:
        found = operator.index(None if isinstance(value, (bool, np.bool_)) else value)
    except MemoryError:
        raise
    except Exception:
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}") from None
    if found <= 0:
        raise ValueError(f"{op}: {name} must be greater than zero, got {found}")
    if found >= 2**31:
        raise ValueError(f"{op}: {name} must be below 2 ** 31, got {found}")
    return found


def check_memory(op: str, count: int, what: str) -> None:
    """A MemoryError for `count` float64 that this machine cannot hold, before an attempt takes
    minutes or ends the process."""
    pages = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(getattr(os, "sysconf_names", ()))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if pages else 2**48
    if count * 8 > memory:
        raise MemoryError(f"{op}: cannot allocate {count * 8} bytes for the weights of {what}")


def flag(op: str, name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be a bool, got {type(value).__name__}")
    return bool(value)


def plain_array(op: str, name: str, value: Any) -> np.ndarray:
    """`value` as an array; a masked array and nested lists of different lengths are errors."""
    check_data(value, op, name)
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{op}: {name} must be an array, got nested lists of different lengths"
        ) from None


def _number(
    op: str, name: str, value: Any, low: float = 0, high: float = math.inf, ends: str = "[)"
) -> float:
    """`value` as a float between low and high; ends says whether these belong to the range: "[)" is
    low <= value < high."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not (
        (low <= value if ends[0] == "[" else low < value)
        and (value <= high if ends[1] == "]" else value < high)
    ):
        bounds = (
            [f"at least {low}" if ends[0] == "[" else f"above {low}"] if low > -math.inf else []
        )
        bounds += ["finite"] if high == math.inf and ends[1] == ")" else []
        bounds += (
            [f"at most {high}" if ends[1] == "]" else f"below {high}"] if high < math.inf else []
        )
        raise ValueError(f"{op}: {name} must be {' and '.join(bounds)}, got {value}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{op}: {name} must be a number that float64 holds, got an int of {value.bit_length()} bits"
        ) from None
