"""What optimisers and clipping refuse: bad arguments, gradients and norms that are not finite, with
nothing changed."""

import numpy as np
import pytest
from makers import bits, draw, leaves, set_gradients

import minigrad as mg

optim = mg.optim


def p():
    return leaves(draw(0))


def twice():
    (one,) = leaves([np.ones(2)])
    return [one, one]


NAN, INF = float("nan"), float("inf")
BAD = {
    "lr -1": (lambda: optim.SGD(p(), -1), ValueError, "SGD: lr must be at least 0 .* got -1"),
    "lr NaN": (lambda: optim.Adam(p(), NAN), ValueError, "Adam: lr must be at least 0 .* got nan"),
    "lr inf": (
        lambda: optim.AdamW(p(), INF),
        ValueError,
        "AdamW: lr must be at least 0 .* got inf",
    ),
    "lr str": (lambda: optim.SGD(p(), "0.1"), TypeError, "SGD: lr must be a number, got str"),
    "lr bool": (lambda: optim.SGD(p(), True), TypeError, "SGD: lr must be a number, got bool"),
    "lr None": (
        lambda: optim.Adam(p(), None),
        TypeError,
        "Adam: lr must be a number, got NoneType",
    ),
    "empty": (
        lambda: optim.SGD([], 0.1),
        ValueError,
        "SGD: parameters must hold at least one Tensor, got none",
    ),
    "empty generator": (
        lambda: optim.Adam(iter(())),
        ValueError,
        "Adam: parameters must hold at least one Tensor, got none",
    ),
    "one tensor": (
        lambda: optim.Adam(p()[0]),
        TypeError,
        "Adam: parameters must be an iterable of Tensors in a fixed order, got Tensor",
    ),
    "None": (
        lambda: optim.Adam(None),
        TypeError,
        "Adam: parameters must be an iterable of Tensors in a fixed order, got NoneType",
    ),
    "arrays": (
        lambda: optim.Adam([np.ones(2)]),
        TypeError,
        "Adam: parameters must be Tensors, got ndarray",
    ),
    "names": (lambda: optim.Adam("ab"), TypeError, "Adam: parameters must be Tensors, got str"),
    "twice": (
        lambda: optim.Adam(twice()),
        ValueError,
        "Adam: parameters must not hold a Tensor twice",
    ),
    "set": (
        lambda: optim.Adam(set(p())),
        TypeError,
        "Adam: parameters must be an iterable of Tensors in a fixed order, got set",
    ),
    "a dict": (
        lambda: optim.Adam({"params": p()}),
        TypeError,
        "Adam: parameters must be Tensors, got str",
    ),
    "not a leaf": (
        lambda: optim.SGD([p()[0] * 2], 0.1),
        ValueError,
        "SGD: parameters must be leaves .* the output of mul",
    ),
    "group twice": (
        lambda: optim.SGD([{"params": g} for g in [twice()[:1]] * 2]),
        ValueError,
        "SGD: parameters must not hold a Tensor twice, in one group or in several",
    ),
    "group empty": (
        lambda: optim.SGD([{"params": p()}, {"params": []}]),
        ValueError,
        "SGD: group 1: parameters must hold at least one Tensor",
    ),
    "group lr": (
        lambda: optim.SGD([{"params": p(), "lr": -1}]),
        ValueError,
        "SGD: group 0: lr must be at least 0 .* got -1",
    ),
    "group typo": (
        lambda: optim.SGD([{"params": p(), "Lr": 1}]),
        TypeError,
        "SGD: group 0 has the unknown option 'Lr'; the options are lr, momentum",
    ),
    "group without params": (
        lambda: optim.SGD([{"lr": 1}]),
        ValueError,
        "SGD: group 0 must have 'params', got 'lr'",
    ),
    "mixed": (
        lambda: optim.SGD([{"params": p()}, p()[0]]),
        TypeError,
        "SGD: group 1 must be a dict as the others are, got Tensor",
    ),
    "alpha": (
        lambda: optim.RMSprop(p(), alpha=1),
        ValueError,
        "RMSprop: alpha must be at least 0 and below 1, got 1",
    ),
    "centered": (
        lambda: optim.RMSprop(p(), centered=1),
        TypeError,
        "RMSprop: centered must be a bool, got int",
    ),
    "lr_decay": (
        lambda: optim.Adagrad(p(), lr_decay=-1),
        ValueError,
        "Adagrad: lr_decay must be at least 0 .* got -1",
    ),
    "start": (
        lambda: optim.Adagrad(p(), initial_accumulator_value=NAN),
        ValueError,
        "Adagrad: initial_accumulator_value must be",
    ),
    "beta 1": (
        lambda: optim.Adam(p(), betas=(1.0, 0.9)),
        ValueError,
        r"Adam: betas\[0\] must be at least 0 and below 1, got 1.0",
    ),
    "beta2 1": (
        lambda: optim.AdamW(p(), betas=(0.9, 1.0)),
        ValueError,
        r"AdamW: betas\[1\] must be at least 0 and below 1, got 1.0",
    ),
    "beta -1": (
        lambda: optim.Adam(p(), betas=(-1, 0.9)),
        ValueError,
        r"Adam: betas\[0\] must be at least 0 and below 1, got -1",
    ),
    "one beta": (
        lambda: optim.Adam(p(), betas=(0.9,)),
        TypeError,
        r"Adam: betas must be a pair of numbers, got \(0.9,\)",
    ),
    "betas number": (
        lambda: optim.Adam(p(), betas=0.9),
        TypeError,
        "Adam: betas must be a pair of numbers, got 0.9",
    ),
    "beta str": (
        lambda: optim.Adam(p(), betas=("a", 0.9)),
        TypeError,
        r"Adam: betas\[0\] must be a number, got str",
    ),
    "eps": (
        lambda: optim.Adam(p(), eps=-1e-8),
        ValueError,
        "Adam: eps must be at least 0 .* got -1e-08",
    ),
    "weight decay": (
        lambda: optim.AdamW(p(), weight_decay=-0.1),
        ValueError,
        "AdamW: weight_decay must be at least 0 .* got -0.1",
    ),
    "amsgrad": (
        lambda: optim.Adam(p(), amsgrad="yes"),
        TypeError,
        "Adam: amsgrad must be a bool, got str",
    ),
    "momentum": (
        lambda: optim.SGD(p(), 0.1, momentum=-0.5),
        ValueError,
        "SGD: momentum must be at least 0 .* got -0.5",
    ),
    "dampening": (
        lambda: optim.SGD(p(), 0.1, momentum=0.5, dampening=2),
        ValueError,
        "SGD: dampening must be at least 0 and at most 1, got 2",
    ),
    "nesterov": (
        lambda: optim.SGD(p(), 0.1, nesterov=True),
        ValueError,
        "SGD: nesterov needs a momentum and no dampening, got momentum=0.0, dampening=0.0",
    ),
    "nesterov int": (
        lambda: optim.SGD(p(), 0.1, momentum=0.9, nesterov=1),
        TypeError,
        "SGD: nesterov must be a bool, got int",
    ),
    "typo": (lambda: optim.Adam(p(), learning_rate=0.1), TypeError, "learning_rate"),
    "clip empty": (
        lambda: optim.clip_grad_norm_([], 1.0),
        ValueError,
        "clip_grad_norm_: parameters must hold at least one Tensor",
    ),
    "clip twice": (
        lambda: optim.clip_grad_norm_(twice(), 1.0),
        ValueError,
        "clip_grad_norm_: parameters must not hold a Tensor twice",
    ),
    "max_norm": (
        lambda: optim.clip_grad_norm_(p(), -1),
        ValueError,
        "clip_grad_norm_: max_norm must be at least 0, got -1",
    ),
    "max_norm NaN": (
        lambda: optim.clip_grad_norm_(p(), NAN),
        ValueError,
        "clip_grad_norm_: max_norm must be at least 0, got nan",
    ),
    "norm_type": (
        lambda: optim.clip_grad_norm_(p(), 1, -2),
        ValueError,
        "clip_grad_norm_: norm_type must be .* got -2",
    ),
    "norm_type 0": (
        lambda: optim.clip_grad_norm_(p(), 1, 0),
        ValueError,
        "clip_grad_norm_: norm_type must be .* got 0",
    ),
    "norm_type str": (
        lambda: optim.clip_grad_norm_(p(), 1, "inf"),
        TypeError,
        "clip_grad_norm_: norm_type must be a number, got str",
    ),
    "clip_value": (
        lambda: optim.clip_grad_value_(p(), -1),
        ValueError,
        "clip_grad_value_: clip_value must be at least 0, got -1",
    ),
    "value empty": (
        lambda: optim.clip_grad_value_([], 1),
        ValueError,
        "clip_grad_value_: parameters must hold at least one Tensor",
    ),
}


@pytest.mark.parametrize("call, error, message", BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("norm_type", [1, 2, INF])
def test_gradients_that_are_not_finite(value, norm_type):
    """A RuntimeError that names the parameter and the place, and nothing has changed."""
    parameters = leaves(draw(0))
    gradients = draw(1)
    gradients[0][1, 2] = value
    set_gradients(parameters, gradients)
    with pytest.raises(
        RuntimeError,
        match=rf"the gradient of parameter 0, shape \(3, 4\), is not finite: {value} at \(1, 2\)",
    ):
        optim.clip_grad_norm_(parameters, 1.0, norm_type)
    with pytest.raises(RuntimeError, match="clip_grad_norm_: the gradient of 'a' is not finite"):
        optim.clip_grad_norm_(zip("abc", parameters, strict=True), 1.0, norm_type)
    assert all(
        np.array_equal(p.grad.numpy(), g, equal_nan=True)
        for p, g in zip(parameters, gradients, strict=True)
    )
    assert bits(parameters) == [a.tobytes() for a in draw(0)]
    total = optim.clip_grad_norm_(parameters, 1.0, norm_type, error_if_nonfinite=False)
    assert np.isnan(total) if np.isnan(value) else total == INF


@pytest.mark.parametrize(
    "dtype, size",
    [
        (np.float32, 1e30),
        (np.float64, 1e200),
        (np.float64, 1e308),
        (np.float32, 1e-42),
        (np.float64, 1e-200),
        (np.float64, 5e-324),
    ],
)
@pytest.mark.parametrize("norm_type", [1, 2, 3, INF])
def test_the_norm_neither_overflows_nor_vanishes(dtype, size, norm_type):
    g = np.array([3, -4, 0], np.float64)[:, None] * np.full(
        (1, 2), dtype(size) / 8 if size == 1e308 else dtype(size), np.float64
    )
    (p,) = leaves([np.zeros((3, 2), dtype)])
    set_gradients([p], [g.astype(dtype)])
    exact = g.astype(dtype).astype(np.float64)
    unit = exact.max()
    expected = np.linalg.norm((exact / unit).ravel(), norm_type) * unit
    np.testing.assert_allclose(optim.clip_grad_norm_([p], 2.5, norm_type), expected, rtol=1e-12)
    if size > 1:
        after = p.grad.numpy().astype(np.float64).ravel()
        np.testing.assert_allclose(
            np.linalg.norm(after, norm_type), 2.5, rtol=1e-6 if dtype == np.float32 else 1e-12
        )
    else:
        assert np.array_equal(p.grad.numpy(), g.astype(dtype))


def test_a_norm_that_float64_cannot_hold_is_an_error():
    (p,) = leaves([np.zeros(100)])
    set_gradients([p], [np.full(100, 1e308)])
    with pytest.raises(
        RuntimeError,
        match="clip_grad_norm_: the norm of the gradients is above the largest float64",
    ):
        optim.clip_grad_norm_([p], 1.0)
    assert (p.grad.numpy() == 1e308).all()


def test_clipping_takes_named_parameters():
    net = mg.nn.Linear(2, 2)
    for p in net.parameters():
        p.grad = mg.Tensor(np.full(p.shape, 2.0, np.float32))
    assert optim.clip_grad_norm_(net.named_parameters(), 1e9) == optim.clip_grad_norm_(
        net.parameters(), 1e9
    )
    optim.clip_grad_value_(dict(net.named_parameters()).items(), 0.5)
    assert all((p.grad.numpy() == 0.5).all() for p in net.parameters())


def test_a_gradient_that_parameters_share_is_scaled_once():
    parameters = leaves([np.zeros(2), np.zeros(2)])
    shared = mg.Tensor(np.array([3.0, 4.0]))
    for p in parameters:
        p.grad = shared
    np.testing.assert_allclose(optim.clip_grad_norm_(parameters, 1.0), 50**0.5, rtol=1e-12)
    np.testing.assert_allclose(shared.numpy(), np.array([3, 4]) / 50**0.5, rtol=1e-6)
