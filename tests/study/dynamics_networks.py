"""Small networks with known weights, inputs and states, for the tests of mg.study.dynamics."""

import numpy as np

import minigrad as mg

T, B, I, H = 5, 3, 2, 4
KINDS = {
    "RNN": ("RNN", {}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "LSTM": ("LSTM", {}),
    "LSTM peepholes": ("LSTM", {"peepholes": True}),
    "GRU": ("GRU", {}),
    "GRU reset_after": ("GRU", {"reset_after": True}),
}
LENGTHS = np.array([5, 0, 3])
RESET = np.zeros((T, B), bool)
RESET[2] = [True, True, False]
RESET[4, 2] = True  # past the end of this row


def network(kind, size=1.0, dtype=np.float64, seed=0, **options):
    """A layer with normal weights, those of biases and peepholes included."""
    name, own = KINDS[kind]
    rng = np.random.default_rng(seed)
    made = getattr(mg.nn, name)(I, H, dtype=dtype, rng=rng, **own, **options)
    with mg.no_grad():
        for p in made.parameters():
            p[...] = (size * rng.standard_normal(p.shape)).astype(dtype)
    return made


def sequence(steps=T, rows=B, dtype=np.float64, seed=1):
    return mg.Tensor(np.random.default_rng(seed).standard_normal((steps, rows, I)).astype(dtype))


def initial(made, rows=B, seed=2):
    """A state for a network."""
    rng = np.random.default_rng(seed)
    shape = (len(made.cells), rows, H)
    names = made.cell_type.state_names
    return tuple(mg.Tensor(rng.standard_normal(shape).astype(made.cells[0].W.dtype)) for _ in names)


def by_autograd(cell, x, states, t, b):
    """The Jacobian of one step of a cell, by mg.jacobian, and the new state."""
    names = cell.state_names

    def step(s):
        parts = mg.split(s, len(names), axis=1)
        new = cell(x[t][b : b + 1], cell._as_state(tuple(parts)))
        return mg.concatenate(list(cell._states_of("test", new)), 1)

    before = mg.Tensor(np.concatenate(states)[None])
    with mg.no_grad():
        new = step(before).numpy()[0]
    return mg.jacobian(step, before).numpy()[0, :, 0, :], np.split(new, len(names))


def bistable(kind, **options):
    """A layer of one unit without input whose state keeps its sign."""
    name, own = KINDS[kind]
    made = getattr(mg.nn, name)(1, 1, dtype=np.float64, **own, **options)
    with mg.no_grad():
        for p in made.parameters():
            p[...] = 0.0
    return made
