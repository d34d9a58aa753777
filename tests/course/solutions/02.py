"""Exercise 2: two ops that put themselves on the tape."""

import numpy as np
from engine import record


def mul(a, b):
    return record(a.value * b.value, (a, b), lambda dz: [dz * b.value, dz * a.value])


def tanh(x):
    y = np.tanh(x.value)
    return record(y, (x,), lambda dy: [dy * (1 - y**2)])
