"""What stands between arrays and a training: padded batches, streams of tokens, windows of a series, a scaler.

Plain iterators over NumPy arrays, time first: a batch is (T, B, ...). Files are not read here. One
iteration over Batches or Stream is one epoch, with a place of its own. Where it stands is a small
dict that JSON can hold (`state_dict`), so that a training that goes on from a checkpoint sees the
same batches as one that was never stopped. """
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.module import flag, plain_array, size
from minigrad.random import Generator, checked_generator
from minigrad.tensor import Tensor

DEEPEST = 64            # lists inside of each other: NumPy's arrays have at most so many dimensions
NO_CLASS = -100         # cross_entropy and the metrics leave such targets out
POOL = 50               # batches: sequences are sorted by length within a pool of so many


def _numbers(value: Any, op: str, name: str) -> np.ndarray:
    """`value` as an array of real numbers, in NumPy's dtype for it: whole numbers int64, other
    numbers float64."""
    _check_no_mask(value, op, name)
    array = plain_array(op, name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{op}: {name} must be made of real numbers, got {type(value).__name__} of dtype {array.dtype}")
    return array


def _check_no_mask(value: Any, op: str, name: str) -> None:
    """NumPy would drop the mask of an array that stands in a list, and the gradient of a Tensor."""
    if name.count("[") > DEEPEST:
        raise ValueError(f"{op}: lists are nested more than {DEEPEST} deep, beyond what NumPy makes an array of")
    if isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            if isinstance(inner, (list, tuple, np.ma.MaskedArray, Tensor)):
                _check_no_mask(inner, op, f"{name}[{i}]")
    elif isinstance(value, np.ma.MaskedArray):
        plain_array(op, name, value)  # raises
    elif isinstance(value, Tensor) and value.requires_grad:
        raise TypeError(
            f"{op}: {name} must be made of constants, got a Tensor that requires a gradient, "
            "which would be lost: use x.detach()"
        )


def _has_dtype(value: Any) -> bool:
    return hasattr(value, "dtype") or hasattr(value, "dtypes")  # dtypes: a table of pandas


def _array(value: Any, op: str, name: str) -> np.ndarray:
    """The same, but floats that come without a dtype become float32."""
    array = _numbers(value, op, name)
    if _has_dtype(value):
        return array
    if array.dtype.kind == "u":  # whole numbers of a list, some beyond int64
        raise ValueError(
            f"{op}: {name} must be made of numbers that fit into int64, got {array.max()}"
        )
    if array.dtype.kind == "f":
        largest = np.abs(array[np.isfinite(array)]).max(initial=0.0)
        if largest > np.finfo(np.float32).max:
            raise ValueError(f"{op}: {name} must be made of numbers that fit into float32, "
                             f"got {largest}: give an array of float64")
        return array.astype(np.float32)
    return array if array.dtype.kind == "b" else array.astype(np.int64)


def _list(values: Any, op: str, name: str) -> Any:
    """`values` as something that is read by position: a list, or an array of any kind; of a pandas
    table the rows."""
    unordered = (str, bytes, Mapping, set, frozenset)
    if (
        isinstance(values, unordered)
        or not isinstance(values, Iterable)
        or isinstance(values, Tensor)
        and values.ndim == 0
    ):
        raise TypeError(f"{op}: {name} must be a list or an array, got {type(values).__name__}")
    if isinstance(values, np.ma.MaskedArray):
        plain_array(op, name, values)  # raises
    if isinstance(values, (list, tuple, np.ndarray)):
        return values
    if hasattr(values, "to_numpy"):  # a Series or DataFrame, whose own [k] goes by label or column
        return values.to_numpy()
    if hasattr(values, "__array__"):  # a Tensor, also of another library
        return _numbers(values, op, name)
    return list(values)


def _sequences(values: Any, op: str, name: str) -> list[np.ndarray]:
    """Arrays of one dtype that differ in their first dimension alone, at least one of them."""
    if isinstance(values, (str, bytes, Mapping, set, frozenset)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{op}: {name} must be a list of arrays, got {type(values).__name__}")
    arrays = [_array(value, op, f"{name}[{k}]") for k, value in enumerate(_list(values, op, name))]
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

    A sequence may be empty: the recurrent layers take lengths of 0. Arrays keep their dtype, lists
    of floats become float32 and lists of whole numbers int64.

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


class _Spot:
    """How many batches of an epoch are out; the generator's state before the epoch's draw; whether
    its Epoch is in use."""

    def __init__(self, position: int, drawn: dict[str, int] | None) -> None:
        self.position, self.drawn, self.alive = position, drawn, True


class Epoch:
    """One iteration over Batches or Stream, with a place of its own: what `iter(batches)` returns.

    >>> import minigrad as mg
    >>> epoch = iter(mg.data.Batches([[1], [2], [3]], batch_size=1))
    >>> for x, lengths in epoch:
    ...     break
    >>> epoch.state_dict()["position"]
    1
    """

    _spot: _Spot | None = None  # None before the first batch was asked for

    def __init__(self, data: "_Place") -> None:
        if not isinstance(data, _Place):
            raise TypeError(f"Epoch: data must be Batches or a Stream, got {type(data).__name__}")
        self._data = data

    def __iter__(self) -> "Epoch":
        return self

    def __next__(self) -> tuple[np.ndarray, ...]:
        if self._spot is None:
            self._spot = self._data._begin()
            self._order = self._data._order(self._spot.drawn)
        position = self._spot.position
        if position >= len(self._order):
            self._data._end(self._spot)
            self._spot, self._order = _Spot(0, None), ()
            raise StopIteration
        self._spot.position = (
            position + 1
        )  # a batch counts as out while the loop's body works on it
        self._data._advance(self._spot)
        return self._data._batch(self._order[position])

    def __del__(self) -> None:
        if self._spot is not None:
            self._data._leave(self._spot)

    def state_dict(self) -> dict[str, Any]:
        """Where this iteration stands, for `load_state_dict` of Batches or Stream; that of a new
        epoch if it is over."""
        return self._data.state_dict() if self._spot is None else self._data._state(self._spot)


class _Place:
    """What Batches and Stream share: where an iteration stands.

    Each iteration has its own place, so that one inside of another does not disturb it.
    `state_dict` tells that of the iteration that gave a batch last; of one that was left before its
    end only if no other was under way. A place that was loaded is where the next iteration goes on;
    otherwise it begins an epoch. """

    def __init__(self) -> None:
        self._spots: list[
            _Spot
        ] = []  # of iterations that are not over; the last one gave a batch last
        self._loaded: _Spot | None = None

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        raise NotImplementedError

    def __iter__(self) -> Epoch:
        return Epoch(self)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no iterations."""
        return self.__dict__ | {"_spots": []}

    def _order(self, drawn: dict[str, int] | None) -> Sequence[Any]:
        """What tells the batches of an epoch, in order."""
        raise NotImplementedError

    def _batch(self, which: Any) -> tuple[np.ndarray, ...]:
        """The batch that an element of _order tells."""
        raise NotImplementedError

    def _first(self) -> _Spot:
        """The beginning of a new epoch."""
        return _Spot(0, None)

    def _begin(self) -> _Spot:
        spot, self._loaded = self._loaded or self._first(), None
        self._spots = [other for other in self._spots if other.alive] + [spot]
        return spot

    def _advance(self, spot: _Spot) -> None:
        if spot in self._spots:
            self._spots.remove(spot)
            self._spots.append(spot)

    def _end(self, spot: _Spot) -> None:
        if spot in self._spots:
            self._spots.remove(spot)

    def _leave(self, spot: _Spot) -> None:
        """The iteration will not go on."""
        spot.alive = False
        if any(other.alive for other in self._spots):
            self._end(spot)

    def _state(self, spot: _Spot) -> dict[str, Any]:
        return {"position": spot.position, "batches": len(self)}

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands, as a dict that JSON can hold. Where several are under way,
        each can tell its own place: `epoch = iter(batches)` has a state_dict, too."""
        return self._state(self._spots[-1] if self._spots else self._loaded or _Spot(0, None))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state_dict: the next iteration gives the rest of that epoch. What does not fit is a ValueError, and then
        nothing has changed."""
        self._load(_Spot(_checked_place(state, self.state_dict(), type(self).__name__), None))

    def _load(self, spot: _Spot) -> None:
        self._spots = []
        self._loaded = spot if spot.position or spot.drawn is not None else None


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

    Batches(sequences, *targets, batch_size, shuffle=False, bucket=False, generator=None,
    per_step=None). A target holds for each sequence one number, giving (B,), or one entry for each
    of its steps, giving (T, B, ...). Behind a sequence's end, whole numbers, one a step, are -100,
    which cross_entropy leaves out; all else is 0. The last batch may be smaller.

    sequences and targets are read by position: lists, arrays, Tensors, and Series and tables of
    pandas, whose rows count and whose labels do not. Numbers in lists become float32 or int64.
    per_step: whether a target has an entry for each step (True), or one of any shape for each
    sequence (False), giving (B, ...); a list of these says it for each target. None takes numbers
    for entries of sequences, and all else for entries of steps; vectors that are as long as all the
    sequences may be either, and are a ValueError.

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
                 generator: Generator | None = None,
                 per_step: bool | Sequence[bool | None] | None = None) -> None:
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
        self.generator.stream()     # this epoch's draw; _order reads it again from the state before
        return spot

    def _batch(self, chosen: np.ndarray) -> tuple[np.ndarray, ...]:
        return (
            _padded([self.sequences[n] for n in chosen], 0),
            self.lengths[chosen],
            *(self._chosen(values, chosen) for values in self.targets),
        )

    def _order(self, drawn: dict[str, int] | None) -> list[np.ndarray]:
        """The epoch's batches as indices of sequences. Sorting random 64-bit numbers gives a random order, the same in every
        version of NumPy."""
        N, B = len(self.sequences), self.batch_size
        if drawn is None:
            order = np.argsort(self.lengths, kind="stable") if self.bucket else np.arange(N)
            return [order[k:k + B] for k in range(0, N, B)]
        generator = Generator()
        generator.state = drawn
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

    def _state(self, spot: _Spot) -> dict[str, Any]:
        generator = self.generator.state if self.shuffle else None
        return super()._state(spot) | {"generator": generator, "epoch": spot.drawn}

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
        self._load(_Spot(position, state["epoch"]))


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

    def _order(self, drawn: dict[str, int] | None) -> range:
        return range(0, len(self) * self.length, self.length)

    def _batch(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        end = start + self.length
        return self._pieces[start:end], self._pieces[start + 1:end + 1]


def windows(series: Any, length: int, horizon: int = 1, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of `length` values of a series and the `horizon` values after them, every `step` places.

    series: (T,) or (T, ...). Returns x (length, N, ...) and y (horizon, N, ...), time first as
    everywhere: window n begins at n * step. Both are read-only views of one copy of the series, in
    its dtype; a list of floats is float64, so that times such as 1.7e9 keep their seconds: scale
    them, and make float32 of them then.

    >>> import minigrad as mg
    >>> x, y = mg.data.windows([1, 2, 3, 4, 5], length=2, horizon=1)
    >>> x.T.tolist(), y.T.tolist()
    ([[1, 2], [2, 3], [3, 4]], [[3], [4], [5]])
    """
    op = "windows"
    length, horizon, step = size(op, "length", length), size(op, "horizon", horizon), size(op, "step", step)
    series = _numbers(series, op, "series")
    if series.ndim == 0 or len(series) < length + horizon:
        got = f"{len(series)} values" if series.ndim else "a single number"
        raise ValueError(f"{op}: series must have at least {length + horizon} = length + horizon values, got {got}")
    both = np.lib.stride_tricks.sliding_window_view(series.copy(), length + horizon, axis=0)[::step]    # (N, ..., window)
    both = np.moveaxis(both, -1, 0)
    return both[:length], both[length:]


def _exact_parts(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real numbers as the sum of two float64 arrays, high + low: exact also for whole numbers
    beyond 2^53."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return array.astype(np.float64), np.zeros(array.shape)
    return (array >> 32).astype(np.float64) * 2.0**32, (array & 0xFFFFFFFF).astype(np.float64)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b in float64, rounded once where both are made of whole numbers."""
    (high, low), (b_high, b_low) = _exact_parts(a), _exact_parts(b)
    return (high - b_high) + (low - b_low)


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of each column. NumPy adds in pairs along rows that lie in one piece; down the columns it would add one row after
    the other, with an error that grows with their number."""
    if values.ndim == 1:
        return np.asarray(values.mean())
    return np.ascontiguousarray(np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)).mean(1)


class Scaler:
    """Makes the mean of each column 0 and its standard deviation 1; the columns are the last axis, a 1-D series is one column.

    A column that is constant becomes 0 and comes back as it was. `mean` and `scale` hold what was
    fitted, in float64. All is computed in float64, from whole numbers themselves, and rounded once
    at the end: times such as 1,700,000,001 keep their seconds.

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
    _rest: tuple[Any, Any] = (None, 0.0)    # the fitted mean, and what it lacks of the exact one
    _dtype: Any = np.float32                # of what was fitted

    def fit(self, x: Any) -> "Scaler":
        """Take mean and standard deviation of each column from x; return the scaler."""
        array = _numbers(x, "Scaler", "x")
        axes = tuple(range(array.ndim - 1)) if array.ndim > 1 else (0,)
        if array.ndim == 0:
            raise ValueError("Scaler: x must have shape (..., columns) or (T,), got ()")
        if array.size == 0:
            raise ValueError(
                f"Scaler: x must hold at least one value in each column, got shape {array.shape}"
            )
        if not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ValueError(f"Scaler: x must be finite, got {array[tuple(place)]} at {place}")
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            origin = array.min(axes)
            rise = _difference(array, origin)  # from the lowest value, in which the digits are
            offset = _mean(rise)
            offset += _mean(rise - offset)  # what the first sum has lost
            constant = rise.max(axes) == 0
            scale = np.where(constant, 1.0, np.sqrt(_mean((rise - offset) ** 2)))
            high, low = _exact_parts(np.asarray(origin))
            mean = high + (low + offset)
            rest = ((high - mean) + low) + offset
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            largest = np.abs(array.astype(np.float64)).max()
            raise ValueError(
                "Scaler: x must have columns whose variance fits into float64, got values up to "
                f"{largest}"
            )
        self.mean, self.scale, self._rest = mean, scale, (mean, rest)
        self._dtype = array.dtype if _has_dtype(x) and array.dtype.kind == "f" else np.float64
        return self

    def transform(self, x: Any) -> np.ndarray:
        """(x - mean) / scale, in x's dtype; whole numbers and lists give float32."""
        array, mean, rest, scale = self._fitted(x)
        high, low = _exact_parts(array)
        dtype = array.dtype if _has_dtype(x) and array.dtype.kind == "f" else np.float32
        return (((high - mean) + (low - rest)) / scale).astype(dtype)

    def inverse(self, x: Any) -> np.ndarray:
        """x * scale + mean: what `transform` came from. In x's dtype, but float64 if that was
        fitted, or whole numbers or a list were."""
        array, mean, rest, scale = self._fitted(x)
        dtype = array.dtype if _has_dtype(x) and array.dtype.kind == "f" else np.float32
        back = (array.astype(np.float64) * scale + rest) + mean
        return back.astype(np.result_type(dtype, self._dtype))

    def _fitted(self, x: Any) -> tuple[np.ndarray, np.ndarray, Any, np.ndarray]:
        if self.mean is None or self.scale is None:
            raise RuntimeError("Scaler: call fit first")
        array = _numbers(x, "Scaler", "x")
        if np.ndim(self.mean) and array.shape[-1:] != np.shape(self.mean):
            raise ValueError(
                f"Scaler: x must have the {len(self.mean)} columns that were fitted, got shape "
                f"{array.shape}"
            )
        fitted, rest = self._rest
        return array, self.mean, rest if fitted is self.mean else 0.0, self.scale
