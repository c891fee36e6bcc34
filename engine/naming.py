"""A signature as a target: a conjunction of attributes and values, as JSON with sorted keys, and as a sentence.

Values are whole texts, or a prefix of addresses. The service is always one of them: what is rare there may be usual elsewhere.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson

from detectors.surplus import (
    COUNTRY,
    EMAIL_DOMAIN,
    FINGERPRINT,
    NET,
    NET_WIDE,
    ROUTE,
    USER_AGENT,
    span_of,
)
from schemas.columns import I64
from schemas.sample import TEXT_BYTES_MAX, Sample

NAMES = {
    ROUTE: "route", USER_AGENT: "user_agent", FINGERPRINT: "fingerprint", COUNTRY: "country", EMAIL_DOMAIN: "email_domain",
    NET: "net", NET_WIDE: "net",
}  # fmt: skip
SERVICE = "service"
_WORDS = {
    "route": "for", "user_agent": "from user agent", "fingerprint": "with TLS fingerprint", "country": "from country",
    "net": "from", "email_domain": "with mail domain", SERVICE: "on service",
}  # fmt: skip


class Texts:
    """The texts of words, of the samples that were seen lately. What has no whole text cannot be named."""

    def __init__(self) -> None:
        self._samples: list[tuple[int, I64, I64, npt.NDArray[np.uint8]]] = []

    def add(self, newest: int, sample: Sample) -> None:
        """Those of a sample whose newest second is this one."""
        self._samples.append((newest, sample.words, sample.text_start, sample.text))

    def forget(self, before: int) -> None:
        """Of samples that ended earlier."""
        if self._samples and self._samples[0][0] < before:
            self._samples = [one for one in self._samples if one[0] >= before]

    def find(self, word: int) -> bytes | None:
        """Its text."""
        for _, words, text_start, text in reversed(self._samples):
            at = int(np.searchsorted(words, word))
            if at < len(words) and words[at] == word:
                return text[text_start[at] : text_start[at + 1]].tobytes()
        return None

    def __contains__(self, word: object) -> bool:
        text = self.find(word) if isinstance(word, int) else None
        return text is not None and 0 < len(text) < TEXT_BYTES_MAX and _is_utf8(text)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def prefix_text(network: int, *, wide: bool) -> str:
    """A network as a prefix: /24 or /48, ``wide``: /16 or /32.

    >>> prefix_text(0xFFFF_C633_0000, wide=True), prefix_text(0x2001_0DB8_0007_0000, wide=False)
    ('198.51.0.0/16', '2001:db8:7::/48')
    """
    low, _ = span_of(network)
    if low >> 32 == 0xFFFF:
        return f"{ipaddress.IPv4Address(low & 0xFFFFFFFF)}/{16 if wide else 24}"
    return f"{ipaddress.IPv6Address(low)}/{32 if wide else 48}"


def value_of(values: Sequence[tuple[int, int]], service: bytes, texts: Texts) -> bytes | None:
    """The target's value; None: a value has no whole text."""
    found = {SERVICE: service.decode("utf-8", "backslashreplace")}
    for attribute, word in values:
        if attribute in (NET, NET_WIDE):
            found["net"] = prefix_text(word, wide=attribute == NET_WIDE)
            continue
        text = texts.find(word)
        if text is None:
            return None
        found[NAMES[attribute]] = text.decode("utf-8", "backslashreplace")
    return orjson.dumps(found, option=orjson.OPT_SORT_KEYS)


def key_of(value: bytes) -> tuple[int, int]:
    """The two words that stand for a signature: the same under every seed."""
    digest = hashlib.blake2b(value, digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def words_of(value: bytes) -> str:
    """A signature in words.

    >>> words_of(b'{"route":"GET /","service":"www","user_agent":"curl/8"}')
    'for GET / from user agent curl/8 on service www'
    """
    found = orjson.loads(value)
    return " ".join(f"{word} {found[name]}" for name, word in _WORDS.items() if name in found)
