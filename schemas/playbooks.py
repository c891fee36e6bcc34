"""Playbooks as typed sections, ``[playbooks.NAME]``: on a condition, a set of steps as one run that can be reverted at once.

A section changes what ships under its name, or makes a playbook of its own. What each does with a run: `engine.playbooks`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from schemas.config import Action, Config, DimensionName, Section, explain, parse_prefixes
from schemas.errors import ConfigError

PREFIX = "playbook-"
"""Before a playbook's name in the names of its steps, by which its mitigations are known."""
SECTION = "playbooks."
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,32}")
"""So that with its prefix and an action it is the name of a detector (`schemas.feedback.NAME_PATTERN`)."""
PLAYBOOKS_MAX = 32
STEPS_MAX = 16
VALUE_PATTERN = r"^(country|net|asn|email_domain|signature):.{1,256}$"
NET_LENGTHS = {4: (24,), 6: (48,)}
"""Of networks, those that edges look up."""
LEAKED, LEAKED_KEY = "leaked", "leaked-key"
TargetType = DimensionName | Literal["signature"]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=256)]


class When(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A playbook's condition: findings of some detectors about one service or, where they name none, about one target."""

    detectors: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=16)]
    """Whose findings count, be they in dry run: whoever arms a playbook decides what is done on what they say. Findings that
    are allowlisted, or were called a false positive, do not."""
    measures: Annotated[tuple[Name, ...], msgspec.Meta(max_length=32)] = ()
    """Only findings about these (`measure` in a finding: ``pages``, ``registrations``, ``leaked_key_used``). Empty: all."""
    targets: Annotated[tuple[TargetType, ...], msgspec.Meta(max_length=16)] = ()
    """Only findings about such targets. Empty: all."""
    services: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=256)], ...], msgspec.Meta(max_length=64)
    ] = ()
    """Only of these services. Empty: of all."""
    severity_min: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    """Only findings at least so bad …"""
    confidence_min: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """… and so sure …"""
    times_min: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0.0
    """… whose number is so many times what is allowed or usual."""
    agree: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    """So many of the detectors have to have spoken …"""
    for_s: Annotated[int, msgspec.Meta(ge=0, le=86400)] = 0
    """… for so long, from the first finding to the one with which a run begins."""


class Step(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step of a playbook: an action on a target, for a time."""

    action: Action
    """What an edge is asked to do. ``throttle`` on a service lowers the limit of everybody there, as its gateway does it.
    ``notify``: nothing, but people are told, with the measured load."""
    target: Literal["found", "service", "registrations", "listed"] = "found"
    """``found``: what findings name, within ``types``. ``service``: the service that they are about. ``registrations``:
    whoever registers there. ``listed``: ``values``, be they found or not."""
    types: Annotated[tuple[TargetType, ...], msgspec.Meta(max_length=16)] = ()
    """Of ``found``: only such targets. Empty: all but a service as a whole."""
    never: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=256)], ...], msgspec.Meta(max_length=1024)] = ()
    """Of ``found``: these values are left alone, one's own country or a paying customer's mail domain, say."""
    values: Annotated[tuple[Annotated[str, msgspec.Meta(pattern=VALUE_PATTERN)], ...], msgspec.Meta(max_length=256)] = ()
    """Of ``listed``: ``country:XX``, ``net:198.51.100.0/24``, ``asn:64500``, ``email_domain:example.com``."""
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=604800)] | None = 600
    """It ends so long after the condition was seen last: no earlier than the next cell of renewal can renew it, and no later
    than ``policy.ttl_s_max``. None: not by itself, which only disabling a leaked key may."""
    after_s: Annotated[int, msgspec.Meta(ge=0, le=86400)] = 0
    """Only once a run has lasted so long: the mildest first."""
    collateral_max: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """In place of the playbook's, for this step. 1: whoever arms it accepts that it concerns everybody there."""


class Playbook(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is done, as one run, while a condition holds."""

    state: Literal["off", "simulated", "armed"] = "simulated"
    """``simulated``: steps are published in dry run, and nothing is enforced; people are told by ``notify`` all the same."""
    owner: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """Who answers for it; an armed one needs somebody."""
    reason: Text = ""
    """What it is for."""
    when: When
    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1, max_length=STEPS_MAX)]
    """Each action on each kind of target once."""
    quiet_s: Annotated[int, msgspec.Meta(ge=90, le=86400)] = 180
    """Without a finding for so long the condition is over, and its run with it."""
    cool_down_s: Annotated[int, msgspec.Meta(ge=0, le=604800)] = 600
    """So long after a run ended or was reverted no other begins about the same."""
    run_s_max: Annotated[int, msgspec.Meta(ge=60, le=604800)] = 14_400
    """A run does no more after so long, until the condition has been over: somebody has to look."""
    collateral_max: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    """The share of usual traffic that one step of a run may hit, all its targets together, as findings have measured it. What
    nobody has measured, a country that is listed or a service as a whole, counts as all. More is held."""
    targets_max: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    """So many targets a step may have in a run; more are left alone, and said."""

    def bound(self, step: Step) -> float:
        """The collateral that a step may have."""
        return self.collateral_max if step.collateral_max is None else step.collateral_max


SHIPPED: dict[str, dict[str, Any]] = {
    # Ten thousand sources that ask for little each. Telling people is real from the start; the rest is tried. Signatures have
    # their collateral measured; lowering everybody's limit concerns everybody, so it comes last and needs whoever arms it.
    "service-under-distributed-attack": {
        "reason": "more than usual of a service, by many sources: challenge what they have in common, then lower its limits",
        "when": {
            "detectors": ["signature", "entropy", "surge"],
            "measures": ["pages", "failed", "accounts", "requests", "auth_failures"],
            "targets": ["signature", "service"],
            "for_s": 10,
        },
        "steps": [
            {"action": "notify", "target": "service", "ttl_s": 300},
            {"action": "challenge", "target": "found", "types": ["signature"], "ttl_s": 300},
            {"action": "throttle", "target": "service", "ttl_s": 300, "after_s": 60, "collateral_max": 1.0},
        ],
    },
    # A challenge costs honest people who register a few seconds; that is why all of them may be asked. Whoever may not
    # register at all is within the collateral that was measured, countries too: only here do they appear.
    "registration-flood": {
        "reason": "accounts made by the hundred: challenge new ones, then keep out the networks and countries they come from",
        "when": {
            "detectors": ["registrations", "signature", "entropy", "surge"],
            "measures": ["registrations", "registered"],
            "for_s": 30,
        },
        "steps": [
            {"action": "notify", "target": "service", "ttl_s": 300},
            {"action": "challenge", "target": "registrations", "ttl_s": 600, "collateral_max": 1.0},
            {"action": "restrict_registration", "target": "found", "types": ["net", "email_domain", "country"],
             "ttl_s": 900, "after_s": 60},
        ],
    },
    # A report is signed, and its key was used; still it may be a paying customer's only one, so that people arm it.
    LEAKED_KEY: {
        "reason": "a key that GitHub has found in public and that is in use: disable it until an operator lifts it",
        "when": {"detectors": ["leaked"], "measures": ["leaked_key_used"], "targets": ["api_key"]},
        "steps": [{"action": "disable_key", "target": "found", "types": ["api_key"], "ttl_s": None}],
    },
}  # fmt: skip
"""What ships: simulated, so that an operator sees what each would have done before arming it."""


def documents_of(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What ships with what a configuration says of it, and the configuration's own, by name."""
    return {
        name: {**SHIPPED.get(name, {}), **sections.get(name, {})} for name in sorted({*SHIPPED, *sections})
    }  # fmt: skip


def playbooks_of(config: Config) -> dict[str, Playbook]:
    """All playbooks, checked.

    Raises:
        ConfigError: a value is refused, with its path, its bound and what came.
    """
    documents = documents_of(config.playbooks)
    _hear_older_words(config, documents)
    if len(documents) > PLAYBOOKS_MAX:
        raise ConfigError(f"expected at most {PLAYBOOKS_MAX} sections at `$.playbooks`, got {len(documents)}")
    found = {}
    for name, document in documents.items():
        path = f"$.playbooks.{name}"
        if not NAME_PATTERN.fullmatch(name):
            raise ConfigError(f"expected a name of up to 33 letters, digits and hyphens at `$.playbooks`, got {name!r:.80}")
        try:
            found[name] = msgspec.convert(document, Playbook)
        except msgspec.ValidationError as error:
            raise ConfigError(explain(str(error), document, path)) from None
        _check(found[name], path)
    return found


def _hear_older_words(config: Config, documents: dict[str, dict[str, Any]]) -> None:
    """``detectors.leaked.disable`` arms what ships for leaked keys, unless that says its own state."""
    leaked = config.detectors.get(LEAKED, {})
    if leaked.get("disable") is True and "state" not in config.playbooks.get(LEAKED_KEY, {}):
        document = documents[LEAKED_KEY]
        document.update(state="armed", owner=document.get("owner") or "detectors.leaked.disable")
        if leaked.get("disable_unseen") is True:
            document["when"] = {**document["when"], "measures": ["leaked_key_used", "leaked_key_reported"]}


def _check(playbook: Playbook, path: str) -> None:
    """What its fields have to be together. Raises `ConfigError`."""
    if playbook.state == "armed" and not playbook.owner.strip():
        raise ConfigError(f"expected who answers for what is armed at `{path}.owner`, got nothing")
    if playbook.when.agree > len(set(playbook.when.detectors)):
        raise ConfigError(f"expected at most as many as there are detectors at `{path}.when.agree`, got {playbook.when.agree}")
    seen = set()
    for index, step in enumerate(playbook.steps):
        here = f"{path}.steps[{index}]"
        kind = step.action, step.target, step.types
        if kind in seen:
            raise ConfigError(f"expected each action on each kind of target once at `{here}`, got {step.action} again")
        seen.add(kind)
        if (step.target == "listed") != bool(step.values):
            raise ConfigError(f"expected values where the target is listed, and only there, at `{here}.values`")
        if (step.types or step.never) and step.target != "found":
            raise ConfigError(f"expected types and never only where the target is found at `{here}`, got {step.target}")
        if step.action == "disable_key" and (playbook.when.detectors != (LEAKED,) or step.target != "found"):
            raise ConfigError(
                f"expected disable_key only on keys that were found by {LEAKED} (`{path}.when.detectors`) at `{here}.action`"
            )
        if step.ttl_s is None and step.action != "disable_key":
            raise ConfigError(f"expected an end at `{here}.ttl_s`: only a leaked key is disabled without one, got none")
        for at, value in enumerate(step.values):
            _check_value(value, f"{here}.values[{at}]")


def _check_value(value: str, path: str) -> None:
    kind, _, text = value.partition(":")
    if kind == "net":
        (network,) = parse_prefixes((text,), path.removeprefix("$."))
        if network.prefixlen not in NET_LENGTHS[network.version]:
            raise ConfigError(f"expected a network that edges look up (/24, /48) at `{path}`, got {text!r:.80}")
    elif kind == "asn" and not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ConfigError(f"expected the number of an autonomous system at `{path}`, got {text!r:.80}")
    elif kind == "signature":
        try:
            is_object = isinstance(msgspec.json.decode(text), dict)
        except (msgspec.DecodeError, RecursionError):
            is_object = False
        if not is_object:
            raise ConfigError(f"expected a JSON object of attributes at `{path}`, got {text!r:.80}")


def step_name(playbook: str, step: Step) -> str:
    """As what the mitigations of a step are known: the ``detector`` of their records."""
    return f"{PREFIX}{playbook}-{step.action}"


def section_of_step(detector: str) -> str | None:
    """The section that decides about a step's mitigations; None: no playbook's."""
    if not detector.startswith(PREFIX):
        return None
    return SECTION + detector.removeprefix(PREFIX).rpartition("-")[0]


def disables_leaked(playbooks: Mapping[str, Playbook]) -> tuple[str, Playbook] | None:
    """The armed playbook that disables leaked keys, if there is one."""
    for name, playbook in sorted(playbooks.items()):
        if playbook.state == "armed" and any(step.action == "disable_key" for step in playbook.steps):
            return name, playbook
    return None
