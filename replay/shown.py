"""What of a target may be shown to people: as `replay.redact` has it for lines of traffic, here for single values and reasons.

Screens are pasted into tickets, and reports are passed on. A value that does not look like what it should be is masked and
given a short mark instead, which is the same wherever the value comes again, so that its mitigations can be told from those of
another. The record itself, found by its id (`floodwall mitigations show`, the file of ``--out``), has it: edges act on it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re

import orjson

from engine.naming import words_of
from engine.seeds import make_seeds
from replay.redact import MASK, is_host, is_secret, redact_agent, redact_route
from schemas.config import Config
from schemas.mitigation import Target
from schemas.pseudonyms import MARK, PERSONAL

_DIGEST = re.compile(r"(?:[a-z0-9]{2,12}:)?[0-9a-f]{12,64}\Z|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
"""Fingerprints of keys, ours and those of gateways, and keys' ids that are UUIDs."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,39}\Z")
_FINGERPRINT = re.compile(r"[A-Za-z0-9_]{8,64}\Z")
_COUNTRY = re.compile(r"[A-Za-z]{2}\Z")
_MAIL = re.compile(r"[^\s@,;:()\"']{0,64}@[^\s@,;()\"']{1,253}")
"""Bounded, so that it takes time in proportion to the text."""
_WHOM = {
    "ip": "address", "net": "network", "asn": "network operator AS", "country": "country", "api_key": "API key", "account":
    "account", "email_domain": "mail domain", "route": "route", "user_agent": "user agent", "fingerprint": "TLS fingerprint",
    "service": "service", "signature": "signature", "cohort": "registrations",
}  # fmt: skip


class Shown:
    """Masks values.

    Args:
        secret: keys the marks of masked values, so that nobody can try values out on them.
        pseudonyms: whoever is somebody is a pseudonym already.

    >>> shown = Shown("for tests only")
    >>> shown.value("ip", "192.0.2.7"), shown.value("account", "acct_12")
    ('192.0.2.7', 'acct_12')
    >>> shown.value("account", "eve@example.com")
    '… (#ed4942)'
    """

    def __init__(self, secret: str, *, pseudonyms: bool = False) -> None:
        self._key = hashlib.sha256(secret.encode()).digest()
        self._pseudonyms = pseudonyms
        self._known: dict[tuple[str, str], str] = {}

    def value(self, kind: str, value: str) -> str:
        """A value of a type of targets as it may be shown."""
        known = self._known.get((kind, value))
        if known is None:
            known = self._masked(kind, value)
            if len(self._known) < 100_000:
                self._known[kind, value] = known
        return known

    def name(self, value: str) -> str:
        """Of a key, an account or a service: what a model has learned says only that it is a name."""
        fits = any(_is_fit(kind, value) for kind in ("api_key", "account", "service"))
        return value if fits else self.value("account", value)

    def target(self, target: Target) -> str:
        """A target in words: ``address 203.0.113.7``."""
        word = _WHOM.get(target.type, target.type)
        value = self.value(target.type, target.value)
        return f"{word}{value}" if target.type == "asn" else f"{word} {value}"

    def masked(self, target: Target) -> Target:
        """The target with a value that may be shown."""
        if target.type != "signature":
            return Target(type=target.type, value=self.value(target.type, target.value))
        found = _parts(target.value)
        parts = None if found is None else {name: self.value(str(name), str(text)) for name, text in found.items()}
        return Target(type=target.type, value=MASK if parts is None else orjson.dumps(parts).decode())

    def hides(self, target: Target) -> list[tuple[str, str]]:
        """(as it is, as it may be shown) of all of a target that may not be shown as it is."""
        pairs = [(target.type, target.value)]
        if target.type == "signature":
            pairs = [(str(name), str(text)) for name, text in (_parts(target.value) or {}).items()]
        return [(text, shown) for kind, text in pairs if text and (shown := self.value(kind, text)) != text]

    def reason(self, reason: str, target: Target) -> str:
        """The sentence of a mitigation, with its target as it may be shown."""
        said = self._about(reason, target)
        # What an operator wrote, and what a sentence quotes beside its target, may name somebody.
        return _MAIL.sub(MASK, said)

    def _about(self, reason: str, target: Target) -> str:
        shown = self.value(target.type, target.value)
        said = target.value
        if target.type == "signature":
            try:
                said = words_of(target.value.encode())
            except (orjson.JSONDecodeError, AttributeError, TypeError):
                return f"{MASK} (a signature that cannot be read)"
        if shown == said:
            return reason
        # Where it stands for itself: a key that is called `k` is no part of words.
        told, times = re.subn(rf"(?<!\w){re.escape(said)}(?!\w)", lambda _: shown, reason) if said else (reason, 0)
        return told if times else f"{MASK} (about {shown})"

    def _masked(self, kind: str, value: str) -> str:
        if self._pseudonyms and kind in PERSONAL and value.startswith(MARK):
            return value
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
        found = _parts(value)
        if found is None:
            return MASK
        return words_of(orjson.dumps({name: self.value(str(name), str(text)) for name, text in found.items()}))


def shown_by(config: Config, *, pseudonyms: bool = False) -> Shown:
    """With marks that are the same wherever the seed is."""
    return Shown(make_seeds(config).secret, pseudonyms=pseudonyms)


def _parts(value: str) -> dict[str, object] | None:
    """Of a signature; none: it cannot be read."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


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
