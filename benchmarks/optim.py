"""A step of each optimiser, and clipping by norm, beside PyTorch's three forms of each.

    python benchmarks/optim.py                      about a minute
    python benchmarks/optim.py --threads 2

There are three sets of parameters in float32: those of a character LSTM, many small ones, one large
one. For each set a table of microseconds is printed, with the ratio to minigrad's time in brackets.
PyTorch's columns are its loop over the parameters, its `foreach` form and its fused form; they are
left out where it is not installed.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from _measure import count, interleave, parser, restart_with_threads, seconds, table

import minigrad as mg

try:
    import torch
except ImportError:
    torch = None


# ---------------------------------------------------------------- settings

SHAPES = {
    "char LSTM": [(90, 64), (64, 768), (192, 768), (768,), (192, 90), (90,), (192, 256)],
    "60 small": [(100,)] * 60,
    "one large": [(2000, 2000)],
}
OPTIMISERS = {
    "SGD momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "RMSprop": ("RMSprop", {"lr": 1e-3}),
    "Adam": ("Adam", {"lr": 1e-3}),
    "AdamW": ("AdamW", {"lr": 1e-3}),
    "Adagrad": ("Adagrad", {"lr": 1e-3}),
}
FORMS = {"foreach": {"foreach": True}, "fused": {"fused": True}, "loop": {"foreach": False}}
CLIPPING_FORMS = ("foreach", "loop")  # there is no fused clipping
LARGEST_NORM = 1e-3  # to which the gradients are clipped


def settings() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument(
        "--threads", type=count, default=1, help="threads of every contestant (default 1)"
    )
    options.add_argument(
        "--seconds", type=seconds, default=2.0, help="time for each line (default 2)"
    )
    return options.parse_args()


# ---------------------------------------------------------------- parameters


def with_gradients(library, values: list[np.ndarray], gradients: list[np.ndarray]) -> list:
    """Parameters of a library, `mg.Tensor` or `torch.tensor`, whose gradients are already there."""
    parameters = []
    for value, gradient in zip(values, gradients, strict=True):
        parameter = library(value, requires_grad=True)
        parameter.grad = library(gradient)
        parameters.append(parameter)
    return parameters


# ---------------------------------------------------------------- contestants


def steps(name: str, values: list, gradients: list) -> dict[str, Callable[[], object]]:
    """A step of an optimiser by minigrad and by each form of PyTorch."""
    kind, options = OPTIMISERS[name]
    optimiser = getattr(mg.optim, kind)(with_gradients(mg.Tensor, values, gradients), **options)
    contestants = {"minigrad": optimiser.step}
    if torch is None:
        return contestants
    for form, choice in FORMS.items():
        if kind == "RMSprop" and form == "fused":
            continue  # PyTorch has none
        parameters = with_gradients(torch.tensor, values, gradients)
        optimiser = getattr(torch.optim, kind)(parameters, **options, **choice)
        contestants[form] = optimiser.step
    return contestants


def clippings(values: list, gradients: list) -> dict[str, Callable[[], object]]:
    """Clipping by norm by minigrad and by two forms of PyTorch."""
    parameters = with_gradients(mg.Tensor, values, gradients)
    contestants = {"minigrad": partial(mg.optim.clip_grad_norm_, parameters, LARGEST_NORM)}
    if torch is None:
        return contestants
    for form in CLIPPING_FORMS:
        parameters = with_gradients(torch.tensor, values, gradients)
        contestants[form] = partial(
            torch.nn.utils.clip_grad_norm_, parameters, LARGEST_NORM, **FORMS[form]
        )
    return contestants


# ---------------------------------------------------------------- result


def row(name: str, contestants: dict[str, Callable[[], object]], seconds: float) -> list[str]:
    """Microseconds of minigrad and of each form of PyTorch, and how many times minigrad's that
    is."""
    times = interleave(contestants, seconds)
    ours = times.pop("minigrad")
    cells = [name, f"{ours * 1e6:,.1f}"]
    if torch is None:
        return cells
    for form in FORMS:
        if form in times:
            cells.append(f"{times[form] * 1e6:,.1f} ({times[form] / ours:.2f})")
        else:
            cells.append("-")
    return cells


def main() -> None:
    args = settings()
    restart_with_threads(args.threads)
    header = ["microseconds a step", "minigrad"]
    if torch:
        torch.set_num_threads(args.threads)
        header += [f"torch {form}" for form in FORMS]
    else:
        print("PyTorch is not installed: its columns are left out", file=sys.stderr)

    rng = np.random.default_rng(0)
    for size, shapes in SHAPES.items():
        values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        gradients = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        rows = [row(name, steps(name, values, gradients), args.seconds) for name in OPTIMISERS]
        rows.append(row("clip_grad_norm_", clippings(values, gradients), args.seconds))
        numbers = sum(value.size for value in values)
        print(
            f"\n{size}: {len(shapes)} parameters, {numbers:,} numbers; "
            "in brackets: times minigrad's"
        )
        print(table(header, rows))


if __name__ == "__main__":
    main()
