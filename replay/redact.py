"""Records of traffic as an operator may see them at night and paste them into a ticket: without keys, names and secrets.

What is shown is chosen, not what is hidden: a field that is not known, or whose value does not look like what the field should
hold, is left out or becomes ``…``. Of a path only words are kept, of a query string only the names of its parameters. A word
that somebody chose as a password and sent as a part of a path cannot be told from a path.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from engine.account import Account
from schemas.decoding.layout import Slot
from schemas.decoding.paths import meanings

MASK = "…"
SHOWN_MAX = 170
"""Characters of a record that are shown: two lines with the place where it lies."""
LINE_MAX = 1 << 16
"""Characters of a record that are looked at."""
_DEPTH_MAX = 8
_ITEMS_MAX = 200
_RUN_MAX = 20
"""Letters without a break in something that is still a word: ``internationalization`` has twenty."""

_MADE_MIN = 16
"""A label of a host's name this long with digits in it may be a key."""

# None of these has a repetition within a repetition: they take time in proportion to the text, whoever wrote it.
_WORD = re.compile(r"[A-Za-z.][A-Za-z._~+-]{0,39}\Z")
_VERSION = re.compile(r"v?[0-9]{1,4}(?:\.[0-9]{1,6}){0,4}\Z")
_STEP = re.compile(r"v[0-9]{1,3}\Z")
_PRODUCT = re.compile(r"[A-Za-z][A-Za-z._!+-]{0,31}/v?[0-9][0-9._]{0,15}[a-z+-]{0,6}(?:#[a-z]{1,10})?\Z")
_RUN = re.compile(rf"[A-Za-z0-9]{{{_RUN_MAX + 1}}}")
_AGENT_SPLIT = re.compile(r"([\s();,\"\[\]]+)")
_METHOD = re.compile(r"[A-Z]{1,16}\Z")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?\Z")
_TIME = re.compile(r"[0-9][0-9A-Za-z:/+. -]{3,39}\Z")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,100}(?::[0-9]{1,5})?\Z")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z_.-]{0,31}\Z")
_JA = re.compile(r"(?:[tqd][0-9]{2}[di][0-9a-z]{6}_[0-9a-f]{12}_[0-9a-f]{12}|[0-9a-f]{32})\Z")
_COUNTRY = re.compile(r"[A-Za-z]{2}\Z")
_MODEL = re.compile(r"[A-Za-z0-9._:/-]{1,60}\Z")
_EVENT = re.compile(r"(?:registration|signup|sign_up|verification|login|logout|request)\Z")
_RESPONSE_FLAGS = re.compile(r"[A-Z,-]{1,20}\Z")
_PLATFORMS = frozenset(
    {
        "Win64", "WOW64", "x64", "x86", "x86_64", "i686", "arm64", "aarch64", "armv7l", "ppc64le", "amd64", "Mac_OS_X",
        "10_15_7", "X11",
    }
)  # fmt: skip
_SECRET_WORDS = frozenset(
    {
        "apikey", "authorization", "basic", "bearer", "code", "credential", "invite", "key", "keys", "magic", "otp", "pass",
        "passwd", "password", "pin", "pwd", "reset", "secret", "session", "sid", "sig", "signature", "token", "tokens",
        "verify",
    }
)  # fmt: skip
"""What comes after one of these is not shown."""
_SECRET_STARTS = (
    "sk-", "pk-", "rk-", "sk_", "pk_", "rk_", "ghp_", "gho_", "ghs_", "github_pat", "glpat-", "xox", "akia", "eyj", "hf_",
    "aiza", "ya29", "key-", "fw-",
)  # fmt: skip
_NUMBERS = frozenset(
    {
        Slot.DURATION, Slot.STATUS, Slot.BYTES, Slot.TOKENS_IN, Slot.TOKENS_OUT, Slot.TOKENS_CACHED, Slot.MAX_TOKENS, Slot.COST,
        Slot.ASN,
    }
)  # fmt: skip
_ADDRESSES = frozenset(
    {Slot.REMOTE_ADDR, Slot.CLIENT_IP, Slot.X_FORWARDED_FOR, Slot.X_REAL_IP, Slot.CF_CONNECTING_IP}
)  # fmt: skip
_NAMES = frozenset({Slot.API_KEY_HASH, Slot.API_KEY, Slot.ACCOUNT, Slot.USER_NAME})
"""Shown only if they are what the mitigation itself names."""
_ORDER = {
    slot: order
    for order, slot in enumerate(
        (Slot.TIME, *sorted(_ADDRESSES), Slot.METHOD, Slot.PATH, Slot.URL, Slot.REQUEST, Slot.STATUS, Slot.USER_AGENT)
    )
}
"""What is shown of a record first; the rest in its own order."""
_FLAGS = frozenset({Slot.REGISTRATION, Slot.AUTH_FAILED, Slot.DENIED, Slot.CANCELLED})


class Redaction:
    """Knows which fields mean what.

    Args:
        fields: ``input.fields`` of the configuration.
        named: the target's value, which may be shown where it comes again.
    """

    def __init__(self, fields: dict[str, str], named: str = "") -> None:
        self._slots = {path: slot for path, (slot, _, _) in meanings(fields).items()}
        self._named = named

    def line(self, record: bytes) -> str:
        """A log line or a JSON record, in one short printable line."""
        text = record[: 4 * LINE_MAX].decode("utf-8", "replace").strip()[:LINE_MAX]
        shown = self._record(text, 0)
        shown = "".join(c if c.isprintable() else MASK for c in shown)
        return shown if len(shown) <= SHOWN_MAX else shown[: SHOWN_MAX - 1] + MASK

    def account(self, account: Account) -> None:
        """Of records that could not be read, show no more than of those that could."""
        for sample in account.poison_samples:
            if sample.excerpt and not sample.redacted:
                sample.excerpt, sample.redacted = self.line(sample.excerpt.encode()), True

    def _record(self, text: str, depth: int) -> str:
        if not text.startswith(("{", "[")):
            return redact_log_line(text)
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError:
            return f"{MASK} (JSON that cannot be shown)"
        shown: list[str] = []
        hidden = 0
        leaves = sorted(_leaves(document, ""), key=lambda leaf: _ORDER.get(self._slots.get(leaf[0], Slot.MESSAGE), len(_ORDER)))
        for path, value in leaves:
            known = self._value(self._slots.get(path), value, depth) if len(shown) < _ITEMS_MAX else None
            if known is None or known == MASK:
                hidden += 1
            else:
                shown.append(known if self._slots[path] == Slot.MESSAGE else f"{path}={known}")
        if hidden:
            shown.append(f"({hidden} more field{'s' if hidden > 1 else ''})")
        return " ".join(shown)

    def _value(self, slot: Slot | None, value: Any, depth: int) -> str | None:
        """What is shown of a field; None: it is not shown."""
        if slot is None or value is None or value == "":
            return None
        if isinstance(value, bool):
            return str(value).lower() if slot in _FLAGS else None
        text = str(value)
        if slot in _NAMES:
            return text if text == self._named else MASK
        if slot in _NUMBERS:
            return text if _NUMBER.match(text) else MASK
        if slot in (Slot.TIME, Slot.START_TIME):
            return text if _TIME.match(text) and sum(c.isdigit() for c in text) >= 4 else MASK
        if slot in _ADDRESSES:
            return text if all(map(_is_address, text.split(","))) else MASK
        if slot == Slot.MESSAGE and depth < _DEPTH_MAX:
            return " | ".join(self._record(line, depth + 1) for line in text.splitlines()[:2])
        return _TEXTS.get(slot, _masked)(text)


def _leaves(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every value with its dotted path; items of an array have the path of the array."""
    if isinstance(value, dict) and depth < _DEPTH_MAX:
        for name, inner in list(value.items())[:_ITEMS_MAX]:
            yield from _leaves(inner, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list) and depth < _DEPTH_MAX:
        for inner in value[:2]:
            yield from _leaves(inner, path, depth + 1)
    else:
        yield path, value


def redact_log_line(text: str) -> str:
    """A line of an access log: addresses, times, status, sizes, the request without its query, the user agent."""
    words = list(_tokens(text))
    bracket = next((at for at, (kind, _) in enumerate(words) if kind == "["), 0)
    shown, quoted = [], 0
    for at, (kind, word) in enumerate(words):
        if kind == "[":
            shown.append(f"[{word if _TIME.match(word) else MASK}]")
        elif kind == '"':
            shown.append(f'"{_quoted(word, quoted)}"')
            quoted += 1
        elif at < bracket and at >= bracket - 2 and at > 0:
            shown.append(word if word == "-" else MASK)  # who logged in, by ident and by HTTP
        else:
            shown.append(word if _is_plain(word) else MASK)
    return " ".join(shown)


def _quoted(word: str, number: int) -> str:
    if word in ("", "-"):
        return word
    if number == 0:
        return redact_request(word)
    if number == 1 and "://" in word[:12]:
        return redact_target(word)
    if number == 2:
        return redact_agent(word)
    return word if all(map(_is_plain, word.split(", "))) else MASK


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Words, ``[…]`` and ``"…"`` with their kind (empty, bracket, quotation mark)."""
    at, length = 0, len(text)
    while at < length:
        first = text[at]
        if first.isspace():
            at += 1
        elif first == "[":
            end = text.find("]", at)
            end = length if end < 0 else end
            yield "[", text[at + 1 : end]
            at = end + 1
        elif first == '"':
            end = at + 1
            while end < length and text[end] != '"':
                end += 2 if text[end] == "\\" else 1
            yield '"', text[at + 1 : end]
            at = end + 1
        else:
            end = at
            while end < length and not text[end].isspace() and text[end] != '"':
                end += 1
            yield "", text[at:end]
            at = end


def redact_request(text: str) -> str:
    """``GET /path?query HTTP/1.1``."""
    method, _, rest = text.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if not _METHOD.match(method) or not protocol.startswith("HTTP/"):
        return MASK
    return f"{method} {redact_target(target)} {protocol if len(protocol) <= 8 else MASK}"


def redact_target(text: str) -> str:
    """A path or an address on the web: its words, and the names of the parameters."""
    text, _, query = text.partition("#")[0].partition("?")
    before, mark, after = text.partition("://")
    start = ""
    if mark:
        host, slash, after = after.partition("/")
        host = host.rpartition("@")[2]
        start = f"{before if before in ('http', 'https') else MASK}://{host if is_host(host) else MASK}"
        text = slash + after
    if text and not text.startswith("/"):
        return start + MASK
    shown = start + redact_path(text)
    if query:
        names = [part.partition("=") for part in query[:4096].split("&")[:8]]
        shown += "?" + "&".join(f"{name if mark and _is_parameter(name) else MASK}={MASK}" for name, mark, _ in names)
    return shown


def redact_path(text: str) -> str:
    """The words of a path; what could be an id, a key or an address of mail is ``…``."""
    shown: list[str] = []
    is_secret = False
    for segment in text.split("/")[:40]:
        safe = segment == "" or bool(_STEP.match(segment)) or _is_word(segment)
        shown.append(segment if safe and not (is_secret and segment) else MASK)
        is_secret = segment.lower() in _SECRET_WORDS
    return "/".join(shown)


def redact_route(text: str) -> str:
    """``METHOD /path/{id}``, as routes are counted."""
    method, _, path = text.partition(" ")
    parts = redact_path(path.replace("{id}", "\0")).replace(MASK, "\0")
    return f"{method if _METHOD.match(method) else MASK} {parts.replace(chr(0), MASK)}"


def redact_agent(text: str) -> str:
    """The products, versions and words of a user agent."""
    shown: list[str] = []
    is_secret = False
    for number, part in enumerate(_AGENT_SPLIT.split(text[:512])):
        if number % 2:
            shown.append(part)
            continue
        word = part.rstrip(":")
        if "://" in word:
            shown.append(redact_target(word.lstrip("+")))
        else:
            safe = (
                word in _PLATFORMS or _is_product(word) or all(_VERSION.match(one) or _is_word(one) for one in word.split("/"))
            )
            shown.append(part if part == "" or (safe and not is_secret) else MASK)
        is_secret = word.lower() in _SECRET_WORDS if word else is_secret
    return "".join(shown)


def _is_word(text: str) -> bool:
    return bool(_WORD.match(text)) and not _RUN.search(text) and not text.lower().startswith(_SECRET_STARTS)


def _is_product(text: str) -> bool:
    return bool(_PRODUCT.match(text)) and not _RUN.search(text) and not text.lower().startswith(_SECRET_STARTS)


def _is_parameter(text: str) -> bool:
    return bool(_PARAMETER.match(text)) and not _RUN.search(text) and not text.lower().startswith(_SECRET_STARTS)


def is_secret(text: str) -> bool:
    """It begins as keys do, or has a run of characters too long for a word."""
    return text.lower().startswith(_SECRET_STARTS) or bool(_RUN.search(text))


def is_host(text: str) -> bool:
    """Labels of host names; of those made by machines (a key looks like one) none."""
    if not _HOST.match(text) or text.lower().startswith(_SECRET_STARTS):
        return False
    labels = text.partition(":")[0].split(".")
    return not any(len(label) > 40 or (len(label) >= _MADE_MIN and sum(map(str.isdigit, label)) > 1) for label in labels)


def _is_address(text: str) -> bool:
    text = text.strip()
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _is_plain(text: str) -> bool:
    """A number, an address, a host name, or nothing."""
    name, mark, value = text.partition("=")
    if mark and _is_parameter(name) and name.lower() not in _SECRET_WORDS:
        return bool(_NUMBER.match(value)) or value == "-"
    return text == "-" or bool(_NUMBER.match(text)) or _is_address(text) or ("." in text and is_host(text))


def _masked(text: str) -> str:
    return MASK


def _email(text: str) -> str:
    domain = text.rpartition("@")[2]
    return f"{MASK}@{domain}" if "@" in text and "." in domain and is_host(domain) else MASK


def _model(text: str) -> str:
    safe = (
        _MODEL.match(text)
        and any(map(str.isdigit, text))
        and not _RUN.search(text)
        and not text.lower().startswith(_SECRET_STARTS)
    )
    return text if safe else MASK


def _kept(pattern: re.Pattern[str]) -> Callable[[str], str]:
    return lambda text: text if pattern.match(text) else MASK


def _host(text: str) -> str:
    return text if is_host(text) else MASK


_TEXTS: dict[Slot, Callable[[str], str]] = {
    Slot.METHOD: _kept(_METHOD), Slot.PATH: redact_target, Slot.URL: redact_target, Slot.REFERRER: redact_target,
    Slot.REQUEST: redact_request, Slot.USER_AGENT: redact_agent, Slot.EMAIL: _email, Slot.MODEL: _model, Slot.HOST: _host,
    Slot.EMAIL_DOMAIN: _host, Slot.COUNTRY: _kept(_COUNTRY), Slot.FINGERPRINT: _kept(_JA), Slot.EVENT: _kept(_EVENT),
    Slot.RESPONSE_FLAGS: _kept(_RESPONSE_FLAGS),
}  # fmt: skip
"""How a text of each kind is shown; others are not."""
