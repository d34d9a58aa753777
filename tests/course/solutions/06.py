"""Exercise 6: backpropagation through time."""

import numpy as np


def rnn_backward(dh, x, h, W, U):
    dx, dW, dU, db = np.zeros_like(x), np.zeros_like(W), np.zeros_like(U), np.zeros(len(U))
    dh_next = np.zeros_like(h[0])
    for t in reversed(range(len(x))):
        da = (dh[t] + dh_next) * (1 - h[t] ** 2)
        before = h[t - 1] if t > 0 else np.zeros_like(h[0])
        dx[t] = da @ W.T
        dW += x[t].T @ da
        dU += before.T @ da
        db += da.sum(axis=0)
        dh_next = da @ U.T
    return dx, dW, dU, db
