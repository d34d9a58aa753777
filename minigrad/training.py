"""From a loss to trained weights: truncated backpropagation through time, gradients over several batches, the training loop,
and checkpoints of all that a training consists of. What a step does to the weights is in optim.py, files are in checkpoint.py.
"""
import contextlib
import copy
import inspect
import math
import reprlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from minigrad.checkpoint import CheckpointError, check_place, contents, load
from minigrad.checkpoint import save as save_arrays
from minigrad.module import Module, size
from minigrad.optim import Optimizer, _number, clip_grad_norm_
from minigrad.random import Generator, default_generator
from minigrad.schedule import ReduceLROnPlateau, Schedule
from minigrad.shape import concatenate
from minigrad.tensor import Tensor, no_grad

# ---------------------------------------------------------------- truncated backpropagation through time


class TruncatedBPTT:
    """Truncated backpropagation through time over a sequence of any length: every k1 steps, back through the last k2 steps.

    TruncatedBPTT(model, loss, k1, k2=k1). `model(x, state)` returns (out, new state), as the
    recurrent layers do; the state is a Tensor, None or a number, or a tuple, named tuple, list or
    dict of states. Call the object with the next k1 steps, x and y of shape (k1, B, ...) (the last
    call may hold fewer); the loss it returns reaches back k2 steps:

        window n = steps s .. e - 1,   e = min(n k1, T),   s = max(0, e - k2),   from the state before s, which is a constant
        loss n   = loss(out[(n - 1) k1 .. e - 1], y[(n - 1) k1 .. e - 1]),   so that each step's loss counts once

    This is BPTT(h = k2; h' = k1) of Williams and Peng 1990, with the pseudocode of Sutskever's thesis (2013), section 2.8.6. With
    k2 = k1 windows are the chunks themselves, the last one too; with k2 >= T nothing is cut. For k2 > k1 the steps before the
    chunk are computed again, with the weights of now: the gradient is that of the window as it stands, also when the weights
    change after every chunk. The state that goes on is that of the first computation that reached it.

    >>> import numpy as np, minigrad as mg
    >>> x, y = np.ones((6, 2, 3), np.float32), np.zeros((6, 2, 4), np.float32)
    >>> layer = mg.nn.GRU(3, 4)
    >>> bptt = mg.training.TruncatedBPTT(layer, mg.mse, k1=2, k2=4)
    >>> for loss in bptt.over(mg.Tensor(x), mg.Tensor(y)):
    ...     loss.backward()                 # here would follow clipping, optimizer.step() and optimizer.zero_grad()
    """

    def __init__(self, model: Callable, loss: Callable[[Tensor, Any], Tensor], k1: int, k2: int | None = None) -> None:
        op = "TruncatedBPTT"
        self.model, self.loss, self.k1 = model, loss, size(op, "k1", k1)
        self.k2 = self.k1 if k2 is None else size(op, "k2", k2)
        if self.k2 < self.k1:
            raise ValueError(f"{op}: k2 must be at least k1 = {k1}, or the losses of some steps would have no gradient, got {k2}")
        self.form: str | None = None        # shapes and dtypes of the state, once one was computed
        self.reset()

    def reset(self) -> None:
        """A new sequence begins: the state is None again, which the model takes for zeros."""
        self.state: Any = None      # before the first of the remembered steps
        self.past: Any = None       # x of the steps that the next window begins with

    def __call__(self, x: Any, y: Any, ahead: int | None = None) -> Tensor:
        """The loss of the next steps, x (k1, B, ...) with y (k1, B, ...); its backward goes through the last k2 steps. ahead: how
        many steps the next call will bring, if not k1: the state is kept where that call's window begins."""
        if not (1 <= len(x) <= self.k1 and len(y) == len(x)):
            raise ValueError(f"TruncatedBPTT: x and y must both have 1 to k1 = {self.k1} steps, got {len(x)} and {len(y)}")
        if self.past is not None and self.past.shape[1:] != x.shape[1:]:
            raise ValueError(f"TruncatedBPTT: x must have steps of shape {self.past.shape[1:]} as before, got {x.shape[1:]}; "
                             "reset() begins a new sequence")
        window = x if self.past is None else _joined(self.past, x)
        ahead = self.k1 if ahead is None or self.k1 == self.k2 else ahead
        later = max(0, len(window) + ahead - self.k2)               # where the next window begins
        outputs, kept = [], self.state
        if later:
            out, kept = self.model(window[:later], self.state)
            outputs.append(out)
        if later < len(window):
            out, _ = self.model(window[later:], kept)
            outputs.append(out)
        out = outputs[0] if len(outputs) == 1 else concatenate(outputs, 0)
        loss = self.loss(out[len(window) - len(x):], y)
        past = window[later:] if later < len(window) else None
        self.state = _mapped(_detached, kept)
        self.past = _copied(past)       # the caller may put the next steps into the same memory
        if kept is not None:
            self.form = _form(kept)
        return loss

    def over(self, x: Any, y: Any) -> Iterator[Tensor]:
        """The losses of a long sequence, x (T, B, ...) with y (T, B, ...), k1 steps at a time; the state carries on."""
        for start in range(0, len(x), self.k1):
            end = start + self.k1
            yield self(x[start:end], y[start:end], min(self.k1, len(x) - end) if end < len(x) else None)

    def state_dict(self) -> dict[str, Any]:
        """Copies of what is carried on, the state and the remembered steps, as they are."""
        return {"state": _mapped(_copied, self.state), "past": _copied(self.past)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a state_dict. Where this object has computed a state, the new one must have
        its kinds, shapes and dtypes."""
        _check_keys("TruncatedBPTT", saved, ("state", "past"))
        state, past = _mapped(_copied, saved["state"]), saved["past"]
        if state is not None and self.form is not None and _form(state) != self.form:
            raise ValueError(f"TruncatedBPTT: state must be {self.form}, got {_form(state)}")
        if not (past is None or isinstance(past, (np.ndarray, Tensor))):
            raise ValueError(
                f"TruncatedBPTT: past must be a Tensor, an array or None, got {type(past).__name__}"
            )
        self.state, self.past = state, _copied(past)


def _check_keys(op: str, state: Any, names: tuple[str, ...]) -> None:
    """Is it the dict of a state, with the entries that it needs?"""
    if not isinstance(state, Mapping):
        raise TypeError(f"{op}: state must be a dict, got {type(state).__name__}")
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"{op}: state must have the keys {', '.join(names)}, {', '.join(missing)} missing")


def _joined(past: Any, x: Any) -> Any:
    return concatenate([past, x], 0) if isinstance(x, Tensor) else np.concatenate([past, x])


def _mapped(function: Callable[[Any], Any], state: Any) -> Any:
    """The state with `function` of each of its parts, in tuples, named tuples, lists and dicts as
    they are."""
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*(_mapped(function, part) for part in state))
    if type(state) in (tuple, list):
        return type(state)(_mapped(function, part) for part in state)
    if type(state) is dict:
        return {name: _mapped(function, part) for name, part in state.items()}
    return function(state)


def _detached(part: Any) -> Any:
    """A part of a state, cut from the graph."""
    if hasattr(part, "detach"):
        return part.detach()
    return _copied(part)


def _copied(part: Any) -> Any:
    if isinstance(part, Tensor):
        return Tensor(part.numpy())
    if isinstance(part, np.ndarray):
        return part.copy()
    if part is None or isinstance(part, (bool, int, float, str, np.generic)):
        return part
    raise TypeError(
        "TruncatedBPTT: the state must be made of Tensors, arrays, numbers and None, in tuples, "
        f"named tuples, lists and dicts, got {type(part).__name__}"
    )


def _form(state: Any) -> str:
    """Kinds, shapes and dtypes of a state, to compare and to print."""
    if isinstance(state, tuple):
        name = type(state).__name__ if hasattr(state, "_fields") else ""
        return f"{name}({', '.join(map(_form, state))})"
    if isinstance(state, list):
        return f"[{', '.join(map(_form, state))}]"
    if isinstance(state, dict):
        return f"{{{', '.join(f'{name}: {_form(part)}' for name, part in state.items())}}}"
    return f"{state.dtype}{list(state.shape)}" if hasattr(state, "dtype") else type(state).__name__


# ---------------------------------------------------------------- gradients over several batches


def accumulate(losses: Iterable[Tensor], count: float) -> float:
    """Backward of (sum of the losses) / count, one after another; return that mean.

    Each loss is a sum over its own rows, and count is the number of rows of all: then the gradients
    are those of the mean over the whole batch, whatever the sizes of its parts, while only one
    part's graph is in memory. A generator makes them. If one of them raises, the gradients hold the
    share of those before it.

    >>> import minigrad as mg
    >>> x, w = mg.Tensor([1.0, 2.0, 6.0]), mg.Tensor(2.0, requires_grad=True)
    >>> mg.training.accumulate(((part * w).sum() for part in (x[:2], x[2:])), count=3)
    6.0
    >>> w.grad                                          # that of (x * w).mean()
    Tensor(3.)
    """
    op = "accumulate"
    count = _number(op, "count", count, ends="()")
    if isinstance(losses, Tensor) or not isinstance(losses, Iterable):
        raise TypeError(
            f"{op}: losses must be a list or a generator of Tensors, got {type(losses).__name__}"
        )
    total, parts = 0.0, 0
    for loss in losses:
        _check_loss(f"{op}: losses[{parts}] must be", loss)
        (loss / count).backward()
        total += loss.item()
        parts += 1
    if not parts:
        raise ValueError(f"{op}: losses must give at least one Tensor, got none")
    return total / count


def _check_loss(must_be: str, loss: Any) -> None:
    """Is it a number that `backward` can go from?"""
    expected = "one number that was computed from the parameters, a Tensor of shape ()"
    if not isinstance(loss, Tensor):
        raise TypeError(f"{must_be} {expected}, got {type(loss).__name__}")
    if loss.size != 1:
        raise ValueError(f"{must_be} {expected}, got shape {loss.shape}: take its mean() or sum()")
    if not loss.requires_grad:
        raise RuntimeError(
            f"{must_be} {expected}, got a Tensor without a graph (made under no_grad, by "
            "detach(), from "
            "NumPy's numbers, or from no parameter): it has no gradient"
        )


# ---------------------------------------------------------------- checkpoints of a whole training


def save_training(path: Any, parts: Mapping[str, Any], config: Any = None) -> None:
    """Write all that a training consists of to one file, atomically: then a resumed run equals the uninterrupted one to the bit.

    parts: what has a state_dict, by name: the model, the optimizer, a schedule, the data, a
    TruncatedBPTT; a Generator is a part too. The default generator goes with them. States may hold
    arrays, constant Tensors, numbers, text, None, and lists, tuples, named tuples and dicts of
    these; all come back as they were. config: what `load_training` must find again, of what `save`
    takes as `extra`, numbers that are not finite too. The arrays of a part lie in the file under
    its name, so that ``mg.load(path)[0]["model.head.weight"]`` is a weight.

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


def load_training(path: Any, parts: Mapping[str, Any], config: Any = None) -> None:
    """Set the parts and the default generator to what `save_training` wrote; the parts and config must be those of the file.

    All that is in the file counts, the options of the optimizer too: its learning rate is the
    file's then, whatever it was made with. To go on with another one, set it afterwards, as in
    PyTorch: ``optimizer.param_groups[0]["lr"] = 0.01``.

    What does not fit is a CheckpointError that names the part. A file that cannot be opened is an
    OSError. Whatever is raised, KeyboardInterrupt and MemoryError included, all parts and the
    generator are then as they were.

    >>> import minigrad as mg
    >>> mg.training.load_training(mg.__file__, {})      # doctest: +ELLIPSIS
    Traceback (most recent call last):
    minigrad.checkpoint.CheckpointError: load: ...
    """
    _check_parts("load_training", parts, "state_dict", "load_state_dict")
    arrays, extra = load(path)
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
        raise CheckpointError(f"load_training: {path} has the parts {', '.join(extra['training'])}, not {', '.join(parts)}")
    generator, before = default_generator.state, {}
    for name, part in parts.items():
        try:
            before[name] = copy.deepcopy(_state(part))
        except RecursionError:
            raise CheckpointError(
                f"load_training: {path}: {name}: its own state is nested too deeply"
            ) from None
    name, touched = "generator", []
    try:
        Generator().state = extra["generator"]          # raises what is none
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
        wrong = ""
        with _interrupts() as stop:                     # Ctrl-C waits
            for changed in touched:
                try:
                    _set_state(parts[changed], before[changed])
                except BaseException as again:          # the others must be set back all the same
                    wrong += f"; {changed} could not be set back: {type(again).__name__}: {again}"
            default_generator.state = generator
        if stop:
            raise KeyboardInterrupt from None
        if isinstance(error, (MemoryError, OSError)) or not isinstance(error, Exception):
            raise
        text = f"it has no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"load_training: {path}: {name}: {text}{wrong}") from error


def _difference(found: Any, expected: Any) -> str:
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        found, expected = {"config": found}, {"config": expected}
    names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    return "; ".join(f"{name} is {reprlib.repr(found.get(name))}, not {reprlib.repr(expected.get(name))}" for name in names)


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
        arrays[name] = value
        return {"@scalar" if isinstance(value, np.generic) else "@array": name}
    if type(value) is float and not np.isfinite(value):
        return {"@float": repr(value)}
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) or key.startswith("@") for key in value):
            raise ValueError(f"save_training: {name} must have keys that are str and do not begin with @, got {list(value)}")
        return {key: _packed(inner, f"{name}.{key}", arrays) for key, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = {
            key: _packed(inner, f"{name}.{key}", arrays)
            for key, inner in zip(value._fields, value, strict=True)
        }
        return {"@named": type(value).__name__, "@parts": parts}
    if type(value) in (tuple, list):
        return type(value)(_packed(inner, f"{name}.{i}", arrays) for i, inner in enumerate(value))
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


# ---------------------------------------------------------------- the loop


class History:
    """What `fit` has done so far: loss and norm (of the gradient before clipping), one number a step; validation, one an epoch.

    step, epoch: how many are over. best: the epoch, from 0, with the lowest validation.
    interrupted: whether Ctrl-C ended it. ended: what ended the last run, "epochs", "steps",
    "patience", "interrupted", or the exception as "ValueError: its text"; None while it runs.
    options: those of the optimizer's groups when the training began.

    >>> import minigrad as mg
    >>> history = mg.training.History()     # of a model, if its best weights are to be loaded
    >>> history.step, history.epoch, history.best
    (0, 0, None)
    """

    def __init__(self, model: Module | None = None) -> None:
        if not isinstance(model, (Module, type(None))):
            raise TypeError(f"History: model must be a Module or None, got {type(model).__name__}")
        self.form = {} if model is None else {name: _form(p) for name, p in model.named_parameters()}
        self.loss: list[float] = []
        self.norm: list[float] = []
        self.validation: list[float] = []
        self.epoch = self.batch = 0                 # batch: of the running epoch, so many are over
        self.weights: dict[str, np.ndarray] | None = None       # of the best epoch
        self.options: list[dict[str, Any]] = []
        self.interrupted, self.speed = False, 0.0   # speed: steps per second of this run
        self.ended: str | None = None

    @property
    def step(self) -> int:
        """The number of steps so far."""
        return len(self.loss)

    @property
    def recent(self) -> float:
        """The mean of the last 20 losses; NaN before the first."""
        return float(np.mean(self.loss[-20:])) if self.loss else math.nan

    @property
    def best(self) -> int | None:
        """The epoch with the lowest validation, the first of equals; None before the first that is a number."""
        numbers = [(value, k) for k, value in enumerate(self.validation) if value == value]
        return min(numbers)[1] if numbers else None

    def state_dict(self) -> dict[str, Any]:
        """All but what belongs to this run alone."""
        numbers = {name: np.array(getattr(self, name), np.float64) for name in ("loss", "norm", "validation")}
        place = {"epoch": self.epoch, "batch": self.batch}
        return numbers | place | {"weights": self.weights, "options": self.options}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict."""
        names = ("loss", "norm", "validation", "epoch", "batch", "weights", "options")
        _check_keys("History", state, names)
        numbers = [state[name] for name in ("loss", "norm", "validation")]
        if any(not isinstance(a, np.ndarray) or a.dtype != np.float64 or a.ndim != 1 for a in numbers):
            raise ValueError("History: loss, norm and validation must be float64 arrays of one dimension")
        if len(numbers[0]) != len(numbers[1]) or any(type(state[k]) is not int or state[k] < 0 for k in ("epoch", "batch")):
            raise ValueError("History: loss and norm must have one number a step, epoch and batch must be ints of at least 0")
        if state["weights"] is not None and {name: _form(a) for name, a in state["weights"].items()} != self.form:
            raise ValueError("History: the best weights must be those of the model")
        if not (
            isinstance(state["options"], list)
            and all(isinstance(group, Mapping) for group in state["options"])
        ):
            raise ValueError("History: options must be a list of dicts")
        self.loss, self.norm, self.validation = (a.tolist() for a in numbers)
        self.epoch, self.batch, self.weights = state["epoch"], state["batch"], state["weights"]
        self.options = [dict(group) for group in state["options"]]


def fit(
    model: Module,
    optimizer: Optimizer,
    loss: Callable[..., Any],
    batches: Iterable[tuple],
    *,
    epochs: int | None = None,
    steps: int | None = None,
    clip: float = math.inf,
    validate: Callable[[], float] | None = None,
    patience: int | None = None,
    after_step: Iterable[Any] = (),
    after_epoch: Iterable[Any] = (),
    after_resume: Iterable[Any] = (),
    line: Callable[[History], str] | None = None,
    save: Any = None,
    save_every: int | None = None,
    resume: Any = None,
    config: Any = None,
    parts: Mapping[str, Any] | None = None,
) -> History:
    """Train: for each batch the gradient of `loss(*batch)`, clipped to the norm `clip`, and a step; return the History.

    An epoch is one iteration over `batches`, which gives tuples. `epochs` and `steps` are the
    totals at which the training ends, whichever is first. `loss` returns a Tensor of one number, or
    goes backward itself and returns a float (see `accumulate`). What the optimizer has, and nothing
    else, is cleared, clipped and changed. Parameters of the model that it does not have are not
    trained: they are printed at the start, unless their requires_grad is off, and their gradients
    add up untouched.

    validate(): called after each epoch and at the end, in eval mode and without recording; a lower
    number is better, NaN never is. patience: the training ends when so many validations in a row
    were not better than the best. after_step, after_epoch, after_resume: lists of what is called
    then: functions of the History or of nothing, and schedules, whose `step` it is
    (ReduceLROnPlateau gets the validation, in after_epoch). line: makes the text of the progress
    line out of the History.

    save: a file for `save_training`, written after each epoch, after each `save_every` steps, and
    at the end; its model has the last weights, the best are in history.weights. It is tried before
    the first step whether all can be saved. It holds the model and the Generators of its layers,
    the optimizer, the History, the batches and the loss where they have a state_dict, the schedules
    given above and whatever has a state_dict and a method given above, and `parts`, all else that
    has a state, by name. resume: such a file, to go on
    from; the options in it, the learning rate say, replace those that the optimizer was made with,
    and where these differ it is printed. To go on with others, set them in after_resume:
    ``after_resume=[lambda: optimizer.param_groups[0].update(lr=0.01)]`` (with a schedule, its
    base_lrs). config: see `save_training`.

    Ends, told by history.ended and printed: the totals; patience; Ctrl-C, after the step that runs
    (a second one breaks it off). In these the model has the weights of the best validation, if
    there was one. An exception, whatever raised it, goes on to the caller, and the model has the
    weights of the last whole step; so it is for a loss or gradient that is not finite, a
    RuntimeError. In any case the modules are in the mode that they were in (fit itself puts a model
    that was in eval mode into train mode), the optimizer's parameters have no gradients, and the
    file is whole.

    >>> import numpy as np, minigrad as mg
    >>> x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    >>> net, batches = mg.nn.Linear(1, 1), [(mg.Tensor(x[i::4]), mg.Tensor(3 * x[i::4])) for i in range(4)]
    >>> adam = mg.optim.Adam(net.parameters(), lr=0.3)
    >>> history = mg.training.fit(net, adam, lambda x, y: mg.mse(net(x), y), batches, epochs=20)        # doctest: +ELLIPSIS
    step ...
    >>> history.step, bool(history.loss[-1] < 0.01), history.ended
    (80, True, 'epochs')
    """
    if not isinstance(model, Module):
        raise TypeError(f"fit: model must be a Module, got {type(model).__name__}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"fit: optimizer must be an optimiser of minigrad.optim, got {type(optimizer).__name__}"
        )
    for name, function in (("loss", loss), ("validate", validate), ("line", line)):
        if not callable(function) and (function is not None or name == "loss"):
            raise TypeError(f"fit: {name} must be a function, got {type(function).__name__}")
    if isinstance(batches, (Tensor, np.ndarray, Mapping, str)) or not isinstance(batches, Iterable):
        raise TypeError(
            "fit: batches must be an iterable of tuples, the arguments of loss, "
            f"got {type(batches).__name__}"
        )
    if epochs is None and steps is None:
        raise ValueError("fit: epochs or steps must say when the training ends, got neither")
    epochs, steps = _total("epochs", epochs), _total("steps", steps)
    clip = _number("fit", "clip", clip, ends="(]")
    if patience is not None and size("fit", "patience", patience) and validate is None:
        raise ValueError("fit: patience needs validate")
    if save_every is not None and size("fit", "save_every", save_every) and save is None:
        raise ValueError("fit: save_every needs save")
    history, reader = History(model), _Reader(batches)
    history.options = _options(optimizer)
    called = {"after_step": after_step, "after_epoch": after_epoch, "after_resume": after_resume}
    calls = {name: _calls(name, given, history, validate) for name, given in called.items()}
    everything = _everything(model, optimizer, history, reader, parts or {}, loss, calls)
    _print_untrained(model, optimizer)
    if save is not None:
        check_place(save)
    if resume is not None:
        given = _options(optimizer)
        load_training(resume, everything, config)
        _print_resumed(resume, history, given, optimizer)
        for _, function in calls["after_resume"]:
            function(history)
    if save is not None:
        contents(*_training(everything, config))        # raises now what cannot be saved
    first, start = history.step, time.perf_counter()
    total = min(steps, epochs * len(batches) if hasattr(batches, "__len__") else math.inf)

    def judge() -> None:
        with _modes(model), no_grad():
            model.eval()
            value = validate()
        history.validation.append(_validation(value))
        if history.best == len(history.validation) - 1:
            history.weights = model.state_dict()

    def end() -> str | None:
        if stop:
            return "interrupted"
        if history.step >= steps:
            return "steps"
        if history.epoch >= epochs:
            return "epochs"
        best = -1 if history.best is None else history.best
        waited = len(history.validation) - 1 - best
        return "patience" if patience is not None and waited >= patience else None

    def one_step(batch: Any) -> None:
        if not isinstance(batch, (tuple, list)):
            raise TypeError(
                "fit: batches must give tuples, the arguments of loss, got "
                f"{type(batch).__name__}; (x,) is one of one"
            )
        optimizer.zero_grad()
        value = _backward(loss(*batch), optimizer)
        norm = clip_grad_norm_(_owned(model, optimizer), clip)
        if not math.isfinite(value):
            raise RuntimeError(f"fit: the loss is {value} in step {history.step}")
        optimizer.step()
        history.loss.append(value)
        history.norm.append(norm)
        history.batch += 1
        history.speed = (history.step - first) / max(time.perf_counter() - start, 1e-9)
        for _, function in calls["after_step"]:
            function(history)
        if save is not None and save_every is not None and history.step % save_every == 0:
            save_training(save, everything, config)
        elif save is not None and history.step == first + 1:
            contents(*_training(everything, config))    # what the first step has made, too
        show(history, line or _line)

    try:
        with _modes(model), _interrupts() as stop, _progress(first, total) as show:
            if not model.training:
                model.train()
            while end() is None:
                for batch in reader.rest(history.epoch, history.batch):
                    one_step(batch)
                    if stop or history.step >= steps:
                        break
                else:
                    if not history.batch:
                        raise ValueError(
                            f"fit: batches gave none in epoch {history.epoch}; a generator is "
                            "used up after one epoch"
                        )
                    history.epoch, history.batch = history.epoch + 1, 0
                    if validate is not None:
                        judge()
                    for _, function in calls["after_epoch"]:
                        function(history)
                    if save is not None:
                        save_training(save, everything, config)
            ended = end()
            if save is not None:
                save_training(save, everything, config)
            if validate is not None and history.batch and not stop:
                # The end of `steps` within an epoch; not in the file, where that epoch goes on.
                judge()
            if history.weights is not None:
                model.load_state_dict(history.weights)
            history.interrupted = bool(stop)
    except BaseException as error:
        del history.norm[len(history.loss) :]  # broken off between the two
        history.ended = f"{type(error).__name__}: {error}"
        history.interrupted = isinstance(error, KeyboardInterrupt)
        with contextlib.suppress(OSError, ValueError):  # a closed stdout must not hide the error
            print(
                f"ended at step {history.step}, in epoch {history.epoch}, by {history.ended}; "
                "the model has the last weights",
                flush=True,
            )
        raise
    finally:
        optimizer.zero_grad()
    history.ended = ended
    _print_end(history, patience, history.step == first)
    return history


def _is_number(value: Any) -> bool:
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, (bool, np.bool_))


def _total(name: str, value: Any) -> float:
    if value is None:
        return math.inf
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"fit: {name} must be an int, got {type(value).__name__}")
    if value < 0:
        raise ValueError(f"fit: {name} must be at least 0, got {value}")
    return int(value)


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


def _owned(model: Module, optimizer: Optimizer) -> list[tuple[str, Tensor]]:
    """(name, parameter) of all that the optimizer has; by the model's names where it has them
    too."""
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        (names.get(id(p), f"{i} of the optimizer"), p) for i, p in enumerate(optimizer.parameters)
    ]


def _backward(value: Any, optimizer: Optimizer) -> float:
    """Go backward from what the loss function returned, if it has not done that itself; the loss as
    a number."""
    done = any(p.grad is not None for p in optimizer.parameters)
    if isinstance(value, Tensor) and not (done and value.size == 1 and not value.requires_grad):
        _check_loss("fit: loss must return", value)
        value.backward()
        if all(p.grad is None for p in optimizer.parameters):
            raise RuntimeError(
                "fit: the loss does not depend on any parameter of the optimizer: nothing would "
                "be trained. Was "
                "the optimizer made from another model's parameters?"
            )
        return value.item()
    if not isinstance(value, Tensor):
        expected = "a Tensor of shape (), or go backward itself and return a float (see accumulate)"
        if not _is_number(value):
            raise TypeError(f"fit: loss must return {expected}, got {type(value).__name__}")
        if not done:
            raise TypeError(
                f"fit: loss must return {expected}, got the {type(value).__name__} {value}, and "
                "no parameter of the "
                "optimizer has a gradient: return the loss itself, not its item()"
            )
    return float(value)


def _validation(value: Any) -> float:
    if isinstance(value, Tensor) and value.size == 1:
        return value.item()
    if not _is_number(value):
        raise TypeError(f"fit: validate must return a number, got {type(value).__name__}")
    return float(value)


class _Reader:
    """The batches of a training. The place that is saved is that of fit's own iteration, whoever
    else reads them."""

    def __init__(self, batches: Iterable[tuple]) -> None:
        self.batches, self.epoch = batches, None
        self.stateful = hasattr(batches, "state_dict") and hasattr(batches, "load_state_dict")

    def rest(self, epoch: int, over: int) -> Iterator[tuple]:
        """The batches of an epoch without the first `over`, which those with a state know."""
        self.epoch = iter(self.batches)
        if not self.stateful:
            for k in range(over):
                if next(self.epoch, None) is None:
                    raise ValueError(
                        f"fit: batches must give at least the {over} that are over in "
                        f"epoch {epoch}, got {k}: other data?"
                    )
        return self.epoch

    def state_dict(self) -> dict[str, Any]:
        return (self.epoch if hasattr(self.epoch, "state_dict") else self.batches).state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.batches.load_state_dict(state)
        self.epoch = None


class _Generators:
    """The generators that the layers of a model draw from, the default one apart."""

    def __init__(self, model: Module) -> None:
        found = [
            value
            for module in model.modules()
            for value in vars(module).values()
            if isinstance(value, Generator)
        ]
        self.generators = list({id(g): g for g in found if g is not default_generator}.values())

    def state_dict(self) -> dict[str, Any]:
        return {"states": [generator.state for generator in self.generators]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state["states"]) != len(self.generators):
            raise ValueError(
                f"the model must have {len(state['states'])} generators, got {len(self.generators)}"
            )
        for generator, one in zip(self.generators, state["states"], strict=True):
            generator.state = one


def _everything(
    model: Module,
    optimizer: Optimizer,
    history: History,
    reader: _Reader,
    parts: Mapping[str, Any],
    loss: Any,
    calls: Mapping[str, list[tuple[Any, Callable]]],
) -> dict[str, Any]:
    """All that fit saves, by name."""
    _check_parts("fit", parts, "state_dict", "load_state_dict")
    found = {"model": model, "optimizer": optimizer, "history": history} | (
        {"batches": reader} if reader.stateful else {}
    )
    for name, part in parts.items():
        if name in found:
            raise ValueError(
                f"fit: parts must have other names than {', '.join(found)}, got {name}"
            )
        found[name] = part
    known = {id(part) for part in (*found.values(), reader.batches)}
    more = {"fit.loss": loss} | {
        f"fit.{name}[{k}]": owner
        for name, given in calls.items()
        for k, (owner, _) in enumerate(given)
    }
    for name, part in more.items():
        if (
            id(part) not in known
            and hasattr(part, "state_dict")
            and hasattr(part, "load_state_dict")
        ):
            found[name] = part
            known.add(id(part))
    generators = _Generators(model)
    return found | ({"fit.generators": generators} if generators.generators else {})


def _calls(
    name: str, given: Any, history: History, validate: Any
) -> list[tuple[Any, Callable[[History], Any]]]:
    """For each of the given functions and schedules what it belongs to, and a function of the
    History."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(
            f"fit: {name} must be a list of functions of the History, got {type(given).__name__}"
        )
    return [
        _call(f"fit: {name}[{k}]", one, history, name == "after_epoch" and validate is not None)
        for k, one in enumerate(given)
    ]


def _call(
    where: str, given: Any, history: History, validated: bool
) -> tuple[Any, Callable[[History], Any]]:
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
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


@contextlib.contextmanager
def _modes(model: Module) -> Iterator[None]:
    """In the end each module is in train or eval mode as it was."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


# ---------------------------------------------------------------- what is printed


def _line(history: History) -> str:
    text = f"loss {history.recent:.4g}  gradient {history.norm[-1]:.3g}"
    return text + (f"  validation {history.validation[-1]:.4g}" if history.validation else "")


def _print_untrained(model: Module, optimizer: Optimizer) -> None:
    owned = {id(p) for p in optimizer.parameters}
    names = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in owned]
    if names:
        print(f"not trained, since the optimizer does not have it: {', '.join(names)}", flush=True)


def _print_resumed(
    path: Any, history: History, given: list[dict[str, Any]], optimizer: Optimizer
) -> None:
    print(f"resumed {path} at step {history.step}, in epoch {history.epoch}", flush=True)
    for i, (new, old, group) in enumerate(
        zip(given, history.options, optimizer.param_groups, strict=False)
    ):
        for name in new:
            if name in old and new[name] != old[name] and name != "initial_lr":
                where = f"group {i} of the optimizer" if len(given) > 1 else "the optimizer"
                print(
                    f"{where} has {name} = {group[name]} from the file, not {new[name]} as it "
                    "was made with now; after_resume "
                    "can change it",
                    flush=True,
                )


def _print_end(history: History, patience: int | None, idle: bool) -> None:
    """Says what the progress lines do not tell."""
    texts = []
    if history.ended == "patience" and history.best is None:
        texts.append(
            f"no validation in {len(history.validation)} epochs was a number, patience {patience}"
        )
    elif history.ended == "patience":
        texts.append(f"the validation has not fallen for {patience} epochs")
    elif history.ended == "interrupted":
        texts.append("interrupted")
    elif idle:
        texts.append(f"no step was left to do: the {history.ended} are over")
    if history.weights is not None:
        texts.append(
            f"the model has the weights of epoch {history.best}, validation "
            f"{history.validation[history.best]:.4g}"
        )
    elif history.validation and history.ended != "patience":
        texts.append("no validation was a number: the model has the last weights")
    if texts:
        print(f"ended at step {history.step}: {'; '.join(texts)}", flush=True)


@contextlib.contextmanager
def _interrupts() -> Iterator[list]:
    """A list that the first Ctrl-C fills, so that a step is never broken off; the second one is a KeyboardInterrupt."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():       # Python delivers signals to the main thread alone
        yield stop
        return
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    if before is signal.SIG_IGN:            # started by nohup, say: to be left alone
        yield stop
        return

    def note(number: int, _: Any) -> None:
        stop.append(number)
        signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _progress(first: int, total: float) -> Iterator[Callable]:
    """Shows the steps: tqdm's bar where it is installed and stderr is a terminal, else at most one line a second."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    bar, shown = None, -np.inf
    if tqdm is not None and sys.stderr.isatty():
        bar = tqdm(total=None if total == np.inf else total, initial=first, unit="step")

    def show(history: History, line: Callable[[History], str]) -> None:
        nonlocal shown
        if bar is not None:
            bar.set_postfix_str(line(history), refresh=False)
            bar.update()
        elif time.perf_counter() - shown >= 1 or history.step == total:
            shown = time.perf_counter()
            of, left = (f"/{total}", f"  {(total - history.step) / history.speed:.0f} s left") if total < np.inf else ("", "")
            print(f"step {history.step}{of}  {line(history)}{left}", flush=True)
    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
