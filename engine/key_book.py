"""Which keys a judge partition knows, and where: the busiest and most recent have a place with a level of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.columns import I64
from schemas.errors import StateError

Key = tuple[int, int]
"""The words of its key"""
HALF_WINDOWS = 2016
"""What a key was asked for counts for half after a week."""
REPLACED_MAX = 64
"""Of one window so many places change hands: a flood of keys that come once costs no more."""


@dataclass(slots=True)
class KeyBook:
    """Places of keys; all decisions follow from what whole windows held, in the order of the keys' words."""

    room: int
    keys: list[Key] = field(default_factory=list)
    """By place"""
    names: list[bytes] = field(default_factory=list)
    _places: dict[Key, int] = field(default_factory=dict)
    _worth: npt.NDArray[np.float64] = field(init=False)
    """f64[room]: requests, old ones fading …"""
    _at: I64 = field(init=False)
    """… and as of which window"""

    def __post_init__(self) -> None:
        self._worth, self._at = np.zeros(self.room), np.zeros(self.room, np.int64)

    def find(self, keys: list[Key]) -> I64:
        """i64[n]: their places; ``room`` where they have none."""
        places, none = self._places, self.room
        return np.array([places.get(key, none) for key in keys], np.int64)

    def take_in(self, window: int, keys: list[Key], name_of: Callable[[int], bytes], requests: I64) -> list[int]:
        """Count what keys were asked for, and give places to those that have none, if there is room or they are worth more
        than who has one. Returns the places that are somebody else's now."""
        found = self.find(keys)
        known = found < self.room
        at = found[known]
        self._worth[at] = self._faded(window, at) + requests[known]
        self._at[at] = window
        strangers = sorted(np.flatnonzero(~known).tolist(), key=lambda index: (-int(requests[index]), keys[index]))
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
                del self._places[self.keys[place]]
                self.keys[place], self.names[place] = keys[index], name_of(index)
            else:
                self.keys.append(keys[index])
                self.names.append(name_of(index))
            self._places[keys[index]] = place
            self._worth[place], self._at[place] = requests[index], window
            changed.append(place)
        return changed

    def _faded(self, window: int, places: I64) -> npt.NDArray[np.float64]:
        faded: npt.NDArray[np.float64] = self._worth[places] * 0.5 ** ((window - self._at[places]) / HALF_WINDOWS)
        return faded

    def save(self) -> dict[str, Any]:
        """Plain data and arrays for `load`."""
        used = len(self.keys)
        return {
            "keys": np.array(self.keys, np.int64).reshape(-1, 2), "names": list(self.names),
            "worth": self._worth[:used].copy(), "at": self._at[:used].copy(),
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
        self._places = {key: place for place, key in enumerate(self.keys)}
        self._worth[:used], self._at[:used] = data["worth"], data["at"]
