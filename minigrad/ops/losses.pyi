from typing import Any, Literal

from minigrad.core.tensor import Tensor

Reduction = Literal["mean", "sum", "none"]

def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor: ...
def nll(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor: ...
def binary_cross_entropy_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    pos_weight: Any = None,
    reduction: Reduction = "mean",
) -> Tensor: ...
def mse(input: Any, target: Any, reduction: Reduction = "mean") -> Tensor: ...
def huber(input: Any, target: Any, delta: float = 1.0, reduction: Reduction = "mean") -> Tensor: ...
