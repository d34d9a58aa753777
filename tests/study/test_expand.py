"""Step.expand: the pass through the time steps of a fused layer."""

import gc
import itertools
import weakref

import numpy as np
import pytest
from print_bits import LAYERS

import minigrad as mg
from minigrad.nn import fused_stack
from minigrad.study import steps

T, B, I, H = 4, 3, 2, 3
MERGES = ("concat", "sum", "mean", "mul", lambda h, g: h * 2.0 - g)


def outer_pass(layer, x, seed=5, **call):
    out, last, *_ = layer(x, **call)
    return steps(loss_of(out, last, seed))


def loss_of(out, last, seed=5):
    rng = np.random.default_rng(seed)
    return sum(
        (y * rng.standard_normal(y.shape).astype(y.dtype)).sum() for y in (out, *last) if y.size
    )


def is_fused(step):
    return step.name in ("rnn_tanh", "rnn_relu", "lstm", "gru", "gru_after")


def bits(tensors):
    """The bits of tensors, but for the sign of zeros: it may differ where rows have ended."""
    return [None if x is None else (x.numpy() + 0.0).tobytes() for x in tensors]


def every_option(kind, dtype):
    """Layers with every option, what they are called with, and what the loss comes from."""
    layer_type, fixed = LAYERS[kind]
    merges = itertools.cycle(MERGES)
    for both, layers, varied, masked in itertools.product((False, True), (1, 2), *[(0, 1)] * 2):
        mg.manual_seed(4)
        rng = np.random.default_rng(8 * varied + masked)
        layer = layer_type(
            I,
            H,
            num_layers=layers,
            bidirectional=both,
            merge=next(merges) if both else "concat",
            bias=not (both and varied),
            dropout=0.3 * masked,
            recurrent_dropout=0.4 * masked,
            clip_state_grad=0.3 if masked else None,
            checkpoint="sqrt" if varied else None,
            dtype=dtype,
            rng=rng,
            **fixed,
        )
        x = mg.Tensor(rng.standard_normal((T, B, I)).astype(dtype), requires_grad=True)
        call = {"trace": bool(masked)}
        if varied:
            call |= {"lengths": [4, 0, 2], "reset": rng.random((T, B)) < 0.3}
        states = []
        if masked or varied:
            shape = (layers * (1 + both), B, H)
            for _ in layer.cells[0].state_names:
                state = rng.standard_normal(shape).astype(dtype)
                states.append(mg.Tensor(state, requires_grad=True))
            call["state"] = tuple(states)
        yield layer, x, call, [x, *states, *layer.parameters()]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_of_every_option(kind, dtype):
    for layer, x, call, leaves in every_option(kind, dtype):
        run = outer_pass(layer, x, **call)
        count = 0
        while (step := run.run(until=is_fused)) is not None:
            count += 1
            before = bits(step.dx)
            with step.expand() as inside:
                seen = [inner.t for inner in inside]
            assert set(range(T)) <= {t for t in seen if t is not None}
            assert bits(inside.dx) == before == bits(step.dx)
        assert count == len(layer.cells)
        found = bits(leaf.grad for leaf in leaves)
        for leaf in leaves:
            leaf.grad = None
        mg.manual_seed(4)  # the masks of dropout once more
        outer_pass(layer, x, **call).run()
        assert found == bits(leaf.grad for leaf in leaves)


# ---------------------------------------------------------------- edits


def note_states(monkeypatch, layer):
    """A list that gets the states after each step that the layer's cells compute op by op."""
    cell_type = type(layer.cells[0])
    original = cell_type.next_states
    made = []

    def next_states(self, *arguments):
        states = original(self, *arguments)
        made.append(states)
        return states

    monkeypatch.setattr(cell_type, "next_states", next_states)
    return made


def run_op_by_op(monkeypatch):
    """From here on layers run their cells op by op."""

    def sequence(kind, *inputs, composed, clip, trace, out, **_):
        outputs = composed(*inputs, bound=clip or 0.0)
        return (*outputs, {}) if trace else outputs

    def adjoin(whole, outputs):
        return mg.concatenate(outputs, -1)

    monkeypatch.setattr(fused_stack, "sequence", sequence)
    monkeypatch.setattr(fused_stack, "adjoin", adjoin)


def edits_of(layer, seed, dtype):
    """For each cell: a step, a state after it, and the factor of its gradient."""
    rng = np.random.default_rng(seed)
    found = []
    for cell in layer.cells:
        which = int(rng.integers(len(cell.state_names)))
        factor = mg.Tensor(rng.standard_normal((B, H)).astype(dtype))
        found.append((int(rng.integers(T)), which, factor))
    return found


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_edits_inside_are_those_of_hooks_op_by_op(kind, dtype, monkeypatch):
    """The gradient of a state in each layer and direction, changed: the same bits everywhere."""
    for number, (layer, x, call, leaves) in enumerate(every_option(kind, dtype)):
        edits = edits_of(layer, number, dtype)
        with monkeypatch.context() as patches:
            made = note_states(patches, layer)
            run = outer_pass(layer, x, **call)
            for place, which, factor in edits[::-1]:
                step = run.run(until=is_fused)
                made.clear()
                with step.expand() as inside:
                    at = inside.run(until=made[place][which].grad_fn)
                    at.dy = at.dy * factor
                    inside.run()
                assert bits(step.dx) == bits(inside.dx)
            run.run()
            found = bits(leaf.grad for leaf in leaves)
            for leaf in leaves:
                leaf.grad = None

            run_op_by_op(patches)
            made.clear()
            mg.manual_seed(4)  # the masks of dropout once more
            out, last, *_ = layer(x, **call)
            for k, (place, which, factor) in enumerate(edits):
                made[k * T + place][which].register_hook(lambda dy, factor=factor: dy * factor)
            loss_of(out, last).backward()
            assert found == bits(leaf.grad for leaf in leaves), number


def test_an_edit_is_not_lost_or_made_twice():
    """Looks between, another edit outside, an edit of dy that makes dx anew."""
    layer, x = mg.nn.GRU(I, H), mg.ones((T, B, I), requires_grad=True)
    run = outer_pass(layer, x)
    step = run.run(until="gru")
    plain = bits(step.dx)
    with step.expand() as inside:
        at = inside.run(until="tanh")
        at.dx = (at.dx[0] * 0.0,)
        assert not at.dx[0].numpy().any()
        inside.run()
    edited = bits(step.dx)
    assert edited == bits(inside.dx) != plain
    with step.expand() as inside:
        inside.run()
    assert bits(inside.dx) == plain and bits(step.dx) == edited
    step.dy = step.dy
    assert bits(step.dx) == plain
    step.dx = tuple(None if dx is None else dx * 2.0 for dx in step.dx)
    run.run()
    assert x.grad.numpy().tobytes() == (inside.dx[0] * 2.0).numpy().tobytes()


def test_an_output_hands_on_what_is_assigned():
    layer, x = mg.nn.LSTM(I, H), mg.ones((T, B, I), requires_grad=True)
    run = outer_pass(layer, x)
    step = run.run(until="lstm[0]")
    with pytest.raises(RuntimeError, match=r"lstm\[0\] is an output of an op: go on to lstm"):
        step.expand()
    step.dx = (step.dx[0] * 0.0,)
    step = run.run(until="lstm")
    assert not step.dy[0].numpy().any() and step.dy[1].numpy().any()
    run.run()
    assert x.grad is not None


def test_weights_of_two_calls():
    """The second call's expansion is added as a whole to what the first has given."""
    layer = mg.nn.RNN(I, H, dtype="float64")
    x = mg.Tensor(np.random.default_rng(0).standard_normal((T, B, I)))

    def gradient(edit):
        layer.zero_grad()
        run = steps(sum(loss_of(*layer(part), seed=9) for part in (x, x * 0.5)))
        for _ in range(2):
            step = run.run(until="rnn_tanh")
            with step.expand() as inside:
                at = inside.run(until="tanh")
                if edit:
                    at.dy = at.dy * 1.0
                inside.run()
        run.run()
        return layer.cells[0].U.grad.numpy()

    looked, edited = gradient(False), gradient(True)
    layer.zero_grad()
    sum(loss_of(*layer(part), seed=9) for part in (x, x * 0.5)).backward()
    assert looked.tobytes() == layer.cells[0].U.grad.numpy().tobytes()
    np.testing.assert_allclose(edited, looked, rtol=1e-13)


@pytest.mark.parametrize("kind", LAYERS)
def test_edits_can_be_differentiated_again(kind, monkeypatch):
    """create_graph: second order through an edited expansion, as through a hook op by op."""
    layer_type, fixed = LAYERS[kind]
    layer = layer_type(I, H, dtype="float64", **fixed)
    x = mg.Tensor(np.random.default_rng(2).standard_normal((T, B, I)), requires_grad=True)
    leaves = [x, *layer.parameters()]
    factor = mg.Tensor(np.random.default_rng(3).standard_normal((B, H)), requires_grad=True)

    def second_order():
        penalty = sum((leaf.grad * leaf.grad).sum() for leaf in leaves)
        return mg.grad(penalty, [*leaves, factor])

    made = note_states(monkeypatch, layer)
    run = steps(loss_of(*layer(x * 1.0)), create_graph=True)
    step = run.run(until=is_fused)
    with step.expand() as inside:
        at = inside.run(until=made[1][0].grad_fn)
        assert {"x", "W"} <= {inside.label(node) for node in inside.pending}
        at.dy = at.dy * factor
        inside.run()
    run.run()
    first, second = [leaf.grad for leaf in leaves], second_order()
    for leaf in leaves:
        leaf.grad = None
    run_op_by_op(monkeypatch)
    made.clear()
    out, last = layer(x * 1.0)
    hook = made[1][0].register_hook(lambda dy: dy * factor)
    loss_of(out, last).backward(create_graph=True)
    hook.remove()  # the edit was made once, not in the second sweep again
    assert bits(first) == bits(leaf.grad for leaf in leaves)
    for ours, theirs in zip(second, second_order(), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-11, atol=1e-12)


# ---------------------------------------------------------------- how it stands aside


def test_it_stands_aside_of_modes_and_recordings():
    layer, x = mg.nn.LSTM(I, H), mg.ones((T, B, I), requires_grad=True)
    with mg.study.record() as rec, mg.study.scope("net"):
        run = outer_pass(layer, x)
        step = run.run(until="lstm")
        before = len(rec.entries)
        with mg.no_grad(), step.expand() as inside:
            at = inside.run(until="tanh")
            assert at.where == step.where and "test_expand.py" in at.where
            assert at.scope == "net/LSTM/LSTMCell" and step.scope == "net/LSTM"
        assert len(rec.entries) == before
        x * 2.0
        assert len(rec.entries) == before + 1


def test_an_error_inside_changes_nothing():
    def fail(step):
        raise KeyError("of the user")

    layer, x = mg.nn.LSTM(I, H), mg.ones((T, B, I), requires_grad=True)
    run = outer_pass(layer, x)
    step = run.run(until="lstm")
    plain = bits(step.dx)
    with pytest.raises(KeyError), step.expand() as inside:
        at = inside.run(until="tanh")
        at.dy = at.dy * 2.0
        inside.run(until=fail)
    assert bits(step.dx) == plain
    inside = step.expand()
    at = inside.run(until="tanh")
    at.dy = at.dy * 2.0
    run.run()  # the pass outside goes on before the one inside has ended
    expected = x.grad.numpy().tobytes()
    inside.run()
    assert x.grad.numpy().tobytes() == expected == plain[0]


def test_it_leaks_nothing():
    def begin():
        layer, x = mg.nn.LSTM(I, H), mg.ones((T, B, I), requires_grad=True)
        step = outer_pass(layer, x).run(until="lstm")
        inside = step.expand()
        assert inside.run(until="tanh").dx
        return [weakref.ref(x), weakref.ref(inside.points[0]), weakref.ref(layer.cells[0])]

    gc.disable()
    try:
        found = begin()
        assert [ref() for ref in found[:2]] == [None, None]
    finally:
        gc.enable()
    gc.collect()
    assert found[2]() is None


@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 0, 2), (1, 1, 2)])
@pytest.mark.parametrize("kind", LAYERS)
def test_no_steps_or_no_rows(kind, shape):
    layer_type, fixed = LAYERS[kind]
    layer = layer_type(I, H, **fixed)
    x = mg.Tensor(np.ones(shape, np.float32), requires_grad=True)
    _, last = layer(x)
    step = steps((last[0] * 2.0).sum()).run(until=is_fused)
    with step.expand() as inside:
        inside.run()
    assert bits(inside.dx) == bits(step.dx)


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


@pytest.mark.slow
def test_a_long_sequence_in_a_small_stack():
    from running import in_small_thread

    def work():
        layer = mg.nn.RNN(1, 1)
        step = outer_pass(layer, mg.ones((20_000, 1, 1), requires_grad=True)).run(until=is_fused)
        with step.expand() as inside:
            inside.run()
        same = bits(inside.dx) == bits(step.dx)
        inside = step.expand()
        inside.run(until="tanh")
        del inside
        return same

    assert in_small_thread(work)
