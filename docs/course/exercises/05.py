"""Exercise 5: the rule of the linear layer."""


def linear_backward(dy, x, W):
    """The gradients (dx, dW, db) of y = x W + b. x: (B, I), W: (I, O), b: (O,), dy: (B, O)."""
    raise NotImplementedError
