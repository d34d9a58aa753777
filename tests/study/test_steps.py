"""Stepping through a backward pass: the bits of backward(), edits, and all ways to leave it."""

import gc
import itertools
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from op_table import rows, split
from print_bits import LAYERS

import minigrad as mg
from minigrad.study import steps

ROWS = [row for row in rows() if row.differentiable]


def leaf(*values):
    return mg.Tensor(list(values), requires_grad=True)


def look(step):
    """Ask for everything that a step tells."""
    assert step.name and str(step) and repr(step)
    return step.dy, step.saved, step.dx, step.so_far, step.shape, step.dtype


def run_with_looks(loss, **options):
    with steps(loss, **options) as run:
        for step in run:
            look(step)
            look(step)
            assert len(step.dx) == len(step.inputs)
            assert step.node is run.pending[0]


def bits(tensors):
    return [None if x.grad is None else (x.dtype, x.grad.numpy().tobytes()) for x in tensors]


def check_bits(make, **options):
    """make() gives a loss, and the leaves to compare."""
    loss, leaves = make()
    loss.backward(**options)
    expected = bits(leaves)
    for walk in (run_with_looks, lambda loss, **options: steps(loss, **options).run()):
        loss, leaves = make()
        walk(loss, **options)
        assert bits(leaves) == expected


# ---------------------------------------------------------------- the same bits


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.slow
def test_bits_of_ops(row, create_graph):
    for dtype in (np.float32, np.float64):
        for sample in row.samples(np.random.default_rng(7), dtype):
            arrays, options = split(sample)

            def make(arrays=arrays, options=options):
                mg.manual_seed(1)
                rng = np.random.default_rng(11)
                inputs = [mg.Tensor(a, requires_grad=True) for a in arrays]
                outputs = row.fn(*inputs, **options)
                outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
                loss = mg.zeros((), outputs[0].dtype)
                for y in outputs:
                    loss = loss + (y * rng.normal(size=y.shape).astype(y.dtype)).sum()
                return loss, inputs

            if make()[0].requires_grad:
                check_bits(make, create_graph=create_graph)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.slow
def test_bits_of_layers(kind, both):
    layer_type, fixed = LAYERS[kind]
    for layers, varied, masked, checkpoint in itertools.product((1, 2), *[(False, True)] * 3):

        def make(layers=layers, varied=varied, masked=masked, checkpoint=checkpoint):
            mg.manual_seed(3)
            rng = np.random.default_rng(5)
            layer = layer_type(
                3,
                4,
                num_layers=layers,
                bidirectional=both,
                rng=np.random.default_rng(2),
                dropout=0.3 if masked else 0.0,
                recurrent_dropout=0.2 if masked else 0.0,
                checkpoint="sqrt" if checkpoint else None,
                clip_state_grad=0.05 if masked else None,
                **fixed,
            )
            x = mg.Tensor(rng.normal(size=(6, 3, 3)).astype(np.float32), requires_grad=True)
            call = {"lengths": [6, 0, 3], "reset": rng.random((6, 3)) < 0.2} if varied else {}
            y, last = layer(x, **call)
            loss = (y * y).sum() + (last[0] * 2.0).sum()
            return loss, [x, *layer.parameters()]

        check_bits(make)


@pytest.mark.parametrize("cell_type", [mg.nn.RNNCell, mg.nn.LSTMCell, mg.nn.GRUCell])
def test_bits_of_a_loop_and_second_order(cell_type):
    def make():
        rng = np.random.default_rng(5)
        cell = cell_type(3, 4, rng=np.random.default_rng(2))
        x = mg.Tensor(rng.normal(size=(6, 5, 3)).astype(np.float32), requires_grad=True)
        y, _ = mg.nn.unroll(cell, x, lengths=np.array([6, 0, 3, 5, 1]))
        return (y * y).sum(), [x, *cell.parameters()]

    check_bits(make)

    def second(walk):
        loss, leaves = make()
        walk(loss)
        penalty = sum(((p.grad * p.grad).sum() for p in leaves), 0.0)
        return [dx.numpy().tobytes() for dx in mg.grad(penalty, leaves)]

    assert second(lambda loss: run_with_looks(loss, create_graph=True)) == second(
        lambda loss: loss.backward(create_graph=True)
    )


def test_gradients_are_added_to_those_that_are_there():
    x = leaf(1.0, 2.0)
    for _ in range(2):
        steps(x * 3.0, mg.Tensor([1.0, 10.0])).run()
    assert x.grad.tolist() == [6.0, 60.0]


def test_a_leaf_has_no_node():
    x = leaf(1.0)
    assert list(steps(x)) == [] and x.grad.tolist() == [1.0]


# ---------------------------------------------------------------- what a step shows


def test_what_a_step_shows():
    a, b = leaf(2.0), leaf(5.0)
    run = steps(mg.tanh(a * b) * a, names={"a": a, "b": b})
    step = next(run)
    assert (step.name, step.number, step.shape, step.dtype) == ("mul", 1, (1,), np.float32)
    assert step.inputs == step.node.inputs and step.inputs[1] is a
    assert step.rule.text == "z = a b   da = dz b, db = dz a"
    assert Path(step.rule.file).read_text().splitlines()[step.rule.line - 1].startswith("# z = a b")
    assert step.dy.tolist() == [1.0] and step.so_far == (None, None)
    assert step.saved[1].numpy() is not a.numpy() and np.shares_memory(step.saved[1], a)
    assert step.dx[0].tolist() == [2.0]
    assert "a (1,)" in str(step)
    assert run.gradients == {}
    step = run.run(until="mul")
    assert step.so_far == (step.so_far[0], None) and step.so_far[0].tolist() == [1.0]
    assert list(run.gradients) == [a] and run.gradients[a].tolist() == [1.0]
    assert a.grad is None
    assert run.run() is None
    assert run.pending == () and run.gradients == {} and next(run, None) is None
    assert a.grad is not None


def test_what_is_shown_is_read_only():
    a = leaf(2.0)
    step = next(steps(a * a))
    for tensor in (step.dy, *step.saved, *step.dx):
        with pytest.raises((ValueError, RuntimeError), match="read-only"):
            tensor += 1.0


def test_equal_inputs_are_shown_apart():
    a = leaf(3.0)
    run = steps(a * a)
    assert [dx.tolist() for dx in next(run).dx] == [[3.0], [3.0]]
    run.run()
    assert a.grad.tolist() == [6.0]


def test_sums_over_rows_are_shown_whole():
    b = leaf(0.0, 0.0)
    run = steps(((mg.ones((3, 2)) + b) * (mg.ones((4, 2)) + b).sum()).sum())
    for create_graph in (False, True):
        run = steps(
            (mg.ones((3, 2)) + b).sum() + (mg.ones((4, 2)) + b).sum(), create_graph=create_graph
        )
        for step in run:
            if step.so_far[-1] is not None and step.inputs[-1] is b:
                assert step.so_far[-1].tolist() == [4.0, 4.0]
                assert run.gradients[b].tolist() == [4.0, 4.0]
                break
        else:
            pytest.fail("b is reached twice")


def test_outputs_of_an_op_with_several():
    layer, x = mg.nn.LSTM(2, 3), mg.Tensor(np.ones((4, 1, 2), np.float32), requires_grad=True)
    y, _ = layer(x)
    run = steps((y * y).sum())
    step = run.run(until="lstm[0]")
    assert step.dy.shape == (4, 1, 3) and "dy" in step.rule.text
    assert [dx.tolist() for dx in step.dx] == [step.dy.tolist()]
    step = run.run(until="lstm")
    assert step.dy[0].shape == (4, 1, 3) and step.dy[1:] == (None, None)
    assert step.shape == ((4, 1, 3), None, None) and step.dtype == np.float32
    assert step.dx[0].shape == x.shape
    with pytest.raises(ValueError, match="dy must be a tuple with one entry for each of the 3"):
        step.dy = step.dy[0]
    with pytest.raises(ValueError, match=r"dy\[1\] must be None, since there is no gradient"):
        step.dy = (step.dy[0], step.dy[0], None)
    step.dy = (step.dy[0] * 0.0, None, None)
    run.run()
    assert not x.grad.numpy().any()


def test_a_step_that_was_left():
    run = steps(leaf(1.0) * 2.0 * 3.0)
    first = next(run)
    next(run)
    for ask in ("dy", "dx", "saved", "so_far", "shape"):
        with pytest.raises(RuntimeError, match="has left step 1, mul: look at a step before"):
            getattr(first, ask)
    with pytest.raises(RuntimeError, match="has left step 1"):
        first.dy = mg.ones(1)


def test_saved_of_a_node():
    a = leaf(2.0)
    y = a * mg.ones(1)
    assert y.grad_fn.saved[0] is None and y.grad_fn.saved[1].tolist() == [1.0]
    buffer = mg.ones(1)
    y = a * buffer
    buffer += 1.0
    with pytest.raises(RuntimeError, match="modified by an in-place operation"):
        y.grad_fn.saved  # noqa: B018
    y = a * a
    y.backward()
    with pytest.raises(RuntimeError, match="has freed what it saved"):
        y.grad_fn.saved  # noqa: B018


# ---------------------------------------------------------------- where to stop


def test_run_until():
    x = leaf(0.5)
    h = mg.tanh(x)
    y = mg.exp(mg.sin(h) * 2.0) + h

    def run(until):
        with steps(y, retain_graph=True) as pass_:
            step = pass_.run(until=until)
            return None if step is None else step.name

    assert run(h.grad_fn) == "tanh"
    assert run("exp") == "exp"
    assert run(lambda step: step.number == 3) == "mul"
    assert run("matmul") is None  # runs to the end
    assert x.grad is not None
    with pytest.raises(TypeError, match="until must be a Node, the name of an op, .* got Tensor"):
        run(h)


def test_until_nonfinite_stops_before_the_rule_that_makes_it():
    x = leaf(0.0, 1.0)
    run = steps((mg.sqrt(x) * 2.0).sum())
    step = run.run(until="nonfinite")
    assert step.name == "sqrt" and np.isfinite(step.dy.numpy()).all()
    assert not np.isfinite(step.dx[0].numpy()).all()
    run.run()
    assert x.grad.numpy()[0] == np.inf
    assert steps((x * 2.0).sum()).run(until="nonfinite") is None


# ---------------------------------------------------------------- edits and hooks


def unrolled(seed):
    cell = mg.nn.LSTMCell(3, 4, rng=np.random.default_rng(seed))
    x = mg.Tensor(np.random.default_rng(seed).normal(size=(5, 2, 3)), "float32", requires_grad=True)
    h, c, states = mg.zeros((2, 4)), mg.zeros((2, 4)), []
    for t in range(5):
        h, c = cell(x[t], (h, c))
        states.append(h)
    return cell, x, states, (mg.stack(states) ** 2).sum()


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_edit_is_the_same_as_a_hook(create_graph):
    for t in range(5):
        cell, x, states, loss = unrolled(t)
        states[t].register_hook(lambda dy: dy * 0.5)
        states[t].retain_grad()
        loss.backward(create_graph=create_graph)
        expected = bits([x, *cell.parameters(), states[t]])
        cell, x, states, loss = unrolled(t)
        states[t].retain_grad()
        with steps(loss, create_graph=create_graph) as run:
            step = run.run(until=states[t].grad_fn)
            step.dy = step.dy * 0.5
            look(step)
            run.run()
        assert bits([x, *cell.parameters(), states[t]]) == expected


def test_an_edit_must_fit():
    step = next(steps(leaf(1.0, 2.0) * 2.0, mg.ones(2)))
    with pytest.raises(ValueError, match=r"dy must have shape \(2,\), got \(3,\)"):
        step.dy = mg.ones(3)
    with pytest.raises(TypeError, match="dy must have dtype float32, got float64"):
        step.dy = mg.ones(2, "float64")
    with pytest.raises(TypeError, match="dy must be a Tensor, got list"):
        step.dy = [1.0, 2.0]


def test_hooks_run_once_and_in_order():
    def order(walk):
        called = []
        a, b = leaf(1.0), leaf(2.0)
        h = a * b
        y = mg.tanh(h) * a
        for name, tensor in (("y", y), ("h", h), ("a", a), ("b", b)):
            tensor.register_hook(lambda g, name=name: called.append((name, g.tolist())))
        walk(y)
        return called

    assert order(run_with_looks) == order(lambda y: y.backward())


def test_hooks_have_run_where_the_pass_stops():
    x = leaf(1.0)
    h = x * 2.0
    h.register_hook(lambda g: g * 10.0)
    assert steps(h * 3.0).run(until=h.grad_fn).dy.tolist() == [30.0]


def test_recording_is_the_users_between_stops():
    x = leaf(1.0)
    for create_graph in (False, True):
        run = steps(mg.tanh(x) * x, create_graph=create_graph, retain_graph=True)
        assert mg.is_grad_enabled()
        for _ in run:
            assert mg.is_grad_enabled() and (x * 2.0).requires_grad
            with mg.no_grad():
                assert not (x * 2.0).requires_grad
    with mg.no_grad():
        y = x.grad
        x.grad = None
        steps(y, create_graph=True).run()
    assert x.grad.requires_grad


# ---------------------------------------------------------------- leaving early


def test_leaving_early_changes_nothing():
    for leave in ("break", "close", "with", "drop", "error"):
        x = leaf(1.0)
        x.grad = mg.ones(1)
        y = mg.tanh(x * 2.0) * x
        run = steps(y, retain_graph=True)
        next(run)
        next(run)
        if leave == "break":
            for _ in run:
                break
        if leave == "close":
            run.close()
            with pytest.raises(RuntimeError, match="was given up before its end. Begin another"):
                next(run)
            with pytest.raises(RuntimeError, match="was given up"):
                run.run()
            assert run.pending == () and run.gradients == {}
        if leave == "with":
            with run:
                pass
        if leave == "error":
            with pytest.raises(KeyError), run:
                raise KeyError
        del run
        assert x.grad.tolist() == [1.0]
        y.backward()
        assert x.grad.numpy()[0] == pytest.approx(1.0 + np.tanh(2.0) + 2.0 / np.cosh(2.0) ** 2)


def test_nothing_leaks():
    def begin(cyclic):
        x = leaf(1.0)
        run = steps(mg.tanh(x * 2.0) * x)
        step = next(run)
        step = next(run)
        look(step)
        if cyclic:
            run.itself = run
        return weakref.ref(x)

    assert begin(False)() is None  # at once, without the collector
    gone = begin(True)
    gc.collect()
    assert gone() is None


def test_the_graph_may_be_dropped_meanwhile():
    x = leaf(2.0)
    run = steps(mg.tanh(x) * x)
    next(run)
    gc.collect()
    others = [leaf(1.0) * 2.0 for _ in range(1000)]
    del others
    run.run()
    assert x.grad is not None


def test_another_backward_in_between():
    x = leaf(1.0)
    y = mg.tanh(x) * x
    run = steps(y)
    next(run)
    next(run)
    with pytest.raises(RuntimeError, match="trying to go through the graph a second time"):
        y.backward()
    assert x.grad is None
    run.run()
    first = x.grad.tolist()
    y = mg.tanh(x) * x
    run = steps(y, retain_graph=True)
    next(run)
    x.grad = None
    y.backward()
    assert x.grad.tolist() == first
    with pytest.raises(RuntimeError, match="trying to go through the graph a second time"):
        run.run()
    assert x.grad.tolist() == first


def test_two_passes_over_one_graph():
    x = leaf(1.0)
    y = mg.tanh(x) * x
    one, two = steps(y, retain_graph=True), steps(y, retain_graph=True)
    seen = []
    for first, second in zip(one, two, strict=True):
        assert first.node is second.node
        seen.append((bits_of(first.dx), bits_of(second.dx)))
    assert all(a == b for a, b in seen)
    single = leaf(1.0)
    (mg.tanh(single) * single).backward()
    assert x.grad.tolist() == (single.grad * 2.0).tolist()


def bits_of(tensors):
    return [None if x is None else x.numpy().tobytes() for x in tensors]


def test_errors_of_user_code_change_nothing():
    def fail(*_):
        raise KeyError("of the user")

    x = leaf(1.0)
    h = mg.tanh(x)
    h.register_hook(fail)
    run = steps(h * x)
    with pytest.raises(KeyError):
        run.run()
    with pytest.raises(RuntimeError, match="was given up"):
        run.run()
    y = mg.record("failing", np.ones(1, np.float32), (x,), fail)
    run = steps(y * x)
    step = run.run(until="failing")
    with pytest.raises(KeyError):
        step.dx  # noqa: B018
    assert step.dy.tolist() == [1.0]  # a look that fails leaves the pass where it is
    with pytest.raises(KeyError):
        next(run)
    with pytest.raises(KeyError):
        steps(mg.tanh(x) * x).run(until=fail)
    assert x.grad is None
    (mg.tanh(x) * x).backward()
    assert x.grad is not None and mg.is_grad_enabled()


def test_a_hook_cannot_move_the_pass_it_runs_in():
    x = leaf(1.0)
    h = mg.tanh(x)
    run = steps(h * x)
    errors = []

    def hook(_):
        for call in (lambda: next(run), run.close, lambda: run.gradients):
            with pytest.raises(RuntimeError, match="from inside|inside of a backward pass"):
                call()
            errors.append(call)

    h.register_hook(hook)
    run.run()
    assert len(errors) == 3 and x.grad is not None


def test_anomaly_mode_checks_each_rule():
    x = leaf(0.0)
    with mg.detect_anomaly(), steps(mg.sqrt(x) * 2.0) as run:
        step = run.run(until="nonfinite")
        assert step.name == "sqrt"
        with pytest.raises(RuntimeError, match="the backward of sqrt made the first non-finite"):
            next(run)
    assert x.grad is None


def test_another_thread_may_go_on():
    x = leaf(1.0)
    run = steps(mg.tanh(x) * x)
    next(run)
    thread = threading.Thread(target=run.run)
    thread.start()
    thread.join()
    assert x.grad is not None and mg.is_grad_enabled()


# ---------------------------------------------------------------- bad input


def test_bad_input():
    x = leaf(1.0, 2.0)
    with pytest.raises(TypeError, match="steps: loss must be a Tensor, got int"):
        steps(3)
    with pytest.raises(RuntimeError, match="steps: loss has no graph: it must be computed from"):
        steps(mg.ones(1))
    with pytest.raises(RuntimeError, match=r"scalar, the output has shape \(2,\): give gradient="):
        steps(x * 2.0)
    with pytest.raises(ValueError, match=r"steps: gradient must have shape \(2,\)"):
        steps(x * 2.0, mg.ones(3))
    with pytest.raises(TypeError, match="steps: names must map names to Tensors, got list"):
        steps(x.sum(), names=[x])
    with pytest.raises(TypeError, match="steps: names must map to Tensors, got int for 'a'"):
        steps(x.sum(), names={"a": 1})
    y = (x * 2.0).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="Specify retain_graph=True when calling backward"):
        steps(y)


# ---------------------------------------------------------------- rules


def nodes_behind(*tensors):
    found, waiting = {}, [y.grad_fn for y in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and not isinstance(node, mg.Tensor) and id(node) not in found:
            found[id(node)] = node
            waiting += node.inputs
    return found.values()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_op_tells_its_rule(row):
    """Its comment stands above its rule: `# z = a b   da = dz b, db = dz a`."""
    for sample in row.samples(np.random.default_rng(7), np.float64):
        arrays, options = split(sample)
        inputs = [mg.Tensor(a, requires_grad=True) for a in arrays]
        outputs = row.fn(*inputs, **options)
        outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        seeds = [mg.Tensor(np.ones(y.shape), requires_grad=True) for y in outputs]
        dxs = mg.grad(outputs, inputs, seeds, create_graph=True, allow_unused=True)
        for node in nodes_behind(*outputs, *(dx for dx in dxs if dx is not None)):
            assert node.rule is not None, f"no comment tells the rule of {node.name}"
            line = Path(node.rule.file).read_text(encoding="utf-8").splitlines()[node.rule.line - 1]
            assert line.startswith("# ") and node.rule.text.startswith(line[2:].split("  ")[0])


def test_layers_and_changes_in_place_tell_their_rule():
    x = mg.Tensor(np.ones((4, 1, 2)), requires_grad=True)
    losses = [make(2, 3, dtype="float64", **o)(x)[0] for make, o in LAYERS.values()]
    buffer = x * 1.0
    part = buffer[1]
    part *= x[0]
    losses += [
        part,
        buffer,
        mg.dropout(x),
        mg.nn.unroll(mg.nn.RNNCell(2, 3, dtype="float64"), x)[0],
    ]
    names = {node.name for node in nodes_behind(*losses)}
    assert {"lstm", "gru", "*=", "dropout"} <= names, names
    assert {node.name for node in nodes_behind(*losses) if node.rule is None} == set()


class Double(mg.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2.0

    @staticmethod
    def backward(ctx, dy):
        """dx = 2 dy"""
        return dy * 2.0


def test_rules_written_in_python():
    x = leaf(1.0)
    rule = Double.apply(x).grad_fn.rule
    assert (rule.text, rule.file) == ("dx = 2 dy", __file__)
    y = mg.record("thrice", 3 * x.numpy(), (x,), lambda dy: dy * 3)
    assert "lambda dy: dy * 3" in y.grad_fn.rule.text
    y = mg.record("once", x.numpy().copy(), (x,), eval("lambda dy: dy"))
    assert y.grad_fn.rule is None and str(next(steps(y)))


# ---------------------------------------------------------------- a million nodes


@pytest.mark.slow
def test_a_million_nodes_in_a_small_stack():
    from running import in_small_thread

    def work():
        for leave in (False, True):
            x = y = leaf(1.0)
            for _ in range(1_000_000):
                y = y + 1.0
            run = steps(y)
            del y
            if leave:
                for step in run:
                    if step.number == 1000:
                        break
                del run, step
            else:
                assert sum(1 for _ in run) == 1_000_000
            assert (x.grad is None) == leave
        return True

    assert in_small_thread(work)
