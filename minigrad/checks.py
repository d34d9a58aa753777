"""Checks of arguments: one function and one wording for each kind.

`op` is the public name that the user called, which begins each message; `name` is the argument.
"""

import math
import operator
import os
import reprlib
from typing import Any

import numpy as np

from minigrad.core.array import check_data

__all__ = [
    "check_memory",
    "choice",
    "flag",
    "integer",
    "is_number",
    "number",
    "plain_array",
    "probability",
    "size",
]


def integer(op: str, name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """`value` as an int from low to high, both included; a bool or a float is a TypeError."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        found = operator.index(value)
    except MemoryError:
        raise
    except Exception:
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}") from None
    if low is not None and found < low:
        raise ValueError(f"{op}: {name} must be at least {low}, got {_shown(found)}")
    if high is not None and found > high:
        is_power = high > 2**16 and (high & (high + 1)) == 0
        bound = f"below 2 ** {high.bit_length()}" if is_power else f"at most {high}"
        raise ValueError(f"{op}: {name} must be {bound}, got {_shown(found)}")
    return found


def size(op: str, name: str, value: Any) -> int:
    """`value` as a positive int that fits a dimension."""
    return integer(op, name, value, 1, 2**31 - 1)


def flag(op: str, name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be a bool, got {type(value).__name__}")
    return bool(value)


def choice(op: str, name: str, value: Any, words: tuple[str, ...]) -> str:
    """`value` as one of the words."""
    *others, last = map(repr, words)
    expected = f"{', '.join(others)} or {last}" if others else last
    if not isinstance(value, str):
        raise TypeError(f"{op}: {name} must be {expected}, got {type(value).__name__}")
    found = str.__str__(value)  # a subclass may have its own idea of equality
    if found not in words:
        raise ValueError(f"{op}: {name} must be {expected}, got {reprlib.repr(found)}")
    return found


def is_number(value: Any) -> bool:
    """Is this a real number? A bool is not."""
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, (bool, np.bool_))


def real(op: str, name: str, value: Any, expected: str = "a number") -> float:
    """`value` as a float: any real number, NaN and the infinities too."""
    if not is_number(value):
        raise TypeError(f"{op}: {name} must be {expected}, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{op}: {name} must be a number that float64 holds, got {_shown(value)}"
        ) from None


def number(
    op: str, name: str, value: Any, low: float = 0, high: float = math.inf, ends: str = "[)"
) -> float:
    """`value` as a float between low and high; ends says whether these belong to the range: "[)" is
    low <= value < high."""
    if not is_number(value):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    above_low = low <= value if ends[0] == "[" else low < value
    below_high = value <= high if ends[1] == "]" else value < high
    if not (above_low and below_high):
        expected = _interval(low, high, ends)
        raise ValueError(f"{op}: {name} must be {expected}, got {_shown(value)}")
    return real(op, name, value)


def probability(op: str, name: str, value: Any) -> float:
    """`value` as a float from 0 to 1, both included."""
    return number(op, name, value, 0, 1, "[]")


def _interval(low: float, high: float, ends: str) -> str:
    """A range in words: "at least 0 and below 1"."""
    bounds = []
    if low > -math.inf:
        bounds.append(f"at least {low}" if ends[0] == "[" else f"above {low}")
    if high < math.inf:
        bounds.append(f"at most {high}" if ends[1] == "]" else f"below {high}")
    elif ends[1] == ")":
        bounds.append("finite")
    return " and ".join(bounds)


def _shown(value: Any) -> str:
    """A number in an error; Python refuses to print an int of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an int of {value.bit_length()} bits"
    return str(value)


def plain_array(op: str, name: str, value: Any) -> np.ndarray:
    """`value` as an array; a masked array and nested lists of different lengths are errors."""
    check_data(value, op, name)
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{op}: {name} must be an array, got nested lists of different lengths"
        ) from None


def check_memory(op: str, count: int, what: str) -> None:
    """A MemoryError for `count` float64 that this machine cannot hold, before an attempt takes
    minutes or ends the process."""
    pages = {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(getattr(os, "sysconf_names", ()))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if pages else 2**48
    if count * 8 > memory:
        raise MemoryError(f"{op}: cannot allocate {count * 8} bytes for the weights of {what}")
