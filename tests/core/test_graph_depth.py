"""Graphs of a million nodes are recorded, swept and freed in a thread with a small stack."""

import gc

import pytest
from graphs import Scale, close, leaf
from running import in_small_thread

import minigrad as mg


def chain(n):
    x = leaf(1.0)
    y = x
    gc.disable()  # which looks again and again through what will not go away, and is slow at that
    for _ in range(n):
        y = y + 1.0
    gc.enable()
    return x, y


@pytest.mark.slow
def test_a_million_nodes():
    def work():
        x, y = chain(1_000_000)
        y.backward()
        assert close(x.grad, 1)
        del y
        x, y = chain(1_000_000)
        (dx,) = mg.grad(y, x)
        assert close(dx, 1)
        x, y = chain(1_000_000)
        del x, y  # without a sweep
        return True

    assert in_small_thread(work)


@pytest.mark.slow
def test_deep_chains_of_other_kinds():
    """Saved outputs, several outputs, Python rules, create_graph, and a collected cycle: 20 000
    nodes each."""

    class Pair(mg.Function):
        @staticmethod
        def forward(ctx, x):
            return x + 0.0, x + 0.0

        @staticmethod
        def backward(ctx, da, db):
            return da + db

    def work():
        for op in (
            mg.tanh,
            lambda y: y * y,
            lambda y: Pair.apply(y)[1],
            lambda y: Scale.apply(y, 1.0),
            lambda y: y.reshape(1),
        ):
            for sweep in (True, False):
                x = leaf(0.0)
                y = x
                gc.disable()
                for _ in range(20_000):
                    y = op(y)
                gc.enable()
                if sweep:
                    y.backward()
                del y
        x, y = chain(20_000)
        (dx,) = mg.grad(mg.exp(y - 20_000.0), x, create_graph=True)
        mg.grad(dx, x)
        del dx, y
        x, y = chain(20_000)
        y.register_hook(lambda dy, y=y: y)
        del y
        gc.collect()
        return True

    assert in_small_thread(work)
