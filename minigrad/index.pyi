from typing import Any

from minigrad.tensor import Tensor

def embedding(weight: Any, indices: Any) -> Tensor: ...
