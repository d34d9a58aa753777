"""Layers without a state: Linear, Embedding, Dropout."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from minigrad.checks import flag, probability, size
from minigrad.core.array import checked_dtype
from minigrad.core.tensor import Tensor
from minigrad.nn.init import glorot, numbers
from minigrad.nn.module import Module, Parameter, tensor_of
from minigrad.ops.index import lookup
from minigrad.ops.matmul import addmm, matmul
from minigrad.random import Generator, checked_generator, dropped

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["Dropout", "Embedding", "Linear"]


class Linear(Module):
    """The linear layer x W + b: x (..., d) to (..., k), with W (d, k) stored as on the slide.

    W starts Glorot-uniform, b zero. They are the attributes `weight` and `bias`.

    Args:
        d: features of the input.
        k: features of the output.
        bias: add b, (k,). Default: True.
        dtype: of the weights, float32 (default) or float64.
        rng: a numpy.random.Generator for the initial weights. Default: minigrad's generator, see
            mg.manual_seed.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a size is below 1.

    >>> import numpy as np, minigrad as mg
    >>> mg.nn.Linear(3, 4)(mg.Tensor(np.ones((2, 3), np.float32))).shape
    (2, 4)
    """

    if TYPE_CHECKING:  # what Module does, with the types of forward

        def __call__(self, x: Operand) -> Tensor: ...

    def __init__(
        self,
        d: int,
        k: int,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        d = size("Linear", "d", d)
        k = size("Linear", "k", k)
        dtype = checked_dtype(dtype, "Linear")
        self.weight = Parameter(glorot(d, k, numbers("Linear", rng), np.float64), dtype)
        self.bias = Parameter(np.zeros(k), dtype) if flag("Linear", "bias", bias) else None

    def _check_weights(self) -> None:
        weight, bias = self.weight, self.bias
        if not isinstance(weight, Tensor):
            raise TypeError(f"Linear: weight must be a Tensor, got {type(weight).__name__}")
        if weight.ndim != 2:
            raise ValueError(f"Linear: weight must have shape (d, k), got {weight.shape}")
        if bias is None:
            return
        if not isinstance(bias, Tensor):
            raise TypeError(f"Linear: bias must be a Tensor or None, got {type(bias).__name__}")
        if bias.shape != weight.shape[1:]:
            raise ValueError(
                f"Linear: bias must have shape {weight.shape[1:]} = (k,), got {bias.shape}"
            )

    def forward(self, x: Operand) -> Tensor:
        """Compute x W + b.

        Args:
            x: (..., d), a Tensor or an array of the dtype of the weights.

        Returns:
            A Tensor (..., k).

        Raises:
            TypeError: x has another dtype.
            ValueError: x has another number of features.
        """
        if self.weight.ndim != 2:
            raise ValueError(f"Linear: weight must have shape (d, k), got {self.weight.shape}")
        x = tensor_of("Linear", "x", x, self.weight.dtype)
        if x.ndim == 0 or x.shape[-1] != self.weight.shape[0]:
            raise ValueError(
                f"Linear: x must have shape (..., {self.weight.shape[0]}) = (..., d), got {x.shape}"
            )
        if self.bias is None or x.ndim < 2:
            product = matmul(x, self.weight)
            return product if self.bias is None else product + self.bias
        return addmm(self.bias, x, self.weight)

    def options(self) -> str:
        return _sizes(self.weight) + ("" if self.bias is not None else ", bias=False")


class Embedding(Module):
    """A table of n vectors of length d: indices (...), ints from 0 to n - 1, to vectors (..., d).

    The table is the attribute `weight`, (n, d); it starts standard normal.

    Args:
        n: number of vectors.
        d: length of each vector.
        dtype: of the weights, float32 (default) or float64.
        rng: a numpy.random.Generator for the initial weights. Default: minigrad's generator, see
            mg.manual_seed.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a size is below 1.

    >>> import minigrad as mg
    >>> mg.nn.Embedding(10, 3)([1, 2]).shape
    (2, 3)
    """

    if TYPE_CHECKING:  # what Module does, with the types of forward

        def __call__(self, indices: ArrayLike) -> Tensor: ...

    def __init__(
        self, n: int, d: int, dtype: DTypeLike = np.float32, rng: np.random.Generator | None = None
    ) -> None:
        shape = size("Embedding", "n", n), size("Embedding", "d", d)
        self.weight = Parameter(
            numbers("Embedding", rng).standard_normal(shape), checked_dtype(dtype, "Embedding")
        )

    def _check_weights(self) -> None:
        if not isinstance(self.weight, Tensor):
            raise TypeError(f"Embedding: weight must be a Tensor, got {type(self.weight).__name__}")
        if self.weight.ndim != 2:
            raise ValueError(f"Embedding: weight must have shape (n, d), got {self.weight.shape}")

    def forward(self, indices: ArrayLike) -> Tensor:
        """Look up vectors by their numbers.

        Args:
            indices: (...), ints from 0 to n - 1.

        Returns:
            A Tensor (..., d).

        Raises:
            TypeError: the indices are not ints.
            IndexError: one of them is out of range.
        """
        return lookup(self.weight, indices, "Embedding")

    def options(self) -> str:
        return _sizes(self.weight)


class Dropout(Module):
    """In training, sets each element to 0 with probability p and multiplies the others by
    1 / (1 - p). After `eval()` it is the identity.

    Args:
        p: the probability, from 0 to 1.
        generator: the minigrad.Generator that masks are drawn from. Default:
            mg.default_generator.

    Raises:
        TypeError: p is no number, or generator no Generator.
        ValueError: p is outside 0 to 1.

    >>> import minigrad as mg
    >>> layer = mg.nn.Dropout(0.5).eval()
    >>> layer(mg.ones(2))
    Tensor([1., 1.])
    """

    if TYPE_CHECKING:  # what Module does, with the types of forward

        def __call__(self, x: Operand) -> Tensor: ...

    def __init__(self, p: float, generator: Generator | None = None) -> None:
        if generator is not None:
            generator = checked_generator(generator, "Dropout")
        self.p = probability("Dropout", "p", p)
        self.generator = generator

    def forward(self, x: Operand) -> Tensor:
        """Drop elements in training; else return x itself.

        Args:
            x: of any shape.

        Returns:
            A Tensor of the same shape.

        Raises:
            TypeError: x is nothing that a Tensor can hold.
            ValueError: x is made of lists of different lengths, or `p` was set to a number outside
                0 to 1.
        """
        return dropped("Dropout", x, self.p, self.training, self.generator)

    def options(self) -> str:
        return str(self.p)


def _sizes(weight: Any) -> str:
    """The shape of a weight as text; what stands in its place, if that has none."""
    if isinstance(weight, Tensor):
        return ", ".join(map(str, weight.shape))
    return f"weight={reprlib.repr(weight)}"
