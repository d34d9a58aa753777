"""Overhead of an op, throughput of the elementwise kernels and of the matrix product, beside NumPy
and (when installed) PyTorch.

    python benchmarks/ops.py                      all of it, about a minute
    python benchmarks/ops.py --threads 2          products on two threads

Every line is measured in one interleaved run. For a fair NumPy leave its OpenBLAS settings alone
(unset OPENBLAS_CORETYPE).
"""

from timing import begin, interleave, table

options, torch = begin(__doc__, seconds=1.0, threads=" in the products")

import numpy as np  # noqa: E402

import minigrad as mg  # noqa: E402
from minigrad.core.kernels import PackedProduct, measure_peak  # noqa: E402

rng = np.random.default_rng(0)


def chain(tanh, x, w, b):
    for _ in range(333):
        x = tanh(x * w + b)
    return x


def overhead() -> None:
    """A chain of 999 ops (mul, add, tanh) on shape (32,): microseconds an op."""
    arrays = [rng.standard_normal(32).astype(np.float32) for _ in range(3)]
    seed = np.ones(32, np.float32)
    leaves = [mg.Tensor(a, requires_grad=True) for a in arrays]
    gradient = mg.Tensor(seed)

    def both():
        chain(mg.tanh, *leaves).backward(gradient)

    def silent():
        with mg.no_grad():
            chain(mg.tanh, *leaves)

    contestants = {
        "forward": lambda: chain(mg.tanh, *leaves),
        "forward and backward": both,
        "forward, no recording": silent,
        "numpy forward": lambda: chain(np.tanh, *arrays),
    }
    if torch:
        their_leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
        their_seed = torch.ones(32)
        contestants["torch forward"] = lambda: chain(torch.tanh, *their_leaves)
        contestants["torch forward and backward"] = lambda: chain(
            torch.tanh, *their_leaves
        ).backward(their_seed)
    times = interleave(contestants, options.seconds * 4)
    print("Chain of 999 ops on shape (32,)")
    print(
        table(
            ["", "us an op"],
            [[name, f"{seconds / 999 * 1e6:.3f}"] for name, seconds in times.items()],
        )
    )
    print(f"no recording / numpy: {times['forward, no recording'] / times['numpy forward']:.2f}")
    if torch:
        print(
            f"forward and backward / torch: {times['forward and backward'] / times['torch forward and backward']:.2f}"
        )
    print()


def elementwise() -> None:
    """Functions of one variable on 10^4 elements: nanoseconds an element."""
    n, rows = 10_000, []
    for dtype in (np.float32, np.float64):
        x = (rng.standard_normal(n) * 3).astype(dtype)
        positive, one = abs(x), dtype(1)
        theirs = {
            "tanh": lambda x=x: np.tanh(x),
            "exp": lambda x=x: np.exp(x),
            "sigmoid": lambda x=x, one=one: one / (one + np.exp(-x)),
            "log": lambda x=positive: np.log(x),
            "sin": lambda x=x: np.sin(x),
        }
        for name, numpy_call in theirs.items():
            function = getattr(mg, name)
            argument = mg.Tensor(positive if name == "log" else x)
            contestants = {"minigrad": lambda f=function, a=argument: f(a), "numpy": numpy_call}
            if torch:
                theirs_too, a = getattr(torch, name), torch.tensor(argument.numpy().copy())
                contestants["torch"] = lambda f=theirs_too, a=a: f(a)
            times = interleave(contestants, options.seconds)
            rows.append(
                [
                    f"{name} {np.dtype(dtype).name}",
                    *(f"{times[c] / n * 1e9:.3f}" for c in contestants),
                    f"{times['numpy'] / times['minigrad']:.2f}",
                ]
            )
    print("Functions on 10^4 elements, ns an element")
    print(table(["", *contestants, "numpy / minigrad"], rows), end="\n\n")


def products() -> None:
    """Matrix products in float32: GFLOP/s."""
    peak = measure_peak(np.float32) * options.threads
    rows = []
    for m, n, k in [(s, s, s) for s in (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)] + [
        (64, 512, 128)
    ]:
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
        x, y = mg.Tensor(a), mg.Tensor(b)
        packed = PackedProduct(b)
        contestants = {
            "minigrad": lambda x=x, y=y: mg.matmul(x, y),
            "packed": lambda a=a, packed=packed: packed(a),
            "numpy": lambda a=a, b=b: a @ b,
        }
        if torch:
            p, q = torch.tensor(a), torch.tensor(b)
            contestants["torch"] = lambda p=p, q=q: p @ q
        times = interleave(contestants, options.seconds)
        flops = 2e-9 * m * n * k
        rows.append(
            [
                f"{m} x {k} x {n}",
                *(f"{flops / times[c]:.1f}" for c in contestants),
                f"{times['numpy'] / times['minigrad']:.2f}",
                f"{flops / times['packed'] / peak:.0%}",
            ]
        )
    print(
        f"Products m x k x n in float32, GFLOP/s, {options.threads} thread(s); measured FMA peak {peak:.0f} GFLOP/s"
    )
    print(table(["", *contestants, "numpy / minigrad", "packed / peak"], rows))


mg.show_config()
print()
overhead()
elementwise()
products()
