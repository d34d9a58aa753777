"""What `fit` prints: the progress of the steps, what was resumed, how it ended."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from minigrad.nn.module import Module
from minigrad.optim.optimizers import Optimizer
from minigrad.training.history import History

__all__ = [
    "default_line",
    "print_broken_off",
    "print_end",
    "print_resumed",
    "print_untrained",
    "progress",
]


def default_line(history: History) -> str:
    """The text of the progress line, if no function was given to make it."""
    text = f"loss {history.recent:.4g}  gradient {history.norm[-1]:.3g}"
    if history.validation:
        text += f"  validation {history.validation[-1]:.4g}"
    return text


def print_untrained(model: Module, optimizer: Optimizer) -> None:
    """Names the parameters of the model that the optimizer does not have."""
    owned = {id(p) for p in optimizer.parameters}
    names = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in owned]
    if names:
        print(f"not trained, since the optimizer does not have it: {', '.join(names)}", flush=True)


def print_resumed(
    path: Any, history: History, given: list[dict[str, Any]], optimizer: Optimizer
) -> None:
    """Says where the training goes on, and which options the file has changed."""
    print(f"resumed {path} at step {history.step}, in epoch {history.epoch}", flush=True)
    for i, (new, old, group) in enumerate(
        zip(given, history.options, optimizer.param_groups, strict=False)
    ):
        for name in new:
            if name in old and new[name] != old[name] and name != "initial_lr":
                where = f"group {i} of the optimizer" if len(given) > 1 else "the optimizer"
                print(
                    f"{where} has {name} = {group[name]} from the file, not {new[name]} as it "
                    "was made with now; after_resume can change it",
                    flush=True,
                )


def print_broken_off(history: History) -> None:
    """Says which exception ended the training, and where."""
    with contextlib.suppress(OSError, ValueError):  # a closed stdout must not hide the error
        print(
            f"ended at step {history.step}, in epoch {history.epoch}, by {history.ended}; "
            "the model has the last weights",
            flush=True,
        )


def print_end(history: History, patience: int | None, idle: bool) -> None:
    """Says what the progress lines do not tell."""
    texts = []
    if history.ended == "patience" and history.best is None:
        texts.append(
            f"no validation in {len(history.validation)} epochs was a number, patience {patience}"
        )
    elif history.ended == "patience":
        texts.append(f"the validation has not fallen for {patience} epochs")
    elif history.ended == "interrupted":
        texts.append("interrupted")
    elif idle:
        texts.append(f"no step was left to do: the {history.ended} are over")
    if history.weights is not None and history.best is not None:
        texts.append(
            f"the model has the weights of epoch {history.best}, validation "
            f"{history.validation[history.best]:.4g}"
        )
    elif history.validation and history.ended != "patience":
        texts.append("no validation was a number: the model has the last weights")
    if texts:
        print(f"ended at step {history.step}: {'; '.join(texts)}", flush=True)


def _step_text(history: History, total: float, text: str) -> str:
    """A progress line: with the time that is left, if the number of steps is known."""
    if total == math.inf:
        return f"step {history.step}  {text}"
    left = (total - history.step) / history.speed
    return f"step {history.step}/{total}  {text}  {left:.0f} s left"


@contextlib.contextmanager
def progress(
    first: int, total: float
) -> Iterator[Callable[[History, Callable[[History], str]], None]]:
    """A function show(history, line) that shows the steps: with tqdm's bar where it is installed
    and stderr is a terminal, else with at most one line a second."""
    bar = None
    shown = -math.inf  # when the last line was printed
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            bar = tqdm(total=None if total == math.inf else total, initial=first, unit="step")

    def show(history: History, line: Callable[[History], str]) -> None:
        nonlocal shown
        if bar is not None:
            bar.set_postfix_str(line(history), refresh=False)
            bar.update()
        elif time.perf_counter() - shown >= 1 or history.step == total:
            shown = time.perf_counter()
            print(_step_text(history, total, line(history)), flush=True)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
