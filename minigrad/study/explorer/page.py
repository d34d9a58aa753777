"""The explorer's page: one HTML file with the model as JSON, the style and the script in it.

The JSON has lists with an entry for each vertex. `back` says how far back the inputs of all are,
one vertex after the other, `inputCount` how many each has. `fact` is a number into `facts`: name,
scope, shape, line, rule, bytes saved. Values and gradients are [least, largest, mean, norm], with
the count of those not finite behind it if there are any, or 0 where nothing is known; their strips
are bytes, from 0 to 255 for sizes from 0 to the largest.
"""

from __future__ import annotations

import base64
import json
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from minigrad.core.recording import Summary
from minigrad.study.explorer.model import Model, Vertex
from minigrad.study.picture import Graph, picture

__all__ = ["Places", "page", "places_of"]

MANY = 20_000  # vertices; from here on strips are shorter
STRIPS = (24, 6)  # numbers of a strip, of a smaller and of a larger graph
DIGITS = (4, 3)  # of the statistics, the same
PICTURE = 300  # vertices of a graph that is also drawn as a static picture
ROWS = 500  # of the static table
LONE_STEPS = 3000  # vertices of a graph without time steps whose blocks are all open
BEFORE, AFTER, LEAVES = "before", "after", "weights"


class Places:
    """Row and column of each vertex.

    Args:
        rows: the names of the rows: the scopes, in the order in which they come.
        columns: heading and kind of each column.
        row, column: of each vertex.
        open: whether all blocks begin open.
    """

    def __init__(
        self, rows: list[str], columns: list[dict[str, Any]], row: list[int], column: list[int]
    ) -> None:
        self.rows, self.columns = rows, columns
        self.row, self.column = row, column
        self.open = False


def places_of(model: Model) -> Places:
    """Weights at the left, then what comes before the time steps, a column for each step, and what
    comes after. A graph without steps has a column for each depth."""
    vertices = model.vertices
    has_steps = any(vertex.t is not None for vertex in vertices)
    at = _steps(vertices) if has_steps else _depths(vertices)
    used_in: list[set[Any]] = [set() for _ in vertices]
    for k, vertex in enumerate(vertices):
        for source in vertex.inputs:
            used_in[source].add(at[k])
    for k, vertex in enumerate(vertices):
        if vertex.kind != "op":
            lone = len(used_in[k]) == 1
            at[k] = next(iter(used_in[k])) if lone and has_steps else LEAVES
    order: dict[Any, int] = {}
    names = [LEAVES, BEFORE, *sorted({c for c in at if isinstance(c, int)}), AFTER]
    columns: list[dict[str, Any]] = []
    there = set(at)
    for name in names:
        if name in there:
            order[name] = len(columns)
            heading = f"t = {name}" if isinstance(name, int) and has_steps else str(name)
            heading = "" if isinstance(name, int) and not has_steps else heading
            columns.append({"name": heading, "leaves": name == LEAVES})
    rows: dict[str, int] = {}
    row = []
    users = _first_users(vertices)
    for k, vertex in enumerate(vertices):
        scope = vertex.scope
        if vertex.kind == "leaf" and k in users:
            scope = users[k].scope
        row.append(rows.setdefault(scope or "graph", len(rows)))
    places = Places(list(rows), columns, row, [order[name] for name in at])
    places.open = not has_steps and len(vertices) <= LONE_STEPS
    return places


def _steps(vertices: list[Vertex]) -> list[Any]:
    """The time step of each; before or after, where it has none."""
    at: list[Any] = []
    for vertex in vertices:
        if vertex.t is not None:
            at.append(vertex.t)
        else:
            late = any(
                at[source] == AFTER or isinstance(at[source], int) for source in vertex.inputs
            )
            at.append(AFTER if late else BEFORE)
    return at


def _depths(vertices: list[Vertex]) -> list[Any]:
    """How many ops lie before each."""
    depth: list[Any] = []
    for vertex in vertices:
        depth.append(1 + max((depth[source] for source in vertex.inputs), default=-1))
    return depth


def _first_users(vertices: list[Vertex]) -> dict[int, Vertex]:
    """For each vertex the first op that uses it."""
    users: dict[int, Vertex] = {}
    for vertex in vertices:
        for source in vertex.inputs:
            users.setdefault(source, vertex)
    return users


# ---------------------------------------------------------------- the data


def _data(model: Model, places: Places) -> dict[str, Any]:
    vertices = model.vertices
    facts: dict[tuple[Any, ...], int] = {}
    back, counts, fact = [], [], []
    for k, vertex in enumerate(vertices):
        back += [k - source for source in vertex.inputs]
        counts.append(len(vertex.inputs))
        shape = "" if vertex.shape is None else str(vertex.shape)
        told = (vertex.name, vertex.scope, shape, vertex.where, vertex.rule, vertex.saved)
        fact.append(facts.setdefault(told, len(facts)))
    many = len(vertices) > MANY
    width, digits = STRIPS[many], DIGITS[many]
    return {
        "kind": "".join(vertex.kind[0] for vertex in vertices),
        "fact": fact,
        "facts": [list(told) for told in facts],
        "t": [-1 if vertex.t is None else vertex.t for vertex in vertices],
        "visit": [-1 if vertex.visit is None else vertex.visit for vertex in vertices],
        "value": [_short(vertex.values, digits) for vertex in vertices],
        "gradient": [_short(vertex.gradient, digits) for vertex in vertices],
        "stripWidth": width,
        "valueStrips": _strips([vertex.values for vertex in vertices], width),
        "gradientStrips": _strips([vertex.gradient for vertex in vertices], width),
        "back": back,
        "inputCount": counts,
        "rows": places.rows,
        "columns": places.columns,
        "row": places.row,
        "column": places.column,
        "open": places.open,
    }


def _short(summary: Summary | None, digits: int) -> Any:
    """Four numbers, or five."""
    if summary is None:
        return 0
    numbers = (summary.least, summary.largest, summary.mean, summary.norm)
    short: list[float] = []
    for number in numbers:
        rounded = float(f"{number:.{digits}g}")
        short.append(int(rounded) if rounded == int(rounded) and abs(rounded) < 1e6 else rounded)
    return [*short, summary.nonfinite] if summary.nonfinite else short


def _strips(summaries: list[Summary | None], width: int) -> str:
    cells = np.zeros((len(summaries), width), np.uint8)
    for row, summary in zip(cells, summaries, strict=True):
        if summary is None or not summary.strip.size:
            continue
        strip = summary.strip[np.arange(width) * summary.strip.size // width]
        sizes = np.abs(np.where(np.isfinite(strip), strip, 0))
        largest = sizes.max()
        if largest > 0:
            row[:] = np.maximum(np.round(255 * (sizes / largest)), 20 * (sizes > 0))
    return base64.b64encode(cells.tobytes()).decode("ascii")


# ---------------------------------------------------------------- the page


def page(model: Model, title: str, note: str) -> str:
    """The whole file."""
    folder = files("minigrad.study.explorer")
    data = json.dumps(_data(model, places_of(model)), separators=(",", ":"), allow_nan=False)
    parts = {
        "TITLE": escape(title),
        "NOTE": escape(note),
        "STYLE": folder.joinpath("explorer.css").read_text(encoding="utf-8"),
        "SCRIPT": folder.joinpath("explorer.js").read_text(encoding="utf-8"),
        "DATA": data.replace("<", "\\u003c"),  # no text can end the element
        "STATIC": _static(model),
    }
    text = folder.joinpath("explorer.html").read_text(encoding="utf-8")
    before, *rest = text.split("{{")
    made = [before]
    for part in rest:
        name, _, after = part.partition("}}")
        made += [parts[name], after]
    return "".join(made)


def _static(model: Model) -> str:
    """What is shown without JavaScript: a picture, if the graph is small, and a table."""
    shown = []
    vertices = model.vertices
    if len(vertices) <= PICTURE:
        graph = Graph(
            labels=[_label(vertex) for vertex in vertices],
            inputs=[vertex.inputs for vertex in vertices],
            kinds=[vertex.kind for vertex in vertices],
            notes=[[] for _ in vertices],
            steps=[vertex.t for vertex in vertices],
        )
        shown.append(picture(graph))
    rows = ["<tr><th>number<th>op<th>scope<th>t<th>shape<th>|value|<th>|gradient|"]
    for k, vertex in enumerate(vertices[:ROWS]):
        step = "" if vertex.t is None else str(vertex.t)
        norms = [
            "" if summary is None else f"{summary.norm:.4g}"
            for summary in (vertex.values, vertex.gradient)
        ]
        cells = [str(k), vertex.name, vertex.scope, step, str(vertex.shape or ""), *norms]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells))
    shown.append(f"<table>{''.join(rows)}</table>")
    if len(vertices) > ROWS:
        shown.append(f"<p>and {len(vertices) - ROWS} more</p>")
    return "\n".join(shown)


def _label(vertex: Vertex) -> str:
    return vertex.name if vertex.kind == "op" else f"{vertex.name} {vertex.shape or ''}"
