"""Pseudonyms for output that is passed on: whom it is about is replaced, so that only who has the key can say who that is.

One key gives one value always the same pseudonym, so that reports can be laid side by side; another key gives another.
A pseudonym begins with ``p-``: nobody takes it for somebody real, and no edge and no configuration takes it at all.

Names (keys, accounts, mail domains, operators, ids) become a keyed hash. Addresses become addresses, and what had the first n
bits in common still has: the two halves of a botnet's network stay neighbours. That is the construction of Crypto-PAn, with
BLAKE2b in place of AES. Each bit is turned or not by a keyed hash of the bits before it, so no two become one.

Where it fails: whoever knows by other means that one pseudonym is one address learns of the others how much of it they share,
and numbers and times can tell who somebody is. It is no anonymity, in law neither: who has the key can undo it by trying.

Ids are hashes without a secret of what they are about, which can be found by trying all addresses: so they are replaced too.

References: Xu, Fan, Ammar, Moon: Prefix-preserving IP address anonymization, ICNP 2002.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Any

import msgspec
import orjson

from schemas.errors import UsageError
from schemas.mitigation import OPERATOR, Evidence, Finding, Mitigation, Target

MARK = "p-"
KEY_BYTES_MIN = 32
KEY_BYTES_MAX = 4096
NAME_DIGITS = 16
"""64 bits: two of a million names are one with a chance of 3 in 100 million."""
CACHE_MAX = 65_536
PERSONAL = ("ip", "net", "api_key", "account", "email_domain")
"""Types of targets that are about somebody; the others say what many have in common, and stay."""
_PERSONAL_FEATURES = ("owner", "who", "report")
_ID_FEATURES = ("finding", "feedback")
_ADDRESS = re.compile(
    r"p-[0-9A-Fa-f.:/]+|(?<![\w.])(?<![A-Za-z]/)[0-9A-Fa-f]{0,4}[.:][0-9A-Fa-f.:]{2,45}(?:/[0-9]{1,3})?(?!\w)"
)
"""What is a pseudonym already, and what may be an address and is no version of a program (``Chrome/120.0.0.0``). Bounded, so
that it takes time in proportion to the text."""
_DOMAIN = re.compile(r"(?<=mail domain )[^\s,;\"]+")


class Pseudonyms:
    """Replaces whom output is about.

    Args:
        key: at least 32 bytes that nobody can guess.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha512(key).digest()
        self.address = functools.lru_cache(CACHE_MAX)(self._address)
        """As a text: of an address or prefix, canonical or not."""
        self.name = functools.lru_cache(CACHE_MAX)(self._name)
        """Of a value of some kind."""

    def target(self, target: Target) -> Target:
        """The same kind of target, about a pseudonym."""
        return msgspec.structs.replace(target, value=self.value(target.type, target.value))

    def value(self, kind: str, value: str) -> str:
        """Of a target's value, as its type wants it."""
        if kind in ("ip", "net"):
            return self.address(value)
        if kind == "signature":
            return self._signature(value)
        return self.name(kind, value) if kind in PERSONAL else value

    def identifier(self, value: str) -> str:
        """Of an id of a mitigation or finding; of none, none."""
        return self.name("id", value) if value else ""

    def text(self, text: str, *known: Target) -> str:
        """A sentence of ours about ``known`` targets, without them and without any other address or mail domain."""
        for target in known:
            for kind, value in _parts(target):
                whole = rf"(?<!\w){re.escape(value)}(?!\w)"
                text = re.sub(whole, self.value(kind, value).replace("\\", ""), text)
        text = _DOMAIN.sub(lambda found: self._once(found[0], "email_domain"), text)
        return _ADDRESS.sub(lambda found: self._in_text(found[0]), text)

    def mitigation(self, one: Mitigation) -> Mitigation:
        """The record about pseudonyms. It has no signature: these are other bytes."""
        by_operator = one.detector == OPERATOR or one.state == "lifted"
        return msgspec.structs.replace(
            one, id=self.identifier(one.id), finding=self.identifier(one.finding), target=self.target(one.target),
            reason=self.said(one.reason) if by_operator else self.text(one.reason, one.target),
            evidence=self._evidence(one.evidence), key_id="", sequence=0, signature="",
        )  # fmt: skip

    def finding(self, one: Finding) -> Finding:
        """The record about pseudonyms."""
        return msgspec.structs.replace(
            one, id=self.identifier(one.id), target=self.target(one.target), reason=self.text(one.reason, one.target),
            evidence=self._evidence(one.evidence),
        )  # fmt: skip

    def said(self, text: str) -> str:
        """What a person wrote: it may name anybody, so all of it goes."""
        return f"(what was said: {self.name('said', text)})" if text else ""

    def features(self, features: dict[str, Any]) -> dict[str, Any]:
        """Of evidence: numbers stay, names of people and ids go."""
        found: dict[str, Any] = {}
        for name, value in features.items():
            if not isinstance(value, str):
                found[name] = value
            elif name in _PERSONAL_FEATURES:
                found[name] = self.name("person", value)
            else:
                found[name] = self.identifier(value) if name in _ID_FEATURES else self.text(value)
        return found

    def _evidence(self, evidence: Evidence) -> Evidence:
        return msgspec.structs.replace(
            evidence, samples=tuple(self.text(one) for one in evidence.samples), features=self.features(evidence.features)
        )

    def _signature(self, value: str) -> str:
        try:
            document = orjson.loads(value)
        except orjson.JSONDecodeError:
            return self.name("signature", value)
        if not isinstance(document, dict):
            return self.name("signature", value)
        return orjson.dumps({kind: self.value(kind, str(one)) for kind, one in document.items()}).decode()

    def _once(self, text: str, kind: str) -> str:
        return text if text.startswith(MARK) else self.value(kind, text)

    def _in_text(self, text: str) -> str:
        if text.startswith(MARK):
            return text
        # A sentence may end behind it, a colon stand before it, or a port follow.
        for bare in (text, text.rstrip(".:"), text.strip(".:"), text.strip(".:").rpartition(":")[0]):
            if _is_address(bare):
                return text.replace(bare, self.address(bare))
        return text

    def _name(self, kind: str, value: str) -> str:
        return MARK + self._digest(kind.encode() + b"\0" + value.encode("utf-8", "backslashreplace")).hex()[:NAME_DIGITS]

    def _address(self, text: str) -> str:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            return self._name("ip", text)
        width, number = network.max_prefixlen, int(network.network_address)
        turned = 0
        for bit in range(network.prefixlen):
            before = number >> (width - bit)
            told = b"bit\0%d\0%d\0%x" % (network.version, bit, before)
            turned = turned << 1 | (number >> (width - bit - 1) & 1) ^ (self._digest(told)[0] & 1)
        made = turned << (width - network.prefixlen)
        address = ipaddress.IPv4Address(made) if network.version == 4 else ipaddress.IPv6Address(made)
        return f"{MARK}{address}" + (f"/{network.prefixlen}" if "/" in text else "")

    def _digest(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._key, digest_size=16).digest()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "." in text or ":" in text


def _parts(target: Target) -> list[tuple[str, str]]:
    """(kind, value) of everything personal in a target, the longest first, so that none is cut by a shorter one."""
    if target.type in PERSONAL:
        return [(target.type, target.value)]
    if target.type != "signature":
        return []
    try:
        document = orjson.loads(target.value)
    except orjson.JSONDecodeError:
        return []
    pairs = [(kind, str(value)) for kind, value in document.items() if kind in PERSONAL] if isinstance(document, dict) else []
    return sorted(pairs, key=lambda pair: -len(pair[1]))


def read_pseudonyms(path: Path) -> Pseudonyms:
    """With the key in a file.

    Raises:
        UsageError: it is not there, or is no secret.
    """
    how = f"make one with: (umask 077; head -c 32 /dev/urandom > {path})"
    try:
        with path.open("rb") as file:
            key = file.read(KEY_BYTES_MAX + 1)
    except FileNotFoundError:
        raise UsageError(f"expected a file with a secret at {path}, got none; {how}") from None
    except OSError as error:
        raise UsageError(f"expected a readable file with a secret at {path}, got: {error.strerror or error}") from None
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise UsageError(f"expected {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes of a secret in {path}, got {len(key)}; {how}")
    return Pseudonyms(key)
