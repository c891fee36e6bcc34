"""What bouncers are offered, in the order of its changes, so that each can be told what is new since it last asked.

Every change has a number. A place stands once, under its latest change: in `offers` while something is decided about it, in
`gone` for a while afterwards. So there is no log to cut: whoever was away for a week gets the difference like any other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import msgspec

from edge.bouncer_keys import TYPES, BouncerKey
from edge.decisions import Place
from edge.reader import Standing
from edge.subject import Subject

KEEP_GONE_MS = 24 * 3_600_000
"""How long a bouncer without timers of its own may be away and still hears what has ended."""
BEFORE_MS = 5_000
"""A firewall bouncer that deletes what its kernel's timer removes at that moment loses its whole batch. So it is not asked to
delete what ends so soon, …"""
AFTER_MS = 30_000
"""… nor what ended so short ago that a slow one may still have it. Later it is: packet filters without timers need it."""
AGAIN_MS = 1_000
"""So long after the old decision has ended a bouncer that had to wait for that is told of the new one."""


class Offer(msgspec.Struct, frozen=True, gc=False):
    """What is decided about a place now."""

    kind: str
    """CrowdSec's type."""
    until_ms: int
    standing: Standing
    subject: Subject
    """Which it comes from."""
    number: int
    """Of its latest change."""
    since: int
    """Of the change that a bouncer may have first heard of the place by."""
    was: tuple[str, ...]
    """Every type since then, this one too: what a bouncer may hold."""
    held_until_ms: int
    """When the version before this one ends; 0: there was none."""


class Gone(msgspec.Struct, frozen=True, gc=False):
    """A place about which nothing is decided any more."""

    number: int
    since: int
    was: tuple[str, ...]
    until_ms: int
    """When it ends by itself, where bouncers have timers."""
    forget_at_ms: int


Change = TypeVar("Change", Offer, Gone)


class Cursor(NamedTuple):
    """How far a bouncer is: what lies behind ``last`` is new to it. What lies behind ``before`` is repeated, once, in case the
    answer was delivered and yet not heeded (a proxy between us, a batch that it lost)."""

    before: int
    last: int


class Answer(NamedTuple):
    """What one bouncer is told."""

    new: list[tuple[Place, Offer]]
    deleted: list[tuple[Place, str]]
    number: int
    """Of the newest change that is in it."""


class Asks(msgspec.Struct, frozen=True):
    """Who asks, and what for."""

    key: BouncerKey
    scopes: frozenset[str]
    """Of the request, in small letters."""
    is_firewall: bool
    """CrowdSec's own firewall bouncer: ignores what it holds already, and has the kernel's timers."""

    def has_scope(self, place: Place) -> bool:
        """Whether it asks for such places, and may."""
        # What is told of a prefix to one without ranges are addresses, so that the scope of the place is what counts.
        return place.scope in self.key.scopes and place.scope.lower() in self.scopes


class Offers:
    """Places by their latest change.

    Args:
        places_max: how many may be offered at once; as many are remembered that have gone.
    """

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        # Dictionaries keep the order in which keys were put: what changes is taken out and put again, so the newest is last.
        self._offers: dict[Place, Offer] = {}
        self._gone: dict[Place, Gone] = {}
        self._again: list[tuple[int, Place]] = []
        """Places that somebody is to be told of again, and when."""
        self._waiting: set[Place] = set()
        self.number = 0
        self._horizon = 0
        """Changes up to this one may have been forgotten: a bouncer that is behind it is told everything."""

    def __len__(self) -> int:
        return len(self._offers)

    def get(self, place: Place) -> Offer | None:
        """What is decided about a place."""
        return self._offers.get(place)

    def put(self, place: Place, kind: str, standing: Standing, subject: Subject) -> bool:
        """Decide about a place; False: there are too many, and it is as before."""
        old, gone = self._offers.get(place), self._gone.get(place)
        if old is None and len(self._offers) >= self._places_max:
            return False
        if old is not None and (old.kind, old.until_ms) == (kind, standing.expires_at_ms):
            self._offers[place] = msgspec.structs.replace(old, standing=standing, subject=subject)
            return True
        before = old or gone
        was = before.was if before else ()
        self._offers.pop(place, None)
        self._gone.pop(place, None)
        self.number += 1
        self._offers[place] = Offer(
            kind, standing.expires_at_ms, standing, subject, self.number, before.since if before else self.number,
            was if kind in was else (*was, kind), before.until_ms if before else 0,
        )  # fmt: skip
        return True

    def drop(self, place: Place, now_ms: int) -> None:
        """Nothing is decided about it any more."""
        old = self._offers.pop(place, None)
        if old is not None:
            self._bury(place, old.since, old.was, old.until_ms, now_ms)

    def bury(self, place: Place, until_ms: int, now_ms: int) -> None:
        """A bouncer may hold something about this place from before this process began."""
        if place not in self._offers and place not in self._gone:
            self._bury(place, 0, TYPES, until_ms, now_ms)

    def all(self, asks: Asks, now_ms: int) -> Answer:
        """Everything, for a bouncer that begins or that is not known here."""
        self._settle(now_ms)
        new = [
            (place, offer) for place, offer in self._offers.items() if asks.has_scope(place) and offer.kind in asks.key.types
        ]
        deleted = [pair for place, gone in self._gone.items() for pair in self._deleted(place, gone, asks, now_ms)]
        return Answer(new, deleted, self.number)

    def knows(self, cursor: Cursor) -> bool:
        """Whether everything that has changed since is still known."""
        return cursor.before >= self._horizon and cursor.last <= self.number

    def since(self, cursor: Cursor, asks: Asks, now_ms: int) -> Answer:
        """What has changed since a bouncer's last answers, oldest first."""
        self._settle(now_ms)
        new: list[tuple[Place, Offer]] = []
        deleted: list[tuple[Place, str]] = []
        for place, offer in _newest(self._offers, cursor.before):
            if not asks.has_scope(place):
                continue
            may_be_held = offer.since <= cursor.last
            if offer.kind not in asks.key.types:
                deleted += [(place, kind) for kind in offer.was if may_be_held and kind in asks.key.types]
                continue
            if asks.is_firewall and may_be_held and offer.number > cursor.last:
                if now_ms - AGAIN_MS < offer.held_until_ms < now_ms + BEFORE_MS:
                    self._tell_again(place, offer.held_until_ms + AGAIN_MS)
                    continue
                # It ignores a longer ban for what it has: the old one has to go. It deletes before it adds. Others replace,
                # and one of them adds before it deletes.
                deleted += [(place, kind) for kind in offer.was if kind in asks.key.types]
            new.append((place, offer))
        for place, gone in _newest(self._gone, cursor.before):
            deleted += self._deleted(place, gone, asks, now_ms)
        return Answer(new[::-1], deleted, self.number)

    def _bury(self, place: Place, since: int, was: tuple[str, ...], until_ms: int, now_ms: int) -> None:
        self.number += 1
        self._gone[place] = Gone(self.number, since, was, until_ms, max(now_ms, until_ms) + KEEP_GONE_MS)
        if len(self._gone) > self._places_max:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        place = next(iter(self._gone))
        self._horizon = self._gone.pop(place).number

    def _settle(self, now_ms: int) -> None:
        """Forget what went long ago, and tell again of what had to wait."""
        while self._gone and next(iter(self._gone.values())).forget_at_ms <= now_ms:
            self._forget_oldest()
        while self._again and self._again[0][0] <= now_ms:
            _, place = heapq.heappop(self._again)
            self._waiting.discard(place)
            offer, gone = self._offers.pop(place, None), self._gone.pop(place, None)
            self.number += 1
            if offer is not None:
                self._offers[place] = msgspec.structs.replace(offer, number=self.number)
            if gone is not None:
                self._gone[place] = msgspec.structs.replace(gone, number=self.number)

    def _deleted(self, place: Place, gone: Gone, asks: Asks, now_ms: int) -> list[tuple[Place, str]]:
        if not asks.has_scope(place):
            return []
        if asks.is_firewall and now_ms - AFTER_MS < gone.until_ms < now_ms + BEFORE_MS:
            self._tell_again(place, gone.until_ms + AFTER_MS)
            return []
        return [(place, kind) for kind in gone.was if kind in asks.key.types]

    def _tell_again(self, place: Place, at_ms: int) -> None:
        if place not in self._waiting:
            self._waiting.add(place)
            heapq.heappush(self._again, (at_ms, place))


def _newest(changes: dict[Place, Change], behind: int) -> Iterator[tuple[Place, Change]]:
    """Those behind a number, the newest first."""
    for place in reversed(changes):
        change = changes[place]
        if change.number <= behind:
            return
        yield place, change
