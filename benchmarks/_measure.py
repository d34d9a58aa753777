"""What the benchmarks share: options, numbers of threads, timing and tables.

The contestants of a comparison run in turn, round after round. So a noisy machine disturbs them all
alike, and the ratios of their medians stay meaningful.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from statistics import median

# NumPy's BLAS, PyTorch and minigrad read their numbers of threads from these.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MINIGRAD_NUM_THREADS",
)


# ---------------------------------------------------------------- options


def count(text: str) -> int:
    """A whole number, at least 1: a type for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def seconds(text: str) -> float:
    """A finite number above 0: a type for argparse."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, got {text}")
    return value


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser of options whose help is the docstring of the script."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


# ---------------------------------------------------------------- threads


def set_thread_variables(threads: int) -> None:
    """Give every library this number of threads, if it has not been imported yet."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def restart_with_threads(threads: int) -> None:
    """Give every library this number of threads, whether or not it has been imported.

    Libraries read their numbers of threads when they are imported, and a script imports them before
    it reads its options. So the script starts again with the variables set, unless they were.
    """
    if all(os.environ.get(variable) == str(threads) for variable in THREAD_VARIABLES):
        return
    set_thread_variables(threads)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


# ---------------------------------------------------------------- timing


def timed(call: Callable[[], object], repeats: int = 1) -> float:
    """The mean seconds of a call over some repeats."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def interleave(
    contestants: dict[str, Callable[[], object]], seconds: float, rounds: int = 5
) -> dict[str, float]:
    """The median seconds of a call of each contestant.

    The contestants run in turn for about `seconds` in all, and for at least `rounds` rounds. Calls
    shorter than a millisecond are repeated within a round, because the clock is too coarse for one.
    """
    repeats = {}
    for name, call in contestants.items():
        call()
        repeats[name] = max(1, int(1e-3 / max(timed(call), 1e-9)))

    times: dict[str, list[float]] = {name: [] for name in contestants}
    end = time.perf_counter() + seconds
    done = 0
    while done < rounds or time.perf_counter() < end:
        for name, call in contestants.items():
            times[name].append(timed(call, repeats[name]))
        done += 1
    return {name: median(values) for name, values in times.items()}


# ---------------------------------------------------------------- result


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns of text, right-aligned but for the first."""
    columns = zip(header, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for first, *others in [header, *rows]:
        cells = [first.ljust(widths[0])]
        for text, width in zip(others, widths[1:], strict=True):
            cells.append(text.rjust(width))
        lines.append("  ".join(cells))
    return "\n".join(lines)
