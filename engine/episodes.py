"""What a service has too much of at the moment, who was said to be it, and how that is told.

An episode of a stratum begins with its first second of a surplus and is over when a minute passes without one. A signature is
told once in each cell of renewal while it holds; what only people are told, once in an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from detectors import entropy as shifted
from detectors import signature as signing
from detectors.entropy import EntropySection, Shift
from detectors.signature import Conjunction, Explained, Mask, SignatureSection, Usual
from detectors.surplus import ADDRESS, NOUNS, WINDOW_S, span_of
from detectors.windowed import WindowRule
from engine.crossing import Crossing, unsigned
from engine.naming import Texts, key_of, value_of, words_of
from engine.strata import OVER_STEPS, Gathered, Series
from schemas.columns import I64
from schemas.config import Action
from schemas.fields import Dimension, Measure
from schemas.sample import Stratum

ACTS: dict[Stratum, Action] = {Stratum.PAGES: "challenge", Stratum.REGISTERED: "challenge", Stratum.FAILED: "throttle"}
"""Accounts are told by their own keys' rules, and assets by the pages that ask for them."""
NOBODYS = "no client has enough in common to act on"
KEEN_S = 15
"""So long an episode is looked at every second, then every ten: what it is has been said, or cannot be."""


@dataclass(frozen=True, slots=True)
class Found:
    """A second with more than usual of something."""

    stratum: Stratum
    tick: int
    gathered: Gathered
    observed: int
    early: bool


@dataclass(slots=True)
class Episodes:
    """Of one service."""

    key: tuple[int, int]
    """The words of the service's key"""
    service: bytes
    renew_s: int
    """What lasts is told again in each cell of this length."""
    standing: dict[int, list[tuple[Conjunction, bytes, int]]] = field(default_factory=dict)
    """Stratum -> signatures of the episode, each with its value and the cell in which it was told last"""
    told: dict[int, int] = field(default_factory=dict)
    """Stratum -> the beginning of the episode that people were told of by `entropy`"""
    hinted: dict[bytes, int] = field(default_factory=dict)
    """Signatures that were told early, and the cell: nothing hangs on them, so they are not saved."""

    def note(self, series: Series, tick: int) -> None:
        """A surplus, decided."""
        step = tick // WINDOW_S
        if series.suspect < step - OVER_STEPS:
            series.since = tick
            self.standing.pop(series.stratum, None)
        series.suspect = step

    def is_open(self, series: Series, tick: int) -> bool:
        """Nothing has been decided about this surplus yet."""
        return series.suspect < tick // WINDOW_S - OVER_STEPS or not self.standing.get(series.stratum)

    def explain(
        self, found: Found, series: Series, everything: Sequence[Usual],
        sections: tuple[SignatureSection | None, EntropySection | None], texts: Texts,
    ) -> list[Crossing]:  # fmt: skip
        """What it is, as far as it is to be told now."""
        stratum, tick = found.stratum, found.tick
        keen = found.early or tick - series.since <= KEEN_S or tick % WINDOW_S == WINDOW_S - 1
        if not keen:
            return []
        signature, entropy = sections
        crossings: list[Crossing] = []
        explained = 0.0
        if signature is not None and stratum in ACTS:
            crossings, explained = self._sign(found, series, everything, signature, texts)
        if entropy is not None and not found.early and explained < entropy.explained_max:
            crossings += self._shift(found, series, entropy)
        return crossings

    def _sign(
        self, found: Found, series: Series, everything: Sequence[Usual], section: SignatureSection, texts: Texts
    ) -> tuple[list[Crossing], float]:  # fmt: skip
        stratum, gathered = found.stratum, found.gathered
        if not section.exceeds(stratum, found.observed, series.mean):
            return [], 0.0
        known = {values: (value, cell) for values, value, cell in self.standing.get(stratum, ())}
        explained = signing.explain(
            gathered.rows, gathered.weights(), series.usual(), everything, section, stratum, texts,
            list(known),
        )  # fmt: skip
        cell = found.tick // self.renew_s
        crossings, standing = [], dict(known)
        for one in explained:
            value, told = known.get(one.values, (value_of(one.values, self.service, texts), -1))
            if value is None:
                continue
            if told == cell and not found.early:
                crossings.append(replace(_signed(found, one, value, section, series, self.renew_s), goes_on=True))
            if told != cell and not (found.early and self.hinted.get(value) == cell):
                crossings.append(_signed(found, one, value, section, series, self.renew_s))
                standing[one.values] = value, cell
        if found.early:
            self.hinted = {value: at for value, at in self.hinted.items() if at >= cell - 1}
            self.hinted |= {one.name: cell for one in crossings}
        else:
            # What has not held for a cell is of the past; what lasts was renewed.
            kept = [(values, value, told) for values, (value, told) in standing.items() if told >= cell - 1]
            self.standing[stratum] = kept
        whose = unsigned(self.key)
        return [replace(one, service=whose) for one in crossings], sum(one.explained for one in explained)

    def _has_told(self, stratum: Stratum, tick: int) -> bool:
        """Something of a stratum, in this cell or the one before."""
        return any(told >= tick // self.renew_s - 1 for _, _, told in self.standing.get(stratum, ()))

    def _shift(self, found: Found, series: Series, section: EntropySection) -> list[Crossing]:
        stratum, gathered = found.stratum, found.gathered
        if self.told.get(stratum) == series.since and found.observed > section.growth * series.largest:
            where, whom = self._whole()
            told = shifted_crossing(whom, found, section, found.observed, series.mean, where, (), gathered.total)
            return [replace(told, goes_on=True)]
        if self.told.get(stratum) == series.since or found.tick < series.since + WINDOW_S:
            return []
        if found.observed <= section.growth * series.largest:
            return []
        if stratum == Stratum.ASSETS and self._has_told(Stratum.PAGES, found.tick):
            return []  # what comes with the pages that were told of
        even = gathered.even()
        shifts = [] if stratum == Stratum.ACCOUNTS else shifted.shifts(even, series.usual().rows, section.shift_bits)
        repeats = shifted.repeats_of(stratum, even, gathered.total, found.observed)
        again = shifted.repeats_shift(stratum, repeats, series.repeats())
        shifts += [] if again is None else [again]
        if not shifts:
            return []
        self.told[stratum] = series.since
        where, whom = self._whole()
        return [shifted_crossing(whom, found, section, found.observed, series.mean, where, shifts, gathered.total)]

    def _whole(self) -> tuple[str, tuple[Dimension, tuple[int, int], bytes]]:
        """The service, in words and as a target."""
        text = self.service.decode("utf-8", "backslashreplace")
        return f"service {text}", (Dimension.SERVICE, unsigned(self.key), self.service)

    def is_told(self, series: Series, tick: int) -> bool:
        """People were told by `entropy` of the service's surplus, which is not over."""
        return series.suspect >= tick // WINDOW_S - OVER_STEPS and self.told.get(series.stratum) == series.since

    def signed(self, stratum: Stratum, tick: int, rows: I64) -> Mask:
        """bool[n]: which rows of a window one of the signatures that were told lately matches."""
        matched = np.zeros(len(rows), np.bool_)
        for values, _, told in self.standing.get(stratum, ()):
            if told >= tick // self.renew_s - 1:
                matched |= signing.matching(values, rows)
        return matched

    def save(self) -> list[Any]:
        """Plain data for `load`."""
        standing = [
            [stratum, [list(pair) for pair in values], value, cell]
            for stratum, some in self.standing.items()
            for values, value, cell in some
        ]
        return [standing, sorted(self.told.items())]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave."""
        standing, told = data
        self.standing = {}
        for stratum, values, value, cell in standing:
            pairs = tuple((attribute, word) for attribute, word in values)
            self.standing.setdefault(stratum, []).append((pairs, value, cell))
        self.told = dict(told)


def shifted_crossing(
    whom: tuple[Dimension, tuple[int, int], bytes], found: Found, section: EntropySection, observed: int, mean: float,
    where: str, shifts: Sequence[Shift], requests: int, *features: tuple[str, str],
) -> Crossing:  # fmt: skip
    """What is made otherwise, as a decision about a service or a route."""
    dimension, key, name = whom
    label = found.stratum.name.lower()
    rule = WindowRule(
        shifted.DETECTOR, section, section.dry_run, dimension, Measure.REQUESTS, WINDOW_S, round(mean), "notify",
        section.severity, section.confidence, label=label,
    )  # fmt: skip
    reason = shifted.sentence(found.stratum, where, observed, mean, list(shifts))
    entropies = tuple((f"entropy {one.what}", round(one.now, 2)) for one in shifts)
    return Crossing(
        0, dimension, *key, name, rule, found.tick, observed, requests, 0, False, reason,
        (("stratum", label), *features, *entropies),
    )  # fmt: skip


def _signed(
    found: Found, one: Explained, value: bytes, section: SignatureSection, series: Series, renew_s: int
) -> Crossing:  # fmt: skip
    """A signature as a decision."""
    stratum = found.stratum
    action: Action = ACTS[stratum] if one.acts else "notify"
    rule = WindowRule(
        signing.DETECTOR, section, section.dry_run and one.acts, Dimension.SIGNATURE, Measure.REQUESTS, WINDOW_S,
        round(one.usual), action, section.severity, section.confidence, label=stratum.name.lower(),
        ttl_s=renew_s + signing.OUTLASTS_S,
    )  # fmt: skip
    observed = round(one.observed)
    hit = f"{one.collateral:.1%} of usual requests would be hit"
    if not one.acts:
        hit = f"too little is known to act on it: perhaps {hit}" if signing.names_clients(one.values) else NOBODYS
    reason = (
        f"{observed:,} {NOUNS[stratum]} {words_of(value)} in {WINDOW_S} seconds, {min(1.0, one.explained):.0%} of what is more "
        f"than usual; {hit}"
    )
    features = (
        ("stratum", stratum.name.lower()), ("explained", round(one.explained, 3)), ("collateral", round(one.collateral, 4)),
        ("surplus", round(found.gathered.total - series.mean)),
    )  # fmt: skip
    seen = np.concatenate([found.gathered.rows, series.usual().rows])
    matched = np.unique(seen[signing.matching(one.values, seen), ADDRESS])
    spans = tuple(span_of(address) for address in matched.tolist() if address)
    return Crossing(
        0, Dimension.SIGNATURE, *key_of(value), value, rule, found.tick, observed, found.gathered.total, 0, False, reason,
        features, spans,
    )  # fmt: skip
