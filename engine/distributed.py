"""The strata of each service, second by second: where there is more than usual, `signature` and `entropy` are asked why.

Like everything in a judge it reads no clock, and cells are judged in the order of their seconds, so the same events give the
same decisions for any cut. Services are taken in at the end of a step of ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from detectors.entropy import EntropySection
from detectors.kernels.strata import IS_MORE, ROUTES_MORE
from detectors.kernels.usual import HELD_STEPS_MAX, STEPS
from detectors.kernels.windows import NEVER
from detectors.signature import SignatureSection
from detectors.surplus import WINDOW_S, rows_of
from engine.cell_log import CellLog, Look, Service
from engine.crossing import Crossing
from engine.episodes import ACTS, Episodes, Found
from engine.naming import Texts
from engine.route_episodes import judge_routes
from engine.sampling import Held, merge_samples, part_of
from engine.strata import Cell, Series, gather
from schemas.narrow import Reader
from schemas.sample import E_CELL, S_TICK, S_TOTAL, Sample, Stratum, of_strata
from schemas.sample_wire import SampleHead, decode_sample, encode_sample

SERVICES_MAX = 4
"""Of one judge partition, each 220 kB at most. Hosts are the clients' own words: the busiest are kept."""
EMPTY_STEPS_MAX = HELD_STEPS_MAX + STEPS + 2
"""After so much silence nothing is usual, and more of it changes nothing."""
STRATA = tuple(Stratum)
ENTRIES_MAX = 400_000
"""That wait for their seconds to be closed: 40 MB. Past it the furthest go, as the rows do."""


@dataclass(slots=True)
class _Strata:
    """One service."""

    episodes: Episodes
    first: int
    """What its first step held: its means are not known before two more."""
    place: int
    """Its own in the table of cells"""
    series: list[Series]

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
        self._held: list[Held] = []
        """What came, of the seconds that are not closed and, for saved states, of those of the last two steps …"""
        self._entries = 0
        """… and how many entries that is: added up for each tally, it would be work for all that came in half a minute."""
        self._texts = Texts()
        self._log = CellLog(SERVICES_MAX, signature, entropy)
        self._closed = self._step = NEVER
        """The last closed second, and the step that is not over."""
        self._services: dict[Service, _Strata] = {}
        self._at: list[_Strata | None] = [None] * SERVICES_MAX
        """The same by their places"""
        self._resuming = False
        self._looked = NEVER

    def add(self, sample: Sample) -> int:
        """Take in a tally's sample. Its arrays may be used again when this returns. How many events found no room."""
        sample = of_strata(sample)
        if not self._on or not len(sample.cells):
            return 0
        if not self._resuming and int(sample.cells[0, S_TICK]) <= self._closed:
            sample = cut_sample(sample, self._closed + 1, None)  # what is of seconds that are closed comes too late
            if not len(sample.cells):
                return 0
        self._hold(_copy(sample))
        if self._entries <= ENTRIES_MAX:
            return 0
        return self._bound() if sum(len(one.entries) for one in self._waiting()) > ENTRIES_MAX else 0

    def _hold(self, sample: Sample) -> None:
        self._held.append(Held(sample))
        self._entries += len(sample.entries)
        self._texts.add(self._held[-1].newest, sample)

    def _keep(self, held: list[Held]) -> None:
        """Of what is held nothing but this."""
        self._held, self._entries = held, sum([len(one.sample.entries) for one in held])

    def _waiting(self) -> Iterator[Sample]:
        """What is of seconds that are not closed."""
        for one in self._held:
            if one.waits_from is not None:
                yield one.left

    def _unite_waiting(self) -> Sample:
        """What is of seconds that are not closed, as one sample, which takes the place of its parts."""
        merged = merge_samples(list(self._waiting()))
        self._keep([Held(part_of(one.sample, 0, one.at), one.at) for one in self._held if one.at])
        if len(merged.cells):
            self._hold(merged)
        return merged

    def _bound(self) -> int:
        merged = self._unite_waiting()
        ends = np.searchsorted(merged.entries[:, E_CELL], np.arange(len(merged.cells)), "right")
        within = int(np.searchsorted(ends, ENTRIES_MAX // 2, "right"))
        last = int(merged.cells[max(0, within - 1), S_TICK])
        self._keep([*self._held[:-1], Held(cut_sample(merged, NEVER, last + 1))])
        return int(merged.cells[merged.cells[:, S_TICK] > last, S_TOTAL].sum())

    def close(self, closed: int, muted: int) -> list[Crossing]:
        """Judge the seconds up to ``closed``; what touches a second up to ``muted`` is not told."""
        if not self._on or closed <= self._closed or self._resuming:
            return []
        self._take(closed)
        found = self._walk(muted)
        if self._step != NEVER:
            self._pass_to(closed + 1)
        self._closed = closed
        self._texts.forget(closed - 2 * WINDOW_S)
        horizon = _kept_from(closed)
        if self._held and self._held[0].newest < horizon:
            self._keep([one for one in self._held if one.newest >= horizon])
        return found

    def _take(self, closed: int) -> None:
        """Write the cells of seconds up to one into the table."""
        due = [one for one in self._held if (first := one.waits_from) is not None and first <= closed]
        if len(due) > 2:
            ends = [int(np.searchsorted(one.sample.cells[:, S_TICK], closed, "right")) for one in due]
            merged = merge_samples([part_of(one.sample, one.at, end) for one, end in zip(due, ends, strict=True)])
            for one, end in zip(due, ends, strict=True):
                one.at = end
            due = [Held(merged)]
        if due:
            self._log.take(due[0], due[1] if len(due) > 1 else None, closed)

    def _walk(self, muted: int) -> list[Crossing]:
        """Second by second, step by step."""
        found: list[Crossing] = []
        while (tick := self._log.next_tick) is not None:
            if tick // WINDOW_S != self._step:
                self._pass_to(tick)
            for look in self._log.walk((tick // WINDOW_S + 1) * WINDOW_S, muted + WINDOW_S):
                found += self._look(look)
        return found

    def _look(self, look: Look) -> list[Crossing]:
        """One second of a stratum in which there is more than usual, or may be."""
        strata = self._at[look.series // len(STRATA)]
        assert strata is not None
        series, found = strata.series[look.series % len(STRATA)], list[Crossing]()
        if look.what & IS_MORE:
            found += self._explain(strata, series, look.tick, self._log.window(look.series, look.tick), early=False)
        if look.what & ROUTES_MORE and self._sections[1] is not None:
            gathered = gather(self._log.window(look.series, look.tick))
            seen = Found(series.stratum, look.tick, gathered, look.total, early=False)
            found += judge_routes(seen, series, strata.episodes, self._sections[1], self._texts)
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

    def _exceeds(self, series: Series, observed: int) -> bool:
        return observed > series.largest and any(
            section is not None and section.exceeds(series.stratum, observed, series.mean) for section in self._sections
        )

    def early(self, closed: int, muted: int) -> list[Crossing]:
        """What the seconds that are not closed look like, as far as they have come: all of them whenever a new one begins.

        What is told first has to be about the second that the final record will be about, as later ones come first for readers.
        """
        if not self._on or self._resuming or not self._services:
            return []
        newest = max((one.newest for one in self._held if one.waits_from is not None), default=NEVER)
        if newest <= max(self._looked, closed):
            return []
        first, self._looked = max(closed + 1, muted + WINDOW_S), newest
        merged = self._unite_waiting()  # not once more when it closes
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
                series, since = strata.series[stratum], cell.tick - WINDOW_S
                window = self._log.window(strata.place * len(STRATA) + stratum, cell.tick)
                window += [one for one in cells[-WINDOW_S:] if since < one.tick <= cell.tick]
                hints = list[Crossing]()
                if series.is_warm and self._exceeds(series, sum([one.total for one in window])):
                    hints = self._explain(strata, series, cell.tick, window, early=True)
                found += hints
                if hints:
                    told.add((service, stratum))
        return found

    def _pass_to(self, tick: int) -> None:
        """End the steps that are over before a second."""
        last = tick // WINDOW_S
        for step in range(max(self._step, last - EMPTY_STEPS_MAX), last) if self._step != NEVER else ():
            to_change = self._log.end_step(step)
            for strata in self._services.values():
                for series in strata.series:
                    if series.routes:
                        series.end_step(step)
            if to_change:
                self._take_in()
        self._step = last

    def _know(self, service: Service, name: bytes, first: int) -> _Strata:
        """A service has a place from now on."""
        place = self._at.index(None)
        strata = _Strata(Episodes(service, name, self._renew_s), first, place, self._log.join(service, place))
        self._services[service] = self._at[place] = strata
        return strata

    def _forget(self, service: Service) -> None:
        """A service gives its place up."""
        place = self._services.pop(service).place
        self._at[place] = None
        self._log.leave(place)

    def _take_in(self) -> None:
        """Services that were not known: from here on they are, if there is room or they are busier than one that is."""
        for service in [service for service, one in self._services.items() if self._log.is_silent(one.place)]:
            self._forget(service)
        totals = self._log.strangers()
        for service in sorted(totals, key=lambda one: (-totals[one], one)):
            if len(self._services) >= SERVICES_MAX:
                least = min(self._services, key=lambda one: (self._services[one].busy, one))
                if self._services[least].busy >= totals[service]:
                    break
                self._forget(least)
            self._know(service, self._texts.find(service[0]) or b"", totals[service])
        self._log.forget_strangers()

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
            merged = merge_samples([cut_sample(one.sample, horizon, None) for one in self._held])
            head, blocks = encode_sample(merged)
            data["sample"] = [msgspec.to_builtins(head), b"".join(blocks)]
        return data

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave. Samples may be added again; then `resume`."""
        self._closed = data["closed"]
        self._step = (self._closed + 1) // WINDOW_S if self._closed != NEVER else NEVER
        self._services, self._at, self._log = {}, [None] * SERVICES_MAX, CellLog(SERVICES_MAX, *self._sections)
        for a, b, name, first, saved, episodes in data["services"]:
            strata = self._know((a, b), name, first)
            for series, one in zip(strata.series, saved, strict=True):
                series.load(one)
            strata.episodes.load(episodes)
        self._keep([])
        if "sample" in data:
            head, blocks = data["sample"]
            self._keep([Held(decode_sample(msgspec.convert(head, SampleHead), Reader(blocks, 0)))])
        self._resuming = True

    def resume(self) -> None:
        """All samples were added again."""
        if not self._resuming:
            return
        self._resuming = False
        merged = cut_sample(merge_samples([one.sample for one in self._held]), _kept_from(self._closed), None)
        self._keep([])
        if not len(merged.cells):
            return
        self._hold(merged)
        if self._closed == NEVER:
            return
        self._take(self._closed)
        self._log.walk(self._closed + 1, self._closed + 1)
        self._log.forget_strangers(_kept_from(self._closed) + WINDOW_S)


def _kept_from(closed: int) -> int:
    """The first second whose cells are still needed: that of the last step that is over."""
    return ((closed + 1) // WINDOW_S - 1) * WINDOW_S if closed != NEVER else NEVER


def _copy(sample: Sample) -> Sample:
    return Sample(
        sample.cells.copy(), sample.entries.copy(), sample.words.copy(), sample.text_start.copy(), sample.text.copy()
    )  # fmt: skip


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
