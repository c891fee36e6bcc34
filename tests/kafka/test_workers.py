"""Observers and judges on a real broker decide what one process decides."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from drills.traffic import Traffic, combined_lines
from tests.engines import Decided, decide
from tests.kafka.deployment import Deployment, deploy

EVENTS = 30_000


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


def check_same(deployment: Deployment, expected: Decided) -> None:
    ledgers = deployment.ledgers()
    for name, (offset, _) in deployment.committed().items():
        ledger = ledgers[name]
        assert ledger.records == offset
        assert ledger.events == ledger.counted + ledger.late
        assert (ledger.late, ledger.poison, ledger.truncated, ledger.missing) == (0, 0, 0, 0)
    assert sum(ledger.records for ledger in ledgers.values()) == EVENTS
    assert deployment.counted() == EVENTS
    assert expected.final_ids
    assert sorted({m.id for m in deployment.mitigations() if m.stage == "final"}) == expected.final_ids
    found = {f.id for f in deployment.findings() if f.stage == "final"}
    assert sorted(found) == sorted(set(expected.final_finding_ids))


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
    bad = [b"\x00\x01\x02", b'{"half', b"[" * 100_000, b"x" * 700_000, b"\xff\xfe no line", b'{"time": NaN}']
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
        assert all(letter.headers["reason"] and int(letter.headers["length"]) > 0 for letter in letters)


def test_a_killed_observer_and_a_killed_judge_change_nothing(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> None:
    with deploy(broker, tmp_path, unique("killed")[-40:], 4, time={"lateness_s": 10, "ahead_s": 2}) as deployment:
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
