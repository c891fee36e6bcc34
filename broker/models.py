"""What judges have written down of their learned detectors: what the last records name, read from the topic of snapshots."""

from __future__ import annotations

from broker.connection import Connection
from broker.offsets import first_offsets
from broker.status import last_messages, message_at
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
    partitions = [(state, number) for number in range(cluster.topics[state])]
    found = []
    for (_, partition), message in sorted(last_messages(connection, partitions).items()):
        try:
            record = unpack(message.value() or b"")["models"]
            named, covered, refused = record["named"], int(record["covered"]), record["refused"]
        except (StateError, KeyError, TypeError, ValueError):
            continue  # of another version: there is nothing to show
        for model, where in named.items():
            pieces = [_value_at(connection, models, partition, offset) for offset in where["offsets"]]
            data = b"".join(piece or b"" for piece in pieces)
            try:
                if any(piece is None for piece in pieces):
                    raise StateError("expected the snapshot that the record names, it is not there")
                found.append(place_of(model, partition, read_snapshot(data)["saved"], covered, len(data)))
            except StateError as error:
                found.append(ModelPlace(model, partition, None, None, len(data), True, str(error), {}, {}))
        found += [
            ModelPlace(model, partition, None, None, 0, True, why, {}, {})
            for model, why in refused.items()
            if model not in named
        ]
    return sorted(found, key=lambda place: (place.model, place.partition or 0))


def _value_at(connection: Connection, topic: str, partition: int, offset: int) -> bytes | None:
    if offset < first_offsets(connection, [(topic, partition)])[topic, partition]:
        return None
    message = message_at(connection, (topic, partition), offset)
    return message.value() if message is not None and message.offset() == offset else None
