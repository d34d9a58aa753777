"""mg.study.record: which line, module and time step an op is said to belong to; recordings and
scopes that are nested, shared, in generators, in threads."""

import asyncio
import contextlib
import functools
import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.study import record, scope


def leaf(*values):
    return mg.Tensor(list(values), requires_grad=True)


def scopes(rec):
    return [entry.scope for entry in rec.entries]


def sources(rec):
    """The source of the line of each entry."""
    return [entry.where.rpartition(": ")[2] for entry in rec.entries]


# ---------------------------------------------------------------- the user's line


def loudly(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


@loudly
def decorated(x):
    return mg.tanh(x)  # decorated


@contextlib.contextmanager
def opened(x):
    yield x * 2.0  # in a context


class Twice(mg.Function):
    @staticmethod
    def forward(ctx, x):
        return mg.Tensor(x.numpy() * 2)

    @staticmethod
    def backward(ctx, dy):
        return dy * 2.0  # in a rule


class Own(nn.Cell):
    def __init__(self):
        super().__init__(1)
        self.w = nn.Parameter(np.ones(1, np.float32))

    def step(self, x, h):
        h = mg.sigmoid(x @ self.w.reshape(1, 1) + h)  # in a cell
        return h, h


def in_map(x):
    return list(map(lambda v: v * 3.0, [x, x]))  # in a lambda


def in_sorted(x):
    return sorted([x, x], key=lambda v: v.sum().item())  # as a key


def in_function(x):
    return Twice.apply(x)  # of one's own


def in_rule(x):
    return mg.grad((Twice.apply(x) ** 2.0).sum(), [x], create_graph=True)


def in_cell(x):
    return nn.unroll(Own(), mg.ones((2, 1, 1)))


@pytest.mark.parametrize(
    ("work", "mark", "times", "others"),
    [
        (decorated, "# decorated", 1, 0),
        (lambda x: opened(x).__enter__(), "# in a context", 1, 0),
        (in_function, "# of one's own", 1, 0),
        (in_map, "# in a lambda", 2, 0),
        (in_sorted, "# as a key", 2, 0),
        (in_rule, "# in a rule", 1, 7),  # three ops, and four of the power's rule
        (in_cell, "# in a cell", 8, 2),  # four ops at each step; the state, handed on; the stack
    ],
)
def test_lines_through_decorators_closures_and_library_code(work, mark, times, others):
    with record() as rec:
        kept = work(leaf(1.0, 2.0))
    assert kept is not None and all(entry.line[0] == __file__ for entry in rec.entries)
    marked = [mark in line for line in sources(rec)]
    assert (sum(marked), len(marked) - sum(marked)) == (times, others)


@pytest.mark.parametrize("flag", ["-O", "-OO"])
def test_lines_without_assertions(flag, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import minigrad as mg\n"
        "x = mg.ones(2, requires_grad=True)\n"
        "with mg.study.record() as rec:\n"
        "    y = mg.silu(\n"
        "        x * 2.0\n"
        "    )\n"
        "print([entry.line[1] for entry in rec.entries], rec.entries[0].where)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(mg.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, flag, str(script)], capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert done.stdout == f"[5, 4, 4] {script}:5: x * 2.0\n"


# ---------------------------------------------------------------- nested


def test_all_recordings_tell_the_same():
    x = leaf(1.0)
    with scope("around"), record() as outer, scope("between"), record() as inner, scope("within"):
        y = x * 2.0
    assert scopes(outer) == scopes(inner) == ["around/between/within"]
    assert y.grad_fn.scope == "around/between/within"


def test_a_recording_inside_of_a_module_and_a_sequence():
    found = []

    class Watched(nn.RNNCell):
        def step(self, x, h):
            with record() as rec:
                h = super().step(x, h)
            found.append(rec)
            return h

    class Net(nn.Module):
        def __init__(self):
            self.rnn = nn.Recurrent(lambda features: Watched(features, 3), 2)

        def forward(self, x):
            return self.rnn(x)[0]

    with record() as outer:
        Net()(mg.ones((2, 1, 2)))
    assert [[entry.t for entry in rec.entries] for rec in found] == [[0] * 3, [1] * 3]
    assert {place for rec in found for place in scopes(rec)} == {"Net/rnn/cells.0"}
    assert {entry.t for entry in outer.entries} == {None, 0, 1}


def test_a_sequence_inside_of_a_step():
    """The inner sequence counts its own steps; the outer one goes on where it was."""

    class Nested(nn.RNNCell):
        def step(self, x, h):
            _, inner = nn.unroll(nn.RNNCell(3, 3), mg.stack([h, h]), h)
            return super().step(x, inner)

    with record() as rec:
        nn.unroll(Nested(2, 3), mg.ones((2, 1, 2)))
    steps = [entry.t for entry in rec.entries if entry.name == "tanh"]
    assert steps == [0, 1, 0, 0, 1, 1]
    inner = "Nested/RNNCell"
    assert [e.scope for e in rec.entries if e.name == "tanh"] == [
        inner,
        inner,
        "Nested",
        inner,
        inner,
        "Nested",
    ]


def test_modules_inside_of_each_other_and_of_themselves():
    class Deep(nn.Module):
        def __init__(self):
            self.inside = {"a": [nn.Linear(2, 2)], "b": (nn.Linear(2, 2),)}

        def forward(self, x, again=True):
            x = self.inside["b"][0](self.inside["a"][0](x))
            return self(x, again=False) if again else x

    with record() as rec:
        Deep()(mg.ones((1, 2)))
    places = ["Deep/inside.a.0", "Deep/inside.b.0"]
    again = ["Deep/Deep/inside.a.0", "Deep/Deep/inside.b.0"]
    assert scopes(rec) == places + again


def test_a_tensor_in_the_place_of_a_parameter():
    """As in a call that is not recorded."""

    class Net(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            return self.linear(x)

    net, W = Net(), mg.ones((2, 2), requires_grad=True)
    net.linear.weight = W * 1.0
    with record() as rec:
        net(mg.ones((1, 2))).sum().backward()
    assert scopes(rec) == ["Net/linear", ""] and W.grad is not None


# ---------------------------------------------------------------- generators


def held(context):
    with context:
        yield
        yield


def test_scopes_in_generators_end_in_any_order():
    x = leaf(1.0)
    with record() as rec:
        with scope("outer"):
            inside = held(scope("generator"))
            next(inside)
            x * 1.0
        x * 2.0
        with scope("next"):
            x * 3.0
            inside.close()
            x * 4.0
        x * 5.0
    assert scopes(rec) == ["outer/generator", "generator", "generator/next", "next", ""]


def test_recordings_in_generators_end_in_any_order():
    x = leaf(1.0)
    first, second = record(), record()
    one, two = held(first), held(second)
    next(one)
    x * 1.0
    with scope("a"):
        next(two)
        x * 2.0
        one.close()
        x * 3.0
    x * 4.0
    two.close()
    x * 5.0
    assert scopes(first) == ["", "a"]
    assert scopes(second) == ["a", "a", ""]


def test_coroutines_of_a_thread_are_recorded_together():
    x = leaf(1.0)

    async def work(name):
        with scope(name):
            x * 1.0
            await asyncio.sleep(0)
            x * 2.0

    async def both():
        await asyncio.gather(work("a"), work("b"))

    with record() as rec:
        asyncio.run(both())
        x * 3.0
    assert scopes(rec) == ["a", "a/b", "a/b", "b", ""]


def test_an_abandoned_generator_ends_its_recording():
    x, rec = leaf(1.0), record()
    inside = held(rec)
    next(inside)
    x * 1.0
    del inside
    gc.collect()
    x * 2.0
    assert len(rec.entries) == 1
    with rec:
        x * 3.0
    assert len(rec.entries) == 2


# ---------------------------------------------------------------- threads


def in_thread(work):
    errors = []

    def call():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, errors


def test_a_scope_shared_by_threads():
    x, shared = leaf(1.0), scope("shared")
    inside, left = threading.Event(), threading.Event()
    found = []

    def other():
        with record() as rec, shared:
            inside.set()
            assert left.wait(10)
            x * 2.0
        found.append(scopes(rec))

    thread, errors = in_thread(other)
    assert inside.wait(10)
    with record() as rec:
        with shared:
            x * 3.0
        x * 4.0
    left.set()
    thread.join()
    assert not errors and found == [["shared"]] and scopes(rec) == ["shared", ""]


def test_modules_name_nothing_in_threads_that_are_not_recorded():
    layer, x = nn.Linear(1, 1), mg.ones((1, 1))
    found = []

    def other():
        found.append(layer(x).grad_fn.scope)

    with record() as rec:
        thread, errors = in_thread(other)
        thread.join()
    assert not errors and found == [None] and rec.entries == []


def test_nodes_are_asked_while_others_begin_recordings():
    x, over = leaf(1.0), threading.Event()
    with record() as rec:
        y = x * 2.0

    def other():
        while not over.is_set():
            kept = [record() for _ in range(50)]
            assert kept

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread, errors = in_thread(other)
    try:
        for _ in range(3000):
            assert y.grad_fn.scope == ""
            assert (y * 1.0).grad_fn.where is None
    finally:
        sys.setswitchinterval(before)
        over.set()
        thread.join()
    assert not errors and len(rec.entries) == 1


# ---------------------------------------------------------------- ends


def test_an_exception_ends_modules_and_recordings():
    class Broken(nn.Module):
        def forward(self, x):
            x * 2.0
            raise KeyError("here")

    x = leaf(1.0)
    with pytest.raises(KeyError), record() as rec, scope("s"):
        Broken()(x)
    x * 3.0
    with rec:
        x * 4.0
    assert scopes(rec) == ["s/Broken", ""]


def test_an_interrupt_leaves_no_scope_behind():
    """Ctrl-C at the k-th line of the call of a module, for all k."""
    layer, x = nn.Linear(1, 1), mg.ones((1, 1))
    call = nn.Module.__call__.__code__
    left = 0

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code is not call:
            return None
        left -= event == "line"
        if left == 0:
            raise KeyboardInterrupt
        return trace

    interrupted = []
    for k in range(1, 12):
        left = k
        before = sys.gettrace()
        with record() as rec:
            sys.settrace(trace)
            try:
                layer(x)
                interrupted.append(False)
            except KeyboardInterrupt:
                interrupted.append(True)
            finally:
                sys.settrace(before)
            y = layer(x)
        assert y.grad_fn.scope == "Linear" == scopes(rec)[-1]
    assert interrupted[:5] == [True] * 5 and not interrupted[-1]


def test_nothing_is_left_in_a_cycle():
    """All goes with the recording, at once."""

    class Net(nn.Module):
        def __init__(self):
            self.rnn = nn.Recurrent(lambda features: nn.GRUCell(features, 2), 2)

        def forward(self, x):
            with scope("inside"):
                return self.rnn(x)[0]

    gc.collect()
    gc.disable()
    try:
        x, net = mg.ones((3, 1, 2), requires_grad=True), Net()
        with record(values="full", times=True) as rec, scope("outside"), record() as inner:
            net(x).sum().backward()
        gone = [weakref.ref(thing) for thing in (x, rec, inner)]
        assert len(rec.entries) == len(inner.entries) > 10
        del x, rec, inner
        assert [ref() for ref in gone] == [None] * 3
    finally:
        gc.enable()


def test_the_collector_has_little_to_go_through():
    """What cannot be part of a cycle is not tracked; a leaf whose hook holds the recording is."""
    x, constant = leaf(1.0, 2.0), mg.ones(2)
    with record(values="full") as rec:
        h = x * constant
        h = mg.tanh(h * constant) + h
        h = mg.split(h, 2)
    of_leaf, *others = rec.entries
    assert gc.is_tracked(of_leaf) and gc.is_tracked(of_leaf.inputs) and len(others) == 5
    for entry in others:
        parts = [entry, entry.inputs, *entry.inputs, entry.values]
        assert not any(gc.is_tracked(part) for part in parts)
    x.register_hook(lambda dx, held=rec: None)
    gone = weakref.ref(x), weakref.ref(rec)
    del x, rec, h, of_leaf, others, entry, parts
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_scopes_of_hostile_names():
    x = leaf(1.0)
    for name in (np.str_("numpy"), '<b>&"', "a\nb", "\ud800", " ", "x" * 10_000):
        with record() as rec, scope(name):
            x * 2.0
        assert scopes(rec) == [name] and type(scopes(rec)[0]) is str
    with pytest.raises(ValueError, match=r"have a / in it, got 'xxx+\.\.\.x+/'$"):
        scope("x" * 10_000 + "/")
    for bad in (None, b"name", ["name"], mg.ones(1), object):
        with pytest.raises(TypeError, match="scope: name must be a str, got "):
            scope(bad)
    scope("not entered").__exit__(None, None, None)
    with record() as rec, pytest.raises(RuntimeError, match="this recording is not open"):
        record().__exit__(None, None, None)
