from collections.abc import Callable
from typing import Any, TypeAlias, overload

import numpy as np

from minigrad.core.tensor import Tensor

Backward: TypeAlias = Callable[..., Tensor | None | tuple[Tensor | None, ...]]

@overload
def record(
    name: str,
    values: np.ndarray,
    inputs: tuple[Tensor | None, ...],
    backward: Backward,
    saved: tuple[Tensor, ...] = (),
    save_value: bool = False,
    details: dict[str, Any] | None = None,
) -> Tensor: ...
@overload
def record(
    name: str,
    values: tuple[np.ndarray, ...],
    inputs: tuple[Tensor | None, ...],
    backward: Backward,
    saved: tuple[Tensor, ...] = (),
    save_value: bool = False,
    details: dict[str, Any] | None = None,
) -> tuple[Tensor, ...]: ...
