"""The optimisers and gradient clipping: PyTorch's numbers over 12 steps, groups, states that go on
with the same bits, bad input.

Fixtures are looked for in ../shared (or $MINIGRAD_SHARED) and skipped where absent.
"""

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad.core import kernels

optim = mg.optim
FOLDER = Path(Path(__file__).parents[1], "fixtures", "optim")
TORCH = np.load(FOLDER / "torch_optim.npz") if FOLDER.is_dir() else None
CASES = json.loads((FOLDER / "torch_optim.json").read_text())["cases"] if TORCH else []
needs_fixtures = pytest.mark.skipif(
    TORCH is None, reason="skipped: no ../shared/fixtures/optim here (set MINIGRAD_SHARED)"
)
OFFERED = {
    c.__name__: c for c in (optim.SGD, optim.RMSprop, optim.Adam, optim.AdamW, optim.Adagrad)
}
SHAPES = ((3, 4), (5,), ())

MAKERS = {
    "SGD": lambda p: optim.SGD(p, 0.1),
    "SGD momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.5, weight_decay=0.01),
    "SGD nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, 0.01, weight_decay=0.01),
    "Adam amsgrad": lambda p: optim.Adam(p, 0.01, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, 0.01),
    "RMSprop": lambda p: optim.RMSprop(p, 0.01, weight_decay=0.01),
    "RMSprop centered": lambda p: optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: optim.Adagrad(p, 0.01, lr_decay=0.1, initial_accumulator_value=0.1),
    "maximize": lambda p: optim.Adam(p, 0.01, maximize=True, weight_decay=0.01),
    "groups": lambda p: optim.Adam(
        [{"params": p[:1], "lr": 0.02, "betas": [0.8, 0.9]}, {"params": p[1:], "amsgrad": True}]
    ),
}
each_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def fixture(prefix):
    return [TORCH[f"{prefix}{i}"] for i in range(len(SHAPES))]


def leaves(arrays):
    return [mg.Tensor(a, requires_grad=True) for a in arrays]


def draw(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def set_gradients(parameters, arrays):
    for p, g in zip(parameters, arrays, strict=True):
        p.grad = mg.Tensor(g)


def steps(optimizer, first, last):
    """Steps with gradients that their numbers alone decide; in step 1 the second parameter has
    none."""
    for k in range(first, last):
        set_gradients(optimizer.parameters, draw(100 + k))
        if k == 1:
            optimizer.parameters[1].grad = None
        optimizer.step()


def bits(parameters):
    return [p.numpy().tobytes() for p in parameters]


def same_state(a, b):
    """Equal keys, options and counts, arrays of the same dtype and bits."""

    def fixed(state):
        return {
            k: (v.dtype, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v
            for k, v in state.items()
        }

    return fixed(a) == fixed(b)


def snapshot(state):
    return {
        k: v.copy() if isinstance(v, np.ndarray) else json.loads(json.dumps(v))
        for k, v in state.items()
    }


# ---------------------------------------------------------------- PyTorch's numbers


@needs_fixtures
@pytest.mark.parametrize(
    "case", [c for c in CASES if c.get("cls") in OFFERED], ids=lambda c: f"{c['cls']} {c['kwargs']}"
)
def test_torch_steps(case):
    parameters = leaves(fixture("p0_"))
    optimizer = OFFERED[case["cls"]](
        parameters, **{"lr": case["all_defaults"]["lr"]} | case["kwargs"]
    )
    for k in range(case["steps"]):
        set_gradients(parameters, fixture(f"g{k}_"))
        optimizer.step()
        for p, expected in zip(parameters, fixture(f"{case['prefix']}s{k}_"), strict=True):
            np.testing.assert_allclose(
                p.numpy(), expected, rtol=1e-12, atol=1e-12, err_msg=f"step {k}"
            )


@needs_fixtures
@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c["kind"] == "clip_grad_norm_"],
    ids=lambda c: f"{c['max_norm']} {c['norm_type']} {c['grads_of_step']}",
)
def test_torch_clip_norm(case):
    parameters = leaves(fixture("p0_"))
    set_gradients(parameters, fixture(f"g{case['grads_of_step']}_"))
    total = optim.clip_grad_norm_(parameters, case["max_norm"], float(case["norm_type"]))
    np.testing.assert_allclose(total, case["total_norm"], rtol=1e-12)
    for p, expected in zip(parameters, fixture(case["prefix"]), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


@needs_fixtures
@pytest.mark.parametrize(
    "case", [c for c in CASES if c["kind"] == "clip_grad_value_"], ids=lambda c: str(c["value"])
)
def test_torch_clip_value(case):
    parameters = leaves(fixture("p0_"))
    set_gradients(parameters, fixture(f"g{case['grads_of_step']}_"))
    optim.clip_grad_value_(parameters, case["value"])
    for p, expected in zip(parameters, fixture(case["prefix"]), strict=True):
        assert np.array_equal(p.grad.numpy(), expected)


# ---------------------------------------------------------------- by hand


def test_sgd_by_hand():
    """v1 = g1, v2 = 0.5 v1 + 0.75 g2; p -= 0.1 v."""
    (p,) = leaves([np.array([1.0])])
    optimizer = optim.SGD([p], 0.1, momentum=0.5, dampening=0.25)
    for g, expected in ((2.0, 1 - 0.1 * 2), (4.0, 0.8 - 0.1 * (0.5 * 2 + 0.75 * 4))):
        set_gradients([p], [np.array([g])])
        optimizer.step()
        np.testing.assert_allclose(p.numpy(), [expected], rtol=1e-15)


def test_adam_first_step_is_lr_times_the_sign():
    """m / (1 - b1) = g and sqrt(v / (1 - b2)) = |g|: the step is lr g / (|g| + eps)."""
    (p,) = leaves([np.array([1.0, 1.0, 1.0])])
    g = np.array([3.0, -0.5, 0.0])
    set_gradients([p], [g])
    optim.Adam([p], 0.1, eps=0.5).step()
    np.testing.assert_allclose(p.numpy(), 1 - 0.1 * g / (abs(g) + 0.5), rtol=1e-12)


def test_adamw_shrinks_the_weights_alone():
    (p,) = leaves([np.array([2.0])])
    set_gradients([p], [np.array([0.0])])
    optim.AdamW([p], 0.1, weight_decay=0.5).step()
    np.testing.assert_allclose(p.numpy(), [2 * (1 - 0.1 * 0.5)], rtol=1e-15)


@each_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_step_is_in_place_and_keeps_dtype_and_gradients(make, dtype):
    parameters = leaves(draw(0, dtype))
    arrays = [p.numpy() for p in parameters]
    optimizer = make(parameters)
    set_gradients(parameters, draw(1, dtype))
    optimizer.step()
    for p, a, g, old in zip(parameters, arrays, draw(1, dtype), draw(0, dtype), strict=True):
        assert (
            p.dtype == dtype
            and np.shares_memory(p.numpy(), a)
            and not np.array_equal(p.numpy(), old)
        )
        assert np.array_equal(p.grad.numpy(), g) and p.requires_grad and p.is_leaf
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters)


@each_optimizer
def test_no_gradient_no_change(make):
    parameters = leaves(draw(0))
    optimizer = make(parameters)
    set_gradients(parameters, draw(1))
    parameters[1].grad = None
    optimizer.step()
    assert np.array_equal(parameters[1].numpy(), draw(0)[1]) and not np.array_equal(
        parameters[0].numpy(), draw(0)[0]
    )
    kept = optimizer.state[parameters[1]]
    assert kept["step"] == 0 and optimizer.state[parameters[0]]["step"] == 1
    assert not any(
        np.any(a != a.flat[0]) for name, a in kept.items() if name != "step" and a is not None
    )


def test_shared_gradients_are_one_step():
    """Parameters that a Module shares are one parameter of the optimiser."""

    class Tied(mg.nn.Module):
        def __init__(self):
            self.a = mg.nn.Linear(2, 2, False, np.float64, np.random.default_rng(0))
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x))

    net = Tied()
    before = net.a.weight.numpy().copy()
    optimizer = optim.SGD(net.parameters(), 0.1)
    net(mg.Tensor(np.eye(2))).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(
        net.a.weight.numpy(), before - 0.1 * net.a.weight.grad.numpy(), rtol=1e-15
    )


def test_clipping_leaves_small_gradients_alone():
    parameters = leaves(draw(0))
    set_gradients(parameters, draw(1))
    parameters[1].grad = None
    norm = optim.clip_grad_norm_(parameters, 1e3)
    optim.clip_grad_value_(parameters, 1e3)
    assert np.array_equal(parameters[0].grad.numpy(), draw(1)[0]) and parameters[1].grad is None
    np.testing.assert_allclose(
        norm, np.sqrt((draw(1)[0].astype(float) ** 2).sum() + float(draw(1)[2]) ** 2), rtol=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_by_value_is_numpys(dtype):
    """Sizes of all tails and of several pieces; NaN stays."""
    for n in (*range(1, 40), 50_000):
        (p,) = leaves([np.zeros(n, dtype)])
        g = rows(n, dtype)[0]
        g[n // 2] = np.nan if n > 2 else -np.inf
        p.grad = mg.Tensor(g)
        optim.clip_grad_value_([p], 0.7)
        assert np.array_equal(p.grad.numpy(), np.clip(g, dtype(-0.7), dtype(0.7)), equal_nan=True)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-7), (np.float64, 1e-15)])
def test_norms_of_all_tails_and_of_several_pieces(dtype, tolerance):
    for n in (*range(40), 50_000):
        (p,) = leaves([np.zeros(n, dtype)])
        g = rows(n, dtype)[0]
        p.grad = mg.Tensor(g)
        norm = float(np.sqrt(math.fsum(g.astype(np.float64) ** 2)))
        assert optim.clip_grad_norm_([p], 0.1) == pytest.approx(
            norm, rel=1e-15 * max(n, 16) ** 0.5, abs=0
        )
        np.testing.assert_allclose(
            p.grad.numpy(), g.astype(np.float64) * min(1, 0.1 / (norm + 1e-6)), rtol=tolerance
        )


def test_clipping_without_any_gradient():
    parameters = leaves(draw(0))
    assert optim.clip_grad_norm_(parameters, 1.0) == 0.0
    optim.clip_grad_value_(parameters, 1.0)
    assert all(p.grad is None for p in parameters)


NORMS = """
import numpy as np, minigrad as mg
for n in (7, 9999, 300001):
    p = mg.Tensor(np.zeros(n, np.float32), requires_grad=True)
    for norm_type in (1, 2, 3, np.inf):
        p.grad = mg.Tensor(np.random.default_rng(n).standard_normal(n).astype(np.float32))
        print(mg.optim.clip_grad_norm_([p], 1.0, norm_type).hex(), hash(p.grad.numpy().tobytes()))
"""


def test_the_norm_has_the_same_bits_whatever_blas_numpy_has():
    """BLAS adds in another order on another CPU (here another OPENBLAS_CORETYPE) or with more
    threads; the norm must not."""
    settings = [
        ("Haswell", "1", "1"),
        ("Haswell", "2", "3"),
        ("Nehalem", "1", "2"),
        ("Prescott", "2", "1"),
    ]
    printed = set()
    for core, blas_threads, threads in settings:
        env = os.environ | {
            "OPENBLAS_CORETYPE": core,
            "OPENBLAS_NUM_THREADS": blas_threads,
            "MINIGRAD_NUM_THREADS": threads,
            "PYTHONHASHSEED": "0",
        }
        printed.add(
            subprocess.run(
                [sys.executable, "-c", NORMS], env=env, capture_output=True, text=True, check=True
            ).stdout
        )
    assert len(printed) == 1 and len(printed.pop().split()) == 24


# ---------------------------------------------------------------- states


@each_optimizer
def test_a_restored_state_goes_on_with_the_same_bits(make):
    whole = make(leaves(draw(0)))
    steps(whole, 0, 8)
    first = make(leaves(draw(0)))
    steps(first, 0, 4)
    second = make(leaves([p.numpy() for p in first.parameters]))
    second.load_state_dict(first.state_dict())
    assert same_state(second.state_dict(), first.state_dict())
    steps(second, 4, 8)
    assert bits(second.parameters) == bits(whole.parameters) and same_state(
        second.state_dict(), whole.state_dict()
    )


@each_optimizer
def test_a_state_dict_is_a_copy(make):
    optimizer = make(leaves(draw(0)))
    steps(optimizer, 0, 3)
    saved = optimizer.state_dict()
    assert all(
        isinstance(v, np.ndarray) == (k not in ("steps", "param_groups")) for k, v in saved.items()
    )
    kept = snapshot(saved)  # through JSON: what is no array must come back equal
    steps(optimizer, 3, 5)
    optimizer.param_groups[0]["lr"] = 0.5
    assert same_state(saved, kept)
    optimizer.load_state_dict(saved)
    assert same_state(optimizer.state_dict(), kept)
    steps(optimizer, 5, 7)
    assert same_state(saved, kept)


def option(name, value):
    return lambda state: state["param_groups"][0].update({name: value})


BAD_STATES = {
    "missing": (lambda s: s.pop("0.m"), "missing: 0.m"),
    "unexpected": (lambda s: s.update(other=np.zeros(2)), "unexpected: other"),
    "v_max": (
        lambda s: s.update({"0.v_max": np.zeros(3, np.float32)}),
        r"0\.v_max must be .* got \(3,\) and float32",
    ),
    "None": (lambda s: s.update({"0.m": None}), r"0\.m must be an array .* got NoneType"),
    "no steps": (lambda s: s.pop("steps"), "missing: steps"),
    "shape": (
        lambda s: s.update({"1.v": np.zeros(4, np.float32)}),
        r"1\.v must be an array of shape \(5,\) and .* got \(4,\)",
    ),
    "dtype": (
        lambda s: s.update({"1.v": np.zeros(5)}),
        r"1\.v must be .* and dtype float32, got \(5,\) and float64",
    ),
    "list": (lambda s: s.update({"1.v": [0.0] * 5}), r"1\.v must be an array .* got list"),
    "steps": (lambda s: s.update(steps=[1, -1, 1]), "steps must be a list of 3 ints of at least 0"),
    "steps str": (lambda s: s.update(steps="3"), "steps must be a list of 3 ints"),
    "steps bool": (lambda s: s.update(steps=[True, 1, 1]), "steps must be a list of 3 ints"),
    "lr": (option("lr", float("nan")), r"param_groups\[0\]: lr must be at least 0.* got nan"),
    "lr None": (option("lr", None), r"param_groups\[0\]: lr must be a number, got NoneType"),
    "lr array": (option("lr", np.zeros(3)), r"param_groups\[0\]: lr must be a number, got ndarray"),
    "betas": (option("betas", [0.9, 1.0]), r"param_groups\[0\]: betas\[1\] must be at least 0"),
    "amsgrad": (option("amsgrad", True), r"missing: 0\.v_max"),
    "option": (option("momentum", 0.9), r"param_groups\[0\] has the unexpected 'momentum'"),
    "no option": (lambda s: s["param_groups"][0].pop("eps"), r"param_groups\[0\] misses 'eps'"),
    "params": (option("params", [0, 1]), r"param_groups\[0\] must hold the parameters 0 to 2"),
    "groups": (lambda s: s["param_groups"].append({}), "param_groups must be a list of 1 dicts"),
    "groups dict": (lambda s: s.update(param_groups={}), "param_groups must be a list of 1 dicts"),
    "no groups": (lambda s: s.pop("param_groups"), "missing: param_groups"),
}


@pytest.mark.parametrize("spoil, message", BAD_STATES.values(), ids=BAD_STATES)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message):
    optimizer = optim.Adam(leaves(draw(0)))
    steps(optimizer, 0, 3)
    before, parameters = optimizer.state_dict(), bits(optimizer.parameters)
    state = snapshot(
        {k: np.array(v + 1) if isinstance(v, np.ndarray) else v for k, v in before.items()}
    )
    spoil(state)
    with pytest.raises(
        ValueError, match="load_state_dict: Adam does not fit the state: .*" + message
    ):
        optimizer.load_state_dict(state)
    assert same_state(optimizer.state_dict(), before) and bits(optimizer.parameters) == parameters


def test_all_that_does_not_fit_is_named_at_once():
    optimizer = optim.Adam(leaves(draw(0)))
    state = optimizer.state_dict() | {"1.v": np.zeros(4, np.float32), "other": 1}
    del state["0.m"]
    state["param_groups"][0]["lr"] = -1
    with pytest.raises(
        ValueError,
        match=r"lr must be at least 0.*; missing: 0\.m; unexpected: other; 1\.v must be an array",
    ):
        optimizer.load_state_dict(state)


def test_a_state_of_another_optimiser_does_not_fit():
    state = optim.SGD(leaves(draw(0)), 0.1, momentum=0.9).state_dict()
    with pytest.raises(
        ValueError,
        match="RMSprop does not fit the state: .*misses 'alpha'.*has the unexpected 'dampening'",
    ):
        optim.RMSprop(leaves(draw(0))).load_state_dict(state)


def test_a_state_is_a_dict():
    for state in (None, [], "state", 3):
        with pytest.raises(
            TypeError, match=f"load_state_dict: state must be a dict, got {type(state).__name__}"
        ):
            optim.Adam(leaves(draw(0))).load_state_dict(state)


def test_a_state_brings_its_options():
    first = optim.SGD(leaves(draw(0)), 0.1, momentum=0.9)
    steps(first, 0, 2)
    second = optim.SGD(leaves(draw(0)), 0.5)
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] == 0.1 and second.param_groups[0]["momentum"] == 0.9
    assert same_state(first.state_dict(), second.state_dict())


def test_the_arrays_of_a_state_may_have_any_layout():
    first, second = optim.Adam(leaves(draw(0))), optim.Adam(leaves(draw(0)))
    second.load_state_dict(
        {
            k: np.array(v, order="F") if isinstance(v, np.ndarray) else v
            for k, v in first.state_dict().items()
        }
    )
    steps(first, 0, 2)
    steps(second, 0, 2)
    assert bits(first.parameters) == bits(second.parameters)


def test_a_state_is_whole_also_right_after_an_option_changed():
    first = optim.SGD(leaves(draw(0)), 0.1)
    first.param_groups[0]["momentum"] = 0.9
    second = optim.SGD(leaves(draw(0)), 0.1)
    second.load_state_dict(first.state_dict())
    steps(first, 0, 3)
    steps(second, 0, 3)
    assert bits(first.parameters) == bits(second.parameters) and same_state(
        first.state_dict(), second.state_dict()
    )


# ---------------------------------------------------------------- groups


def test_each_group_has_its_options():
    """As if each group were an optimiser of its own."""
    parameters, alone = leaves(draw(0)), leaves(draw(0))
    rest = {"params": iter(parameters[1:]), "weight_decay": 0}
    both = optim.AdamW([{"params": parameters[:1], "lr": 0.1}, rest], lr=0.01)
    apart = [optim.AdamW(alone[:1], lr=0.1), optim.AdamW(alone[1:], lr=0.01, weight_decay=0)]
    for k in range(3):
        set_gradients(parameters, draw(k))
        set_gradients(alone, draw(k))
        both.step()
        for optimizer in apart:
            optimizer.step()
    assert bits(parameters) == bits(alone)
    assert [group["lr"] for group in both.param_groups] == [
        0.1,
        0.01,
    ] and both.parameters == parameters


def test_an_option_may_change_at_any_time():
    parameters = leaves(draw(0))
    optimizer = optim.SGD(parameters, 0.1)
    steps(optimizer, 0, 1)
    optimizer.param_groups[0].update(lr=0.0, momentum=0.9)  # needs an array that was not there
    before = bits(parameters)
    steps(optimizer, 2, 3)
    assert bits(parameters) == before and set(optimizer.state_dict()) == {
        "param_groups",
        "steps",
        "0.v",
        "1.v",
        "2.v",
    }
    optimizer.param_groups[0]["lr"] = 0.5
    steps(optimizer, 3, 4)
    assert bits(parameters) != before


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("lr", float("nan"), ValueError),
        ("lr", -1, ValueError),
        ("lr", "1", TypeError),
        ("betas", (0.9, 1), ValueError),
        ("eps", None, TypeError),
    ],
)
def test_an_option_that_became_bad_is_an_error_and_nothing_changes(name, value, error):
    parameters = leaves(draw(0))
    optimizer = optim.Adam([{"params": parameters[:1]}, {"params": parameters[1:]}])
    steps(optimizer, 0, 1)
    before, state = bits(parameters), optimizer.state_dict()
    optimizer.param_groups[1][name] = value
    with pytest.raises(error, match=rf"Adam: group 1: {name}(\[1\])? must be"):
        steps(optimizer, 2, 3)
    optimizer.param_groups[1][name] = optimizer.param_groups[0][name]
    assert bits(parameters) == before and same_state(optimizer.state_dict(), state)


# ---------------------------------------------------------------- bad input


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


# ---------------------------------------------------------------- the kernels


def by_formula(name, p, gradients, o):
    """The formulas of the docstrings, in float64."""
    p, zero = p.astype(np.float64), np.zeros(p.shape)
    m = v = b = v_max = s = zero
    s = s + o.get("initial_accumulator_value", 0)
    for t, g in enumerate(gradients, 1):
        g = -g.astype(np.float64) if o.get("maximize") else g.astype(np.float64)
        decay = o.get("weight_decay", 0)
        if name == "AdamW":
            p = p - o["lr"] * decay * p
        else:
            g = g + decay * p
        if name == "SGD":
            v = g if t == 1 else o.get("momentum", 0) * v + (1 - o.get("dampening", 0)) * g
            p = p - o["lr"] * (g + o["momentum"] * v if o.get("nesterov") else v)
        elif name == "RMSprop":
            m, v = o["alpha"] * m + (1 - o["alpha"]) * g, o["alpha"] * v + (1 - o["alpha"]) * g * g
            b = o.get("momentum", 0) * b + g / (
                np.sqrt(v - m * m if o.get("centered") else v) + o["eps"]
            )
            p = p - o["lr"] * b
        elif name == "Adagrad":
            s = s + g * g
            p = p - o["lr"] / (1 + (t - 1) * o.get("lr_decay", 0)) * g / (np.sqrt(s) + 1e-10)
        else:
            b1, b2 = o["betas"]
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            v_max = np.maximum(v, v_max)
            root = np.sqrt((v_max if o.get("amsgrad") else v) / (1 - b2**t))
            p = p - o["lr"] * (m / (1 - b1**t)) / (root + o["eps"])
    return p


OPTIONS = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1, maximize=True)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)),
    ("RMSprop", dict(lr=0.01, alpha=0.9, eps=1e-3)),
    ("RMSprop", dict(lr=0.01, alpha=0.95, eps=1e-3, momentum=0.9, centered=True)),
    ("RMSprop", dict(lr=0.01, alpha=0.9, eps=1e-3, weight_decay=0.1, maximize=True)),
    ("Adam", dict(lr=0.01, betas=(0.9, 0.99), eps=1e-6)),
    ("Adam", dict(lr=0.01, betas=(0.5, 0.9), eps=1e-6, amsgrad=True)),
    ("Adam", dict(lr=0.01, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1, maximize=True)),
    ("AdamW", dict(lr=0.01, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)),
    ("Adagrad", dict(lr=0.1)),
    ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2)),
]
all_options = pytest.mark.parametrize("name, options", OPTIONS, ids=str)


def trained(name, options, start, gradients):
    """Parameter and state after a step with each of the gradients, as a list of arrays."""
    (p,) = leaves([start])
    optimizer = OFFERED[name]([p], **options)
    for g in gradients:
        p.grad = mg.Tensor(g)
        optimizer.step()
    return [p.numpy(), *(a for k, a in optimizer.state[p].items() if k != "step")]


def rows(n, dtype, count=6):
    rng = np.random.default_rng(n)
    return [rng.standard_normal(n).astype(dtype) for _ in range(count)]


@all_options
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_the_formulas(name, options, dtype, tolerance):
    for n in (1, 7, 16, 37):
        start, *gradients = rows(n, dtype)
        np.testing.assert_allclose(
            trained(name, options, start, gradients)[0],
            by_formula(name, start, gradients, options),
            rtol=tolerance,
            atol=tolerance,
        )


@all_options
def test_torch_float32(name, options):
    torch = pytest.importorskip("torch")
    start, *gradients = rows(1000, np.float32, 30)
    p = torch.tensor(start, requires_grad=True)
    optimizer = getattr(torch.optim, name)([p], **options)
    for g in gradients:
        p.grad = torch.tensor(g)
        optimizer.step()
    np.testing.assert_allclose(
        trained(name, options, start, gradients)[0], p.detach().numpy(), rtol=1e-5, atol=1e-5
    )


@all_options
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_element_has_the_same_bits_wherever_it_is(name, options, dtype):
    """Alone, within any vector, in any piece and with any number of threads, on every instruction
    set."""
    n = 70_001
    start, *gradients = rows(n, dtype, 4)
    before, isa, found = mg.get_num_threads(), kernels.isa_in_use(), []
    try:
        for threads in (1, 2, 5):
            mg.set_num_threads(threads)
            found.append(trained(name, options, start, gradients))
        for other in kernels.isas_built():
            try:
                kernels._use_isa(other)
            except ValueError:  # not on this CPU
                continue
            found.append(trained(name, options, start, gradients))
    finally:
        mg.set_num_threads(before)
        kernels._use_isa(isa)
    assert len(found) > 3
    for run in found[1:]:
        assert [a.tobytes() for a in run] == [a.tobytes() for a in found[0]]
    for part in (
        slice(0, 1),
        slice(5, 40),
        *(slice(k, k + 9_999) for k in range(0, n, 9_999)),
    ):  # the pieces have other cuts
        alone = trained(name, options, start[part], [g[part] for g in gradients])
        assert [a.tobytes() for a in alone] == [a[part].tobytes() for a in found[0]]


def test_many_parameters_are_as_each_alone():
    """They share one call into C, which cuts all of them into pieces."""
    sizes = (3, 40_000, 0, 16_384, 1, 16_385, 700)
    together = leaves([rows(n, np.float32)[0] for n in sizes[:-1]] + [rows(700, np.float64)[0]])
    optimizer = optim.Adam(together, 0.1)
    for k in range(1, 4):
        set_gradients(together, [rows(p.size, p.dtype)[k] for p in together])
        optimizer.step()
    for p in together:
        start, *gradients = rows(p.size, p.dtype)[:4]
        assert p.numpy().tobytes() == trained("Adam", dict(lr=0.1), start, gradients)[0].tobytes()


@each_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_of_memory(make, dtype):
    """Fortran order, views with strides, gradients in another layout than the parameter: the same
    bits as in C order."""

    def layouts(arrays):
        return [np.asfortranarray(arrays[0]), np.repeat(arrays[1], 3)[::-3][::-1], arrays[2]]

    plain, other = (
        leaves(draw(0, dtype)),
        [mg.Tensor(a, requires_grad=True, copy=False) for a in layouts(draw(0, dtype))],
    )
    assert not other[0].numpy().flags.c_contiguous and not other[1].numpy().flags.c_contiguous
    first, second = make(plain), make(other)
    for k in range(3):
        set_gradients(plain, draw(k, dtype))
        for p, a in zip(other, layouts(draw(k, dtype)), strict=True):
            p.grad = mg.Tensor(a, copy=False)
        optim.clip_grad_norm_(plain, 2.0)
        optim.clip_grad_norm_(other, 2.0)
        optim.clip_grad_value_(plain, 0.4)
        optim.clip_grad_value_(other, 0.4)
        assert [p.grad.numpy().tobytes() for p in plain] == [
            p.grad.numpy().tobytes() for p in other
        ]
        first.step()
        second.step()
    assert bits(plain) == bits(other)


@each_optimizer
def test_a_step_that_cannot_be_made_changes_nothing(make):
    fixed = draw(0)[1]
    fixed.flags.writeable = False
    parameters = leaves(draw(0))
    parameters[1] = mg.Tensor(fixed, requires_grad=True, copy=False)
    optimizer = make(parameters)
    state = optimizer.state_dict()
    set_gradients(parameters, draw(1))
    with pytest.raises(ValueError, match=r"the memory of a tensor of shape \(5,\) is read-only"):
        optimizer.step()
    assert bits(parameters) == [a.tobytes() for a in draw(0)] and same_state(
        optimizer.state_dict(), state
    )


@pytest.mark.parametrize(
    "array",
    [
        None,
        3.0,
        np.zeros(5),
        np.zeros(4, np.float32),
        np.zeros(10, np.float32)[::2],
        np.broadcast_to(np.float32(0), 5),
        np.zeros(5, ">f4"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "make, name", [(optim.Adam, "v"), (optim.Adam, "m"), (optim.RMSprop, "v"), (optim.Adagrad, "s")]
)
def test_a_spoiled_state_is_an_error_and_nothing_changes(make, name, array):
    parameters = leaves(draw(0))
    optimizer = make(parameters)
    set_gradients(parameters, draw(1))
    optimizer.state[parameters[1]][name] = array
    with pytest.raises((TypeError, ValueError), match=name):
        optimizer.step()
    assert (
        bits(parameters) == [a.tobytes() for a in draw(0)]
        and optimizer.state[parameters[0]]["step"] == 0
    )


def test_a_gradient_that_never_changes():
    """The variance of centered RMSprop is then 0 but for rounding, and may come out negative; its
    root must not be NaN."""
    (p,) = leaves([np.zeros(1000, np.float32)])
    optimizer = optim.RMSprop([p], centered=True, alpha=0.7)
    p.grad = mg.Tensor(np.linspace(-3, 3, 1000, dtype=np.float32))
    for _ in range(200):
        optimizer.step()
    assert np.isfinite(p.numpy()).all()


def test_expanded_gradients_are_refused():
    (p,) = leaves([np.zeros((3, 2), np.float32)])
    with pytest.raises(
        ValueError, match="several elements of an expanded view share one memory location"
    ):
        p.grad = mg.broadcast_to(mg.ones(2), (3, 2))
    assert p.grad is None


def test_no_allocation_stays_behind():
    """2000 steps and clippings do not grow the heap."""
    tracemalloc = pytest.importorskip("tracemalloc")
    parameters = leaves(draw(0))
    optimizer = optim.AdamW(parameters)

    def turn():
        optim.clip_grad_norm_(parameters, 0.1)
        optim.clip_grad_value_(parameters, 0.1)
        optimizer.step()

    set_gradients(parameters, draw(1))
    tracemalloc.start()
    try:
        for _ in range(2000):
            turn()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            turn()
        assert tracemalloc.get_traced_memory()[0] - before < 2000
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- the tape


@each_optimizer
def test_the_tape_notices_a_step(make):
    """Backward through a graph that read the old parameter is an error, as after an assignment."""
    parameters = leaves(draw(0))
    optimizer = make(parameters)
    loss = (parameters[0] * parameters[0]).sum()
    set_gradients(parameters, draw(1))
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        loss.backward()


def test_the_tape_notices_clipping():
    for clip in (
        lambda q: optim.clip_grad_norm_([q], 0.1),
        lambda q: optim.clip_grad_value_([q], 0.1),
    ):
        (p,) = leaves(draw(0)[:1])
        (p * p).sum().backward(create_graph=True)
        square = (p.grad * p.grad).sum()
        clip(p)
        with pytest.raises(RuntimeError, match="modified by an in-place operation"):
            square.backward()


def test_several_python_threads_step_at_once():
    """The GIL is released in long steps; each thread has its own parameters."""
    start, *gradients = rows(200_000, np.float32)
    expected = [a.tobytes() for a in trained("Adam", dict(lr=0.1), start, gradients)]
    found = []

    def work():
        found.append([a.tobytes() for a in trained("Adam", dict(lr=0.1), start, gradients)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [expected] * 4
