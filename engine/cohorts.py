"""``registrations`` in the engine: each service's stream of registrations, step by step, and what a flood of them is made of.

Like everything in a judge it reads no clock. Seconds are taken in when they are closed, steps of ten seconds are judged in
their order, and each service by itself, so that the same events give the same decisions for any cut and partitioning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from detectors.kernels.windows import NEVER
from detectors.learning.floods import STEP_S
from detectors.learning.marks import Rows, joined
from detectors.learning.uses import NO_USES, U_TICK
from detectors.lists import read_addresses, read_names
from detectors.registrations import NAME, VERSION, RegistrationsSection
from detectors.registry import settings
from engine.crossing import Crossing, finding_id, target_value
from engine.registered import (
    Came,
    Lists,
    Service,
    merged_registrations,
    of_registrations,
    rows_of_services,
    texts_of,
    ticks_of,
    uses_of_services,
)
from engine.registrant_notices import Notices
from engine.registrants import Registrants
from engine.sampling import part_of
from engine.suspicions import NOTHING, Suspicions
from schemas.columns import I64
from schemas.config import Config
from schemas.narrow import Reader
from schemas.sample import S_TICK, empty_sample
from schemas.sample_wire import SampleHead, decode_sample, encode_sample
from schemas.tally import Tally

SERVICES_MAX = 4
"""Of one judge partition, each 2 MB. Hosts are the clients' own words: the first that register anybody are kept."""
SILENT_STEPS_MAX = 7 * 8640
"""After so long without a registration a service's stream ends, and the next begins anew."""
TEXT_S = 1200
"""Texts are known for so long after the last registration that named them."""
KNOWN_FINDINGS = 256
"""Findings that can still be answered with a verdict."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A finding that may be answered."""

    service: Service
    hour: int
    score: float
    z: Any


class Registrations:
    """The streams of a judge.

    Args:
        config: with the section of ``registrations``.
    """

    name, version = NAME, VERSION

    def __init__(self, config: Config) -> None:
        section = settings(config)[NAME]
        assert isinstance(section, RegistrationsSection)
        self._section, self._renew_s = section, config.policy.renew_s
        self._lists = lists_of(section)
        self._pending: list[Came] = []
        self._closed = NEVER
        self._rows: dict[Service, list[Rows]] = {}
        """Of steps that are not over"""
        self._uses: dict[Service, I64] = {}
        """The same, of what their accounts do"""
        self._texts: dict[int, tuple[int, bytes]] = {}
        """Word -> the last second that named it, and its text"""
        self._disposable: dict[int, bool] = {}
        self.reset()

    def reset(self) -> None:
        """Forget what was learned; what was taken in of steps that are not over stays."""
        self._streams: dict[Service, Registrants] = {}
        self._told: dict[str, _Told] = {}

    def add(self, tally: Tally) -> None:
        """Take in a tally. Its arrays may be used again when this returns."""
        if len(tally.sample.cells):
            some = of_registrations(tally.sample)
            if len(some.sample.cells):
                self._pending.append(some)

    def close(self, closed: int, muted: int, suspicions: Suspicions = NOTHING) -> list[Crossing]:
        """Judge the steps that are over once ``closed`` is; what touches a second up to ``muted`` is learned and not told.

        Steps in which others found something of a service (``suspicions``) are judged, and not learned.
        """
        if closed <= self._closed:
            return []
        self._take(closed)
        found: list[Crossing] = []
        if self._closed != NEVER:
            over = (closed + 1) // STEP_S
            new = [(int(rows[0].step[0]), service) for service, rows in self._rows.items() if service not in self._streams]
            for service in [*sorted(self._streams), *(service for step, service in sorted(new) if step < over)]:
                found += self._advance(service, over, muted, suspicions)
        self._closed = closed
        if closed % 60 == 59 or len(self._texts) > 100_000:
            self._texts = {word: one for word, one in self._texts.items() if one[0] > closed - TEXT_S}
            self._disposable = {word: flag for word, flag in self._disposable.items() if word in self._texts}
        return found

    def _take(self, closed: int) -> None:
        """Make rows of what is closed."""
        due = [one for one in self._pending if (first := one.waits_from) is not None and first <= closed]
        if not due:
            self._closed = closed if self._closed == NEVER else self._closed
            return
        if not self._streams and not self._rows and not any(one.registers_from <= closed for one in due):
            self._pass_over(closed, due)
            return
        merged = merged_registrations([one.left for one in self._pending])
        # What comes for seconds that are closed comes too late, as for windows.
        late, at = np.searchsorted(merged.cells[:, S_TICK], (self._closed, closed), "right").tolist()
        self._pending = [of_registrations(part_of(merged, at, len(merged.cells)))] if at < len(merged.cells) else []
        if late == at:
            return
        now = part_of(merged, late, at)
        ticks = ticks_of(now)
        for word, text in texts_of(now):
            if word not in ticks:
                continue
            if word not in self._texts:
                self._disposable[word] = self._lists.is_disposable(text)
            self._texts[word] = ticks[word], text
        for service, rows in rows_of_services(now, self._disposable, self._lists):
            self._rows.setdefault(service, []).append(rows)
        for service, uses in uses_of_services(now):
            self._keep(service, uses)
        if self._closed == NEVER:
            self._closed = int(now.cells[0, S_TICK]) - 1

    def _pass_over(self, closed: int, due: list[Came]) -> None:
        """Of what is closed nothing is kept: nobody has registered anywhere, so what accounts do is nobody's."""
        if self._closed == NEVER:
            self._closed = min(int(one.sample.cells[one.at, S_TICK]) for one in due) - 1
        for one in due:
            one.pass_over(closed)
        self._pending = [one for one in self._pending if one.waits_from is not None]

    def _keep(self, service: Service, uses: I64) -> None:
        """Keep what accounts do until it is judged: of services that somebody registers at, from the step after the first."""
        stream = self._streams.get(service)
        if stream is None:
            if service not in self._rows:
                return
            uses = uses[uses[:, U_TICK] // STEP_S >= int(self._rows[service][0].step[0])]
        self._uses[service] = np.concatenate([self._uses.get(service, NO_USES), uses])

    def _advance(self, service: Service, over: int, muted: int, suspicions: Suspicions) -> list[Crossing]:
        """The steps of a service before ``over``."""
        waiting, uses = self._rows.pop(service, []), self._uses.pop(service, NO_USES)
        rows = joined(waiting) if waiting else None
        stream = self._streams.get(service)
        if stream is None:
            assert rows is not None
            stream = self._begin(service, int(rows.step[0]))
            if stream is None:
                return []
        found: list[Crossing] = []
        while stream.step < over:
            step = stream.step
            here = None
            if rows is not None:
                end = int(np.searchsorted(rows.step, step, "right"))
                here, rows = (rows.take(slice(0, end)) if end else None), rows.take(slice(end, None))
            if here is None and step - stream.heard > SILENT_STEPS_MAX:
                del self._streams[service]
                if rows is not None and len(rows.step):
                    self._rows[service] = [rows]
                    self._keep(service, uses)
                    found += self._advance(service, over, muted, suspicions)
                return found
            end = int(np.searchsorted(uses[:, U_TICK], STEP_S * (step + 1), "left"))
            frozen = suspicions.has_service(service, STEP_S * step, STEP_S * (step + 1))
            told = stream.judge(here, uses[:end], frozen=frozen)
            uses = uses[end:]
            tick = STEP_S * (step + 1) - 1
            going_on, stream.going_on = stream.going_on, []
            found += going_on if tick - 600 >= muted else []
            for crossing in told if tick - 600 >= muted else []:
                found.append(crossing)
                self._remember(crossing, service, stream, tick)
        if rows is not None and len(rows.step):
            self._rows[service] = [rows]
        if len(uses):
            self._uses[service] = uses
        return found

    def _begin(self, service: Service, step: int) -> Registrants | None:
        """A new stream, if there is room."""
        if len(self._streams) >= SERVICES_MAX:
            return None
        name = self._texts.get(service[0], (0, b""))[1]
        self._streams[service] = self._stream(service, name, step)
        return self._streams[service]

    def _stream(self, service: Service, name: bytes, step: int) -> Registrants:
        return Registrants(Notices(service, name, self._section, self._text_of), self._section, self._renew_s, step)

    def _text_of(self, word: int) -> bytes | None:
        known = self._texts.get(word)
        return None if known is None else known[1]

    def _remember(self, crossing: Crossing, service: Service, stream: Registrants, tick: int) -> None:
        value = target_value(crossing.dimension, crossing.key_a, crossing.key_b, crossing.name)
        told = _Told(service, tick // 3600, stream.last_score, stream.last_z.copy())
        self._told[finding_id(crossing, value)] = told
        while len(self._told) > KNOWN_FINDINGS:
            del self._told[next(iter(self._told))]

    def feedback(self, finding_id: str, confirmed: bool) -> bool:
        """Learn from a verdict; whether the finding was ours and is still known."""
        told = self._told.pop(finding_id, None)
        stream = None if told is None else self._streams.get(told.service)
        if told is None or stream is None:
            return False
        stream.hear(told.z, told.score, told.hour, confirmed=confirmed)
        return True

    def describe(self) -> dict[str, Any]:
        """What people may want to know."""
        return {
            "cold": not self._streams or any(stream.is_cold for stream in self._streams.values()),
            "services": [stream.describe() for stream in self._streams.values()],
        }

    def save(self) -> dict[str, Any]:
        """Plain data and arrays for `load`; arrays of truths are numbers in it."""
        head, blocks = encode_sample(
            merged_registrations([one.left for one in self._pending]) if self._pending else empty_sample()
        )
        data: dict[str, Any] = {
            "closed": self._closed,
            "pending": [msgspec.to_builtins(head), b"".join(blocks)],
            "uses": [[*service, uses] for service, uses in sorted(self._uses.items())],
            "rows": [[*service, joined(rows).columns()] for service, rows in sorted(self._rows.items())],
            "texts": [[w, tick, text] for w, (tick, text) in sorted(self._texts.items()) if tick > self._closed - TEXT_S],
            "told": [[key, *one.service, one.hour, one.score, one.z] for key, one in self._told.items()],
            "streams": [[*service, stream.notices.service, stream.save()] for service, stream in sorted(self._streams.items())],
        }
        saved: dict[str, Any] = as_bits(data)
        return saved

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        data = from_bits(data)
        self.reset()
        self._texts, self._rows, self._disposable = {}, {}, {}
        self._closed = data["closed"]
        head, blocks = data["pending"]
        pending = decode_sample(msgspec.convert(head, SampleHead), Reader(blocks, 0))
        self._pending = [of_registrations(pending)] if len(pending.cells) else []
        self._rows = {(a, b): [Rows(*columns)] for a, b, columns in data["rows"]}
        self._texts = {word: (tick, text) for word, tick, text in data["texts"]}
        self._disposable = {word: self._lists.is_disposable(text) for word, (_, text) in self._texts.items()}
        self._uses = {(a, b): uses.copy() for a, b, uses in data["uses"]}
        self._told = {key: _Told((a, b), hour, score, z) for key, a, b, hour, score, z in data["told"]}
        for a, b, name, saved in data["streams"]:
            stream = self._stream((a, b), name, 0)
            stream.load(saved)
            self._streams[a, b] = stream


def make_registrations(config: Config, owned: int) -> Registrations | None:
    """The detector for a judge; None: it is off."""
    return Registrations(config) if settings(config)[NAME].enabled else None


def lists_of(section: RegistrationsSection) -> Lists:
    """What a section says of mail domains and networks.

    Raises:
        ConfigError: a file cannot be read.
    """
    disposable: set[bytes] = set()
    if section.disposable_package:
        disposable |= _packaged()
    for path in section.disposable_files:
        disposable |= read_names(path)
    numbers = {name.removeprefix(b"as") for path in section.hosting_asns_files for name in read_names(path)}
    asns = np.array(sorted(int(number) for number in numbers if number.isdigit()), np.int64)
    customers = frozenset(domain.lower().encode() for domain in section.customer_domains)
    return Lists(disposable, customers, asns, tuple(read_addresses(path) for path in section.hosting_files))


def _packaged() -> set[bytes]:
    from disposable_email_domains import blocklist

    return {domain.encode() for domain in blocklist}


_BITS = {"b": np.uint8}


def as_bits(value: Any) -> Any:
    """The same with arrays of truths as numbers, which is what a saved state holds."""
    if isinstance(value, np.ndarray) and value.dtype.kind in _BITS:
        return {"bits": np.ascontiguousarray(value).view(_BITS[value.dtype.kind]), "of": value.dtype.str}
    if isinstance(value, dict):
        return {key: as_bits(inner) for key, inner in value.items()}
    return [as_bits(inner) for inner in value] if isinstance(value, list | tuple) else value


def from_bits(value: Any) -> Any:
    """What `as_bits` was given."""
    if isinstance(value, dict):
        if value.keys() == {"bits", "of"}:
            return value["bits"].view(np.dtype(str(value["of"]))).copy()
        return {key: from_bits(inner) for key, inner in value.items()}
    return [from_bits(inner) for inner in value] if isinstance(value, list) else value
