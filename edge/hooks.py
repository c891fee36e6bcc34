"""What the webhook edge is told about gateways: whom to call for which action, with what, and how calls are signed.

A body is given as data and not as text: placeholders are replaced inside its strings, so that nothing in a record can break
out of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.signing import load_private_key
from edge.reader import ALLOW
from edge.subject import Subject
from schemas.config import Section, explain
from schemas.errors import ConfigError
from schemas.mitigation import Target

HOOKS_MAX = 32
SECRET_BYTES_MIN = 24
"""As Standard Webhooks asks for."""
SECRET_PREFIX = "whsec_"
PLACEHOLDERS = ("id", "state", "action", "type", "target", "detector", "reason", "issued", "until")
NUMBERS = ("issued", "until")
"""Placeholders that become numbers where they stand alone."""
DEFAULT_BODY = {name: f"{{{name}}}" for name in PLACEHOLDERS}
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER_VALUE = re.compile(r"[\t -~]*")

Status = Annotated[int, msgspec.Meta(ge=200, le=599)]
TargetType = Literal["ip", "net", "asn", "country", "api_key", "account", "email_domain", "route", "user_agent", "signature",
                     "service", "fingerprint"]  # fmt: skip
HookAction = Literal["challenge", "throttle", "restrict_registration", "block", "disable_key"]


class Call(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One call of a gateway."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
    """Placeholders may stand in the path and the query; what replaces them is percent-encoded."""
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    """Called with it; bodies are sent with all of them."""
    body: dict[str, Any] = msgspec.field(default_factory=lambda: dict(DEFAULT_BODY))
    """JSON with placeholders in its strings."""
    done_statuses: tuple[Status, ...] = ()
    """Beside 200 to 299: what the gateway answers when it is so already, 404 when a key is gone, say."""


class Hook(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One gateway for some actions on some targets."""

    name: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_-]{1,32}$")]
    """In metrics and events."""
    actions: Annotated[tuple[HookAction, ...], msgspec.Meta(min_length=1)]
    """What it is called for."""
    targets: Annotated[tuple[TargetType, ...], msgspec.Meta(min_length=1)]
    """On whom."""
    begin: Call
    """When a mitigation comes into force."""
    end: Call | None = None
    """When it has ended or was lifted; none: the gateway ends it itself by ``until``, and cannot be told of a lift."""
    repeats: bool = True
    """Call ``begin`` again when only the end has moved. False for a gateway that does not know of ends."""
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    """``${NAME}`` is replaced from the environment: secrets do not stand here."""
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=120)] = 10
    """A call that takes longer has failed, and is tried again."""
    parallel_max: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    """Calls at once."""
    plaintext: bool = False
    """Allow http:// to another machine."""


class HookSigning(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How calls are signed, as Standard Webhooks says; with neither they are not."""

    secret_file: str | None = None
    """HMAC-SHA256: a file with ``whsec_`` and base64 of at least 24 random bytes."""
    private_key_file: str | None = None
    """Ed25519: as ``floodwall keys make`` writes it."""


class Hooks(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of hooks."""

    hook: Annotated[tuple[Hook, ...], msgspec.Meta(min_length=1, max_length=HOOKS_MAX)]
    """Each is called for itself: one that is down holds up no other."""
    signing: HookSigning = HookSigning()


class Request(NamedTuple):
    """A call with everything in its place, but for headers that change with each attempt."""

    key: str
    """The same for the same state of the same mitigation until the same end: what a gateway can tell repetitions by."""
    method: str
    url: str
    body: bytes


def load_hooks(path: Path, environment: Mapping[str, str]) -> Hooks:
    """Read a file of hooks; ``${NAME}`` in headers is replaced.

    Raises:
        ConfigError: it cannot be read, or a value is refused.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"expected a TOML file of hooks at {path}, got: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"expected TOML in {path}, got: {error}") from None
    try:
        found = msgspec.convert(document, Hooks)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {explain(str(error), document)}") from None
    names = [hook.name for hook in found.hook]
    if len({*names}) < len(names):
        raise ConfigError(f"{path}: expected a name for each hook, got one twice: {', '.join(sorted(names))}")
    hooks = tuple(_checked(hook, f"{path}: $.hook[{index}]", environment) for index, hook in enumerate(found.hook))
    return msgspec.structs.replace(found, hook=hooks)


def serves(hook: Hook, subject: Subject, action: str) -> bool:
    """Whether a hook is called for an action on a subject. An operator's allow is a reason to call nobody."""
    return type_of(subject) in hook.targets and (action in hook.actions or action == ALLOW)


def type_of(subject: Subject) -> str:
    """The type that a target of this subject has."""
    if subject.kind == "ip4":
        return "ip" if subject.length == 32 else "net"
    if subject.kind == "ip6":
        return "ip" if subject.length >= 64 else "net"
    return subject.kind


def target_of(subject: Subject) -> Target:
    """The target that `edge.subject.parse_subject` makes this subject of."""
    return Target(type=type_of(subject), value=subject.text)


class CallSigner:
    """Headers of calls: ``webhook-id``, ``webhook-timestamp`` and, with a key, ``webhook-signature``.

    Raises:
        ConfigError: a secret or key cannot be read, or is too short.
    """

    def __init__(self, signing: HookSigning) -> None:
        self._secret = None if signing.secret_file is None else _secret(Path(signing.secret_file))
        self._private: Ed25519PrivateKey | None = None
        if signing.private_key_file is not None:
            self._private = load_private_key(Path(signing.private_key_file))

    def headers(self, key: str, now_s: int, body: bytes) -> dict[str, str]:
        """For one attempt: a repetition has the same id and another time."""
        content = f"{key}.{now_s}.".encode() + body
        signatures = []
        if self._secret is not None:
            signatures.append("v1," + base64.b64encode(hmac.digest(self._secret, content, hashlib.sha256)).decode())
        if self._private is not None:
            signatures.append("v1a," + base64.b64encode(self._private.sign(content)).decode())
        found = {"webhook-id": key, "webhook-timestamp": str(now_s), "Idempotency-Key": key}
        return found | ({"webhook-signature": " ".join(signatures)} if signatures else {})


def request_of(call: Call, words: Mapping[str, str | int]) -> Request:
    """A call about a mitigation. ``words`` has a value for each of `PLACEHOLDERS`."""
    key = f"{words['id']}.{words['state']}.{words['until']}"
    url = _PLACEHOLDER.sub(lambda found: quote(str(words[found[1]]), safe=""), call.url)
    # A header takes no line breaks, and an id is whatever a record says.
    return Request(re.sub(r"[^A-Za-z0-9._-]", "-", key), call.method, url, orjson.dumps(_filled(call.body, words)))


def _filled(part: Any, words: Mapping[str, str | int]) -> Any:
    if isinstance(part, dict):
        return {name: _filled(inner, words) for name, inner in part.items()}
    if isinstance(part, list):
        return [_filled(inner, words) for inner in part]
    if not isinstance(part, str):
        return part
    alone = _PLACEHOLDER.fullmatch(part)
    if alone is not None:
        return words[alone[1]]
    return _PLACEHOLDER.sub(lambda found: str(words[found[1]]), part)


def _checked(hook: Hook, where: str, environment: Mapping[str, str]) -> Hook:
    for name, call in (("begin", hook.begin), ("end", hook.end)):
        if call is None:
            continue
        for text in _texts((call.url, call.body)):
            strange = {*_PLACEHOLDER.findall(text)} - {*PLACEHOLDERS}
            if strange:
                known = ", ".join(PLACEHOLDERS)
                raise ConfigError(f"{where}.{name}: expected placeholders of {known}, got {{{min(strange)[:40]}}}")
        _check_url(call.url, hook.plaintext, f"{where}.{name}.url")

    def of_environment(found: re.Match[str]) -> str:
        value = environment.get(found[1])
        if value is None:
            raise ConfigError(f"{where}.headers: expected the variable {found[1]} in the environment, got none")
        return value

    headers = {name: _VARIABLE.sub(of_environment, value) for name, value in hook.headers.items()}
    for name, value in headers.items():
        if re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) is None or _HEADER_VALUE.fullmatch(value) is None:
            raise ConfigError(f"{where}.headers: expected a header of printable text, got {name[:64]!r}")
    return msgspec.structs.replace(hook, headers=headers)


def _check_url(url: str, plaintext: bool, where: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise ConfigError(f"`{where}`: expected a URL, got {url[:80]!r}") from None
    if parts.scheme not in ("http", "https") or not host or "{" in parts.netloc:
        raise ConfigError(f"`{where}`: expected an http:// or https:// URL with a host, got {url[:80]!r}")
    if parts.scheme == "http" and not plaintext and not _is_loopback(host):
        raise ConfigError(f"`{where}`: expected https://, or plaintext = true, as it is not this machine, got {url[:80]!r}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _texts(part: Any) -> list[str]:
    if isinstance(part, str):
        return [part]
    inner: Callable[[], Any] = part.values if isinstance(part, dict) else lambda: part
    return [text for one in inner() for text in _texts(one)] if isinstance(part, dict | list | tuple) else []


def _secret(path: Path) -> bytes:
    try:
        text = path.read_text(encoding="ascii").strip()
        found = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except OSError as error:
        raise ConfigError(f"expected a secret at {path}, got: {error.strerror}") from None
    except (UnicodeDecodeError, binascii.Error, ValueError):
        raise ConfigError(f"expected {SECRET_PREFIX} and base64 at {path}: openssl rand -base64 32") from None
    if len(found) < SECRET_BYTES_MIN:
        raise ConfigError(f"expected a secret of at least {SECRET_BYTES_MIN} bytes at {path}, got {len(found)}")
    return found
