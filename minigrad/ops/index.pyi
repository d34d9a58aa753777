from numpy.typing import ArrayLike

from minigrad.core.tensor import Operand, Tensor

def embedding(weight: Operand, indices: ArrayLike) -> Tensor: ...
