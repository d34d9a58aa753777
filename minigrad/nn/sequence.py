"""Loops over cells: a sequence through one cell, op by op, and the merging of two directions.
Time-major: x is (T, B, I)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.checks import flag
from minigrad.core.modes import is_grad_enabled
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor, zeros
from minigrad.nn.cell import Cell, Weights
from minigrad.nn.fused import checked_clip, checked_lengths, checked_reset, no_second_order
from minigrad.ops.elementwise import clip, where
from minigrad.ops.shape import concatenate, stack

MERGES = ("concat", "sum", "mean", "mul", None)


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
) -> tuple[Any, ...]:
    """Run x (T, B, I) through a cell, step by step; return out (T, B, H) and the state at each
    row's own end: h, or (h, c) for an LSTMCell.

    state: the initial h, or (h, c); None for zeros. lengths: (B,) ints from 0 to T: past its length
    a row's state stands still, its output is 0, and whatever x holds there, even NaN, changes
    nothing. reset: bool (T, B): where true the row starts anew from zeros before the step, and no
    gradient passes. reverse: from the last step to the first, each row from its own end.
    mask: (B, H), multiplies h before the recurrent product at every step. weights: in place of the
    cell's own. clip_state_grad: at every step the gradients that it hands to the state before it,
    of h and of c, are clipped to this bound, each element by itself (slide: gradient clipping);
    such a gradient cannot be differentiated again.

    Where no step runs (T = 0, B = 0, all lengths 0) the final state is the initial one, and x and
    the weights get a gradient of zeros, as from the fused layers.

    >>> import minigrad as mg
    >>> out, (h, c) = mg.nn.unroll(mg.nn.LSTMCell(3, 4), mg.ones((5, 2, 3)), lengths=[5, 2])
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    op = "unroll"
    h: Any  # a Tensor; so is c, where the cell has one
    c: Any
    if not isinstance(cell, Cell):
        raise TypeError(
            f"{op}: cell must be an RNNCell, an LSTMCell or a GRUCell, got {type(cell).__name__}"
        )
    two = len(cell.state_names) == 2
    weights = cell.checked_weights(op, weights)
    x = cell.checked_sequence(op, x, weights)
    T, B, _ = x.shape
    H, dtype = cell.hidden_size, x.dtype
    if two and state is not None and (not isinstance(state, tuple) or len(state) != 2):
        got = type(state).__name__ + (
            f" of length {len(state)}" if isinstance(state, tuple) else ""
        )
        raise TypeError(f"{op}: state must be (h, c), got {got}")
    h, c = (None, None) if state is None else state if two else (state, None)
    for name, value in (("h", h), ("c", c)):
        if value is not None or (two and state is not None):
            cell.check_state(op, name, value, B, dtype)
    if mask is not None:
        mask = Tensor(mask) if isinstance(mask, np.ndarray) else mask
        cell.check_state(op, "mask", mask, B, dtype)
    lengths = None if lengths is None else checked_lengths(op, lengths, T, B)
    reset = None if reset is None else checked_reset(op, reset, T, B)
    reverse, bound = (
        flag(op, "reverse", reverse),
        checked_clip(op, "clip_state_grad", clip_state_grad),
    )
    h = zeros((B, H), dtype) if h is None else h
    c = zeros((B, H), dtype) if two and c is None else c
    parts = cell.start(weights)
    if T == 0:
        return no_steps(x, h, c, parts)
    outputs = []
    for t in range(T - 1, -1, -1) if reverse else range(T):
        # What later steps make of the state is one value, gathered in a node of its own, and is
        # added to the output's gradient as a whole.
        h, c = carry(h), carry(c) if two else None
        alive = None if lengths is None else (t < lengths)[:, None]
        x_t = x[t] if alive is None else where(alive, x[t], 0.0)
        if reset is not None:
            anew = reset[t][:, None] if alive is None else reset[t][:, None] & alive
            h, c = where(anew, 0.0, h), where(anew, 0.0, c) if two else None
        h_in, c_in = (clip_grad(h, bound), clip_grad(c, bound)) if bound else (h, c)
        new = cell.step(parts, x_t, h_in, c_in, h_in if mask is None else h_in * mask)
        new_h: Any
        new_c: Any
        new_h, new_c = new if two else (new, None)
        if alive is None:
            h, c = new_h, new_c
            outputs.append(h)
        else:
            h, c = where(alive, new_h, h), where(alive, new_c, c) if two else None
            outputs.append(where(alive, new_h, 0.0))
    out = stack(outputs[::-1] if reverse else outputs)
    return out, (h, c) if two else h


def no_steps(x: Tensor, h: Tensor, c: Tensor | None, parts: Any) -> tuple[Any, ...]:
    """unroll for T = 0: nothing is computed, but the results come from all inputs, so that each has
    a gradient, of zeros."""
    nothing = sum_of_none([x, h, c, *tensors_of(parts)])
    out = zeros((0, *h.shape), h.dtype) + nothing
    nowhere = np.zeros(h.shape, bool)
    h, c = where(nowhere, nothing, h), None if c is None else where(nowhere, nothing, c)
    return out, h if c is None else (h, c)


def sum_of_none(tensors: list[Tensor | None]) -> Tensor:
    """0, as the square of a sum of no elements of the tensors: so are its derivatives of first and
    second order."""
    total: Any = None
    for x in tensors:
        if x is not None:
            part = x.reshape((x.size,))[:0].sum()
            total = part if total is None else total + part
    zero: Tensor = total * total
    return zero


def tensors_of(parts: Any) -> list[Tensor]:
    """The Tensors in what Cell.start returns: tuples and lists, nested."""
    if isinstance(parts, Tensor):
        return [parts]
    return (
        [x for part in parts for x in tensors_of(part)] if isinstance(parts, (tuple, list)) else []
    )


def carry(h: Tensor) -> Tensor:
    """h itself, through a node of its own."""
    return h.reshape(h.shape)


def clip_grad(h: Tensor | None, bound: float) -> Tensor | None:
    """h itself; its gradient is clipped to the bound."""
    if h is None:
        return None
    largest = bound if bound <= np.finfo(h.dtype).max else np.inf

    def backward(dy: Tensor) -> Tensor:
        if is_grad_enabled():
            raise no_second_order("unroll")
        return clip(dy, -largest, largest)

    clipped: Tensor = record("clip_grad", h._array, (h,), backward)
    return clipped


def checked_merge(op: str, merge: Any) -> Any:
    """merge, if it is one."""
    if not callable(merge) and not (merge is None or isinstance(merge, str) and merge in MERGES):
        raise ValueError(
            f"{op}: merge must be 'concat', 'sum', 'mean', 'mul', None or a function of two tensors, got {merge!r}"
        )
    return merge


def merge_directions(
    forward: Tensor, backward: Tensor, merge: str | Callable[[Tensor, Tensor], Any] | None
) -> Any:
    """The slide's y_n = [h_n, g_n] and its alternatives: "concat", "sum", "mean", "mul", a function
    of both, or None for the pair.

    >>> import minigrad as mg
    >>> mg.nn.merge_directions(mg.ones(2), mg.zeros(2), "mean")
    Tensor([0.5, 0.5])
    """
    op = "merge_directions"
    checked_merge(op, merge)
    for name, y in (("forward", forward), ("backward", backward)):
        if not isinstance(y, Tensor):
            raise TypeError(f"{op}: {name} must be a Tensor, got {type(y).__name__}")
    if merge in ("sum", "mean", "mul") and forward.shape != backward.shape:
        raise ValueError(
            f"{op}: both directions must have one shape (..., H), got {forward.shape} and {backward.shape}"
        )
    if forward.dtype != backward.dtype:
        raise TypeError(
            f"{op}: both directions must have one dtype, got {forward.dtype} and {backward.dtype}"
        )
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
    return forward * backward


def bidirectional(
    forward: Cell, backward: Cell, x: Tensor, merge: Any = "concat", *, lengths: Any = None
) -> Any:
    """The slide's bidirectional network, op by op: two cells over x (T, B, I), one from each end,
    their outputs merged.

    >>> import minigrad as mg
    >>> cells = mg.nn.RNNCell(3, 4), mg.nn.RNNCell(3, 4)
    >>> mg.nn.bidirectional(*cells, mg.ones((5, 2, 3))).shape
    (5, 2, 8)
    """
    op = "bidirectional"
    checked_merge(op, merge)
    for name, cell in (("forward", forward), ("backward", backward)):
        if not isinstance(cell, Cell):
            raise TypeError(
                f"{op}: {name} must be an RNNCell, an LSTMCell or a GRUCell, got {type(cell).__name__}"
            )
    x = forward.checked_sequence(op, x, forward.checked_weights(op))
    backward.checked_sequence(op, x, backward.checked_weights(op))
    if merge in ("sum", "mean", "mul") and forward.hidden_size != backward.hidden_size:
        raise ValueError(
            f"{op}: both cells must have one hidden_size, got {forward.hidden_size} and {backward.hidden_size}"
        )
    lengths = None if lengths is None else checked_lengths(op, lengths, x.shape[0], x.shape[1])
    h, _ = unroll(forward, x, lengths=lengths)
    g, _ = unroll(backward, x, lengths=lengths, reverse=True)
    return merge_directions(h, g, merge)
