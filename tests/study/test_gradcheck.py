"""gradcheck and gradgradcheck: that they pass what is right and, above all, refuse what is slightly
wrong."""

import numpy as np
import pytest

import minigrad as mg


def leaf(*shape, seed=0):
    return mg.Tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def wrong_by(change):
    """tanh with a gradient that `change` spoils."""
    return lambda x: mg.record(
        "tanh", np.tanh(x.numpy()), (x,), lambda dy, y: change(dy * (1 - y * y)), save_value=True
    )


def test_right_gradients_pass():
    x, y = leaf(3, 4), leaf(4)
    assert mg.gradcheck(mg.tanh, x) is True
    assert mg.gradcheck(lambda x, y: (x * y, mg.exp(y)), (x, y)) is True
    assert mg.gradgradcheck(lambda x, y: (x * y, mg.exp(y)), (x, y)) is True


def test_inputs_are_put_back_to_the_bit():
    x = leaf(3)
    before = x.numpy().tobytes()
    mg.gradcheck(mg.sin, x)
    assert x.numpy().tobytes() == before and x.grad is None

    def fails(x):
        if x.numpy().tobytes() != before:
            raise KeyError("inside")
        return mg.sin(x)

    with pytest.raises(KeyError):
        mg.gradcheck(fails, x)
    assert x.numpy().tobytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda dx: dx * (1 + 1e-4),  # a forget gate of an LSTM that was wrong by this much
        lambda dx: dx * (1 + 1e-7),
        lambda dx: mg.Tensor(
            dx.numpy().astype(np.float32).astype(np.float64)
        ),  # a detour by float32
        lambda dx: dx * 0,
        lambda dx: dx + 1e-7,
        lambda dx: dx * np.nan,
        lambda dx: (
            dx * (np.arange(12).reshape(3, 4) != 7).astype(float)
        ),  # one element of twelve is missing
    ],
    ids=[
        "factor 1.0001",
        "factor 1 + 1e-7",
        "float32",
        "zero",
        "offset 1e-7",
        "nan",
        "one element",
    ],
)
def test_planted_errors_fail(change):
    with pytest.raises(mg.GradcheckError):
        mg.gradcheck(wrong_by(change), leaf(3, 4))


def test_the_planted_op_is_right_without_its_error():
    assert mg.gradcheck(wrong_by(lambda dx: dx), leaf(3, 4))
    assert mg.gradgradcheck(wrong_by(lambda dx: dx), leaf(3))


def test_zeros_for_softmax_fail():
    """A softmax sums to 1, so for a cotangent of ones a rule that returns zeros is right."""

    def softmax(x):
        e = np.exp(x.numpy())
        return mg.record("softmax", e / e.sum(-1, keepdims=True), (x,), lambda dy: dy * 0)

    with pytest.raises(mg.GradcheckError):
        mg.gradcheck(softmax, leaf(2, 3))


def test_rule_that_is_not_linear_in_the_cotangent_fails():
    """Right for each row of the Jacobian, wrong for a cotangent with several elements that are not
    0."""

    def rule(dy, x):
        return dy * mg.exp(x) * float(np.count_nonzero(dy.numpy()) == 1)

    with pytest.raises(mg.GradcheckError, match="random cotangent"):
        mg.gradcheck(lambda x: mg.record("exp", np.exp(x.numpy()), (x,), rule, saved=(x,)), leaf(3))


def test_rule_with_other_bits_the_second_time_fails():
    calls = []

    def rule(dy, x):
        calls.append(None)
        return dy * mg.exp(x) * (1 + 1e-15 * len(calls))

    with pytest.raises(mg.GradcheckError, match="has other bits the second time"):
        mg.gradcheck(lambda x: mg.record("exp", np.exp(x.numpy()), (x,), rule, saved=(x,)), leaf(3))


def test_second_order_error_fails():
    """The first derivative is right, but it is a constant for the sweep."""

    def cube(x):
        return mg.record(
            "cube", x.numpy() ** 3, (x,), lambda dy, x: dy * (3 * x.numpy() ** 2), saved=(x,)
        )

    assert mg.gradcheck(cube, leaf(3))
    with pytest.raises(mg.GradcheckError):
        mg.gradgradcheck(cube, leaf(3))


def test_the_message_says_where_and_what():
    def fn(a, b):
        return a, mg.record(
            "mul", b.numpy() * 2, (b,), lambda dy: dy * (2 + 0.25 * (np.arange(3) == 1))
        )

    with pytest.raises(
        mg.GradcheckError,
        match=(
            r"^gradcheck: the gradient of output 1\[1\] with respect to input 1\[1\] is 2\.25 by "
            r"backward "
            r"but (2\.0|1\.99)\d* by differences with a step of \S+; allowed is a difference of "
            r"2e-08; 1 of 3 elements differ$"
        ),
    ):
        mg.gradcheck(fn, (leaf(2), leaf(3)))


def test_bad_input():
    x = leaf(3)
    single = mg.ones(3, requires_grad=True)
    for check in (mg.gradcheck, mg.gradgradcheck):
        with pytest.raises(
            TypeError, match=f"{check.__name__}: input 0 must have dtype float64, got float32"
        ):
            check(mg.exp, single)
        with pytest.raises(
            TypeError, match=f"{check.__name__}: input 1 must be a Tensor, got ndarray"
        ):
            check(mg.add, (x, np.ones(3)))
        with pytest.raises(
            ValueError, match=f"{check.__name__}: none of the 1 inputs requires grad"
        ):
            check(mg.exp, x.detach())
        with pytest.raises(
            ValueError, match=f"{check.__name__}: input 0 must be a leaf, it was made by exp"
        ):
            check(mg.exp, mg.exp(x))
        with pytest.raises(ValueError, match=f"{check.__name__}: input 0 must own its memory"):
            check(mg.exp, mg.Tensor(np.broadcast_to(1.0, 3), copy=False, requires_grad=True))
        with pytest.raises(ValueError, match=f"{check.__name__}: no output of fn requires grad"):
            check(lambda x: mg.Tensor(x.numpy()), x)
    with pytest.raises(
        TypeError, match="gradcheck: fn must return Tensors, got ndarray for output 0"
    ):
        mg.gradcheck(lambda x: x.numpy(), x)
    with pytest.raises(
        TypeError,
        match="gradcheck: output 0 of fn must have dtype float64 like the inputs, got float32",
    ):
        mg.gradcheck(lambda x: mg.Tensor(x.numpy(), dtype=np.float32), x)


def test_parameters_reached_by_closure():
    w = leaf(3)
    assert mg.gradcheck(lambda _: mg.exp(w) * 2, w)
    with pytest.raises(mg.GradcheckError):
        mg.gradcheck(lambda _: wrong_by(lambda dx: dx * 1.0001)(w), w)


def test_empty_and_scalar():
    assert mg.gradcheck(mg.exp, leaf())
    assert mg.gradcheck(mg.exp, leaf(0, 3))


# ------------------------------------------------------------ functions that are hard to difference


def at(*values):
    return mg.Tensor(np.array(values, np.float64), requires_grad=True)


RIGHT = {
    "log near its end": (mg.log, at(0.01, 1e-3, 3.0)),
    "log nearer": (mg.log, at(1e-5, 1e-8, 1e-12)),
    "sqrt near its end": (mg.sqrt, at(0.02, 1e-4, 1e-6)),
    "power near 0": (lambda x: x**1.5, at(0.01, 1e-5)),
    "1 / x near 0": (lambda x: 1.0 / x, at(1e-3, -1e-6, 2.0)),
    "fast sine": (lambda x: mg.sin(100.0 * x), at(0.3, -1.0, 2.5)),
    "faster sine": (lambda x: mg.sin(1000.0 * x), at(0.3, 0.7)),
    "lost digits": (lambda x: (x + 1e6) - 1e6, at(0.5, 0.3, -2.0)),
    "more lost digits": (lambda x: (x * x + 1e8) - 1e8, at(0.5, 3.0)),
    "1 - cos": (lambda x: 1.0 - mg.cos(x), at(1e-4, 1e-2)),
    "tanh in saturation": (mg.tanh, at(0.0, 3.0, 12.0, -15.0, 40.0)),
    "sigmoid in saturation": (mg.sigmoid, at(0.0, 20.0, -20.0, 36.0, -700.0)),
    "softplus": (mg.softplus, at(-30.0, 0.0, 40.0)),
    "small inputs": (lambda x: x * x * x, at(1e-8, -3e-8)),
    "small inputs, large slope": (lambda x: mg.sin(1e7 * x), at(1e-8, 2e-7)),
    "large inputs": (mg.sqrt, at(1e8, 3e9)),
    "large inputs, squared": (lambda x: x * x, at(1e8, -2e8)),
    "large inputs, fast": (mg.sin, at(1e4, 12345.678)),
    "log of large inputs": (mg.log, at(1e8, 1e15)),
    "exp": (mg.exp, at(-300.0, -20.0, 20.0, 300.0)),
    "a kink nearby": (mg.relu, at(1e-4, -1e-4, 3e-3)),
    "a bound nearby": (lambda x: mg.clip(x, -1, 1), at(0.9995, 1.0003, -0.9999)),
    "both sizes in one sum": (lambda x: (x * np.array([1e6, 1.0, 1e-6])).sum(), at(1.0, 2.0, 3.0)),
    "softmax, one dominates": (mg.softmax, at(30.0, 0.0, 1.0)),
    "logsumexp far away": (mg.logsumexp, at(1e6, 1e6 + 1)),
    "cross entropy": (lambda x: mg.cross_entropy(x.reshape(1, 3), [0]), at(20.0, 0.0, 1.0)),
    "a constant that requires grad": (lambda x: x * 0.0 + 3.0, at(1.0, 2.0)),
    "variance": (mg.var, at(1000.0, 1001.0, 1002.5)),
    "product with a zero": (mg.prod, at(0.0, 2.0, -3.0)),
}


@pytest.mark.parametrize("fn, x", RIGHT.values(), ids=RIGHT)
def test_right_functions_pass(fn, x):
    assert mg.gradcheck(fn, x)


@pytest.mark.parametrize(
    "name",
    [
        "log near its end",
        "fast sine",
        "lost digits",
        "tanh in saturation",
        "large inputs",
        "cross entropy",
        "small inputs",
        "softmax, one dominates",
        "power near 0",
    ],
)
def test_right_functions_pass_at_second_order(name):
    assert mg.gradgradcheck(*RIGHT[name])


class planted:
    """value(x) with the gradient dy slope(x), of which `factor`, an array or a number, spoils a
    part."""

    def __init__(self, value, slope, factor):
        self.value, self.slope, self.factor = value, slope, factor

    def __call__(self, x):
        return mg.record(
            "planted",
            self.value(x.numpy()),
            (x,),
            lambda dy, x: dy * (self.slope(x.numpy()) * self.factor),
            saved=(x,),
        )


def one_of(n, place, value):
    factor = np.ones(n)
    factor[place] = value
    return factor


def tanh_slope(x):
    return 1 - np.tanh(x) ** 2


def without(place):
    """A broadcast sum that misses a row."""
    return lambda dy: (dy * 2.0, (dy[:place] * 2.0).sum(0))


def broadcast(rule):
    return lambda x: mg.record(
        "row",
        2.0 * (np.zeros((3, len(x))) + x.numpy()),
        (mg.zeros((3, len(x)), np.float64), x),
        rule,
    )


x1000 = np.linspace(-2, 2, 1000)
WRONG = {
    "by 1e-6": (planted(np.exp, np.exp, 1 + 1e-6), at(0.5, 1.0, -1.0)),
    "by 1e-6 in a fast function": (
        planted(lambda x: np.sin(100 * x), lambda x: 100 * np.cos(100 * x), 1 + 1e-6),
        at(0.3, 1.0),
    ),
    "by 1e-6 near an end": (planted(np.log, lambda x: 1 / x, 1 + 1e-6), at(0.01, 0.002)),
    "by 1e-6 at small inputs": (planted(lambda x: x**2, lambda x: 2 * x, 1 + 1e-6), at(1e-8, 2e-8)),
    "by 1e-6 at large inputs": (
        planted(np.sqrt, lambda x: 0.5 / np.sqrt(x), 1 + 1e-6),
        at(1e8, 2e8),
    ),
    "by 1e-4 where digits are lost": (
        planted(lambda x: (x + 1e6) - 1e6, np.ones_like, 1 + 1e-4),
        at(0.5, 0.3),
    ),
    "one of 1000": (planted(np.sin, np.cos, one_of(1000, 567, 1 + 1e-6)), at(*x1000)),
    "one of 1000 is left out": (planted(np.sin, np.cos, one_of(1000, 3, 0)), at(*x1000)),
    "sign": (planted(np.cos, lambda x: -np.sin(x), -1), at(0.5, 1.0)),
    "sign of one": (planted(np.cos, lambda x: -np.sin(x), one_of(3, 1, -1)), at(0.5, 1.0, 2.0)),
    "half at x = 12": (planted(np.tanh, tanh_slope, one_of(3, 2, 0.5)), at(0.0, 1.0, 12.0)),
    "1.01 at x = 8": (planted(np.tanh, tanh_slope, one_of(3, 2, 1.01)), at(0.0, 1.0, 8.0)),
    "0 at x = -12": (planted(np.tanh, tanh_slope, one_of(2, 0, 0.0)), at(-12.0, 0.0)),
    "twice the slope of an underflowing exp": (
        planted(np.exp, np.exp, one_of(2, 0, 2.0)),
        at(-300.0, 1.0),
    ),
    "small beside large": (
        planted(
            lambda x: x * np.array([1e8, 1.0]), lambda x: np.array([1e8, 1.0]), one_of(2, 1, 1.001)
        ),
        at(1.0, 1.0),
    ),
    "no broadcast sum": (broadcast(without(1)), at(1.0, 2.0)),
    "one row of a broadcast sum is missing": (broadcast(without(2)), at(1.0, 2.0)),
    "mean for sum": (broadcast(lambda dy: (dy * 2.0, (dy * 2.0).mean(0))), at(1.0, 2.0)),
    "offset of 1e-7": (
        lambda x: mg.record(
            "f", x.numpy() ** 2, (x,), lambda dy, x: dy * (2 * x.numpy() + 1e-7), saved=(x,)
        ),
        at(0.5, 1.0),
    ),
    "where the function is constant": (
        lambda x: mg.record("f", np.zeros(2) + 2, (x,), lambda dy: dy * 1e-9),
        at(0.5, 1.0),
    ),
    "inf": (planted(np.exp, np.exp, one_of(2, 1, np.inf)), at(0.5, 1.0)),
    "NaN": (planted(np.exp, np.exp, one_of(2, 1, np.nan)), at(0.5, 1.0)),
    "slope at an end": (planted(np.sqrt, lambda x: np.ones_like(x), 1.0), at(0.0, 1.0)),
    "log at 0": (mg.log, at(0.0, 1.0)),
    "sqrt at 0": (mg.sqrt, at(0.0, 1.0)),
    "log of a negative number": (mg.log, at(-1.0, 1.0)),
    "a kink": (mg.relu, at(0.0, 1.0)),
    "transposed": (
        lambda x: mg.record(
            "t",
            x.numpy()[::-1] * np.array([1.0, 2, 3]),
            (x,),
            lambda dy: dy * np.array([1.0, 2, 3]),
        ),
        at(1.0, 2.0, 3.0),
    ),
    "detached factor": (lambda x: x * x.detach(), at(1.0, 2.0)),
}


@pytest.mark.parametrize("fn, x", WRONG.values(), ids=WRONG)
def test_wrong_rules_fail(fn, x):
    with pytest.raises(mg.GradcheckError, match=r"by differences with a step of \S+; allowed is"):
        with np.errstate(all="ignore"):
            mg.gradcheck(fn, x)


SPOILED = [
    name for name, (fn, _) in WRONG.items() if isinstance(fn, planted) and name != "slope at an end"
]


@pytest.mark.parametrize("name", SPOILED)
def test_wrong_rules_pass_without_their_error(name):
    """The same functions with a factor of 1: what fails above is the error, not the function."""
    fn, x = WRONG[name]
    assert mg.gradcheck(planted(fn.value, fn.slope, 1.0), x)


def test_the_message_names_the_step_that_decided():
    with pytest.raises(mg.GradcheckError, match="step of 0.00098;"):
        mg.gradcheck(planted(lambda x: x**2, lambda x: 2 * x, 1.5), at(1.0))
    with pytest.raises(
        mg.GradcheckError,
        match=r"step of (7\.6e-06|9\.5e-07|9\.5e-06|1\.9e-06|3\.8e-06|0\.00012|1\.5e-05);",
    ):
        mg.gradcheck(planted(np.log, lambda x: 1 / x, 1.5), at(0.01))


def test_the_inputs_are_put_back_after_every_step():
    x = at(0.01, 1e-8, 1e8, 0.3)
    before = x.numpy().tobytes()
    mg.gradcheck(lambda x: mg.log(x), x)
    assert x.numpy().tobytes() == before


@pytest.mark.parametrize("check", [mg.gradcheck, mg.gradgradcheck])
def test_numbers_that_are_no_steps_or_bounds(check):
    name = check.__name__
    for options, error in [
        ({"eps": 0}, rf"{name}: eps must be above 0 and below .*, got 0"),
        ({"eps": float("inf")}, f"{name}: eps must be above 0"),
        ({"eps": float("nan")}, f"{name}: eps must be above 0"),
        ({"rtol": -1.0}, f"{name}: rtol must be at least 0"),
        ({"atol": float("nan")}, f"{name}: atol must be at least 0"),
        ({"seed": -1}, f"{name}: seed must be at least 0, got -1"),
    ]:
        with pytest.raises(ValueError, match=error):
            check(mg.exp, at(0.5), **options)
    with pytest.raises(TypeError, match=f"{name}: eps must be a number, got NoneType"):
        check(mg.exp, at(0.5), eps=None)
    with pytest.raises(TypeError, match=f"{name}: seed must be an int, got float"):
        check(mg.exp, at(0.5), seed=0.5)
    for value in (np.inf, np.nan, 1e305):
        with pytest.raises(ValueError, match=f"{name}: the elements of input 0 must be finite"):
            check(mg.exp, at(value))


def test_the_smallest_and_the_largest_inputs():
    assert mg.gradcheck(lambda x: x * 3.0, at(0.0, 5e-324, 1e-310, 1e300))
    assert mg.gradcheck(lambda x: x * 3.0, at(0.5), eps=1e-310)
