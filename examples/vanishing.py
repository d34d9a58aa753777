"""Explosion and vanishing of gradients, measured; then one training without and with clipping: one
diverges, the other learns.

    python examples/vanishing.py                            some 5 seconds; draws vanishing.png where matplotlib is installed
    python examples/vanishing.py --radii 0.5 1 2 --keep 1   other spectral radii of W1; gates that forget from the start

Part 1. The lecture: going back from step T to step 1, the gradient is multiplied T - 1 times by
W1^T and by tanh':

    dL/dh_{i-1} = (dL/dh_i * tanh'(h_{i-1} W1 + x_i W2)) W1^T,  so  |dL/dh_1| <= sigma^(T-1)
    |dL/dh_T|,  sigma = |W1|

since 0 < tanh' <= 1 and a product with W1^T stretches no vector by more than its norm sigma, the
largest singular value. The spectral radius rho, of which the lecture speaks, gives such a bound
only where rho = sigma. So it is here: every gate's matrix is orthogonal, times rho. With no tanh'
between them the powers alone would give |(W1^T)^(T-1)|; it is printed beside the bound, and is no
bound for a matrix of another kind. That rho > 1 makes the gradient explode is true only while tanh'
stays near 1. For each radius, what is printed is the norm of the gradient at step 1 over that at
step T: for the RNN and GRU dL/dh, for the LSTM dL/dc (its memory) and dL/dh. The layers measure it
in their backward pass (layer.telemetry). In LSTM and GRU the gate that keeps the state starts open,
with the bias --keep.

Part 2. An RNN with rho = 1.2 learns by plain SGD the mean of a sequence: first with its gradients
as they are, then with each element above --clip replaced by --clip, below -clip by -clip, as the
lecture says. The loss starts near 1/3 or above; "nan" is a net that was blown up.

The full run (2 s on one core of an AMD EPYC with AVX-512): from rho = 0.5 to 3 the RNN's gradient
shrinks by 1.5e-30 or grows by 2.5e14, never above its bound. The GRU's stays within 0.18 and 1.1,
the LSTM's dL/dc grows by 560 to 95000, whatever rho: less exposed, not immune. Part 2: without
clipping the loss is nan before step 126, with it it falls from 0.90 to below 0.1.
"""

import argparse

import numpy as np
from _script import Script, count, picture, positive, real, seed_number, size, whole

import minigrad as mg

script = Script("vanishing", __doc__)


def gradient_norms(
    kind: str, radius: float, o: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """|dL/dh_t| and, of an LSTM, |dL/dc_t| for each step of a sequence whose last output alone has
    a loss; and W1."""
    rng = np.random.default_rng(o.seed)
    cell = (layer := getattr(mg.nn, kind)(2, o.hidden, dtype=np.float64, rng=rng)).cells[0]
    with mg.no_grad():
        for name in cell.gates:
            mg.nn.scale_spectral_radius_(cell.gate(name).U, radius)
        if kind != "RNN":
            cell.gate("f" if kind == "LSTM" else "z").b[...] = o.keep
    x = mg.Tensor(rng.uniform(-0.1, 0.1, (o.length, 16, 2)))  # small, so that tanh' is near 1
    out, _ = layer(x)
    (out[-1] * mg.Tensor(rng.standard_normal(out.shape[1:]))).sum().backward()
    return (
        layer.telemetry[0].dh_norm,
        layer.telemetry[0].dc_norm,
        cell.gate(cell.gates[0]).U.numpy(),
    )


def table(o: argparse.Namespace) -> dict:
    """Print what happens to the gradient over the radii; return (kind, radius) -> norms over the
    steps."""
    print(
        f"|gradient at step 1| / |gradient at step {o.length}|, gates that keep start with the bias {o.keep:g}"
    )
    print("   rho   sigma^n    powers       RNN    LSTM c    LSTM h       GRU")
    norms, n, worst = {}, o.length - 1, 0.0
    for radius in o.radii:
        row = []
        for kind in ("RNN", "LSTM", "GRU"):
            dh, dc, W1 = gradient_norms(kind, radius, o)
            norms[kind, radius] = dh if dc is None else dc
            if kind == "RNN":
                sigma = np.linalg.norm(W1, 2)
                bound = dh[-1] * sigma ** np.arange(n, -1, -1.0)
                worst = max(worst, (dh / bound)[:-1].max())
                row += [sigma**n, mg.nn.power_norms(W1.T, n)[-1]]
            row += [dh[0] / dh[-1]] if dc is None else [dc[0] / dc[-1], dh[0] / dh[-1]]
        print(f"{radius:6.2f}" + "".join(f"{v:10.1e}" for v in row))
    print(
        f"largest ratio of the RNN's gradient to its bound, over all radii and steps but T: {worst:.4f}"
    )
    return norms


def train(clip: float | None, o: argparse.Namespace) -> list[float]:
    """The losses of an RNN with a large spectral radius that learns the mean of 50 numbers, times
    sqrt(50), by SGD."""
    rng = np.random.default_rng(o.seed)
    rnn, head = mg.nn.RNN(1, 32, rng=rng), mg.nn.Linear(32, 1, rng=rng)
    mg.nn.scale_spectral_radius_(rnn.cells[0].U, 1.2)
    parameters = [*rnn.parameters(), *head.parameters()]
    optimizer = mg.optim.SGD(parameters, lr=0.1)
    losses = []
    for _ in range(o.steps):
        x = rng.uniform(-1, 1, (50, 32, 1)).astype(np.float32)
        out, _ = rnn(x)
        loss = mg.mse(head(out[-1]), mg.Tensor(x.mean(0) * np.float32(50**0.5)))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            mg.optim.clip_grad_value_(parameters, clip)
        optimizer.step()
    return losses


def draw(figure, o: argparse.Namespace, norms: dict, curves: list[list[float]]) -> None:
    """The gradient over the steps for each radius and network, and the two trainings."""
    from matplotlib import colormaps

    axes = figure.subplots(1, 4)
    for axis, kind in zip(axes[:3], ("RNN", "LSTM", "GRU"), strict=True):
        for k, radius in enumerate(o.radii):
            values, color = norms[kind, radius], colormaps["viridis"](k / len(o.radii))
            axis.semilogy(
                range(1, o.length + 1), values / values[-1], color=color, label=f"ρ = {radius:g}"
            )
            if kind == "RNN":
                axis.semilogy(
                    range(1, o.length + 1),
                    radius ** np.arange(o.length - 1, -1, -1.0),
                    ":",
                    color=color,
                )
        axis.set(
            title=f"{kind}: |dL/d{'c' if kind == 'LSTM' else 'h'}ₜ|, last = 1",
            xlabel="step t",
            ylim=(1e-12, 1e12),
        )
    axes[0].plot([], [], "k:", label="bound σⁿ")
    axes[1].legend(*axes[0].get_legend_handles_labels(), fontsize=7, ncols=2, loc="lower right")
    for curve, label in zip(curves, ("without clipping", "with clipping"), strict=True):
        axes[3].semilogy(curve, label=label, linewidth=0.8)
    axes[3].set(title="training", xlabel="step", ylabel="loss", ylim=(1e-2, 1e3))
    axes[3].legend(fontsize=7)


def main(arguments: list[str] | None = None) -> None:
    parser = script.parser()
    parser.add_argument(
        "--radii",
        type=real(0.01, 100),
        nargs="+",
        default=[0.5, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3],
        metavar="RHO",
        help="spectral radii of W1 (default 0.5 0.8 0.9 1 1.1 1.25 1.5 2 3)",
    )
    parser.add_argument(
        "--length",
        type=whole(2, 10**6),
        default=100,
        help="steps of the sequence in part 1 (default 100)",
    )
    parser.add_argument(
        "--hidden", type=size, default=64, help="hidden units in part 1 (default 64)"
    )
    parser.add_argument(
        "--keep",
        type=real(-1e6, 1e6),
        default=4.0,
        help="bias of the LSTM's gate f and the GRU's z (default 4)",
    )
    parser.add_argument(
        "--steps", type=count, default=1000, help="training steps in part 2 (default 1000)"
    )
    parser.add_argument(
        "--clip",
        type=positive,
        default=0.02,
        help="largest element of a gradient in part 2 (default 0.02)",
    )
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=picture,
        default="vanishing.png",
        help="default vanishing.png",
    )
    o = parser.parse_args(arguments)
    for radius in o.radii:
        if abs(np.log10(radius)) * o.length > 300:
            script.fail(
                f"--radii and --length: {radius:g} to the power {o.length - 1} is out of float64's range"
            )
    with np.errstate(over="ignore"):
        norms = table(o)
    print("\nloss of the training:  step   without clipping   with clipping")
    with np.errstate(all="ignore"):
        curves = [train(None, o), train(o.clip, o)]
    for step in [*range(0, o.steps - 1, max(1, o.steps // 8)), o.steps - 1]:
        print(f"{step + 1:27} {curves[0][step]:18.3g} {curves[1][step]:15.3g}")
    with np.errstate(all="ignore"):
        drawn = script.draw(o.plot, lambda figure: draw(figure, o, norms, curves), 14, 3.6, dpi=80)
    if drawn:
        print(f"picture: {o.plot}")


if __name__ == "__main__":
    script.run(main)
