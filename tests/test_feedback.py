"""What an operator says of a decision holds from one second on, whoever judges, and however the events come."""

from __future__ import annotations

import functools
import random

import msgspec
import pytest

from edge.in_process import InProcessEdge
from engine.embedded import Embedded
from engine.feedback import DAY_RECORDS_MAX, Admission, FeedbackRecords
from engine.post import JudgePost
from schemas.config import Policy, parse_config
from schemas.errors import ConfigError
from schemas.feedback import FEEDBACK_BYTES_MAX, Feedback, decode_feedback, encode_feedback, reset_record
from schemas.mitigation import Mitigation, Target
from streams.feedback import FeedbackTopic
from streams.metrics import Metrics
from tests.engines import Decided, conclude, config_of, feed
from tests.test_posts import CONFIG, SEEDS, bound_ms, observe, recover, reference, split, traffic

DELAY_S = 4


def said(about: Mitigation, tick: int, **changes: object) -> Feedback:
    record = Feedback(
        id=about.id, verdict="false_positive", detector=about.detector, detector_version=about.detector_version,
        target=about.target, finding=about.finding, who="ana", reason="our own load test", when=tick - DELAY_S, tick=tick,
    )  # fmt: skip
    return msgspec.structs.replace(record, **changes)


def first_throttle() -> Mitigation:
    return next(m for m in reference().mitigations if m.action == "throttle")


@functools.cache
def verdicts() -> tuple[Feedback, ...]:
    """Two that were wrong and one that was right, a few seconds after they were decided."""
    throttled = [m for m in reference().mitigations if m.action == "throttle"]
    right = said(throttled[1], throttled[1].tick + 9, verdict="confirmed")
    return said(throttled[0], throttled[0].tick + DELAY_S), said(throttled[2], throttled[2].tick + 6), right


def run(records: tuple[Feedback, ...], piece: int, *, stop_at: int | None = None) -> Decided:
    """All traffic in pieces of so many lines; with ``stop_at``, saved and gone on from after so many pieces."""
    engine = Embedded(CONFIG)
    for record in records:
        engine.receive(encode_feedback(record))
    engine.open("log", bound_ms())
    lines, base = traffic().lines(), 0
    mitigations, findings = [], []
    for number, first in enumerate(range(0, len(lines), piece)):
        if number == stop_at:
            decided = engine.take()
            mitigations += decided.mitigations
            findings += decided.findings
            saved = engine.snapshot()
            engine.stop()
            engine = Embedded.restore(CONFIG, saved)
            for record in records:  # the same file is given again: each counts once
                engine.receive(encode_feedback(record))
        base = feed(engine, "log", b"".join(lines[first : first + piece]), base)
    engine.close("log")
    rest = conclude(engine)
    return Decided(mitigations + rest.mitigations, findings + rest.findings, rest.account)


@functools.cache
def told() -> Decided:
    return run(verdicts(), 5000)


def essence(decided: Decided) -> tuple[list[tuple[str, str, int]], list[tuple[str, str]]]:
    return (
        sorted((m.id, m.state, m.tick) for m in decided.mitigations),
        sorted((f.id, f.outcome) for f in decided.findings),
    )


def test_a_false_positive_is_lifted_with_who_and_why_and_not_mitigated_again_but_still_found() -> None:
    wrong = verdicts()[0]
    (lift,) = [m for m in told().mitigations if m.state == "lifted" and m.id == wrong.id]
    assert (lift.tick, lift.stage, lift.target, lift.detector) == (wrong.tick, "final", wrong.target, wrong.detector)
    assert lift.reason == "lifted: a false positive, says ana: our own load test"
    assert lift.evidence.features["who"] == "ana"
    about = [f for f in told().findings if f.target == wrong.target and f.detector == wrong.detector]
    assert {f.outcome for f in about if f.tick >= wrong.tick} == {"false_positive"}
    later = [m for m in told().mitigations if m.target == wrong.target and m.detector == wrong.detector]
    assert [m for m in later if m.tick >= wrong.tick] == [lift]


def test_what_was_confirmed_and_what_nobody_spoke_of_stays_as_it_was() -> None:
    wrong = {(v.detector, v.target) for v in verdicts() if v.verdict == "false_positive"}
    others = [m for m in told().mitigations if (m.detector, m.target) not in wrong]
    before = [m for m in reference().mitigations if (m.detector, m.target) not in wrong]
    assert {(m.id, m.state) for m in others} == {(m.id, m.state) for m in before}
    assert sorted(f.id for f in told().findings) == sorted(f.id for f in reference().findings)


def test_an_edge_lets_the_target_go() -> None:
    wrong = verdicts()[0]
    edge = InProcessEdge()
    for mitigation in told().mitigations:
        if mitigation.target == wrong.target and mitigation.tick < wrong.tick and mitigation.detector == wrong.detector:
            edge.apply(mitigation)
    assert edge.decide(wrong.target.value, wrong.tick * 1000) == "throttle"
    for mitigation in told().mitigations:
        if mitigation.target == wrong.target and mitigation.detector == wrong.detector:
            edge.apply(mitigation)
    assert edge.decide(wrong.target.value, wrong.tick * 1000) is None


@pytest.mark.parametrize(("piece", "stop_at"), [(700, None), (30_000, None), (2500, 3), (2500, 6)])
def test_it_holds_from_the_same_second_for_any_cut_and_through_a_restart(piece: int, stop_at: int | None) -> None:
    assert essence(run(verdicts(), piece, stop_at=stop_at)) == essence(told())


def test_it_does_not_matter_when_it_comes_as_long_as_its_second_is_open() -> None:
    engine = Embedded(CONFIG)
    engine.open("log", bound_ms())
    lines, base = traffic().lines(), 0
    waiting = sorted(verdicts(), key=lambda record: record.tick)
    start = int(traffic().times_ms.min()) // 1000
    for first in range(0, len(lines), 500):
        base = feed(engine, "log", b"".join(lines[first : first + 500]), base)
        newest = engine.newest_ms("log") // 1000
        while waiting and waiting[0].when <= max(newest, start) - CONFIG.time.lateness_s:
            engine.receive(encode_feedback(waiting.pop(0)))
    assert not waiting
    assert engine.feedback_counts()["late"] == 0
    engine.close("log")
    assert essence(conclude(engine)) == essence(told())


def test_one_that_comes_after_its_second_holds_from_the_next_and_is_counted() -> None:
    engine = Embedded(CONFIG)
    engine.open("log", bound_ms())
    base = feed(engine, "log", b"".join(traffic().lines()[:25_000]), 0)
    engine.receive(encode_feedback(verdicts()[0]))
    feed(engine, "log", b"".join(traffic().lines()[25_000:]), base)
    engine.close("log")
    engine.finish()
    assert engine.feedback_counts() == {"taken": 1, "learned": 0, "late": 1, "waiting": 0}
    (lift,) = [m for m in conclude(engine).mitigations if m.state == "lifted"]
    assert lift.tick > verdicts()[0].tick


def test_judges_that_die_anywhere_say_the_same() -> None:
    chance = random.Random(7)
    parts = split(2)
    log = observe(parts, CONFIG, chance, crashes=True)
    mitigations, findings = [], []
    for partition, tallies in enumerate(log.tallies):
        post = JudgePost(CONFIG, SEEDS, partition, list(parts), early=False)
        known = verdicts()[:0]
        record = None
        while post.position < len(tallies):
            if post.judge.feedback.next < len(verdicts()) and chance.random() < 0.1:  # it is read some time before it holds
                known = verdicts()[: post.judge.feedback.next + 1]
                post.judge.receive(known[-1])
                post.judge.feedback.next += 1
            post.accept(post.position, tallies[post.position])
            taken = post.take()
            mitigations += taken.mitigations
            findings += taken.findings
            if chance.random() < 0.05:
                record = post.record()
            if record is not None and chance.random() < 0.03:
                post = recover(record, tallies, partition, list(parts), CONFIG)
                for said_before in verdicts()[: post.judge.feedback.next]:
                    post.judge.feedback.remember(said_before)
    finals = {(m.id, m.state, m.tick) for m in mitigations}
    assert finals == {(m.id, m.state, m.tick) for m in told().mitigations}
    assert {(f.id, f.outcome) for f in findings} == {(f.id, f.outcome) for f in told().findings}


def test_afterwards_it_is_mitigated_again() -> None:
    config = config_of({"policy": {"feedback_allow_s": 10}}, judge_partitions=4)
    engine = Embedded(config)
    wrong = verdicts()[0]
    engine.receive(encode_feedback(wrong))
    engine.open("log", bound_ms())
    feed(engine, "log", traffic().data, 0)
    engine.close("log")
    about = [f for f in conclude(engine).findings if f.target == wrong.target and f.detector == wrong.detector]
    outcomes = {f.outcome for f in about if f.tick >= wrong.tick + 10}
    assert "false_positive" not in outcomes
    assert {f.outcome for f in about if wrong.tick <= f.tick < wrong.tick + 10} <= {"false_positive"}


# Which records count.


def record_of(**changes: object) -> Feedback:
    return msgspec.structs.replace(said(first_throttle(), first_throttle().tick + DELAY_S), **changes)


def admission(per_day: int = 3) -> Admission:
    return Admission(Policy(feedback_per_day_max=per_day))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"\xff\xfe", b"[" * 5000, b'{"id":"x"}', b" " * (FEEDBACK_BYTES_MAX + 1)],
    ids=["empty", "nothing", "null", "no text", "nested", "most missing", "long"],
)
def test_what_is_no_record_is_refused_and_counted(data: bytes) -> None:
    one = admission()
    assert one.read(data) is None
    assert one.refused == {"malformed": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "maybe"}, {"who": ""}, {"who": "x" * 129}, {"reason": "x" * 257}, {"tick": -1}, {"tick": 2**41},
        {"detector": "../x"}, {"detector": 7}, {"id": ""}, {"target": "203.0.113.7"}, {"schema": 2}, {"when": "now"},
        {"tick": record_of().when + 8 * 86_400},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_their_bounds_are_refused(change: dict[str, object]) -> None:
    plain = msgspec.to_builtins(record_of())
    with pytest.raises(ValueError, match=r"xpected|Invalid|JSON"):
        decode_feedback(msgspec.json.encode({**plain, **change}))


def test_a_later_writer_may_say_more() -> None:
    assert decode_feedback(msgspec.json.encode({**msgspec.to_builtins(record_of()), "ticket": "4711"})) == record_of()


def test_each_who_has_so_many_a_day_and_all_together_too() -> None:
    one = admission(per_day=3)
    for number in range(5):
        one.read(encode_feedback(record_of(finding=f"a{number}")))
    assert one.refused == {"over_cap": 2}
    assert one.read(encode_feedback(record_of(finding="b", who="ben"))) is not None
    day_later = record_of(finding="c")
    assert one.read(
        encode_feedback(msgspec.structs.replace(day_later, when=day_later.when + 86_400, tick=day_later.tick + 86_400))
    )
    for number in range(DAY_RECORDS_MAX):  # invented names do not help
        one.read(encode_feedback(record_of(finding=f"d{number}", who=f"bot{number}")))
    assert one.why_not(record_of(finding="e", who="carol")) == "over_cap"


def test_the_same_verdict_on_the_same_decision_counts_once_and_a_reset_each_time() -> None:
    one = admission(per_day=9)
    assert one.read(encode_feedback(record_of())) is not None
    assert one.read(encode_feedback(record_of(who="ben", tick=record_of().tick + 1))) is None
    assert one.refused == {"repeated": 1}
    for tick in (100, 200):
        assert one.read(encode_feedback(reset_record("keys", who="ana", reason="", when=tick, tick=tick))) is not None


def test_two_readers_of_one_topic_refuse_the_same() -> None:
    chance = random.Random(3)
    lines = [encode_feedback(record_of(finding=f"{chance.randrange(9)}", who=chance.choice("ab"))) for _ in range(60)]
    lines += [b"nonsense"] * 3
    chance.shuffle(lines)
    first, second = admission(), admission()
    assert [first.read(line) for line in lines] == [second.read(line) for line in lines]
    assert first.refused == second.refused
    again = admission()
    again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(first.save())))
    assert all(again.why_not(decode_feedback(line)) is not None for line in lines if line != b"nonsense" and b'"a"' in line)


def test_records_are_in_force_in_one_order_however_they_come() -> None:
    some = [record_of(id=f"{number % 3}{number}", tick=100 + number // 3, when=99) for number in range(9)]
    orders = []
    for seed in range(5):
        records = FeedbackRecords(1000)
        for one in random.Random(seed).sample(some, len(some)):
            records.receive(one, 50)
        orders.append([one.id for _, one in records.due(50, 200)])
    assert orders.count(orders[0]) == len(orders)


def test_two_verdicts_on_one_target_hold_each_for_its_time() -> None:
    records = FeedbackRecords(50)
    for tick in (100, 200):
        records.receive(record_of(tick=tick, when=tick, finding=str(tick)), 10)
    target = first_throttle().target
    held = [
        records.rejection(first_throttle().detector, target.type, target.value, tick)
        for tick in (99, 100, 149, 150, 200, 249, 250)
    ]
    assert [one is not None for one in held] == [False, True, True, False, True, True, False]
    records.forget(300, 300)
    assert records.save(rejected=True)["rejected"] == records.save(rejected=True)["records"] == []


def test_the_settings_have_bounds() -> None:
    with pytest.raises(ConfigError, match="feedback_per_day_max"):
        parse_config({"policy": {"feedback_per_day_max": -1}})


def test_nothing_is_lifted_of_a_target_that_does_not_stand() -> None:
    stranger = said(first_throttle(), first_throttle().tick + DELAY_S, target=Target(type="ip", value="192.0.2.77"))
    nonsense = said(first_throttle(), first_throttle().tick + DELAY_S, target=Target(type="model", value="x"), finding="y")
    decided = run((stranger, nonsense), 10_000)
    assert decided.final_ids == reference().final_ids
    assert not [m for m in decided.mitigations if m.state == "lifted"]


# The topic, as a worker has it.


def test_a_judge_that_takes_over_is_told_whom_earlier_records_keep_free() -> None:
    metrics = Metrics()
    topic = FeedbackTopic(CONFIG, metrics)
    target = first_throttle().target
    for offset, value in enumerate([b"nonsense", encode_feedback(record_of()), encode_feedback(record_of()), b""]):
        topic._take(offset, value)
    assert [offset for offset, _ in topic.records] == [1]
    assert b'floodwall_feedback_total{outcome="taken"} 1.0' in metrics.text()
    assert b'floodwall_feedback_total{outcome="repeated"} 1.0' in metrics.text()
    assert b'floodwall_feedback_total{outcome="malformed"} 2.0' in metrics.text()
    told, new = FeedbackRecords(1000), FeedbackRecords(1000)
    told.next = 2
    for records in (told, new):
        topic.remind(records)
    tick = record_of().tick
    assert told.rejection(first_throttle().detector, target.type, target.value, tick) == record_of()
    assert new.rejection(first_throttle().detector, target.type, target.value, tick) is None, "it is received as news"
    assert told.due(0, tick) == [], "what it did it has done"


def test_a_topic_that_was_made_anew_is_read_from_its_beginning() -> None:
    topic = FeedbackTopic(CONFIG, Metrics())
    topic._take(0, encode_feedback(record_of()))
    records = FeedbackRecords(1000)
    records.next = 17
    topic.remind(records)
    assert records.next == 0
