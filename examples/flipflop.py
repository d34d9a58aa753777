"""What a trained network does with its state: three bits, held in the corners of a cube.

    python examples/flipflop.py                  some 5 seconds; draws flipflop.png
    python examples/flipflop.py --kind GRU       another network: RNN, LSTM or GRU
    python examples/flipflop.py --bits 2         fewer bits: a square

The task is the flip-flop of Sussillo and Barak (Opening the black box: low-dimensional dynamics in
high-dimensional recurrent neural networks, Neural Computation 25, 2013). Each of three inputs is 0
but for rare pulses of +1 and -1; each of three outputs is the sign of the last pulse of its input.
Between pulses nothing comes in, so the network has to keep 2^3 states apart by itself. How it does
this is seen in its dynamics without input:

    fixed points      F(h) = h, found from the states of a run by minimising 1/2 |F(h) - h|^2
    stable or not     by the eigenvalues of the Jacobian there: all inside the unit circle?
    the memory        how strongly the last output depends on the input of each earlier step

One stable point is expected for each of the 8 memories. Between them lie saddles, with one unstable
direction on the edges of the cube, two on its faces, three at its centre: a state that a pulse
pushes over a saddle falls to the other side.

The picture, flipflop.png, shows a run, the paths of the state along their first principal axes with
the fixed points, and the eigenvalues at those points; it needs matplotlib.

The full run (4 s on one core of an AMD EPYC): the RNN of 24 units gets all bits right, and so do
LSTM and GRU. Each has 27 fixed points: 8 stable ones, and 12, 6 and 1 with one, two and three
unstable directions, as a cube has corners, edges, faces and a centre.
"""

import argparse
from collections import Counter

import numpy as np
from _script import Script, count, picture, positive, real, seed_number, size, whole

import minigrad as mg

script = Script("flipflop", __doc__)
dynamics = mg.study.dynamics


# ---------------------------------------------------------------- settings


def settings(arguments: list[str] | None) -> argparse.Namespace:
    parser = script.parser()
    add = parser.add_argument
    add("--kind", choices=("RNN", "LSTM", "GRU"), default="RNN", help="network (default RNN)")
    add("--bits", type=whole(1, 9), default=3, help="bits to keep (default 3)")
    add("--hidden", type=size, default=24, help="hidden units (default 24)")
    add("--length", type=whole(2, 10**5), default=50, help="steps of a sequence (default 50)")
    add(
        "--pulses",
        type=real(0.001, 1),
        default=0.1,
        help="probability of a pulse, for each step and input (default 0.1)",
    )
    add("--batch", type=size, default=64, help="sequences of a batch (default 64)")
    add("--steps", type=count, default=600, help="training steps (default 600)")
    add("--lr", type=positive, default=0.01, help="learning rate of Adam (default 0.01)")
    add(
        "--starts",
        type=size,
        default=500,
        help="states to look for fixed points from (default 500)",
    )
    add("--seed", type=seed_number, default=0, help="of weights and data (default 0)")
    add(
        "--plot",
        metavar="FILE",
        type=picture,
        default="flipflop.png",
        help='picture of the dynamics, "" for none (default flipflop.png)',
    )
    return parser.parse_args(arguments)


# ---------------------------------------------------------------- data


def pulses(args: argparse.Namespace, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and what the outputs should be, both (T, B, bits): the sign of the last pulse. All
    inputs begin with a pulse, so that there is a last one from the first step on."""
    shape = (args.length, args.batch, args.bits)
    x = rng.choice([-1.0, 1.0], shape) * (rng.random(shape) < args.pulses)
    x[0] = rng.choice([-1.0, 1.0], shape[1:])
    y = np.empty_like(x)
    last = np.zeros(shape[1:])
    for t in range(args.length):
        last = np.where(x[t] == 0, last, x[t])
        y[t] = last
    return x.astype(np.float32), y.astype(np.float32)


# ---------------------------------------------------------------- training


def train(args: argparse.Namespace) -> tuple[mg.nn.Module, mg.nn.Linear, float]:
    """The network, the linear layer that reads its state, and the share of bits that they get right
    on new sequences."""
    rng = np.random.default_rng(args.seed)
    network = getattr(mg.nn, args.kind)(args.bits, args.hidden, rng=rng)
    readout = mg.nn.Linear(args.hidden, args.bits, rng=rng)
    parameters = [*network.parameters(), *readout.parameters()]
    optimizer = mg.optim.Adam(parameters, lr=args.lr)
    for step in range(1, args.steps + 1):
        optimizer.lr = args.lr * (1 - (step - 1) / args.steps)
        x, y = pulses(args, rng)
        out, _ = network(x)
        loss = mg.mse(readout(out), mg.Tensor(y))
        optimizer.zero_grad()
        loss.backward()
        mg.optim.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % max(1, args.steps // 6) == 0 or step == args.steps:
            print(f"step {step}/{args.steps}: loss {loss.item():.4f}")
    x, y = pulses(args, rng)
    with mg.no_grad():
        right = np.mean((readout(network(x)[0]).numpy() > 0) == (y > 0))
    return network, readout, float(right)


# ---------------------------------------------------------------- dynamics


def analyse(network: mg.nn.Module, args: argparse.Namespace):
    """The fixed points without input, and the paths of the state in new sequences. Start states are
    those of the paths, and as many between two of them, where the saddles are."""
    rng = np.random.default_rng([args.seed, 1])
    x, _ = pulses(args, rng)
    path = dynamics.trajectories(network, x)
    states = path.states.reshape(-1, path.states.shape[-1])
    share = rng.random((len(states), 1))
    between = share * states + (1 - share) * rng.permutation(states)
    starts = np.concatenate([states, between])
    return dynamics.fixed_points(network, starts, count=args.starts), path


def bits_at(points: np.ndarray, readout: mg.nn.Linear) -> list[str]:
    """What is read out of each state, e.g. "+-+"; of an LSTM's state h, the first half."""
    h = points[:, : readout.weight.shape[0]].astype(np.float32)
    with mg.no_grad():
        signs = readout(mg.Tensor(h)).numpy() > 0
    return ["".join("+" if sign else "-" for sign in row) for row in signs]


def tell(network: mg.nn.Module, readout: mg.nn.Linear, right: float, points, args) -> None:
    print(f"right: {right:.2%} of the bits in new sequences\n")
    print(points)
    print("\nunstable directions   fixed points")
    for directions, number in sorted(Counter(points.unstable_directions.tolist()).items()):
        print(f"{directions:19d}   {number:12d}")
    held = sorted(set(bits_at(points.points[points.stable], readout)))
    print(f"bits at the stable points: {' '.join(held) or 'none'}")

    x, _ = pulses(args, np.random.default_rng([args.seed, 2]))
    seen = dynamics.memory(network, x[:, :4], steps=[args.length - 1])
    print(f"the last output looks back: {seen.mean_lag[0].mean():.1f} steps in the mean")
    if args.kind != "RNN":
        print(dynamics.gates(network, x))


# ---------------------------------------------------------------- result


def draw(figure, network: mg.nn.Module, readout: mg.nn.Linear, points, path, args) -> None:
    """A run, the paths and the fixed points, and the eigenvalues there."""
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.9))
    draw_run(top, network, readout, args)
    left, right = bottom.subfigures(1, 2, width_ratios=(1.3, 1))
    draw_states(left, readout, points, path)

    axis = points.plot(right.subplots())
    reach = 1.05 * max(1.1, np.abs(points.eigenvalues).max(initial=1.0))
    axis.set_aspect("equal", adjustable="box")
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axis.get_legend().remove()
    right.legend(loc="outside lower center", ncols=2)


def draw_states(figure, readout: mg.nn.Linear, points, path) -> None:
    """Paths along three axes, or two if the state has no more, and the bits at each stable
    point."""
    dimensions = min(3, path.projected.shape[2])
    if dimensions < 2:
        return
    axis = figure.add_subplot(projection="3d" if dimensions == 3 else None)
    path.plot(axis, points=points, rows=16)
    axis.get_legend().remove()
    figure.legend(loc="outside lower center", ncols=2)
    axis.set_title("Paths of 16 runs, and the fixed points between pulses")
    if dimensions == 3:
        axis.view_init(elev=22, azim=-56)
        axis.set_box_aspect(None, zoom=0.95)
    stable = points.points[points.stable]
    corners = path.project(stable)[:, :dimensions]
    for corner, bits in zip(corners, bits_at(stable, readout), strict=True):
        background = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8}
        axis.text(*(1.35 * corner), bits, ha="center", va="center", bbox=background, zorder=9)


def draw_run(figure, network: mg.nn.Module, readout: mg.nn.Linear, args) -> None:
    """Inputs and outputs of the first sequence."""
    x, y = pulses(args, np.random.default_rng([args.seed, 1]))
    with mg.no_grad():
        out = readout(network(x)[0]).numpy()
    axis = figure.subplots()
    for k in range(args.bits):
        base = -2.6 * k
        axis.plot(base + y[:, 0, k], color="0.75", linewidth=4, label="target" if not k else None)
        axis.plot(base + out[:, 0, k], color="C0", label="output" if not k else None)
        at = np.flatnonzero(x[:, 0, k])
        axis.vlines(at, base, base + x[at, 0, k], color="C3", label="pulse" if not k else None)
    axis.set_yticks(
        [-2.6 * k for k in range(args.bits)], [f"bit {k + 1}" for k in range(args.bits)]
    )
    axis.set(
        xlabel="step", title=f"A trained {args.kind} keeps the sign of each input's last pulse"
    )
    axis.margins(x=0.01)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def main(arguments: list[str] | None = None) -> None:
    args = settings(arguments)
    network, readout, right = train(args)
    points, path = analyse(network, args)
    tell(network, readout, right, points, args)
    drawn = script.draw(
        args.plot,
        lambda figure: draw(figure, network, readout, points, path, args),
        9,
        7.4,
        dpi=100,
    )
    if drawn:
        print(f"picture: {args.plot}")


if __name__ == "__main__":
    script.run(main)
