"""Exercise 7: how much of a gradient is left."""

import numpy as np


def gradient_norms(dh, h, U):
    norms = [np.linalg.norm(dh)]
    for t in reversed(range(1, len(h))):
        dh = (dh * (1 - h[t] ** 2)) @ U.T
        norms.append(np.linalg.norm(dh))
    return np.array(norms[::-1])
