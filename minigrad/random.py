"""Random numbers that can be repeated: Generator, manual_seed, and dropout with its masks.

The numbers come from a counter-based generator, Philox 4x64-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", 2011): the seed is its key, and each draw, the mask of one dropout
say, reads the stream whose number is the count of the draws before it. So the state is two whole
numbers, seed and count, which go into a checkpoint as they are. What is drawn depends on these
alone: not on threads or dtypes, nor on how much the draws before have read.
"""

import operator

import numpy as np

from minigrad.core.array import checked_dtype, checked_shape
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor, as_tensor
from minigrad.ops.elementwise import mul


class Generator:
    """Generator(seed=0): a source of random numbers.

    >>> import minigrad as mg
    >>> generator = mg.Generator(7)
    >>> first = mg.dropout_mask((2, 3), 0.5, generator=generator)
    >>> generator.state
    {'seed': 7, 'draws': 1}
    >>> generator.state = {"seed": 7, "draws": 0}
    >>> bool((mg.dropout_mask((2, 3), 0.5, generator=generator) == first).all())
    True
    """

    def __init__(self, seed=0):
        self.manual_seed(seed)

    def manual_seed(self, seed) -> "Generator":
        """Start anew from a seed, a whole number below 2 ** 128; return the generator."""
        self._seed, self._draws = _whole(seed, 2**128, "manual_seed", "seed"), 0
        return self

    @property
    def state(self) -> dict:
        """Where the generator is: {"seed": int, "draws": int}, which JSON can hold. Assign it to go
        back there."""
        return {"seed": self._seed, "draws": self._draws}

    @state.setter
    def state(self, state):
        if not isinstance(state, dict):
            raise TypeError(
                f"Generator: state must be a dict with seed and draws, got {type(state).__name__}"
            )
        if set(state) != {"seed", "draws"}:
            raise ValueError(
                f"Generator: state must have the keys seed and draws, got {', '.join(map(str, state)) or 'none'}"
            )
        seed, draws = (
            _whole(state["seed"], 2**128, "Generator", "seed"),
            _whole(state["draws"], 2**64, "Generator", "draws"),
        )
        self._seed, self._draws = seed, draws

    def stream(self) -> np.random.Philox:
        """The stream of the next draw, for ``numpy.random.Generator(stream)`` or its
        ``random_raw``."""
        draw, self._draws = self._draws, self._draws + 1
        return np.random.Philox(key=self._seed, counter=[0, 0, draw, 0])

    def __repr__(self):
        return f"Generator(seed={self._seed}, draws={self._draws})"


def _whole(value, end, op, argument):
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}: {argument} must be an int, got {type(value).__name__}")
    value = operator.index(value)
    if not 0 <= value < end:
        raise ValueError(f"{op}: {argument} must be from 0 to {end - 1}, got {value}")
    return value


default_generator = Generator()


def manual_seed(seed) -> Generator:
    """Start the generator that is used where none is given, `default_generator`, anew; return it.
    Its seed at import is 0.

    >>> import minigrad as mg
    >>> mg.manual_seed(1)
    Generator(seed=1, draws=0)
    """
    return default_generator.manual_seed(seed)


def checked_probability(p, op) -> float:
    """p as a float from 0 to 1."""
    if isinstance(p, bool) or not isinstance(p, (int, float, np.integer, np.floating)):
        raise TypeError(f"{op}: p must be a number, got {type(p).__name__}")
    if not 0 <= p <= 1:
        raise ValueError(f"{op}: p must be a probability from 0 to 1, got {p}")
    return float(p)


def dropout_mask(shape, p, dtype=np.float32, generator=None) -> np.ndarray:
    """An array of `shape` that is 0 with probability p and else 1 / (1 - p), so that its mean is 1.

    Draw it once and multiply by it at every step of a sequence for recurrent (variational) dropout.
    The same elements are 0 in float32 and float64. For p = 1 all are, and nothing is drawn.
    generator: `default_generator` if it is None.

    >>> import minigrad as mg
    >>> mg.dropout_mask((2, 3), 0.5, generator=mg.Generator(1))
    array([[0., 0., 2.],
           [2., 0., 0.]], dtype=float32)
    """
    op = "dropout_mask"
    shape, p, dtype = checked_shape(shape, op), checked_probability(p, op), checked_dtype(dtype, op)
    return _mask(shape, p, dtype, checked_generator(generator, op))


def _mask(shape, p, dtype, generator):
    if p == 1:
        return np.zeros(shape, dtype)
    size = int(np.prod(shape, dtype=object))
    # Each 64-bit word gives two numbers, the low half first; an element is dropped where its number
    # is below p * 2^32.
    numbers = (
        generator.stream().random_raw((size + 1) // 2).astype("<u8", copy=False).view("<u4")[:size]
    )
    kept = numbers >= np.uint32(min(round(p * 2**32), 2**32 - 1))
    return np.multiply(kept, 1 / (1 - p), dtype=dtype).reshape(shape)


def checked_generator(generator, op):
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise TypeError(
            f"{op}: generator must be a minigrad.Generator or None, got {type(generator).__name__}"
        )
    return generator


def dropout(x, p=0.5, training=True, generator=None) -> Tensor:
    """In training, x with each element set to 0 with probability p and the others divided by 1 - p;
    else x itself.

    p = 0 gives x itself too, and draws nothing. A p outside [0, 1] or NaN is a ValueError, one that
    is no number a TypeError.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    >>> mg.dropout(x, 0.5, generator=mg.Generator(1))
    Tensor([0., 0., 6., 8.], grad_fn=<dropout>)
    """
    p, generator = checked_probability(p, "dropout"), checked_generator(generator, "dropout")
    x = as_tensor(x, "dropout")
    if not training or p == 0:
        return x
    mask = Tensor(_mask(x.shape, p, x.dtype, generator), copy=False)
    return record("dropout", mul(x.detach(), mask)._array, (x,), lambda dy: mul(dy, mask))
