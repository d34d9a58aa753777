"""A model of one line and its batches, and how two states are compared."""

import contextlib
import io

import numpy as np

import minigrad as mg
from minigrad.training.loop import fit


def same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        assert np.asarray(found[name]).tobytes() == np.asarray(expected[name]).tobytes(), name


X = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
BATCHES = [(mg.Tensor(X[i::4]), mg.Tensor(3 * X[i::4] + 1)) for i in range(4)]


class Line(mg.nn.Module):
    """One linear layer and what fit needs; run(...) fits it to a line."""

    def __init__(self):
        self.linear, self.seen = mg.nn.Linear(1, 1, rng=np.random.default_rng(0)), []
        self.optimizer = mg.optim.SGD(self.parameters(), lr=0.1)

    def loss(self, x, y):
        assert self.training
        self.seen.append(x.numpy()[0, 0])
        return mg.mse(self.linear(x), y)

    def run(self, batches=BATCHES, **options):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            history = fit(self, self.optimizer, self.loss, batches, **options)
        self.out = out.getvalue()
        return history
