"""Exercise 8: clipping the norm of gradients."""


def clip_norm(grads, bound):
    """A list of arrays like grads, all scaled by one factor so that their common norm, the root of
    the sum of all squares, is at most `bound`."""
    raise NotImplementedError
