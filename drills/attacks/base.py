"""What an attack is made of: sources, waves of requests by them, and what is true about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from drills.attacks.strengths import Strength
from drills.columns import CELL_S, I64, Events, concatenated, generator, no_events, slots, uniform
from drills.honest.signups import REGISTRATIONS_SHARE
from drills.service import addresses
from drills.service.words import BOT_TOOLS, BROWSERS, SDKS, choice_of
from drills.service.world import World

FIRST_SOURCE = 100
"""Attacks' numbers as sources of events come after the honest ones'."""
FOLLOW_S_MAX = 3 * 3600
"""What an account does that an attack registered, it does within this time."""
_HOSTILE_ACCOUNT = 1 << 47
"""Bit of the numbers of accounts that attacks register."""


@dataclass(slots=True)
class Sent:
    """Requests of one wave that begin in one cell, before it is said what they ask for."""

    source: I64
    """i64[n]: which of the wave's sources"""
    slot: I64
    """i64[n]: which of that source's requests"""
    actor: I64
    start_ms: I64

    def __len__(self) -> int:
        return len(self.source)


Fill = Callable[[Sent, np.random.Generator], Events]


@dataclass(slots=True)
class Wave:
    """Sources that send so many requests each, spread over a time, and what they ask for."""

    actors: I64
    counts: I64
    start_ms: int
    stop_ms: int
    fill: Fill
    seed: int
    follow: int = 0
    """Instead of each request, so many that come after it: what an account does that the request registered."""
    follow_s: int = 0
    """Within so many seconds."""

    def draw(self, cell: int, random: np.random.Generator) -> Events:
        """What begins in the cell."""
        low, high = cell * CELL_S * 1000, (cell + 1) * CELL_S * 1000
        earlier = low - self.follow_s * 1000
        source, slot, start_ms = slots(self.seed, self.counts, self.start_ms, self.stop_ms, earlier, high)
        if self.follow:
            source, slot, start_ms = (np.repeat(column, self.follow) for column in (source, slot, start_ms))
            place = np.arange(len(source)) % self.follow
            # Ten seconds: until the registration is complete.
            lag = 10_000 + uniform(self.seed, source, slot, place + 1) * (self.follow_s * 1000 - 10_001)
            start_ms = start_ms + lag.astype(np.int64)
            now = (start_ms >= low) & (start_ms < high)
            source, slot, start_ms = source[now], slot[now], start_ms[now]
        if not len(source):
            return no_events()
        return self.fill(Sent(source, slot, self.actors[source], start_ms), random)


@dataclass(slots=True)
class Hostile:
    """One attack in one drill."""

    name: str
    number: int
    """Its source of chance: the same whatever else is in the drill."""
    label: int
    start_s: int
    stop_s: int
    waves: list[Wave] = field(default_factory=list)
    victims: dict[str, list[str]] = field(default_factory=dict)
    """Dimension -> who is honest and must never be stopped for it."""

    def move(self, start_s: int) -> None:
        """Let it begin at another second."""
        by_s = start_s - self.start_s
        self.start_s, self.stop_s = start_s, self.stop_s + by_s
        for wave in self.waves:
            wave.start_ms, wave.stop_ms = wave.start_ms + by_s * 1000, wave.stop_ms + by_s * 1000

    def draw(self, cell: int, random: np.random.Generator) -> Events:
        """What begins in the cell, labelled."""
        events = concatenated([wave.draw(cell, random) for wave in self.waves])
        events["attack"] = self.label
        return events


class Site:
    """Where an attack is prepared: the world, its strength and its time.

    Args:
        number: of the attack's kind; chance hangs on it.
        label: what its events are marked with.
    """

    def __init__(
        self, world: World, name: str, number: int, label: int, strength: Strength, start_s: int, *, registers: bool
    ) -> None:
        self.world, self.strength = world, strength
        self.random = generator(world.seed, FIRST_SOURCE + number, 0)
        normal = world.events_per_second * (REGISTRATIONS_SHARE if registers else 1.0)
        self.total, self.sources = strength.numbers(normal)
        self.hostile = Hostile(name, FIRST_SOURCE + number, label, start_s, start_s + strength.duration_s)
        self._seed = world.seed * 4099 + number
        self._number = number

    def counts(self) -> I64:
        """Requests of each source: as equal as whole numbers allow."""
        base, rest = divmod(self.total, self.sources)
        return base + (np.arange(self.sources) < rest).astype(np.int64)

    def wave(self, actors: I64, counts: I64, fill: Fill, *, follow: int = 0, follow_s: int = 0) -> None:
        """These sources send these numbers of requests over the attack's time."""
        assert len(actors) == len(counts)
        assert follow_s <= FOLLOW_S_MAX
        start_ms, stop_ms = self.hostile.start_s * 1000, self.hostile.stop_s * 1000
        self.hostile.waves.append(Wave(actors, counts, start_ms, stop_ms, fill, self._seed, follow, follow_s))

    def few(self, agents: Sequence[str] = BOT_TOOLS, **identities: list[str]) -> I64:
        """Sources with addresses of 203.0.113.0/24, as long as there are any, then of hosters."""
        free = [addresses.HOSTILE + host for host in range(1, 255) if addresses.HOSTILE + host not in self.world.taken]
        own = self.random.permutation(free)[: self.sources].tolist() if self.sources <= 50 else []
        self.world.taken.update(own)
        own += addresses.clouds(self.random, self.sources - len(own), self.world.taken, 64)
        return self.add(own, agents, **identities)

    def hosted(self, agents: Sequence[str] = SDKS, networks: int = 128, **identities: list[str]) -> I64:
        """Sources in the clouds."""
        places = addresses.clouds(self.random, self.sources, self.world.taken, networks)
        return self.add(places, agents, **identities)

    def homes(self, agents: Sequence[str] = BROWSERS, **identities: list[str]) -> I64:
        """Sources at home, all over the world."""
        places = addresses.households(self.random, self.sources, None, self.world.taken)
        return self.add(places, agents, **identities)

    def add(self, places: list[int], agents: Sequence[str], **identities: list[str]) -> I64:
        """Sources at these addresses; ``keys`` and ``accounts`` as `drills.service.actors.Actors.add` takes them."""
        chosen = choice_of(agents, self.random, len(places)).tolist()
        return self.world.actors.add(places, chosen, identities.get("keys"), identities.get("accounts"))

    def account(self, sent: Sent) -> I64:
        """The number of the account that each request registers, or that each later one belongs to."""
        return _HOSTILE_ACCOUNT + (self._number << 38) + (sent.slot << 20) + sent.source

    def busiest_customer(self) -> int:
        """An actor of a busy honest customer, not the busiest: it has to have room to stand out."""
        group = self.world.groups["customers"]
        actors, weights = np.concatenate(group.actors), np.concatenate(group.weights)
        return int(actors[np.argsort(-weights, kind="stable")[min(len(actors) - 1, 5)]])
