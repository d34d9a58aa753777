"""The groups of parameters that an optimiser is given: a list of Tensors, or dicts with options."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minigrad.core.tensor import Tensor

__all__ = ["Group", "Parameters", "groups_of", "tensors_of"]

Group = dict[str, Any]  # "params", a list of Tensors, and the options of these by name
Parameters = Iterable[Tensor] | Iterable[Group]


def tensors_of(op: str, parameters: Any) -> list[Tensor]:
    """The parameters as a list of distinct Tensors, not empty."""
    if isinstance(parameters, (Tensor, set, frozenset)) or not hasattr(parameters, "__iter__"):
        raise TypeError(
            f"{op}: parameters must be an iterable of Tensors in a fixed order, "
            f"got {type(parameters).__name__}"
        )
    found = list(parameters)
    for p in found:
        if not isinstance(p, Tensor):
            raise TypeError(f"{op}: parameters must be Tensors, got {type(p).__name__}")
    if not found:
        raise ValueError(f"{op}: parameters must hold at least one Tensor, got none")
    if len({id(p) for p in found}) != len(found):
        raise ValueError(f"{op}: parameters must not hold a Tensor twice")
    return found


def groups_of(
    op: str,
    parameters: Any,
    defaults: Group,
    checked: Callable[[str, Mapping[str, Any]], Group],
) -> list[Group]:
    """The groups that `parameters` describes: one for Tensors; one for each dict, with the defaults
    for what it leaves out. `checked` checks the options of a group."""
    if not isinstance(parameters, (Tensor, Mapping, str)) and hasattr(parameters, "__iter__"):
        parameters = parameters if isinstance(parameters, (set, frozenset)) else list(parameters)
    if not isinstance(parameters, list) or not any(
        isinstance(part, Mapping) for part in parameters
    ):
        return [{"params": tensors_of(op, parameters)} | checked(op, defaults)]
    groups = []
    for i, given in enumerate(parameters):
        where = f"{op}: group {i}"
        if not isinstance(given, Mapping):
            raise TypeError(f"{where} must be a dict as the others are, got {type(given).__name__}")
        if "params" not in given:
            raise ValueError(
                f"{where} must have 'params', got {', '.join(map(repr, given)) or 'nothing'}"
            )
        unknown = [name for name in given if name != "params" and name not in defaults]
        if unknown:
            raise TypeError(
                f"{where} has the unknown option {unknown[0]!r}; "
                f"the options are {', '.join(defaults)}"
            )
        tensors = tensors_of(where, given["params"])
        groups.append(
            {"params": tensors}
            | checked(where, {name: given.get(name, value) for name, value in defaults.items()})
        )
    everyone = [id(p) for group in groups for p in group["params"]]
    if len(set(everyone)) != len(everyone):
        raise ValueError(
            f"{op}: parameters must not hold a Tensor twice, in one group or in several"
        )
    return groups
