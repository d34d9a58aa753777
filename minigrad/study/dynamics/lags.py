"""How far back a network looks: the derivatives of its outputs with respect to earlier inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.checks import integer, number
from minigrad.core.modes import enable_grad, no_grad
from minigrad.core.sweep import grad
from minigrad.core.tensor import Tensor
from minigrad.nn.fused_stack import FusedStack
from minigrad.nn.module import tensor_of
from minigrad.ops.join import concatenate
from minigrad.study.dynamics.figures import axes_of, number_of
from minigrad.study.dynamics.run import Array, checked_network, quiet

__all__ = ["Memory", "memory"]


@dataclass(frozen=True, eq=False, repr=False)
class Memory:
    """How strongly outputs depend on inputs.

    Attributes:
        norms: (S, T, B), the norm |dy_t / dx_s| for each output step t of `steps`, input step s and
            row: how much a change of x_s by 1 changes y_t at most.
        steps: (S,), the output steps t.
        reach: (S, B), the largest distance |t - s| at which the norm is still at least `threshold`
            times the largest one of this output step; 0 if the output depends on no input.
        mean_lag: (S, B), the mean of |t - s|, weighted by the norms; NaN if all are 0.
        threshold: see `reach`.

    A unit with h' = h / 2 + x:

    >>> import minigrad as mg
    >>> unit = mg.nn.RNN(1, 1, bias=False, nonlinearity="relu")
    >>> with mg.no_grad():
    ...     unit.cells[0].U[...], unit.cells[0].W[...] = 0.5, 1.0
    >>> mg.study.dynamics.memory(unit, mg.ones((20, 1, 1)))
    Memory: 20 output steps, 20 input steps, 1 row
      step 19 looks 6 steps back (norms of at least 0.01 of the largest); mean lag 1
    """

    norms: Array
    steps: NDArray[np.int64]
    reach: NDArray[np.int64]
    mean_lag: Array
    threshold: float

    def __repr__(self) -> str:
        S, T, B = self.norms.shape
        lines = [
            f"Memory: {number_of(S, 'output step')}, {number_of(T, 'input step')}, "
            f"{number_of(B, 'row')}"
        ]
        if self.norms.size:
            lags = self.mean_lag[-1][np.isfinite(self.mean_lag[-1])]
            mean = f"{lags.mean():.3g}" if lags.size else "none"
            lines.append(
                f"  step {self.steps[-1]} looks {int(self.reach[-1].max())} steps back "
                f"(norms of at least {self.threshold:g} of the largest); mean lag {mean}"
            )
        return "\n".join(lines)

    def plot(self, ax: Any = None, row: int = 0) -> Any:
        """Draw the norms as a picture, input steps across, output steps down; return the Axes.

        Args:
            ax: where to draw. Default: a new figure.
            row: whose. Default: 0.
        """
        row = integer("plot", "row", row, 0, self.norms.shape[2] - 1)
        ax = axes_of("plot", ax)
        with np.errstate(divide="ignore"):
            logs = np.log10(self.norms[:, :, row])
        top = logs.max(initial=-12.0, where=np.isfinite(logs))
        S, T = logs.shape
        image = ax.imshow(
            np.where(np.isfinite(logs), logs, np.nan),
            aspect="auto",
            vmin=top - 6,
            vmax=top,
            interpolation="nearest",
            extent=(-0.5, T - 0.5, S - 0.5, -0.5),
        )
        if S and not np.array_equal(self.steps, np.arange(S)):
            ax.set_yticks(range(S), [str(t) for t in self.steps])
        ax.figure.colorbar(image, ax=ax, label="log₁₀ |dy/dx|")
        ax.set(xlabel="input step s", ylabel="output step t", title="What each output looks at")
        return ax


def memory(
    network: Any,
    x: Any,
    state: Any = None,
    lengths: Any = None,
    reset: Any = None,
    *,
    steps: Sequence[int] | None = None,
    threshold: float = 0.01,
) -> Memory:
    """How strongly each output of a network depends on each input: |dy_t / dx_s|.

    y is the output of the whole network, with all its layers and directions. The norm is the
    largest singular value of the derivative, a matrix (features of y, features of x). It is made by
    one forward pass over B rows for each feature of y, and one backward pass for each output step,
    in the network's dtype: norms below the range of float32 are 0 in a float32 network.

    Args:
        network: an RNN, an LSTM or a GRU.
        x: the input, (T, B, input_size).
        state: the state to start from, as the network takes it. Default: zeros.
        lengths: (B,) ints from 0 to T. Outputs past a row's length depend on nothing. Default: T.
        reset: bool (T, B). Where true the row starts anew before the step, so that no later output
            depends on an earlier input. Default: nowhere.
        steps: the output steps to look at. Default: all T.
        threshold: the share of the largest norm that counts as looking back, above 0 and at most 1.
            Default: 0.01.

    Returns:
        A Memory with `norms`, `reach` and `mean_lag`.

    Raises:
        TypeError: network is no recurrent layer, or an argument has the wrong type or dtype.
        ValueError: an argument has the wrong shape or is outside its range, or the network is in
            training mode with dropout.

    After a reset before step 2 no output sees what was before it:

    >>> import minigrad as mg
    >>> reset = np.zeros((5, 2), bool)
    >>> reset[2] = True
    >>> seen = mg.study.dynamics.memory(mg.nn.RNN(3, 4), mg.ones((5, 2, 3)), reset=reset)
    >>> seen.norms.shape, (seen.norms[2:, :2] == 0).all().item()
    ((5, 5, 2), True)
    """
    op = "memory"
    network = checked_network(op, network)
    threshold = number(op, "threshold", threshold, 0, 1, "(]")
    x = tensor_of(network.op, "x", x, network.cells[0].W.dtype)
    with no_grad():  # a first run checks the arguments, and tells the features of the output
        F = sum(out.shape[2] for out in _outputs(network, x, state, lengths, reset))
    T, B, I = x.shape
    chosen = range(T) if steps is None else [integer(op, "steps", t, 0, T - 1) for t in steps]
    y, wide = _wide_output(network, F, x, state, lengths, reset)
    norms = np.zeros((len(chosen), T, B))
    for k, t in enumerate(chosen):
        # Row b * F + f of the wide batch gives the gradient of feature f.
        dy = np.zeros(y.shape, y.dtype)
        dy[t] = np.tile(np.eye(F), (B, 1))
        (dx,) = grad([y], [wide], [dy], retain_graph=True)
        norms[k] = _largest_singular_value(dx.numpy().reshape(T, B, F, I).astype(np.float64))
    at = np.asarray(chosen, np.int64)
    lag = np.abs(at[:, None] - np.arange(T))[:, :, None]
    seen = (norms >= threshold * norms.max(axis=1, keepdims=True, initial=0.0)) & (norms > 0)
    reach = np.where(seen, lag, 0).max(axis=1, initial=0)
    with np.errstate(invalid="ignore"):
        mean_lag = (norms * lag).sum(axis=1) / norms.sum(axis=1)
    return Memory(norms, at, reach, mean_lag, threshold)


def _wide_output(
    network: FusedStack[Any], F: int, x: Tensor, state: Any, lengths: Any, reset: Any
) -> tuple[Tensor, Tensor]:
    """The output of the network for a batch in which each row stands once for each of the F
    features of the output, and this batch."""
    wide = Tensor(np.repeat(x.numpy(), F, axis=1), requires_grad=True)
    if state is not None:
        state = (state,) if isinstance(state, Tensor) else state
        state = tuple(Tensor(np.repeat(s.numpy(), F, axis=1)) for s in state)
    if lengths is not None:
        lengths = np.repeat(np.asarray(lengths), F)
    if reset is not None:
        reset = np.repeat(np.asarray(reset, bool), F, axis=1)
    with enable_grad():
        return concatenate(_outputs(network, wide, state, lengths, reset), -1), wide


def _outputs(
    network: FusedStack[Any], x: Tensor, state: Any, lengths: Any, reset: Any
) -> list[Tensor]:
    """The output of the network; with merge=None that of each direction."""
    y = quiet(network)(x, state, lengths, reset)[0]
    return list(y) if isinstance(y, tuple) else [y]


def _largest_singular_value(matrices: Array) -> Array:
    """Of each matrix (..., F, I), as the root of the largest eigenvalue of A A^T or A^T A, of which
    the smaller one is taken; the scale keeps the squares within range."""
    scale = np.abs(matrices).max(axis=(-2, -1), keepdims=True, initial=0.0)
    A = matrices / np.where(scale == 0, 1.0, scale)
    transposed = A.swapaxes(-1, -2)
    gram = A @ transposed if A.shape[-2] < A.shape[-1] else transposed @ A
    largest = np.linalg.eigvalsh(gram)[..., -1]
    return np.asarray(scale[..., 0, 0] * np.sqrt(np.maximum(largest, 0.0)))
