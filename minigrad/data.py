"""What stands between arrays and a training: padded batches, streams of tokens, windows of a series, a scaler.

Plain iterators over NumPy arrays, time first: a batch is (T, B, ...). Reading files is no business of this room. One iteration
over Batches or Stream is one epoch. Where it stands is a small dict that JSON can hold (`state_dict`), so that a training that
goes on from a checkpoint sees the same batches as one that was never stopped.
"""
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.module import flag, plain_array, size
from minigrad.random import Generator, checked_generator

NO_CLASS = -100         # cross_entropy and the metrics leave such targets out
POOL = 50               # batches: sequences are sorted by length within a pool of so many


def _array(value: Any, op: str, name: str) -> np.ndarray:
    """`value` as an array of numbers; floats that come without a dtype become float32, whole numbers int64."""
    array = plain_array(op, name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{op}: {name} must be made of real numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array if hasattr(value, "dtype") else array.astype({"f": np.float32, "b": np.bool_}.get(array.dtype.kind, np.int64))


def _sequences(values: Any, op: str, name: str) -> list[np.ndarray]:
    """Arrays of one dtype that differ in their first dimension alone, at least one of them."""
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{op}: {name} must be a list of arrays, got {type(values).__name__}")
    arrays = [_array(value, op, f"{name}[{k}]") for k, value in enumerate(values)]
    if not arrays:
        raise ValueError(f"{op}: {name} must hold at least one sequence, got none")
    first = next((k for k, a in enumerate(arrays) if a.shape != (0,)), 0)
    rest, dtype = arrays[first].shape[1:], arrays[first].dtype
    for k, a in enumerate(arrays):
        if a.shape == (0,):             # an empty list tells neither its features nor its dtype
            arrays[k] = np.empty((0, *rest), dtype)
        elif a.ndim == 0 or a.shape[1:] != rest:
            like = f"(length{''.join(f', {n}' for n in rest)})" if rest else "(length,)"
            raise ValueError(f"{op}: {name}[{k}] must have shape {like} as {name}[{first}] has, got {a.shape}")
        elif a.dtype != dtype:
            raise TypeError(f"{op}: {name}[{k}] must have dtype {dtype} as {name}[{first}] has, got {a.dtype}")
    return arrays


def _padded(arrays: list[np.ndarray], fill: int) -> np.ndarray:
    x = np.full((max(map(len, arrays)), len(arrays), *arrays[0].shape[1:]), fill, arrays[0].dtype)
    for b, a in enumerate(arrays):
        x[:len(a), b] = a
    return x


def pad(sequences: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Put sequences of different lengths side by side: x (T, B, ...), zeros after each one's end, and their lengths (B,).

    A sequence may be empty: the recurrent layers take lengths of 0.

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


class _Place:
    """Where an iteration stands: how many batches of the epoch are out. Shared by Batches and Stream.

    A place that was loaded is where the next iteration goes on; otherwise it begins an epoch.
    """

    def __init__(self) -> None:
        self._position, self._loaded = 0, False

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        raise NotImplementedError

    def _steps(self) -> Iterator[int]:
        """The batches that are left of the epoch. A batch counts as out while the loop's body works on it."""
        for k in range(self._position, len(self)):
            self._position = k + 1
            yield k
        self._position = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands, as a dict that JSON can hold."""
        return {"position": self._position, "batches": len(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict: the next iteration gives the rest of that epoch. What does not fit is a ValueError, and then
        nothing has changed."""
        self._position = _checked_place(state, self.state_dict(), type(self).__name__)
        self._loaded = True


def _checked_place(state: Any, own: dict[str, Any], op: str) -> int:
    if not isinstance(state, Mapping):
        raise TypeError(f"{op}: state must be a dict, got {type(state).__name__}")
    if set(state) != set(own):
        raise ValueError(f"{op}: state must have the keys {', '.join(own)}, got {', '.join(map(str, state)) or 'none'}")
    if state["batches"] != own["batches"]:
        raise ValueError(f"{op}: state is of {state['batches']!r} batches an epoch, here are {own['batches']}: other data?")
    position = state["position"]
    if isinstance(position, bool) or not hasattr(position, "__index__"):
        raise TypeError(f"{op}: position must be an int, got {type(position).__name__}")
    if not 0 <= operator.index(position) <= own["batches"]:
        raise ValueError(f"{op}: position must be from 0 to {own['batches']}, got {position}")
    return operator.index(position)


class Batches(_Place):
    """Padded batches of sequences with their targets; iterating is one epoch of (x (T, B, ...), lengths (B,), *targets).

    Batches(sequences, *targets, batch_size, shuffle=False, bucket=False, generator=None). A target holds for each sequence one
    number, giving (B,), or one entry for each of its steps, giving (T, B, ...). Behind a sequence's end, whole numbers, one a
    step, are -100, which cross_entropy leaves out; all else is 0. The last batch may be smaller.

    shuffle: another order each epoch, one draw from the generator (mg.manual_seed sets the default one). bucket: sequences of
    similar lengths come together, which leaves less padding to compute: sorted as a whole, or, with shuffle, within random pools
    of 50 batches whose batches are then mixed. To know which sequence is where, pass np.arange(len(sequences)) as a target.

    >>> import minigrad as mg
    >>> batches = mg.data.Batches([[1, 2, 3], [4], [5, 6]], [0, 1, 0], batch_size=2)
    >>> for x, lengths, y in batches:
    ...     print(x.T.tolist(), lengths, y)
    [[1, 2, 3], [4, 0, 0]] [3 1] [0 1]
    [[5, 6]] [2] [0]
    >>> len(batches), batches.state_dict()
    (2, {'position': 0, 'batches': 2, 'generator': None, 'epoch': None})
    """

    def __init__(self, sequences: Any, *targets: Any, batch_size: int, shuffle: bool = False, bucket: bool = False,
                 generator: Generator | None = None) -> None:
        op = "Batches"
        super().__init__()
        self.batch_size = size(op, "batch_size", batch_size)
        self.shuffle, self.bucket = flag(op, "shuffle", shuffle), flag(op, "bucket", bucket)
        self.generator = checked_generator(generator, op)
        self.sequences = _sequences(sequences, op, "sequences")
        self.lengths = np.array([len(a) for a in self.sequences], np.int64)
        self.targets = [self._target(values, f"targets[{k}]") for k, values in enumerate(targets)]
        self._epoch: dict[str, int] | None = None       # the generator's state before the present epoch's draw

    def _target(self, values: Any, name: str) -> np.ndarray | list[np.ndarray]:
        """An array (N,) of one number a sequence, or a list of arrays, each as long as its sequence."""
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__") or not hasattr(values, "__getitem__"):
            raise TypeError(f"Batches: {name} must be a list or an array, got {type(values).__name__}")
        count = len(values)
        if count != len(self.sequences):
            raise ValueError(f"Batches: {name} must have one entry for each of the {len(self.sequences)} sequences, got {count}")
        if np.ndim(values[0]) == 0:
            array = _array(values, "Batches", name)
            if array.ndim != 1:
                raise ValueError(f"Batches: {name} must have shape ({count},) = (sequences,), got {array.shape}")
            return array
        arrays = _sequences(values, "Batches", name)
        for k, (a, length) in enumerate(zip(arrays, self.lengths, strict=True)):
            if len(a) != length:
                raise ValueError(f"Batches: {name}[{k}] must have one entry for each of the {length} steps of sequences[{k}], "
                                 f"got {len(a)} (one number a sequence is a target too)")
        return [a.astype(np.int64) for a in arrays] if _are_classes(arrays) else arrays

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return -(-len(self.sequences) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        if not self._loaded:
            self._position, self._epoch = 0, self.generator.state if self.shuffle else None
            if self.shuffle:
                self.generator.stream()         # this epoch's draw, which _batches reads again from the state before it
        self._loaded, batches = False, self._batches()
        for k in self._steps():
            chosen = batches[k]
            yield (_padded([self.sequences[n] for n in chosen], 0), self.lengths[chosen],
                   *(self._chosen(values, chosen) for values in self.targets))
        self._epoch = None

    def _batches(self) -> list[np.ndarray]:
        """The epoch's batches as indices of sequences. Sorting random 64-bit numbers gives a random order, the same in every
        version of NumPy."""
        N, B = len(self.sequences), self.batch_size
        if self._epoch is None:
            order = np.argsort(self.lengths, kind="stable") if self.bucket else np.arange(N)
            return [order[k:k + B] for k in range(0, N, B)]
        generator = Generator()
        generator.state = self._epoch
        stream = generator.stream()
        order = np.argsort(stream.random_raw(N), kind="stable")
        if not self.bucket:
            return [order[k:k + B] for k in range(0, N, B)]
        batches = []
        for start in range(0, N, POOL * B):
            pool = order[start:start + POOL * B]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[k:k + B] for k in range(0, len(pool), B)]
        return [batches[k] for k in np.argsort(stream.random_raw(len(batches)), kind="stable")]

    @staticmethod
    def _chosen(values: np.ndarray | list[np.ndarray], chosen: np.ndarray) -> np.ndarray:
        if isinstance(values, np.ndarray):
            return values[chosen]
        return _padded([values[n] for n in chosen], NO_CLASS if _are_classes(values) else 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands, with the generator's state if it shuffles, as a dict that JSON can hold."""
        return super().state_dict() | {"generator": self.generator.state if self.shuffle else None, "epoch": self._epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict: the next iteration gives the rest of that epoch, and the generator goes back to where it was.
        What does not fit is a ValueError or TypeError, and then nothing has changed."""
        position = _checked_place(state, self.state_dict(), "Batches")
        if (state["generator"] is not None) != self.shuffle:
            raise ValueError(f"Batches: state is of a run {'without' if self.shuffle else 'with'} shuffle")
        if state["epoch"] is None and self.shuffle and position:
            raise ValueError(f"Batches: state is {position} batches into an epoch whose order it does not tell")
        if self.shuffle:
            for part in filter(None, (state["epoch"], state["generator"])):
                Generator().state = part        # raises if it is none
            self.generator.state = state["generator"]
        self._position, self._epoch = position, state["epoch"]
        self._loaded = position > 0 or state["epoch"] is not None


class Stream(_Place):
    """A long sequence as `batch_size` contiguous pieces that are read side by side, for language models with a carried state.

    Stream(tokens, batch_size, length): iterating is one pass of pairs (x, y), each (length, batch_size): y is x one token later,
    and each x begins where the one before ended, in every column, so the state may be carried on all through the pass. Every
    iteration starts anew from the beginning, where the state must start anew too. What fills no whole window is left out:
    fewer than batch_size + length * batch_size tokens at the ends of the pieces.

    >>> import numpy as np, minigrad as mg
    >>> for x, y in mg.data.Stream(np.arange(10), batch_size=2, length=2):
    ...     print(x.tolist(), y.tolist())
    [[0, 5], [1, 6]] [[1, 6], [2, 7]]
    [[2, 7], [3, 8]] [[3, 8], [4, 9]]
    """

    def __init__(self, tokens: Any, batch_size: int, length: int) -> None:
        op = "Stream"
        super().__init__()
        self.batch_size, self.length = size(op, "batch_size", batch_size), size(op, "length", length)
        tokens = _array(tokens, op, "tokens")
        if tokens.ndim == 0:
            raise ValueError(f"{op}: tokens must have shape (N, ...), got ()")
        piece = len(tokens) // self.batch_size
        if piece <= self.length:
            raise ValueError(f"{op}: tokens must be at least {self.batch_size * (self.length + 1)} = batch_size * (length + 1), "
                             f"got {len(tokens)}")
        pieces = tokens[:piece * self.batch_size].reshape(self.batch_size, piece, *tokens.shape[1:])
        self._pieces = pieces.swapaxes(0, 1).copy()     # (piece, B, ...)
        self._pieces.flags.writeable = False            # the windows are views

    def __len__(self) -> int:
        """The number of windows of a pass."""
        return (len(self._pieces) - 1) // self.length

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not self._loaded:
            self._position = 0
        self._loaded = False
        for k in self._steps():
            at = k * self.length
            yield self._pieces[at:at + self.length], self._pieces[at + 1:at + self.length + 1]


def windows(series: Any, length: int, horizon: int = 1, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of `length` values of a series and the `horizon` values after them, every `step` places.

    series: (T,) or (T, ...). Returns x (length, N, ...) and y (horizon, N, ...), time first as everywhere: window n begins at n *
    step. Both are read-only views of one copy of the series.

    >>> import minigrad as mg
    >>> x, y = mg.data.windows([1, 2, 3, 4, 5], length=2, horizon=1)
    >>> x.T.tolist(), y.T.tolist()
    ([[1, 2], [2, 3], [3, 4]], [[3], [4], [5]])
    """
    op = "windows"
    length, horizon, step = size(op, "length", length), size(op, "horizon", horizon), size(op, "step", step)
    series = _array(series, op, "series")
    if series.ndim == 0 or len(series) < length + horizon:
        got = f"{len(series)} values" if series.ndim else "a single number"
        raise ValueError(f"{op}: series must have at least {length + horizon} = length + horizon values, got {got}")
    both = np.lib.stride_tricks.sliding_window_view(series.copy(), length + horizon, axis=0)[::step]    # (N, ..., window)
    both = np.moveaxis(both, -1, 0)
    return both[:length], both[length:]


class Scaler:
    """Makes the mean of each column 0 and its standard deviation 1; the columns are the last axis, a 1-D series is one column.

    A column that is constant becomes 0 and comes back as it was. `mean` and `scale` hold what was fitted, in float64.

    >>> import numpy as np, minigrad as mg
    >>> x = np.array([[1.0, 7.0], [3.0, 7.0]])
    >>> scaler = mg.data.Scaler().fit(x)
    >>> scaler.transform(x)
    array([[-1.,  0.],
           [ 1.,  0.]])
    >>> scaler.inverse(scaler.transform(x))
    array([[1., 7.],
           [3., 7.]])
    """

    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    def fit(self, x: Any) -> "Scaler":
        """Take mean and standard deviation of each column from x; return the scaler."""
        x = self._numbers(x, "x")
        axes = tuple(range(x.ndim - 1)) if x.ndim > 1 else (0,)
        if x.size == 0:
            raise ValueError(f"Scaler: x must hold at least one value in each column, got shape {x.shape}")
        if not np.isfinite(x).all():
            place = np.argwhere(~np.isfinite(x))[0].tolist()
            raise ValueError(f"Scaler: x must be finite, got {x[tuple(place)]} at {place}")
        x = x.astype(np.float64)
        constant = x.max(axes) == x.min(axes)
        with np.errstate(over="ignore", invalid="ignore"):
            # Along rows in one piece NumPy adds in pairs: along columns, row after row, the error would grow with their number.
            columns = np.ascontiguousarray(np.moveaxis(x, -1, 0).reshape(constant.size, -1))
            mean = np.where(constant, x.max(axes), columns.mean(1).reshape(constant.shape))
            scale = np.where(constant, 1.0, columns.std(1).reshape(constant.shape))
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError(f"Scaler: x must have columns whose variance fits into float64, got values up to {np.abs(x).max()}")
        self.mean, self.scale = mean, scale
        return self

    def transform(self, x: Any) -> np.ndarray:
        """(x - mean) / scale, in x's dtype; whole numbers give float32."""
        x, mean, scale = self._fitted(x)
        return ((x - mean) / scale).astype(x.dtype)

    def inverse(self, x: Any) -> np.ndarray:
        """x * scale + mean: what `transform` came from."""
        x, mean, scale = self._fitted(x)
        return (x * scale + mean).astype(x.dtype)

    def _fitted(self, x: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.mean is None or self.scale is None:
            raise RuntimeError("Scaler: call fit first")
        x = self._numbers(x, "x")
        if self.mean.ndim and x.shape[-1:] != self.mean.shape:
            raise ValueError(f"Scaler: x must have the {len(self.mean)} columns that were fitted, got shape {x.shape}")
        return x, self.mean, self.scale

    @staticmethod
    def _numbers(x: Any, name: str) -> np.ndarray:
        x = _array(x, "Scaler", name)
        return x if x.dtype.kind == "f" else x.astype(np.float32)
