"""Rows of the table of ops for minigrad/ops/losses.pyx and the dropout of minigrad/random.py."""

import numpy as np
from op_table import Op
from rows_reduce import ref_logsumexp, refused

import minigrad as mg

REDUCTIONS = ("mean", "sum", "none")
SHAPES = [(4, 3), (2, 3, 5), (3,), (1, 1), (19, 2)]


def classes(rng, dtype):
    """Scores with targets, some ignored, with and without weights; no elements where the mean is
    not taken."""
    found = []
    for shape in SHAPES:
        target = rng.integers(0, shape[-1], shape[:-1])
        some = np.where(rng.random(target.shape) < 0.4, -100, target) if target.ndim else target
        some = some if (some >= 0).any() else target
        for reduction in REDUCTIONS:
            x, weight = (
                (2 * rng.normal(size=shape)).astype(dtype),
                rng.uniform(0.2, 2, shape[-1]).astype(dtype).tolist(),
            )
            found.append((x, {"target": target, "reduction": reduction}))
            found.append((x, {"target": some, "weight": weight, "reduction": reduction}))
    found.append(
        (
            found[0][0],
            {"target": np.array([0, 7, 2, 7], np.uint8), "ignore_index": 7, "reduction": "mean"},
        )
    )
    return found + [
        (np.zeros((0, 3), dtype), {"target": np.zeros(0, int), "reduction": "sum"}),
        (np.zeros((2, 0), dtype), {"target": np.full(2, -100), "reduction": "none"}),
    ]


def by_class(losses_of):
    """The NumPy form of a loss over classes, out of losses_of(x, target) for targets in range."""

    def ref(x, target, weight=None, ignore_index=-100, reduction="mean"):
        used = target != ignore_index
        target = np.where(used, target, 0).astype(int)
        weight = np.ones(x.shape[-1]) if weight is None else np.array(weight)
        w = np.where(used, weight[target], 0) if x.shape[-1] else np.zeros(target.shape)
        losses = np.where(used, losses_of(x, target) * w, 0) if x.shape[-1] else w
        return (
            losses
            if reduction == "none"
            else losses.sum()
            if reduction == "sum"
            else losses.sum() / w.sum()
        )

    return ref


def chosen(x, target):
    return np.take_along_axis(x, target[..., None], -1)[..., 0]


def numbers(rng, dtype):
    """Input and target of one shape; they never differ by less than 0.05 from the kinks of huber at
    1 and 0.5."""
    found = []
    for shape in [(5,), (3, 4), (), (2, 1, 3), (33,)]:
        for reduction in REDUCTIONS:
            target, distance = rng.normal(size=shape), rng.uniform(-2, 2, size=shape)
            for kink in (0.5, 1):
                distance = np.where(abs(abs(distance) - kink) < 0.05, distance * 1.3, distance)
            found.append(
                (
                    np.asarray(target + distance, dtype),
                    np.asarray(target, dtype),
                    {"reduction": reduction},
                )
            )
    return found + [
        (np.zeros((2, 0), dtype), np.zeros((2, 0), dtype), {"reduction": reduction})
        for reduction in ("sum", "none")
    ]


def hubers(rng, dtype):
    found = numbers(rng, dtype)
    return found + [(x, target, {**options, "delta": 0.5}) for x, target, options in found]


def probabilities(rng, dtype):
    found = []
    for x, target, options in numbers(rng, dtype):
        target = rng.random(target.shape).astype(dtype)
        found.append((3 * x, target, options))
        if x.ndim:
            weight, positive = (
                rng.uniform(0.2, 2, shape).astype(dtype).tolist()
                for shape in (x.shape[-1:], x.shape)
            )
            found.append((x, target, {**options, "weight": weight}))
            found.append((x, target, {**options, "weight": weight, "pos_weight": positive}))
    return found


def reduced(losses, reduction):
    return {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](losses)


def ref_huber(x, target, delta=1.0, reduction="mean"):
    d = x - target
    size = np.where(d.real < 0, -d, d)
    return reduced(np.where(size.real <= delta, d * d / 2, delta * (size - delta / 2)), reduction)


def ref_softplus(x):
    return np.where(x.real > 0, x, 0) + np.log1p(np.exp(np.where(x.real > 0, -x, x)))


def ref_binary(x, target, weight=1.0, pos_weight=1.0, reduction="mean"):
    weight, pos_weight = np.array(weight), np.array(pos_weight)
    return reduced(
        weight * (pos_weight * target * ref_softplus(-x) + (1 - target) * ref_softplus(x)),
        reduction,
    )


def bad_reduction(function, *arguments):
    return refused(
        function,
        [
            (
                lambda: function(*arguments, reduction="average"),
                ValueError,
                "reduction must be .*, got 'average'",
            ),
            (
                lambda: function(*arguments, reduction=None),
                TypeError,
                "reduction must be 'mean', 'sum' or 'none', got NoneType",
            ),
            (
                lambda: function(None, *arguments[1:]),
                TypeError,
                "data must be numbers, got NoneType",
            ),
            (lambda: function(np.arange(4), *arguments[1:]), TypeError, "data has dtype int64"),
        ],
    )


def bad_classes(function):
    x, right = mg.zeros((2, 2, 5)), np.zeros((2, 2), int)
    return (
        bad_reduction(function, x, right)
        + classes_out_of_bounds(function, x, right)
        + targets_that_are_no_classes(function, x, right)
    )


def classes_out_of_bounds(function, x, right):
    huge = np.full((2, 2), 2**64 - 100, np.uint64)
    return refused(
        function,
        [
            (
                lambda: function(x, [[0, 1], [2, 7]]),
                IndexError,
                r"target\[1, 1\] must be from 0 to 4 = C - 1, or .* -100, got 7",
            ),
            (
                lambda: function(x, [[0, 1], [-1, 0]]),
                IndexError,
                r"target\[1, 0\] must be from 0 to 4 .*, got -1",
            ),
            (lambda: function(mg.zeros(3), 3), IndexError, "target must be from 0 to 2 .*, got 3"),
            (
                lambda: function(x, np.full((2, 2), 2**64 - 1, np.uint64)),
                IndexError,
                r"target\[0, 0\] .* got 18446744073709551615",
            ),
            (lambda: function(x, huge), IndexError, "target.* got 18446744073709551516"),
            (
                lambda: function(x, right, ignore_index=2**63),
                ValueError,
                r"ignore_index must be below 2 \*\* 63, got 922337",
            ),
            (
                lambda: function(x, right, ignore_index=1.0),
                TypeError,
                "ignore_index must be an int, got float",
            ),
        ],
    )


def targets_that_are_no_classes(function, x, right):
    return refused(
        function,
        [
            (
                lambda: function(x, np.zeros((2, 2))),
                TypeError,
                "target must be an array of ints, the classes, got float64",
            ),
            (
                lambda: function(x, right > 0),
                TypeError,
                "target must be an array of ints, the classes, got bool",
            ),
            (
                lambda: function(x, mg.zeros((2, 2))),
                TypeError,
                "target must be an array of ints, .* got a Tensor of float32",
            ),
            (
                lambda: function(x, None),
                TypeError,
                "target must be an array of ints, the classes, got None",
            ),
            (
                lambda: function(x, np.ma.masked_array(right, right)),
                TypeError,
                "target must not be a masked array",
            ),
            (lambda: function(x, [[0, 1], [2]]), ValueError, "target is ragged"),
            (
                lambda: function(x, [0, 1]),
                ValueError,
                r"target must have shape \(2, 2\) = .*, got \(2,\)",
            ),
            (
                lambda: function(mg.zeros(()), 0),
                ValueError,
                r"input must have shape \(..., C\) with the classes last, got \(\)",
            ),
            (
                lambda: function(x, right, weight=mg.ones(4)),
                ValueError,
                r"weight must have shape \(5,\) = \(C,\), got \(4,\)",
            ),
            (
                lambda: function(x, right, weight=np.ones(5)),
                TypeError,
                "both operands must have one dtype, got float32 and float64",
            ),
            (
                lambda: function(x, right, weight=mg.Tensor([1.0] * 5, requires_grad=True)),
                RuntimeError,
                "weight is a constant",
            ),
        ],
    )


def bad_numbers(function):
    x = mg.zeros((2, 3))
    return bad_reduction(function, x, x) + refused(
        function,
        [
            (
                lambda: function(x, mg.zeros(3)),
                ValueError,
                r"target must have the input's shape \(2, 3\), got \(3,\)",
            ),
            (
                lambda: function(x, 0.0),
                ValueError,
                r"target must have the input's shape \(2, 3\), got \(\)",
            ),
            (
                lambda: function(x, np.zeros((2, 3))),
                TypeError,
                "both operands must have one dtype, got float32 and float64",
            ),
            (lambda: function(x, None), TypeError, "data must be numbers, got NoneType"),
        ],
    )


def bad_factors(function):
    x = mg.zeros((2, 3))
    return refused(
        function,
        [
            (
                lambda: function(x, x, weight=mg.ones(2)),
                ValueError,
                r"weight must broadcast to the .* shape \(2, 3\), got \(2,\)",
            ),
            (
                lambda: function(x, x, pos_weight=mg.ones((4, 2, 3))),
                ValueError,
                r"pos_weight must broadcast to the input's shape \(2, 3\), got \(4, 2, 3\)",
            ),
            (
                lambda: function(x, x, weight=mg.Tensor([1.0] * 3, requires_grad=True)),
                RuntimeError,
                "weight is a constant",
            ),
            (
                lambda: function(x, x, pos_weight=mg.Tensor([1.0] * 3, requires_grad=True)),
                RuntimeError,
                "pos_weight is a constant",
            ),
        ],
    )


def dropouts(rng, dtype):
    shapes, probabilities = [(3, 4), (37,), (2, 0, 3)], (0.5, 0.1, 0.9, 1.0)
    return [
        (rng.normal(size=shape).astype(dtype), {"p": p}) for shape in shapes for p in probabilities
    ]


def ref_dropout(x, p):
    words = [int(word) for word in np.random.Philox(key=3, counter=0).random_raw((x.size + 1) // 2)]
    numbers = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)][: x.size]
    kept = np.array([number >= p * 2**32 for number in numbers], bool).reshape(x.shape)
    return x * (kept / (1 - p) if p < 1 else 0)


ROWS = [
    Op(
        "cross_entropy",
        mg.cross_entropy,
        by_class(lambda x, target: ref_logsumexp(x) - chosen(x, target)),
        classes,
        bad_classes(mg.cross_entropy),
        infinities=False,
    ),
    Op(
        "nll",
        mg.nll,
        by_class(lambda x, target: -chosen(x, target)),
        classes,
        bad_classes(mg.nll),
        infinities=False,
    ),
    Op(
        "binary_cross_entropy_with_logits",
        mg.binary_cross_entropy_with_logits,
        ref_binary,
        probabilities,
        bad_numbers(mg.binary_cross_entropy_with_logits)
        + bad_factors(mg.binary_cross_entropy_with_logits),
    ),
    Op(
        "mse",
        mg.mse,
        lambda x, target, reduction: reduced((x - target) ** 2, reduction),
        numbers,
        bad_numbers(mg.mse),
    ),
    Op(
        "huber",
        mg.huber,
        ref_huber,
        hubers,
        bad_numbers(mg.huber)
        + refused(
            mg.huber,
            [
                (
                    lambda: mg.huber(mg.zeros(2), mg.zeros(2), delta=0.0),
                    ValueError,
                    "delta must be above 0, got 0.0",
                ),
                (
                    lambda: mg.huber(mg.zeros(2), mg.zeros(2), delta=float("nan")),
                    ValueError,
                    "delta must be above 0, got nan",
                ),
                (
                    lambda: mg.huber(mg.zeros(2), mg.zeros(2), delta="1"),
                    TypeError,
                    "delta must be a number, got str",
                ),
                (
                    lambda: mg.huber(mg.zeros(2), mg.zeros(2), delta=True),
                    TypeError,
                    "delta must be a number, got bool",
                ),
            ],
        ),
    ),
    Op(
        "dropout",
        lambda x, p: mg.dropout(x, p, generator=mg.Generator(3)),
        ref_dropout,
        dropouts,
        refused(
            mg.dropout,
            [
                (
                    lambda: mg.dropout(mg.ones(2), 1.5),
                    ValueError,
                    "p must be at least 0 and at most 1, got 1.5",
                ),
                (
                    lambda: mg.dropout(mg.ones(2), -0.1),
                    ValueError,
                    "p must be at least 0 and at most 1, got -0.1",
                ),
                (
                    lambda: mg.dropout(mg.ones(2), float("nan")),
                    ValueError,
                    "p must be at least 0 and at most 1, got nan",
                ),
                (lambda: mg.dropout(mg.ones(2), "0.5"), TypeError, "p must be a number, got str"),
                (lambda: mg.dropout(mg.ones(2), True), TypeError, "p must be a number, got bool"),
                (
                    lambda: mg.dropout(mg.ones(2), None),
                    TypeError,
                    "p must be a number, got NoneType",
                ),
                (
                    lambda: mg.dropout(mg.ones(2), generator=3),
                    TypeError,
                    "generator must be a minigrad.Generator or None, got int",
                ),
                (lambda: mg.dropout(None, 0.5), TypeError, "data must be numbers, got NoneType"),
            ],
        ),
    ),
]
