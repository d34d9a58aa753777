"""What the tests of graphs share: leaves, comparisons, ops written in Python, threads."""

import threading

import numpy as np

import minigrad as mg


def leaf(*values, dtype=np.float64):
    return mg.Tensor(np.array(values, dtype), requires_grad=True)


def close(tensor, *values):
    np.testing.assert_allclose(tensor.numpy(), values, rtol=1e-14)
    return True


class Scale(mg.Function):
    """y = x k for a number k."""

    @staticmethod
    def forward(ctx, x, k):
        ctx.k = k
        return x * k

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.k, None


class Polar(mg.Function):
    """(r cos a, r sin a), with both results and an argument saved."""

    @staticmethod
    def forward(ctx, r, a):
        x, y = r * mg.cos(a), r * mg.sin(a)
        ctx.save_for_backward(x, r, y)
        return x, y

    @staticmethod
    def backward(ctx, dx, dy):
        x, r, y = ctx.saved_tensors
        return (dx * x + dy * y) / r, dy * x - dx * y


def broken(forward=lambda ctx, x, k: x * 2.0, backward=lambda ctx, dy: (dy, None)):
    return type(
        "Broken",
        (mg.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward)},
    )


def anomalies():
    """Is anomaly mode on?"""
    try:
        return not mg.log(leaf(0.0))
    except RuntimeError:
        return True


def run_threads(count, work):
    errors = []

    def guarded(i):
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
