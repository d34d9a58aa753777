"""``python -m minigrad.study script.py``: run a script, stop at its first backward pass, and step
through it at a prompt, as a debugger does."""

from __future__ import annotations

import argparse
import cmd
import functools
import linecache
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from runpy import run_path
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.core.tensor import Tensor, install
from minigrad.nn.module import Module
from minigrad.study.recording import Recording, record
from minigrad.study.stepping import Step, Steps, condition, steps

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Prompt", "main"]

PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
LOOKS = ("dy", "dx", "saved", "so_far", "rule")
SHOWN = 50  # values of a tensor that are all printed
AROUND = 3  # lines of source shown before and after the one where a frame is


class Prompt(cmd.Cmd):
    """The commands of one backward pass.

    Args:
        run: The pass.
        frames: Where the script is: its frames, the innermost last.

    >>> import minigrad as mg
    >>> from minigrad.study.__main__ import Prompt
    >>> prompt = Prompt(mg.study.steps(mg.zeros((), requires_grad=True) * 3.0), [])
    >>> prompt.onecmd("p dx")
    (Tensor(3.), None)
    """

    prompt = "(study) "
    at_the_end = "the backward pass has run to its end; the script goes on"

    def __init__(self, run: Steps, frames: list[FrameType]) -> None:
        super().__init__()
        self.run = run
        self.frames = frames
        self.level = len(frames) - 1
        self.breaks: list[str] = []
        self.step: Step | None = next(run, None)

    def preloop(self) -> None:
        if self.frames:
            print(f"backward pass at {_place(self.frames[-1])}; h shows the commands")
        print(self.step)

    def do_n(self, argument: str) -> bool:
        """n: run this rule and stop before the next one."""
        self.step = next(self.run, None)
        return self._arrived()

    def do_c(self, argument: str) -> bool:
        """c: go on to the next break, or to the end."""
        holds = [condition(place) for place in self.breaks]
        self.step = self.run.run(until=lambda step: any(hold(step) for hold in holds))
        return self._arrived()

    def do_b(self, argument: str) -> None:
        """b OP: let c stop before each op of this name. b nonfinite: before a gradient that is not
        finite is made. b alone lists the breaks."""
        if argument:
            self.breaks.append(argument)
        print("breaks:", ", ".join(self.breaks) or "none")

    def do_p(self, argument: str) -> None:
        """p dy | dx | saved | so_far | rule: print it."""
        if argument not in LOOKS:
            print(f"p takes one of {', '.join(LOOKS)}")
            return
        try:
            value = getattr(self.step, argument)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
            return
        with np.printoptions(threshold=SHOWN, edgeitems=2):
            print(value)
        if argument == "rule" and value is not None:
            print(f"{value.file}:{value.line}")

    def do_e(self, argument: str) -> None:
        """e: step through time inside a fused layer, at a prompt of its own; q leads back. This
        pass does not change."""
        if self.step is None:
            return
        try:
            inside = self.step.expand()
        except RuntimeError as error:
            print(error)
            return
        with inside:
            InnerPrompt(inside, []).cmdloop()
        print(self.step)

    def do_w(self, argument: str) -> None:
        """w: where the script and the backward pass are."""
        for i, frame in enumerate(self.frames):
            print(f"{'>' if i == self.level else ' '} {_place(frame)}")
        print(self.step)
        waiting = [node.name for node in self.run.pending[1:]]
        print(f"    waiting: {', '.join(waiting) or 'nothing else'}")

    def do_u(self, argument: str) -> None:
        """u: go up to the line of the script that called this one, and show it."""
        if self.level <= 0:
            print("this is the outermost line")
            return
        self.level -= 1
        frame = self.frames[self.level]
        print(_place(frame))
        for number in range(max(1, frame.f_lineno - AROUND), frame.f_lineno + AROUND + 1):
            line = linecache.getline(frame.f_code.co_filename, number).rstrip()
            print(f"{'>' if number == frame.f_lineno else ' '} {number:4} {line}")

    def do_q(self, argument: str) -> bool:
        """q: give the backward pass up, and leave the script. No grad has changed."""
        self.run.close()
        raise SystemExit

    def do_h(self, argument: str) -> None:
        """h: the commands."""
        for name in "ncbpewuqh":
            print(f"    {' '.join(str(getattr(self, 'do_' + name).__doc__).split())}")

    do_next, do_continue, do_break, do_up, do_where, do_quit = do_n, do_c, do_b, do_u, do_w, do_q
    do_expand, do_EOF = do_e, do_q

    def do_help(self, arg: str) -> None:
        self.do_h(arg)

    def default(self, line: str) -> None:
        print(f"there is no command {line!r}; h shows those there are")

    def _arrived(self) -> bool:
        """Show the step; at the end of the pass, leave the prompt."""
        if self.step is None:
            print(self.at_the_end)
            return True
        print(self.step)
        return False


class InnerPrompt(Prompt):
    """The commands inside of a fused layer."""

    prompt = "(inside) "
    at_the_end = "the pass through the layer has run to its end"

    def do_q(self, argument: str) -> bool:
        """q: back to the pass through the whole graph."""
        return True

    do_quit = do_EOF = do_q


def _place(frame: FrameType) -> str:
    path, number = frame.f_code.co_filename, frame.f_lineno
    line = linecache.getline(path, number).strip()
    return f"{path}:{number}, {frame.f_code.co_name}: {line}"


def _frames_of_script(frame: FrameType | None) -> list[FrameType]:
    """The frames of the script and of what it imports, the innermost last: not minigrad's own, and
    not those that run the script."""
    found: list[FrameType] = []
    while frame is not None:
        path = frame.f_code.co_filename
        if frame.f_code is main.__code__:
            break
        if not path.startswith("<") and not os.path.realpath(path).startswith(PACKAGE):
            found.append(frame)
        frame = frame.f_back
    return found[::-1]


def _names(frames: list[FrameType]) -> dict[str, Tensor]:
    """Names of leaves as the script's variables have them: `w`, `weights['W1']`, `model.U`."""
    known: dict[str, Tensor] = {}
    seen: set[int] = set()
    for frame in frames[::-1]:
        for scope in (frame.f_locals, frame.f_globals):
            for variable, value in list(scope.items()):
                for name, leaf in _leaves(variable, value):
                    if leaf.is_leaf and id(leaf) not in seen:
                        seen.add(id(leaf))
                        known.setdefault(name, leaf)
    return known


def _leaves(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Module):
        for part, parameter in value.named_parameters():
            yield f"{name}.{part}", parameter
    elif isinstance(value, (dict, list, tuple)):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in pairs:
            if isinstance(part, Tensor):
                yield f"{name}[{key!r}]", part


def _stop_at_first(original: Callable[..., None], recording: Recording) -> Callable[..., None]:
    """Tensor.backward as it is while a script waits for its first backward pass; `recording` knows
    the line of each op up to there."""

    @functools.wraps(original)
    def backward(
        self: Tensor,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        install("backward", original)
        recording.__exit__(None, None, None)
        frames = _frames_of_script(sys._getframe(1))
        retain = create_graph if retain_graph is None else retain_graph
        with steps(self, gradient, retain, create_graph, _names(frames)) as run:
            prompt = Prompt(run, frames)
            if prompt.step is not None:
                prompt.cmdloop()

    return backward


def main(arguments: list[str] | None = None) -> None:
    """Run a script and stop at its first backward pass.

    Args:
        arguments: The script and what it is given. Default: those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m minigrad.study",
        description="Run a script, and stop at its first backward pass to step through it.",
        epilog="commands at the prompt: n(ext), c(ontinue), b(reak) OP or nonfinite, "
        "p dy, dx, saved, so_far or rule, e(xpand), w(here), u(p), q(uit), h(elp)",
    )
    parser.add_argument("script", type=Path, help="a Python file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script is given")
    args = parser.parse_args(arguments)
    if not args.script.is_file():
        parser.error(f"no such file: {args.script}")
    original = Tensor.backward
    sys.argv = [str(args.script), *args.arguments]
    sys.path[0] = str(args.script.resolve().parent)
    recording = record().__enter__()
    install("backward", _stop_at_first(original, recording))
    try:
        run_path(str(args.script), run_name="__main__")
        if Tensor.backward is not original:
            print("the script made no backward pass")
    finally:
        if Tensor.backward is not original:
            recording.__exit__(None, None, None)
        install("backward", original)


if __name__ == "__main__":
    main()
