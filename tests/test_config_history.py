"""A change of the configuration holds from its second on, the windows keep their counts, and a replay decides the same."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from engine.config_chain import Accepted, ConfigChain
from engine.embedded import Embedded
from engine.judge import Judge
from engine.post import JudgePost
from engine.record import decode_record
from engine.seeds import make_seeds
from engine.source_post import Bench, Messages, SourcePost
from schemas.config import Config
from schemas.mitigation import Mitigation
from tests.engines import Decided, conclude, config_of, decide, feed, nothing_was_bounded, only
from tests.histories import history, offer

START = 1_795_000_020
SECONDS = 200
TICK = START + 75
"""In the middle of a cell, so that whoever was mitigated before has been so in this cell."""
BOUND_MS = 1000 * (START + SECONDS + 5)
ATTACKER = "203.0.113.9"


def rule(limit: int = 1000, window_s: int = 10, **more: Any) -> dict[str, Any]:
    return {"dimension": "ip", "window_s": window_s, "limit": limit, **more}


def config(*rules: dict[str, Any], partitions: int = 4, **sections: Any) -> Config:
    detectors = only("rate", rules=list(rules or (rule(),)))
    policy = {"allowlist_core": [], **sections.pop("policy", {})}
    time = {"lateness_s": 3, "ahead_s": 2}
    detectors |= sections.pop("detectors", {})
    return config_of({"detectors": detectors, "policy": policy, "time": time, **sections}, judge_partitions=partitions)


def line(second: int, client: str, path: str, status: int = 200) -> bytes:
    return b'{"time":%d,"client_ip":"%s","account":"a%d","user_agent":"agent/%d","path":"/p%s","status":%d,"tokens_in":7}\n' % (
        START + second,
        client.encode(),
        second % 7,
        second % 11,
        path.encode(),
        status,
    )


def traffic() -> bytes:
    """Eight requests a second of one address, one of them failing, among others who make one in three seconds.

    Another address does the same just before the change and, in the same cell, a while after it; it is never quite gone.
    """
    lines = []
    for second in range(SECONDS):
        lines += [line(second, ATTACKER, f"{second}x{n}", 404 if n == 0 else 200) for n in range(8)]
        many = 8 if second in (*range(67, 75), *range(90, 99)) else second in range(80, 90)
        lines += [line(second, "203.0.113.20", f"{second}y{n}") for n in range(many)]
        lines += [line(second, f"198.51.100.{n}", "home") for n in range(60) if n % 3 == second % 3]
    return b"".join(lines)


TRAFFIC = traffic()


def lines_before(second: int) -> int:
    return sum(int(row[8:18]) < START + second for row in TRAFFIC.splitlines())


def about(decided: Decided, target: str = ATTACKER, detector: str = "rate") -> list[Mitigation]:
    found = [m for m in decided.mitigations if m.stage == "final" and m.target.value == target and m.detector == detector]
    return sorted(found, key=lambda m: m.tick)


def run(configuration: Config, chain: ConfigChain, **options: Any) -> Decided:
    return decide(TRAFFIC, BOUND_MS, configuration, history=chain, **options)


def restarted(configuration: Config, chain: ConfigChain, lines_before: int) -> Decided:
    """Saved after so many lines, and gone on from that."""
    lines = TRAFFIC.splitlines(keepends=True)
    first = Embedded(configuration, history=chain)
    first.open("log", BOUND_MS)
    base = feed(first, "log", b"".join(lines[:lines_before]), 0)
    before, saved = first.take(), first.snapshot()
    first.stop()
    second = Embedded.restore(configuration, saved, history=chain)
    feed(second, "log", b"".join(lines[lines_before:]), base)
    second.close("log")
    after = conclude(second)
    return Decided([*before.mitigations, *after.mitigations], [*before.findings, *after.findings], after.account)


def test_a_lower_limit_holds_from_its_second_on_and_finds_what_the_window_had_counted() -> None:
    configuration = config()
    first = about(run(configuration, history(configuration, ("detectors.rate", {"rules": [rule(50)]}, TICK))))[0]
    assert (first.tick, first.observed, first.limit, first.window.start) == (TICK, 80, 50, TICK - 9)
    assert first.config_version == 2
    assert not about(decide(TRAFFIC, BOUND_MS, configuration))


def test_a_higher_limit_lets_go_from_its_second_on() -> None:
    configuration = config(rule(50))
    decided = run(configuration, history(configuration, ("detectors.rate", {"rules": [rule(90)]}, TICK), forced=False))
    assert max(m.tick for m in about(decided)) < TICK


def test_a_longer_window_is_judged_once_rows_for_all_of_it_are_there() -> None:
    configuration = config(rule(1000, 10))
    first = about(run(configuration, history(configuration, ("detectors.rate", {"rules": [rule(50, 30)]}, TICK))))[0]
    assert (first.tick, first.observed) == (TICK - 10 + 29, 240)
    assert first.evidence.features["judged_from"] == TICK + 19


def test_a_measure_that_was_not_kept_is_judged_once_its_window_is_whole() -> None:
    configuration = config()
    failing = rule(5, 10, measure="client_errors")
    first = about(run(configuration, history(configuration, ("detectors.rate", {"rules": [rule(), failing]}, TICK))))[0]
    assert (first.tick, first.observed) == (TICK + 9, 10)


def test_a_shorter_window_of_what_is_kept_is_judged_at_once() -> None:
    configuration = config(rule(1000, 60))
    first = about(run(configuration, history(configuration, ("detectors.rate", {"rules": [rule(30, 5)]}, TICK))))[0]
    assert (first.tick, first.observed) == (TICK, 40)
    assert "judged_from" not in first.evidence.features


def test_what_was_mitigated_in_the_cell_is_mitigated_again_as_another_version() -> None:
    configuration = config(rule(50))
    chain = history(configuration, ("detectors.rate", {"rules": [rule(60, action="block")]}, TICK))
    at = [(m.tick, m.action, m.config_version) for m in about(run(configuration, chain))]
    assert at[:4] == [
        (START + 6, "throttle", 1), (START + 60, "throttle", 1), (TICK, "block", 2), (START + 120, "block", 2)
    ]  # fmt: skip
    ids = {m.id for m in about(run(configuration, chain))}
    assert len(ids) == len(about(run(configuration, chain)))


def test_an_exception_holds_from_its_second_on_and_needs_no_force() -> None:
    configuration = config(rule(50))
    allow = [{"dimension": "ip", "value": ATTACKER, "owner": "ops", "reason": "load test"}]
    decided = run(configuration, history(configuration, ("policy", {"allow": allow}, TICK), forced=False))
    assert max(m.tick for m in about(decided)) < TICK
    assert {f.outcome for f in decided.findings if f.tick >= TICK} == {"allowlisted"}


def test_a_time_to_live_holds_from_its_second_on() -> None:
    configuration = config(rule(50))
    lengths = {
        m.tick >= TICK: m.expires_at - m.issued_at
        for m in about(run(configuration, history(configuration, ("policy", {"ttl_s": 900}, TICK))))
    }
    assert lengths == {False: 300, True: 900}


LONG = rule(900, 180)
SHARE = {"dimension": "ip", "measure": "client_errors", "share": 0.1, "window_s": 10, "limit": 5}
SETS = {"dimension": "ip", "items": "user_agent", "window_s": 12, "limit": 100}
CHANGES: list[tuple[str, Config, list[tuple[str, dict[str, Any], int]]]] = [
    ("limit", config(), [("detectors.rate", {"rules": [rule(50)]}, TICK)]),
    ("twice", config(), [("detectors.rate", {"rules": [rule(n)]}, TICK + 20 * n) for n in (2, 1)][::-1]),
    ("window", config(), [("detectors.rate", {"rules": [rule(50, 30)]}, TICK)]),
    ("back and forth", config(), [
        ("detectors.rate", {"rules": [rule(50, 30)]}, TICK), ("detectors.rate", {"rules": [rule(60, 5)]}, TICK + 7),
        ("detectors.rate", {"rules": [rule(90, 20), rule(5, 10, measure="client_errors")]}, TICK + 11),
    ]),
    ("long", config(rule(), LONG), [
        ("detectors.rate", {"rules": [rule(), rule(700, 180)]}, TICK),
        ("detectors.rate", {"rules": [rule(), rule(50, 180, measure="client_errors"), LONG]}, TICK + 30),
    ]),
    ("share", config(detectors={"ratio": {"rules": [{**SHARE, "share": 0.9}]}}), [
        ("detectors.ratio", {"rules": [SHARE]}, TICK),
    ]),
    ("sets", config(detectors={"distinct": {"rules": [SETS]}}), [
        ("detectors.distinct", {"rules": [{**SETS, "limit": 4}]}, TICK),
        ("detectors.distinct", {"rules": [{**SETS, "limit": 7, "window_s": 40}]}, TICK + 5),
    ]),
    ("off and on", config(rule(50)), [
        ("detectors.rate", {"enabled": False}, TICK), ("detectors.rate", {"enabled": True}, TICK + 25),
    ]),
    ("learning", config(detectors={"surge": {}, "signature": {}, "entropy": {}}), [
        ("detectors.surge", {"alarm_at": 9.0}, TICK), ("detectors.signature", {"dry_run": False}, TICK + 9),
        ("detectors.entropy", {"enabled": False}, TICK + 30), ("detectors.rate", {"rules": [rule(50, 11)]}, TICK + 31),
    ]),
    ("policy", config(rule(50)), [
        ("policy", {"block_from_level": 0, "ttl_s": 200}, TICK), ("policy", {"shared_networks": ["203.0.113.0/24"]}, TICK + 45),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("configuration", "changes"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_the_same_ids_for_any_cut_partitioning_and_restart(
    configuration: Config, changes: list[tuple[str, dict[str, Any], int]]
) -> None:
    chain = history(configuration, *changes)
    whole = run(configuration, chain)
    assert nothing_was_bounded(whole.account)
    assert {m.config_version for m in whole.mitigations} - {1}
    other = config_of({**_document(configuration), "engine": {"judge_partitions": 1, "seed": configuration.engine.seed}})
    runs = [
        run(configuration, chain, piece=31), run(configuration, chain, early=True, piece=977),
        run(other, history(other, *changes)),
    ]  # fmt: skip
    runs += [restarted(configuration, chain, lines_before(second) + 5) for second in (60, 77, 79, 84, 97, 112, 140)]
    for decided in runs:
        assert decided.final_ids == whole.final_ids
        assert sorted(set(decided.final_finding_ids)) == sorted(set(whole.final_finding_ids))


def _document(configuration: Config) -> dict[str, Any]:
    return {k: v for k, v in msgspec.to_builtins(configuration).items() if k != "engine"}


@pytest.mark.parametrize("name", ["limit", "sets", "share", "long", "policy"])
def test_exchanging_limits_decides_as_laying_all_out_again_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration, changes = next((case[1], case[2]) for case in CHANGES if case[0] == name)
    chain = history(configuration, *changes)
    expected = run(configuration, chain)
    for module in ("engine.judge", "engine.planned"):
        monkeypatch.setattr(f"{module}.is_laid_out_alike", lambda plan, other: False)
    again = run(configuration, chain)
    assert (again.final_ids, again.final_finding_ids) == (expected.final_ids, expected.final_finding_ids)


def test_early_records_go_by_the_new_limit_as_soon_as_rows_of_its_second_come() -> None:
    configuration = config()
    chain = history(configuration, ("detectors.rate", {"rules": [rule(50)]}, TICK))
    engine = Embedded(configuration, early=True, history=chain)
    engine.open("log", BOUND_MS)
    data = b"".join(row for row in TRAFFIC.splitlines(keepends=True) if int(row[8:18]) <= TICK)
    feed(engine, "log", data, 0)
    told = [m for m in engine.take().mitigations if m.target.value == ATTACKER]
    engine.stop()
    assert [(m.stage, m.tick, m.config_version) for m in told] == [("early", TICK, 2)]
    (final,) = [m for m in about(run(configuration, chain)) if m.tick == TICK]
    assert told[0].id == final.id


def test_a_change_is_tried_beside_what_is_in_force_and_then_armed() -> None:
    configuration = config(rule(70))
    chain = ConfigChain(configuration)
    offer(chain, "detectors.rate", {"rules": [rule(30)]}, TICK, trial_s=60)
    offer(chain, "detectors.rate", {}, TICK + 60, arms=2)
    decided = run(configuration, chain)
    tried = about(decided, detector="rate-trial")
    assert {(m.limit, m.dry_run, m.config_version) for m in tried} == {(30, True, 2)}
    assert (tried[0].tick, max(m.tick for m in tried) < TICK + 60) == (TICK, True)
    real = {m.limit: m.tick for m in reversed(about(decided))}
    assert real == {70: START + 8, 30: TICK + 60}
    untouched = {m.id for m in about(decide(TRAFFIC, BOUND_MS, configuration)) if m.tick < TICK + 60}
    assert {m.id for m in about(decided) if m.tick < TICK + 60} == untouched


def test_a_change_that_comes_after_its_second_holds_from_the_next_one_on() -> None:
    configuration = config()
    (accepted,) = history(configuration, ("detectors.rate", {"rules": [rule(50)]}, TICK)).accepted
    judge = Judge(configuration, make_seeds(configuration), lambda mitigations, findings: None)
    assert judge.reconfigure(accepted.standing, TICK) == TICK
    judge.windows.scalars[:, 0] = TICK + 4
    assert judge.reconfigure(accepted.standing, TICK) == TICK + 5


def test_a_mistaken_limit_is_held_past_half_of_the_keys_and_one_change_undoes_it() -> None:
    configuration = config(partitions=1)
    chain = ConfigChain(configuration)
    offer(chain, "detectors.rate", {"rules": [rule(1)]}, TICK, forced=True)
    offer(chain, "detectors.rate", {}, TICK + 30, unset=("rules",))
    decided = run(configuration, chain)
    made = [m for m in decided.mitigations if m.stage == "final"]
    active = {m.target.value for m in made if m.state == "active"}
    held = [m for m in made if m.state == "held"]
    assert len(active) <= 31
    assert len({m.target.value for m in held}) >= 29
    assert all(m.reason.endswith("; held by policy.share_max") for m in held)
    assert {TICK <= m.tick < TICK + 30 for m in made} == {True}


def tallies_of(configuration: Config) -> list[list[bytes]]:
    """What an observer ships to each judge partition, in flushes of less than a second, and then silence."""
    source = SourcePost("log-0", 0, "", Bench(configuration, make_seeds(configuration)))
    lines = [row.rstrip(b"\n") for row in TRAFFIC.splitlines(keepends=True)]
    shipped: list[list[bytes]] = [[] for _ in range(configuration.engine.judge_partitions)]
    for first in range(0, len(lines), 13):
        some = lines[first : first + 13]
        messages = Messages()
        messages.add(some, list(range(first, first + len(some))), [BOUND_MS] * len(some), sum(map(len, some)))
        for partition, part in enumerate(source.ship(messages, 0, 0).parts):
            shipped[partition] += part
    for second in range(20):
        silent = source.silence(1000 * second)
        for partition, part in enumerate(silent.parts if silent is not None else ()):
            shipped[partition] += part
    return shipped


class Live:
    """One judge partition that learns of changes as it goes, late, and dies now and then."""

    def __init__(self, configuration: Config, written: list[Accepted], partition: int, chance: random.Random) -> None:
        self.configuration, self.partition, self.chance = configuration, partition, chance
        self.unread, self.chain = list(written), ConfigChain(configuration)
        self.seeds = make_seeds(configuration)
        self.record: bytes | None = None
        self.known = 0
        self.post = self.begin()

    def begin(self) -> JudgePost:
        return JudgePost(self.configuration, self.seeds, self.partition, ["log-0"], early=True, history=self.chain)

    def look(self, now: int) -> None:
        """Read the topic up to a while ago."""
        lateness = self.configuration.time.lateness_s
        self.known = max(self.known, now - self.chance.choice((0, 1, 5, 9)))
        while self.unread and self.unread[0].change.effective_tick - lateness - 5 <= self.known:
            self.chain.accepted.append(self.unread.pop(0))
        heard = self.post.hear(self.known + lateness)
        assert all(since == accepted.change.effective_tick for accepted, since in heard)

    def die(self, tallies: list[bytes]) -> None:
        if self.record is None:
            return
        read = decode_record(self.record, self.configuration, self.seeds, self.partition)
        self.post = self.begin()
        self.post.hear(self.known + self.configuration.time.lateness_s)
        self.post.begin(read)
        for offset in range(read.rebuild_from, read.position):
            self.post.reread(offset, tallies[offset])
        self.post.end(read)


@pytest.mark.parametrize(
    ("name", "seed"), [("limit", 1), ("back and forth", 1), ("back and forth", 2), ("long", 1), ("sets", 1), ("learning", 1)]
)
def test_judges_that_read_the_topic_late_and_die_decide_what_a_replay_does(name: str, seed: int) -> None:
    configuration, changes = next((case[1], case[2]) for case in CHANGES if case[0] == name)
    chain, chance = history(configuration, *changes), random.Random(seed)
    whole = run(configuration, chain)
    mitigations, findings = [], []
    for partition, tallies in enumerate(tallies_of(configuration)):
        live = Live(configuration, chain.accepted, partition, chance)
        for _ in range(3 * len(tallies)):
            position = live.post.position
            if position == len(tallies):
                break
            live.look(START + position * SECONDS // len(tallies))
            live.post.accept(position, tallies[position])
            made = live.post.take()
            mitigations += made.mitigations
            findings += made.findings
            if chance.random() < 0.05:
                live.record = live.post.record()
            if chance.random() < 0.03:
                live.die(tallies)
        live.known = START + SECONDS + 100
        live.post.hear(live.known)
        live.post.judge.advance()
        made = live.post.take()
        mitigations += made.mitigations
        findings += made.findings
    decided = Decided(mitigations, findings, whole.account)
    assert decided.final_ids == whole.final_ids
    assert sorted(set(decided.final_finding_ids)) == sorted(set(whole.final_finding_ids))
