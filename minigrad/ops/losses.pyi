from typing import Literal

from numpy.typing import ArrayLike

from minigrad.core.tensor import Operand, Tensor

Reduction = Literal["mean", "sum", "none"]

def cross_entropy(
    input: Operand,
    target: ArrayLike,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor: ...
def nll(
    input: Operand,
    target: ArrayLike,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor: ...
def binary_cross_entropy_with_logits(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    pos_weight: Operand | None = None,
    reduction: Reduction = "mean",
) -> Tensor: ...
def mse(input: Operand, target: Operand, reduction: Reduction = "mean") -> Tensor: ...
def huber(
    input: Operand, target: Operand, delta: float = 1.0, reduction: Reduction = "mean"
) -> Tensor: ...
