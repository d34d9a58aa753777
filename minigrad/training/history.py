"""What happened in a training: losses, validations, how it ended."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.nn.module import Module
from minigrad.training.bptt import _check_keys, _form


class History:
    """What `fit` has done so far: loss and norm (of the gradient before clipping), one number a
    step; validation, one an epoch.

    step, epoch: how many are over. best: the epoch, from 0, with the lowest validation.
    interrupted: whether Ctrl-C ended it. ended: what ended the last run, "epochs", "steps",
    "patience", "interrupted", or the exception as "ValueError: its text"; None while it runs.
    options: those of the optimizer's groups when the training began.

    >>> import minigrad as mg
    >>> history = mg.training.History()     # of a model, if its best weights are to be loaded
    >>> history.step, history.epoch, history.best
    (0, 0, None)
    """

    def __init__(self, model: Module | None = None) -> None:
        if not isinstance(model, (Module, type(None))):
            raise TypeError(f"History: model must be a Module or None, got {type(model).__name__}")
        self.form = (
            {} if model is None else {name: _form(p) for name, p in model.named_parameters()}
        )
        self.loss: list[float] = []
        self.norm: list[float] = []
        self.validation: list[float] = []
        self.epoch = self.batch = 0  # batch: of the running epoch, so many are over
        self.weights: dict[str, np.ndarray] | None = None  # of the best epoch
        self.options: list[dict[str, Any]] = []
        self.interrupted, self.speed = False, 0.0  # speed: steps per second of this run
        self.ended: str | None = None

    @property
    def step(self) -> int:
        """The number of steps so far."""
        return len(self.loss)

    @property
    def recent(self) -> float:
        """The mean of the last 20 losses; NaN before the first."""
        return float(np.mean(self.loss[-20:])) if self.loss else math.nan

    @property
    def best(self) -> int | None:
        """The epoch with the lowest validation, the first of equals; None before the first that is
        a number."""
        numbers = [(value, k) for k, value in enumerate(self.validation) if value == value]
        return min(numbers)[1] if numbers else None

    def state_dict(self) -> dict[str, Any]:
        """All but what belongs to this run alone."""
        numbers = {
            name: np.array(getattr(self, name), np.float64)
            for name in ("loss", "norm", "validation")
        }
        place = {"epoch": self.epoch, "batch": self.batch}
        return numbers | place | {"weights": self.weights, "options": self.options}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict."""
        names = ("loss", "norm", "validation", "epoch", "batch", "weights", "options")
        _check_keys("History", state, names)
        numbers = [state[name] for name in ("loss", "norm", "validation")]
        if any(
            not isinstance(a, np.ndarray) or a.dtype != np.float64 or a.ndim != 1 for a in numbers
        ):
            raise ValueError(
                "History: loss, norm and validation must be float64 arrays of one dimension"
            )
        if len(numbers[0]) != len(numbers[1]) or any(
            type(state[k]) is not int or state[k] < 0 for k in ("epoch", "batch")
        ):
            raise ValueError(
                "History: loss and norm must have one number a step, epoch and batch must be ints of at least 0"
            )
        if (
            state["weights"] is not None
            and {name: _form(a) for name, a in state["weights"].items()} != self.form
        ):
            raise ValueError("History: the best weights must be those of the model")
        if not (
            isinstance(state["options"], list)
            and all(isinstance(group, Mapping) for group in state["options"])
        ):
            raise ValueError("History: options must be a list of dicts")
        self.loss, self.norm, self.validation = (a.tolist() for a in numbers)
        self.epoch, self.batch, self.weights = state["epoch"], state["batch"], state["weights"]
        self.options = [dict(group) for group in state["options"]]
