from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.tensor import Tensor

CELLS: dict[str, int]
GATES: dict[str, tuple[str, ...]]

class Telemetry:
    layer: int
    direction: str
    dh_norm: np.ndarray | None
    dc_norm: np.ndarray | None
    nonfinite: dict[str, Any] | None
    def __init__(self, layer: int = 0, direction: str = "forward") -> None: ...
    def found(self, run: str, step: int, row: int, gate: str) -> None: ...

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
    mask: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reverse: bool = False,
    checkpoint: bool = False,
    telemetry: Telemetry | None = None,
    composed: Callable[..., Any] | None = None,
    trace: bool = False,
) -> tuple[Any, ...]: ...
