"""Module and Parameter: what holds weights, and how they are found, saved, copied and shown."""

from __future__ import annotations

import functools
import gc
import types
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from minigrad.checks import flag
from minigrad.core.array import is_masked
from minigrad.core.modes import no_grad
from minigrad.core.recording import OpenScope, is_studied, name_of_module, open_recorders
from minigrad.core.tensor import Tensor
from minigrad.nn.running import index_key, running
from minigrad.nn.telemetry import Telemetry
from minigrad.random import Generator

if TYPE_CHECKING:
    from typing_extensions import Self

    from minigrad.core.tensor import Operand

__all__ = ["Module", "Parameter"]


class Parameter(Tensor):
    """A Tensor that a Module trains: a leaf that requires a gradient.

    Args:
        data: the values, anything that mg.Tensor takes.
        dtype: float32 or float64. Default: that of the data, float32 for lists.

    >>> import minigrad as mg
    >>> mg.nn.Parameter([1.0, 2.0]).requires_grad
    True
    """

    def __init__(self, data: Operand, dtype: DTypeLike | None = None) -> None:
        super().__init__(data, dtype=dtype, requires_grad=True)

    def __getitem__(self, index: Any) -> Tensor:
        """A part of it. While a sequence runs through a cell, the same part is made once."""
        sequence = running()
        key = None if sequence is None else index_key(index)
        if sequence is None or key is None:
            return super().__getitem__(index)
        return sequence.slice_of(self, key, lambda: super(Parameter, self).__getitem__(index))


def tensor_of(op: str, name: str, value: Any, dtype: np.dtype[Any]) -> Tensor:
    """`value` as a Tensor of this dtype: itself, or a copy, since backward reads it again and
    arrays are often filled anew."""
    if isinstance(value, Tensor):
        found = value
    else:
        try:
            found = Tensor(value, dtype=None if hasattr(value, "dtype") else dtype)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("Tensor: data", f"{op}: {name}", 1)) from None
    if found.dtype != dtype:
        raise TypeError(
            f"{op}: {name} has dtype {found.dtype}, the weights have {dtype}: convert the input "
            f"with {name}.astype('{dtype}') or make the weights with dtype={found.dtype}"
        )
    return found


# What can hold neither a Parameter nor a Module.
_PLAIN = frozenset(
    [
        type(None),
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        *(type(np.dtype(kind)) for kind in (np.float32, np.float64)),
        Generator,
        Telemetry,
        Tensor,
        *(
            kind
            for kind in vars(np).values()
            if isinstance(kind, type) and issubclass(kind, np.generic)
        ),
    ]
)


# What a search does not go into: what is shared by the whole program, and weights themselves.
_NOT_SEARCHED = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.FrameType,
    Tensor,
)


def _plain(value: Any) -> bool:
    """Is this surely no Parameter and no Module, and holds none?"""
    if type(value) in _PLAIN:
        return True
    if type(value) is np.ndarray:
        return bool(value.dtype != object)
    return isinstance(value, tuple) and all(type(item) in _PLAIN for item in value)


def _open(value: Any) -> bool:
    """Is this a list, tuple or dict of which `_within` finds all that it holds, or plain?"""
    kind = type(value)
    if kind is dict:
        if not gc.is_tracked(value):  # nothing but numbers and strings
            return True
        if not all([type(key) is str for key in value]):
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return _plain(value)
    return all([type(item) in _PLAIN or isinstance(item, (Parameter, Module)) for item in value])


def _within(value: Any, name: str) -> Iterator[tuple[str, Parameter | Module]]:
    """(name, thing) of the Parameters and Modules in a value: itself, or inside of lists, tuples
    and dicts with string keys, nested in any depth."""
    above: list[Any] = []  # what is being gone through, the outermost first
    open_items: list[Iterator[tuple[str, Any]]] = [iter([(name, value)])]
    while open_items:
        path, item = next(open_items[-1], (None, None))
        if path is None:
            open_items.pop()
            if above:
                above.pop()
        elif isinstance(item, (Parameter, Module)):
            yield path, item
        elif not any(item is outer for outer in above):  # else a list inside itself
            inside = _items(item)
            if inside:
                above.append(item)
                open_items.append(iter([(f"{path}.{key}", thing) for key, thing in inside]))


def _items(value: Any) -> list[tuple[str, Any]]:
    """(key, item) of a list, a tuple, or a dict's string keys; nothing if they are surely plain."""
    if isinstance(value, dict):
        if not gc.is_tracked(value):  # nothing but numbers and strings
            return []
        return [(key, item) for key, item in value.items() if isinstance(key, str)]
    if isinstance(value, (list, tuple)) and not _PLAIN.issuperset(map(type, value)):
        return [(str(i), item) for i, item in enumerate(value)]
    return []


def _referents(thing: Any) -> list[Any]:
    """What an object holds. Of a function its closure and its defaults, not the globals that it can
    name."""
    if isinstance(thing, types.FunctionType):
        return [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, vars(thing)]
    if isinstance(thing, np.ndarray):
        return list(thing.flat) if thing.dtype == object else []
    if isinstance(thing, types.GeneratorType):  # whose variables Python 3.10 does not tell gc
        return [] if thing.gi_frame is None else list(thing.gi_frame.f_locals.values())
    return gc.get_referents(thing)


@functools.lru_cache(maxsize=1024)
def _class_attributes(kind: type) -> tuple[str, ...]:
    """Names in a Module's class, and in those it is made from, that may lead to a Parameter or a
    Module: slots, and values."""
    return tuple(
        name
        for base in kind.__mro__[: kind.__mro__.index(Module)]
        for name, value in vars(base).items()
        if isinstance(
            value, (Parameter, Module, list, tuple, dict, set, types.MemberDescriptorType)
        )
        and not name.startswith("__")  # __slots__, the fields of a dataclass
    )


def _out_of_reach(start: Any, reached: set[int]) -> tuple[Any, Any] | None:
    """A Parameter or Module that `start` holds and that is not among those reached, with what holds
    it; or None."""
    seen, stack = {id(start)}, [(start, start)]
    while stack:
        thing, holder = stack.pop()
        if isinstance(thing, (Parameter, Module)):
            if id(thing) not in reached:
                return thing, holder
            continue
        if isinstance(thing, _NOT_SEARCHED):
            continue
        for inside in _referents(thing):
            if id(inside) not in seen and not _plain(inside):
                seen.add(id(inside))
                passed_on = isinstance(thing, types.CellType) or type(inside) is tuple
                stack.append((inside, holder if passed_on else thing))
    return None


class Module:
    """What holds parameters, and other modules, as attributes; calling it calls its `forward`.

    Parameters and modules are found in attributes and in lists, tuples and dicts with string keys
    there, nested too; their names lead there: ``weight``, ``layers.0.weight``, ``heads.tags.bias``.
    One that the module holds in any other way (a set, a plain object, a closure, a dict with other
    keys, a class attribute) would be neither trained nor saved: that is a TypeError when the module
    is called for the first time and whenever its parameters or modules are asked for. So is a plain
    Tensor in the place of a parameter, but not in a call: there it serves to differentiate with
    respect to it. Two things of one name are a ValueError.

    A subclass sets its parameters and modules in __init__, which needs no super().__init__(), and
    defines `forward`. The attribute `training` is True until `eval` is called.

    Copies (copy.deepcopy, pickle) have parameters and gradients of their own. Activations that the
    module keeps are copied as constants: the graph that they were made by, and hooks, stay with the
    original.

    >>> import minigrad as mg
    >>> class Net(mg.nn.Module):
    ...     def __init__(self):
    ...         self.hidden = mg.nn.Linear(3, 4)
    ...         self.out = mg.nn.Linear(4, 1)
    ...     def forward(self, x):
    ...         return self.out(mg.tanh(self.hidden(x)))
    >>> Net()
    Net(                       # 21 parameters
      hidden: Linear(3, 4)     # 16 parameters
      out: Linear(4, 1)        # 5 parameters
    )
    """

    # Not in vars(module), which is the user's. _checked: since the last look for what is out of
    # reach no attribute was set.
    # _replaced: names of Parameters that a plain Tensor has taken the place of.
    __slots__ = ("__dict__", "__weakref__", "_checked", "_replaced")

    _checked: bool
    _replaced: tuple[str, ...]

    training: bool = True

    _repr_html_: ClassVar[Callable[[Module], str]]  # for notebooks: minigrad/study/notebook.py

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = object.__new__(cls)
        object.__setattr__(self, "_checked", False)
        object.__setattr__(self, "_replaced", ())
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes of `args` and `kwargs`; each module has its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._checked:
            self._check_reach()
        if open_recorders and is_studied():
            scope = OpenScope(name_of_module(self), self)
            try:
                return self.forward(*args, **kwargs)
            finally:
                scope.end()
        return self.forward(*args, **kwargs)

    def _paths_inside(self) -> dict[int, str]:
        """The path of each module inside by its id(), for the scopes of a recording."""
        paths = {id(self): ""}
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            prefix, module = stack.pop()
            for attribute, value in vars(module).items():
                if type(value) in _PLAIN or isinstance(value, Tensor):
                    continue
                for name, thing in _within(value, prefix + attribute):
                    if isinstance(thing, Module) and id(thing) not in paths:
                        paths[id(thing)] = name
                        stack.append((name + ".", thing))
        del paths[id(self)]
        return paths

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(vars(self).get(name), Parameter) and not (
            value is None or isinstance(value, Parameter)
        ):
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"{type(self).__name__}: {name} is a Parameter, it can be replaced by a "
                    f"Parameter, a Tensor or None, got {type(value).__name__}; "
                    f"to change its values: {name}[...] = value, within no_grad()"
                )
            object.__setattr__(self, "_replaced", (*self._replaced, name))
        object.__setattr__(self, name, value)
        if self._checked and not _plain(value) and not (type(value) in (list, dict) and not value):
            object.__setattr__(self, "_checked", False)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        object.__setattr__(self, "_checked", False)

    def _members(self) -> list[tuple[str, Parameter | Module]]:
        """(name, thing) of what this module holds itself: its Parameters, then its Modules, in the
        order of assignment."""
        members = [found for name, value in vars(self).items() for found in _within(value, name)]
        return sorted(members, key=lambda member: isinstance(member[1], Module))

    def _walk(
        self, running: bool = False, again: bool = True
    ) -> list[tuple[str, Parameter | Module]]:
        """(name, thing) of all Parameters and Modules here and inside, each once. Everything that
        goes through a module does so by this list. running: for a call, which a Tensor in the place
        of a Parameter is good enough for. again: look for what is out of reach also in modules of
        which no attribute was set since the last look: a set, say, may have got a Parameter."""
        found: list[tuple[str, Parameter | Module]] = []
        names: dict[str, Parameter | Module] = {}
        reached: set[int] = set()
        doubtful: list[tuple[Module, str, str, Any]] = []
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            path, module = stack.pop()
            if names.setdefault(path, module) is not module:
                raise self._two_of_one_name(path)
            if id(module) in reached:
                continue
            reached.add(id(module))
            found.append((path, module))
            prefix = f"{path}." if path else ""
            looked_at = module._checked and not again
            parameters: list[tuple[str, Parameter]] = []
            modules: list[tuple[str, Module]] = []
            for attribute, value in vars(module).items():
                if type(value) in _PLAIN:
                    continue
                if isinstance(value, Parameter):
                    parameters.append((prefix + attribute, value))
                elif isinstance(value, Module):
                    modules.append((prefix + attribute, value))
                else:
                    for name, thing in _within(value, attribute):
                        if isinstance(thing, Module):
                            modules.append((prefix + name, thing))
                        else:
                            parameters.append((prefix + name, thing))
                    if not looked_at and not _open(value):
                        doubtful.append((module, path, attribute, value))
            for member in parameters:
                name, thing = member
                if names.setdefault(name, thing) is not thing:
                    raise self._two_of_one_name(name)
                if id(thing) not in reached:
                    reached.add(id(thing))
                    found.append(member)
            if modules:
                stack += reversed(modules)
            if not looked_at:
                kind: type = type(module)
                for name in _class_attributes(kind):
                    if hasattr(module, name):
                        doubtful.append((module, path, name, getattr(module, name)))
            if module._replaced and not running:
                module._check_replaced(path)
        for module, path, name, value in doubtful:
            module._check_attribute(path, name, value, reached)
        return found

    def _two_of_one_name(self, name: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: two parameters or modules have the name {name}")

    def _check_replaced(self, path: str) -> None:
        """A plain Tensor in the place of a Parameter would be neither trained nor saved."""
        for name in self._replaced:
            value = vars(self).get(name)
            if isinstance(value, Tensor) and not isinstance(value, Parameter):
                raise TypeError(
                    f"{type(self).__name__}: {path + '.' if path else ''}{name} was a Parameter "
                    "and is a Tensor now, which is neither trained nor saved: replace it by a "
                    "Parameter, or change the values of the one that was there with "
                    f"{name}[...] = value, within no_grad()"
                )

    def _check_attribute(self, path: str, name: str, value: Any, reached: set[int]) -> None:
        """Does an attribute hold a Parameter or a Module that the walk has not reached?"""
        if isinstance(value, (Parameter, Module)) and name in vars(self) or _plain(value):
            return
        hidden = _out_of_reach(value, reached)
        if hidden is not None:
            thing, holder = hidden
            kind = "Parameter" if isinstance(thing, Parameter) else f"module {type(thing).__name__}"
            place = "a class attribute" if holder is thing else f"a {type(holder).__name__}"
            raise TypeError(
                f"{type(self).__name__}: {path + '.' if path else ''}{name} holds a {kind} in "
                f"{place}, where it is neither trained nor saved: keep it in an attribute, a list, "
                "a tuple or a dict with string keys"
            )

    def _check_reach(self) -> None:
        """Before the first call, and after attributes were set: look for what is out of reach, here
        and inside."""
        for _, module in self._walk(running=True):
            if isinstance(module, Module):
                module._check_weights()
                object.__setattr__(module, "_checked", True)

    def _check_weights(self) -> None:
        """Before the first call, and after attributes were set: do the weights fit each other?"""

    def __getstate__(self) -> dict[str, Any]:
        memo: dict[int, Tensor] = {}
        return {name: _without_graph(value, memo) for name, value in vars(self).items()}

    def __copy__(self) -> Self:
        copy = type(self).__new__(type(self))
        vars(copy).update(vars(self))
        return copy

    def children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules directly inside, those in lists, tuples and dicts too, in
        the order of assignment."""
        self._walk()
        for name, member in self._members():
            if isinstance(member, Module):
                yield name, member

    def modules(self) -> Iterator[Module]:
        """This module and all inside, each once."""
        for _, member in self._walk():
            if isinstance(member, Module):
                yield member

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of all parameters, each once; the name leads there, as in
        ``hidden.weight``."""
        for name, member in self._walk():
            if isinstance(member, Parameter):
                yield name, member

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        return iter([member for _, member in self._walk() if isinstance(member, Parameter)])

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for _, member in self._walk(again=False):
            if isinstance(member, Parameter):
                member.grad = None

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off here and in all modules inside; return the module.

        Args:
            mode: True for training (default), False for evaluation.
        """
        mode = flag("train", "mode", mode)
        for _, member in self._walk(again=False):
            if isinstance(member, Module):
                member.training = mode
        return self

    def eval(self) -> Self:
        """Switch dropout off: train(False)."""
        return self.train(False)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of all parameters by name."""
        return {name: parameter.numpy().copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all parameters.

        Args:
            state: an array for each parameter by its name, as `state_dict` returns them.

        Raises:
            TypeError: state is no dict.
            ValueError: a name is missing or unexpected, or an array is of another shape or dtype.
                It lists all that is wrong, and no parameter has changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(
                f"load_state_dict: state must be a dict of arrays, got {type(state).__name__}"
                + _hint(state)
            )
        own, state = dict(self.named_parameters()), dict(state)
        arrays: dict[str, np.ndarray] = {}
        wrong = [f"missing: {name}" for name in own if name not in state]
        wrong += [f"unexpected: {name}" for name in state if name not in own]
        for name, parameter in own.items():
            if name in state:
                problem, array = _array_for(parameter, state[name])
                if array is None:
                    wrong.append(f"{name} {problem}")
                else:
                    arrays[name] = array
        if wrong:
            raise ValueError(
                f"load_state_dict: {type(self).__name__} does not fit the state: "
                + "; ".join(wrong)
            )
        with no_grad():
            for name, array in arrays.items():
                own[name][...] = array

    def options(self) -> str:
        """What __repr__ shows in the brackets of a module that has no modules inside."""
        return ""

    def __repr__(self) -> str:
        lines = self._lines("", ())
        width = max(len(text) for text, _ in lines)
        return "\n".join(
            text if count is None else f"{text.ljust(width)}     # {count:,} parameters"
            for text, count in lines
        )

    def _lines(self, label: str, above: tuple[int, ...]) -> list[tuple[str, int | None]]:
        if id(self) in above:
            return [(f"{label}{type(self).__name__}(...)", None)]  # a module inside itself
        children, count = list(self.children()), sum(p.size for p in self.parameters())
        head = f"{label}{type(self).__name__}("
        if not children:
            return [(f"{head}{self.options()})", count)]
        inside = [
            (f"  {text}", n)
            for name, child in children
            for text, n in child._lines(f"{name}: ", (*above, id(self)))
        ]
        return [(head, count), *inside, (")", None)]


def _hint(state: Any) -> str:
    """What was meant, where load_state_dict is given what another function returned."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], Mapping):
        return ": load returns (arrays, extra), so use load_state_dict(mg.load(path)[0])"
    return ": use load_state_dict(other.state_dict())" if isinstance(state, Module) else ""


def _array_for(parameter: Parameter, value: Any) -> tuple[str, np.ndarray | None]:
    """(what is wrong, None), or ("", a copy of the value that fits the parameter): it may be a view
    of another parameter."""
    if not isinstance(
        value, (Tensor, np.ndarray, np.generic, list, tuple, float, int)
    ) and not hasattr(value, "__array__"):
        return f"must be an array, got {type(value).__name__}", None
    if is_masked(value):
        return "must not be a masked array", None
    try:
        array = np.array(value)
    except ValueError:
        return "must be an array, got nested lists of different lengths", None
    except Exception as error:  # __array__ of a torch Tensor that requires grad, for one
        kind = type(value).__name__
        return f"must be an array, got {kind}, which NumPy cannot read ({error})", None
    if array.shape != parameter.shape:
        return f"must have shape {parameter.shape}, got {array.shape}", None
    if array.dtype != parameter.dtype:
        return f"must have dtype {parameter.dtype}, got {array.dtype}", None
    if not parameter._array.flags.writeable:
        return "is read-only", None
    return "", array


def _without_graph(value: Any, memo: dict[int, Tensor], above: tuple[int, ...] = ()) -> Any:
    """The value, with activations in it, in lists, tuples and dicts too, replaced by constants."""
    if isinstance(value, Tensor):
        return value if value.is_leaf else memo.setdefault(id(value), value.detach())
    if not isinstance(value, (dict, list, tuple)) or id(value) in above:
        return value
    if isinstance(value, dict):
        if not gc.is_tracked(value):
            return value
        entries = {
            key: _without_graph(item, memo, (*above, id(value))) for key, item in value.items()
        }
        return value if all(entries[key] is item for key, item in value.items()) else entries
    items = [_without_graph(item, memo, (*above, id(value))) for item in value]
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
