"""metrics.py: values against the formulas in NumPy, padding that never counts, bad input."""

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad.metrics import accuracy, bits, frame_nll, mase, nats_per_symbol, perplexity, rmse

RNG = np.random.default_rng(0)
T, B, C = 6, 4, 5
LENGTHS = np.array([6, 0, 3, 1])
LOGITS, TARGETS = RNG.standard_normal((T, B, C)), RNG.integers(0, C, (T, B))
ROLL = RNG.integers(0, 2, (T, B, C))
STEPS = [(t, b) for b in range(B) for t in range(LENGTHS[b])]


def test_accuracy():
    expected = np.mean([LOGITS[s].argmax() == TARGETS[s] for s in STEPS])
    assert (
        accuracy(LOGITS, TARGETS, LENGTHS)
        == expected
        != accuracy(LOGITS, TARGETS)
        == np.mean(LOGITS.argmax(-1) == TARGETS)
    )


def test_nats_per_symbol():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    each = {s: -math.log(p[s][TARGETS[s]]) for s in np.ndindex(T, B)}
    assert nats_per_symbol(LOGITS, TARGETS, LENGTHS) == pytest.approx(
        np.mean([each[s] for s in STEPS]), rel=1e-13
    )
    assert nats_per_symbol(LOGITS, TARGETS) == pytest.approx(
        np.mean(list(each.values())), rel=1e-13
    )
    assert nats_per_symbol(LOGITS.astype(np.float32), TARGETS) == pytest.approx(
        np.mean(list(each.values())), rel=1e-6
    )


def test_frame_nll():
    p = 1 / (1 + np.exp(-LOGITS))
    each = -(ROLL * np.log(p) + (1 - ROLL) * np.log(1 - p)).sum(-1)
    assert frame_nll(LOGITS, ROLL, LENGTHS) == pytest.approx(
        np.mean([each[s] for s in STEPS]), rel=1e-13
    )
    assert frame_nll(mg.Tensor(LOGITS), ROLL) == pytest.approx(each.mean(), rel=1e-13)
    assert frame_nll([[1000.0, -1000.0]], [[0, 1]]) == 2000


@pytest.mark.parametrize("metric", [accuracy, nats_per_symbol, frame_nll])
def test_what_is_behind_the_end_never_counts(metric):
    logits, targets = LOGITS.copy(), (ROLL if metric is frame_nll else TARGETS).copy()
    clean = metric(logits, targets, LENGTHS)
    outside = np.arange(T)[:, None] >= LENGTHS
    logits[outside], targets[outside] = np.nan, 99
    assert metric(logits, targets, LENGTHS) == clean
    if metric is not frame_nll:
        targets[outside] = -100  # as Batches pads them: then even without lengths
        assert metric(logits, targets) == clean


def test_a_mean_of_batches_weighted_by_steps_is_the_mean_of_all():
    halves = [(LOGITS[:, s], TARGETS[:, s]) for s in (slice(0, 2), slice(2, 4))]
    assert np.mean([nats_per_symbol(*half) for half in halves]) == pytest.approx(
        nats_per_symbol(LOGITS, TARGETS), rel=1e-13
    )


def test_outputs_of_a_network_that_is_being_trained():
    logits = mg.Tensor(LOGITS, requires_grad=True) * 2
    assert accuracy(logits, TARGETS, LENGTHS) == accuracy(LOGITS, TARGETS, LENGTHS)
    assert nats_per_symbol(logits, TARGETS) == nats_per_symbol(2 * LOGITS, TARGETS)
    assert perplexity(mg.Tensor(0.0)) == 1


def test_bits_and_perplexity():
    assert bits(math.log(8)) == pytest.approx(3, rel=1e-15) and perplexity(
        math.log(8)
    ) == pytest.approx(8, rel=1e-15)
    uniform = nats_per_symbol(np.zeros((3, 7)), np.arange(3))
    assert (
        perplexity(uniform) == pytest.approx(7, rel=1e-14)
        and perplexity(1e4) == math.inf
        and math.isnan(perplexity(math.nan))
    )


def test_rmse_and_mase():
    y, forecast, history = RNG.standard_normal((3, 12))
    assert rmse(y, forecast) == pytest.approx(math.sqrt(((y - forecast) ** 2).mean()), rel=1e-14)
    for season in (1, 4):
        scale = np.mean([abs(history[t] - history[t - season]) for t in range(season, 12)])
        assert mase(y, forecast, history, season) == pytest.approx(
            np.abs(y - forecast).mean() / scale, rel=1e-14
        )


def test_the_naive_forecast_of_a_random_walk_one_step_ahead_has_mase_1():
    walk = np.cumsum(RNG.standard_normal(20000))
    assert mase(walk[10001:], walk[10000:-1], walk[:10000]) == pytest.approx(1, abs=0.03)


BAD = {
    "target too large": (
        lambda: accuracy(LOGITS, TARGETS + 1),
        IndexError,
        r"accuracy: targets must be from 0 to 4, got 5 at",
    ),
    "target negative": (
        lambda: nats_per_symbol([[0.0, 0.0]], [-1]),
        IndexError,
        r"nats_per_symbol: targets must be from 0 to 1, got -1 at \(0,\)",
    ),
    "target within the length is -100": (
        lambda: accuracy([[[0.0, 1.0]]], [[-100]], [1]),
        IndexError,
        "got -100",
    ),
    "float targets": (
        lambda: accuracy(LOGITS, TARGETS * 1.0),
        TypeError,
        "accuracy: targets must be made of whole numbers",
    ),
    "int logits": (
        lambda: accuracy(TARGETS, TARGETS),
        TypeError,
        "accuracy: logits must be made of real numbers",
    ),
    "shapes": (
        lambda: accuracy(LOGITS, TARGETS[:3]),
        ValueError,
        r"targets must have the shape \(6, 4\) .* got \(3, 4\)",
    ),
    "nothing": (
        lambda: accuracy(np.ones((0, 3)), np.ones(0, int)),
        ValueError,
        "accuracy: there is no step to count",
    ),
    "lengths of 0": (
        lambda: nats_per_symbol(LOGITS, TARGETS, [0] * B),
        ValueError,
        "nats_per_symbol: there is no step to count",
    ),
    "frames of 0": (
        lambda: frame_nll(LOGITS, ROLL, [0] * B),
        ValueError,
        "frame_nll: there is no frame to count",
    ),
    "lengths too large": (
        lambda: accuracy(LOGITS, TARGETS, [1, 2, 7, 1]),
        ValueError,
        "accuracy: lengths must be from 0 to T = 6, got 7 at index 2",
    ),
    "lengths float": (
        lambda: accuracy(LOGITS, TARGETS, [1.0] * B),
        TypeError,
        "accuracy: lengths must be made of whole numbers",
    ),
    "lengths count": (
        lambda: accuracy(LOGITS, TARGETS, [1]),
        ValueError,
        r"lengths must have shape \(4,\) .* got \(1,\)",
    ),
    "lengths without time": (
        lambda: accuracy(LOGITS[0], TARGETS[0], [1]),
        ValueError,
        r"steps must be \(T, B\) .* got \(4,\)",
    ),
    "roll of loudness": (
        lambda: frame_nll(LOGITS, ROLL * 64),
        ValueError,
        "frame_nll: roll must be made of zeros and ones",
    ),
    "roll shape": (
        lambda: frame_nll(LOGITS, TARGETS),
        ValueError,
        r"roll must have the shape \(6, 4, 5\) of logits",
    ),
    "nats of a text": (
        lambda: perplexity("1"),
        TypeError,
        "perplexity: nats must be a number, got str",
    ),
    "nats of None": (lambda: bits(None), TypeError, "bits: nats must be a number, got NoneType"),
    "masked": (
        lambda: rmse(np.ma.masked_array([1.0], [1]), [1.0]),
        TypeError,
        "rmse: y must not be a masked array",
    ),
    "forecast shape": (
        lambda: rmse([1.0, 2.0], [1.0]),
        ValueError,
        r"rmse: forecast must have the shape \(2,\) of y",
    ),
    "forecast empty": (lambda: rmse([], []), ValueError, "rmse: y must hold at least one value"),
    "words": (
        lambda: rmse(["a"], ["b"]),
        TypeError,
        "rmse: y must be made of real numbers, got list of dtype <U1",
    ),
    "season 0": (
        lambda: mase([1.0], [1.0], [1.0, 2.0], 0),
        ValueError,
        "mase: season must be at least 1, got 0",
    ),
    "season float": (
        lambda: mase([1.0], [1.0], [1.0, 2.0], 1.0),
        TypeError,
        "mase: season must be an int, got float",
    ),
    "short history": (
        lambda: mase([1.0], [1.0], [1.0, 2.0], 2),
        ValueError,
        "mase: history must be longer than the season 2",
    ),
    "periodic history": (
        lambda: mase([1.0], [1.0], [1.0, 2.0, 1.0, 2.0], 2),
        ValueError,
        "mase: history must change",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error


def test_whole_numbers_beyond_float64_are_subtracted_as_they_are():
    big = np.array([1_700_000_000_000_000_000, 2**62, 7])
    assert mg.metrics.rmse(big + np.array([1, 2, 2]), big) == np.sqrt(3.0)
    assert mg.metrics.mase(big + 1, big, history=np.arange(5) + 2**62) == 1.0
    assert (
        mg.metrics.mase(
            [1.0], [2.0], history=np.array([2**64 - 1, 2**64 - 3, 2**64 - 5], np.uint64)
        )
        == 0.5
    )


def test_a_step_with_nan_among_its_logits_is_wrong():
    logits = np.array([[np.nan, 1.0], [0.0, np.nan], [0.0, 1.0]])
    assert mg.metrics.accuracy(logits, [0, 1, 1]) == 1 / 3


@pytest.mark.parametrize("function", [bits, perplexity])
def test_a_number_beyond_float64_is_a_value_error(function):
    with pytest.raises(ValueError, match="nats must be a number that float64 holds"):
        function(10**400)
