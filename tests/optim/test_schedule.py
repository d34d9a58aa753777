"""The schedules: PyTorch's numbers (from the fixtures, and from PyTorch itself where it is
installed), the warm-up beside another schedule, states, bad input."""

import doctest
import json
import math
from pathlib import Path

import pytest

import minigrad as mg

schedule = mg.optim.schedule
FIXTURE = Path(Path(__file__).parents[1], "fixtures", "optim", "torch_optim.json")
CASES = (
    [c for c in json.loads(FIXTURE.read_text())["cases"] if c["kind"] == "lr_schedule"]
    if FIXTURE.is_file()
    else []
)
needs_fixtures = pytest.mark.skipif(not CASES, reason="skipped: tests/fixtures is not there")

MAKERS = {
    "constant": lambda o: schedule.ConstantLR(o, 0.25, 5),
    "step": lambda o: schedule.StepLR(o, 3, 0.3),
    "multi-step": lambda o: schedule.MultiStepLR(o, [2, 2, 7, 11], 0.3),
    "exponential": lambda o: schedule.ExponentialLR(o, 0.93),
    "cosine": lambda o: schedule.CosineAnnealingLR(o, 8, 0.001),
    "linear": lambda o: schedule.LinearLR(o, 0.2, 0.9, 6),
    "one cycle": lambda o: schedule.OneCycleLR(o, [0.5, 0.7], 20),
    "plateau": lambda o: schedule.ReduceLROnPlateau(o, patience=1, cooldown=1, factor=0.3),
}
each_schedule = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
METRICS = (
    3.0,
    2.0,
    2.5,
    2.0,
    2.0,
    2.0,
    1.9,
    1.8999,
    1.9,
    1.9,
    1.9,
    1.9,
    1.5,
    1.6,
    1.6,
    1.6,
    1.6,
    1.6,
    1.6,
    1.6,
)


def optimizer(lr=0.1, lr2=0.3):
    first, second = (mg.zeros(1, requires_grad=True) for _ in range(2))
    return mg.optim.Adam([{"params": [first], "lr": lr}, {"params": [second], "lr": lr2}])


def go(s, first, last):
    """Steps first to last - 1; the rates after each."""
    rates = []
    for t in range(first, last):
        s.step(*[METRICS[t]] * isinstance(s, schedule.ReduceLROnPlateau))
        rates.append(s.get_last_lr())
    return rates


# ---------------------------------------------------------------- PyTorch's numbers


@needs_fixtures
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["cls"])
def test_fixtures(case):
    sgd = mg.optim.SGD([mg.zeros(1, requires_grad=True)], case["base_lr"])
    s = getattr(schedule, case["cls"])(sgd, **case["kwargs"])
    rates = [s.get_last_lr()[0]]
    for t in range(len(case["lrs"]) - 1):
        s.step(*[case["losses"][t]] if case["losses"] else [])
        rates.append(s.get_last_lr()[0])
    assert rates == pytest.approx(case["lrs"], rel=1e-12)


ARGUMENTS = [
    ("ConstantLR", {}),
    ("ConstantLR", {"factor": 0.5, "total_iters": 1}),
    ("StepLR", {"step_size": 4}),
    ("StepLR", {"step_size": 1, "gamma": 1.1}),
    ("MultiStepLR", {"milestones": [1, 1, 6, 30]}),
    ("MultiStepLR", {"milestones": [0, 3], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 7}),
    ("CosineAnnealingLR", {"T_max": 6}),
    ("CosineAnnealingLR", {"T_max": 25, "eta_min": 0.02}),
    ("OneCycleLR", {"max_lr": 0.4, "total_steps": 20}),
    (
        "OneCycleLR",
        {
            "max_lr": [0.4, 0.8],
            "total_steps": 23,
            "pct_start": 0.41,
            "anneal_strategy": "linear",
            "base_momentum": 0.7,
            "max_momentum": 0.8,
            "div_factor": 10,
            "final_div_factor": 50,
        },
    ),
    ("OneCycleLR", {"max_lr": 0.4, "total_steps": 20, "cycle_momentum": False, "pct_start": 0.0}),
    ("ReduceLROnPlateau", {"patience": 0}),
    ("ReduceLROnPlateau", {"patience": 1, "cooldown": 2, "factor": 0.5}),
    ("ReduceLROnPlateau", {"patience": 1, "mode": "max", "min_lr": [0.05, 0.2], "factor": 0.5}),
    ("ReduceLROnPlateau", {"patience": 0, "threshold": 0.3, "threshold_mode": "abs", "eps": 1e-3}),
    (
        "ReduceLROnPlateau",
        {"patience": 0, "threshold": 0.3, "threshold_mode": "abs", "mode": "max"},
    ),
]


@pytest.mark.parametrize("name, arguments", ARGUMENTS, ids=lambda v: str(v))
@pytest.mark.parametrize("kind", ["Adam", "SGD"])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
def test_torch(name, arguments, kind):
    """Rates and momenta of two groups over 20 steps."""
    torch = pytest.importorskip("torch")
    theirs_p, ours_p = (
        [torch.zeros(1, requires_grad=True) for _ in range(2)],
        [mg.zeros(1, requires_grad=True) for _ in range(2)],
    )
    options = {"momentum": 0.5} if kind == "SGD" else {}
    theirs, ours = [
        getattr(module, kind)([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.3}], **options)
        for module, (a, b) in ((torch.optim, theirs_p), (mg.optim, ours_p))
    ]
    expected, s = (
        getattr(torch.optim.lr_scheduler, name)(theirs, **arguments),
        getattr(schedule, name)(ours, **arguments),
    )
    for t in range(20):
        for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert a["lr"] == pytest.approx(b["lr"], rel=1e-9, abs=1e-15), t
            assert a.get("momentum") == pytest.approx(b.get("momentum")) and a.get(
                "betas"
            ) == pytest.approx(b.get("betas")), t
        if t < 19:
            metric = [METRICS[t]] * (name == "ReduceLROnPlateau")
            s.step(*metric)
            expected.step(*metric)


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
def test_torch_chained():
    torch = pytest.importorskip("torch")
    theirs, ours = torch.optim.SGD([torch.zeros(1)], 0.1), mg.optim.SGD([mg.zeros(1)], 0.1)
    chains = [
        [
            kit.LinearLR(o, 0.1, total_iters=5),
            kit.ExponentialLR(o, 0.9),
            kit.CosineAnnealingLR(o, 12),
        ]
        for kit, o in ((torch.optim.lr_scheduler, theirs), (schedule, ours))
    ]
    for t in range(12):
        assert ours.param_groups[0]["lr"] == pytest.approx(
            theirs.param_groups[0]["lr"], rel=1e-12
        ), t
        for chain in chains:
            for s in chain:
                s.step()


# ---------------------------------------------------------------- by hand


def test_the_example_at_the_top_of_the_module():
    assert doctest.testmod(schedule).failed == 0


def test_a_schedule_acts_at_once_and_on_all_groups():
    o = optimizer()
    schedule.LinearLR(o, start_factor=0.5, total_iters=2)
    assert [g["lr"] for g in o.param_groups] == [0.05, 0.15] and [
        g["initial_lr"] for g in o.param_groups
    ] == [0.1, 0.3]


def test_rates_alone_have_no_rounding_error_of_earlier_steps():
    o = optimizer()
    s = schedule.CosineAnnealingLR(o, 1000)
    for _ in range(1500):
        s.step()
    assert s.get_last_lr() == [s.rate(0.1, 1500), s.rate(0.3, 1500)]
    assert s.get_last_lr()[0] == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize("warmup_first", [True, False])
@pytest.mark.parametrize("other", ["constant", "step", "multi-step", "exponential", "cosine"])
def test_a_warm_up_beside_another_schedule_is_their_product(other, warmup_first):
    o = optimizer()
    makers = [lambda o: schedule.LinearLR(o, 0.1, total_iters=6), MAKERS[other]]
    chain = [make(o) for make in (makers if warmup_first else makers[::-1])]
    warmup, decay = chain if warmup_first else chain[::-1]
    for t in range(12):
        for group, base in zip(o.param_groups, (0.1, 0.3), strict=True):
            assert group["lr"] == pytest.approx(
                decay.rate(base, t) * min(0.1 + 0.9 * t / 6, 1), rel=1e-12
            ), t
        for s in chain:
            s.step()


def test_a_warm_up_and_then_another_schedule():
    o = optimizer()
    warmup, decay = schedule.LinearLR(o, 0.5, total_iters=4), schedule.StepLR(o, 2, 0.5)
    rates = []
    for t in range(9):
        rates.append(round(o.param_groups[0]["lr"], 6))
        (warmup if t < 4 else decay).step()
    assert rates == [0.05, 0.0625, 0.075, 0.0875, 0.1, 0.1, 0.05, 0.05, 0.025]


def test_a_warm_up_before_a_plateau():
    o = optimizer()
    warmup, plateau = (
        schedule.LinearLR(o, 0.5, total_iters=2),
        schedule.ReduceLROnPlateau(o, patience=0, factor=0.5),
    )
    rates = []
    for loss in (1.0, 1.0, 1.0, 0.5, 0.4):
        plateau.step(loss)
        warmup.step()
        rates.append(o.param_groups[0]["lr"])
    assert rates == pytest.approx([0.075, 0.05, 0.025, 0.025, 0.025])


def test_a_hand_at_the_rate_is_respected():
    o = optimizer()
    s = schedule.StepLR(o, 2, 0.5)
    o.param_groups[0]["lr"] = 8.0
    assert [rates[0] for rates in go(s, 0, 4)] == [8.0, 4.0, 4.0, 2.0]


def test_from_zero_up_again():
    o = optimizer()
    s = schedule.CosineAnnealingLR(o, 2)
    assert [round(r[0], 6) for r in go(s, 0, 4)] == [0.05, 0.0, 0.05, 0.1]
    go(s, 4, 6)
    o.param_groups[0]["lr"] = 0.7
    assert [round(r[0], 6) for r in go(s, 6, 8)] == [0.05, 0.1]


def test_the_last_step_of_a_cycle():
    o = optimizer()
    s = schedule.OneCycleLR(o, 1.0, 5)
    go(s, 0, 5)
    rates, betas = s.get_last_lr(), o.param_groups[0]["betas"]
    with pytest.raises(ValueError, match="OneCycleLR: the cycle has ended after its 5 steps"):
        s.step()
    assert s.get_last_lr() == rates == pytest.approx([1 / 25e4] * 2) and betas == (
        pytest.approx(0.95),
        0.999,
    )


def test_a_plateau_may_be_told_by_a_tensor():
    s = schedule.ReduceLROnPlateau(optimizer(), patience=0, factor=0.5)
    for _ in range(2):
        s.step(mg.ones(()))
    assert s.get_last_lr() == [0.05, 0.15]


# ---------------------------------------------------------------- states


@each_schedule
@pytest.mark.parametrize("order", ["optimizer first", "schedule first", "made after loading"])
def test_a_restored_schedule_goes_on_with_the_same_bits(make, order):
    whole, o = optimizer(), optimizer()
    expected = go(make(whole), 0, 18)[7:]
    half = make(o)
    go(half, 0, 7)
    states = json.loads(json.dumps(half.state_dict(), allow_nan=False)), o.state_dict()
    new = optimizer(0.1, 0.3)
    if order == "made after loading":
        new.load_state_dict(states[1])
        s = make(new)
        s.load_state_dict(states[0])
    else:
        s = make(new)
        parts = [(new, states[1]), (s, states[0])]
        for part, state in parts if order == "optimizer first" else parts[::-1]:
            part.load_state_dict(state)
    assert (
        s.state_dict() == half.state_dict()
        and new.param_groups[0]["betas"] == o.param_groups[0]["betas"]
    )
    assert (
        go(s, 7, 18) == expected and new.param_groups[0]["betas"] == whole.param_groups[0]["betas"]
    )


@each_schedule
def test_a_state_that_does_not_fit_changes_nothing(make):
    o = optimizer()
    s = make(o)
    go(s, 0, 3)
    before = s.state_dict()
    for spoil, message in [
        (lambda d: d.pop("steps"), "missing: steps"),
        (lambda d: d.update(other=1), "unexpected: other"),
        (lambda d: d.update(steps=-1), "steps cannot be -1"),
        (lambda d: d.update(steps=True), "steps cannot be True"),
        (lambda d: d.update(lrs=[0.1]), r"lrs cannot be \[0.1\]"),
        (lambda d: d.update(lrs=[0.1, math.nan]), r"lrs cannot be \[0.1, nan\]"),
        (lambda d: d.update(lrs=[0.1, -1.0]), "lrs cannot be"),
        (lambda d: d.update(lrs="ab"), "lrs cannot be 'ab'"),
        (lambda d: d.update(best="1") or d.update(base_lrs=3), "(best|base_lrs) cannot be"),
        (lambda d: (d.pop("lrs"), d.update(steps=None)), "missing: lrs; .*steps cannot be None"),
    ]:
        state = json.loads(json.dumps(before))
        spoil(state)
        with pytest.raises(
            ValueError,
            match=f"load_state_dict: {type(s).__name__} does not fit the state: .*{message}",
        ):
            s.load_state_dict(state)
        assert s.state_dict() == before
    with pytest.raises(TypeError, match="load_state_dict: state must be a dict, got list"):
        s.load_state_dict([])


# ---------------------------------------------------------------- bad input

NAN, INF = math.nan, math.inf
BAD = {
    "optimizer": (
        lambda o: schedule.StepLR(None, 3),
        TypeError,
        "StepLR: optimizer must be an optimiser .* got NoneType",
    ),
    "plateau optimizer": (
        lambda o: schedule.ReduceLROnPlateau(3),
        TypeError,
        "ReduceLROnPlateau: optimizer must be an optimiser",
    ),
    "cycle optimizer": (
        lambda o: schedule.OneCycleLR([], 1, 3),
        TypeError,
        "OneCycleLR: optimizer must be an optimiser",
    ),
    "step_size 0": (
        lambda o: schedule.StepLR(o, 0),
        ValueError,
        "StepLR: step_size must be at least 1, got 0",
    ),
    "step_size float": (
        lambda o: schedule.StepLR(o, 2.0),
        TypeError,
        "StepLR: step_size must be an int, got float",
    ),
    "gamma NaN": (
        lambda o: schedule.StepLR(o, 2, NAN),
        ValueError,
        "StepLR: gamma must be above 0 and finite, got nan",
    ),
    "gamma 0": (
        lambda o: schedule.ExponentialLR(o, 0),
        ValueError,
        "ExponentialLR: gamma must be above 0 and finite, got 0",
    ),
    "gamma str": (
        lambda o: schedule.ExponentialLR(o, "1"),
        TypeError,
        "ExponentialLR: gamma must be a number, got str",
    ),
    "milestones": (
        lambda o: schedule.MultiStepLR(o, 3),
        TypeError,
        "MultiStepLR: milestones must be a list of ints, got int",
    ),
    "milestone": (
        lambda o: schedule.MultiStepLR(o, [1, 2.5]),
        TypeError,
        r"MultiStepLR: milestones\[1\] must be an int, got float",
    ),
    "milestone -1": (
        lambda o: schedule.MultiStepLR(o, [-1]),
        ValueError,
        r"MultiStepLR: milestones\[0\] must be at least 0",
    ),
    "factor 0": (
        lambda o: schedule.ConstantLR(o, 0),
        ValueError,
        "ConstantLR: factor must be above 0 and at most 1, got 0",
    ),
    "factor 2": (
        lambda o: schedule.ConstantLR(o, 2),
        ValueError,
        "ConstantLR: factor must be above 0 and at most 1, got 2",
    ),
    "start 0": (
        lambda o: schedule.LinearLR(o, 0),
        ValueError,
        "LinearLR: start_factor must be above 0 and at most 1, got 0",
    ),
    "end -1": (
        lambda o: schedule.LinearLR(o, 1, -1),
        ValueError,
        "LinearLR: end_factor must be at least 0 and at most 1, got -1",
    ),
    "total 0": (
        lambda o: schedule.LinearLR(o, total_iters=0),
        ValueError,
        "LinearLR: total_iters must be at least 1, got 0",
    ),
    "T_max": (
        lambda o: schedule.CosineAnnealingLR(o, 0),
        ValueError,
        "CosineAnnealingLR: T_max must be at least 1, got 0",
    ),
    "eta_min": (
        lambda o: schedule.CosineAnnealingLR(o, 5, -1),
        ValueError,
        "CosineAnnealingLR: eta_min must be at least 0 .* got -1",
    ),
    "max_lr": (
        lambda o: schedule.OneCycleLR(o, -1, 5),
        ValueError,
        "OneCycleLR: max_lr must be at least 0 .* got -1",
    ),
    "max_lrs": (
        lambda o: schedule.OneCycleLR(o, [1], 5),
        ValueError,
        "max_lr must hold a number for each of the 2 groups, got 1",
    ),
    "max_lr NaN": (
        lambda o: schedule.OneCycleLR(o, [1, NAN], 5),
        ValueError,
        r"OneCycleLR: max_lr\[1\] must be at least 0 .* got nan",
    ),
    "total_steps": (
        lambda o: schedule.OneCycleLR(o, 1, 0),
        ValueError,
        "OneCycleLR: total_steps must be at least 1, got 0",
    ),
    "pct_start": (
        lambda o: schedule.OneCycleLR(o, 1, 5, pct_start=2),
        ValueError,
        "OneCycleLR: pct_start must be at least 0 and at most 1, got 2",
    ),
    "strategy": (
        lambda o: schedule.OneCycleLR(o, 1, 5, anneal_strategy="sin"),
        ValueError,
        "OneCycleLR: anneal_strategy must be 'cos' or 'linear', got 'sin'",
    ),
    "momentum": (
        lambda o: schedule.OneCycleLR(o, 1, 5, max_momentum=1),
        ValueError,
        "OneCycleLR: max_momentum must be at least 0 and below 1",
    ),
    "no momentum": (
        lambda o: schedule.OneCycleLR(mg.optim.Adagrad([mg.zeros(1)]), 1, 5),
        ValueError,
        "OneCycleLR: Adagrad has no momentum to cycle: give cycle_momentum=False",
    ),
    "mode": (
        lambda o: schedule.ReduceLROnPlateau(o, "low"),
        ValueError,
        "mode must be 'min' or 'max', got 'low'",
    ),
    "factor 1": (
        lambda o: schedule.ReduceLROnPlateau(o, factor=1),
        ValueError,
        "factor must be at least 0 and below 1, got 1",
    ),
    "patience": (
        lambda o: schedule.ReduceLROnPlateau(o, patience=-1),
        ValueError,
        "patience must be at least 0, got -1",
    ),
    "min_lr": (
        lambda o: schedule.ReduceLROnPlateau(o, min_lr=[0, 0, 0]),
        ValueError,
        "min_lr must hold a number for each",
    ),
    "metric NaN": (
        lambda o: schedule.ReduceLROnPlateau(o).step(NAN),
        ValueError,
        "metric must be finite, got nan",
    ),
    "metric inf": (
        lambda o: schedule.ReduceLROnPlateau(o).step(INF),
        ValueError,
        "metric must be finite, got inf",
    ),
    "metric None": (
        lambda o: schedule.ReduceLROnPlateau(o).step(None),
        TypeError,
        "metric must be a number, got NoneType",
    ),
    "metric vector": (
        lambda o: schedule.ReduceLROnPlateau(o).step(mg.ones(2)),
        TypeError,
        "metric must be a number, got Tensor",
    ),
    "no metric": (lambda o: schedule.ReduceLROnPlateau(o).step(), TypeError, "metric"),
    "typo": (lambda o: schedule.StepLR(o, 2, gama=3), TypeError, "gama"),
}


@pytest.mark.parametrize("call, error, message", BAD.values(), ids=BAD)
def test_bad_input(call, error, message):
    o = optimizer()
    before = o.state_dict()["param_groups"]
    with pytest.raises(error, match=message):
        call(o)
    assert o.state_dict()["param_groups"] == before


# ---------------------------------------------------------------- products, also through 0


class FromZero(schedule.Schedule):
    """A warm-up that begins at 0."""

    def rate(self, base, t):
        return base * min(t / 4, 1)


class OnAndOff(schedule.Schedule):
    def rate(self, base, t):
        return base * (1, 0.5, 0, 0, 2)[t % 5]


PARTS = MAKERS | {
    "from zero": FromZero,
    "on and off": OnAndOff,
    "cosine to 0": lambda o: schedule.CosineAnnealingLR(o, 3),
    "linear to 0": lambda o: schedule.LinearLR(o, 1.0, 0.0, 7),
}
FORMULAS = [name for name in PARTS if name not in ("plateau", "one cycle")]


@pytest.mark.parametrize("first", FORMULAS)
@pytest.mark.parametrize("second", FORMULAS)
def test_schedules_together_are_their_product(first, second):
    """base times rate / base of each, at every step, also after one or both were 0; resumed at
    every step to the bit."""
    o = optimizer()
    chain = [PARTS[name](o) for name in (first, second)]
    history, states = [], []
    for t in range(14):
        history.append([group["lr"] for group in o.param_groups])
        for lr, base in zip(history[-1], (0.1, 0.3), strict=True):
            expected = base * math.prod(s.rate(base, t) / base for s in chain)
            assert lr == pytest.approx(expected, rel=1e-11, abs=1e-18), t
        states.append(json.loads(json.dumps([s.state_dict() for s in chain])))
        for s in chain:
            s.step()
    for start in range(0, 14, 3):
        for reverse in (False, True):
            new = optimizer()
            resumed = [PARTS[name](new) for name in (first, second)]
            for s, state in list(zip(resumed, states[start], strict=True))[:: -1 if reverse else 1]:
                s.load_state_dict(state)
            for t in range(start, 14):
                assert [group["lr"] for group in new.param_groups] == history[t], (start, t)
                for s in resumed:
                    s.step()


def test_a_plateau_counts_while_another_schedule_is_at_0():
    o = optimizer()
    cosine, plateau = (
        schedule.CosineAnnealingLR(o, 2),
        schedule.ReduceLROnPlateau(o, patience=0, factor=0.5),
    )
    for loss in (1.0, 0.5):
        plateau.step(loss)
        cosine.step()
    assert o.param_groups[0]["lr"] == 0
    plateau.step(2.0)
    cosine.step()
    cosine.step()
    assert o.param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_rate_set_by_hand_counts_from_then_on():
    o = optimizer()
    cosine, decay = schedule.CosineAnnealingLR(o, 2), schedule.ExponentialLR(o, 0.5)
    for _ in range(2):
        cosine.step()
        decay.step()
    o.param_groups[0]["lr"] = 8.0
    decay.step()
    assert o.param_groups[0]["lr"] == 4.0 and o.param_groups[1]["lr"] == 0


def test_what_the_docstring_says_of_pytorchs_cosine():
    """Alone it has PyTorch's numbers; beside another it is a factor here, and PyTorch's adds
    eta_min."""
    torch = pytest.importorskip("torch")
    theirs, ours = torch.optim.SGD([torch.zeros(1)], 0.1), mg.optim.SGD([mg.zeros(1)], 0.1)
    chains = [
        [kit.ExponentialLR(o, 0.5), kit.CosineAnnealingLR(o, 4, eta_min=0.01)]
        for kit, o in ((torch.optim.lr_scheduler, theirs), (schedule, ours))
    ]
    theirs.step()
    for chain in chains:
        for s in chain:
            s.step()
    rate = 0.01 + 0.09 * (1 + math.cos(math.pi / 4)) / 2
    assert ours.param_groups[0]["lr"] == pytest.approx(0.5 * rate)
    assert theirs.param_groups[0]["lr"] != pytest.approx(0.5 * rate)


# ---------------------------------------------------------------- plateaus


@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize("mode, worse", [("min", 0.0), ("min", 0.5), ("max", 0.0), ("max", -0.5)])
@pytest.mark.parametrize("level", [-1000.0, -1.0, -1e-3, 0.0, 1e-3, 1.0])
def test_a_plateau_is_one_below_0_too(level, mode, worse, threshold_mode):
    """What never improves is bad at every step, whatever its sign, and the best stays."""
    o = optimizer()
    s = schedule.ReduceLROnPlateau(o, mode, patience=1, factor=0.5, threshold_mode=threshold_mode)
    s.step(level)
    for k in range(1, 9):
        s.step(level + worse * abs(level) * k)
        assert s.best == level and s.get_last_lr()[0] == pytest.approx(0.1 * 0.5 ** (k // 2))


@pytest.mark.parametrize("mode", ["min", "max"])
def test_negative_metrics_that_improve_are_seen(mode):
    o = optimizer()
    s = schedule.ReduceLROnPlateau(o, mode, patience=0, threshold=0.1)
    sign = -1 if mode == "min" else 1
    for metric, best in (
        (-10.0, -10.0),
        (-10.0 + sign * 0.9, -10.0),
        (-10.0 + sign * 1.1, -10.0 + sign * 1.1),
    ):
        s.step(metric)
        assert s.best == best


def test_a_metric_of_nan_changes_nothing():
    o = optimizer()
    s = schedule.ReduceLROnPlateau(o, patience=0)
    s.step(1.0)
    before = s.state_dict()
    for bad in (NAN, INF, -INF):
        with pytest.raises(ValueError, match="ReduceLROnPlateau: metric must be"):
            s.step(bad)
    assert s.state_dict() == before


def test_a_step_that_raises_changes_nothing():
    class Fails(schedule.Schedule):
        def rate(self, base, t):
            return base if t < 2 or base < 0.2 else 1 / 0

    o = optimizer()
    s = Fails(o)
    s.step()
    before = s.state_dict()
    with pytest.raises(ZeroDivisionError):
        s.step()
    assert s.state_dict() == before
    new = optimizer()
    with pytest.raises(NotImplementedError):
        schedule.Schedule(new)
    assert "initial_lr" not in new.param_groups[0]
