"""What `fit` calls after a step, after an epoch and after a resume: functions and schedules."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minigrad.optim.optimizers import Optimizer
from minigrad.optim.schedule import ReduceLROnPlateau, Schedule
from minigrad.training.history import History

__all__ = ["calls_of"]


def calls_of(
    name: str, given: Any, history: History, validate: Any
) -> list[tuple[Any, Callable[[History], Any]]]:
    """For each of the given functions and schedules what it belongs to, and a function of the
    History."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(
            f"fit: {name} must be a list of functions of the History, got {type(given).__name__}"
        )
    validated = name == "after_epoch" and validate is not None
    return [_call(f"fit: {name}[{k}]", one, history, validated) for k, one in enumerate(given)]


def _call(
    where: str, given: Any, history: History, validated: bool
) -> tuple[Any, Callable[[History], Any]]:
    """The same for one of them."""
    owner = getattr(given, "__self__", given)
    is_step = owner is given or getattr(given, "__name__", "") == "step"
    if isinstance(owner, Optimizer) and is_step:
        raise TypeError(
            f"{where} must be a function of the History or a schedule, got the optimizer, whose "
            "step fit makes"
        )
    if isinstance(owner, ReduceLROnPlateau) and is_step:
        if not validated:
            raise ValueError(
                f"{where}: ReduceLROnPlateau steps by the validation: give it in after_epoch, "
                "and give validate"
            )
        return owner, lambda history: owner.step(history.validation[-1])
    if isinstance(owner, Schedule) and is_step:
        return owner, lambda history: owner.step()
    if not callable(given):
        raise TypeError(
            f"{where} must be a function of the History or a schedule, got {type(given).__name__}"
        )
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):  # a function written in C may have none
        return owner, given
    if _takes(signature, history):
        return owner, given
    if _takes(signature):
        return owner, lambda history: given()
    name = getattr(given, "__name__", type(given).__name__)
    raise TypeError(f"{where} must take the History or nothing, got {name}{signature}")


def _takes(signature: inspect.Signature, *arguments: Any) -> bool:
    """Can it be called with these arguments?"""
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
