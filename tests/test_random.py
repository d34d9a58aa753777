"""The generator, manual_seed, dropout and its masks."""

import copy
import json
import pickle

import numpy as np
import pytest

import minigrad as mg


@pytest.fixture(autouse=True)
def default_as_it_was():
    state = mg.default_generator.state
    yield
    mg.default_generator.state = state


# ---------------------------------------------------------------- the generator


def philox(counter, key):
    """Philox 4x64-10 as published: the block of four numbers for a counter of four words and a key
    of two."""
    word = 2**64 - 1
    a, b, c, d = counter
    for turn in range(10):
        k = [
            (k + turn * weyl) & word
            for k, weyl in zip(key, (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B), strict=True)
        ]
        p, q = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (q >> 64) ^ b ^ k[0], q & word, (p >> 64) ^ d ^ k[1], p & word
    return [a, b, c, d]


def test_the_stream_is_philox():
    """Draw d of seed s is blocks 1, 2, ... of key s in the counters whose third word is d."""
    known = [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]  # Random123's kat_vectors
    assert philox([0, 0, 0, 0], [0, 0]) == known
    seed = 5 + 7 * 2**64
    generator = mg.Generator(seed)
    for draw in range(3):
        blocks = philox([1, 0, draw, 0], [5, 7]) + philox([2, 0, draw, 0], [5, 7])
        assert generator.stream().random_raw(8).tolist() == blocks


def test_draws_are_independent_of_each_other():
    generator = mg.Generator(3)
    masks = [mg.dropout_mask((1000,), 0.5, generator=generator) for _ in range(20)]
    for i in range(20):
        for j in range(i):
            assert abs(np.corrcoef(masks[i], masks[j])[0, 1]) < 0.2
    other = mg.dropout_mask((1000,), 0.5, generator=mg.Generator(4))
    assert abs(np.corrcoef(masks[0], other)[0, 1]) < 0.2


def test_what_is_drawn_depends_on_seed_and_number_of_the_draw_alone():
    one, other = mg.Generator(9), mg.Generator(9)
    mg.dropout_mask((7,), 0.1, generator=one)
    mg.dropout_mask((1000, 3), 0.9, dtype=np.float64, generator=other)
    assert one.state == other.state == {"seed": 9, "draws": 1}
    assert (
        mg.dropout_mask((50,), 0.5, generator=one) == mg.dropout_mask((50,), 0.5, generator=other)
    ).all()


def test_state_survives_json_pickle_and_deepcopy():
    generator = mg.Generator(2**100 + 1)
    mg.dropout_mask((3,), 0.5, generator=generator)
    state = json.loads(json.dumps(generator.state))
    copies = [mg.Generator(), pickle.loads(pickle.dumps(generator)), copy.deepcopy(generator)]
    copies[0].state = state
    expected = mg.dropout_mask((100,), 0.5, generator=generator)
    for other in copies:
        assert (mg.dropout_mask((100,), 0.5, generator=other) == expected).all()


def test_manual_seed():
    assert mg.manual_seed(11) is mg.default_generator
    x = mg.ones(200)
    first, second = mg.dropout(x, 0.5), mg.dropout(x, 0.5)
    assert (first != second).any()
    mg.manual_seed(11)
    assert (mg.dropout(x, 0.5) == first).all() and (mg.dropout(x, 0.5) == second).all()
    mg.manual_seed(12)
    assert (mg.dropout(x, 0.5) != first).any()


def go_to(state):
    mg.default_generator.state = state


@pytest.mark.parametrize(
    "call, kind, words",
    [
        (lambda: mg.manual_seed(1.0), TypeError, "manual_seed: seed must be an int, got float"),
        (lambda: mg.manual_seed(True), TypeError, "manual_seed: seed must be an int, got bool"),
        (lambda: mg.manual_seed(None), TypeError, "manual_seed: seed must be an int, got NoneType"),
        (
            lambda: mg.manual_seed(-1),
            ValueError,
            "manual_seed: seed must be at least 0, got -1",
        ),
        (lambda: mg.Generator(2**128), ValueError, r"manual_seed: seed must be below 2 \*\* 128"),
        (lambda: go_to([1, 2]), TypeError, "Generator: state must be a dict .* got list"),
        (
            lambda: go_to({"seed": 1}),
            ValueError,
            "Generator: state must have the keys seed and draws, got seed",
        ),
        (
            lambda: go_to({"seed": 1, "draws": -1}),
            ValueError,
            "Generator: draws must be at least 0, got -1",
        ),
        (
            lambda: go_to({"seed": 1, "draws": "2"}),
            TypeError,
            "Generator: draws must be an int, got str",
        ),
        (
            lambda: mg.dropout_mask((2, -1), 0.5),
            ValueError,
            "dropout_mask: shape must not have negative dimensions",
        ),
        (
            lambda: mg.dropout_mask((2.5,), 0.5),
            TypeError,
            "dropout_mask: shape must be made of ints",
        ),
        (
            lambda: mg.dropout_mask((2,), 1.1),
            ValueError,
            "dropout_mask: p must be at least 0 and at most 1, got 1.1",
        ),
        (
            lambda: mg.dropout_mask((2,), 0.5, np.float16),
            TypeError,
            "dropout_mask: dtype must be float32 or float64, got float16",
        ),
        (
            lambda: mg.dropout_mask((2,), 0.5, generator=1),
            TypeError,
            "dropout_mask: generator must be a minigrad.Generator or None",
        ),
    ],
)
def test_bad_input_changes_nothing(call, kind, words):
    before = mg.default_generator.state
    with pytest.raises(kind, match=words):
        call()
    assert mg.default_generator.state == before


# ---------------------------------------------------------------- dropout


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9])
def test_share_and_scale(p):
    n = 200_000
    mask = mg.dropout_mask((n,), p, dtype=np.float64, generator=mg.Generator(5))
    assert set(np.unique(mask)) == {0, 1 / (1 - p)}
    assert abs((mask == 0).mean() - p) < 5 * np.sqrt(
        p * (1 - p) / n
    )  # five standard deviations of the share
    neighbours = (mask[:-1] == 0) & (mask[1:] == 0)
    assert abs(neighbours.mean() - p * p) < 5 * np.sqrt(2 * p * p / n)


def test_same_places_in_both_dtypes_and_any_shape():
    flat = mg.dropout_mask((24,), 0.5, generator=mg.Generator(1))
    shaped = mg.dropout_mask((2, 3, 4), 0.5, dtype=np.float64, generator=mg.Generator(1))
    assert (
        flat.dtype == np.float32 and shaped.dtype == np.float64 and (shaped.ravel() == flat).all()
    )
    assert (mg.dropout_mask((7,), 0.5, generator=mg.Generator(1)) == flat[:7]).all()
    assert mg.dropout_mask((), 0.5).shape == () and mg.dropout_mask((0, 3), 0.5).shape == (0, 3)


def test_identity_draws_nothing():
    generator = mg.Generator(1)
    x = mg.Tensor([1.0, 2.0], requires_grad=True)
    assert (
        mg.dropout(x, 0, generator=generator) is x
        and mg.dropout(x, 0.5, training=False, generator=generator) is x
    )
    assert generator.state["draws"] == 0


def test_everything_dropped():
    x = mg.Tensor([1.0, 2.0], requires_grad=True)
    y = mg.dropout(x, 1)
    assert y.tolist() == [0, 0]
    y.backward([1.0, 1.0])
    assert x.grad.tolist() == [0, 0]


def test_gradient_goes_through_the_same_mask():
    x = mg.Tensor(np.arange(1.0, 101), requires_grad=True)
    y = mg.dropout(x, 0.4, generator=mg.Generator(8))
    y.backward(np.ones(100))
    np.testing.assert_array_equal(x.grad.numpy() * x.numpy(), y.numpy())
    np.testing.assert_allclose(np.unique(x.grad), [0, 1 / 0.6], rtol=1e-15)


def test_same_bits_on_any_number_of_threads():
    before = mg.get_num_threads()
    results = []
    try:
        for n in (1, 2, 4):
            mg.set_num_threads(n)
            results.append(
                mg.dropout(mg.ones((300, 300)), 0.3, generator=mg.Generator(2)).numpy().tobytes()
            )
    finally:
        mg.set_num_threads(before)
    assert results[0] == results[1] == results[2]
