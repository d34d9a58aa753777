"""The fused recurrent layers against the op-by-op form, against differences, and against
themselves: chunks, threads, rows, instruction sets."""

import functools
import itertools

import numpy as np
import pytest

import minigrad as mg
from minigrad.core.kernels import _usable, _use_isa, isa_in_use

nn = mg.nn
LAYERS = {
    "rnn tanh": lambda I, H, **o: nn.RNN(I, H, **o),
    "rnn relu": lambda I, H, **o: nn.RNN(I, H, nonlinearity="relu", **o),
    "lstm": lambda I, H, **o: nn.LSTM(I, H, **o),
    "lstm peepholes": lambda I, H, **o: nn.LSTM(I, H, peepholes=True, **o),
    "gru": lambda I, H, **o: nn.GRU(I, H, **o),
    "gru after": lambda I, H, **o: nn.GRU(I, H, reset_after=True, **o),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def make(name, I, H, dtype=np.float64, scale=1.0, seed=0, **options):
    """A layer with all weights random, biases and peepholes included."""
    rng = np.random.default_rng(seed)
    layer = LAYERS[name](I, H, dtype=dtype, **options)
    with mg.no_grad():
        for parameter in layer.parameters():
            parameter[...] = scale * rng.standard_normal(parameter.shape).astype(dtype)
    return layer


def inputs(layer, T, B, dtype=np.float64, seed=1, scale=1.0):
    """x, the initial state and the cotangents of out and of the final state."""
    rng = np.random.default_rng(seed)
    K, H = len(layer.cells), layer.hidden_size

    def draw(*shape):
        return (scale * rng.standard_normal(shape)).astype(dtype)

    x = mg.Tensor(draw(T, B, layer.input_size), requires_grad=True)
    state = layer.state_type(
        *(mg.Tensor(draw(K, B, H), requires_grad=True) for _ in layer.state_type._fields)
    )
    features = layer._merged_size() if layer.merge is not None or not layer.bidirectional else H
    return x, state, draw(T, B, features), [draw(K, B, H) for _ in state]


def composed(layer, x, state, lengths=None, reset=None, clip_state_grad=None):
    """The layer op by op: cells in loops."""
    finals = []
    for level in range(layer.num_layers):
        outs = []
        for d, direction in enumerate(layer.directions):
            k = level * len(layer.directions) + d
            initial = (
                None
                if state is None
                else (state.h[k], state.c[k])
                if layer.state_type is nn.CellState
                else state.h[k]
            )
            out, final = nn.unroll(
                layer.cells[k],
                x,
                initial,
                lengths=lengths,
                reset=reset,
                reverse=direction == "backward",
                clip_state_grad=clip_state_grad,
            )
            outs.append(out)
            finals.append(final if isinstance(final, tuple) else (final,))
        merge = "concat" if layer.merge is None and level < layer.num_layers - 1 else layer.merge
        x = nn.merge_directions(*outs, merge) if layer.bidirectional else outs[0]
    return x, layer.state_type(*(mg.stack(parts) for parts in zip(*finals, strict=True)))


def run(layer, call, x, state, dout, dstate):
    """Outputs and all gradients as arrays, by name."""
    layer.zero_grad()
    for leaf in (x, *(state or ())):
        leaf.grad = None
    out, final = call(x, state)
    outs = list(out) if isinstance(out, tuple) else [out]
    total = sum(((y * mg.Tensor(dout)).sum() for y in outs[1:]), (outs[0] * mg.Tensor(dout)).sum())
    for value, cotangent in zip(final, dstate, strict=True):
        total = total + (value * mg.Tensor(cotangent)).sum()
    total.backward()
    found = {f"out{i}": y.numpy() for i, y in enumerate(outs)} | {
        f"final {n}": v.numpy() for n, v in zip(final._fields, final, strict=True)
    }
    found |= {f"d{n}": p.grad.numpy() for n, p in layer.named_parameters()} | {"dx": x.grad.numpy()}
    return found | {
        f"d{n}0": v.grad.numpy() for n, v in zip(final._fields, state or (), strict=False)
    }


def same(a, b, rtol=None):
    assert a.keys() == b.keys()
    for key in a:
        if rtol is None:
            assert np.array_equal(a[key], b[key], equal_nan=True), (
                key,
                np.abs(a[key] - b[key]).max(),
            )
        else:
            np.testing.assert_allclose(
                a[key], b[key], rtol=rtol, atol=rtol * np.abs(b[key]).max(initial=0), err_msg=key
            )


# ---------------------------------------------------------------- the op-by-op form: the same bits


@each_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "T, B, I, H", [(1, 1, 1, 1), (3, 2, 3, 4), (7, 5, 2, 7), (4, 3, 17, 33), (5, 13, 9, 16)]
)
def test_fused_is_op_by_op(name, dtype, T, B, I, H):
    layer = make(name, I, H, dtype)
    x, state, dout, dstate = inputs(layer, T, B, dtype)
    fused = run(layer, layer, x, state, dout, dstate)
    same(fused, run(layer, lambda x, s: composed(layer, x, s), x, state, dout, dstate))


@each_layer
@pytest.mark.parametrize(
    "bidirectional, merge, num_layers",
    [
        (True, "concat", 1),
        (True, "mean", 3),
        (True, "mul", 1),
        (True, "sum", 1),
        (True, None, 2),
        (False, "concat", 3),
    ],
)
@pytest.mark.parametrize(
    "with_lengths, with_reset, with_state", list(itertools.product([False, True], repeat=3))
)
def test_fused_is_op_by_op_in_every_form(
    name, bidirectional, merge, num_layers, with_lengths, with_reset, with_state
):
    T, B, I, H = 6, 5, 3, 4
    layer = make(name, I, H, bidirectional=bidirectional, merge=merge, num_layers=num_layers)
    x, state, dout, dstate = inputs(layer, T, B)
    lengths = np.array([6, 0, 3, 1, 5]) if with_lengths else None
    reset = np.random.default_rng(3).random((T, B)) < 0.3 if with_reset else None
    state = state if with_state else None
    if with_lengths:
        with mg.no_grad():
            for b, n in enumerate(lengths):
                if n < T:
                    x[n:, b] = np.nan
    fused = run(layer, lambda x, s: layer(x, s, lengths, reset), x, state, dout, dstate)
    assert all(np.isfinite(a).all() for a in fused.values())
    same(
        fused,
        run(layer, lambda x, s: composed(layer, x, s, lengths, reset), x, state, dout, dstate),
    )
    if with_lengths:
        for b, n in enumerate(lengths):
            assert not fused["out0"][n:, b].any() and not fused["dx"][n:, b].any()


@each_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mask", [False, True])
def test_the_clipped_state_gradient_is_that_of_the_loop(name, dtype, mask):
    """With lengths, reset, a mask: the same bits; the clipping bites, and infinity clips
    nothing."""
    T, B, bound = 7, 4, 0.3
    found = {}
    for clip in (None, bound, np.inf):
        layer = make(
            name,
            3,
            5,
            dtype,
            bidirectional=True,
            num_layers=2,
            clip_state_grad=clip,
            recurrent_dropout=0.4 * mask,
        )
        x, state, dout, dstate = inputs(layer, T, B, dtype)
        lengths, reset = np.array([7, 0, 3, 5]), np.random.default_rng(3).random((T, B)) < 0.2
        mg.manual_seed(3)
        call = functools.partial(layer, lengths=lengths, reset=reset)
        found[clip] = run(layer, call, x, state, dout, dstate)
        if not mask:
            loop = functools.partial(
                composed, layer, lengths=lengths, reset=reset, clip_state_grad=clip
            )
            same(found[clip], run(layer, loop, x, state, dout, dstate))
    same(found[None], found[np.inf])
    assert (
        np.abs(found[bound]["dh0"][:, [0, 2, 3]]).max()
        == dtype(bound)
        < np.abs(found[None]["dh0"][:, [0, 2, 3]]).max()
    )
    assert np.array_equal(
        found[bound]["dh0"][:, 1], np.stack(dstate[0])[:, 1]
    )  # no step: nothing to clip


@each_layer
def test_the_clipped_state_gradient_checkpointed_and_in_chunks(name):
    plain, saving = (
        make(name, 3, 5, np.float32, clip_state_grad=0.5, checkpoint=c) for c in (None, "sqrt")
    )
    x, state, dout, dstate = inputs(plain, 9, 4, np.float32)

    def chunks(x, state):
        first, state = plain(x[:4], state)
        second, state = plain(x[4:], state)
        return mg.concatenate([first, second]), state

    whole = run(plain, plain, x, state, dout, dstate)
    same(whole, run(saving, saving, x, state, dout, dstate))
    same(whole, run(plain, chunks, x, state, dout, dstate))


def test_a_clipped_state_gradient_passes_nan_on():
    layer = make("gru", 2, 3, clip_state_grad=0.1)
    x, _, dout, dstate = inputs(layer, 4, 2)
    dout[3, 0, 0] = np.nan
    assert np.isnan(run(layer, layer, x, None, dout, dstate)["dx"][0, 0]).all()


@each_layer
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}, {"checkpoint": "sqrt"}]
)
def test_a_clipped_state_gradient_has_no_second_order(name, options):
    """It would not be the derivative, as soon as something above the layer is not linear: so it is
    refused, by both forms."""
    layer = make(name, 2, 3, clip_state_grad=0.1, **options)
    x, state, dout, _ = inputs(layer, 4, 2)
    for call in (layer, lambda x, s: composed(layer, x, s, clip_state_grad=0.1)):
        out, _ = call(x, state)
        with pytest.raises(
            RuntimeError, match="with clip_state_grad a gradient cannot be differentiated again"
        ):
            out.backward(mg.Tensor(dout), create_graph=True)
        assert x.grad is None
        out, _ = call(x, state)
        out.backward(mg.Tensor(dout))
        x.grad = None


@pytest.mark.parametrize(
    "bound, error",
    [
        (0, ValueError),
        (-1.0, ValueError),
        (np.nan, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_a_bad_bound_of_the_state_gradient(bound, error):
    with pytest.raises(error, match=r"GRU: clip_state_grad must be .* got"):
        nn.GRU(2, 3, clip_state_grad=bound)


@each_layer
def test_without_bias(name):
    layer = make(name, 3, 4, bias=False)
    x, state, dout, dstate = inputs(layer, 4, 2)
    same(
        run(layer, layer, x, state, dout, dstate),
        run(layer, lambda x, s: composed(layer, x, s), x, state, dout, dstate),
    )


@each_layer
def test_recurrent_dropout_is_the_masked_loop(name):
    layer = make(name, 3, 5, recurrent_dropout=0.4)
    x, state, dout, dstate = inputs(layer, 4, 3)
    mg.manual_seed(5)
    fused = run(layer, layer, x, state, dout, dstate)
    mg.manual_seed(5)
    mask = mg.dropout_mask((3, 5), 0.4, np.float64)

    def loop(x, s):
        out, final = nn.unroll(
            layer.cells[0],
            x,
            (s.h[0], s.c[0]) if layer.state_type is nn.CellState else s.h[0],
            mask=mask,
        )
        return out, layer.state_type(
            *(mg.stack([v]) for v in (final if isinstance(final, tuple) else (final,)))
        )

    same(fused, run(layer, loop, x, state, dout, dstate))
    assert not np.array_equal(
        fused["out0"], run(layer.eval(), layer, x, state, dout, dstate)["out0"]
    )


# ---------------------------------------------------------------- differences


@each_layer
@pytest.mark.parametrize("scale", [pytest.param(0.01, marks=pytest.mark.slow), 1.0, 20.0])
@pytest.mark.slow
def test_gradcheck(name, scale):
    """Every input and weight, unequal lengths, reset, both directions; near zero, usual, and
    saturated."""
    T, B, I, H = 4, 3, 2, 3
    layer = make(name, I, H, bidirectional=True, scale=scale)
    steps = {}
    if scale == 0.01 and "relu" in name:  # kinks
        steps = {"eps": 1e-6, "rtol": 1e-6}
    if scale == 20.0:
        # Steep slopes; 1 - y of a saturated gate y is right to a unit in the last place of 1, times
        # weights of 20.
        steps = {"eps": 1e-5, "rtol": 1e-6, "atol": 1e-9}
    x, state, _, _ = inputs(layer, T, B)
    lengths, reset = [4, 1, 3], np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], bool)
    cells = layer.cells

    def call(x, *rest):
        out, final = layer(x, layer.state_type(*rest[: len(state)]), lengths, reset)
        return (out, *final)

    weights = [p for cell in cells for p in cell.weights() if p is not None]
    assert mg.gradcheck(lambda x, *rest: call(x, *rest), [x, *state, *weights], **steps)


@pytest.mark.slow
@each_layer
def test_second_order(name):
    layer = make(name, 2, 3)
    x, state, _, _ = inputs(layer, 3, 2)
    weights = [p for p in layer.cells[0].weights() if p is not None]
    assert mg.gradgradcheck(
        lambda x, *rest: layer(x, layer.state_type(*rest[: len(state)]), [3, 2])[0],
        [x, *state, *weights],
    )


# ---------------------------------------------------------------- itself


@each_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_on_every_instruction_set_and_number_of_threads(name, dtype):
    layer = make(name, 20, 37, dtype, bidirectional=True, scale=0.3)
    x, state, dout, dstate = inputs(layer, 9, 21, dtype)
    lengths = np.random.default_rng(0).integers(0, 10, 21)
    before, threads, found = isa_in_use(), mg.get_num_threads(), []
    try:
        for isa in _usable():
            _use_isa(isa)
            found.append(run(layer, lambda x, s: layer(x, s, lengths), x, state, dout, dstate))
        _use_isa(before)
        for n in (1, 2, 3, 8):
            mg.set_num_threads(n)
            found.append(run(layer, lambda x, s: layer(x, s, lengths), x, state, dout, dstate))
    finally:
        _use_isa(before)
        mg.set_num_threads(threads)
    for other in found[1:]:
        same(found[0], other)


@each_layer
def test_a_row_alone_has_the_bits_of_the_row_in_its_batch(name):
    layer = make(name, 3, 5, np.float32)
    x, state, dout, dstate = inputs(layer, 7, 6, np.float32)
    lengths = np.array([7, 3, 0, 5, 1, 7])
    whole = run(layer, lambda x, s: layer(x, s, lengths), x, state, dout, dstate)
    for b in range(6):
        n = lengths[b]
        alone_x = mg.Tensor(x.numpy()[:n, b : b + 1], requires_grad=True)
        alone_state = layer.state_type(
            *(mg.Tensor(s.numpy()[:, b : b + 1], requires_grad=True) for s in state)
        )
        alone = run(
            layer,
            layer,
            alone_x,
            alone_state,
            dout[:n, b : b + 1],
            [d[:, b : b + 1] for d in dstate],
        )
        assert np.array_equal(alone["out0"], whole["out0"][:n, b : b + 1]) and np.array_equal(
            alone["dx"], whole["dx"][:n, b : b + 1]
        )
        assert np.array_equal(alone["final h"], whole["final h"][:, b : b + 1]) and np.array_equal(
            alone["dh0"], whole["dh0"][:, b : b + 1]
        )


@each_layer
def test_a_sequence_in_chunks_has_the_same_bits(name):
    layer = make(name, 3, 5, np.float32)
    x, state, dout, dstate = inputs(layer, 10, 4, np.float32)

    def chunks(x, s):
        first, s = layer(x[:4], s)
        second, s = layer(x[4:], s)
        return mg.concatenate([first, second]), s

    same(run(layer, layer, x, state, dout, dstate), run(layer, chunks, x, state, dout, dstate))


@each_layer
@pytest.mark.parametrize("T", [3, 4, 10, 17])
def test_checkpointing_has_the_same_bits(name, T):
    options = {"bidirectional": True, "num_layers": 2}
    plain, saving = (
        make(name, 3, 5, np.float32, **options),
        make(name, 3, 5, np.float32, checkpoint="sqrt", **options),
    )
    x, state, dout, dstate = inputs(plain, T, 4, np.float32)
    lengths, reset = np.array([T, 1, 0, T - 1]), np.random.default_rng(0).random((T, 4)) < 0.2
    same(
        run(plain, lambda x, s: plain(x, s, lengths, reset), x, state, dout, dstate),
        run(saving, lambda x, s: saving(x, s, lengths, reset), x, state, dout, dstate),
    )


@each_layer
@pytest.mark.parametrize("scale", [0.1, 0.2, 0.5, 1.0, 2.0])
def test_a_float32_step_is_close_to_the_exact_one(name, scale):
    """Each step, from the state that float32 has there, is within 4 * 2^-24 (1 + S) of the exact
    one, S being the sum of the absolute terms of the gate: whatever the size of the weights. A relu
    is not bounded, S is that of its own sum."""
    T, B, I, H = 12, 6, 16, 32
    single, double = make(name, I, H, np.float32, scale), make(name, I, H, np.float64)
    weights = {key: a.astype(np.float64) for key, a in single.state_dict().items()}
    double.load_state_dict(weights)
    x, state, _, _ = inputs(single, T, B, np.float32)
    W, U, b = (np.abs(weights[f"cells.0.{key}"]) for key in "WUb")
    for now in x.numpy():
        wide = double.state_type(*(mg.Tensor(part.numpy().astype(np.float64)) for part in state))
        sums = b.reshape(-1)[: W.shape[1]] + np.abs(now) @ W + np.abs(wide.h.numpy()[0]) @ U
        size = 1 + sums.reshape(B, -1, H).max(1)
        if "peepholes" in name:
            size += np.abs(weights["cells.0.p"]).max(0) * (1 + np.abs(wide.c.numpy()[0]))
        with mg.no_grad():
            exact = double(mg.Tensor(now[None].astype(np.float64)), wide)[1]
            state = single(mg.Tensor(now[None]), state)[1]
        for part, right in zip(state, exact, strict=True):
            if right is not exact.h:  # c' = f c + i g also takes over c, and its errors in f
                size = size * (1 + np.abs(wide.c.numpy()[0]))
            assert (np.abs(part.numpy()[0] - right.numpy()[0]) <= 4 * 2.0**-24 * size).all()


@each_layer
@pytest.mark.parametrize("seed", range(5))
def test_float32_gradients_are_close_to_float64(name, seed):
    """Weights of the size that layers start with: larger ones make rounding errors grow along a
    sequence, in any library."""
    double, single = (
        make(name, 16, 32, dtype, scale=0.1, seed=seed) for dtype in (np.float64, np.float32)
    )
    single.load_state_dict({n: a.astype(np.float32) for n, a in double.state_dict().items()})
    double.load_state_dict({n: a.astype(np.float64) for n, a in single.state_dict().items()})
    x, state, dout, dstate = inputs(single, 20, 8, np.float32, seed=seed + 100)
    a = run(single, single, x, state, dout, dstate)
    x64, state64 = (
        mg.Tensor(x.numpy().astype(np.float64), requires_grad=True),
        double.state_type(
            *(mg.Tensor(s.numpy().astype(np.float64), requires_grad=True) for s in state)
        ),
    )
    b = run(
        double,
        double,
        x64,
        state64,
        dout.astype(np.float64),
        [d.astype(np.float64) for d in dstate],
    )
    for key in a:
        if key.startswith("d"):
            assert np.linalg.norm(a[key] - b[key]) <= 1e-6 * np.linalg.norm(b[key]), key
        elif "relu" not in name:
            assert np.abs(a[key] - b[key]).max() <= 5e-7 * max(1, np.abs(b[key]).max()), key


@each_layer
def test_a_zero_gradient_gives_zero_gradients(name):
    layer = make(name, 3, 5)
    x, state, dout, dstate = inputs(layer, 4, 2)
    found = run(layer, layer, x, state, 0 * dout, [0 * d for d in dstate])
    assert all(not found[key].any() for key in found if key.startswith("d"))


@each_layer
def test_no_steps_and_no_rows(name):
    layer = make(name, 3, 5)
    for T, B in ((0, 2), (4, 0), (0, 0)):
        x, state, dout, dstate = inputs(layer, T, B)
        found = run(layer, layer, x, state, dout, dstate)
        assert found["out0"].shape == (T, B, 5) and np.array_equal(
            found["final h"], state.h.numpy() if T == 0 else np.zeros((1, 0, 5))
        )
        assert all(not found[key].any() for key in found if key.startswith("dcells"))


def test_nan_stays_in_its_row():
    layer = make("lstm", 3, 5)
    x, state, _, _ = inputs(layer, 4, 3)
    clean = layer(x, state)[0].numpy()
    with mg.no_grad():
        x[1, 1] = np.nan
    dirty = layer(x, state)[0].numpy()
    assert (
        np.isnan(dirty[1:, 1]).all()
        and np.array_equal(np.delete(clean, 1, 1), np.delete(dirty, 1, 1))
        and np.array_equal(clean[0], dirty[0])
    )


def test_trace_gives_gates_and_cells_of_the_same_run():
    layer = make("lstm", 3, 5, bidirectional=True)
    x, state, _, _ = inputs(layer, 4, 2)
    out, final, trace = layer(x, state, trace=True)
    assert len(trace) == 2 and set(trace[0]) == {"i", "f", "g", "o", "c", "h"}
    first = trace[0]
    assert np.array_equal(
        first["o"] * mg.tanh(mg.Tensor(first["c"])).numpy(), first["h"]
    ) and np.array_equal(first["h"], out.numpy()[..., :5])
    assert np.array_equal(first["c"][-1], final.c[0].numpy())
    with pytest.raises(ValueError):
        first["i"][0] = 0


def test_telemetry_tells_the_norms_of_each_step():
    layer = make("lstm", 3, 5)
    x, state, dout, dstate = inputs(layer, 6, 4)
    assert layer.telemetry == []
    run(layer, layer, x, state, dout, dstate)
    told = layer.telemetry[0]
    h, c, hs, cs = state.h[0], state.c[0], [], []
    for t in range(6):
        h, c = layer.cells[0](x[t].detach(), (h, c))
        h.retain_grad()
        c.retain_grad()
        hs.append(h)
        cs.append(c)
    total = (
        (mg.stack(hs) * mg.Tensor(dout)).sum()
        + (h * mg.Tensor(dstate[0][0])).sum()
        + (c * mg.Tensor(dstate[1][0])).sum()
    )
    total.backward()
    np.testing.assert_allclose(
        told.dh_norm, [np.linalg.norm(v.grad.numpy()) for v in hs], rtol=1e-12
    )
    np.testing.assert_allclose(
        told.dc_norm, [np.linalg.norm(v.grad.numpy()) for v in cs], rtol=1e-12
    )
    assert told.nonfinite is None and layer.first_nonfinite() is None


def test_telemetry_finds_the_first_value_that_is_not_finite():
    layer = make("gru", 3, 5, num_layers=2)
    x, state, dout, dstate = inputs(layer, 6, 4)
    with mg.no_grad():
        x[2, 1] = np.inf
    run(layer, layer, x, state, dout, dstate)
    place = layer.first_nonfinite()
    assert (place["pass"], place["layer"], place["direction"], place["step"], place["row"]) == (
        "forward",
        0,
        "forward",
        2,
        1,
    )
    dout[3, 2, 1] = np.nan
    x, state, _, _ = inputs(layer, 6, 4)
    run(layer, layer, x, state, dout, dstate)
    place = layer.first_nonfinite()
    assert (place["pass"], place["layer"], place["step"], place["row"]) == ("backward", 1, 3, 2)


def test_changes_of_what_was_saved_are_caught():
    layer = make("lstm", 3, 5)
    x, state, _, _ = inputs(layer, 4, 2)
    out, _ = layer(x, state)
    with mg.no_grad():
        layer.cells[0].W[0] = 0.0
    with pytest.raises(
        RuntimeError,
        match="lstm: one of the tensors needed for gradient computation has been modified",
    ):
        out.sum().backward()
    assert x.grad is None


@each_layer
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"bidirectional": True, "checkpoint": "sqrt"}]
)
def test_outputs_are_kept_once(name, options):
    """Both directions write into the array that is returned; so a change of it before backward is
    caught."""
    layer = make(name, 3, 5, **options)
    x, state, _, _ = inputs(layer, 5, 2)
    out, _, traces = layer(x, state, trace=True)
    assert all(np.shares_memory(out.numpy(), trace["h"]) for trace in traces)
    out, _ = layer(x, state)
    with mg.no_grad():
        out[2] = 0.0
    with pytest.raises(
        RuntimeError, match="one of the tensors needed for gradient computation has been modified"
    ):
        out.sum().backward()
    assert x.grad is None
