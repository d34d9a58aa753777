"""Draws the pictures of the course, each 900 pixels wide.

    python docs/course/drawings.py [FOLDER]

Numbers and curves in them are computed here. Needs matplotlib.
"""

import math
import sys
from pathlib import Path

import numpy as np

import minigrad as mg

COURSE = Path(__file__).resolve().parent
sys.path.insert(0, str(COURSE.parent))

from pictures import (  # noqa: E402 - once it can be found
    ARRIVED,
    GATE,
    INK,
    POINTWISE,
    SIZE,
    STATE,
    arrow,
    box,
    canvas,
    pyplot,
)

RED, BLUE = "#c44e52", "#2f6db5"


def finish(figure, ax, title, path):
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.9)
    ax.set_title(title, fontsize=15)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def graph(path):
    """Chapter 1: y = tanh(a b) + a at a = 2, b = 0.5, with values and derivatives."""
    a, b = 2.0, 0.5
    m = a * b
    s = math.tanh(m)
    values = {"a": a, "b": b, "m": m, "s": s, "y": s + a}
    places = {"a": (1.0, 3.2), "b": (1.0, 0.9), "m": (5.0, 0.9), "s": (8.5, 0.9), "y": (11.0, 3.2)}
    texts = {"a": "a", "b": "b", "m": "m = a b", "s": "s = tanh m", "y": "y = s + a"}
    figure, ax = canvas(12, 4.2, 3.6)
    for name, (x, y) in places.items():
        box(ax, x, y, texts[name], GATE if name in "ab" else POINTWISE, 1.8, 0.7, 13)
        ax.text(x, y - 0.66, f"{values[name]:.4g}", fontsize=12, ha="center", color=INK)
    arrow(ax, (1.9, 3.0), (4.4, 1.26), color=RED, width=2)
    arrow(ax, (1.9, 0.9), (4.1, 0.9))
    arrow(ax, (5.9, 0.9), (7.6, 0.9), color=RED, width=2)
    arrow(ax, (9.0, 1.26), (10.3, 2.84), color=RED, width=2)
    arrow(ax, (1.9, 3.2), (10.1, 3.2), color=BLUE, width=2)
    ax.text(6.0, 3.34, "one way from a to y", fontsize=12, ha="center", color=BLUE)
    ax.text(3.6, 2.2, "the other way", fontsize=12, color=RED)
    finish(figure, ax, "The graph of y = tanh(a b) + a at a = 2, b = 0.5", path)


def tape(path):
    """Chapter 2: the nodes in the order in which they ran, and what each was made of."""
    names = ["m = a b", "s = tanh m", "y = s + a"]
    rules = ["da = dm b,  db = dm a", "dm = ds (1 - s²)", "ds = dy,  da = dy"]
    figure, ax = canvas(12, 4.0, 3.4)
    for k, (name, rule) in enumerate(zip(names, rules, strict=True)):
        x = 2.0 + 4 * k
        box(ax, x, 2.2, name, POINTWISE, 2.3, 0.8, 13)
        ax.text(x, 1.45, f"rule:  {rule}", fontsize=12, ha="center", color=INK)
        ax.text(x, 2.8, f"tape[{k}]", fontsize=12, ha="center", color=INK)
    arrow(ax, (3.15, 2.3), (4.85, 2.3))
    arrow(ax, (7.15, 2.3), (8.85, 2.3))
    arrow(ax, (0.8, 3.4), (11.2, 3.4), color=BLUE, width=2)
    ax.text(6.0, 3.55, "forward: each op puts its node at the end", fontsize=12, ha="center")
    arrow(ax, (11.2, 0.75), (0.8, 0.75), color=RED, width=2)
    ax.text(6.0, 0.3, "backward: from the newest node to the oldest", fontsize=12, ha="center")
    finish(figure, ax, "The tape of y = tanh(a b) + a", path)


def cells(ax, x, y, array, color, side=0.62):
    """A matrix as squares with its numbers; its left upper corner is at x, y."""
    for i, row in enumerate(np.atleast_2d(array)):
        for j, value in enumerate(row):
            box(ax, x + side * (j + 0.5), y - side * (i + 0.5), f"{value:g}", color, 0.58, 0.58, 12)


def broadcasting(path):
    """Chapter 4: the numbers of the example there."""
    x = np.arange(12.0).reshape(4, 3)
    b = np.array([10.0, 20.0, 30.0])
    dz = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [4, 0, 0]])
    figure, ax = canvas(12, 4.6, 3.9)
    cells(ax, 0.3, 3.5, x, POINTWISE)
    cells(ax, 3.0, 3.5, b, GATE)
    cells(ax, 3.0, 2.88, np.tile(b, (3, 1)), "#fbf6ee")
    cells(ax, 5.7, 3.5, x + b, STATE)
    ax.text(2.58, 2.2, "+", fontsize=18, ha="center", va="center")
    ax.text(5.28, 2.2, "=", fontsize=18, ha="center", va="center")
    cells(ax, 9.6, 3.5, dz, ARRIVED)
    cells(ax, 9.6, 0.72, dz.sum(axis=0), GATE)
    arrow(ax, (10.53, 0.98), (10.53, 0.74))
    for left, text in ((0.3, "x"), (3.0, "b, repeated"), (5.7, "z = x + b"), (9.6, "dz")):
        ax.text(left + 0.93, 3.68, text, fontsize=12, ha="center", color=INK)
    ax.text(9.4, 0.41, "db, the sum of the rows", fontsize=12, ha="right", va="center")
    finish(figure, ax, "A row is repeated; the gradients of its copies are summed", path)


def rectangle(ax, x, y, text, rows, columns, color):
    """A matrix as a box: its shape in words below, and its size to scale."""
    width, height = 0.42 * columns, 0.42 * rows
    box(ax, x, y, text, color, width, height, 13)
    ax.text(x, y - height / 2 - 0.3, f"({rows}, {columns})", fontsize=12, ha="center", color=INK)


def linear(path):
    """Chapter 5: the shapes for B = 4, I = 3, O = 2."""
    B, I, O = 4, 3, 2  # noqa: E741 - the names of the sizes
    x, y, dy = ("x", B, I, POINTWISE), ("y", B, O, STATE), ("dy", B, O, ARRIVED)
    equations = [
        (y, x, ("W", I, O, GATE), "the layer, with + b in each row"),
        (("dW", I, O, ARRIVED), ("xᵀ", I, B, POINTWISE), dy, "over the rows: the inner size is B"),
        (("dx", B, I, ARRIVED), dy, ("Wᵀ", O, I, GATE), "the inner size is O"),
    ]
    figure, ax = canvas(12, 7.2, 6.2)
    for height, (*matrices, words) in zip((5.9, 3.4, 1.1), equations, strict=True):
        for left, matrix in zip((1.2, 4.3, 6.6), matrices, strict=True):
            rectangle(ax, left, height, *matrix)
        ax.text(2.7, height, "=", fontsize=18, ha="center", va="center")
        ax.text(8.2, height, words, fontsize=12, va="center", color=INK)
    finish(figure, ax, "A linear layer and its gradients: B = 4, I = 3, O = 2", path)


def rnn(path):
    """Chapter 6: three steps, with the weights that all of them use."""
    figure, ax = canvas(12, 4.8, 4.2)
    for t in range(3):
        x = 3.0 + 3 * t
        box(ax, x, 2.8, f"$h_{t}$", STATE, 1.2, 0.8, 14)
        box(ax, x, 1.3, f"$x_{t}$", POINTWISE, 1.2, 0.7, 14)
        arrow(ax, (x - 0.25, 1.66), (x - 0.25, 2.38))
        arrow(ax, (x - 0.25, 3.22), (x - 0.25, 4.05))
        arrow(ax, (x + 0.25, 4.05), (x + 0.25, 3.22), color=RED)
        arrow(ax, (x + 0.25, 2.38), (x + 0.25, 1.66), color=RED)
        arrow(ax, (x - 2.4, 2.95), (x - 0.6, 2.95))
        arrow(ax, (x - 0.6, 2.65), (x - 2.4, 2.65), color=RED)
        ax.text(x - 1.5, 3.1, "U", fontsize=13, ha="center", color=INK)
        ax.text(x - 0.45, 1.95, "W", fontsize=13, ha="center", color=INK)
        ax.text(x - 0.25, 4.2, f"$y_{t}$", fontsize=14, ha="center", color=INK)
        ax.text(x + 0.45, 3.7, f"$dh_{t}$", fontsize=13, color=RED, va="center")
        ax.text(x + 0.4, 1.95, f"$dx_{t}$", fontsize=13, color=RED)
        ax.text(x - 1.5, 2.28, "dh_next", fontsize=12, ha="center", color=RED)
    ax.text(0.2, 2.8, "$h_{-1}$", fontsize=14, ha="center", va="center")
    ax.text(
        6.0,
        0.5,
        "U and W are the same at each step: their gradients are summed over time",
        fontsize=12,
        ha="center",
        color=INK,
    )
    finish(figure, ax, "An RNN over three steps; gradients in red", path)


def vanishing(path):
    """Chapter 7: the norms that a layer keeps, for three spectral radii."""
    figure, ax = pyplot.subplots(figsize=(SIZE, 4.6))
    x = np.random.default_rng(0).normal(size=(60, 1, 1))
    for rho, color in ((0.9, BLUE), (1.1, "#555555"), (1.3, RED)):
        mg.manual_seed(0)
        layer = mg.nn.RNN(1, 32, dtype="float64")
        mg.nn.scale_spectral_radius_(layer.cells[0].U, rho)
        out, _ = layer(x)
        out[-1].sum().backward()
        norms = layer.telemetry[0].dh_norm
        ax.semilogy(norms, color=color, linewidth=2, label=f"ρ = {rho}")
    ax.set_xlabel("t, the time step", fontsize=12)
    ax.set_ylabel("norm of dL/dh at step t", fontsize=12)
    ax.tick_params(labelsize=11)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=12, frameon=False)
    ax.set_title("A loss at the last of 60 steps: what comes back in an RNN", fontsize=15)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def clipping(path):
    """Chapter 8: the gradient (3, 4), clipped at 2."""
    g = np.array([3.0, 4.0])
    by_value = np.clip(g, -2, 2)
    by_norm = g * (2 / np.linalg.norm(g))
    figure, ax = pyplot.subplots(figsize=(SIZE, 5.2))
    ax.add_patch(pyplot.Rectangle((-2, -2), 4, 4, fill=False, linestyle="--", edgecolor=RED))
    ax.add_patch(pyplot.Circle((0, 0), 2, fill=False, linestyle="--", edgecolor=BLUE))
    shown = [
        (g, (3.15, 4), "#555555", "the gradient (3, 4)"),
        (by_value, (2.15, 2), RED, "by value: ({:g}, {:g}), another direction"),
        (by_norm, (2.15, 1.4), BLUE, "by norm: ({:g}, {:g}), the same direction"),
    ]
    for point, place, color, text in shown:
        arrow(ax, (0, 0), tuple(point), color=color, width=2.5)
        ax.text(*place, text.format(*point), fontsize=12, va="center", color=color)
    ax.set(xlim=(-2.6, 7.5), ylim=(-2.3, 4.5), aspect="equal")
    ax.tick_params(labelsize=11)
    ax.grid(alpha=0.3)
    ax.set_title("Two ways to bound a gradient at 2", fontsize=15)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def both(path):
    """Chapter 10: h from the left, g from the right, and an output of both."""
    figure, ax = canvas(12, 5.4, 4.6)
    for t in range(4):
        x = 2.4 + 2.6 * t
        box(ax, x, 0.6, f"$x_{t}$", POINTWISE, 1.1, 0.64, 14)
        box(ax, x - 0.45, 1.9, f"$h_{t}$", STATE, 0.8, 0.64, 14)
        box(ax, x + 0.45, 3.0, f"$g_{t}$", GATE, 0.8, 0.64, 14)
        box(ax, x, 4.6, f"$y_{t}$", "white", 1.1, 0.64, 14)
        arrow(ax, (x - 0.4, 0.92), (x - 0.45, 1.58))
        arrow(ax, (x + 0.4, 0.92), (x + 0.45, 2.68))
        arrow(ax, (x - 0.45, 2.22), (x - 0.35, 4.28))
        arrow(ax, (x + 0.45, 3.32), (x + 0.35, 4.28))
        arrow(ax, (x - 2.6 if t else x - 1.6, 1.9), (x - 0.85, 1.9), color=BLUE, width=2)
        arrow(ax, (x + 2.65 if t < 3 else x + 1.6, 3.0), (x + 0.85, 3.0), color=RED, width=2)
    finish(figure, ax, "A bidirectional layer: h reads from the left, g from the right", path)


PICTURES = {
    "01_graph": graph,
    "02_tape": tape,
    "04_broadcasting": broadcasting,
    "05_linear": linear,
    "06_rnn": rnn,
    "07_vanishing": vanishing,
    "08_clipping": clipping,
    "10_both": both,
}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else COURSE / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw(folder / f"{name}.png")


if __name__ == "__main__":
    main()
