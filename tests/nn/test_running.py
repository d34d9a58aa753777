"""A sequence that was interrupted is over: nothing of it is left for the cells' later steps."""

import contextlib
import sys

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.nn import running as module

RUNNING = module.__file__


def draw(*shape):
    return np.random.default_rng(3).standard_normal(shape)


def interrupted_at(k, call):
    """Make a call, with Ctrl-C at the k-th line that runs in running.py; was it there?"""
    left = k

    def local(frame, event, argument):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return local

    def trace(frame, event, argument):
        return local(frame, event, argument) if frame.f_code.co_filename == RUNNING else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("record", [False, True])
def test_an_interrupt_leaves_no_sequence_behind(record):
    """Wherever it comes, later steps of cells use the weights as they are then."""
    cell = nn.GRUCell(3, 4, dtype=np.float64)
    x = mg.Tensor(draw(5, 2, 3))
    k = 0
    while True:
        k += 1
        with mg.study.record() if record else contextlib.nullcontext() as recording:
            came = interrupted_at(k, lambda: nn.unroll(cell, x))
            after = cell(x[0])
        assert module.running() is None
        if record:
            assert recording.entries[-1].scope == "GRUCell"
        with mg.no_grad():
            cell.W += 0.1
            again = cell(x[0]).numpy()
        expected, _ = nn.unroll(cell, x[:1])
        assert not np.array_equal(after.numpy(), again), k
        np.testing.assert_array_equal(again, expected.numpy()[0])
        if not came:
            break
    assert k > 20
