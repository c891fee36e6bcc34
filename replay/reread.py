"""A mitigation's evidence read again: the target's events, second by second, in whole segments of topics or files.

The offsets of the evidence are a superset of the window's events. They are read once more, and some of what lies before, so
that a flood is seen to begin. Nothing is judged; what is read is bounded.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from detectors.kernels.folding import ROUTE_ROOM
from engine.geo import make_geo
from replay.matching import Matcher, routes_of
from replay.redact import MASK, Redaction, redact_agent, redact_route
from replay.shown import Shown
from replay.sources import read_between
from schemas.columns import I64, U8, Columns
from schemas.config import Config
from schemas.decode import Decoder
from schemas.errors import SourceError
from schemas.fields import Flag, Number, Text
from schemas.mitigation import Mitigation

BYTES_MAX = 1 << 30
"""Read again for one mitigation: some three million events, and a few seconds."""
BEFORE_BYTES = 4 << 20
"""Of a file, read before the evidence begins: there the traffic is as it was before."""
DETAILED_MAX = 200_000
"""Events of the target whose sources and routes are counted."""
SAMPLES = 3
SHOWN_S_MIN = 60
"""A window of a second is shown with the minute before it."""
_TEXTS = {"user agents": Text.USER_AGENT, "countries": Text.COUNTRY, "mail domains": Text.EMAIL_DOMAIN}
_PEOPLE = {"accounts": Text.ACCOUNT, "API keys": Text.API_KEY}
"""Only counted: who they are is nobody's business here."""
_MOVED = re.compile(r"#[0-9]+\Z")


class Batch(NamedTuple):
    """Records one behind the other in a buffer, with the room that decoding wants behind them."""

    buffer: U8
    starts: I64
    ends: I64
    times_ms: I64
    offsets: I64


class Range(Protocol):
    """What is read again of one source partition."""

    @property
    def name(self) -> str:
        """Of the source partition, as the evidence has it."""
        ...

    @property
    def is_whole(self) -> bool:
        """It begins where the source does: nothing lies before."""
        ...

    def batches(self) -> Iterator[Batch]:
        """Its records, in order."""
        ...


@dataclass(slots=True)
class Sample:
    """One record of the target, redacted."""

    source: str
    offset: int
    text: str


@dataclass(slots=True)
class Reread:
    """What was found again."""

    start: int
    """The first second that is shown …"""
    end: int
    """… and the one after the last."""
    per_second: list[int | None]
    """Events of the target; None: what was read does not reach so far back."""
    events: int = 0
    """Of the target, within the window."""
    all_events: int = 0
    """Of everybody, within the window."""
    answers: dict[str, int] = field(default_factory=dict)
    """How the service answered the target: ``401`` → how often."""
    distinct: dict[str, int] = field(default_factory=dict)
    """How many different addresses, networks, routes, user agents, … the target's events have."""
    most: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    """Of some of these, the most frequent."""
    samples: list[Sample] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What could not be read, a sentence each."""
    cut: bool = False
    """There was more than may be read."""


class FileRange:
    """Whole lines of a file or archive."""

    def __init__(self, name: str, path: str, first: int, end: int, line_max: int) -> None:
        self.name, self._path, self._end, self._line_max = name, path, end, line_max
        self._first = max(0, first - BEFORE_BYTES)
        self.is_whole = self._first == 0

    def batches(self) -> Iterator[Batch]:
        """See `Range`. Raises `SourceError` when the file cannot be opened."""
        skips = self._first > 0  # it begins within a line
        for _, buffer, length, base in read_between(self._path, self._first, self._end, self._line_max):
            ends = np.flatnonzero(buffer[:length] == ord("\n")).astype(np.int64)
            if length and (not len(ends) or ends[-1] != length - 1):
                ends = np.append(ends, length)
            starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])[: len(ends)]
            if skips and len(ends):
                starts, ends, skips = starts[1:], ends[1:], False
            if len(ends):
                yield Batch(buffer, starts, ends, np.zeros(len(ends), np.int64), base + starts)


def find_file(name: str, logs: list[str]) -> str | None:
    """The file that a source partition was read from: one of those given, or the one of that name.

    A followed file's name ends in its inode: it may have been moved since, within its folder.
    """
    path = _MOVED.sub("", name)
    for given in logs:
        if os.path.basename(given) == os.path.basename(path):
            return given
    if logs:
        return logs[0] if len(logs) == 1 else None
    if path != name:
        inode, folder = int(name.rpartition("#")[2]), os.path.dirname(path) or "."
        if os.path.isdir(folder):
            for entry in os.scandir(folder):
                if entry.inode() == inode and entry.is_file():
                    return entry.path
    return path if os.path.isfile(path) else None


def shown_span(mitigation: Mitigation) -> tuple[int, int]:
    """The seconds that are shown: the window, at least the minute that ends with it."""
    end = mitigation.window.end
    return min(mitigation.window.start, end - SHOWN_S_MIN), end


def reread(
    config: Config,
    mitigation: Mitigation,
    ranges: list[Range],
    key_seed: tuple[int, int],
    *,
    tell: Callable[[int], None] | None = None,
) -> Reread:
    """Read the evidence again and look for the target.

    Raises:
        SourceError: a file cannot be read, or events do not say what the target is. BrokerError: Kafka cannot be read.
    """
    start, end = shown_span(mitigation)
    search = _Search(config, mitigation, start, end)
    decoder = Decoder(config.input, key_seed=key_seed, ahead_ms=config.time.ahead_s * 1000)
    geo = make_geo(config.input.geo)
    reaches, read = start, 0
    for one in ranges:
        first_tick: int | None = None
        for batch in one.batches():
            at = 0
            while at < len(batch.starts):
                following = decoder.decode_records(
                    batch.buffer, batch.starts, batch.ends, batch.times_ms, at, events_max=decoder.capacity
                )
                if geo is not None:
                    geo.fill(decoder.columns)
                ticks = decoder.columns.number(Number.TIME_MS) // 1000
                if first_tick is None and len(ticks):
                    first_tick = int(ticks[0])
                search.look(decoder.columns, ticks, batch, one.name)
                at = following
            size = int((batch.ends - batch.starts).sum())
            read += size
            if tell is not None:
                tell(size)
            if read > BYTES_MAX:
                search.found.cut = True
                break
        if first_tick is not None and not one.is_whole:
            reaches = max(reaches, min(first_tick + config.time.lateness_s, mitigation.window.start))
    return search.conclude(reaches)


class _Search:
    """Gathers what is found."""

    def __init__(self, config: Config, mitigation: Mitigation, start: int, end: int) -> None:
        self._matcher = Matcher(mitigation.target, config.input.service)
        self._window = mitigation.window
        hidden = Shown("").hides(mitigation.target)
        self._redaction = Redaction(config.input.fields, "" if hidden else mitigation.target.value)
        self._counts = np.zeros(end - start, np.int64)
        self._seen: dict[str, Counter[bytes]] = {
            name: Counter() for name in ("addresses", "networks", "routes", *_TEXTS, *_PEOPLE)
        }
        self._answers: Counter[str] = Counter()
        self._detailed = 0
        self._next_sample = 1
        self.found = Reread(start, end, [])

    def look(self, columns: Columns, ticks: I64, batch: Batch, source: str) -> None:
        """Take in a batch of one source."""
        found = self.found
        shown = np.flatnonzero((ticks >= found.start) & (ticks < found.end))
        shown = shown[columns.are_requests(shown)]
        in_window = (ticks[shown] >= self._window.start) & (ticks[shown] < self._window.end)
        found.all_events += int(in_window.sum())
        mine = self._matcher.rows(columns, shown)
        if not len(mine):
            return
        self._counts += np.bincount(ticks[mine] - found.start, minlength=len(self._counts))
        mine = mine[(ticks[mine] >= self._window.start) & (ticks[mine] < self._window.end)]
        found.events += len(mine)
        statuses, counts = np.unique(columns.numbers[Number.STATUS, mine], return_counts=True)
        for status, count in zip(statuses.tolist(), counts.tolist(), strict=True):
            self._answers[str(status) if status > 0 else "none"] += count
        self._detail(columns, mine[: max(0, DETAILED_MAX - self._detailed)])
        self._detailed += len(mine)
        # The first, the second, the fourth, …: few, and from all over the window.
        while self._next_sample <= found.events:
            row = int(mine[self._next_sample - (found.events - len(mine)) - 1])
            found.samples.append(self._sample(batch, int(columns.numbers[Number.RECORD, row]), source))
            self._next_sample *= 2

    def _sample(self, batch: Batch, record: int, source: str) -> Sample:
        data = batch.buffer[batch.starts[record] : batch.ends[record]].tobytes()
        return Sample(source, int(batch.offsets[record]), self._redaction.line(data))

    def _detail(self, columns: Columns, rows: I64) -> None:
        with_address = rows[columns.numbers[Number.FLAGS, rows] & Flag.HAS_IP != 0]
        for high, low in zip(columns.ip_high[with_address].tolist(), columns.ip_low[with_address].tolist(), strict=True):
            key = (high << 64 | low).to_bytes(16, "big")
            self._seen["addresses"][key] += 1
            self._seen["networks"][key[:15] + b"\0" if high == 0 else key[:6]] += 1
        data = columns.buffer
        for name, text in (*_TEXTS.items(), *_PEOPLE.items()):
            starts, lengths = columns.text_start[text, rows].tolist(), columns.text_length[text, rows].tolist()
            self._seen[name].update(
                data[at : at + length].tobytes() for at, length in zip(starts, lengths, strict=True) if length
            )
        out, lengths_of_routes = routes_of(columns, rows)
        self._seen["routes"].update(
            out[k * ROUTE_ROOM : k * ROUTE_ROOM + length].tobytes()
            for k, length in enumerate(lengths_of_routes.tolist())
            if length
        )

    def conclude(self, reaches: int) -> Reread:
        """Everything has been looked at; before ``reaches`` not all of it."""
        found = self.found
        found.per_second = [
            None if found.start + index < reaches and not count else count for index, count in enumerate(self._counts.tolist())
        ]
        some = found.samples
        found.samples = [some[0], some[len(some) // 2], some[-1]] if len(some) > SAMPLES else some
        found.answers = dict(self._answers.most_common())
        found.distinct = {name: len(seen) for name, seen in self._seen.items() if seen}
        found.most = {
            name: [(_shown(name, key), count) for key, count in self._seen[name].most_common(3)]
            for name in ("addresses", "networks", "routes", *_TEXTS)
            if self._seen[name]
        }
        return found


def _shown(name: str, key: bytes) -> str:
    """A value as it may be shown."""
    if name in ("addresses", "networks"):
        number = int.from_bytes(key.ljust(16, b"\0"), "big")
        is_four = number >> 32 == 0xFFFF
        text = str(ipaddress.IPv4Address(number & 0xFFFFFFFF) if is_four else ipaddress.IPv6Address(number))
        return text if name == "addresses" else f"{text}/{24 if is_four else 48}"
    text = key.decode("utf-8", "replace")
    if name == "routes":
        return redact_route(text)
    if name == "user agents":
        return redact_agent(text)
    safe = all(c.isascii() and (c.isalnum() or c in ".-") for c in text) and len(text) <= 64
    return text if safe else MASK


def file_ranges(config: Config, mitigation: Mitigation, logs: list[str]) -> tuple[list[Range], list[str]]:
    """(what is read again of files, the names of sources that are no file here)."""
    ranges: list[Range] = []
    unknown = []
    for name, (first, end) in sorted(mitigation.evidence.offsets.items()):
        path = find_file(name, logs)
        if path is None:
            unknown.append(name)
        elif not os.path.isfile(path):
            raise SourceError(f"expected a log file at {path}, got none")
        else:
            ranges.append(FileRange(name, path, first, end, config.input.record_bytes_max))
    return ranges, unknown
