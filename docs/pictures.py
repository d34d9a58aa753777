"""Draws the pictures of docs/figures that no example makes: an LSTM cell, and a backward pass in
five frames.

    python docs/pictures.py [FOLDER]

The frames show what `mg.study.steps` says at each stop: nothing in them is typed in by hand. Needs
matplotlib.
"""

import sys
from pathlib import Path

import matplotlib

import minigrad as mg

matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402 - after the choice of what draws
from matplotlib.patches import FancyBboxPatch  # noqa: E402

FIGURES = Path(__file__).parent / "figures"
INK, PALE = "#333333", "#aaaaaa"
GATE, POINTWISE, STATE, ARRIVED = "#f6e6cf", "#dfe8f5", "#e7f0e1", "#f3d4d4"
SIZE = 9  # inches: 900 pixels at 100 to the inch


def canvas(width, height, inches):
    """A figure whose units are those of the drawing, without axes."""
    figure, ax = pyplot.subplots(figsize=(SIZE, inches))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return figure, ax


def box(ax, x, y, text, color, width=1.0, height=0.62, size=12):
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=color,
            edgecolor=INK,
            linewidth=1,
            zorder=3,
        )
    )
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=INK, zorder=4)


def arrow(ax, *points, color=INK, width=1.3):
    """A line through the points, with a head at the last one."""
    for start, end in zip(points[:-2], points[1:-1], strict=True):
        ax.plot(*zip(start, end, strict=True), color=color, linewidth=width, zorder=1)
    ax.annotate(
        "",
        xy=points[-1],
        xytext=points[-2],
        arrowprops={
            "arrowstyle": "-|>",
            "color": color,
            "linewidth": width,
            "shrinkA": 0,
            "shrinkB": 0,
        },
        zorder=2,
    )


# ---------------------------------------------------------------- an LSTM cell


def lstm_cell(path):
    """The slide's cell: c goes along the top, the four gates see h and x."""
    figure, ax = canvas(12, 7.2, 5.4)
    top, line, low = 5.9, 2.2, 0.7
    gates = {"f": 3.0, "i": 4.7, "g": 6.0, "o": 7.6}
    # the state, from left to right
    arrow(ax, (0.9, top), (2.72, top))
    arrow(ax, (3.28, top), (5.07, top))
    arrow(ax, (5.63, top), (11.2, top))
    ax.text(0.85, top, "$c_{t-1}$", ha="right", va="center", fontsize=14)
    ax.text(11.25, top, "$c_t$", ha="left", va="center", fontsize=14)
    # h and x come together
    arrow(ax, (0.9, line), (1.6, line), (1.6, low + 0.6), (7.6, low + 0.6), (7.6, 2.2 - 0.33))
    ax.text(0.85, line, "$h_{t-1}$", ha="right", va="center", fontsize=14)
    ax.text(2.2, 0.25, "$x_t$", ha="center", va="center", fontsize=14)
    arrow(ax, (2.2, 0.5), (2.2, low + 0.6))
    for x in (gates["f"], gates["i"], gates["g"]):
        arrow(ax, (x, low + 0.6), (x, 2.2 - 0.33))
    names = {"f": "σ", "i": "σ", "g": "tanh", "o": "σ"}
    for name, x in gates.items():
        box(ax, x, 2.2, names[name], GATE)
        offset = -0.62 if name == "i" else 0.62
        ax.text(x + offset, 2.75, f"${name}_t$", fontsize=14, ha="center", va="center")
    # forget, add, show
    arrow(ax, (gates["f"], 2.52), (gates["f"], top - 0.29))
    box(ax, gates["f"], top, "×", POINTWISE, 0.56, 0.56, 16)
    arrow(ax, (gates["i"], 2.52), (gates["i"], 4.1), (5.07, 4.1))
    arrow(ax, (gates["g"], 2.52), (gates["g"], 4.1), (5.63, 4.1))
    box(ax, 5.35, 4.1, "×", POINTWISE, 0.56, 0.56, 16)
    arrow(ax, (5.35, 4.39), (5.35, top - 0.29))
    box(ax, 5.35, top, "+", POINTWISE, 0.56, 0.56, 16)
    arrow(ax, (9.3, top), (9.3, 5.0))
    box(ax, 9.3, 4.68, "tanh", STATE)
    arrow(ax, (9.3, 4.36), (9.3, 3.39))
    arrow(ax, (gates["o"], 2.52), (gates["o"], 3.1), (9.02, 3.1))
    box(ax, 9.3, 3.1, "×", POINTWISE, 0.56, 0.56, 16)
    arrow(ax, (9.58, 3.1), (11.2, 3.1))
    ax.text(11.25, 3.1, "$h_t$", ha="left", va="center", fontsize=14)
    formulas = {
        "f": "what is kept of $c_{t-1}$",
        "i": "how much of $g_t$ is taken",
        "g": "the candidate, $\\tilde{c}_t$",
        "o": "how much of $c_t$ is shown",
    }
    for k, (name, text) in enumerate(formulas.items()):
        ax.text(8.3, 1.35 - 0.37 * k, f"${name}_t$   {text}", fontsize=12, va="center")
    ax.set_title("An LSTM cell: one step", fontsize=15)
    figure.savefig(path, dpi=100, bbox_inches=None)
    pyplot.close(figure)


# ---------------------------------------------------------------- a backward pass

# Where the vertices of y = tanh(a b) + a stand: name -> (x, y). a is used twice: a diamond.
PLACES = {
    "a": (0.9, 2.6),
    "b": (0.9, 0.9),
    "mul": (3.2, 0.9),
    "tanh": (5.4, 0.9),
    "add": (7.6, 2.6),
}
LINES = [("a", "mul"), ("b", "mul"), ("mul", "tanh"), ("tanh", "add"), ("a", "add")]
TEXTS = {"mul": "a b", "tanh": "tanh", "add": "+"}


def stops():
    """What a backward pass shows at each stop: (name of the node whose rule is next, its rule,
    {name: gradient that has arrived}); the last one is the end."""
    a = mg.Tensor([2.0], requires_grad=True)
    b = mg.Tensor([0.5], requires_grad=True)
    names = {id(a): "a", id(b): "b"}
    arrived = {}
    with mg.study.steps(mg.tanh(a * b) + a) as run:
        for step in run:
            arrived[step.name] = step.dy.item()
            for leaf, gradient in run.gradients.items():
                arrived[names[id(leaf)]] = gradient.item()
            yield step.name, str(step.rule), dict(arrived)
    arrived |= {"a": a.grad.item(), "b": b.grad.item()}
    yield None, "the end: the gradients are added to a.grad and b.grad", arrived


def frame(ax, number, node, text, arrived):
    """One stop: filled boxes have their gradient, the one with the thick edge is next."""
    ax.set(xlim=(0, 8.9), ylim=(0, 3.9))
    ax.axis("off")
    for source, target in LINES:
        (x1, y1), (x2, y2) = PLACES[source], PLACES[target]
        done = target in arrived and target != node
        if source in arrived and done:
            arrow(ax, (x2 - 0.6, y2), (x1 + 0.6, y1), color="#c44e52", width=2)
        else:
            arrow(ax, (x1 + 0.6, y1), (x2 - 0.6, y2), color=PALE)
    for name, (x, y) in PLACES.items():
        box(ax, x, y, TEXTS.get(name, name), ARRIVED if name in arrived else "white", 1.15, 0.66)
        told = f"{arrived[name]:.3g}" if name in arrived else "not reached yet"
        ax.text(x, y - 0.62, told, ha="center", va="center", fontsize=11.5, color=INK)
        if name == node:
            ax.add_patch(
                FancyBboxPatch(
                    (x - 0.66, y - 0.42),
                    1.32,
                    0.84,
                    boxstyle="round,pad=0,rounding_size=0.15",
                    facecolor="none",
                    edgecolor="#c44e52",
                    linewidth=2.4,
                    zorder=5,
                )
            )
    ax.text(0.0, 3.65, f"{number}.  {text}", fontsize=12, va="center", color=INK)


def backward_pass(path):
    """y = tanh(a b) + a at a = 2, b = 0.5."""
    shown = list(stops())
    shown.insert(0, (None, "before the backward pass: no gradient has arrived", {}))
    figure, axes = pyplot.subplots(len(shown), 1, figsize=(SIZE, 2.4 * len(shown)))
    for number, (ax, (node, text, arrived)) in enumerate(zip(axes, shown, strict=True), start=1):
        frame(ax, number, node, text if node is None else f"next: {node}    {text}", arrived)
    figure.suptitle("The backward pass of y = tanh(a b) + a, at a = 2, b = 0.5", fontsize=15)
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES
    lstm_cell(folder / "lstm_cell.png")
    backward_pass(folder / "backward.png")


if __name__ == "__main__":
    main()
