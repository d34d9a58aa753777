"""Drawing the computational graph: as text, for Graphviz, or as an SVG picture (picture.py). What a
Node is, is said in tensor.pyx.

The graph is walked with a list instead of recursion, so it may have a million nodes. It shows what
the tape holds: after `backward` nothing but the last op is, unless the graph was retained. An op
that `backward` has freed says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.checks import choice, flag
from minigrad.core.facts import own_output_of
from minigrad.core.recording import Source, entry_of
from minigrad.core.tensor import Node, Tensor
from minigrad.nn.fused import expansion
from minigrad.study.names import names_of_leaves

if TYPE_CHECKING:
    from minigrad.study.picture import Graph

__all__ = ["draw"]

FORMS = ("text", "dot", "svg")
LARGEST_IN_NOTEBOOKS = 1000  # vertices
FEW = 3  # numbers that are shown one by one


class Drawing(str):
    """What `draw` returns: a string, which notebooks show as a picture."""

    _graph: Graph

    def _repr_svg_(self) -> str | None:
        """None for a graph of more than 1000 vertices, which nobody could read as a picture: a
        notebook then shows the string."""
        from minigrad.study.picture import picture

        small = len(self._graph.labels) <= LARGEST_IN_NOTEBOOKS
        return picture(self._graph) if small else None


def draw(
    tensor: Tensor,
    names: Mapping[str, Tensor] | None = None,
    form: str = "text",
    *,
    values: bool = False,
    gradients: bool = False,
) -> Drawing:
    """The graph that `tensor` was computed by, as a string, which notebooks show as a picture. Draw
    it before `backward`, which frees the graph: "(freed)" stands behind the op then.

    Where the graph has time steps, the picture has a column for each: the steps of `nn.unroll` if
    the graph was made inside of `mg.study.record`; else those between the uses of the leaf that is
    used most often.

    Args:
        tensor: The result at the end of the graph.
        names: Names of leaves, such as ``dict(module.named_parameters())``. Default: None. Other
            leaves are shown by their shape.
        form: "text" (the default) has a line for each leaf, constant and op, with its number, its
            name, and the numbers of its inputs; "dot" is the language of Graphviz; "svg" is a
            picture for a browser.
        values: Whether values are shown too: those of leaves, of ops that save their output, and of
            all ops that were recorded with ``mg.study.record(values="full")``; up to three numbers,
            or the norm. Default: False.
        gradients: Whether the gradient of each is shown too. A backward pass runs aside, from a
            scalar; no ``grad`` changes. Default: False.

    Raises:
        TypeError: `tensor` is no Tensor, `names` does not map names to Tensors, `form` is no str,
            or another argument is no bool.
        ValueError: `form` is none of the three.
        RuntimeError: `gradients` of a graph that was freed, or of what is no scalar.

    >>> import minigrad as mg
    >>> x, W, b = (mg.ones(shape, requires_grad=True) for shape in [(2, 3), (3, 4), 4])
    >>> print(mg.draw(mg.tanh(x @ W + b) * 2.0, {"x": x, "W": W, "b": b}))
    0 x (2, 3)
    1 W (3, 4)
    2 matmul 0 1
    3 b (4,)
    4 add 2 3
    5 tanh 4
    6 constant
    7 mul 5 6
    """
    from minigrad.study.picture import Graph, picture, steps_by_use  # when something is drawn

    if not isinstance(tensor, Tensor):
        raise TypeError(f"draw: tensor must be a Tensor, got {type(tensor).__name__}")
    form = choice("draw", "form", form, FORMS)
    values, gradients = flag("draw", "values", values), flag("draw", "gradients", gradients)
    known = names_of_leaves("draw", names)
    vertices = _walk(tensor)
    things = [thing for thing, _ in vertices]
    graph = Graph(
        labels=[_label(thing, known) for thing in things],
        inputs=[sources for _, sources in vertices],
        kinds=[_kind(thing) for thing in things],
        notes=[[] for _ in things],
    )
    if values:
        for thing, notes in zip(things, graph.notes, strict=True):
            notes += _shown("= ", _value(thing))
    if gradients:
        found = _gradients(tensor)
        for thing, notes in zip(things, graph.notes, strict=True):
            notes += _shown("d ", found.get(id(thing)))
    graph.steps = [thing.t if isinstance(thing, Node) else None for thing in things]
    if all(step is None for step in graph.steps):
        graph.steps = steps_by_use(graph.inputs, graph.kinds)
    drawing = Drawing({"text": _text, "dot": _dot, "svg": picture}[form](graph))
    drawing._graph = graph
    return drawing


class Constant:
    """An input that has no gradient, with its shape if a recording knows it."""

    def __init__(self, source: Source | None) -> None:
        self.source = source


def _walk(tensor: Tensor) -> list[tuple[Any, list[int]]]:
    """The vertices in an order in which inputs come first: (Node, leaf Tensor or Constant, numbers
    of its inputs)."""
    number: dict[int, int] = {}
    vertices: list[tuple[Any, list[int]]] = []
    stack = [_slot(tensor.grad_fn if tensor.grad_fn is not None else tensor)]
    inputs_of: dict[int, list[Any]] = {}  # constants are made here, and kept
    while stack:
        slot = stack[-1]
        if id(slot) not in inputs_of:
            inputs_of[id(slot)] = _inputs(slot)
        inputs = inputs_of[id(slot)]
        waiting = [] if id(slot) in number else [s for s in inputs if id(s) not in number]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        if id(slot) not in number:
            number[id(slot)] = len(vertices)
            vertices.append((slot, [number[id(s)] for s in inputs]))
    return vertices


def _inputs(slot: Any) -> list[Any]:
    """What an op was made of: Nodes, leaves and Constants."""
    if not isinstance(slot, Node) or slot.freed:
        return []
    entry = entry_of(slot)
    fused = expansion(slot)
    found: list[Any] = []
    for i, source in enumerate(slot.inputs):
        if source is not None:
            found.append(_slot(source))
        elif entry is not None and entry.inputs[i].shape is not None:
            found.append(Constant(entry.inputs[i]))
        elif entry is None and (fused is None or fused[1][i] is not None):
            found.append(Constant(None))
    return found


def _slot(slot: Any) -> Any:
    """A slot itself; for one output of an op with several, the op, unless the graph is freed."""
    while type(slot).__name__ == "Output" and slot.inputs:
        slot = slot.inputs[0]
    return slot


def _kind(thing: Any) -> str:
    if isinstance(thing, Node):
        return "op"
    return "leaf" if isinstance(thing, Tensor) else "constant"


def _label(thing: Any, known: dict[int, str]) -> str:
    if isinstance(thing, Constant):
        shape = None if thing.source is None else thing.source.shape
        return "constant" if shape is None else f"constant {shape}"
    if not isinstance(thing, Tensor):
        return f"{thing.name} (freed)" if thing.freed else str(thing.name)
    return f"{known[id(thing)]} {thing.shape}" if id(thing) in known else str(thing.shape)


# ---------------------------------------------------------------- values and gradients


def _value(thing: Any) -> np.ndarray | None:
    """The numbers of a leaf, a constant or an op's output, if they are known."""
    if isinstance(thing, Tensor):
        return thing.numpy()
    if isinstance(thing, Constant):
        summary = None if thing.source is None else thing.source.values
        return None if summary is None else summary.full
    entry = entry_of(thing)
    if entry is not None and entry.values is not None and entry.values.full is not None:
        return entry.values.full
    output = own_output_of(thing)
    return None if output is None else output.numpy()


def _gradients(tensor: Tensor) -> dict[int, np.ndarray]:
    """The gradient of each Node and leaf by its id(), from a backward pass that is given up before
    its end."""
    from minigrad.study.stepping import steps  # few need it, and it is large

    found: dict[int, np.ndarray] = {}
    with steps(tensor, retain_graph=True) as run:
        for step in run:
            if isinstance(step.dy, Tensor):
                found[id(step.node)] = step.dy.numpy()
            for slot, arrived, dx in zip(step.inputs, step.so_far, step.dx, strict=True):
                if isinstance(slot, Tensor) and dx is not None:
                    before = 0.0 if arrived is None else arrived.numpy()
                    found[id(slot)] = before + dx.numpy()
            leads_on = any(isinstance(slot, Node) for slot in step.inputs)
            if not leads_on and len(run.pending) == 1:
                break  # going on would add the gradients to `grad`
    return found


def _shown(sign: str, array: np.ndarray | None) -> list[str]:
    """A line for an array: its numbers, if they are few, else its norm."""
    if array is None:
        return []
    if array.size <= FEW:
        return [sign + " ".join(f"{number:.3g}" for number in array.ravel())]
    return [f"{sign}norm {np.linalg.norm(array):.3g}"]


# ---------------------------------------------------------------- text


def _text(graph: Graph) -> str:
    lines = []
    for k, label in enumerate(graph.labels):
        line = " ".join([str(k), label, *map(str, graph.inputs[k])])
        lines.append("  ".join([line, *graph.notes[k]]))
    return "\n".join(lines)


def _dot(graph: Graph) -> str:
    lines = []
    for k in range(len(graph.labels)):
        quoted = [line.replace("\\", "\\\\").replace('"', '\\"') for line in graph.lines(k)]
        label = "\\n".join(quoted)
        shape = "" if graph.kinds[k] == "op" else ", shape=box"
        lines.append(f'    {k} [label="{label}"{shape}]')
    for k, sources in enumerate(graph.inputs):
        lines += [f"    {source} -> {k}" for source in sources]
    return "\n".join(["digraph {", "    rankdir=LR", *lines, "}"])
