"""Gradient checks: the gradients that backward makes against differences of the function itself, in float64.

Differences are central, of five points (Abramowitz and Stegun, 25.3.6):

    f'(x) ~ (f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / 12h        with an error of h^4 / 30 times the fifth derivative

With h = 1e-3 they are right to about 1e-12 for functions of moderate size, a thousand times better than two points with h = 1e-6,
so that the tolerance can be tight: a gradient that is wrong by a factor of 1.0001, or that went through float32, fails.
"""
import numpy as np

from minigrad.tensor import Tensor, grad

CONSTANT = "no output of fn requires grad: it does not depend on the inputs, or was made under no_grad"


class GradcheckError(RuntimeError):
    """What gradcheck raises when an analytic and a numeric gradient differ.

    >>> import minigrad as mg
    >>> def wrong(x):
    ...     return mg.record("wrong", 3 * x.numpy(), (x,), lambda dy: dy * 2)
    >>> mg.gradcheck(wrong, mg.ones(1, "float64", requires_grad=True))          # doctest: +ELLIPSIS
    Traceback (most recent call last):
    minigrad.gradcheck.GradcheckError: gradcheck: the gradient of output 0[0] with respect to input 0[0] is 2.0 by backward ...
    """


def gradcheck(fn, inputs, *, eps=1e-3, rtol=1e-8, atol=1e-11, seed=0) -> bool:
    """Check the gradients of fn(*inputs) against differences; return True, or raise a GradcheckError that says where they differ.

    fn: takes `inputs` (a Tensor or several) and returns a Tensor or several. The inputs that require grad are checked; they must
    be float64 leaves that own their memory, which is changed and put back, so fn may also reach them by another way (the
    parameters of a module). Within 2 * eps of the inputs fn must be smooth.

    Checked are the whole Jacobian, one output element at a time, and the gradient for one random cotangent (drawn with `seed`),
    twice: it must be the Jacobian's product, and the second time have the same bits. An element passes if it is within
    atol + rtol * (the largest of the input's Jacobian).

    >>> import minigrad as mg
    >>> x = mg.Tensor([0.5, -1.0, 2.0], dtype=np.float64, requires_grad=True)
    >>> mg.gradcheck(lambda x: mg.tanh(x) * x, x)
    True
    """
    inputs = _checked_inputs(inputs, "gradcheck")
    tested = [x for x in inputs if x.requires_grad]
    outputs = _evaluate(fn, inputs)
    if not any(y.requires_grad for y in outputs):
        raise ValueError(f"gradcheck: {CONSTANT}")
    numeric = [_differences(fn, inputs, x, outputs, eps) for x in tested]
    limits = [atol + rtol * np.max(np.abs(jacobian), initial=0) for jacobian in numeric]
    row = 0
    for k, y in enumerate(outputs):
        for element in np.ndindex(y.shape):
            cotangent = np.zeros(y.shape)
            cotangent[element] = 1
            gradients = _gradients([y], tested, [cotangent])
            for x, gradient, jacobian, limit in zip(tested, gradients, numeric, limits, strict=True):
                where = f"of output {k}{_element(element)} with respect to input {_position(x, inputs)}"
                _compare(gradient, jacobian[row].reshape(x.shape), limit, where)
            row += 1
    rng = np.random.default_rng(seed)
    cotangents = [rng.normal(size=y.shape) for y in outputs]
    flat = np.concatenate([v.ravel() for v in cotangents])
    first, second = _gradients(outputs, tested, cotangents), _gradients(outputs, tested, cotangents)
    for x, gradient, again, jacobian, limit in zip(tested, first, second, numeric, limits, strict=True):
        where = f"for a random cotangent with respect to input {_position(x, inputs)}"
        _compare(gradient, (flat @ jacobian).reshape(x.shape), limit * max(1, np.abs(flat).sum()), where)
        if gradient.tobytes() != again.tobytes():
            raise GradcheckError(f"gradcheck: the gradient {where} has other bits the second time")
    return True


def gradgradcheck(fn, inputs, *, eps=1e-3, rtol=1e-8, atol=1e-11, seed=0) -> bool:
    """Check the second derivatives of fn(*inputs): gradcheck of the gradients for a random cotangent, which is an input too.

    >>> import minigrad as mg
    >>> x = mg.Tensor([0.5, -1.0], dtype=np.float64, requires_grad=True)
    >>> mg.gradgradcheck(mg.exp, x)
    True
    """
    inputs = _checked_inputs(inputs, "gradgradcheck")
    tested = [x for x in inputs if x.requires_grad]
    rng = np.random.default_rng(seed + 1)
    outputs = [y for y in _evaluate(fn, inputs) if y.requires_grad]
    if not outputs:
        raise ValueError(f"gradgradcheck: {CONSTANT}")
    cotangents = [Tensor(rng.normal(size=y.shape), requires_grad=True) for y in outputs]

    def gradients(*_):
        outputs = [y for y in _evaluate(fn, inputs) if y.requires_grad]
        found = grad(outputs, tested, cotangents, create_graph=True, allow_unused=True)
        return tuple(dx for dx in found if dx is not None)

    return gradcheck(gradients, [*inputs, *cotangents], eps=eps, rtol=rtol, atol=atol, seed=seed)


def _checked_inputs(inputs, op):
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise TypeError(f"{op}: input {i} must be a Tensor, got {type(x).__name__}")
        if x.dtype != np.float64:
            raise TypeError(f"{op}: input {i} must have dtype float64, got {x.dtype}: differences in float32 prove nothing")
        if x.requires_grad and not x.is_leaf:
            raise ValueError(f"{op}: input {i} must be a leaf, it was made by {x.grad_fn.name}: use detach()")
        if x.requires_grad and (not x._array.flags.writeable or (x.size > 1 and 0 in x._array.strides)):
            raise ValueError(f"{op}: input {i} must own its memory, this is read-only or repeats elements: give a copy")
    if not any(x.requires_grad for x in inputs):
        raise ValueError(f"{op}: none of the {len(inputs)} inputs requires grad")
    return inputs


def _evaluate(fn, inputs):
    outputs = fn(*inputs)
    outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    for k, y in enumerate(outputs):
        if not isinstance(y, Tensor):
            raise TypeError(f"gradcheck: fn must return Tensors, got {type(y).__name__} for output {k}")
        if y.dtype != np.float64:
            raise TypeError(f"gradcheck: output {k} of fn must have dtype float64 like the inputs, got {y.dtype}")
    return outputs


def _differences(fn, inputs, x, outputs, eps):
    """The Jacobian of all outputs with respect to x, (number of output elements, number of elements of x)."""
    memory = x._array
    jacobian = np.zeros((sum(y.size for y in outputs), x.size))
    for column, element in enumerate(np.ndindex(x.shape)):
        value = memory[element]

        def at(step, element=element, value=value):
            memory[element] = value + step
            return np.concatenate([y.numpy().ravel() for y in _evaluate(fn, inputs)])

        try:
            jacobian[:, column] = (8 * (at(eps) - at(-eps)) - (at(2 * eps) - at(-2 * eps))) / (12 * eps)
        finally:
            memory[element] = value
    return jacobian


def _gradients(outputs, inputs, cotangents):
    """The analytic gradients as arrays; zeros for an input that is not used."""
    pairs = [(y, v) for y, v in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return [np.zeros(x.shape) for x in inputs]
    found = grad([y for y, _ in pairs], inputs, [v for _, v in pairs], retain_graph=True, allow_unused=True)
    return [np.zeros(x.shape) if dx is None else dx.numpy() for x, dx in zip(inputs, found, strict=True)]


def _compare(analytic, numeric, limit, where):
    wrong = ~(np.abs(analytic - numeric) <= limit)
    if wrong.any():
        element = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise GradcheckError(f"gradcheck: the gradient {where}{_element(element)} is {float(analytic[element])!r} by backward "
                             f"but {float(numeric[element])!r} by differences; allowed is a difference of {limit:.2g}; "
                             f"{wrong.sum()} of {wrong.size} elements differ")


def _position(x, inputs):
    return next(i for i, other in enumerate(inputs) if other is x)


def _element(index):
    return f"[{', '.join(map(str, index))}]" if index else ""
