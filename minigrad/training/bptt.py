"""Truncated backpropagation through time, and gradients accumulated over several batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from minigrad.checks import number, size
from minigrad.core.tensor import Tensor
from minigrad.ops.join import concatenate

__all__ = ["TruncatedBPTT", "accumulate"]


class TruncatedBPTT:
    """Truncated backpropagation through time over a sequence of any length.

    Every k1 steps there is a loss, and its gradient goes back through the last k2 steps. Call the
    object with the next k1 steps, x and y of shape (k1, B, ...); the last call may have fewer. It
    returns the loss::

        window n = steps s .. e - 1,   e = min(n k1, T),   s = max(0, e - k2),
                   from the state before s, which is a constant
        loss n   = loss(out[(n - 1) k1 .. e - 1], y[(n - 1) k1 .. e - 1]),
                   so that each step's loss counts once

    This is BPTT(h = k2; h' = k1) of Williams and Peng 1990, with the pseudocode of Sutskever's
    thesis (2013), section 2.8.6. With k2 = k1 the windows are the chunks themselves, the last one
    too; with k2 >= T nothing is cut. For k2 > k1 the steps before the chunk are computed again with
    the present weights, so the gradient is right also when the weights change after every chunk.
    The state that is carried on is the one that was computed first.

    Args:
        model: A function of (x, state) that returns (out, new state), as the recurrent layers do. A
            state is a Tensor, None or a number, or a tuple, named tuple, list or dict of states.
        loss: A function of (out, y) that returns a Tensor of one number.
        k1: How many steps there are between two losses, at least 1.
        k2: Through how many steps a gradient goes back, at least k1. Default: k1.

    Raises:
        TypeError, ValueError: k1 or k2 does not fit.

    >>> import numpy as np, minigrad as mg
    >>> x, y = np.ones((6, 2, 3), np.float32), np.zeros((6, 2, 4), np.float32)
    >>> layer = mg.nn.GRU(3, 4)
    >>> bptt = mg.training.TruncatedBPTT(layer, mg.mse, k1=2, k2=4)
    >>> for loss in bptt.over(mg.Tensor(x), mg.Tensor(y)):
    ...     loss.backward()  # then clipping, optimizer.step() and optimizer.zero_grad()
    """

    def __init__(
        self,
        model: Callable[..., Any],
        loss: Callable[[Tensor, Any], Tensor],
        k1: int,
        k2: int | None = None,
    ) -> None:
        op = "TruncatedBPTT"
        self.model, self.loss, self.k1 = model, loss, size(op, "k1", k1)
        self.k2 = self.k1 if k2 is None else size(op, "k2", k2)
        if self.k2 < self.k1:
            raise ValueError(
                f"{op}: k2 must be at least k1 = {k1}, or the losses of some steps would have no "
                f"gradient, got {k2}"
            )
        self.form: str | None = None  # shapes and dtypes of the state, once one was computed
        self.reset()

    def reset(self) -> None:
        """Begin a new sequence: the state is None again, which the model takes as zeros."""
        self.state: Any = None  # before the first of the remembered steps
        self.past: Any = None  # x of the steps that the next window begins with

    def __call__(self, x: Any, y: Any, ahead: int | None = None) -> Tensor:
        """The loss of the next steps; its backward goes through the last k2 steps.

        Args:
            x: (k1, B, ...), or fewer steps.
            y: (k1, B, ...), as many steps as x.
            ahead: How many steps the next call will bring: the state is kept where that call's
                window begins. Default: k1.

        Returns:
            The loss, a Tensor of one number.

        Raises:
            ValueError: x and y do not fit each other, or the steps before them.
        """
        if not (1 <= len(x) <= self.k1 and len(y) == len(x)):
            raise ValueError(
                f"TruncatedBPTT: x and y must both have 1 to k1 = {self.k1} steps, "
                f"got {len(x)} and {len(y)}"
            )
        if self.past is not None and self.past.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"TruncatedBPTT: x must have steps of shape {self.past.shape[1:]} as before, "
                f"got {x.shape[1:]}; reset() begins a new sequence"
            )
        window = x if self.past is None else _joined(self.past, x)
        ahead = self.k1 if ahead is None or self.k1 == self.k2 else ahead
        later = max(0, len(window) + ahead - self.k2)  # where the next window begins
        outputs, kept = [], self.state
        if later:
            out, kept = self.model(window[:later], self.state)
            outputs.append(out)
        if later < len(window):
            out, _ = self.model(window[later:], kept)
            outputs.append(out)
        out = outputs[0] if len(outputs) == 1 else concatenate(outputs, 0)
        loss = self.loss(out[len(window) - len(x) :], y)
        past = window[later:] if later < len(window) else None
        self.state = _mapped(_detached, kept)
        self.past = _copied(past)  # the caller may put the next steps into the same memory
        if kept is not None:
            self.form = _form(kept)
        return loss

    def over(self, x: Any, y: Any) -> Iterator[Tensor]:
        """The losses of a long sequence, k1 steps at a time; the state carries on.

        Args:
            x: (T, B, ...).
            y: (T, B, ...).
        """
        for start in range(0, len(x), self.k1):
            end = start + self.k1
            ahead = min(self.k1, len(x) - end) if end < len(x) else None
            yield self(x[start:end], y[start:end], ahead)

    def state_dict(self) -> dict[str, Any]:
        """Copies of what is carried on, the state and the remembered steps, as they are."""
        return {"state": _mapped(_copied, self.state), "past": _copied(self.past)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `saved`, a state_dict. Where this object has computed a state, the new one
        must have its kinds, shapes and dtypes."""
        _check_keys("TruncatedBPTT", saved, ("state", "past"))
        state, past = _mapped(_copied, saved["state"]), saved["past"]
        if state is not None and self.form is not None and _form(state) != self.form:
            raise ValueError(f"TruncatedBPTT: state must be {self.form}, got {_form(state)}")
        if not (past is None or isinstance(past, (np.ndarray, Tensor))):
            raise ValueError(
                f"TruncatedBPTT: past must be a Tensor, an array or None, got {type(past).__name__}"
            )
        self.state, self.past = state, _copied(past)


def _check_keys(op: str, state: Any, names: tuple[str, ...]) -> None:
    """Is it the dict of a state, with the entries that it needs?"""
    if not isinstance(state, Mapping):
        raise TypeError(f"{op}: state must be a dict, got {type(state).__name__}")
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(
            f"{op}: state must have the keys {', '.join(names)}, {', '.join(missing)} missing"
        )


def _joined(past: Any, x: Any) -> Any:
    return concatenate([past, x], 0) if isinstance(x, Tensor) else np.concatenate([past, x])


def _mapped(function: Callable[[Any], Any], state: Any) -> Any:
    """The state with `function` of each of its parts, in tuples, named tuples, lists and dicts as
    they are."""
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*(_mapped(function, part) for part in state))
    if type(state) in (tuple, list):
        return type(state)(_mapped(function, part) for part in state)
    if type(state) is dict:
        return {name: _mapped(function, part) for name, part in state.items()}
    return function(state)


def _detached(part: Any) -> Any:
    """A part of a state, cut from the graph."""
    if hasattr(part, "detach"):
        return part.detach()
    return _copied(part)


def _copied(part: Any) -> Any:
    if isinstance(part, Tensor):
        return Tensor(part.numpy())
    if isinstance(part, np.ndarray):
        return part.copy()
    if part is None or isinstance(part, (bool, int, float, str, np.generic)):
        return part
    raise TypeError(
        "TruncatedBPTT: the state must be made of Tensors, arrays, numbers and None, in tuples, "
        f"named tuples, lists and dicts, got {type(part).__name__}"
    )


def _form(state: Any) -> str:
    """Kinds, shapes and dtypes of a state, to compare and to print."""
    if isinstance(state, tuple):
        name = type(state).__name__ if hasattr(state, "_fields") else ""
        return f"{name}({', '.join(map(_form, state))})"
    if isinstance(state, list):
        return f"[{', '.join(map(_form, state))}]"
    if isinstance(state, dict):
        return f"{{{', '.join(f'{name}: {_form(part)}' for name, part in state.items())}}}"
    return f"{state.dtype}{list(state.shape)}" if hasattr(state, "dtype") else type(state).__name__


def accumulate(losses: Iterable[Tensor], count: float) -> float:
    """Backward of (sum of the losses) / count, one after another.

    The gradients are those of the mean over a whole batch, whatever the sizes of its parts, while
    only one part's graph is in memory.

    Args:
        losses: An iterable of Tensors of one number, each a sum over its own rows. A generator,
            which makes one at a time, needs the least memory. If it raises, the gradients hold the
            share of the losses before.
        count: The number of rows of all parts together, above 0.

    Returns:
        The mean, a float.

    Raises:
        TypeError, ValueError: An argument does not fit, or there are no losses.
        RuntimeError: A loss has no graph.

    >>> import minigrad as mg
    >>> x, w = mg.Tensor([1.0, 2.0, 6.0]), mg.Tensor(2.0, requires_grad=True)
    >>> mg.training.accumulate(((part * w).sum() for part in (x[:2], x[2:])), count=3)
    6.0
    >>> w.grad                                          # that of (x * w).mean()
    Tensor(3.)
    """
    op = "accumulate"
    count = number(op, "count", count, ends="()")
    if isinstance(losses, Tensor) or not isinstance(losses, Iterable):
        raise TypeError(
            f"{op}: losses must be a list or a generator of Tensors, got {type(losses).__name__}"
        )
    total, parts = 0.0, 0
    for loss in losses:
        _check_loss(f"{op}: losses[{parts}] must be", loss)
        (loss / count).backward()
        total += loss.item()
        parts += 1
    if not parts:
        raise ValueError(f"{op}: losses must give at least one Tensor, got none")
    return total / count


def _check_loss(must_be: str, loss: Any) -> None:
    """Is it a number that `backward` can go from?"""
    expected = "one number that was computed from the parameters, a Tensor of shape ()"
    if not isinstance(loss, Tensor):
        raise TypeError(f"{must_be} {expected}, got {type(loss).__name__}")
    if loss.size != 1:
        raise ValueError(f"{must_be} {expected}, got shape {loss.shape}: take its mean() or sum()")
    if not loss.requires_grad:
        raise RuntimeError(
            f"{must_be} {expected}, got a Tensor without a graph (made under no_grad, by "
            "detach(), from NumPy's numbers, or from no parameter): it has no gradient"
        )
