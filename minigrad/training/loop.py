"""The training loop: epochs over batches, a step for each of them, validation, saving."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad.checks import integer, is_number, number, real, size
from minigrad.core.modes import no_grad
from minigrad.core.tensor import Tensor
from minigrad.nn.module import Module
from minigrad.optim.clip import clip_grad_norm_
from minigrad.optim.optimizers import Optimizer
from minigrad.training.bptt import _check_loss
from minigrad.training.callbacks import calls_of
from minigrad.training.checkpoint import check_place, contents
from minigrad.training.history import History
from minigrad.training.interrupts import interrupts
from minigrad.training.parts import Reader, everything
from minigrad.training.progress import (
    default_line,
    print_broken_off,
    print_end,
    print_resumed,
    print_untrained,
    progress,
)
from minigrad.training.saving import _training, load_training, save_training

__all__ = ["fit"]


def fit(
    model: Module,
    optimizer: Optimizer,
    loss: Callable[..., Any],
    batches: Iterable[tuple[Any, ...]],
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
    save: str | os.PathLike[str] | None = None,
    save_every: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    config: Any = None,
    parts: Mapping[str, Any] | None = None,
) -> History:
    """Train a model: for each batch the gradient of `loss(*batch)`, clipped, and a step.

    The training ends when `epochs` or `steps` are over, whichever comes first; after `patience`
    validations in a row without an improvement; or on Ctrl-C, once the running step is done (a
    second Ctrl-C interrupts the step). Then the model gets the weights of the best validation, if
    there was one.

    Only the parameters that the optimizer has are cleared, clipped and changed. Other parameters of
    the model are not trained: their names are printed at the start, unless their requires_grad is
    off, and their gradients add up untouched.

    However it ends, each module is back in the mode that it was in before (during the training the
    model is in train mode), the optimizer's parameters have no gradients, and the file is complete.

    Args:
        model: The Module to train.
        optimizer: An optimiser of minigrad.optim with the parameters to train.
        loss: A function of the elements of a batch. It returns a Tensor of one number, or calls
            backward itself and returns a float (see `accumulate`).
        batches: An iterable of tuples; one iteration over it is an epoch.
        epochs: The total number of epochs, those before a resume included. Default: no limit.
        steps: The total number of steps, those before a resume included. Default: no limit; one of
            the two limits must be given.
        clip: The largest norm of the gradient. Default: infinite, so nothing is clipped.
        validate: A function without arguments, called after each epoch and at the end, in eval mode
            and without recording. It returns a number; lower is better, NaN never is.
        patience: The training ends when this many validations in a row were not better than the
            best. Default: None, which is no limit.
        after_step: What to call after each step: functions of the History or of nothing, and
            schedules, whose `step` is called.
        after_epoch: The same after each epoch. ReduceLROnPlateau belongs here; it gets the
            validation.
        after_resume: The same after a file was resumed.
        line: A function that turns the History into the text of the progress line.
        save: A file for `save_training`, written after each epoch and at the end. Its model has the
            last weights; the best are in history.weights. Whether everything can be saved is
            checked before the first step. The file holds the model and the Generators of its
            layers, the optimizer, the History, the batches and the loss if they have a state_dict,
            the schedules, every other object with a state_dict whose method is called after a step,
            epoch or resume, and `parts`.
        save_every: Write the file also each time this many steps are done. Default: None, never.
        resume: A file of an earlier training to go on from. The options in it, the learning rate
            for example, replace those that the optimizer was made with; differences are printed. To
            go on with other options, set them in after_resume:
            ``after_resume=[lambda: optimizer.param_groups[0].update(lr=0.01)]`` (with a schedule,
            set its base_lrs).
        config: What must be the same when the training is resumed; see `save_training`.
        parts: Everything else that has a state to save, by name.

    Returns:
        The History. history.ended says what ended the training: "epochs", "steps", "patience" or
        "interrupted".

    Raises:
        TypeError, ValueError: An argument does not fit.
        RuntimeError: A loss or a gradient is not finite, or the loss depends on no parameter of the
            optimizer.
        CheckpointError: The file to resume does not fit.
        Exception: Whatever a given function raises. The model then has the weights of the last
            whole step.

    >>> import numpy as np, minigrad as mg
    >>> x = mg.Tensor(np.linspace(-1, 1, 32, dtype=np.float32)[:, None])
    >>> batches = [(x[i::4], 3 * x[i::4]) for i in range(4)]
    >>> net = mg.nn.Linear(1, 1)
    >>> adam = mg.optim.Adam(net.parameters(), lr=0.3)
    >>> def loss(x, y):
    ...     return mg.mse(net(x), y)
    >>> history = mg.training.fit(net, adam, loss, batches, epochs=20)    # doctest: +ELLIPSIS
    step ...
    >>> history.step, bool(history.loss[-1] < 0.01), history.ended
    (80, True, 'epochs')
    """
    _check_kinds(model, optimizer, batches, {"loss": loss, "validate": validate, "line": line})
    if epochs is None and steps is None:
        raise ValueError("fit: epochs or steps must say when the training ends, got neither")
    last_epoch, last_step = _total("epochs", epochs), _total("steps", steps)
    clip = number("fit", "clip", clip, ends="(]")
    _check_count("patience", patience, "validate", validate)
    _check_count("save_every", save_every, "save", save)
    history, reader = History(model), Reader(batches)
    history.options = _options(optimizer)
    calls = {
        "after_step": calls_of("after_step", after_step, history, validate),
        "after_epoch": calls_of("after_epoch", after_epoch, history, validate),
        "after_resume": calls_of("after_resume", after_resume, history, validate),
    }
    saved = everything(model, optimizer, history, reader, parts or {}, loss, calls)
    run = _Run(
        model=model,
        optimizer=optimizer,
        loss=loss,
        reader=reader,
        epochs=last_epoch,
        steps=last_step,
        clip=clip,
        validate=validate,
        patience=patience,
        line=line or default_line,
        calls=calls,
        file=_File(save, saved, config),
        save_every=save_every,
        history=history,
    )
    print_untrained(model, optimizer)
    run.file.check_place()
    if resume is not None:
        run.resume(resume)
    run.file.check_contents()
    return run.train()


@dataclass
class _File:
    """The file that a training is saved to; without a path nothing is saved."""

    path: str | os.PathLike[str] | None
    parts: Mapping[str, Any]
    config: Any

    def check_place(self) -> None:
        if self.path is not None:
            check_place(self.path)

    def check_contents(self) -> None:
        """Raise now what cannot be saved."""
        if self.path is not None:
            contents(*_training(self.parts, self.config))

    def write(self) -> None:
        if self.path is not None:
            save_training(self.path, self.parts, self.config)


@dataclass
class _Run:
    """One call of `fit`: what it was given, checked, and what has happened so far."""

    model: Module
    optimizer: Optimizer
    loss: Callable[..., Any]
    reader: Reader
    epochs: float
    steps: float
    clip: float
    validate: Callable[[], float] | None
    patience: int | None
    line: Callable[[History], str]
    calls: Mapping[str, list[tuple[Any, Callable[[History], Any]]]]
    file: _File
    save_every: int | None
    history: History
    first: int = 0  # the step that this run begins with
    start: float = 0.0  # the time when it began
    stop: list[int] = field(default_factory=list)  # filled by Ctrl-C

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file, with its options."""
        given = _options(self.optimizer)
        load_training(path, self.file.parts, self.file.config)
        print_resumed(path, self.history, given, self.optimizer)
        self._call("after_resume")

    def train(self) -> History:
        """Epochs until the training ends; then the best weights."""
        history = self.history
        self.first, self.start = history.step, time.perf_counter()
        try:
            with (
                _modes(self.model),
                interrupts() as self.stop,
                progress(self.first, self._last_step()) as show,
            ):
                if not self.model.training:
                    self.model.train()
                while self._ended() is None:
                    self._epoch(show)
                ended = self._ended()
                self._finish()
        except BaseException as error:
            self._broken_off(error)
            raise
        finally:
            self.optimizer.zero_grad()
        history.ended = ended
        print_end(history, self.patience, history.step == self.first)
        return history

    def _ended(self) -> str | None:
        """What ends the training now; None if nothing does."""
        history = self.history
        if self.stop:
            return "interrupted"
        if history.step >= self.steps:
            return "steps"
        if history.epoch >= self.epochs:
            return "epochs"
        if self.patience is not None:
            best = -1 if history.best is None else history.best
            if len(history.validation) - 1 - best >= self.patience:
                return "patience"
        return None

    def _last_step(self) -> float:
        """The step at which the training ends, as far as that is known; else infinite."""
        batches: Any = self.reader.batches
        if not hasattr(batches, "__len__"):
            return self.steps
        count: int = len(batches)
        return min(self.steps, self.epochs * count)

    def _epoch(self, show: Callable[[History, Callable[[History], str]], None]) -> None:
        """The rest of an epoch: its steps and, if it was not broken off, what follows it."""
        history = self.history
        for batch in self.reader.rest(history.epoch, history.batch):
            self._step(batch)
            self._after_step()
            show(history, self.line)
            if self.stop or history.step >= self.steps:
                return
        if not history.batch:
            raise ValueError(
                f"fit: batches gave none in epoch {history.epoch}; a generator is used up after "
                "one epoch"
            )
        history.epoch += 1
        history.batch = 0
        if self.validate is not None:
            self._validate()
        self._call("after_epoch")
        self.file.write()

    def _step(self, batch: Any) -> None:
        """Gradient, clipping, update."""
        if not isinstance(batch, (tuple, list)):
            raise TypeError(
                "fit: batches must give tuples, the arguments of loss, got "
                f"{type(batch).__name__}; (x,) is one of one"
            )
        history = self.history
        self.optimizer.zero_grad()
        value = _backward(self.loss(*batch), self.optimizer)
        norm = clip_grad_norm_(_owned(self.model, self.optimizer), self.clip)
        if not math.isfinite(value):
            raise RuntimeError(f"fit: the loss is {value} in step {history.step}")
        self.optimizer.step()
        history.loss.append(value)
        history.norm.append(norm)
        history.batch += 1
        elapsed = time.perf_counter() - self.start
        history.speed = (history.step - self.first) / max(elapsed, 1e-9)

    def _after_step(self) -> None:
        """What was given to be called, and the file where it is due."""
        self._call("after_step")
        if self.save_every is not None and self.history.step % self.save_every == 0:
            self.file.write()
        elif self.history.step == self.first + 1:
            self.file.check_contents()  # the first step made states that were not there before

    def _validate(self) -> None:
        """Validate, and keep the weights if they are the best so far."""
        history = self.history
        with _modes(self.model), no_grad():
            self.model.eval()
            assert self.validate is not None  # else nothing validates
            value = self.validate()
        history.validation.append(_validation(value))
        if history.best == len(history.validation) - 1:
            history.weights = self.model.state_dict()

    def _call(self, when: str) -> None:
        for _, function in self.calls[when]:
            function(self.history)

    def _finish(self) -> None:
        """Write the file, validate an epoch that `steps` cut short, and load the best weights."""
        history = self.history
        self.file.write()
        if self.validate is not None and history.batch and not self.stop:
            self._validate()  # not in the file: a resumed run goes on within that epoch
        if history.weights is not None:
            self.model.load_state_dict(history.weights)
        history.interrupted = bool(self.stop)

    def _broken_off(self, error: BaseException) -> None:
        """Note what ended the training, and print it."""
        history = self.history
        del history.norm[len(history.loss) :]  # the error may come between the two appends
        history.ended = f"{type(error).__name__}: {error}"
        history.interrupted = isinstance(error, KeyboardInterrupt)
        print_broken_off(history)


def _check_kinds(
    model: Any, optimizer: Any, batches: Any, functions: Mapping[str, Callable[..., Any] | None]
) -> None:
    """Is everything that must be an object of some kind one?"""
    if not isinstance(model, Module):
        raise TypeError(f"fit: model must be a Module, got {type(model).__name__}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"fit: optimizer must be an optimiser of minigrad.optim, got {type(optimizer).__name__}"
        )
    for name, function in functions.items():
        if not callable(function) and (function is not None or name == "loss"):
            raise TypeError(f"fit: {name} must be a function, got {type(function).__name__}")
    if isinstance(batches, (Tensor, np.ndarray, Mapping, str)) or not isinstance(batches, Iterable):
        raise TypeError(
            "fit: batches must be an iterable of tuples, the arguments of loss, "
            f"got {type(batches).__name__}"
        )


def _total(name: str, value: Any) -> float:
    """A limit as an int of at least 0; infinite where none was given."""
    return math.inf if value is None else integer("fit", name, value, 0)


def _check_count(name: str, value: Any, needed: str, given: Any) -> None:
    """Is it None, or a positive int together with the argument that it needs?"""
    if value is not None and size("fit", name, value) and given is None:
        raise ValueError(f"fit: {name} needs {needed}")


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of each group, without its parameters."""
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
                "be trained. Was the optimizer made from another model's parameters?"
            )
        return value.item()
    if not isinstance(value, Tensor):
        expected = "a Tensor of shape (), or go backward itself and return a float (see accumulate)"
        if not is_number(value):
            raise TypeError(f"fit: loss must return {expected}, got {type(value).__name__}")
        if not done:
            raise TypeError(
                f"fit: loss must return {expected}, got the {type(value).__name__} {value}, and "
                "no parameter of the optimizer has a gradient: return the loss itself, not its "
                "item()"
            )
    return value.item() if isinstance(value, Tensor) else real("fit", "loss", value)


def _validation(value: Any) -> float:
    """What `validate` returned, as a number."""
    if isinstance(value, Tensor) and value.size == 1:
        return value.item()
    if not is_number(value):
        raise TypeError(f"fit: validate must return a number, got {type(value).__name__}")
    return real("fit", "what validate returns", value)


@contextlib.contextmanager
def _modes(model: Module) -> Iterator[None]:
    """In the end each module is in train or eval mode as it was."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
