"""What layers, cells and their loops do with weights that were replaced, arrays that change,
internals that are called by hand, and sequences without a step; where first_nonfinite says that a
value arose."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from test_rnn import LAYERS, composed, each_layer, inputs, make

import minigrad as mg
from minigrad.core.kernels import PackedProduct
from minigrad.nn import fused as recurrent
from minigrad.nn.arguments import Steps

nn = mg.nn
BAD_WEIGHTS = {
    "another shape": lambda p: nn.Parameter(np.ones((2, 2)), p.dtype),
    "empty": lambda p: nn.Parameter(np.ones((0, 0)), p.dtype),
    "0-d": lambda p: nn.Parameter(np.ones(()), p.dtype),
    "one column less": lambda p: nn.Parameter(np.ones((*p.shape[:-1], p.shape[-1] - 1)), p.dtype),
    "transposed": lambda p: nn.Parameter(np.ones((*p.shape[::-1], 1)), p.dtype),
    "float32": lambda p: nn.Parameter(np.ones(p.shape), np.float32),
}


@pytest.mark.parametrize("bad", BAD_WEIGHTS)
@pytest.mark.parametrize(
    "name, weight", [*itertools.product(LAYERS, "WUb"), ("lstm peepholes", "p")]
)
def test_a_replaced_weight_is_checked_at_each_call(name, weight, bad):
    layer = make(name, 3, 4)
    cell = layer.cells[0]
    x, state, _, _ = inputs(layer, 3, 2)
    layer(x, state)
    setattr(cell, weight, BAD_WEIGHTS[bad](getattr(cell, weight)))
    single = (state.h[0], state.c[0]) if len(state) == 2 else state.h[0]
    for call in (
        lambda: layer(x, state),
        lambda: cell(x[0], single),
        lambda: nn.unroll(cell, x, single),
    ):
        with pytest.raises((TypeError, ValueError), match=r"must have shape|dtype"):
            call()


@each_layer
def test_replaced_weights_that_fit_are_used(name):
    """Views, transposed and read-only memory: the values count, not the layout."""
    layer = make(name, 3, 4)
    x, state, _, _ = inputs(layer, 3, 2)
    expected = layer(x, state)[0].numpy()
    cell = layer.cells[0]
    for weight in ("W", "U", "b", "p"):
        value = getattr(cell, weight)
        if value is not None:
            strided = np.asfortranarray(np.repeat(value.numpy(), 2, axis=0))[::2]
            strided.flags.writeable = False
            setattr(cell, weight, mg.Tensor(strided, copy=False))
    assert np.array_equal(layer(x, state)[0].numpy(), expected)


def test_a_weight_is_not_initialised_again():
    layer = make("lstm", 3, 4)
    x, _, _, _ = inputs(layer, 3, 2)
    layer(x)
    with pytest.raises(RuntimeError, match="Tensor: __init__ has been called before"):
        layer.cells[0].b.__init__(np.ones(5), np.float64)
    layer(x)


@pytest.mark.parametrize("value", [np.ones((3, 16)), 1.0, "w"])
def test_a_parameter_is_not_replaced_by_something_else(value):
    layer = make("lstm", 3, 4)
    before = layer.cells[0].W
    with pytest.raises(TypeError, match="LSTMCell: W is a Parameter"):
        layer.cells[0].W = value
    assert layer.cells[0].W is before


def test_cells_of_another_kind_are_refused():
    layer = make("lstm", 3, 4)
    x, _, _, _ = inputs(layer, 3, 2)
    for cell in (
        nn.GRUCell(3, 4, dtype=np.float64),
        nn.LSTMCell(3, 4, layer_norm=True, dtype=np.float64),
    ):
        layer.cells[0] = cell
        with pytest.raises(TypeError, match=r"LSTM: cells\[0\] must be a plain LSTMCell"):
            layer(x)
    layer.cells = []
    with pytest.raises(ValueError, match="LSTM: cells must be 1"):
        layer(x)


def test_linear_and_embedding_check_their_weights():
    layer, table = nn.Linear(2, 3), nn.Embedding(4, 2)
    layer.bias = nn.Parameter(np.ones(1, np.float32))
    with pytest.raises(ValueError, match=r"Linear: bias must have shape \(3,\)"):
        layer(mg.ones((2, 2)))
    layer.bias, layer.weight = None, nn.Parameter(np.ones(2, np.float32))
    with pytest.raises(ValueError, match=r"Linear: weight must have shape \(d, k\)"):
        layer(mg.ones((2, 2)))
    for weight in (None, nn.Parameter(np.ones(2))):
        table.weight = weight
        with pytest.raises((TypeError, ValueError), match="Embedding: weight must"):
            table([1])


@pytest.mark.parametrize(
    ("name", "other"), [("RNN", nn.RNNCell), ("LSTM", nn.LSTMCell), ("GRU", nn.GRUCell)]
)
def test_messages_name_the_layer_as_users_write_it(name, other):
    layer, x = getattr(nn, name)(3, 4, 2, dropout=0.5), mg.ones((5, 2, 3))
    layer.dropout = 1.5
    with pytest.raises(ValueError, match=f"^{name}: dropout must be"):
        layer(x)
    layer.dropout, layer.recurrent_dropout = 0.5, "all"
    with pytest.raises(TypeError, match=f"^{name}: recurrent_dropout must be"):
        layer(x)
    layer.recurrent_dropout, layer.cells[1] = 0.0, other(4, 4, dtype=np.float64)
    with pytest.raises(TypeError, match=f"^{name}: U has dtype float64, x has float32"):
        layer(x)
    cell = other(3, 4)
    with pytest.raises(ValueError, match=rf"^{name}Cell: x must have shape \(B, 3\)"):
        cell(mg.ones((2, 2)))


def test_messages_name_the_module_or_the_function():
    table, layer = nn.Embedding(4, 2), nn.Dropout(0.5)
    layer.p = 2.0
    for prefix, call in (
        ("Embedding", lambda: table([4])),
        ("Embedding", lambda: table([1.0])),
        ("Embedding", lambda: table(mg.ones(2))),
        ("embedding", lambda: mg.embedding(table.weight, [4])),
        ("Dropout", lambda: layer(mg.ones(2))),
        ("Dropout", lambda: nn.Dropout(0.5)("x")),
        ("dropout", lambda: mg.dropout(mg.ones(2), 2.0)),
    ):
        with pytest.raises((IndexError, TypeError, ValueError), match=f"^{prefix}: "):
            call()


# ---------------------------------------------------------------- internals


def sequence_arguments():
    good = {
        "x": (3, 2, 3),
        "h0": (2, 4),
        "c0": (2, 4),
        "W": (3, 16),
        "U": (4, 16),
        "b": (16,),
        "p": (3, 4),
    }
    return {name: mg.Tensor(np.ones(shape), requires_grad=True) for name, shape in good.items()}


def test_sequence_refuses_what_does_not_fit():
    """Each argument in turn is replaced by something else: an exception, never a crash."""
    tensors = sequence_arguments()
    others = [
        mg.Tensor(np.ones(shape, dtype))
        for dtype in (np.float32, np.float64)
        for shape in [
            (),
            (0,),
            (4,),
            (17,),
            (0, 0),
            (2, 5),
            (4, 15),
            (3, 2, 0),
            (2, 2, 3),
            (1, 1, 1, 1),
        ]
    ]
    others += [mg.Tensor.__new__(mg.Tensor), np.ones((2, 4)), 1.0, "x"]
    recurrent.sequence("lstm", **tensors)
    refused = 0
    for cell, name in itertools.product(recurrent.CELLS, tensors):
        for other in others:
            try:
                recurrent.sequence(cell, **(tensors | {name: other}))
            except (TypeError, ValueError):
                refused += 1
    # All but two for each cell: x of another T or batch without a state.
    assert refused >= len(recurrent.CELLS) * (len(tensors) * len(others) - 2)


def test_sequence_refuses_bad_options():
    tensors = sequence_arguments()
    for bad in (
        {"cell": "transformer"},
        {"cell": ["lstm"]},
        {"op": None},
        {"steps": [2, 1]},
        {"steps": Steps("LSTM", 4, 2, [4, 1], None)},
        {"steps": Steps("LSTM", 3, 1, None, np.ones((3, 1), bool))},
        {"mask": np.ones(4)},
        {"mask": np.ones((2, 4), np.float32)},
        {"mask": "m"},
        {"clip": -1.0},
        {"clip": np.nan},
        {"clip": "1"},
        {"telemetry": 3},
        {"composed": 3},
        {"out": mg.ones((3, 2, 4))},
        {"out": mg.Tensor(np.ones((3, 2, 5)))},
        {"out": mg.Tensor(np.asfortranarray(np.ones((3, 2, 4))))},
    ):
        with pytest.raises((TypeError, ValueError)):
            recurrent.sequence(**({"cell": "lstm"} | tensors | bad))
    for lengths, reset in (
        ([4, 1], None),
        ([-1, 1], None),
        ([1.0, 2.0], None),
        ([1], None),
        (None, np.ones((3, 2))),
        (None, np.ones((2, 2), bool)),
    ):
        with pytest.raises((TypeError, ValueError), match="LSTM: (lengths|reset) must"):
            Steps("LSTM", 3, 2, lengths, reset)
    steps = Steps("LSTM", 3, 2, [3, 1], None)
    for name, value in (("T", 9), ("B", 9), ("lengths", np.array([9, 9])), ("more", 0)):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(steps, name, value)
    with pytest.raises(ValueError, match="read-only"):
        steps.lengths[0] = 9
    for H in (-1, 0, 2**62):
        with pytest.raises((ValueError, MemoryError, OverflowError)):
            recurrent.allocate_directions(tensors["x"], H)
    with pytest.raises(ValueError):
        recurrent.allocate_directions(mg.ones(3), 2)
    h, h_T, c_T = recurrent.sequence("lstm", **tensors)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        h.backward(mg.Tensor(np.ones(h.shape)), create_graph=True)


@pytest.mark.parametrize(
    "b",
    [
        np.ones(3),
        np.ones((2, 2), int),
        np.ones((2, 2, 2)),
        None,
        "b",
        np.ma.ones((2, 2)),
        np.ones((2, 2), np.float16),
        [[1, 2]],
    ],
)
def test_packed_product_refuses_what_it_cannot_pack(b):
    with pytest.raises((TypeError, ValueError), match="PackedProduct"):
        PackedProduct(b)
    with pytest.raises((TypeError, ValueError), match="PackedProduct"):
        PackedProduct(np.ones((2, 2)))(b)
    with pytest.raises(ValueError, match="a must have 2 columns"):
        PackedProduct(np.ones((2, 2)))(np.ones((2, 3)))


# ---------------------------------------------------------------- loops over cells


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"cell": 3}, TypeError, "cell must be"),
        ({"x": mg.ones((3, 2))}, ValueError, "x must have shape"),
        ({"x": mg.ones((3, 2, 4))}, ValueError, "x must have shape"),
        ({"x": mg.Tensor(np.ones((3, 2, 3)))}, TypeError, "float64"),
        ({"x": None}, TypeError, "x must be"),
        ({"state": mg.ones((2, 4))}, TypeError, r"state must be \(h, c\)"),
        ({"state": (mg.ones((2, 4)), None)}, TypeError, "c must be a Tensor"),
        ({"state": (mg.ones((2, 5)),) * 2}, ValueError, "h must"),
        ({"lengths": [4, 0]}, ValueError, "lengths must be from 0 to T = 3, got 4 at index 0"),
        ({"lengths": [1.0, 2.0]}, TypeError, "ints"),
        ({"lengths": [1]}, ValueError, "lengths must have shape"),
        ({"lengths": np.ma.array([1, 2])}, TypeError, "masked"),
        ({"reset": np.ones((3, 2))}, TypeError, "reset must be an array of bool"),
        ({"reverse": 1}, TypeError, "reverse must be a bool"),
        ({"reset": np.ones((2, 2), bool)}, ValueError, "reset must have shape"),
        ({"mask": np.ones((2, 4))}, TypeError, "mask has dtype"),
        ({"mask": np.ones((1, 4), np.float32)}, ValueError, "mask must have shape"),
        ({"mask": 3}, TypeError, "mask must be a Tensor"),
        ({"weights": 3}, TypeError, "weights must be"),
        ({"clip_state_grad": 0}, ValueError, "clip_state_grad must be above 0"),
        ({"clip_state_grad": np.nan}, ValueError, "above 0"),
        ({"clip_state_grad": "1"}, TypeError, "must be a number"),
    ],
)
def test_unroll_checks_its_arguments(arguments, error, message):
    arguments = {"cell": nn.LSTMCell(3, 4), "x": mg.ones((3, 2, 3))} | arguments
    with pytest.raises(error, match=message.replace("ints", "lengths must be integers")):
        nn.unroll(**arguments)


def test_bidirectional_and_merge_directions_check_their_arguments():
    cells, x = (nn.GRUCell(3, 4), nn.GRUCell(3, 5)), mg.ones((3, 2, 3))
    assert nn.bidirectional(*cells, x).shape == (3, 2, 9)
    for arguments, error in (
        ((*cells, x, "sum"), ValueError),
        ((*cells, x, "max"), ValueError),
        ((cells[0], 3, x), TypeError),
        ((*cells, mg.ones((3, 2))), ValueError),
        ((cells[0], nn.GRUCell(2, 4), x), ValueError),
    ):
        with pytest.raises(error, match="bidirectional: "):
            nn.bidirectional(*arguments)
    with pytest.raises(ValueError, match="lengths must be from 0 to T = 3"):
        nn.bidirectional(*cells, x, lengths=[4, 1])
    for arguments, error in (
        ((1.0, mg.ones(2), "sum"), TypeError),
        ((mg.ones(2), mg.ones(3), "mean"), ValueError),
        ((mg.ones(2), mg.ones(2), []), ValueError),
    ):
        with pytest.raises(error, match="merge_directions: "):
            nn.merge_directions(*arguments)


@pytest.mark.parametrize(
    "merge",
    [
        lambda a, b: None,
        lambda a, b: 3.0,
        lambda a, b: a.sum(),
        lambda a, b: (a, b),
        lambda a, b: a[:0],
    ],
)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_merge_that_returns_nonsense(merge, num_layers):
    with pytest.raises((TypeError, ValueError), match="LSTM: merge must return"):
        nn.LSTM(2, 3, num_layers, bidirectional=True, merge=merge)(mg.ones((3, 2, 2)))


class Changes:
    """Lengths that are other lengths each time somebody looks."""

    def __init__(self):
        self.looks = 0

    def __array__(self, dtype=None, copy=None):
        self.looks += 1
        return np.array([2, 2] if self.looks == 1 else [2**40, -5])


def test_lengths_are_read_once_and_kept():
    layer = make("gru", 3, 4, num_layers=2)
    x, _, dout, _ = inputs(layer, 3, 2)
    changing = Changes()
    out, _ = layer(x, lengths=changing)
    assert changing.looks == 1 and np.array_equal(out.numpy(), layer(x, lengths=[2, 2])[0].numpy())
    lengths, reset = np.array([3, 1]), np.zeros((3, 2), bool)
    expected = mg.grad(layer(x, lengths=[3, 1])[0], x, mg.Tensor(dout))[0].numpy()
    for call in (layer, lambda x, **options: composed(layer, x, None, **options)):
        out, _ = call(x, lengths=lengths, reset=reset)
        lengths[:], reset[:] = 0, True
        np.testing.assert_allclose(
            mg.grad(out, x, mg.Tensor(dout))[0].numpy(), expected, rtol=1e-12
        )
        lengths[:], reset[:] = [3, 1], False


def test_an_array_that_is_filled_again_before_backward():
    layer = make("lstm", 3, 4)
    x, _, dout, _ = inputs(layer, 3, 2)
    array = x.numpy().copy()
    expected = mg.grad(layer(x)[0], layer.cells[0].W, mg.Tensor(dout))[0].numpy()
    mask = np.full((2, 4), 0.5)
    masked = mg.grad(nn.unroll(layer.cells[0], x, mask=mask)[0], layer.cells[0].U, mg.Tensor(dout))[
        0
    ].numpy()
    for call in (layer, lambda x: nn.unroll(layer.cells[0], x)):
        out, _ = call(array)
        array[:] = 0
        assert np.array_equal(mg.grad(out, layer.cells[0].W, mg.Tensor(dout))[0].numpy(), expected)
        array[:] = x.numpy()
    out, _ = nn.unroll(layer.cells[0], x, mask=mask)
    mask[:] = 0
    assert np.array_equal(mg.grad(out, layer.cells[0].U, mg.Tensor(dout))[0].numpy(), masked)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"num_layers": 2**63}, ValueError),
        ({"num_layers": 10**9}, ValueError),
        ({"hidden_size": 2**62}, ValueError),
        ({"hidden_size": 2**63}, ValueError),
        ({"input_size": 2**30}, MemoryError),
        ({"hidden_size": 10**6, "num_layers": 3}, MemoryError),
    ],
)
def test_sizes_that_no_machine_holds(options, error):
    for kind in (nn.RNN, nn.LSTM, nn.GRU):
        with pytest.raises(error):
            kind(**({"input_size": 2, "hidden_size": 3} | options))


# ---------------------------------------------------------------- no steps


@each_layer
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"checkpoint": "sqrt"}, {"bias": False}],
)
@pytest.mark.parametrize(
    "T, B, lengths", [(0, 3, None), (4, 0, None), (4, 3, [0, 0, 0]), (0, 0, None), (0, 2, [0, 0])]
)
def test_without_a_step_the_state_passes_and_the_rest_gets_zeros(name, options, T, B, lengths):
    layer = make(name, 3, 4, **options)
    x, state, dout, dstate = inputs(layer, T, B)
    leaves = [x, *state, *layer.parameters()]
    for call in (layer, lambda x, s, lengths: composed(layer, x, s, lengths)):
        for create_graph in (False, True):
            out, final = call(x, state, lengths=lengths)
            assert not out.numpy().any() and all(
                np.array_equal(a.numpy(), b.numpy()) for a, b in zip(final, state, strict=True)
            )
            gradients = mg.grad(
                [out, *final],
                leaves,
                [mg.Tensor(dout), *map(mg.Tensor, dstate)],
                create_graph=create_graph,
            )
            n = 1 + len(state)
            for gradient, expected in zip(gradients[1:n], dstate, strict=True):
                assert np.array_equal(gradient.numpy(), expected)
            for gradient, leaf in zip(
                gradients[:1] + gradients[n:], leaves[:1] + leaves[n:], strict=True
            ):
                assert gradient.shape == leaf.shape and not gradient.numpy().any()
        total = sum(
            ((gradient * gradient).sum() for gradient in gradients),
            mg.Tensor(0.0, dtype=np.float64),
        )
        for second in mg.grad(total, leaves, allow_unused=True):
            assert second is None or not second.numpy().any()


# ---------------------------------------------------------------- first_nonfinite


@each_layer
@pytest.mark.parametrize("checkpoint", [None, "sqrt"])
@pytest.mark.parametrize(
    "case", ["nan in x", "saturated", "h0", "W", "U", "b", "padding", "reverse", "gradient"]
)
def test_first_nonfinite(name, checkpoint, case):
    layer = make(
        name, 3, 5, scale=0.3, checkpoint=checkpoint, num_layers=2, bidirectional=case == "reverse"
    )
    x, state, dout, dstate = inputs(layer, 100, 3)
    lengths, expected = [100, 50, 0], ("forward", 0, "forward", 5, 1)
    with mg.no_grad():
        if case == "nan in x":
            x[5, 1, 0] = x[30, 0, 0] = np.nan
        elif case == "saturated":
            layer.cells[0].W[...] = np.abs(layer.cells[0].W.numpy()) + 0.1
            x[5, 1] = np.inf
        elif case == "h0":
            state.h[0, 1, 2] = np.inf
            expected = ("forward", 0, "forward", 0, 1)
        elif case in ("W", "U", "b"):
            getattr(layer.cells[0], case)[..., 0] = np.inf
            expected = ("forward", 0, "forward", 0, 0)
        elif case == "padding":
            x[50:, 1] = x[:, 2] = np.nan
            expected = None
        elif case == "reverse":
            layer.cells[0].W[...] = 0.0  # nothing of x in the forward direction but NaN * 0
            layer.cells[1].U[0, 0] = np.nan
            expected = ("forward", 0, "backward", 99, 0)
        elif case == "gradient":
            dout[60, 0, 0] = dout[7, 1, 1] = np.inf
            expected = ("backward", 1, "forward", 60, 0)

    def found():
        place = layer.first_nonfinite()
        return place and tuple(place[key] for key in ("pass", "layer", "direction", "step", "row"))

    before = None if case == "gradient" else expected
    with mg.no_grad():
        layer(x, state, lengths)
    assert found() == before
    out, final = layer(x, state, lengths)
    assert found() == before
    mg.grad(
        [out, *final], [x, *state, *layer.parameters()], [mg.Tensor(dout), *map(mg.Tensor, dstate)]
    )
    assert found() == expected


# ---------------------------------------------------------------- copies


def test_a_copy_of_a_model_has_gradients_and_activations():
    class Net(nn.Module):
        def __init__(self):
            self.layer = nn.LSTM(2, 3)
            self.tied = [self.layer.cells[0].W]
            self.kept = {"state": None}

        def forward(self, x):
            out, self.kept["state"] = self.layer(x)
            self.last = out
            return out

    net = Net()
    net(mg.ones((4, 2, 2))).sum().backward()
    net.layer.cells[0].W.tag = "input"
    net.layer.cells[0].W.register_hook(lambda g: g * 2)
    duplicate = copy.deepcopy(net)
    assert (
        duplicate.tied[0] is duplicate.layer.cells[0].W is not net.layer.cells[0].W
        and duplicate.tied[0].tag == "input"
    )
    for (name, a), (other, b) in zip(
        net.named_parameters(), duplicate.named_parameters(), strict=True
    ):
        assert (
            name == other
            and np.array_equal(a.grad.numpy(), b.grad.numpy())
            and not np.shares_memory(a.grad.numpy(), b.grad.numpy())
        )
    assert (
        np.array_equal(duplicate.last.numpy(), net.last.numpy())
        and duplicate.last.is_leaf
        and not duplicate.last.requires_grad
    )
    assert (
        isinstance(duplicate.kept["state"], nn.CellState)
        and duplicate.kept["state"].h.is_leaf
        and not net.last.is_leaf
    )
    assert copy.copy(net).last is net.last
    for gradient in (net.layer.cells[0].W, duplicate.layer.cells[0].W):
        assert gradient.grad is not None
    layer = pickle.loads(pickle.dumps(net.layer))
    assert np.array_equal(layer.cells[0].U.grad.numpy(), net.layer.cells[0].U.grad.numpy())
    assert np.array_equal(layer.telemetry[0].dh_norm, net.layer.telemetry[0].dh_norm)
    with pytest.raises(
        RuntimeError, match="only leaf tensors can be copied, this was made by lstm"
    ):
        copy.deepcopy(net.last)
