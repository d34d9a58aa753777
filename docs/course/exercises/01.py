"""Exercise 1: the nodes of a graph, inputs first."""


def order(node):
    """All nodes that `node` was made of, and itself at the end: a list in which the inputs of each
    node stand before it. Each node has `inputs`, a tuple of Nodes. Use a loop and a list of your
    own, not recursion: graphs may be longer than Python recurses."""
    raise NotImplementedError
