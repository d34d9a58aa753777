"""Sequences op by op: a loop over one cell, and two directions merged into one output.

x is (T, B, I): time, batch, features."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from minigrad.checks import flag
from minigrad.core.modes import is_grad_enabled
from minigrad.core.operands import zeros
from minigrad.core.recording import open_recorders
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor
from minigrad.nn.arguments import Steps, checked_clip, no_second_order
from minigrad.nn.cell import Cell, State, check_tensor
from minigrad.nn.gated import GatedCell, Weights
from minigrad.nn.running import Running
from minigrad.ops.bounds import clip
from minigrad.ops.elementwise import where
from minigrad.ops.join import concatenate, stack

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = [
    "MERGES",
    "Joining",
    "Merge",
    "bidirectional",
    "carry",
    "check_cell",
    "check_merge",
    "clip_grad",
    "merge_directions",
    "no_steps",
    "sum_of_none",
    "tensors_of",
    "unroll",
    "unroll_steps",
]

# How the outputs of two directions become one, by name or by a function of both; None leaves them
# apart.
MERGES = ("concat", "sum", "mean", "mul")
Joining = Literal["concat", "sum", "mean", "mul"] | Callable[[Tensor, Tensor], Tensor]
Merge = Joining | None


def unroll(
    cell: Cell[State],
    x: Operand,
    state: State | None = None,
    *,
    lengths: ArrayLike | None = None,
    reset: ArrayLike | None = None,
    reverse: bool = False,
    mask: Tensor | np.ndarray | None = None,
    weights: Weights | None = None,
    clip_state_grad: float | None = None,
) -> tuple[Tensor, State]:
    """Run a sequence through a cell, step by step.

    Args:
        cell: an RNNCell, LSTMCell, GRUCell, or a cell of your own, see `nn.Cell`.
        x: the sequence, (T, B, I).
        state: the initial state, as the cell's step takes it: h, or (h, c) for an LSTMCell, each
            (B, H). Default: zeros, or what the cell's `initial` says.
        lengths: (B,) ints from 0 to T. Past its length a row's state stands still, its output is
            0, and whatever x holds there, even NaN, changes nothing. Default: T for all.
        reset: bool (T, B): where true the row starts anew before the step, from zeros or what
            `initial` says, and no gradient passes. Default: nowhere.
        reverse: go from the last step to the first, each row from its own end. Default: False.
        mask: (B, H), multiplies h before the recurrent product at every step; a cell of your own
            asks for it with `masked`. Default: None.
        weights: a Weights (W, U, b, p) in place of the cell's own; not for cells of your own.
            Default: None.
        clip_state_grad: at every step clip the gradients that it hands to the state before it, of
            h and of c, to this bound, each element by itself (slide: gradient clipping). Such a
            gradient cannot be differentiated again. Default: None, no clipping.

    Returns:
        The outputs (T, B, H), and the state at each row's own end, as the cell's step returns it.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: an argument has the wrong shape or is outside its range, or the cell was given a
            mask and did not use it.

    Where no step runs (T = 0, B = 0, all lengths 0) the final state is the initial one, and x and
    the weights get a gradient of zeros, as from the fused layers.

    >>> import minigrad as mg
    >>> out, (h, c) = mg.nn.unroll(mg.nn.LSTMCell(3, 4), mg.ones((5, 2, 3)), lengths=[5, 2])
    >>> out.shape, h.shape
    ((5, 2, 4), (2, 4))
    """
    op = "unroll"
    check_cell(op, "cell", cell)
    if weights is not None:
        if not isinstance(cell, GatedCell):
            raise TypeError(f"{op}: weights cannot replace those of a {type(cell).__name__}")
        weights = cell.checked_weights(op, weights)
    x = cell._checked_sequence(op, x, None if weights is None else weights.W.dtype)
    T, B, _ = x.shape
    states = cell._checked_states(op, state, B, x.dtype)
    if mask is not None:
        mask = Tensor(mask) if isinstance(mask, np.ndarray) else mask
        check_tensor(op, "mask", mask, x.dtype, (B, cell.hidden_size), "(batch, hidden_size)")
    steps = Steps(op, T, B, lengths, reset)
    reverse = flag(op, "reverse", reverse)
    bound = checked_clip(op, "clip_state_grad", clip_state_grad)
    out, states = unroll_steps(cell, x, states, steps, reverse, mask, bound, weights)
    return out, cell._as_state(states)


def unroll_steps(
    cell: Cell[Any],
    x: Tensor,
    states: tuple[Tensor, ...],
    steps: Steps,
    reverse: bool,
    mask: Tensor | None = None,
    bound: float = 0.0,
    weights: Weights | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`unroll` with arguments that have been checked; `bound` is that of the state's gradient, 0
    for none. The outputs, and the last states in the order of `Cell.state_names`."""
    sequence = Running(cell, weights, mask)
    try:
        with sequence:
            if steps.T == 0:
                return no_steps(cell, x, states, sequence.parts(cell))
            fresh = cell._fresh(steps.B) if steps.reset is not None else ()
            outputs = []
            for t in range(steps.T - 1, -1, -1) if reverse else range(steps.T):
                if open_recorders:
                    sequence.note_time(t)
                alive = None if steps.lengths is None else t < steps.lengths
                anew = None if steps.reset is None else steps.reset[t]
                output, states = _step(cell, x[t], states, fresh, alive, anew, bound)
                outputs.append(output)
    finally:
        sequence.close()
    if mask is not None and not sequence.mask_was_used:
        raise ValueError(
            f"unroll: {type(cell).__name__} was given a mask for recurrent dropout and did not "
            f"use it: its step must write self.masked(h) @ U instead of h @ U"
        )
    return stack(outputs[::-1] if reverse else outputs), states


def _step(
    cell: Cell[Any],
    x: Tensor,
    states: tuple[Tensor, ...],
    fresh: tuple[Tensor | float, ...],
    alive: np.ndarray | None,
    anew: np.ndarray | None,
    bound: float,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The output and the states after one step of unroll_steps; `alive` and `anew` (B,) say which
    rows take part, and which start from `fresh`."""
    # What later steps make of the state is one value, gathered in a node of its own, and is added
    # to the output's gradient as a whole.
    states = tuple(carry(s) for s in states)
    if alive is not None:
        x = where(_rows(alive, x), x, 0.0)
    if anew is not None:
        if alive is not None:
            anew = anew & alive
        states = tuple(
            where(_rows(anew, s), start, s) for start, s in zip(fresh, states, strict=True)
        )
    before = tuple(clip_grad(s, bound) for s in states) if bound else states
    out, after = cell._checked_step(x, before)
    if alive is None:
        return out, after
    states = tuple(where(_rows(alive, s), new, s) for new, s in zip(after, states, strict=True))
    return where(_rows(alive, out), out, 0.0), states


def _rows(rows: np.ndarray, like: Tensor) -> np.ndarray:
    """A choice of rows (B,) in a shape that goes with a tensor (B, ...)."""
    return rows.reshape(rows.shape + (1,) * (like.ndim - 1))


def check_cell(op: str, name: str, cell: Any) -> None:
    """It must be a cell that can be run."""
    if not isinstance(cell, Cell):
        raise TypeError(
            f"{op}: {name} must be an RNNCell, an LSTMCell, a GRUCell or another nn.Cell, "
            f"got {type(cell).__name__}"
        )
    cell._check(op)


def no_steps(
    cell: Cell[Any], x: Tensor, states: tuple[Tensor, ...], parts: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """unroll_steps for T = 0: nothing is computed, but the results come from all inputs, so that
    each has a gradient, of zeros."""
    nothing = sum_of_none([x, *states, *tensors_of(parts)])
    out = zeros((0, x.shape[1], cell.hidden_size), x.dtype) + nothing
    return out, tuple(where(np.zeros(s.shape, bool), nothing, s) for s in states)


def sum_of_none(tensors: Iterable[Tensor]) -> Tensor:
    """0, as the square of a sum of no elements of the tensors: so are its derivatives of first and
    second order."""
    first, *others = [x.reshape((x.size,))[:0].sum() for x in tensors]
    total = first
    for part in others:
        total = total + part
    return total * total


def tensors_of(parts: Any) -> list[Tensor]:
    """The Tensors in what Cell.start returns: tuples and lists, nested."""
    if isinstance(parts, Tensor):
        return [parts]
    if not isinstance(parts, (tuple, list)):
        return []
    return [x for part in parts for x in tensors_of(part)]


def carry(h: Tensor) -> Tensor:
    """h itself, through a node of its own."""
    return h.reshape(h.shape)


# y = h         dh = dy, clipped to the bound


def clip_grad(h: Tensor, bound: float) -> Tensor:
    """h itself; its gradient is clipped to the bound."""
    largest = bound if bound <= np.finfo(h.dtype).max else np.inf

    def backward(dy: Tensor) -> Tensor:
        if is_grad_enabled():
            raise no_second_order("unroll")
        return clip(dy, -largest, largest)

    return record("clip_grad", h._array, (h,), backward, details={"bound": bound})


def check_merge(op: str, merge: Any) -> None:
    """It must be a Merge."""
    if not callable(merge) and not (merge is None or isinstance(merge, str) and merge in MERGES):
        raise ValueError(
            f"{op}: merge must be 'concat', 'sum', 'mean', 'mul', None "
            f"or a function of two tensors, got {reprlib.repr(merge)}"
        )


@overload
def merge_directions(forward: Tensor, backward: Tensor, merge: Joining) -> Tensor: ...
@overload
def merge_directions(forward: Tensor, backward: Tensor, merge: None) -> tuple[Tensor, Tensor]: ...
@overload
def merge_directions(
    forward: Tensor, backward: Tensor, merge: Merge
) -> Tensor | tuple[Tensor, Tensor]: ...
def merge_directions(
    forward: Tensor, backward: Tensor, merge: Merge
) -> Tensor | tuple[Tensor, Tensor]:
    """The slide's y_n = [h_n, g_n] and its alternatives.

    Args:
        forward: the outputs of the forward direction, (..., H).
        backward: those of the backward direction, of the same dtype; of the same shape for "sum",
            "mean" and "mul".
        merge: "concat", "sum", "mean", "mul", a function of both, or None.

    Returns:
        "concat": (..., 2 H). "sum", "mean", "mul": (..., H). A function: what it returns. None: the
        pair (forward, backward).

    Raises:
        TypeError: an argument is no Tensor, or the dtypes differ.
        ValueError: merge is none of these, or the shapes differ.

    >>> import minigrad as mg
    >>> mg.nn.merge_directions(mg.ones(2), mg.zeros(2), "mean")
    Tensor([0.5, 0.5])
    """
    op = "merge_directions"
    check_merge(op, merge)
    for name, y in (("forward", forward), ("backward", backward)):
        if not isinstance(y, Tensor):
            raise TypeError(f"{op}: {name} must be a Tensor, got {type(y).__name__}")
    if merge in ("sum", "mean", "mul") and forward.shape != backward.shape:
        raise ValueError(
            f"{op}: both directions must have one shape (..., H), "
            f"got {forward.shape} and {backward.shape}"
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


@overload
def bidirectional(
    forward: Cell[Any],
    backward: Cell[Any],
    x: Operand,
    merge: Joining = "concat",
    *,
    lengths: ArrayLike | None = None,
) -> Tensor: ...
@overload
def bidirectional(
    forward: Cell[Any],
    backward: Cell[Any],
    x: Operand,
    merge: None,
    *,
    lengths: ArrayLike | None = None,
) -> tuple[Tensor, Tensor]: ...
def bidirectional(
    forward: Cell[Any],
    backward: Cell[Any],
    x: Operand,
    merge: Merge = "concat",
    *,
    lengths: ArrayLike | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The slide's bidirectional network, op by op: two cells over x, one from each end, their
    outputs merged.

    Args:
        forward: the cell that goes from the first step to the last; any cell, see `nn.Cell`.
        backward: the cell that goes from each row's end to the first step.
        x: the sequence, (T, B, I).
        merge: as in `merge_directions`. Default: "concat".
        lengths: (B,) ints from 0 to T. Default: T for all.

    Returns:
        The outputs (T, B, features), or the pair of both outputs for merge=None.

    Raises:
        TypeError: an argument is of the wrong type or dtype.
        ValueError: an argument has the wrong shape or is outside its range.

    >>> import minigrad as mg
    >>> cells = mg.nn.RNNCell(3, 4), mg.nn.RNNCell(3, 4)
    >>> mg.nn.bidirectional(*cells, mg.ones((5, 2, 3))).shape
    (5, 2, 8)
    """
    op = "bidirectional"
    check_merge(op, merge)
    check_cell(op, "forward", forward)
    check_cell(op, "backward", backward)
    x = forward._checked_sequence(op, x)
    backward._checked_sequence(op, x)
    if merge in ("sum", "mean", "mul") and forward.hidden_size != backward.hidden_size:
        raise ValueError(
            f"{op}: both cells must have one hidden_size, "
            f"got {forward.hidden_size} and {backward.hidden_size}"
        )
    T, B, _ = x.shape
    steps = Steps(op, T, B, lengths, None)
    starts = [cell._checked_states(op, None, B) for cell in (forward, backward)]
    h, _ = unroll_steps(forward, x, starts[0], steps, reverse=False)
    g, _ = unroll_steps(backward, x, starts[1], steps, reverse=True)
    return merge_directions(h, g, merge)
