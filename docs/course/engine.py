"""The small engine that the course builds, as far as exercises use it: a Node, and the tape."""

import numpy as np


class Node:
    """A value and how it was made.

    Args:
        value: an array.
        inputs: the Nodes that it was made of; none for a leaf.
        rule: takes dz, the gradient of this node, and returns a list with the gradient of each
            input; None for a leaf.
    """

    def __init__(self, value, inputs=(), rule=None):
        self.value = np.asarray(value, np.float64)
        self.inputs = tuple(inputs)
        self.rule = rule


tape = []  # all nodes that were recorded, the oldest first


def record(value, inputs, rule):
    """Put a new Node on the tape and return it."""
    node = Node(value, inputs, rule)
    tape.append(node)
    return node
