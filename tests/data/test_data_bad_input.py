"""What mg.data refuses: each bad argument with its message; a refused state changes nothing."""

import numpy as np
import pytest
from sequences import numbered

import minigrad as mg
from minigrad.data.batches import Batches, pad
from minigrad.data.scaler import Scaler
from minigrad.data.series import windows
from minigrad.data.streams import Stream


def batches(*a, **k):
    return lambda: Batches(*a, **{"batch_size": 2} | k)


def loads(**changes):
    made = numbered(shuffle=True)
    return lambda: made.load_state_dict(made.state_dict() | changes)


BAD = {
    "no sequences": (
        lambda: pad([]),
        ValueError,
        "pad: sequences must hold at least one sequence, got none",
    ),
    "number": (lambda: pad(3), TypeError, "pad: sequences must be a list of arrays, got int"),
    "text": (lambda: pad("abc"), TypeError, "pad: sequences must be a list of arrays, got str"),
    "number among sequences": (
        lambda: pad([[1], 2]),
        ValueError,
        r"pad: sequences\[1\] must have shape \(length,\) as sequences\[0\] has, got \(\)",
    ),
    "other features": (
        lambda: pad([np.ones((2, 3)), np.ones((2, 4))]),
        ValueError,
        r"pad: sequences\[1\] must have shape \(length, 3\) as sequences\[0\] has, got \(2, 4\)",
    ),
    "other dtype": (
        lambda: pad([np.ones(2), np.ones(2, np.float32)]),
        TypeError,
        r"pad: sequences\[1\] must have dtype float64 as sequences\[0\] has, got float32",
    ),
    "words": (
        lambda: pad([["a"]]),
        TypeError,
        r"pad: sequences\[0\] must be made of real numbers, got list of dtype <U1",
    ),
    "None": (
        lambda: pad([None]),
        TypeError,
        r"pad: sequences\[0\] must be made of real numbers, got NoneType of dtype object",
    ),
    "complex": (
        lambda: pad([[1j]]),
        TypeError,
        r"pad: sequences\[0\] must be made of real numbers, got list of dtype complex",
    ),
    "masked": (
        lambda: pad([np.ma.masked_array([1.0], [1])]),
        TypeError,
        r"pad: sequences\[0\] must not be a masked array",
    ),
    "ragged": (
        lambda: pad([[[1, 2], [3]]]),
        ValueError,
        r"pad: sequences\[0\] must be an array, got nested lists",
    ),
    "batch size 0": (
        batches([[1]], batch_size=0),
        ValueError,
        "Batches: batch_size must be at least 1, got 0",
    ),
    "batch size float": (
        batches([[1]], batch_size=2.0),
        TypeError,
        "Batches: batch_size must be an int, got float",
    ),
    "batch size left out": (lambda: Batches([[1]]), TypeError, "batch_size"),
    "shuffle": (batches([[1]], shuffle=1), TypeError, "Batches: shuffle must be a bool, got int"),
    "bucket": (batches([[1]], bucket="yes"), TypeError, "Batches: bucket must be a bool, got str"),
    "generator": (
        batches([[1]], generator=np.random.default_rng()),
        TypeError,
        "Batches: generator must be a minigrad",
    ),
    "no data": (
        batches([]),
        ValueError,
        "Batches: sequences must hold at least one sequence, got none",
    ),
    "too few targets": (
        batches([[1], [2]], [0]),
        ValueError,
        r"Batches: targets\[0\] must have one entry for each of the 2 sequences, got 1",
    ),
    "too many targets": (
        batches([[1]], [0], [0, 1]),
        ValueError,
        r"Batches: targets\[1\] must have one entry .* got 2",
    ),
    "targets of another length": (
        batches([[1, 2], [3]], [[0, 1], [0, 1]]),
        ValueError,
        r"targets\[0\]\[1\] must have one entry for each of the 1 steps of sequences\[1\], got 2",
    ),
    "target no list": (
        batches([[1]], 0),
        TypeError,
        r"Batches: targets\[0\] must be a list or an array, got int",
    ),
    "target words": (
        batches([[1]], ["a"]),
        TypeError,
        r"Batches: targets\[0\] must be made of real numbers",
    ),
    "target dict": (
        batches([[1]], {0: 1}),
        TypeError,
        r"Batches: targets\[0\] must be a list or an array, got dict",
    ),
    "set": (
        lambda: pad({(1, 2), (3,)}),
        TypeError,
        "pad: sequences must be a list of arrays, got set",
    ),
    "masked in a list": (
        lambda: windows([np.ma.masked_array([1.0], [1])] * 3, 1),
        TypeError,
        r"series\[0\] must not be a masked",
    ),
    "masked sequences": (
        lambda: pad(np.ma.masked_array([[1.0], [2.0]], [[1], [0]])),
        TypeError,
        "must not be a masked array",
    ),
    "masked targets": (
        batches([[1], [2]], np.ma.masked_array([1.0, 2.0], [1, 0])),
        TypeError,
        "must not be a masked array",
    ),
    "a Tensor with a gradient": (
        lambda: pad([mg.ones(2, requires_grad=True)]),
        TypeError,
        "must be made of constants, got a Tensor",
    ),
    "beyond float32": (
        lambda: pad([[1.0, -1e39, np.inf]]),
        ValueError,
        r"sequences\[0\] must be made of numbers that fit into float32, got 1e\+39",
    ),
    "beyond int64": (
        lambda: pad([[2**63]]),
        ValueError,
        r"sequences\[0\] must be made of numbers that fit into int64, got 9223",
    ),
    "classes beyond int64": (
        batches([[1], [2, 3]], [np.array([2**63], np.uint64), np.array([1, 2], np.uint64)]),
        ValueError,
        r"targets\[0\] must be made of numbers that fit into int64",
    ),
    "target set": (
        batches([[1]], {0}),
        TypeError,
        r"Batches: targets\[0\] must be a list or an array, got set",
    ),
    "per_step": (
        batches([[1]], [0], per_step=1),
        TypeError,
        "Batches: per_step must be a bool, got int",
    ),
    "per_step of fewer": (
        batches([[1]], [0], per_step=[]),
        ValueError,
        "per_step must hold a bool for each of the 1 targets, got 0",
    ),
    "vectors of other lengths": (
        batches([[1], [2]], [[1.0], [1.0, 2.0]], per_step=False),
        ValueError,
        r"targets\[0\]\[1\] must have shape \(1,\) and dtype float32 as .* got \(2,\)",
    ),
    "state no dict": (
        lambda: numbered().load_state_dict([]),
        TypeError,
        "Batches: state must be a dict, got list",
    ),
    "state keys": (
        lambda: numbered().load_state_dict({"position": 0}),
        ValueError,
        "Batches: state must have the keys pos",
    ),
    "state of other data": (
        loads(batches=7),
        ValueError,
        "Batches: state is of 7 batches an epoch, here are 6",
    ),
    "state position": (
        loads(position=7),
        ValueError,
        "Batches: position must be at most 6, got 7",
    ),
    "state position negative": (
        loads(position=-1),
        ValueError,
        "Batches: position must be at least 0, got -1",
    ),
    "state position float": (
        loads(position=1.0),
        TypeError,
        "Batches: position must be an int, got float",
    ),
    "state without shuffle": (
        loads(generator=None),
        ValueError,
        "Batches: state is of a run without shuffle",
    ),
    "state without an order": (
        loads(position=2),
        ValueError,
        "Batches: state is 2 batches into an epoch whose order",
    ),
    "state of a bad generator": (
        loads(generator={"seed": -1, "draws": 0}),
        ValueError,
        "Generator: seed must be at least 0",
    ),
    "state of a bad epoch": (loads(epoch=[1]), TypeError, "Generator: state must be a dict"),
    "stream too short": (
        lambda: Stream([1, 2, 3], 2, 1),
        ValueError,
        r"Stream: tokens must be at least 4 = batch_size \* \(length \+ 1\), got 3",
    ),
    "stream empty": (
        lambda: Stream([], 1, 1),
        ValueError,
        "Stream: tokens must be at least 2 .* got 0",
    ),
    "stream number": (
        lambda: Stream(3, 1, 1),
        ValueError,
        r"Stream: tokens must have shape \(N, ...\), got \(\)",
    ),
    "stream length": (
        lambda: Stream([1, 2], 1, 0),
        ValueError,
        "Stream: length must be at least 1, got 0",
    ),
    "stream text": (
        lambda: Stream("abc", 1, 1),
        TypeError,
        "Stream: tokens must be made of real numbers, got str",
    ),
    "stream state": (
        lambda: Stream([1, 2], 1, 1).load_state_dict({"position": 9, "batches": 1}),
        ValueError,
        "Stream: position must be at most 1, got 9",
    ),
    "windows too short": (
        lambda: windows([1, 2, 3], 3),
        ValueError,
        r"windows: series must have at least 4 = length \+ horizon values, got 3 values",
    ),
    "windows of a number": (
        lambda: windows(1.0, 1),
        ValueError,
        "windows: series must have at least 2 .* got a single number",
    ),
    "windows step": (
        lambda: windows([1, 2, 3], 1, step=0),
        ValueError,
        "windows: step must be at least 1, got 0",
    ),
    "windows horizon": (
        lambda: windows([1, 2, 3], 1, True),
        TypeError,
        "windows: horizon must be an int, got bool",
    ),
    "scaler empty": (
        lambda: Scaler().fit(np.ones((0, 2))),
        ValueError,
        r"Scaler: x must hold at least one value .* \(0, 2\)",
    ),
    "scaler NaN": (
        lambda: Scaler().fit([[1.0, 2.0], [3.0, np.nan]]),
        ValueError,
        r"x must be finite, got nan at \[1, 1\]",
    ),
    "scaler too large": (
        lambda: Scaler().fit(np.array([1e300, -1e300])),
        ValueError,
        "Scaler: x must have columns whose",
    ),
    "scaler not fitted": (
        lambda: Scaler().transform([1.0]),
        RuntimeError,
        "Scaler: call fit first",
    ),
    "scaler other columns": (
        lambda: Scaler().fit(np.ones((2, 3))).transform(np.ones((2, 2))),
        ValueError,
        r"Scaler: x must have the 3 columns that were fitted, got shape \(2, 2\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error


def test_a_refused_state_changes_nothing():
    mg.manual_seed(4)
    made = numbered(shuffle=True)
    next(iter(made))
    before, drawn = made.state_dict(), mg.default_generator.state
    for change in (
        {"position": 99},
        {"generator": {"seed": "x", "draws": 0}},
        {"epoch": {"seed": 0}},
    ):
        with pytest.raises((TypeError, ValueError)):
            made.load_state_dict(before | change)
    assert made.state_dict() == before and mg.default_generator.state == drawn
