"""Messages fed one by one decide as lines do, and holes in their offsets are no gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from drills.traffic import combined_lines
from engine.embedded import Embedded
from tests.engines import Decided, as_chunk, conclude, config_of, decide, nothing_was_bounded

TRAFFIC = combined_lines(seed=51, events=12_000, attackers=2)
LINES = TRAFFIC.lines()
BOUND_MS = int(TRAFFIC.times_ms.max()) + 1000


def feed(engine: Embedded, name: str, messages: Sequence[bytes], offsets: Sequence[int], time_ms: int = BOUND_MS) -> None:
    ends = np.cumsum([len(message) for message in messages], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    times_ms = np.full(len(messages), time_ms, np.int64)
    engine.feed_records(name, as_chunk(b"".join(messages)), starts, ends, times_ms, np.array(offsets, np.int64))


def decide_messages(messages: list[bytes], partitions: int, piece: int, holes: int) -> Decided:
    """Messages in turn over partitions, ``piece`` at a time; every ``holes``-th offset was never a message."""
    engine = Embedded(config_of())
    for partition in range(partitions):
        engine.open(f"t-{partition}", 0, 100)
    used = [offset for offset in range(100, 100 + 2 * len(messages)) if offset % holes]
    for first in range(0, len(messages), piece * partitions):
        group = messages[first : first + piece * partitions]
        for partition in range(partitions):
            own = group[partition::partitions]
            if own:
                place = first // partitions
                feed(engine, f"t-{partition}", own, used[place : place + len(own)])
    for partition in range(partitions):
        engine.close(f"t-{partition}")
    return conclude(engine)


@pytest.mark.parametrize(
    ("lines", "partitions", "piece", "holes"), [(1, 1, 4096, 10**9), (1, 3, 500, 7), (40, 2, 3, 5), (1, 1, 1000, 2)]
)
def test_messages_decide_as_lines_do(lines: int, partitions: int, piece: int, holes: int) -> None:
    expected = decide(TRAFFIC.data, BOUND_MS)
    messages = [b"".join(LINES[at : at + lines]) for at in range(0, len(LINES), lines)]
    decided = decide_messages(messages, partitions, piece, holes)
    assert decided.final_ids == expected.final_ids
    assert decided.final_ids
    assert nothing_was_bounded(decided.account)
    assert (decided.account.records, decided.account.events) == (len(messages), len(LINES))


def test_positions_and_evidence_are_offsets() -> None:
    engine = Embedded(config_of())
    engine.open("t-0", 0, 50)
    feed(engine, "t-0", LINES[:3], [50, 60, 61])
    assert engine.positions() == {"t-0": 62}
    feed(engine, "t-0", LINES[3:4], [90])
    assert engine.positions() == {"t-0": 91}
    account = conclude(engine).account
    assert (account.gaps, account.duplicates) == (0, 0)


def test_each_message_is_bounded_by_its_own_time() -> None:
    engine = Embedded(config_of())
    engine.open("t-0", 0)
    feed(engine, "t-0", LINES[:10], range(10), time_ms=int(TRAFFIC.times_ms.min()) - 3_600_000)
    assert conclude(engine).account.time_replaced == 10


def test_poison_carries_the_offset_of_its_message() -> None:
    engine = Embedded(config_of())
    engine.open("t-0", 0)
    feed(engine, "t-0", [b"", LINES[0], b"", b"nonsense", b"", LINES[1], b"more"], [3, 4, 5, 6, 7, 8, 20])
    samples = conclude(engine).account.poison_samples
    assert [(sample.offset, sample.start, sample.excerpt) for sample in samples] == [(6, 0, "nonsense"), (20, 0, "more")]
