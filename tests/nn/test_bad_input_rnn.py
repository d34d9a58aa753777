"""Bad input of the recurrent layers and cells: each case gets its exception, a message with what
was expected and what came, and changes nothing: no weights, no state, no gradients. What is odd but
right works: other layouts, empty batches, NaN in one row."""

import itertools
import re
import tracemalloc
import warnings

import numpy as np
import pytest

import minigrad as mg

nn = mg.nn
LAYERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
CELLS = {"RNNCell": nn.RNNCell, "LSTMCell": nn.LSTMCell, "GRUCell": nn.GRUCell}
each_layer = pytest.mark.parametrize("op", LAYERS)
each_cell = pytest.mark.parametrize("op", CELLS)
T, B, I, H = 5, 2, 3, 4
NAN = float("nan")


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tensor(*shape, dtype=np.float32):
    return mg.Tensor(draw(*shape, dtype=dtype), requires_grad=True)


def states(op, *shape, dtype=np.float32):
    """A state for the layer or cell: h, or (h, c)."""
    h = tensor(*shape, dtype=dtype)
    return (h, tensor(*shape, dtype=dtype)) if op.startswith("LSTM") else h


def refused(module, call, error, message, leaves=()):
    """`call` raises `error`, the message is as it should be, and nothing has changed."""
    for k, p in enumerate(module.parameters()):
        p.grad = mg.Tensor(np.full(p.shape, k, p.dtype))
    kept = [(p.numpy().tobytes(), p.grad.numpy().tobytes()) for p in module.parameters()]
    before = (
        mg.default_generator.state,
        vars(module).copy(),
        [leaf.numpy().tobytes() for leaf in leaves],
    )
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error and re.search(message, str(caught.value)), str(caught.value)
    assert kept == [(p.numpy().tobytes(), p.grad.numpy().tobytes()) for p in module.parameters()]
    assert before == (
        mg.default_generator.state,
        vars(module),
        [leaf.numpy().tobytes() for leaf in leaves],
    )
    assert all(leaf.grad is None for leaf in leaves)


class OnlyArray:
    def __array__(self, dtype=None, copy=None):
        return draw(T, B, I)


# ---------------------------------------------------------------- x of a layer

SUPPORTED = "supported are float32 and float64"
BAD_X = {
    "float64": (
        lambda: tensor(T, B, I, dtype=np.float64),
        TypeError,
        r"OP: x has dtype float64, the weights have float32: convert the input with "
        r"x.astype\('float32'\) or make",
    ),
    "float64 array": (
        lambda: draw(T, B, I, dtype=np.float64),
        TypeError,
        "OP: x has dtype float64, the weights have float32",
    ),
    "int64": (
        lambda: np.ones((T, B, I), np.int64),
        TypeError,
        f"OP: x has dtype int64, {SUPPORTED}",
    ),
    "bool": (lambda: np.ones((T, B, I), bool), TypeError, f"OP: x has dtype bool, {SUPPORTED}"),
    "float16": (
        lambda: np.ones((T, B, I), np.float16),
        TypeError,
        f"OP: x has dtype float16, {SUPPORTED}",
    ),
    "longdouble": (
        lambda: np.ones((T, B, I), np.longdouble),
        TypeError,
        rf"OP: x has dtype \w+, {SUPPORTED}",
    ),
    "complex": (
        lambda: np.ones((T, B, I), complex),
        TypeError,
        f"OP: x has dtype complex128, {SUPPORTED}",
    ),
    "object": (lambda: np.full((T, B, I), None), TypeError, f"OP: x has dtype object, {SUPPORTED}"),
    "str": (lambda: "text", TypeError, "OP: x must be numbers, got str"),
    "bytes": (lambda: b"text", TypeError, "OP: x must be numbers, got bytes"),
    "None": (lambda: None, TypeError, "OP: x must be numbers, got NoneType"),
    "dict": (lambda: {}, TypeError, "OP: x of dtype object cannot become float32"),
    "masked": (
        lambda: np.ma.ones((T, B, I), np.float32),
        TypeError,
        "OP: x must not be a masked array",
    ),
    "ragged": (lambda: [[[1.0, 2.0, 3.0]], [[1.0]]], ValueError, "OP: x is ragged or not an array"),
    "0-D": (
        lambda: tensor(),
        ValueError,
        r"OP: x must have shape \(T, B, 3\) = \(time, batch, input_size\), got \(\)",
    ),
    "1-D": (
        lambda: tensor(I),
        ValueError,
        r"OP: x must have shape \(T, B, 3\) = \(time, batch, input_size\), got \(3,\)",
    ),
    "2-D": (
        lambda: tensor(T, I),
        ValueError,
        r"OP: x must have shape \(T, B, 3\) = \(time, batch, input_size\), got \(5, 3\)",
    ),
    "4-D": (
        lambda: tensor(1, T, B, I),
        ValueError,
        r"OP: x must have shape \(T, B, 3\) = .*, got \(1, 5, 2, 3\)",
    ),
    "features": (
        lambda: tensor(T, B, 7),
        ValueError,
        r"OP: x must have shape \(T, B, 3\) = .*, got \(5, 2, 7\)",
    ),
    "no features": (
        lambda: tensor(T, B, 0),
        ValueError,
        r"OP: x must have shape \(T, B, 3\) = .*, got \(5, 2, 0\)",
    ),
}


@each_layer
@pytest.mark.parametrize("make, error, message", BAD_X.values(), ids=BAD_X)
def test_x(op, make, error, message):
    layer, x, state = LAYERS[op](I, H), make(), states(op, 1, B, H)
    leaves = [
        v
        for v in (x, *(state if isinstance(state, tuple) else (state,)))
        if isinstance(v, mg.Tensor)
    ]
    refused(layer, lambda: layer(x, state), error, "^" + message.replace("OP", op), leaves)


@each_layer
def test_a_layer_in_float64_takes_no_float32(op):
    layer = LAYERS[op](I, H, dtype=np.float64)
    refused(
        layer,
        lambda: layer(tensor(T, B, I)),
        TypeError,
        f"^{op}: x has dtype float32, the weights have float64: convert",
    )


# ---------------------------------------------------------------- state, lengths, reset of a layer

SHAPE = r"\(1, 2, 4\) = \(num_layers, batch, hidden_size\)"
BAD_STATE = {
    "batch": (
        lambda op: states(op, 1, 3, H),
        ValueError,
        rf"h0 must have shape {SHAPE}, got \(1, 3, 4\)",
    ),
    "hidden": (
        lambda op: states(op, 1, B, 5),
        ValueError,
        rf"h0 must have shape {SHAPE}, got \(1, 2, 5\)",
    ),
    "layers": (
        lambda op: states(op, 2, B, H),
        ValueError,
        rf"h0 must have shape {SHAPE}, got \(2, 2, 4\)",
    ),
    "2-D": (lambda op: states(op, B, H), ValueError, rf"h0 must have shape {SHAPE}, got \(2, 4\)"),
    "dtype": (
        lambda op: states(op, 1, B, H, dtype=np.float64),
        TypeError,
        "h0 has dtype float64, the weights have float32",
    ),
    "array": (
        lambda op: (draw(1, B, H),) * (2 if op == "LSTM" else 1),
        TypeError,
        "h0 must be a Tensor, got ndarray",
    ),
    "None inside": (
        lambda op: (None,) * (2 if op == "LSTM" else 1),
        TypeError,
        "h0 must be a Tensor, got NoneType",
    ),
    "str": (lambda op: "zeros", TypeError, r"state must be (\(h0, c0\)|h0), .* got str"),
    "three": (
        lambda op: (tensor(1, B, H),) * 3,
        TypeError,
        r"state must be (\(h0, c0\)|h0), .* got tuple of length 3",
    ),
    "empty": (lambda op: (), TypeError, r"state must be (\(h0, c0\)|h0), .* got tuple of length 0"),
}


@each_layer
@pytest.mark.parametrize("make, error, message", BAD_STATE.values(), ids=BAD_STATE)
def test_state(op, make, error, message):
    layer, x, state = LAYERS[op](I, H), tensor(T, B, I), make(op)
    refused(layer, lambda: layer(x, state), error, f"^{op}: {message}", [x])


def test_state_of_an_lstm():
    layer, h, x = nn.LSTM(I, H), tensor(1, B, H), tensor(T, B, I)
    refused(
        layer,
        lambda: layer(x, h),
        TypeError,
        r"^LSTM: state must be \(h0, c0\), each of shape .*, got Tensor",
        [x, h],
    )
    refused(
        layer,
        lambda: layer(x, (h,)),
        TypeError,
        r"^LSTM: state must be \(h0, c0\), .*, got tuple of length 1",
        [x, h],
    )
    c = tensor(1, B, 5)
    refused(
        layer,
        lambda: layer(x, (h, c)),
        ValueError,
        rf"^LSTM: c0 must have shape {SHAPE}, got \(1, 2, 5\)",
        [x, h, c],
    )
    refused(
        layer,
        lambda: layer(x, (h, None)),
        TypeError,
        "^LSTM: c0 must be a Tensor, got NoneType",
        [x, h],
    )


def test_state_of_two_directions():
    layer, x = nn.GRU(I, H, num_layers=2, bidirectional=True), tensor(T, B, I)
    refused(
        layer,
        lambda: layer(x, tensor(2, B, H)),
        ValueError,
        r"^GRU: h0 must have shape \(4, 2, 4\) = \(num_layers \* 2, batch, hidden_size\), got \(2, "
        r"2, 4\)",
        [x],
    )


BAD_LENGTHS = {
    "above T": ([5, 6], ValueError, "lengths must be from 0 to T = 5, got 6 at index 1"),
    "negative": ([-1, 5], ValueError, "lengths must be from 0 to T = 5, got -1 at index 0"),
    "count": ([5], ValueError, r"lengths must have shape \(2,\) = \(batch,\), got \(1,\)"),
    "more": ([5, 5, 5], ValueError, r"lengths must have shape \(2,\) = \(batch,\), got \(3,\)"),
    "none": ([], ValueError, r"lengths must have shape \(2,\) = \(batch,\), got \(0,\)"),
    "one": (5, ValueError, r"lengths must have shape \(2,\) = \(batch,\), got \(\)"),
    "2-D": ([[5, 2]], ValueError, r"lengths must have shape \(2,\) = \(batch,\), got \(1, 2\)"),
    "float": ([5.0, 2.0], TypeError, "lengths must be integers, got float64"),
    "float Tensor": (mg.Tensor([5.0, 2.0]), TypeError, "lengths must be integers, got float32"),
    "bool": ([True, False], TypeError, "lengths must be integers, got bool"),
    "str": ("52", TypeError, "lengths must be integers, got <U2"),
    "with None": ([5, None], TypeError, "lengths must be integers, got object"),
    "ragged": (
        [[5], [1, 2]],
        ValueError,
        "lengths must be an array, got nested lists of different lengths",
    ),
    "masked": (np.ma.array([5, 2], mask=[0, 1]), TypeError, "lengths must not be a masked array"),
    "beyond int32": (
        [2**31, 2],
        ValueError,
        f"lengths must be from 0 to T = 5, got {2**31} at index 0",
    ),
    "beyond int32, low bits right": (
        [2, 2**32 + 2],
        ValueError,
        f"lengths must be from 0 to T = 5, got {2**32 + 2} at index 1",
    ),
    "uint64": (
        np.array([2, 2**64 - 1], np.uint64),
        ValueError,
        f"lengths must be from 0 to T = 5, got {2**64 - 1} at index 1",
    ),
    "beyond int64": ([2**70, 2], TypeError, "lengths must be integers, got object"),
}
BAD_RESET = {
    "int": (np.zeros((T, B), int), TypeError, "reset must be an array of bool, got int64"),
    "shape": (
        np.zeros((B, T), bool),
        ValueError,
        r"reset must have shape \(5, 2\) = \(time, batch\), got \(2, 5\)",
    ),
    "1-D": (
        np.zeros(T, bool),
        ValueError,
        r"reset must have shape \(5, 2\) = \(time, batch\), got \(5,\)",
    ),
    "str": ("yes", TypeError, "reset must be an array of bool, got <U3"),
    "True": (True, ValueError, r"reset must have shape \(5, 2\) = \(time, batch\), got \(\)"),
    "ragged": (
        [[True], [True, False]],
        ValueError,
        "reset must be an array, got nested lists of different lengths",
    ),
    "masked": (np.ma.zeros((T, B), bool), TypeError, "reset must not be a masked array"),
}


@each_layer
@pytest.mark.parametrize("lengths, error, message", BAD_LENGTHS.values(), ids=BAD_LENGTHS)
def test_lengths(op, lengths, error, message):
    layer, x = LAYERS[op](I, H), tensor(T, B, I)
    refused(layer, lambda: layer(x, lengths=lengths), error, f"^{op}: {message}", [x])


@each_layer
@pytest.mark.parametrize("reset, error, message", BAD_RESET.values(), ids=BAD_RESET)
def test_reset(op, reset, error, message):
    layer, x = LAYERS[op](I, H), tensor(T, B, I)
    refused(layer, lambda: layer(x, reset=reset), error, f"^{op}: {message}", [x])


@each_layer
def test_trace(op):
    layer, x = LAYERS[op](I, H), tensor(T, B, I)
    refused(
        layer, lambda: layer(x, trace=1), TypeError, f"^{op}: trace must be a bool, got int", [x]
    )


# ---------------------------------------------------------------- making layers and cells

BAD_SIZES = {
    "0": (0, ValueError, "NAME must be at least 1, got 0"),
    "-1": (-1, ValueError, "NAME must be at least 1, got -1"),
    "2.5": (2.5, TypeError, "NAME must be an int, got float"),
    "2.0": (2.0, TypeError, "NAME must be an int, got float"),
    "True": (True, TypeError, "NAME must be an int, got bool"),
    "str": ("3", TypeError, "NAME must be an int, got str"),
    "None": (None, TypeError, "NAME must be an int, got NoneType"),
}


@pytest.mark.parametrize(
    "op, name",
    [
        *itertools.product([*LAYERS, *CELLS], ["input_size", "hidden_size"]),
        *itertools.product(LAYERS, ["num_layers"]),
    ],
)
@pytest.mark.parametrize("value, error, message", BAD_SIZES.values(), ids=BAD_SIZES)
def test_sizes(op, name, value, error, message):
    make = (LAYERS | CELLS)[op]
    with pytest.raises(error, match=f"^{op}: {message.replace('NAME', name)}$"):
        make(**{"input_size": 3, "hidden_size": 4} | {name: value})


BAD_OPTIONS = {
    "dropout 1.5": (
        {"dropout": 1.5},
        ValueError,
        "dropout must be at least 0 and at most 1, got 1.5",
    ),
    "dropout NaN": (
        {"dropout": NAN},
        ValueError,
        "dropout must be at least 0 and at most 1, got nan",
    ),
    "dropout str": ({"dropout": "0.5"}, TypeError, "dropout must be a number, got str"),
    "dropout bool": ({"dropout": True}, TypeError, "dropout must be a number, got bool"),
    "recurrent -0.1": (
        {"recurrent_dropout": -0.1},
        ValueError,
        "recurrent_dropout must be at least 0 and at most 1, got -0.1",
    ),
    "bidirectional": ({"bidirectional": 1}, TypeError, "bidirectional must be a bool, got int"),
    "bias": ({"bias": None}, TypeError, "bias must be a bool, got NoneType"),
    "merge": (
        {"merge": "add"},
        ValueError,
        "merge must be 'concat', 'sum', 'mean', 'mul', None or a function .* got 'add'",
    ),
    "checkpoint": ({"checkpoint": True}, ValueError, "checkpoint must be None or 'sqrt', got True"),
    "float16": ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64, got float16"),
    "int": ({"dtype": int}, TypeError, "dtype must be float32 or float64, got int64"),
    "rng": ({"rng": 3}, TypeError, "rng must be a numpy.random.Generator or None, got int"),
}


@each_layer
@pytest.mark.parametrize("options, error, message", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_options(op, options, error, message):
    with pytest.raises(error, match=f"^({op}|{op}Cell): {message}"):
        LAYERS[op](3, 4, **options)


def test_options_of_one_kind():
    for make in (nn.RNN, nn.RNNCell):
        with pytest.raises(
            ValueError, match="nonlinearity must be 'tanh' or 'relu', got 'sigmoid'"
        ):
            make(3, 4, nonlinearity="sigmoid")
    for make in (nn.LSTM, nn.LSTMCell):
        with pytest.raises(TypeError, match="peepholes must be a bool, got int"):
            make(3, 4, peepholes=1)
    for make in (nn.GRU, nn.GRUCell):
        with pytest.raises(TypeError, match="reset_after must be a bool, got str"):
            make(3, 4, reset_after="no")
    for make in (*LAYERS.values(), *CELLS.values()):
        with pytest.raises(TypeError, match="hiden_size"):
            make(3, hiden_size=4)


# ---------------------------------------------------------------- cells


@each_cell
def test_x_of_a_cell(op):
    cell = CELLS[op](I, H)
    for x, error, message in (
        (
            tensor(B, I, dtype=np.float64),
            TypeError,
            "x has dtype float64, the weights have float32: convert the input with x.as",
        ),
        (draw(B, I, dtype=np.float64), TypeError, "x has dtype float64, the weights have float32"),
        (None, TypeError, "x must be numbers, got NoneType"),
        ("text", TypeError, "x must be numbers, got str"),
        ([[1.0] * 7], ValueError, r"x must have shape \(B, 3\) = .*, got \(1, 7\)"),
        (tensor(), ValueError, r"x must have shape \(B, 3\) = \(batch, input_size\), got \(\)"),
        (tensor(I), ValueError, r"x must have shape \(B, 3\) = \(batch, input_size\), got \(3,\)"),
        (tensor(T, B, I), ValueError, r"x must have shape \(B, 3\) = .*, got \(5, 2, 3\)"),
        (tensor(B, 7), ValueError, r"x must have shape \(B, 3\) = .*, got \(2, 7\)"),
    ):
        refused(cell, lambda x=x: cell(x), error, f"^{op}: {message}")
        refused(cell, lambda x=x: cell(x, states(op, B, H)), error, f"^{op}: {message}")


@each_cell
def test_state_of_a_cell(op):
    cell, x = CELLS[op](I, H), tensor(B, I)
    for shape in ((3, H), (B, 5), (1, B, H), (H,)):
        got = re.escape(str(shape))
        message = rf"^{op}: h must have shape \(2, 4\) = \(batch, hidden_size\), got {got}"
        refused(cell, lambda shape=shape: cell(x, states(op, *shape)), ValueError, message, [x])
    double, array = (
        states(op, B, H, dtype=np.float64),
        (draw(B, H),) * 2 if op == "LSTMCell" else draw(B, H),
    )
    refused(
        cell,
        lambda: cell(x, double),
        TypeError,
        f"^{op}: h has dtype float64, the weights have float32",
        [x],
    )
    refused(cell, lambda: cell(x, array), TypeError, f"^{op}: h must be a Tensor, got ndarray", [x])
    if op == "LSTMCell":
        h = tensor(B, H)
        refused(
            cell,
            lambda: cell(x, h),
            TypeError,
            r"^LSTMCell: state must be \(h, c\), got Tensor",
            [x, h],
        )
        refused(
            cell,
            lambda: cell(x, (h,)),
            TypeError,
            r"^LSTMCell: state must be \(h, c\), got tuple of length 1",
            [x, h],
        )
        refused(
            cell,
            lambda: cell(x, (h, tensor(B, 5))),
            ValueError,
            r"^LSTMCell: c must have shape \(2, 4\)",
            [x, h],
        )


# ---------------------------------------------------------------- what is odd and works


@each_layer
def test_layouts(op):
    """Big-endian, reversed, Fortran, broadcast, misaligned and read-only arrays, lists, subclasses:
    the bits of a plain copy."""
    layer, x = LAYERS[op](I, H), draw(T, B, I)

    def bits(x):
        out, state = layer(x)
        return [out.numpy().tobytes(), *(s.numpy().tobytes() for s in state)]

    expected = bits(x)
    raw = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(np.float32).reshape(x.shape)
    misaligned[...] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    for same in (
        mg.Tensor(x),
        x.astype(">f4"),
        x[::-1].copy()[::-1],
        np.asfortranarray(x),
        misaligned,
        read_only,
        OnlyArray(),
        x.tolist(),
        np.repeat(x, 2, 2)[:, :, ::2],
    ):
        assert bits(same) == expected
    assert bits(np.broadcast_to(x[:1], x.shape)) == bits(np.repeat(x[:1], T, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        refused(
            layer,
            lambda: layer(np.matrix(x[0])),
            ValueError,
            rf"^{op}: x must have shape \(T, B, 3\) = .*, got \(2, 3\)",
        )


@each_layer
def test_no_steps_no_rows(op):
    layer = LAYERS[op](I, H)
    for t, b in ((0, B), (T, 0), (0, 0)):
        x, state = tensor(t, b, I), states(op, 1, b, H)
        out, final = layer(x, state)
        assert out.shape == (t, b, H) and all(s.shape == (1, b, H) for s in final)
        if t == 0:
            assert all(
                np.array_equal(a.numpy(), z.numpy())
                for a, z in zip(final, state if isinstance(state, tuple) else (state,), strict=True)
            )
        layer.zero_grad()
        (out.sum() + final.h.sum()).backward()
        assert all(
            p.grad is None or not p.grad.numpy().any() for p in layer.parameters()
        ) and x.grad.shape == (t, b, I)


@each_layer
def test_lengths_in_any_order_and_zero(op):
    """A row of length 0 gives the initial state and zeros; the others are what they are alone."""
    layer, x, state = LAYERS[op](I, H), tensor(T, 3, I), states(op, 1, 3, H)
    out, final = layer(x, state, lengths=[2, 0, 5])
    pairs = list(zip(final, state if isinstance(state, tuple) else (state,), strict=True))
    assert not out.numpy()[:, 1].any() and all(
        np.array_equal(f.numpy()[:, 1], s.numpy()[:, 1]) for f, s in pairs
    )
    assert not out.numpy()[2:, 0].any() and out.numpy()[:, 2].all()
    alone, end = layer(x[:2, :1], tuple(s[:, :1] for _, s in pairs))
    assert np.array_equal(alone.numpy()[:, 0], out.numpy()[:2, 0]) and np.array_equal(
        end.h.numpy()[:, 0], final.h.numpy()[:, 0]
    )
    for kind in (np.uint8, np.int32, np.uint64, ">i8"):
        assert np.array_equal(
            layer(x, state, lengths=np.array([2, 0, 5], kind))[0].numpy(), out.numpy()
        )


@each_layer
@pytest.mark.parametrize("value", [NAN, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_row(op, value):
    layer, x = LAYERS[op](I, H), draw(T, 3, I)
    clean = layer(x)[0].numpy()
    x[2, 1, 0] = value
    dirty = layer(x)[0].numpy()
    assert np.array_equal(np.delete(clean, 1, 1), np.delete(dirty, 1, 1)) and np.array_equal(
        clean[:2], dirty[:2]
    )
    assert (
        np.isnan(dirty[2:, 1]).any()
        if np.isnan(value)
        else not np.array_equal(dirty[2:, 1], clean[2:, 1])
    )


@each_layer
def test_a_refused_call_takes_no_memory(op):
    """x of 24 MB, a view of one number, is refused before anything is made of it."""
    layer, x = (
        LAYERS[op](I, H),
        mg.Tensor(np.broadcast_to(np.float32(1), (1000, 2000, 3)), copy=False),
    )
    tracemalloc.start()
    try:
        for bad in (
            {"lengths": [3] * 3},
            {"reset": np.zeros((3, 3), bool)},
            {"state": tensor(1, 3, 3)},
        ):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises((TypeError, ValueError)):
                layer(x, **bad)
            assert tracemalloc.get_traced_memory()[1] - before < 20000
    finally:
        tracemalloc.stop()


@each_layer
def test_sizes_beyond_memory(op):
    """T B I beyond 2^31: the sizes are computed in 64 bits, and what cannot be had is a
    MemoryError."""
    layer = LAYERS[op](1, 1)
    x = mg.Tensor(np.broadcast_to(np.float32(1), (2**20, 2**26, 1)), copy=False)
    with pytest.raises(MemoryError, match="[Uu]nable to allocate|cannot allocate"):
        layer(x)
