"""Dynamics of trained recurrent networks: what a network does with its state, step after step.

    jacobians         the derivative of each step, in closed form
    singular_values   of products of steps: how far a state, or a gradient, is stretched
    lyapunov          the mean rate of this stretching, for each direction
    memory            how strongly an output depends on each earlier input
    gates             how open the gates are, and how long what they keep lasts
    fixed_points      where the state stands still, and whether it is stable there
    trajectories      the states, projected to a few axes

T, B, H: steps, batch, hidden units; n: the size of the state, H for RNN and GRU, 2 H for the LSTM,
whose state is h, then c. Everything is computed in float64 from the values of the forward pass.
Nothing of the network changes: neither its gradients, nor its mode, nor its telemetry. The plots
need matplotlib.
"""

from minigrad.study.dynamics.closed_form import jacobians
from minigrad.study.dynamics.gate_use import Gates, gates
from minigrad.study.dynamics.lags import Memory, memory
from minigrad.study.dynamics.paths import Trajectories, trajectories
from minigrad.study.dynamics.points import FixedPoints, fixed_points
from minigrad.study.dynamics.products import (
    Lyapunov,
    SingularValues,
    lyapunov,
    singular_values,
)

__all__ = [
    "FixedPoints",
    "Gates",
    "Lyapunov",
    "Memory",
    "SingularValues",
    "Trajectories",
    "fixed_points",
    "gates",
    "jacobians",
    "lyapunov",
    "memory",
    "singular_values",
    "trajectories",
]
