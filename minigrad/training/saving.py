"""Checkpoints of everything that a training consists of, in one file."""

import copy
import os
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from minigrad.core.tensor import Tensor
from minigrad.random import Generator, default_generator
from minigrad.training.checkpoint import CheckpointError, load
from minigrad.training.checkpoint import save as save_arrays
from minigrad.training.interrupts import interrupts

__all__ = ["load_training", "save_training"]


def save_training(
    path: str | os.PathLike[str], parts: Mapping[str, Any], config: Any = None
) -> None:
    """Write all that a training consists of to one file, atomically.

    A run that resumes from the file gives the same bits as one that was never interrupted. The
    default generator is saved with the parts. The arrays of a part are in the file under its name:
    ``mg.load(path)[0]["model.head.weight"]`` is a weight.

    Args:
        path: The file, a str or a path.
        parts: What has a state_dict, by name: the model, the optimizer, a schedule, the data, a
            TruncatedBPTT; or a Generator. A state may hold arrays, constant Tensors, numbers, text,
            None, and lists, tuples, named tuples and dicts of these; all come back as they were.
        config: What `load_training` must be given again: anything that `save` takes as `extra`, and
            numbers that are not finite. Default: None.

    Raises:
        TypeError, ValueError: A part or a value cannot be saved.
        OSError: The file cannot be written.

    >>> import minigrad as mg, tempfile
    >>> net = mg.nn.Linear(2, 1)
    >>> parts = {"model": net, "optimizer": mg.optim.Adam(net.parameters())}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mg.training.save_training(f"{folder}/t.safetensors", parts, config={"hidden": 2})
    ...     mg.training.load_training(f"{folder}/t.safetensors", parts, config={"hidden": 2})
    """
    save_arrays(path, *_training(parts, config))


def _training(
    parts: Mapping[str, Any], config: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the rest of a file."""
    _check_parts("save_training", parts, "state_dict")
    arrays: dict[str, np.ndarray] = {}
    try:
        states = {name: _packed(_state(part), name, arrays) for name, part in parts.items()}
        return arrays, {
            "training": states,
            "generator": default_generator.state,
            "config": _packed(config, "config", None),
        }
    except RecursionError:
        raise ValueError(
            "save_training: the parts and config must not be nested too deeply, or hold themselves"
        ) from None


def _check_parts(op: str, parts: Any, *methods: str) -> None:
    if not isinstance(parts, Mapping):
        raise TypeError(
            f"{op}: parts must be a dict of what has a state_dict, got {type(parts).__name__}"
        )
    for name, part in parts.items():
        if not isinstance(name, str):
            raise TypeError(f"{op}: parts must have names that are str, got {type(name).__name__}")
        if not isinstance(part, Generator) and not all(hasattr(part, method) for method in methods):
            raise TypeError(
                f"{op}: parts[{name!r}] must have {' and '.join(methods)}, "
                f"got {type(part).__name__}"
            )


def _state(part: Any) -> Any:
    return part.state if isinstance(part, Generator) else part.state_dict()


def _set_state(part: Any, state: Any) -> None:
    if isinstance(part, Generator):
        part.state = state
    else:
        part.load_state_dict(state)


def load_training(
    path: str | os.PathLike[str], parts: Mapping[str, Any], config: Any = None
) -> None:
    """Set the parts and the default generator to what `save_training` wrote.

    This includes the options of the optimizer: its learning rate becomes that of the file, whatever
    it was made with. To go on with another one, set it afterwards, as in PyTorch:
    ``optimizer.param_groups[0]["lr"] = 0.01``.

    If anything is raised, even KeyboardInterrupt or MemoryError, all parts and the generator are as
    they were before.

    Args:
        path: The file, a str or a path.
        parts: The same parts by the same names as were saved.
        config: The same value that was saved. Default: None.

    Raises:
        CheckpointError: The file is damaged, or does not fit; the message names the part.
        OSError: The file cannot be opened.

    >>> import minigrad as mg
    >>> mg.training.load_training(mg.__file__, {})      # doctest: +ELLIPSIS
    Traceback (most recent call last):
    minigrad.training.checkpoint.CheckpointError: load: ...
    """
    _check_parts("load_training", parts, "state_dict", "load_state_dict")
    arrays, extra = load(path)
    _check_training(path, parts, config, extra)
    before = _copied_states(path, parts)
    generator = default_generator.state
    name = "generator"  # of the part that is worked on
    touched: list[str] = []
    try:
        Generator().state = extra["generator"]  # raises if it is none
        states = {}
        for name in parts:
            states[name] = _unpacked(extra["training"][name], arrays)
        if arrays:
            raise ValueError(f"no part has the arrays {', '.join(arrays)}")
        for name, part in parts.items():
            touched.append(name)
            _set_state(part, states[name])
        default_generator.state = extra["generator"]
    except BaseException as error:
        with interrupts() as stop:  # Ctrl-C waits
            wrong = _set_back({changed: parts[changed] for changed in touched}, before)
            default_generator.state = generator
        if stop:
            raise KeyboardInterrupt from None
        if isinstance(error, (MemoryError, OSError)) or not isinstance(error, Exception):
            raise
        text = f"it has no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"load_training: {path}: {name}: {text}{wrong}") from error


def _check_training(path: Any, parts: Mapping[str, Any], config: Any, extra: Any) -> None:
    """Is it the file of a training with these parts and this config?"""
    keys = {"training", "generator", "config"}
    if not isinstance(extra, dict) or set(extra) != keys or not isinstance(extra["training"], dict):
        raise CheckpointError(f"load_training: {path} holds no training")
    try:
        given = _packed(config, "config", None)
    except RecursionError:
        raise ValueError(
            "load_training: config must not be nested too deeply, or hold itself"
        ) from None
    if extra["config"] != given:
        raise CheckpointError(
            f"load_training: {path} belongs to another training: "
            f"{_difference(extra['config'], given)}"
        )
    if set(extra["training"]) != set(parts):
        raise CheckpointError(
            f"load_training: {path} has the parts {', '.join(extra['training'])}, "
            f"not {', '.join(parts)}"
        )


def _copied_states(path: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of the present states of all parts."""
    found = {}
    for name, part in parts.items():
        try:
            found[name] = copy.deepcopy(_state(part))
        except RecursionError:
            raise CheckpointError(
                f"load_training: {path}: {name}: its own state is nested too deeply"
            ) from None
    return found


def _set_back(parts: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Give the parts their states of before; return the text about those that refuse theirs."""
    wrong = ""
    for name, part in parts.items():
        try:
            _set_state(part, before[name])
        except BaseException as error:  # the others must be set back all the same
            wrong += f"; {name} could not be set back: {type(error).__name__}: {error}"
    return wrong


def _difference(found: Any, expected: Any) -> str:
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        found, expected = {"config": found}, {"config": expected}
    names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    return "; ".join(
        f"{name} is {reprlib.repr(found.get(name))}, not {reprlib.repr(expected.get(name))}"
        for name in names
    )


def _packed(value: Any, name: str, arrays: dict[str, np.ndarray] | None) -> Any:
    """`value` as `save` takes it: arrays go to `arrays` and {"@array": name} stands in their place;
    so does what `save` lacks. Where `arrays` is None there must be none."""
    if isinstance(value, (np.ndarray, np.generic, Tensor)) and arrays is not None:
        if name in arrays:
            raise ValueError(f"save_training: two arrays have the name {name}")
        if isinstance(value, Tensor):
            if value.requires_grad:
                raise TypeError(
                    f"save_training: {name} must be a constant, got a Tensor that requires a "
                    "gradient: use detach()"
                )
            arrays[name] = value.numpy()
            return {"@tensor": name}
        arrays[name] = np.asarray(value) if isinstance(value, np.generic) else value
        return {"@scalar" if isinstance(value, np.generic) else "@array": name}
    if type(value) is float and not np.isfinite(value):
        return {"@float": repr(value)}
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) or key.startswith("@") for key in value):
            raise ValueError(
                f"save_training: {name} must have keys that are str and do not begin with @, "
                f"got {list(value)}"
            )
        return {key: _packed(inner, f"{name}.{key}", arrays) for key, inner in value.items()}
    fields: tuple[str, ...] | None = getattr(value, "_fields", None)
    if isinstance(value, tuple) and fields is not None:
        parts = {
            key: _packed(inner, f"{name}.{key}", arrays)
            for key, inner in zip(fields, value, strict=True)
        }
        return {"@named": type(value).__name__, "@parts": parts}
    if type(value) is tuple or type(value) is list:
        inside = [_packed(inner, f"{name}.{i}", arrays) for i, inner in enumerate(value)]
        return tuple(inside) if type(value) is tuple else inside
    return value


def _unpacked(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `_packed` was given; takes the arrays out of `arrays`."""
    if isinstance(value, (list, tuple)):
        return type(value)(_unpacked(inner, arrays) for inner in value)
    if not isinstance(value, dict):
        return value
    if "@array" in value:
        return arrays.pop(value["@array"])
    if "@scalar" in value:
        return arrays.pop(value["@scalar"])[()]
    if "@tensor" in value:
        return Tensor(arrays.pop(value["@tensor"]))
    if "@float" in value:
        return float(value["@float"])
    if "@named" in value:
        parts = {key: _unpacked(inner, arrays) for key, inner in value["@parts"].items()}
        return _named_tuple(value["@named"], tuple(parts))(*parts.values())
    return {key: _unpacked(inner, arrays) for key, inner in value.items()}


def _named_tuple(name: Any, fields: tuple[str, ...]) -> type:
    """The class of named tuples that this program has with that name and these fields. It is looked
    for among what is defined: no file can have something imported or run."""
    classes = tuple.__subclasses__()
    for kind in classes:
        classes += kind.__subclasses__()  # the list grows while it is read
        if kind.__name__ == name and getattr(kind, "_fields", None) == fields:
            return kind
    raise ValueError(
        f"it holds a named tuple {name}({', '.join(fields)}), which is not defined here"
    )
