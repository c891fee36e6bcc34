"""Runs of playbooks as their records tell of them, and what ends one at edges until judges have."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from broker.connection import Connection
from broker.signing import verifier_of
from edge.feedback import bridge_from
from edge.snapshot import read_topic
from engine.clock import Clock
from schemas.config import Config
from schemas.feedback import Feedback
from schemas.mitigation import Mitigation
from schemas.prefixes import Prefixes
from schemas.topics import MITIGATIONS


class Run(msgspec.Struct, kw_only=True):
    """What is known of a run."""

    run: str
    playbook: str
    state: str
    """Of its playbook, then: ``simulated`` or ``armed``"""
    since: int
    last: int
    """When its condition was seen last"""
    until: int
    """When the last of what it has published ends"""
    reverted: bool = False
    reason: str = ""
    steps: list[Mitigation] = []
    """The last record of each target and step"""


def runs_of(values: Iterable[bytes]) -> list[Run]:
    """The runs that records of mitigations tell of, as they lie on the topic or a line each in a file; the latest last."""
    found: dict[str, Run] = {}
    latest: dict[tuple[str, str, str, str], Mitigation] = {}
    run_by_id: dict[str, str] = {}
    for value in values:
        if b'"run' not in value and b'"lifted"' not in value:
            continue
        try:
            one = msgspec.json.decode(value, type=Mitigation)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        run = str(one.evidence.features.get("run") or run_by_id.get(one.id, ""))
        if not run:
            continue
        run_by_id[one.id] = run
        latest[run, one.target.type, one.target.value, one.detector] = one
        known = found.get(run)
        if known is None:
            features = one.evidence.features
            known = found[run] = Run(
                run=run, playbook=str(features.get("playbook", "")), state=str(features.get("playbook_state", "")),
                since=int(features.get("run_since", one.tick)), last=one.tick, until=one.expires_at,
            )  # fmt: skip
        known.last, known.until = max(known.last, one.tick), max(known.until, one.expires_at)
        known.reason = one.reason
    for (run, *_), one in latest.items():
        found[run].steps.append(one)
    for known in found.values():
        known.reverted = any(one.state == "lifted" for one in known.steps)
        if known.reverted:
            known.until = max((one.issued_at for one in known.steps if one.state == "lifted"), default=known.until)
    return sorted(found.values(), key=lambda one: (one.since, one.run))


def bridges_of(
    config: Config, connection: Connection, core: Prefixes, clock: Clock, record: Feedback, run: Run
) -> list[Mitigation]:  # fmt: skip
    """An allow for each target on which a run has something in force, until the judges' lifts are there.

    Raises:
        BrokerError: the enforcement topic cannot be read.
    """
    topic = config.kafka.topic_prefix + MITIGATIONS
    reader = read_topic(connection, topic, core, clock, lambda one, value: None, verifier_of(config, topic))
    found = {}
    for step in run.steps:
        about = msgspec.structs.replace(record, detector=step.detector, target=step.target)
        bridge = bridge_from(config, reader, clock, about)
        if bridge is not None:
            found[step.target] = bridge
    return list(found.values())
