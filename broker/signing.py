"""Signatures of mitigations, from whoever decided to whoever enforces: whoever may write to the topic is not thereby believed.

Signed are the record's own bytes, so that there is no second form of it that somebody could read otherwise: every field that
stands before ``signature``, which is the last one, and before them the name of the topic. With the sequence inside, an old
record that is written again is told from a judge that repeats itself after a crash.

    b"floodwall mitigation 1\\n" + topic + b"\\n" + the value up to, and without, `,"signature":"`

A value ends with `,"signature":"` + the Ed25519 signature in base64 (88 characters) + `"}`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from engine.clock import Clock
from schemas.config import Config, Signing
from schemas.errors import ConfigError
from schemas.mitigation import OPERATOR, Distrust, Mitigation, encode_line

SECRET_BYTES = 32
KEY_FILE_BYTES_MAX = 4096
"""A private key as PEM has 119."""
DELAY_MS_MAX = 120_000
"""How much later than it was signed the brokers may have taken a record in: the longest that our producers try, and two clocks
that differ. What is older was kept by somebody, and written again."""
_CONTEXT = b"floodwall mitigation 1\n"
_BEGIN, _END = b',"signature":"', b'"}'
_SIGNATURE_LENGTH = 88


class Signed(Protocol):
    """What a verifier needs to know of a decoded record."""

    @property
    def detector(self) -> str:
        """Who decided."""
        ...

    @property
    def key_id(self) -> str:
        """Whose signature it says it has."""
        ...

    @property
    def sequence(self) -> int:
        """Microseconds when it was signed."""
        ...


def make_key(draw: Callable[[int], bytes]) -> tuple[bytes, str]:
    """A new private key as PEM, and its public key as configurations have it. ``draw`` gives that many random bytes."""
    private = Ed25519PrivateKey.from_private_bytes(draw(SECRET_BYTES))
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public_text(private)


def save_private_key(path: Path, pem: bytes) -> None:
    """Write a new file that only its owner can read.

    Raises:
        ConfigError: there is one already, or it cannot be written.
    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except FileExistsError:
        raise ConfigError(f"expected no file at {path}, found one: a private key is never written over another") from None
    except OSError as error:
        raise ConfigError(f"expected to write a private key to {path}, got: {error.strerror}") from None


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        ConfigError: it cannot be read, others can read it too, or it is no Ed25519 key.
    """
    try:
        with path.open("rb") as file:
            others = os.fstat(file.fileno()).st_mode & 0o007
            pem = file.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigError(f"expected a private key at {path}, got: {error.strerror}; `floodwall keys make`") from None
    if others:
        raise ConfigError(f"expected a private key that others cannot read at {path}: chmod o= {path}")
    try:
        found = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"expected a private key as PEM without a password at {path}, got: {error}") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise ConfigError(f"expected an Ed25519 key at {path}, got one of another kind; `floodwall keys make`")
    return found


def public_text(private: Ed25519PrivateKey) -> str:
    """The public key of a private one, as configurations have it."""
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


def key_id_of(public: bytes) -> str:
    """What a public key is called in records: nobody has to make names up, and none can be wrong."""
    return hashlib.sha256(public).hexdigest()[:16]


class Signer:
    """Makes values for the enforcement topic.

    Args:
        topic: its whole name.
        private: None: values stay unsigned.
    """

    def __init__(self, topic: str, private: Ed25519PrivateKey | None, clock: Clock) -> None:
        self._scope = _scope(topic)
        self._private = private
        self._clock = clock
        self._sequence = 0
        self.key_id = "" if private is None else key_id_of(private.public_key().public_bytes_raw())

    def value(self, mitigation: Mitigation) -> bytes:
        """The record as it goes onto the topic."""
        if self._private is None:
            return encode_line(mitigation).rstrip(b"\n")
        # Rises within this process by counting, and from one process to the next by the clock.
        self._sequence = max(self._sequence + 1, self._clock.now_ms() * 1000)
        marked = msgspec.structs.replace(mitigation, key_id=self.key_id, sequence=self._sequence, signature="")
        body = encode_line(marked).rstrip(b"\n").removesuffix(_BEGIN + _END)
        signature = self._private.sign(self._scope + body)
        return body + _BEGIN + base64.b64encode(signature) + _END


class Verifier:
    """Says of values from the enforcement topic why they are not believed.

    Args:
        topic: its whole name.
        signing: whose keys are trusted.

    Raises:
        ConfigError: one of them is no key, or stands there twice.
    """

    def __init__(self, topic: str, signing: Signing) -> None:
        self._scope = _scope(topic)
        self._keys: dict[str, tuple[Ed25519PublicKey, str]] = {}
        for index, trusted in enumerate(signing.public_keys):
            public = _decoded(trusted.key)
            path = f"$.signing.public_keys[{index}].key"
            if public is None or len(public) != SECRET_BYTES:
                raise ConfigError(f"expected 32 bytes in base64 at `{path}`, as `floodwall keys make` prints them")
            if key_id_of(public) in self._keys:
                raise ConfigError(f"expected another key at `{path}`, got one that stands above it")
            self._keys[key_id_of(public)] = Ed25519PublicKey.from_public_bytes(public), trusted.speaks_for

    def distrust(self, value: bytes, record: Signed, taken_in_at_ms: int | None) -> Distrust | None:
        """Why a record is not believed; None: it is.

        Args:
            value: as it lies on the topic.
            record: what was decoded of it.
            taken_in_at_ms: when the brokers took it in, by their own clock; None: they do not say.
        """
        if not record.key_id:
            return "unsigned"
        found = self._keys.get(record.key_id)
        if found is None:
            return "unknown_key"
        public, speaks_for = found
        body, signature = _split(value)
        if signature is None:
            return "forged"
        try:
            public.verify(signature, self._scope + body)
        except InvalidSignature:
            return "forged"
        if speaks_for != "both" and (record.detector == OPERATOR) != (speaks_for == "operators"):
            return "out_of_scope"
        if taken_in_at_ms is not None and taken_in_at_ms - record.sequence // 1000 > DELAY_MS_MAX:
            return "replayed"
        return None


def signer_of(config: Config, topic: str, clock: Clock) -> Signer:
    """The signer that a configuration asks for: one that does not sign, if it names no key.

    Raises:
        ConfigError: as `load_private_key`; or edges with this configuration would not believe what it signs.
    """
    file, trusted = config.signing.private_key_file, {one.key for one in config.signing.public_keys}
    private = None if file is None else load_private_key(Path(file))
    if trusted and private is None:
        raise ConfigError("expected `$.signing.private_key_file` beside public keys, got none: edges would refuse what is said")
    if private is not None and trusted and public_text(private) not in trusted:
        raise ConfigError(
            f"expected the key of {file} among `$.signing.public_keys`, it is not there: edges would refuse what is said"
        )
    return Signer(topic, private, clock)


def verifier_of(config: Config, topic: str) -> Verifier | None:
    """The verifier that a configuration asks for; None: everything is believed.

    Raises:
        ConfigError: as `Verifier`.
    """
    return Verifier(topic, config.signing) if config.signing.public_keys else None


def _scope(topic: str) -> bytes:
    return _CONTEXT + topic.encode() + b"\n"


def _split(value: bytes) -> tuple[bytes, bytes | None]:
    """What was signed, and the signature if there is one in its one spelling."""
    tail = len(_BEGIN) + _SIGNATURE_LENGTH + len(_END)
    body, rest = value[:-tail], value[-tail:]
    if len(rest) != tail or not rest.startswith(_BEGIN) or not rest.endswith(_END):
        return value, None
    return body, _decoded(rest[len(_BEGIN) : -len(_END)])


def _decoded(text: str | bytes) -> bytes | None:
    """Base64 in its one spelling: a bit that is flipped where nothing is kept is a flipped bit too."""
    try:
        raw = text.encode() if isinstance(text, str) else text
        found = base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if base64.b64encode(found) == raw else None
