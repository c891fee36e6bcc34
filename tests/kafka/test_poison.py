"""Poison by the thousand among a million good events, and nothing but poison. Run with ``make crash``."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from drills.traffic import combined_lines
from tests.engines import decide
from tests.kafka.deployment import Message, deploy

pytestmark = pytest.mark.crash

GOOD, PARTITIONS, RECORD_BYTES_MAX = 1_000_000, 2, 1 << 18
_HEAD = b'{"time":"2026-11-20T00:00:00Z","client_ip":"198.51.100.9",'
SMALL = (
    ("truncated", _HEAD + b'"path":"/v1/mod'), ("not_a_record", b"\xff\xfe\x80 no line"),
    ("not_a_record", b"[" * 99 + b"]" * 99), ("binary", b"\x00" * 64),
    ("too_deep", _HEAD + b'"x":' + b"[" * 10_000), ("bad_time", b'{"time":NaN,"client_ip":"198.51.100.9"}'),
    ("bad_time", b'{"time":-5,"client_ip":"198.51.100.9"}'),
    ("bad_time", b'{"time":"9999-12-31T23:59:59Z","client_ip":"198.51.100.9"}'),
)  # fmt: skip
"""(the reason that is to be told, the message)"""
LARGE = (("too_deep", _HEAD + b'"x":' + b"[" * 100_000), ("too_long", b"x" * 900_000))
SMALL_EACH, LARGE_EACH, EMPTY = 1245, 20, 500


def place(message: Message) -> tuple[int, int]:
    return int(message.headers["partition"]), int(message.headers["offset"])


def test_a_million_good_events_are_counted_and_each_poison_is_told_once_though_an_observer_is_killed(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    chance = random.Random(5)
    traffic = combined_lines(seed=5, events=GOOD, events_per_second=4000.0, attackers=6)
    mixed: list[tuple[str, bytes]] = [("", line.rstrip(b"\n")) for line in traffic.lines()]
    bad = list(SMALL) * SMALL_EACH + list(LARGE) * LARGE_EACH
    extra = [*bad, *[("empty", b"")] * EMPTY]
    chance.shuffle(extra)
    places = sorted(chance.sample(range(GOOD + len(extra)), len(extra)))
    for index, one in zip(places, extra, strict=True):
        mixed.insert(index, one)
    parts: list[list[tuple[str, bytes]]] = [mixed[index::PARTITIONS] for index in range(PARTITIONS)]
    expected = {
        (partition, offset): reason
        for partition, part in enumerate(parts)
        for offset, (reason, _) in enumerate(part)
        if reason not in ("", "empty")
    }
    last_s = int(traffic.times_ms.max()) // 1000
    settings = {"kafka": {"dead_letters_max": 100_000}, "input": {"record_bytes_max": RECORD_BYTES_MAX}}
    with deploy(
        broker, tmp_path, unique("poisoned")[-40:], PARTITIONS, time={"lateness_s": 10, "ahead_s": 2}, **settings
    ) as all_:
        first = all_.start("observe", failpoint="observe.sent:40")
        all_.start("judge")
        all_.wait_joined()

        def follow(share: float) -> None:
            if first.poll() is not None and len(all_.workers) == 2:
                all_.start("observe")

        all_.produce([[value for _, value in part] for part in parts], seconds=20.0, on_share=follow)

        def judged() -> bool:
            follow(1.0)
            return all_.is_judged(last_s)

        all_.wait(judged, 180, "every judge to be done")
        assert len(all_.workers) == 3, "the first observer was to die at its failpoint"
        ledgers = all_.ledgers().values()
        assert sum(ledger.counted for ledger in ledgers) == GOOD
        assert sum(ledger.empty for ledger in ledgers) == EMPTY
        assert sum(ledger.late for ledger in ledgers) == 0
        assert sum(ledger.poison for ledger in ledgers) == len(bad) == sum(ledger.dead_letters for ledger in ledgers)
        assert sum(ledger.records for ledger in ledgers) == len(mixed)
        letters = all_.dead_letters()
        assert Counter(map(place, letters)).most_common(1)[0][1] == 1
        assert {place(letter): letter.headers["reason"].decode() for letter in letters} == expected
        decided = decide(traffic.data, int(traffic.times_ms.max()) + 1000, all_.config)
        assert decided.final_ids
        assert sorted({m.id for m in all_.mitigations() if m.stage == "final"}) == decided.final_ids


def test_nothing_but_poison_is_counted_written_down_to_the_limit_and_stalls_nothing(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    limit, many = 1000, 20_000
    with deploy(broker, tmp_path, unique("allpoison")[-40:], 1, kafka={"dead_letters_max": limit}) as deployment:
        deployment.produce([[value for _, value in SMALL] * (many // len(SMALL))])
        observer = deployment.start("observe")

        def read() -> bool:
            return sum(offset for offset, _ in deployment.committed().values()) == many

        deployment.wait(read, 60, f"{many:,} to be read")
        assert observer.poll() is None
        (ledger,) = deployment.ledgers().values()
        assert (ledger.records, ledger.poison, ledger.events) == (many, many, 0)
        assert ledger.dead_letters + ledger.dead_letters_dropped == many
        assert limit <= ledger.dead_letters <= 2 * limit  # a minute may end meanwhile
        assert len(deployment.dead_letters()) == ledger.dead_letters
