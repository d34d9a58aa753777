"""Random numbers that can be repeated: Generator, manual_seed, and dropout with its masks.

The numbers come from a counter-based generator, Philox 4x64-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", 2011). The seed is its key, and each draw, such as the mask of one
dropout, reads the stream whose number is the count of the draws before it. So the state is two
whole numbers, seed and count, which go into a checkpoint as they are. What is drawn depends on
these alone: not on threads or dtypes, nor on how much the draws before have read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.checks import integer, probability
from minigrad.core.array import checked_dtype, checked_shape
from minigrad.core.operands import as_tensor
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor
from minigrad.ops.elementwise import mul

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from minigrad.core.tensor import Operand

__all__ = [
    "Generator",
    "checked_generator",
    "default_generator",
    "dropout",
    "dropout_mask",
    "dropped",
    "manual_seed",
]


class Generator:
    """A source of random numbers that can be repeated.

    Args:
        seed: a whole number of at least 0 and below 2 ** 128. Default: 0.

    Raises:
        TypeError: seed is not an int.
        ValueError: seed is outside its range.

    >>> import minigrad as mg
    >>> generator = mg.Generator(7)
    >>> first = mg.dropout_mask((2, 3), 0.5, generator=generator)
    >>> generator.state
    {'seed': 7, 'draws': 1}
    >>> generator.state = {"seed": 7, "draws": 0}
    >>> bool((mg.dropout_mask((2, 3), 0.5, generator=generator) == first).all())
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from a seed, a whole number below 2 ** 128; return the generator."""
        self._seed, self._draws = integer("manual_seed", "seed", seed, 0, 2**128 - 1), 0
        return self

    @property
    def state(self) -> dict[str, int]:
        """The seed and the number of draws so far: {"seed": int, "draws": int}, which JSON can
        hold. Assign it to go back to that point."""
        return {"seed": self._seed, "draws": self._draws}

    @state.setter
    def state(self, state: dict[str, int]) -> None:
        if not isinstance(state, dict):
            raise TypeError(
                f"Generator: state must be a dict with seed and draws, got {type(state).__name__}"
            )
        if set(state) != {"seed", "draws"}:
            raise ValueError(
                "Generator: state must have the keys seed and draws, "
                f"got {', '.join(map(str, state)) or 'none'}"
            )
        seed = integer("Generator", "seed", state["seed"], 0, 2**128 - 1)
        draws = integer("Generator", "draws", state["draws"], 0, 2**64 - 1)
        self._seed, self._draws = seed, draws

    def stream(self) -> np.random.Philox:
        """The stream of the next draw, for ``numpy.random.Generator(stream)`` or its
        ``random_raw``."""
        draw, self._draws = self._draws, self._draws + 1
        return np.random.Philox(key=self._seed, counter=[0, 0, draw, 0])

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, draws={self._draws})"


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Start `default_generator`, which is used where no other is given, again from a seed.

    Args:
        seed: a whole number of at least 0 and below 2 ** 128. At import it is 0.

    Returns:
        The generator.

    >>> import minigrad as mg
    >>> mg.manual_seed(1)
    Generator(seed=1, draws=0)
    """
    return default_generator.manual_seed(seed)


def dropout_mask(
    shape: int | tuple[int, ...],
    p: float,
    dtype: DTypeLike = np.float32,
    generator: Generator | None = None,
) -> np.ndarray:
    """An array of `shape` that is 0 with probability p and else 1 / (1 - p), so that its mean is 1.

    For recurrent (variational) dropout, draw it once and multiply by it at every step of a
    sequence. The same elements are 0 in float32 and float64. For p = 1 all are 0, and nothing is
    drawn.

    Args:
        shape: of the mask, an int or a tuple of ints.
        p: the probability of 0, from 0 to 1.
        dtype: float32 (default) or float64.
        generator: what to draw from. Default: `default_generator`.

    >>> import minigrad as mg
    >>> mg.dropout_mask((2, 3), 0.5, generator=mg.Generator(1))
    array([[0., 0., 2.],
           [2., 0., 0.]], dtype=float32)
    """
    op = "dropout_mask"
    shape = checked_shape(shape, op)
    p = probability(op, "p", p)
    dtype = checked_dtype(dtype, op)
    return _mask(shape, p, dtype, checked_generator(generator, op))


def _mask(shape: tuple[int, ...], p: float, dtype: np.dtype, generator: Generator) -> np.ndarray:
    if p == 1:
        return np.zeros(shape, dtype)
    size = int(np.prod(shape, dtype=object))
    # Each 64-bit word gives two numbers, the low half first; an element is dropped where its number
    # is below p * 2^32.
    numbers = (
        generator.stream().random_raw((size + 1) // 2).astype("<u8", copy=False).view("<u4")[:size]
    )
    kept = numbers >= np.uint32(min(round(p * 2**32), 2**32 - 1))
    mask: np.ndarray = np.multiply(kept, 1 / (1 - p), dtype=dtype).reshape(shape)
    return mask


def checked_generator(generator: Any, op: str) -> Generator:
    """The generator, or `default_generator` for None."""
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise TypeError(
            f"{op}: generator must be a minigrad.Generator or None, got {type(generator).__name__}"
        )
    return generator


# y = x * mask          dx = dy * mask


def dropout(
    x: Operand, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    """In training, x with each element set to 0 with probability p and the others divided by 1 - p;
    else x itself.

    Args:
        x: of any shape.
        p: the probability, from 0 to 1. Default: 0.5. With 0 the result is x itself, and nothing
            is drawn.
        training: whether to drop anything at all. Default: True.
        generator: what to draw from. Default: `default_generator`.

    Raises:
        TypeError: p is not a number.
        ValueError: p is NaN, or not from 0 to 1.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    >>> mg.dropout(x, 0.5, generator=mg.Generator(1))
    Tensor([0., 0., 6., 8.], grad_fn=<dropout>)
    """
    return dropped("dropout", x, p, training, generator)


def dropped(op: str, x: Operand, p: float, training: bool, generator: Generator | None) -> Tensor:
    """`dropout`, which messages call `op`."""
    p, generator = probability(op, "p", p), checked_generator(generator, op)
    x = as_tensor(x, op)
    if not training or p == 0:
        return x
    mask = Tensor(_mask(x.shape, p, x.dtype, generator))
    value = mul(x.detach(), mask)._array
    return record("dropout", value, (x,), mul, saved=(mask,), details={"p": p})
