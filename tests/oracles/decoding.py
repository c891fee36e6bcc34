"""What the decoders must read, by the standard library and in plain Python."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

LINE = re.compile(
    rb'(?P<address>\S+) \S+ (?P<user>\S+) \[(?P<time>[^\]]+)\] "(?P<method>[A-Z_-]{1,24}) (?P<path>[^"]*?)(?: HTTP/[0-9.]+)?"'
    rb' (?P<status>\d{3}|-) (?P<size>\d+|-) "(?P<referrer>[^"]*)" "(?P<agent>[^"]*)"'
)
NUMBER_MAX = 2**53
DURATION_MS_MAX = 10**10


class Event(NamedTuple):
    """One event; a number that is missing is -1, a text b"", an address None."""

    time_ms: int
    address: int | None
    status: int
    size: int
    method: bytes
    path: bytes
    referrer: bytes
    agent: bytes
    user: bytes


def address(text: str) -> int | None:
    """The address as 128 bits, IPv4 as ``::ffff:a.b.c.d``; None when the text is none."""
    text = text.strip(" \"'")
    if not text or len(text) > 96:
        return None
    bracketed = re.fullmatch(r"\[([^\]]*)\](:[0-9]{1,5})?", text)
    if bracketed is None:
        try:
            return 0xFFFF << 32 | int(ipaddress.IPv4Address(re.sub(r":[0-9]{1,5}$", "", text)))
        except ValueError:
            pass
    inner = bracketed[1] if bracketed else text
    inner, percent, zone = inner.partition("%")
    if percent and not zone:
        return None
    try:
        return int(ipaddress.IPv6Address(inner))
    except ValueError:
        return None


def milliseconds(moment: datetime) -> int:
    """Unix milliseconds, cut."""
    return int(Decimal(str(int(moment.timestamp() // 1))) * 1000) + moment.microsecond // 1000


def number(text: str, *, power: int = 0) -> int:
    """``text`` times 10**power, cut; -1 when it is over `NUMBER_MAX`."""
    value = int(Decimal(text).scaleb(power))
    return value if value <= NUMBER_MAX else -1


def combined(line: bytes) -> Event:
    """A line of the combined format without escapes."""
    match = LINE.fullmatch(line)
    assert match is not None, line
    found = {name: b"" if value == b"-" else value for name, value in match.groupdict().items()}
    return Event(
        milliseconds(datetime.strptime(found["time"].decode(), "%d/%b/%Y:%H:%M:%S %z")),
        address(found["address"].decode()),
        int(found["status"] or -1),
        int(found["size"] or -1),
        found["method"],
        found["path"],
        found["referrer"],
        found["agent"],
        found["user"],
    )


def json_event(line: bytes) -> Event:
    """An object of our own schema, whose time is RFC 3339."""
    record: dict[str, Any] = orjson.loads(line)
    texts = {
        name: b"" if record.get(name) in (None, "-") else str(record[name]).encode()
        for name in ("method", "path", "referrer", "user_agent", "user_name")
    }
    return Event(
        milliseconds(datetime.fromisoformat(record["time"])),
        address(record["client_ip"]),
        int(record.get("status", -1)),
        int(record.get("bytes", -1)),
        *texts.values(),
    )
