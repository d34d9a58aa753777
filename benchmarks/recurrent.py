"""Recurrent layers beside every peer that is installed: training steps and inference, with the same
weights and checked results.

    python benchmarks/recurrent.py                         all shapes and cells, 1 and 2 threads, some 20 minutes
    python benchmarks/recurrent.py --cells LSTM --shapes 100,64,64,128 --seconds 2
    python benchmarks/recurrent.py --json result.json --plot result.png

A training step is: zero the gradients, forward, mean square of all outputs, backward to the
weights. Every contestant is a process of its own; their runs are interleaved and medians are
compared, so that a noisy machine disturbs all alike. A ratio is the fastest peer's time, at its
best number of threads, over minigrad's.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from statistics import median

import numpy as np
from peers import PEERS, serve
from timing import table

from minigrad.core.kernels import measure_peak

SHAPES = [
    "50,16,16,32",
    "100,32,32,64",
    "100,64,64,128",
    "100,64,128,256",
    "50,128,512,512",
    "100,1,32,64",
    "200,8,64,128",
]
QUIET = 0.02  # seconds before each measurement, in which the idle threads of the one before stop spinning
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3, "BiLSTM": 4}


class Contestant:
    """A peer in its process."""

    def __init__(self, name, threads):
        self.name, self.threads, self.label = name, threads, f"{name}/{threads}"
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(name, threads, other), daemon=True)
        self.process.start()
        self.missing = self.pipe.recv()

    def ask(self, *request):
        self.pipe.send(request)
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self):
        if not self.missing:
            self.pipe.send(("stop",))
        self.process.join()


def make_arrays(cell, T, B, I, H):
    """Inputs and weights of a usual size."""
    rng, G, directions = np.random.default_rng(0), GATES[cell], 2 if cell == "BiLSTM" else 1

    def weights(*shape):
        return [
            (rng.uniform(-1, 1, shape) / math.sqrt(H)).astype(np.float32) for _ in range(directions)
        ]

    return {
        "x": rng.standard_normal((T, B, I)).astype(np.float32),
        "W": weights(I, G * H),
        "U": weights(H, G * H),
        "b": weights((G + (cell == "GRU")) * H),
    }


def flops(cell, mode, T, B, I, H):
    """Floating-point operations of the products of a step."""
    forward = 2 * T * B * (I + H) * GATES[cell] * H * (2 if cell == "BiLSTM" else 1)
    return forward if mode == "infer" else 2 * forward + forward * H / (I + H)


def race(contestants, mode, cell, shape, seconds):
    """Median seconds of a step for each contestant that can do this case and agrees with minigrad.
    A measurement is some 20 ms of steps, after one that is not counted."""
    arrays, ours, ready = make_arrays(cell, *shape), None, []
    for c in contestants:
        if mode == "train" and not hasattr(PEERS[c.name], "train"):
            continue
        try:
            c.ask("setup", cell, arrays)
            results = c.ask("results", mode)
        except Exception as error:
            print(
                f"{c.label} cannot do {cell} {mode} {shape}: {type(error).__name__}: {error}"[:300],
                file=sys.stderr,
            )
            continue
        ours = ours or results
        for mine, theirs in zip(ours, results, strict=True):
            error = np.abs(mine - theirs).max() / max(np.abs(mine).max(), 1e-30)
            if not error < 1e-3:
                raise SystemExit(
                    f"{c.label} disagrees with minigrad in {cell} {mode} {shape}: {error:.1e}"
                )
        ready.append(c)
    slowest = max(c.ask("time", mode, 1) for c in ready)
    rounds = max(5, min(100, int(seconds / len(ready) / max(3 * slowest, 5e-2))))
    repeats = {c: max(2, int(2e-2 / max(c.ask("time", mode, 2), 1e-7))) for c in ready}
    times = {c: [] for c in ready}
    for _ in range(rounds):
        for c in ready:
            time.sleep(QUIET)
            times[c].append(c.ask("time", mode, repeats[c]))
    return {c.label: median(t) for c, t in times.items()}


def memory_of(name, cell, shape):
    """Peak bytes of a training step on one thread, in a new process: what an earlier case has left
    behind would hide it."""
    T, B, I, H = shape
    c = Contestant(name, 1)
    try:
        if c.missing:
            return math.nan
        c.ask(
            "setup", cell, make_arrays(cell, 2, 1, I, H)
        )  # what is made once, at the first step, is not counted
        c.ask("results", "train")
        c.ask("setup", cell, make_arrays(cell, T, B, I, H))
        return c.ask("memory", "train")
    finally:
        c.stop()


def best(times, name):
    """The fastest run of a peer over its numbers of threads, or None."""
    return min((t for label, t in times.items() if label.split("/")[0] == name), default=None)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,B,I,H")
    parser.add_argument("--cells", nargs="+", default=list(GATES), choices=GATES)
    parser.add_argument(
        "--modes", nargs="+", default=["train", "infer"], choices=["train", "infer"]
    )
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--seconds", type=float, default=10, help="for each case, over all contestants (default 10)"
    )
    parser.add_argument("--json", metavar="FILE", help="keep every number")
    parser.add_argument("--plot", metavar="PNG", help="draw the ratios (needs matplotlib)")
    options = parser.parse_args()
    names = ["minigrad", *(p for p in options.peers if p != "minigrad")]
    contestants = [Contestant(name, threads) for name in names for threads in options.threads]
    for c in contestants:
        if c.missing:
            print(f"{c.label} is left out: {c.missing}", file=sys.stderr)
    contestants = [c for c in contestants if not c.missing]
    peak = measure_peak(np.float32)
    print(
        f"Measured FMA peak of one core: {peak:.0f} GFLOP/s; times in ms, each at its best number of threads"
    )
    results = []
    for mode in options.modes:
        rows, shown = (
            [],
            [
                n
                for n in names
                if any(c.name == n for c in contestants)
                and (mode == "infer" or hasattr(PEERS[n], "train"))
            ],
        )
        for shape_text in options.shapes:
            shape = tuple(map(int, shape_text.split(",")))
            for cell in options.cells:
                times, memory = race(contestants, mode, cell, shape, options.seconds), {}
                if mode == "train" and sys.platform == "linux":
                    memory = {
                        name: memory_of(name, cell, shape)
                        for name in ("minigrad", "torch")
                        if name in names
                    }
                ours, rivals = best(times, "minigrad"), [best(times, n) for n in shown[1:]]
                ratio = min((t for t in rivals if t), default=math.nan) / ours
                label = min(
                    (t, label) for label, t in times.items() if label.startswith("minigrad/")
                )[1]
                rate = flops(cell, mode, *shape) / ours * 1e-9
                one = times.get("minigrad/1")
                share = flops(cell, mode, *shape) / one * 1e-9 / peak if one else math.nan
                results.append(
                    {
                        "mode": mode,
                        "cell": cell,
                        "shape": shape,
                        "seconds": times,
                        "memory": memory,
                        "ratio": ratio,
                        "peak": peak,
                    }
                )
                our_memory, their_memory = (
                    memory.get(name, math.nan) / 1e6 for name in ("minigrad", "torch")
                )
                rows.append(
                    [
                        f"{shape_text} {cell}",
                        *(f"{t * 1e3:.2f}" if t else "-" for t in (ours, *rivals)),
                        f"{ratio:.2f}",
                        label.split("/")[1],
                        f"{rate:.0f}",
                        f"{share:.0%}",
                        f"{one / times['minigrad/2']:.2f}"
                        if "minigrad/2" in times and one
                        else "-",
                        *([f"{our_memory:.1f}", f"{their_memory:.1f}"] if mode == "train" else []),
                    ]
                )
                print(".", end="", file=sys.stderr, flush=True)
        ratios = [r["ratio"] for r in results if r["mode"] == mode]
        print(f"\n{mode}: (T,B,I,H) cell")
        header = ["", *shown, "ratio", "threads", "GFLOP/s", "peak at 1", "2 vs 1"] + (
            ["MB", "torch MB"] if mode == "train" else []
        )
        print(table(header, rows))
        print(
            f"geometric mean of the ratios: {math.exp(np.mean(np.log(ratios))):.2f}, smallest: {min(ratios):.2f}"
        )
        if options.json:
            with open(options.json, "w") as file:
                json.dump(results, file, indent=1)
    for c in contestants:
        c.stop()
    if options.plot:
        plot(results, options.plot)


def plot(results, path):
    """Bars of the ratios, one group for each mode."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    modes = list(dict.fromkeys(r["mode"] for r in results))
    figure, axes = plt.subplots(len(modes), 1, figsize=(10, 4 * len(modes)), squeeze=False)
    for axis, mode in zip(axes[:, 0], modes, strict=True):
        rows = [r for r in results if r["mode"] == mode]
        axis.bar(range(len(rows)), [r["ratio"] for r in rows])
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(
            range(len(rows)),
            [f"{r['cell']} {','.join(map(str, r['shape']))}" for r in rows],
            rotation=90,
            fontsize=7,
        )
        axis.set_ylabel("fastest peer / minigrad")
        axis.set_title(f"{mode}: how many times as fast as the fastest peer")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
