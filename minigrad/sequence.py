"""Loops over cells: a sequence through one cell, op by op, and the merging of two directions. Time-major: x is (T, B, I)."""
from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.cells import Cell, LSTMCell, Weights
from minigrad.elementwise import clip, where
from minigrad.shape import concatenate, stack
from minigrad.tensor import Tensor, record, zeros


def unroll(
    cell: Cell,
    x: Tensor,
    state: Any = None,
    *,
    lengths: Any = None,
    reset: Any = None,
    reverse: bool = False,
    mask: Any = None,
    weights: Weights | None = None,
    clip_state_grad: float | None = None,
) -> tuple:
    """Run x (T, B, I) through a cell, step by step; return out (T, B, H) and the state at each row's own end: h, or (h, c) for
    an LSTMCell.

    state: the initial h, or (h, c); None for zeros. lengths: (B,) ints from 0 to T: past its length a row's state stands still,
    its output is 0, and whatever x holds there, even NaN, changes nothing. reset: bool (T, B): where true the row starts anew
    from zeros before the step, and no gradient passes. reverse: from the last step to the first, each row from its own end.
    mask: (B, H), multiplies h before the recurrent product at every step. weights: in place of the cell's own. clip_state_grad:
    at every step the gradients that it hands to the state before it, of h and of c, are clipped to this bound, each element by
    itself (slide: gradient clipping).

    >>> import minigrad as mg
    >>> out, (h, c) = mg.nn.unroll(mg.nn.LSTMCell(3, 4), mg.ones((5, 2, 3)), lengths=[5, 2])
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    T, B, _ = x.shape
    H, two = cell.hidden_size, isinstance(cell, LSTMCell)
    parts = cell.start(cell.weights() if weights is None else weights)
    h, c = (cell.initial(B), cell.initial(B) if two else None) if state is None else state if two else (state, None)
    outputs = []
    for t in range(T - 1, -1, -1) if reverse else range(T):
        # What later steps make of the state is one value, gathered in a node of its own, and is added to the output's gradient
        # as a whole.
        h, c = carry(h), carry(c) if two else None
        alive = None if lengths is None else (t < np.asarray(lengths))[:, None]
        x_t = x[t] if alive is None else where(alive, x[t], 0.0)
        if reset is not None:
            anew = np.asarray(reset)[t][:, None] if alive is None else np.asarray(reset)[t][:, None] & alive
            h, c = where(anew, 0.0, h), where(anew, 0.0, c) if two else None
        h_in, c_in = (h, c) if clip_state_grad is None else (clip_grad(h, clip_state_grad), clip_grad(c, clip_state_grad))
        new = cell.step(parts, x_t, h_in, c_in, h_in if mask is None else h_in * Tensor(mask, copy=False))
        new_h, new_c = new if two else (new, None)
        if lengths is None:
            h, c = new_h, new_c
            outputs.append(h)
        else:
            h, c = where(alive, new_h, h), where(alive, new_c, c) if two else None
            outputs.append(where(alive, new_h, 0.0))
    out = stack(outputs[::-1] if reverse else outputs) if T else zeros((0, B, H), cell.W.dtype)
    return out, (h, c) if two else h


def carry(h: Tensor) -> Tensor:
    """h itself, through a node of its own."""
    return h.reshape(h.shape)


def clip_grad(h: Tensor | None, bound: float) -> Tensor | None:
    """h itself; its gradient is clipped to the bound."""
    return None if h is None else record("clip_grad", h._array, (h,), lambda dy: clip(dy, -bound, bound))


def merge_directions(forward: Tensor, backward: Tensor, merge: str | Callable[[Tensor, Tensor], Any] | None) -> Any:
    """The slide's y_n = [h_n, g_n] and its alternatives: "concat", "sum", "mean", "mul", a function of both, or None for the
    pair.

    >>> import minigrad as mg
    >>> mg.nn.merge_directions(mg.ones(2), mg.zeros(2), "mean")
    Tensor([0.5, 0.5])
    """
    if merge is None:
        return forward, backward
    if callable(merge):
        return merge(forward, backward)
    if merge == "concat":
        return concatenate([forward, backward], -1)
    if merge == "sum":
        return forward + backward
    if merge == "mean":
        return (forward + backward) * 0.5
    if merge == "mul":
        return forward * backward
    raise ValueError(
        f"merge_directions: merge must be 'concat', 'sum', 'mean', 'mul', None or a function of two tensors, got {merge!r}"
    )


def bidirectional(forward: Cell, backward: Cell, x: Tensor, merge: Any = "concat", *, lengths: Any = None) -> Any:
    """The slide's bidirectional network, op by op: two cells over x (T, B, I), one from each end, their outputs merged.

    >>> import minigrad as mg
    >>> cells = mg.nn.RNNCell(3, 4), mg.nn.RNNCell(3, 4)
    >>> mg.nn.bidirectional(*cells, mg.ones((5, 2, 3))).shape
    (5, 2, 8)
    """
    h, _ = unroll(forward, x, lengths=lengths)
    g, _ = unroll(backward, x, lengths=lengths, reverse=True)
    return merge_directions(h, g, merge)
