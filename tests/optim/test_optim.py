"""The optimisers and gradient clipping: PyTorch's numbers over 12 steps, formulas by hand, groups,
states that go on with the same bits, the tape."""

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from makers import (
    OFFERED,
    SHAPES,
    bits,
    draw,
    each_optimizer,
    leaves,
    rows,
    same_state,
    set_gradients,
    trained,
)

import minigrad as mg

optim = mg.optim
FOLDER = Path(Path(__file__).parents[1], "fixtures", "optim")
TORCH = np.load(FOLDER / "torch_optim.npz") if FOLDER.is_dir() else None
CASES = json.loads((FOLDER / "torch_optim.json").read_text())["cases"] if TORCH else []
needs_fixtures = pytest.mark.skipif(TORCH is None, reason="skipped: tests/fixtures is not there")


def fixture(prefix):
    return [TORCH[f"{prefix}{i}"] for i in range(len(SHAPES))]


def steps(optimizer, first, last):
    """Steps with gradients that their numbers alone decide; in step 1 the second parameter has
    none."""
    for k in range(first, last):
        set_gradients(optimizer.parameters, draw(100 + k))
        if k == 1:
            optimizer.parameters[1].grad = None
        optimizer.step()


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


@pytest.mark.slow
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
