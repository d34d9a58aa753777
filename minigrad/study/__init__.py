"""Tools to study gradients with: the reference engine to read, gradient checks, drawings of the
graph."""

from minigrad.study import reference

__all__ = ["reference"]
