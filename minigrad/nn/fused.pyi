from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from minigrad.core.tensor import Tensor
from minigrad.nn.telemetry import Telemetry

CELLS: dict[str, int]

def room_for_directions(x: Tensor, H: int) -> tuple[Tensor, list[Tensor]]: ...
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
    mask: NDArray[Any] | None = None,
    lengths: Any = None,
    reset: Any = None,
    reverse: bool = False,
    checkpoint: bool = False,
    clip: float | None = None,
    telemetry: Telemetry | None = None,
    composed: Callable[..., Any] | None = None,
    trace: bool = False,
    out: Tensor | None = None,
) -> tuple[Any, ...]: ...
