"""Single ops, functions of one variable and matrix products, beside NumPy and PyTorch.

    python benchmarks/ops.py                      all of it, about a minute
    python benchmarks/ops.py --threads 2          the products on two threads

Three tables are printed:

- the microseconds that an op takes, forward and backward, in a chain of 999 ops on 32 numbers,
  where nearly all of it is overhead;
- the nanoseconds that tanh, exp, sigmoid, log and sin take for each of 10^4 elements;
- the GFLOP/s of matrix products of several sizes, and the share of the measured peak of the FMA
  units that a product with packed weights reaches.

The columns of PyTorch are left out where it is not installed. For a fair NumPy leave its OpenBLAS
settings alone (unset OPENBLAS_CORETYPE).
"""

import argparse
import operator
import sys
from functools import partial

import numpy as np
from _measure import count, interleave, parser, restart_with_threads, seconds, table

import minigrad as mg
from minigrad.core.kernels import PackedProduct, measure_peak

try:
    import torch
except ImportError:
    torch = None


# ---------------------------------------------------------------- settings

LINKS = 333  # of the chain, three ops each
ELEMENTS = 10_000
FUNCTIONS = ("tanh", "exp", "sigmoid", "log", "sin")
SIDES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
PRODUCTS = [(side, side, side) for side in SIDES] + [(64, 128, 512)]  # m, k, n

rng = np.random.default_rng(0)


def settings() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--threads",
        type=count,
        default=1,
        help="threads of every contestant in the products (default 1)",
    )
    options.add_argument(
        "--seconds", type=seconds, default=1.0, help="time for each line (default 1)"
    )
    return options.parse_args()


def random_numbers(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


# ---------------------------------------------------------------- overhead


def chain(tanh, x, w, b):
    """999 ops: mul, add and tanh in turn."""
    for _ in range(LINKS):
        x = tanh(x * w + b)
    return x


def chain_and_backward(tanh, x, w, b, dy):
    chain(tanh, x, w, b).backward(dy)


def chain_without_recording(x, w, b):
    with mg.no_grad():
        chain(mg.tanh, x, w, b)


def measure_overhead(seconds: float) -> None:
    """The time of an op on 32 numbers, in microseconds."""
    arrays = [random_numbers(32) for _ in range(3)]
    leaves = [mg.Tensor(a, requires_grad=True) for a in arrays]
    contestants = {
        "forward": partial(chain, mg.tanh, *leaves),
        "forward and backward": partial(chain_and_backward, mg.tanh, *leaves, mg.ones(32)),
        "forward, no recording": partial(chain_without_recording, *leaves),
        "numpy forward": partial(chain, np.tanh, *arrays),
    }
    if torch:
        torch_leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
        contestants["torch forward"] = partial(chain, torch.tanh, *torch_leaves)
        contestants["torch forward and backward"] = partial(
            chain_and_backward, torch.tanh, *torch_leaves, torch.ones(32)
        )
    times = interleave(contestants, 4 * seconds)

    ops = 3 * LINKS
    rows = [[name, f"{time / ops * 1e6:.3f}"] for name, time in times.items()]
    print(f"Chain of {ops} ops on shape (32,)")
    print(table(["", "us an op"], rows))
    ratio = times["forward, no recording"] / times["numpy forward"]
    print(f"no recording / numpy: {ratio:.2f}")
    if torch:
        ratio = times["forward and backward"] / times["torch forward and backward"]
        print(f"forward and backward / torch: {ratio:.2f}")
    print()


# ---------------------------------------------------------------- functions


def numpy_sigmoid(x: np.ndarray) -> np.ndarray:
    one = x.dtype.type(1)
    return one / (one + np.exp(-x))


def measure_function(name: str, dtype: type, seconds: float) -> dict[str, float]:
    """The time of a function for one element, in nanoseconds, by each contestant."""
    x = (3 * rng.standard_normal(ELEMENTS)).astype(dtype)
    if name == "log":
        x = abs(x)
    numpy_function = numpy_sigmoid if name == "sigmoid" else getattr(np, name)
    contestants = {
        "minigrad": partial(getattr(mg, name), mg.Tensor(x)),
        "numpy": partial(numpy_function, x),
    }
    if torch:
        contestants["torch"] = partial(getattr(torch, name), torch.tensor(x))
    times = interleave(contestants, seconds)
    return {contestant: time / ELEMENTS * 1e9 for contestant, time in times.items()}


def measure_functions(seconds: float) -> None:
    rows = []
    for dtype in (np.float32, np.float64):
        for name in FUNCTIONS:
            times = measure_function(name, dtype, seconds)
            ratio = times["numpy"] / times["minigrad"]
            row = [f"{name} {np.dtype(dtype).name}"]
            row += [f"{time:.3f}" for time in times.values()]
            rows.append([*row, f"{ratio:.2f}"])
    print("Functions on 10^4 elements, ns an element")
    print(table(["", *times, "numpy / minigrad"], rows))
    print()


# ---------------------------------------------------------------- products


def measure_product(m: int, k: int, n: int, seconds: float) -> dict[str, float]:
    """The speed of a product (m, k) @ (k, n) in float32, in GFLOP/s, by each contestant."""
    a = random_numbers(m, k)
    b = random_numbers(k, n)
    contestants = {
        "minigrad": partial(mg.matmul, mg.Tensor(a), mg.Tensor(b)),
        "packed": partial(PackedProduct(b), a),
        "numpy": partial(operator.matmul, a, b),
    }
    if torch:
        contestants["torch"] = partial(operator.matmul, torch.tensor(a), torch.tensor(b))
    times = interleave(contestants, seconds)
    gigaflops = 2e-9 * m * k * n
    return {contestant: gigaflops / time for contestant, time in times.items()}


def measure_products(threads: int, seconds: float) -> None:
    peak = threads * measure_peak(np.float32)
    rows = []
    for m, k, n in PRODUCTS:
        speeds = measure_product(m, k, n, seconds)
        row = [f"{m} x {k} x {n}"]
        row += [f"{speed:.1f}" for speed in speeds.values()]
        row.append(f"{speeds['minigrad'] / speeds['numpy']:.2f}")
        row.append(f"{speeds['packed'] / peak:.0%}")
        rows.append(row)
    print(
        f"Products m x k x n in float32, GFLOP/s, {threads} thread(s); "
        f"measured FMA peak {peak:.0f} GFLOP/s"
    )
    print(table(["", *speeds, "numpy / minigrad", "packed / peak"], rows))


# ---------------------------------------------------------------- all of it


def main() -> None:
    args = settings()
    restart_with_threads(args.threads)
    if torch:
        torch.set_num_threads(args.threads)
    else:
        print("PyTorch is not installed: its columns are left out", file=sys.stderr)
    mg.show_config()
    print()
    measure_overhead(args.seconds)
    measure_functions(args.seconds)
    measure_products(args.threads, args.seconds)


if __name__ == "__main__":
    main()
