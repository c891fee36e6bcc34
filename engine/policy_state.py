"""What the policy remembers of one judge partition: what stands, how often who came back, what is spent, and who agreed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.budgets import Budgets, Key
from engine.corroborate import Corroboration
from engine.crossing import identify
from schemas.config import Policy as PolicySection
from schemas.feedback import Feedback
from schemas.fields import Dimension
from schemas.mitigation import State

_MEMORY_FACTOR = 4
"""A partition remembers the returns of so many times its share of ``active_max``."""
Made = tuple[int, int]
"""By what an id was made, beside whom it is about: a cell, and the version of the detector's section."""


@dataclass(slots=True)
class Entry:
    """What the policy remembers of one key."""

    cell: int
    version: int
    """Of the detector's section, by which the id was made …"""
    id: str
    """… which is this."""
    action: str
    state: State
    level: int
    expires_at: int

    @property
    def made(self) -> Made:
        """By what its id was."""
        return self.cell, self.version


class PolicyState:
    """The state of one judge partition's policy.

    Args:
        section: budgets and voices, those of the service.
        partitions: budgets are divided by how many.
    """

    def __init__(self, section: PolicySection, partitions: int) -> None:
        self._partitions = partitions
        self.budgets, self.corroboration = Budgets(section, partitions), Corroboration(section)
        self.entries: dict[Key, Entry] = {}
        self.for_ever: set[Key] = set()
        """What is in force without an end."""
        self._early: dict[Key, tuple[Made, int]] = {}
        self._early_cell = -1

    def take(self, section: PolicySection) -> None:
        """Budgets and voices go by another section from here on."""
        self.budgets.take(section, self._partitions)
        self.corroboration.take(section)

    def is_first_early(self, key: Key, made: Made, rank: int) -> bool:
        """One early record per id, which a key's cell and version make, unless the action (its rank) grows."""
        cell = made[0]
        if self._early_cell != cell:
            self._early = {k: entry for k, entry in self._early.items() if entry[0][0] >= cell - 1}
            self._early_cell = cell
        known = self._early.get(key)
        if known is not None and known[0] == made and known[1] >= rank:
            return False
        self._early[key] = made, rank
        return True

    def remember(self, key: Key, entry: Entry, now: int, section: PolicySection, *, spent: bool) -> None:
        """A key's entry from here on; ``spent``: it counts in the budgets."""
        self.entries.pop(key, None)
        self.entries[key] = entry
        if spent:
            self.budgets.spend(key, entry.expires_at)
        else:
            self.budgets.release(key)
        self._forget(now, section.escalation_memory_s, 1024 + _MEMORY_FACTOR * -(-section.active_max // self._partitions))

    def _forget(self, now: int, memory_s: int, most: int) -> None:
        """Keep at most ``most`` entries: first those go that no return can refer to, then the oldest that have expired."""
        if len(self.entries) <= most:
            return
        for horizon in (now - memory_s, now):
            gone = [key for key, entry in self.entries.items() if entry.expires_at < horizon and key not in self.budgets]
            for key in gone:
                if len(self.entries) <= most // 2:
                    return
                del self.entries[key]

    def standing(self, record: Feedback, dimension: Dimension) -> Key | None:
        """The key of the entry that a record is about: its id follows from what the record says, from its cell, and from the
        version of the section that made it, which need not be the one in force."""
        ids: dict[Made, str] = {}
        for key, entry in self.entries.items():
            if key[0] != dimension or key[3] != record.detector:
                continue
            made = entry.made
            if made not in ids:
                ids[made] = identify(record.detector, record.detector_version, dimension, record.target.value, *made)
            if ids[made] == entry.id:
                return key
        return None

    def save(self) -> list[Any]:
        """Plain data for `load`."""
        return [
            [
                [*key, e.cell, e.version, e.id, e.action, e.state, e.level, e.expires_at, key in self.budgets]
                for key, e in self.entries.items()
            ],
            self.budgets.minute,
            self.budgets.issued,
            self.corroboration.save(),
            [list(key) for key in sorted(self.for_ever)],
        ]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave."""
        entries, self.budgets.minute, self.budgets.issued, heard, for_ever = data
        self.for_ever = {(dimension, a, b, detector) for dimension, a, b, detector in for_ever}
        self.corroboration.load(heard)
        for dimension, a, b, detector, cell, version, identifier, action, condition, level, expires_at, counted in entries:
            key = (dimension, a, b, detector)
            self.entries[key] = Entry(cell, version, identifier, action, condition, level, expires_at)
            if counted:
                self.budgets.restore(key, expires_at)
