"""Observers and judges on a real broker decide what one process decides."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pytest

from drills.traffic import Traffic, combined_lines
from edge.reader import Reader
from engine.seeds import make_seeds
from engine.shipping import receive_tally
from engine.source_post import Bench, Messages, SourcePost
from schemas.fields import MEASURES
from schemas.mitigation import Mitigation
from schemas.tally import C_DIMENSION, C_KEY_A, C_KEY_B, C_MEASURES, C_TICK, Tally
from schemas.topics import MITIGATIONS
from tests.engines import Decided, decide
from tests.kafka.deployment import JUDGE_PARTITIONS, Deployment, deploy
from tests.mitigations import CORE, everything
from tests.signing import Keyholder, trusting
from tests.test_secrets import KEY, MAIL, PASSWORD, found_in

EVENTS = 30_000
HALF = orjson.dumps({"account": MAIL, "api_key": KEY, "path": f"/{PASSWORD}?token={KEY}", "time": PASSWORD})[:-1]


@functools.cache
def traffic() -> Traffic:
    return combined_lines(seed=41, events=EVENTS, attackers=6)


def split(many: int) -> list[list[bytes]]:
    chance = random.Random(many)
    parts: list[list[bytes]] = [[] for _ in range(many)]
    for line in traffic().lines():
        parts[chance.randrange(many)].append(line.rstrip(b"\n"))
    return parts


def last_tick() -> int:
    return int(traffic().times_ms.max()) // 1000


def reference(deployment: Deployment) -> Decided:
    return decide(traffic().data, int(traffic().times_ms.max()) + 1000, deployment.config)


def sums(tallies: list[Tally]) -> npt.NDArray[np.int64]:
    """i64[keys and ticks, 4 + MEASURES]: dimension, key and tick in order, each once, with all its measures."""
    columns = (C_DIMENSION, C_KEY_A, C_KEY_B, C_TICK, *range(C_MEASURES, C_MEASURES + MEASURES))
    rows = np.concatenate([tally.records[tally.order][:, columns] for tally in tallies])
    keys, place = np.unique(rows[:, :4], axis=0, return_inverse=True)
    added = np.zeros((len(keys), MEASURES), np.int64)
    np.add.at(added, place.ravel(), rows[:, 4:])
    return np.concatenate([keys, added], axis=1)


def sums_of_one_process(deployment: Deployment) -> npt.NDArray[np.int64]:
    """What an observer that reads everything in one flush would say."""
    seeds, lines = make_seeds(deployment.config), traffic().data.splitlines()
    messages = Messages(lines, list(range(EVENTS)), [int(traffic().times_ms.max()) + 1000] * EVENTS, 0)
    parts = SourcePost("requests-0", 0, "", Bench(deployment.config, seeds)).ship(messages, 0, 0).parts
    return sums([receive_tally(data, seeds.hash, at, JUDGE_PARTITIONS) for at, part in enumerate(parts) for data in part])


def check_segments(tallies: list[tuple[int, Tally]], committed: dict[str, int]) -> None:
    """Every judge partition is told of every offset of every source partition, in order, once."""
    at = {(partition, name): 0 for partition in range(JUDGE_PARTITIONS) for name in committed}
    for partition, tally in tallies:
        assert tally.start == at[partition, tally.source]
        at[partition, tally.source] = tally.end
    assert all(end == committed[name] for (_, name), end in at.items())


def check_same(deployment: Deployment, expected: Decided) -> None:
    ledgers = deployment.ledgers()
    committed = {name: offset for name, (offset, _) in deployment.committed().items()}
    for name, offset in committed.items():
        ledger = ledgers[name]
        assert ledger.records == offset
        assert ledger.events == ledger.counted + ledger.late
        assert (ledger.late, ledger.poison, ledger.truncated, ledger.missing) == (0, 0, 0, 0)
    assert sum(ledger.records for ledger in ledgers.values()) == EVENTS
    assert deployment.counted() == EVENTS
    tallies = deployment.tallies()
    check_segments(tallies, committed)
    np.testing.assert_array_equal(sums([tally for _, tally in tallies]), sums_of_one_process(deployment))
    assert expected.final_ids
    assert acted_on(deployment.mitigations()) == acted_on(expected.mitigations)
    found = {f.id for f in deployment.findings() if f.stage == "final"}
    assert sorted(found) == sorted(set(expected.final_finding_ids))


def acted_on(mitigations: list[Mitigation]) -> set[tuple[str, str, str, str]]:
    """What an edge ends up with: the final ids, each with its target and action."""
    return {(m.id, m.target.type, m.target.value, m.action) for m in mitigations if m.stage == "final"}


@pytest.mark.parametrize(("partitions", "workers"), [(1, 1), (4, 2), pytest.param(8, 4, marks=pytest.mark.crash)])
def test_the_final_ids_are_those_of_one_process(
    broker: str, tmp_path: Path, unique: Callable[[str], str], partitions: int, workers: int
) -> None:
    with deploy(broker, tmp_path, unique("same")[-40:], partitions) as deployment:
        for _ in range(workers):
            deployment.start("observe")
            deployment.start("judge")
        deployment.produce(split(partitions))
        deployment.wait_judged(last_tick())
        check_same(deployment, reference(deployment))


def test_poison_is_dead_lettered_with_its_place_and_stalls_nothing(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    bad = [b"\x00\x01\x02", HALF, b"[" * 100_000, b"x" * 700_000, b"\xff\xfe no line", b'{"time": NaN}']
    with deploy(broker, tmp_path, unique("poison")[-40:], 1, kafka={"dead_letters_max": 5}) as deployment:
        lines = split(1)[0]
        deployment.produce([[*lines[:100], *bad, b"", *lines[100:]]])
        deployment.start("observe")
        deployment.start("judge")
        deployment.wait_judged(last_tick())
        assert sorted({m.id for m in deployment.mitigations() if m.stage == "final"}) == reference(deployment).final_ids
        (ledger,) = deployment.ledgers().values()
        assert (ledger.records, ledger.counted, ledger.empty, ledger.poison) == (EVENTS + 7, EVENTS, 1, 6)
        assert (ledger.dead_letters, ledger.dead_letters_dropped) == (5, 1)
        letters = deployment.dead_letters()
        assert [int(letter.headers["offset"]) for letter in letters] == [100, 101, 102, 103, 104]
        assert [letter.value for letter in letters[:3]] == bad[:3]
        assert len(letters[3].value) == 512 << 10
        assert {letter.headers["topic"].decode() for letter in letters} == {deployment.raw}
        # The bytes lie there as they came; of what was in them no worker's log says anything, at debug level neither.
        logs = "".join(path.read_text(errors="replace") for path in tmp_path.glob("*.log"))
        assert "started role=observe" in logs
        assert found_in(logs) == set()
        assert all(letter.headers["reason"] and int(letter.headers["length"]) > 0 for letter in letters)


def test_a_killed_observer_and_a_killed_judge_change_nothing(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> None:
    signing = {"private_key_file": str(Keyholder("judge", tmp_path).file)}
    timing = {"lateness_s": 10, "ahead_s": 2}
    with deploy(broker, tmp_path, unique("killed")[-40:], 4, time=timing, signing=signing) as deployment:
        observers = [deployment.start("observe") for _ in range(2)]
        judges = [deployment.start("judge") for _ in range(2)]
        deployment.wait_joined()

        def kill(share: float) -> None:
            if share > 0.3 and observers[0].poll() is None:
                observers[0].kill()
                observers[0].wait()
                deployment.start("observe")
            if share > 0.6 and judges[0].poll() is None:
                judges[0].kill()
                judges[0].wait()
                deployment.start("judge")

        deployment.produce(split(4), seconds=15.0, on_share=kill)
        deployment.wait_judged(last_tick(), 90)
        check_same(deployment, reference(deployment))
        assert any("rebuilt" in path.read_text() for path in tmp_path.glob("judge-*.log"))
        check_signed(deployment, Keyholder("judge", tmp_path))


def check_signed(deployment: Deployment, judge: Keyholder) -> None:
    """An edge that trusts the judges' key takes everything: who repeats what a dead one has said is no replay."""
    topic = deployment.prefix + MITIGATIONS
    reader = Reader(CORE, everything, verifier=trusting(judge.trusted("detectors"), topic=topic))
    messages = deployment.read(topic)
    for message in messages:
        assert reader.take(message.key, message.value, message.timestamp_ms) is not None
    assert reader.counts["taken"] == len(messages) > 0
    assert [name for name in reader.counts if name.startswith(("refused", "malformed"))] == []
    assert all({"ce_id", "ce_type", "ce_time"} <= message.headers.keys() for message in messages)
