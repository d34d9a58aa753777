"""Optimisers and gradient clipping, in NumPy: SGD, Adam, AdamW; clip_grad_norm_, clip_grad_value_ (slide: gradient clipping).

The formulas and defaults are PyTorch's. A step changes the parameters in place; where a gradient is None the parameter is left
alone.
"""
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.tensor import Tensor, no_grad


def _number(op: str, name: str, value: Any, low: float, high: float, open_end: bool = False) -> float:
    """`value` as a float from low to high."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not (low <= value < high if open_end else low <= value <= high):
        bound = "below" if open_end else "to"
        raise ValueError(f"{op}: {name} must be from {low} {bound} {high}, got {value}")
    return float(value)


def _tensors(op: str, parameters: Iterable[Tensor]) -> list[Tensor]:
    """The parameters as a list of distinct Tensors, not empty."""
    if isinstance(parameters, Tensor) or not hasattr(parameters, "__iter__"):
        raise TypeError(f"{op}: parameters must be an iterable of Tensors, got {type(parameters).__name__}")
    found = list(parameters)
    for p in found:
        if not isinstance(p, Tensor):
            raise TypeError(f"{op}: parameters must be Tensors, got {type(p).__name__}")
    if not found:
        raise ValueError(f"{op}: parameters must hold at least one Tensor, got none")
    if len({id(p) for p in found}) != len(found):
        raise ValueError(f"{op}: parameters must not hold a Tensor twice")
    return found


class Optimizer:
    """What the optimisers share: the parameters, their state (arrays by name), zero_grad and the state dict.

    >>> import minigrad as mg
    >>> optimizer = mg.optim.Adam([mg.ones(2, requires_grad=True)], lr=0.1)
    >>> isinstance(optimizer, mg.optim.Optimizer), optimizer.lr
    (True, 0.1)
    """

    lr: float
    names: tuple[str, ...] = ()         # of the arrays kept for each parameter

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        self.op = type(self).__name__
        self.parameters = _tensors(self.op, parameters)
        self.lr = _number(self.op, "lr", lr, 0, np.inf, open_end=True)
        self.steps = 0
        self.state: list[dict[str, np.ndarray]] = [
            {name: np.zeros(p.shape, p.dtype) for name in self.names} for p in self.parameters
        ]

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        """Change each parameter by its gradient."""
        self.steps += 1
        with no_grad():
            for p, state in zip(self.parameters, self.state, strict=True):
                if p.grad is not None:
                    p[...] = self._update(p.numpy(), p.grad.numpy(), state)

    def _update(self, p: np.ndarray, g: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that a later run needs to go on with the same bits: {"steps": int, "lr": float, "0.m": array, ...}."""
        arrays = {f"{i}.{name}": a.copy() for i, state in enumerate(self.state) for name, a in state.items()}
        return {"steps": self.steps, "lr": self.lr, **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict; all that does not fit is one ValueError, and then nothing has changed."""
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: state must be a dict, got {type(state).__name__}")
        own = self.state_dict()
        wrong = [f"missing: {k}" for k in own if k not in state] + [f"unexpected: {k}" for k in state if k not in own]
        for k in own:
            if k not in state or k in ("steps", "lr"):
                continue
            array = np.asarray(state[k])
            if array.shape != own[k].shape or array.dtype != own[k].dtype:
                wrong.append(f"{k} must have shape {own[k].shape} and dtype {own[k].dtype}, got {array.shape} and {array.dtype}")
        steps, lr = state.get("steps", 0), state.get("lr", 0.0)
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 0:
            wrong.append(f"steps must be an int of at least 0, got {steps!r}")
        if isinstance(lr, bool) or not isinstance(lr, (int, float, np.integer, np.floating)) or not 0 <= lr < np.inf:
            wrong.append(f"lr must be a number from 0 below inf, got {lr!r}")
        if wrong:
            raise ValueError(f"load_state_dict: {self.op} does not fit the state: " + "; ".join(wrong))
        self.steps, self.lr = int(steps), float(lr)
        for i, arrays in enumerate(self.state):
            for name in arrays:
                arrays[name] = np.array(state[f"{i}.{name}"])


class SGD(Optimizer):
    """Gradient descent: v = momentum v + (1 - dampening) g, p = p - lr v; with nesterov, p = p - lr (g + momentum v). The first
    v is g.

    SGD(parameters, lr, momentum=0, dampening=0, weight_decay=0, nesterov=False); g includes weight_decay * p.

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
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.momentum = _number("SGD", "momentum", momentum, 0, np.inf, open_end=True)
        self.dampening = _number("SGD", "dampening", dampening, 0, 1)
        self.weight_decay = _number("SGD", "weight_decay", weight_decay, 0, np.inf, open_end=True)
        if not isinstance(nesterov, bool):
            raise TypeError(f"SGD: nesterov must be a bool, got {type(nesterov).__name__}")
        if nesterov and (not self.momentum or self.dampening):
            raise ValueError(f"SGD: nesterov needs a momentum and no dampening, got momentum={momentum}, dampening={dampening}")
        self.nesterov = nesterov
        self.names = ("v", "started") if self.momentum else ()
        super().__init__(parameters, lr)
        for state in self.state:
            if "started" in state:
                state["started"] = np.zeros((), np.int64)

    def _update(self, p: np.ndarray, g: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.momentum:
            v = state["v"]
            v[...] = self.momentum * v + (1 - self.dampening) * g if state["started"] else g
            state["started"] = np.ones((), np.int64)
            g = g + self.momentum * v if self.nesterov else v
        return p - self.lr * g


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1): m and v are running means of g and g^2, p = p - lr (m / (1 - b1^t)) / (sqrt(v /
    (1 - b2^t)) + eps).

    Adam(parameters, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False); g includes weight_decay * p.
    amsgrad: v is the largest so far (Reddi, Kale and Kumar 2018).

    >>> import minigrad as mg
    >>> p = mg.Tensor([1.0], requires_grad=True)
    >>> optimizer = mg.optim.Adam([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    Tensor([0.90000004], requires_grad=True)
    """

    decoupled = False

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        op = type(self).__name__
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"{op}: betas must be a pair of numbers, got {betas!r}")
        self.betas = tuple(_number(op, f"betas[{i}]", beta, 0, 1, open_end=True) for i, beta in enumerate(betas))
        self.eps = _number(op, "eps", eps, 0, np.inf, open_end=True)
        self.weight_decay = _number(op, "weight_decay", weight_decay, 0, np.inf, open_end=True)
        if not isinstance(amsgrad, bool):
            raise TypeError(f"{op}: amsgrad must be a bool, got {type(amsgrad).__name__}")
        self.names = ("m", "v", "t") + (("v_max",) if amsgrad else ())
        super().__init__(parameters, lr)
        for state in self.state:
            state["t"] = np.zeros((), np.int64)

    def _update(self, p: np.ndarray, g: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
        b1, b2 = self.betas
        m, v = state["m"], state["v"]
        state["t"] += 1
        t = int(state["t"])
        if self.weight_decay and self.decoupled:
            p = p * (1 - self.lr * self.weight_decay)
        elif self.weight_decay:
            g = g + self.weight_decay * p
        m *= b1
        m += (1 - b1) * g
        v *= b2
        v += (1 - b2) * (g * g)
        if "v_max" in state:
            v = np.maximum(state["v_max"], v, out=state["v_max"])
        step = np.sqrt(v, out=np.empty_like(v))      # an array also where v is 0-d
        step /= np.sqrt(1 - b2**t)
        step += self.eps
        np.divide(m, step, out=step)
        step *= self.lr / (1 - b1**t)
        return p - step


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p shrinks by lr * weight_decay * p beside Adam's step.

    AdamW(parameters, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, amsgrad=False).

    >>> import minigrad as mg
    >>> mg.optim.AdamW([mg.Tensor([1.0], requires_grad=True)]).weight_decay
    0.01
    """

    decoupled = True

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, amsgrad)


def _norm(gradients: list[Tensor], p: float) -> float:
    """(the sum of |g|^p over all elements)^(1/p), in float64. By minigrad's own kernels: BLAS sums in another order on another
    CPU or number of threads, and the bits of a whole training would follow."""
    with no_grad():
        sizes = [abs(g.astype(np.float64)) for g in gradients if g.size]
        if p == np.inf:
            return float(np.max([size.max().item() for size in sizes], initial=0.0))
        return float(sum((size**p).sum().item() for size in sizes) ** (1 / p))


def clip_grad_norm_(
    parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients together so that their norm is at most `max_norm`; return the norm that they had.

    norm_type: the p of the p-norm, or inf. error_if_nonfinite: a norm that is not finite is a RuntimeError, and nothing changes.

    >>> import minigrad as mg
    >>> p = mg.Tensor([3.0, 4.0], requires_grad=True)
    >>> (p * p).sum().backward()
    >>> mg.optim.clip_grad_norm_([p], 1.0)
    10.0
    >>> p.grad
    Tensor([0.5999999, 0.7999999])
    """
    op = "clip_grad_norm_"
    gradients = [p.grad for p in _tensors(op, parameters) if p.grad is not None]
    max_norm, norm_type = _number(op, "max_norm", max_norm, 0, np.inf), _number(op, "norm_type", norm_type, 0, np.inf)
    if not norm_type:
        raise ValueError(f"{op}: norm_type must be above 0, got {norm_type}")
    total = _norm(gradients, norm_type)
    if error_if_nonfinite and not np.isfinite(total):
        raise RuntimeError(f"{op}: the norm of the gradients is {total}")
    scale = max_norm / (total + 1e-6)
    if scale < 1:
        for g in gradients:
            g[...] = g.numpy() * g.dtype.type(scale)
    return total


def clip_grad_value_(parameters: Iterable[Tensor], clip_value: float) -> None:
    """Replace what is above `clip_value` or below its negative in the gradients by that bound (the slide's clipping).

    >>> import minigrad as mg
    >>> p = mg.Tensor([3.0, -4.0], requires_grad=True)
    >>> (p * p).sum().backward()
    >>> mg.optim.clip_grad_value_([p], 7.0)
    >>> p.grad
    Tensor([ 6., -7.])
    """
    bound = _number("clip_grad_value_", "clip_value", clip_value, 0, np.inf)
    for p in _tensors("clip_grad_value_", parameters):
        if p.grad is not None:
            p.grad[...] = np.clip(p.grad.numpy(), -bound, bound)
