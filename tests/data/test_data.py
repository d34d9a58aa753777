"""mg.data: padding, batches and their order, streams; a place that is saved and gone on from."""

import copy
import json
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sequences import SEQUENCES, N, numbered, ragged

import minigrad as mg
from minigrad.data.batches import Batches, pad
from minigrad.data.streams import Stream

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


def order(batches):
    return [chosen.tolist() for *_, chosen in batches]


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
        batches = mg.data.Batches([[0]] * 9, np.arange(9), batch_size=4, shuffle=True)
        print([c.tolist() for *_, c in batches])
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


# -------------------------------------------- a vector for each sequence, or a number for each step


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
