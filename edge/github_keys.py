"""The public keys that GitHub signs its posts with, and the check of a signature.

Source: GitHub's documentation of its secret scanning partner programme: ECDSA over P-256 of the SHA-256 of the body as it came,
the signature in base64 of its DER form.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPMessage
from pathlib import Path
from types import MappingProxyType
from typing import IO

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from edge.topic import Tell
from engine.clock import Clock
from schemas.errors import ConfigError

DOCUMENT_BYTES_MAX = 1 << 20
KEYS_MAX = 1000
FETCH_S_MAX = 10.0
STALE_S = 86_400
"""After so long the keys are read again anyway, so that one that GitHub has withdrawn is not trusted for ever."""
SIGNATURE_CHARACTERS_MAX = 200
"""A signature over P-256 has at most 72 bytes, which are 96 characters."""
_IDENTIFIER = re.compile(r"[0-9A-Za-z_-]{1,128}")


class _Key(msgspec.Struct):
    key_identifier: str
    key: str


class _Document(msgspec.Struct):
    public_keys: list[_Key]


def is_identifier(text: str) -> bool:
    """Whether it can name a key at all."""
    return _IDENTIFIER.fullmatch(text) is not None


def is_signed(key: ec.EllipticCurvePublicKey, signature: str, body: bytes) -> bool:
    """Whether this body was signed with the key."""
    if len(signature) > SIGNATURE_CHARACTERS_MAX:
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), body, ec.ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def parse_keys(document: bytes) -> dict[str, ec.EllipticCurvePublicKey]:
    """Keys over P-256 by their identifiers; others are left out, and so is what is no key.

    Raises:
        ValueError: it is no document of keys, or has none of ours.
    """
    try:
        entries = msgspec.json.decode(document, type=_Document).public_keys
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"no document of public keys ({error})"[:200]) from None
    found = {}
    for entry in entries[:KEYS_MAX]:
        try:
            key = load_pem_public_key(entry.key.encode())
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            found[entry.key_identifier] = key
    if not found:
        raise ValueError(f"{len(entries)} public keys, none of them over P-256")
    return found


class _StaysHttps(urllib.request.HTTPRedirectHandler):
    """Whoever could answer in the clear could give us keys of his own."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """Another address only if it is https; else the redirection is an error."""
        return super().redirect_request(req, fp, code, msg, headers, newurl) if newurl.startswith("https://") else None


def fetch(where: str) -> bytes:
    """The document of a file or an https address.

    Raises:
        OSError: it cannot be had.
    """
    if "://" not in where:
        with Path(where).open("rb") as file:
            return file.read(DOCUMENT_BYTES_MAX + 1)
    request = urllib.request.Request(where, headers={"Accept": "application/json", "User-Agent": "floodwall"})
    with urllib.request.build_opener(_StaysHttps).open(request, timeout=FETCH_S_MAX) as answer:
        found: bytes = answer.read(DOCUMENT_BYTES_MAX + 1)
        return found


class GithubKeys:
    """The keys as they were read last, and when they may be read again.

    Args:
        where: a file, or an https address.
        refresh_s: at most once in so long.
        fetch: reads the document; raises `OSError`.

    Raises:
        ConfigError: the address is neither a file nor https.
    """

    def __init__(self, where: str, refresh_s: int, clock: Clock, tell: Tell, fetch: Callable[[str], bytes] = fetch) -> None:
        if "://" in where and not where.startswith("https://"):
            raise ConfigError("expected a file or an https address at `$.intake.public_keys`, got another scheme")
        self._where, self._refresh_ms, self._clock, self._tell, self._fetch = where, refresh_s * 1000, clock, tell, fetch
        self._keys: Mapping[str, ec.EllipticCurvePublicKey] = MappingProxyType({})
        self._tried_ms: int | None = None
        self._read_ms = 0
        self._lock = threading.Lock()
        self.reads = 0
        self.failures = 0

    @property
    def is_loaded(self) -> bool:
        """There are keys."""
        return bool(self._keys)

    def find(self, identifier: str) -> ec.EllipticCurvePublicKey | None:
        """A key, as far as is known."""
        return self._keys.get(identifier)

    @property
    def may_refresh(self) -> bool:
        """Whether it is long enough since it was tried last."""
        return self._tried_ms is None or self._clock.now_ms() - self._tried_ms >= self._refresh_ms

    @property
    def is_stale(self) -> bool:
        """They should be read again though all is known."""
        return self._clock.now_ms() - self._read_ms >= STALE_S * 1000

    def refresh(self) -> None:
        """Read the keys again, unless that was tried a moment ago. Where it fails, those that are known stay."""
        with self._lock:
            if not self.may_refresh:
                return
            self._tried_ms = self._clock.now_ms()
            try:
                document = self._fetch(self._where)
                if len(document) > DOCUMENT_BYTES_MAX:
                    raise ValueError(f"more than {DOCUMENT_BYTES_MAX} bytes")
                keys = parse_keys(document)
            except (OSError, ValueError) as error:
                self.failures += 1
                why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                self._tell("public_keys_not_read", {"from": self._where, "why": why[:200], "known": len(self._keys)})
                return
            self._keys, self._read_ms = MappingProxyType(keys), self._tried_ms
            self.reads += 1
            self._tell("public_keys", {"from": self._where, "keys": len(keys)})
