"""What a report reads again: the traffic of some mitigations, and what edges said of them."""

from __future__ import annotations

from replay.explain import read_traffic
from replay.report.build import Acknowledged
from replay.report.document import Detail, Line
from replay.reread import Reread
from schemas.acknowledgement import Acknowledgement
from schemas.config import Config
from schemas.errors import FloodwallError
from schemas.mitigation import Mitigation
from schemas.topics import ENFORCEMENT_ACKS, MITIGATIONS

BYTES_MAX = 1 << 30
"""Of files, read again for all mitigations of a report together, as their offsets say: they are chosen by weight until then."""
SECONDS_SHOWN = 120
"""The last of a window: longer ones are told in numbers."""


class EvidenceReader:
    """Reads evidence again, up to a bound.

    Args:
        live: some of it lies in topics.
    """

    def __init__(self, config: Config, *, live: bool) -> None:
        self._config, self._live = config, live
        self._left = BYTES_MAX

    def read(self, mitigation: Mitigation) -> Detail | None:
        """The traffic of a mitigation; none: there is no evidence, or it would be too much."""
        offsets = mitigation.evidence.offsets
        size = sum(end - first for first, end in offsets.values())
        if not offsets or "-" in offsets or (not self._live and size > self._left):
            return None
        self._left -= size
        try:
            found = read_traffic(self._config, mitigation, [], live=self._live)
        except FloodwallError as error:
            return _told(Reread(mitigation.window.start, mitigation.window.start, [], missing=[str(error)]))
        return None if found is None else _told(found)


def _told(found: Reread) -> Detail:
    first = max(0, len(found.per_second) - SECONDS_SHOWN)
    missing = list(found.missing)
    if found.cut:
        missing.append("There was more than is read again.")
    if not found.events and not missing:
        missing.append("None of it was found again; was it decided with other settings?")
    return Detail(
        events=found.events, all_events=found.all_events, start=found.start + first, per_second=found.per_second[first:],
        answers=dict(list(found.answers.items())[:8]), most=found.most, distinct=found.distinct,
        lines=[Line(source=one.source, offset=one.offset, text=one.text) for one in found.samples], missing=missing,
    )  # fmt: skip


def acknowledgements(config: Config, mitigations: list[Mitigation], start: int) -> Acknowledged:
    """How long edges took, where the topics still say so. The ids of a replay are those of the live run."""
    import msgspec

    from broker.connection import Connection
    from broker.reading import read_topic_from

    ids = {one.id for one in mitigations}
    found = Acknowledged()
    if not ids:
        return found
    published: dict[str, int] = {}
    edges: set[str] = set()
    try:
        connection, prefix = Connection(config.kafka), config.kafka.topic_prefix
        connection.check()
        for message in read_topic_from(connection, prefix + MITIGATIONS, 1000 * start):
            try:
                record = msgspec.json.decode(message.value() or b"", type=Mitigation)
            except msgspec.MsgspecError:
                continue
            if record.id in ids:
                published.setdefault(record.id, message.timestamp()[1])
        for message in read_topic_from(connection, prefix + ENFORCEMENT_ACKS, 1000 * start):
            try:
                ack = msgspec.json.decode(message.value() or b"", type=Acknowledgement)
            except msgspec.MsgspecError:
                continue
            if ack.id in published and ack.outcome == "applied":
                seconds = max(0.0, (ack.applied_at_ms - published[ack.id]) / 1000)
                found.seconds[ack.id] = min(seconds, found.seconds.get(ack.id, seconds))
                edges.add(ack.edge)
    except FloodwallError as error:
        found.note = f"The topics of edges could not be read: {error}"
        return found
    found.edges = len(edges)
    if not found.seconds:
        found.note = "No edge has acknowledged any of these mitigations."
    return found
