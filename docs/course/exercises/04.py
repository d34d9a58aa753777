"""Exercise 4: the gradient of what was broadcast."""


def unbroadcast(dz, shape):
    """The gradient of an array of `shape` that was broadcast to dz.shape: dz, summed over the axes
    along which the array was repeated; of shape `shape`."""
    raise NotImplementedError
