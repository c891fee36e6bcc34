"""Leaked keys: the list of what has been reported, and a judge's watch for those that are in use.

The list is shared by the judges of a process and only grows; each judge keeps what it has told. Like everything in a judge the
watch reads no clock, and what it tells it tells in the order of ticks, so the same events and reports give the same decisions
for any cut.
"""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.kernels.hashing import hash_keys, partitions_of
from detectors.kernels.membership import (
    NOT_LISTED,
    find_listed,
    listed_rows_kernel,
    place_keys_kernel,
    words_of_text,
)
from detectors.kernels.windows import NEVER
from detectors.leaked import KEPT, REPORTED, SEEN, Leaked, leaked_rule
from detectors.leaked import NAME as LEAKED
from detectors.registry import playbooks, settings
from engine.crossing import Crossing, unsigned
from engine.playbook_parts import condition_text, run_id
from engine.seeds import Seeds
from schemas.columns import U64
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.fields import Dimension, Measure
from schemas.leaked import LeakLift, LeakRecord, LeakReport, decode_leak
from schemas.playbooks import Playbook, disables_leaked
from schemas.tally import C_KEY_A, C_KEY_B, C_MEASURES, C_NAME, C_NAME_LENGTH, C_TICK, Tally

ENTRIES_MAX = 1 << 20
"""Fingerprints on the list; 170 bytes each. Later ones are refused and counted."""
PENDING_MAX = 1 << 17
"""Keys in seconds that are not closed; later ones are left out and counted. Only keys on the list take room."""
KEPT_S = 12 * 3600
"""How often a disabled key is told again: the enforcement topic keeps a record for a day at least."""
NO_TICK = 1 << 62
"""Of a fingerprint that has been lifted and never reported, or reported and never lifted."""
TEXTS_MAX = 4096
"""Different words of providers that are remembered: there are a few for each kind of key."""
_LIFT, _KEEP, _REPORT, _SEEN = range(4)
"""What happens in a second, in this order."""
_FAILED = (Measure.CLIENT_ERRORS, Measure.AUTH_FAILURES, Measure.SERVER_ERRORS, Measure.OWN_DENIALS)
Outcome = Literal["added", "known", "full"]
Words = tuple[int, int]
"""Of a key, as signed numbers."""


class LeakedList:
    """Every fingerprint that has been reported.

    Args:
        seeds: of the hashes of keys.
        partitions: judge partitions, over all workers.
    """

    def __init__(self, seeds: U64, partitions: int, entries_max: int = ENTRIES_MAX) -> None:
        self._seeds, self._partitions, self._max = seeds, partitions, entries_max
        self.count = 0
        self.reports = 0
        """Entries that have been reported, in ``order``."""
        self.lifts: list[int] = []
        """Entries that have been lifted, as it came."""
        self.next_offset = 0
        self.refused = 0
        self._texts: dict[tuple[str, str, str, str], int] = {}
        self._text_of: list[tuple[str, str, str, str]] = []
        self.places = np.zeros(128, np.int32)
        self.words = np.zeros((64, 2), np.int64)
        self.tick, self.lifted, self.offset, self.order = (np.zeros(64, np.int64) for _ in range(4))
        self.partition = np.zeros(64, np.int32)
        self.also = np.zeros(64, np.bool_)
        self._text = np.zeros(64, np.int32)
        self._names, self._report_ids = np.zeros(64, "S96"), np.zeros(64, "S32")

    def take(self, record: LeakRecord, offset: int = -1) -> Outcome:
        """Take in what the topic, or a file, holds at ``offset``; -1: it has no order."""
        self.next_offset = max(self.next_offset, offset + 1)
        entry = self._entry(record.fingerprint.encode())
        if entry == NOT_LISTED:
            self.refused += 1
            return "full"
        if isinstance(record, LeakLift):
            if self.lifted[entry] != NO_TICK:
                return "known"
            self.lifted[entry] = record.tick
            self.lifts.append(entry)
            return "added"
        if self.tick[entry] != NO_TICK:  # the first report counts: a repeated post holds from no later tick
            return "known"
        self.tick[entry], self.offset[entry], self.also[entry] = record.tick, offset, record.also
        self._text[entry], self._report_ids[entry] = self._text_index(record), record.report.encode()[:32]
        self.order[self.reports] = entry
        self.reports += 1
        return "added"

    def find(self, words: Words) -> int:
        """Which entry a key is, or NOT_LISTED."""
        return find_listed(self.places, self.words, *words)

    def words_of(self, entry: int) -> Words:
        """The key's."""
        return int(self.words[entry, 0]), int(self.words[entry, 1])

    def name(self, entry: int) -> bytes:
        """The fingerprint."""
        return bytes(self._names[entry])

    def features(self, entry: int) -> tuple[tuple[str, int | float | str], ...]:
        """What evidence says of a report."""
        provider, kind, source, form = self._text_of[self._text[entry]]
        return (
            ("provider", provider), ("type", kind), ("source", source), ("form", form),
            ("report", bytes(self._report_ids[entry]).decode()), ("reported", int(self.tick[entry])),
        )  # fmt: skip

    def _entry(self, name: bytes) -> int:
        words = words_of_text(self._seeds, name)
        entry = self.find(words)
        if entry != NOT_LISTED or self.count == self._max:
            return entry
        if self.count == len(self.words):
            self._grow()
        entry, self.count = self.count, self.count + 1
        self.words[entry] = words
        self._names[entry] = name
        self.tick[entry] = self.lifted[entry] = NO_TICK
        pair = self.words[entry : entry + 1].view(np.uint64)
        dimension = np.array([Dimension.API_KEY], np.uint8)
        self.partition[entry] = partitions_of(
            hash_keys(self._seeds, pair[:, 0].copy(), pair[:, 1].copy(), dimension), self._partitions
        )[0]
        place_keys_kernel(self.places, self.words, entry, entry + 1)
        return entry

    def _grow(self) -> None:
        """Twice the room."""
        for name in ("words", "tick", "lifted", "offset", "order", "partition", "also", "_text", "_names", "_report_ids"):
            old: npt.NDArray[Any] = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
        self.places = np.zeros(2 * len(self.words), np.int32)
        place_keys_kernel(self.places, self.words, 0, self.count)

    def _text_index(self, record: LeakReport) -> int:
        text = (record.provider, record.type, record.source, record.form)
        if text not in self._texts:
            if len(self._text_of) >= TEXTS_MAX:
                text = (record.provider if len(self._text_of) < 2 * TEXTS_MAX else "other", "other", "unknown", record.form)
            if text not in self._texts:
                self._texts[text] = len(self._text_of)
                self._text_of.append(text)
        return self._texts[text]


def read_reports(listed: LeakedList, path: str, *, ordered: bool) -> None:
    """Take in a file of records, one a line.

    Args:
        ordered: their line numbers are their offsets; else they have none.

    Raises:
        ConfigError: it cannot be read, or a line is none. What stands there is not repeated: it might be a key.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"expected a file of leaked keys at {path}, got: {error.strerror or error}") from None
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = decode_leak(line)
        except ValueError as error:
            raise ConfigError(f"expected a report of a leaked key in line {number + 1} of {path}, got {error}") from None
        if listed.take(record, number if ordered else -1) == "full":
            raise ConfigError(f"expected at most {ENTRIES_MAX} leaked keys, got more in line {number + 1} of {path}")


def reported_keys(config: Config, seeds: Seeds, *, ordered: bool = True) -> LeakedList | None:
    """The list as it is at the start, with the file of the configuration; None: the detector is off.

    Raises:
        ConfigError: the file is no such file.
    """
    section = settings(config)[LEAKED]
    assert isinstance(section, Leaked)
    if not section.enabled:
        return None
    listed = LeakedList(seeds.hash, config.engine.judge_partitions)
    if section.reports is not None:
        read_reports(listed, section.reports, ordered=ordered)
    return listed


def leaked_section(config: Config) -> Leaked | None:
    """The section of ``leaked`` with what an armed playbook adds to it; None: it is off.

    ``disable`` is the older word for arming the playbook that ships as ``leaked-key`` (`schemas.playbooks`).
    """
    section = settings(config)[LEAKED]
    assert isinstance(section, Leaked)
    if not section.enabled:
        return None
    armed = disables_leaked(playbooks(config))
    measures = (SEEN,) if armed is None else armed[1].when.measures
    unseen = not measures or REPORTED in measures
    return msgspec.structs.replace(section, disable=armed is not None, disable_unseen=armed is not None and unseen)


class LeakedWatch:
    """What a judge makes of the list.

    Args:
        section: of ``leaked``; None: off.
        listed: what has been reported; None: nothing ever is.
        partition: the judge's own; None: it has all.
        renew_s: of the policy: what is told of a key twice is told in different cells.
    """

    def __init__(self, section: Leaked | None, listed: LeakedList | None, partition: int | None, renew_s: int) -> None:
        self._section, self._partition = section, partition
        self._renew_s = renew_s
        self._again_s = 1 if section is None else -(-section.again_s // renew_s) * renew_s
        self._list = listed if section is not None else None
        self._pending: dict[tuple[int, int, int], tuple[bytes, int]] = {}
        """(tick, words) of seconds that are not closed: the fingerprint, and requests that did not fail."""
        self._told: dict[Words, int] = {}
        """In which cell of ``again_s`` a key was told last."""
        self._disabled: dict[Words, tuple[bytes, int, int]] = {}
        """Fingerprints, when that was told last, and when first."""
        self._playbook: tuple[str, Playbook] | None = None
        self._alone: list[tuple[int, int]] = []
        """(tick, entry) of reports that wait to be told."""
        self._lifts: list[tuple[int, int]] = []
        self._heard = self._heard_lifts = 0
        """How many of the list's reports and lifts have been looked at."""
        self._closed = self._covered_tick = NEVER
        self._covered = 0
        """Reports before this offset that held from a tick up to `_covered_tick` have been told by whoever saved the state."""
        self.left_out = 0
        self._rows = np.zeros(0, np.int64)
        self._entries = np.zeros(0, np.int64)

    def take(self, config: Config) -> None:
        """Go by other playbooks from here on. What is disabled stays so: only an operator lifts it."""
        self._section, self._playbook = leaked_section(config), disables_leaked(playbooks(config))

    def add(self, tally: Tally, closed: int) -> None:
        """Take in the rows of keys on the list, as the windows do: those whose second is not closed."""
        if self._list is None or not self._list.count or not tally.rows:
            return
        if len(self._rows) < tally.rows:
            self._rows, self._entries = np.zeros(tally.rows, np.int64), np.zeros(tally.rows, np.int64)
        found = listed_rows_kernel(
            tally.records, tally.order, int(Dimension.API_KEY), closed, self._list.places, self._list.words, self._rows,
            self._entries,
        )  # fmt: skip
        for row in self._rows[:found].tolist():
            self._note(tally, row)

    def _note(self, tally: Tally, row: int) -> None:
        record = tally.records[row]
        measures = record[C_MEASURES:]
        answered = int(measures[Measure.REQUESTS]) - sum(int(measures[measure]) for measure in _FAILED)
        if answered <= 0:
            return
        key = int(record[C_TICK]), int(record[C_KEY_A]), int(record[C_KEY_B])
        known = self._pending.get(key)
        if known is not None:
            self._pending[key] = known[0], known[1] + answered
        elif len(self._pending) < PENDING_MAX:
            start = int(record[C_NAME])
            name = tally.names[start : start + int(record[C_NAME_LENGTH])].tobytes()
            self._pending[key] = name, answered
        else:
            self.left_out += 1

    def close(self, closed: int) -> list[Crossing]:
        """What the seconds up to ``closed`` tell of."""
        if self._list is None or closed == NEVER or closed < self._closed:
            return []
        self._hear(self._list)
        found = []
        for tick, kind, *rest in self._happened(closed):
            if kind == _KEEP:
                found += self._keep(tick)
            elif (crossing := self._judge(self._list, tick, kind, (rest[0], rest[1]))) is not None:
                found.append(crossing)
        self._closed = closed
        return found

    def _hear(self, listed: LeakedList) -> None:
        """Reports and lifts that have come since."""
        assert self._section is not None
        new = listed.order[self._heard : listed.reports]
        self._heard = listed.reports
        if len(new) and (self._section.tell_unseen or self._section.disable_unseen):
            told = (listed.offset[new] < self._covered) & (listed.tick[new] <= self._covered_tick)
            ours = (listed.partition[new] == self._partition) if self._partition is not None else True
            for entry in new[~told & ~listed.also[new] & ours].tolist():
                heapq.heappush(self._alone, (int(listed.tick[entry]), entry))
        for entry in listed.lifts[self._heard_lifts :]:
            heapq.heappush(self._lifts, (int(listed.lifted[entry]), entry))
        self._heard_lifts, self._covered = len(listed.lifts), listed.next_offset

    def _happened(self, closed: int) -> list[tuple[int, ...]]:
        """(tick, what, words) up to ``closed``, in order."""
        assert self._list is not None
        happened: list[tuple[int, ...]] = [(tick, _SEEN, a, b) for tick, a, b in self._pending if tick <= closed]
        for kind, waiting in ((_REPORT, self._alone), (_LIFT, self._lifts)):
            while waiting and waiting[0][0] <= closed:
                tick, entry = heapq.heappop(waiting)
                happened.append((tick, kind, *self._list.words_of(entry)))
        if self._disabled or happened:
            since = self._closed if self._closed != NEVER else min(happened)[0]
            happened += [(tick, _KEEP) for tick in range((since // KEPT_S + 1) * KEPT_S, closed + 1, KEPT_S)]
        return sorted(happened)

    def _judge(self, listed: LeakedList, tick: int, kind: int, words: Words) -> Crossing | None:
        assert self._section is not None
        name, answered = self._pending.pop((tick, *words), (b"", 0)) if kind == _SEEN else (b"", 0)
        entry = listed.find(words)
        if kind == _LIFT:
            name, _, since = self._disabled.pop(words, (b"", 0, 0))
            return self._crossing(words, tick, name, 0, KEPT, lifts=True, since=since) if name else None
        if entry == NOT_LISTED or not listed.tick[entry] <= tick < listed.lifted[entry]:
            return None
        cell = tick // self._again_s
        arms = self._section.disable and (kind == _SEEN or self._section.disable_unseen)
        if kind == _SEEN:
            # Armed on the way, it disables what has been told in this cell only as a notice.
            is_told = self._told.get(words) == cell and (not arms or self._section.dry_run or words in self._disabled)
            if is_told or (not arms and self._is_just_reported(listed, entry, tick)):
                return None
            self._told[words] = cell
            return self._crossing(words, tick, name, answered, SEEN, arms=arms)
        if words in self._disabled or not (arms or self._section.tell_unseen):
            return None
        if arms:
            self._told[words] = cell
        return self._crossing(words, tick, listed.name(entry), 0, REPORTED, arms=arms)

    def _is_just_reported(self, listed: LeakedList, entry: int, tick: int) -> bool:
        """In the policy's cell in which the report was told alone a second notice would be merged with it, and not be seen."""
        assert self._section is not None
        is_told = self._section.tell_unseen and not listed.also[entry]
        return bool(is_told and tick // self._renew_s == listed.tick[entry] // self._renew_s)

    def _keep(self, tick: int) -> list[Crossing]:
        """Disabled keys of which nothing was told for a while."""
        silent = sorted(words for words, (_, told, _) in self._disabled.items() if tick - told >= KEPT_S // 2)
        return [self._crossing(words, tick, self._disabled[words][0], 0, KEPT) for words in silent]

    def _crossing(
        self, words: Words, tick: int, name: bytes, answered: int, what: str, *, arms: bool = False, lifts: bool = False,
        since: int | None = None,
    ) -> Crossing:  # fmt: skip
        """Of a disabled key every record disables: the last one of a key is what counts."""
        assert self._section is not None
        assert self._list is not None
        if words in self._disabled or (arms and not self._section.dry_run):
            self._disabled[words] = name, tick, self._disabled.get(words, (b"", 0, tick))[2]
        disables = arms or what == KEPT or words in self._disabled
        entry = self._list.find(words)
        features = self._list.features(entry) if entry != NOT_LISTED and self._list.tick[entry] != NO_TICK else ()
        if disables and self._playbook is not None:
            features = (
                *features,
                *self._run_of(name, self._disabled.get(words, (b"", 0, tick))[2] if since is None else since),
            )
        partition = 0 if self._partition is not None or entry == NOT_LISTED else int(self._list.partition[entry])
        rule = leaked_rule(self._section, what, disables=disables)
        reason = f"an operator has lifted what disabled API key {name.decode()} as leaked" if lifts else ""
        return Crossing(
            partition, Dimension.API_KEY, *unsigned(words), name, rule, tick, answered, answered, 1, False, reason=reason,
            features=features, lifts=lifts,
        )  # fmt: skip

    def _run_of(self, name: bytes, since: int) -> tuple[tuple[str, int | float | str], ...]:
        """Of which run of the playbook that is armed: one for each key, from when it was disabled first on."""
        assert self._playbook is not None
        playbook, section = self._playbook
        return (
            ("playbook", playbook), ("run", run_id(playbook, 0, f"api_key {name.decode()}", since)), ("run_since", since),
            ("step", f"1 of {len(section.steps)}"), ("playbook_state", section.state), ("playbook_owner", section.owner),
            ("condition", condition_text(section)),
        )  # fmt: skip

    def save(self) -> dict[str, Any]:
        """Plain data for `load`. The list itself is read again."""
        if self._list is None:
            return {}
        return {
            "pending": [[*key, name, answered] for key, (name, answered) in self._pending.items()],
            "told": [[*words, cell] for words, cell in self._told.items()],
            "disabled": [[*words, *known] for words, known in self._disabled.items()],
            "closed": self._closed,
            "covered": self._covered,
            "left_out": self.left_out,
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        if not data:
            return
        self._pending = {(tick, a, b): (name, answered) for tick, a, b, name, answered in data["pending"]}
        self._told = {(a, b): cell for a, b, cell in data["told"]}
        self._disabled = {(a, b): (name, told, since) for a, b, name, told, since in data["disabled"]}
        self._closed = self._covered_tick = data["closed"]
        self._covered, self.left_out = data["covered"], data["left_out"]
