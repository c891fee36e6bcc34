"""Playbooks: the same runs for any cut, partitioning and restart; what holds them back; and all of a run taken back at once."""

from __future__ import annotations

import functools
import itertools
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from detectors.registry import playbooks
from edge.in_process import InProcessEdge
from edge.runs import runs_of
from engine.config_chain import ConfigChain
from engine.crossing import Crossing, target_value
from engine.embedded import Embedded
from engine.playbook_parts import Heard
from engine.playbooks import CONDITIONS_MAX, Playbooks
from engine.standing import standing_of
from floodwall.cli import app
from floodwall.explain_screen import screen
from replay.story import Records, tell
from schemas.config import Config
from schemas.errors import ConfigError
from schemas.feedback import encode_feedback, revert_record
from schemas.fields import Dimension
from schemas.mitigation import Mitigation, encode_line
from schemas.playbooks import PREFIX, SHIPPED, playbooks_of
from tests.engines import Decided, conclude, config_of, decide, feed, nothing_was_bounded
from tests.histories import change_of, history, offer
from tests.test_distributed import ARMED, BOTNET_S, BOUND_MS, START_S, lines
from tests.test_leaked import START, busy, lift, report
from tests.test_leaked import lines as key_lines
from tests.test_posts import judge, observe
from tests.test_registrations import arm, play, stream

ATTACK = "service-under-distributed-attack"
BOTNET = '{"service":"www.example.com","user_agent":"Stealth/1"}'
THROTTLE = {"action": "throttle", "target": "service", "after_s": 20, "collateral_max": 1.0, "ttl_s": 120}
STEPS = [
    {"action": "notify", "target": "service", "ttl_s": 120},
    {"action": "challenge", "target": "found", "types": ["signature"], "ttl_s": 120},
    THROTTLE,
]


def config(
    state: str = "armed", policy: dict[str, Any] | None = None, engine: dict[str, int] | None = None, **section: Any
) -> Config:
    playbook = {"state": state, "owner": "ana", "steps": STEPS, **section}
    document = {
        "detectors": {**ARMED, "signature": {"dry_run": True}}, "policy": {"allowlist_core": [], **(policy or {})},
        "kafka": {"rows_max": 1_000_000}, "playbooks": {ATTACK: playbook},
    }  # fmt: skip
    return config_of(document, **(engine or {}))


def of_playbooks(decided: Decided) -> list[Mitigation]:
    return sorted(
        (m for m in decided.mitigations if m.detector.startswith(PREFIX)), key=lambda m: (m.tick, m.detector, m.target.value)
    )


def essence(decided: Decided) -> set[tuple[Any, ...]]:
    return {
        (m.id, m.tick, m.state, m.action, m.target.value, m.expires_at, m.dry_run, m.evidence.features.get("run"))
        for m in of_playbooks(decided)
    }


@functools.cache
def reference() -> Decided:
    return decide(b"".join(lines()), BOUND_MS, config())


def only_of(service: str, decided: Decided) -> list[Mitigation]:
    return [m for m in of_playbooks(decided) if service in m.target.value]


def test_an_armed_run_tells_challenges_then_lowers_the_limits_of_the_service_and_ends_by_itself() -> None:
    assert nothing_was_bounded(reference().account)
    told = only_of("www", reference())
    assert {(m.action, m.target.type, m.target.value, m.dry_run) for m in told} == {
        ("notify", "service", "www.example.com", False),
        ("challenge", "signature", BOTNET, False),
        ("throttle", "service", "www.example.com", False),
    }
    assert len({m.evidence.features["run"] for m in told}) == 1
    first = {action: min(m.tick for m in told if m.action == action) - START_S for action in ("challenge", "throttle")}
    assert BOTNET_S[0] + 10 <= first["challenge"] <= BOTNET_S[0] + 20
    assert first["throttle"] >= first["challenge"] + 20
    last = max(m.expires_at for m in told) - START_S
    assert BOTNET_S[1] < last <= BOTNET_S[1] + 10 + 120 + 11
    published = {f.id for f in reference().findings}
    assert all(m.finding in published for m in told)


def test_a_simulated_run_is_the_same_in_dry_run_and_people_are_told_all_the_same() -> None:
    simulated = decide(b"".join(lines()), BOUND_MS, config("simulated"))
    assert [(m.action, m.tick, m.target) for m in of_playbooks(simulated)] == [
        (m.action, m.tick, m.target) for m in of_playbooks(reference())
    ]
    assert all(m.dry_run == (m.action != "notify") for m in of_playbooks(simulated))
    assert all("(simulated)" in m.reason for m in of_playbooks(simulated))
    assert of_playbooks(decide(b"".join(lines()), BOUND_MS, config("off"))) == []


@pytest.mark.parametrize("engine", [{"chunk_events": 7}, {"judge_partitions": 1}, {"judge_partitions": 4}])
def test_chunks_and_judge_partitions_change_no_run(engine: dict[str, int]) -> None:
    assert essence(decide(b"".join(lines()), BOUND_MS, config(engine=engine))) == essence(reference())


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(4000, 8000), max_size=6), early=st.booleans())
def test_no_cut_and_no_restart_changes_a_run(cuts: list[int], early: bool) -> None:
    engine = Embedded(config(), early=early)
    engine.open("log", BOUND_MS)
    base, mitigations = 0, list[Mitigation]()
    for low, high in itertools.pairwise([0, *sorted(min(cut, len(lines())) for cut in cuts), len(lines())]):
        base = feed(engine, "log", b"".join(lines()[low:high]), base) if low < high else base
        mitigations += engine.take().mitigations
        saved = engine.snapshot()
        engine.stop()
        engine = Embedded.restore(config(), saved, early=early)
    engine.close("log")
    last = conclude(engine)
    assert essence(Decided(mitigations + last.mitigations, [], last.account)) == essence(reference())


def test_judges_that_die_anywhere_decide_the_same_runs() -> None:
    chance = random.Random(5)
    parts: dict[str, list[bytes]] = {f"requests-{index}": [] for index in range(3)}
    for text in lines():
        parts[f"requests-{chance.randrange(3)}"].append(text.rstrip(b"\n"))
    settled = config(engine={"judge_partitions": 4})
    log = observe(parts, settled, chance, crashes=True)
    assert essence(judge(log, list(parts), settled, chance, crashes=True)) == essence(reference())


def reverted(piece: int) -> Decided:
    """Thirty seconds into the run somebody takes it back."""
    run = str(only_of("www", reference())[0].evidence.features["run"])
    tick = START_S + BOTNET_S[0] + 42
    record = revert_record(run, PREFIX + ATTACK, who="ana", reason="our launch", when=tick - 9, tick=tick)
    engine = Embedded(config())
    engine.receive(encode_feedback(record))
    engine.open("log", BOUND_MS)
    base = 0
    for first in range(0, len(lines()), piece):
        base = feed(engine, "log", b"".join(lines()[first : first + piece]), base)
    engine.close("log")
    return conclude(engine)


def test_reverting_a_run_lifts_all_of_it_at_once_and_it_does_not_come_back_while_the_attack_lasts() -> None:
    decided, tick = reverted(100_000), START_S + BOTNET_S[0] + 42
    told = only_of("www", decided)
    lifted = [m for m in told if m.state == "lifted"]
    assert {(m.action, m.tick) for m in lifted} == {("notify", tick), ("challenge", tick), ("throttle", tick)}
    assert all("was reverted by ana: our launch" in m.reason for m in lifted)
    assert max(m.tick for m in told if m.state == "active") < tick
    assert {m.id for m in lifted} <= {m.id for m in told if m.state == "active"}
    assert any(m.tick > tick for m in only_of("api", decided))
    assert essence(reverted(1700)) == essence(decided)
    (run, _) = runs_of(map(encode_line, of_playbooks(decided)))
    assert (run.reverted, run.playbook, len(run.steps)) == (True, ATTACK, 3)


def test_what_may_be_hit_too_is_bounded_and_more_is_held_with_the_bound_named() -> None:
    dear = {**THROTTLE, "collateral_max": 0.5}
    decided = decide(b"".join(lines()), BOUND_MS, config(steps=[*STEPS[:2], dear], collateral_max=0.001))
    held = [m for m in of_playbooks(decided) if m.state == "held"]
    assert {m.action for m in held} == {"challenge", "throttle"}
    assert all(m.evidence.features["held"] == f"playbooks.{ATTACK}.collateral_max" for m in held)
    assert all(m.reason.endswith(f"held by playbooks.{ATTACK}.collateral_max") for m in held)
    assert decided.account.held == len(held)
    full = decide(b"".join(lines()), BOUND_MS, config(policy={"active_max": 1}, engine={"judge_partitions": 1}))
    assert "held by policy.active_max" in " ".join(m.reason for m in of_playbooks(full) if m.state == "held")


def test_an_allowlisted_address_among_them_keeps_a_signature_from_being_challenged() -> None:
    allow = {"dimension": "net", "value": "2001::/16", "owner": "me", "reason": "a partner"}
    decided = decide(b"".join(lines()), BOUND_MS, config(policy={"allow": [allow]}))
    assert not [m for m in of_playbooks(decided) if m.action == "challenge"]


# Playbooks by themselves, with findings made by hand.


def heard(tick: int, value: str = "www", *, detector: str = "surge", **more: Any) -> Heard:
    fields: dict[str, Any] = {
        "partition": 0, "dimension": int(Dimension.SERVICE), "key_a": 1, "key_b": 2, "service": "www", "measure": "requests",
        "observed": 600, "limit": 100, "requests": 600, "window_s": 60, "severity": 5, "confidence": 0.9, "collateral": None,
        "finding": f"f{tick}", "reason": "too much", "acts": True, **more,
    }  # fmt: skip
    return Heard(tick=tick, detector=detector, value=value, **fields)


def made(**section: Any) -> tuple[Playbooks, Config]:
    document = {
        "state": "armed", "owner": "ana", "when": {"detectors": ["surge", "entropy"]},
        "steps": [{"action": "notify", "target": "service"}], **section,
    }  # fmt: skip
    off = {name: {"state": "off"} for name in SHIPPED}
    chosen = config_of({"playbooks": {**off, "mine": document}})
    return Playbooks(standing_of(chosen)), chosen


def ran(some: Playbooks, *findings: Heard) -> list[tuple[int, str, str, str]]:
    """(tick, action, target, run) of what comes of findings, each told by itself."""
    found = []
    for one in findings:
        some._pending.append((one.tick, 1, one))
        for crossing, _ in some.close():
            value = target_value(crossing.dimension, crossing.key_a, crossing.key_b, crossing.name)
            found.append((crossing.tick, crossing.rule.action, value, str(dict(crossing.features)["run"])))
    return found


def ticks(told: list[tuple[int, str, str, str]]) -> list[int]:
    return [tick for tick, *_ in told]


def test_a_condition_has_to_last_and_to_be_agreed_on() -> None:
    when = {"detectors": ["surge", "entropy"], "for_s": 60, "agree": 2}
    assert ticks(ran(made(when=when)[0], *(heard(t) for t in range(0, 600, 30)))) == []
    some = [heard(0), heard(30, detector="entropy"), heard(59), heard(61), heard(70, detector="entropy")]
    assert ticks(ran(made(when=when)[0], *some)) == [61]
    assert ticks(ran(made(when={**when, "agree": 1})[0], heard(0), heard(59), heard(300), heard(361))) == [361]


@pytest.mark.parametrize(
    ("when", "counts"),
    [
        ({"measures": ["pages"]}, False), ({"measures": ["requests"]}, True), ({"targets": ["signature"]}, False),
        ({"services": ["api"]}, False), ({"services": ["www"]}, True), ({"severity_min": 6}, False),
        ({"confidence_min": 0.95}, False), ({"times_min": 6.0}, True), ({"times_min": 6.1}, False),
    ],
)  # fmt: skip
def test_only_findings_that_are_meant_make_a_condition(when: dict[str, Any], counts: bool) -> None:
    assert bool(ran(made(when={"detectors": ["surge"], **when})[0], heard(7))) is counts
    assert not ran(made(when={"detectors": ["entropy"]})[0], heard(7)) or True


def test_a_run_is_renewed_in_each_cell_ends_when_it_is_quiet_and_does_not_come_back_before_it_has_cooled_down() -> None:
    some, _ = made(quiet_s=100, cool_down_s=300)
    first = ran(some, *(heard(t) for t in range(0, 121, 20)))
    assert ticks(first) == [0, 60, 120]
    assert len({run for *_, run in first}) == 1
    assert ran(some, *(heard(t) for t in range(300, 400, 50))) == []  # over at 220, cool at 520
    assert ran(some, heard(510)) == []
    (again,) = ran(some, heard(530))
    assert again[3] != first[0][3]


def test_a_run_stops_to_be_renewed_when_somebody_has_to_look() -> None:
    some, _ = made(run_s_max=120)
    assert ticks(ran(some, *(heard(t) for t in range(0, 600, 60)))) == [0, 60, 120]


def test_steps_come_in_their_time_with_their_own_targets_up_to_so_many() -> None:
    steps = [
        {"action": "challenge", "types": ["country"], "never": ["DE"]},
        {"action": "restrict_registration", "types": ["country"], "after_s": 60, "never": ["DE"], "collateral_max": 0.05},
        {"action": "restrict_registration", "target": "listed", "values": ["net:198.51.100.0/24", "asn:64500"],
         "collateral_max": 1.0},
    ]  # fmt: skip
    some, _ = made(steps=steps, targets_max=3, collateral_max=1.0)
    countries = {"collateral": 0.02, "dimension": int(Dimension.COUNTRY), "detector": "entropy"}
    told = ran(some, *(heard(0, name, **countries) for name in ("DE", "XA", "XB", "XC", "XD")))
    published = [one for condition in some.save()["conditions"] for one in condition[4][6][2]]
    assert not any(held for *_, held in published)
    assert {(action, value) for _, action, value, _ in told} == {
        ("challenge", "XA"), ("challenge", "XB"), ("challenge", "XC"), ("restrict_registration", "198.51.100.0/24"),
        ("restrict_registration", "64500"),
    }  # fmt: skip
    assert "XA" in {value for _, action, value, _ in ran(some, heard(60, "XA", **countries)) if action != "challenge"}


def test_what_is_not_measured_counts_as_everybody_and_what_has_room_keeps_it() -> None:
    some, _ = made(steps=[{"action": "restrict_registration", "types": ["country"]}], collateral_max=0.05)

    def held(tick: int, name: str, collateral: float | None) -> str:
        some._pending.append((tick, 1, heard(tick, name, collateral=collateral, dimension=int(Dimension.COUNTRY))))
        ((crossing, _),) = some.close()
        return crossing.held

    assert held(0, "XU", None) == "playbooks.mine.collateral_max"
    assert held(1, "XA", 0.03) == ""
    assert held(2, "XB", 0.03) == "playbooks.mine.collateral_max"
    assert held(3, "XC", 0.02) == ""
    assert held(60, "XA", 0.03) == ""


def test_the_load_that_people_are_told_is_the_last_whole_minute_beside_the_hour_before() -> None:
    some, _ = made()
    some.hear_load([(0, minute, b"www", 6000 + 60 * minute, 600_000) for minute in range(10)])
    some.hear_load([(0, 10, b"www", 30_000, 1_200_000)])
    some._pending.append((659, 1, heard(659)))
    ((crossing, finding),) = some.close()
    features = dict(crossing.features)
    assert (features["load_requests_per_s"], features["load_usual_per_s"], features["load_times_usual"]) == (500.0, 104.5, 4.78)
    assert (features["load_tokens_per_s"], features["load_most_before_per_s"]) == (20_000.0, 109.0)
    assert "to scale out by: 500.0 requests a second, 104.5 are usual; 20,000.0 tokens" in crossing.reason
    assert finding == "f659"


def test_conditions_are_bounded_and_what_found_no_room_is_counted() -> None:
    some, _ = made(when={"detectors": ["leaked"]}, steps=[{"action": "notify", "target": "found"}])
    keys = [
        heard(5, f"k{n}", detector="leaked", service="", dimension=int(Dimension.API_KEY)) for n in range(CONDITIONS_MAX + 9)
    ]
    assert len(ran(some, *keys)) == CONDITIONS_MAX
    assert some.refused == 9
    assert len(ran(some, heard(900, "later", detector="leaked", service="", dimension=int(Dimension.API_KEY)))) == 1


@settings(max_examples=40, deadline=None)
@given(
    seen=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3), st.sampled_from(["surge", "entropy"])), max_size=40),
    cuts=st.sets(st.integers(0, 2000), max_size=5),
)
def test_findings_make_the_same_runs_however_many_are_told_at_once_and_through_any_restart(
    seen: list[tuple[int, int, str]], cuts: set[int]
) -> None:
    section = {
        "quiet_s": 90, "cool_down_s": 200, "run_s_max": 400, "collateral_max": 0.03,
        "when": {"detectors": ["surge", "entropy"], "for_s": 20},
        "steps": [{"action": "notify", "target": "service"}, {"action": "challenge", "types": ["country"], "after_s": 30}],
    }  # fmt: skip
    findings = [
        heard(tick, f"X{which}", detector=detector, dimension=int(Dimension.COUNTRY), collateral=0.01 * which)
        if which
        else heard(tick, detector=detector)
        for tick, which, detector in sorted(set(seen))
    ]
    whole, chosen = made(**section)
    whole._pending += [(one.tick, 1, one) for one in findings]
    expected = [(msgspec.to_builtins(c.features), c.tick, c.name, c.held, f) for c, f in whole.close()]
    some, found = made(**section)[0], []
    for low, high in itertools.pairwise([-1, *sorted(cuts), 2001]):
        some._pending += [(one.tick, 1, one) for one in findings if low < one.tick <= high]
        found += [(msgspec.to_builtins(c.features), c.tick, c.name, c.held, f) for c, f in some.close()]
        saved = msgspec.msgpack.decode(msgspec.msgpack.encode(some.save()))
        some = Playbooks(standing_of(chosen))
        some.load(saved)
    assert found == expected


# What ships for floods of registrations, and for leaked keys.


def test_a_flood_of_registrations_is_answered_where_it_comes_from_countries_too_within_the_collateral() -> None:
    one, chance = stream(), np.random.default_rng(1)
    play(one, chance, 400)
    arm(one)
    one.going_on.clear()
    play(one, chance, 24, 15)
    chosen = config_of({"playbooks": {"registration-flood": {"state": "armed", "owner": "ana"}}})
    some, steps = Playbooks(standing_of(chosen)), list[Crossing]()
    for crossing in one.going_on:
        some.hear(crossing, None)
        steps += [step for step, _ in some.close()]
    acted = {(c.rule.action, target_value(c.dimension, c.key_a, c.key_b, c.name)) for c in steps if not c.held}
    assert acted == {
        ("notify", "www.example"), ("challenge", '{"event":"registration","service":"www.example"}'),
        ("restrict_registration", "198.51.100.0/24"), ("restrict_registration", "ten.example"),
    }  # fmt: skip
    assert all(not c.rule.dry_run for c in steps)
    first = {c.rule.action: c.tick for c in reversed(steps)}
    assert first["restrict_registration"] >= first["challenge"] + 60


def leaked(folder: Path, playbook: dict[str, Any] | None = None, chain: Any = None, **section: Any) -> Decided:
    from schemas.leaked import encode_leak

    file = folder / "reports.ndjson"
    file.write_bytes(encode_leak(report("k")) + b"\n" + encode_leak(lift("k", 3000)) + b"\n")
    sections = {"leaked-key": playbook} if playbook else {}
    chosen = config_of({"detectors": {"leaked": {"reports": str(file), **section}}, "playbooks": sections})
    data = key_lines(*busy("k", 100, 4000, 50))
    return decide(data, 1000 * (START + 10_000_000), chosen, history=None if chain is None else chain(chosen))


def brief(decided: Decided) -> list[tuple[str, int, str, str, bool]]:
    return sorted({(m.id, m.tick, m.action, m.state, m.dry_run) for m in decided.mitigations if m.detector == "leaked"})


ARMED_KEY = {"state": "armed", "owner": "ana"}


def test_arming_the_playbook_of_leaked_keys_is_what_disable_was_and_what_it_says_itself_wins(tmp_path: Path) -> None:
    armed, older = leaked(tmp_path, ARMED_KEY), leaked(tmp_path, disable=True)
    assert brief(armed) == brief(older)
    assert {state for *_, action, state, _ in brief(armed) if action == "disable_key"} == {"active", "lifted"}
    disabled = next(m for m in armed.mitigations if m.action == "disable_key")
    assert disabled.evidence.features["playbook"] == "leaked-key"
    assert len({m.evidence.features["run"] for m in armed.mitigations if m.action == "disable_key"}) == 1
    off = leaked(tmp_path, {"state": "off"}, disable=True)
    assert {m.action for m in off.mitigations} == {"notify"}


def test_simulated_a_leaked_key_stays_as_it_is_and_one_sees_what_would_have_been_done(tmp_path: Path) -> None:
    decided = leaked(tmp_path)
    assert {(m.detector, m.action, m.dry_run) for m in decided.mitigations} == {
        ("leaked", "notify", False), ("playbook-leaked-key-disable_key", "disable_key", True),
    }  # fmt: skip


def test_a_playbook_is_armed_on_the_way_and_nothing_that_was_disabled_comes_back_when_it_is_off(tmp_path: Path) -> None:
    def chain(chosen: Config) -> ConfigChain:
        return history(
            chosen, ("playbooks.leaked-key", ARMED_KEY, START + 500), ("playbooks.leaked-key", {"state": "off"}, START + 900)
        )

    found = [m for m in leaked(tmp_path, chain=chain).mitigations if m.action == "disable_key" and not m.dry_run]
    assert [(m.tick - START, m.state) for m in found] == [(500, "active"), (3000, "lifted")]


# Configuration, commands, and what an operator reads.


@pytest.mark.parametrize(
    ("name", "section", "told"),
    [
        ("mine", {}, "missing required field `when`"), ("Mine", {}, "expected a name of up to 33"),
        ("leaked-key", {"state": "armed"}, "expected who answers for what is armed at `$.playbooks.leaked-key.owner`"),
        ("leaked-key", {"stat": "armed"}, "unknown field `stat`"), (ATTACK, {"quiet_s": 1}, "at `$.playbooks.service-under"),
        (ATTACK, {"steps": [{"action": "block", "ttl_s": None}]}, "expected an end at"),
        (ATTACK, {"steps": [{"action": "disable_key", "ttl_s": None}]}, "only on keys that were found by leaked"),
        (ATTACK, {"steps": [THROTTLE, THROTTLE]}, "each action on each kind of target once"),
        (ATTACK, {"steps": [{"action": "block", "target": "listed"}]}, "expected values where the target is listed"),
        (ATTACK, {"steps": [{"action": "block", "target": "listed", "values": ["net:10.0.0.0/8"]}]}, "that edges look up"),
        (ATTACK, {"steps": [{"action": "block", "target": "listed", "values": ["asn:x"]}]}, "number of an autonomous system"),
        (ATTACK, {"steps": [{"action": "block", "target": "listed", "values": ["signature:[]"]}]}, "JSON object"),
        (ATTACK, {"steps": [{"action": "block", "target": "service", "types": ["ip"]}]}, "only where the target is found"),
        (ATTACK, {"when": {"detectors": ["surge"], "agree": 2}}, "at most as many as there are detectors"),
        (ATTACK, {"when": {"detectors": ["nix"]}}, "expected a detector (distinct"),
    ],
)  # fmt: skip
def test_a_section_that_is_wrong_is_refused_with_its_path(name: str, section: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        playbooks(config_of({"playbooks": {name: section}}))
    assert told in str(caught.value)


def test_what_ships_is_simulated_and_no_section_of_a_policy_makes_it_wrong() -> None:
    every = playbooks_of(config_of({"policy": {"ttl_s": 400, "ttl_s_max": 400, "renew_s": 300}}))
    assert {one.state for one in every.values()} == {"simulated"}
    assert set(every) == {"leaked-key", "registration-flood", ATTACK}


def test_arming_and_doing_more_is_widening_and_what_stood_simulated_is_armed_alone() -> None:
    now = 1_795_000_000
    chain = ConfigChain(config_of({}))
    section = f"playbooks.{ATTACK}"
    offer(chain, section, {"collateral_max": 0.01}, now)
    with pytest.raises(ConfigError, match=r"expected `\$.forced` for what may do more"):
        offer(chain, section, {"state": "armed", "owner": "ana"}, now + 599)
    with pytest.raises(ConfigError, match="may do more"):
        offer(chain, section, {"state": "armed", "owner": "ana", "targets_max": 17}, now + 700)
    assert offer(chain, section, {"state": "armed", "owner": "ana"}, now + 600).standing.version == 3
    assert chain.last.version_of(f"{PREFIX}{ATTACK}-challenge") == 3
    for wider in (
        {"targets_max": 17},
        {"collateral_max": 0.02},
        {"cool_down_s": 1},
        {"quiet_s": 100},
        {"when": {"detectors": ["rate"]}},
    ):
        with pytest.raises(ConfigError, match="may then do otherwise"):
            offer(chain, section, wider, now + 700)
    steps = list(SHIPPED[ATTACK]["steps"])
    offer(chain, section, {"steps": [steps[0], {**steps[1], "ttl_s": 100}], "targets_max": 2}, now + 700)
    offer(chain, section, {"state": "simulated"}, now + 700)
    with pytest.raises(ConfigError, match="for a playbook, got one: it is tried"):
        offer(chain, section, {"quiet_s": 100}, now + 700, trial_s=600)
    assert offer(chain, "playbooks.mine", {"when": {"detectors": ["rate"]}, "steps": [{"action": "notify"}]}, now + 800)


def test_of_garbled_changes_of_playbooks_none_arms_one() -> None:
    now, chance = 1_795_000_000, random.Random(3)
    chain, bad = ConfigChain(config_of({})), (0, -1, 2**64, 1e308, True, None, "x", [], {}, [[]], "armed", "off", 0.1)
    words = ("state", "owner", "when", "steps", "quiet_s", "collateral_max", "targets_max", "run_s_max", "nix")
    accepted = 0
    for n in range(3_000):
        section = f"playbooks.{chance.choice((*SHIPPED, 'mine', '', 'X', 'a' * 40))}"
        values = {
            chance.choice(words): chance.choice((*bad, 200, {"detectors": ["surge"]}, [{"action": "notify"}])) for _ in range(2)
        }
        before = chain.last
        data = bytearray(msgspec.json.encode(change_of(chain.first.config, section[:64], values, now, before.version)))
        if chance.random() < 0.3:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            chain.offer(bytes(data), offset=n)
        except ConfigError:
            assert chain.last is before
            continue
        if b'"forced"' in data:
            continue
        accepted += 1
        # What ships and stands as it was may be armed at once, by whoever answers for it; nothing else may.
        for name, one in playbooks(chain.last.config).items():
            assert one.state != "armed" or name in SHIPPED
            assert one.state != "armed" or one.owner
    assert accepted > 10


def run_command(folder: Path, *words: str) -> Result:
    file = folder / "floodwall.toml"
    if not file.exists():
        file.write_text("[policy]\nallowlist_core = []\n")
    return CliRunner().invoke(app, ["playbook", *words, "--config", str(file)])


def test_an_operator_arms_sees_and_switches_off_a_playbook(tmp_path: Path) -> None:
    kept = ("--history", str(tmp_path / "history.ndjson"))
    done = run_command(tmp_path, "arm", "registration-flood", "--why", "seen for a week", "--who", "ana", *kept)
    assert "of playbooks.registration-flood holds from" in done.output
    listed = orjson.loads(run_command(tmp_path, "list", "--json", *kept).stdout)
    assert (listed["registration-flood"]["state"], listed["registration-flood"]["owner"]) == ("armed", "ana")
    assert run_command(tmp_path, "simulate", "registration-flood", "--why", "x", *kept).exit_code == 0
    assert run_command(tmp_path, "off", "registration-flood", "--why", "x", *kept).exit_code == 0
    assert orjson.loads(run_command(tmp_path, "show", "registration-flood", *kept).stdout)["state"] == "off"
    wrong = run_command(tmp_path, "arm", "nix", "--why", "x", *kept)
    assert (wrong.exit_code, "expected a playbook (leaked-key" in wrong.output) == (2, True)


def test_a_run_of_a_file_is_listed_shown_and_reverted_for_a_replay(tmp_path: Path) -> None:
    out, to = tmp_path / "out.ndjson", tmp_path / "feedback.ndjson"
    out.write_bytes(b"".join(map(encode_line, reference().mitigations)))
    runs = orjson.loads(run_command(tmp_path, "runs", "--decisions", str(out), "--json").stdout)
    run = runs[0]["run"]
    assert (runs[0]["playbook"], runs[0]["state"], len(runs[0]["steps"])) == (ATTACK, "armed", 3)
    assert orjson.loads(run_command(tmp_path, "show", run, "--decisions", str(out)).stdout)["run"] == run
    assert run in run_command(tmp_path, "runs", "--decisions", str(out)).output
    done = run_command(tmp_path, "revert", run, "--why", "ours", "--decisions", str(out), "--to", str(to))
    assert (done.exit_code, f"run {run} of {ATTACK} is reverted" in done.output) == (0, True)
    record = orjson.loads(to.read_bytes())
    assert (record["id"], record["verdict"], record["detector"]) == (run, "reverted", PREFIX + ATTACK)
    assert run_command(tmp_path, "revert", "nix", "--why", "x", "--decisions", str(out), "--to", str(to)).exit_code == 1


def test_explain_says_which_playbook_on_what_condition_and_what_to_do_next() -> None:
    chosen = next(m for m in only_of("www", reference()) if m.action == "throttle")
    for status, record in (("in force", chosen), ("dry run", msgspec.structs.replace(chosen, dry_run=True))):
        told = tell(Records(mitigations=[record]), record.id, record, record.tick + 5, live=True)
        text = "\n".join(screen(told, 110))
        run = record.evidence.features["run"]
        assert f"{ATTACK} (armed by ana), step 3 of 3 of run {run}" in " ".join(text.split()), text
        assert "it runs on: signature or entropy or surge" in text
        wanted = f"floodwall playbook revert {run}" if status == "in force" else f"floodwall playbook arm {ATTACK}"
        assert wanted in text


def test_an_edge_lets_go_of_what_was_reverted() -> None:
    edge = InProcessEdge()
    for one in of_playbooks(reverted(100_000)):
        edge.apply(one)
    assert not [m for m in of_playbooks(reverted(100_000)) if m.state not in ("active", "lifted")]
