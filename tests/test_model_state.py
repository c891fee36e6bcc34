"""What learned detectors know outlives the judge: the same findings and the same bytes, or cold, and said so."""

from __future__ import annotations

import functools
import itertools
import random
from dataclasses import dataclass, field

import msgspec
import pytest

from detectors.kernels.windows import NEVER
from engine import learned
from engine.embedded import Embedded
from engine.model_state import PIECE_BYTES_MAX, SNAPSHOT_S, Fresh, model_key, read_snapshot
from engine.post import JudgePost
from engine.record import decode_record
from engine.shipping import receive_tally
from engine.snapshot import pack, unpack
from schemas.config import Config
from schemas.errors import StateError
from schemas.feedback import Feedback, encode_feedback, reset_record
from schemas.fields import Dimension
from schemas.mitigation import Finding, Mitigation
from schemas.tally import C_DIMENSION
from tests.engines import conclude, feed
from tests.learners import Counter, install
from tests.test_feedback import DELAY_S, said
from tests.test_posts import CONFIG, SEEDS, Log, bound_ms, observe, split, traffic


@pytest.fixture(autouse=True)
def learner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every judge of these tests has the small learned detector, and no other."""
    monkeypatch.setattr(learned, "MAKERS", {})
    install()


def embedded(records: tuple[Feedback, ...] = (), piece: int = 5000, stop_at: int | None = None) -> tuple[list[Finding], bytes]:
    """What the detector finds in all the traffic, and the bytes of what it knows in the end."""
    engine = Embedded(CONFIG)
    for record in records:
        engine.receive(encode_feedback(record))
    engine.open("log", bound_ms())
    lines, base = traffic().lines(), 0
    findings: list[Finding] = []
    for number, first in enumerate(range(0, len(lines), piece)):
        if number == stop_at:
            findings += engine.take().findings
            saved = engine.snapshot()
            engine.stop()
            engine = Embedded.restore(CONFIG, saved)
        base = feed(engine, "log", b"".join(lines[first : first + piece]), base)
    engine.close("log")
    engine.finish()
    model = pack(engine.models()["counter"])
    return [f for f in [*findings, *conclude(engine).findings] if f.measure == "requests" and is_ours(f)], model


def is_ours(finding: Finding) -> bool:
    return "mean" in finding.evidence.features


@functools.cache
def verdicts() -> tuple[Feedback, ...]:
    """The detector's first finding, told to be wrong a few seconds later, and its model begun anew much later."""
    first = found_alone()[0]
    about = Mitigation(
        id="m", tick=first.tick, stage="final", state="active", action="challenge", target=first.target,
        detector=first.detector, detector_version=first.detector_version, reason="", severity=1, confidence=1.0,
        window=first.window, observed=1, limit=1, issued_at=1, expires_at=2, evidence=first.evidence, finding=first.id,
    )  # fmt: skip
    return (said(about, first.tick + 2 * DELAY_S),)


@functools.cache
def found_alone() -> list[Finding]:
    return embedded()[0]


def test_a_false_positive_teaches_and_a_confirmation_too() -> None:
    assert found_alone()
    taught, model = embedded(verdicts())
    assert unpack(model)["about"]["verdicts"] == 1
    assert [f.id for f in taught] == [f.id for f in found_alone() if f.tick < verdicts()[0].tick]
    right = msgspec.structs.replace(verdicts()[0], verdict="confirmed")
    assert {f.id for f in embedded((right,))[0]} >= {f.id for f in found_alone()}


def test_a_reset_holds_from_its_second() -> None:
    tick = found_alone()[0].tick - 15
    reset = reset_record("counter", who="ana", reason="a new shop", when=tick, tick=tick)
    found, model = embedded((reset,))
    assert [f.id for f in found] != [f.id for f in found_alone()]
    assert model == embedded((reset,), piece=900)[1] == embedded((reset,), stop_at=3)[1]


@pytest.mark.parametrize(("piece", "stop_at"), [(700, None), (30_000, None), (2500, 3), (2500, 7)])
def test_any_cut_and_a_saved_state_give_the_same_findings_and_the_same_bytes(piece: int, stop_at: int | None) -> None:
    found, model = embedded(verdicts(), piece, stop_at)
    expected, expected_model = embedded(verdicts())
    assert [f.id for f in found] == [f.id for f in expected]
    assert model == expected_model


# As workers hold them: snapshots on a topic, named by records.


@dataclass
class Topics:
    """What one judge partition has written: its last record, and every message of the snapshots."""

    record: bytes | None = None
    models: list[tuple[bytes, bytes]] = field(default_factory=list)

    def compacted(self) -> dict[int, bytes]:
        """What compaction leaves: by offset, the last message of each key."""
        last = {key: offset for offset, (key, _) in enumerate(self.models)}
        return {offset: value for offset, (key, value) in enumerate(self.models) if last[key] == offset}

    def write(self, post: JudgePost, *, dies: str = "") -> None:
        written: list[tuple[Fresh, list[int]]] = []
        for one in post.models_due():
            first = len(self.models)
            self.models += one.pieces
            written.append((one, list(range(first, len(self.models)))))
        if dies == "after models":
            return
        post.models_written(written)
        self.record = post.record()


def recover(
    topics: Topics, tallies: list[bytes], partition: int, names: list[str], records: tuple[Feedback, ...],
    config: Config = CONFIG,
) -> JudgePost:  # fmt: skip
    assert topics.record is not None
    read = decode_record(topics.record, config, SEEDS, partition)
    post = JudgePost(config, SEEDS, partition, names, early=False)
    post.begin(read)
    for one in records[: post.judge.feedback.next]:
        post.judge.feedback.remember(one)
    there = topics.compacted()
    for name, named in list(post.snapshots.named.items()):
        post.snapshots.restore(name, [there.get(offset) for offset in named.offsets])
    for offset in range(read.rebuild_from, read.position):
        post.reread(offset, tallies[offset])
    post.end(read)
    taken = post.take()
    assert not taken.findings
    assert not taken.mitigations
    return post


def judged(
    many: int, records: tuple[Feedback, ...], chance: random.Random, *, dies: float
) -> tuple[set[str], bytes, int]:  # fmt: skip
    """(ids of what the detector found in the partition that learns, its bytes in the end, how many judges died)."""
    log, names = log_of(many)
    partition = learning(many)
    tallies = log.tallies[partition]
    ids: set[str] = set()
    deaths = 0
    post, topics = JudgePost(CONFIG, SEEDS, partition, names, early=False), Topics()
    while post.position < len(tallies):
        for record in records[post.judge.feedback.next :]:
            post.judge.receive(record)
            post.judge.feedback.next += 1
        post.accept(post.position, tallies[post.position])
        ids |= {f.id for f in post.take().findings if is_ours(f)}
        if chance.random() < 0.1:
            topics.write(post)
        if topics.record is not None and chance.random() < dies:
            deaths += 1
            if chance.random() < 0.3:
                topics.write(post, dies="after models")
            post = recover(topics, tallies, partition, names, records)
    assert not post.judge.learned.refused
    return ids, pack(post.judge.learned.save_one("counter")), deaths


@functools.cache
def log_of(many: int) -> tuple[Log, list[str]]:
    parts = split(many)
    return observe(parts, CONFIG, random.Random(many)), list(parts)


@functools.cache
def learning(many: int) -> int:
    """The judge partition that has the service."""
    log, _ = log_of(many)
    partitions = len(log.tallies)
    return next(
        partition
        for partition, tallies in enumerate(log.tallies)
        for tally in tallies[:20]
        if (receive_tally(tally, SEEDS.hash, partition, partitions).column(C_DIMENSION) == Dimension.SERVICE).any()
    )


@pytest.mark.parametrize(("seed", "many"), [(1, 1), (2, 3), (3, 3)])
def test_killed_while_it_learns_it_knows_what_it_would_have_known(seed: int, many: int) -> None:
    expected, whole, _ = judged(many, verdicts(), random.Random(1), dies=0.0)
    ids, model, deaths = judged(many, verdicts(), random.Random(seed), dies=0.02)
    assert deaths > 1
    assert ids == expected == {f.id for f in embedded(verdicts())[0]}
    assert model == whole


def service_partition() -> tuple[Topics, list[bytes], int, list[str]]:
    """The partition that learns, after a record that names a snapshot."""
    log, names = log_of(1)
    partition = learning(1)
    tallies = log.tallies[partition]
    post, topics = JudgePost(CONFIG, SEEDS, partition, names, early=False), Topics()
    for offset, tally in enumerate(tallies[: len(tallies) * 2 // 3]):
        post.accept(offset, tally)
        post.take()
        if offset % 9 == 0:
            topics.write(post)
    topics.write(post)
    return topics, tallies, partition, names


def test_snapshots_are_written_at_most_every_half_minute_and_never_over_the_one_that_is_named() -> None:
    topics, *_ = service_partition()
    keys = [key for key, _ in topics.models]
    assert len(keys) > 2
    slots = [key.rsplit(b":", 1)[1] for key in keys]
    assert all(first != second for first, second in itertools.pairwise(slots))
    closed = [read_snapshot(value)["closed"] for _, value in topics.models]
    assert all(later - earlier >= SNAPSHOT_S for earlier, later in itertools.pairwise(closed))


def refused(topics: Topics, tallies: list[bytes], partition: int, names: list[str]) -> str:
    """Why the snapshot was not used; the judge goes on all the same, cold."""
    post = recover(topics, tallies, partition, names, ())
    assert post.snapshots.named == {}
    for offset in range(post.position, len(tallies)):
        post.accept(offset, tallies[offset])
    topics.write(post)
    if post.judge.learned.refused:  # not warm again yet: a judge that takes over says so too
        again = recover(topics, tallies, partition, names, ())
        assert again.judge.learned.refused == post.judge.learned.refused
    return post.judge.learned.refused.get("counter", "warm again")


def test_a_damaged_an_older_and_a_foreign_snapshot_are_refused() -> None:
    topics, _, partition, names = service_partition()
    good = list(topics.models)
    named = decode_record(topics.record or b"", CONFIG, SEEDS, partition).state["models"]["named"]["counter"]
    (at,) = named["offsets"]
    key, value = good[at]

    def cold(replacement: bytes | None) -> str:
        there = {**dict(enumerate(v for _, v in good)), at: replacement}
        post = JudgePost(CONFIG, SEEDS, partition, names, early=False)
        post.begin(decode_record(topics.record or b"", CONFIG, SEEDS, partition))
        post.snapshots.restore("counter", [there[at]])
        assert post.snapshots.named == {}
        return post.judge.learned.refused["counter"]

    assert "not there any more" in cold(None)
    assert "checksum" in cold(value[: len(value) // 2])
    for byte in range(0, len(value), 37):
        damaged = bytearray(value)
        damaged[byte] ^= 1 << (byte % 8)
        cold(bytes(damaged))
    assert "digest" in cold(good[at - 1][1])  # an older one of the same model
    whole = unpack(value)
    del whole["schema"]
    assert "place" in cold(pack({**whole, "place": [partition + 1, 4]}))
    assert "seed" in cold(pack({**whole, "seed": "another"}))
    assert "model" in cold(pack({**whole, "model": "keys"}))
    assert key == model_key("counter", partition, named["slot"])


def test_a_model_of_another_version_or_schema_is_refused_and_so_it_is_after_the_next_death(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics, tallies, partition, names = service_partition()
    monkeypatch.setattr(Counter, "version", 2)
    assert "expected a model of [version, schema]" in refused(topics, tallies, partition, names)


def test_a_saved_state_is_used_without_the_model_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Embedded(CONFIG)
    engine.open("log", bound_ms())
    feed(engine, "log", traffic().data, 0)
    saved = engine.snapshot()
    engine.stop()
    monkeypatch.setattr(Counter, "version", 2)
    restored = Embedded.restore(CONFIG, saved)
    assert "[version, schema]" in restored.models()["counter"]["refused"]
    assert restored.account().events == 30_000
    restored.stop()


def test_findings_of_a_model_that_began_anew_are_marked_until_it_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Embedded(CONFIG)
    engine._judge.learned.refuse("counter", "the snapshot was damaged")
    monkeypatch.setattr(Counter, "describe", lambda self: {"cold": True})
    engine.open("log", bound_ms())
    feed(engine, "log", traffic().data, 0)
    engine.close("log")
    ours = [f for f in conclude(engine).findings if is_ours(f)]
    assert ours
    assert {f.evidence.features["model_refused"] for f in ours} == {"the snapshot was damaged"}


def test_a_snapshot_larger_than_a_message_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.model_state.PIECE_BYTES_MAX", 100)
    topics, tallies, partition, names = service_partition()
    named = decode_record(topics.record or b"", CONFIG, SEEDS, partition).state["models"]["named"]["counter"]
    assert len(named["offsets"]) > 2
    assert PIECE_BYTES_MAX > 1 << 20
    assert recover(topics, tallies, partition, names, ()).snapshots.named["counter"].digest == named["digest"]


def test_a_judge_without_learned_detectors_writes_no_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "MAKERS", {})
    (log, names), partition, topics = log_of(1), learning(1), Topics()
    post = JudgePost(CONFIG, SEEDS, partition, names, early=False)
    for offset, tally in enumerate(log.tallies[partition]):
        post.accept(offset, tally)
    topics.write(post)
    assert topics.models == []
    assert post.judge.covered is None
    assert post.snapshots.covered == NEVER


def test_a_record_without_its_models_is_refused() -> None:
    topics, _, partition, names = service_partition()
    read = decode_record(topics.record or b"", CONFIG, SEEDS, partition)
    del read.state["models"]
    with pytest.raises((KeyError, StateError)):
        JudgePost(CONFIG, SEEDS, partition, names, early=False).begin(read)


def test_of_a_model_that_breaks_off_while_it_is_taken_over_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    topics, _, partition, names = service_partition()
    post = JudgePost(CONFIG, SEEDS, partition, names, early=False)
    fresh = pack(post.judge.learned.save_one("counter")["data"])
    whole = Counter.load

    def breaks_off(self: Counter, data: dict[str, object]) -> None:
        whole(self, data)
        raise ValueError("half of it")

    monkeypatch.setattr(Counter, "load", breaks_off)
    post.begin(decode_record(topics.record or b"", CONFIG, SEEDS, partition))
    (at,) = post.snapshots.named["counter"].offsets
    post.snapshots.restore("counter", [topics.models[at][1]])
    assert post.judge.learned.refused == {"counter": "half of it"}
    assert pack(post.judge.learned.save_one("counter")["data"]) == fresh
