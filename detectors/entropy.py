"""``entropy``: there is more of something on a service, and what is more is not made like what usually comes.

How it decides: when ten seconds hold more than usual (`growth`, `least_…`; more than any ten seconds of the last five
minutes by as much), it compares what they are made of with the last five minutes. Of routes, user agents, countries and
networks it takes the collision entropy over addresses, each counted once: minus the logarithm of the chance that two of them
are alike, which unlike Shannon's can be told without bias from a few. A shift of `shift_bits` up or down that chance does not
make is an alarm. Of addresses themselves it takes how often one comes again within the ten seconds: ten times as many people
come as often as one does, a botnet of thousands hardly at all, and a few machines all the time. Of accounts, which only says
something in one direction: many more, each of which asks for less, are one customer with many names. An episode is told
once, on the service, when it has lasted for ten seconds and `signature` does not explain `explained_max` of it.

Every ten seconds the same is asked of each *busy route*, one with `route_share` of what usually comes, if the service has
`least_…` more than usual: whether the route has (by as much as a service needs, and three times its sample's error more), and
whether that is made otherwise than the route's own last five minutes. It is told once, on the route, where neither the
service's own alarm nor `signature` tells of it.

Where it fails: it says that, not who. A crowd from one country, or for one new page, is told as an attack is: look. An attack
that looks like usual traffic in everything, how often addresses come again too, is seen by ``surge`` only, and one below
`growth` and `least_…` by neither. Below two dozen addresses in ten seconds it says nothing. Of routes it says nothing among
accounts and assets. One machine that says the same many times a second is one event of a sample: there it is seen up to some
64 events a second of the service, above by its address alone (`rate`). What lasts four minutes is usual on a route.

Costs: the sample; with a surplus 0.2 ms a second, else 0.2 ms every ten seconds.

Confidence: 0.7 as stated; nothing is stopped. Can its evidence be forged? Whoever sends requests can make it speak.

Key: the service, or the route, and the kind of request. Quiet time: an episode, over after a minute without a surplus.

Parameters: `EntropySection`.

>>> random = np.random.default_rng(3)
>>> def sample(count, agents):
...     rows = np.zeros((count, 9), np.int64)
...     rows[:, ADDRESS] = 0xFFFF_0000_0000 + random.integers(0, 1 << 32, count)
...     rows[:, USER_AGENT] = random.choice(agents, count)
...     return rows
>>> [(s.what, round(s.usual, 1), round(s.now, 1)) for s in shifts(sample(300, range(1, 26)), sample(400, range(1, 26)), 0.7)]
[]
>>> [(s.what, round(s.usual, 1), round(s.now, 1)) for s in shifts(sample(300, range(1, 4)), sample(400, range(1, 26)), 0.7)]
[('user agents', 4.7, 1.6)]

References: Lakhina et al., Mining Anomalies Using Traffic Feature Distributions (SIGCOMM 2005); Hoeffding, A Class of
Statistics with Asymptotically Normal Distribution (1948), for the spread of a collision count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from detectors.kernels.alike import MILLI, ROUTE_VALUES, alike_kernel, all_routes_kernel, allocate_slots
from detectors.surplus import (
    ADDRESS,
    COUNTRY,
    F64,
    NET_WIDE,
    NOUNS,
    ROUTE,
    USER_AGENT,
    WEIGHT,
    WINDOW_S,
    SurplusSection,
    column,
)
from detectors.windowed import Detector, Profile, WindowRule
from schemas.columns import I64
from schemas.sample import Stratum

NAME = "entropy"
VERSION = 1
ADDRESSES_MIN, USUAL_MIN = 24, 60
"""Fewer say nothing about what they are made of."""
STEPS_MIN = 6
CHANCE_SIGMAS = 6.0
MARGIN, MARGIN_ACCOUNTS = 500, 300
"""How often somebody comes again has to be so far outside of what five minutes knew, in thousandths of a bit."""
ROUTES_MAX, ROUTE_USUAL_MIN = 10, 30
"""No more routes of a stratum can each have a tenth of it; and so many addresses in five minutes say what one is made of."""
SAMPLE_SIGMAS = 3.0
"""What is told of a route has to be outside the error of its sample by so much."""
COMPARED = {ROUTE: "routes", USER_AGENT: "user agents", COUNTRY: "countries", NET_WIDE: "networks"}


class EntropySection(SurplusSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``entropy`` detector. It notifies."""

    shift_bits: Annotated[float, msgspec.Meta(ge=0.2, le=16)] = 0.7
    """Entropies have to differ by so much from the usual."""
    explained_max: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    """When ``signature`` explains so much of the surplus, it says nothing: an episode is told once."""
    route_share: Annotated[float, msgspec.Meta(ge=1 / ROUTES_MAX, le=1)] = 0.1
    """A route with so much of what is usual is compared with itself too. 1: only one that has everything."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.7
    """How often what is told is really an attack, as far as is known."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Something about a window that is not as usual."""

    what: str
    usual: float
    now: float
    """Both in bits"""

    @property
    def text(self) -> str:
        """For a sentence."""
        return f"{self.what} {self.usual:.1f} bits usually, {self.now:.1f} now"


def repeats_of(stratum: Stratum, rows: I64, events: int, accounts: int) -> int | None:
    """How often one comes (again) in a window: its logarithm in thousandths of bits; None: there is too little to say.

    Args:
        rows: that stand for equally many.
    """
    if len(rows) < ADDRESSES_MIN:
        return None
    if stratum == Stratum.ACCOUNTS:
        return milli_bits(events / max(1, accounts))
    return milli_bits(1 + _chance(len(rows), _alike(rows[:, ADDRESS])[0]) * events)


@dataclass(frozen=True, slots=True)
class _Collisions:
    """What a sample says of the chance that two are alike."""

    chance: float
    variance: float


def _alike(words: I64) -> tuple[int, int]:
    """Ordered pairs, and triples, of the same word."""
    count = len(words)
    pairs, triples = alike_kernel(words, allocate_slots(count), np.empty(count, np.int64), np.empty(count, np.int64))
    return pairs, triples


def _chance(count: int, alike: int) -> float:
    """That two are alike. One pair more is supposed: none seen is not never."""
    return (alike + 1) / (count * (count - 1) + 1)


def _collisions(words: I64) -> _Collisions:
    count, (alike, alike_triples) = len(words), _alike(words)
    pairs, triples = count * (count - 1), count * (count - 1) * (count - 2)
    chance = _chance(count, alike)
    three = alike_triples / triples if triples else 0.0
    variance = 4 * (count - 2) / pairs * max(0.0, three - chance**2) + 2 * chance / pairs if pairs else 1.0
    return _Collisions(chance, variance)


def shifts(rows: I64, usual: I64, shift_bits: float, usual_min: int = USUAL_MIN) -> list[Shift]:
    """Where the entropies of a window's addresses differ from the usual.

    Args:
        rows: of the window, that stand for equally many.
        usual: rows of the reference.
        usual_min: with fewer addresses there nothing is usual.
    """
    now, before = (_addresses(some) for some in (rows, usual))
    if len(now) < ADDRESSES_MIN or len(before) < usual_min:
        return []
    found = []
    for attribute, name in COMPARED.items():
        one, other = _collisions(column(now, attribute)), _collisions(column(before, attribute))
        bits = -math.log2(other.chance), -math.log2(one.chance)
        sigmas = abs(one.chance - other.chance) / math.sqrt(one.variance + other.variance)
        if abs(bits[1] - bits[0]) >= shift_bits and sigmas >= CHANCE_SIGMAS:
            found.append(Shift(name, *bits))
    return found


def _addresses(rows: I64) -> I64:
    """One row of each address."""
    return rows[np.unique(rows[:, ADDRESS], return_index=True)[1]]


def repeats_shift(stratum: Stratum, now: int | None, usual: list[int]) -> Shift | None:
    """Whether one comes again as often as usual."""
    if now is None or len(usual) < STEPS_MIN:
        return None
    accounts = stratum == Stratum.ACCOUNTS
    margin = MARGIN_ACCOUNTS if accounts else MARGIN
    middle = sorted(usual)[len(usual) // 2] / MILLI
    few = now > max(usual) + margin and stratum not in (Stratum.ACCOUNTS, Stratum.ASSETS)
    if few or now < min(usual) - margin:
        return Shift("requests of one account" if accounts else "requests of one address", middle, now / MILLI)
    return None


@dataclass(frozen=True, slots=True)
class RouteWindow:
    """What a sample says of one route in ten seconds."""

    route: int
    total: float
    """Requests, as far as the sample tells"""
    error: float
    """Its standard deviation: none where the sample is everything"""
    often: float
    """How often one address comes"""
    often_error: float

    @property
    def repeats(self) -> int:
        """As `repeats_of` has it."""
        return milli_bits(self.often)

    @property
    def surely(self) -> float:
        """So many requests at least."""
        return self.total - SAMPLE_SIGMAS * self.error

    def repeats_shift(self, stratum: Stratum, usual: list[int]) -> Shift | None:
        """Whether one address comes as often as usual: of what it may be, what is nearest to the usual is tested."""
        if len(usual) < STEPS_MIN:
            return None
        margin = SAMPLE_SIGMAS * self.often_error
        low, high = milli_bits(max(1.0, self.often - margin)), milli_bits(self.often + margin)
        found = repeats_shift(stratum, min(max(sorted(usual)[len(usual) // 2], low), high), usual)
        if found is None or (stratum == Stratum.FAILED and found.now > found.usual):
            return None  # few who fail are one customer's job: their addresses and keys have limits of their own
        return Shift(found.what, found.usual, self.repeats / MILLI)


def milli_bits(often: float) -> int:
    """A logarithm in thousandths of bits."""
    return round(MILLI * math.log2(often))


def routes_of(rows: I64, weights: F64, share: float) -> list[RouteWindow]:
    """The routes with at least so much of a window and enough events to say something, the heaviest first.

    An event that says the same as another of its second lies with it in one row: here every one of them counts, for a few
    machines are just that. Sums are Horvitz's and Thompson's, errors those of choosing rows independently (a ratio's by its
    linear part, and what two rows have by being two).

    Args:
        rows, weights: of the window; f64[n], how many requests each stands for: 2^level times those that are equal.
    """
    found, values, count = np.empty(ROUTES_MAX, np.int64), np.empty((ROUTES_MAX, ROUTE_VALUES)), len(rows)
    many = all_routes_kernel(
        rows[:, ROUTE], rows[:, ADDRESS], rows[:, WEIGHT], weights, share, ADDRESSES_MIN, allocate_slots(count),
        allocate_slots(count), np.empty((count, 4), np.int64), np.empty((count, 6)), found, values,
    )  # fmt: skip
    return [
        RouteWindow(route, *of_route) for route, of_route in zip(found[:many].tolist(), values[:many].tolist(), strict=True)
    ]


def sentence(stratum: Stratum, where: str, observed: int, mean: float, found: list[Shift]) -> str:
    """What was observed on a service or a route, and how it differs."""
    what = f"{observed:,} {NOUNS[stratum]} in {WINDOW_S} seconds on {where}, where about {mean:,.0f} are usual"
    return f"{what}, and made otherwise: {'; '.join(shift.text for shift in found)}"


def _no_rules(section: EntropySection, profile: Profile) -> list[WindowRule]:
    """It compares with what it has learned (`engine.strata`), and not in the windows."""
    return []


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    return f"{observed:,} {rule.measure} in {WINDOW_S} seconds on service {target}, where about {rule.limit:,} are usual"


DETECTOR = Detector(NAME, VERSION, EntropySection, _no_rules, _describe, samples=True)
