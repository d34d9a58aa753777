"""Schedules of the learning rate: ConstantLR, StepLR, MultiStepLR, ExponentialLR, CosineAnnealingLR, LinearLR, OneCycleLR,
ReduceLROnPlateau. Names, arguments and numbers are PyTorch's.

A schedule changes "lr" in the optimiser's param_groups: once when it is made, then at each `step`, which is called after the
optimiser's. Each formula gives the rate after t steps, from the rate `base` that the group had before any schedule.

Several schedules may act on one optimiser: the rate is then the product of what each does. So a warm-up goes with any other
schedule; both step:

>>> import minigrad as mg
>>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.8)
>>> warmup = mg.schedule.LinearLR(optimizer, start_factor=0.25, total_iters=3)
>>> decay = mg.schedule.StepLR(optimizer, step_size=4, gamma=0.5)
>>> rates = []
>>> for _ in range(9):
...     rates.append(round(optimizer.param_groups[0]["lr"], 3))     # here the optimiser makes its step
...     warmup.step()
...     decay.step()
>>> rates
[0.2, 0.4, 0.6, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2]

or one after the other, `(warmup if t < 3 else decay).step()` in the t-th turn of the loop: then the second begins when the first
has ended.
"""
import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.module import flag
from minigrad.optim import Optimizer, _number, _power
from minigrad.tensor import Tensor

# ---------------------------------------------------------------- arguments

def _whole(op: str, name: str, value: Any, low: int = 1) -> int:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}")
    if operator.index(value) < low:
        raise ValueError(f"{op}: {name} must be at least {low}, got {value}")
    return operator.index(value)


def _choice(op: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{op}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def _optimizer(op: str, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{op}: optimizer must be an optimiser of minigrad.optim, got {type(optimizer).__name__}")
    return optimizer


def _each(op: str, name: str, value: Any, optimizer: Optimizer, **bounds: Any) -> list[float]:
    """A number for each group: given as one for all, or as a list."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [_number(op, name, value, **bounds)] * count
    if len(value) != count:
        raise ValueError(f"{op}: {name} must hold a number for each of the {count} groups, got {len(value)}")
    return [_number(op, f"{name}[{i}]", v, **bounds) for i, v in enumerate(value)]


# ---------------------------------------------------------------- what the schedules share

class _State:
    """What every schedule has: the optimiser, a count of steps, the state dict."""

    optimizer: Optimizer
    steps: int

    def get_last_lr(self) -> list[float]:
        """The learning rates of all groups now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _kept(self) -> dict[str, Callable[[Any], bool]]:
        """The attributes that the state holds, and whether a value can be one's."""
        return {"steps": lambda v: type(v) is int and v >= 0}

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on, the present rates too; numbers and lists, which JSON can hold."""
        kept = {name: getattr(self, name) for name in self._kept()}
        return {name: list(v) if isinstance(v, list) else v for name, v in kept.items()} | {"lrs": self.get_last_lr()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict, in a schedule made with the same arguments, before or after the optimiser's is loaded. All
        that does not fit is one ValueError, and then nothing has changed."""
        op = type(self).__name__
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: state must be a dict, got {type(state).__name__}")
        checks = self._kept() | {"lrs": self._rates}
        wrong = [f"missing: {k}" for k in checks if k not in state] + [f"unexpected: {k}" for k in state if k not in checks]
        wrong += [f"{k} cannot be {state[k]!r}" for k, fits in checks.items() if k in state and not fits(state[k])]
        if wrong:
            raise ValueError(f"load_state_dict: {op} does not fit the state: " + "; ".join(wrong))
        for k in self._kept():
            setattr(self, k, list(state[k]) if isinstance(state[k], list) else state[k])
        for group, lr in zip(self.optimizer.param_groups, state["lrs"], strict=True):
            group["lr"] = lr

    def _rates(self, value: Any) -> bool:
        return (isinstance(value, list) and len(value) == len(self.optimizer.param_groups)
                and all(type(v) is float and 0 <= v < math.inf for v in value))


class Schedule(_State):
    """A schedule with a formula: `rate(base, t)` is the learning rate after t steps. A subclass may give a formula of its own.

    >>> import minigrad as mg
    >>> class Inverse(mg.schedule.Schedule):
    ...     def rate(self, base, t):
    ...         return base / (1 + t)
    >>> schedule = Inverse(mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.3))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.15]
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = _optimizer(type(self).__name__, optimizer)
        self.steps = 0
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        for group, base in zip(optimizer.param_groups, self.base_lrs, strict=True):
            self._move(group, base, self.rate(base, 0))

    def rate(self, base: float, t: int) -> float:
        """The learning rate after t steps, of a group that began with `base`."""
        raise NotImplementedError(f"{type(self).__name__} has no rate")

    def step(self) -> None:
        """Go on by one step."""
        rates = [(self.rate(base, self.steps), self.rate(base, self.steps + 1)) for base in self.base_lrs]
        self.steps += 1
        for group, (old, new) in zip(self.optimizer.param_groups, rates, strict=True):
            self._move(group, old, new)

    @staticmethod
    def _move(group: dict[str, Any], old: float, new: float) -> None:
        """Where only this schedule acts, the rate is `new` to the bit; else it changes by the same factor. Up from a rate of 0
        there is no factor."""
        if group["lr"] == old or old == 0:
            group["lr"] = new
        elif new != old:
            group["lr"] *= new / old

    def _kept(self) -> dict[str, Callable[[Any], bool]]:
        return super()._kept() | {"base_lrs": self._rates}


# ---------------------------------------------------------------- schedules with a formula

class ConstantLR(Schedule):
    """lr = base * factor for the first total_iters steps, then base.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.schedule.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(4)]
    [[0.25], [0.25], [0.5], [0.5]]
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self.factor = _number("ConstantLR", "factor", factor, 0, 1, "(]")
        self.total_iters = _whole("ConstantLR", "total_iters", total_iters)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.factor if t < self.total_iters else base


class StepLR(Schedule):
    """lr = base * gamma^(t // step_size): a fall every step_size steps.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.schedule.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(5)]
    [[0.5], [0.5], [0.25], [0.25], [0.125]]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = _whole("StepLR", "step_size", step_size)
        self.gamma = _number("StepLR", "gamma", gamma, ends="()")
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * _power(self.gamma, t // self.step_size)


class MultiStepLR(Schedule):
    """lr = base * gamma^n, where n of the milestones are t or less.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.schedule.MultiStepLR(optimizer, milestones=[1, 4], gamma=0.5)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(5)]
    [[0.5], [0.25], [0.25], [0.25], [0.125]]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        if not hasattr(milestones, "__iter__"):
            raise TypeError(f"MultiStepLR: milestones must be a list of ints, got {type(milestones).__name__}")
        self.milestones = sorted(_whole("MultiStepLR", f"milestones[{i}]", n, 0) for i, n in enumerate(milestones))
        self.gamma = _number("MultiStepLR", "gamma", gamma, ends="()")
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * _power(self.gamma, bisect_right(self.milestones, t))


class ExponentialLR(Schedule):
    """lr = base * gamma^t.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.schedule.ExponentialLR(optimizer, gamma=0.5)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(3)]
    [[0.5], [0.25], [0.125]]
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = _number("ExponentialLR", "gamma", gamma, ends="()")
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * _power(self.gamma, t)


class LinearLR(Schedule):
    """lr = base * f, with f going in a straight line from start_factor to end_factor in total_iters steps: the warm-up.

    The page of this module, `help(minigrad.schedule)`, shows how a warm-up goes with another schedule.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.schedule.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(4)]
    [[0.25], [0.375], [0.5], [0.5]]
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5) -> None:
        self.start_factor = _number("LinearLR", "start_factor", start_factor, 0, 1, "(]")
        self.end_factor = _number("LinearLR", "end_factor", end_factor, 0, 1, "[]")
        self.total_iters = _whole("LinearLR", "total_iters", total_iters)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        if t >= self.total_iters:
            return base * self.end_factor
        return base * (self.start_factor + (self.end_factor - self.start_factor) * t / self.total_iters)


class CosineAnnealingLR(Schedule):
    """lr = eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2 (Loshchilov and Hutter 2017, equation 5): down to eta_min in
    T_max steps, and as slowly up again if the training goes on.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.schedule.CosineAnnealingLR(optimizer, T_max=4)
    >>> [(round(schedule.get_last_lr()[0], 3), schedule.step())[0] for _ in range(5)]
    [0.5, 0.427, 0.25, 0.073, 0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = _whole("CosineAnnealingLR", "T_max", T_max)
        self.eta_min = _number("CosineAnnealingLR", "eta_min", eta_min)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * t / self.T_max)) / 2


class OneCycleLR(Schedule):
    """The one-cycle policy (Smith and Topin 2019): in total_steps steps from max_lr / div_factor up to max_lr, for the first
    pct_start of them, and down to final_div_factor times less than the beginning. The optimiser's own rate does not count.

    max_lr: a number, or a list with one for each group. anneal_strategy: the way between these, "cos" or "linear". With
    cycle_momentum the momentum (of Adam betas[0]) goes the other way, from max_momentum to base_momentum and back. A step beyond
    total_steps is a ValueError.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], momentum=0.9)
    >>> schedule = mg.schedule.OneCycleLR(optimizer, max_lr=1.0, total_steps=5, pct_start=0.6, anneal_strategy="linear")
    >>> [(round(schedule.get_last_lr()[0], 3), schedule.step())[0] for _ in range(5)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int,
        *,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        op = "OneCycleLR"
        groups = _optimizer(op, optimizer).param_groups
        highest = _each(op, "max_lr", max_lr, optimizer)
        self.total_steps = _whole(op, "total_steps", total_steps)
        self.pct_start = _number(op, "pct_start", pct_start, 0, 1, "[]")
        self.anneal_strategy = _choice(op, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.cycle_momentum = flag(op, "cycle_momentum", cycle_momentum)
        self.base_momentum = _number(op, "base_momentum", base_momentum, 0, 1)
        self.max_momentum = _number(op, "max_momentum", max_momentum, 0, 1)
        self.div_factor = _number(op, "div_factor", div_factor, 0, ends="()")
        self.final_div_factor = _number(op, "final_div_factor", final_div_factor, ends="()")
        if self.cycle_momentum and not any(name in groups[0] for name in ("betas", "momentum")):
            raise ValueError(f"{op}: {optimizer.op} has no momentum to cycle: give cycle_momentum=False")
        for group, high in zip(groups, highest, strict=True):
            group["lr"] = group["initial_lr"] = high / self.div_factor
        super().__init__(optimizer)
        self._set_momentum()

    def _between(self, low: float, high: float, end: float, t: int) -> float:
        """From `low` up to `high`, and down to `end`."""
        top = self.pct_start * self.total_steps - 1
        start, stop, x = (low, high, t / top if top else 1.0) if t <= top else \
            (high, end, (t - top) / (self.total_steps - 1 - top) if t < self.total_steps else 1.0)
        return start + (stop - start) * (x if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * x)) / 2)

    def rate(self, base: float, t: int) -> float:
        return self._between(base, base * self.div_factor, base / self.final_div_factor, t)

    def step(self) -> None:
        """Go on by one step."""
        if self.steps >= self.total_steps:
            raise ValueError(f"OneCycleLR: the cycle has ended after its {self.total_steps} steps")
        super().step()
        self._set_momentum()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict, as for the other schedules; the momentum follows from the step."""
        super().load_state_dict(state)
        self._set_momentum()

    def _kept(self) -> dict[str, Callable[[Any], bool]]:
        return super()._kept() | {"steps": lambda v: type(v) is int and 0 <= v <= self.total_steps}

    def _set_momentum(self) -> None:
        momentum = self._between(self.max_momentum, self.base_momentum, self.max_momentum, self.steps)
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


# ---------------------------------------------------------------- by what is measured

class ReduceLROnPlateau(_State):
    """lr = max(factor * lr, min_lr) when the metric given to `step` has not improved for more than `patience` steps.

    mode: whether a lower ("min") or a higher ("max") metric is better. Better means by more than `threshold`, a part of the best
    so far (threshold_mode="rel") or a difference ("abs"). After a change, `cooldown` steps pass before steps without improvement
    are counted again. A change of eps or less is not made. min_lr: a number, or a list with one for each group.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.schedule.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> [(schedule.step(loss), schedule.get_last_lr()[0])[1] for loss in (3.0, 2.0, 2.0, 2.0, 1.0)]
    [0.5, 0.5, 0.5, 0.25, 0.25]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        op = "ReduceLROnPlateau"
        self.mode = _choice(op, "mode", mode, ("min", "max"))
        self.factor = _number(op, "factor", factor, 0, 1)
        self.patience = _whole(op, "patience", patience, 0)
        self.threshold = _number(op, "threshold", threshold)
        self.threshold_mode = _choice(op, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = _whole(op, "cooldown", cooldown, 0)
        self.eps = _number(op, "eps", eps)
        self.optimizer = _optimizer(op, optimizer)
        self.min_lrs = _each(op, "min_lr", min_lr, optimizer)
        self.steps = self.bad_steps = self.cooldown_left = 0
        self.best: float | None = None

    def step(self, metric: float | Tensor) -> None:
        """Go on by one step; metric is what is watched, the loss on held-out data say, a number that is finite."""
        if isinstance(metric, Tensor) and metric.size == 1:
            metric = metric.item()
        metric = _number("ReduceLROnPlateau", "metric", metric, -math.inf, math.inf, "()")
        self.steps += 1
        if self._better(metric):
            self.best, self.bad_steps = metric, 0
        else:
            self.bad_steps += 1
        if self.cooldown_left:
            self.cooldown_left -= 1
            self.bad_steps = 0
        if self.bad_steps > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lower = max(group["lr"] * self.factor, least)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_left, self.bad_steps = self.cooldown, 0

    def _better(self, metric: float) -> bool:
        if self.best is None:
            return True
        margin = self.threshold * self.best if self.threshold_mode == "rel" else self.threshold
        return metric < self.best - margin if self.mode == "min" else metric > self.best + margin

    def _kept(self) -> dict[str, Callable[[Any], bool]]:
        count = super()._kept()["steps"]
        return {"steps": count, "bad_steps": count, "cooldown_left": count,
                "best": lambda v: v is None or type(v) is float and math.isfinite(v)}
