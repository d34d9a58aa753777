"""Measures how gradients explode and vanish. Then it trains a network without and with clipping:
one training diverges, the other learns.

    python examples/vanishing.py                            about 5 seconds; draws vanishing.png
    python examples/vanishing.py --radii 0.5 1 2 --keep 1   other radii; gates that forget more

It prints a table with a line for each spectral radius of W1 (part 1), then the losses of the two
trainings (part 2). The picture, vanishing.png, shows both; it needs matplotlib.

Part 1. Going back from step T to step 1, the gradient is multiplied T - 1 times by W1^T and by
tanh':

    dL/dh_{i-1} = (dL/dh_i * tanh'(h_{i-1} W1 + x_i W2)) W1^T

    so  |dL/dh_1| <= sigma^(T-1) |dL/dh_T|  with  sigma = |W1|

since 0 < tanh' <= 1 and a product with W1^T stretches no vector by more than its norm sigma, the
largest singular value. The lecture speaks of the spectral radius rho, which gives such a bound only
where rho = sigma. That is the case here: the matrix of every gate is rho times an orthogonal one.
The powers alone, without tanh' between them, have the norm |(W1^T)^(T-1)|. It is printed beside the
bound; for matrices of another kind it is no bound. And rho > 1 makes the gradient explode only
while tanh' stays near 1.

For each radius the norm of the gradient at step 1 over that at step T is printed: for the RNN and
the GRU dL/dh, for the LSTM dL/dc (its memory) and dL/dh. The layers measure it in their backward
pass (layer.telemetry). In the LSTM and the GRU the gate that keeps the state starts open, with the
bias --keep.

Part 2. An RNN with rho = 1.2 learns the mean of a sequence by plain SGD: first with its gradients
as they are, then with each element above --clip replaced by --clip, and each one below -clip by
-clip, as in the lecture. The loss starts near 1/3 or above; "nan" means that the weights of the
network have overflowed.

The full run takes 2 s on one core of an AMD EPYC with AVX-512. Part 1: the RNN's gradient is
multiplied by 1.5e-30 for rho = 0.5 and by 2.5e14 for rho = 3, and is never above its bound. The
GRU's is multiplied by 0.18 to 1.1 and the LSTM's dL/dc by 560 to 95000, whatever rho is: they are
less exposed, but not immune. Part 2: with clipping the loss falls from 0.90 to below 0.1; without
it the loss becomes nan after some hundred steps. After how many depends on the last bits of W1,
which is scaled by an eigenvalue from NumPy, and so on the machine.
"""

import argparse

import numpy as np
from _script import Script, count, picture, positive, real, seed_number, size, whole

import minigrad as mg

script = Script("vanishing", __doc__)


# ---------------------------------------------------------------- settings

KINDS = ("RNN", "LSTM", "GRU")
KEEPING_GATE = {"LSTM": "f", "GRU": "z"}  # the gate that keeps the state while it is open


def settings(arguments: list[str] | None) -> argparse.Namespace:
    parser = script.parser()
    add = parser.add_argument
    add(
        "--radii",
        type=real(0.01, 100),
        nargs="+",
        default=[0.5, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3],
        metavar="RHO",
        help="spectral radii of W1 (default 0.5 0.8 0.9 1 1.1 1.25 1.5 2 3)",
    )
    add(
        "--length",
        type=whole(2, 10**6),
        default=100,
        help="steps of the sequence in part 1 (default 100)",
    )
    add("--hidden", type=size, default=64, help="hidden units in part 1 (default 64)")
    add(
        "--keep",
        type=real(-1e6, 1e6),
        default=4.0,
        help="bias of the LSTM's gate f and the GRU's z (default 4)",
    )
    add("--steps", type=count, default=1000, help="training steps in part 2 (default 1000)")
    add(
        "--clip",
        type=positive,
        default=0.02,
        help="largest element of a gradient in part 2 (default 0.02)",
    )
    add("--seed", type=seed_number, default=0, help="of weights and data (default 0)")
    add(
        "--plot",
        metavar="FILE",
        type=picture,
        default="vanishing.png",
        help='picture of both parts, "" for none (default vanishing.png)',
    )
    args = parser.parse_args(arguments)
    for radius in args.radii:
        if abs(np.log10(radius)) * args.length > 300:
            script.fail(
                f"--radii and --length: {radius:g} to the power {args.length - 1} "
                "is out of float64's range"
            )
    return args


# ---------------------------------------------------------------- part 1: gradients


def gradient_norms(
    kind: str, radius: float, args: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """|dL/dh_t| and, for an LSTM, |dL/dc_t| at each step of a sequence, where the loss depends on
    the last output alone; and W1."""
    rng = np.random.default_rng(args.seed)
    layer = getattr(mg.nn, kind)(2, args.hidden, dtype=np.float64, rng=rng)
    cell = layer.cells[0]
    with mg.no_grad():
        for name in cell.gates:
            mg.nn.scale_spectral_radius_(cell.gate(name).U, radius)
        if kind in KEEPING_GATE:
            cell.gate(KEEPING_GATE[kind]).b[...] = args.keep

    x = mg.Tensor(rng.uniform(-0.1, 0.1, (args.length, 16, 2)))  # small, so that tanh' is near 1
    out, _ = layer(x)
    (out[-1] * mg.Tensor(rng.standard_normal(out.shape[1:]))).sum().backward()

    telemetry = layer.telemetry[0]
    W1 = cell.gate(cell.gates[0]).U.numpy()
    return telemetry.dh_norm, telemetry.dc_norm, W1


def measure_gradients(args: argparse.Namespace) -> dict[tuple[str, float], np.ndarray]:
    """Print what happens to the gradient for each radius; return the norms at each step by (kind,
    radius)."""
    print(
        f"|gradient at step 1| / |gradient at step {args.length}|, "
        f"gates that keep start with the bias {args.keep:g}"
    )
    print("   rho   sigma^n    powers       RNN    LSTM c    LSTM h       GRU")
    norms = {}
    n = args.length - 1
    largest_ratio = 0.0
    for radius in args.radii:
        dh, _, W1 = gradient_norms("RNN", radius, args)
        sigma = np.linalg.norm(W1, 2)
        bound = dh[-1] * sigma ** np.arange(n, -1, -1.0)
        largest_ratio = max(largest_ratio, (dh / bound)[:-1].max())
        norms["RNN", radius] = dh
        row = [sigma**n, mg.nn.power_norms(W1.T, n)[-1], dh[0] / dh[-1]]

        dh, dc, _ = gradient_norms("LSTM", radius, args)
        norms["LSTM", radius] = dc
        row += [dc[0] / dc[-1], dh[0] / dh[-1]]

        dh, _, _ = gradient_norms("GRU", radius, args)
        norms["GRU", radius] = dh
        row.append(dh[0] / dh[-1])

        print(f"{radius:6.2f}" + "".join(f"{value:10.1e}" for value in row))
    print(
        "largest ratio of the RNN's gradient to its bound, over all radii and steps but T: "
        f"{largest_ratio:.4f}"
    )
    return norms


# ---------------------------------------------------------------- part 2: training


def train(clip: float | None, args: argparse.Namespace) -> list[float]:
    """Train an RNN with a large spectral radius by SGD to give the mean of 50 numbers, times
    sqrt(50); return its losses."""
    rng = np.random.default_rng(args.seed)
    rnn = mg.nn.RNN(1, 32, rng=rng)
    head = mg.nn.Linear(32, 1, rng=rng)
    mg.nn.scale_spectral_radius_(rnn.cells[0].U, 1.2)
    parameters = [*rnn.parameters(), *head.parameters()]
    optimizer = mg.optim.SGD(parameters, lr=0.1)
    losses = []
    for _ in range(args.steps):
        x = rng.uniform(-1, 1, (50, 32, 1)).astype(np.float32)
        y = x.mean(0) * np.float32(50**0.5)
        out, _ = rnn(x)
        loss = mg.mse(head(out[-1]), mg.Tensor(y))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            mg.optim.clip_grad_value_(parameters, clip)
        optimizer.step()
    return losses


def print_losses(without: list[float], clipped: list[float]) -> None:
    """About ten steps of both trainings, including the first and the last."""
    print("\nloss of the training:  step   without clipping   with clipping")
    last = len(without) - 1
    for step in [*range(0, last, max(1, len(without) // 8)), last]:
        print(f"{step + 1:27} {without[step]:18.3g} {clipped[step]:15.3g}")


# ---------------------------------------------------------------- result


def draw(
    figure,
    norms: dict[tuple[str, float], np.ndarray],
    without: list[float],
    clipped: list[float],
    args: argparse.Namespace,
) -> None:
    """The gradient over the steps for each radius and network, and the two trainings."""
    from matplotlib import colormaps

    axes = figure.subplots(2, 2).flat
    steps = range(1, args.length + 1)
    for axis, kind in zip(axes[:3], KINDS, strict=True):
        for k, radius in enumerate(args.radii):
            values = norms[kind, radius]
            color = colormaps["viridis"](k / len(args.radii))
            axis.semilogy(steps, values / values[-1], color=color, label=f"ρ = {radius:g}")
            if kind == "RNN":
                bound = radius ** np.arange(args.length - 1, -1, -1.0)
                axis.semilogy(steps, bound, ":", color=color)
        state = "c" if kind == "LSTM" else "h"
        axis.set(title=f"{kind}: |dL/d{state}ₜ|, last = 1", xlabel="step t", ylim=(1e-12, 1e12))
    axes[0].plot([], [], "k:", label="bound σⁿ")
    axes[1].legend(*axes[0].get_legend_handles_labels(), fontsize=9, ncols=2, loc="lower right")

    axes[3].semilogy(without, label="without clipping", linewidth=0.8)
    axes[3].semilogy(clipped, label="with clipping", linewidth=0.8)
    axes[3].set(title="training", xlabel="step", ylabel="loss", ylim=(1e-2, 1e3))
    axes[3].legend()


def main(arguments: list[str] | None = None) -> None:
    args = settings(arguments)
    with np.errstate(over="ignore"):
        norms = measure_gradients(args)
    with np.errstate(all="ignore"):  # without clipping the loss overflows
        without = train(None, args)
        clipped = train(args.clip, args)
        print_losses(without, clipped)
        drawn = script.draw(
            args.plot,
            lambda figure: draw(figure, norms, without, clipped, args),
            9,
            6.4,
            dpi=80,
        )
    if drawn:
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    script.run(main)
