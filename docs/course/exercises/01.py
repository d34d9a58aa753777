"""Exercise 1: the chain rule by hand. Check it with: python docs/course/check.py 1 my.py"""

import math  # noqa: F401 - for math.tanh


def value_and_gradients(a, b, c):
    """y = tanh(a b + c) a, of three numbers. Return y, dy/da, dy/db, dy/dc.

    Name the vertices of the graph p = a b, q = p + c, t = tanh q, y = t a, and go back from y.
    """
    raise NotImplementedError
