"""How far float32 results are from the exact ones for the same inputs: the numbers of docs/bits.md.

    python benchmarks/accuracy.py steps      single steps of recurrent layers, by the size of weights
    python benchmarks/accuracy.py layers     whole sequences; beside PyTorch if it is installed
    python benchmarks/accuracy.py products   elements of matrix products, by the length of a chain

The exact result is that of float64, whose own error is some 10^8 times smaller. An ulp is the
distance of float32 numbers at the exact result.
"""

import argparse

import numpy as np

import minigrad as mg

try:
    import torch
except ImportError:
    torch = None

T, B, I, H = 100, 8, 16, 32
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0)
LAYERS = {
    "RNN": lambda dtype: mg.nn.RNN(I, H, dtype=dtype),
    "LSTM": lambda dtype: mg.nn.LSTM(I, H, dtype=dtype),
    "GRU": lambda dtype: mg.nn.GRU(I, H, dtype=dtype),
    "GRU, reset_after": lambda dtype: mg.nn.GRU(I, H, reset_after=True, dtype=dtype),
}


def peer(name, weights):
    """The same layer of PyTorch with the same weights, or None."""
    if torch is None or name == "GRU":
        return None
    layer = {"RNN": torch.nn.RNN, "LSTM": torch.nn.LSTM}.get(name, torch.nn.GRU)(I, H)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.from_numpy(weights["W"].T.copy()))
        layer.weight_hh_l0.copy_(torch.from_numpy(weights["U"].T.copy()))
        columns = layer.bias_ih_l0.numel()
        layer.bias_ih_l0.copy_(torch.from_numpy(weights["b"].reshape(-1)[:columns].copy()))
        layer.bias_hh_l0.zero_()
        if weights["b"].size > columns:
            layer.bias_hh_l0[2 * H :].copy_(
                torch.from_numpy(weights["b"].reshape(-1)[columns:].copy())
            )
    return layer


def pair(name, scale, rng):
    """The layer in float32 and in float64 with the same random weights, and these as arrays."""
    single, double, weights = LAYERS[name](np.float32), LAYERS[name](np.float64), {}
    with mg.no_grad():
        for (key, p), (_, q) in zip(
            single.cells[0].named_parameters(), double.cells[0].named_parameters(), strict=True
        ):
            weights[key] = (scale * rng.standard_normal(p.shape)).astype(np.float32)
            p[...] = weights[key]
            q[...] = weights[key].astype(np.float64)
    return single, double, weights


def errors(found, exact):
    """The largest error, its median in ulps, and its largest in ulps."""
    distance = np.abs(found.astype(np.float64) - exact)
    ulps = distance / np.spacing(np.abs(exact).astype(np.float32))
    return distance.max(), np.median(ulps), ulps.max()


def row(name, scale, seeds=5):
    """Errors of minigrad and of PyTorch (None), each the largest over some seeds."""
    ours, theirs = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        single, double, weights = pair(name, scale, rng)
        with mg.no_grad():
            x = rng.standard_normal((T, B, I)).astype(np.float32)
            exact = double(mg.Tensor(x.astype(np.float64)))[0].numpy()
            ours.append(errors(single(mg.Tensor(x))[0].numpy(), exact))
        other = peer(name, weights)
        if other is not None:
            with torch.no_grad():
                theirs.append(errors(other(torch.from_numpy(x))[0].numpy(), exact))
    return np.max(ours, 0), np.max(theirs, 0) if theirs else None


def layers():
    print(
        f"T = {T}, B = {B}, I = {I}, H = {H}; weights scale * normal; x normal; the largest of 5 seeds\n"
    )
    print(
        "| layer | scale | largest error | PyTorch | median ulp | PyTorch | largest ulp | PyTorch |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in LAYERS:
        for scale in SCALES:
            ours, theirs = row(name, scale)
            theirs = (
                ["", "", ""]
                if theirs is None
                else [f"{theirs[0]:.1e}", f"{theirs[1]:.2g}", f"{theirs[2]:.3g}"]
            )
            print(
                f"| {name} | {scale} | {ours[0]:.1e} | {theirs[0]} | {ours[1]:.2g} | {theirs[1]} | {ours[2]:.3g} | {theirs[2]} |"
            )


def step_errors(name, scale, seed, steps=60):
    """The largest error of h' after one step, from the state that float32 has there, in units of
    2^-24 and of 2^-24 (1 + S)."""
    rng = np.random.default_rng(seed)
    single, double, weights = pair(name, scale, rng)
    x = rng.standard_normal((steps, B, I)).astype(np.float32)
    state = single.state_type(*(mg.zeros((1, B, H)) for _ in single.state_type._fields))
    W, U, b = (np.abs(weights[key].astype(np.float64)) for key in "WUb")
    plain = scaled = 0.0
    for now in x:
        wide = double.state_type(*(mg.Tensor(part.numpy().astype(np.float64)) for part in state))
        sums = b.reshape(-1)[: W.shape[1]] + np.abs(now) @ W + np.abs(wide.h.numpy()[0]) @ U
        S = sums.reshape(B, -1, H).max(1)
        with mg.no_grad():
            exact = double(mg.Tensor(now[None].astype(np.float64)), wide)[1]
            state = single(mg.Tensor(now[None]), state)[1]
        error = np.abs(state.h.numpy()[0] - exact.h.numpy()[0]) * 2**24
        plain, scaled = max(plain, error.max()), max(scaled, (error / (1 + S)).max())
    return plain, scaled


def steps():
    print("| layer | scale | largest error of a step / 2^-24 | / (2^-24 (1 + S)) |")
    print("|---|---|---|---|")
    for name in LAYERS:
        for scale in SCALES:
            plain, scaled = np.max([step_errors(name, scale, seed) for seed in range(5)], 0)
            print(f"| {name} | {scale} | {plain:.1f} | {scaled:.2f} |")


def products():
    """Columns of dW = x^T da with K rows, as a layer makes it: all positive, and of both signs."""
    print(
        "| K | terms from 0 to 1: error / sum | NumPy | both signs: error / sum of abs(terms) | NumPy |"
    )
    print("|---|---|---|---|---|")
    for K in (10**3, 10**4, 10**5, 10**6, 10**7):
        cells, rng = [], np.random.default_rng(0)
        for low in (0.0, -1.0):
            a, b = rng.uniform(low, 1, (2, 2, K)).astype(np.float32)
            b = b.T
            wide = a.astype(np.float64), b.astype(np.float64)
            exact, size = wide[0] @ wide[1], np.abs(wide[0]) @ np.abs(wide[1])
            for found in ((mg.Tensor(a) @ mg.Tensor(b)).numpy(), a @ b):
                cells.append(f"{np.max(np.abs(found - exact) / size):.1e}")
        print(f"| 10^{len(str(K)) - 1} | {cells[0]} | {cells[1]} | {cells[2]} | {cells[3]} |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["steps", "layers", "products"])
    globals()[parser.parse_args().what]()


if __name__ == "__main__":
    main()
