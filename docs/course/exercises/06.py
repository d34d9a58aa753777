"""Exercise 6: backpropagation through time."""


def rnn_backward(dh, x, h, W, U):
    """The gradients (dx, dW, dU, db) of h_t = tanh(x_t W + h_{t-1} U + b), with h_{-1} = 0.

    dh: (T, B, H), what arrives at each h_t from the outputs; x: (T, B, I); h: (T, B, H), the states
    of the forward pass; W: (I, H), U: (H, H)."""
    raise NotImplementedError
