"""Where an iteration stands, so that a training can go on from there."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigrad.checks import integer

__all__ = ["Epoch"]


class _Spot:
    """How many batches of an epoch are out; the generator's state before the epoch's draw; whether
    its Epoch is in use."""

    def __init__(self, position: int, drawn: dict[str, int] | None) -> None:
        self.position, self.drawn, self.alive = position, drawn, True


class Epoch:
    """One iteration over Batches or Stream, with a place of its own: what `iter(batches)` returns.

    Args:
        data: The Batches or Stream.

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
        self._spot.position = position + 1  # it counts as out while the loop's body works on it
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
    `state_dict` gives the place of the iteration that gave a batch last; that of one that was left
    before its end, only if no other was under way. If a place was loaded, the next iteration goes
    on from it; otherwise it begins an epoch."""

    def __init__(self) -> None:
        # Of iterations that are not over; the last one gave a batch last.
        self._spots: list[_Spot] = []
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
        """Go on from a state_dict: the next iteration gives the rest of that epoch. What does not
        fit is a ValueError, and then nothing has changed."""
        self._load(_Spot(_checked_place(state, self.state_dict(), type(self).__name__), None))

    def _load(self, spot: _Spot) -> None:
        self._spots = []
        self._loaded = spot if spot.position or spot.drawn is not None else None


def _checked_place(state: Any, own: dict[str, Any], op: str) -> int:
    if not isinstance(state, Mapping):
        raise TypeError(f"{op}: state must be a dict, got {type(state).__name__}")
    if set(state) != set(own):
        raise ValueError(
            f"{op}: state must have the keys {', '.join(own)}, "
            f"got {', '.join(map(str, state)) or 'none'}"
        )
    if state["batches"] != own["batches"]:
        raise ValueError(
            f"{op}: state is of {reprlib.repr(state['batches'])} batches an epoch, "
            f"here are {own['batches']}: other data?"
        )
    return integer(op, "position", state["position"], 0, own["batches"])
