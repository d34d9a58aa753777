from typing import Any

from minigrad.core.tensor import Tensor

def embedding(weight: Any, indices: Any) -> Tensor: ...
