"""Ops whose forward and backward the user writes in Python."""

from threading import get_ident
from typing import Any

import numpy as np

from minigrad.core.array import check_data
from minigrad.core.modes import is_grad_enabled, no_grad
from minigrad.core.operands import zeros
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor

__all__ = ["Context", "Function"]


class Context:
    """What a Function keeps from forward to backward: Tensors by `save_for_backward`, anything else
    as an attribute.

    `needs_input_grad` says for each argument of forward whether a gradient is wanted.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._saved: tuple[Tensor, ...] = ()
        self._received: dict[int, tuple[Tensor, ...]] = {}  # thread -> what backward is given there

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep Tensors. If they are arguments or results of forward, changes in place are noticed,
        and backward can be differentiated with respect to them."""
        for x in tensors:
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"save_for_backward: can keep Tensors, got {type(x).__name__}: "
                    "set an attribute of ctx instead"
                )
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """In backward: what save_for_backward was given."""
        return self._received.get(get_ident(), self._saved)


class Function:
    """An op written in Python: subclass it, write forward and backward as static methods, and call
    `apply`.

    ``forward(ctx, *arguments)`` gets the arguments of `apply`, which may be of any kind, and
    returns a Tensor or a tuple of them. Nothing is recorded in it.

    ``backward(ctx, *gradients)`` gets the gradient of each result (zeros for one that was not used)
    and returns the gradient of each argument: a Tensor of the argument's shape and dtype, or None
    where there is none. If it is made of ops on Tensors, and only arguments and results were saved,
    it can be differentiated again.

    >>> import minigrad as mg
    >>> class Exp(mg.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         y = mg.Tensor(np.exp(x.numpy()))
    ...         ctx.save_for_backward(y)
    ...         return y
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         (y,) = ctx.saved_tensors
    ...         return dy * y
    >>> x = mg.Tensor([0.0], requires_grad=True)
    >>> (5 * Exp.apply(x)).backward()
    >>> x.grad
    Tensor([5.])
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any, **options: Any) -> Any:
        """The value: `ctx` keeps what backward needs of `arguments`; `options` are never given."""
        raise NotImplementedError(
            "Function: a subclass must define forward(ctx, ...) as a static method"
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Any, **options: Any) -> Any:
        """The gradients of the arguments: `cotangents` are those of the results, `ctx` is that of
        forward; `options` are never given."""
        raise NotImplementedError(
            "Function: a subclass must define backward(ctx, ...) as a static method"
        )

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """Run forward on the arguments and put the op on the tape; return what forward returned."""
        name = cls.__name__
        for i, x in enumerate(arguments):
            if isinstance(x, (list, tuple, dict, set)):
                check_data(x, name, f"argument {i}")
        differentiable = tuple(isinstance(x, Tensor) for x in arguments)
        inputs = tuple(x for x in arguments if isinstance(x, Tensor))
        ctx = Context(tuple(isinstance(x, Tensor) and x.requires_grad for x in arguments))
        with no_grad():
            returned = cls.forward(ctx, *arguments)
        results = _checked_results(name, returned)
        places = [_place(x, inputs, results) for x in ctx._saved]
        # Results are saved through record's save_value: the rule must not hold them, or the op
        # would hold itself.
        kept = tuple(x for x, (kind, _) in zip(ctx._saved, places, strict=True) if kind != "result")
        ctx._saved = ()
        specs = [(y.shape, y.dtype) for y in results]
        values = tuple(y._array for y in results)
        return record(
            name,
            values if isinstance(returned, tuple) else values[0],
            inputs,
            _Rule(cls, ctx, differentiable, specs, places),
            kept,
            save_value=len(kept) < len(places),
        )


def _checked_results(name: str, returned: Any) -> tuple[Tensor, ...]:
    """What forward returned, as a tuple of Tensors."""
    results = returned if isinstance(returned, tuple) else (returned,)
    expected = f"{name}: forward must return a Tensor or a tuple of them"
    if not results:
        raise TypeError(f"{expected}, got ()")
    for y in results:
        if not isinstance(y, Tensor):
            raise TypeError(f"{expected}, got {type(y).__name__}")
    return results


def _place(x: Tensor, inputs: tuple[Tensor, ...], results: tuple[Tensor, ...]) -> tuple[str, int]:
    """Where a saved tensor comes from."""
    for kind, tensors in (("argument", inputs), ("result", results)):
        for i, y in enumerate(tensors):
            if x is y:
                return kind, i
    return "other", 0


class _Rule:
    """The backward of one op as `record` calls it: hands on what was saved, checks what comes back.

    Args:
        function: the user's subclass of Function.
        ctx: what its forward was given.
        differentiable: for each argument of forward, whether it is a Tensor.
        specs: shape and dtype of each result.
        places: for each saved tensor, where it comes from.
    """

    def __init__(
        self,
        function: type[Function],
        ctx: Context,
        differentiable: tuple[bool, ...],
        specs: list[tuple[tuple[int, ...], np.dtype[Any]]],
        places: list[tuple[str, int]],
    ) -> None:
        self.function, self.ctx, self.differentiable = function, ctx, differentiable
        self.specs, self.places = specs, places

    def __call__(self, *received: Tensor | None) -> tuple[Tensor | None, ...]:
        """received: the gradient of each result, None for zeros; then the saved tensors, those that
        are results last."""
        name, count = self.function.__name__, len(self.specs)
        kinds = [kind for kind, _ in self.places]
        if "other" in kinds and is_grad_enabled():
            raise RuntimeError(
                f"{name}: cannot be differentiated twice, since it saved a tensor that is neither "
                "an argument nor a result of forward: save what it was made from"
            )
        cotangents = [
            zeros(*spec) if dy is None else dy
            for dy, spec in zip(received[:count], self.specs, strict=True)
        ]
        saved = iter(received[count:])
        values = received[count + len(kinds) - kinds.count("result") :]
        tensors = tuple(values[i] if kind == "result" else next(saved) for kind, i in self.places)
        gradients = self._run(cotangents, tensors)
        if len(gradients) != len(self.differentiable):
            raise RuntimeError(
                f"{name}: backward must return a gradient for each of the "
                f"{len(self.differentiable)} arguments of forward, got {len(gradients)}"
            )
        found = []
        for i, (dx, is_tensor) in enumerate(zip(gradients, self.differentiable, strict=True)):
            if is_tensor:
                found.append(dx)
            elif dx is not None:
                raise RuntimeError(
                    f"{name}: backward must return None for argument {i}, which is no Tensor, "
                    f"got {type(dx).__name__}"
                )
        return tuple(found)

    def _run(self, cotangents: list[Tensor], tensors: tuple[Any, ...]) -> tuple[Any, ...]:
        """The user's backward. Other threads, and a backward inside of this one, may come through
        the same op."""
        ctx, thread = self.ctx, get_ident()
        outer = ctx._received.get(thread)
        ctx._received[thread] = tensors
        try:
            gradients = self.function.backward(ctx, *cotangents)
        finally:
            if outer is None:
                del ctx._received[thread]
            else:
                ctx._received[thread] = outer
        return gradients if isinstance(gradients, tuple) else (gradients,)
