"""The picture of chapter 1: the graph of y = tanh(a b) + a, with values and derivatives."""

import math
from pathlib import Path

from matplotlib import pyplot
from pictures import GATE, INK, POINTWISE, arrow, box, canvas

A, B = 2.0, 0.5
LONG, SHORT, VALUE = "#c44e52", "#2f6db5", "#444444"


def draw(path: Path) -> None:
    p = A * B
    t = math.tanh(p)
    y = t + A
    slope = 1 - t * t
    figure, ax = canvas(12, 5.6, 4.2)
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02)
    places = {"a": (1.0, 3.6), "b": (1.0, 1.2), "p": (5.0, 1.2), "t": (8.5, 1.2), "y": (11.0, 3.6)}
    texts = {"a": "a", "b": "b", "p": "p = a b", "t": "t = tanh p", "y": "y = t + a"}
    values = {"a": A, "b": B, "p": p, "t": t, "y": y}
    for name, (x, height) in places.items():
        box(ax, x, height, texts[name], GATE if name in "ab" else POINTWISE, 1.75, 0.7, 13)
        ax.text(x, height - 0.62, f"{values[name]:.6g}", fontsize=12, ha="center", color=VALUE)
    edges = [
        ("a", "p", f"dp/da = b = {B:g}", LONG, (4.35, 2.5)),
        ("b", "p", f"dp/db = a = {A:g}", INK, (2.98, 1.36)),
        ("p", "t", f"dt/dp = 1 - t² = {slope:.4f}", LONG, (6.75, 1.75)),
        ("t", "y", "dy/dt = 1", LONG, (9.0, 2.5)),
        ("a", "y", "the short path: ∂y/∂a = 1", SHORT, (6.0, 3.82)),
    ]
    for source, target, text, color, (x, height) in edges:
        (x1, y1), (x2, y2) = places[source], places[target]
        straight = y1 == y2
        start = (x1 + 0.9, y1 if straight else y1 + (0.36 if y2 > y1 else -0.1))
        end = (x2 - 0.9, y2 if straight else y2 + (0.36 if y1 > y2 else -0.2))
        arrow(ax, start, end, color=color, width=2 if color != INK else 1.3)
        ax.text(x, height, text, fontsize=12, ha="center", color=color)
    told = f"dy/da = 1 · {slope:.6f} · {B:g} + 1 = {slope * B + 1:.6f}"
    ax.text(6.0, 0.05, told, fontsize=13, ha="center", color=INK)
    ax.text(6.0, 4.9, "Two paths lead from a to y", fontsize=12, ha="center", color=INK)
    ax.set_title("The graph of y = tanh(a b) + a at a = 2, b = 0.5", fontsize=15)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
