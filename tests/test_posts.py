"""Observers and judges as workers hold them, without Kafka: only bytes between them, and the decisions of one process."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drills.traffic import Traffic, combined_lines
from engine.observe import SourceClock
from engine.outbox import Decisions
from engine.post import JudgePost
from engine.record import decode_record
from engine.seeds import make_seeds
from engine.shipping import bound_rows, receive_tally
from engine.source_post import NOTE_BYTES_MAX, Bench, Messages, Shipment, SourcePost, read_ledger
from schemas.config import Config
from schemas.errors import StateError
from schemas.fields import Dimension, Measure, Poison
from schemas.mitigation import Finding, Mitigation
from schemas.tally import C_DIMENSION, C_TICK
from tests.engines import Decided, config_of, decide

EVENTS = 30_000
NOW_MS = 10_000
CONFIG = config_of({"kafka": {"rows_max": 1_000_000}}, judge_partitions=4)
SEEDS = make_seeds(CONFIG)


@functools.cache
def traffic() -> Traffic:
    """An attack, and a quiet minute that ends with every source partition past it."""
    return combined_lines(seed=23, events=EVENTS, attackers=6)


@functools.cache
def bound_ms() -> int:
    return int(traffic().times_ms.max()) + 1000


@functools.cache
def reference() -> Decided:
    return decide(traffic().data, bound_ms(), CONFIG)


@dataclass
class Log:
    """The topics as lists: tallies per judge partition, and the last commit per source partition."""

    tallies: list[list[bytes]]
    committed: dict[str, tuple[int, str]] = field(default_factory=dict)
    dead: list[tuple[str, int, Poison]] = field(default_factory=list)

    def append(self, name: str, shipment: Shipment) -> None:
        for partition, part in enumerate(shipment.parts):
            self.tallies[partition] += part
        self.committed[name] = (shipment.offset, shipment.note)
        self.dead += [(name, letter.offset, letter.reason) for letter in shipment.dead_letters]


def observe(parts: dict[str, list[bytes]], config: Config, chance: random.Random, *, crashes: bool = False) -> Log:
    """Every source partition read in random flushes, as by any number of observers, some of which die before a flush."""
    log = Log([[] for _ in range(config.engine.judge_partitions)])
    bench = Bench(config, SEEDS)
    posts = {name: SourcePost(name, 0, "", bench) for name in parts}
    while True:
        left = [name for name, post in posts.items() if post.position < len(parts[name])]
        if not left:
            break
        name = min(left, key=lambda name: posts[name].position / len(parts[name]))
        post = posts[name]
        upto = min(len(parts[name]), post.position + chance.randint(1, 700))
        messages = Messages()
        some = parts[name][post.position : upto]
        messages.add(some, list(range(post.position, upto)), [bound_ms()] * len(some), sum(map(len, some)))
        shipment = post.ship(messages, NOW_MS, 1000)
        if crashes and chance.random() < 0.2:  # nothing of it arrived: another takes over from what was committed
            posts[name] = SourcePost(name, *log.committed.get(name, (0, "")), bench)
            continue
        log.append(name, shipment)
    for name in parts:  # silence: time goes on until everything is decided
        post = posts[name]
        for second in range(200):
            silent = post.silence(NOW_MS + 1000 * second)
            if silent is not None:
                log.append(name, silent)
    return log


def split(many: int) -> dict[str, list[bytes]]:
    chance = random.Random(many)
    parts: dict[str, list[bytes]] = {f"requests-{index}": [] for index in range(many)}
    for line in traffic().lines():
        parts[f"requests-{chance.randrange(many)}"].append(line.rstrip(b"\n"))
    return parts


def judge(log: Log, names: list[str], config: Config, chance: random.Random, *, crashes: bool = False) -> Decided:
    """Every judge partition by a post of its own, some of which die and are rebuilt by another from their last record."""
    mitigations: list[Mitigation] = []
    findings: list[Finding] = []
    for partition, tallies in enumerate(log.tallies):
        post = JudgePost(config, SEEDS, partition, names, early=False)
        record: bytes | None = None
        while post.position < len(tallies):
            post.accept(post.position, tallies[post.position])
            taken = post.take()
            made, found = taken.mitigations, taken.findings
            mitigations += made
            findings += found
            if chance.random() < 0.05:
                record = post.record()
            if crashes and record is not None and chance.random() < 0.02:
                post = recover(record, tallies, partition, names, config)
    account = decide(b"", bound_ms(), config).account
    return Decided(mitigations, findings, account)


def recover(record: bytes, tallies: list[bytes], partition: int, names: list[str], config: Config) -> JudgePost:
    read = decode_record(record, config, SEEDS, partition)
    post = JudgePost(config, SEEDS, partition, names, early=False)
    post.begin(read)
    for offset in range(read.rebuild_from, read.position):
        post.reread(offset, tallies[offset])
    post.end(read)
    assert post.take() == Decisions(), "what was judged before is not told again"
    return post


def check_same(decided: Decided) -> None:
    assert reference().final_ids
    assert decided.final_ids == reference().final_ids
    assert sorted(set(decided.final_finding_ids)) == reference().final_finding_ids


@pytest.mark.parametrize("many", [1, 4])
def test_separate_judges_decide_what_one_process_decides(many: int) -> None:
    chance = random.Random(many)
    parts = split(many)
    log = observe(parts, CONFIG, chance)
    decided = judge(log, list(parts), CONFIG, chance)
    check_same(decided)
    assert len(decided.findings) == len(reference().findings)
    ledgers = [read_ledger(name, note) for name, (_, note) in log.committed.items()]
    assert sum(ledger.counted for ledger in ledgers) == EVENTS
    assert all(ledger.records == ledger.counted and ledger.truncated == 0 for ledger in ledgers)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), many=st.sampled_from([1, 3]))
def test_observers_and_judges_that_die_anywhere(seed: int, many: int) -> None:
    chance = random.Random(seed)
    parts = split(many)
    log = observe(parts, CONFIG, chance, crashes=True)
    check_same(judge(log, list(parts), CONFIG, chance, crashes=True))
    assert sum(read_ledger(name, note).counted for name, (_, note) in log.committed.items()) == EVENTS


def judged(log: Log, partition: int, names: list[str]) -> list[Finding]:
    """What the judge of a partition finds when nothing is missing."""
    post = JudgePost(CONFIG, SEEDS, partition, names, early=False)
    for offset, tally in enumerate(log.tallies[partition]):
        post.accept(offset, tally)
    return post.take().findings


def touching(findings: list[Finding], tick: int) -> list[Finding]:
    """Those whose window holds a second."""
    return [finding for finding in findings if finding.window.start <= tick < finding.window.end]


def test_a_repeated_segment_is_dropped_an_overlap_stops_and_a_gap_is_not_judged() -> None:
    parts = {"requests-0": [line.rstrip(b"\n") for line in traffic().lines()]}
    log = observe(parts, CONFIG, random.Random(1))
    partition, whole = next(
        (partition, found) for partition in range(len(log.tallies)) if (found := judged(log, partition, list(parts)))
    )
    tallies = log.tallies[partition]
    post = JudgePost(CONFIG, SEEDS, partition, list(parts), early=False)
    for offset, tally in enumerate(tallies[:20]):
        post.accept(2 * offset, tally)
        post.accept(2 * offset + 1, tally)
    assert post.judge.intake.duplicates == 20
    bench = Bench(CONFIG, SEEDS)
    other = SourcePost("requests-0", post.judge.intake.sources["requests-0"].expected - 1, "", bench)
    messages = Messages()
    messages.add([b"x", b"y"], [other.position, other.position + 1], [0, 0], 2)
    with pytest.raises(RuntimeError, match="expected the segment"):
        post.accept(40, other.ship(messages, NOW_MS, 1000).parts[partition][0])

    gapped = JudgePost(CONFIG, SEEDS, partition, list(parts), early=False)
    ticks = [receive_tally(tally, SEEDS.hash, partition, 4).tick_max for tally in tallies]
    lost = next(offset for offset, tick in enumerate(ticks) if offset and touching(whole, tick))
    for offset, tally in enumerate(tallies):
        if offset != lost:
            gapped.accept(offset, tally)
    assert gapped.judge.intake.gaps == 1
    taken = gapped.take()
    mitigations, findings = taken.mitigations, taken.findings
    assert touching(findings, ticks[lost]) == []
    assert {f.id for f in findings} < set(reference().final_finding_ids)
    assert {m.id for m in mitigations} <= set(reference().final_ids)


def silences(name: str, bench: Bench, many: int) -> list[Shipment]:
    """What an observer says, second by second, of a source partition that has never held anything."""
    post = SourcePost(name, 0, "", bench)
    assert post.silence(0) is None
    return [shipment for second in range(many) if (shipment := post.silence(1000 * (second + 1))) is not None]


def test_a_judge_waits_until_every_source_partition_has_spoken() -> None:
    parts = split(2)
    log = observe(parts, CONFIG, random.Random(1))
    first, second = silences("requests-2", Bench(CONFIG, SEEDS), 2)
    found = 0
    for partition, tallies in enumerate(log.tallies):
        post = JudgePost(CONFIG, SEEDS, partition, [*parts, "requests-2"], early=False)
        for offset, tally in enumerate(tallies):
            post.accept(offset, tally)
        assert post.take() == Decisions()
        post.accept(post.position, first.parts[partition][0])
        assert post.take() == Decisions(), "that may have been said before the others were where they are"
        post.accept(post.position, second.parts[partition][0])
        found += len(post.take().findings)
    assert found == len(reference().findings)


@pytest.mark.parametrize("first", [5, 700])
def test_a_source_partition_that_was_silent_loses_nothing_to_those_that_are_minutes_ahead(first: int) -> None:
    """A recorded log is sent faster than it was recorded: one fetch of one partition holds minutes, and the others, which have
    said that they hold nothing, begin after it. With few records in a first flush, their time is not confirmed yet."""
    parts = split(3)
    bench, names = Bench(CONFIG, SEEDS), list(parts)
    log = Log([[] for _ in range(CONFIG.engine.judge_partitions)])
    words = {name: silences(name, bench, 3) for name in names}
    for name in names:
        log.append(name, words[name][0])
        log.append(name, words[name][1])
    posts = {name: SourcePost(name, 0, "", bench) for name in names}

    def ship(name: str, many: int) -> None:
        start = posts[name].position
        some = parts[name][start : start + many]
        messages = Messages()
        messages.add(some, list(range(start, start + len(some))), [bound_ms()] * len(some), sum(map(len, some)))
        log.append(name, posts[name].ship(messages, NOW_MS, 1000))

    ship(names[0], len(parts[names[0]]) // 2)
    log.append(names[1], words[names[1]][2])  # decided before that flush had begun
    for name, share in ((names[1], first), (names[2], first), (names[0], EVENTS), (names[2], EVENTS), (names[1], EVENTS)):
        ship(name, share)
    for second in range(200):
        for name in names:
            if (silent := posts[name].silence(NOW_MS + 1000 * second)) is not None:
                log.append(name, silent)
    decided = judge(log, names, CONFIG, random.Random(1))
    check_same(decided)
    assert len(decided.findings) == len(reference().findings)


def test_silence_goes_on_where_the_last_observer_left_it() -> None:
    bench = Bench(CONFIG, SEEDS)
    post = SourcePost("requests-0", 0, "", bench)
    some = [line.rstrip(b"\n") for line in traffic().lines()[:50]]
    messages = Messages()
    messages.add(some, list(range(50)), [bound_ms()] * 50, 0)
    post.ship(messages, NOW_MS, 1000)
    newest = post.newest_ms
    assert post.silence(10_900) is None
    shipment = post.silence(12_000)
    assert shipment is not None
    assert post.newest_ms == newest + 2000
    assert len(shipment.note) < NOTE_BYTES_MAX // 8
    other = SourcePost("requests-0", shipment.offset, shipment.note, bench)
    assert other.silence(19_000) is not None
    assert other.newest_ms == newest + 9000


def test_what_comes_too_late_is_told_by_its_tally_and_known_to_whoever_takes_over() -> None:
    """Late by the observer's clock, which silence has moved on; and in seconds that were closed without a partition."""
    parts = split(2)
    bench = Bench(CONFIG, SEEDS)
    log = observe({"requests-0": parts["requests-0"]}, CONFIG, random.Random(1))
    known = SourcePost("requests-0", *log.committed["requests-0"], bench)
    first_tick = int(traffic().times_ms.min()) // 1000
    for name, post in (("requests-0", known), ("requests-9", SourcePost("requests-9", 0, "", bench))):
        some = parts["requests-1"][:100]
        messages = Messages()
        messages.add(some, list(range(post.position, post.position + 100)), [bound_ms()] * 100, sum(map(len, some)))
        log.append(name, post.ship(messages, NOW_MS + 300_000, 1000))
    for partition, tallies in enumerate(log.tallies):
        late = receive_tally(tallies[-2], SEEDS.hash, partition, 4).late
        assert (late.first, late.events) == (first_tick, 100)
        judge = JudgePost(CONFIG, SEEDS, partition, ["requests-0"], early=False)
        for offset, tally in enumerate(tallies[:-1]):
            judge.accept(offset, tally)
        counted = judge.judge.not_counted
        assert counted.ever() == counted.within(first_tick, first_tick + 1) == {"too_late": 100}
        assert counted.within(0, first_tick) == {}
        judge.accept(len(tallies) - 1, tallies[-1])
        assert 100 < counted.ever()["too_late"] <= 200, "those of a partition that was added, as far as they are this judge's"
        other = recover(judge.record(), tallies, partition, ["requests-0"], CONFIG)
        assert other.judge.not_counted.save() == counted.save()


def test_what_a_flush_may_ship_is_bounded_per_tick_heaviest_first() -> None:
    bench = Bench(config_of(judge_partitions=4), SEEDS)
    lines = [line.rstrip(b"\n") for line in traffic().lines()[:5000]]
    messages = Messages()
    messages.add(lines, list(range(5000)), [bound_ms()] * 5000, 0)
    buffer = bench.lay_out(messages.values)
    ends = np.cumsum([len(value) for value in messages.values])
    starts = np.concatenate([[0], ends[:-1]])
    times = np.full(5000, bound_ms(), np.int64)
    assert bench.decoder.decode_records(buffer, starts, ends, times, 0, events_max=bench.decoder.capacity) == 5000
    bench.observer.add(bench.decoder.columns, SourceClock(), bench.rows)
    whole = bench.observer.finish(SourceClock(), bench.rows, "requests-0", 0, 5000).tally
    bounded = bound_rows(whole, 20)
    assert bounded.rows < whole.rows
    assert bounded.truncated == whole.rows - bounded.rows
    for partition in range(4):
        low, high = bounded.partition_start[partition], bounded.partition_start[partition + 1]
        assert set(bounded.order[low:high]) <= set(
            whole.order[whole.partition_start[partition] : whole.partition_start[partition + 1]]
        )
    ticks = whole.column(C_TICK)[whole.order]
    for tick in set(ticks.tolist()):
        kept = bounded.order[bounded.column(C_TICK)[bounded.order] == tick]
        gone = set(whole.order[ticks == tick].tolist()) - set(kept.tolist())
        assert (bounded.column(C_DIMENSION)[kept] != Dimension.SERVICE).sum() <= 20
        if gone:
            requests = whole.measures[:, Measure.REQUESTS]
            others = kept[bounded.column(C_DIMENSION)[kept] != Dimension.SERVICE]
            assert requests[others].min() >= requests[list(gone)].max()


def test_an_observer_with_another_seed_is_refused() -> None:
    other = make_seeds(config_of(seed="another", judge_partitions=4))
    bench = Bench(CONFIG, other)
    messages = Messages()
    some = [line.rstrip(b"\n") for line in traffic().lines()[:500]]
    messages.add(some, list(range(500)), [bound_ms()] * 500, 0)
    shipment = SourcePost("requests-0", 0, "", bench).ship(messages, NOW_MS, 1000)
    for partition, part in enumerate(shipment.parts):
        with pytest.raises(StateError, match="FLOODWALL_SEED"):
            receive_tally(part[0], SEEDS.hash, partition, 4)


def test_poison_is_named_by_its_offset_and_the_rest_is_counted() -> None:
    bench = Bench(CONFIG, SEEDS)
    lines = [line.rstrip(b"\n") for line in traffic().lines()[:100]]
    values = [*lines[:50], b"", b"\x00\x01", lines[50], b'{"half', b"[" * 100_000, *lines[51:]]
    messages = Messages()
    messages.add(values, list(range(1000, 1000 + len(values))), [bound_ms()] * len(values), 0)
    post = SourcePost("requests-0", 1000, "", bench)
    shipment = post.ship(messages, NOW_MS, 1000)
    assert [(letter.offset, letter.value) for letter in shipment.dead_letters] == [
        (1051, b"\x00\x01"), (1053, b"{\"half"), (1054, b"[" * 100_000)
    ]  # fmt: skip
    ledger = read_ledger("requests-0", shipment.note)
    assert (ledger.records, ledger.counted, ledger.empty, ledger.poison) == (104, 100, 1, 3)
    assert shipment.offset == 1104


def test_a_record_of_another_partition_or_a_damaged_one_is_refused() -> None:
    post = JudgePost(CONFIG, SEEDS, 0, ["requests-0"], early=False)
    record = post.record()
    assert decode_record(record, CONFIG, SEEDS, 0).position == 0
    with pytest.raises(StateError, match="judge partition"):
        decode_record(record, CONFIG, SEEDS, 1)
    with pytest.raises(StateError, match="checksum"):
        decode_record(record[:-1], CONFIG, SEEDS, 0)
