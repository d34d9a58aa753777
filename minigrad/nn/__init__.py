"""The public names of minigrad.nn: modules, layers, recurrent cells and layers, tools for them."""

from minigrad.nn import init as init
from minigrad.nn.cell import Cell, CellState, HiddenState
from minigrad.nn.gru import GRU, GRUCell
from minigrad.nn.layers import Dropout, Embedding, Linear
from minigrad.nn.lstm import LSTM, LSTMCell
from minigrad.nn.module import Module, Parameter
from minigrad.nn.recurrent import Recurrent
from minigrad.nn.rnn import RNN, RNNCell
from minigrad.nn.sequence import bidirectional, merge_directions, unroll
from minigrad.nn.spectral import power_norms, scale_spectral_radius_, spectral_radius

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "CellState",
    "Dropout",
    "Embedding",
    "GRUCell",
    "HiddenState",
    "LSTMCell",
    "Linear",
    "Module",
    "Parameter",
    "RNNCell",
    "Recurrent",
    "bidirectional",
    "init",
    "merge_directions",
    "power_norms",
    "scale_spectral_radius_",
    "spectral_radius",
    "unroll",
]
