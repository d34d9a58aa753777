from collections.abc import Callable
from typing import Any

import numpy as np

from minigrad.core.tensor import Tensor

def record(
    name: str,
    values: np.ndarray | tuple[np.ndarray, ...],
    inputs: tuple[Tensor | None, ...],
    backward: Callable[..., Tensor | None | tuple[Tensor | None, ...]],
    saved: tuple[Tensor, ...] = (),
    save_value: bool = False,
) -> Any: ...
