"""``entropy``: there is more of something on a service, and what is more is not made like what usually comes.

How it decides: when ten seconds hold more than usual (`growth`, `least_…`; more than any ten seconds of the last five
minutes by as much), it compares what they are made of with the last five minutes. Of routes, user agents, countries and
networks it takes the collision entropy over addresses, each counted once: minus the logarithm of the chance that two of them
are alike, which unlike Shannon's can be told without bias from a few. A shift of `shift_bits` up or down that chance does not
make is an alarm. Of addresses themselves it takes how often one comes again within the ten seconds: ten times as many people
come as often as one does, a botnet of thousands hardly at all, and a few machines all the time. Of accounts, which only says
something in one direction: many more, each of which asks for less, are one customer with many names. An episode is told
once, on the service, when it has lasted for ten seconds and `signature` does not explain `explained_max` of it.

Where it fails: it says that, not who. A crowd from one country, or for one new page, is told as an attack is: look. An attack
that looks like usual traffic in everything, how often addresses come again too, is seen by ``surge`` only, and one below
`growth` and `least_…` by neither. Below two dozen addresses in ten seconds it says nothing.

Costs: the sample; with a surplus 0.2 ms a second, else 20 µs every ten seconds.

Confidence: 0.7 as stated; nothing is stopped. Can its evidence be forged? Whoever sends requests can make it speak.

Key: the service and the kind of request. Quiet time: an episode, which is over after a minute without a surplus.

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

from detectors.surplus import ADDRESS, COUNTRY, NET_WIDE, NOUNS, ROUTE, USER_AGENT, WINDOW_S, SurplusSection, column
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
MILLI = 1000
COMPARED = {ROUTE: "routes", USER_AGENT: "user agents", COUNTRY: "countries", NET_WIDE: "networks"}


class EntropySection(SurplusSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``entropy`` detector. It notifies."""

    shift_bits: Annotated[float, msgspec.Meta(ge=0.2, le=16)] = 0.7
    """Entropies have to differ by so much from the usual."""
    explained_max: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    """When ``signature`` explains so much of the surplus, it says nothing: an episode is told once."""
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
    often = events / max(1, accounts) if stratum == Stratum.ACCOUNTS else 1 + _collisions(rows[:, ADDRESS]).chance * events
    return round(MILLI * math.log2(often))


@dataclass(frozen=True, slots=True)
class _Collisions:
    """What a sample says of the chance that two are alike."""

    chance: float
    variance: float


def _collisions(words: I64) -> _Collisions:
    count = len(words)
    _, many = np.unique(words, return_counts=True)
    pairs, triples = count * (count - 1), count * (count - 1) * (count - 2)
    # One pair more is supposed: none seen is not never.
    chance = (float((many * (many - 1)).sum()) + 1) / (pairs + 1)
    three = float((many * (many - 1) * (many - 2)).sum()) / triples if triples else 0.0
    variance = 4 * (count - 2) / pairs * max(0.0, three - chance**2) + 2 * chance / pairs if pairs else 1.0
    return _Collisions(chance, variance)


def shifts(rows: I64, usual: I64, shift_bits: float) -> list[Shift]:
    """Where the entropies of a window's addresses differ from the usual.

    Args:
        rows: of the window, that stand for equally many.
        usual: rows of the reference.
    """
    now, before = (_addresses(some) for some in (rows, usual))
    if len(now) < ADDRESSES_MIN or len(before) < USUAL_MIN:
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


def sentence(stratum: Stratum, service: str, observed: int, mean: float, found: list[Shift]) -> str:
    """What was observed, and how it differs."""
    what = f"{observed:,} {NOUNS[stratum]} in {WINDOW_S} seconds on service {service}, where about {mean:,.0f} are usual"
    return f"{what}, and made otherwise: {'; '.join(shift.text for shift in found)}"


def _no_rules(section: EntropySection, profile: Profile) -> list[WindowRule]:
    """It compares with what it has learned (`engine.strata`), and not in the windows."""
    return []


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    return f"{observed:,} {rule.measure} in {WINDOW_S} seconds on service {target}, where about {rule.limit:,} are usual"


DETECTOR = Detector(NAME, VERSION, EntropySection, _no_rules, _describe, samples=True)
