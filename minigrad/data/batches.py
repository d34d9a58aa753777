"""Padded batches of sequences with their targets."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.checks import flag, size
from minigrad.data.arrays import _array, _list, _sequences
from minigrad.data.place import _checked_place, _Place, _Spot
from minigrad.random import Generator, checked_generator

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["NO_CLASS", "Batches", "pad"]

NO_CLASS = -100  # cross_entropy and the metrics leave such targets out

POOL = 50  # batches: sequences are sorted by length within a pool of so many


def _padded(arrays: list[np.ndarray], fill: int) -> np.ndarray:
    x = np.full((max(map(len, arrays)), len(arrays), *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for b, a in enumerate(arrays):
        x[: len(a), b] = a
    return x


def pad(sequences: Sequence["Operand"]) -> tuple[np.ndarray, np.ndarray]:
    """Put sequences of different lengths side by side.

    Args:
        sequences: N arrays or lists, each (length, ...), of one dtype and of the same shape except
            for the length. A length may be 0: the recurrent layers accept that. Arrays keep their
            dtype, lists of floats become float32, and lists of whole numbers int64.

    Returns:
        (x, lengths): x (T, N, ...), with zeros after the end of each sequence; lengths (N,), int64.

    Raises:
        TypeError, ValueError: The sequences are not alike, or there are none.

    >>> import minigrad as mg
    >>> x, lengths = mg.data.pad([[1.0, 2.0, 3.0], [4.0]])
    >>> x
    array([[1., 4.],
           [2., 0.],
           [3., 0.]], dtype=float32)
    >>> lengths
    array([3, 1])
    """
    arrays = _sequences(sequences, "pad", "sequences")
    return _padded(arrays, 0), np.array([len(a) for a in arrays], np.int64)


def _are_classes(arrays: list[np.ndarray]) -> bool:
    """One whole number a step."""
    return arrays[0].ndim == 1 and arrays[0].dtype.kind in "iu"


def _as_classes(a: np.ndarray, name: str) -> np.ndarray:
    if a.size and a.max() > np.iinfo(np.int64).max:
        raise ValueError(
            f"Batches: {name} must be made of numbers that fit into int64, got {a.max()}"
        )
    return a.astype(np.int64)


class Batches(_Place):
    """Padded batches of sequences with their targets.

    One iteration is one epoch of (x (T, B, ...), lengths (B,), *targets). A target has one entry
    for each sequence, and comes as (B, ...), or one for each step of each sequence, and comes as
    (T, B, ...). After the end of a sequence a target of classes (one whole number for each step) is
    -100, which cross_entropy leaves out; everything else is 0. The last batch may be smaller.

    To know which sequences are in a batch, pass np.arange(len(sequences)) as a target.

    Args:
        sequences: N sequences as for `pad`. They are read by position, and so are the targets:
            lists, arrays, Tensors, and Series and tables of pandas, of which the rows count and not
            the labels. Numbers in lists become float32 or int64.
        *targets: Each has N entries.
        batch_size: The number of sequences in a batch, at least 1.
        shuffle: Whether the order is another one in each epoch. It takes one draw from the
            generator. Default: False.
        bucket: Whether sequences of similar lengths come together, which leaves less padding to
            compute. All are sorted by length or, with shuffle, those within random pools of 50
            batches, which are then mixed. Default: False.
        generator: What to draw from. Default: the generator that mg.manual_seed sets.
        per_step: Whether a target has an entry for each step (True), or one of any shape for each
            sequence (False); a list says it for each target. Default: None, which takes numbers as
            entries of sequences, and everything else as entries of steps. Vectors that are as long
            as all the sequences may be either, and are a ValueError.

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> batches = mg.data.Batches([[1, 2, 3], [4], [5, 6]], [0, 1, 0], batch_size=2)
    >>> for x, lengths, y in batches:
    ...     print(x.T.tolist(), lengths, y)
    [[1, 2, 3], [4, 0, 0]] [3 1] [0 1]
    [[5, 6]] [2] [0]
    >>> len(batches), batches.state_dict()
    (2, {'position': 0, 'batches': 2, 'generator': None, 'epoch': None})
    """

    def __init__(
        self,
        sequences: Any,
        *targets: Any,
        batch_size: int,
        shuffle: bool = False,
        bucket: bool = False,
        generator: Generator | None = None,
        per_step: bool | Sequence[bool | None] | None = None,
    ) -> None:
        op = "Batches"
        super().__init__()
        self.batch_size = size(op, "batch_size", batch_size)
        self.shuffle, self.bucket = flag(op, "shuffle", shuffle), flag(op, "bucket", bucket)
        self.generator = checked_generator(generator, op)
        self.sequences = _sequences(sequences, op, "sequences")
        self.lengths = np.array([len(a) for a in self.sequences], np.int64)
        kinds = per_step if isinstance(per_step, (list, tuple)) else [per_step] * len(targets)
        if len(kinds) != len(targets):
            raise ValueError(
                f"{op}: per_step must hold a bool for each of the {len(targets)} targets, got "
                f"{len(kinds)}"
            )
        kinds = [None if kind is None else flag(op, "per_step", kind) for kind in kinds]
        self.targets = [
            self._target(values, f"targets[{k}]", kind)
            for k, (values, kind) in enumerate(zip(targets, kinds, strict=True))
        ]

    def _target(
        self, values: Any, name: str, per_step: bool | None
    ) -> np.ndarray | list[np.ndarray]:
        """An array (N, ...) of one entry a sequence, or a list of arrays, each as long as its
        sequence."""
        values, N = _list(values, "Batches", name), len(self.sequences)
        if len(values) != N:
            raise ValueError(
                f"Batches: {name} must have one entry for each of the {N} sequences, got "
                f"{len(values)}"
            )
        single = not isinstance(values[0], (list, tuple)) and np.ndim(values[0]) == 0
        if single and per_step is not True:
            array = _array(values, "Batches", name)
            if array.ndim != 1:
                raise ValueError(
                    f"Batches: {name} must have shape ({N},) = (sequences,), got {array.shape}"
                )
            return array
        if per_step is False:
            entries = [_array(value, "Batches", f"{name}[{k}]") for k, value in enumerate(values)]
            for k, a in enumerate(entries):
                if a.shape != entries[0].shape or a.dtype != entries[0].dtype:
                    raise ValueError(
                        f"Batches: {name}[{k}] must have shape {entries[0].shape} and dtype "
                        f"{entries[0].dtype} as {name}[0] has, got {a.shape} and {a.dtype}"
                    )
            return np.stack(entries)
        arrays = _sequences(values, "Batches", name)
        for k, (a, length) in enumerate(zip(arrays, self.lengths, strict=True)):
            if len(a) != length:
                raise ValueError(
                    f"Batches: {name}[{k}] must have one entry for each of the {length} steps of "
                    f"sequences[{k}], got {len(a)} (one number a sequence is a target too, and "
                    "with per_step=False anything)"
                )
        if per_step is None and arrays[0].ndim == 1 and len(set(self.lengths.tolist())) == 1:
            raise ValueError(
                f"Batches: {name} of shape {(N, *arrays[0].shape)} may be a vector for each "
                f"sequence or a number for each of its {self.lengths[0]} steps: say per_step=False "
                "or per_step=True"
            )
        return [_as_classes(a, name) for a in arrays] if _are_classes(arrays) else arrays

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return -(-len(self.sequences) // self.batch_size)

    def _first(self) -> _Spot:
        if not self.shuffle:
            return _Spot(0, None)
        spot = _Spot(0, self.generator.state)
        self.generator.stream()  # this epoch's draw; _order reads it again from the state before
        return spot

    def _batch(self, chosen: np.ndarray) -> tuple[np.ndarray, ...]:
        return (
            _padded([self.sequences[n] for n in chosen], 0),
            self.lengths[chosen],
            *(self._chosen(values, chosen) for values in self.targets),
        )

    def _order(self, drawn: dict[str, int] | None) -> list[np.ndarray]:
        """The epoch's batches as indices of sequences. Sorting random 64-bit numbers gives a random
        order, the same in every version of NumPy."""
        N, B = len(self.sequences), self.batch_size
        if drawn is None:
            order = np.argsort(self.lengths, kind="stable") if self.bucket else np.arange(N)
            return [order[k : k + B] for k in range(0, N, B)]
        generator = Generator()
        generator.state = drawn
        stream = generator.stream()
        order = np.argsort(stream.random_raw(N), kind="stable")
        if not self.bucket:
            return [order[k : k + B] for k in range(0, N, B)]
        batches = []
        for start in range(0, N, POOL * B):
            pool = order[start : start + POOL * B]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[k : k + B] for k in range(0, len(pool), B)]
        return [batches[k] for k in np.argsort(stream.random_raw(len(batches)), kind="stable")]

    @staticmethod
    def _chosen(values: np.ndarray | list[np.ndarray], chosen: np.ndarray) -> np.ndarray:
        if isinstance(values, np.ndarray):
            taken: np.ndarray = values[chosen]
            return taken
        return _padded([values[n] for n in chosen], NO_CLASS if _are_classes(values) else 0)

    def _state(self, spot: _Spot) -> dict[str, Any]:
        generator = self.generator.state if self.shuffle else None
        return super()._state(spot) | {"generator": generator, "epoch": spot.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, a state_dict: the next iteration gives the rest of that epoch, and
        the generator goes back to where it was. What does not fit is a ValueError or TypeError, and
        then nothing has changed."""
        position = _checked_place(state, self.state_dict(), "Batches")
        if (state["generator"] is not None) != self.shuffle:
            raise ValueError(
                f"Batches: state is of a run {'without' if self.shuffle else 'with'} shuffle"
            )
        if state["epoch"] is None and self.shuffle and position:
            raise ValueError(
                f"Batches: state is {position} batches into an epoch whose order it does not tell"
            )
        if self.shuffle:
            for part in filter(None, (state["epoch"], state["generator"])):
                Generator().state = part  # raises if it is none
            self.generator.state = state["generator"]
        self._load(_Spot(position, state["epoch"]))
