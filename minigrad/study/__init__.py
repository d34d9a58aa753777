"""Tools to study networks with: the reference engine to read, gradient checks, drawings of the
graph, what notebooks show, the dynamics of trained networks.

What is large is imported when it is first used.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minigrad.study import dynamics, reference

__all__ = ["dynamics", "reference"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
