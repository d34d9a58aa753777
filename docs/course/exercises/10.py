"""Exercise 10: one step of a GRU, and one rule in C."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gru_step(x, h, W, U, b):
    """The new h. x: (B, I), h: (B, H), W: (I, 3H), U: (H, 3H), b: (3H,); the gates stand side by
    side in the order r, z, n, and the reset gate r multiplies h before the product with U."""
    raise NotImplementedError


# The rule of tanh in C: dx[i] = dy[i] (1 - y[i]^2) for i = 0 to n - 1.
SOURCE = """
void tanh_rule(const double *dy, const double *y, double *dx, long n) {
}
"""
