"""What the nginx edge writes: two files of plain nginx, for ``http { }`` and for a server or location. Runs nothing.

nginx has no timers for what stands in its configuration, and this edge may be dead when a mitigation ends. So every entry
carries its end, and nginx compares it with its own clock at each request: two numbers of ten digits are compared by a regular
expression that finds the first digit in which they differ.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge.nginx_signatures import Signature, escaped, nets_of, pattern_of, signature_of, subject_text
from edge.reader import ALLOW, STRENGTH, Standing
from edge.subject import Subject, prefix_subject
from schemas.errors import UsageError

TEXT_KINDS = ("user_agent", "api_key", "account", "fingerprint", "country", "asn")
"""Other targets, each compared with a variable of nginx that somebody names."""
SIGNATURE = "signature"
TEXTS_MAX = 1000
"""Entries of each such kind. nginx tries one after the other, case by case, about 0.1 µs each: its hashes would ignore case."""
TEXT_BYTES_MAX = 95
"""Names of targets have at most 96 bytes. One that has so many may have been cut, and its beginning is somebody else's too."""
ACTIONS = (ALLOW, "block", "throttle", "challenge")
"""The first that applies counts."""
CHALLENGE_STATUS = 463
"""No status of anybody's: by it nginx finds the location that shows the challenge."""
VARIABLE = re.compile(r"\$[a-z0-9_]{1,63}")
_TEXT = re.compile(r"[ -\[\]-~]+")
"""Printable, and without the backslash that stands for bytes which are no text."""
_ID = re.compile(r"[A-Za-z0-9._-]+")
_UNTIL_MIN, _UNTIL_MAX = 10**9, 10**10 - 1
_LATER = "|".join(rf"{digit}\d*\.\d+;\1[{digit + 1}-9]" for digit in range(9))
_BITS = {"ip4": 32, "ip6": 128}


@dataclass(frozen=True, slots=True)
class NginxSettings:
    """What stands in the two files beside mitigations."""

    address: str = "$remote_addr"
    """The variable that holds the client's address."""
    texts: Mapping[str, str] = field(default_factory=lambda: {"user_agent": "$http_user_agent"})
    """Per kind of other targets the variable that it is compared with."""
    requests_per_second: int = 5
    burst_requests: int = 10
    zone_megabytes: int = 10
    has_challenge: bool = False
    """There is a location ``@floodwall_challenge``."""
    own_service: str = "default"
    """What events without a host are counted for."""
    only_service: str | None = None
    """The only service behind this nginx; None: the host of a request tells."""
    core: tuple[str, ...] = ()
    """Prefixes that pass whatever is said about them: the allowlist core."""
    passed: str = ""
    """The variable that is not empty for whoever has passed the challenge."""


def settings_of(
    matches: Iterable[str], requests_per_second: int, burst_requests: int, *, has_challenge: bool, passed: str | None = None,
    core: Iterable[str] = (), own_service: str = "default", only_service: str | None = None,
) -> NginxSettings:  # fmt: skip
    """Settings from words ``kind=$variable``; ``ip`` is the client's address, ``passed`` a variable.

    Raises:
        UsageError: one of them is not of that form.
    """
    address, texts = "$remote_addr", {"user_agent": "$http_user_agent"}
    for word in matches:
        kind, _, variable = word.partition("=")
        if (kind != "ip" and kind not in TEXT_KINDS) or VARIABLE.fullmatch(variable) is None:
            raise UsageError(f"expected KIND=$variable with a kind of ip, {', '.join(TEXT_KINDS)}, got {word[:80]!r}")
        if kind == "ip":
            address = variable
        else:
            texts[kind] = variable
    if passed is not None and VARIABLE.fullmatch(passed) is None:
        raise UsageError(f"expected a $variable that says who has passed the challenge, got {passed[:80]!r}")
    return NginxSettings(
        address, texts, requests_per_second=requests_per_second, burst_requests=burst_requests, has_challenge=has_challenge,
        passed=passed or "", core=tuple(sorted({*core})), own_service=own_service, only_service=only_service,
    )  # fmt: skip


def supports(settings: NginxSettings, subject: Subject, action: str) -> bool:
    """Whether nginx can do an action to a subject with these settings."""
    if action not in ACTIONS or (action == "challenge" and not settings.has_challenge):
        return False
    if subject.kind in ("ip4", "ip6"):
        return True
    if subject.kind == SIGNATURE:
        return _signature(settings, subject) is not None
    named = len(subject.value.encode("utf-8", "backslashreplace")) <= TEXT_BYTES_MAX
    return subject.kind in settings.texts and named and _TEXT.fullmatch(subject.value) is not None


def http_text(settings: NginxSettings, standing: Mapping[Subject, Standing]) -> str:
    """The file for ``http { }``; the same mitigations give the same bytes."""
    actions = ACTIONS if settings.has_challenge else ACTIONS[:-1]
    lines = ["# Written by `floodwall edge nginx`, and written anew whenever something changes. Include it in http { }.",
             "# An entry: when it ends (Unix seconds), the action, the mitigation's id, what it is throttled by."]  # fmt: skip
    lines += _map(f"geo {settings.address} $floodwall_core", [f"    {prefix} core;" for prefix in settings.core])
    names = [f"address_{action}" for action in actions] + [*settings.texts, SIGNATURE]
    signatures = {
        subject: found for subject in standing if subject.kind == SIGNATURE and (found := _signature(settings, subject))
    }
    entries = _entries(standing, {subject: pattern_of(one, settings.only_service) for subject, one in signatures.items()})
    for name, prefixes in zip(("wide", "narrow"), nets_of(signatures.values()), strict=True):
        lines += _map(f"geo {settings.address} $floodwall_net_{name}", prefixes)
    for action in actions:
        # A table for each action: of one table nginx takes the narrowest prefix, and a wider one may say more.
        lines += _map(f"geo {settings.address} $floodwall_address_{action}", entries[f"address_{action}"])
    for kind, variable in settings.texts.items():
        lines += _map(f'map "{variable}" $floodwall_{kind}', entries[kind])
    lines += _map(f'map "{subject_text(settings.texts)}" $floodwall_{SIGNATURE}', entries[SIGNATURE])
    for name in names:
        capture = f"fw_{name}"  # PCRE takes at most 32 characters
        pattern = rf'    "~^(\d*)(?:{_LATER})\d*;(?<{capture}>.*)$" ${capture};'
        lines += _map(f'map "$msec;$floodwall_{name}" $floodwall_{name}_now', [pattern])
    all_now = "|".join(f"$floodwall_{name}_now" for name in names)
    lines += _map(
        f'map "$floodwall_core|{all_now}" $floodwall_now',
        ['    "~^core" "";']
        + [rf'    "~(?:^|\|)(?<floodwall_{action}>{action};[^|]*)" $floodwall_{action};' for action in actions],
    )
    for name, pattern in (
        ("action", "^(?<floodwall_the_action>[a-z]+);"),
        ("id", "^[a-z]+;(?<floodwall_the_id>[^;]*);"),
        ("throttle_key", "^throttle;[^;]*;(?<floodwall_the_throttle_key>.*)$"),
    ):
        lines += _map(f"map $floodwall_now $floodwall_{name}", [f'    "~{pattern}" $floodwall_the_{name};'])
    if settings.has_challenge:
        lines += _map(f'map "$floodwall_action{settings.passed}" $floodwall_challenged', ["    challenge 1;"])
    zone = f"zone=floodwall:{settings.zone_megabytes}m rate={settings.requests_per_second}r/s"
    lines.append(f"limit_req_zone $floodwall_throttle_key {zone};")
    return "\n".join(lines) + "\n"


def server_text(settings: NginxSettings) -> str:
    """The file for a server or location."""
    lines = [
        "# Written by `floodwall edge nginx`. Include it in each server { } or location { } that is to be protected.",
        "if ($floodwall_action = block) { return 403; }",
        f"limit_req zone=floodwall burst={settings.burst_requests} nodelay;",
        "limit_req_status 429;",
    ]
    if settings.has_challenge:
        lines += [
            f"error_page {CHALLENGE_STATUS} = @floodwall_challenge;",
            f"if ($floodwall_challenged) {{ return {CHALLENGE_STATUS}; }}",
        ]
    return "\n".join(lines) + "\n"


def choose(standing: Mapping[Subject, Standing]) -> tuple[dict[Subject, Standing], dict[Subject, Standing]]:
    """What the file has room for, and what it has not: of each kind with a bound the strongest and longest."""
    of_kind: defaultdict[str, list[tuple[Subject, Standing]]] = defaultdict(list)
    room: dict[Subject, Standing] = {}
    left: dict[Subject, Standing] = {}
    for subject, one in standing.items():
        if subject.kind in ("ip4", "ip6"):
            room[subject] = one
        else:
            of_kind[subject.kind].append((subject, one))
    for found in of_kind.values():
        found.sort(key=lambda pair: (-STRENGTH[pair[1].action], -pair[1].expires_at_ms, pair[0].value))
        room.update(found[:TEXTS_MAX])
        left.update(found[TEXTS_MAX:])
    return room, left


def _map(head: str, entries: list[str]) -> list[str]:
    return [head + " {", '    default "";', *entries, "}"]


def _signature(settings: NginxSettings, subject: Subject) -> Signature | None:
    return signature_of(subject, settings.texts, settings.own_service, settings.only_service)


def _entries(standing: Mapping[Subject, Standing], patterns: Mapping[Subject, str]) -> defaultdict[str, list[str]]:
    """The lines of each table, always in one order; ``patterns`` of signatures."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    lengths = {kind: sorted({one.length for one in standing if one.kind == kind}) for kind in _BITS}
    for subject, one in sorted(standing.items(), key=lambda pair: (pair[0].kind, pair[0].low, pair[0].length, pair[0].value)):
        if subject.kind in _BITS:
            longest = _longest(subject, one, standing, lengths[subject.kind])
            found[f"address_{one.action}"].append(f'    {subject.text} "{_entry(*longest)}";')
        else:
            pattern = patterns.get(subject) or f"^{escaped(subject.value)}$"
            found[subject.kind].append(f'    "~{pattern}" "{_entry(subject, one)}";')
    return found


def _longest(
    subject: Subject, own: Standing, standing: Mapping[Subject, Standing], lengths: list[int]
) -> tuple[Subject, Standing]:
    """nginx takes the narrowest prefix; a wider one of the same action that holds for longer has to be said there again."""
    best = subject, own
    for length in lengths:
        if length >= subject.length:
            break
        host = _BITS[subject.kind] - length
        wider = prefix_subject(subject.low >> host << host, 128 - host)
        other = standing.get(wider)
        if other is not None and other.action == own.action and other.expires_at_ms > best[1].expires_at_ms:
            best = wider, other
    return best


def _entry(subject: Subject, standing: Standing) -> str:
    until = min(max(standing.expires_at_ms // 1000, _UNTIL_MIN), _UNTIL_MAX)
    identifier = standing.record.id
    safe_id = identifier if _ID.fullmatch(identifier) else "-"
    key = hashlib.blake2b(f"{subject.kind}:{subject.text}".encode(), digest_size=8).hexdigest()
    return f"{until};{standing.action};{safe_id};{key}"
