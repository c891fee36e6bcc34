"""Names for the forms that records come in, for people: `floodwall doctor` prints them, docs/formats.md lists them.

Decoding does not ask which form a record has, and nothing here decides what it means: these are the words for what was read.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import orjson

ENVELOPES_SHOWN = 3
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_BY_QUOTES = {2: "common", 4: "common", 6: "combined"}
"""Quotation marks of a line with a time; more: `main`."""
_PRODUCTS: tuple[tuple[str, frozenset[str]], ...] = (
    ("Cloudflare Logpush", frozenset({"EdgeResponseStatus"})),
    ("Cloudflare Logpush", frozenset({"ClientRequestURI"})),
    ("Envoy", frozenset({"response_flags"})),
    ("Kong", frozenset({"request", "started_at"})),
    ("APISIX", frozenset({"request", "start_time"})),
    ("LiteLLM", frozenset({"call_type"})),
    ("LiteLLM", frozenset({"response_cost"})),
    ("ECS", frozenset({"source", "url"})),
    ("ECS", frozenset({"source", "http"})),
    ("ECS", frozenset({"source.ip"})),
    ("ECS", frozenset({"url.original"})),
)
"""Keys that tell a product's records from other JSON; the first that has all of them names it."""


def form_of(record: bytes) -> str:
    """The form of a record that was read: as docs/formats.md calls it."""
    line = record.strip()
    if line[:1] not in (b"{", b"["):
        return _form_of_line(line)
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:  # laxer in bytes than orjson is: what was read is JSON all the same
        return "JSON"
    if not isinstance(value, list):
        return _form_of_object(value)
    forms = sorted({_form_of_object(item) for item in value if isinstance(item, dict)})
    if forms == ["APISIX"]:
        return "APISIX"
    return f"array of {' and '.join(forms)}"


def _form_of_object(value: dict[str, Any], depth: int = 0) -> str:
    for name, keys in _PRODUCTS:
        if keys <= value.keys():
            return name
    for key in ("message", "log", "MESSAGE"):
        inner = value.get(key)
        if isinstance(inner, str) and depth < ENVELOPES_SHOWN:
            forms = {form_of(line.encode()) for line in inner.splitlines() if line.strip()}
            return f"envelope around {' and '.join(sorted(forms))}"
    return "JSON"


def _form_of_line(line: bytes) -> str:
    quote = line.find(b'"')
    before = line[:quote]
    if before.endswith(b" - "):
        return "uvicorn"
    words = before[: before.rfind(b"[")].split()
    form = _BY_QUOTES.get(_quotes(line), "main")
    if len(words) <= 3:
        return form
    if len(words) == 4 and _is_address(words[1]):
        return f"{form} after a virtual host"
    return f"{form} after a prefix"


def _quotes(line: bytes) -> int:
    """Quotation marks that no backslash stands before."""
    count = 0
    escaped = False
    for byte in line:
        count += byte == _QUOTE and not escaped
        escaped = byte == _BACKSLASH and not escaped
    return count


def _is_address(word: bytes) -> bool:
    try:
        ipaddress.ip_address(word.decode("latin-1"))
    except ValueError:
        return False
    return True
