"""The strata of each service, second by second: where there is more than usual, `signature` and `entropy` are asked why.

Like everything in a judge it reads no clock, and cells are judged in the order of their seconds, so the same events give the
same decisions for any cut. Services are taken in at the end of a step of ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from detectors.entropy import EntropySection
from detectors.signature import SignatureSection
from detectors.surplus import WINDOW_S, rows_of
from engine.episodes import ACTS, Episodes, Found
from engine.naming import Texts
from engine.policy import Crossing
from engine.route_episodes import judge_routes
from engine.sampling import merge_samples, part_of
from engine.strata import HELD_STEPS_MAX, ROUTED, STEPS, Cell, Series, gather
from schemas.narrow import Reader
from schemas.sample import E_CELL, S_TICK, S_TOTAL, Sample, Stratum
from schemas.sample_wire import SampleHead, decode_sample, encode_sample

SERVICES_MAX = 4
"""Of one judge partition, each 180 kB at most. Hosts are the clients' own words: the busiest are kept."""
EMPTY_STEPS_MAX = HELD_STEPS_MAX + STEPS + 2
"""After so much silence nothing is usual, and more of it changes nothing."""
STRATA = tuple(Stratum)
ENTRIES_MAX = 400_000
"""That wait for their seconds to be closed: 40 MB. Past it the furthest go, as the rows do."""
NEVER = -(1 << 62)
Service = tuple[int, int]
"""The words of its key."""


@dataclass(slots=True)
class _Strata:
    """One service."""

    episodes: Episodes
    first: int
    """What its first step held: its means are not known before two more."""
    series: list[Series] = field(default_factory=lambda: [Series(stratum) for stratum in Stratum])

    @property
    def is_silent(self) -> bool:
        """Nothing is known of it but noughts."""
        return not any(series.mean or series.cells for series in self.series)

    @property
    def busy(self) -> float:
        """What it usually brings."""
        means = sum(series.mean for series in self.series)
        return means if self.series[0].is_warm else max(means, self.first)


class Distributed:
    """The services of a judge.

    Args:
        signature, entropy: their sections; None: off.
        renew_s: what lasts is told again in each cell of this length, as the policy has them.
    """

    def __init__(self, signature: SignatureSection | None, entropy: EntropySection | None, renew_s: int) -> None:
        self._renew_s = renew_s
        self._sections = signature, entropy
        self._on = signature is not None or entropy is not None
        self._least = [min((s.least(stratum) for s in (signature, entropy) if s is not None), default=0) for stratum in Stratum]
        self._pending: list[Sample] = []
        self._texts = Texts()
        self._recent: list[tuple[int, Sample]] = []
        """Closed samples with their newest seconds: of them a saved state is made."""
        self._closed = self._step = NEVER
        """The last closed second, and the step that is not over."""
        self._services: dict[Service, _Strata] = {}
        self._strangers: dict[Service, list[tuple[Stratum, Cell]]] = {}
        self._resuming = False
        self._looked = NEVER

    def add(self, sample: Sample) -> int:
        """Take in a tally's sample. Its arrays may be used again when this returns. How many events found no room."""
        if not self._on or not len(sample.cells):
            return 0
        self._pending.append(_copy(sample))
        return self._bound() if sum(len(one.entries) for one in self._pending) > ENTRIES_MAX else 0

    def _bound(self) -> int:
        merged = merge_samples(self._pending)
        ends = np.searchsorted(merged.entries[:, E_CELL], np.arange(len(merged.cells)), "right")
        within = int(np.searchsorted(ends, ENTRIES_MAX // 2, "right"))
        last = int(merged.cells[max(0, within - 1), S_TICK])
        self._pending = [cut_sample(merged, NEVER, last + 1)]
        return int(merged.cells[merged.cells[:, S_TICK] > last, S_TOTAL].sum())

    def close(self, closed: int, muted: int) -> list[Crossing]:
        """Judge the seconds up to ``closed``; what touches a second up to ``muted`` is not told."""
        if not self._on or closed <= self._closed or self._resuming:
            return []
        before, found = self._closed, list[Crossing]()
        if self._pending and min([int(one.cells[0, S_TICK]) for one in self._pending]) <= closed:
            pieces = in_order(self._pending)
            self._pending = []
            for piece in pieces:
                new, later = cut_sample(piece, before + 1, closed + 1), cut_sample(piece, closed + 1, None)
                if len(later.cells):
                    self._pending.append(later)
                if len(new.cells):
                    newest = int(new.cells[-1, S_TICK])
                    self._texts.add(newest, new)
                    self._recent.append((newest, new))
                    found += self._walk(new, muted)
        if self._step != NEVER:
            self._pass_to(closed + 1)
        self._closed = closed
        self._texts.forget(closed - 2 * WINDOW_S)
        horizon = _kept_from(closed)
        if self._recent and self._recent[0][0] < horizon:
            self._recent = [one for one in self._recent if one[0] >= horizon]
        return found

    def _walk(self, sample: Sample, muted: int) -> list[Crossing]:
        """Second by second."""
        found: list[Crossing] = []
        here: list[tuple[_Strata, Series]] = []
        rows, edges, services = rows_of(sample.entries), _edges_of(sample), self._services
        told_from, now = muted + WINDOW_S, NEVER
        for index, (tick, a, b, stratum, level, total) in enumerate(sample.cells.tolist()):
            if tick != now:
                for strata, series in here:
                    found += self._judge(strata, series, now, series.recent_total)
                here, now = [], tick
                if tick // WINDOW_S != self._step:
                    self._pass_to(tick)
            cell, known = Cell(tick, level, total, rows[edges[index] : edges[index + 1]]), services.get((a, b))
            if known is None:
                self._strangers.setdefault((a, b), []).append((STRATA[stratum], cell))
                continue
            series = known.series[stratum]
            series.add(cell)
            if (series.recent_total > series.largest or tick % WINDOW_S == WINDOW_S - 1) and tick >= told_from:
                here.append((known, series))  # else there is nothing to be said
        for strata, series in here:
            found += self._judge(strata, series, now, series.recent_total)
        return found

    def _judge(
        self, strata: _Strata, series: Series, tick: int, total: int, more: list[Cell] | None = None
    ) -> list[Crossing]:  # fmt: skip
        """One second of a stratum; with ``more`` cells, that are not closed, it is early and changes nothing."""
        if not series.is_warm or (more is None and series.heard <= self._least[series.stratum]):
            return []
        found: list[Crossing] = []
        is_more = self._exceeds(series, total)  # accounts are not more than their requests
        if is_more and more is None and series.stratum == Stratum.ACCOUNTS:
            is_more = self._exceeds(series, series.accounts_most())
        if is_more:
            found += self._explain(strata, series, tick, series.window(tick, more), early=more is not None)
        if more is None and tick % WINDOW_S == WINDOW_S - 1:
            found += self._judge_routes(strata, series, tick, total)
        return found

    def _explain(self, strata: _Strata, series: Series, tick: int, cells: list[Cell], *, early: bool) -> list[Crossing]:
        """What there is more of."""
        stratum, gathered = series.stratum, gather(cells)
        found = Found(stratum, tick, gathered, series.count(gathered), early)
        if stratum == Stratum.ACCOUNTS and not self._exceeds(series, found.observed):
            return []
        if not found.early:
            strata.episodes.note(series, tick)
        everything = [one.usual() for one in strata.series]
        return strata.episodes.explain(found, series, everything, self._sections, self._texts)

    def _judge_routes(self, strata: _Strata, series: Series, tick: int, total: int) -> list[Crossing]:
        """Busy routes, as a step ends. What one has too much is a part of what the service has: with less, nobody looks."""
        entropy = self._sections[1]
        if entropy is None or series.stratum not in ROUTED or total <= series.mean + entropy.least(series.stratum):
            return []
        found = Found(series.stratum, tick, gather(series.window(tick)), total, early=False)
        return judge_routes(found, series, strata.episodes, entropy, self._texts)

    def _exceeds(self, series: Series, observed: int) -> bool:
        return observed > series.largest and any(
            section is not None and section.exceeds(series.stratum, observed, series.mean) for section in self._sections
        )

    def early(self, closed: int, muted: int) -> list[Crossing]:
        """What the seconds that are not closed look like, as far as they have come: all of them whenever a new one begins.

        What is told first has to be about the second that the final record will be about, as later ones come first for readers.
        """
        if not self._on or not self._pending or self._resuming or not self._services:
            return []
        newest = max(int(one.cells[-1, S_TICK]) for one in self._pending)
        if newest <= max(self._looked, closed):
            return []
        first, self._looked = max(closed + 1, muted + WINDOW_S), newest
        merged = merge_samples(self._pending)
        self._pending = [merged]  # not once more when it closes
        self._texts.add(newest, merged)
        more: dict[tuple[Service, Stratum], list[Cell]] = {}
        found: list[Crossing] = []
        told: set[tuple[Service, Stratum]] = set()
        for service, stratum, cell in _cells_of(merged):
            if service not in self._services or stratum not in ACTS:
                continue
            cells = more.setdefault((service, stratum), [])
            cells.append(cell)
            strata = self._services[service]
            if cell.tick < first or (service, stratum) in told:
                continue
            if strata.episodes.is_open(strata.series[stratum], cell.tick):
                recent, series = cells[-WINDOW_S:], strata.series[stratum]
                total = sum([one.total for one in series.window(cell.tick, recent)])
                hints = self._judge(strata, series, cell.tick, total, recent)
                found += hints
                if hints:
                    told.add((service, stratum))
        return found

    def _pass_to(self, tick: int) -> None:
        """End the steps that are over before a second."""
        last = tick // WINDOW_S
        for step in range(max(self._step, last - EMPTY_STEPS_MAX), last) if self._step != NEVER else ():
            for strata in self._services.values():
                suspect = any(series.suspect >= step - 1 for series in strata.series)
                for series in strata.series:
                    series.end_step(step, suspect=suspect)
            self._take_in(step)
        self._step = last

    def _take_in(self, step: int) -> None:
        """Services that were not known: from here on they are, if there is room or they are busier than one that is."""
        for service in [key for key, one in self._services.items() if one.is_silent]:
            del self._services[service]
        if not self._strangers:
            return
        totals = {service: sum(cell.total for _, cell in cells) for service, cells in self._strangers.items()}
        for service in sorted(totals, key=lambda one: (-totals[one], one)):
            if len(self._services) >= SERVICES_MAX:
                least = min(self._services, key=lambda one: (self._services[one].busy, one))
                if self._services[least].busy >= totals[service]:
                    break
                del self._services[least]
            strata = _Strata(Episodes(service, self._texts.find(service[0]) or b"", self._renew_s), totals[service])
            for stratum, cell in self._strangers[service]:
                strata.series[stratum].add(cell)
            self._services[service] = strata
        self._strangers.clear()

    def save(self, *, cells: bool) -> dict[str, Any]:
        """Plain data and arrays for `load`; without ``cells`` the samples of the last minute have to be added again."""
        data: dict[str, Any] = {
            "closed": self._closed,
            "services": [
                [*service, one.episodes.service, one.first, [series.save() for series in one.series], one.episodes.save()]
                for service, one in self._services.items()
            ],
        }
        if cells:
            horizon = _kept_from(self._closed)
            merged = merge_samples([cut_sample(one, horizon, None) for _, one in self._recent] + self._pending)
            head, blocks = encode_sample(merged)
            data["sample"] = [msgspec.to_builtins(head), b"".join(blocks)]
        return data

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave. Samples may be added again; then `resume`."""
        self._closed = data["closed"]
        self._step = (self._closed + 1) // WINDOW_S if self._closed != NEVER else NEVER
        self._services = {}
        for a, b, name, first, saved, episodes in data["services"]:
            strata = _Strata(Episodes((a, b), name, self._renew_s), first)
            for series, one in zip(strata.series, saved, strict=True):
                series.load(one)
            strata.episodes.load(episodes)
            self._services[a, b] = strata
        self._pending = []
        if "sample" in data:
            head, blocks = data["sample"]
            self._pending.append(decode_sample(msgspec.convert(head, SampleHead), Reader(blocks, 0)))
        self._resuming = True

    def resume(self) -> None:
        """All samples were added again."""
        if not self._resuming:
            return
        self._resuming = False
        merged = merge_samples(self._pending)
        self._pending = []
        if not len(merged.cells):
            return
        if self._closed == NEVER:
            self._pending = [merged]
            return
        horizon = _kept_from(self._closed)
        again, later = cut_sample(merged, horizon, self._closed + 1), cut_sample(merged, self._closed + 1, None)
        if len(later.cells):
            self._pending = [later]
        if not len(again.cells):
            return
        newest = int(again.cells[-1, S_TICK])
        self._texts.add(newest, again)
        self._recent = [(newest, again)]
        for service, stratum, cell in _cells_of(again):
            if service in self._services:
                self._services[service].series[stratum].add(cell)
            elif cell.tick >= horizon + WINDOW_S:
                self._strangers.setdefault(service, []).append((stratum, cell))


def _kept_from(closed: int) -> int:
    """The first second whose cells are still needed: that of the last step that is over."""
    return ((closed + 1) // WINDOW_S - 1) * WINDOW_S if closed != NEVER else NEVER


def _copy(sample: Sample) -> Sample:
    return Sample(
        sample.cells.copy(), sample.entries.copy(), sample.words.copy(), sample.text_start.copy(), sample.text.copy()
    )  # fmt: skip


def in_order(samples: list[Sample]) -> list[Sample]:
    """The same as samples one after the other in time: of two, only what is of the same seconds is merged."""
    if len(samples) != 2:
        return [merge_samples(samples)] if len(samples) > 2 else samples
    one, other = sorted(samples, key=lambda sample: int(sample.cells[0, S_TICK]))
    first, last = int(other.cells[0, S_TICK]), min(int(sample.cells[-1, S_TICK]) for sample in samples)
    if last < first:
        return [one, other]
    both = merge_samples([cut_sample(sample, first, last + 1) for sample in (one, other)])
    pieces = [cut_sample(one, NEVER, first), both, *(cut_sample(sample, last + 1, None) for sample in (one, other))]
    return [piece for piece in pieces if len(piece.cells)]


def cut_sample(sample: Sample, first: int, end: int | None) -> Sample:
    """The cells of the seconds ``first`` ≤ tick < ``end``, with all texts."""
    ticks = sample.cells[:, S_TICK]
    low = int(np.searchsorted(ticks, first))
    high = len(ticks) if end is None else int(np.searchsorted(ticks, end))
    if low == 0 and high == len(ticks):
        return sample
    return part_of(sample, low, max(low, high))


def _edges_of(sample: Sample) -> list[int]:
    """Where the entries of each cell begin, and of the last one end."""
    edges: list[int] = np.searchsorted(sample.entries[:, E_CELL], np.arange(len(sample.cells) + 1)).tolist()
    return edges


def _cells_of(sample: Sample) -> Iterable[tuple[Service, Stratum, Cell]]:
    rows, edges = rows_of(sample.entries), _edges_of(sample)
    for index, (tick, a, b, stratum, level, total) in enumerate(sample.cells.tolist()):
        yield (a, b), STRATA[stratum], Cell(tick, level, total, rows[edges[index] : edges[index + 1]])
