"""Places of keys as a dictionary, in plain Python."""

from __future__ import annotations

from dataclasses import dataclass, field

Key = tuple[int, int]


@dataclass
class Book:
    """Of one partition; no key is replaced so often in a window that there is a limit to it."""

    room: int
    places: dict[Key, int] = field(default_factory=dict)
    worth: dict[Key, tuple[float, int]] = field(default_factory=dict)
    slept: dict[Key, int] = field(default_factory=dict)
    """When who lost their place was used last"""

    def faded(self, key: Key, window: int) -> float:
        many, at = self.worth[key]
        return many * 0.5 ** ((window - at) / 2016)

    def take_in(self, window: int, asked: list[tuple[Key, int]]) -> list[int]:
        """Places that are somebody else's now."""
        known = {key for key, _ in asked if key in self.places}
        for key, many in asked:
            if key in known:
                self.worth[key] = self.faded(key, window) + many, window
        changed = []
        for key, many in sorted(asked, key=lambda one: (-one[1], one[0])):
            if key in known:
                continue
            place = len(self.places)
            if place == self.room:
                loser = min(self.places, key=lambda one: (self.faded(one, window), self.places[one]))
                if self.faded(loser, window) >= many:
                    break
                place, self.slept[loser] = self.places.pop(loser), self.worth.pop(loser)[1]
            self.places[key], self.worth[key] = place, (float(many), window)
            changed.append(place)
        return changed
