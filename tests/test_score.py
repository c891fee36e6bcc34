"""Scoring: small labels and decisions whose score can be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.scoring.exposure import Exposure, ExposureReader, folded
from drills.scoring.score import Scorecard, Scorer
from drills.scoring.tell import plain
from edge.reader import Reader
from engine.in_force import in_force_of
from schemas.config import Config
from schemas.mitigation import Evidence, Finding, Mitigation, Target, Window, encode_line
from schemas.prefixes import Prefixes
from tests.drills import drill_of, events_of
from tests.test_command_line import run

START_S = 1_795_392_000
BAD, WORSE = "203.0.113.7", "203.0.113.8"
GOOD, NEIGHBOUR, OTHER = "198.51.100.1", "203.0.113.200", "2001:db8:1:2::3"


def line(second: float, address: str, **more: Any) -> bytes:
    """One event; `second` counts from the start."""
    whole, ms = divmod(round(second * 1000), 1000)
    minutes, seconds = divmod(whole, 60)
    event = {
        "time": f"2026-11-23T00:{minutes:02d}:{seconds:02d}.{ms:03d}Z", "client_ip": address, "method": "GET",
        "path": "/v1/models", "status": 200, "host": "api.example.com", **more,
    }  # fmt: skip
    return orjson.dumps(event) + b"\n"


def exposure(*rows: tuple[int, bytes]) -> Exposure:
    """Of (label, line)."""
    reader = ExposureReader(Config(profile="api"))
    reader.take([text for _, text in rows], np.array([label for label, _ in rows], np.int64))
    assert reader.unread == 0
    return reader.finish()


def attack(label: int = 1, name: str = "flood", stops: tuple[str, ...] = ("ip", "net"), **more: Any) -> dict[str, Any]:
    return {
        "kind": "attack", "label": label, "name": name, "strength": "ordinary", "trap": False, "start": START_S, "stops": stops,
        "victims": {}, **more,
    }  # fmt: skip


def mitigation(
    kind: str, value: str, issued: int, expires: int, *, stage: Any = "final", tick: int | None = None, **more: Any
) -> Mitigation:
    tick = issued - 1 if tick is None else tick
    usual: dict[str, Any] = {
        "state": "active", "action": "throttle", "detector": "rate", "detector_version": 1, "reason": "because", "severity": 5,
        "confidence": 0.9, "observed": 9, "limit": 1, "evidence": Evidence(), "id": "x",
        "window": Window(start=START_S + tick - 9, end=START_S + tick + 1),
    }  # fmt: skip
    return Mitigation(
        tick=START_S + tick, stage=stage, target=Target(type=kind, value=value), issued_at=START_S + issued,
        expires_at=START_S + expires, **{**usual, **more},
    )  # fmt: skip


def traffic() -> Exposure:
    """Two sources attack for ten seconds, one request a second each; three honest sources send all the time."""
    rows = []
    for second in range(10):
        rows += [(1, line(10 + second, BAD)), (1, line(10 + second, WORSE))]
    for second in range(40):
        rows.append((0, line(second, GOOD, api_key_hash="sha256:aa", account="acct_1")))
        rows.append((0, line(second, NEIGHBOUR)))
    rows.append((0, line(39, OTHER)))
    return exposure(*rows)


def scored(*decisions: Mitigation, attacks: tuple[dict[str, Any], ...] = (attack(),), **more: Any) -> Scorecard:
    return Scorer([traffic()], attacks, **more).score(decisions)


def test_an_attack_is_found_when_a_source_of_it_is_stopped_and_covered_while_that_lasts() -> None:
    card = scored(mitigation("ip", BAD, 13, 18))
    (score,) = card.attacks
    assert (score.found, score.seconds) == (True, 3.0)
    assert (score.sources, score.sources_mitigated, score.share_mitigated) == (2, 1, 0.5)
    assert (score.events, score.events_covered, score.share_covered) == (20, 5, 0.25), "of seconds 13 to 17"
    assert dict(score.by) == {"rate": 1}
    assert (card.honest_events, card.honest_covered, card.wronged) == (81, 0, [])


def test_a_network_covers_whoever_is_in_it_and_names_the_attack() -> None:
    card = scored(mitigation("net", "203.0.113.0/24", 15, 100))
    (score,) = card.attacks
    assert (score.sources_mitigated, score.events_covered, score.seconds) == (2, 10, 5.0)
    assert card.honest_covered == 25, "the neighbour, from second 15 to 39"
    assert card.wronged == [], "it is the attack's network"


def test_who_is_stopped_without_any_attack_is_wronged() -> None:
    card = scored(
        mitigation("ip", GOOD, 5, 8), mitigation("api_key", "sha256:aa", 6, 10), mitigation("ip", "2001:db8:1:2::/64", 30, 90),
        mitigation("ip", "192.0.2.99", 1, 90),
    )  # fmt: skip
    assert [(one.type, one.value, one.honest_events) for one in card.honest_sources] == [
        ("ip", GOOD, 40), ("api_key", "sha256:aa", 40), ("ip", "2001:db8:1:2::/64", 1),
    ]  # fmt: skip
    assert len(card.wronged) == 4, "one of them nobody's"
    assert card.honest_covered == 5 + 1, "seconds 5 to 9 by address or key, counted once, and the one of IPv6"
    assert not card.attacks[0].found
    # Three addresses, a key and an account, for 39.001 s.
    assert card.source_days == pytest.approx(5 * 39.001 / 86_400)
    assert card.false_blocks.startswith("3 of 0 source-days")


def test_what_ended_before_the_attack_does_not_find_it() -> None:
    card = scored(mitigation("ip", BAD, 2, 9))
    assert not card.attacks[0].found
    assert card.attacks[0].sources_mitigated == 0
    assert len(card.wronged) == 1
    assert card.honest_sources == [], "but nobody honest was hit"


def test_only_dimensions_in_which_it_may_be_stopped_find_an_attack() -> None:
    rows = [(1, line(second, BAD, api_key_hash="sha256:vv")) for second in range(5)]
    rows += [(0, line(second, GOOD, api_key_hash="sha256:vv")) for second in range(5)]
    trap = attack(trap=True, victims={"api_key": ["sha256:vv"]})
    card = Scorer([exposure(*rows)], [trap]).score([mitigation("api_key", "sha256:vv", 2, 90)])
    (score,) = card.attacks
    assert (score.found, score.victims) == (False, [("api_key", "sha256:vv")])
    assert (score.events_covered, card.honest_covered) == (3, 3)
    assert [one.value for one in card.honest_sources] == ["sha256:vv"]
    leaked = attack(label=2, name="leaked", stops=("api_key",))
    rows.append((2, line(4.5, WORSE, api_key_hash="sha256:vv")))
    card = Scorer([exposure(*rows)], [trap, leaked]).score([mitigation("api_key", "sha256:vv", 2, 90)])
    assert [score.found for score in card.attacks] == [False, True]
    assert card.attacks[0].victims == [], "the key is in another attacker's hands"
    assert card.wronged == []


def test_notes_held_ones_and_dry_runs_cover_nothing_and_alert() -> None:
    for more in ({"action": "notify"}, {"state": "held"}, {"dry_run": True}):
        card = scored(mitigation("ip", BAD, 13, 18, **more))
        (score,) = card.attacks
        assert (score.found, score.alerted, score.alert_seconds, score.events_covered) == (False, True, 3.0, 0)
    route = mitigation("route", "GET /v1/models", 21, 90, action="notify")
    assert scored(route).attacks[0].alerts == {"rate route": 1}
    assert scored(mitigation("service", "api.example.com", 21, 90, action="notify")).attacks[0].alerted
    assert not scored(mitigation("route", "GET /", 21, 90, action="notify")).attacks[0].alerted
    assert not scored(mitigation("route", "GET /v1/models", 39, 90, action="notify")).attacks[0].alerted, "it had ended"
    known = frozenset({("rate", "route", "GET /v1/models")})
    assert not scored(route, normal=known).attacks[0].alerted, "it comes without any attack"
    assert scored(mitigation("phone", "a=b", 21, 90)).unknown == {"phone": 1}


def test_a_signature_covers_what_has_all_of_its_values_and_may_always_stop() -> None:
    value = '{"net":"203.0.113.0/29","route":"GET /v1/models","service":"api.example.com"}'
    card = scored(mitigation("signature", value, 12, 90))
    (score,) = card.attacks
    assert (score.found, score.sources_mitigated, score.events_covered, card.honest_covered) == (True, 1, 8, 0)
    wider = scored(mitigation("signature", '{"net":"203.0.113.0/24"}', 12, 90))
    assert (wider.attacks[0].events_covered, wider.honest_covered) == (16, 28)
    assert wider.wronged == []
    nobody = scored(mitigation("signature", '{"net":"203.0.113.0/24","service":"other.example"}', 12, 90))
    assert (nobody.attacks[0].found, nobody.honest_covered) == (False, 0)
    for unknown in ('{"phone":"1"}', "a=b", "{}", "[1]"):
        assert scored(mitigation("signature", unknown, 12, 90)).unknown == {"signature": 1}


def test_parts_are_scored_as_one() -> None:
    whole = traffic()
    rows = [(1, line(10 + second, BAD)) for second in range(10)]
    parts = [exposure(*rows), exposure((0, line(5, GOOD)), (0, line(12, BAD.replace("7", "9"))))]
    card = Scorer(parts, [attack()]).score([mitigation("net", "203.0.113.0/24", 12, 90)])
    assert (card.attacks[0].events_covered, card.honest_covered, card.honest_events) == (8, 1, 2)
    assert len(whole) == 101


def test_findings_are_counted_by_outcome() -> None:
    finding = Finding(
        id="f", tick=START_S + 12, stage="final", detector="rate", detector_version=1, target=Target(type="ip", value=BAD),
        measure="requests", window=Window(start=START_S, end=START_S + 13), observed=9, limit=1, severity=5, confidence=0.9,
        action="throttle", reason="because", dry_run=False, outcome="allowlisted", evidence=Evidence(), config_version=1,
    )  # fmt: skip
    card = Scorer([traffic()], [attack()]).score([], [finding, msgspec.structs.replace(finding, stage="early")])
    assert card.attacks[0].findings == {"allowlisted": 1}
    assert plain(card)["attacks"][0]["findings"] == {"allowlisted": 1}


def test_routes_are_named_as_the_engine_names_them() -> None:
    assert folded(b"POST", b"/v1/threads/0123456789abcdef0123456789abcdef/runs?x=1#y") == "POST /v1/threads/{id}/runs"
    assert folded(b"GET", b"/v1/models/gpt-4") == "GET /v1/models/gpt-4"
    assert folded(b"GET", b"/") == "GET /"


RECORDS = st.lists(
    st.builds(
        mitigation, st.just("ip"), st.sampled_from([BAD, WORSE]), st.integers(1, 12), st.integers(8, 24),
        stage=st.sampled_from(["early", "final"]), tick=st.integers(0, 11), detector=st.sampled_from(["rate", "ratio"]),
        action=st.sampled_from(["notify", "throttle", "block"]), state=st.sampled_from(["active", "held"]),
        dry_run=st.booleans(),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(RECORDS)
def test_what_is_in_force_is_what_the_reader_of_every_edge_enforces(records: list[Mitigation]) -> None:
    records = sorted(records, key=lambda record: record.issued_at)
    standing = in_force_of(records)
    for second in range(START_S, START_S + 25):
        now_ms = second * 1000
        reader = Reader(Prefixes([]), lambda subject, action: True)
        reader.begin({})
        for record in records:
            if record.issued_at <= second:
                reader.take_mitigation(record)
        reader.changes(now_ms)
        mine = {
            value for (_, value), spans in standing.enforced.items() if any(s.from_ms <= now_ms < s.until_ms for s in spans)
        }
        assert mine == {subject.value for subject in reader.table}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drill")
    words = ("--seed", "7", "--duration", "300", "--events-per-second", "20", "--storms", "none", "--strength", "loud")
    done = run("drill", "run", "scanner_agents", *words, "--stream", "events", "--out", str(path))
    assert (done.returncode, done.stderr) == (0, b"")
    return path


def test_the_command_scores_a_folder_the_same_with_its_own_decisions_and_with_those_of_replay(folder: Path) -> None:
    here = run("drill", "score", str(folder), "--json")
    assert (here.returncode, here.stderr) == (0, b"")
    out, found = folder / "mitigations.ndjson", folder / "findings.ndjson"
    run("replay", str(folder / "events.ndjson"), "--profile", "api", "--early", "--out", str(out), "--findings", str(found))
    there = run("drill", "score", str(folder), "--decisions", str(out), "--findings", str(found), "--json")
    told = orjson.loads(here.stdout)
    assert told == orjson.loads(there.stdout)
    (score,) = told["attacks"]
    drill = drill_of("scanner_agents", span_s=300, strength="loud")
    assert score["events"] == int((events_of(drill)["attack"] > 0).sum())
    assert (score["found"], score["sources_mitigated"]) == (True, 3)
    assert told["honest"]["events"] == len((folder / "events.ndjson").read_bytes().splitlines()) - score["events"]
    assert "found" in run("drill", "score", str(folder)).stdout.decode()


def test_what_cannot_be_scored_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> tuple[int, bytes]:
        done = run("drill", "score", *words)
        assert len(done.stderr.splitlines()) == 1
        return done.returncode, done.stderr

    labels = tmp_path / "labels.ndjson"
    said = f"floodwall: expected a drill's labels at {labels}, got: No such file or directory\n"
    assert refused(str(tmp_path)) == (3, said.encode())
    labels.write_bytes((folder / "labels.ndjson").read_bytes())
    assert b"expected one of events.ndjson" in refused(str(tmp_path))[1]
    (tmp_path / "events.ndjson").write_bytes((folder / "events.ndjson").read_bytes())
    assert b"events.ndjson.labels" in refused(str(tmp_path))[1]
    (tmp_path / "events.ndjson.labels").write_bytes(b"\0\0")
    assert b"expected a line in" in refused(str(tmp_path))[1]
    decisions = tmp_path / "decisions.ndjson"
    decisions.write_bytes(encode_line(mitigation("ip", BAD, 1, 2)) + b"{}\n")
    assert b"got in line 2" in refused(str(folder), "--decisions", str(decisions))[1]
    assert b"expected --decisions with --findings" in refused(str(folder), "--findings", str(decisions))[1]


def test_who_names_no_host_is_of_the_configured_service() -> None:
    rows = [(0, line(1, GOOD, host="")), (1, line(2, BAD, host="")), (1, line(3, BAD))]
    seen = exposure(*rows)
    counts = {name: len(seen.rows_of(("service", name))) for name in ("default", "api.example.com", "other")}
    assert counts == {"default": 2, "api.example.com": 1, "other": 0}
