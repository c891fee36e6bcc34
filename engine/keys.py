"""API keys, window by window, handed to `detectors.learning.key_abuse`: what tallies say of them is gathered by steps of half a
minute.

A judge partition has all of a key, and learns for itself, so that it does not matter which process has it. Windows are
judged in order as their last second is closed. What could only grow is looked at after each step before.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from detectors.kernels.key_features import V_REQUESTS, VALUES
from detectors.kernels.key_rows import (
    ENTRY_WORDS,
    G_A,
    G_B,
    G_NAME_LENGTH,
    G_PARTITION,
    G_STEP,
    STEP_S,
    allocate_key_rows,
    gather_keys_kernel,
    index_keys_kernel,
    index_room,
    sum_keys_kernel,
    windows_kernel,
)
from detectors.kernels.long_windows import MINUTE_S, SECONDS_MIN
from detectors.kernels.windows import NEVER
from detectors.keys import DETECTOR, NAME, VERSION, KeysSection
from detectors.learning.calibration import DAY_S
from detectors.learning.key_abuse import KeyAbuse
from detectors.learning.key_state import WINDOW_S, Bools, Judged, KeyAbuseConfig, KeyState, Limits
from detectors.registry import settings
from detectors.windowed import WindowRule
from engine.crossing import Crossing, finding_id, target_value, unsigned
from engine.key_book import Key, KeyBook, KeyBooks
from engine.key_reasons import evidence, sentence
from engine.suspicions import NOTHING, Suspicions
from schemas.columns import I64
from schemas.config import Config
from schemas.errors import StateError
from schemas.fields import Dimension, Measure
from schemas.tally import NAME_BYTES_MAX, Tally

INDEXED = 1 << 12
ENTRIES_MAX = 1 << 18
"""Keys and steps of windows that are not over: 54 MB. What finds no room is counted (`left_out`) and not judged. The index of
so many is 2 MB, all of which is looked at; so it begins with fewer."""
STEPS = WINDOW_S // STEP_S
LOUD_REQUESTS = 60
"""Before its window is over a key is looked at that made so many requests in it."""
FOUND_MAX = 256
"""Findings that can be spoken of later."""
PLACES_MIN = 64
THROTTLE_CONFIDENCE = 0.9


@dataclass(slots=True)
class _Told:
    """A finding, for whoever says later what it was."""

    partition: int
    key: Key
    window: int
    features: list[float]
    values: list[int]


@dataclass(slots=True)
class _Part:
    """One judge partition."""

    book: KeyBook
    model: KeyAbuse


class _Doings(NamedTuple):
    """What keys did in a window, as far as it has come; by partition, then by their words."""

    partitions: I64
    keys: I64  # i64[n, 2]
    entries: I64  # i64[n]: an entry of each, for its name
    values: I64


class LearnedKeys:
    """The keys of a judge.

    Args:
        config: with the section of ``keys``.
        owned: so many judge partitions.
    """

    name = NAME
    version = VERSION

    def __init__(self, config: Config, owned: int) -> None:
        section = settings(config)[NAME]
        assert isinstance(section, KeysSection)
        self._section, self._owned = section, owned
        partitions = config.engine.judge_partitions
        self._places = max(PLACES_MIN, -(-section.keys_max // partitions))
        self._config = KeyAbuseConfig(
            keys=self._places + 1, notify_per_day=section.notify_per_day / partitions,
            act_per_day=min(section.throttle_per_day, section.notify_per_day) / partitions, start=section.start,
            start_sum=5 * section.start, young_windows=section.young_windows, change_max=section.change_max,
            wakes_windows=section.wakes_days * DAY_S // WINDOW_S, suspect_s=section.suspect_s, quiet_s=section.quiet_s,
        )  # fmt: skip
        self._rows = allocate_key_rows(ENTRIES_MAX, INDEXED)
        self._closed = self._judged = self._looked = NEVER
        """The last second that is closed, the last step up to which there was judged, and the last that was looked at."""
        self.reset()

    def reset(self) -> None:
        """Forget what was learned."""
        self._books, self._state = KeyBooks(self._owned, self._places), KeyState(self._config, self._owned)
        self._parts = [_Part(KeyBook(self._books, at), KeyAbuse(self._config, self._state, at)) for at in range(self._owned)]
        self._begun, self._every_limit = np.full(self._owned, NEVER), np.zeros((self._owned, 4))
        """Of each partition the last window that it has begun, and its limits since (`KeyAbuse.limits`)."""
        self._found: OrderedDict[str, _Told] = OrderedDict()
        self._verdicts = 0

    @property
    def left_out(self) -> int:
        """Requests that found no room."""
        return int(self._rows.used[1])

    def add(self, tally: Tally) -> None:
        """Take in what a tally says of keys. Its arrays may be used again when this returns."""
        if not tally.rows or tally.key_rows == 0:
            return
        self._index(int(self._rows.used[0]) + tally.rows)
        gather_keys_kernel(*self._rows, tally.records, tally.order, tally.partition_start, tally.names, self._closed)

    def _index(self, entries: int) -> None:
        """Make an index for so many, if the one at hand is too small."""
        indexed = len(self._rows.slots) // 2
        if min(entries, ENTRIES_MAX) > indexed:
            self._rows = self._rows._replace(slots=index_room(min(max(entries, 4 * indexed), ENTRIES_MAX)))
            index_keys_kernel(self._rows.slots, self._rows.entries, self._rows.used)

    def close(self, closed: int, muted: int, suspicions: Suspicions = NOTHING) -> list[Crossing]:
        """Judge steps and windows that end with a second up to ``closed``; what touches one up to ``muted`` is not told.

        Windows of keys of which others found something (``suspicions``) are judged, and not learned.
        """
        self._closed = max(self._closed, closed)
        over = (closed + 1) // STEP_S
        used = int(self._rows.used[0])
        if not used or over - 1 <= self._judged:
            return []
        self._judged = over - 1
        windows = np.empty(used, np.int64)
        count = windows_kernel(self._rows.entries, self._rows.used, over, STEPS, windows)
        found: list[Crossing] = []
        for window in sorted(set(windows[:count].tolist())):
            found += self._pass_through(window, over, muted)
            if (window + 1) * STEPS <= over:
                found += self._end(window, muted, suspicions.keys(window * WINDOW_S, (window + 1) * WINDOW_S))
        if count and int(windows[:count].min()) < over // STEPS:
            self._drop(over // STEPS)
        return found

    def _drop(self, window: int) -> None:
        """Entries of windows before this one have been judged."""
        rows, used = self._rows, int(self._rows.used[0])
        kept = np.flatnonzero(rows.entries[:used, G_STEP] >= window * STEPS)
        if len(kept) == used:
            return
        rows.entries[: len(kept)] = rows.entries[kept]
        names = rows.names[: used * NAME_BYTES_MAX].reshape(used, NAME_BYTES_MAX)
        rows.names[: len(kept) * NAME_BYTES_MAX] = names[kept].ravel()
        rows.used[0] = len(kept)
        index_keys_kernel(rows.slots, rows.entries, rows.used)

    def _pass_through(self, window: int, over: int, muted: int) -> list[Crossing]:
        """The steps of a window but its last, each once: who is loud already?"""
        found: list[Crossing] = []
        first = window * STEPS
        for step in range(max(first, self._looked + 1), min(first + STEPS - 1, over)):
            self._looked = step
            found += self._judge(window, self._doings(first, step, LOUD_REQUESTS), step + 1 - first, muted, set())
        return found

    def _end(self, window: int, muted: int, suspects: set[Key]) -> list[Crossing]:
        """A window is over, in which others found something of ``suspects``."""
        doings = self._doings(window * STEPS, (window + 1) * STEPS - 1, 1)
        return self._judge(window, doings, STEPS, muted, suspects)

    def _doings(self, first: int, last: int, least: int) -> _Doings:
        """What was done in these steps, by keys with so many requests at least."""
        rows, used = self._rows, int(self._rows.used[0])
        which, values = np.empty(used, np.int64), np.empty((used, VALUES), np.int64)
        slots = np.zeros(1 << (2 * used + 1).bit_length(), np.int32)
        count = sum_keys_kernel(rows.entries, rows.used, first, last, slots, which, values)
        enough = np.flatnonzero(values[:count, V_REQUESTS] >= least)
        named = rows.entries[which[enough], G_A : G_PARTITION + 1]
        order = np.lexsort((named[:, 1], named[:, 0], named[:, 2]))
        named, enough = named[order], enough[order]
        return _Doings(named[:, 2], named[:, :2], which[enough], values[enough])

    def _name(self, entry: int) -> bytes:
        start = entry * NAME_BYTES_MAX
        return self._rows.names[start : start + int(self._rows.entries[entry, G_NAME_LENGTH])].tobytes()

    def _judge(self, window: int, doings: _Doings, steps: int, muted: int, suspects: set[Key]) -> list[Crossing]:
        """All partitions in one go: of one alone, finding out what there is to do costs as much."""
        present = np.flatnonzero(np.bincount(doings.partitions))
        for at in present[self._begun[present] != window].tolist():
            model, self._begun[at] = self._parts[at].model, window
            model.begin(window)
            self._every_limit[at] = model.limits
        if window * WINDOW_S <= muted or not len(present):
            return []
        whole = steps == STEPS
        places, lasts = (self._take_in if whole else self._find)(window, doings)
        ids = doings.partitions * self._config.keys + places
        order = np.argsort(ids, kind="stable")
        ids, values, lasts = ids[order], doings.values[order], lasts[order]
        # Who has no place is judged as well, and may have slept.
        judged = self._state.judge(window, ids, values, whole=whole, last=lasts)
        limits = Limits(*self._every_limit[ids // self._config.keys].T)
        if whole:
            suspect = [tuple(key) in suspects for key in doings.keys[order].tolist()] if suspects else np.zeros(len(ids))
            self._learn(window, present.tolist(), judged, values, limits, np.array(suspect, np.bool_))
        if not ((judged.score >= limits.score_notify) | (judged.held >= limits.sum_notify)).any():
            return []
        return self._tell(window, doings, steps, judged, limits, order)

    def _find(self, _: int, doings: _Doings) -> tuple[I64, I64]:
        return self._books.find(doings.partitions, doings.keys)

    def _take_in(self, window: int, doings: _Doings) -> tuple[I64, I64]:
        """As `_find`, after the requests of a window that is over were counted, and places given to new keys."""
        places, lasts = self._find(window, doings)
        requests, known = doings.values[:, V_REQUESTS], places < self._places
        self._books.count(window, doings.partitions[known], places[known], requests[known])
        changed = False
        for at in np.unique(doings.partitions[~known]).tolist():
            new = np.flatnonzero(~known & (doings.partitions == at))
            keys, entries = [(a, b) for a, b in doings.keys[new].tolist()], doings.entries[new].tolist()
            part = self._parts[at]
            given = part.book.admit(window, keys, lambda index, entries=entries: self._name(entries[index]), requests[new])
            if given:
                changed = True
                part.model.forget(given, part.book.sleepers.recall(np.array([part.book.keys[place] for place in given])))
        return self._find(window, doings) if changed else (places, lasts)

    def _learn(
        self, window: int, present: list[int], judged: Judged, values: I64, limits: Limits, suspect: Bools
    ) -> None:  # fmt: skip
        """Of keys that have a place; nothing of those of which others found something."""
        learned = judged.ids % self._config.keys < self._places
        mine, free = _of(judged, learned), ~suspect[learned]
        self._state.note_peaks(_of(mine, free))
        weights = self._state.weights(window, mine, Limits(*(limit[learned] for limit in limits)), ~free)
        for at in present:
            self._parts[at].model.begin_step(window)
        self._state.learn(window, values[learned], mine, weights)

    def _tell(
        self, window: int, doings: _Doings, steps: int, judged: Judged, limits: Limits, order: I64
    ) -> list[Crossing]:  # fmt: skip
        told, acts = self._state.decide(window, judged, limits)
        local = judged._replace(ids=judged.ids % self._config.keys)
        found: list[Crossing] = []
        for index in np.flatnonzero(told | acts).tolist():
            at = int(order[index])
            partition, values = int(doings.partitions[at]), doings.values[at]
            a, b = doings.keys[at].tolist()
            name = self._name(int(doings.entries[at]))
            crossing = self._crossing(partition, (a, b), name, window, steps, local, index, values, bool(acts[index]))
            found.append(crossing)
            self._remember(crossing, _Told(partition, (a, b), window, judged.features[index].tolist(), values.tolist()))
        return found

    def _crossing(
        self, partition: int, key: Key, name: bytes, window: int, steps: int, judged: Judged, index: int, values: I64,
        acts: bool,
    ) -> Crossing:  # fmt: skip
        model, section = self._parts[partition].model, self._section
        score, held = float(judged.score[index]), float(judged.held[index])
        by_score = score >= model.by_score.notify or held < model.by_sum.notify
        calibration, observed = (model.by_score, score) if by_score else (model.by_sum, held)
        rule = WindowRule(
            DETECTOR, section, section.dry_run, Dimension.API_KEY, Measure.REQUESTS, _window_s(steps),
            round(calibration.notify), "throttle" if acts else "notify", section.severity,
            THROTTLE_CONFIDENCE if acts else section.confidence, label="score" if by_score else "sum of scores",
            alone=True,
        )  # fmt: skip
        reason = sentence(target_value(Dimension.API_KEY, *unsigned(key), name), model, judged, index, values, steps * STEP_S)
        tick = window * WINDOW_S + steps * STEP_S - 1
        features = evidence(model, judged, index, calibration, observed)
        return Crossing(
            partition, Dimension.API_KEY, *unsigned(key), name, rule, tick, round(observed), int(values[V_REQUESTS]),
            len(self._parts[partition].book.keys), False, reason, features,
        )  # fmt: skip

    def _remember(self, crossing: Crossing, told: _Told) -> None:
        value = target_value(Dimension.API_KEY, crossing.key_a, crossing.key_b, crossing.name)
        self._found[finding_id(crossing, value)] = told
        while len(self._found) > FOUND_MAX:
            self._found.popitem(last=False)

    def feedback(self, finding_id: str, confirmed: bool) -> bool:
        """What a finding was. A false positive is learned as usual of its key; what an attack had is no part of the past."""
        told = self._found.get(finding_id)
        if told is None:
            return False
        self._verdicts += 1
        self._begun[:] = NEVER  # limits are read off anew
        part = self._parts[told.partition]
        place = int(part.book.find([told.key])[0])
        if place < self._places:
            if confirmed:
                part.model.disown(place)
            else:
                part.model.accept(told.window, place, np.array([told.features]), np.array([told.values], np.int64))
        return True

    def describe(self) -> dict[str, Any]:
        """What people may want to know."""
        models = [part.model for part in self._parts]
        return {
            "cold": not any(not model.by_score.cold for model in models),
            "whole": bool(models) and all(model.by_score.whole for model in models),
            "keys": sum(len(part.book.keys) for part in self._parts),
            "keys_max": self._places * self._owned,
            "days": round(max(model.by_score.days for model in models), 2),
            "limits": [round(model.by_score.notify, 2) for model in models],
            "frozen_keys": sum(int(model.frozen[: self._places].any(axis=1).sum()) for model in models),
            "frozen_s": sum(WINDOW_S * int(model.frozen[: self._places].sum()) for model in models),
            "left_out": self.left_out,
            "verdicts": self._verdicts,
            "memory_bytes": sum(model.memory_bytes for model in models),
        }

    def save(self) -> dict[str, Any]:
        """Plain data and arrays for `load`."""
        used = int(self._rows.used[0])
        entries = self._rows.entries[:used]
        order = np.lexsort((entries[:, G_B], entries[:, G_A], entries[:, G_STEP], entries[:, G_PARTITION]))
        return {
            "entries": entries[order], "names": [self._name(int(entry)) for entry in order], "left_out": self.left_out,
            "clock": [self._closed, self._judged, self._looked, self._verdicts],
            "parts": [
                {"book": part.book.save(), "model": part.model.save(np.arange(len(part.book.keys)))} for part in self._parts
            ],
            "found": [
                [name, told.partition, *told.key, told.window, np.array(told.features), told.values]
                for name, told in self._found.items()
            ],
        }  # fmt: skip

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it does not fit; the object is of no use then, but for `reset`.
        """
        entries, names = data["entries"], data["names"]
        if entries.dtype != np.int64 or entries.shape != (len(names), ENTRY_WORDS) or len(data["parts"]) != self._owned:
            raise StateError(f"expected entries of {ENTRY_WORDS} words and {self._owned} parts in saved keys, got others")
        if len(entries) > ENTRIES_MAX:
            raise StateError(f"expected at most {ENTRIES_MAX} entries in saved keys, got {len(entries)}")
        self._index(len(entries))
        rows = self._rows
        rows.entries[: len(entries)], rows.used[:] = entries, (len(entries), data["left_out"])
        for index, name in enumerate(names):
            start = index * NAME_BYTES_MAX
            rows.names[start : start + len(name)] = np.frombuffer(name, np.uint8)
        index_keys_kernel(rows.slots, rows.entries, rows.used)
        self._closed, self._judged, self._looked, self._verdicts = data["clock"]
        for part, saved in zip(self._parts, data["parts"], strict=True):
            part.book.load(saved["book"])
            part.model.load(saved["model"], np.arange(len(part.book.keys)))
        self._begun[:] = NEVER
        self._found = OrderedDict(
            (name, _Told(partition, (a, b), window, features.tolist(), list(values)))
            for name, partition, a, b, window, features, values in data["found"]
        )


def _window_s(steps: int) -> int:
    """What a finding says its window is: more than `SECONDS_MIN` are whole minutes, which begin with the window."""
    seconds = steps * STEP_S
    return seconds if seconds <= SECONDS_MIN else -(-seconds // MINUTE_S) * MINUTE_S


def _of(judged: Judged, which: Any) -> Judged:
    """A part of what was judged."""
    return Judged(*(column[which] for column in judged))


def make_keys(config: Config, owned: int) -> LearnedKeys | None:
    """For a judge; None where it is off."""
    return LearnedKeys(config, owned) if settings(config)[NAME].enabled else None
