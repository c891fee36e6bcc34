"""verify: every id is derived again, a byte that changed is located, and what is not there any more is said."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from typer.testing import CliRunner

from drills.traffic import Traffic, combined_lines
from engine.embedded import Embedded
from floodwall.cli import app
from replay.verify import Report, verify
from replay.verify_compare import first_difference, narrow
from replay.verify_reading import FileSource
from schemas.mitigation import Mitigation, decode_mitigation, encode_line
from tests.engines import conclude, config_of, decide, feed
from tests.test_explain import SECRETS, planted_log

PIECE = 500


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return combined_lines(seed=23, events=20_000, attackers=5)


@pytest.fixture(scope="module")
def decided(traffic: Traffic) -> list[Mitigation]:
    """As live: cut small, with early records."""
    return decide(traffic.data, int(traffic.times_ms.max()) + 1000, early=True, piece=PIECE).mitigations


def verified(records: list[Mitigation], path: Path, **options: Any) -> Report:
    config = config_of()
    report = verify(config, records, {"log": FileSource("log", str(path), config.input.record_bytes_max)}, [], **options)
    narrow(report)
    return report


def written(folder: Path, data: bytes) -> Path:
    path = folder / "log"
    path.write_bytes(data)
    return path


def test_every_mitigation_is_equal_by_its_evidence_alone_and_by_all_of_it(
    traffic: Traffic, decided: list[Mitigation], tmp_path: Path
) -> None:
    path = written(tmp_path, traffic.data)
    assert {one.stage for one in decided} == {"early", "final"}
    assert all(one.evidence.digests for one in decided)
    report = verified(decided, path, whole=True)
    assert report.complete
    assert report.counts == {"equal": len({one.id for one in decided}), "differs": 0, "cannot": 0, "said": 0}
    short = [one for one in decided if one.window.end - one.window.start <= 60 and one.stage == "final"]
    least = min(short, key=lambda one: -one.evidence.offsets["log"][0])
    alone = verified([least], path)
    assert alone.counts["equal"] == 1
    assert not alone.complete
    assert alone.bytes_read < len(traffic.data)


def test_a_step_of_a_playbook_has_no_finding_of_its_own_and_is_equal(traffic: Traffic, tmp_path: Path) -> None:
    block = {"action": "block", "target": "found", "types": ["ip"], "ttl_s": 300, "collateral_max": 1.0}
    mine = {"state": "armed", "owner": "ana", "when": {"detectors": ["rate"], "targets": ["ip"], "for_s": 0}, "steps": [block]}
    config = config_of({"playbooks": {"mine": mine}})
    records = decide(traffic.data, int(traffic.times_ms.max()) + 1000, config).mitigations
    assert any(one.detector == "playbook-mine-block" for one in records)
    source = FileSource("log", str(written(tmp_path, traffic.data)), config.input.record_bytes_max)
    assert verify(config, records, {"log": source}, []).counts["equal"] == len({one.id for one in records})


def test_a_byte_that_changed_is_located(traffic: Traffic, decided: list[Mitigation], tmp_path: Path) -> None:
    chance = random.Random(4)
    original = FileSource("log", str(written(tmp_path, traffic.data)), 1 << 20)
    for _ in range(4):
        at = chance.choice([one for one in decided if one.stage == "final"]).evidence.offsets["log"][0]
        at += chance.randrange(2000)
        data = bytearray(traffic.data)
        data[at] ^= 1 << chance.randrange(5)
        copy = tmp_path / "copy"
        copy.write_bytes(data)
        report = verified(decided, copy, whole=True)
        touched = {one.id for one in decided if one.evidence.offsets["log"][0] <= at < one.evidence.offsets["log"][1]}
        differing = [one for one in report.verified if one.places]
        assert touched
        assert {one.id for one in differing} <= touched
        # Of an id with several records one is verified, and its evidence may be less than that of the others.
        assert differing
        start = traffic.data.rfind(b"\n", 0, at) + 1
        for one in differing:
            assert one.outcome == "differs"
            (place,) = one.places
            assert place.start <= at < place.end
            assert place.end - place.start < len(traffic.data) // 4
            assert first_difference(original, FileSource("log", str(copy), 1 << 20), place) == (
                start,
                f"byte {at - start} of the record",
            )


def test_a_number_that_differs_is_named(traffic: Traffic, decided: list[Mitigation], tmp_path: Path) -> None:
    one = next(one for one in decided if one.stage == "final" and one.target.type == "ip" and one.detector == "rate")
    first = one.evidence.offsets["log"][0]
    at = traffic.data.find(b"\n" + one.target.value.encode() + b" ", first)
    lines = traffic.data[at + 1 : traffic.data.find(b"\n", at + 1)]
    data = traffic.data.replace(lines, lines.replace(one.target.value.encode(), b"198.51.100.1"[: len(one.target.value)]), 1)
    report = verified([one], written(tmp_path, data), whole=True)
    (only,) = report.verified
    assert only.outcome == "differs"
    assert only.places
    assert only.numbers


def test_what_came_too_late_for_a_decision_is_said_by_it_and_nothing_that_rests_on_it_is_called_different(
    traffic: Traffic, tmp_path: Path
) -> None:
    """A log that stands still for longer than the lateness, and then brings what is old: only live it is late."""
    config = config_of()
    engine = Embedded(config, early=True)
    engine.open("log", int(traffic.times_ms.max()) + 1000)
    before = traffic.data.rfind(b"\n", 0, len(traffic.data) // 5) + 1  # the floods are about to begin
    feed(engine, "log", traffic.data[:before], 0)
    engine.idle(0)
    engine.idle(1000 * config.time.lateness_s + 4000)
    feed(engine, "log", traffic.data[before:], before)
    live = conclude(engine)
    assert live.account.late > 0
    lacking = {one.id for one in live.mitigations if "too_late" in one.evidence.features}
    assert {one.evidence.features["too_late"] for one in live.mitigations if one.id in lacking} == {live.account.late}

    report = verified(live.mitigations, written(tmp_path, traffic.data), whole=True)
    counts = report.counts
    assert counts["differs"] == 0
    assert counts["equal"] > 0
    cannot = [one for one in report.verified if one.outcome == "cannot"]
    assert cannot
    assert {one.id for one in cannot} <= lacking
    sentence = f"up to {live.account.late} events came when their seconds had been decided and were not counted: now comes "
    assert all(one.missing[0].startswith(sentence) for one in cannot)

    told = next(one for one in live.mitigations if one.id == cannot[0].id)
    start, end = told.evidence.offsets["log"]
    data = bytearray(traffic.data)
    data[(start + end) // 2] ^= 1
    (changed,) = verified([told], written(tmp_path, bytes(data)), whole=True).verified
    assert changed.outcome == "differs", "that something is late hides no byte that changed"


def test_a_file_that_was_cut_short_is_said_and_nothing_of_it_is_called_equal(
    traffic: Traffic, decided: list[Mitigation], tmp_path: Path
) -> None:
    first, end = max(one.evidence.offsets["log"] for one in decided)
    cut = (first + end) // 2
    report = verified(decided, written(tmp_path, traffic.data[:cut]), whole=True)
    by_id = {one.id: one for one in report.verified}
    outcomes = set()
    for one in decided:
        found = by_id[one.id]
        outcomes.add(found.outcome)
        if found.outcome == "cannot":
            assert f"log ends at {cut}" in found.missing[0]
        elif one.stage == "final":
            assert one.evidence.offsets["log"][1] <= cut
    assert outcomes == {"equal", "cannot"}


def test_what_lies_before_the_evidence_and_is_gone_is_needed_by_who_learned_from_it_alone(
    traffic: Traffic, decided: list[Mitigation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = max((one for one in decided if one.stage == "final"), key=lambda one: one.evidence.offsets["log"][0])
    first = one.evidence.offsets["log"][0]
    monkeypatch.setattr(FileSource, "first", first)
    path = written(tmp_path, traffic.data)
    (found,) = verified([one], path, whole=True).verified
    assert found.outcome == "equal"
    assert "its action and its end rest on what came before, which was not read" in found.notes
    # The same, had it been decided by what a model knew.
    monkeypatch.setattr("replay.verify._Run.rests_on_evidence", lambda run, one: False)
    assert verified([one], path).verified[0].outcome == "equal"
    (found,) = verified([msgspec.structs.replace(one, observed=one.observed + 1)], path).verified
    assert found.outcome == "cannot"
    assert f"which is not kept; from log from {first} on comes observed {one.observed} for" in found.missing[0]
    monkeypatch.setattr(FileSource, "first", first + 1000)
    (found,) = verified([one], path).verified
    assert found.outcome == "cannot"
    assert found.missing[0].startswith(f"log keeps offsets from {first + 1000} on, the evidence begins at {first}")


def test_what_an_operator_said_is_not_derived_and_a_report_of_a_leaked_key_neither(
    traffic: Traffic, decided: list[Mitigation], tmp_path: Path
) -> None:
    one = decided[-1]
    said = msgspec.structs.replace(one, id="0" * 32, detector="operator")
    leaked = msgspec.structs.replace(one, id="1" * 32, detector="leaked")
    later = msgspec.structs.replace(one, id="2" * 32, config_version=3)
    report = verified([said, leaked, later], written(tmp_path, traffic.data))
    assert [found.outcome for found in report.verified] == ["said", "cannot", "cannot"]
    assert "version 3 of the configuration" in report.verified[2].missing[0]


def test_no_secret_of_the_traffic_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODWALL_SEED", "for tests only")
    log, copy, out = tmp_path / "log", tmp_path / "copy", tmp_path / "out.ndjson"
    data = planted_log()
    log.write_bytes(data)
    run = CliRunner().invoke
    assert run(app, ["replay", str(log), "--out", str(out)]).exit_code == 0
    at = data.rindex(SECRETS[1].encode())
    copy.write_bytes(data[:at] + b"X" + data[at + 1 :])
    for words in ([], ["--json"]):
        done = run(app, ["verify", "--all", "--mitigations", str(out), str(copy), "--original", str(log), *words])
        assert done.exit_code == 1, done.output
        assert not any(secret in done.output for secret in SECRETS)
    assert not any(secret.encode() in out.read_bytes() for secret in SECRETS)


def test_records_without_digests_are_derived_all_the_same(decided: list[Mitigation], traffic: Traffic, tmp_path: Path) -> None:
    plain = [orjson.loads(encode_line(one)) for one in decided if one.stage == "final"]
    for one in plain:
        del one["evidence"]["digests"], one["evidence"]["digested"]
    report = verified([decode_mitigation(orjson.dumps(one)) for one in plain], written(tmp_path, traffic.data), whole=True)
    assert report.counts["equal"] == len({one["id"] for one in plain})
    assert all("it has no digests: bytes were not compared" in one.notes for one in report.verified)


def test_the_command_names_no_target_and_its_exit_code_says_what_became(
    traffic: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOODWALL_SEED", "for tests only")
    log, out = written(tmp_path, traffic.data), tmp_path / "out.ndjson"
    run = CliRunner().invoke
    assert run(app, ["replay", str(log), "--out", str(out)]).exit_code == 0
    records = [decode_mitigation(line) for line in out.read_bytes().splitlines()]
    done = run(app, ["verify", records[0].id, "--mitigations", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"equal    {records[0].id}")
    copy = tmp_path / "copy"
    data = bytearray(traffic.data)
    data[records[0].evidence.offsets[str(log)][0] + 3] ^= 1
    copy.write_bytes(data)
    done = run(app, ["verify", "--all", "--mitigations", str(out), str(copy), "--original", str(log), "--json"])
    assert done.exit_code == 1, done.output
    told = orjson.loads(done.output)
    assert told["differs"] > 0
    assert "offset" in next(one for one in told["verified"] if one["places"])["places"][0]
    assert not any(one.target.value in done.output for one in records)
    assert run(app, ["verify", "--all", "--mitigations", str(out), str(tmp_path / "none")]).exit_code == 3
    assert run(app, ["verify", "f" * 32, "--mitigations", str(out)]).exit_code == 3
    assert run(app, ["verify", "--all", records[0].id, "--mitigations", str(out)]).exit_code == 2
    copy.write_bytes(traffic.data[: records[0].evidence.offsets[str(log)][0] + 10])
    assert run(app, ["verify", records[0].id, "--mitigations", str(out), str(copy)]).exit_code == 3
