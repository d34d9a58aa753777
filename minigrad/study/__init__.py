"""Tools to study networks with: gradient checks, drawings of the graph, dynamics of the state."""

from minigrad.study import dynamics

__all__ = ["dynamics"]
