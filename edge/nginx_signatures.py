"""Signatures in nginx: a conjunction of attributes is one regular expression over all that nginx knows of a request.

The attributes stand one below the other, and none can hold a line break. An attribute that a signature does not name is any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from edge.subject import Subject, parse_prefix

ROUTE_BYTES_MAX = 159
"""A route of 160 bytes may have been cut."""
_WIDE, _NARROW = {"ip4": 16, "ip6": 32}, {"ip4": 24, "ip6": 48}
_ID = r"(?:[0-9]+|(?=[^/\n]*[0-9])[0-9A-Fa-f-]{8,}|(?=[^/\n]*[0-9])[^/?#\n]{24,})"
"""What is folded into ``{id}`` (`detectors.kernels.routes`)."""
_FOLDED = "{id}"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One that nginx can express; an attribute that is not here makes it another."""

    service: str
    route: str | None = None
    user_agent: str | None = None
    net: str | None = None
    fingerprint: str | None = None
    country: str | None = None


def signature_of(subject: Subject, texts: Iterable[str], own_service: str, only_service: str | None) -> Signature | None:
    """The signature that a subject stands for; None: nginx cannot tell its requests from others.

    Args:
        texts: kinds that nginx has a variable for.
        own_service: what events without a host are counted for: no host has that name.
        only_service: the only one behind this nginx; None: the host tells.
    """
    try:
        found = msgspec.json.decode(subject.value, type=Signature)
        length = None if found.net is None else parse_prefix(found.net)
    except (msgspec.MsgspecError, ValueError):
        return None
    if length is not None and length.length not in (_WIDE[length.kind], _NARROW[length.kind]):
        return None
    if found.service != only_service if only_service is not None else found.service == own_service:
        return None
    if any(getattr(found, kind) is not None and kind not in texts for kind in ("fingerprint", "country")):
        return None
    values = [found.service, found.route, found.user_agent, found.fingerprint, found.country]
    if not all(value is None or (value.isascii() and value.isprintable() and "\\" not in value) for value in values):
        return None
    if found.route is not None and (len(found.route) > ROUTE_BYTES_MAX or " /" not in found.route):
        return None
    return found if any(value is not None for value in (*values[1:], found.net)) else None


def subject_text(texts: Mapping[str, str]) -> str:
    """What the expressions are held against, with nginx's variables in it."""
    parts = ["$host", "$request_method $request_uri", texts["user_agent"], "$floodwall_net_wide", "$floodwall_net_narrow"]
    return "\\n".join([*parts, texts.get("fingerprint", ""), texts.get("country", "")])


def pattern_of(signature: Signature, only_service: str | None) -> str:
    """The expression of a signature."""
    wide = narrow = None
    if signature.net is not None:
        prefix = parse_prefix(signature.net)
        wide = prefix.text if prefix.length == _WIDE[prefix.kind] else None
        narrow = prefix.text if wide is None else None
    parts = [
        _literal(None if only_service is not None else signature.service.lower()), _route(signature.route),
        *map(_literal, (signature.user_agent, wide, narrow, signature.fingerprint, signature.country)),
    ]  # fmt: skip
    return "^" + r"\n".join(parts) + "$"


def nets_of(signatures: Iterable[Signature]) -> tuple[list[str], list[str]]:
    """The wide and the narrow prefixes that they name, as entries of two tables."""
    wide: set[str] = set()
    narrow: set[str] = set()
    for signature in signatures:
        if signature.net is not None:
            prefix = parse_prefix(signature.net)
            (wide if prefix.length == _WIDE[prefix.kind] else narrow).add(prefix.text)
    return [f'    {text} "{text}";' for text in sorted(wide)], [f'    {text} "{text}";' for text in sorted(narrow)]


def escaped(text: str) -> str:
    """A text as an expression that matches it and nothing else, also inside nginx's quotes."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{ord(c):02x}" for c in text)


def _literal(value: str | None) -> str:
    return r"[^\n]*" if value is None else escaped(value)


def _route(route: str | None) -> str:
    if route is None:
        return r"[^\n]*"
    segments = [_ID if segment == _FOLDED else escaped(segment) for segment in route.split("/")]
    return r"\x2f".join(segments) + r"(?:[?#][^\n]*)?"
