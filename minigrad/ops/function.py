"""What is built on the sweep: vjp, jacobian, and ops whose forward and backward the user writes in
Python."""

from collections.abc import Callable, Iterable, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from minigrad.core.array import check_data
from minigrad.core.modes import enable_grad, is_grad_enabled, no_grad
from minigrad.core.operands import zeros
from minigrad.core.sweep import grad
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor
from minigrad.ops.join import stack

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["Context", "Function", "jacobian", "vjp"]


def vjp(
    fn: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    v: "Operand | Sequence[Operand | None] | None" = None,
    create_graph: bool = False,
) -> tuple[Any, tuple[Tensor, ...]]:
    """The value of fn(*inputs), and the vector-Jacobian product: v times the Jacobian of fn, which
    is the gradient of each input when v is the gradient of the output.

    The graph behind the inputs is not followed, and no ``grad`` changes.

    Args:
        fn: Takes `inputs` and returns a Tensor or several.
        inputs: A Tensor or several.
        v: An array of the output's shape (the *cotangent*), or one for each of several outputs.
            Default: None, which is 1 for scalars.
        create_graph: Whether both results can be differentiated with respect to the inputs that
            require grad. Default: False.

    Returns:
        (value, gradients): what fn returned, and a tuple with a Tensor for each input.

    Raises:
        TypeError: An input, or what fn returns, is no Tensor.
        ValueError: `v` does not fit the outputs.

    >>> import minigrad as mg
    >>> value, (dx,) = mg.vjp(lambda x: x * x, mg.Tensor([1.0, 2.0]), mg.Tensor([1.0, 10.0]))
    >>> value
    Tensor([1., 4.])
    >>> dx
    Tensor([ 2., 40.])
    """
    points = _points(_tensors(inputs, "vjp", "inputs"), create_graph)
    with enable_grad():
        value = fn(*points)
    outputs = _tensors(value, "vjp", "what fn returns")
    cotangents: list[Any]
    if v is None:
        cotangents = [None] * len(outputs)
    elif isinstance(v, (Tensor, np.ndarray)) or not isinstance(v, Iterable):
        cotangents = [v]
    else:
        cotangents = list(v)
    if len(cotangents) != len(outputs):
        raise ValueError(
            f"vjp: v must have one entry for each of the {len(outputs)} outputs, "
            f"got {len(cotangents)}"
        )
    pairs = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
    gradients = _gradients([y for y, _ in pairs], points, [c for _, c in pairs], create_graph)
    if not create_graph:
        outputs = [y.detach() for y in outputs]
    return tuple(outputs) if isinstance(value, (tuple, list)) else outputs[0], gradients


@overload
def jacobian(fn: Callable[..., Tensor], inputs: Tensor, create_graph: bool = False) -> Tensor: ...
@overload
def jacobian(
    fn: Callable[..., Tensor], inputs: Sequence[Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]: ...
def jacobian(
    fn: Callable[..., Tensor], inputs: Tensor | Sequence[Tensor], create_graph: bool = False
) -> Tensor | tuple[Tensor, ...]:
    """The Jacobian of fn(*inputs): a Tensor of shape output.shape + input.shape, or a tuple of them
    for several inputs.

    It is computed row by row, by one sweep for each element of the output. The graph behind the
    inputs is not followed, and no ``grad`` changes.

    Args:
        fn: Takes `inputs` and returns a Tensor.
        inputs: A Tensor or several.
        create_graph: Whether the result can be differentiated with respect to the inputs that
            require grad. Default: False.

    Raises:
        TypeError: An input, or what fn returns, is no Tensor.

    >>> import minigrad as mg
    >>> mg.jacobian(lambda x: x ** 2, mg.Tensor([1.0, 3.0]))
    Tensor([[2., 0.],
            [0., 6.]])
    """
    points = _points(_tensors(inputs, "jacobian", "inputs"), create_graph)
    with enable_grad():
        y = fn(*points)
    if not isinstance(y, Tensor):
        raise TypeError(f"jacobian: fn must return a Tensor, got {type(y).__name__}")
    rows = []
    for element in np.ndindex(y.shape):
        seed = np.zeros(y.shape, y.dtype)
        seed[element] = 1
        rows.append(_gradients([y] if y.requires_grad else [], points, [seed], create_graph))
    with enable_grad():
        shapes = [y.shape + x.shape for x in points]
        jacobians = tuple(
            stack([row[i] for row in rows]).reshape(shape) if rows else zeros(shape, y.dtype)
            for i, shape in enumerate(shapes)
        )
    return jacobians[0] if isinstance(inputs, Tensor) else jacobians


def _tensors(values: Any, op: str, name: str) -> list[Tensor]:
    found = list(values) if isinstance(values, (tuple, list)) else [values]
    for i, x in enumerate(found):
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: {name} must be Tensors, got {type(x).__name__} at position {i}")
    return found


def _points(inputs: list[Tensor], create_graph: bool) -> list[Tensor]:
    """Where a function is differentiated: aliases of the inputs, so that an input that is given
    twice counts as two."""
    with enable_grad():
        return [
            x.reshape(x.shape) if create_graph and x.requires_grad else x.detach().requires_grad_()
            for x in inputs
        ]


def _gradients(
    outputs: list[Tensor], points: list[Tensor], cotangents: list[Any], create_graph: bool
) -> tuple[Tensor, ...]:
    """grad(), with zeros for what was not used and outputs that are constant."""
    found: Sequence[Tensor | None] = [None] * len(points)
    if outputs:
        found = grad(
            outputs,
            points,
            cotangents,
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
    return tuple(
        zeros(x.shape, x.dtype) if dx is None else dx for x, dx in zip(points, found, strict=True)
    )


# ---------------------------------------------------------------- ops of the user


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
        raise NotImplementedError(
            "Function: a subclass must define forward(ctx, ...) as a static method"
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Any, **options: Any) -> Any:
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
