from typing import Any

from minigrad.core.tensor import Tensor

class Updates:
    def __init__(self, op: str, most: int) -> None: ...
    def add(
        self,
        p: Tensor,
        kernel: str,
        arrays: list[tuple[str, str, Any]],
        lr: float,
        weight_decay: float = 0,
        shrink: float = 0,
        momentum: float = 0,
        dampening: float = 0,
        beta1: float = 0,
        beta2: float = 0,
        eps: float = 0,
        root: float = 0,
        maximize: bool = False,
        nesterov: bool = False,
        first: bool = False,
    ) -> None: ...
    def note(self, state: dict[str, Any], key: str, value: Any) -> None: ...
    def run(self) -> None: ...

def squares(x: Tensor, scale: float) -> list[float]: ...
def commit(changes: list[Any]) -> None: ...
def clear_gradients(tensors: list[Tensor]) -> None: ...
def scale_(tensors: list[Tensor], scale: float, op: str) -> None: ...
def clamp_(tensors: list[Tensor], bound: float, op: str) -> None: ...
