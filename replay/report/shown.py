"""What of a target may stand in a report: as `replay.redact` has it for lines of traffic, here for single values and reasons.

Reports are passed on. A value that does not look like what it should be is masked and given a short mark instead, which is the
same wherever the value comes again, so that its mitigations can be told from another's. The record itself, found by its id, has
the value.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

import orjson

from engine.naming import words_of
from replay.redact import MASK, is_host, is_secret, redact_agent, redact_route
from schemas.mitigation import Target

_DIGEST = re.compile(r"(?:[a-z0-9]{2,12}:)?[0-9a-f]{12,64}\Z")
"""Fingerprints of keys, ours and those of gateways."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,39}\Z")
_FINGERPRINT = re.compile(r"[A-Za-z0-9_]{8,64}\Z")
_COUNTRY = re.compile(r"[A-Za-z]{2}\Z")
_WHOM = {
    "ip": "address", "net": "network", "asn": "network operator AS", "country": "country", "api_key": "API key", "account":
    "account", "email_domain": "mail domain", "route": "route", "user_agent": "user agent", "fingerprint": "TLS fingerprint",
    "service": "service", "signature": "signature", "cohort": "registrations",
}  # fmt: skip


class Shown:
    """Masks values.

    Args:
        secret: keys the marks of masked values, so that nobody can try values out on them.
    """

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(secret.encode()).digest()
        self._known: dict[tuple[str, str], str] = {}

    def value(self, kind: str, value: str) -> str:
        """A value of a type of targets as it may be shown."""
        known = self._known.get((kind, value))
        if known is None:
            known = self._masked(kind, value)
            if len(self._known) < 100_000:
                self._known[kind, value] = known
        return known

    def target(self, target: Target) -> str:
        """A target in words: ``address 203.0.113.7``."""
        word = _WHOM.get(target.type, target.type)
        value = self.value(target.type, target.value)
        return f"{word}{value}" if target.type == "asn" else f"{word} {value}"

    def reason(self, reason: str, target: Target) -> str:
        """The sentence of a mitigation, with its target as it may be shown."""
        shown = self.value(target.type, target.value)
        said = target.value
        if target.type == "signature":
            try:
                said = words_of(target.value.encode())
            except (orjson.JSONDecodeError, AttributeError, TypeError):
                return f"{MASK} (a signature that cannot be read)"
        if shown == said:
            return reason
        if said and said in reason:
            return reason.replace(said, shown)
        return f"{MASK} (about {shown})"

    def _masked(self, kind: str, value: str) -> str:
        if kind == "signature":
            return self._signature(value)
        if kind == "route":
            shown = redact_route(value)
        elif kind == "user_agent":
            shown = redact_agent(value)
        else:
            shown = value if _is_fit(kind, value) else MASK
        shown = "".join(c if c.isprintable() else MASK for c in shown)
        if MASK not in shown:
            return shown
        mark = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), key=self._key, digest_size=3).hexdigest()
        return f"{shown} (#{mark})"

    def _signature(self, value: str) -> str:
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:
            return MASK
        if not isinstance(found, dict):
            return MASK
        return words_of(orjson.dumps({name: self.value(str(name), str(text)) for name, text in found.items()}))


def _is_fit(kind: str, value: str) -> bool:
    if kind in ("ip", "net"):
        try:
            ipaddress.ip_network(value)
        except ValueError:
            return False
        return True
    if kind == "asn":
        return value.isdecimal()
    if kind == "country":
        return bool(_COUNTRY.match(value))
    if kind == "fingerprint":
        return bool(_FINGERPRINT.match(value)) and not is_secret(value)
    if kind == "api_key":
        return bool(_DIGEST.match(value))
    if kind in ("email_domain", "service"):
        return is_host(value)
    return bool(_IDENTIFIER.match(value)) and not is_secret(value)
