"""Keys of bouncers, and what each bouncer can take. Only hashes are kept: whoever reads the file cannot ask for anything.

A key is 256 random bits, so one fast salted hash is enough: there is nothing to guess, and a slow hash would be a way to keep
this process busy with wrong keys. Every kept hash is compared, each in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from edge.files import put_whole
from schemas.errors import ConfigError, UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEYS_MAX = 256
"""Each request hashes what it shows once for each key: 256 are 0.3 ms."""
SECRET_BYTES = 32
SECRET_LENGTH_MAX = 256
"""Characters of a shown key that are looked at; ours have 68."""
PREFIX = "fwb_"
"""What a key begins with: scanners for leaked keys can know it, and YAML never takes it for a number."""
FILE_BYTES_MAX = 1 << 20
TYPES = ("ban", "captcha", "throttle")
"""What a decision may ask for, in CrowdSec's words."""
SCOPES = ("Ip", "Range", "Country", "AS")
"""Whom a decision may be about, in CrowdSec's words."""
_SALT_BYTES = 16
_SCHEMA = 1


class BouncerKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One bouncer: a name for people, the hash of its key, and what it can do.

    Many bouncers take a type or scope that they do not know for a ban, or for a single address. So each is only told what
    somebody has said that it can do.
    """

    name: str
    salt: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    types: tuple[str, ...]
    scopes: tuple[str, ...]
    created_at: int
    """Unix seconds."""

    def takes(self, scope: str, kind: str) -> bool:
        """Whether it can be told of such a decision."""
        return scope in self.scopes and kind in self.types

    @property
    def has_ranges(self) -> bool:
        """It matches prefixes; others are told single addresses."""
        return "Range" in self.scopes


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: int
    keys: tuple[BouncerKey, ...]


def make_key(
    name: str, types: Iterable[str], scopes: Iterable[str], *, now: int, draw: Callable[[int], bytes]
) -> tuple[str, BouncerKey]:
    """A new key in the clear, and what is kept of it. ``draw`` gives that many random bytes.

    Raises:
        UsageError: the name, a type or a scope is none.
    """
    if NAME.fullmatch(name) is None:
        raise UsageError(f"expected a name of letters, digits, '.', '_' and '-' (at most 64), got {name[:80]!r}")
    secret = PREFIX + draw(SECRET_BYTES).hex()
    salt = draw(_SALT_BYTES).hex()
    kept = BouncerKey(
        name, salt, _hash(secret, salt), _chosen(types, TYPES, "type"), _chosen(("Ip", *scopes), SCOPES, "scope"), now
    )
    return secret, kept


def load_keys(path: Path) -> tuple[BouncerKey, ...]:
    """The keys of a file.

    Raises:
        ConfigError: it cannot be read, or is not what `save_keys` writes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"expected a file of keys at {path}, got none there: floodwall edge bouncer-api keys add NAME --keys {path}"
        ) from None
    except OSError as error:
        raise ConfigError(f"expected a file of keys at {path}, got: {error.strerror}") from None
    try:
        if len(data) > FILE_BYTES_MAX:
            raise ValueError(f"more than {FILE_BYTES_MAX} bytes")
        found = msgspec.json.decode(data, type=_File)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"{path}: expected a file of keys, got: {error}") from None
    if found.schema != _SCHEMA:
        raise ConfigError(f"{path}: expected schema {_SCHEMA}, got {found.schema}")
    if len(found.keys) > KEYS_MAX:
        raise ConfigError(f"{path}: expected at most {KEYS_MAX} keys, got {len(found.keys)}")
    for key in found.keys:
        if NAME.fullmatch(key.name) is None or not {*key.types} <= {*TYPES} or not {*key.scopes} <= {*SCOPES}:
            raise ConfigError(f"{path}: expected keys as `keys add` writes them, got {key.name[:64]!r}")
    return found.keys


def save_keys(path: Path, keys: Iterable[BouncerKey]) -> None:
    """Put a file in the place of the old one, whole, readable by its owner only.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        put_whole(path, msgspec.json.format(msgspec.json.encode(_File(_SCHEMA, tuple(keys))), indent=1) + b"\n", 0o600)
    except OSError as error:
        raise ConfigError(f"expected to write keys to {path}, got: {error.strerror}") from None


def add_key(path: Path, key: BouncerKey) -> None:
    """Add to a file, which is made if there is none.

    Raises:
        UsageError: there is one of that name, or there are too many.
        ConfigError: as `load_keys` and `save_keys`.
    """
    keys = load_keys(path) if path.exists() else ()
    if any(other.name == key.name for other in keys):
        raise UsageError(f"expected a new name, got {key.name!r}, which has a key in {path}: revoke it first")
    if len(keys) >= KEYS_MAX:
        raise UsageError(f"expected at most {KEYS_MAX} keys in {path}, got one more")
    save_keys(path, (*keys, key))


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of a file; a running edge refuses it from its next request on.

    Raises:
        UsageError: there is none of that name.
        ConfigError: as `load_keys` and `save_keys`.
    """
    keys = load_keys(path)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        raise UsageError(f"expected the name of a key in {path}, got {name[:80]!r}")
    save_keys(path, left)


class Keyring:
    """The keys of a file, read again when the file changes. One that became unreadable leaves the last good keys.

    Args:
        path: the file.
        tell: told when it changed or became unreadable.

    Raises:
        ConfigError: it cannot be read now.
    """

    def __init__(self, path: Path, tell: Callable[[str, dict[str, object]], None]) -> None:
        self._path = path
        self._tell = tell
        self._seen = _stamp(path)
        self._keys: tuple[BouncerKey, ...] = ()
        self._taken: frozenset[tuple[str, str]] = frozenset()
        self._hold(load_keys(path))

    @property
    def keys(self) -> tuple[BouncerKey, ...]:
        """Those of the file now."""
        self.look()
        return self._keys

    def find(self, secret: str) -> BouncerKey | None:
        """Whose key this is. Compares with every key, so that time tells nothing."""
        if not 0 < len(secret) <= SECRET_LENGTH_MAX:
            return None
        found = None
        for key in self.keys:
            if hmac.compare_digest(_hash(secret, key.salt), key.hash):
                found = key
        return found

    def takes(self, scope: str, kind: str) -> bool:
        """Whether any bouncer can be told of such a decision; by the keys as they were last looked at."""
        return (scope, kind) in self._taken

    def look(self) -> None:
        """Read the file again if it has changed."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._hold(load_keys(self._path))
        except ConfigError as error:
            self._tell("keys_unreadable", {"why": str(error)[:300], "then": "the last good keys stay"})
        else:
            self._tell("keys_read", {"keys": len(self._keys)})

    def _hold(self, keys: tuple[BouncerKey, ...]) -> None:
        self._keys = keys
        self._taken = frozenset((scope, kind) for key in keys for scope in key.scopes for kind in key.types)


def _chosen(words: Iterable[str], known: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The known words among them, in one order and spelling."""
    asked = {word.lower() for word in words}
    strange = asked - {word.lower() for word in known}
    if strange:
        raise UsageError(f"expected a {what} of {', '.join(known)}, got {min(strange)[:64]!r}")
    return tuple(word for word in known if word.lower() in asked)


def _hash(secret: str, salt: str) -> str:
    data = secret.encode("utf-8", "backslashreplace")
    return hashlib.blake2b(data, digest_size=32, salt=bytes.fromhex(salt), person=b"floodwall-bounce").hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
