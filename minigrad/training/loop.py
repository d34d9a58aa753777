"""From a loss to trained weights: truncated backpropagation through time, gradients over several
batches, the training loop, and checkpoints of all that a training consists of. What a step does to
the weights is in optim.py, files are in checkpoint.py.
"""

import contextlib
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from minigrad.checks import _number, size
from minigrad.core.modes import no_grad
from minigrad.core.tensor import Tensor
from minigrad.nn.module import Module
from minigrad.optim.clip import clip_grad_norm_
from minigrad.optim.optimizers import Optimizer
from minigrad.optim.schedule import ReduceLROnPlateau, Schedule
from minigrad.random import Generator, default_generator
from minigrad.training.bptt import _check_loss
from minigrad.training.checkpoint import check_place, contents
from minigrad.training.history import History
from minigrad.training.interrupts import _interrupts
from minigrad.training.saving import _check_parts, _training, load_training, save_training


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
    """Train: for each batch the gradient of `loss(*batch)`, clipped to the norm `clip`, and a step;
    return the History.

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
        contents(*_training(everything, config))  # raises now what cannot be saved
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
            contents(*_training(everything, config))  # what the first step has made, too
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
def _progress(first: int, total: float) -> Iterator[Callable]:
    """Shows the steps: tqdm's bar where it is installed and stderr is a terminal, else at most one
    line a second."""
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
            of, left = (
                (f"/{total}", f"  {(total - history.step) / history.speed:.0f} s left")
                if total < np.inf
                else ("", "")
            )
            print(f"step {history.step}{of}  {line(history)}{left}", flush=True)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
