"""Module and Parameter, and the three layers that are no sequences: Linear, Embedding, Dropout. Recurrent cells are in
cells.py."""
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minigrad.index import embedding
from minigrad.matmul import addmm, matmul
from minigrad.random import Generator, checked_probability, default_generator, dropout
from minigrad.tensor import Tensor, check_data, checked_dtype, no_grad


class Parameter(Tensor):
    """A Tensor that a Module trains: a leaf that requires a gradient.

    >>> import minigrad as mg
    >>> mg.nn.Parameter([1.0, 2.0]).requires_grad
    True
    """

    def __init__(self, data: Any, dtype: Any = None) -> None:
        super().__init__(data, dtype=dtype, requires_grad=True)


def size(op: str, name: str, value: Any) -> int:
    """`value` as a positive int; a bool or a float is a TypeError."""
    try:
        found = operator.index(None if isinstance(value, (bool, np.bool_)) else value)
    except Exception:
        raise TypeError(f"{op}: {name} must be an int, got {type(value).__name__}") from None
    if found <= 0:
        raise ValueError(f"{op}: {name} must be greater than zero, got {found}")
    if found >= 2**31:
        raise ValueError(f"{op}: {name} must be below 2 ** 31, got {found}")
    return found


def flag(op: str, name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} must be a bool, got {type(value).__name__}")
    return bool(value)


def plain_array(op: str, name: str, value: Any) -> np.ndarray:
    """`value` as an array; a masked array and nested lists of different lengths are errors."""
    check_data(value, op, name)
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{op}: {name} must be an array, got nested lists of different lengths") from None


def numbers(op: str, rng: np.random.Generator | None) -> np.random.Generator:
    """The source of initial weights: `rng`, or a stream of minigrad's default generator (see manual_seed)."""
    if rng is None:
        return np.random.Generator(default_generator.stream())
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"{op}: rng must be a numpy.random.Generator or None, got {type(rng).__name__}")
    return rng


def glorot(rng: np.random.Generator, fan_in: int, fan_out: int) -> np.ndarray:
    """(fan_in, fan_out) numbers, uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16)."""
    bound = np.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-bound, bound, (fan_in, fan_out))


class Module:
    """What holds parameters, and other modules, as attributes; calling it calls its `forward`.

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

    training: bool = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; each module has its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the modules directly inside, those in lists too, in the order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{i}", item

    def modules(self) -> Iterator["Module"]:
        """This module and all inside."""
        yield self
        for _, child in self.children():
            yield from child.modules()

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of all parameters, each once; the name leads there, as in ``hidden.weight``."""
        seen: set[int] = set()
        for name, parameter in self._walk(""):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def _walk(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, child in self.children():
            yield from child._walk(f"{prefix}{name}.")

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, each once."""
        for _, parameter in self.named_parameters():
            yield parameter

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> "Module":
        """Switch dropout on (or off) here and in all modules inside; return the module."""
        for module in self.modules():
            module.training = flag("train", "mode", mode)
        return self

    def eval(self) -> "Module":
        """Switch dropout off: train(False)."""
        return self.train(False)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of all parameters by name."""
        return {name: parameter.numpy().copy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all parameters from arrays by name. Anything missing, unexpected, or of another shape or dtype is one ValueError
        that lists it all; then no parameter has changed."""
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: state must be a dict of arrays, got {type(state).__name__}")
        own, wrong, arrays = dict(self.named_parameters()), [], {}
        wrong += [f"missing: {name}" for name in own if name not in state]
        wrong += [f"unexpected: {name}" for name in state if name not in own]
        for name, parameter in own.items():
            if name in state:
                if isinstance(state[name], np.ma.MaskedArray):
                    wrong.append(f"{name} must not be a masked array")
                    continue
                try:
                    arrays[name] = array = np.array(state[name])        # a copy: it may be a view of another parameter
                except ValueError:
                    wrong.append(f"{name} must be an array, got nested lists of different lengths")
                    continue
                if array.shape != parameter.shape:
                    wrong.append(f"{name} must have shape {parameter.shape}, got {array.shape}")
                elif array.dtype != parameter.dtype:
                    wrong.append(f"{name} must have dtype {parameter.dtype}, got {array.dtype}")
        if wrong:
            raise ValueError(f"load_state_dict: {type(self).__name__} does not fit the state: " + "; ".join(wrong))
        with no_grad():
            for name, array in arrays.items():
                own[name][...] = array

    def options(self) -> str:
        """What __repr__ shows in the brackets of a module that has no modules inside."""
        return ""

    def __repr__(self) -> str:
        lines = self._lines("")
        width = max(len(text) for text, _ in lines)
        return "\n".join(text if count is None else f"{text.ljust(width)}     # {count:,} parameters" for text, count in lines)

    def _lines(self, label: str) -> list[tuple[str, int | None]]:
        children, count = list(self.children()), sum(p.size for p in self.parameters())
        head = f"{label}{type(self).__name__}("
        if not children:
            return [(f"{head}{self.options()})", count)]
        inside = [(f"  {text}", n) for name, child in children for text, n in child._lines(f"{name}: ")]
        return [(head, count), *inside, (")", None)]


class Linear(Module):
    """The slide's linear layer x W + b, with W (d, k) stored as on the slide: Linear(d, k, bias=True, dtype=float32, rng=None).

    W is Glorot-uniform, b zero. x: (..., d); the result is (..., k).

    >>> import numpy as np, minigrad as mg
    >>> mg.nn.Linear(3, 4)(mg.Tensor(np.ones((2, 3), np.float32))).shape
    (2, 4)
    """

    def __init__(
        self, d: int, k: int, bias: bool = True, dtype: Any = np.float32, rng: np.random.Generator | None = None
    ) -> None:
        d, k, dtype = size("linear", "d", d), size("linear", "k", k), checked_dtype(dtype, "linear")
        self.weight = Parameter(glorot(numbers("linear", rng), d, k), dtype)
        self.bias = Parameter(np.zeros(k), dtype) if flag("linear", "bias", bias) else None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d) -> (..., k)."""
        if not isinstance(x, Tensor):
            raise TypeError(f"linear: x must be a Tensor, got {type(x).__name__}")
        if x.dtype != self.weight.dtype:
            hint = f"convert the input with x.astype('{self.weight.dtype}')"
            raise TypeError(f"linear: x has dtype {x.dtype}, the weights have {self.weight.dtype}: {hint}")
        if x.ndim == 0 or x.shape[-1] != self.weight.shape[0]:
            raise ValueError(f"linear: x must have shape (..., {self.weight.shape[0]}) = (..., d), got {x.shape}")
        if self.bias is None or x.ndim < 2:
            product = matmul(x, self.weight)
            return product if self.bias is None else product + self.bias
        return addmm(self.bias, x, self.weight)

    def options(self) -> str:
        return ", ".join(map(str, self.weight.shape)) + ("" if self.bias is not None else ", bias=False")


class Embedding(Module):
    """A table of n vectors of length d, standard normal at first: Embedding(n, d, dtype=float32, rng=None). indices: ints of
    any shape; the result is (..., d).

    >>> import minigrad as mg
    >>> mg.nn.Embedding(10, 3)([1, 2]).shape
    (2, 3)
    """

    def __init__(self, n: int, d: int, dtype: Any = np.float32, rng: np.random.Generator | None = None) -> None:
        shape = size("embedding", "n", n), size("embedding", "d", d)
        self.weight = Parameter(numbers("embedding", rng).standard_normal(shape), checked_dtype(dtype, "embedding"))

    def forward(self, indices: Any) -> Tensor:
        """indices (...) -> (..., d)."""
        return embedding(self.weight, indices)

    def options(self) -> str:
        return ", ".join(map(str, self.weight.shape))


class Dropout(Module):
    """In training, sets each element to 0 with probability p and scales the rest by 1 / (1 - p): Dropout(p, generator=None).
    Else the identity.

    >>> import minigrad as mg
    >>> layer = mg.nn.Dropout(0.5).eval()
    >>> layer(mg.ones(2))
    Tensor([1., 1.])
    """

    def __init__(self, p: float, generator: Generator | None = None) -> None:
        if generator is not None and not isinstance(generator, Generator):
            raise TypeError(f"dropout: generator must be a minigrad.Generator or None, got {type(generator).__name__}")
        self.p, self.generator = checked_probability(p, "dropout"), generator

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return dropout(x, self.p, self.training, self.generator)

    def options(self) -> str:
        return str(self.p)
