"""The optimisers that the tests of mg.optim make, their parameters and gradients."""

import numpy as np
import pytest

import minigrad as mg

optim = mg.optim
OFFERED = {
    c.__name__: c for c in (optim.SGD, optim.RMSprop, optim.Adam, optim.AdamW, optim.Adagrad)
}
SHAPES = ((3, 4), (5,), ())
MAKERS = {
    "SGD": lambda p: optim.SGD(p, 0.1),
    "SGD momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.5, weight_decay=0.01),
    "SGD nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, 0.01, weight_decay=0.01),
    "Adam amsgrad": lambda p: optim.Adam(p, 0.01, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, 0.01),
    "RMSprop": lambda p: optim.RMSprop(p, 0.01, weight_decay=0.01),
    "RMSprop centered": lambda p: optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: optim.Adagrad(p, 0.01, lr_decay=0.1, initial_accumulator_value=0.1),
    "maximize": lambda p: optim.Adam(p, 0.01, maximize=True, weight_decay=0.01),
    "groups": lambda p: optim.Adam(
        [{"params": p[:1], "lr": 0.02, "betas": [0.8, 0.9]}, {"params": p[1:], "amsgrad": True}]
    ),
}
each_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def leaves(arrays):
    return [mg.Tensor(a, requires_grad=True) for a in arrays]


def draw(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def set_gradients(parameters, arrays):
    for p, g in zip(parameters, arrays, strict=True):
        p.grad = mg.Tensor(g)


def bits(parameters):
    return [p.numpy().tobytes() for p in parameters]


def same_state(a, b):
    """Equal keys, options and counts, arrays of the same dtype and bits."""

    def fixed(state):
        return {
            k: (v.dtype, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v
            for k, v in state.items()
        }

    return fixed(a) == fixed(b)


def trained(name, options, start, gradients):
    """Parameter and state after a step with each of the gradients, as a list of arrays."""
    (p,) = leaves([start])
    optimizer = OFFERED[name]([p], **options)
    for g in gradients:
        p.grad = mg.Tensor(g)
        optimizer.step()
    return [p.numpy(), *(a for k, a in optimizer.state[p].items() if k != "step")]


def rows(n, dtype, count=6):
    rng = np.random.default_rng(n)
    return [rng.standard_normal(n).astype(dtype) for _ in range(count)]
