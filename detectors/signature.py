"""``signature``: under a distributed attack, what its requests have in common and usual ones have not.

How it decides: of each second a judge has a sample of whole events (`schemas.sample`). When ten seconds hold more than usual
(`growth`, `least_…`), it looks for conjunctions of attributes (route, user agent, TLS fingerprint, network, country, mail
domain) in what is more: it *explains* what the window has of it beyond what the last five minutes lead to expect. The best
is taken, its requests are put aside, and the rest is looked at again, up to four times. A conjunction acts only if all hold:
it names a client's attribute, at least `sources_min` addresses have it, its *collateral* (the share of usual requests of any
kind that it matches) is within `collateral_max`, it explains ten times more of the surplus than of the usual, chance does not
make so many sources, and, where it names a route, its clients are not simply those that always come: a crowd that comes for
one article is not known by its browsers. People are told what most of a surplus has in common if that is only a route, or if
too few usual requests are known to act: none of forty is no proof of less than one in fifty. It ends 90 s after the surplus.

Where it fails: a botnet that asks for what people ask for with people's browsers from everywhere has nothing in common but
being new: `entropy` tells of it. A crowd that one application sends to one page looks like a botnet with one agent; the
action is a challenge, and dry run is the default. Fewer than fifty usual requests in five minutes say too little about
collateral for anything to act, and fewer than twenty for people to be told. What rises slower than by half in five minutes is
taken for usual. Accounts and assets never have one: keys are judged by themselves, and a page brings dozens of assets.

Costs: the sample; with a surplus about 1 ms a second, without one nothing that can be measured.

Confidence: 0.9, as far as drills go. Can its evidence be forged? Whoever sends requests with somebody's user agent makes it
suspected, and never stopped if it is usual: that is what collateral is for. What is rare and honest can be framed by a flood.

Key: the conjunction, per service. Quiet time: none, renewed while the surplus lasts.

Parameters: `SignatureSection`.

>>> random = np.random.default_rng(5)
>>> def sample(count, route, agent):
...     rows = np.zeros((count, 9), np.int64)
...     rows[:, WEIGHT], rows[:, ADDRESS] = 1, 0xFFFF_0000_0000 + random.integers(0, 1 << 32, count)
...     rows[:, ROUTE], rows[:, USER_AGENT] = random.choice(route, count), random.choice(agent, count)
...     return rows
>>> usual = Usual.of(sample(400, range(1, 9), range(1, 26)), 100.0)
>>> window = np.concatenate([sample(100, range(1, 9), range(1, 26)), sample(300, [1], [1])])
>>> [found] = explain(window, window[:, WEIGHT].astype(float), usual, [usual], SignatureSection(), Stratum.PAGES)
>>> found.values, round(found.explained, 2), round(found.collateral, 3)
(((3, 1), (4, 1)), 1.0, 0.007)

References: Lakhina et al., Mining Anomalies Using Traffic Feature Distributions (SIGCOMM 2005); Bhagwan et al., Adtributor:
Revenue Debugging in Advertising Systems (NSDI 2014), whose explanatory power and succinctness these are.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.surplus import (
    ADDRESS,
    COUNTRY,
    EMAIL_DOMAIN,
    F64,
    FINGERPRINT,
    NET,
    NET_WIDE,
    ROUTE,
    USER_AGENT,
    WEIGHT,
    WHO,
    WINDOW_S,
    SurplusSection,
    column,
)
from detectors.windowed import Detector, Profile, WindowRule
from schemas.columns import I64
from schemas.sample import Stratum

NAME = "signature"
VERSION = 1
OUTLASTS_S = 30
"""It holds for a cell of renewal and so much longer: what lasts has no holes, and what has ended ends."""
SIGNATURES_MAX = 4
"""At once, of one surplus."""
VALUES_MAX = 12
"""Values of one attribute that are combined: each has at least a tenth of the surplus."""
LENGTH_MAX = 3
ATTRIBUTES = (ROUTE, USER_AGENT, FINGERPRINT, COUNTRY, NET, NET_WIDE, EMAIL_DOMAIN)
CLIENT = frozenset((USER_AGENT, FINGERPRINT, NET, NET_WIDE))
"""What says something about who asks. The others are what many have in common."""
EXPLAINED_MORE = 0.1
"""Of the surplus, for what is found beside a first."""
ROWS_MIN = 20
"""Fewer usual requests say nothing of shares."""
SOURCES_UNSEEN = 0.05
"""So many are always expected in ten seconds."""
EVENTS_MIN, CHANCE_LOG = 8, -20.7
"""Fewer mean nothing; and chance may make so many sources once in a thousand million windows."""
LIFT_MIN, LIFT_MORE = 3.0, 1.7
"""So many times more of a route's surplus than of usual requests has to be a client's; the second number beside a first."""
NEARLY = 0.9
"""A shorter conjunction that explains so much of the best is better …"""
HARM_TIMES, HARM_MORE = 2.0, 0.002
"""… unless it would hit so much more of usual traffic."""
OF_PROPORTION = 10.0
"""What merely grows in proportion is nobody's signature."""
NOTE_EXPLAINED = 0.5

Mask = npt.NDArray[np.bool_]
Conjunction = tuple[tuple[int, int], ...]
"""(attribute, word), by attribute"""


class SignatureSection(SurplusSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``signature`` detector."""

    dry_run: bool = True
    """Ships dry: look at what it would have hit (docs/distributed.md), then set this to false."""
    collateral_max: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.02
    """The share of usual requests that a signature may match."""
    explained_min: Annotated[float, msgspec.Meta(ge=0.1, le=1)] = 0.25
    """Of what is more than usual, a signature explains so much."""
    sources_min: Annotated[int, msgspec.Meta(ge=2, le=64)] = 5
    """Fewer addresses are judged one by one."""
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    """How often what it names is really an attack, as far as is known."""


@dataclass(frozen=True, slots=True)
class Usual:
    """What a stratum is usually like."""

    rows: I64
    weights: F64
    """f64[n]: together the mean of a window"""
    mean: float

    @staticmethod
    def of(rows: I64, mean: float) -> Usual:
        """Rows that weigh as they say."""
        weights = rows[:, WEIGHT].astype(np.float64)
        return Usual(rows, weights * (mean / max(1.0, float(weights.sum()))), mean)

    def seen(self, matches: Mask) -> float:
        """Of usual requests that were seen, the share that matches."""
        total = float(self.weights.sum())
        return float(self.weights[matches].sum()) / total if total else 0.0

    def share(self, matches: Mask) -> float:
        """Of usual requests: the mean of what it may be, so that nothing seen is not nothing."""
        return (self.seen(matches) * len(self.rows) + 1) / (len(self.rows) + 1)


@dataclass(frozen=True, slots=True)
class Explained:
    """A conjunction that explains a part of a surplus."""

    values: Conjunction
    observed: float
    """Requests in the window"""
    usual: float
    """Requests in a usual one"""
    explained: float
    """Share of the surplus"""
    collateral: float
    """Share of usual requests that it matches"""
    acts: bool
    """Else it is for people only."""


def names_clients(values: Conjunction) -> bool:
    """Whether it says something about who asks."""
    return not CLIENT.isdisjoint(attribute for attribute, _ in values)


def matching(values: Conjunction, rows: I64) -> Mask:
    """bool[n]: which rows have all of these values."""
    found: Mask = np.logical_and.reduce([column(rows, attribute) == word for attribute, word in values])
    return found


@dataclass(slots=True)
class _Values:
    """Single values, with the rows of the window that have each."""

    pairs: list[tuple[int, int]]
    masks: Mask  # bool[v, n]


def explain(
    rows: I64, weights: F64, usual: Usual, everything: Sequence[Usual], section: SignatureSection, stratum: Stratum,
    named: Container[int] | None = None, standing: Sequence[Conjunction] = (),
) -> list[Explained]:  # fmt: skip
    """Conjunctions that explain what a window has more than usual: those that act, else one for people.

    Args:
        rows, weights: of the window; f64[n], how many requests each stands for.
        usual: of the same stratum.
        everything: of all strata of the service: a signature matches whatever is asked for.
        named: words that have a whole text; None: all.
        standing: what was found before, and is kept as long as it holds.
    """
    surplus = float(weights.sum()) - usual.mean
    found: list[Explained] = []
    left = np.ones(len(rows), np.bool_)
    for values in standing:
        mask = matching(values, rows) & left
        again = _weigh(values, mask, weights, usual, everything, surplus)
        if _acts(again, mask, rows, weights, usual, everything, section, surplus, more=True):
            found.append(again)
            left &= ~mask
    attributes = [a for a in ATTRIBUTES if a != EMAIL_DOMAIN or stratum == Stratum.REGISTERED]
    while len(found) < SIGNATURES_MAX:
        best = _best(rows, weights, usual, everything, section, attributes, named, left, surplus, more=bool(found))
        if best is None:
            break
        found.append(best)
        left &= ~matching(best.values, rows)
    if sum(one.explained for one in found) < NOTE_EXPLAINED:
        route = _route(rows, weights, usual, everything, named, left, surplus, failed=stratum == Stratum.FAILED)
        whose = _best(rows, weights, usual, everything, section, attributes, named, left, surplus, more=False, acts=False)
        if route is not None and (whose is None or whose.explained < NEARLY * route.explained):
            found.append(route)
        elif whose is not None:
            found.append(whose)
    return found


def _frequent(
    rows: I64, weights: F64, attributes: Sequence[int], named: Container[int] | None, left: Mask, least: float
) -> _Values:
    """Single values with enough weight to matter."""
    pairs, masks = [], []
    for attribute in attributes:
        words = column(rows, attribute)
        distinct, which = np.unique(words, return_inverse=True)
        heavy = np.bincount(which, weights * left, len(distinct))
        usable = [w for w in np.argsort(-heavy, kind="stable")[:VALUES_MAX].tolist() if heavy[w] >= least and distinct[w] != 0]
        for place in usable:
            word = int(distinct[place])
            if attribute in (NET, NET_WIDE) or named is None or word in named:
                pairs.append((attribute, word))
                masks.append((which == place) & left)
    return _Values(pairs, np.array(masks, np.bool_).reshape(len(pairs), len(rows)))


def _conjunctions(values: _Values, weights: F64, least: float) -> list[tuple[tuple[int, ...], Mask]]:
    """All with enough weight, up to `LENGTH_MAX` values of different attributes, each with its rows."""
    level: list[tuple[tuple[int, ...], Mask]] = [((index,), values.masks[index]) for index in range(len(values.pairs))]
    found = list(level)
    for _ in range(LENGTH_MAX - 1):
        longer: list[tuple[tuple[int, ...], Mask]] = []
        for places, mask in level:
            heavy = values.masks @ (weights * mask)
            for index in range(places[-1] + 1, len(values.pairs)):
                taken = {values.pairs[place][0] for place in places}
                attribute = values.pairs[index][0]
                if attribute in taken or (attribute == NET_WIDE and NET in taken) or heavy[index] < least:
                    continue
                longer.append(((*places, index), mask & values.masks[index]))
        found += longer
        level = longer
    return found


def _best(
    rows: I64, weights: F64, usual: Usual, everything: Sequence[Usual], section: SignatureSection, attributes: Sequence[int],
    named: Container[int] | None, left: Mask, surplus: float, *, more: bool, acts: bool = True,
) -> Explained | None:  # fmt: skip
    """The conjunction of those that act that explains most; ``acts`` False: of those that would if more were known."""
    least = (NOTE_EXPLAINED if not acts else EXPLAINED_MORE if more else section.explained_min) * surplus
    values = _frequent(rows, weights, attributes, named, left, least)
    fit = []
    for places, mask in _conjunctions(values, weights, least):
        pairs = tuple(values.pairs[place] for place in places)
        if not names_clients(pairs):
            continue
        one = _weigh(pairs, mask, weights, usual, everything, surplus)
        if acts and _acts(one, mask, rows, weights, usual, everything, section, surplus, more=more):
            fit.append(one)
        elif not acts and _is_told(one, mask, rows, weights, usual, everything, section, surplus):
            fit.append(replace(one, acts=False))
    if not fit:
        return None
    enough = NEARLY * max(one.explained for one in fit)
    nearly = [one for one in fit if one.explained >= enough]
    harmless = HARM_TIMES * min(one.collateral for one in nearly) + HARM_MORE
    nearly = [one for one in nearly if one.collateral <= harmless]
    return min(nearly, key=lambda one: (len(one.values), one.collateral, -one.explained, one.values))


def _weigh(
    pairs: Conjunction, mask: Mask, weights: F64, usual: Usual, everything: Sequence[Usual], surplus: float
) -> Explained:
    expected = float(usual.weights[matching(pairs, usual.rows)].sum())
    observed = float(weights[mask].sum())
    collateral = _share(pairs, usual, everything)
    return Explained(pairs, observed, expected, (observed - expected) / surplus, collateral, True)


def _share(values: Conjunction, usual: Usual, everything: Sequence[Usual]) -> float:
    """Of usual requests, those that it matches: of its stratum or of all of the service, whichever is more. A stratum that
    usually has next to nothing says nothing, and nobody there is hit."""
    known = [other for other in everything if len(other.rows)]
    total = sum(other.mean for other in known)
    overall = sum(other.share(matching(values, other.rows)) * other.mean for other in known) / total if total else 1.0
    return overall if len(usual.rows) < ROWS_MIN else max(overall, usual.share(matching(values, usual.rows)))


def _seen(values: Conjunction, usual: Usual, everything: Sequence[Usual]) -> float:
    """The same of those that were seen, which may be few; of next to none it is all."""
    if sum(len(other.rows) for other in everything) < ROWS_MIN:
        return 1.0
    overall = sum(other.seen(matching(values, other.rows)) * other.mean for other in everything)
    overall /= sum(other.mean for other in everything)
    return overall if len(usual.rows) < ROWS_MIN else max(overall, usual.seen(matching(values, usual.rows)))


def _acts(
    one: Explained, mask: Mask, rows: I64, weights: F64, usual: Usual, everything: Sequence[Usual],
    section: SignatureSection, surplus: float, *, more: bool,
) -> bool:  # fmt: skip
    if one.collateral > section.collateral_max or one.explained < OF_PROPORTION * one.collateral:
        return False
    if one.explained < (EXPLAINED_MORE if more else section.explained_min):
        return False
    return _is_somebodys(one, mask, rows, weights, usual, everything, section, surplus, LIFT_MORE if more else LIFT_MIN)


def _is_told(
    one: Explained, mask: Mask, rows: I64, weights: F64, usual: Usual, everything: Sequence[Usual],
    section: SignatureSection, surplus: float,
) -> bool:  # fmt: skip
    """Whether it would act if more were known, as what was seen, and explains as much as a route that is told."""
    seen = _seen(one.values, usual, everything)
    told = seen <= section.collateral_max and one.explained >= max(NOTE_EXPLAINED, OF_PROPORTION * seen)
    return told and _is_somebodys(one, mask, rows, weights, usual, everything, section, surplus, LIFT_MIN)


def _is_somebodys(
    one: Explained, mask: Mask, rows: I64, weights: F64, usual: Usual, everything: Sequence[Usual],
    section: SignatureSection, surplus: float, lift: float,
) -> bool:  # fmt: skip
    """Whether enough clients have it, and neither chance nor a crowd makes so many."""
    sources = _sources(rows[mask])
    if sources < section.sources_min or int(mask.sum()) < EVENTS_MIN:
        return False
    own = _is_no_chance(one, sources, rows, weights, usual)
    return own and _stands_out(one, rows, weights, usual, everything, surplus, lift)


def _sources(rows: I64) -> int:
    """How many there are behind these: addresses, and of those that name one account only one."""
    named = np.where(rows[:, WHO] != 0, rows[:, WHO], rows[:, ADDRESS])
    return min(len(np.unique(rows[:, ADDRESS])), len(np.unique(named)))


def _is_no_chance(one: Explained, sources: int, rows: I64, weights: F64, usual: Usual) -> bool:
    """Whether usual traffic would hardly ever bring so many sources (Chernoff's bound of a Poisson tail)."""
    unseen = usual.mean / (len(usual.rows) + 1)
    expected = max(one.usual, unseen, SOURCES_UNSEEN)
    expected *= len(rows) / float(weights.sum())
    return sources > expected and sources - expected - sources * math.log(sources / expected) <= CHANCE_LOG


def _stands_out(
    one: Explained, rows: I64, weights: F64, usual: Usual, everything: Sequence[Usual], surplus: float, least: float
) -> bool:
    """Beside a route, a client's attribute has to be more frequent than it is among usual clients."""
    where, who = (tuple(pair for pair in one.values if (pair[0] in CLIENT) == client) for client in (False, True))
    if not where:
        return True
    here = float(weights[matching(where, rows)].sum()) - float(usual.weights[matching(where, usual.rows)].sum())
    share = one.explained * surplus / here if here > 0 else 0.0
    return share >= least * _share(who, usual, everything)


def _route(
    rows: I64, weights: F64, usual: Usual, everything: Sequence[Usual], named: Container[int] | None, left: Mask,
    surplus: float, *, failed: bool,
) -> Explained | None:  # fmt: skip
    """The one route that most of the surplus is for."""
    values, found = _frequent(rows, weights, (ROUTE,), named, left, NOTE_EXPLAINED * surplus), []
    for pair, mask in zip(values.pairs, values.masks, strict=True):
        one = _weigh((pair,), mask, weights, usual, everything, surplus)
        usually = matching(one.values, usual.rows)
        share = usual.share(usually)
        if failed and len(usual.rows) < ROWS_MIN:  # what is not among the two that have failed is not half of what fails
            share = max(usual.seen(usually), _seen(one.values, usual, everything))
        lifted = one.explained >= LIFT_MIN * share
        if lifted and one.explained >= NOTE_EXPLAINED and _is_no_chance(one, _sources(rows[mask]), rows, weights, usual):
            found.append(replace(one, acts=False))
    return max(found, key=lambda one: one.explained, default=None)


def _no_rules(section: SignatureSection, profile: Profile) -> list[WindowRule]:
    """It compares with what it has learned (`engine.strata`), and not in the windows."""
    return []


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    return f"{observed:,} {rule.measure} of {target} in {WINDOW_S} seconds, where about {rule.limit:,} are usual"


DETECTOR = Detector(NAME, VERSION, SignatureSection, _no_rules, _describe, samples=True)
