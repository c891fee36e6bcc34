"""Decisions of a live run, read from a file of mitigations or from the enforcement topic, to be compared with a replay."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from replay.collected import Collected
from replay.runs import Run
from replay.sources import KAFKA_SCHEME, lines_of
from schemas.config import Config
from schemas.errors import SourceError
from schemas.mitigation import OPERATOR, decode_mitigation


def decided(config: Config, source: str, between_s: tuple[int, int]) -> Run:
    """Final records of detectors about the seconds ``[from, to)``, in the order in which they were written.

    Operators' own records are left out: no replay could have made them.

    Raises:
        SourceError: it cannot be read, or a line is no mitigation. BrokerError: Kafka cannot be read.
    """
    collected = Collected(findings_max=0, evidence=False)
    by_operators = outside = read = unreadable = 0
    for number, line in enumerate(_records(config, source), 1):
        if not line.strip():
            continue
        try:
            record = decode_mitigation(line)
        except msgspec.DecodeError as error:
            if not source.startswith(KAFKA_SCHEME):
                raise SourceError(f"expected one mitigation a line in {source}, got in line {number}: {error}") from None
            unreadable += 1
            continue
        read += 1
        if record.detector == OPERATOR:
            by_operators += 1
        elif record.stage == "final":
            if between_s[0] <= record.tick < between_s[1]:
                collected.add(record)
            else:
                outside += 1
    said = collected.said()
    for count, text in (
        (by_operators, "records of operators are left out"), (outside, "final records are about other seconds"),
        (unreadable, "records are no mitigations"),
    ):  # fmt: skip
        if count:
            said.append(f"{count:,} {text}")
    return Run(mitigations=collected.mitigations, events=read, said=said, is_whole=collected.is_whole)


def _records(config: Config, source: str) -> Iterator[bytes]:
    if not source.startswith(KAFKA_SCHEME):
        yield from lines_of(source)
        return
    from broker.connection import Connection
    from broker.reading import read_values
    from replay.kafka import split_url

    brokers, topics = split_url(source)
    kafka = msgspec.structs.replace(config.kafka, brokers=brokers) if brokers else config.kafka
    connection = Connection(kafka)
    connection.check()
    for topic in topics:
        yield from read_values(connection, topic)
