"""The names of leaves that tools of study are given."""

import reprlib
from collections.abc import Mapping

from minigrad.core.tensor import Tensor

__all__ = ["names_of_leaves"]


def names_of_leaves(op: str, names: Mapping[str, Tensor] | None) -> dict[int, str]:
    """The name of each leaf by its id(), from an argument such as
    ``dict(module.named_parameters())``."""
    if names is not None and not isinstance(names, Mapping):
        raise TypeError(f"{op}: names must map names to Tensors, got {type(names).__name__}")
    known = {}
    for name, leaf in ({} if names is None else names).items():
        if not isinstance(leaf, Tensor):
            raise TypeError(
                f"{op}: names must map to Tensors, got {type(leaf).__name__} "
                f"for {reprlib.repr(name)}"
            )
        known[id(leaf)] = name
    return known
