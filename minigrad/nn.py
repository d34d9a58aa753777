"""The networks: what `minigrad.nn` offers. Each name lives in the room that its docstring describes."""
from minigrad.cells import GRUCell, LSTMCell, RNNCell
from minigrad.module import Dropout, Embedding, Linear, Module, Parameter
from minigrad.rnn import GRU, LSTM, RNN, CellState, HiddenState
from minigrad.sequence import bidirectional, merge_directions, unroll
from minigrad.spectral import power_norms, scale_spectral_radius_, spectral_radius

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
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
    "bidirectional",
    "merge_directions",
    "power_norms",
    "scale_spectral_radius_",
    "spectral_radius",
    "unroll",
]
