"""What Jupyter shows of a Tensor and of a Module: HTML without scripts, made when a notebook asks
for it. It needs no other package: the pictures are PNG files, written here, inside of the text.

The colours are chosen to be read on a light and on a dark page: text and lines have the colour that
the page gives them.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minigrad.core.tensor import Node, Tensor, install
from minigrad.nn.module import Module, Parameter

__all__ = ["module_html", "tensor_html"]

Array = NDArray[Any]

PIECE = 2**15  # elements that are looked at in one go: they fit into the cache
SAMPLE = 2**20  # mean, std and zeros are those of at most so many elements
SIDE, SIDE_OF_TWO = 128, 96  # cells of a picture along an axis: alone, and beside a second one
MARKED = 2**21  # up to so many elements, the picture marks each that is not finite
VALUES, LINES = 100, 12  # a tensor of no more elements and lines of text is written out
ROWS = 100  # of the table of a module

LEVELS = 15  # of colour on either side of 0
LOWEST, ZERO, HIGHEST = (33, 102, 172), (238, 238, 238), (178, 24, 43)
NON_FINITE = (255, 200, 0)

BOX = "font:13px/1.5 sans-serif;max-width:100%;overflow-x:auto"
ROW = "display:flex;flex-wrap:wrap;gap:8px 28px;align-items:flex-start"
VALUES_STYLE = "margin:2px 0;font-size:12px;color:inherit;background:none"
FAINT = "opacity:.75;font-size:12px"
CELL = "padding:1px 10px 1px 0;white-space:nowrap"


def tensor_html(self: Tensor) -> str:
    """What a notebook shows of a tensor, and of its gradient beside it: at most 20,000 bytes."""
    grad = self.grad
    side = SIDE if grad is None else SIDE_OF_TWO
    parts = [_array_html(self._array, "data", side)]
    if grad is not None:
        parts.append(_array_html(grad._array, "grad", side))
    return (
        f'<div style="{BOX}"><div><b>{_text(type(self).__name__)}</b> '
        f"{_text(self.shape)} {self.dtype}, {_text(_origin(self), 120)}</div>"
        f'<div style="{ROW}">{"".join(parts)}</div></div>'
    )


def module_html(self: Module) -> str:
    """What a notebook shows of a module: a table of the modules and parameters in it."""
    members = self._walk()[1:]  # without the module itself
    total = sum(member.size for _, member in members if isinstance(member, Parameter))
    rows = [_row(name, member) for name, member in members[:ROWS]]
    rest = f"; and {len(members) - ROWS:,} rows more" if len(members) > ROWS else ""
    heads = _cells_of_row("th", ["name", "kind", "shape", "parameters", "|w|", "|grad|"])
    table = (
        f'<table style="border-collapse:collapse;font-size:13px"><thead style="border-bottom:'
        f'1px solid"><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<div style="{FAINT}">|w|: the square root of the sum of squares, '
        f'after "~" an estimate from {SAMPLE:,} elements{rest}</div>'
    )
    return (
        f'<div style="{BOX}"><div><b>{_kind(self)}</b>, {total:,} parameters</div>'
        f"{table if rows else ''}</div>"
    )


def _row(name: str, member: Parameter | Module) -> str:
    """A line of the table of a module."""
    if isinstance(member, Module):
        count = sum(parameter.size for parameter in member.parameters())
        cells = [_text(name), f"<b>{_kind(member)}</b>", "", f"{count:,}", "", ""]
    else:
        grad = "none" if member.grad is None else _norm(member.grad._array)
        kind, shape = _text(type(member).__name__), _text(member.shape)
        cells = [_text(name), kind, shape, f"{member.size:,}", _norm(member._array), grad]
    return f"<tr>{_cells_of_row('td', cells)}</tr>"


def _cells_of_row(tag: str, cells: list[str]) -> str:
    """The first three are text, the others numbers."""
    html = ""
    for k, cell in enumerate(cells):
        side = "left" if k < 3 else "right"
        html += f'<{tag} style="{CELL};text-align:{side}">{cell}</{tag}>'
    return html


def _kind(module: Module) -> str:
    """The class of a module; if there are none inside, with its options."""
    kind = type(module).__name__
    if next(module.children(), None) is None:
        kind = f"{kind}({module.options()})"
    return _text(kind)


# ---------------------------------------------------------------- text


def _text(value: object, length: int = 80) -> str:
    """A name as HTML, whatever is in it, shortened to `length` characters."""
    from html import escape  # here, for a notebook: it is a large table

    text = str(value)
    if len(text) > length:
        text = f"{text[: length - 1]}…"
    return escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def _origin(tensor: Tensor) -> str:
    """How a tensor was made, and whether backward can still go there."""
    node = tensor.grad_fn
    if node is None:
        return "a leaf that requires grad" if tensor.requires_grad else "no graph"
    name = node.name
    while type(node).__name__ == "Output" and node.inputs:  # one output of an op with several
        op = node.inputs[0]
        assert isinstance(op, Node)
        node = op
    return f"made by {name}" + ("; backward has freed its graph" if node.freed else "")


def _number(value: float) -> str:
    return f"{value:.4g}"


# ---------------------------------------------------------------- statistics


class Statistics(NamedTuple):
    """Of an array: `low`, `high` and the numbers of non-finite elements of all of it; `mean`, `std`
    and the share of `zeros` of the finite ones among `looked_at` elements."""

    low: float
    high: float
    nan: int
    inf: int
    minus_inf: int
    looked_at: int
    mean: float
    std: float
    zeros: float

    @property
    def non_finite(self) -> int:
        return self.nan + self.inf + self.minus_inf


def statistics(array: Array) -> Statistics | None:
    """None for an array without elements."""
    if array.size == 0:
        return None
    with np.errstate(all="ignore"):
        # Along an axis of stride 0 all elements are the same.
        once = array[tuple(slice(1 if stride == 0 else None) for stride in array.strides)]
        repeats = array.size // once.size
        low, high = np.inf, -np.inf
        nan = inf = minus_inf = 0
        for piece in _pieces(once):
            finite = np.isfinite(piece)
            wrong = piece.size - int(np.count_nonzero(finite))
            if wrong:
                positive = int(np.count_nonzero(piece == np.inf))
                negative = int(np.count_nonzero(piece == -np.inf))
                nan += wrong - positive - negative
                inf += positive
                minus_inf += negative
                some_finite = piece[finite.argmax()]
                piece = np.where(finite, piece, some_finite)
            if wrong < piece.size:
                low = min(low, float(piece.min()))
                high = max(high, float(piece.max()))
        sample = _sample(once)
        looked_at = array.size if sample.size == once.size else sample.size
        mean, std, zeros = _moments(sample, low, high)
    counts = (nan * repeats, inf * repeats, minus_inf * repeats)
    return Statistics(low, high, *counts, looked_at, mean, std, zeros)


def _pieces(array: Array) -> Iterator[Array]:
    """The elements of an array in the order of memory, a vector of at most PIECE at a time."""
    pieces: Any = np.nditer(array, flags=["external_loop", "buffered"], buffersize=PIECE)
    yield from pieces


def _sample(array: Array) -> Array:
    """At most SAMPLE elements, evenly spread over the array: a view."""
    while array.size > SAMPLE:
        axis = int(np.argmax(array.shape))
        array = array[(slice(None),) * axis + (slice(None, None, 2),)]
    return array


def _moments(array: Array, low: float, high: float) -> tuple[float, float, float]:
    """Mean, standard deviation and the share of zeros of the finite elements. They are computed in
    z = (x - middle) / half, which is in [-1, 1], so that no square overflows."""
    if low > high:  # nothing is finite
        return np.nan, np.nan, 0.0
    middle, half = low / 2 + high / 2, high / 2 - low / 2
    count, zeros, first, second = 0, 0, 0.0, 0.0
    for piece in _pieces(array):
        piece = piece[np.isfinite(piece)]
        count += piece.size
        zeros += piece.size - int(np.count_nonzero(piece))
        if half > 0:
            z = np.subtract(piece, middle, dtype=np.float64) / half
            first += float(z.sum())
            second += float((z * z).sum())
    if count == 0:
        return np.nan, np.nan, 0.0
    first, second = first / count, second / count
    std = half * max(second - first * first, 0.0) ** 0.5
    return middle + half * first, std, zeros / count


def _norm(array: Array) -> str:
    """|x|, of the finite elements, and how many are not."""
    found = statistics(array)
    if found is None:
        return "0"
    finite = array.size - found.non_finite
    norm = np.sqrt(float(finite)) * np.hypot(found.mean, found.std) if finite else 0.0
    about = "" if found.looked_at == array.size else "~"
    wrong = f" ({found.non_finite:,} non-finite)" if found.non_finite else ""
    return f"{about}{_number(norm)}{wrong}"


# ---------------------------------------------------------------- an array


def _array_html(array: Array, title: str, side: int) -> str:
    """Statistics and heat map of an array; the values too, if they are few."""
    found = statistics(array)
    if found is None:
        return f"<div><b>{title}</b>: no elements</div>"
    if array.size == 1:
        return f"<div><b>{title}</b>: {_text(np.array2string(array))}</div>"
    lines = [f"<b>{title}</b>: {_summary(found)}"]
    if found.non_finite:
        counts = ((found.nan, "NaN"), (found.inf, "inf"), (found.minus_inf, "-inf"))
        listed = ", ".join(f"{count:,} {kind}" for count, kind in counts if count)
        where = "" if array.size <= MARKED else "; the picture may miss some"
        lines.append(f"{_swatch(NON_FINITE)} {found.non_finite:,} non-finite: {listed}{where}")
    if found.looked_at < array.size:
        lines.append(f"mean, std and zeros: of {found.looked_at:,} of the {array.size:,} elements")
    if array.size <= VALUES:
        values = np.array2string(array, precision=4, separator=", ")
        if values.count("\n") < LINES:
            lines.append(f'<pre style="{VALUES_STYLE}">{_text(values, 1500)}</pre>')
    lines.append(_heat_map(array, title, side, found))
    return "<div>" + "".join(f"<div>{line}</div>" for line in lines) + "</div>"


def _summary(found: Statistics) -> str:
    if found.low > found.high:
        return "nothing is finite"
    text = (
        f"{_number(found.low)} to {_number(found.high)}, "
        f"mean {_number(found.mean)}, std {_number(found.std)}"
    )
    if found.zeros == 0:
        return text
    return text + (f", {found.zeros:.1%} zeros" if found.zeros >= 0.001 else ", under 0.1% zeros")


# ---------------------------------------------------------------- the heat map


def _heat_map(array: Array, title: str, side: int, found: Statistics) -> str:
    """A picture with at most `side` cells along each axis, and what its colours mean."""
    scale = max(abs(found.low), abs(found.high)) if found.low <= found.high else 0.0
    cells = _cells(array, side, scale, marked=bool(found.non_finite))
    rows, columns = cells.shape
    zoom = max(1, min(16, 256 // max(rows, columns)))
    alt = (
        f"Heat map of the {title}, {rows} × {columns} cells: blue {_number(-scale)}, grey 0, "
        f"red {_number(scale)}, yellow {found.non_finite:,} non-finite"
    )
    size = f"width:{max(columns * zoom, 12)}px;height:{max(rows * zoom, 12)}px"
    picture = (
        f'<img src="data:image/png;base64,{_png(cells)}" alt="{alt}" style="{size};'
        'max-width:none;display:block;margin:4px 0;image-rendering:pixelated">'
    )
    ramp = ",".join(_css(color) for color in (LOWEST, ZERO, HIGHEST))
    legend = (
        f'<div style="font-size:12px">{_number(-scale)} <span style="display:inline-block;'
        f'width:90px;height:9px;background:linear-gradient(90deg,{ramp})"></span> '
        f"{_number(scale)}</div>"
    )
    return f'{picture}{legend}<div style="{FAINT}">{_axes(array.shape, rows, columns)}</div>'


def _axes(shape: tuple[int, ...], rows: int, columns: int) -> str:
    """What the rows and columns of the picture are."""
    across = shape[-1]
    down = int(np.prod(shape[:-1], dtype=object))
    text = {1: "axis 0 to the right", 2: "axis 0 down, axis 1 to the right"}.get(
        len(shape), f"axes 0 to {len(shape) - 2} down, axis {len(shape) - 1} to the right"
    )
    if (rows, columns) != (down, across):
        text += f"; {rows} × {columns} of {down:,} × {across:,} shown"
    return text


def _cells(array: Array, side: int, scale: float, marked: bool) -> NDArray[np.uint8]:
    """The colours of the picture, as numbers in the palette. A cell shows the first element of its
    block; if `marked`, it shows also whether any element of the block is not finite."""
    array = np.atleast_2d(array)
    shape, columns = array.shape, array.shape[-1]
    row_starts = _starts(array.size // columns, side)
    column_starts = _starts(columns, side)
    leading = np.unravel_index(row_starts, shape[:-1])
    places = (*[index[:, None] for index in leading], column_starts)
    values = array[places].astype(np.float64)
    wrong = ~np.isfinite(values)
    values[wrong] = 0.0
    with np.errstate(all="ignore"):
        cells = np.rint(values / scale * LEVELS) + LEVELS if scale > 0 else values + LEVELS
    if marked and array.size <= MARKED:
        everywhere = ~np.isfinite(array).reshape(-1, columns)
        of_rows = np.logical_or.reduceat(everywhere, row_starts, axis=0)
        wrong = np.logical_or.reduceat(of_rows, column_starts, axis=1)
    return np.where(wrong, 2 * LEVELS + 1, cells).astype(np.uint8)


def _starts(n: int, side: int) -> NDArray[np.intp]:
    """Where min(n, side) blocks of n elements begin."""
    blocks = min(n, side)
    return np.arange(blocks, dtype=np.intp) * n // blocks


def _palette() -> bytes:
    """The colours of the levels, from the lowest over 0 to the highest, then that of what is not
    finite."""
    colors = []
    for level in range(-LEVELS, LEVELS + 1):
        end = LOWEST if level < 0 else HIGHEST
        share = abs(level) / LEVELS
        colors += [round(zero + share * (one - zero)) for zero, one in zip(ZERO, end, strict=True)]
    return bytes([*colors, *NON_FINITE])


def _png(cells: NDArray[np.uint8]) -> str:
    """A PNG file with a palette, in base64: https://www.w3.org/TR/png-3/ ."""
    rows, columns = cells.shape
    lines = np.zeros((rows, 1 + columns), np.uint8)  # each begins with the number of its filter: 0
    lines[:, 1:] = cells
    depth, indexed = 8, 3
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, indexed, 0, 0, 0)),
        (b"PLTE", _palette()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    file = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        check = zlib.crc32(kind + data)
        file += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
    return base64.b64encode(file).decode("ascii")


def _css(color: tuple[int, int, int]) -> str:
    return "rgb({},{},{})".format(*color)


def _swatch(color: tuple[int, int, int]) -> str:
    return (
        '<span style="display:inline-block;width:10px;height:10px;'
        f'background:{_css(color)};border:1px solid"></span>'
    )


install("_repr_html_", tensor_html)
Module._repr_html_ = module_html
