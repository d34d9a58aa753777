from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from minigrad.core.tensor import Node, Tensor
from minigrad.nn.arguments import Steps
from minigrad.nn.telemetry import Telemetry

CELLS: dict[str, int]

def allocate_directions(x: Tensor, H: int) -> tuple[Tensor, list[Tensor]]: ...
def sequence(
    cell: str,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    W: Tensor,
    U: Tensor,
    b: Tensor | None,
    p: Tensor | None,
    *,
    op: str = "sequence",
    mask: NDArray[Any] | None = None,
    steps: Steps | None = None,
    reverse: bool = False,
    checkpoint: bool = False,
    clip: float | None = None,
    telemetry: Telemetry | None = None,
    composed: Callable[..., Any] | None = None,
    trace: bool = False,
    out: Tensor | None = None,
) -> tuple[Any, ...]: ...
def expansion(
    node: Node,
) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor | None, ...], float] | None: ...
