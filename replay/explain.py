"""explain: everything that topics, or files written by ``--out`` and ``--findings``, say about one mitigation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.config_chain import ConfigChain
from engine.seeds import make_seeds
from replay.passing_on import as_shown, passed_on, rules_passed_on, traffic_passed_on
from replay.reread import Range, Reread, file_ranges, reread, shown_span
from replay.rules_then import advise_back, rules_then
from replay.shown import shown_by
from replay.sources import lines_of
from replay.story import Explanation, Records, Verdict, newest, tell
from schemas.acknowledgement import Acknowledgement
from schemas.config import Config
from schemas.errors import BrokerError, SourceError
from schemas.mitigation import Finding, Mitigation, Target
from schemas.pseudonyms import Pseudonyms
from schemas.topics import ENFORCEMENT_ACKS, FEEDBACK, FINDINGS, MITIGATIONS

AROUND_S = 600
"""Findings about the target are looked for from so long before the mitigation on: for longer than voices count together."""
FINDINGS_MAX = 2000
"""Of one target."""
Whole = TypeVar("Whole")
Standing = Callable[[list[Mitigation], int], Mitigation | None]
"""(records of a target, now): what is in force on it, by the rules of edges."""


def explain_files(
    chain: ConfigChain, identifier: str, mitigations: Path, findings: Path | None, logs: list[str], now: int,
    standing: Standing, pseudonyms: Pseudonyms | None = None,
) -> Explanation:  # fmt: skip
    """From what an embedded run wrote down, under ``chain``, the history that it was given.

    Raises:
        SourceError: a file cannot be read, or no mitigation has the id.
    """
    target = _target_of(_records(mitigations, Mitigation, identifier), identifier, str(mitigations))
    records = Records(mitigations=[one for one in _records(mitigations, Mitigation, target.value) if one.target == target])
    if findings is not None:
        records.findings = [one for one in _records(findings, Finding, target.value) if one.target == target]
    return _explained(chain, identifier, records, now, standing, pseudonyms, live=False, logs=logs)


def explain_topics(
    config: Config, identifier: str, logs: list[str], now: int, standing: Standing, pseudonyms: Pseudonyms | None = None
) -> Explanation:
    """From the topics.

    Raises:
        BrokerError: Kafka cannot be reached, or a topic may not be read. SourceError: no mitigation has the id.
    """
    from broker.config_topic import read_history
    from broker.connection import Connection
    from broker.reading import read_topic_from

    connection, prefix = Connection(config.kafka), config.kafka.topic_prefix
    connection.check()

    published: dict[str, list[int | None]] = {}

    def read(topic: str, kind: type[Whole], needle: str, from_ms: int | None) -> Iterator[Whole]:
        inside = _needle(needle)
        for message in read_topic_from(connection, prefix + topic, from_ms):
            value = message.value() or b""
            if inside in value and (one := _decoded(value, kind)) is not None:
                if isinstance(one, Mitigation):
                    _note(published, one, message.timestamp()[1])
                yield one

    target = _target_of(read(MITIGATIONS, Mitigation, identifier, None), identifier, prefix + MITIGATIONS)
    records = Records(mitigations=[one for one in read(MITIGATIONS, Mitigation, target.value, None) if one.target == target])
    first = min(one.tick for one in records.mitigations)
    own = newest([one for one in records.mitigations if one.id == identifier])
    missing = []
    try:
        around = max(first, own.tick - AROUND_S)
        for finding in read(FINDINGS, Finding, target.value, 1000 * max(0, around - AROUND_S)):
            if finding.target == target and len(records.findings) < FINDINGS_MAX:
                records.findings.append(finding)
        ids = {one.id for one in records.mitigations}
        for ack in read(ENFORCEMENT_ACKS, Acknowledgement, target.value, 1000 * max(0, first - AROUND_S)):
            if ack.id in ids:
                records.acknowledgements.append(ack)
        for verdict in read(FEEDBACK, Verdict, '"id"', None):
            if verdict.id in ids:
                records.feedback.append(verdict)
    except BrokerError as error:  # whoever may read the enforcement topic only is told what there is
        missing.append(str(error))
    records.published = {name: (first, final) for name, (first, final) in published.items() if first is not None}
    chain = ConfigChain(config)
    try:
        chain, _ = read_history(config, connection)
    except BrokerError as error:
        missing.append(str(error))
    told = _explained(chain, identifier, records, now, standing, pseudonyms, live=True, logs=logs)
    if told.traffic is not None:
        told.traffic.missing += missing
    return told


def _explained(
    chain: ConfigChain, identifier: str, records: Records, now: int, standing: Standing, pseudonyms: Pseudonyms | None, *,
    live: bool, logs: list[str],
) -> Explanation:  # fmt: skip
    own = newest([one for one in records.mitigations if one.id == identifier])
    config, rules = rules_then(chain, own)
    stands = standing(records.mitigations, now)
    if pseudonyms is not None:
        passed = passed_on(records, pseudonyms)
        stands = None if stands is None else pseudonyms.mitigation(stands)
        told = tell(passed, pseudonyms.identifier(identifier), stands, now, live=live)
        told.next = []  # what to type names whom it is about
        told.traffic = traffic_passed_on(read_traffic(config, own, logs, live=live), own.target, pseudonyms)
        told.rules = rules_passed_on(rules, pseudonyms)
        return as_shown(told, shown_by(config, pseudonyms=True))
    told = tell(records, identifier, stands, now, live=live)
    told.next += advise_back(rules)
    told.rules = rules
    told.traffic = read_traffic(config, own, logs, live=live)
    return as_shown(told, shown_by(config))


def read_traffic(config: Config, own: Mitigation, logs: list[str], *, live: bool) -> Reread | None:
    """The evidence read again, from files where they are there, else from topics; None: there is no evidence.

    Raises:
        SourceError: as `replay.reread.reread`.
    """
    if not own.evidence.offsets:
        return None
    ranges, unknown = file_ranges(config, own, logs)
    missing: list[str] = []
    if unknown and live:
        more, missing = _topics_of(config, own, unknown)
        ranges += more
    elif unknown:
        missing = [f"{name} is not here: name the log with --log" for name in unknown]
    start, end = shown_span(own)
    seeds = make_seeds(config)
    found = Reread(start, end, [])
    try:
        found = reread(config, own, ranges, seeds.key) if ranges else found
    except BrokerError as error:  # whoever may not read the traffic is told everything else
        missing.append(str(error))
    fingerprint = own.evidence.features.get("seed")
    if own.target.type == "api_key" and not found.events and fingerprint not in (None, seeds.fingerprint):
        missing.append("keys have other fingerprints under another secret: set the seed that decided (FLOODWALL_SEED)")
    found.missing += missing
    return found


def _topics_of(config: Config, own: Mitigation, names: list[str]) -> tuple[list[Range], list[str]]:
    from broker.connection import Connection
    from replay.reread_kafka import kafka_ranges

    start, _ = shown_span(own)
    from_ms = 1000 * (start - config.time.lateness_s)
    try:
        return kafka_ranges(Connection(config.kafka), {name: own.evidence.offsets[name] for name in names}, from_ms)
    except BrokerError as error:  # the rest can be told without the traffic
        return [], [str(error)]


def _note(published: dict[str, list[int | None]], one: Mitigation, at_ms: int) -> None:
    """When the first and the final record of a mitigation came."""
    times = published.setdefault(one.id, [at_ms, None])
    if one.stage == "final" and times[1] is None:
        times[1] = at_ms


def _target_of(found: Iterator[Mitigation], identifier: str, where: str) -> Target:
    for one in found:
        if one.id == identifier:
            return one.target
    raise SourceError(f"expected a mitigation {identifier[:64]!a} in {where}, found none")


def _records(path: Path, kind: type[Whole], needle: str) -> Iterator[Whole]:
    """Records of a file that hold some text; what is no such record is skipped."""
    inside = _needle(needle)
    for line in lines_of(str(path)):
        if inside in line and (one := _decoded(line, kind)) is not None:
            yield one


def _needle(text: str) -> bytes:
    """A text as it stands within a record in JSON."""
    return text.encode() if text == '"id"' else msgspec.json.encode(text)


def _decoded(data: bytes, kind: type[Whole]) -> Whole | None:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
