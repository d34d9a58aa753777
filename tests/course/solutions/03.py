"""Exercise 3: the sweep."""

import numpy as np


def sweep(z, tape):
    grads = {z: np.ones_like(z.value)}
    for node in reversed(tape):
        if node not in grads:
            continue
        for x, dx in zip(node.inputs, node.rule(grads[node]), strict=True):
            grads[x] = grads[x] + dx if x in grads else dx
    return grads
