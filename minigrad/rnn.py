"""The recurrent layers that run whole sequences in C: RNN, LSTM, GRU, several layers deep, in one direction or both.

A layer is a stack of cells of cells.py: the cells hold the weights, and the layer runs them over the sequence by recurrent.pyx instead of op by op.
Both forms compute the same; `composed=True` runs the op-by-op form. What a layer adds is here: checking what it is called with, stacking, merging
the two directions, dropout between layers.
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minigrad.cells import GRUCell, LSTMCell, RNNCell
from minigrad.dropout import dropout, dropout_mask
from minigrad.nn import Module
from minigrad.recurrent import Telemetry, sequence
from minigrad.sequence import merge_directions, unroll
from minigrad.shape import stack
from minigrad.tensor import Tensor

MERGES = ("concat", "sum", "mean", "mul", None)


class HiddenState(NamedTuple):
    """The state of an RNN or GRU: h of shape (num_layers * directions, B, H)."""
    h: Tensor

    def detach(self) -> "HiddenState":
        """The same values, cut from the graph: for truncated BPTT."""
        return HiddenState(self.h.detach())


class CellState(NamedTuple):
    """The state of an LSTM: h and c, each of shape (num_layers * directions, B, H)."""
    h: Tensor
    c: Tensor

    def detach(self) -> "CellState":
        """The same values, cut from the graph: for truncated BPTT."""
        return CellState(self.h.detach(), self.c.detach())
