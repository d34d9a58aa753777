"""gradcheck and gradgradcheck: that they pass what is right and, above all, refuse what is slightly wrong."""
import numpy as np
import pytest

import minigrad as mg


def leaf(*shape, seed=0):
    return mg.Tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def wrong_by(change):
    """tanh with a gradient that `change` spoils."""
    return lambda x: mg.record("tanh", np.tanh(x.numpy()), (x,), lambda dy, y: change(dy * (1 - y * y)), save_value=True)


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


@pytest.mark.parametrize("change", [
    lambda dx: dx * (1 + 1e-4),                                         # a forget gate of an LSTM that was wrong by this much
    lambda dx: dx * (1 + 1e-7),
    lambda dx: mg.Tensor(dx.numpy().astype(np.float32).astype(np.float64)),     # a detour by float32
    lambda dx: dx * 0,
    lambda dx: dx + 1e-7,
    lambda dx: dx * np.nan,
    lambda dx: dx * (np.arange(12).reshape(3, 4) != 7).astype(float),   # one element of twelve is missing
], ids=["factor 1.0001", "factor 1 + 1e-7", "float32", "zero", "offset 1e-7", "nan", "one element"])
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
    """Right for each row of the Jacobian, wrong for a cotangent with several elements that are not 0."""
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
        return mg.record("cube", x.numpy() ** 3, (x,), lambda dy, x: dy * (3 * x.numpy() ** 2), saved=(x,))

    assert mg.gradcheck(cube, leaf(3))
    with pytest.raises(mg.GradcheckError):
        mg.gradgradcheck(cube, leaf(3))


def test_the_message_says_where_and_what():
    def fn(a, b):
        return a, mg.record("mul", b.numpy() * 2, (b,), lambda dy: dy * (2 + 0.25 * (np.arange(3) == 1)))

    with pytest.raises(mg.GradcheckError, match=(
            r"^gradcheck: the gradient of output 1\[1\] with respect to input 1\[1\] is 2\.25 by backward "
            r"but (2\.0|1\.99)\d* by differences; allowed is a difference of 2e-08; 1 of 3 elements differ$")):
        mg.gradcheck(fn, (leaf(2), leaf(3)))


def test_bad_input():
    x = leaf(3)
    single = mg.ones(3, requires_grad=True)
    for check in (mg.gradcheck, mg.gradgradcheck):
        with pytest.raises(TypeError, match=f"{check.__name__}: input 0 must have dtype float64, got float32"):
            check(mg.exp, single)
        with pytest.raises(TypeError, match=f"{check.__name__}: input 1 must be a Tensor, got ndarray"):
            check(mg.add, (x, np.ones(3)))
        with pytest.raises(ValueError, match=f"{check.__name__}: none of the 1 inputs requires grad"):
            check(mg.exp, x.detach())
        with pytest.raises(ValueError, match=f"{check.__name__}: input 0 must be a leaf, it was made by exp"):
            check(mg.exp, mg.exp(x))
        with pytest.raises(ValueError, match=f"{check.__name__}: input 0 must own its memory"):
            check(mg.exp, mg.Tensor(np.broadcast_to(1.0, 3), copy=False, requires_grad=True))
        with pytest.raises(ValueError, match=f"{check.__name__}: no output of fn requires grad"):
            check(lambda x: mg.Tensor(x.numpy()), x)
    with pytest.raises(TypeError, match="gradcheck: fn must return Tensors, got ndarray for output 0"):
        mg.gradcheck(lambda x: x.numpy(), x)
    with pytest.raises(TypeError, match="gradcheck: output 0 of fn must have dtype float64 like the inputs, got float32"):
        mg.gradcheck(lambda x: mg.Tensor(x.numpy(), dtype=np.float32), x)


def test_parameters_reached_by_closure():
    w = leaf(3)
    assert mg.gradcheck(lambda _: mg.exp(w) * 2, w)
    with pytest.raises(mg.GradcheckError):
        mg.gradcheck(lambda _: wrong_by(lambda dx: dx * 1.0001)(w), w)


def test_empty_and_scalar():
    assert mg.gradcheck(mg.exp, leaf())
    assert mg.gradcheck(mg.exp, leaf(0, 3))
