"""The SVG picture of a graph that draw.py has walked: boxes in ranks from top to bottom; or, where
there are time steps, one column for each step, in bands that are no wider than a page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html import escape

__all__ = ["Graph", "picture", "steps_by_use"]

Point = tuple[float, float]
Column = tuple[str, list[int]]  # heading, vertices
SHARED = "shared"

# In pixels.
LINE = 16  # of text
PAD = 10  # of a box, above and below its text together
GAP_X = 24  # between two boxes of a rank, and between two columns
GAP_Y = 24  # between two ranks, and between two boxes of a column
MARGIN = 12
DETOUR = 60  # beside the boxes, for the lines that pass more than one rank
PAGE = 900  # width of a band of columns, if it has more than one step
CHARACTER = 7.3  # width of one, in a font of 12
HEAD = 22  # above a column, for its time step

COLORS = {"leaf": "#dfe8f5", "op": "#f6e6cf", "constant": "#ececec"}
ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
    'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>'
)


@dataclass
class Graph:
    """What is drawn. The vertices are numbered so that inputs come first.

    Args:
        labels: the first line of each vertex.
        inputs: for each vertex the numbers of those that it was made of.
        kinds: "leaf", "op" or "constant" for each.
        notes: further lines of each, such as its value.
        steps: the time step of each, or None.
    """

    labels: list[str]
    inputs: list[list[int]]
    kinds: list[str]
    notes: list[list[str]]
    steps: list[int | None] = field(default_factory=list)

    def lines(self, k: int) -> list[str]:
        return [self.labels[k], *self.notes[k]]

    def height(self, k: int) -> int:
        return PAD + LINE * len(self.lines(k))

    def box(self) -> float:
        """The width of all boxes."""
        longest = max(len(line) for k in range(len(self.labels)) for line in self.lines(k))
        return CHARACTER * longest + 14


def picture(graph: Graph) -> str:
    """The graph as SVG."""
    if any(step is not None for step in graph.steps):
        return _in_columns(graph)
    return _in_ranks(graph)


# ---------------------------------------------------------------- ranks


def _in_ranks(graph: Graph) -> str:
    """From top to bottom: a vertex stands one rank above the first op that uses it."""
    n = len(graph.labels)
    rank = _ranks(graph.inputs)
    place = [0] * n  # of a vertex in its rank, from the left
    filled = [0] * (max(rank) + 1)  # how many vertices a rank has
    tallest = [0] * (max(rank) + 1)
    for k in range(n):
        place[k] = filled[rank[k]]
        filled[rank[k]] += 1
        tallest[rank[k]] = max(tallest[rank[k]], graph.height(k))
    tops = [MARGIN]
    for height in tallest:
        tops.append(tops[-1] + height + GAP_Y)
    box = graph.box()
    width = 2 * (MARGIN + DETOUR) + max(filled) * (box + GAP_X) - GAP_X
    corners = []
    for k in range(n):
        of_rank = filled[rank[k]] * (box + GAP_X) - GAP_X
        left = (width - of_rank) / 2 + place[k] * (box + GAP_X)
        corners.append((left, float(tops[rank[k]])))
    parts = []
    for k in range(n):
        for source in graph.inputs[k]:
            start = (corners[source][0] + box / 2, corners[source][1] + graph.height(source))
            end = (corners[k][0] + box / 2, corners[k][1])
            side = None
            if rank[k] - rank[source] > 1:
                left = start[0] + end[0] < width
                side = -DETOUR / 2 if left else width + DETOUR / 2
            parts.append(_down(start, end, side))
    return _svg(graph, corners, parts, width, tops[-1] - GAP_Y + MARGIN)


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


# ---------------------------------------------------------------- columns of time steps


def _in_columns(graph: Graph) -> str:
    """A column for what comes before the first step, with the weights that several steps share; one
    for each step; one for what comes after. Within a column from top to bottom."""
    columns = _columns(graph)
    box = graph.box()
    across = max(3, int((PAGE - 2 * MARGIN + GAP_X) / (box + GAP_X)))
    corners: list[Point] = [(0.0, 0.0)] * len(graph.labels)
    of_column = [0] * len(graph.labels)
    heads = []
    top = float(MARGIN)
    for band in _bands(columns, across):
        lowest = top
        for i, (name, column) in band:
            left = MARGIN + i * (box + GAP_X)
            heads.append(
                f'<text x="{left + box / 2:.0f}" y="{top + 14:.0f}" text-anchor="middle" '
                f'font-weight="bold">{escape(name)}</text>'
            )
            y = top + HEAD
            for k in column:
                corners[k] = (left, y)
                of_column[k] = columns.index((name, column))
                y += graph.height(k) + GAP_Y
            lowest = max(lowest, y)
        top = lowest + GAP_Y
    parts = heads
    users = _users(graph)
    shared = [len({of_column[j] for j in users[k]}) > 1 for k in range(len(users))]
    for k in range(len(graph.labels)):
        for source in graph.inputs[k]:
            faint = shared[source] and graph.kinds[source] != "op"
            parts.append(_across(graph, corners, box, source, k, faint))
    width = 2 * MARGIN + min(across, len(columns)) * (box + GAP_X) - GAP_X
    return _svg(graph, corners, parts, width, top - 2 * GAP_Y + MARGIN)


def _bands(columns: list[Column], across: int) -> list[list[tuple[int, Column]]]:
    """The columns of each band with their places from the left. What is shared has the left edge of
    the page for itself."""
    has_shared = columns[0][0] == SHARED
    first = 1 if has_shared else 0
    room = across - first
    rest = columns[first:]
    bands = [
        [(first + i, column) for i, column in enumerate(rest[start : start + room])]
        for start in range(0, len(rest), room)
    ]
    if has_shared:
        bands[0].insert(0, (0, columns[0]))
    return bands


def _users(graph: Graph) -> list[list[int]]:
    """For each vertex the ops that use it."""
    users: list[list[int]] = [[] for _ in graph.labels]
    for k, sources in enumerate(graph.inputs):
        for source in sources:
            users[source].append(k)
    return users


def _columns(graph: Graph) -> list[Column]:
    """(heading, vertices) of each column, from the left."""
    steps = list(graph.steps)
    users = _users(graph)
    for k in range(len(steps) - 1, -1, -1):  # what one step alone uses stands with it
        used_in = {steps[j] for j in users[k]}
        if steps[k] is None and len(used_in) == 1:
            (steps[k],) = used_in
    after = [False] * len(steps)
    for k, sources in enumerate(graph.inputs):
        after[k] = steps[k] is None and any(after[s] or steps[s] is not None for s in sources)
    for k in range(len(steps) - 1, -1, -1):
        if steps[k] is None and users[k] and all(after[j] for j in users[k]):
            after[k] = True
    columns = [(SHARED, [k for k in range(len(steps)) if steps[k] is None and not after[k]])]
    for step in sorted({step for step in steps if step is not None}):
        columns.append((f"t = {step}", [k for k in range(len(steps)) if steps[k] == step]))
    columns.append(("after", [k for k in range(len(steps)) if after[k]]))
    return [(name, column) for name, column in columns if column]


def _across(
    graph: Graph, corners: list[Point], box: float, source: int, k: int, faint: bool
) -> str:
    """The line from a vertex to the op that uses it."""
    (x1, y1), (x2, y2) = corners[source], corners[k]
    if x1 == x2 and y1 < y2:
        start, end = (x1 + box / 2, y1 + graph.height(source)), (x2 + box / 2, y2)
        side = None if y2 - start[1] <= GAP_Y + 1 else x1 + box + GAP_X / 2
        return _down(start, end, side, faint)
    start = (x1 + box, y1 + graph.height(source) / 2)
    end = (x2, y2 + graph.height(k) / 2)
    if x2 <= x1:  # to the next band
        start, end = (x1 + box / 2, y1 + graph.height(source)), (x2 + box / 2, y2)
        return _down(start, end, None, faint)
    reach = GAP_X
    return _curve(start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end, faint)


# ---------------------------------------------------------------- shapes


def _down(start: Point, end: Point, side: float | None, faint: bool = False) -> str:
    """A curve from one box down to another; if `side` is given, past that x."""
    bend1 = start[0] if side is None else side
    bend2 = end[0] if side is None else side
    return _curve(start, (bend1, start[1] + 16), (bend2, end[1] - 16), end, faint)


def _curve(start: Point, bend1: Point, bend2: Point, end: Point, faint: bool) -> str:
    points = f"M{start[0]:.0f} {start[1]:.0f}C{bend1[0]:.0f} {bend1[1]:.0f} "
    points += f"{bend2[0]:.0f} {bend2[1]:.0f} {end[0]:.0f} {end[1]:.0f}"
    opacity = ' opacity="0.35"' if faint else ""
    return f'<path d="{points}" fill="none" stroke="#888"{opacity} marker-end="url(#arrow)"/>'


def _svg(graph: Graph, corners: list[Point], lines: list[str], width: float, height: float) -> str:
    """The lines, and above them the boxes with their texts."""
    box = graph.box()
    parts = [ARROW, *lines]
    for k, (x, y) in enumerate(corners):
        radius = 13 if graph.kinds[k] == "op" else 2
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{box:.0f}" height="{graph.height(k)}" '
            f'rx="{radius}" fill="{COLORS[graph.kinds[k]]}" stroke="#555"/>'
        )
        for i, line in enumerate(graph.lines(k)):
            bottom = y + PAD / 2 + LINE * (i + 1) - 4
            color = "" if i == 0 else ' fill="#444"'
            parts.append(
                f'<text x="{x + box / 2:.0f}" y="{bottom:.0f}" text-anchor="middle"{color}>'
                f"{escape(line)}</text>"
            )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="12">'
    )
    return "\n".join([head, *parts, "</svg>"])


def steps_by_use(inputs: list[list[int]], kinds: list[str]) -> list[int | None]:
    """The time step of each vertex, from the leaves that are used most often, the weights of a
    loop: what uses one of them for the k-th time belongs to step k, and so does all that is made of
    it, up to the next use. All None if no leaf is used three times, one after the other."""
    uses = Counter(source for sources in inputs for source in set(sources))
    most = max((count for k, count in uses.items() if kinds[k] == "leaf"), default=0)
    steps: list[int | None] = [None] * len(inputs)
    if most < 3:
        return steps
    weights = {k: -1 for k, count in uses.items() if kinds[k] == "leaf" and count == most}
    in_turn = False  # does one use lead to the next?
    for k, sources in enumerate(inputs):
        before = [step for step in (steps[s] for s in sources) if step is not None]
        latest = max(before, default=None)
        for source in set(sources):
            if source in weights:
                weights[source] += 1
                in_turn = in_turn or latest == weights[source] - 1
                latest = weights[source] if latest is None else max(latest, weights[source])
        steps[k] = latest
    return steps if in_turn else [None] * len(inputs)
