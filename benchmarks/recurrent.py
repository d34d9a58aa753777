"""Recurrent layers beside every peer that is installed: training steps and inference.

    python benchmarks/recurrent.py                         all shapes and cells; some 20 minutes
    python benchmarks/recurrent.py --cells LSTM --shapes 100,64,64,128 --seconds 2
    python benchmarks/recurrent.py --json result.json --plot result.png

The peers are PyTorch, PyTorch under torch.compile, JAX, ONNX Runtime (inference only) and a loop in
NumPy (inference only). All have the same weights, and their results are compared with minigrad's
before anything is measured. A training step is: zero the gradients, forward, mean square of all
outputs, backward to the weights.

Every contestant is a process of its own, once for each number of threads. They run in turn, so that
a noisy machine disturbs all alike, and medians are compared. Printed is a table for training and
one for inference. The columns behind those of the contestants:

    ratio        the fastest peer's time over minigrad's, each at its best number of threads
    threads      with which minigrad was fastest
    GFLOP/s      of the matrix products in a step, by minigrad
    peak at 1    the share of the measured FMA peak that minigrad reaches with one thread
    2 vs 1       how many times as fast two threads are as one
    MB           by which the process grows during a training step; also for PyTorch (Linux only)
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from statistics import median
from typing import NamedTuple

import numpy as np
from _measure import count, parser, seconds, set_thread_variables, table
from _peers import PEERS, serve

from minigrad.core.kernels import measure_peak

# ---------------------------------------------------------------- settings

SHAPES = [  # T, B, I, H
    (50, 16, 16, 32),
    (100, 32, 32, 64),
    (100, 64, 64, 128),
    (100, 64, 128, 256),
    (50, 128, 512, 512),
    (100, 1, 32, 64),
    (200, 8, 64, 128),
]
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3, "BiLSTM": 4}
MODES = ("train", "infer")
LARGEST_ERROR = 1e-3  # of a peer's results, relative to the largest of minigrad's
QUIET = 0.02  # seconds before a measurement, in which idle threads of the last one stop spinning
MEASUREMENT = 0.02  # seconds of steps in a measurement


class Case(NamedTuple):
    """What is measured: "train" or "infer", a cell, and (T, B, I, H)."""

    mode: str
    cell: str
    shape: tuple[int, int, int, int]

    def __str__(self) -> str:
        return f"{self.cell} {self.mode} {self.shape}"


def shape_of(text: str) -> tuple[int, ...]:
    """(T, B, I, H) from four numbers with commas: a type for argparse."""
    sizes = tuple(count(size) for size in text.split(","))
    if len(sizes) != 4:
        raise argparse.ArgumentTypeError(f"must be four sizes T,B,I,H, got {text}")
    return sizes


def settings() -> argparse.Namespace:
    options = parser(__doc__)
    add = options.add_argument
    add("--shapes", type=shape_of, nargs="+", default=SHAPES, metavar="T,B,I,H")
    add("--cells", nargs="+", default=list(GATES), choices=GATES)
    add("--modes", nargs="+", default=list(MODES), choices=MODES)
    add("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    add("--threads", type=count, nargs="+", default=[1, 2], help="numbers of them (default 1 2)")
    add(
        "--seconds",
        type=seconds,
        default=10.0,
        help="for each case, over all contestants (default 10)",
    )
    add("--json", metavar="FILE", help="keep every number")
    add("--plot", metavar="PNG", help="draw the ratios (needs matplotlib)")
    return options.parse_args()


# ---------------------------------------------------------------- data


def make_arrays(cell: str, T: int, B: int, I: int, H: int) -> dict:
    """Inputs, and weights of the size that layers start with."""
    rng = np.random.default_rng(0)
    G = GATES[cell]
    directions = 2 if cell == "BiLSTM" else 1
    biases = G + 1 if cell == "GRU" else G

    def weights(*shape):
        arrays = []
        for _ in range(directions):
            values = rng.uniform(-1, 1, shape) / math.sqrt(H)
            arrays.append(values.astype(np.float32))
        return arrays

    return {
        "x": rng.standard_normal((T, B, I)).astype(np.float32),
        "W": weights(I, G * H),
        "U": weights(H, G * H),
        "b": weights(biases * H),
    }


def flops(case: Case) -> float:
    """Floating-point operations of the matrix products in a step."""
    T, B, I, H = case.shape
    directions = 2 if case.cell == "BiLSTM" else 1
    columns = directions * GATES[case.cell] * H
    input_product = 2 * T * B * I * columns
    recurrent_product = 2 * T * B * H * columns
    if case.mode == "infer":
        return input_product + recurrent_product
    # Forward, weight gradients, and the gradients of the states; dx is not asked for.
    return 2 * (input_product + recurrent_product) + recurrent_product


# ---------------------------------------------------------------- contestants


class Contestant:
    """A peer with a number of threads, in a process of its own."""

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.label = f"{name}/{threads}"
        set_thread_variables(threads)  # the new process inherits them and imports NumPy
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(name, threads, other), daemon=True)
        self.process.start()
        other.close()  # so that the death of the process is an EOFError here, and not a wait
        self.missing = self.pipe.recv()  # why it cannot take part, or None

    def ask(self, *request):
        self.pipe.send(request)
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self) -> None:
        if not self.missing:
            self.pipe.send(("stop",))
        self.process.join()


def start(names: list[str], threads: list[int]) -> list[Contestant]:
    """A contestant for each name and number of threads, without those that are not installed."""
    contestants = []
    for name in names:
        for number in threads:
            contestant = Contestant(name, number)
            if contestant.missing:
                print(f"{contestant.label} is left out: {contestant.missing}", file=sys.stderr)
            else:
                contestants.append(contestant)
    return contestants


def can(name: str, mode: str) -> bool:
    return hasattr(PEERS[name], mode)


# ---------------------------------------------------------------- measurements


def check_results(contestant: Contestant, case: Case, expected: list, results: list) -> None:
    """Refuse results that are not minigrad's."""
    for ours, theirs in zip(expected, results, strict=True):
        error = np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-30)
        if not error < LARGEST_ERROR:
            sys.exit(f"{contestant.label} disagrees with minigrad in {case}: {error:.1e}")


def set_up(contestants: list[Contestant], case: Case) -> list[Contestant]:
    """Make the layer in every contestant; those that can do the case. minigrad is the first."""
    arrays = make_arrays(case.cell, *case.shape)
    expected = None
    ready = []
    for contestant in contestants:
        if not can(contestant.name, case.mode):
            continue
        try:
            contestant.ask("setup", case.cell, arrays)
            results = contestant.ask("results", case.mode)
        except Exception as error:
            line = f"{contestant.label} cannot do {case}: {type(error).__name__}: {error}"
            print(line[:300], file=sys.stderr)
            continue
        if expected is None:
            expected = results
        check_results(contestant, case, expected, results)
        ready.append(contestant)
    return ready


def race(contestants: list[Contestant], case: Case, seconds: float) -> dict[str, float]:
    """The median seconds of a step, by label, for each contestant that can do the case."""
    ready = set_up(contestants, case)
    slowest = max(contestant.ask("time", case.mode, 1) for contestant in ready)
    rounds = int(seconds / len(ready) / max(3 * slowest, 0.05))
    rounds = max(5, min(100, rounds))
    repeats = {}
    for contestant in ready:
        step = max(contestant.ask("time", case.mode, 2), 1e-7)
        repeats[contestant.label] = max(2, int(MEASUREMENT / step))

    times = {contestant.label: [] for contestant in ready}
    for _ in range(rounds):
        for contestant in ready:
            time.sleep(QUIET)
            step = contestant.ask("time", case.mode, repeats[contestant.label])
            times[contestant.label].append(step)
    return {label: median(values) for label, values in times.items()}


def memory_of(name: str, case: Case) -> float:
    """The bytes by which a process grows at its peak in a training step on one thread.

    It is measured in a new process, since what an earlier case has left behind would hide it.
    """
    T, B, I, H = case.shape
    contestant = Contestant(name, 1)
    try:
        if contestant.missing:
            return math.nan
        # A step of a tiny case first: what is made once, at the first step, is not counted.
        contestant.ask("setup", case.cell, make_arrays(case.cell, 2, 1, I, H))
        contestant.ask("results", "train")
        contestant.ask("setup", case.cell, make_arrays(case.cell, T, B, I, H))
        return contestant.ask("memory", "train")
    finally:
        contestant.stop()


def fastest(times: dict[str, float], name: str) -> str | None:
    """The label of a peer's fastest number of threads; None if it did not take part."""
    labels = [label for label in times if label.split("/")[0] == name]
    return min(labels, key=times.get, default=None)


def measure(contestants: list[Contestant], case: Case, args: argparse.Namespace) -> dict:
    """Everything that is known of a case: times and memory by contestant, and the ratio."""
    times = race(contestants, case, args.seconds)
    memory = {}
    if case.mode == "train" and sys.platform == "linux":
        memory["minigrad"] = memory_of("minigrad", case)
        if "torch" in args.peers:
            memory["torch"] = memory_of("torch", case)
    ours = times[fastest(times, "minigrad")]
    rivals = [time for label, time in times.items() if not label.startswith("minigrad/")]
    return {
        "mode": case.mode,
        "cell": case.cell,
        "shape": case.shape,
        "seconds": times,
        "memory": memory,
        "ratio": min(rivals, default=math.nan) / ours,
    }


# ---------------------------------------------------------------- result


def row(result: dict, case: Case, shown: list[str], peak: float) -> list[str]:
    """A line of the table. `shown` are the contestants, minigrad first; `peak` is in GFLOP/s."""
    times = result["seconds"]
    cells = [f"{','.join(map(str, case.shape))} {case.cell}"]
    for name in shown:
        label = fastest(times, name)
        cells.append(f"{times[label] * 1e3:.2f}" if label else "-")

    label = fastest(times, "minigrad")
    gigaflops = flops(case) * 1e-9
    one = times.get("minigrad/1", math.nan)
    two = times.get("minigrad/2", math.nan)
    speedup = one / two
    cells += [
        f"{result['ratio']:.2f}",
        label.split("/")[1],
        f"{gigaflops / times[label]:.0f}",
        f"{gigaflops / one / peak:.0%}",
        "-" if math.isnan(speedup) else f"{speedup:.2f}",
    ]
    if case.mode == "train":
        for name in ("minigrad", "torch"):
            cells.append(f"{result['memory'].get(name, math.nan) / 1e6:.1f}")
    return cells


def measure_mode(
    mode: str, contestants: list[Contestant], peak: float, args: argparse.Namespace
) -> list[dict]:
    """Measure every case of a mode and print its table; the results."""
    shown = []
    for contestant in contestants:
        if contestant.name not in shown and can(contestant.name, mode):
            shown.append(contestant.name)

    results = []
    rows = []
    for shape in args.shapes:
        for cell in args.cells:
            case = Case(mode, cell, shape)
            result = measure(contestants, case, args) | {"peak": peak}
            results.append(result)
            rows.append(row(result, case, shown, peak))
            print(".", end="", file=sys.stderr, flush=True)

    header = ["", *shown, "ratio", "threads", "GFLOP/s", "peak at 1", "2 vs 1"]
    if mode == "train":
        header += ["MB", "torch MB"]
    ratios = [result["ratio"] for result in results]
    mean = math.exp(np.mean(np.log(ratios)))
    print(f"\n{mode}: (T,B,I,H) cell")
    print(table(header, rows))
    print(f"geometric mean of the ratios: {mean:.2f}, smallest: {min(ratios):.2f}")
    return results


def plot(results: list[dict], path: str) -> None:
    """Bars of the ratios, one diagram for each mode."""
    from matplotlib.figure import Figure

    modes = list(dict.fromkeys(result["mode"] for result in results))
    figure = Figure(figsize=(10, 4 * len(modes)), layout="constrained")
    axes = figure.subplots(len(modes), 1, squeeze=False)[:, 0]
    for axis, mode in zip(axes, modes, strict=True):
        shown = [result for result in results if result["mode"] == mode]
        names = [f"{result['cell']} {','.join(map(str, result['shape']))}" for result in shown]
        axis.bar(range(len(shown)), [result["ratio"] for result in shown])
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(shown)), names, rotation=90, fontsize=7)
        axis.set_ylabel("fastest peer / minigrad")
        axis.set_title(f"{mode}: how many times as fast as the fastest peer")
    figure.savefig(path, dpi=120)


def main() -> None:
    args = settings()
    names = ["minigrad", *(name for name in args.peers if name != "minigrad")]
    contestants = start(names, args.threads)
    peak = measure_peak(np.float32)
    print(
        f"Measured FMA peak of one core: {peak:.0f} GFLOP/s; "
        "times in ms, each at its best number of threads"
    )
    results = []
    try:
        for mode in args.modes:
            results += measure_mode(mode, contestants, peak, args)
            if args.json:
                with open(args.json, "w", encoding="utf-8") as file:
                    json.dump(results, file, indent=1)
    finally:
        for contestant in contestants:
            contestant.stop()
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
