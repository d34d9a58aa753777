"""Drawing the computational graph: as text, for Graphviz, or as an SVG picture. What a Node is, is
said in tensor.pyx.

The graph is walked with a list instead of recursion, so it may have a million nodes. It shows what
the tape holds: constants are not on it, and after `backward` nothing but the last op is, unless the
graph was retained. An op that `backward` has freed says so.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from minigrad.checks import choice
from minigrad.core.tensor import Tensor
from minigrad.study.names import names_of_leaves

__all__ = ["draw"]

FORMS = ("text", "dot", "svg")
LARGEST_IN_NOTEBOOKS = 1000  # vertices


class Drawing(str):
    """What `draw` returns: a string, which notebooks show as a picture."""

    _graph: tuple[list[str], list[list[int]], list[bool]]

    def _repr_svg_(self) -> str | None:
        """None for a graph of more than 1000 vertices, which nobody could read as a picture: a
        notebook then shows the string."""
        labels, inputs, leaf = self._graph
        return _svg(labels, inputs, leaf) if len(labels) <= LARGEST_IN_NOTEBOOKS else None


def draw(tensor: Tensor, names: Mapping[str, Tensor] | None = None, form: str = "text") -> Drawing:
    """The graph that `tensor` was computed by, as a string, which notebooks show as a picture. Draw
    it before `backward`, which frees the graph: "(freed)" stands behind the op then.

    Args:
        tensor: The result at the end of the graph.
        names: Names of leaves, such as ``dict(module.named_parameters())``. Default: None. Other
            leaves are shown by their shape.
        form: "text" (the default) has a line for each leaf and op, with its number, its name, and
            the numbers of its inputs; "dot" is the language of Graphviz; "svg" is a picture for a
            browser.

    Raises:
        TypeError: `tensor` is no Tensor, `names` does not map names to Tensors, or `form` is no
            str.
        ValueError: `form` is none of the three.

    >>> import minigrad as mg
    >>> x, W, b = (mg.ones(shape, requires_grad=True) for shape in [(2, 3), (3, 4), 4])
    >>> print(mg.draw(mg.tanh(x @ W + b), {"x": x, "W": W, "b": b}))
    0 x (2, 3)
    1 W (3, 4)
    2 matmul 0 1
    3 b (4,)
    4 add 2 3
    5 tanh 4
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"draw: tensor must be a Tensor, got {type(tensor).__name__}")
    form = choice("draw", "form", form, FORMS)
    known = names_of_leaves("draw", names)
    vertices = _walk(tensor)
    labels = [_label(thing, known) for thing, _ in vertices]
    inputs = [sources for _, sources in vertices]
    leaves = [isinstance(thing, Tensor) for thing, _ in vertices]
    drawing = Drawing({"text": _text, "dot": _dot, "svg": _svg}[form](labels, inputs, leaves))
    drawing._graph = (labels, inputs, leaves)
    return drawing


def _walk(tensor: Tensor) -> list[tuple[Any, list[int]]]:
    """The vertices in an order in which inputs come first: (Node or leaf Tensor, numbers of its
    inputs)."""
    number: dict[int, int] = {}
    vertices: list[tuple[Any, list[int]]] = []
    stack = [_slot(tensor.grad_fn if tensor.grad_fn is not None else tensor)]
    while stack:
        slot = stack[-1]
        inputs = (
            [] if isinstance(slot, Tensor) else [_slot(s) for s in slot.inputs if s is not None]
        )
        waiting = [] if id(slot) in number else [s for s in inputs if id(s) not in number]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        if id(slot) not in number:
            number[id(slot)] = len(vertices)
            vertices.append((slot, [number[id(s)] for s in inputs]))
    return vertices


def _slot(slot: Any) -> Any:
    """A slot itself; for one output of an op with several, the op."""
    while type(slot).__name__ == "Output":
        slot = slot.inputs[0]
    return slot


def _label(thing: Any, known: dict[int, str]) -> str:
    if not isinstance(thing, Tensor):
        return f"{thing.name} (freed)" if thing.freed else str(thing.name)
    return f"{known[id(thing)]} {thing.shape}" if id(thing) in known else str(thing.shape)


def _text(labels: list[str], inputs: list[list[int]], leaf: list[bool]) -> str:
    return "\n".join(
        " ".join([str(k), label, *map(str, inputs[k])]) for k, label in enumerate(labels)
    )


def _dot(labels: list[str], inputs: list[list[int]], leaf: list[bool]) -> str:
    quoted = [label.replace("\\", "\\\\").replace('"', '\\"') for label in labels]
    lines = [
        f'    {k} [label="{label}"{", shape=box" if leaf[k] else ""}]'
        for k, label in enumerate(quoted)
    ]
    lines += [f"    {source} -> {k}" for k, sources in enumerate(inputs) for source in sources]
    return "\n".join(["digraph {", "    rankdir=LR", *lines, "}"])


# Of the SVG picture, in pixels.
_HEIGHT = 26  # of a box
_GAP = 24  # between two boxes of a rank
_STEP = _HEIGHT + 24  # from one rank to the next
_MARGIN = 10
_DETOUR = 60  # beside the boxes, for the lines that pass more than one rank
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
    'markerHeight="8" orient="90"><path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>'
)


def _svg(labels: list[str], inputs: list[list[int]], leaf: list[bool]) -> str:
    """From top to bottom: a vertex stands one rank above the first op that uses it."""
    n = len(labels)
    rank = _ranks(inputs)
    place = [0] * n  # of a vertex in its rank, from the left
    filled = [0] * (max(rank) + 1)  # how many vertices a rank has
    for k in range(n):
        place[k] = filled[rank[k]]
        filled[rank[k]] += 1

    box = 7.5 * max(map(len, labels)) + 14  # the width of all boxes
    width = 2 * (_MARGIN + _DETOUR) + max(filled) * (box + _GAP) - _GAP
    height = 2 * _MARGIN + max(rank) * _STEP + _HEIGHT
    x = []  # of the middle of each box
    y = []  # of its upper edge
    for k in range(n):
        of_rank = filled[rank[k]] * (box + _GAP) - _GAP
        x.append((width - of_rank) / 2 + place[k] * (box + _GAP) + box / 2)
        y.append(_MARGIN + rank[k] * _STEP)

    parts = [_ARROW]
    for k in range(n):
        for source in inputs[k]:
            start = (x[source], y[source] + _HEIGHT)
            end = (x[k], y[k])
            side = None
            if rank[k] - rank[source] > 1:
                left = start[0] + end[0] < width
                side = -_DETOUR / 2 if left else width + _DETOUR / 2
            parts.append(_line(start, end, side))
    for k, label in enumerate(labels):
        radius, color = (2, "#dfe8f5") if leaf[k] else (13, "#f6e6cf")
        parts.append(
            f'<rect x="{x[k] - box / 2:.0f}" y="{y[k]}" width="{box:.0f}" height="{_HEIGHT}" '
            f'rx="{radius}" fill="{color}" stroke="#555"/>'
        )
        parts.append(
            f'<text x="{x[k]:.0f}" y="{y[k] + 17}" text-anchor="middle">{escape(label)}</text>'
        )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        'font-family="monospace" font-size="12">'
    )
    return "\n".join([head, *parts, "</svg>"])


def _ranks(inputs: list[list[int]]) -> list[int]:
    """The rank of each vertex, above those of all that use it. The last vertex is at its depth."""
    n = len(inputs)
    depth = [0] * n
    for k in range(n):
        depth[k] = 1 + max((depth[source] for source in inputs[k]), default=-1)
    rank = [depth[-1]] * n
    for k in range(n - 1, -1, -1):
        for source in inputs[k]:
            rank[source] = min(rank[source], rank[k] - 1)
    return rank


def _line(start: tuple[float, float], end: tuple[float, float], side: float | None) -> str:
    """A curve from one box down to another; if `side` is given, past that x."""
    (x1, y1), (x2, y2) = start, end
    bend1 = x1 if side is None else side
    bend2 = x2 if side is None else side
    return (
        f'<path d="M{x1:.0f} {y1:.0f}C{bend1:.0f} {y1 + 16:.0f} '
        f'{bend2:.0f} {y2 - 16:.0f} {x2:.0f} {y2:.0f}" fill="none" stroke="#888" '
        'marker-end="url(#arrow)"/>'
    )
