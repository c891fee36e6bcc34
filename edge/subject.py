"""Whom an action is about, in one spelling: two records about the same addresses meet under one `Subject`."""

from __future__ import annotations

import socket

import msgspec

from schemas.mitigation import Target

VALUE_LENGTH_MAX = 4096
"""Characters of a target's value; routes are the longest and are cut far below this."""
_MAPPED = 0xFFFF << 32
_MAPPED_BITS = 96
_IPV4_TEXT_MAX = len("255.255.255.255")


class Subject(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """An address, a prefix, or a name of another kind."""

    kind: str
    """``ip4``, ``ip6``, or the target's type where it is no address (``api_key``, ``account``, …)."""
    value: str
    """The canonical text; of a prefix, without its length."""
    length: int = 0
    """Of the prefix: 32 or 128 for a single address, 0 for what is no address."""
    low: int = 0
    """First address, IPv4 mapped into IPv6 (``::ffff:0:0/96``)."""
    high: int = -1
    """Last address."""

    @property
    def text(self) -> str:
        """As people write it."""
        if self.kind == "ip4":
            return self.value if self.length == 32 else f"{self.value}/{self.length}"
        if self.kind == "ip6":
            return self.value if self.length == 128 else f"{self.value}/{self.length}"
        return self.value


def parse_subject(target: Target) -> Subject:
    """The subject of a target.

    Raises:
        ValueError: the value is too long, or is no address or prefix although its type says so.
    """
    if len(target.value) > VALUE_LENGTH_MAX:
        raise ValueError(f"expected at most {VALUE_LENGTH_MAX} characters, got {len(target.value)}")
    if target.type not in ("ip", "net"):
        return Subject(target.type, target.value)
    return parse_prefix(target.value)


def parse_prefix(text: str) -> Subject:
    """An address or prefix in any spelling; IPv4 mapped into IPv6 becomes IPv4.

    Raises:
        ValueError: it is none, or has bits behind the prefix.
    """
    address, slash, digits = text.partition("/")
    if "." in address and len(address) <= _IPV4_TEXT_MAX and ":" not in address:
        bits, low = 32, _MAPPED + int.from_bytes(_packed(socket.AF_INET, address), "big")
        if not slash:  # the most frequent by far; inet_pton takes one spelling of IPv4 only
            return Subject("ip4", address, 32, low, low)
    else:
        bits, low = 128, int.from_bytes(_packed(socket.AF_INET6, address), "big")
    length = bits
    if slash:
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and int(digits) <= bits):
            raise ValueError(f"expected a prefix length of 0 to {bits}, got {digits[:20]!r}")
        length = int(digits)
    return prefix_subject(low, length + _MAPPED_BITS if bits == 32 else length)


def covering(text: str, lengths: dict[str, tuple[int, ...]]) -> tuple[Subject, ...]:
    """Every subject of ``lengths`` (per kind) that has the address in it, the narrowest first.

    Raises:
        ValueError: ``text`` is no address.
    """
    address = parse_prefix(text)
    bits = 32 if address.kind == "ip4" else 128
    if address.length != bits:
        raise ValueError(f"expected an address, got the prefix {text[:64]!r}")
    found = []
    for length in lengths[address.kind]:
        host = bits - length
        found.append(prefix_subject(address.low >> host << host, 128 - host))
    return tuple(found)


def prefix_subject(low: int, length: int) -> Subject:
    """Of a prefix in the space of IPv6.

    Raises:
        ValueError: there are bits behind the prefix.
    """
    host = (1 << 128 - length) - 1
    if low & host:
        raise ValueError("expected no bits set behind the prefix")
    if length >= _MAPPED_BITS and low >> 32 == 0xFFFF:
        text = socket.inet_ntop(socket.AF_INET, (low & 0xFFFFFFFF).to_bytes(4, "big"))
        return Subject("ip4", text, length - _MAPPED_BITS, low, low + host)
    return Subject("ip6", socket.inet_ntop(socket.AF_INET6, low.to_bytes(16, "big")), length, low, low + host)


def _packed(family: int, text: str) -> bytes:
    try:
        return socket.inet_pton(family, text)
    except (OSError, UnicodeError, ValueError):
        raise ValueError(f"expected an address, got {text[:64]!r}") from None
