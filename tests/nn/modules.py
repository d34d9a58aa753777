"""The cells and the module that the tests of mg.nn share."""

import numpy as np
import pytest

import minigrad as mg

nn = mg.nn
CELLS = {
    "rnn": lambda I, H, **o: nn.RNNCell(I, H, **o),
    "relu": lambda I, H, **o: nn.RNNCell(I, H, nonlinearity="relu", **o),
    "lstm": lambda I, H, **o: nn.LSTMCell(I, H, **o),
    "peepholes": lambda I, H, **o: nn.LSTMCell(I, H, peepholes=True, **o),
    "layer norm": lambda I, H, **o: nn.LSTMCell(I, H, layer_norm=True, **o),
    "gru": lambda I, H, **o: nn.GRUCell(I, H, **o),
    "gru after": lambda I, H, **o: nn.GRUCell(I, H, reset_after=True, **o),
}
each_cell = pytest.mark.parametrize("name", CELLS)


class Net(nn.Module):
    def __init__(self):
        self.embed = nn.Embedding(5, 3)
        self.layers = [nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 4, bias=False)]
        self.scale = nn.Parameter([2.0])
        self.label = "not a module"

    def forward(self, indices):
        x = self.embed(indices)
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


def randomised(module, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    with mg.no_grad():
        for p in module.parameters():
            p[...] = scale * rng.standard_normal(p.shape).astype(p.dtype)
    return module


def draw(*shape, seed=1, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
