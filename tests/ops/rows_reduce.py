"""Rows of the table of ops for minigrad/ops/reduce.pyx."""

import numpy as np
from op_table import Op

import minigrad as mg

# Shapes and axes: one dimension, neighbours, dimensions apart, all, none; sizes 1, 0 and more than
# a vector.
CASES = [
    ((3, 4), None),
    ((3, 4), 0),
    ((3, 4), -1),
    ((2, 3, 4), 1),
    ((2, 3, 4), (0, 2)),
    ((2, 3, 4), (-1, 1)),
    ((2, 3, 4), (0, 1)),
    ((4, 3), ()),
    ((), None),
    ((1,), 0),
    ((2, 1, 3), 1),
    ((37,), None),
    ((5, 19), 0),
    ((0, 3), 1),
    ((2, 0, 3), (0, 2)),
]
EMPTY = [((0, 3), 0), ((3, 0), None), ((0,), 0)]


def normal(cases, **options):
    return lambda rng, dtype: [
        (np.asarray(rng.normal(size=shape), dtype), {"axis": axis, "keepdims": keepdims, **options})
        for shape, axis in cases
        for keepdims in (False, True)
    ]


def without_keepdims(cases):
    return lambda rng, dtype: [
        (np.asarray(2 * rng.normal(size=shape), dtype), {"axis": axis}) for shape, axis in cases
    ]


def parts(x, axis):
    """x with the reduced dimensions as one, at the end; and their numbers."""
    axes = (
        tuple(range(x.ndim))
        if axis is None
        else tuple(a % x.ndim for a in ((axis,) if np.ndim(axis) == 0 else axis))
    )
    axes = tuple(sorted(axes))
    kept = [d for d in range(x.ndim) if d not in axes]
    n = int(np.prod([x.shape[d] for d in axes]))
    return x.transpose(*kept, *axes).reshape(*[x.shape[d] for d in kept], n), axes


def reduction(function):
    """The NumPy form of a reduction out of function(x), which reduces the last dimension."""

    def ref(x, axis=None, keepdims=False, **options):
        flat, axes = parts(x, axis)
        y = function(flat, **options)
        return np.expand_dims(y, axes) if keepdims else y

    return ref


def same_shape(function):
    """The NumPy form of an op that works along axes and keeps the shape."""

    def ref(x, axis=-1):
        flat, axes = parts(x, axis)
        kept = [d for d in range(x.ndim) if d not in axes]
        y = function(flat).reshape([x.shape[d] for d in (*kept, *axes)])
        return y.transpose(np.argsort([*kept, *axes]))

    return ref


def ref_var(x, ddof=0):
    distance = x - x.mean(-1, keepdims=True)
    return (distance * distance).sum(-1) / (x.shape[-1] - ddof)


def ref_max(x):
    return (
        np.take_along_axis(x, np.argmax(x.real, -1)[..., None], -1)[..., 0]
        if x.size
        else np.zeros(x.shape[:-1])
    )


def ref_min(x):
    return -ref_max(-x)


def largest(x):
    return x.real.max(-1, keepdims=True, initial=-np.inf)


def ref_logsumexp(x):
    top = largest(x)
    top = np.where(np.isfinite(top), top, 0)
    return (top + np.log(np.exp(x - top).sum(-1, keepdims=True)))[..., 0]


def ref_softmax(x):
    e = np.exp(x - largest(x))
    return e / e.sum(-1, keepdims=True)


def ref_log_softmax(x):
    shifted = x - largest(x)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def refused(function, cases):
    """Bad inputs (call, exception, regular expression) of messages that begin with the op's
    name."""
    return [(call, kind, f"^{function.__name__}: {words}") for call, kind, words in cases]


def bad(function):
    x = mg.ones((2, 3))
    return refused(
        function,
        [
            (
                lambda: function(x, axis=2),
                ValueError,
                "axis must be from -2 to 1 for an input of 2 dimensions, got 2",
            ),
            (
                lambda: function(x, axis=-3),
                ValueError,
                "axis must be from -2 to 1 for an input of 2 dimensions, got -3",
            ),
            (
                lambda: function(mg.ones(()), axis=0),
                ValueError,
                "axis must be None for a 0-d input, got 0",
            ),
            (
                lambda: function(x, axis=1.0),
                TypeError,
                "axis must be None, an int or a tuple of ints, got 1.0",
            ),
            (
                lambda: function(x, axis=True),
                TypeError,
                "axis must be None, an int or a tuple of ints, got True",
            ),
            (
                lambda: function(x, axis=[0, 1]),
                TypeError,
                r"axis must be None, an int or a tuple of ints, got \[0, 1\]",
            ),
            (lambda: function(None), TypeError, "data must be numbers, got NoneType"),
            (
                lambda: function(np.arange(3)),
                TypeError,
                "data has dtype int64, supported are float32 and float64",
            ),
        ],
    )


def bad_tuple(function):
    x = mg.ones((2, 3))
    return bad(function) + refused(
        function,
        [
            (
                lambda: function(x, axis=(0, -2)),
                ValueError,
                r"axis must not name a dimension twice, got \(0, -2\)",
            ),
            (
                lambda: function(x, axis=(0, 2)),
                ValueError,
                r"axis must be from -2 to 1 for an input of 2 dimensions, got \(0, 2\)",
            ),
            (
                lambda: function(x, axis=(0, None)),
                TypeError,
                r"axis must be None, an int or a tuple of ints, got \(0, None\)",
            ),
        ],
    )


def no_elements(function, words):
    return refused(
        function,
        [
            (lambda: function(mg.zeros((0, 3))), ValueError, rf"{words}.*\(0, 3\)"),
            (
                lambda: function(mg.zeros((0, 3)), axis=0),
                ValueError,
                rf"{words}.*\(0, 3\), axis is 0",
            ),
        ],
    )


def op(function, ref, samples, errors=(), **options):
    return Op(
        function.__name__, function, ref, samples, bad_tuple(function) + list(errors), **options
    )


NO_IDENTITY = "zero-size array to reduction operation {} which has no identity"

ROWS = [
    op(mg.sum, reduction(lambda x: x.sum(-1)), normal(CASES + EMPTY), ulps=64),
    op(mg.mean, reduction(lambda x: x.mean(-1)), normal(CASES), ulps=64),
    op(
        mg.var,
        reduction(ref_var),
        normal(CASES),
        refused(
            mg.var,
            [
                (lambda: mg.var(mg.ones(3), ddof=0.5), TypeError, "ddof must be an int, got float"),
                (
                    lambda: mg.var(mg.ones(3), ddof=None),
                    TypeError,
                    "ddof must be an int, got NoneType",
                ),
                (lambda: mg.var(mg.ones(3), ddof=True), TypeError, "ddof must be an int, got bool"),
            ],
        ),
        ulps=32,
    ),
    Op(
        "var[ddof]",
        mg.var,
        reduction(ref_var),
        normal([((3, 4), 0), ((2, 3, 4), (0, 2)), ((5,), None), ((0, 3), 1)], ddof=1),
        [],
        ulps=32,
    ),
    op(mg.prod, reduction(lambda x: x.prod(-1)), normal(CASES + EMPTY)),
    op(
        mg.max,
        reduction(ref_max),
        normal(CASES),
        no_elements(mg.max, NO_IDENTITY.format("maximum")),
    ),
    op(
        mg.min,
        reduction(ref_min),
        normal(CASES),
        no_elements(mg.min, NO_IDENTITY.format("minimum")),
    ),
    Op(
        "argmax",
        mg.argmax,
        reduction(lambda x: np.argmax(x, -1) if x.size else np.zeros(x.shape[:-1], int)),
        normal([case for case in CASES if type(case[1]) is not tuple]),
        bad(mg.argmax)
        + no_elements(mg.argmax, "attempt to get argmax of an empty sequence")
        + refused(
            mg.argmax,
            [
                (
                    lambda: mg.argmax(mg.ones((2, 3)), axis=(0, 1)),
                    TypeError,
                    r"axis must be None or an int, got \(0, 1\)",
                ),
            ],
        ),
        differentiable=False,
    ),
    op(mg.logsumexp, reduction(ref_logsumexp), normal(CASES), ulps=64),
    op(mg.softmax, same_shape(ref_softmax), without_keepdims(CASES + EMPTY)),
    op(mg.log_softmax, same_shape(ref_log_softmax), without_keepdims(CASES + EMPTY)),
]
