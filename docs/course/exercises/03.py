"""Exercise 3: the sweep."""


def sweep(z, tape):
    """The gradient of z with respect to every node that it was made of: a dict {Node: gradient}.

    tape: all recorded nodes, the oldest first; some of them may have nothing to do with z. Each has
    `inputs` and `rule`: rule(dz) returns a list with the gradient of each input."""
    raise NotImplementedError
