"""Gradient checks: the gradients that backward computes are compared with differences of the
function itself, in float64.

Differences are central, of five points (Abramowitz and Stegun, 25.3.6):

    f'(x) ~ (f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / 12h

with an error of h^4 / 30 times the fifth derivative. With h = 1e-3 they are right to about 1e-12
for functions of moderate size, a thousand times better than two points with h = 1e-6. So the
tolerance can be tight: a gradient that is wrong by a factor of 1.0001, or that went through
float32, fails.

Where a gradient does not agree at first, the function may change fast, end nearby, or lose digits
inside. So before the gradient is called wrong, other steps are tried: smaller ones, and some in
proportion to x. Each gives an estimate of the derivative and of its error, which has two parts:

    rounding      noise / h; the noise of f is what its fourth differences at smaller steps show
    truncation    the distance from the estimate that the next smaller step gives

The estimate with the smallest error decides. Steps are powers of two, so that x + h is exact.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigrad import checks
from minigrad.core.sweep import grad
from minigrad.core.tensor import Tensor

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]

LARGEST = 2.0**1000  # of an input: differences beyond it leave the range of float64
CONSTANT = (
    "no output of fn requires grad: it does not depend on the inputs, or was made under no_grad"
)


class GradcheckError(RuntimeError):
    """What gradcheck raises when an analytic and a numeric gradient differ.

    >>> import minigrad as mg
    >>> def wrong(x):
    ...     return mg.record("wrong", 3 * x.numpy(), (x,), lambda dy: dy * 2)
    >>> mg.gradcheck(wrong, mg.ones(1, "float64", requires_grad=True))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    minigrad.study.gradcheck.GradcheckError: gradcheck: the gradient of output 0[0] ...
    """


def gradcheck(
    fn: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-3,
    rtol: float = 1e-8,
    atol: float = 0.0,
    seed: int = 0,
) -> bool:
    """Check the gradients of fn(*inputs) against differences; return True, or raise a
    GradcheckError that says where they differ.

    Two things are checked: the whole Jacobian, one element of the output at a time, and the product
    of the Jacobian with one random vector (the *cotangent*, a gradient for the output). The second
    is computed twice, and must have the same bits both times.

    Args:
        fn: Takes `inputs` and returns a Tensor or several. It must be smooth near the inputs.
        inputs: A Tensor or several, in float64. Those that require grad are checked. They must be
            leaves that own their memory, which is changed and put back; so fn may also reach them
            in another way, as the parameters of a module.
        eps: The first step of the differences, above 0. Where a gradient does not agree, eps / 10,
            eps / 100 and steps in proportion to the input are tried too. Default: 1e-3.
        rtol, atol: Each element of the Jacobian may be off by atol + rtol * its own size, plus the
            error of the differences. Defaults: 1e-8 and 0.
        seed: Of the random vector, at least 0. Default: 0.

    Raises:
        GradcheckError: A gradient is wrong.
        TypeError, ValueError: An argument is not as above, an input is not finite or beyond
            2**1000, or no output requires grad.

    >>> import minigrad as mg
    >>> x = mg.Tensor([0.5, -1.0, 2.0], dtype=np.float64, requires_grad=True)
    >>> mg.gradcheck(lambda x: mg.tanh(x) * x, x)
    True
    """
    inputs = _checked_inputs(inputs, "gradcheck")
    _check_numbers("gradcheck", eps, rtol, atol, seed)
    tested = [x for x in inputs if x.requires_grad]
    outputs = _evaluate(fn, inputs)
    if not any(y.requires_grad for y in outputs):
        raise ValueError(f"gradcheck: {CONSTANT}")
    analytic = _jacobians(outputs, tested)
    checked = [
        _numeric(fn, inputs, x, outputs, jacobian, eps, rtol, atol)
        for x, jacobian in zip(tested, analytic, strict=True)
    ]
    places = [
        f"output {k}{_element(element)}"
        for k, y in enumerate(outputs)
        for element in np.ndindex(y.shape)
    ]
    for row, place in enumerate(places):
        for x, jacobian, (numeric, limit, steps) in zip(tested, analytic, checked, strict=True):
            where = f"of {place} with respect to input {_position(x, inputs)}"
            _compare(
                jacobian[row].reshape(x.shape),
                numeric[row].reshape(x.shape),
                limit[row].reshape(x.shape),
                where,
                steps[row].reshape(x.shape),
            )
    rng = np.random.default_rng(seed)
    cotangents = [rng.normal(size=y.shape) for y in outputs]
    flat = np.concatenate([v.ravel() for v in cotangents])
    first, second = _gradients(outputs, tested, cotangents), _gradients(outputs, tested, cotangents)
    for x, gradient, again, jacobian, (_, limit, _) in zip(
        tested, first, second, analytic, checked, strict=True
    ):
        where = f"for a random cotangent with respect to input {_position(x, inputs)}"
        limit = np.abs(flat) @ limit + 1e-13 * (np.abs(flat) @ np.abs(jacobian))
        _compare(gradient, (flat @ jacobian).reshape(x.shape), limit.reshape(x.shape), where)
        if gradient.tobytes() != again.tobytes():
            raise GradcheckError(f"gradcheck: the gradient {where} has other bits the second time")
    return True


def gradgradcheck(
    fn: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float = 1e-3,
    rtol: float = 1e-8,
    atol: float = 1e-12,
    seed: int = 0,
) -> bool:
    """Check the second derivatives of fn(*inputs): run gradcheck on its gradients for a random
    cotangent, which counts as an input too.

    Args:
        fn: Takes `inputs` and returns a Tensor or several. It must be smooth near the inputs.
        inputs: A Tensor or several, in float64; those that require grad are checked, as by
            `gradcheck`.
        eps: The first step of the differences, above 0. Default: 1e-3.
        rtol, atol: Each element may be off by atol + rtol * its own size, plus the error of the
            differences. Defaults: 1e-8 and 1e-12. atol is above 0 because gradients, more often
            than functions, are differences of nearly equal numbers, and differences cannot show
            what those have lost.
        seed: Of the random cotangent, at least 0. Default: 0.

    Raises:
        GradcheckError: A second derivative is wrong.
        TypeError, ValueError: An argument is not as above, an input is not finite or beyond
            2**1000, or no output requires grad.

    >>> import minigrad as mg
    >>> x = mg.Tensor([0.5, -1.0], dtype=np.float64, requires_grad=True)
    >>> mg.gradgradcheck(mg.exp, x)
    True
    """
    inputs = _checked_inputs(inputs, "gradgradcheck")
    _check_numbers("gradgradcheck", eps, rtol, atol, seed)
    tested = [x for x in inputs if x.requires_grad]
    rng = np.random.default_rng(seed + 1)
    outputs = [y for y in _evaluate(fn, inputs) if y.requires_grad]
    if not outputs:
        raise ValueError(f"gradgradcheck: {CONSTANT}")
    cotangents = [Tensor(rng.normal(size=y.shape), requires_grad=True) for y in outputs]

    def gradients(*_: Tensor) -> tuple[Tensor, ...]:
        outputs = [y for y in _evaluate(fn, inputs) if y.requires_grad]
        found = grad(outputs, tested, cotangents, create_graph=True, allow_unused=True)
        return tuple(dx for dx in found if dx is not None)

    return gradcheck(gradients, [*inputs, *cotangents], eps=eps, rtol=rtol, atol=atol, seed=seed)


def _checked_inputs(inputs: Tensor | Sequence[Tensor], op: str) -> list[Tensor]:
    found = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for i, x in enumerate(found):
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: input {i} must be a Tensor, got {type(x).__name__}")
        if x.dtype != np.float64:
            raise TypeError(
                f"{op}: input {i} must have dtype float64, got {x.dtype}: "
                "differences in float32 prove nothing"
            )
        if x.requires_grad and not x.is_leaf:
            raise ValueError(
                f"{op}: input {i} must be a leaf, it was made by {_maker(x)}: use detach()"
            )
        if x.requires_grad and (
            not x._array.flags.writeable or (x.size > 1 and 0 in x._array.strides)
        ):
            raise ValueError(
                f"{op}: input {i} must own its memory, this is read-only or repeats elements: "
                "give a copy"
            )
        if x.requires_grad and not (np.abs(x._array) <= LARGEST).all():
            raise ValueError(
                f"{op}: the elements of input {i} must be finite and at most 2**1000 in size"
            )
    if not any(x.requires_grad for x in found):
        raise ValueError(f"{op}: none of the {len(found)} inputs requires grad")
    return found


def _check_numbers(op: str, eps: float, rtol: float, atol: float, seed: int) -> None:
    checks.number(op, "eps", eps, 0, LARGEST, "()")
    checks.number(op, "rtol", rtol)
    checks.number(op, "atol", atol)
    checks.integer(op, "seed", seed, 0)


def _maker(x: Tensor) -> str:
    return x.grad_fn.name if x.grad_fn is not None else ""


def _evaluate(fn: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    returned = fn(*inputs)
    outputs = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    for k, y in enumerate(outputs):
        if not isinstance(y, Tensor):
            raise TypeError(
                f"gradcheck: fn must return Tensors, got {type(y).__name__} for output {k}"
            )
        if y.dtype != np.float64:
            raise TypeError(
                f"gradcheck: output {k} of fn must have dtype float64 like the inputs, "
                f"got {y.dtype}"
            )
    return outputs


def _steps(value: float, eps: float) -> list[float]:
    """The steps for an element of this value, the first one to try first, the others falling."""
    size = abs(value)
    steps = [eps, eps / 10, eps / 100]
    if size > 1:
        steps += [eps * size, eps * size / 10]
    elif 0 < size:
        steps += [eps * size, eps * size / 10, eps * size / 100]
    powers = {2.0 ** round(np.log2(step)) for step in steps if 0 < step <= LARGEST}
    usable = sorted((step for step in powers if step >= 256 * np.spacing(size)), reverse=True)
    if not usable:
        return [2.0 ** round(np.log2(min(eps * max(size, 1), LARGEST)))]
    first = min(usable, key=lambda step: abs(np.log2(step / eps)))
    return [first, *(step for step in usable if step != first)]


def _numeric(
    fn: Callable[..., Any],
    inputs: Sequence[Tensor],
    x: Tensor,
    outputs: Sequence[Tensor],
    analytic: np.ndarray,
    eps: float,
    rtol: float,
    atol: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Jacobian of all outputs with respect to x by differences, what may lie between it and the
    analytic one, and the steps: three arrays (number of output elements, number of elements of
    x)."""
    memory = x._array
    numeric, noise, steps = (np.zeros(analytic.shape) for _ in range(3))

    def values(element: tuple[int, ...], value: float, step: float) -> list[np.ndarray]:
        """fn at value + k step, k = -2 to 2, as rows; the middle one is left out."""
        found = []
        for k in (-2, -1, 1, 2):
            memory[element] = value + k * step
            found.append(np.concatenate([y.numpy().ravel() for y in _evaluate(fn, inputs)]))
        return found

    middle = np.concatenate([y.numpy().ravel() for y in outputs])
    unit = np.finfo(np.float64).eps
    with np.errstate(all="ignore"):
        for column, element in enumerate(np.ndindex(x.shape)):
            value = memory[element].item()
            try:
                first, *others = _steps(value, eps)
                numeric[:, column], noise[:, column], _ = _derivative(
                    values(element, value, first), middle, first
                )
                steps[:, column] = first
                limit = atol + rtol * np.abs(numeric[:, column])
                far = ~(
                    np.abs(analytic[:, column] - numeric[:, column]) <= limit + noise[:, column]
                )
                unsure = (analytic[:, column] != numeric[:, column]) & (
                    far | (noise[:, column] > limit)
                )
                if unsure.any() and others:
                    falling = sorted([first, *others], reverse=True)
                    found = [
                        _derivative(values(element, value, step), middle, step) for step in falling
                    ]
                    probes = [
                        _derivative(values(element, value, falling[-1] / part), middle, 1.0)[2]
                        for part in (128, 1024)
                    ]
                    best, error, step = _best(found, falling, np.fmax(*probes))
                    for old, new in ((numeric, best), (noise, error), (steps, step)):
                        old[unsure, column] = new[unsure]
            finally:
                memory[element] = value
        # The analytic gradient is rounded too: a sum that cancels, to a few units of its largest
        # term.
        largest = np.max(
            np.abs(np.where(np.isfinite(numeric), numeric, 0)), axis=1, keepdims=True, initial=0
        )
        return numeric, atol + rtol * np.abs(numeric) + noise + 64 * unit * largest, steps


def _derivative(
    values: list[np.ndarray], middle: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f' by five points, its error by the rounding of f's values, and the fourth difference over
    that of pure noise."""
    a, b, c, d = values
    size = np.max(np.abs([a, b, c, d]), axis=0)
    fourth = np.abs(a - 4 * b + 6 * middle - 4 * c + d) / np.sqrt(70)
    error = 8 * np.finfo(np.float64).eps * size / step
    return (8 * (c - b) - (d - a)) / (12 * step), error, fourth


def _best(
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], steps: list[float], noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output the estimate with the smallest error, that error, and its step; `found` and
    `steps` with steps falling."""
    estimates, errors = [], []
    moves = np.zeros(noise.shape, bool)
    for i, (derivative, rounding, _) in enumerate(found):
        neighbour = found[i + 1][0] if i + 1 < len(found) else found[i - 1][0]
        # At a kink the fourth difference grows with the step: there the smallest step tells nothing
        # of the noise of its like.
        of_f = np.fmax(noise, found[-1][2]) if steps[i] >= 32 * steps[-1] else noise
        error = rounding + 12 * of_f / steps[i] + 2 * np.abs(derivative - neighbour)
        # Where f moves at a larger step and no more at this one, the step is lost in the rounding.
        lost = moves & (derivative == 0)
        moves |= derivative != 0
        estimates.append(derivative)
        errors.append(np.where(np.isfinite(derivative) & np.isfinite(error) & ~lost, error, np.inf))
    choice = np.argmin(errors, axis=0)
    columns = np.arange(len(choice))
    error = np.array(errors)[choice, columns]
    best = np.array(estimates)[choice, columns]
    # An estimate that nothing confirms proves nothing.
    return np.where(np.isfinite(error), best, np.nan), error, np.array(steps)[choice]


def _jacobians(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """The analytic Jacobians of all outputs, one for each input: (number of output elements, number
    of its elements)."""
    rows = []
    for y in outputs:
        for element in np.ndindex(y.shape):
            cotangent = np.zeros(y.shape)
            cotangent[element] = 1
            rows.append(_gradients([y], inputs, [cotangent]))
    return [
        np.array([row[i].ravel() for row in rows]).reshape(len(rows), x.size)
        for i, x in enumerate(inputs)
    ]


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The analytic gradients as arrays; zeros for an input that is not used."""
    pairs = [(y, v) for y, v in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return [np.zeros(x.shape) for x in inputs]
    found = grad(
        [y for y, _ in pairs], inputs, [v for _, v in pairs], retain_graph=True, allow_unused=True
    )
    return [
        np.zeros(x.shape) if dx is None else dx.numpy() for x, dx in zip(inputs, found, strict=True)
    ]


def _compare(
    analytic: np.ndarray,
    numeric: np.ndarray,
    limit: np.ndarray,
    where: str,
    steps: np.ndarray | None = None,
) -> None:
    wrong = ~(np.abs(analytic - numeric) <= limit)
    if wrong.any():
        element = tuple(int(i) for i in np.argwhere(wrong)[0])
        by = "the Jacobian" if steps is None else f"differences with a step of {steps[element]:.2g}"
        raise GradcheckError(
            f"gradcheck: the gradient {where}{_element(element)} is "
            f"{float(analytic[element])!r} by backward but {float(numeric[element])!r} by {by}; "
            f"allowed is a difference of {limit[element]:.2g}; "
            f"{wrong.sum()} of {wrong.size} elements differ"
        )


def _position(x: Tensor, inputs: Sequence[Tensor]) -> int:
    return next(i for i, other in enumerate(inputs) if other is x)


def _element(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]" if index else ""
