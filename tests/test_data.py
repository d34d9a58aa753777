"""data.py: padding, batches and their order, streams, windows, the scaler; a place that is saved and gone on from; bad input."""
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import minigrad as mg
from minigrad.data import Batches, Scaler, Stream, pad, windows


def ragged(lengths, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, *shape)).astype(np.float32) for n in lengths]


# ---------------------------------------------------------------- pad

def test_pad_is_time_major_with_zeros_behind_the_end():
    sequences = ragged([3, 0, 5, 1], 2)
    x, lengths = pad(sequences)
    assert x.shape == (5, 4, 2) and x.dtype == np.float32 and lengths.tolist() == [3, 0, 5, 1]
    for b, s in enumerate(sequences):
        assert (x[:len(s), b] == s).all() and not x[len(s):, b].any()


@pytest.mark.parametrize(("sequences", "dtype"), [
    ([[1, 2], [3]], np.int64), ([[1.5], []], np.float32), ([[True], [False, True]], np.bool_),
    ([np.ones(2), np.ones(3)], np.float64), (np.ones((2, 3), np.int8), np.int8),
])
def test_pad_keeps_dtypes(sequences, dtype):
    assert pad(sequences)[0].dtype == dtype


def test_an_empty_list_takes_the_shape_of_the_others():
    x, lengths = pad([[], np.ones((2, 3), np.float32), []])
    assert x.shape == (2, 3, 3) and lengths.tolist() == [0, 2, 0]
    assert pad([[], []])[0].shape == (0, 2)


def test_a_padded_batch_gives_what_each_sequence_gives_alone():
    mg.manual_seed(0)
    layer, sequences = mg.nn.LSTM(2, 3, bidirectional=True), ragged([3, 0, 5], 2)
    x, lengths = pad(sequences)
    out, _ = layer(x, lengths=lengths)
    for b, s in enumerate(sequences):
        alone, _ = layer(s[:, None])
        assert (out.numpy()[:len(s), b] == alone.numpy()[:, 0]).all()


# ---------------------------------------------------------------- Batches

N = 23
SEQUENCES = ragged([(7 * k) % 11 + 1 for k in range(N)])


def order(batches):
    return [chosen.tolist() for *_, chosen in batches]


def numbered(**options):
    return Batches(SEQUENCES, np.arange(N), **{"batch_size": 4} | options)


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"bucket": True}, {"shuffle": True, "bucket": True}])
def test_an_epoch_has_each_sequence_once_with_its_own_targets(options):
    steps = [np.arange(len(s)) % 3 for s in SEQUENCES]
    rolls = [np.ones((len(s), 2), np.float32) for s in SEQUENCES]
    batches = Batches(SEQUENCES, np.arange(N), steps, rolls, batch_size=4, **options)
    seen = []
    for x, lengths, chosen, y, roll in batches:
        assert x.shape == y.shape == roll.shape[:2] == (max(lengths), len(chosen)) and y.dtype == np.int64
        for b, n in enumerate(chosen):
            L = lengths[b]
            assert L == len(SEQUENCES[n]) and (x[:L, b] == SEQUENCES[n]).all() and not x[L:, b].any()
            assert (y[:L, b] == steps[n]).all() and (y[L:, b] == -100).all()
            assert (roll[:L, b] == 1).all() and not roll[L:, b].any()
        seen += chosen.tolist()
    assert sorted(seen) == list(range(N)) and len(batches) == 6
    if not options:
        assert seen == list(range(N))


def test_padded_classes_are_what_cross_entropy_leaves_out():
    (x, lengths, y), = Batches([[1, 2, 3], [4]], [[0, 1, 1], [1]], batch_size=2)
    logits = mg.Tensor(np.random.default_rng(0).standard_normal((3, 2, 2)))
    alone = [mg.cross_entropy(logits[t, b].unsqueeze(0), [c]).item() for t, b, c in ((0, 0, 0), (1, 0, 1), (2, 0, 1), (0, 1, 1))]
    assert mg.cross_entropy(logits, y).item() == pytest.approx(np.mean(alone), rel=1e-12)


def test_manual_seed_alone_repeats_the_order_and_epochs_differ():
    def three(seed):
        mg.manual_seed(seed)
        batches = numbered(shuffle=True)
        return [order(batches) for _ in range(3)]
    first = three(5)
    assert first == three(5) != three(6) and first[0] != first[1] != first[2]
    mg.manual_seed(0)
    own = numbered(shuffle=True, generator=mg.Generator(5))
    assert [order(own) for _ in range(3)] == first and mg.default_generator.state["draws"] == 0


def test_all_orders_are_about_equally_frequent():
    generator, counts = mg.Generator(1), {}
    batches = Batches([[0]] * 3, np.arange(3), batch_size=3, shuffle=True, generator=generator)
    for _ in range(6000):
        (_, _, chosen), = batches
        counts[tuple(chosen.tolist())] = counts.get(tuple(chosen.tolist()), 0) + 1
    assert len(counts) == 6 and max(abs(n - 1000) for n in counts.values()) < 150      # five standard deviations


def test_without_shuffle_nothing_is_drawn():
    mg.manual_seed(3)
    assert order(numbered()) == order(numbered()) and mg.default_generator.state == {"seed": 3, "draws": 0}


def padding(batches):
    return sum(x.size - lengths.sum() for x, lengths, *_ in batches)


def test_buckets_leave_less_padding_and_are_mixed():
    many = ragged(np.random.default_rng(0).integers(1, 200, 3000))
    plain, bucketed = (Batches(many, np.arange(3000), batch_size=8, shuffle=True, bucket=b, generator=mg.Generator(1))
                       for b in (False, True))
    assert padding(bucketed) < 0.1 * padding(plain)
    longest = [int(lengths.max()) for _, lengths, _ in bucketed]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2           # long and short batches in no order
    first, second = order(bucketed), order(bucketed)
    assert {frozenset(b) for b in first} != {frozenset(b) for b in second}          # nor are the batches always the same
    ordered = Batches(many, batch_size=8, bucket=True)
    assert padding(ordered) < padding(bucketed) and np.diff(np.concatenate([n for _, n in ordered])).min() == 0


def test_breaking_off_an_epoch_starts_the_next_one():
    batches = numbered(shuffle=True, generator=mg.Generator(0))
    for _ in batches:
        break
    assert sum(map(len, order(batches))) == N


@pytest.mark.parametrize("options", [{"shuffle": True}, {"shuffle": True, "bucket": True}, {"bucket": True}])
@pytest.mark.parametrize("stop", [0, 1, 3, 6, 8])
def test_a_resumed_run_sees_the_same_batches(options, stop):
    """Stopped after `stop` batches (an epoch has 6), saved as JSON in the loop's body, resumed with other objects; between the
    batches dropout draws from the same generator."""
    def run(batches, state=None, stop=None):
        seen, epochs = [], 0
        if state is not None:
            batches.load_state_dict(json.loads(state))
        while len(seen) < 20:
            for *_, chosen in batches:
                seen.append((chosen.tolist(), mg.dropout_mask(8, 0.5).tolist()))
                if len(seen) == stop:
                    return seen, json.dumps(batches.state_dict())
            epochs += 1
            assert epochs < 9
        return seen, None
    mg.manual_seed(2)
    whole, _ = run(numbered(**options))
    mg.manual_seed(2)
    if stop:
        head, state = run(numbered(**options), stop=stop)
    else:
        head, state = [], json.dumps(numbered(**options).state_dict())
    drawn = mg.default_generator.state
    mg.manual_seed(999)
    if "shuffle" not in options:        # otherwise the state brings the generator's along
        mg.default_generator.state = drawn
    tail, _ = run(numbered(**options), state)
    assert (head + tail)[:20] == whole[:20]


def test_a_loaded_state_is_saved_again_unchanged():
    batches = numbered(shuffle=True)
    next(iter(batches))
    state, other = batches.state_dict(), numbered(shuffle=True)
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_the_order_is_the_same_in_another_process():
    code = """
        import numpy as np, minigrad as mg
        mg.manual_seed(11)
        print([c.tolist() for *_, c in mg.data.Batches([[0]] * 9, np.arange(9), batch_size=4, shuffle=True)])
    """
    runs = {subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True).stdout
            for _ in range(2)}
    assert runs == {"[[8, 5, 0, 7], [4, 3, 2, 6], [1]]\n"}      # recorded: an order is part of a run's bits


# ---------------------------------------------------------------- Stream

@pytest.mark.parametrize(("count", "batch", "length"), [(100, 3, 7), (10, 1, 9), (24, 4, 5), (1000, 7, 13)])
def test_stream_windows_are_exact(count, batch, length):
    stream = Stream(np.arange(count), batch, length)
    pairs, piece = list(stream), count // batch
    assert len(pairs) == len(stream) == (piece - 1) // length >= 1
    x, y = np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])
    assert all(a.shape == b.shape == (length, batch) for a, b in pairs)
    assert (y == x + 1).all() and (np.diff(x, axis=0) == 1).all() and x[0].tolist() == [b * piece for b in range(batch)]
    assert count - x.size - batch < batch + length * batch      # what is left out
    assert [x.tolist() for x, _ in stream] == [x.tolist() for x, _ in pairs]        # starts anew


def test_stream_goes_on_where_it_was_saved():
    whole = [x.tolist() for x, _ in Stream(np.arange(100), 2, 7)]
    stream, seen = Stream(np.arange(100), 2, 7), []
    for x, _ in stream:
        seen.append(x.tolist())
        if len(seen) == 3:
            break
    other = Stream(np.arange(100), 2, 7)
    other.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert seen + [x.tolist() for x, _ in other] == whole
    assert [x.tolist() for x, _ in other] == whole and [x.tolist() for x, _ in stream] == whole


def test_stream_does_not_follow_changes_and_takes_features():
    tokens = np.arange(20.0).reshape(10, 2)
    stream = Stream(tokens, 1, 3)
    tokens[:] = -1
    x, y = next(iter(stream))
    assert x.shape == (3, 1, 2) and x[0, 0].tolist() == [0.0, 1.0] and y[0, 0].tolist() == [2.0, 3.0]
    with pytest.raises(ValueError):
        x[:] = 0


# ---------------------------------------------------------------- windows, Scaler

@pytest.mark.parametrize(("length", "horizon", "step"), [(1, 1, 1), (4, 3, 1), (4, 3, 5), (17, 3, 1)])
@pytest.mark.parametrize("shape", [(20,), (20, 2)])
def test_windows(length, horizon, step, shape):
    series = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    x, y = windows(series, length, horizon, step)
    starts = range(0, 20 - length - horizon + 1, step)
    assert x.shape == (length, len(starts), *shape[1:]) and y.shape == (horizon, len(starts), *shape[1:])
    for n, start in enumerate(starts):
        assert (x[:, n] == series[start:start + length]).all()
        assert (y[:, n] == series[start + length:start + length + horizon]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(50,), (50, 3), (5, 10, 3)])
def test_scaler(dtype, shape):
    x = (np.random.default_rng(0).standard_normal(shape) * 7 + 100).astype(dtype)
    scaler = Scaler().fit(x)
    z = scaler.transform(x)
    axes, eps = tuple(range(x.ndim - 1)) or (0,), np.finfo(dtype).eps
    assert z.dtype == dtype and np.abs(z.mean(axes)).max() < 100 * eps and np.abs(z.std(axes) - 1).max() < 100 * eps
    assert np.abs(scaler.inverse(z) - x).max() < 200 * eps


def test_scaler_leaves_constant_columns_finite():
    x = np.array([[0.1, 1.0, -5e300], [0.1, 2.0, -5e300], [0.1, 3.0, -5e300]])
    scaler = Scaler().fit(x)
    z = scaler.transform(x)
    assert (z[:, [0, 2]] == 0).all() and (scaler.inverse(z) == x).all()
    assert scaler.transform(np.array([[0.6, 2.0, 0.0]]))[0, 0] == 0.5       # a new value in that column is still seen


def test_scaler_of_whole_numbers_and_lists_is_float32():
    assert Scaler().fit([1, 2, 3]).transform([1, 2]).dtype == Scaler().fit([1.0, 2.0]).transform([1.0]).dtype == np.float32


# ---------------------------------------------------------------- bad input

def batches(*a, **k):
    return lambda: Batches(*a, **{"batch_size": 2} | k)


def loads(**changes):
    made = numbered(shuffle=True)
    return lambda: made.load_state_dict(made.state_dict() | changes)


BAD = {
    "no sequences": (lambda: pad([]), ValueError, "pad: sequences must hold at least one sequence, got none"),
    "number": (lambda: pad(3), TypeError, "pad: sequences must be a list of arrays, got int"),
    "text": (lambda: pad("abc"), TypeError, "pad: sequences must be a list of arrays, got str"),
    "number among sequences": (lambda: pad([[1], 2]), ValueError,
                               r"pad: sequences\[1\] must have shape \(length,\) as sequences\[0\] has, got \(\)"),
    "other features": (lambda: pad([np.ones((2, 3)), np.ones((2, 4))]), ValueError,
                       r"pad: sequences\[1\] must have shape \(length, 3\) as sequences\[0\] has, got \(2, 4\)"),
    "other dtype": (lambda: pad([np.ones(2), np.ones(2, np.float32)]), TypeError,
                    r"pad: sequences\[1\] must have dtype float64 as sequences\[0\] has, got float32"),
    "words": (lambda: pad([["a"]]), TypeError, r"pad: sequences\[0\] must be made of real numbers, got list of dtype <U1"),
    "None": (lambda: pad([None]), TypeError, r"pad: sequences\[0\] must be made of real numbers, got NoneType of dtype object"),
    "complex": (lambda: pad([[1j]]), TypeError, r"pad: sequences\[0\] must be made of real numbers, got list of dtype complex"),
    "masked": (lambda: pad([np.ma.masked_array([1.0], [1])]), TypeError, r"pad: sequences\[0\] must not be a masked array"),
    "ragged": (lambda: pad([[[1, 2], [3]]]), ValueError, r"pad: sequences\[0\] must be an array, got nested lists"),

    "batch size 0": (batches([[1]], batch_size=0), ValueError, "Batches: batch_size must be greater than zero, got 0"),
    "batch size float": (batches([[1]], batch_size=2.0), TypeError, "Batches: batch_size must be an int, got float"),
    "batch size left out": (lambda: Batches([[1]]), TypeError, "batch_size"),
    "shuffle": (batches([[1]], shuffle=1), TypeError, "Batches: shuffle must be a bool, got int"),
    "bucket": (batches([[1]], bucket="yes"), TypeError, "Batches: bucket must be a bool, got str"),
    "generator": (batches([[1]], generator=np.random.default_rng()), TypeError, "Batches: generator must be a minigrad"),
    "no data": (batches([]), ValueError, "Batches: sequences must hold at least one sequence, got none"),
    "too few targets": (batches([[1], [2]], [0]), ValueError,
                        r"Batches: targets\[0\] must have one entry for each of the 2 sequences, got 1"),
    "too many targets": (batches([[1]], [0], [0, 1]), ValueError, r"Batches: targets\[1\] must have one entry .* got 2"),
    "targets of another length": (batches([[1, 2], [3]], [[0, 1], [0, 1]]), ValueError,
                                  r"targets\[0\]\[1\] must have one entry for each of the 1 steps of sequences\[1\], got 2"),
    "target no list": (batches([[1]], 0), TypeError, r"Batches: targets\[0\] must be a list or an array, got int"),
    "target words": (batches([[1]], ["a"]), TypeError, r"Batches: targets\[0\] must be made of real numbers"),
    "target dict": (batches([[1]], {0: 1}), TypeError, r"Batches: targets\[0\] must be a list or an array, got dict"),

    "state no dict": (lambda: numbered().load_state_dict([]), TypeError, "Batches: state must be a dict, got list"),
    "state keys": (lambda: numbered().load_state_dict({"position": 0}), ValueError, "Batches: state must have the keys pos"),
    "state of other data": (loads(batches=7), ValueError, "Batches: state is of 7 batches an epoch, here are 6"),
    "state position": (loads(position=7), ValueError, "Batches: position must be from 0 to 6, got 7"),
    "state position negative": (loads(position=-1), ValueError, "Batches: position must be from 0 to 6, got -1"),
    "state position float": (loads(position=1.0), TypeError, "Batches: position must be an int, got float"),
    "state without shuffle": (loads(generator=None), ValueError, "Batches: state is of a run without shuffle"),
    "state without an order": (loads(position=2), ValueError, "Batches: state is 2 batches into an epoch whose order"),
    "state of a bad generator": (loads(generator={"seed": -1, "draws": 0}), ValueError, "Generator: seed must be from 0"),
    "state of a bad epoch": (loads(epoch=[1]), TypeError, "Generator: state must be a dict"),

    "stream too short": (lambda: Stream([1, 2, 3], 2, 1), ValueError,
                         r"Stream: tokens must be at least 4 = batch_size \* \(length \+ 1\), got 3"),
    "stream empty": (lambda: Stream([], 1, 1), ValueError, "Stream: tokens must be at least 2 .* got 0"),
    "stream number": (lambda: Stream(3, 1, 1), ValueError, r"Stream: tokens must have shape \(N, ...\), got \(\)"),
    "stream length": (lambda: Stream([1, 2], 1, 0), ValueError, "Stream: length must be greater than zero, got 0"),
    "stream text": (lambda: Stream("abc", 1, 1), TypeError, "Stream: tokens must be made of real numbers, got str"),
    "stream state": (lambda: Stream([1, 2], 1, 1).load_state_dict({"position": 9, "batches": 1}), ValueError,
                     "Stream: position must be from 0 to 1, got 9"),

    "windows too short": (lambda: windows([1, 2, 3], 3), ValueError,
                          r"windows: series must have at least 4 = length \+ horizon values, got 3 values"),
    "windows of a number": (lambda: windows(1.0, 1), ValueError, "windows: series must have at least 2 .* got a single number"),
    "windows step": (lambda: windows([1, 2, 3], 1, step=0), ValueError, "windows: step must be greater than zero, got 0"),
    "windows horizon": (lambda: windows([1, 2, 3], 1, True), TypeError, "windows: horizon must be an int, got bool"),

    "scaler empty": (lambda: Scaler().fit(np.ones((0, 2))), ValueError, r"Scaler: x must hold at least one value .* \(0, 2\)"),
    "scaler NaN": (lambda: Scaler().fit([[1.0, 2.0], [3.0, np.nan]]), ValueError, r"x must be finite, got nan at \[1, 1\]"),
    "scaler too large": (lambda: Scaler().fit(np.array([1e300, -1e300])), ValueError, "Scaler: x must have columns whose"),
    "scaler not fitted": (lambda: Scaler().transform([1.0]), RuntimeError, "Scaler: call fit first"),
    "scaler other columns": (lambda: Scaler().fit(np.ones((2, 3))).transform(np.ones((2, 2))), ValueError,
                             r"Scaler: x must have the 3 columns that were fitted, got shape \(2, 2\)"),
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
    for change in ({"position": 99}, {"generator": {"seed": "x", "draws": 0}}, {"epoch": {"seed": 0}}):
        with pytest.raises((TypeError, ValueError)):
            made.load_state_dict(before | change)
    assert made.state_dict() == before and mg.default_generator.state == drawn
