"""Tools to study networks with: the reference engine to read, ops to record, a backward pass to
step through, gradient checks, drawings of the graph, what notebooks show, the dynamics of trained
networks.

What is large is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigrad.study import dynamics, reference
    from minigrad.study.explorer import explore
    from minigrad.study.profiling import profile
    from minigrad.study.recording import record, scope
    from minigrad.study.stepping import steps

__all__ = ["dynamics", "explore", "profile", "record", "reference", "scope", "steps"]

# Where the functions are that are public here.
FUNCTIONS = {
    "explore": "explorer",
    "profile": "profiling",
    "record": "recording",
    "scope": "recording",
    "steps": "stepping",
}


def __getattr__(name: str) -> Any:
    if name in FUNCTIONS:
        return getattr(import_module(f"{__name__}.{FUNCTIONS[name]}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
