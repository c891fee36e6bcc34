"""What playbooks hear of findings, and what their steps are about, in targets and in words."""

from __future__ import annotations

import hashlib

import msgspec
import orjson

from engine.crossing import Crossing, target_value
from engine.naming import SERVICE, key_of
from schemas.config import parse_prefixes
from schemas.fields import Dimension
from schemas.mitigation import Finding
from schemas.playbooks import Playbook, Step

TEXT_MAX = 400
_ONE = (Dimension.IP, Dimension.API_KEY, Dimension.ACCOUNT)
"""Dimensions whose keys are one party each: nobody else is hit, and there is no share to be measured."""
Load = tuple[tuple[str, int | float | str], ...]
"""Features"""
StepTarget = tuple[Dimension, int, int, str, float]
"""(dimension, key, value, collateral) of what a step is about"""


class Heard(msgspec.Struct, frozen=True, array_like=True):
    """A finding, as far as a playbook needs it."""

    tick: int
    partition: int
    detector: str
    dimension: int
    key_a: int
    key_b: int
    value: str
    """Of its target"""
    service: str
    """That it is about; empty: it names none"""
    measure: str
    observed: int
    limit: int
    requests: int
    window_s: int
    severity: int
    confidence: float
    collateral: float | None
    finding: str
    """The id of what was published; empty: nothing was, it only goes on"""
    reason: str
    acts: bool
    """False of a signature that no client's attribute is in: what has it in common is everybody."""


def run_id(playbook: str, version: int, about: str, tick: int) -> str:
    """Of a run: what all its records share."""
    words = f"run|{playbook}|{version}|{about}|{tick}"
    return hashlib.blake2b(words.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def condition_text(playbook: Playbook) -> str:
    """A condition in words."""
    when = playbook.when
    words = " or ".join(when.detectors) if when.agree == 1 else f"{when.agree} of {', '.join(when.detectors)}"
    about = f" about {', '.join(when.measures)}" if when.measures else ""
    lasts = f", for {when.for_s} s" if when.for_s else ""
    return f"{words}{about}{lasts}"[:TEXT_MAX]


def heard_of(crossing: Crossing, finding: Finding | None) -> Heard:
    """What a playbook needs of a finding; none was published: it goes on."""
    dimension, rule, features = crossing.dimension, crossing.rule, dict(crossing.features)
    value = target_value(dimension, crossing.key_a, crossing.key_b, crossing.name)
    collateral = features.get("collateral")
    return Heard(
        crossing.tick, crossing.partition, rule.detector.name, int(dimension), crossing.key_a, crossing.key_b, value,
        _service_of(dimension, value, features), rule.measure, crossing.observed, rule.told_limit, crossing.requests,
        rule.window_s, rule.severity, rule.confidence, float(collateral) if isinstance(collateral, int | float) else None,
        "" if finding is None else finding.id, crossing.told(value)[:TEXT_MAX],
        dimension != Dimension.SIGNATURE or rule.action != "notify",
    )  # fmt: skip


def _service_of(dimension: Dimension, value: str, features: dict[str, int | float | str]) -> str:
    if dimension == Dimension.SERVICE:
        return value
    if dimension == Dimension.SIGNATURE:
        return str(orjson.loads(value).get(SERVICE, ""))
    return str(features.get(SERVICE, ""))


def counts(playbook: Playbook, heard: Heard) -> bool:
    """Whether a finding is one of those that a condition is made of."""
    when = playbook.when
    return (
        (not when.measures or heard.measure in when.measures)
        and (not when.targets or Dimension(heard.dimension).label in when.targets)
        and (not when.services or heard.service in when.services)
        and heard.severity >= when.severity_min
        and heard.confidence >= when.confidence_min
        and heard.observed >= when.times_min * max(heard.limit, 1)
    )


def targets_of(step: Step, heard: Heard) -> list[StepTarget]:
    """(dimension, key, value, collateral) of what a step is about."""
    dimension = Dimension(heard.dimension)
    if step.target == "found":
        if dimension.label not in step.types and (step.types or dimension == Dimension.SERVICE):
            return []
        if heard.value in step.never or not heard.acts:
            return []
        measured = heard.collateral if heard.collateral is not None else 0.0 if dimension in _ONE else 1.0
        return [(dimension, heard.key_a, heard.key_b, heard.value, measured)]
    if step.target == "listed":
        return [(*_listed(value), 1.0) for value in step.values]
    if not heard.service:
        return []
    if step.target == "service":
        value = heard.service.encode("utf-8", "backslashreplace")
        return [(Dimension.SERVICE, *key_of(value), heard.service, 1.0)]
    both = orjson.dumps({"event": "registration", SERVICE: heard.service}, option=orjson.OPT_SORT_KEYS)
    return [(Dimension.SIGNATURE, *key_of(both), both.decode(), 1.0)]


def _listed(text: str) -> tuple[Dimension, int, int, str]:
    kind, _, value = text.partition(":")
    dimension = Dimension[kind.upper()]
    if dimension == Dimension.NET:
        (network,) = parse_prefixes((value,), "playbooks")
        first = int(network.network_address)
        key = (0, 0xFFFF << 32 | first) if network.version == 4 else (first >> 64, 0)
        return dimension, *key, str(network)
    if dimension == Dimension.ASN:
        return dimension, int(value), 0, str(int(value))
    return dimension, *key_of(value.encode()), value


def sentence_of(
    name: str, playbook: Playbook, step: Step, because: str, heard: Heard, load: Load
) -> str:  # fmt: skip
    """The reason of a mitigation."""
    known = dict(load)
    simulated = " (simulated)" if playbook.state != "armed" else ""
    parts = [f"playbook {name}{simulated}: {because}"]
    if step.action == "notify" and known:
        text = f"{known['load_requests_per_s']:,} requests a second, {known['load_usual_per_s']:,} are usual"
        if "load_tokens_per_s" in known:
            tokens, most = known["load_tokens_per_s"], known["load_tokens_p95_per_s"]
            text += f"; {tokens:,} tokens a second, 95 % of minutes have up to {most:,}"
        parts.append(f"to scale out by: {text}")
    return "; ".join(parts)
