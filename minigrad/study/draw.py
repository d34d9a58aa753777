"""Drawing the computational graph: as text, for Graphviz, or as an SVG picture. What a Node is,
tensor.pyx tells.

The graph is walked with a list instead of recursion, so a million nodes are no danger. It shows
what the tape holds: constants are not on it, and after `backward` nothing is, unless the graph was
retained.
"""

import reprlib
from collections.abc import Mapping
from html import escape
from typing import Any

from minigrad.core.tensor import Tensor

__all__ = ["draw"]

FORMS = ("text", "dot", "svg")


def draw(tensor: Tensor, names: Mapping[str, Tensor] | None = None, form: str = "text") -> str:
    """The graph that `tensor` was made by, as one string.

    names: names for leaves, such as ``dict(module.named_parameters())``; others are shown by their
    shape. form: "text", one op a line; "dot", the language of Graphviz; "svg", a picture for a
    browser. Draw before `backward`, which frees the graph.

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
    if form not in FORMS:
        raise ValueError(f"draw: form must be one of {', '.join(FORMS)}, got {reprlib.repr(form)}")
    if names is not None and not isinstance(names, Mapping):
        raise TypeError(f"draw: names must map names to Tensors, got {type(names).__name__}")
    known = {}
    for name, leaf in ({} if names is None else names).items():
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"draw: names must map to Tensors, got {type(leaf).__name__} "
                f"for {reprlib.repr(name)}"
            )
        known[id(leaf)] = name
    vertices = _walk(tensor)
    labels = [_label(thing, known) for thing, _ in vertices]
    inputs = [sources for _, sources in vertices]
    leaves = [isinstance(thing, Tensor) for thing, _ in vertices]
    return {"text": _text, "dot": _dot, "svg": _svg}[form](labels, inputs, leaves)


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
        return str(thing.name)
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


def _svg(labels: list[str], inputs: list[list[int]], leaf: list[bool]) -> str:
    """From left to right: an op stands one column before the first that uses it, the last one at
    its depth."""
    n = len(labels)
    depth = [0] * n
    for k in range(n):
        depth[k] = 1 + max((depth[s] for s in inputs[k]), default=-1)
    column = [depth[-1]] * n
    for k in range(n - 1, -1, -1):
        for s in inputs[k]:
            column[s] = min(column[s], column[k] - 1)
    row = [0] * n
    used: dict[int, int] = {}
    for k in range(n):
        row[k] = used.get(column[k], 0)
        used[column[k]] = row[k] + 1
    tallest = max(used.values())
    height, box = 26, 7.5 * max(map(len, labels)) + 14
    x = [10 + column[k] * (box + 40) for k in range(n)]
    y = [30 + (row[k] + (tallest - used[column[k]]) / 2) * (height + 14) for k in range(n)]
    bottom = 20 + tallest * (height + 14)
    parts = []
    for k in range(n):
        for s in inputs[k]:
            x1, y1, x2, y2 = x[s] + box, y[s] + height / 2, x[k], y[k] + height / 2
            if column[k] - column[s] == 1:
                over, under = y1, y2
            else:  # long ones pass outside
                over = under = -10 if y1 + y2 <= bottom else bottom + 40
            parts.append(
                f'<path d="M{x1:.0f} {y1:.0f}C{x1 + 20:.0f} {over:.0f} '
                f'{x2 - 20:.0f} {under:.0f} {x2:.0f} {y2:.0f}" '
                'fill="none" stroke="#888"/>'
            )
    for k, label in enumerate(labels):
        radius, color = (2, "#dfe8f5") if leaf[k] else (13, "#f6e6cf")
        parts.append(
            f'<rect x="{x[k]:.0f}" y="{y[k]:.0f}" width="{box:.0f}" height="{height}" '
            f'rx="{radius}" fill="{color}" stroke="#555"/>'
        )
        parts.append(
            f'<text x="{x[k] + box / 2:.0f}" y="{y[k] + 17:.0f}" '
            f'text-anchor="middle">{escape(label)}</text>'
        )
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" '
            f'width="{20 + max(column) * (box + 40) + box:.0f}" '
            f'height="{bottom + 30:.0f}" font-family="monospace" font-size="12">',
            *parts,
            "</svg>",
        ]
    )
