"""Where the plots draw: matplotlib, which is optional."""

from typing import Any

__all__ = ["axes_of", "number_of"]


def axes_of(op: str, ax: Any) -> Any:
    """The matplotlib Axes to draw on: the one that was given, or a new one."""
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ImportError(f"{op}: a plot needs matplotlib: pip install matplotlib") from None
    return pyplot.subplots(layout="constrained")[1]


def number_of(count: int, noun: str) -> str:
    """A count with its noun: "1 row", "2 rows"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
