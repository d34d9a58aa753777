"""What the checks of the exercises have in common: comparing, and saying what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

STEP = 1e-30  # of the complex step, which subtracts nothing: its error is that of one rounding


class Wrong(Exception):
    """A check that failed: what was expected, what the student's code gave, and one hint."""

    def __init__(self, expected: str, got: str, hint: str) -> None:
        super().__init__(hint)
        self.expected = expected
        self.got = got
        self.hint = hint


class Hinted(Exception):
    """An error of the student's code, with a hint that is better than the usual one."""

    def __init__(self, hint: str) -> None:
        super().__init__(hint)
        self.hint = hint


@contextmanager
def hint_for(error: type[Exception], hint: str) -> Iterator[None]:
    """If the student's code raises this error in the block, give this hint."""
    try:
        yield
    except (Wrong, Hinted):
        raise
    except error as reason:
        raise Hinted(hint) from reason


Known = Sequence[tuple[Any, str]]


def compare(what: str, got: Any, expected: Any, hint: str, known: Known = ()) -> None:
    """Raise Wrong unless got equals expected, up to rounding.

    known: pairs (what a usual mistake gives, its hint). The first that fits gives the hint.
    """
    expected = np.asarray(expected)
    if got is None:
        raise Wrong(f"{what} = {shown(expected)}", "None", "Is there a `return`?")
    try:
        value = np.asarray(got, dtype=np.float64)
    except (TypeError, ValueError):
        told = f"{what} of type {type(got).__name__}"
        raise Wrong(f"{what} = {shown(expected)}", told, f"Return numbers for {what}.") from None
    if same(value, expected):
        return
    for mistake, its_hint in known:
        if same(value, np.asarray(mistake)):
            hint = its_hint
            break
    if value.shape != expected.shape:
        raise Wrong(f"{what} of shape {expected.shape}", f"shape {value.shape}", hint)
    raise Wrong(f"{what} = {shown(expected)}", f"{what} = {shown(value)}", hint)


def same(a: Any, b: Any) -> bool:
    """Equal up to rounding, in shape too."""
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-12)


def shown(x: Any) -> str:
    """The first few numbers of an array, on one line."""
    x = np.asarray(x)
    if x.ndim == 0:
        return f"{x:.6g}"
    numbers = " ".join(f"{number:.4g}" for number in x.flat[:6])
    dots = " ..." if x.size > 6 else ""
    return f"[{numbers}{dots}] of shape {x.shape}"


def require(right: bool, expected: str, got: str, hint: str) -> None:
    """Raise Wrong unless right."""
    if not right:
        raise Wrong(expected, got, hint)


def listed(what: str, got: Any, count: int) -> list[Any]:
    """What a function returned as a list of so many results."""
    if got is None:
        raise Wrong(f"{what} returns {count} results", "None", "Is there a `return`?")
    if not isinstance(got, list | tuple) or len(got) != count:
        told = f"{len(got)}" if isinstance(got, list | tuple) else type(got).__name__
        raise Wrong(f"{what} returns {count} results", told, f"Return {count} of them, in order.")
    return list(got)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    """Random numbers that cannot be written to: a rule must leave its inputs alone."""
    x = np.asarray(rng.standard_normal(shape))
    x.flags.writeable = False
    return x


def complex_step(function: Callable[..., Any], inputs: Sequence[Any], dy: Any = 1.0) -> list[Any]:
    """The gradient of sum(dy * function(*inputs)) for each input, by Im f(x + i h) / h.

    It shares nothing with the chain rule, and it is exact to the last digits (Squire and Trapp,
    1998). The function must be made of analytic operations of NumPy.
    """
    gradients = []
    for k, x in enumerate(inputs):
        gradient = np.zeros(np.shape(x))
        for place in np.ndindex(gradient.shape):
            moved = [np.array(other, dtype=complex) for other in inputs]
            moved[k][place] += STEP * 1j
            gradient[place] = np.sum(dy * function(*moved)).imag / STEP
        gradients.append(gradient)
    return gradients
