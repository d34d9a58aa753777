"""How the benchmarks measure: interleaved runs, so that a noisy machine disturbs every contestant
alike, and ratios of medians."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from statistics import median


def begin(description: str, seconds: float, threads: str):
    """The options of a benchmark in one process, --threads and --seconds, and PyTorch, or None
    where it is not installed.

    It sets the numbers of threads that libraries read when they are imported: call it before NumPy
    is imported.
    """
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--threads", type=int, default=1, help=f"threads of every contestant{threads} (default 1)"
    )
    arguments.add_argument(
        "--seconds", type=float, default=seconds, help=f"time for each line (default {seconds:g})"
    )
    options = arguments.parse_args()
    for variable in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "MINIGRAD_NUM_THREADS",
    ):
        os.environ[variable] = str(options.threads)
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: its columns are left out", file=sys.stderr)
        return options, None
    torch.set_num_threads(options.threads)
    return options, torch


def interleave(
    contestants: dict[str, Callable[[], object]], seconds: float = 1.0, least: int = 5
) -> dict[str, float]:
    """Run the contestants in turn for about `seconds` in all, at least `least` rounds; return the
    median seconds of a call of each.

    Calls shorter than a millisecond are repeated within a round, so that the clock's resolution
    does not matter.
    """
    repeats = {}
    for name, call in contestants.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(1e-3 / max(time.perf_counter() - start, 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, call in contestants.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: median(values) for name, values in times.items()}


def table(header: list[str], rows: list[list[str]]) -> str:
    """Right-aligned columns of text, the first left-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        lines.append(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
        )
    return "\n".join(lines)
