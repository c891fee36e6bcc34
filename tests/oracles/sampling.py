"""The sample of events in plain Python, and how samples add up."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detectors.kernels.names import DIGIT, NAME_BYTES_MAX, OTHER, SURPRISES, SYMBOLS, symbol_of
from schemas.sample import CELL_WORDS, ENTRY_WORDS, KEPT, TEXT_BYTES_MAX, VERIFIED, Sample, Stratum
from tests.oracles import grouping
from tests.oracles.hashing import MASK, hash_words, siphash_1_3_128

Where = tuple[int, int, int, int]
"""Tick, both words of the service, stratum."""


@dataclass
class Cell:
    """One cell; its entries by their priorities, each with its weight and what follows that in its columns."""

    level: int = 0
    total: int = 0
    entries: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    def put(self, priority: int, weight: int, says: tuple[int, ...]) -> None:
        """Add an entry, or to its equal: the smallest stands for all."""
        if priority >> (64 - self.level) == 0:
            before, other = self.entries.get(priority, (0, says))
            self.entries[priority] = before + weight, min(other, says)

    def shrink(self) -> None:
        """Raise the level until no more than `KEPT` are left."""
        while True:
            self.entries = {p: entry for p, entry in self.entries.items() if p >> (64 - self.level) == 0}
            if len(self.entries) <= KEPT:
                return
            self.level += 1


@dataclass
class Plain:
    """A sample as dictionaries."""

    cells: dict[Where, Cell] = field(default_factory=dict)
    text: dict[int, bytes] = field(default_factory=dict)


def mark_of(text: bytes) -> int:
    """A cheap mark: of its length, its first and its last eight bytes."""
    first, last = int.from_bytes(text[:8], "little"), int.from_bytes(text[-8:], "little") if len(text) >= 8 else 0
    return ((first * 0x9E3779B97F4A7C15) ^ ((last ^ len(text)) * 0xC2B2AE3D27D4EB4F)) & MASK


def notes_of(name: bytes, asn: int, rank: int = 0) -> int:
    """What is told of a registration's name, network and account."""
    name = name[:NAME_BYTES_MAX]
    symbols = [OTHER, *(symbol_of(byte) for byte in name), OTHER]
    pairs = itertools.pairwise(symbols)
    bits = sum(int(SURPRISES[one * SYMBOLS + other]) for one, other in pairs) // (len(name) + 1) if name else 0
    digits = sum(symbol == DIGIT for symbol in symbols)
    return min(bits, 2047) | len(name) << 11 | digits << 18 | 1 << 25 | asn << 26 | rank << 58


def signed(word: int) -> int:
    """A word as the arrays hold it."""
    return word - (1 << 64) if word >> 63 else word


class Sampler:
    """Makes samples under one seed."""

    def __init__(self, seeds: Sequence[int], service: str = "default") -> None:
        self.seeds, self.service = [int(word) for word in seeds], service
        self._keys: dict[bytes, tuple[int, int]] = {}

    def key(self, text: bytes) -> tuple[int, int]:
        """Of a text, as signed words."""
        if text not in self._keys:
            a, b = siphash_1_3_128((self.seeds[0], self.seeds[1]), text)
            self._keys[text] = signed(a), signed(b)
        return self._keys[text]

    def hash(self, *words: int) -> int:
        """Of three words."""
        a, b, c = (word & MASK for word in words)
        return hash_words(self.seeds, a, b, c)

    def of(self, events: Iterable[dict[str, Any]]) -> Plain:
        """The sample of events that are all counted; ``time_ms`` is a number, the rest as in `tests.oracles.grouping`."""
        plain = Plain()
        for event in events:
            if not grouping.flags_of(event)[0]:
                self._take(plain, event)
        return canonical(plain)

    def _take(self, plain: Plain, event: dict[str, Any]) -> None:
        texts = texts_of(event)
        route, agent, fingerprint, country, domain, who = (self.key(text)[0] if text else 0 for text in texts)
        high, low = address_of(event)
        host = (event.get("host") or self.service).encode()
        stratum = stratum_of(event)
        cell = plain.cells.setdefault((event["time_ms"] // 1000, *self.key(host), stratum), Cell())
        cell.total += 1
        if stratum == VERIFIED:
            cell.put(self.hash(0, 0, who), 1, (*[0] * 8, who, 0))
            plain.text[self.key(host)[0]] = host[:TEXT_BYTES_MAX]
            return
        if stratum == Stratum.ACCOUNTS:
            priority = self.hash(0, 0, who)
        else:
            priority = self.hash(route ^ event["time_ms"], high ^ low, who ^ mark_of(texts[1]))
        registers = event.get("event") == "registration"
        referrer = event.get("referrer", "").encode() if registers else b""
        said = self.key(referrer)[0] if referrer else 0
        rank = min(31, 64 - self.hash(0, 0, who).bit_length()) if who else 0
        notes = notes_of(event.get("user_name", "").encode(), event.get("asn", 0), rank) if registers else 0
        cell.put(priority, 1, (high, low, route, agent, fingerprint, country, domain, said, who, notes))
        plain.text |= {self.key(text)[0]: text[:TEXT_BYTES_MAX] for text in (*texts[:-1], referrer, host) if text}


def stratum_of(event: dict[str, Any]) -> int:
    """The first that fits."""
    denied, failed, cancelled, named = grouping.flags_of(event)
    if event.get("event") == "verification" and not (denied or failed or cancelled) and event["status"] < 400:
        return VERIFIED
    if event.get("event") == "registration" and not failed and event["status"] < 400:
        return Stratum.REGISTERED
    if failed or (400 <= event["status"] < 500 and not cancelled):
        return Stratum.FAILED
    if named:
        return Stratum.ACCOUNTS
    return Stratum.ASSETS if grouping.is_asset(event["path"]) else Stratum.PAGES


def texts_of(event: dict[str, Any]) -> tuple[bytes, ...]:
    """Of the attributes in their order. A failed authentication is no state for the mail domain that it names."""
    _, failed, _, _ = grouping.flags_of(event)
    who = event.get("account") or event.get("api_key_hash") or ""
    domain = "" if failed else event.get("email_domain", "")
    named = (event.get("user_agent", ""), event.get("fingerprint", ""), event.get("country", ""), domain, who)
    return (grouping.route_of(event["method"], event["path"]).encode(), *(text.encode() for text in named))


def address_of(event: dict[str, Any]) -> tuple[int, int]:
    """As signed words: IPv4 as ::ffff:a.b.c.d, of IPv6 the /64."""
    if "client_ip" not in event:
        return 0, 0
    address = ipaddress.ip_address(event["client_ip"])
    if address.version == 4:
        return 0, 0xFFFF << 32 | int(address)
    return signed(int(address) >> 64), 0


def canonical(plain: Plain) -> Plain:
    """At most `KEPT` entries in each cell, and only the texts that are named."""
    for cell in plain.cells.values():
        cell.shrink()
    named = {where[1] for where in plain.cells}
    for cell in plain.cells.values():
        named |= {word for _, says in cell.entries.values() for word in says[2:-2]}
    plain.text = {word: text for word, text in plain.text.items() if word in named}
    return plain


def merge(plains: Iterable[Plain]) -> Plain:
    """What all of them say together."""
    merged = Plain()
    for plain in plains:
        merged.text |= plain.text
        for where, cell in plain.cells.items():
            into = merged.cells.setdefault(where, Cell())
            into.level = max(into.level, cell.level)
            into.total += cell.total
            for priority, (weight, says) in cell.entries.items():
                into.put(priority, weight, says)
    return canonical(merged)


def as_arrays(plain: Plain) -> Sample:
    """As it is in a tally."""
    wheres = sorted(plain.cells)
    cells = [[*where, plain.cells[where].level, plain.cells[where].total] for where in wheres]
    entries = [
        [number, signed(priority), weight, *says]
        for number, where in enumerate(wheres)
        for priority, (weight, says) in sorted(plain.cells[where].entries.items())
    ]
    words = sorted(plain.text)
    texts = [plain.text[word] for word in words]
    return Sample(
        np.array(cells, np.int64).reshape(-1, CELL_WORDS), np.array(entries, np.int64).reshape(-1, ENTRY_WORDS),
        np.array(words, np.int64), np.cumsum([0, *map(len, texts)]).astype(np.int64),
        np.frombuffer(b"".join(texts), np.uint8).copy(),
    )  # fmt: skip


def as_plain(sample: Sample) -> Plain:
    """The other way round."""
    wheres: list[Where] = [(row[0], row[1], row[2], row[3]) for row in sample.cells.tolist()]
    plain = Plain({where: Cell(row[4], row[5]) for where, row in zip(wheres, sample.cells.tolist(), strict=True)})
    for cell, priority, weight, *says in sample.entries.tolist():
        plain.cells[wheres[cell]].entries[priority & MASK] = weight, tuple(says)
    ends = sample.text_start.tolist()
    spans = zip(sample.words.tolist(), ends[:-1], ends[1:], strict=True)
    plain.text = {word: sample.text[start:end].tobytes() for word, start, end in spans}
    return plain
