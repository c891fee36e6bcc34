"""What judges have written down of their learned detectors: what the last records name, read from the topic of snapshots."""

from __future__ import annotations

from broker.connection import Connection
from broker.offsets import end_offsets, first_offsets
from broker.status import last_messages, read_ranges
from engine.model_state import ModelPlace, place_of, read_snapshot
from engine.snapshot import unpack
from schemas.config import Config
from schemas.errors import BrokerError, StateError
from schemas.topics import MODEL_STATE, STATE


def read_models(config: Config, connection: Connection) -> list[ModelPlace]:
    """By model and judge partition.

    Raises:
        BrokerError: a topic is not there, or may not be read.
    """
    cluster = connection.check()
    state, models = config.kafka.topic_prefix + STATE, config.kafka.topic_prefix + MODEL_STATE
    for name in (state, models):
        if name not in cluster.topics:
            raise BrokerError(f"expected the topic {name}, got nothing of that name; make it: floodwall topics create")
    named: dict[str, dict[int, list[int]]] = {}
    covered: dict[int, int] = {}
    found: list[ModelPlace] = []
    partitions = [(state, number) for number in range(cluster.topics[state])]
    for (_, partition), message in sorted(last_messages(connection, partitions).items()):
        try:
            record = unpack(message.value() or b"")["models"]
            covered[partition] = int(record["covered"])
            for model, where in record["named"].items():
                named.setdefault(model, {})[partition] = list(where["offsets"])
            found += [_cold(model, partition, why) for model, why in record["refused"].items() if model not in record["named"]]
        except (StateError, AttributeError, KeyError, TypeError, ValueError):
            continue  # of another version: there is nothing to show
    for model, offsets in named.items():  # one by one, because they may lie far apart
        for partition, data in _snapshots(connection, models, offsets).items():
            try:
                saved = read_snapshot(data)["saved"]
                found.append(place_of(model, partition, saved, covered[partition], len(data)))
            except StateError as error:
                found.append(_cold(model, partition, str(error)))
    return sorted(found, key=lambda place: (place.model, place.partition or 0))


def _cold(model: str, partition: int, why: str) -> ModelPlace:
    return ModelPlace(model, partition, None, None, 0, True, why, {}, {})


def _snapshots(connection: Connection, topic: str, offsets: dict[int, list[int]]) -> dict[int, bytes]:
    """The bytes at the offsets of each partition; none where one of them is not there any more."""
    keys = [(topic, partition) for partition in offsets]
    firsts, ends = first_offsets(connection, keys), end_offsets(connection, keys)
    spans = {
        (topic, partition): (max(min(some), firsts[topic, partition]), min(max(some) + 1, ends[topic, partition]))
        for partition, some in offsets.items()
        if some
    }
    starts = {key: start for key, (start, end) in spans.items() if start < end}
    read = read_ranges(connection, starts, {key: end for key, (_, end) in spans.items()})
    found = {}
    for partition, some in offsets.items():
        pieces = {message.offset(): message.value() or b"" for message in read.get((topic, partition), ())}
        found[partition] = b"".join(pieces[offset] for offset in some) if pieces.keys() >= set(some) else b""
    return found
