"""Which single IPv6 addresses of a mitigated prefix were seen, for bouncers that know single addresses only.

A mitigation of an IPv6 prefix may name addresses among its evidence's samples. The reader does not keep samples; here at most
256 of a prefix are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from edge.reader import Reader, Record
from edge.subject import Subject, parse_prefix, parse_subject
from edge.topic import TakesRecords

ADDRESSES_MAX = 256
"""Of one prefix."""
PREFIXES_MAX = 10_000
"""Prefixes remembered, the latest; if all had so many addresses, 10,000 × 256 × 100 bytes would be 256 MB."""
_ADDRESS_LENGTH = 128
_TEXT_MAX = 64


class _Evidence(msgspec.Struct, frozen=True, gc=False):
    samples: tuple[str, ...] = ()


class _Sampled(msgspec.Struct, frozen=True, gc=False):
    evidence: _Evidence = _Evidence()


class Topic(Protocol):
    """A source of records that lets others look at them."""

    def open(self, reader: Reader) -> None:
        """Begin at the beginning."""
        ...

    def feed(self, reader: Reader, wait_s: float, taken: TakesRecords | None = None) -> int:
        """Hand over what has arrived; how many records."""
        ...


class Sightings:
    """The addresses that were seen in prefixes of IPv6."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Sampled)
        self._seen: dict[Subject, tuple[Subject, ...]] = {}

    def within(self, prefix: Subject) -> tuple[Subject, ...]:
        """Addresses seen in a prefix, none twice."""
        return self._seen.get(prefix, ())

    def taken(self, record: Record | None, value: bytes | None) -> None:
        """Look at a record that the reader has taken."""
        if record is None or value is None or ":" not in record.target.value or record.target.type not in ("ip", "net"):
            return
        prefix = parse_subject(record.target)
        if prefix.length == _ADDRESS_LENGTH:
            return
        try:
            samples = self._decoder.decode(value).evidence.samples
        except msgspec.MsgspecError:  # evidence of another shape: as good as none
            return
        found = dict.fromkeys(self._seen.pop(prefix, ()))
        for text in samples:
            address = _address(text)
            if address is not None and prefix.low <= address.low <= prefix.high and len(found) < ADDRESSES_MAX:
                found[address] = None
        if found:
            self._seen[prefix] = tuple(found)
        if len(self._seen) > PREFIXES_MAX:
            del self._seen[next(iter(self._seen))]


class WatchedTopic:
    """A topic whose records are looked at as the reader takes them; ``before`` is called before it takes any."""

    def __init__(self, topic: Topic, taken: TakesRecords, before: Callable[[], None]) -> None:
        self._topic = topic
        self._taken = taken
        self._before = before

    def open(self, reader: Reader) -> None:
        """Begin at the beginning."""
        self._topic.open(reader)

    def feed(self, reader: Reader, wait_s: float) -> int:
        """Hand over what has arrived; how many records."""
        self._before()
        return self._topic.feed(reader, wait_s, self._taken)


def _address(text: str) -> Subject | None:
    """A sample that is an address and nothing else."""
    if len(text) > _TEXT_MAX:
        return None
    try:
        found = parse_prefix(text)
    except ValueError:
        return None
    return found if found.kind == "ip6" and found.length == _ADDRESS_LENGTH else None
