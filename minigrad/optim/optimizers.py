"""The optimisers: SGD, RMSprop, Adam, AdamW, Adagrad, and what they share.

Formulas, options and defaults are PyTorch's. A step changes the parameters in place; where a
gradient is None the parameter and its state are left alone. In all formulas g is the gradient,
first negated if `maximize`, then with weight_decay * p added.

A class here has the options, the names of the arrays that are kept for each parameter, and the
numbers of a step. One pass in C over each parameter does the rest: csrc/optim.inc. Its bits depend
neither on the number of threads nor on the instruction set. A new optimiser is a class here, a
kernel there, and a row in tests/optim/makers.py.
"""

import functools
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minigrad.checks import flag, number
from minigrad.core.tensor import Tensor
from minigrad.optim import step as update
from minigrad.optim.groups import Group, Parameters, groups_of

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]


def _betas(op: str, name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{op}: betas must be a pair of numbers, got {reprlib.repr(value)}")
    return number(op, "betas[0]", value[0], 0, 1), number(op, "betas[1]", value[1], 0, 1)


# An option means the same in every optimiser that has it.
_CHECKS: dict[str, Callable[[str, str, Any], Any]] = {
    "betas": _betas,
    "alpha": lambda op, name, value: number(op, name, value, 0, 1),
    "dampening": lambda op, name, value: number(op, name, value, 0, 1, "[]"),
} | dict.fromkeys(("nesterov", "maximize", "centered", "amsgrad"), flag)


def _checked(op: str, options: Mapping[str, Any]) -> Group:
    """The options of a group, each as the type that it is kept in."""
    found: Group = {}
    for name, value in options.items():
        check: Callable[[str, str, Any], Any] = _CHECKS.get(name, number)
        found[name] = check(op, name, value)
    if found.get("nesterov") and (not found["momentum"] or found["dampening"]):
        raise ValueError(
            f"{op}: nesterov needs a momentum and no dampening, "
            f"got momentum={found['momentum']}, dampening={found['dampening']}"
        )
    return found


@functools.lru_cache(maxsize=64)
def _power(base: float, n: int) -> float:
    """base^n for n >= 0, by squaring: pow of the C library has other last bits on other
    machines."""
    result = 1.0
    while n:
        if n & 1:
            result *= base
        base *= base
        n >>= 1
    return result


@functools.lru_cache(maxsize=64)
def _rest_of_power(base: float, n: int) -> float:
    """1 - base^n for 0 <= base < 1, by squaring, with all its digits also where base^n is nearly 1:
    1 - x y = (1 - x) + x (1 - y), a sum of positive numbers."""
    power, rest = 1.0, 0.0  # base^k and 1 - base^k, for the part k of n that is done
    step, step_rest = base, 1 - base
    while n:
        if n & 1:
            rest += power * step_rest
            power *= step
        step_rest += step * step_rest
        step *= step
        n >>= 1
    return rest


class Optimizer:
    """What the optimisers share: groups of parameters, their state, zero_grad, the state dict.

    param_groups is a list of dicts: "params", a list of Tensors, and the options of these, which
    may be changed at any time (`optimizer.param_groups[0]["lr"] = 0.01`; schedules do just that).
    Options are checked when they are given and again at each step. state[p] is what is kept for the
    parameter p: "step", how many steps it has made, and arrays by name.

    Args:
        parameters: Tensors with requires_grad in a fixed order, or dicts with "params" and options
            of their own, one for each group.
        defaults: The options of a group that does not give its own, by name.

    Raises:
        TypeError, ValueError: An option does not fit, or a parameter is no leaf or is given twice.

    >>> import minigrad as mg
    >>> w, b = mg.ones(2, requires_grad=True), mg.zeros(2, requires_grad=True)
    >>> optimizer = mg.optim.AdamW([{"params": [w]}, {"params": [b], "weight_decay": 0}], lr=0.1)
    >>> [group["weight_decay"] for group in optimizer.param_groups]
    [0.01, 0.0]
    """

    _kernel: str  # the name of its step in csrc/optim.inc
    _arrays: Mapping[str, str] = {}  # what may be kept, by name: its field in csrc/optim.h
    _begins_with_a_gradient = False  # an array is None until its first use

    def __init__(self, parameters: Parameters, defaults: Group) -> None:
        self.op = type(self).__name__
        if not isinstance(defaults, Mapping):
            raise TypeError(
                f"{self.op}: defaults must be a dict of options, got {type(defaults).__name__}"
            )
        self.param_groups = groups_of(self.op, parameters, defaults, _checked)
        for p in self.parameters:
            if not p.is_leaf:
                raise ValueError(
                    f"{self.op}: parameters must be leaves of the graph, "
                    f"got the output of {p.grad_fn.name if p.grad_fn else None}"
                )
        self.state: dict[Tensor, dict[str, Any]] = {p: {"step": 0} for p in self.parameters}
        # For the schedules: Schedule._moves says what it is.
        self.behind_zero = [(0, 1.0)] * len(self.param_groups)
        self._complete()

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of all groups, in order."""
        return [p for group in self.param_groups for p in group["params"]]

    def _names(self, group: Group) -> tuple[str, ...]:
        """Which arrays these options need for each parameter."""
        raise NotImplementedError(f"{self.op} has no _names")

    def _initial(self, p: Tensor, group: Group) -> np.ndarray | None:
        """What is kept before the first step; None for an array that begins with a gradient."""
        return np.zeros(p.shape, p.dtype)

    def _complete(self) -> None:
        """Make the arrays that are not there: at first all, later those that a changed option
        needs."""
        if any(p not in self.state for p in self.parameters):
            raise ValueError(
                f"{self.op}: a parameter was put into a group after the optimiser was made: "
                "make a new optimiser with all of them"
            )
        for group in self.param_groups:
            for name in self._names(group):
                for p in group["params"]:
                    if name not in self.state[p]:
                        self.state[p][name] = self._initial(p, group)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        update.clear_gradients(self.parameters)

    def step(self) -> None:
        """Change each parameter by its gradient. If an exception is raised, none has changed;
        Ctrl-C acts before the change or after it."""
        for i, group in enumerate(self.param_groups):
            where = self.op if len(self.param_groups) == 1 else f"{self.op}: group {i}"
            options = {name: value for name, value in group.items() if name != "params"}
            group.update(_checked(where, options))
        self._complete()
        due = [
            (p, group) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        updates = update.Updates(self.op, len(due))
        for p, group in due:
            state = self.state[p]
            t = state["step"] + 1
            self._add(updates, p, state, t, group)
            updates.note(state, "step", t)
        updates.run()

    def _add(
        self, updates: update.Updates, p: Tensor, state: dict[str, Any], t: int, o: Group
    ) -> None:
        """Add p's step, its t-th, with the options o."""
        arrays = [(name, self._arrays[name], state[name]) for name in self._names(o)]
        updates.add(p, self._kernel, arrays, maximize=o["maximize"], **self._numbers(t, o))

    def _numbers(self, t: int, o: Group) -> dict[str, Any]:
        """The numbers that the kernel reads in the t-th step, by their names in csrc/optim.h."""
        raise NotImplementedError(f"{self.op} has no _numbers")

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that a later run needs to go on with the same bits: {"param_groups":
        [{"lr": 0.1, ..., "params": [0, 1]}], "steps": [7, 7], "0.m": array, ...}. Parameters are
        numbered through all groups. What is not an array fits into JSON; None is a momentum that
        has not begun. Arrays of an option that was switched off are included, in case it is
        switched on again."""
        self._complete()
        groups: list[Group] = []
        steps: list[int] = []
        arrays: dict[str, np.ndarray | None] = {}
        for group in self.param_groups:
            options = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in group.items()
            }
            groups.append(
                options | {"params": list(range(len(steps), len(steps) + len(group["params"])))}
            )
            for p in group["params"]:
                for name, array in self.state[p].items():
                    if name != "step":
                        arrays[f"{len(steps)}.{name}"] = None if array is None else array.copy()
                steps.append(self.state[p]["step"])
        return {"param_groups": groups, "steps": steps, **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, a state_dict, with its options. Everything that does not fit is named
        in one ValueError, and then nothing has changed."""
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: state must be a dict, got {type(state).__name__}")
        wrong: list[str] = []
        options = self._loaded_options(state, wrong)
        own = self.parameters
        needed: dict[str, Tensor] = {}
        known: dict[str, Tensor] = {}
        for i, (p, group) in enumerate(
            zip(own, [g for g in options for _ in g["params"]], strict=True)
        ):
            needed |= {f"{i}.{name}": p for name in self._names(group)}
            known |= {f"{i}.{name}": p for name in self._arrays}
        wrong += [f"missing: {k}" for k in ("steps", *needed) if k not in state]
        wrong += [
            f"unexpected: {k}"
            for k in state
            if k not in known and k not in ("param_groups", "steps")
        ]
        found = {k: p for k, p in known.items() if k in state}
        for k, p in found.items():
            array = state[k]
            begins = array is None and self._begins_with_a_gradient
            if not begins and not (
                isinstance(array, np.ndarray) and array.shape == p.shape and array.dtype == p.dtype
            ):
                got = (
                    f"{array.shape} and {array.dtype}"
                    if isinstance(array, np.ndarray)
                    else type(array).__name__
                )
                wrong.append(
                    f"{k} must be an array of shape {p.shape} and dtype {p.dtype}, got {got}"
                )
        steps = state.get("steps", [])
        if "steps" in state and not (
            isinstance(steps, list)
            and len(steps) == len(own)
            and all(type(n) is int and n >= 0 for n in steps)
        ):
            wrong.append(
                f"steps must be a list of {len(own)} ints of at least 0, got {reprlib.repr(steps)}"
            )
        if wrong:
            raise ValueError(
                f"load_state_dict: {self.op} does not fit the state: " + "; ".join(wrong)
            )
        loaded: dict[Tensor, dict[str, Any]] = {
            p: {"step": n} for p, n in zip(own, steps, strict=True)
        }
        for k, p in found.items():
            began = state[k] is not None and not (
                self._begins_with_a_gradient and loaded[p]["step"] == 0
            )
            loaded[p][k.partition(".")[2]] = np.array(state[k], order="C") if began else None
        update.commit(
            [(self.__dict__, {"state": loaded}), *zip(self.param_groups, options, strict=True)]
        )

    def _loaded_options(self, state: Mapping[str, Any], wrong: list[str]) -> list[Group]:
        """The groups of a state with this optimiser's parameters; where they do not fit `wrong`
        grows, and they are our own."""
        saved = state.get("param_groups")
        if "param_groups" not in state:
            wrong.append("missing: param_groups")
        elif not (
            isinstance(saved, list)
            and len(saved) == len(self.param_groups)
            and all(isinstance(group, Mapping) for group in saved)
        ):
            wrong.append(
                f"param_groups must be a list of {len(self.param_groups)} dicts, "
                f"got {reprlib.repr(saved)}"
            )
            saved = None
        groups, first = [], 0
        for i, group in enumerate(self.param_groups):
            options, before = dict(saved[i]) if saved else {}, len(wrong)
            end = first + len(group["params"])
            if saved:
                wrong += [
                    f"param_groups[{i}] misses {k!r}"
                    for k in group
                    if k not in options and k != "initial_lr"
                ]
                wrong += [
                    f"param_groups[{i}] has the unexpected {k!r}"
                    for k in options
                    if k not in group and k != "initial_lr"
                ]
                if options.pop("params", None) != list(range(first, end)):
                    wrong.append(f"param_groups[{i}] must hold the parameters {first} to {end - 1}")
            if len(wrong) == before:
                try:
                    options = _checked(f"param_groups[{i}]", options)
                except (TypeError, ValueError) as error:
                    wrong.append(str(error))
            groups.append(group | options if len(wrong) == before else group)
            first = end
        return groups


class SGD(Optimizer):
    """Gradient descent, with momentum if that is given.

    Without momentum p = p - lr g. With it::

        v = momentum v + (1 - dampening) g
        p = p - lr v,   or with nesterov   p = p - lr (g + momentum v)

    The first v of a parameter is g, also where momentum is switched on later.

    Args:
        parameters: Tensors with requires_grad in a fixed order, or dicts with "params" and options
            of their own, one for each group.
        lr: The learning rate, at least 0. Default: 0.001.
        momentum: At least 0. Default: 0.
        dampening: From 0 to 1. Default: 0.
        weight_decay: weight_decay * p is added to the gradient. Default: 0.
        nesterov: Look ahead by the momentum; needs a momentum and no dampening. Default: False.
        maximize: Go up the gradient, not down. Default: False.

    Raises:
        TypeError, ValueError: An option does not fit, or a parameter is no leaf or is given twice.

    >>> import minigrad as mg
    >>> p = mg.Tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.SGD([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    Tensor([0.8], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            dict(
                lr=lr,
                momentum=momentum,
                dampening=dampening,
                weight_decay=weight_decay,
                nesterov=nesterov,
                maximize=maximize,
            ),
        )

    _kernel = "sgd"
    _arrays = {"v": "v"}
    _begins_with_a_gradient = True

    def _names(self, group: Group) -> tuple[str, ...]:
        return ("v",) if group["momentum"] else ()

    def _initial(self, p: Tensor, group: Group) -> None:
        return None

    def _add(
        self, updates: update.Updates, p: Tensor, state: dict[str, Any], t: int, o: Group
    ) -> None:
        if o["momentum"] and state["v"] is None:
            v = np.empty(p.shape, p.dtype)
            updates.note(state, "v", v)
            numbers = self._numbers(t, o)
            updates.add(p, "sgd", [("v", "v", v)], maximize=o["maximize"], first=True, **numbers)
        else:
            super()._add(updates, p, state, t, o)

    def _numbers(self, t: int, o: Group) -> dict[str, Any]:
        return {
            name: o[name] for name in ("lr", "weight_decay", "momentum", "dampening", "nesterov")
        }


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012, lecture 6e): steps divided by the root of a running mean of g^2::

        v = alpha v + (1 - alpha) g^2
        p = p - lr g / (sqrt(v) + eps)

    Args:
        parameters: Tensors with requires_grad in a fixed order, or dicts with "params" and options
            of their own, one for each group.
        lr: The learning rate, at least 0. Default: 0.01.
        alpha: The decay of the running means, at least 0 and below 1. Default: 0.99.
        eps: Added to the root, at least 0. Default: 1e-8.
        weight_decay: weight_decay * p is added to the gradient. Default: 0.
        momentum: With b = momentum b + g / (sqrt(v) + eps), p = p - lr b. Default: 0.
        centered: The root is that of the variance v - m^2, with m = alpha m + (1 - alpha) g
            (Graves 2013, equation 40). Default: False.
        maximize: Go up the gradient, not down. Default: False.

    Raises:
        TypeError, ValueError: An option does not fit, or a parameter is no leaf or is given twice.

    >>> import minigrad as mg
    >>> p = mg.Tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.RMSprop([p], lr=0.01, alpha=0.75)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    Tensor([0.98], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            dict(
                lr=lr,
                alpha=alpha,
                eps=eps,
                weight_decay=weight_decay,
                momentum=momentum,
                centered=centered,
                maximize=maximize,
            ),
        )

    _kernel = "rmsprop"
    _arrays = {"v": "v", "m": "m", "b": "extra"}

    def _names(self, group: Group) -> tuple[str, ...]:
        mean = ("m",) if group["centered"] else ()
        momentum = ("b",) if group["momentum"] else ()
        return ("v", *mean, *momentum)

    def _numbers(self, t: int, o: Group) -> dict[str, Any]:
        numbers = {name: o[name] for name in ("lr", "weight_decay", "eps", "momentum")}
        return numbers | {"beta2": o["alpha"]}


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1)::

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) g^2
        p = p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        parameters: Tensors with requires_grad in a fixed order, or dicts with "params" and options
            of their own, one for each group.
        lr: The learning rate, at least 0. Default: 0.001.
        betas: (b1, b2), each at least 0 and below 1. Default: (0.9, 0.999).
        eps: Added to the root, at least 0. Default: 1e-8.
        weight_decay: weight_decay * p is added to the gradient. Default: 0.
        amsgrad: Use the largest v so far (Reddi, Kale and Kumar 2018). Default: False.
        maximize: Go up the gradient, not down. Default: False.

    Raises:
        TypeError, ValueError: An option does not fit, or a parameter is no leaf or is given twice.

    >>> import minigrad as mg
    >>> p = mg.Tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.Adam([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    Tensor([0.9], requires_grad=True)
    """

    decoupled = False

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            dict(
                lr=lr,
                betas=betas,
                eps=eps,
                weight_decay=weight_decay,
                amsgrad=amsgrad,
                maximize=maximize,
            ),
        )

    _kernel = "adam"
    _arrays = {"m": "m", "v": "v", "v_max": "extra"}

    def _names(self, group: Group) -> tuple[str, ...]:
        return ("m", "v", "v_max") if group["amsgrad"] else ("m", "v")

    def _numbers(self, t: int, o: Group) -> dict[str, Any]:
        beta1, beta2 = o["betas"]
        numbers = {
            "lr": o["lr"] / _rest_of_power(beta1, t),
            "beta1": beta1,
            "beta2": beta2,
            "eps": o["eps"],
            "root": 1 / math.sqrt(_rest_of_power(beta2, t)),
        }
        if self.decoupled:
            return numbers | {"shrink": o["lr"] * o["weight_decay"]}
        return numbers | {"weight_decay": o["weight_decay"]}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    In addition to Adam's step p shrinks by lr * weight_decay * p; the gradient stays as it is.

    Args:
        parameters: Tensors with requires_grad in a fixed order, or dicts with "params" and options
            of their own, one for each group.
        lr: The learning rate, at least 0. Default: 0.001.
        betas: (b1, b2), each at least 0 and below 1. Default: (0.9, 0.999).
        eps: Added to the root, at least 0. Default: 1e-8.
        weight_decay: At least 0. Default: 0.01.
        amsgrad: Use the largest v so far (Reddi, Kale and Kumar 2018). Default: False.
        maximize: Go up the gradient, not down. Default: False.

    Raises:
        TypeError, ValueError: An option does not fit, or a parameter is no leaf or is given twice.

    >>> import minigrad as mg
    >>> mg.optim.AdamW([mg.Tensor([1.0], requires_grad=True)]).param_groups[0]["weight_decay"]
    0.01
    """

    decoupled = True

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, amsgrad, maximize)


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan and Singer 2011)::

        s = s + g^2
        p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)

    Args:
        parameters: Tensors with requires_grad in a fixed order, or dicts with "params" and options
            of their own, one for each group.
        lr: The learning rate, at least 0. Default: 0.01.
        lr_decay: How fast the learning rate falls, at least 0. Default: 0.
        weight_decay: weight_decay * p is added to the gradient. Default: 0.
        initial_accumulator_value: What s starts with, at least 0. Default: 0.
        eps: Added to the root, at least 0. Default: 1e-10.
        maximize: Go up the gradient, not down. Default: False.

    Raises:
        TypeError, ValueError: An option does not fit, or a parameter is no leaf or is given twice.

    >>> import minigrad as mg
    >>> p = mg.Tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.Adagrad([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    Tensor([0.9], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            dict(
                lr=lr,
                lr_decay=lr_decay,
                weight_decay=weight_decay,
                initial_accumulator_value=initial_accumulator_value,
                eps=eps,
                maximize=maximize,
            ),
        )

    _kernel = "adagrad"
    _arrays = {"s": "v"}

    def _names(self, group: Group) -> tuple[str, ...]:
        return ("s",)

    def _initial(self, p: Tensor, group: Group) -> np.ndarray:
        return np.full(p.shape, group["initial_accumulator_value"], p.dtype)

    def _numbers(self, t: int, o: Group) -> dict[str, Any]:
        return {
            "lr": o["lr"] / (1 + (t - 1) * o["lr_decay"]),
            "weight_decay": o["weight_decay"],
            "eps": o["eps"],
        }
