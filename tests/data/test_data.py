"""data.py: padding, batches and their order, streams, windows, the scaler; a place that is saved
and gone on from; bad input."""

import copy
import json
import math
import pickle
import subprocess
import sys
import textwrap
from fractions import Fraction

import numpy as np
import pytest

import minigrad as mg
from minigrad.data.batches import Batches, pad
from minigrad.data.scaler import Scaler
from minigrad.data.series import windows
from minigrad.data.streams import Stream


def ragged(lengths, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, *shape)).astype(np.float32) for n in lengths]


# ---------------------------------------------------------------- pad


def test_pad_is_time_major_with_zeros_behind_the_end():
    sequences = ragged([3, 0, 5, 1], 2)
    x, lengths = pad(sequences)
    assert x.shape == (5, 4, 2) and x.dtype == np.float32 and lengths.tolist() == [3, 0, 5, 1]
    for b, s in enumerate(sequences):
        assert (x[: len(s), b] == s).all() and not x[len(s) :, b].any()


@pytest.mark.parametrize(
    ("sequences", "dtype"),
    [
        ([[1, 2], [3]], np.int64),
        ([[1.5], []], np.float32),
        ([[True], [False, True]], np.bool_),
        ([np.ones(2), np.ones(3)], np.float64),
        (np.ones((2, 3), np.int8), np.int8),
    ],
)
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
        assert (out.numpy()[: len(s), b] == alone.numpy()[:, 0]).all()


# ---------------------------------------------------------------- Batches

N = 23
SEQUENCES = ragged([(7 * k) % 11 + 1 for k in range(N)])


def order(batches):
    return [chosen.tolist() for *_, chosen in batches]


def numbered(**options):
    return Batches(SEQUENCES, np.arange(N), **{"batch_size": 4} | options)


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": True}, {"bucket": True}, {"shuffle": True, "bucket": True}]
)
def test_an_epoch_has_each_sequence_once_with_its_own_targets(options):
    steps = [np.arange(len(s)) % 3 for s in SEQUENCES]
    rolls = [np.ones((len(s), 2), np.float32) for s in SEQUENCES]
    batches = Batches(SEQUENCES, np.arange(N), steps, rolls, batch_size=4, **options)
    seen = []
    for x, lengths, chosen, y, roll in batches:
        assert (
            x.shape == y.shape == roll.shape[:2] == (max(lengths), len(chosen))
            and y.dtype == np.int64
        )
        for b, n in enumerate(chosen):
            L = lengths[b]
            assert (
                L == len(SEQUENCES[n]) and (x[:L, b] == SEQUENCES[n]).all() and not x[L:, b].any()
            )
            assert (y[:L, b] == steps[n]).all() and (y[L:, b] == -100).all()
            assert (roll[:L, b] == 1).all() and not roll[L:, b].any()
        seen += chosen.tolist()
    assert sorted(seen) == list(range(N)) and len(batches) == 6
    if not options:
        assert seen == list(range(N))


def test_padded_classes_are_what_cross_entropy_leaves_out():
    ((x, lengths, y),) = Batches([[1, 2, 3], [4]], [[0, 1, 1], [1]], batch_size=2)
    logits = mg.Tensor(np.random.default_rng(0).standard_normal((3, 2, 2)))
    alone = [
        mg.cross_entropy(logits[t, b].unsqueeze(0), [c]).item()
        for t, b, c in ((0, 0, 0), (1, 0, 1), (2, 0, 1), (0, 1, 1))
    ]
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
        ((_, _, chosen),) = batches
        counts[tuple(chosen.tolist())] = counts.get(tuple(chosen.tolist()), 0) + 1
    assert (
        len(counts) == 6 and max(abs(n - 1000) for n in counts.values()) < 150
    )  # five standard deviations


def test_without_shuffle_nothing_is_drawn():
    mg.manual_seed(3)
    assert order(numbered()) == order(numbered()) and mg.default_generator.state == {
        "seed": 3,
        "draws": 0,
    }


def padding(batches):
    return sum(x.size - lengths.sum() for x, lengths, *_ in batches)


def test_buckets_leave_less_padding_and_are_mixed():
    many = ragged(np.random.default_rng(0).integers(1, 200, 3000))
    plain, bucketed = (
        Batches(
            many, np.arange(3000), batch_size=8, shuffle=True, bucket=b, generator=mg.Generator(1)
        )
        for b in (False, True)
    )
    assert padding(bucketed) < 0.1 * padding(plain)
    longest = [int(lengths.max()) for _, lengths, _ in bucketed]
    assert (
        abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2
    )  # long and short batches in no order
    first, second = order(bucketed), order(bucketed)
    assert {frozenset(b) for b in first} != {
        frozenset(b) for b in second
    }  # nor are the batches always the same
    ordered = Batches(many, batch_size=8, bucket=True)
    assert (
        padding(ordered) < padding(bucketed)
        and np.diff(np.concatenate([n for _, n in ordered])).min() == 0
    )


def test_breaking_off_an_epoch_starts_the_next_one():
    batches = numbered(shuffle=True, generator=mg.Generator(0))
    for _ in batches:
        break
    assert sum(map(len, order(batches))) == N


@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"shuffle": True, "bucket": True}, {"bucket": True}]
)
@pytest.mark.parametrize("stop", [0, 1, 3, 6, 8])
def test_a_resumed_run_sees_the_same_batches(options, stop):
    """Stopped after `stop` batches (an epoch has 6), saved as JSON in the loop's body, resumed with
    other objects; between the batches dropout draws from the same generator."""

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
    if "shuffle" not in options:  # otherwise the state brings the generator's along
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
    runs = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    }
    assert runs == {
        "[[8, 5, 0, 7], [4, 3, 2, 6], [1]]\n"
    }  # recorded: an order is part of a run's bits


# ---------------------------------------------------------------- Stream


@pytest.mark.parametrize(
    ("count", "batch", "length"), [(100, 3, 7), (10, 1, 9), (24, 4, 5), (1000, 7, 13)]
)
def test_stream_windows_are_exact(count, batch, length):
    stream = Stream(np.arange(count), batch, length)
    pairs, piece = list(stream), count // batch
    assert len(pairs) == len(stream) == (piece - 1) // length >= 1
    x, y = np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])
    assert all(a.shape == b.shape == (length, batch) for a, b in pairs)
    assert (
        (y == x + 1).all()
        and (np.diff(x, axis=0) == 1).all()
        and x[0].tolist() == [b * piece for b in range(batch)]
    )
    assert count - x.size - batch < batch + length * batch  # what is left out
    assert [x.tolist() for x, _ in stream] == [x.tolist() for x, _ in pairs]  # starts anew


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
    assert (
        x.shape == (3, 1, 2) and x[0, 0].tolist() == [0.0, 1.0] and y[0, 0].tolist() == [2.0, 3.0]
    )
    with pytest.raises(ValueError):
        x[:] = 0


# ---------------------------------------------------------------- windows, Scaler


@pytest.mark.parametrize(
    ("length", "horizon", "step"), [(1, 1, 1), (4, 3, 1), (4, 3, 5), (17, 3, 1)]
)
@pytest.mark.parametrize("shape", [(20,), (20, 2)])
def test_windows(length, horizon, step, shape):
    series = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    x, y = windows(series, length, horizon, step)
    starts = range(0, 20 - length - horizon + 1, step)
    assert x.shape == (length, len(starts), *shape[1:]) and y.shape == (
        horizon,
        len(starts),
        *shape[1:],
    )
    for n, start in enumerate(starts):
        assert (x[:, n] == series[start : start + length]).all()
        assert (y[:, n] == series[start + length : start + length + horizon]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(50,), (50, 3), (5, 10, 3)])
def test_scaler(dtype, shape):
    x = (np.random.default_rng(0).standard_normal(shape) * 7 + 100).astype(dtype)
    scaler = Scaler().fit(x)
    z = scaler.transform(x)
    axes, eps = tuple(range(x.ndim - 1)) or (0,), np.finfo(dtype).eps
    assert (
        z.dtype == dtype
        and np.abs(z.mean(axes)).max() < 100 * eps
        and np.abs(z.std(axes) - 1).max() < 100 * eps
    )
    assert np.abs(scaler.inverse(z) - x).max() < 200 * eps


def test_scaler_leaves_constant_columns_finite():
    x = np.array([[0.1, 1.0, -5e300], [0.1, 2.0, -5e300], [0.1, 3.0, -5e300]])
    scaler = Scaler().fit(x)
    z = scaler.transform(x)
    assert (z[:, [0, 2]] == 0).all() and (scaler.inverse(z) == x).all()
    assert (
        scaler.transform(np.array([[0.6, 2.0, 0.0]]))[0, 0] == 0.5
    )  # a new value in that column is still seen


def test_scaler_of_whole_numbers_and_lists_is_float32():
    assert (
        Scaler().fit([1, 2, 3]).transform([1, 2]).dtype
        == Scaler().fit([1.0, 2.0]).transform([1.0]).dtype
        == np.float32
    )


# ---------------------------------------------------------------- one iteration inside of another


def places(kind):
    """What is read, and what tells one of its batches from the others."""
    if kind == "stream":
        return Stream(np.arange(100), 2, 7), lambda batch: int(batch[0][0, 0])
    options = {
        "plain": {},
        "shuffled": {"shuffle": True},
        "buckets": {"shuffle": True, "bucket": True},
    }[kind]
    return numbered(generator=mg.Generator(6), **options), lambda batch: batch[-1].tolist()


def whole(data):
    return [1 for _ in data]


def first(data):
    return next(iter(data))


def broken_off(data):
    for k, _ in enumerate(data):
        if k == 2:
            break


def failed(data):
    try:
        for _ in data:
            raise KeyError
    except KeyError:
        pass


def twice(data):
    return [1 for _ in zip(data, data, strict=True)]


def nested(data):
    for _ in data:
        whole(data)
        break


@pytest.mark.parametrize("kind", ["stream", "plain", "shuffled", "buckets"])
@pytest.mark.parametrize("inner", [whole, first, broken_off, failed, twice, nested])
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_reading_inside_an_epoch_does_not_move_the_place(kind, inner, stop):
    """The oracle: what the same iteration gives without the other reader; the rest comes from the
    saved place."""

    def run(reads, until=None):
        data, name = places(kind)
        seen = []
        for batch in data:
            seen.append(name(batch))
            if reads:
                inner(data)
            if len(seen) == until:
                return data, seen, json.loads(json.dumps(data.state_dict()))
        return data, seen, None

    _, expected, _ = run(False)
    data, seen, state = run(True, stop)
    assert state["position"] == stop and seen == expected[:stop]
    other, name = places(kind)
    other.load_state_dict(state)
    assert seen + [name(batch) for batch in other] == expected
    assert run(True)[1] == expected


def test_each_iteration_tells_its_own_place():
    data = Stream(np.arange(100), 2, 7)
    one, two = iter(data), iter(data)
    next(one), next(one), next(two)
    assert [e.state_dict()["position"] for e in (one, two)] == [2, 1] and data.state_dict()[
        "position"
    ] == 1
    next(one)
    assert data.state_dict()["position"] == 3
    assert (
        len(list(two)) == len(data) - 1
        and two.state_dict()["position"] == 0
        and next(two, None) is None
    )
    assert data.state_dict()["position"] == 3
    assert iter(data).state_dict()["position"] == 3  # not begun


def test_an_iteration_that_was_left_keeps_its_place_until_the_next_begins():
    data = Stream(np.arange(100), 2, 7)
    broken_off(data)
    assert data.state_dict()["position"] == 3
    epoch = iter(data)
    next(epoch)
    assert data.state_dict()["position"] == 1
    del epoch
    assert data.state_dict()["position"] == 1
    whole(data)
    assert data.state_dict()["position"] == 0


@pytest.mark.parametrize(
    "how", [copy.copy, copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))]
)
def test_copies_have_no_iterations(how):
    data = numbered(shuffle=True, generator=mg.Generator(6))
    epoch = iter(data)
    next(epoch)
    other = how(data)
    assert other.state_dict()["position"] == 0 and data.state_dict()["position"] == 1
    whole(other)
    assert data.state_dict()["position"] == 1


# ---------------------------------------------------------------- pandas and other containers


def frame(*columns, index=None):
    return pytest.importorskip("pandas", reason="skipped: pandas is not installed").DataFrame(
        dict(enumerate(columns)), index=index
    )


def column(values, index=None, **options):
    return pytest.importorskip("pandas", reason="skipped: pandas is not installed").Series(
        values, index=index, **options
    )


GAP = [7, 3, 40]


def test_a_series_with_gaps_is_read_by_position():
    words, tags = [[1, 2], [3], [4, 5, 6]], [[0, 1], [1], [1, 0, 1]]
    expected = list(Batches(words, [5, 6, 7], tags, batch_size=2))
    found = list(
        Batches(column(words, GAP), column([5, 6, 7], GAP), column(tags, GAP), batch_size=2)
    )
    for a, b in zip(expected, found, strict=True):
        assert all((x == y).all() and x.dtype == y.dtype for x, y in zip(a, b, strict=True))
    found = list(
        Batches(
            [column(w, GAP[: len(w)]) for w in words],
            np.array([5, 6, 7]),
            [column(t) for t in tags],
            batch_size=2,
        )
    )
    assert all(
        (x == y).all()
        for a, b in zip(expected, found, strict=True)
        for x, y in zip(a, b, strict=True)
    )


def test_tables_are_read_by_rows():
    table = frame([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], index=GAP)
    ((x, lengths, y),) = Batches(
        table, frame([0.5, 1.5, 2.5], [3.5, 4.5, 5.5], index=GAP), batch_size=3, per_step=False
    )
    assert (
        x.dtype == np.float64 and (x == table.to_numpy().T).all() and lengths.tolist() == [2, 2, 2]
    )
    assert y.tolist() == [[0.5, 3.5], [1.5, 4.5], [2.5, 5.5]]
    ((x, _),) = Batches([table, table[:2]], batch_size=2)  # a table for a sequence: (T, features)
    assert x.shape == (3, 2, 2) and (x[:, 0] == table.to_numpy()).all()
    assert (windows(table, 2)[0][:, 0] == table.to_numpy()[:2]).all() and windows(
        column([1, 2, 3], GAP), 2
    )[0].shape == (2, 1)
    z = Scaler().fit(table).transform(table)
    assert z.dtype == np.float64 and np.abs(z.std(0) - 1).max() < 1e-12
    assert Stream(column(range(20), range(5, 25)), 2, 3)._pieces[:, 0].tolist() == list(range(10))


def test_bad_tables():
    with pytest.raises(
        TypeError,
        match=r"Batches: targets\[0\] must be made of real numbers, got .* of dtype (object|str|<U1)",
    ):
        Batches([[1], [2]], column(["a", "b"]), batch_size=2)
    with pytest.raises(TypeError, match=r"pad: sequences\[0\] must be made of real numbers"):
        pad(frame(["a"], [1]))
    with pytest.raises(TypeError, match=r"Scaler: x must be made of real numbers"):
        Scaler().fit(column(["2020-01-01"], dtype="datetime64[s]"))
    with pytest.raises(ValueError, match=r"Scaler: x must be finite, got nan at \[1\]"):
        Scaler().fit(column([1, None], dtype="Int64"))


@pytest.mark.parametrize(
    "make",
    [
        tuple,
        iter,
        lambda v: (x for x in v),
        lambda v: dict(enumerate(v)).values(),
        lambda v: np.array(v + [None], object)[:-1],
    ],
)
def test_containers_of_sequences_and_of_targets(make):
    words, tags = [[1, 2], [3], [4, 5, 6]], [[0, 1], [1], [1, 0, 1]]
    ((x, lengths, y),) = Batches(make(words), make(tags), batch_size=3)
    ((x2, lengths2, y2),) = Batches(words, tags, batch_size=3)
    assert (x == x2).all() and (y == y2).all() and (lengths == lengths2).all()


def test_tensors_as_sequences_and_targets():
    ((x, _, y),) = Batches(mg.Tensor(np.ones((3, 2))), mg.Tensor([1.0, 2.0, 3.0]), batch_size=3)
    assert x.dtype == np.float64 and y.tolist() == [1.0, 2.0, 3.0]
    torch = pytest.importorskip("torch", reason="skipped: torch is not installed")
    ((x, _, y),) = Batches(torch.ones(3, 2), torch.tensor([1, 2, 3]), batch_size=3)
    assert x.dtype == np.float32 and y.tolist() == [1, 2, 3]
    assert pad([torch.ones(2), torch.ones(1)])[1].tolist() == [2, 1]


# ---------------------------------------------------------------- a vector for each sequence, or a number for each step


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("as_list", [False, True])
def test_vectors_as_long_as_the_sequences_must_be_told_apart(dtype, as_list):
    x, y = np.ones((3, 4, 2)), np.arange(12).reshape(3, 4).astype(dtype)
    given = list(y) if as_list else y
    with pytest.raises(
        ValueError,
        match=r"targets\[0\] of shape \(3, 4\) may be a vector for each sequence or a number "
        "for each of "
        "its 4 steps: say per_step=False or per_step=True",
    ):
        Batches(x, given, batch_size=2)
    (_, _, first, number), _ = Batches(x, given, [1, 2, 3], batch_size=2, per_step=[False, False])
    assert first.tolist() == y[:2].tolist() and first.dtype == dtype and number.tolist() == [1, 2]
    (_, _, first, number), _ = Batches(x, given, [1, 2, 3], batch_size=2, per_step=[True, None])
    assert first.tolist() == y[:2].T.tolist() and number.tolist() == [1, 2]


def test_any_entry_for_each_sequence():
    x = [[1, 2], [3], [4, 5, 6]]
    ((_, lengths, y),) = Batches(
        x, np.arange(3 * 5 * 2.0).reshape(3, 5, 2), batch_size=3, per_step=False, bucket=True
    )
    assert lengths.tolist() == [1, 2, 3] and y.shape == (3, 5, 2) and y[0, 0, 0] == 10


def test_lengths_that_differ_are_steps():
    ((_, _, y),) = Batches([[1, 2], [3]], [[0.5, 1.5], [2.5]], batch_size=2)
    assert y.tolist() == [[0.5, 2.5], [1.5, 0.0]]


# ---------------------------------------------------------------- whole numbers and doubles, beside fractions


def exact(x):
    """z of a list of numbers, by fractions: (values, mean, standard deviation)."""
    x = [Fraction(int(v)) if isinstance(v, (int, np.integer)) else Fraction(float(v)) for v in x]
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    root = Fraction(math.isqrt(int(variance * 10**60)), 10**30)
    return [float((v - mean) / root) for v in x], mean, root


NEAR = {
    "seconds": np.array([1_700_000_000, 1_700_000_001, 1_700_000_002]),
    "seconds as a list": [1_700_000_000, 1_700_000_001, 1_700_000_002],
    "floats as a list": [1.7e9, 1.7e9 + 0.25, 1.7e9 + 1.5, 1.7e9 + 3],
    "nanoseconds": np.array(
        [1_700_000_000_000_000_000, 1_700_000_000_000_000_001, 1_700_000_000_000_000_005]
    ),
    "beyond 2^53": np.array([2**60 + 3, 2**60 - 1, 2**60 + 77, -(2**60)]),
    "ends of int64": np.array([-(2**63), 2**63 - 1, 5, 0, 2**62]),
    "uint64": np.array([2**64 - 1, 2**64 - 3, 2**64 - 10], np.uint64),
    "uint8": np.array([250, 255, 3], np.uint8),
    "int32": np.array([-(2**31), 2**31 - 1, 7], np.int32),
    "float64": np.array([1e15, 1e15 + 0.125, 1e15 + 0.5]),
    "float64 high": np.array([1e16, 1e16 + 2, 1e16 + 4]),
    "float32": np.array([16777216, 16777218, 16777220, 16777226], np.float32),
    "small": np.array([1e-9, 2e-9, 4e-9]),
}


@pytest.mark.parametrize("name", NEAR)
def test_scaler_beside_fractions(name):
    x = NEAR[name]
    scaler = Scaler().fit(x)
    expected, mean, root = exact(x)
    z = scaler.transform(x)
    eps = np.finfo(z.dtype).eps
    assert z.dtype == (x.dtype if getattr(x, "dtype", np.dtype(int)).kind == "f" else np.float32)
    assert np.abs(z - expected).max() <= 2 * eps * max(map(abs, expected))
    assert abs(Fraction(float(scaler.mean)) - mean) <= (abs(mean) + root) * Fraction(2.3e-16)
    assert abs(Fraction(float(scaler.scale)) - root) <= root * Fraction(1e-15)
    back = scaler.inverse(z)
    assert back.dtype == (x.dtype if getattr(x, "dtype", np.dtype(int)).kind == "f" else np.float64)
    for v, b in zip(x, back, strict=True):
        v = Fraction(int(v)) if isinstance(v, (int, np.integer)) else Fraction(float(v))
        bound = (
            Fraction(float(np.spacing(np.abs(np.asarray(b, back.dtype)))))
            + 2 * root * Fraction(float(eps)) * 3
        )
        assert abs(Fraction(float(b)) - v) <= bound


def test_the_scaler_of_the_report():
    a = np.array([1_700_000_000, 1_700_000_001, 1_700_000_002])
    assert np.allclose(Scaler().fit(a).transform(a), [-np.sqrt(1.5), 0, np.sqrt(1.5)], atol=1e-7)


def test_a_mean_that_was_set_by_hand_counts():
    scaler, fitted = Scaler(), Scaler().fit(NEAR["nanoseconds"])
    scaler.mean, scaler.scale = np.float64(3.0), np.float64(2.0)
    assert scaler.transform(np.array([5.0])).tolist() == [1.0] and scaler.inverse(
        np.array([1.0])
    ).tolist() == [5.0]
    fitted.mean = np.float64(1_700_000_000_000_000_000)
    assert fitted.transform(np.array([1_700_000_000_000_000_000])).tolist() == [0.0]
    fresh = Scaler().fit(NEAR["nanoseconds"])
    for copied in (copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh))):
        assert (
            np.abs(copied.transform(NEAR["nanoseconds"]) - exact(NEAR["nanoseconds"])[0]).max()
            < 1e-6
        )


def test_columns_of_whole_numbers_are_scaled_each_by_itself():
    x = np.stack([np.arange(50) + 1_700_000_000, np.full(50, 2**62), (np.arange(50) * 7) % 11], 1)
    scaler = Scaler().fit(x)
    z = scaler.transform(x)
    assert (z[:, 1] == 0).all() and (scaler.inverse(z)[:, 1] == 2.0**62).all()
    for k in (0, 2):
        assert np.abs(z[:, k] - exact(x[:, k])[0]).max() < 3e-7


def test_windows_keep_what_they_are_given():
    times = [1_700_000_000.25, 1_700_000_001.5, 1_700_000_003.0, 1_700_000_007.75]
    x, y = windows(times, 2)
    assert x.dtype == np.float64 and x[:, 1].tolist() == times[1:3] and y[0].tolist() == times[2:]
    big = [2**60, 2**60 + 1, 2**60 + 2]
    assert (
        windows(big, 1)[0][0].tolist() == big[:2]
        and windows(np.array(times, np.float32), 1)[0].dtype == np.float32
    )


# ---------------------------------------------------------------- bad input


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
