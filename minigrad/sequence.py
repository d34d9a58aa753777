"""Loops over cells: a sequence through one cell, op by op, and the merging of two directions. Time-major: x is (T, B, I)."""
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minigrad.cells import Cell, LSTMCell, Weights
from minigrad.elementwise import clip, where
from minigrad.module import flag
from minigrad.recurrent import checked_clip, checked_lengths, checked_reset
from minigrad.shape import concatenate, stack
from minigrad.tensor import Tensor, grad, is_grad_enabled, record, zeros

MERGES = ("concat", "sum", "mean", "mul", None)


class Run(NamedTuple):
    """How a cell goes over a sequence: all of unroll's arguments but the tensors."""
    cell: Cell
    lengths: np.ndarray | None
    reset: np.ndarray | None
    reverse: bool
    mask: Tensor | None
    clip: float                 # 0.0 for none

    def order(self, T: int) -> range:
        """The steps in the order of processing."""
        return range(T - 1, -1, -1) if self.reverse else range(T)

    def rows(self, t: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """(B, 1) masks of the rows that take part in step t, and of those that start anew before it; None for all, and for none."""
        alive = None if self.lengths is None else (t < self.lengths)[:, None]
        if self.reset is None:
            return alive, None
        anew = self.reset[t][:, None]
        return alive, anew if alive is None else anew & alive

    def step(self, parts: Any, x: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One step of the cell."""
        new = self.cell.step(parts, x, h, c, h if self.mask is None else h * self.mask)
        return new if c is not None else (new, None)


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
    itself (slide: gradient clipping). With create_graph=True the gradient's own derivative is that of the clipped gradient.

    Where no step runs (T = 0, B = 0, all lengths 0) the final state is the initial one, and x and the weights get a gradient of
    zeros, as from the fused layers.

    >>> import minigrad as mg
    >>> out, (h, c) = mg.nn.unroll(mg.nn.LSTMCell(3, 4), mg.ones((5, 2, 3)), lengths=[5, 2])
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    op = "unroll"
    if not isinstance(cell, Cell):
        raise TypeError(f"{op}: cell must be an RNNCell, an LSTMCell or a GRUCell, got {type(cell).__name__}")
    two = isinstance(cell, LSTMCell)
    weights = cell.checked_weights(op, weights)
    x = cell.checked_sequence(op, x, weights)
    T, B, _ = x.shape
    H, dtype = cell.hidden_size, x.dtype
    if two and state is not None and (not isinstance(state, tuple) or len(state) != 2):
        got = type(state).__name__ + (f" of length {len(state)}" if isinstance(state, tuple) else "")
        raise TypeError(f"{op}: state must be (h, c), got {got}")
    h, c = (None, None) if state is None else state if two else (state, None)
    for name, value in (("h", h), ("c", c)):
        if value is not None or (two and state is not None):
            cell.check_state(op, name, value, B, dtype)
    if mask is not None:
        mask = Tensor(mask) if isinstance(mask, np.ndarray) else mask
        cell.check_state(op, "mask", mask, B, dtype)
    run = Run(cell, None if lengths is None else checked_lengths(op, lengths, T, B),
              None if reset is None else checked_reset(op, reset, T, B), flag(op, "reverse", reverse), mask,
              checked_clip(op, "clip_state_grad", clip_state_grad))
    h = zeros((B, H), dtype) if h is None else h
    c = zeros((B, H), dtype) if two and c is None else c
    parts = cell.start(weights)
    if T == 0:
        return no_steps(x, h, c, parts)
    first = (x, h, c)
    outputs = []
    for t in run.order(T):
        # What later steps make of the state is one value, gathered in a node of its own, and is added to the output's gradient
        # as a whole.
        h, c = carry(h), carry(c) if two else None
        alive, anew = run.rows(t)
        x_t = x[t] if alive is None else where(alive, x[t], 0.0)
        if anew is not None:
            h, c = where(anew, 0.0, h), where(anew, 0.0, c) if two else None
        h_in, c_in = (clip_grad(h, run.clip), clip_grad(c, run.clip)) if run.clip else (h, c)
        new_h, new_c = run.step(parts, x_t, h_in, c_in)
        if alive is None:
            h, c = new_h, new_c
            outputs.append(h)
        else:
            h, c = where(alive, new_h, h), where(alive, new_c, c) if two else None
            outputs.append(where(alive, new_h, 0.0))
    out = stack(outputs[::-1] if reverse else outputs)
    if run.clip:
        out, h, c = twice_differentiable(run, first, parts, out, h, c)
    return out, (h, c) if two else h


def no_steps(x: Tensor, h: Tensor, c: Tensor | None, parts: Any) -> tuple:
    """unroll for T = 0: nothing is computed, but the results come from all inputs, so that each has a gradient, of zeros."""
    nothing = sum_of_none([x, h, c, *tensors_of(parts)])
    out = zeros((0, *h.shape), h.dtype) + nothing
    nowhere = np.zeros(h.shape, bool)
    h, c = where(nowhere, nothing, h), None if c is None else where(nowhere, nothing, c)
    return out, h if c is None else (h, c)


def sum_of_none(tensors: list[Tensor | None]) -> Tensor:
    """0, as the square of a sum of no elements of the tensors: so are its derivatives of first and second order."""
    total = None
    for x in tensors:
        if x is not None:
            part = x.reshape((x.size,))[:0].sum()
            total = part if total is None else total + part
    return total * total


def tensors_of(parts: Any) -> list[Tensor]:
    """The Tensors in what Cell.start returns: tuples and lists, nested."""
    if isinstance(parts, Tensor):
        return [parts]
    return [x for part in parts for x in tensors_of(part)] if isinstance(parts, (tuple, list)) else []


def with_tensors(parts: Any, tensors: Any) -> Any:
    """`parts` with its Tensors replaced by those of an iterator, in the order of tensors_of."""
    if isinstance(parts, Tensor):
        return next(tensors)
    if not isinstance(parts, (tuple, list)):
        return parts
    made = [with_tensors(part, tensors) for part in parts]
    return type(parts)(*made) if hasattr(parts, "_fields") else type(parts)(made)


def twice_differentiable(run: Run, first: tuple, parts: Any, out: Tensor, h: Tensor, c: Tensor | None) -> tuple:
    """The same out, h and c, through one more node that sees to the second order.

    A node of clip_grad clips all that reaches it. That is right for the gradient, but not for the gradient's derivative, which
    goes through the forward values as if nothing were clipped there. So a sweep with create_graph=True does not go through the
    loop's nodes: clipped_gradients makes the clipped gradient as a computation of its own. Any other sweep does.
    """
    values = [y for y in (out, h, c) if y is not None]
    inputs = [y for y in first if y is not None]
    flat = tensors_of(parts)
    n = len(values)
    two = c is not None

    def backward(*arguments: Tensor | None) -> tuple:
        dys, saved = arguments[:n], list(arguments[n:])
        if not is_grad_enabled():
            return (*dys, *[None] * len(saved))
        x, h, *rest = saved
        c = rest.pop(0) if two else None
        return (*[None] * n, *clipped_gradients(run, x, h, c, with_tensors(parts_shape, iter(rest)), *dys, *[None] * (3 - n)))

    parts_shape = with_tensors(parts, iter([zeros(())] * len(flat)))      # the closure must not keep the weights beside `saved`
    result = record("unroll", tuple(y._array for y in values), (*values, *inputs, *flat), backward, (*inputs, *flat))
    return (*result, *[None] * (3 - n))


def clipped_gradients(run: Run, x: Tensor, h: Tensor, c: Tensor | None, parts: Any, dout: Tensor | None, dh: Tensor | None,
                      dc: Tensor | None) -> list[Tensor | None]:
    """The gradients of x, h, c (where there is one) and of the Tensors in parts, made of ops: the loop of unroll forward again,
    without clipping, then backward, step by step, with the clipped gradient of the state handed on."""
    T, two = x.shape[0], c is not None
    aliases = [carry(p) for p in tensors_of(parts)]
    parts = with_tensors(parts, iter(aliases))
    steps = []
    for t in run.order(T):
        alive, anew = run.rows(t)
        x_t = x[t] if alive is None else where(alive, x[t], 0.0)
        if anew is not None:
            h, c = where(anew, 0.0, h), where(anew, 0.0, c) if two else None
        x_in, h_in, c_in = carry(x_t), carry(h), carry(c) if two else None
        new_h, new_c = run.step(parts, x_in, h_in, c_in)
        steps.append((t, alive, anew, [x_in, h_in, c_in], [new_h, new_c]))
        h = new_h if alive is None else where(alive, new_h, h)
        c = c if not two else new_c if alive is None else where(alive, new_c, c)
    check_reads(run, parts, steps[0][3])
    zero = zeros(h.shape, h.dtype)
    dh, dc = zero if dh is None else dh, zero if dc is None else dc
    dx, dparts = [None] * T, [None] * len(aliases)
    for t, alive, anew, ins, outs in reversed(steps):
        d = dh if alive is None else where(alive, dh, 0.0)
        if dout is not None:
            d = d + (dout[t] if alive is None else where(alive, dout[t], 0.0))
        e = dc if alive is None or not two else where(alive, dc, 0.0)
        wanted = [y for y in (*ins, *aliases) if y is not None and y.requires_grad]
        pairs = [(y, dy) for y, dy in zip(outs, (d, e), strict=True) if y is not None and y.requires_grad]
        found = dict(zip(map(id, wanted), grad([y for y, _ in pairs], wanted, [dy for _, dy in pairs], create_graph=True,
                                               allow_unused=True), strict=True)) if pairs and wanted else {}
        dx[t], dh_in, dc_in = (found.get(id(y)) for y in ins)
        if dx[t] is not None and alive is not None:
            dx[t] = where(alive, dx[t], 0.0)
        dh, dc = (handed_on(run.clip, dy, before, alive, anew) for dy, before in ((dh_in, dh), (dc_in, dc)))
        for i, alias in enumerate(aliases):
            dy = found.get(id(alias))
            if dy is not None:
                dparts[i] = dy if dparts[i] is None else dparts[i] + dy
    zero = zeros(x.shape[1:], x.dtype)
    return [stack([zero if dy is None else dy for dy in dx]), dh, *([dc] if two else []), *dparts]


def handed_on(bound: float, dy: Tensor | None, before: Tensor, alive: np.ndarray | None, anew: np.ndarray | None) -> Tensor:
    """The gradient that a step hands to the state before it: clipped; 0 where the row starts anew; as it came where the row does
    not take part."""
    dy = zeros(before.shape, before.dtype) if dy is None else clip(dy, *limits(bound, dy))
    if anew is not None:
        dy = where(anew, 0.0, dy)
    return dy if alive is None else where(alive, dy, before)


def check_reads(run: Run, parts: Any, inputs: list[Tensor | None]) -> None:
    """A step must compute with what it is given: else a gradient would be lost."""
    x, h, c = (None if y is None else y.detach() for y in inputs)
    new, _ = run.step(with_tensors(parts, iter([y.detach() for y in tensors_of(parts)])), x, h, c)
    if new.requires_grad:
        raise RuntimeError(f"unroll: with clip_state_grad the gradient cannot be differentiated twice, since the step of "
                           f"{type(run.cell).__name__} reads weights that its start does not return")


def carry(h: Tensor) -> Tensor:
    """h itself, through a node of its own."""
    return h.reshape(h.shape)


def limits(bound: float, x: Tensor) -> tuple[float, float]:
    """-bound and bound, or infinity where the bound is beyond x's dtype: for `clip`."""
    largest = bound if bound <= np.finfo(x.dtype).max else np.inf
    return -largest, largest


def clip_grad(h: Tensor | None, bound: float) -> Tensor | None:
    """h itself; its gradient is clipped to the bound."""
    return None if h is None else record("clip_grad", h._array, (h,), lambda dy: clip(dy, *limits(bound, dy)))


def checked_merge(op: str, merge: Any) -> Any:
    """merge, if it is one."""
    if not callable(merge) and not (merge is None or isinstance(merge, str) and merge in MERGES):
        raise ValueError(
            f"{op}: merge must be 'concat', 'sum', 'mean', 'mul', None or a function of two tensors, got {merge!r}"
        )
    return merge


def merge_directions(forward: Tensor, backward: Tensor, merge: str | Callable[[Tensor, Tensor], Any] | None) -> Any:
    """The slide's y_n = [h_n, g_n] and its alternatives: "concat", "sum", "mean", "mul", a function of both, or None for the
    pair.

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
        raise ValueError(f"{op}: both directions must have one shape (..., H), got {forward.shape} and {backward.shape}")
    if forward.dtype != backward.dtype:
        raise TypeError(f"{op}: both directions must have one dtype, got {forward.dtype} and {backward.dtype}")
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


def bidirectional(forward: Cell, backward: Cell, x: Tensor, merge: Any = "concat", *, lengths: Any = None) -> Any:
    """The slide's bidirectional network, op by op: two cells over x (T, B, I), one from each end, their outputs merged.

    >>> import minigrad as mg
    >>> cells = mg.nn.RNNCell(3, 4), mg.nn.RNNCell(3, 4)
    >>> mg.nn.bidirectional(*cells, mg.ones((5, 2, 3))).shape
    (5, 2, 8)
    """
    op = "bidirectional"
    checked_merge(op, merge)
    for name, cell in (("forward", forward), ("backward", backward)):
        if not isinstance(cell, Cell):
            raise TypeError(f"{op}: {name} must be an RNNCell, an LSTMCell or a GRUCell, got {type(cell).__name__}")
    x = forward.checked_sequence(op, x, forward.checked_weights(op))
    backward.checked_sequence(op, x, backward.checked_weights(op))
    if merge in ("sum", "mean", "mul") and forward.hidden_size != backward.hidden_size:
        raise ValueError(f"{op}: both cells must have one hidden_size, got {forward.hidden_size} and {backward.hidden_size}")
    lengths = None if lengths is None else checked_lengths(op, lengths, x.shape[0], x.shape[1])
    h, _ = unroll(forward, x, lengths=lengths)
    g, _ = unroll(backward, x, lengths=lengths, reverse=True)
    return merge_directions(h, g, merge)
