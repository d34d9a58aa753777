"""Step.expand: the pass through the time steps of a fused layer."""

import itertools

import numpy as np
import pytest
from print_bits import LAYERS

import minigrad as mg
from minigrad.study import steps

T, B, I, H = 4, 3, 2, 3


def outer_pass(layer, x, seed=5, **call):
    out, last = layer(x, **call)
    rng = np.random.default_rng(seed)
    loss = sum(
        (y * rng.standard_normal(y.shape).astype(y.dtype)).sum() for y in (out, *last) if y.size
    )
    return steps(loss)


def is_fused(step):
    return step.name in ("rnn_tanh", "rnn_relu", "lstm", "gru", "gru_after")


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_of_every_option(kind, dtype):
    layer_type, fixed = LAYERS[kind]
    rng = np.random.default_rng(1)
    reset = rng.random((T, B)) < 0.3
    for both, layers, varied, masked in itertools.product((False, True), (1, 2), *[(0, 1)] * 2):
        layer = layer_type(
            I,
            H,
            num_layers=layers,
            bidirectional=both,
            recurrent_dropout=0.4 * masked,
            clip_state_grad=0.3 if masked else None,
            checkpoint="sqrt" if varied else None,
            dtype=dtype,
            **fixed,
        )
        x = mg.Tensor(rng.standard_normal((T, B, I)).astype(dtype), requires_grad=True)
        call = {"lengths": [4, 0, 2], "reset": reset} if varied else {}
        run = outer_pass(layer, x, **call)
        count = 0
        while (step := run.run(until=is_fused)) is not None:
            count += 1
            with step.expand() as inside:
                seen = [inner.t for inner in inside]
            assert set(range(T)) <= {t for t in seen if t is not None}
            for ours, theirs in zip(inside.dx, step.dx, strict=True):
                assert (ours is None) == (theirs is None)
                if ours is not None:
                    assert ours.numpy().tobytes() == theirs.numpy().tobytes()
        assert count == layers * (1 + both)
        assert x.grad is not None


def test_an_edit_inside_is_that_of_a_hook():
    """The gradient of h at t = 1 doubled: inside of the expansion, and by a hook in a loop."""
    layer = mg.nn.GRU(I, H, dtype="float64")
    (cell,) = layer.cells
    x = mg.Tensor(np.random.default_rng(2).standard_normal((T, B, I)), requires_grad=True)
    weight = np.random.default_rng(3).standard_normal((T, B, H))
    run = steps((layer(x)[0] * weight).sum())
    step = run.run(until="gru")
    with step.expand() as inside:
        at = inside.run(until=lambda inner: inner.name == "add" and inner.t == 1)
        at.dy = at.dy * 2.0
        inside.run()
    step.dx = inside.dx
    run.run()
    grads = {name: p.grad.numpy() for name, p in layer.named_parameters()} | {"x": x.grad.numpy()}

    twin = mg.Tensor(x.numpy(), requires_grad=True)
    layer.zero_grad()
    h, outputs = mg.zeros((B, H), "float64"), []
    for t in range(T):
        h = cell(twin[t], h)
        if t == 1:
            h.register_hook(lambda dy: dy * 2.0)
        outputs.append(h)
    (mg.stack(outputs) * weight).sum().backward()
    expected = {n: p.grad.numpy() for n, p in layer.named_parameters()} | {"x": twin.grad.numpy()}
    for name, value in expected.items():
        np.testing.assert_allclose(grads[name], value, rtol=1e-13, atol=1e-14)


def test_left_early_it_changes_nothing():
    layer, x = mg.nn.LSTM(I, H), mg.ones((T, B, I), requires_grad=True)
    run = outer_pass(layer, x)
    step = run.run(until="lstm")
    before = [None if dx is None else dx.numpy().tobytes() for dx in step.dx]
    with step.expand() as inside:
        inside.run(until=lambda inner: inner.t == 1)
        with pytest.raises(RuntimeError, match="has not run to its end: call run"):
            _ = inside.dx
    with pytest.raises(RuntimeError, match="given up before its end"):
        next(inside)
    assert [None if dx is None else dx.numpy().tobytes() for dx in step.dx] == before
    assert all(p.grad is None for p in layer.parameters()) and x.grad is None
    run.run()
    x2 = mg.ones((T, B, I), requires_grad=True)
    expected = [p.grad.numpy().copy() for p in layer.parameters()]
    layer.zero_grad()
    outer_pass(layer, x2).run()
    for p, before_it in zip(layer.parameters(), expected, strict=True):
        assert p.grad.numpy().tobytes() == before_it.tobytes()


def test_names_and_times_inside():
    layer = mg.nn.LSTM(I, H)
    step = outer_pass(layer, mg.ones((T, B, I), requires_grad=True)).run(until="lstm")
    with step.expand() as inside:
        first = next(inside)
        assert first.t is None or first.t == T - 1
        at = inside.run(until="addmm")
        assert "of " in str(at) and "U (3, 12)" in str(at) and at.scope == "LSTMCell"
        assert {inside.label(leaf).split()[0] for leaf in inside.gradients} <= {"x", "W", "U", "b"}


def test_what_cannot_be_expanded():
    x = mg.ones(2, requires_grad=True)
    run = steps((x * x).sum())
    step = next(run)
    with pytest.raises(RuntimeError, match="only a fused layer can be expanded, sum is none"):
        step.expand()
    next(run)
    with pytest.raises(RuntimeError, match="has left step 1, sum"):
        step.expand()
    layer = mg.nn.RNN(I, H)
    x = mg.ones((T, B, I), requires_grad=True)
    step = outer_pass(layer, x).run(until="rnn_tanh")
    with mg.no_grad():
        layer.cells[0].U[0, 0] = 5.0
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        step.expand()


def test_dx_is_checked():
    x, w = (mg.Tensor([v, v], requires_grad=True) for v in (2.0, 3.0))
    run = steps((x * w).sum())
    step = run.run(until="mul")
    for bad, error, text in (
        (mg.ones(2), ValueError, "dx must be a tuple with one entry for each of the 2 inputs"),
        ((mg.ones(2),), ValueError, "dx must be a tuple"),
        ((mg.ones(2), mg.ones(3)), ValueError, r"dx\[1\] must have shape \(2,\), got \(3,\)"),
        ((mg.ones(2), 1.0), TypeError, r"dx\[1\] must be a Tensor, got float"),
        ((mg.ones(2), mg.ones(2, "float64")), TypeError, r"dx\[1\] must have dtype float32"),
    ):
        with pytest.raises(error, match=text):
            step.dx = bad
    step.dx = (mg.Tensor([7.0, 8.0]), step.dx[1])
    run.run()
    assert x.grad.tolist() == [7, 8] and w.grad.tolist() == [2, 2]
