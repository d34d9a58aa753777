"""Exercise 9: one step of an LSTM."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def lstm_step(x, h, c, W, U, b):
    """The new (h, c). x: (B, I), h and c: (B, H), W: (I, 4H), U: (H, 4H), b: (4H,); the four gates
    stand side by side in the order i, f, g, o."""
    raise NotImplementedError
