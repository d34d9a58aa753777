"""Exercise 2: two ops that put themselves on the tape."""


def mul(a, b):
    """z = a b for two Nodes: record the value a.value * b.value with a rule that takes dz and
    returns [da, db]."""
    raise NotImplementedError


def tanh(x):
    """y = tanh(x), with np.tanh: its rule takes dy and returns [dx]."""
    raise NotImplementedError
