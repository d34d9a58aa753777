"""How good a model is, as plain floats: accuracy, likelihoods, errors of forecasts.

Logits are time first, (T, B, ...), with the lengths of the sequences beside them: only steps within
them count, whatever stands behind, even NaN. Without lengths all steps count, but those whose
target is -100, which cross_entropy leaves out too. Nothing here is differentiated; sums are taken
in float64.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from minigrad.checks import integer, plain_array
from minigrad.core.modes import no_grad
from minigrad.core.tensor import Tensor
from minigrad.data.batches import NO_CLASS
from minigrad.data.scaler import _difference
from minigrad.ops.losses import binary_cross_entropy_with_logits, cross_entropy

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["accuracy", "bits", "frame_nll", "mase", "nats_per_symbol", "perplexity", "rmse"]


def _array(value: Any, op: str, name: str, kinds: str = "f") -> np.ndarray:
    """`value` as an array whose dtype is of one of the kinds: "f" for real numbers, "iu" for whole
    ones."""
    array = plain_array(op, name, value)
    if array.dtype.kind not in kinds:
        expected = "whole numbers" if "f" not in kinds else "real numbers"
        raise TypeError(
            f"{op}: {name} must be made of {expected}, "
            f"got {type(value).__name__} of dtype {array.dtype}"
        )
    return array


def _within(op: str, lengths: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Which of the steps (T, B) are within the lengths."""
    if len(shape) != 2:
        raise ValueError(
            f"{op}: with lengths, the steps must be (T, B) = (time, batch), got {shape}"
        )
    (T, B), lengths = shape, _array(lengths, op, "lengths", "iu")
    if lengths.shape != (B,):
        raise ValueError(f"{op}: lengths must have shape ({B},) = (batch,), got {lengths.shape}")
    for k in np.flatnonzero((lengths < 0) | (lengths > T))[:1]:
        raise ValueError(f"{op}: lengths must be from 0 to T = {T}, got {lengths[k]} at index {k}")
    inside: np.ndarray = np.arange(T)[:, None] < lengths
    return inside


def _classified(op: str, logits: Any, targets: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray]:
    """The logits (n, C) and the targets (n,) that count."""
    logits, targets = _array(logits, op, "logits"), _array(targets, op, "targets", "iu")
    if logits.ndim == 0 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"{op}: targets must have the shape {logits.shape[:-1]} of logits {logits.shape} "
            f"without the classes, got {targets.shape}"
        )
    counts = targets != NO_CLASS if lengths is None else _within(op, lengths, targets.shape)
    C, wrong = logits.shape[-1], counts & ((targets < 0) | (targets >= logits.shape[-1]))
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        raise IndexError(
            f"{op}: targets must be from 0 to {C - 1}, got {targets[place]} at {place}"
        )
    if not counts.any():
        raise ValueError(f"{op}: there is no step to count")
    return logits[counts], targets[counts]


def accuracy(logits: "Operand", targets: ArrayLike, lengths: ArrayLike | None = None) -> float:
    """The share of steps whose largest logit is that of the target.

    A step with a NaN among its logits has no largest one: it counts as wrong.

    Args:
        logits: (..., C), or (T, B, C) with lengths.
        targets: (...), whole numbers from 0 to C - 1; without lengths, -100 is left out.
        lengths: (B,), from 0 to T: only these steps count. Default: all steps count.

    Raises:
        TypeError, ValueError, IndexError: An argument does not fit, or no step counts.

    >>> import minigrad as mg
    >>> mg.metrics.accuracy([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]], [0, 1, 1])
    0.6666666666666666
    """
    rows, classes = _classified("accuracy", logits, targets, lengths)
    return float(((rows.argmax(-1) == classes) & ~np.isnan(rows).any(-1)).mean())


def nats_per_symbol(
    logits: "Operand", targets: ArrayLike, lengths: ArrayLike | None = None
) -> float:
    """The mean negative log-likelihood of the targets, in nats.

    Args:
        logits: (..., C), or (T, B, C) with lengths.
        targets: (...), whole numbers from 0 to C - 1; without lengths, -100 is left out.
        lengths: (B,), from 0 to T: only these steps count. Default: all steps count.

    Raises:
        TypeError, ValueError, IndexError: An argument does not fit, or no step counts.

    >>> import minigrad as mg
    >>> mg.metrics.nats_per_symbol([[[0.0, 0.0]], [[9.0, 0.0]]], [[1], [1]], lengths=[1])
    0.6931471805599453
    """
    rows, classes = _classified("nats_per_symbol", logits, targets, lengths)
    exact = Tensor(rows.astype(np.float64), copy=False)
    with no_grad():
        return cross_entropy(exact, classes.astype(np.int64)).item()


def _nats(op: str, nats: Any) -> float:
    if isinstance(nats, (bool, np.bool_, str, bytes)) or not hasattr(nats, "__float__"):
        raise TypeError(f"{op}: nats must be a number, got {type(nats).__name__}")
    try:
        return float(nats)
    except OverflowError:
        raise ValueError(f"{op}: nats must be a number that float64 holds") from None


def bits(nats: float) -> float:
    """Nats as bits: nats / ln 2.

    Args:
        nats: A number.

    >>> import minigrad as mg
    >>> mg.metrics.bits(1.0)
    1.4426950408889634
    """
    return _nats("bits", nats) / math.log(2)


def perplexity(nats: float) -> float:
    """exp(nats): how many equally likely symbols would be as hard to predict.

    Args:
        nats: The mean negative log-likelihood of a symbol.

    Returns:
        A float, or inf if that is too large for a float.

    >>> import minigrad as mg
    >>> mg.metrics.perplexity(0.0)
    1.0
    """
    try:
        return math.exp(_nats("perplexity", nats))
    except OverflowError:
        return math.inf


def frame_nll(logits: "Operand", roll: "Operand", lengths: ArrayLike | None = None) -> float:
    """Music: the negative log-likelihood of a frame in nats (Boulanger-Lewandowski et al. 2012).

    It is summed over the keys of a frame, and averaged over the frames.

    Args:
        logits: (..., keys), or (T, B, keys) with lengths.
        roll: The same shape, 1 where a key sounds and else 0.
        lengths: (B,), from 0 to T: only these frames count. Default: all frames count.

    Raises:
        TypeError, ValueError: An argument does not fit, or no frame counts.

    >>> import minigrad as mg
    >>> mg.metrics.frame_nll([[0.0, 0.0, 0.0]], [[1, 0, 1]])        # 3 ln 2
    2.0794415416798357
    """
    op = "frame_nll"
    logits, roll = _array(logits, op, "logits"), _array(roll, op, "roll", "biuf")
    if logits.ndim == 0 or roll.shape != logits.shape:
        raise ValueError(
            f"{op}: roll must have the shape {logits.shape} of logits, (..., keys), "
            f"got {roll.shape}"
        )
    if lengths is None:
        counts = np.ones(logits.shape[:-1], bool)
    else:
        counts = _within(op, lengths, logits.shape[:-1])
    if not counts.any():
        raise ValueError(f"{op}: there is no frame to count")
    rows, keys = logits[counts].astype(np.float64), roll[counts].astype(np.float64)
    if not ((keys == 0) | (keys == 1)).all():
        raise ValueError(
            f"{op}: roll must be made of zeros and ones, got {keys[(keys != 0) & (keys != 1)][0]}"
        )
    with no_grad():
        total = binary_cross_entropy_with_logits(Tensor(rows), Tensor(keys), reduction="sum")
    return total.item() / len(rows)


def _errors(op: str, y: Any, forecast: Any) -> np.ndarray:
    """y - forecast in float64."""
    y, forecast = _array(y, op, "y", "iuf"), _array(forecast, op, "forecast", "iuf")
    if forecast.shape != y.shape:  # no broadcasting, which would hide a mistake
        raise ValueError(f"{op}: forecast must have the shape {y.shape} of y, got {forecast.shape}")
    if y.size == 0:
        raise ValueError(f"{op}: y must hold at least one value, got shape {y.shape}")
    return _difference(y, forecast)


def rmse(y: "Operand", forecast: "Operand") -> float:
    """The root of the mean squared error of a forecast.

    Args:
        y: The true values, an array of any shape with at least one value.
        forecast: The forecast values, of the same shape.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> mg.metrics.rmse([1.0, 2.0], [1.0, 4.0])
    1.4142135623730951
    """
    return float(np.sqrt(np.mean(_errors("rmse", y, forecast) ** 2)))


def mase(y: "Operand", forecast: "Operand", history: "Operand", season: int = 1) -> float:
    """The mean absolute scaled error of a forecast (Hyndman and Koehler 2006).

    The error is divided by that of the forecast "as one season ago" on the history that was known:
    mean |y - forecast| / mean |history[t] - history[t - season]|. Below 1 the forecast is better
    than that one.

    Args:
        y: The true values, an array of any shape with at least one value.
        forecast: The forecast values, of the same shape.
        history: The values before them, (T,) or (T, ...), longer than the season.
        season: How many steps a season has, at least 1. Default: 1.

    Raises:
        TypeError, ValueError: An argument does not fit, or the history repeats itself exactly.

    >>> import minigrad as mg
    >>> mg.metrics.mase([5.0, 6.0], [5.0, 5.0], history=[1.0, 2.0, 3.0, 4.0])
    0.5
    """
    errors, history = _errors("mase", y, forecast), _array(history, "mase", "history", "iuf")
    season = integer("mase", "season", season, 1)
    if history.ndim == 0 or len(history) <= season:
        raise ValueError(
            f"mase: history must be longer than the season {season}, got shape {history.shape}"
        )
    scale = np.mean(np.abs(_difference(history[season:], history[:-season])))
    if scale == 0:
        raise ValueError(
            "mase: history must change within a season, it repeats itself exactly: "
            "the error has no unit"
        )
    return float(np.mean(np.abs(errors)) / scale)
