"""The world of a drill: accounts, keys, people, their addresses and habits. The same seed and rate, the same world."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from drills.columns import CELL_S, F64, I64, between, chosen, generator, mixed
from drills.service import addresses
from drills.service.actors import Actors
from drills.service.calendar import STORM_S, Episode, Storms, episodes
from drills.service.newcomers import Newcomers
from drills.service.season import REGIONS, Season
from drills.service.shapes import EMBED, LARGE, MEDIUM, SMALL
from drills.service.words import BROWSERS, CRAWLERS, SDKS, SERVERLESS, choice_of

NORMAL_PER_SECOND = 350.0
"""Honest events a second that strengths are stated for, where nothing else is asked for."""
BATCH_MACHINES = 4
SERVERLESS_KEYS = 1000
CARRIER_ADDRESSES = 32
OFFICES = 24
MIGRATING_KEYS = 20
ADDRESS_PER_SECOND = 1.5
"""A customer that sends more has another machine: about so much comes from each."""

CHAT, EMBEDDINGS, ASSISTANT, MIXED = range(4)
"""Habits: what a key is used for."""


@dataclass(slots=True)
class Group:
    """Actors of one kind, by region, each with its weight."""

    actors: list[I64] = field(default_factory=list)
    weights: list[F64] = field(default_factory=list)
    _edges: list[F64] = field(default_factory=list)

    def pick(self, random: np.random.Generator, regions: F64, count: int) -> I64:
        """``count`` actors: a region as busy as it is, then one by weight."""
        region = chosen(random, regions.tolist(), count)
        found = np.zeros(count, np.int64)
        if not self._edges:
            self._edges = [np.cumsum(weights) for weights in self.weights]
        for index, (actors, edges) in enumerate(zip(self.actors, self._edges, strict=True)):
            here = np.flatnonzero(region == index)
            found[here] = actors[between(random, edges, len(here))]
        return found

    def everyone(self) -> I64:
        """All of them."""
        return np.concatenate(self.actors)


class World:
    """Who is there, and when what happens.

    Args:
        seed: of everything.
        start_s, stop_s: Unix seconds; storms are planned for this time.
        events_per_second: honest events on average over a week; as many customers and people as that needs.
        storms: see `drills.service.calendar.episodes`.
    """

    def __init__(self, *, seed: int, start_s: int, stop_s: int, events_per_second: float, storms: Storms = "calendar") -> None:
        self.seed, self.start_s, self.stop_s = seed, start_s, stop_s
        self.events_per_second = events_per_second
        self.episodes: tuple[Episode, ...] = episodes(seed, start_s, stop_s, events_per_second, storms)
        self.programs, self.people = Season(seed, "programs"), Season(seed, "people")
        self.actors = Actors(Newcomers(seed))
        self.taken: set[int] = set()
        self.groups: dict[str, Group] = {}
        self._random = generator(seed, 9200, 0)
        self._keys = 0
        self._accounts = 0
        self._settle()
        self.honest_actors = len(self.actors)
        word = _habits(self.actors)
        self.habit: I64 = np.array([CHAT, CHAT, CHAT, ASSISTANT, MIXED, EMBEDDINGS, CHAT, MIXED])[word % np.uint64(8)]
        models = np.array([SMALL, SMALL, SMALL, MEDIUM, MEDIUM, MEDIUM, LARGE, SMALL])
        self.model: I64 = models[word >> np.uint64(8) & np.uint64(7)]
        self.model[self.habit == EMBEDDINGS] = EMBED
        self.scale: F64 = np.exp(((word >> np.uint64(16) & np.uint64(255)).astype(float) - 127) / 127)

    def named(self, name: str) -> list[Episode]:
        """The storms of one kind."""
        return [episode for episode in self.episodes if episode.name == name]

    def outage_at(self, cell: int) -> tuple[bool, float]:
        """Whether the gateway answers 503 in this cell, and how much more is asked of it because it does or did."""
        second = cell * CELL_S
        for episode in self.named("outage"):
            if episode.start_s <= second < episode.stop_s:
                return True, 2.5
            if episode.stop_s <= second < episode.stop_s + STORM_S:
                return False, 1 + 3 * float(np.exp(-(second - episode.stop_s) / 150))
        return False, 1.0

    def new_keys(self, count: int, keys_per_account: float = 1.6) -> tuple[list[str], list[str]]:
        """Hashes of ``count`` keys that exist, and the accounts they belong to."""
        words = mixed(self.seed, 9300, np.arange(self._keys, self._keys + count)).tolist()
        self._keys += count
        steps = np.cumsum(self._random.random(count) < 1 / keys_per_account) + self._accounts + 1
        self._accounts = int(steps[-1]) if count else self._accounts
        return [f"sha256:{word:016x}" for word in words], [f"acct_{step:06d}" for step in steps.tolist()]

    def _settle(self) -> None:
        rate = self.events_per_second
        self._add_customers(int(np.clip(rate * 12, 120, 12_000)), rate)
        self._add_people("people", int(np.clip(rate * 60, 600, 40_000)), 0.5)
        self._add_people("prospects", int(np.clip(rate * 40, 400, 20_000)), 0.0)
        self._add_people("crowd", int(np.clip(rate * 40, 400, 20_000)), 0.0)
        carriers = [addresses.CARRIER + index % CARRIER_ADDRESSES for index in range(CARRIER_ADDRESSES * 100)]
        self._add_fixed("carrier", carriers, BROWSERS, keyed=False)
        offices = [addresses.OFFICES + index % OFFICES for index in range(OFFICES * 25)]
        self._add_fixed("offices", offices, BROWSERS, keyed=False)
        self._add_fixed("consoles", [addresses.OFFICES + OFFICES + index for index in range(4)], BROWSERS, keyed=False)
        functions = [addresses.SERVERLESS + 1 + index % 250 for index in range(4 * SERVERLESS_KEYS)]
        self._add_fixed("serverless", functions, SERVERLESS, keyed=True, per_key=4)
        machines = [addresses.BATCH + index for index in range(BATCH_MACHINES)]
        self._add_fixed("batch", machines, SDKS[5:6], keyed=True, per_key=BATCH_MACHINES)
        self._add_fixed("crawlers", [addresses.CRAWLERS + 1 + index for index in range(8)], CRAWLERS, keyed=False)
        self._add_migrating()
        forgotten = addresses.clouds(self._random, 3, self.taken)
        self._add_fixed("forgotten", forgotten, SDKS[8:10], keyed=True)

    def _add_customers(self, count: int, rate: float) -> None:
        """Keys with a Zipf weight and as many machines as that needs."""
        keys, accounts = self.new_keys(count)
        shares = 1 / np.arange(1, count + 1)
        shares /= shares.sum()
        machines = np.minimum(1 + (shares * rate / ADDRESS_PER_SECOND).astype(int) + (self._random.random(count) < 0.2), 64)
        agents = choice_of(SDKS, self._random, count)
        region = chosen(self._random, (0.42, 0.33, 0.25), count)
        order = self._random.permutation(count)
        group = Group()
        for index, name in enumerate(REGIONS):
            mine = order[region[order] == index]
            owner = np.repeat(mine, machines[mine])
            in_clouds = self._random.random(len(owner)) < 0.6
            places = np.zeros(len(owner), np.int64)
            places[in_clouds] = addresses.clouds(self._random, int(in_clouds.sum()), self.taken)
            homes = int((~in_clouds).sum())
            places[~in_clouds] = addresses.households(self._random, homes, addresses.COUNTRIES_OF_REGION[name], self.taken)
            group.actors.append(
                self.actors.add(places.tolist(), agents[owner].tolist(), [keys[i] for i in owner], [accounts[i] for i in owner])
            )
            group.weights.append(shares[owner] / machines[owner])
        self.groups["customers"] = group

    def _add_people(self, group_name: str, count: int, with_account: float) -> None:
        """Browsers at home."""
        group = Group()
        for name, share in zip(REGIONS, (0.42, 0.33, 0.25), strict=True):
            here = max(8, int(count * share))
            places = addresses.households(self._random, here, addresses.COUNTRIES_OF_REGION[name], self.taken)
            _, accounts = self.new_keys(here)
            known = self._random.random(here) < with_account
            names = [account if is_known else "" for account, is_known in zip(accounts, known.tolist(), strict=True)]
            agents = choice_of(BROWSERS, self._random, here).tolist()
            group.actors.append(self.actors.add(places, agents, None, names))
            group.weights.append(1 / np.arange(1, here + 1) ** 0.5)
        self.groups[group_name] = group

    def _add_fixed(
        self, group_name: str, places: list[int], agents: tuple[str, ...], *, keyed: bool, per_key: int = 1
    ) -> None:  # fmt: skip
        """Actors at given addresses, the same all over the world."""
        self.taken.update(places)
        count = len(places)
        keys, accounts = self.new_keys(-(-count // per_key))
        named = keyed or group_name != "crawlers"
        owner = [index // per_key for index in range(count)]
        numbers = self.actors.add(
            places, choice_of(agents, self._random, count).tolist(), [keys[i] for i in owner] if keyed else None,
            [accounts[i] if named else "" for i in owner],
        )  # fmt: skip
        self.groups[group_name] = Group([numbers] * len(REGIONS), [np.ones(count)] * len(REGIONS))

    def _add_migrating(self) -> None:
        """One customer's keys, each at its old address and at a new one in another network."""
        keys, accounts = self.new_keys(MIGRATING_KEYS, 1e9)
        agents = choice_of(SDKS[2:3], self._random, MIGRATING_KEYS).tolist()
        for name, networks in (("migrating_old", 2), ("migrating_new", 6)):
            places = addresses.clouds(self._random, MIGRATING_KEYS, self.taken, networks)
            numbers = self.actors.add(places, agents, keys, accounts)
            self.groups[name] = Group([numbers] * len(REGIONS), [np.ones(MIGRATING_KEYS)] * len(REGIONS))


def _habits(actors: Actors) -> npt.NDArray[np.uint64]:
    """64 bits for each actor; all machines of a customer do the same, so they belong to the key."""
    texts = [(key or address)[-8:].encode() for key, address in zip(actors.key, actors.address, strict=True)]
    return mixed(9400, np.array([int.from_bytes(text, "big") for text in texts], np.uint64))
