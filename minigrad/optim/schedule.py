"""Schedules of the learning rate: ConstantLR, StepLR, MultiStepLR, ExponentialLR,
CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau. Names and arguments are PyTorch's, and
for one schedule on an optimiser the numbers are too; the one exception is ReduceLROnPlateau's
relative threshold for negative metrics.

A schedule changes "lr" in the optimiser's param_groups: once when it is made, then at each `step`,
which is called after the optimiser's. Each formula gives the rate after t steps, from the rate
`base` that the group had before any schedule.

Several schedules may act on one optimiser: the rate is then base times the product of rate / base
of each, also after one of them was at 0 for a while. PyTorch's numbers are the same for ConstantLR,
StepLR, MultiStepLR, ExponentialLR and LinearLR, and for CosineAnnealingLR with eta_min=0 in its
first T_max steps. Beyond these, and with eta_min above 0, PyTorch's CosineAnnealingLR adds to the
rate that the others made, and its OneCycleLR overwrites it; here both are factors as the others
are. So a warm-up can be combined with any other schedule. Either both step:

>>> import minigrad as mg
>>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.8)
>>> warmup = mg.optim.schedule.LinearLR(optimizer, start_factor=0.25, total_iters=3)
>>> decay = mg.optim.schedule.StepLR(optimizer, step_size=4, gamma=0.5)
>>> rates = []
>>> for _ in range(9):
...     rates.append(round(optimizer.param_groups[0]["lr"], 3))
...     optimizer.step()
...     warmup.step()
...     decay.step()
>>> rates
[0.2, 0.4, 0.6, 0.8, 0.4, 0.4, 0.4, 0.4, 0.2]

or one after the other, by `(warmup if t < 3 else decay).step()` in the t-th turn of the loop. Then
the second begins when the first has ended.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minigrad.checks import choice, flag, integer, number
from minigrad.core.tensor import Tensor
from minigrad.optim import step as update
from minigrad.optim.optimizers import Optimizer, _power

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
]

# ---------------------------------------------------------------- arguments


def _whole(op: str, name: str, value: Any, low: int = 1) -> int:
    return integer(op, name, value, low, 2**63 - 1)


def _optimizer(op: str, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"{op}: optimizer must be an optimiser of minigrad.optim, "
            f"got {type(optimizer).__name__}"
        )
    return optimizer


def _each(op: str, name: str, value: Any, optimizer: Optimizer, **bounds: Any) -> list[float]:
    """A number for each group: given as one for all, or as a list."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [number(op, name, value, **bounds)] * count
    if len(value) != count:
        raise ValueError(
            f"{op}: {name} must hold a number for each of the {count} groups, got {len(value)}"
        )
    return [number(op, f"{name}[{i}]", v, **bounds) for i, v in enumerate(value)]


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
        """What a later run needs to go on, including the present rates: numbers and lists, which
        JSON can hold."""
        state: dict[str, Any] = {}
        for name in self._kept():
            value = getattr(self, name)
            state[name] = list(value) if isinstance(value, list) else value
        state["lrs"] = self.get_last_lr()
        behind = self.optimizer.behind_zero
        if any(zeros for zeros, _ in behind):
            state["behind_zero"] = [list(pair) for pair in behind]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict, in a schedule made with the same arguments, before or after the
        optimiser's is loaded. Everything that does not fit is named in one ValueError, and then
        nothing has changed."""
        op = type(self).__name__
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: state must be a dict, got {type(state).__name__}")
        checks = self._kept() | {"lrs": self._rates}
        wrong = [f"missing: {k}" for k in checks if k not in state]
        checks["behind_zero"] = self._pairs
        wrong += [f"unexpected: {k}" for k in state if k not in checks]
        wrong += [
            f"{k} cannot be {state[k]!r}"
            for k, fits in checks.items()
            if k in state and not fits(state[k])
        ]
        if wrong:
            raise ValueError(f"load_state_dict: {op} does not fit the state: " + "; ".join(wrong))
        update.commit(self._loaded(state))

    def _loaded(self, state: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What a state that fits sets: [(dict, what in it), ...]."""
        kept = {k: list(state[k]) if isinstance(state[k], list) else state[k] for k in self._kept()}
        groups = self.optimizer.param_groups
        behind = [
            (zeros, value) for zeros, value in state.get("behind_zero", [(0, 1.0)] * len(groups))
        ]
        return [
            (self.__dict__, kept),
            (self.optimizer.__dict__, {"behind_zero": behind}),
            *((group, {"lr": lr}) for group, lr in zip(groups, state["lrs"], strict=True)),
        ]

    def _pairs(self, value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) == len(self.optimizer.param_groups)
            and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
            and all(
                type(zeros) is int and zeros >= 0 and type(v) is float and 0 <= v < math.inf
                for zeros, v in value
            )
        )

    def _rates(self, value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) == len(self.optimizer.param_groups)
            and all(type(v) is float and 0 <= v < math.inf for v in value)
        )


class Schedule(_State):
    """A schedule with a formula: `rate(base, t)` is the learning rate after t steps.

    A subclass may give a formula of its own.

    Args:
        optimizer: The optimiser whose learning rates it changes.

    >>> import minigrad as mg
    >>> class Inverse(mg.optim.schedule.Schedule):
    ...     def rate(self, base, t):
    ...         return base / (1 + t)
    >>> schedule = Inverse(mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.3))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.15]
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = _optimizer(type(self).__name__, optimizer)
        groups = optimizer.param_groups
        self.base_lrs: list[Any] = [group.get("initial_lr", group["lr"]) for group in groups]
        changes = self._moves([(base, self.rate(base, 0)) for base in self.base_lrs])
        changes += [
            (group, {"initial_lr": base}) for group, base in zip(groups, self.base_lrs, strict=True)
        ]
        update.commit([(self.__dict__, {"steps": 0}), *changes])

    def rate(self, base: float, t: int) -> float:
        """The learning rate of a group after some steps.

        Args:
            base: its rate before the first step.
            t: the number of steps.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rate")

    def step(self) -> None:
        """Go on by one step."""
        update.commit(self._step())

    def _step(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What a step sets: [(dict, what in it), ...]."""
        rates = [
            (self.rate(base, self.steps), self.rate(base, self.steps + 1)) for base in self.base_lrs
        ]
        return [(self.__dict__, {"steps": self.steps + 1}), *self._moves(rates)]

    def _moves(
        self, rates: list[tuple[float, float]]
    ) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What is set when this schedule's part of the rates goes from old to new, for each group.

        Where only this schedule acts, the rate is `new` to the bit; else it changes by the same
        factor. While it is 0 there is no factor: behind_zero has for each group (how many schedules
        are at 0, what the rate is without their parts). A rate that was set by hand meanwhile is
        not 0, and then these do not count."""
        found, behind = [], []
        for group, (old, new), (zeros, hidden) in zip(
            self.optimizer.param_groups, rates, self.optimizer.behind_zero, strict=True
        ):
            lr = group["lr"]
            value = hidden if zeros and lr == 0 else lr
            zeros = zeros if lr == 0 else 0
            if old == 0 and new != 0:
                value = value * new if zeros else new
                zeros = max(zeros - 1, 0)
            elif old != 0 and new == 0:
                value = value / old
                zeros += 1
            elif new != old:
                value = new if value == old else value / old * new
            found.append((group, {"lr": 0.0 if zeros else value}))
            behind.append((zeros, value if zeros else 1.0))
        return [*found, (self.optimizer.__dict__, {"behind_zero": behind})]

    def _kept(self) -> dict[str, Callable[[Any], bool]]:
        return super()._kept() | {"base_lrs": self._rates}


# ---------------------------------------------------------------- schedules with a formula


class ConstantLR(Schedule):
    """lr = base * factor for the first total_iters steps, then base.

    Args:
        optimizer: The optimiser whose learning rates it changes.
        factor: Above 0, at most 1. Default: 1/3.
        total_iters: At least 1. Default: 5.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.optim.schedule.ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(4)]
    [[0.25], [0.25], [0.5], [0.5]]
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self.factor = number("ConstantLR", "factor", factor, 0, 1, "(]")
        self.total_iters = _whole("ConstantLR", "total_iters", total_iters)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * self.factor if t < self.total_iters else base


class StepLR(Schedule):
    """lr = base * gamma^(t // step_size): it changes every step_size steps.

    Args:
        optimizer: The optimiser whose learning rates it changes.
        step_size: At least 1.
        gamma: Above 0. Default: 0.1.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.optim.schedule.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(5)]
    [[0.5], [0.5], [0.25], [0.25], [0.125]]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = _whole("StepLR", "step_size", step_size)
        self.gamma = number("StepLR", "gamma", gamma, ends="()")
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * _power(self.gamma, t // self.step_size)


class MultiStepLR(Schedule):
    """lr = base * gamma^n, where n of the milestones are t or less.

    Args:
        optimizer: The optimiser whose learning rates it changes.
        milestones: Numbers of steps, each at least 0, in any order.
        gamma: Above 0. Default: 0.1.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.optim.schedule.MultiStepLR(optimizer, milestones=[1, 4], gamma=0.5)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(5)]
    [[0.5], [0.25], [0.25], [0.25], [0.125]]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        if not hasattr(milestones, "__iter__"):
            raise TypeError(
                f"MultiStepLR: milestones must be a list of ints, got {type(milestones).__name__}"
            )
        self.milestones = sorted(
            _whole("MultiStepLR", f"milestones[{i}]", n, 0) for i, n in enumerate(milestones)
        )
        self.gamma = number("MultiStepLR", "gamma", gamma, ends="()")
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * _power(self.gamma, bisect_right(self.milestones, t))


class ExponentialLR(Schedule):
    """lr = base * gamma^t.

    Args:
        optimizer: The optimiser whose learning rates it changes.
        gamma: Above 0.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.optim.schedule.ExponentialLR(optimizer, gamma=0.5)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(3)]
    [[0.5], [0.25], [0.125]]
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = number("ExponentialLR", "gamma", gamma, ends="()")
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return base * _power(self.gamma, t)


class LinearLR(Schedule):
    """lr = base * f, with f on a straight line from start_factor to end_factor: the warm-up.

    The page of this module, `help(minigrad.optim.schedule)`, shows how a warm-up goes with another
    schedule.

    Args:
        optimizer: The optimiser whose learning rates it changes.
        start_factor: f at the beginning, above 0, at most 1. Default: 1/3.
        end_factor: f after total_iters steps and later, from 0 to 1. Default: 1.
        total_iters: At least 1. Default: 5.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.optim.schedule.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> [(schedule.get_last_lr(), schedule.step())[0] for _ in range(4)]
    [[0.25], [0.375], [0.5], [0.5]]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ) -> None:
        self.start_factor = number("LinearLR", "start_factor", start_factor, 0, 1, "(]")
        self.end_factor = number("LinearLR", "end_factor", end_factor, 0, 1, "[]")
        self.total_iters = _whole("LinearLR", "total_iters", total_iters)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        if t >= self.total_iters:
            return base * self.end_factor
        return base * (
            self.start_factor + (self.end_factor - self.start_factor) * t / self.total_iters
        )


class CosineAnnealingLR(Schedule):
    """lr = eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2.

    It goes down to eta_min in T_max steps, and as slowly up again if the training goes on
    (Loshchilov and Hutter 2017, equation 5).

    Args:
        optimizer: The optimiser whose learning rates it changes.
        T_max: At least 1.
        eta_min: The lowest rate, at least 0. Default: 0.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.optim.schedule.CosineAnnealingLR(optimizer, T_max=4)
    >>> [(round(schedule.get_last_lr()[0], 3), schedule.step())[0] for _ in range(5)]
    [0.5, 0.427, 0.25, 0.073, 0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = _whole("CosineAnnealingLR", "T_max", T_max)
        self.eta_min = number("CosineAnnealingLR", "eta_min", eta_min)
        super().__init__(optimizer)

    def rate(self, base: float, t: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * t / self.T_max)) / 2


class OneCycleLR(Schedule):
    """The one-cycle policy (Smith and Topin 2019): up to max_lr, then down to almost nothing.

    The rate starts at max_lr / div_factor and ends at final_div_factor times less than that. The
    optimiser's own rate does not count. A step beyond total_steps is a ValueError.

    Args:
        optimizer: The optimiser whose learning rates it changes.
        max_lr: The highest rate: a number, or a list with one for each group.
        total_steps: The number of steps of the cycle, at least 1.
        pct_start: The part of the steps in which the rate rises, from 0 to 1. Default: 0.3.
        anneal_strategy: The way up and down, "cos" or "linear". Default: "cos".
        cycle_momentum: Whether the momentum (Adam's betas[0]) goes the other way, from max_momentum
            to base_momentum and back. Default: True.
        base_momentum: The lowest momentum, at least 0 and below 1. Default: 0.85.
        max_momentum: The highest momentum, at least 0 and below 1. Default: 0.95.
        div_factor: Above 0. Default: 25.
        final_div_factor: Above 0. Default: 10,000.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], momentum=0.9)
    >>> schedule = mg.optim.schedule.OneCycleLR(
    ...     optimizer, max_lr=1.0, total_steps=5, pct_start=0.6, anneal_strategy="linear")
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
        self.pct_start = number(op, "pct_start", pct_start, 0, 1, "[]")
        self.anneal_strategy = choice(op, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.cycle_momentum = flag(op, "cycle_momentum", cycle_momentum)
        self.base_momentum = number(op, "base_momentum", base_momentum, 0, 1)
        self.max_momentum = number(op, "max_momentum", max_momentum, 0, 1)
        self.div_factor = number(op, "div_factor", div_factor, 0, ends="()")
        self.final_div_factor = number(op, "final_div_factor", final_div_factor, ends="()")
        if self.cycle_momentum and not any(name in groups[0] for name in ("betas", "momentum")):
            raise ValueError(
                f"{op}: {optimizer.op} has no momentum to cycle: give cycle_momentum=False"
            )
        for group, high in zip(groups, highest, strict=True):
            group["lr"] = group["initial_lr"] = high / self.div_factor
        super().__init__(optimizer)
        update.commit(self._momenta(0))

    def _between(self, low: float, high: float, end: float, t: int) -> float:
        """From `low` up to `high`, and down to `end`."""
        top = self.pct_start * self.total_steps - 1
        if t <= top:
            start, stop = low, high
            x = t / top if top else 1.0
        else:
            start, stop = high, end
            x = (t - top) / (self.total_steps - 1 - top) if t < self.total_steps else 1.0
        if self.anneal_strategy == "cos":
            x = (1 - math.cos(math.pi * x)) / 2
        return start + (stop - start) * x

    def rate(self, base: float, t: int) -> float:
        return self._between(base, base * self.div_factor, base / self.final_div_factor, t)

    def _step(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        if self.steps >= self.total_steps:
            raise ValueError(f"OneCycleLR: the cycle has ended after its {self.total_steps} steps")
        return super()._step() + self._momenta(self.steps + 1)

    def _loaded(self, state: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return super()._loaded(state) + self._momenta(state["steps"])

    def _kept(self) -> dict[str, Callable[[Any], bool]]:
        return super()._kept() | {"steps": lambda v: type(v) is int and 0 <= v <= self.total_steps}

    def _momenta(self, t: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What the momentum after t steps sets."""
        if not self.cycle_momentum:
            return []
        momentum = self._between(self.max_momentum, self.base_momentum, self.max_momentum, t)
        changes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for group in self.optimizer.param_groups:
            if "betas" in group:
                changes.append((group, {"betas": (momentum, group["betas"][1])}))
            else:
                changes.append((group, {"momentum": momentum}))
        return changes


# ---------------------------------------------------------------- by what is measured


class ReduceLROnPlateau(_State):
    """lr = max(factor * lr, min_lr) when the metric that `step` gets has stopped improving.

    For a negative best, PyTorch's relative threshold lets pass what is as good as before or a
    little worse, so that it never reduces the rate; here it asks for more, as for a positive one.

    Args:
        optimizer: The optimiser whose learning rates it changes.
        mode: Whether a lower ("min") or a higher ("max") metric is better. Default: "min".
        factor: At least 0 and below 1. Default: 0.1.
        patience: The rate falls when more than so many steps brought no improvement. Default: 10.
        threshold: Better means by more than this, at least 0. Default: 1e-4.
        threshold_mode: Whether threshold is a part of the size of the best so far ("rel") or a
            difference ("abs"). Default: "rel".
        cooldown: So many steps after a change are not counted. Default: 0.
        min_lr: The lowest rate: a number, or a list with one for each group. Default: 0.
        eps: A change of eps or less is not made. Default: 1e-8.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.SGD([mg.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = mg.optim.schedule.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
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
        self.mode = choice(op, "mode", mode, ("min", "max"))
        self.factor = number(op, "factor", factor, 0, 1)
        self.patience = _whole(op, "patience", patience, 0)
        self.threshold = number(op, "threshold", threshold)
        self.threshold_mode = choice(op, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = _whole(op, "cooldown", cooldown, 0)
        self.eps = number(op, "eps", eps)
        self.optimizer = _optimizer(op, optimizer)
        self.min_lrs = _each(op, "min_lr", min_lr, optimizer)
        self.steps = self.bad_steps = self.cooldown_left = 0
        self.best: float | None = None

    def step(self, metric: float | Tensor) -> None:
        """Go on by one step; metric is what is watched, the loss on held-out data say, a finite
        number: NaN is a ValueError."""
        if isinstance(metric, Tensor) and metric.size == 1:
            metric = metric.item()
        metric = number("ReduceLROnPlateau", "metric", metric, -math.inf, math.inf, "()")
        best, bad_steps, cooldown_left = self.best, self.bad_steps + 1, self.cooldown_left
        if self._better(metric):
            best, bad_steps = metric, 0
        if cooldown_left:
            cooldown_left -= 1
            bad_steps = 0
        changes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        if bad_steps > self.patience:
            changes = self._reduced()
            cooldown_left, bad_steps = self.cooldown, 0
        counts: dict[str, Any] = {
            "steps": self.steps + 1,
            "best": best,
            "bad_steps": bad_steps,
            "cooldown_left": cooldown_left,
        }
        update.commit([(self.__dict__, counts), *changes])

    def _reduced(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What lower rates set: [(dict, what in it), ...]. Behind a rate that another schedule
        holds at 0, the factor acts too."""
        found, behind = [], []
        optimizer = self.optimizer
        for group, least, (zeros, value) in zip(
            optimizer.param_groups, self.min_lrs, optimizer.behind_zero, strict=True
        ):
            lower = max(group["lr"] * self.factor, least)
            if group["lr"] - lower > self.eps:
                found.append((group, {"lr": lower}))
            behind.append((zeros, value * self.factor if zeros and group["lr"] == 0 else value))
        return [*found, (optimizer.__dict__, {"behind_zero": behind})]

    def _better(self, metric: float) -> bool:
        if self.best is None:
            return True
        margin = self.threshold * abs(self.best) if self.threshold_mode == "rel" else self.threshold
        return metric < self.best - margin if self.mode == "min" else metric > self.best + margin

    def _kept(self) -> dict[str, Callable[[Any], bool]]:
        count = super()._kept()["steps"]
        return {
            "steps": count,
            "bad_steps": count,
            "cooldown_left": count,
            "best": lambda v: v is None or type(v) is float and math.isfinite(v),
        }
