"""CrowdSec's decisions: what a mitigation is called there, and how it is spelt so that no bouncer misreads it.

The rules were observed on running bouncers:

* whole seconds in ``h m s``, never less than one: nginx-lua reads ``59.5s`` as for ever, nft bouncers ``0s``, and ``1d`` is
  four hours to them;
* always all of the fields: newer bouncers crash without an origin, a scenario or an id;
* one constant origin: newer bouncers make a set and a rule for each;
* one invalid value and a whole batch is lost: every value is canonical, or there is no decision.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from edge.reader import ALLOW, Record
from edge.subject import Subject, prefix_subject

ORIGIN = "floodwall"
TYPE_OF = {"block": "ban", "challenge": "captcha", "throttle": "throttle"}
"""Actions that a bouncer can be told of."""
SECONDS_MAX = 7 * 86_400
"""The longest time to live that a configuration allows; what is longer lasts to its next renewal."""
LENGTHS = {"ip4": (32, 24), "ip6": (128, 64, 48)}
"""Prefix lengths that detectors and operators act on."""
_COUNTRY = re.compile(r"[A-Z]{2}")
_ASN = re.compile(r"[1-9][0-9]{0,9}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ID_BITS = 53
"""Ids stay exact in readers that take every number for a double."""


class Place(NamedTuple):
    """Whom a decision is about, as it is spelt; a bouncer holds at most one decision for it."""

    scope: str
    value: str


def scope_of(subject: Subject) -> str | None:
    """The scope of a subject; None: no bouncer knows such targets."""
    if subject.kind in LENGTHS:
        if subject.length not in LENGTHS[subject.kind]:
            return None
        return "Ip" if subject.length in (32, 128) else "Range"
    if subject.kind == "country":
        return "Country" if _COUNTRY.fullmatch(subject.value) else None
    if subject.kind == "asn":
        return "AS" if _ASN.fullmatch(subject.value) else None
    return None


def supports(subject: Subject, action: str) -> bool:
    """Whether there are decisions that say this."""
    return (action in TYPE_OF or action == ALLOW) and scope_of(subject) is not None


def place_of(subject: Subject) -> Place:
    """Where the whole of a subject is told of."""
    return Place(scope_of(subject) or "", subject.text)


def pieces(subject: Subject, holes: Sequence[Subject]) -> tuple[Place, ...]:
    """A prefix without the prefixes and addresses that an operator allows in it."""
    if not holes:
        return (place_of(subject),)
    found: list[Place] = []
    waiting = [(subject.low, (subject.high - subject.low).bit_length())]
    while waiting:
        low, host_bits = waiting.pop()
        high = low + (1 << host_bits) - 1
        inside = [hole for hole in holes if hole.low <= high and low <= hole.high]
        if not inside:
            part = prefix_subject(low, 128 - host_bits)
            found.append(Place("Range", f"{part.value}/{part.length}"))
        elif all(low <= hole.low and hole.high <= high and (hole.low, hole.high) != (low, high) for hole in inside):
            half = host_bits - 1
            waiting += [(low + (1 << half), half), (low, half)]
    return tuple(found)


def duration_text(left_ms: int) -> str | None:
    """How long a decision still holds, rounded down; None: less than a second, so that it must not be told of."""
    whole = min(left_ms // 1000, SECONDS_MAX)
    if whole < 1:
        return None
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def decision(place: Place, kind: str, duration: str, record: Record | None) -> dict[str, object]:
    """One decision with all of its fields; of what has gone nobody need know the record."""
    digest = hashlib.blake2b(
        f"{record.id if record else ''}|{place.scope}|{place.value}|{kind}".encode(), digest_size=16
    ).digest()
    detector = record.detector if record and _WORD.fullmatch(record.detector) else "other"
    return {
        "duration": duration,
        "id": (int.from_bytes(digest[:8], "big") >> 64 - _ID_BITS) or 1,
        "origin": ORIGIN,
        "scenario": f"floodwall/{detector}",
        "scope": place.scope,
        "type": kind,
        "uuid": str(uuid.UUID(bytes=digest)),
        "value": place.value,
    }
