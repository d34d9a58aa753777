"""Sequences given by users, as arrays."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minigrad.checks import plain_array
from minigrad.core.array import is_masked
from minigrad.core.tensor import Tensor

__all__: list[str] = []  # for the modules of minigrad.data alone

DEEPEST = 64  # lists inside of each other: NumPy's arrays have at most so many dimensions


def _numbers(value: Any, op: str, name: str) -> np.ndarray:
    """`value` as an array of real numbers, in NumPy's dtype for it: whole numbers int64, other
    numbers float64."""
    _check_no_mask(value, op, name)
    array = plain_array(op, name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{op}: {name} must be made of real numbers, "
            f"got {type(value).__name__} of dtype {array.dtype}"
        )
    return array


def _check_no_mask(value: Any, op: str, name: str) -> None:
    """NumPy would drop the mask of an array that stands in a list, and the gradient of a Tensor."""
    if name.count("[") > DEEPEST:
        raise ValueError(
            f"{op}: lists are nested more than {DEEPEST} deep, beyond what NumPy makes an array of"
        )
    if isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            if isinstance(inner, (list, tuple, Tensor)) or is_masked(inner):
                _check_no_mask(inner, op, f"{name}[{i}]")
    elif is_masked(value):
        plain_array(op, name, value)  # raises
    elif isinstance(value, Tensor) and value.requires_grad:
        raise TypeError(
            f"{op}: {name} must be made of constants, got a Tensor that requires a gradient, "
            "which would be lost: use x.detach()"
        )


def _has_dtype(value: Any) -> bool:
    return hasattr(value, "dtype") or hasattr(value, "dtypes")  # dtypes: a table of pandas


def _array(value: Any, op: str, name: str) -> np.ndarray:
    """The same, but floats that come without a dtype become float32."""
    array = _numbers(value, op, name)
    if _has_dtype(value):
        return array
    if array.dtype.kind == "u":  # whole numbers of a list, some beyond int64
        raise ValueError(
            f"{op}: {name} must be made of numbers that fit into int64, got {array.max()}"
        )
    if array.dtype.kind == "f":
        largest = np.abs(array[np.isfinite(array)]).max(initial=0.0)
        if largest > np.finfo(np.float32).max:
            raise ValueError(
                f"{op}: {name} must be made of numbers that fit into float32, "
                f"got {largest}: give an array of float64"
            )
        return array.astype(np.float32)
    return array if array.dtype.kind == "b" else array.astype(np.int64)


def _list(values: Any, op: str, name: str) -> Any:
    """`values` as something that is read by position: a list, or an array of any kind; of a pandas
    table the rows."""
    unordered = isinstance(values, (str, bytes, Mapping, set, frozenset))
    single = isinstance(values, Tensor) and values.ndim == 0
    if unordered or single or not isinstance(values, Iterable):
        raise TypeError(f"{op}: {name} must be a list or an array, got {type(values).__name__}")
    if is_masked(values):
        plain_array(op, name, values)  # raises
    if isinstance(values, (list, tuple, np.ndarray)):
        return values
    to_numpy = getattr(values, "to_numpy", None)
    if to_numpy is not None:  # of a Series or DataFrame, whose own [k] goes by label or column
        return to_numpy()
    if hasattr(values, "__array__"):  # a Tensor, also of another library
        return _numbers(values, op, name)
    return list(values)


def _sequences(values: Any, op: str, name: str) -> list[np.ndarray]:
    """Arrays of one dtype that differ in their first dimension alone, at least one of them."""
    if isinstance(values, (str, bytes, Mapping, set, frozenset)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{op}: {name} must be a list of arrays, got {type(values).__name__}")
    arrays = [_array(value, op, f"{name}[{k}]") for k, value in enumerate(_list(values, op, name))]
    if not arrays:
        raise ValueError(f"{op}: {name} must hold at least one sequence, got none")
    first = next((k for k, a in enumerate(arrays) if a.shape != (0,)), 0)
    rest, dtype = arrays[first].shape[1:], arrays[first].dtype
    for k, a in enumerate(arrays):
        if a.shape == (0,):  # an empty list tells neither its features nor its dtype
            arrays[k] = np.empty((0, *rest), dtype)
        elif a.ndim == 0 or a.shape[1:] != rest:
            like = f"(length{''.join(f', {n}' for n in rest)})" if rest else "(length,)"
            raise ValueError(
                f"{op}: {name}[{k}] must have shape {like} as {name}[{first}] has, got {a.shape}"
            )
        elif a.dtype != dtype:
            raise TypeError(
                f"{op}: {name}[{k}] must have dtype {dtype} as {name}[{first}] has, got {a.dtype}"
            )
    return arrays
