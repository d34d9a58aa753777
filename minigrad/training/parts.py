"""What `fit` saves: the parts of a training, by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from minigrad.nn.module import Module
from minigrad.optim.optimizers import Optimizer
from minigrad.random import Generator, default_generator
from minigrad.training.history import History
from minigrad.training.saving import _check_parts

__all__ = ["Reader", "everything"]


class Reader:
    """The batches of a training. The place that is saved is that of fit's own iteration, whoever
    else reads them."""

    def __init__(self, batches: Iterable[tuple[Any, ...]]) -> None:
        self.batches: Any = batches
        self.epoch: Any = None  # the running iteration
        self.stateful = _has_state(batches)

    def rest(self, epoch: int, over: int) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch without the first `over`, which those with a state know."""
        running: Iterator[tuple[Any, ...]] = iter(self.batches)
        self.epoch = running
        if not self.stateful:
            for k in range(over):
                if next(running, None) is None:
                    raise ValueError(
                        f"fit: batches must give at least the {over} that are over in "
                        f"epoch {epoch}, got {k}: other data?"
                    )
        return running

    def state_dict(self) -> dict[str, Any]:
        """The place of the running iteration if it has its own, else that of the batches."""
        source = self.epoch if hasattr(self.epoch, "state_dict") else self.batches
        state: dict[str, Any] = source.state_dict()
        return state

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
        distinct = {id(generator): generator for generator in found}
        distinct.pop(id(default_generator), None)
        self.generators = list(distinct.values())

    def state_dict(self) -> dict[str, Any]:
        return {"states": [generator.state for generator in self.generators]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state["states"]) != len(self.generators):
            raise ValueError(
                f"the model must have {len(state['states'])} generators, got {len(self.generators)}"
            )
        for generator, one in zip(self.generators, state["states"], strict=True):
            generator.state = one


def everything(
    model: Module,
    optimizer: Optimizer,
    history: History,
    reader: Reader,
    parts: Mapping[str, Any],
    loss: Any,
    calls: Mapping[str, list[tuple[Any, Callable[..., Any]]]],
) -> dict[str, Any]:
    """All that fit saves, by name."""
    _check_parts("fit", parts, "state_dict", "load_state_dict")
    found: dict[str, Any] = {"model": model, "optimizer": optimizer, "history": history}
    if reader.stateful:
        found["batches"] = reader
    for name, part in parts.items():
        if name in found:
            raise ValueError(
                f"fit: parts must have other names than {', '.join(found)}, got {name}"
            )
        found[name] = part
    owners = {"fit.loss": loss}
    for name, given in calls.items():
        for k, (owner, _) in enumerate(given):
            owners[f"fit.{name}[{k}]"] = owner
    known = {id(part) for part in (*found.values(), reader.batches)}
    for name, owner in owners.items():
        if id(owner) not in known and _has_state(owner):
            found[name] = owner
            known.add(id(owner))
    generators = _Generators(model)
    if generators.generators:
        found["fit.generators"] = generators
    return found


def _has_state(thing: Any) -> bool:
    return hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")
