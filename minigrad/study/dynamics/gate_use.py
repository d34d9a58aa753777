"""How open the gates of an LSTM or a GRU are, and how long what they keep lasts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad.checks import integer
from minigrad.study.dynamics.figures import axes_of
from minigrad.study.dynamics.run import Array, checked_network, run

__all__ = ["Gates", "gates"]

# The gates between 0 and 1, and the one that multiplies the state before the step.
GATES = {"LSTM": ("i", "f", "o"), "GRU": ("r", "z")}
KEEPING = {"LSTM": "f", "GRU": "z"}


@dataclass(frozen=True, eq=False, repr=False)
class Gates:
    """The gates of a layer over all steps and rows.

    Attributes:
        names: G names, i, f, o for the LSTM and r, z for the GRU.
        mean: (G, H), the mean of each unit's gate.
        closed: (G, H), the share of steps in which it is below 0.1.
        open: (G, H), the share of steps in which it is above 0.9.
        keeping: the name of the gate that multiplies the state: "f" or "z".
        half_life: (H,), the number of steps after which that gate has halved what was kept: inf
            where it is always 1, 0 where it was 0 in a step.

    The gates of an LSTM of zeros, whose forget gate has the bias 1:

    >>> import minigrad as mg
    >>> layer = mg.nn.LSTM(3, 4)
    >>> with mg.no_grad():
    ...     layer.cells[0].W[...] = layer.cells[0].U[...] = 0.0
    >>> mg.study.dynamics.gates(layer, mg.ones((5, 2, 3)))
    Gates of 4 units
      gate    mean   < 0.1   > 0.9
      i      0.500    0.0%    0.0%
      f      0.731    0.0%    0.0%
      o      0.500    0.0%    0.0%
      half-life of what f keeps, in steps: 2.21 to 2.21, median 2.21
    """

    names: tuple[str, ...]
    mean: Array
    closed: Array
    open: Array
    keeping: str
    half_life: Array

    def __repr__(self) -> str:
        lines = [f"Gates of {self.mean.shape[1]} units", "  gate    mean   < 0.1   > 0.9"]
        for name, *shares in zip(self.names, self.mean, self.closed, self.open, strict=True):
            mean, closed, opened = (share.mean() for share in shares)
            lines.append(f"  {name:4} {mean:7.3f} {closed:7.1%} {opened:7.1%}")
        low, middle, high = np.quantile(self.half_life, [0, 0.5, 1], method="nearest")
        lines.append(
            f"  half-life of what {self.keeping} keeps, in steps: {low:.3g} to {high:.3g}, "
            f"median {middle:.3g}"
        )
        return "\n".join(lines)

    def plot(self, ax: Any = None, unit: int | None = None) -> Any:
        """Draw each unit as a point: how often its gates are open over how often they are closed
        (the saturation plots of Karpathy, Johnson and Fei-Fei 2015); return the Axes.

        Args:
            ax: where to draw. Default: a new figure.
            unit: a unit to mark, from 0 up to H - 1. Default: none.
        """
        if unit is not None:
            unit = integer("plot", "unit", unit, 0, self.mean.shape[1] - 1)
        ax = axes_of("plot", ax)
        for name, closed, opened in zip(self.names, self.closed, self.open, strict=True):
            points = ax.scatter(closed, opened, s=24, alpha=0.6, label=f"gate {name}")
            if unit is not None:
                color = points.get_facecolor()
                ax.scatter(closed[unit], opened[unit], s=90, color=color, edgecolor="black")
        ax.plot([0, 1], [1, 0], ":", color="0.5", linewidth=1)
        ax.set(
            xlabel="share of steps below 0.1",
            ylabel="share of steps above 0.9",
            title="Gates of each unit",
        )
        ax.legend()
        return ax


def gates(
    network: Any,
    x: Any,
    state: Any = None,
    lengths: Any = None,
    reset: Any = None,
    *,
    layer: int = 0,
    direction: str = "forward",
) -> Gates:
    """How open the gates of one layer are.

    The shares below 0.1 and above 0.9 are those of Karpathy, Johnson and Fei-Fei (Visualizing and
    understanding recurrent networks, 2015). The half-life belongs to the gate that multiplies the
    state, f in c' = f c + i g and z in h' = (1 - z) n + z h: over t steps it multiplies by the
    product of its values, which is e^(t m) with m the mean of log f, and so by a half in

        half-life = log(1/2) / m    steps

    Args:
        network: an LSTM or a GRU.
        x: the input of the network, (T, B, input_size).
        state: the state to start from, as the network takes it. Default: zeros.
        lengths: (B,) ints from 0 to T. Steps past a row's length do not count. Default: T for all.
        reset: bool (T, B), where a row starts anew before the step. Default: nowhere.
        layer: which layer, from 0 up to num_layers - 1. Default: 0, the first one.
        direction: "forward" (default) or, in a network of both directions, "backward".

    Returns:
        A Gates with one value for each gate and unit.

    Raises:
        TypeError: network is no LSTM or GRU, or an argument has the wrong type or dtype.
        ValueError: an argument has the wrong shape or is outside its range, no step runs, or the
            network is in training mode with dropout.

    >>> import minigrad as mg
    >>> used = mg.study.dynamics.gates(mg.nn.LSTM(3, 4), mg.zeros((1, 2, 3)))
    >>> used.names, used.half_life.round(2)          # the forget gate's bias is 1: f = 0.73
    (('i', 'f', 'o'), array([2.21, 2.21, 2.21, 2.21]))
    """
    op = "gates"
    network = checked_network(op, network)
    kind = next((k for k in GATES if k == network.cell_type.__name__.removesuffix("Cell")), None)
    if kind is None:
        raise TypeError(f"{op}: network must be an LSTM or a GRU, an RNN has no gates")
    seen = run(op, network, x, state, lengths, reset, layer, direction)
    if not seen.alive.any():
        T, B = seen.alive.shape
        raise ValueError(f"{op}: there is no step to look at: (T, B) = ({T}, {B})")
    names = GATES[kind]
    values = np.stack([seen.values[name][seen.alive] for name in names])  # (G, steps, H)
    with np.errstate(divide="ignore"):
        decay = np.log(values[names.index(KEEPING[kind])]).mean(axis=0)
        half_life = np.log(0.5) / np.where(decay == 0, -0.0, decay)
    return Gates(
        names,
        values.mean(axis=1),
        (values < 0.1).mean(axis=1),
        (values > 0.9).mean(axis=1),
        KEEPING[kind],
        np.abs(half_life),
    )
