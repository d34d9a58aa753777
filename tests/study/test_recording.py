"""mg.study.record: what is noted of each op, and that nothing else changes."""

import gc
import threading
import weakref

import numpy as np
import pytest
from op_table import rows, split

import minigrad as mg
from minigrad import nn
from minigrad.study import record, scope

ROWS = [row for row in rows() if row.differentiable]


def leaf(*values):
    return mg.Tensor(list(values), requires_grad=True)


def run(row, sample):
    """The outputs of an op, and the gradients of its inputs for random cotangents."""
    mg.manual_seed(0)
    arrays, options = split(sample)
    tensors = [mg.Tensor(array, requires_grad=True) for array in arrays]
    found = row.fn(*tensors, **options)
    outputs = list(found) if isinstance(found, (tuple, list)) else [found]
    rng = np.random.default_rng(3)
    for y in outputs:
        if y.requires_grad:
            dy = mg.Tensor(rng.normal(size=y.shape).astype(y.dtype))
            y.backward(dy, retain_graph=True)
    gradients = [None if x.grad is None else x.grad.numpy() for x in tensors]
    return outputs, gradients


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_op_is_noted_with_its_shape(row):
    for sample in row.samples(np.random.default_rng(7), np.float32)[:3]:
        plain, plain_gradients = run(row, sample)
        with record(values="strips", times=True) as rec:
            outputs, gradients = run(row, sample)
        for dx, expected in zip(gradients, plain_gradients, strict=True):
            assert (dx is None) == (expected is None)
            assert dx is None or dx.tobytes() == expected.tobytes()
        for y, expected in zip(outputs, plain, strict=True):
            assert y.numpy().tobytes() == expected.numpy().tobytes()
            without = expected.grad_fn
            if without is not None:  # made in no recording: what is known is right
                assert without.shape in (None, y.shape) and without.dtype in (None, y.dtype)
            if y.grad_fn is None:
                continue
            entry = rec.entry(y)
            assert (entry.shape, entry.dtype) == (y.shape, y.dtype)
            assert entry.serial == y.grad_fn.serial and entry.name.startswith(y.grad_fn.name)
            assert (y.grad_fn.shape, y.grad_fn.dtype) == (y.shape, y.dtype)
            finite = y.numpy()[np.isfinite(y.numpy())]
            assert entry.values.nonfinite == y.size - finite.size
            if finite.size:
                assert entry.values.least == finite.min() and entry.values.largest == finite.max()
            assert entry.gradient.shape == y.shape and entry.backward_ns > 0
            assert isinstance(y.grad_fn.details, dict)
        serials = {entry.serial for entry in rec.entries}
        for entry in rec.entries:
            assert all(s.kind != "node" or s.serial in serials for s in entry.inputs)


def test_the_dtype_of_an_op_recorded_from_python():
    """What it saved may be of another dtype."""
    x, other = leaf(1.0, 2.0), mg.ones(2, "float64")
    values = np.ones(2, np.float32)
    y = mg.record("own", values, (x,), lambda dy, saved: dy, saved=(other,))
    assert (y.grad_fn.shape, y.grad_fn.dtype) == (None, None)
    y = mg.record("own", values, (x,), lambda dy, *saved: dy, saved=(other,), save_value=True)
    assert (y.grad_fn.shape, y.grad_fn.dtype) == ((2,), np.float32)


def test_details():
    x = mg.ones((2, 3), requires_grad=True)
    index = np.array([1, 0])
    for y, expected in (
        (x.sum(axis=1), {"input_shape": (2, 3), "axis": 1}),
        (mg.softmax(x, axis=-1), {"axis": -1}),
        (x.reshape(6), {"input_shape": (2, 3)}),
        (x.reshape(2, 3)[0:0].reshape(0), {"input_shape": (0, 3)}),
        (mg.swapaxes(x, 0, 1), {"axis1": 0, "axis2": 1}),
        (x * mg.ones(3), {"a_shape": (2, 3), "b_shape": (3,)}),
        (x * 2.0, {"a_shape": (2, 3), "b_shape": ()}),
        (mg.tanh(x), {}),
        (x.astype("float64"), {"input_dtype": np.dtype("float32")}),
    ):
        assert y.grad_fn.details == expected
    picked = x[index].grad_fn.details["index"]
    assert picked.tolist() == [1, 0]
    with pytest.raises(ValueError, match="read-only"):
        picked[0] = 5
    layer = nn.LSTM(3, 4, bidirectional=True, clip_state_grad=2.0)
    out, _ = layer(mg.ones((5, 2, 3)), lengths=[5, 2])
    node = out.grad_fn.inputs[1].inputs[0]
    told = node.details
    assert {k: told[k] for k in ("cell", "T", "B", "I", "H")} == {
        "cell": "lstm",
        "T": 5,
        "B": 2,
        "I": 3,
        "H": 4,
    }
    assert told["reverse"] and told["lengths"].tolist() == [5, 2] and told["clip_state_grad"] == 2
    assert mg.record("own", np.ones(2), (leaf(1.0, 2.0),), lambda dy: dy).grad_fn.details == {}
    given = {"p": 0.25}
    own = mg.record("own", np.ones(2), (leaf(1.0, 2.0),), lambda dy: dy, details=given)
    assert own.grad_fn.details == given and own.grad_fn.details is not given
    with pytest.raises(TypeError, match="own: details must be a dict, got list"):
        mg.record("own", np.ones(2), (leaf(1.0, 2.0),), lambda dy: dy, details=["p"])
    dropped = mg.dropout(x, 0.25).grad_fn
    assert dropped.details == {"p": 0.25}
    assert set(dropped.saved[0].numpy().ravel()) <= {0, np.float32(4 / 3)}
    for op in (mg.max, mg.prod, mg.logsumexp, mg.sum):
        assert op(x).grad_fn.details["axis"] is None
    cell = nn.RNNCell(3, 2)
    h0 = mg.zeros((2, 2), requires_grad=True)
    out, _ = nn.unroll(cell, mg.ones((1, 2, 3)), h0, clip_state_grad=3.0)
    step = mg.study.steps(out.sum()).run(until="clip_grad")
    assert step.node.details == {"bound": 3.0}
    y = (x * x).sum()
    node = y.grad_fn
    y.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        _ = node.details


# ---------------------------------------------------------------- where, scope, t


def test_the_users_line():
    x = leaf(1.0, 2.0)
    with record() as rec:
        y = mg.gelu(x)  # made of several ops, in the library's own files
        z = [
            value * 2.0  # in a comprehension
            for value in (x, y)
        ][1].sum()
        exec(compile("w = z * z", "<typed in>", "exec"), {"z": z})
    lines = {entry.where.rpartition(": ")[2] for entry in rec.entries}
    assert "y = mg.gelu(x)  # made of several ops, in the library's own files" in lines
    assert "value * 2.0  # in a comprehension" in lines
    assert all(__file__ in entry.where for entry in rec.entries[:-1])
    assert rec.entries[-1].line == ("<typed in>", 1)
    assert y.grad_fn.where == rec.entry(y).where


class Block(nn.Module):
    def __init__(self):
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return mg.tanh(self.linear(x))


class Net(nn.Module):
    def __init__(self):
        self.blocks = [Block(), Block()]
        self.rnn = nn.LSTM(2, 3)
        self.own = nn.Recurrent(lambda n: nn.GRUCell(n, 2), 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        x, _ = self.rnn(x)
        with scope("after"):
            x, _ = self.own(x)
            return self.blocks[0].linear(x)


def test_scopes_and_steps():
    net = Net()
    with record() as rec, scope("train"):
        out = net(mg.ones((4, 1, 2)))
    by_scope = {}
    for entry in rec.entries:
        by_scope.setdefault(entry.scope, set()).add(entry.name)
    assert by_scope["train/Net/blocks.0/linear"] == {"addmm"}
    assert by_scope["train/Net/blocks.1"] == {"tanh"}
    assert "lstm" in by_scope["train/Net/rnn"]
    assert "sigmoid" in by_scope["train/Net/after/own/cells.0"]
    assert by_scope["train/Net/after/blocks.0.linear"] == {"addmm"}
    steps_of = [e.t for e in rec.entries if e.name == "sigmoid"]
    assert steps_of == [0, 1, 2, 3]
    assert out.grad_fn.t is None and out.grad_fn.scope == "train/Net/after/blocks.0.linear"
    assert (out * 2.0).grad_fn.scope is None


def test_steps_of_a_backward_pass_know_them():
    net = Net()
    with record():
        loss = net(mg.ones((4, 1, 2))).sum()
        run = mg.study.steps(loss, names=dict(net.named_parameters()))
        run.run(until=lambda step: step.name == "sigmoid")
        text = str(run.step)
    assert "Net/own/cells.0, t = 3, " in text.replace("after/", "")


def test_a_reverse_sequence_counts_down():
    with record() as rec:
        nn.unroll(nn.RNNCell(2, 3), mg.ones((3, 1, 2)), reverse=True)
    assert [e.t for e in rec.entries if e.name == "tanh"] == [2, 1, 0]


def test_an_exception_ends_scope_and_step():
    class Broken(nn.Cell):
        def __init__(self):
            super().__init__(2)
            self.w = nn.Parameter(np.ones(2))

        def step(self, x, h):
            raise KeyError("here")

    x = leaf(1.0)
    with record() as rec:
        with pytest.raises(KeyError), scope("outer"):
            nn.unroll(Broken(), mg.ones((2, 1, 2), "float64"))
        y = x * x
    assert (rec.entry(y).scope, rec.entry(y).t) == ("", None)


# ---------------------------------------------------------------- values, memory, time


def test_inputs():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    with record(values="full") as rec:
        h = x * w
        y = (h + np.float32(5.0)).sum()
    mul, add, total = rec.entries
    assert [s.kind for s in mul.inputs] == ["leaf", "leaf"]
    assert mul.inputs[0].leaf is x and mul.inputs[1].leaf is w
    assert [s.kind for s in add.inputs] == ["node", "constant"]
    assert add.inputs[0].serial == mul.serial and add.inputs[1].values.full.tolist() == 5
    assert total.values.full.tolist() == y.item() and mul.values.full.tolist() == [3, 8]
    with pytest.raises(ValueError, match="read-only"):
        mul.values.full[0] = 1
    y.backward()
    assert rec.entry(h).gradient is None  # the pass was outside of the block


def test_gradients_inside_the_block():
    x = leaf(1.0, 2.0)
    with record(values="full", times=True) as rec:
        h = x * x
        (h * mg.Tensor([3.0, 4.0])).sum().backward()
    assert rec.entry(rec.entries[0].serial).gradient.full.tolist() == [3, 4]
    assert all(e.ns > 0 and e.backward_ns > 0 for e in rec.entries)
    assert rec.entries[1].gradient.strip.tolist() == [1, 1]


def test_gradients_of_a_pass_later_and_of_steps():
    x = leaf(1.0, 2.0)
    rec = record(values="full")
    with rec:
        h = x * x
        y = (h * mg.Tensor([3.0, 4.0])).sum()
    with rec:
        y.backward(retain_graph=True)
    assert rec.entry(h).gradient.full.tolist() == [3, 4] and len(rec.entries) == 3
    with rec, mg.study.steps(y) as run:
        step = run.run(until=h.grad_fn)
        assert rec.entry(h).gradient.full.tolist() == [3, 4]
        step.dy = step.dy * 2.0
        run.run()
    assert rec.entry(h).gradient.full.tolist() == [6, 8] and len(rec.entries) == 3
    assert x.grad.tolist() == [3 * 6.0, 3 * 16.0]


def test_leaves_that_change():
    """Their values are those of the moment, however they were changed."""
    x, data = leaf(1.0, 2.0), np.array([5.0])
    shared = mg.Tensor(data, copy=False).requires_grad_()
    optimizer = mg.optim.SGD([x], lr=1.0)
    with record(values="full") as rec:
        (x * x).sum().backward()
        optimizer.step()
        x * 1.0
        with mg.no_grad():
            x[0] = 7.0
        x * 1.0
        shared * 1.0
        data[0] = 6.0
        shared * 1.0
    of_leaves = [e.inputs[0].values.full.tolist() for e in rec.entries if e.name == "mul"]
    assert of_leaves == [[1, 2], [-1, -2], [7, -2], [5], [6]]


@pytest.mark.filterwarnings("error")
def test_norms_of_very_large_and_very_small_numbers():
    largest, least = np.finfo(np.float64).max, np.finfo(np.float64).smallest_subnormal
    for numbers, norm, mean in (
        ([3e-170, -4e-170], 5e-170, -0.5e-170),
        ([3e200, 4e200, np.inf], 5e200, 3.5e200),
        ([largest, largest], np.inf, largest),
        ([least], least, least),
        ([0.0, 0.0], 0.0, 0.0),
        ([np.nan], 0.0, 0.0),
        ([], 0.0, 0.0),
    ):
        x = mg.Tensor(np.array(numbers, np.float64), requires_grad=True)
        with record(values="strips") as rec:
            y = mg.maximum(x, -np.inf)
        values = rec.entry(y).values
        assert values.norm == pytest.approx(norm, rel=1e-14, abs=0)
        assert values.mean == pytest.approx(mean, rel=1e-14, abs=0)
        np.testing.assert_array_equal(values.strip, y.numpy())
        assert values.strip.dtype == x.dtype


def test_long_values_become_strips():
    x = mg.Tensor(np.arange(1000, dtype=np.float64), requires_grad=True)
    with record(values="strips") as rec:
        x * np.inf
    values = rec.entries[0].values
    assert values.strip.shape == (48,) and values.full is None
    assert values.nonfinite == 1000 and (values.mean, values.norm) == (0, 0)
    with record(values="strips") as rec:
        x + 0.0
    values = rec.entries[0].values
    assert values.strip[0] == 0 and values.strip[-1] == 979 and values.mean == 499.5
    assert values.norm == pytest.approx(np.linalg.norm(np.arange(1000)))


def test_saved_bytes():
    x = mg.ones((10, 10), requires_grad=True)
    layer = nn.GRU(2, 3)
    with record() as rec:
        y = mg.tanh(x) * x
        out, _ = layer(mg.ones((5, 2, 2)))
        z = y.sum()
    by_name = {e.name: e.saved_bytes for e in rec.entries}
    assert by_name["tanh"] == 400 and by_name["mul"] == 800
    saved = sum(s.numpy().nbytes for s in rec_node(out).saved if s is not None)
    assert by_name["gru"] == saved + 5 * 2 * 9 * 4  # the gates (T, B, 3 H)
    assert rec.entry(z).saved_bytes == 0


def test_saved_bytes_beside_saved_tensors():
    x = mg.ones((4, 5), requires_grad=True)
    condition = np.ones((4, 5), bool)
    with record() as rec:
        a = mg.where(condition, x, x)
        assert rec.entry(a).saved_bytes == 20  # known at once
        b = mg.dropout(x, 0.5)
        c = x[np.array([0, 2, 2])]
        out, _ = nn.LSTM(5, 3)(x.reshape(4, 1, 5))
    assert [rec.entry(y).saved_bytes for y in (a, b, c)] == [20, 80, 24]
    node = rec_node(out)
    saved = sum(s.numpy().nbytes for s in node.saved if s is not None)
    assert rec.entry(node).saved_bytes == saved + 4 * 1 * (12 + 3) * 4  # gates and cell states
    for checkpoint, chunks in (("sqrt", 2), (None, None)):
        with record() as rec:
            out, _ = nn.LSTM(5, 3, checkpoint=checkpoint)(x.reshape(4, 1, 5))
        entry = rec.entry(rec_node(out))
        kept = 4 * 15 * 4 if chunks is None else (chunks - 1) * 2 * 3 * 4  # h and c between chunks
        assert entry.saved_bytes == saved + kept


def rec_node(y):
    return y.grad_fn.inputs[0]


# ---------------------------------------------------------------- modes, threads, ends


def test_only_what_is_recorded():
    x = leaf(1.0)
    with record() as rec:
        with mg.no_grad():
            x * 2.0
        mg.ones(2) * 2.0
        x * 3.0
        with record() as inner:
            x * 4.0
        x * 5.0
    x * 6.0
    assert len(rec.entries) == 3 and len(inner.entries) == 1
    assert inner.entries[0].serial == rec.entries[1].serial
    with rec:
        x * 7.0
    assert len(rec.entries) == 4 and "<Recording of 4 ops>" in str(rec)


def test_threads_do_not_mix():
    x, seen = leaf(1.0), []
    inside, go = threading.Event(), threading.Event()

    def other():
        with record() as rec:
            inside.set()
            go.wait(10)
            x * 2.0
        seen.append(rec.entries)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with record() as rec:
        x * 3.0
        x * 4.0
    x * 5.0
    go.set()
    thread.join()
    assert len(rec.entries) == 2 and len(seen[0]) == 1


def test_anomaly_mode_goes_on_inside():
    x = leaf(0.0)
    with record() as rec, pytest.raises(RuntimeError, match=r"anomaly: log made .*mg.log\(x\)"):
        with mg.detect_anomaly():
            mg.log(x)
    assert [e.name for e in rec.entries] == ["log"]
    with mg.detect_anomaly():
        y = x + 1.0
    assert "y = x + 1.0" in y.grad_fn.where


def test_a_recording_goes_with_its_object():
    x = leaf(1.0)
    with record() as rec:
        y = x * x
    assert y.grad_fn.where is not None
    ref = weakref.ref(rec)
    node = weakref.ref(y)
    del rec
    gc.collect()
    assert ref() is None and y.grad_fn.where is None
    with record() as rec:
        z = x * x
    del z, y
    gc.collect()
    assert node() is None  # no entry holds a tensor of the graph
    assert len(rec.entries) == 1


def test_entries_of_what_is_no_op():
    x = leaf(1.0)
    with record() as rec:
        y = x * 2.0
    serial = y.grad_fn.serial
    for made in (y, y.grad_fn, serial, np.uint64(serial)):
        assert rec.entry(made) is rec.entries[0]
    for made in (x, x * 3.0, -1, 0, 2**80):
        assert rec.entry(made) is None
    for bad in (None, True, "mul", 1.0, [serial], rec, type(y.grad_fn)):
        with pytest.raises(TypeError, match="record: made must be a Node, a Tensor or a serial"):
            rec.entry(bad)


def test_what_is_refused():
    with pytest.raises(ValueError, match="record: values must be 'strips' or 'full', got 'strip'"):
        record(values="strip")
    for bad in (1, True, ["full"]):
        with pytest.raises(TypeError, match="record: values must be 'strips' or 'full', got "):
            record(values=bad)
    with pytest.raises(TypeError, match="record: times must be a bool, got int"):
        record(times=1)

    class Hostile(str):
        def __eq__(self, other):
            raise KeyError

        __hash__ = None

    assert record(values=Hostile("full")).values == "full"
    with pytest.raises(TypeError, match="scope: name must be a str, got int"):
        scope(1)
    for bad in ("", "a/b"):
        with pytest.raises(ValueError, match="scope: name must not be empty or have a / in it"):
            scope(bad)
    with record() as rec, pytest.raises(RuntimeError, match="is open already"):
        rec.__enter__()
    rec = record().__enter__()
    errors = []

    def end():
        try:
            rec.__exit__(None, None, None)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert errors == ["record: a recording must be ended by the thread that began it"]
    rec.__exit__(None, None, None)
