"""mg.study.profile: rows that add up, and what is slow comes first."""

import time

import numpy as np
import pytest

import minigrad as mg
from minigrad.study import profile
from minigrad.study.profiling import PYTHON, SWEEP, Row


class Net(mg.nn.Module):
    def __init__(self):
        self.rnn = mg.nn.GRU(8, 16)
        self.head = mg.nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def make_step():
    net, x = Net(), mg.ones((30, 4, 8))
    target = np.zeros((30, 4), int)

    def step():
        loss = mg.cross_entropy(net(x), target)
        loss.backward()
        net.zero_grad()

    return step


def test_rows_add_up():
    found = profile(make_step(), repeat=3)
    assert 0.95 < sum(row.share for row in found.rows) <= 1.0
    assert found.rows == sorted(found.rows, key=lambda row: row.share, reverse=True)
    times = sum(row.forward_ns + row.backward_ns for row in found.rows)
    assert 0.95 * found.wall_ns < times <= found.wall_ns
    by_op = {row.op: row for row in found.rows}
    assert by_op["gru"].scope == "Net/rnn" and by_op["gru"].calls == 1
    assert by_op["gru"].backward_ns > 0 and by_op["addmm"].scope == "Net/head"
    assert "return self.head(self.rnn(x)[0])" in by_op["gru"].where
    assert by_op[SWEEP].backward_ns > 0 and by_op[SWEEP].where == ""


def slow_line():
    time.sleep(0.02)  # the slow one


def test_a_slow_line_comes_first():
    step = make_step()

    def slow_step():
        step()
        slow_line()
        step()

    first = profile(slow_step, repeat=2).rows[0]
    assert first.op == PYTHON and "time.sleep(0.02)  # the slow one" in first.where
    assert first.forward_ns > 0.015e9


def test_a_slow_rule_comes_first():
    def slow(dy):
        time.sleep(0.02)
        return dy * 2.0

    def step():
        x = mg.ones(3, requires_grad=True)
        mg.record("twice", 2 * x.numpy(), (x,), slow).sum().backward()

    rows = profile(step, repeat=1).rows
    assert rows[0].op == PYTHON and "time.sleep" in rows[0].where  # its line is the user's own
    twice = next(row for row in rows if row.op == "twice")
    assert twice.calls == 1 and twice.backward_ns > 0


def test_many_calls_of_one_line():
    def step():
        x = mg.ones(3, requires_grad=True)
        for _ in range(7):
            x = x * 2.0
        return x

    rows = profile(step, repeat=2).rows
    assert [row.calls for row in rows if row.op == "mul"] == [7]


def test_text_and_picture():
    found = profile(make_step(), repeat=1)
    text = str(found)
    assert text.startswith("one run: ") and "gru" in text and "[Net/rnn]" in text
    assert all(len(line) < 140 for line in text.splitlines())
    assert "<Profile of" in repr(found)
    pyplot = pytest.importorskip("matplotlib.pyplot")
    ax = found.plot(rows=3)
    assert len(ax.get_yticklabels()) == 3 and ax.get_xlabel() and ax.get_title()
    assert found.plot(ax) is ax
    pyplot.close("all")
    with pytest.raises(ValueError, match="plot: rows must be at least 1, got 0"):
        found.plot(rows=0)


def test_what_is_refused_and_passed_on():
    with pytest.raises(TypeError, match="profile: fn must be a function, got Tensor"):
        profile(mg.ones(1))
    with pytest.raises(ValueError, match="profile: repeat must be at least 1, got 0"):
        profile(make_step(), repeat=0)
    with pytest.raises(TypeError, match="profile: repeat must be an int, got float"):
        profile(make_step(), repeat=1.5)
    calls = []

    def second_fails():
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        profile(second_fails)
    x = mg.ones(1, requires_grad=True)
    assert (x * 2.0).grad_fn.where is None  # no recording was left open
    assert isinstance(profile(make_step(), repeat=1).rows[0], Row)
