"""Exercise 7: how much of a gradient is left."""


def gradient_norms(dh, h, U):
    """The norms of dL/dh_0, ..., dL/dh_{T-1} of an RNN whose loss sees only the last state: dh
    (B, H) arrives there. h: (T, B, H), the states; U: (H, H). Returns an array of T numbers."""
    raise NotImplementedError
