"""What happened in a training: losses, validations, how it ended."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.nn.module import Module
from minigrad.training.bptt import _check_keys, _form

__all__ = ["History"]


class History:
    """What `fit` has done so far.

    Attributes:
        loss: The losses, one number a step.
        norm: The norms of the gradient before clipping, one a step.
        validation: What `validate` returned, one number an epoch.
        step, epoch: How many are over.
        best: The epoch, from 0, with the lowest validation.
        weights: The model's weights after that epoch, a state_dict; None before the first.
        speed: Steps per second of this run.
        options: The options of the optimizer's groups when the training began.
        ended: What ended the last run: "epochs", "steps", "patience", "interrupted", or the
            exception as "ValueError: its text"; None while it runs.
        interrupted: Whether Ctrl-C ended it.

    Args:
        model: The Module whose best weights it is to hold. Default: None.

    Raises:
        TypeError: model is no Module.

    >>> import minigrad as mg
    >>> history = mg.training.History()
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
        self.interrupted = False
        self.speed = 0.0
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

    def _fit_the_model(self, weights: Any) -> bool:
        """Are these arrays with the names and shapes of the model's?"""
        if not isinstance(weights, Mapping):
            return False
        if not all(isinstance(array, np.ndarray) for array in weights.values()):
            return False
        return {name: _form(array) for name, array in weights.items()} == self.form

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, a state_dict."""
        names = ("loss", "norm", "validation", "epoch", "batch", "weights", "options")
        _check_keys("History", state, names)
        numbers = [state[name] for name in ("loss", "norm", "validation")]
        for a in numbers:
            if not isinstance(a, np.ndarray) or a.dtype != np.float64 or a.ndim != 1:
                raise ValueError(
                    "History: loss, norm and validation must be float64 arrays of one dimension"
                )
        counts = (state["epoch"], state["batch"])
        are_counts = all(type(n) is int and n >= 0 for n in counts)
        if len(numbers[0]) != len(numbers[1]) or not are_counts:
            raise ValueError(
                "History: loss and norm must have one number a step, "
                "epoch and batch must be ints of at least 0"
            )
        weights, options = state["weights"], state["options"]
        if weights is not None and not self._fit_the_model(weights):
            raise ValueError("History: the best weights must be those of the model")
        if not isinstance(options, list) or not all(isinstance(o, Mapping) for o in options):
            raise ValueError("History: options must be a list of dicts")
        self.loss, self.norm, self.validation = (a.tolist() for a in numbers)
        self.epoch, self.batch, self.weights = *counts, weights
        self.options = [dict(group) for group in options]
