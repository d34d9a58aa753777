from typing import Any

from minigrad.core.tensor import Tensor

class Updates:
    def __init__(self, op: str, room: int) -> None: ...
    def sgd(
        self,
        p: Tensor,
        v: Any,
        lr: float,
        weight_decay: float = 0,
        momentum: float = 0,
        dampening: float = 0,
        nesterov: bool = False,
        maximize: bool = False,
        first: bool = False,
    ) -> None: ...
    def rmsprop(
        self,
        p: Tensor,
        v: Any,
        m: Any,
        b: Any,
        lr: float,
        weight_decay: float,
        alpha: float,
        eps: float,
        momentum: float,
        maximize: bool,
    ) -> None: ...
    def adam(
        self,
        p: Tensor,
        m: Any,
        v: Any,
        v_max: Any,
        lr: float,
        weight_decay: float,
        shrink: float,
        beta1: float,
        beta2: float,
        eps: float,
        root: float,
        maximize: bool,
    ) -> None: ...
    def adagrad(
        self, p: Tensor, s: Any, lr: float, weight_decay: float, eps: float, maximize: bool
    ) -> None: ...
    def note(self, state: dict[str, Any], key: str, value: Any) -> None: ...
    def run(self) -> None: ...

def squares(x: Tensor, scale: float) -> list[float]: ...
def commit(changes: list[Any]) -> None: ...
def clear_gradients(tensors: list[Tensor]) -> None: ...
def scale_(tensors: list[Tensor], scale: float, op: str) -> None: ...
def clamp_(tensors: list[Tensor], bound: float, op: str) -> None: ...
