"""Events as an edge would see them: when, and under which names a mitigation could meet them.

They are read from lines by the product's own decoder, so that whatever can be replayed can be scored.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import orjson

from drills.columns import I64
from engine.geo import make_geo
from engine.in_force import Named
from schemas.config import Config
from schemas.decode import Decoder
from schemas.fields import Number, Text

Mask = npt.NDArray[np.bool_]
LATER_MS = 7_258_118_400_000
"""The year 2200: no event's time is replaced."""
NAMED_BY = {
    "api_key": Text.API_KEY, "account": Text.ACCOUNT, "user_agent": Text.USER_AGENT, "email_domain": Text.EMAIL_DOMAIN,
    "country": Text.COUNTRY, "fingerprint": Text.FINGERPRINT, "service": Text.HOST,
}  # fmt: skip
"""Types of targets, and the text of an event that each is a value of. Beside them: ip, net, asn, route."""
ADDRESSES = ("ip", "net")
SIGNATURE = "signature"
"""A conjunction of the others, as a JSON object."""
_MAPPED = 0xFFFF << 32
_HEXADECIMAL = re.compile(r"[0-9a-fA-F-]{8,}")
_OPAQUE_LENGTH = 24
_READ_LINES = 4096
"""At a time: names are cut out of one copy of so many."""


@functools.lru_cache(1 << 16)
def folded(method: bytes, path: bytes) -> str:
    """Method and path as a route is named: without query, ids as ``{id}``.

    >>> folded(b"GET", b"/v1/files/file-0123456789abcdef01234567?x=1")
    'GET /v1/files/{id}'
    """
    plain = re.split(rb"[?#]", path, maxsplit=1)[0].decode("utf-8", "backslashreplace")
    return f"{method.decode('utf-8', 'backslashreplace')} " + "/".join(map(_folded, plain.split("/")))


def _folded(segment: str) -> str:
    if not any("0" <= c <= "9" for c in segment):
        return segment
    an_id = segment.isdigit() or len(segment) >= _OPAQUE_LENGTH or _HEXADECIMAL.fullmatch(segment)
    return "{id}" if an_id else segment


def address_span(text: str) -> tuple[int, int]:
    """First and last address of an address or prefix, IPv4 mapped into IPv6.

    Raises:
        ValueError: it is none.
    """
    network = ipaddress.ip_network(text, strict=False)
    base = _MAPPED if network.version == 4 else 0
    return base + int(network.network_address), base + int(network.broadcast_address)


@dataclass(slots=True)
class Column:
    """One name of each event, as a number; rows of a number are found without looking at the others."""

    codes: I64
    """i64[n]; -1: it has none"""
    _order: I64 | None = None
    _sorted: I64 | None = None

    def rows(self, low: int, high: int) -> I64:
        """Which rows have a code in [low, high)."""
        if self._order is None or self._sorted is None:
            self._order = np.argsort(self.codes, kind="stable")
            self._sorted = self.codes[self._order]
        first, last = np.searchsorted(self._sorted, (low, high))
        return self._order[first:last]


@dataclass(slots=True)
class Exposure:
    """Events with the names they can be met under."""

    time_ms: I64
    label: I64
    """i64[n]: 0 is honest, else the attack's"""
    addresses: list[int]
    """Distinct addresses in order, IPv4 mapped into IPv6; the codes of column ``ip`` are places in it."""
    columns: dict[str, Column]
    names: dict[str, dict[str, int]] = field(default_factory=dict)
    """By type of target, without addresses: value -> code"""
    _source_days: float | None = None

    def __len__(self) -> int:
        return len(self.time_ms)

    def rows_of(self, target: Named) -> I64 | None:
        """The events that a target has in it; none: it is of a type that is not known here."""
        kind, value = target
        if kind == SIGNATURE:
            return self._rows_of_all(value)
        if kind in ADDRESSES:
            low, high = address_span(value)
            return self.columns["ip"].rows(bisect_left(self.addresses, low), bisect_right(self.addresses, high))
        if kind not in self.columns:
            return None
        code = self.names[kind].get(value)
        return np.zeros(0, np.int64) if code is None else self.columns[kind].rows(code, code + 1)

    def _rows_of_all(self, value: str) -> I64 | None:
        """Those that have every value of a conjunction, none: it is none. An event that names no host was for the configured
        service."""
        try:
            values = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(values, dict) or not values:
            return None
        found = np.ones(len(self), np.bool_)
        for kind, text in values.items():
            if kind == "service" and text not in self.names["service"]:
                rows: I64 | None = self.columns["service"].rows(-1, 0)
            else:
                rows = self.rows_of((kind, text))
            if rows is None:
                return None
            here = np.zeros(len(self), np.bool_)
            here[rows] = True
            found &= here
        return np.flatnonzero(found)

    def source_days(self) -> float:
        """Distinct honest addresses, keys and accounts of each day, for as much of the day as there was."""
        if self._source_days is None:
            self._source_days = self._count_source_days() if len(self) else 0.0
        return self._source_days

    def _count_source_days(self) -> float:
        first_ms, last_ms = int(self.time_ms.min()), int(self.time_ms.max()) + 1
        day_ms, total = 86_400_000, 0.0
        for day in range(first_ms // day_ms, (last_ms - 1) // day_ms + 1):
            low, high = max(first_ms, day * day_ms), min(last_ms, (day + 1) * day_ms)
            here = (self.time_ms >= low) & (self.time_ms < high) & (self.label == 0)
            sources = 0
            for kind in ("ip", "api_key", "account"):
                codes = np.unique(self.columns[kind].codes[here])
                sources += int((codes >= 0).sum())
            total += sources * (high - low) / day_ms
        return total


class ExposureReader:
    """Reads blocks of whole lines; each line has a label.

    Args:
        config: how bytes become events: formats, proxies, fields.
    """

    def __init__(self, config: Config) -> None:
        self._decoder = Decoder(config.input, key_seed=(1, 2), ahead_ms=0)
        self._geo = make_geo(config.input.geo)
        self._buffer = np.zeros(1 << 21, np.uint8)
        self._numbers: list[list[I64]] = [[], [], []]
        self._high: list[npt.NDArray[np.uint64]] = []
        self._low: list[npt.NDArray[np.uint64]] = []
        self._codes: dict[str, list[list[int]]] = {kind: [] for kind in (*NAMED_BY, "route")}
        self._known: dict[str, dict[bytes, int]] = {kind: {b"": -1} for kind in NAMED_BY}
        self._known["service"] = {
            b"": 0,
            config.input.service.encode(): 0,
        }  # as the engine has it: who names no host is of this
        self._routes: dict[str, int] = {}
        self.unread = 0
        """Lines that are no events: they have no part in anything."""

    def take(self, lines: Sequence[bytes], labels: I64) -> None:
        """Whole lines, and the label of each (i64[lines])."""
        for first in range(0, len(lines), _READ_LINES):
            self._take(b"".join(lines[first : first + _READ_LINES]), labels[first:])

    def _take(self, data: bytes, labels: I64) -> None:
        if 2 * len(data) + 16_384 > len(self._buffer):
            self._buffer = np.zeros(4 * len(data) + 16_384, np.uint8)
        self._buffer[: len(data)] = np.frombuffer(data, np.uint8)
        at, before = 0, 0
        while at < len(data):
            at = self._decoder.decode_lines(self._buffer, len(data), at, bound_ms=LATER_MS, events_max=self._decoder.capacity)
            if self._geo is not None:
                self._geo.fill(self._decoder.columns)
            self._note(labels, before)
            before += self._decoder.records
            self.unread += self._decoder.poison

    def _note(self, labels: I64, before: int) -> None:
        columns = self._decoder.columns
        count = columns.n
        record = columns.number(Number.RECORD) + before
        for held, values in zip(self._numbers, (columns.number(Number.TIME_MS), labels[record], columns.number(Number.ASN)),
                                strict=True):  # fmt: skip
            held.append(np.array(values))
        self._high.append(columns.ip_high[:count].copy())
        self._low.append(columns.ip_low[:count].copy())
        ends = columns.text_start[:, :count] + columns.text_length[:, :count]
        raw = columns.buffer[: int(ends.max(initial=0))].tobytes()
        spans = columns.text_start[:, :count].tolist(), columns.text_length[:, :count].tolist()
        for kind, text in NAMED_BY.items():
            known = self._known[kind]
            self._codes[kind].append(
                [known.setdefault(raw[s : s + n], len(known)) for s, n in zip(spans[0][text], spans[1][text], strict=True)]
            )
        routes, found = self._routes, []
        for s, n, ms, mn in zip(spans[0][Text.PATH], spans[1][Text.PATH], spans[0][Text.METHOD], spans[1][Text.METHOD],
                                strict=True):  # fmt: skip
            found.append(routes.setdefault(folded(raw[ms : ms + mn], raw[s : s + n]), len(routes)))
        self._codes["route"].append(found)

    def finish(self) -> Exposure:
        """All that was taken."""
        time_ms, label, asn = (np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in self._numbers)
        high = np.concatenate([*self._high, np.zeros(0, np.uint64)])
        low = np.concatenate([*self._low, np.zeros(0, np.uint64)])
        pairs = np.zeros(len(high), [("high", "u8"), ("low", "u8")])
        pairs["high"], pairs["low"] = high, low
        distinct, codes = np.unique(pairs, return_inverse=True)
        addresses = [(h << 64) + w for h, w in zip(distinct["high"].tolist(), distinct["low"].tolist(), strict=True)]
        columns = {"ip": Column(codes.astype(np.int64))}
        names: dict[str, dict[str, int]] = {}
        for kind, parts in self._codes.items():
            columns[kind] = Column(np.array([code for part in parts for code in part], np.int64))
            if kind in self._known:
                names[kind] = {text.decode("utf-8", "backslashreplace"): code for text, code in self._known[kind].items()}
        names["route"] = self._routes
        columns["asn"] = Column(asn)
        names["asn"] = {str(number): number for number in np.unique(asn).tolist() if number >= 0}
        return Exposure(time_ms, label, addresses, columns, names)
