from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from minigrad.core.tensor import Tensor

CELLS: dict[str, int]
GATES: dict[str, tuple[str, ...]]

class Telemetry:
    layer: int
    direction: str
    dh_norm: NDArray[Any] | None
    dc_norm: NDArray[Any] | None
    nonfinite: dict[str, Any] | None
    def __init__(self, layer: int = 0, direction: str = "forward") -> None: ...
    def found(self, run: str, step: int | None, row: int | None, gate: str) -> None: ...

def room_for_directions(x: Tensor, H: int) -> tuple[Tensor, list[Tensor]]: ...
def checked_lengths(op: str, lengths: Any, T: int, B: int) -> NDArray[Any]: ...
def checked_reset(op: str, reset: Any, T: int, B: int) -> NDArray[Any]: ...
def checked_clip(op: str, name: str, clip: Any) -> float: ...
def no_second_order(op: str) -> RuntimeError: ...
def sequence(
    cell: str,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    wx: Tensor,
    wh: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
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
