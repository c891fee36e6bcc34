"""Live against replay, and against a copy: verify says equal for every mitigation, or where the topics differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import Result
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from floodwall.cli import app
from schemas.mitigation import decode_mitigation
from schemas.tally import SILENT_MS
from tests.kafka.deployment import JUDGE_PARTITIONS, Deployment, Message, deploy
from tests.kafka.test_workers import last_tick, split

PARTITIONS = 2


def copied(deployment: Deployment, messages: list[Message], topic: str) -> None:
    """The same messages at the same offsets, with their times."""
    client = AdminClient({"bootstrap.servers": deployment.bootstrap})
    for made in client.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        made.result(30)
    producer = Producer({"bootstrap.servers": deployment.bootstrap, "linger.ms": 5, "enable.idempotence": True})
    for message in messages:
        while True:
            try:
                producer.produce(topic, message.value, partition=message.partition, timestamp=message.timestamp_ms)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def all_are_silent(deployment: Deployment) -> bool:
    """Every judge partition has heard of every source partition that it has never held anything."""
    records = deployment.records()
    sources = [source for record in records.values() for source in record.state["intake"]["sources"].values()]
    return len(records) == JUDGE_PARTITIONS and all(newest_ms == SILENT_MS for _, newest_ms, *_ in sources)


def test_live_is_equal_to_replay_and_a_copy_with_another_byte_is_not(
    broker: str, tmp_path: Path, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(tmp_path / "config.toml")])

    def verify(*words: str) -> tuple[int, dict[str, Any]]:
        done = run("verify", "--all", "--json", *words)
        assert done.exit_code in (0, 1, 3), done.output
        return done.exit_code, orjson.loads(done.stdout)

    with deploy(broker, tmp_path, unique("verify")[-40:], PARTITIONS) as deployment:
        monkeypatch.setenv("FLOODWALL_SEED", str(deployment.config.engine.seed))
        for _ in range(2):
            deployment.start("observe")
            deployment.start("judge")
        deployment.wait_joined()
        deployment.wait(lambda: all_are_silent(deployment), 30, "every judge to hear that nothing is there")
        one, *others = split(PARTITIONS)  # sent at full speed, one partition is far ahead before the others begin
        deployment.produce([one[: len(one) // 2], *([] for _ in others)])
        deployment.produce([one[len(one) // 2 :], *others])
        deployment.wait_judged(last_tick())
        deployment.stop_all()
        live = deployment.mitigations()
        finals = {one.id for one in live if one.stage == "final"}
        assert all(one.evidence.digests.keys() == one.evidence.offsets.keys() for one in live)

        out = tmp_path / "out.ndjson"
        assert run("replay", f"kafka:///{deployment.raw}", "--out", str(out)).exit_code == 0
        assert finals == {decode_mitigation(line).id for line in out.read_bytes().splitlines()}
        code, told = verify()
        assert (code, told["equal"]) == (0, len({one.id for one in live})), told
        assert told["from_the_beginning"]

        messages = deployment.read(deployment.raw)
        name, (first, end) = next(iter(live[0].evidence.offsets.items()))
        changed = next(m for m in messages if (f"{deployment.raw}-{m.partition}", m.offset) == (name, (first + end) // 2))
        changed.value = changed.value[:40] + bytes([changed.value[40] ^ 1]) + changed.value[41:]
        copied(deployment, messages, copy := deployment.raw + "-copy")
        code, told = verify(f"kafka:///{copy}", "--original", f"kafka:///{deployment.raw}")
        places = [place for one in told["verified"] for place in one["places"]]
        assert code == 1
        assert places
        assert {(place["source"], place["offset"], place["what"]) for place in places} == {
            (name, changed.offset, "byte 40 of the record")
        }
        assert all(place["start"] <= changed.offset < place["end"] for place in places)

        client = AdminClient({"bootstrap.servers": broker})
        for deleted in client.delete_records([TopicPartition(copy, changed.partition, end)]).values():
            deleted.result(30)
        code, told = verify(f"kafka:///{copy}")
        assert code == 3, told
        assert told["differs"] == 0  # the byte that was changed is gone
        missing = next(one for one in told["verified"] if one["id"] == live[0].id)["missing"]
        assert f"{name} keeps offsets from {end} on, the evidence begins at" in missing[0]
