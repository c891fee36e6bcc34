"""Honest API keys of a service, and what thieves, resellers and careless owners do with some of them, window by window.

Not requests but what a window of five minutes holds of each key, drawn directly: four weeks of ten thousand keys are thirty
million such rows. Volumes are Zipf's. Servers run day and night from a few networks and add one now and then, applications
bring homes that change by the day, batch jobs run at their hours, developers work by day and travel. Customers move to other
networks, upgrade, have incidents and rewrite their prompts. Most ask for one model or two, and for another now and then; some
offer all of them to people of their own. Twice a model is launched that most go over to, a third of them on its first day.
Nothing here is tuned to be easy: what is honest is new often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detectors.kernels.key_features import (
    V_AGENTS,
    V_COUNTRIES,
    V_ERRORS,
    V_MODELS,
    V_NETS,
    V_REQUESTS,
    V_TOKENS_IN,
    V_TOKENS_OUT,
    VALUES,
)
from drills.columns import F64, I64

WINDOW_S = 300
DAY = 288
"""Windows of a day."""
SERVER, APPLICATION, BATCH, DEVELOPER = range(4)
KIND_SHARES = (0.45, 0.15, 0.1, 0.3)
START = 1_800_000_000 // WINDOW_S // DAY // 7 * 7 * DAY + 4 * DAY
"""A Monday at midnight."""
DRAWS = 24
"""Of a key's requests in a window so many networks are drawn at most."""
CATALOGUE = 12
"""Models that there are from the beginning, the first is asked for most; then come those of …"""
LAUNCHES = (11, 20)
"""… these days."""
OFFERS_ALL = 0.05
"""Of keys so many are asked by people who choose among all models."""
_FRESH = 1 << 40
"""Networks and agents of others are numbered from here."""


def bins(words: I64) -> I64:
    """i64[n]: of each number its bin of 64, as a bit."""
    mixed = words.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    found: I64 = (np.uint64(1) << (mixed >> np.uint64(58))).view(np.int64)
    return found


class KeyWorld:
    """So many honest keys over so many days.

    Args:
        seed: of everything.
        keys: how many; a seventh of them are born on the way.
        days: so long.
    """

    def __init__(self, seed: int, keys: int, days: int) -> None:
        chance = np.random.default_rng([seed, keys])
        self.keys, self.windows, self._seed = keys, days * DAY, seed
        self.kind = chance.choice(4, keys, p=KIND_SHARES)
        weights = 1 / np.arange(1, keys + 1)
        self.rate = chance.permutation(10 * keys * weights / weights.sum())
        self.born = np.where(chance.random(keys) < 0.15, chance.integers(3 * DAY, self.windows, keys), 0)
        self._busiest_hour = chance.choice([19.0, 12.0, 5.0], keys, p=[0.42, 0.33, 0.25])
        self._wild = chance.uniform(0.15, 0.6, keys)
        self._level = chance.normal(0, 1, keys) * self._wild
        self._batch_at = chance.integers(0, DAY, (keys, 3))
        self._batch_many = chance.integers(1, 4, keys)
        self._batch_long = chance.integers(4, 13, keys)
        self.pool = np.select(
            [self.kind == SERVER, self.kind == APPLICATION, self.kind == BATCH],
            [chance.integers(1, 5, keys), chance.integers(20, 200, keys), chance.integers(1, 3, keys)],
            chance.integers(1, 4, keys),
        )
        self._net_base = np.arange(keys, dtype=np.int64) << 20
        self._net_before = self._net_base.copy()
        self._moved = np.full(keys, -DAY)
        self._agents = np.where(self.kind == APPLICATION, chance.integers(3, 10, keys), chance.integers(1, 3, keys))
        self._agent_base = np.arange(keys, dtype=np.int64) << 20
        self._errors = np.exp(chance.uniform(np.log(0.002), np.log(0.03), keys))
        self._tokens = np.exp(chance.normal(6.8, 1.0, keys)), np.exp(chance.normal(5.8, 0.8, keys))
        self._regime = np.zeros((2, keys))
        self._incident_until = np.full(keys, -1)
        self._burst_until, self._burst = np.full(keys, -1), np.ones(keys)
        self._begin_models(np.random.default_rng([seed, 19, keys]))

    def _begin_models(self, chance: np.random.Generator) -> None:
        keys = self.keys
        popular = 1 / np.arange(1, CATALOGUE + 1)
        self._popular = popular / popular.sum()
        self._models = chance.choice(CATALOGUE, (keys, 2), p=self._popular)
        """The one that is asked for, and the one that some requests go to."""
        self._aside = np.where(chance.random(keys) < 0.5, 0.0, chance.uniform(0.02, 0.4, keys))
        self._offers_all = chance.random(keys) < OFFERS_ALL
        later = chance.exponential(3 * DAY, (len(LAUNCHES), keys)) * (chance.random((len(LAUNCHES), keys)) > 0.25)
        going = chance.random((len(LAUNCHES), keys)) < 0.8
        self._goes_over = np.where(going, np.array(LAUNCHES)[:, None] * DAY + 0.4 * DAY + later, np.inf).astype(np.float64)

    def mean(self, window: int) -> F64:
        """f64[keys]: requests to be expected in a window, without chance."""
        hour = (window % DAY) / DAY * 24
        day = ((window // DAY) + np.floor((hour + 12 - self._busiest_hour) / 24)) % 7
        swing = np.clip(np.cos((hour - self._busiest_hour) * (2 * np.pi / 24)) * 0.75 + 0.25, 0, None)
        weekend = day >= 5
        of_batch = np.zeros(self.keys)
        for run in range(3):
            into = (window - self._batch_at[:, run]) % DAY
            of_batch += (run < self._batch_many) & (into < self._batch_long)
        found: F64 = self.rate * np.select(
            [self.kind == SERVER, self.kind == APPLICATION, self.kind == BATCH],
            [0.6 + 0.8 * swing * np.where(weekend, 0.8, 1), (0.15 + 1.6 * swing) * np.where(weekend, 0.7, 1), 8.0 * of_batch],
            3 * swing * np.where(weekend, 0.15, 1),
        )
        return found

    def draw(self, window: int) -> tuple[I64, I64]:
        """(i64[n]: keys with requests, i64[n, VALUES]: what each did). To be called for one window after the other."""
        chance = np.random.default_rng([self._seed, 7, self.keys, window])
        self._change(window, chance)
        noise = np.exp(self._level - self._wild**2 / 2)
        burst = np.where(self._burst_until > window, self._burst, 1.0)
        requests = chance.poisson(self.mean(window) * noise * burst * (self.born <= window))
        ids = np.flatnonzero(requests)
        values = np.zeros((len(ids), VALUES), np.int64)
        many = requests[ids]
        values[:, V_REQUESTS] = many
        broken = np.where(self._incident_until[ids] > window, 0.3, self._errors[ids])
        values[:, V_ERRORS] = chance.binomial(many, broken)
        for place, which in ((V_TOKENS_IN, 0), (V_TOKENS_OUT, 1)):
            spread = np.exp(chance.normal(0, 1, len(ids)) * 0.7 / np.sqrt(many) + self._regime[which, ids])
            values[:, place] = many * self._tokens[which][ids] * spread
        self._origins(window, ids, many, values, chance)
        values[:, V_MODELS] = self._asked_for(window, ids, many)
        return ids, values

    def pass_by(self, window: int) -> None:
        """In place of `draw`, for a window that nobody looks at."""
        self._change(window, np.random.default_rng([self._seed, 7, self.keys, window]))

    def _change(self, window: int, chance: np.random.Generator) -> None:
        keys = self.keys
        self._level += 0.1 * (-self._level) + self._wild * np.sqrt(1 - 0.81) * chance.normal(0, 1, keys)

        def some(per_day: F64 | float) -> I64:
            return np.flatnonzero(chance.random(keys) < np.asarray(per_day) / DAY)

        moving = some(1 / 45)
        self._net_before[moving] = self._net_base[moving]
        self._net_base[moving] += 1 << 10
        self._moved[moving] = window
        also = moving[chance.random(len(moving)) < 0.5]
        self._agent_base[also] += 1 << 10
        self._agent_base[some(1 / 14)] += 1
        grown = some(np.where(self.kind == SERVER, 0.1, np.where(self.kind == DEVELOPER, 0.15, 0.01)))
        self._net_base[grown] += 1  # one of the pool goes, another comes
        drifting = some(np.where(self.kind == APPLICATION, self.pool / 7, 0))
        self._net_base[drifting] += 1
        troubled = some(1 / 14)
        self._incident_until[troubled] = window + chance.integers(4, 18, len(troubled))
        rewritten = some(0.1)
        self._regime[:, rewritten] = chance.normal(0, 0.5, (2, len(rewritten)))
        bursting = some(0.4)
        self._burst_until[bursting] = window + chance.integers(1, 8, len(bursting))
        self._burst[bursting] = np.exp(chance.uniform(np.log(2), np.log(8), len(bursting)))

        self._change_models(window)

    def _change_models(self, window: int) -> None:
        chance, keys = np.random.default_rng([self._seed, 23, self.keys, window]), self.keys
        tries = np.flatnonzero(chance.random(keys) < np.where(self.kind == DEVELOPER, 1 / 8, 1 / 40) / DAY)
        there = CATALOGUE + sum(day * DAY <= window for day in LAUNCHES)
        self._models[tries, 1] = chance.integers(0, there, len(tries))
        self._aside[tries] = chance.uniform(0.02, 0.4, len(tries))
        changes = np.flatnonzero(chance.random(keys) < 1 / 60 / DAY)
        self._models[changes, 0] = chance.choice(CATALOGUE, len(changes), p=self._popular)
        for launch, when in enumerate(self._goes_over):
            over = np.flatnonzero((when > window - 1) & (when <= window))
            self._models[over, 1], self._models[over, 0] = self._models[over, 0], CATALOGUE + launch
            self._aside[over] = 0.3

    def _asked_for(self, window: int, ids: I64, many: I64) -> I64:
        """i64[n]: the models that these keys ask for in so many requests, as bits."""
        chance = np.random.default_rng([self._seed, 29, self.keys, window])
        found = self.model_bins(self._models[ids, 0])
        also = chance.random(len(ids)) < 1 - (1 - self._aside[ids]) ** many
        found[also] |= self.model_bins(self._models[ids[also], 1])
        for index in np.flatnonzero(self._offers_all[ids]).tolist():
            chosen = chance.choice(CATALOGUE, min(int(many[index]), 12), p=self._popular)
            found[index] |= np.bitwise_or.reduce(self.model_bins(chosen))
        return found

    def model_bins(self, models: I64) -> I64:
        """i64[n]: of each model its bin, as a bit; which ones meet in a bin depends on the seed."""
        return bins(np.asarray(models) + (self._seed << 8))

    def _origins(self, window: int, ids: I64, many: I64, values: I64, chance: np.random.Generator) -> None:
        """Networks, countries and agents, by drawing for some of the requests where they come from."""
        draws = np.minimum(many, np.where(self.kind[ids] == APPLICATION, DRAWS, 6))
        at = np.repeat(np.arange(len(ids)), draws)
        key = ids[at]
        index = (self.pool[key] * chance.random(len(at)) ** 1.5).astype(np.int64)
        moved = np.clip((window - self._moved[key]) / 24, 0.1, 1)
        base = np.where(chance.random(len(at)) < moved, self._net_base[key], self._net_before[key])
        nets = base + index
        starts = np.cumsum(draws) - draws
        abroad = np.where(self.kind[key] == APPLICATION, (nets * 2654435761 >> 7) % 5, (nets * 2654435761 >> 7) % 10 == 0)
        agents = self._agent_base[key] + (self._agents[key] * chance.random(len(at)) ** 2).astype(np.int64)
        for place, words in ((V_NETS, nets), (V_COUNTRIES, (key << 8) + abroad), (V_AGENTS, agents)):
            values[:, place] = np.bitwise_or.reduceat(bins(words), starts) if len(ids) else 0


@dataclass(frozen=True, slots=True)
class KeyAttack:
    """What somebody does with a key."""

    kind: str
    strength: int
    """0 weak, 1 ordinary, 2 strong"""
    key: int
    begin: int
    """The first window …"""
    end: int
    """… and the one after the last"""
    number: int

    def add(self, world: KeyWorld, window: int, values: I64, seed: int) -> None:
        """Put what the attack does in a window to what the key does, i64[VALUES]."""
        chance = np.random.default_rng([seed, 11, self.number, window])
        mean = max(float(world.mean(window)[self.key]), 0.0)
        nets, requests, error_share, tokens, same_origin = _doings(self, mean, float(world.rate[self.key]))
        many = int(chance.poisson(requests))
        if many == 0:
            return
        honest = max(int(values[V_REQUESTS]), 1)
        usual_in, usual_out = (world._tokens[which][self.key] for which in (0, 1))
        values[V_REQUESTS] += many
        values[V_ERRORS] += int(chance.binomial(many, error_share))
        values[V_TOKENS_IN] += int(many * tokens * usual_in * np.exp(chance.normal(0, 0.7 / np.sqrt(many))))
        values[V_TOKENS_OUT] += int(many * tokens * usual_out * np.exp(chance.normal(0, 0.7 / np.sqrt(many))))
        assert honest
        values[V_MODELS] |= self._models(world, window, many, seed, same_origin=same_origin)
        if same_origin:
            if values[V_NETS] == 0:
                values[V_NETS] = bins(np.array([world._net_base[self.key]]))[0]
                values[V_COUNTRIES] = bins(np.array([self.key << 8]))[0]
                values[V_AGENTS] = bins(np.array([world._agent_base[self.key]]))[0]
            return
        own = np.random.default_rng([seed, 12, self.number])
        new_country, new_agent = own.random() < 0.6, own.random() < 0.6
        chosen = np.unique(chance.integers(0, nets, min(many, 64)))
        base = _FRESH + (self.number << 12)
        values[V_NETS] |= np.bitwise_or.reduce(bins(base + chosen))
        abroad = (self.key << 8) + 100 + chosen % 7
        values[V_COUNTRIES] |= np.bitwise_or.reduce(bins(abroad)) if new_country else bins(np.array([self.key << 8]))[0]
        agent = base + chosen % (8 if self.kind in ("shared", "resale") else 1) if new_agent else world._agent_base[[self.key]]
        values[V_AGENTS] |= np.bitwise_or.reduce(bins(agent))

    def _models(self, world: KeyWorld, window: int, many: int, seed: int, *, same_origin: bool) -> int:
        """What is asked for: what runs where its owner runs it asks for what he does; strangers take what they like, which
        often is what he likes."""
        own = np.random.default_rng([seed, 31, self.number])
        liked = own.choice(CATALOGUE, 8, replace=False)
        as_owner = own.random() < THIEVES_AS_OWNERS
        if same_origin or (as_owner and self.kind in ("leaked_quiet", "leaked_loud", "night")):
            return int(world.model_bins(world._models[[self.key], 0])[0])
        wide = {"shared": 4, "resale": 4, "probing": 8}.get(self.kind, 1)
        chance = np.random.default_rng([seed, 37, self.number, window])
        return int(np.bitwise_or.reduce(world.model_bins(chance.choice(liked[:wide], min(many, 32)))))


THIEVES_AS_OWNERS = 0.4
"""So many thieves who work alone ask for the model that the key asks for anyway."""
ATTACK_KINDS = ("leaked_quiet", "leaked_loud", "shared", "resale", "tokens", "in_place", "night", "probing")
_LONG = {
    "leaked_quiet": 72,
    "leaked_loud": 4,
    "shared": 12,
    "resale": 72,
    "tokens": 24,
    "in_place": 12,
    "night": 24,
    "probing": 6,
}
"""Windows."""


def _doings(attack: KeyAttack, mean: float, rate: float) -> tuple[int, float, float, float, bool]:
    """(networks, requests in the window, share of errors, tokens as a multiple of the key's, from its own networks)"""
    s = attack.strength
    kind = attack.kind
    if kind == "leaked_quiet":
        return (1, 3, 5)[s], (3.0, 18.0, 60.0)[s], 0.01, 1.0, False
    if kind == "leaked_loud":
        return (5, 20, 20)[s], max(rate, 20) * (3, 10, 40)[s], 0.01, 1.5, False
    if kind == "shared":
        return (10, 30, 60)[s], (25.0, 75.0, 300.0)[s], 0.02, 1.0, False
    if kind == "resale":
        return (4, 10, 30)[s], (4.0, 15.0, 60.0)[s], 0.02, 1.2, False
    if kind == "tokens":
        return 0, max(mean, 3.0) * (0.5, 1, 1)[s], 0.005, (4.0, 8.0, 20.0)[s], True
    if kind == "in_place":
        return 0, max(mean, 3.0) * (1, 3, 9)[s], 0.01, 1.0, True
    if kind == "night":
        return 1, max(rate, 3.0) * (0.5, 1, 3)[s], 0.01, 1.0, False
    return 1, (20.0, 60.0, 200.0)[s], 0.5, 0.3, False


def attacks(world: KeyWorld, seed: int, many: int, first_day: int) -> list[KeyAttack]:
    """So many attacks on keys that were there before, each of them alone, from a day on."""
    chance = np.random.default_rng([seed, 13, world.keys])
    old = np.flatnonzero((world.born < (first_day - 5) * DAY) & (world.rate > 0.02))
    found = []
    for number in range(many):
        kind = ATTACK_KINDS[number % len(ATTACK_KINDS)]
        begin = int(chance.integers(first_day * DAY, world.windows - max(_LONG.values())))
        key = int(chance.choice(old))
        if kind == "night":  # at the hour at which the key does least
            day = begin // DAY * DAY
            quiet = min(range(0, DAY - 24, 12), key=lambda w: float(world.mean(day + w)[key]))
            begin = day + quiet
        found.append(KeyAttack(kind, int(chance.integers(3)), key, begin, begin + _LONG[kind], number))
    return sorted(found, key=lambda attack: (attack.begin, attack.number))
