"""The optimisers and gradient clipping: PyTorch's numbers over 12 steps, states that go on with the same bits, bad input.

Fixtures are looked for in ../shared (or $MINIGRAD_SHARED) and skipped where absent.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg

optim = mg.optim
FOLDER = Path(os.environ.get("MINIGRAD_SHARED", Path(__file__).parents[2] / "shared"), "fixtures", "optim")
TORCH = np.load(FOLDER / "torch_optim.npz") if FOLDER.is_dir() else None
CASES = json.loads((FOLDER / "torch_optim.json").read_text())["cases"] if TORCH else []
needs_fixtures = pytest.mark.skipif(TORCH is None, reason="skipped: no ../shared/fixtures/optim here (set MINIGRAD_SHARED)")
OFFERED = {"SGD": optim.SGD, "Adam": optim.Adam, "AdamW": optim.AdamW}
SHAPES = ((3, 4), (5,), ())

MAKERS = {
    "SGD": lambda p: optim.SGD(p, 0.1),
    "SGD momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.5, weight_decay=0.01),
    "SGD nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, 0.01, weight_decay=0.01),
    "Adam amsgrad": lambda p: optim.Adam(p, 0.01, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, 0.01),
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
    """Steps with gradients that their numbers alone decide; in step 1 the second parameter has none."""
    for k in range(first, last):
        set_gradients(optimizer.parameters, draw(100 + k))
        if k == 1:
            optimizer.parameters[1].grad = None
        optimizer.step()


def bits(parameters):
    return [p.numpy().tobytes() for p in parameters]


def same_state(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and np.result_type(a[k]) == np.result_type(b[k]) for k in a)


# ---------------------------------------------------------------- PyTorch's numbers

@needs_fixtures
@pytest.mark.parametrize("case", [c for c in CASES if c.get("cls") in OFFERED and not c["kwargs"].get("maximize")],
                         ids=lambda c: f"{c['cls']} {c['kwargs']}")
def test_torch_steps(case):
    parameters = leaves(fixture("p0_"))
    optimizer = OFFERED[case["cls"]](parameters, **{"lr": case["all_defaults"]["lr"]} | case["kwargs"])
    for k in range(case["steps"]):
        set_gradients(parameters, fixture(f"g{k}_"))
        optimizer.step()
        for p, expected in zip(parameters, fixture(f"{case['prefix']}s{k}_"), strict=True):
            np.testing.assert_allclose(p.numpy(), expected, rtol=1e-12, atol=1e-12, err_msg=f"step {k}")


@needs_fixtures
@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "clip_grad_norm_"],
                         ids=lambda c: f"{c['max_norm']} {c['norm_type']} {c['grads_of_step']}")
def test_torch_clip_norm(case):
    parameters = leaves(fixture("p0_"))
    set_gradients(parameters, fixture(f"g{case['grads_of_step']}_"))
    total = optim.clip_grad_norm_(parameters, case["max_norm"], float(case["norm_type"]))
    np.testing.assert_allclose(total, case["total_norm"], rtol=1e-12)
    for p, expected in zip(parameters, fixture(case["prefix"]), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


@needs_fixtures
@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "clip_grad_value_"], ids=lambda c: str(c["value"]))
def test_torch_clip_value(case):
    parameters = leaves(fixture("p0_"))
    set_gradients(parameters, fixture(f"g{case['grads_of_step']}_"))
    optim.clip_grad_value_(parameters, case["value"])
    for p, expected in zip(parameters, fixture(case["prefix"]), strict=True):
        assert np.array_equal(p.grad.numpy(), expected)


# ---------------------------------------------------------------- by hand

def test_sgd_by_hand():
    """v1 = g1, v2 = 0.5 v1 + 0.75 g2; p -= 0.1 v."""
    p, = leaves([np.array([1.0])])
    optimizer = optim.SGD([p], 0.1, momentum=0.5, dampening=0.25)
    for g, expected in ((2.0, 1 - 0.1 * 2), (4.0, 0.8 - 0.1 * (0.5 * 2 + 0.75 * 4))):
        set_gradients([p], [np.array([g])])
        optimizer.step()
        np.testing.assert_allclose(p.numpy(), [expected], rtol=1e-15)


def test_adam_first_step_is_lr_times_the_sign():
    """m / (1 - b1) = g and sqrt(v / (1 - b2)) = |g|: the step is lr g / (|g| + eps)."""
    p, = leaves([np.array([1.0, 1.0, 1.0])])
    g = np.array([3.0, -0.5, 0.0])
    set_gradients([p], [g])
    optim.Adam([p], 0.1, eps=0.5).step()
    np.testing.assert_allclose(p.numpy(), 1 - 0.1 * g / (abs(g) + 0.5), rtol=1e-12)


def test_adamw_shrinks_the_weights_alone():
    p, = leaves([np.array([2.0])])
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
        assert p.dtype == dtype and np.shares_memory(p.numpy(), a) and not np.array_equal(p.numpy(), old)
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
    assert np.array_equal(parameters[1].numpy(), draw(0)[1]) and not np.array_equal(parameters[0].numpy(), draw(0)[0])
    assert not any(a.any() for a in optimizer.state[1].values())


def test_shared_gradients_are_one_step():
    """Parameters that a Module shares are one parameter of the optimiser."""
    class Tied(mg.nn.Module):
        def __init__(self):
            self.a = mg.nn.Linear(2, 2, bias=False, dtype=np.float64)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x))
    net = Tied()
    before = net.a.weight.numpy().copy()
    optimizer = optim.SGD(net.parameters(), 0.1)
    net(mg.Tensor(np.eye(2))).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(net.a.weight.numpy(), before - 0.1 * net.a.weight.grad.numpy(), rtol=1e-15)


def test_clipping_leaves_small_gradients_alone():
    parameters = leaves(draw(0))
    set_gradients(parameters, draw(1))
    parameters[1].grad = None
    norm = optim.clip_grad_norm_(parameters, 1e3)
    optim.clip_grad_value_(parameters, 1e3)
    assert np.array_equal(parameters[0].grad.numpy(), draw(1)[0]) and parameters[1].grad is None
    np.testing.assert_allclose(norm, np.sqrt((draw(1)[0].astype(float)**2).sum() + float(draw(1)[2])**2), rtol=1e-12)


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
    """BLAS adds in another order on another CPU (here another OPENBLAS_CORETYPE) or with more threads; the norm must not."""
    settings = [("Haswell", "1", "1"), ("Haswell", "2", "3"), ("Nehalem", "1", "2"), ("Prescott", "2", "1")]
    printed = set()
    for core, blas_threads, threads in settings:
        env = os.environ | {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": blas_threads, "MINIGRAD_NUM_THREADS": threads,
                            "PYTHONHASHSEED": "0"}
        printed.add(subprocess.run([sys.executable, "-c", NORMS], env=env, capture_output=True, text=True, check=True).stdout)
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
    assert bits(second.parameters) == bits(whole.parameters) and same_state(second.state_dict(), whole.state_dict())


@each_optimizer
def test_a_state_dict_is_a_copy(make):
    optimizer = make(leaves(draw(0)))
    steps(optimizer, 0, 3)
    saved = optimizer.state_dict()
    assert all(isinstance(v, np.ndarray) == (k not in ("steps", "lr")) for k, v in saved.items())
    kept = {k: np.array(v) for k, v in saved.items()}
    steps(optimizer, 3, 5)
    assert all(np.array_equal(saved[k], kept[k]) for k in kept)
    optimizer.load_state_dict(saved)
    steps(optimizer, 5, 7)
    assert all(np.array_equal(saved[k], kept[k]) for k in kept)


BAD_STATES = {
    "missing": (lambda s: s.pop("0.m"), "missing: 0.m"),
    "unexpected": (lambda s: s.update(other=np.zeros(2)), "unexpected: other"),
    "no steps": (lambda s: s.pop("steps"), "missing: steps"),
    "shape": (lambda s: s.update({"1.v": np.zeros(4, np.float32)}), r"1\.v must have shape \(5,\) and dtype float32, got \(4,\)"),
    "dtype": (lambda s: s.update({"1.v": np.zeros(5)}), r"1\.v must have shape \(5,\) and dtype float32, got \(5,\) and float64"),
    "steps": (lambda s: s.update(steps=-1), "steps must be"),
    "steps str": (lambda s: s.update(steps="3"), "steps must be"),
    "lr": (lambda s: s.update(lr=float("nan")), "lr must be"),
    "lr None": (lambda s: s.update(lr=None), "lr must be"),
    "lr array": (lambda s: s.update(lr=np.zeros(3)), "lr must be"),
}


@pytest.mark.parametrize("spoil, message", BAD_STATES.values(), ids=BAD_STATES)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message):
    optimizer = optim.Adam(leaves(draw(0)))
    steps(optimizer, 0, 3)
    before, parameters = optimizer.state_dict(), bits(optimizer.parameters)
    state = {k: v + 1 for k, v in before.items()}
    spoil(state)
    with pytest.raises(ValueError, match="load_state_dict: Adam does not fit the state: .*" + message):
        optimizer.load_state_dict(state)
    assert same_state(optimizer.state_dict(), before) and bits(optimizer.parameters) == parameters


def test_all_that_does_not_fit_is_named_at_once():
    optimizer = optim.Adam(leaves(draw(0)))
    state = optimizer.state_dict() | {"1.v": np.zeros(4, np.float32), "other": 1}
    del state["0.m"]
    with pytest.raises(ValueError, match=r"missing: 0\.m; unexpected: other; 1\.v must have shape"):
        optimizer.load_state_dict(state)


def test_a_state_is_a_dict():
    for state in (None, [], "state", 3):
        with pytest.raises(TypeError, match=f"load_state_dict: state must be a dict, got {type(state).__name__}"):
            optim.Adam(leaves(draw(0))).load_state_dict(state)


# ---------------------------------------------------------------- bad input

def p():
    return leaves(draw(0))


def twice():
    one, = leaves([np.ones(2)])
    return [one, one]


NAN, INF = float("nan"), float("inf")
BAD = {
    "lr -1": (lambda: optim.SGD(p(), -1), ValueError, "SGD: lr must be from 0 .* got -1"),
    "lr NaN": (lambda: optim.Adam(p(), NAN), ValueError, "Adam: lr must be from 0 .* got nan"),
    "lr inf": (lambda: optim.AdamW(p(), INF), ValueError, "AdamW: lr must be from 0 .* got inf"),
    "lr str": (lambda: optim.SGD(p(), "0.1"), TypeError, "SGD: lr must be a number, got str"),
    "lr bool": (lambda: optim.SGD(p(), True), TypeError, "SGD: lr must be a number, got bool"),
    "lr None": (lambda: optim.Adam(p(), None), TypeError, "Adam: lr must be a number, got NoneType"),
    "no lr": (lambda: optim.SGD(p()), TypeError, "lr"),
    "empty": (lambda: optim.SGD([], 0.1), ValueError, "SGD: parameters must hold at least one Tensor, got none"),
    "empty generator": (lambda: optim.Adam(iter(())), ValueError, "Adam: parameters must hold at least one Tensor, got none"),
    "one tensor": (lambda: optim.Adam(p()[0]), TypeError, "Adam: parameters must be an iterable of Tensors, got Tensor"),
    "None": (lambda: optim.Adam(None), TypeError, "Adam: parameters must be an iterable of Tensors, got NoneType"),
    "arrays": (lambda: optim.Adam([np.ones(2)]), TypeError, "Adam: parameters must be Tensors, got ndarray"),
    "names": (lambda: optim.Adam("ab"), TypeError, "Adam: parameters must be Tensors, got str"),
    "twice": (lambda: optim.Adam(twice()), ValueError, "Adam: parameters must not hold a Tensor twice"),
    "beta 1": (lambda: optim.Adam(p(), betas=(1.0, 0.9)), ValueError, r"Adam: betas\[0\] must be from 0 below 1, got 1.0"),
    "beta2 1": (lambda: optim.AdamW(p(), betas=(0.9, 1.0)), ValueError, r"AdamW: betas\[1\] must be from 0 below 1, got 1.0"),
    "beta -1": (lambda: optim.Adam(p(), betas=(-1, 0.9)), ValueError, r"Adam: betas\[0\] must be from 0 below 1, got -1"),
    "one beta": (lambda: optim.Adam(p(), betas=(0.9,)), TypeError, r"Adam: betas must be a pair of numbers, got \(0.9,\)"),
    "betas number": (lambda: optim.Adam(p(), betas=0.9), TypeError, "Adam: betas must be a pair of numbers, got 0.9"),
    "beta str": (lambda: optim.Adam(p(), betas=("a", 0.9)), TypeError, r"Adam: betas\[0\] must be a number, got str"),
    "eps": (lambda: optim.Adam(p(), eps=-1e-8), ValueError, "Adam: eps must be from 0 .* got -1e-08"),
    "weight decay": (lambda: optim.AdamW(p(), weight_decay=-0.1), ValueError, "AdamW: weight_decay must be from 0 .* got -0.1"),
    "amsgrad": (lambda: optim.Adam(p(), amsgrad="yes"), TypeError, "Adam: amsgrad must be a bool, got str"),
    "momentum": (lambda: optim.SGD(p(), 0.1, momentum=-0.5), ValueError, "SGD: momentum must be from 0 .* got -0.5"),
    "dampening": (lambda: optim.SGD(p(), 0.1, momentum=0.5, dampening=2), ValueError,
                  "SGD: dampening must be from 0 to 1, got 2"),
    "nesterov": (lambda: optim.SGD(p(), 0.1, nesterov=True), ValueError,
                 "SGD: nesterov needs a momentum and no dampening, got momentum=0.0, dampening=0.0"),
    "nesterov int": (lambda: optim.SGD(p(), 0.1, momentum=0.9, nesterov=1), TypeError, "SGD: nesterov must be a bool, got int"),
    "typo": (lambda: optim.Adam(p(), learning_rate=0.1), TypeError, "learning_rate"),
    "clip empty": (lambda: optim.clip_grad_norm_([], 1.0), ValueError,
                   "clip_grad_norm_: parameters must hold at least one Tensor"),
    "clip twice": (lambda: optim.clip_grad_norm_(twice(), 1.0), ValueError,
                   "clip_grad_norm_: parameters must not hold a Tensor twice"),
    "max_norm": (lambda: optim.clip_grad_norm_(p(), -1), ValueError, "clip_grad_norm_: max_norm must be from 0 to inf, got -1"),
    "max_norm NaN": (lambda: optim.clip_grad_norm_(p(), NAN), ValueError,
                     "clip_grad_norm_: max_norm must be from 0 to inf, got nan"),
    "norm_type": (lambda: optim.clip_grad_norm_(p(), 1, -2), ValueError, "clip_grad_norm_: norm_type must be .* got -2"),
    "norm_type 0": (lambda: optim.clip_grad_norm_(p(), 1, 0), ValueError, "clip_grad_norm_: norm_type must be .* got 0"),
    "norm_type str": (lambda: optim.clip_grad_norm_(p(), 1, "inf"), TypeError,
                      "clip_grad_norm_: norm_type must be a number, got str"),
    "clip_value": (lambda: optim.clip_grad_value_(p(), -1), ValueError,
                   "clip_grad_value_: clip_value must be from 0 to inf, got -1"),
    "value empty": (lambda: optim.clip_grad_value_([], 1), ValueError,
                    "clip_grad_value_: parameters must hold at least one Tensor"),
}


@pytest.mark.parametrize("call, error, message", BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("value", [NAN, INF])
def test_gradients_that_are_not_finite(value):
    """With error_if_nonfinite a RuntimeError, and nothing has changed."""
    parameters = leaves(draw(0))
    gradients = draw(1)
    gradients[0][1, 2] = value
    set_gradients(parameters, gradients)
    with pytest.raises(RuntimeError, match=f"clip_grad_norm_: the norm of the gradients is {value}"):
        optim.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert all(np.array_equal(p.grad.numpy(), g, equal_nan=True) for p, g in zip(parameters, gradients, strict=True))
    assert bits(parameters) == [a.tobytes() for a in draw(0)]
