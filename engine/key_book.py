"""Which keys a judge partition knows, and where: the busiest and most recent have a place with a level of their own.

Of those that lost theirs it is remembered when they were used last, so that a key that wakes is known. The books of a judge's
partitions lie side by side (`KeyBooks`), and all of their keys are looked up in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.kernels.key_places import find_places_kernel, index_places_kernel
from detectors.kernels.windows import NEVER
from schemas.columns import I64
from schemas.errors import StateError

Key = tuple[int, int]
"""The words of its key"""
HALF_WINDOWS = 2016
"""What a key was asked for counts for half after a week."""
REPLACED_MAX = 64
"""Of one window so many places change hands: a flood of keys that come once costs no more."""

BEDS = 4
"""A key that lost its place takes one of so many beds, that of whoever has slept longest."""
SLEEPERS_A_PLACE = 4
"""So many sleep for each place: 24 bytes each."""


def _rows_of(room: int) -> int:
    return 1 << (-(-room // BEDS) - 1).bit_length()


@dataclass(slots=True)
class Sleepers:
    """When keys were used last that have no place any more.

    Args:
        room: of so many at least; whoever has not been seen for longest is forgotten first, among few.
        beds: where they are written down, if beside those of others: as `_keys` and `_last`, of nobody.
    """

    room: int
    beds: tuple[I64, I64] | None = None
    _keys: I64 = field(init=False)
    """i64[rows, BEDS, 2]"""
    _last: I64 = field(init=False)
    """i64[rows, BEDS]: the window; `NEVER`: nobody"""

    def __post_init__(self) -> None:
        rows = _rows_of(self.room)
        self._keys, self._last = self.beds or (np.zeros((rows, BEDS, 2), np.int64), np.full((rows, BEDS), NEVER))

    def remember(self, key: Key, window: int) -> None:
        """It was used last in a window."""
        row = int(self._rows(np.array([key]))[0])
        own = (self._keys[row] == key).all(axis=1) & (self._last[row] != NEVER)
        bed = int(own.argmax() if own.any() else self._last[row].argmin())
        if own.any() or self._last[row, bed] <= window:
            self._keys[row, bed], self._last[row, bed] = key, window

    def recall(self, keys: I64) -> I64:
        """i64[n]: the windows in which keys, i64[n, 2], were used last; `NEVER`: not known."""
        rows = self._rows(keys)
        own = (self._keys[rows] == keys[:, None]).all(axis=2)
        found: I64 = np.where(own, self._last[rows], NEVER).max(axis=1)
        return found

    def _rows(self, keys: I64) -> I64:
        words = keys.astype(np.uint64)
        mixed = (words[:, 0] * np.uint64(0x9E3779B97F4A7C15) + words[:, 1]) * np.uint64(0xBF58476D1CE4E5B9)
        return (mixed >> np.uint64(32)).astype(np.int64) & (len(self._last) - 1)

    def save(self) -> dict[str, Any]:
        """Arrays for `load`: of those who are remembered."""
        used = np.flatnonzero(self._last.ravel() != NEVER)
        return {"beds": used, "keys": self._keys.reshape(-1, 2)[used], "last": self._last.ravel()[used]}

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is of another size, or damaged.
        """
        beds, keys, last = data["beds"], data["keys"], data["last"]
        fit = beds.ndim == 1 and keys.shape == (len(beds), 2) and last.shape == beds.shape
        if not fit or {a.dtype for a in (beds, keys, last)} != {np.dtype(np.int64)}:
            raise StateError("expected saved keys that sleep, each with its words and its last window, got others")
        if len(beds) and not 0 <= int(beds.min()) <= int(beds.max()) < self._last.size:
            raise StateError(f"expected at most {self._last.size} saved keys that sleep, got one in place {int(beds.max())}")
        self._keys[:], self._last[:] = 0, NEVER
        self._keys.reshape(-1, 2)[beds], self._last.reshape(-1)[beds] = keys, last


@dataclass(slots=True)
class KeyBooks:
    """The books of so many judge partitions, ``room`` places in each."""

    partitions: int
    room: int
    words: I64 = field(init=False)
    """i64[partitions, room, 2]: of each place its key"""
    slots: npt.NDArray[np.int32] = field(init=False)
    """i32[partitions, power of two]: the index of them (`detectors.kernels.key_places`)"""
    worth: npt.NDArray[np.float64] = field(init=False)
    """f64[partitions, room]: requests, old ones fading …"""
    at: I64 = field(init=False)
    """… and as of which window"""
    beds: tuple[I64, I64] = field(init=False)
    """As `Sleepers` has them, of each partition"""

    def __post_init__(self) -> None:
        shape = self.partitions, self.room
        self.words, self.worth, self.at = np.zeros((*shape, 2), np.int64), np.zeros(shape), np.zeros(shape, np.int64)
        self.slots = np.zeros((self.partitions, 1 << (2 * self.room - 1).bit_length()), np.int32)
        beds = self.partitions, _rows_of(SLEEPERS_A_PLACE * self.room), BEDS
        self.beds = np.zeros((*beds, 2), np.int64), np.full(beds, NEVER)

    def find(self, partitions: I64, keys: I64) -> tuple[I64, I64]:
        """(i64[n]: the places of keys, i64[n, 2], in their partitions, ``room`` where they have none; i64[n]: when those
        without one were used last, or `NEVER`)."""
        places, lasts = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
        find_places_kernel(partitions, keys, self.words, self.slots, *self.beds, places, lasts)
        return places, lasts

    def count(self, window: int, partitions: I64, places: I64, requests: I64) -> None:
        """So many were asked for by keys that have these places."""
        worth = self.worth[partitions, places] * 0.5 ** ((window - self.at[partitions, places]) / HALF_WINDOWS)
        self.worth[partitions, places] = worth + requests
        self.at[partitions, places] = window


@dataclass(slots=True)
class KeyBook:
    """Places of keys; all decisions follow from what whole windows held, in the order of the keys' words.

    Args:
        books: where they are written down, beside those of other partitions …
        partition: … and as which of them.
    """

    books: KeyBooks
    partition: int
    keys: list[Key] = field(default_factory=list)
    """By place"""
    names: list[bytes] = field(default_factory=list)
    room: int = field(init=False)
    """So many places"""
    sleepers: Sleepers = field(init=False)
    _worth: npt.NDArray[np.float64] = field(init=False)
    _at: I64 = field(init=False)

    def __post_init__(self) -> None:
        books, at = self.books, self.partition
        self.room = books.room
        self._worth, self._at = books.worth[at], books.at[at]
        self.sleepers = Sleepers(SLEEPERS_A_PLACE * self.room, (books.beds[0][at], books.beds[1][at]))

    def find(self, keys: list[Key]) -> I64:
        """i64[n]: their places; ``room`` where they have none."""
        return self.books.find(np.full(len(keys), self.partition), np.array(keys, np.int64).reshape(-1, 2))[0]

    def admit(self, window: int, keys: list[Key], name_of: Callable[[int], bytes], requests: I64) -> list[int]:
        """Give places to keys that have none, if there is room or they are worth more than who has one. Returns the places
        that are somebody else's now."""
        strangers = sorted(range(len(keys)), key=lambda index: (-int(requests[index]), keys[index]))
        changed, replaced = [], 0
        for index in strangers:
            place = len(self.keys)
            if place == self.room:
                if replaced == REPLACED_MAX:
                    break
                worth = self._faded(window, np.arange(self.room))
                place = int(worth.argmin())
                if worth[place] >= requests[index]:
                    break
                replaced += 1
                self.sleepers.remember(self.keys[place], int(self._at[place]))
                self.keys[place], self.names[place] = keys[index], name_of(index)
            else:
                self.keys.append(keys[index])
                self.names.append(name_of(index))
            self._worth[place], self._at[place] = requests[index], window
            changed.append(place)
        if changed:
            self._index(changed)
        return changed

    def _index(self, changed: list[int]) -> None:
        words = self.books.words[self.partition]
        words[changed] = np.array([self.keys[place] for place in changed], np.int64).reshape(-1, 2)
        index_places_kernel(words, len(self.keys), self.books.slots[self.partition])

    def _faded(self, window: int, places: I64) -> npt.NDArray[np.float64]:
        faded: npt.NDArray[np.float64] = self._worth[places] * 0.5 ** ((window - self._at[places]) / HALF_WINDOWS)
        return faded

    def save(self) -> dict[str, Any]:
        """Plain data and arrays for `load`."""
        used = len(self.keys)
        return {
            "keys": np.array(self.keys, np.int64).reshape(-1, 2), "names": list(self.names),
            "worth": self._worth[:used].copy(), "at": self._at[:used].copy(), "sleepers": self.sleepers.save(),
        }  # fmt: skip

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it has more keys than there is room for, or is damaged.
        """
        keys, names = data["keys"], data["names"]
        used = len(names)
        if used > self.room or keys.shape != (used, 2) or data["worth"].shape != (used,) or data["at"].shape != (used,):
            raise StateError(f"expected at most {self.room} keys, each with a name and a worth, got {used} names")
        self.keys = [(a, b) for a, b in keys.tolist()]
        self.names = list(names)
        self._index(list(range(used)))
        self._worth[:used], self._at[:used] = data["worth"], data["at"]
        self.sleepers.load(data["sleepers"])
