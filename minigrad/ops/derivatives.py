"""Derivatives of functions, built on the sweep: products with the Jacobian from either side, the
Jacobian, products with the Hessian, the Hessian. No ``grad`` changes.

With J the Jacobian of y = fn(x) and H the Hessian of a scalar:

    vjp        x̄ = v J     one sweep
    jvp        ẏ = J v     two sweeps: u J is linear in u, and its derivative by u, times v, is J v
    hvp        H v         two sweeps: the derivative of v · ∇fn
    jacobian   J           one sweep for each row
    hessian    H           one sweep for each row, behind that of the gradient

The forms by two sweeps differentiate a backward pass, as ``create_graph=True`` does.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from minigrad.core.modes import enable_grad
from minigrad.core.operands import zeros
from minigrad.core.sweep import grad
from minigrad.core.tensor import Tensor
from minigrad.ops.join import stack

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vjp"]


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
    value, outputs = _value(fn, points, "vjp")
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
    gradients = _gradients(outputs, points, cotangents, create_graph)
    return _returned(value, outputs, create_graph), gradients


def jvp(
    fn: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    v: "Operand | Sequence[Operand]",
    create_graph: bool = False,
) -> tuple[Any, Any]:
    """The value of fn(*inputs), and the Jacobian-vector product: the derivative of the value when
    the inputs move in the direction v.

    The graph behind the inputs is not followed, and no ``grad`` changes. Every rule on the way must
    be differentiable itself, as for ``create_graph=True``.

    Args:
        fn: Takes `inputs` and returns a Tensor or several.
        inputs: A Tensor or several.
        v: An array of the input's shape (the *tangent*), or one for each of several inputs.
        create_graph: Whether both results can be differentiated with respect to the inputs that
            require grad. Default: False.

    Returns:
        (value, tangents): what fn returned, and the derivative of each part of it, as one Tensor or
        a tuple.

    Raises:
        TypeError: An input, or what fn returns, is no Tensor.
        ValueError: `v` does not fit the inputs.
        RuntimeError: A rule on the way cannot be differentiated.

    >>> import minigrad as mg
    >>> value, dy = mg.jvp(lambda x: x * x, mg.Tensor([1.0, 2.0]), mg.Tensor([1.0, 10.0]))
    >>> value
    Tensor([1., 4.])
    >>> dy
    Tensor([ 2., 40.])
    """
    tensors = _tensors(inputs, "jvp", "inputs")
    directions = _directions(v, inputs, tensors, "jvp")
    points = _points(tensors, create_graph)
    value, outputs = _value(fn, points, "jvp")
    # u J is linear in u: where it is differentiated does not matter.
    cotangents = [zeros(y.shape, y.dtype).requires_grad_() for y in outputs]
    gradients = _gradients(outputs, points, cotangents, create_graph=True)
    tangents = _gradients(gradients, cotangents, directions, create_graph)
    several = isinstance(value, (tuple, list))
    return _returned(value, outputs, create_graph), tangents if several else tangents[0]


def hvp(
    fn: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    v: "Operand | Sequence[Operand]",
    create_graph: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The value of the scalar fn(*inputs), and the product of its Hessian with v: the derivative of
    the gradient when the inputs move in the direction v.

    The graph behind the inputs is not followed, and no ``grad`` changes. Every rule on the way must
    be differentiable itself, as for ``create_graph=True``.

    Args:
        fn: Takes `inputs` and returns a scalar, a Tensor of one element.
        inputs: A Tensor or several.
        v: An array of the input's shape, or one for each of several inputs.
        create_graph: Whether both results can be differentiated with respect to the inputs that
            require grad. Default: False.

    Returns:
        (value, products): what fn returned, and a tuple with a Tensor for each input.

    Raises:
        TypeError: An input, or what fn returns, is no Tensor.
        ValueError: `v` does not fit the inputs, or fn returns more than one element.
        RuntimeError: A rule on the way cannot be differentiated.

    >>> import minigrad as mg
    >>> value, (Hv,) = mg.hvp(lambda x: (x**3).sum(), mg.Tensor([1.0, 2.0]), [1.0, 1.0])
    >>> value
    Tensor(9.)
    >>> Hv
    Tensor([ 6., 12.])
    """
    tensors = _tensors(inputs, "hvp", "inputs")
    directions = _directions(v, inputs, tensors, "hvp")
    points = _points(tensors, create_graph)
    y = _scalar(fn, points, "hvp")
    gradients = _gradients([y], points, [None], create_graph=True)
    products = _gradients(gradients, points, directions, create_graph)
    return y if create_graph else y.detach(), products


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
    y = _single(fn, points, "jacobian")
    jacobians = _rows(y, points, create_graph)
    return jacobians[0] if isinstance(inputs, Tensor) else jacobians


@overload
def hessian(fn: Callable[..., Tensor], inputs: Tensor, create_graph: bool = False) -> Tensor: ...
@overload
def hessian(
    fn: Callable[..., Tensor], inputs: Sequence[Tensor], create_graph: bool = False
) -> tuple[tuple[Tensor, ...], ...]: ...
def hessian(
    fn: Callable[..., Tensor], inputs: Tensor | Sequence[Tensor], create_graph: bool = False
) -> Tensor | tuple[tuple[Tensor, ...], ...]:
    """The Hessian of the scalar fn(*inputs): a Tensor of shape input.shape + input.shape. For
    several inputs, a tuple of tuples: at [i][j] stands the derivative by input i and input j.

    It is computed row by row, by one sweep for each element of the inputs behind that of the
    gradient; for a product with it, `hvp` needs two sweeps. The graph behind the inputs is not
    followed, and no ``grad`` changes. Every rule on the way must be differentiable itself, as for
    ``create_graph=True``.

    Args:
        fn: Takes `inputs` and returns a scalar, a Tensor of one element.
        inputs: A Tensor or several.
        create_graph: Whether the result can be differentiated with respect to the inputs that
            require grad. Default: False.

    Raises:
        TypeError: An input, or what fn returns, is no Tensor.
        ValueError: fn returns more than one element.
        RuntimeError: A rule on the way cannot be differentiated.

    >>> import minigrad as mg
    >>> mg.hessian(lambda x: x[0] ** 2 * x[1], mg.Tensor([1.0, 3.0]))
    Tensor([[6., 2.],
            [2., 0.]])
    """
    points = _points(_tensors(inputs, "hessian", "inputs"), create_graph)
    y = _scalar(fn, points, "hessian")
    gradients = _gradients([y], points, [None], create_graph=True)
    hessians = tuple(_rows(dx, points, create_graph) for dx in gradients)
    return hessians[0][0] if isinstance(inputs, Tensor) else hessians


# ---------------------------------------------------------------- what they share


def _tensors(values: Any, op: str, name: str) -> list[Tensor]:
    found = list(values) if isinstance(values, (tuple, list)) else [values]
    for i, x in enumerate(found):
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: {name} must be Tensors, got {type(x).__name__} at position {i}")
    return found


def _directions(
    v: Any, inputs: Tensor | Sequence[Tensor], tensors: list[Tensor], op: str
) -> list[Tensor]:
    """v as one Tensor for each input, of its shape and dtype."""
    if isinstance(inputs, Tensor):
        given = [v]
    elif isinstance(v, (tuple, list)):
        given = list(v)
    else:
        raise TypeError(f"{op}: v must have one entry for each input, got {type(v).__name__}")
    if len(given) != len(tensors):
        raise ValueError(
            f"{op}: v must have one entry for each of the {len(tensors)} inputs, got {len(given)}"
        )
    found = []
    for i, (entry, x) in enumerate(zip(given, tensors, strict=True)):
        dtype = None if isinstance(entry, np.ndarray) else x.dtype
        direction = entry if isinstance(entry, Tensor) else Tensor(entry, dtype=dtype)
        if direction.dtype != x.dtype:
            raise TypeError(
                f"{op}: v must have dtype {x.dtype} like input {i}, got {direction.dtype}"
            )
        if direction.shape != x.shape:
            raise ValueError(
                f"{op}: v must have shape {x.shape} like input {i}, got {direction.shape}"
            )
        found.append(direction)
    return found


def _points(inputs: list[Tensor], create_graph: bool) -> list[Tensor]:
    """Where a function is differentiated: aliases of the inputs, so that an input that is given
    twice counts as two."""
    with enable_grad():
        return [
            x.reshape(x.shape) if create_graph and x.requires_grad else x.detach().requires_grad_()
            for x in inputs
        ]


def _value(fn: Callable[..., Any], points: list[Tensor], op: str) -> tuple[Any, list[Tensor]]:
    """What fn returns at the points, and the Tensors in it."""
    with enable_grad():
        value = fn(*points)
    return value, _tensors(value, op, "what fn returns")


def _single(fn: Callable[..., Any], points: list[Tensor], op: str) -> Tensor:
    """What fn returns, if it is one Tensor."""
    with enable_grad():
        y = fn(*points)
    if not isinstance(y, Tensor):
        raise TypeError(f"{op}: fn must return a Tensor, got {type(y).__name__}")
    return y


def _scalar(fn: Callable[..., Any], points: list[Tensor], op: str) -> Tensor:
    """What fn returns, if it is a Tensor of one element."""
    y = _single(fn, points, op)
    if y.size != 1:
        raise ValueError(f"{op}: fn must return a scalar, got shape {y.shape}")
    return y


def _gradients(
    outputs: Sequence[Tensor],
    points: Sequence[Tensor],
    cotangents: Sequence[Any],
    create_graph: bool,
) -> tuple[Tensor, ...]:
    """grad(), with zeros for points that were not used, and without the outputs that are
    constant."""
    pairs = [(y, v) for y, v in zip(outputs, cotangents, strict=True) if y.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(points)
    if pairs:
        found = grad(
            [y for y, _ in pairs],
            points,
            [v for _, v in pairs],
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
    return tuple(
        zeros(x.shape, x.dtype) if dx is None else dx for x, dx in zip(points, found, strict=True)
    )


def _rows(y: Tensor, points: list[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """The Jacobian of y by each point, one sweep for each element of y."""
    rows = []
    for element in np.ndindex(y.shape):
        seed = np.zeros(y.shape, y.dtype)
        seed[element] = 1
        rows.append(_gradients([y], points, [seed], create_graph))
    with enable_grad():
        shapes = [y.shape + x.shape for x in points]
        return tuple(
            stack([row[i] for row in rows]).reshape(shape) if rows else zeros(shape, y.dtype)
            for i, shape in enumerate(shapes)
        )


def _returned(value: Any, outputs: list[Tensor], create_graph: bool) -> Any:
    """The value as fn returned it, one Tensor or a tuple; without its graph if nobody wants it."""
    if not create_graph:
        outputs = [y.detach() for y in outputs]
    return tuple(outputs) if isinstance(value, (tuple, list)) else outputs[0]
