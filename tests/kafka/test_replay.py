"""Replay of a topic decides as replay of a file with the same lines, and nobody notices it."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from broker.connection import Connection
from broker.local import LocalBroker
from drills.traffic import combined_lines
from engine.account import Account
from engine.clock import SystemClock
from engine.outbox import Decisions
from floodwall.cli import app
from replay import kafka as topics
from replay.kafka_ahead import Ahead
from replay.produce import produce
from replay.run import replay
from replay.sink import Sink
from schemas.config import load_config
from schemas.config_change import encode_change
from schemas.errors import BrokerError, SourceError
from schemas.topics import CONFIG as CONFIG_TOPIC
from tests.engines import config_of, nothing_was_bounded
from tests.histories import history

FLOODWALL = [str(Path(sys.executable).parent / "floodwall")]
TRAFFIC = combined_lines(seed=41, events=20_000, attackers=3)
LINES = TRAFFIC.lines()
CONFIG = config_of({"kafka": {"development": True}})


class Ids(Sink):
    def __init__(self) -> None:
        super().__init__()
        self.final: set[str] = set()

    def write(self, decisions: Decisions) -> None:
        super().write(decisions)
        self.final |= {m.id for m in decisions.mitigations if m.stage == "final"}


def decide(source: str, between_ms: tuple[int | None, int | None] = (None, None)) -> tuple[set[str], Account]:
    sink = Ids()
    outcome = replay(CONFIG, [source], sink, SystemClock(), between_ms=between_ms)
    return sink.final, outcome.account


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "access.log"
    path.write_bytes(TRAFFIC.data)
    return path


@pytest.fixture(scope="module")
def expected(log: Path) -> set[str]:
    final, account = decide(str(log))
    assert nothing_was_bounded(account)
    assert final
    return final


@pytest.fixture
def make_topic(broker: str, unique: Callable[[str], str]) -> Callable[[int], str]:
    def make(partitions: int) -> str:
        name = unique(f"log{partitions}")
        admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
        admin.create_topics([NewTopic(name, partitions)])[name].result(timeout=10)
        return name

    return make


def producer_for(broker: str, **more: str) -> Producer:
    # Idempotent: else a batch that a new topic refuses at first comes again behind later ones, and its events are late.
    settings = {"bootstrap.servers": broker, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
    return Producer(settings | {name.replace("_", "."): value for name, value in more.items()})


@pytest.mark.parametrize("partitions", [1, 4])
def test_the_same_ids_as_the_file_over_any_partitioning(
    partitions: int, broker: str, make_topic: Callable[[int], str], expected: set[str]
) -> None:
    topic, producer = make_topic(partitions), producer_for(broker)
    for number, line in enumerate(LINES):
        producer.produce(topic, line, partition=number % partitions)
    producer.flush(30)
    final, account = decide(f"kafka://{broker}/{topic}")
    assert final == expected
    assert nothing_was_bounded(account)
    assert account.records == account.counted == len(LINES)


def test_envelopes_of_many_lines(broker: str, make_topic: Callable[[int], str], expected: set[str]) -> None:
    topic, producer = make_topic(2), producer_for(broker)
    for number, at in enumerate(range(0, len(LINES), 50)):
        producer.produce(topic, b"".join(LINES[at : at + 50]), partition=number % 2)
    producer.flush(30)
    final, account = decide(f"kafka://{broker}/{topic}")
    assert final == expected
    assert (account.records, account.events) == (len(LINES) // 50, len(LINES))


def test_pieces_are_cut_by_bytes_whatever_the_length_of_messages(broker: str, make_topic: Callable[[int], str]) -> None:
    topic, producer = make_topic(1), producer_for(broker)
    values = [b"%d " % number * (number % 7 + 1) * (3000 if 600 <= number < 900 else 1) for number in range(1200)]
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.flush(30)
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": "pieces", "enable.auto.commit": False, "isolation.level": "read_committed"}
    )
    consumer.assign([TopicPartition(topic, 0, 100)])
    ahead = Ahead(consumer, 100, 1150, 1 << 16)
    read, offsets, sizes = list[bytes](), list[int](), list[int]()
    try:
        while len(read) < 1050:
            piece = ahead.take()
            ahead.ask()
            read += [piece.buffer[s:e].tobytes() for s, e in zip(piece.starts.tolist(), piece.ends.tolist(), strict=True)]
            offsets += piece.offsets.tolist()
            sizes.append(piece.length)
    finally:
        ahead.close()
        consumer.close()
    assert read == values[100:1150]
    assert offsets == list(range(100, 1150))
    assert max(sizes) <= max(1 << 16, *map(len, values))


def test_transactions_leave_no_gap_and_what_was_given_up_is_not_read(
    broker: str, make_topic: Callable[[int], str], unique: Callable[[str], str], expected: set[str]
) -> None:
    topic = make_topic(1)
    producer = producer_for(broker, transactional_id=unique("writer"))
    producer.init_transactions(20)
    for number, at in enumerate(range(0, len(LINES), 2000)):
        producer.begin_transaction()
        for line in LINES[at : at + 2000]:
            producer.produce(topic, line, partition=0)
        if number % 3 == 1:  # once in vain, then once more
            producer.flush(20)
            producer.abort_transaction(20)
            producer.begin_transaction()
            for line in LINES[at : at + 2000]:
                producer.produce(topic, line, partition=0)
        producer.commit_transaction(20)
    final, account = decide(f"kafka://{broker}/{topic}")
    assert final == expected
    assert nothing_was_bounded(account)
    assert account.records == len(LINES)


def test_a_transaction_that_is_open_is_not_waited_for(
    broker: str, make_topic: Callable[[int], str], unique: Callable[[str], str]
) -> None:
    topic = make_topic(1)
    plain, producer = producer_for(broker), producer_for(broker, transactional_id=unique("writer"))
    plain.produce(topic, LINES[0], partition=0)
    plain.flush(10)
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, LINES[1], partition=0)
    producer.flush(10)
    try:
        assert decide(f"kafka://{broker}/{topic}")[1].records == 1
    finally:
        producer.abort_transaction(20)


def test_from_and_to_by_the_time_of_the_events(broker: str, make_topic: Callable[[int], str], log: Path) -> None:
    times_ms = TRAFFIC.times_ms.tolist()
    topic, producer = make_topic(1), producer_for(broker)
    for line, moment in zip(LINES, times_ms, strict=True):
        producer.produce(topic, line, partition=0, timestamp=moment)
    producer.flush(30)
    low, high = min(times_ms), max(times_ms)
    between_ms = low + (high - low) // 3, low + 2 * (high - low) // 3
    final, account = decide(f"kafka://{broker}/{topic}", between_ms=between_ms)
    from_file, whole = decide(str(log), between_ms=between_ms)
    assert final == from_file
    assert account.counted == whole.counted
    assert account.records < whole.records


def test_ranges_of_offsets_are_read_and_written_down(broker: str, make_topic: Callable[[int], str]) -> None:
    topic, producer = make_topic(2), producer_for(broker)
    for number, line in enumerate(LINES[:1000]):
        producer.produce(topic, line, partition=number % 2)
    producer.flush(10)
    url, offsets = f"kafka://{broker}/{topic}", {f"{topic}-1": (100, 350)}
    outcome = replay(CONFIG, [url], Sink(), SystemClock(), offsets=offsets, manifest=True)
    assert outcome.manifest is not None
    [entry] = outcome.manifest["sources"]
    values = [LINES[2 * offset + 1] for offset in range(100, 350)]
    pairs = b"".join(struct.pack(">qq", 100 + index, len(value)) for index, value in enumerate(values))
    assert (entry["from"], entry["to"], entry["end"], entry["messages"], entry["events"]) == (100, 350, 350, 250, 250)
    assert entry["sha256"] == hashlib.sha256(b"".join(values)).hexdigest()
    assert entry["sha256_offsets"] == hashlib.sha256(pairs).hexdigest()
    assert outcome.missing == {}
    outcome = replay(CONFIG, [url], Sink(), SystemClock(), offsets={f"{topic}-0": (None, 600)})
    assert outcome.missing == {f"{topic}-0": ["offsets 500 to 599 are not there yet"]}
    with pytest.raises(SourceError, match=f"expected offsets of a partition that is read, got {topic}-7"):
        replay(CONFIG, [url], Sink(), SystemClock(), offsets={f"{topic}-7": (1, 2)})


def expire(broker: str, topic: str, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    for future in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result(timeout=10)


def test_what_retention_has_taken_is_said_whatever_was_asked_for(broker: str, make_topic: Callable[[int], str]) -> None:
    topic, producer = make_topic(1), producer_for(broker)
    for line, moment in zip(LINES[:100], TRAFFIC.times_ms.tolist(), strict=False):
        producer.produce(topic, line, partition=0, timestamp=moment)
    producer.flush(10)
    expire(broker, topic, 40)
    url, name = f"kafka://{broker}/{topic}", f"{topic}-0"
    outcome = replay(CONFIG, [url], Sink(), SystemClock())
    assert outcome.missing == {name: ["offsets 0 to 39 are no longer kept"]}
    assert (outcome.account.records, outcome.account.gaps) == (60, 0)
    since_ms = int(TRAFFIC.times_ms[0])
    outcome = replay(CONFIG, [url], Sink(), SystemClock(), between_ms=(since_ms, None))
    assert outcome.missing[name][0].endswith("what they held of the time that was asked for, nobody knows")
    outcome = replay(CONFIG, [url], Sink(), SystemClock(), offsets={name: (10, 50)})
    assert (outcome.missing[name], outcome.account.records) == (["offsets 10 to 39 are no longer kept"], 10)


def test_what_retention_takes_while_it_is_read_leaves_a_gap_and_is_said(
    broker: str, make_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, producer = make_topic(1), producer_for(broker)
    for line in LINES[:100]:
        producer.produce(topic, line, partition=0)
    producer.flush(10)
    plan = topics.plan_spans

    def plan_and_expire(*args: object) -> list[topics.Span]:
        spans = plan(*args)  # type: ignore[arg-type]
        expire(broker, topic, 40)
        return spans

    monkeypatch.setattr(topics, "plan_spans", plan_and_expire)
    outcome = replay(CONFIG, [f"kafka://{broker}/{topic}"], Sink(), SystemClock())
    assert outcome.missing == {f"{topic}-0": ["offsets 0 to 39 were deleted before they could be read"]}
    assert (outcome.account.records, outcome.account.gaps) == (60, 1)


def test_the_end_is_where_it_was_when_the_run_began(broker: str, make_topic: Callable[[int], str]) -> None:
    topic, producer = make_topic(1), producer_for(broker)
    for line in LINES[:100]:
        producer.produce(topic, line, partition=0)
    producer.flush(10)
    config = config_of({"kafka": {"development": True, "brokers": [broker]}})
    spans = topics.plan_spans(Connection(config.kafka), (topic,), None, {})
    for line in LINES[100:200]:
        producer.produce(topic, line, partition=0)
    producer.flush(10)
    assert [(span.name, span.start, span.end) for span in spans] == [(f"{topic}-0", 0, 100)]


def test_no_group_is_joined_and_nothing_committed(broker: str, make_topic: Callable[[int], str]) -> None:
    topic, producer = make_topic(1), producer_for(broker)
    producer.produce(topic, LINES[0], partition=0)
    producer.flush(10)
    decide(f"kafka://{broker}/{topic}")
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    groups = {group.group_id for group in admin.list_consumer_groups().result(timeout=10).valid}
    assert not {group for group in groups if "replay" in group}


def test_poison_is_counted_with_its_offset(broker: str, make_topic: Callable[[int], str]) -> None:
    topic, producer = make_topic(1), producer_for(broker)
    for value in (LINES[0], b"nonsense", None, b"", LINES[1], b"\0\0"):
        producer.produce(topic, value, partition=0)
    producer.flush(10)
    account = decide(f"kafka://{broker}/{topic}")[1]
    assert (account.records, account.events, account.empty) == (6, 2, 2)
    assert [(sample.reason, sample.offset, sample.start) for sample in account.poison_samples] == [
        ("not_a_record", 1, 0),
        ("binary", 5, 0),
    ]


def test_a_run_goes_on_from_its_state(
    broker: str, make_topic: Callable[[int], str], tmp_path: Path, expected: set[str]
) -> None:
    topic, producer = make_topic(2), producer_for(broker)
    state, sink = tmp_path / "state", Ids()
    half = len(LINES) // 2
    for lines in (LINES[:half], LINES[half:]):
        for number, line in enumerate(lines):
            producer.produce(topic, line, partition=number % 2)
        producer.flush(30)
        outcome = replay(CONFIG, [f"kafka://{broker}/{topic}"], sink, SystemClock(), state=state)
    assert outcome.account.records == len(LINES)
    assert (outcome.account.gaps, outcome.account.duplicates) == (0, 0)


def test_a_broker_that_vanishes_ends_the_run_with_one_line(
    local_broker: LocalBroker, make_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, producer = make_topic(1), producer_for(local_broker.bootstrap)
    producer.produce(topic, LINES[0], partition=0)
    producer.flush(10)
    monkeypatch.setattr(topics, "SILENCE_S_MAX", 2.0)
    plan = topics.plan_spans

    def plan_and_kill(*args: object) -> list[topics.Span]:
        spans = plan(*args)  # type: ignore[arg-type]
        local_broker.kill()
        return spans

    monkeypatch.setattr(topics, "plan_spans", plan_and_kill)
    try:
        with pytest.raises(BrokerError, match="nothing listens there"):
            decide(f"kafka://{local_broker.bootstrap}/{topic}")
    finally:
        local_broker.start()


def test_the_command_line_reads_topics_and_files_together(
    broker: str, make_topic: Callable[[int], str], log: Path, tmp_path: Path, expected: set[str]
) -> None:
    topic, producer = make_topic(1), producer_for(broker)
    half = len(LINES) // 2
    for line in LINES[:half]:
        producer.produce(topic, line, partition=0)
    producer.flush(30)
    rest, config, out = tmp_path / "rest.log", tmp_path / "kafka.toml", tmp_path / "out"
    rest.write_bytes(b"".join(LINES[half:]))
    config.write_text('[kafka]\ndevelopment = true\n[engine]\nseed = "for tests only"\n')
    words = ["replay", f"kafka://{broker}/{topic}", str(rest), "--config", str(config), "--out", str(out), "--from", "-9999d"]
    done = subprocess.run([*FLOODWALL, *words], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert {m["id"] for m in map(orjson.loads, out.read_bytes().splitlines()) if m["stage"] == "final"} == expected


def test_the_history_of_the_configuration_is_that_of_its_topic(
    broker: str, make_topic: Callable[[int], str], unique: Callable[[str], str], log: Path, tmp_path: Path, expected: set[str]
) -> None:
    topic, prefix, producer = make_topic(1), unique("then")[-60:] + ".", producer_for(broker)
    for line in LINES:
        producer.produce(topic, line, partition=0)
    producer.flush(30)
    file, out, manifest = tmp_path / "kafka.toml", tmp_path / "out", tmp_path / "manifest"
    file.write_text(
        f'[kafka]\ndevelopment = true\nbrokers = ["{broker}"]\ntopic_prefix = "{prefix}"\n[engine]\nseed = "for tests only"\n'
    )

    def run(*words: str) -> tuple[set[tuple[str, int]], dict[str, object], str]:
        options = ["--config", str(file), "--out", str(out), "--manifest", str(manifest), *words]
        done = CliRunner().invoke(app, ["replay", f"kafka:///{topic}", *options])
        assert done.exit_code == 0, done.output
        records = [m for m in map(orjson.loads, out.read_bytes().splitlines()) if m["stage"] == "final"]
        told: dict[str, object] = orjson.loads(manifest.read_bytes())
        return {(m["id"], m["config_version"]) for m in records}, told, done.output

    alone, told, said = run()
    assert {name for name, _ in alone} == expected
    assert "the history of the configuration was not read" in said
    assert "expected the topic" in str(told["config_history"])

    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    admin.create_topics([NewTopic(prefix + CONFIG_TOPIC, 1)])[prefix + CONFIG_TOPIC].result(timeout=10)
    config, times_s = load_config(file), sorted(TRAFFIC.times_ms // 1000)
    chain = history(config, ("policy", {"ttl_s": 900}, int(times_s[0]) + 20))
    change = chain.accepted[0].change
    producer.produce(prefix + CONFIG_TOPIC, encode_change(change), partition=0, timestamp=change.at_ms)
    producer.produce(prefix + CONFIG_TOPIC, b"nonsense", partition=0, timestamp=change.at_ms)
    producer.flush(30)
    then, told, said = run()
    assert told["config_history"] == {
        "source": f"the topic {prefix}{CONFIG_TOPIC}", "changes": 1, "refused": 1, "not_read": None
    }  # fmt: skip
    assert "configuration: as it was, by 1 change of the topic" in said
    sink = Ids()
    replay(config, [str(log)], sink, SystemClock(), history=chain)
    assert {name for name, _ in then} == sink.final
    assert {version for _, version in then} == {1, 2}
    given, told, said = run("--config-history", "none")
    assert (given, told["config_history"]) == (alone, None)
    assert "configuration:" not in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["kafka://{broker}/does-not-exist"], 6, "expected the topic does-not-exist"),
        (["kafka://{broker}"], 2, "expected kafka://host:port/topic"),
        (["kafka://{broker}/a,,b"], 2, "expected kafka://host:port/topic"),
        (["kafka://127.0.0.1:1/a"], 6, "nothing listens there"),
        (["kafka://{broker}/a", "--from", "yesterday"], 2, "or -2h (s, m, h or d before now)"),
    ],
)
def test_errors_are_one_line(words: list[str], code: int, said: str, broker: str, tmp_path: Path) -> None:
    config = tmp_path / "kafka.toml"
    config.write_text("[kafka]\ndevelopment = true\n")
    given = [word.format(broker=broker) for word in words]
    done = subprocess.run([*FLOODWALL, "replay", *given, "--config", str(config)], capture_output=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert said in done.stderr.decode()
    assert len(done.stderr.decode().strip().splitlines()) == 1


def test_produce_sends_every_line_and_replay_reads_them_all(
    broker: str, make_topic: Callable[[int], str], log: Path, expected: set[str]
) -> None:
    topic = make_topic(2)
    config = config_of({"kafka": {"development": True, "brokers": [broker]}})
    shipped = produce(config, [str(log)], topic, lines=100)
    assert (shipped.records, shipped.messages, shipped.refused) == (len(LINES), len(LINES) // 100, 0)
    final, account = decide(f"kafka://{broker}/{topic}")
    assert final == expected
    assert account.events == len(LINES)
    with pytest.raises(BrokerError, match="expected the topic does-not-exist"):
        produce(config, [str(log)], "does-not-exist")
