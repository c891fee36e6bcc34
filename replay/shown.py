"""Targets as they are shown to people and machines that compare runs: who it is, and nothing that somebody could use."""

from __future__ import annotations

import hashlib

import orjson

from replay.redact import MASK, redact_agent, redact_route

_PLAIN = ("ip", "net", "asn", "country", "email_domain", "fingerprint", "service")


def shown_value(kind: str, value: str) -> str:
    """A target's value. Keys are fingerprints already; an account may be called by an address of mail, which is not shown.

    >>> shown_value("ip", "192.0.2.7"), shown_value("account", "acct_12")
    ('192.0.2.7', 'acct_12')
    >>> shown_value("account", "eve@example.com")
    '… (8400f5e6)'
    """
    if kind == "route":
        return redact_route(value)
    if kind == "user_agent":
        return redact_agent(value)
    if kind == "signature":
        try:
            parts = orjson.loads(value)
        except orjson.JSONDecodeError:
            return MASK
        if not isinstance(parts, dict):
            return MASK
        return " and ".join(f"{name} {shown_value(str(name), str(part))}" for name, part in parts.items())
    if kind not in _PLAIN and "@" in value:
        # The same account has the same name in every comparison, so that it is found again.
        return f"{MASK} ({hashlib.blake2b(value.encode('utf-8', 'backslashreplace'), digest_size=4).hexdigest()})"
    return value


def shown_reason(reason: str) -> str:
    """Why, unless it quotes somebody."""
    return MASK if "@" in reason else reason
