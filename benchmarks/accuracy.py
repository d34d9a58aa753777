"""How far float32 results are from the exact ones for the same inputs: the numbers of docs/bits.md.

    python benchmarks/accuracy.py steps      single steps of recurrent layers, by size of weights
    python benchmarks/accuracy.py layers     whole sequences; beside PyTorch if it is installed
    python benchmarks/accuracy.py products   elements of matrix products, by the length of a chain

The exact result is that of float64, whose own error is some 10^8 times smaller. An ulp is the
distance of float32 numbers at the exact result. Each command prints a table in Markdown.
"""

import argparse

import numpy as np
from _measure import parser

import minigrad as mg

try:
    import torch
except ImportError:
    torch = None


# ---------------------------------------------------------------- settings

T, B, I, H = 100, 8, 16, 32
STEPS = 60  # of the sequences for `steps`
SEEDS = range(5)
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0)  # weights are scale * normal
LENGTHS = (10**3, 10**4, 10**5, 10**6, 10**7)  # of the chains for `products`
LAYERS = {
    "RNN": (mg.nn.RNN, {}),
    "LSTM": (mg.nn.LSTM, {}),
    "GRU": (mg.nn.GRU, {}),
    "GRU, reset_after": (mg.nn.GRU, {"reset_after": True}),
}
UNIT = 2**-24  # the largest relative error of rounding to float32


def settings() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("what", choices=["steps", "layers", "products"])
    return options.parse_args()


# ---------------------------------------------------------------- layers to compare


def in_both_precisions(name: str, scale: float, rng: np.random.Generator):
    """A layer in float32 and in float64 with the same random weights, and these as arrays."""
    kind, options = LAYERS[name]
    single = kind(I, H, dtype=np.float32, **options)
    double = kind(I, H, dtype=np.float64, **options)
    weights = {}
    with mg.no_grad():
        for key, parameter in single.cells[0].named_parameters():
            values = (scale * rng.standard_normal(parameter.shape)).astype(np.float32)
            parameter[...] = values
            getattr(double.cells[0], key)[...] = values.astype(np.float64)
            weights[key] = values
    return single, double, weights


def torch_layer(name: str, weights: dict[str, np.ndarray]):
    """The same layer of PyTorch with the same weights; None if there is none."""
    if torch is None or name == "GRU":  # PyTorch's reset gate is after the product
        return None
    layer = getattr(torch.nn, name.removesuffix(", reset_after"))(I, H)
    columns = weights["U"].shape[1]
    bias = weights["b"].reshape(-1)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(weights["W"].T.copy()))
        layer.weight_hh_l0.copy_(torch.from_numpy(weights["U"].T.copy()))
        layer.bias_ih_l0.copy_(torch.from_numpy(bias[:columns].copy()))
        layer.bias_hh_l0.zero_()
        if bias.size > columns:  # the GRU's bias inside of the reset
            layer.bias_hh_l0[2 * H :].copy_(torch.from_numpy(bias[columns:].copy()))
    return layer


# ---------------------------------------------------------------- whole sequences


def errors(found: np.ndarray, exact: np.ndarray) -> tuple[float, float, float]:
    """The largest error, the median error in ulps, and the largest in ulps."""
    distance = np.abs(found.astype(np.float64) - exact)
    ulps = distance / np.spacing(np.abs(exact).astype(np.float32))
    return distance.max(), np.median(ulps), ulps.max()


def sequence_errors(name: str, scale: float) -> tuple[np.ndarray, np.ndarray | None]:
    """The errors of minigrad and of PyTorch (or None), each the largest over the seeds."""
    ours = []
    theirs = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        single, double, weights = in_both_precisions(name, scale, rng)
        x = rng.standard_normal((T, B, I)).astype(np.float32)
        with mg.no_grad():
            exact, _ = double(mg.Tensor(x.astype(np.float64)))
            found, _ = single(mg.Tensor(x))
        ours.append(errors(found.numpy(), exact.numpy()))
        peer = torch_layer(name, weights)
        if peer is not None:
            with torch.no_grad():
                found, _ = peer(torch.from_numpy(x))
            theirs.append(errors(found.numpy(), exact.numpy()))
    return np.max(ours, axis=0), np.max(theirs, axis=0) if theirs else None


def measure_layers() -> None:
    print(
        f"T = {T}, B = {B}, I = {I}, H = {H}; weights scale * normal; x normal; "
        f"the largest of {len(SEEDS)} seeds\n"
    )
    print(
        "| layer | scale | largest error | PyTorch | median ulp | PyTorch | largest ulp | PyTorch |"
    )
    print("|---|---|---|---|---|---|---|---|")
    formats = (".1e", ".2g", ".3g")
    for name in LAYERS:
        for scale in SCALES:
            ours, theirs = sequence_errors(name, scale)
            cells = [name, str(scale)]
            for k, form in enumerate(formats):
                cells.append(format(ours[k], form))
                cells.append("" if theirs is None else format(theirs[k], form))
            print(f"| {' | '.join(cells)} |")


# ---------------------------------------------------------------- single steps


def absolute_sums(weights: dict[str, np.ndarray], x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """S = |b| + |x| |W| + |h| |U| (B, H) in float64, the largest of the gates of each unit."""
    W, U, b = (np.abs(weights[key].astype(np.float64)) for key in ("W", "U", "b"))
    sums = b.reshape(-1)[: W.shape[1]] + np.abs(x) @ W + np.abs(h) @ U
    return sums.reshape(B, -1, H).max(axis=1)


def step_errors(name: str, scale: float, seed: int) -> tuple[float, float]:
    """The largest error of h after one step, from the state that float32 has before it: in units
    of 2^-24, and in units of 2^-24 (1 + S)."""
    rng = np.random.default_rng(seed)
    single, double, weights = in_both_precisions(name, scale, rng)
    x = rng.standard_normal((STEPS, B, I)).astype(np.float32)
    state = single.state_type(*(mg.zeros((1, B, H)) for _ in single.state_type._fields))
    plain = 0.0
    scaled = 0.0
    for x_t in x:
        before = double.state_type(*(mg.Tensor(part.numpy().astype(np.float64)) for part in state))
        S = absolute_sums(weights, x_t, before.h.numpy()[0])
        with mg.no_grad():
            _, exact = double(mg.Tensor(x_t[None].astype(np.float64)), before)
            _, state = single(mg.Tensor(x_t[None]), state)
        error = np.abs(state.h.numpy()[0] - exact.h.numpy()[0]) / UNIT
        plain = max(plain, error.max())
        scaled = max(scaled, (error / (1 + S)).max())
    return plain, scaled


def measure_steps() -> None:
    print("| layer | scale | largest error of a step / 2^-24 | / (2^-24 (1 + S)) |")
    print("|---|---|---|---|")
    for name in LAYERS:
        for scale in SCALES:
            plain, scaled = np.max([step_errors(name, scale, seed) for seed in SEEDS], axis=0)
            print(f"| {name} | {scale} | {plain:.1f} | {scaled:.2f} |")


# ---------------------------------------------------------------- products


def product_errors(K: int, low: float, rng: np.random.Generator) -> tuple[float, float]:
    """The largest error, over the sum of the absolute terms, of products (2, K) @ (K, 2) of numbers
    from `low` to 1: by minigrad, and by NumPy."""
    a, b = rng.uniform(low, 1, (2, 2, K)).astype(np.float32)
    b = b.T
    exact = a.astype(np.float64) @ b.astype(np.float64)
    size = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    ours = (mg.Tensor(a) @ mg.Tensor(b)).numpy()
    theirs = a @ b
    return np.max(np.abs(ours - exact) / size), np.max(np.abs(theirs - exact) / size)


def measure_products() -> None:
    """Elements of dW = x^T da with K rows, as a layer makes them: with terms of one sign, and of
    both."""
    print(
        "| K | terms from 0 to 1: error / sum | NumPy "
        "| both signs: error / sum of abs(terms) | NumPy |"
    )
    print("|---|---|---|---|---|")
    for K in LENGTHS:
        rng = np.random.default_rng(0)
        cells = [f"10^{len(str(K)) - 1}"]
        for low in (0.0, -1.0):
            cells += [f"{error:.1e}" for error in product_errors(K, low, rng)]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    args = settings()
    if args.what == "steps":
        measure_steps()
    elif args.what == "layers":
        measure_layers()
    else:
        measure_products()


if __name__ == "__main__":
    main()
