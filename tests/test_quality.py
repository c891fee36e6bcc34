"""The scorecard over all attacks: what it sums up, what it compares, and a small run of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drills.attacks.catalogue import ATTACKS
from drills.quality import __main__ as quality
from drills.quality import kept
from drills.quality.quiet import alarms_of, quiet
from drills.quality.scenes import BEFORE_S, BEGIN_S, QUIET_SEEDS, SCORING_SEEDS, TUNING_SEEDS, Scene, scene_of
from drills.quality.stage import Stage, merged
from drills.quality.summary import Summary, strength_at, summary
from drills.quality.systems import AWS, CROWDSEC, OURS, ours, peers
from drills.quality.trial import Trial, Trials
from drills.run import Drill
from drills.scoring.score import AttackScore
from schemas.errors import UsageError
from tests.drills import drill_of, events_of, joined
from tests.test_score import BAD, START_S, mitigation

SMALL = Scene("small", 20.0, 480, 120)


def trial(strength: Any = "ordinary", *, mitigated: int = 0, per_second: float = 1.0, seed: int = 1, **more: Any) -> Trial:
    score = AttackScore(
        1, "scan", strength, trap=False, first_ms=0, sources=10, sources_mitigated=mitigated, events=100,
        events_covered=10 * mitigated, seconds=float(mitigated) if mitigated else None, **more,
    )  # fmt: skip
    return Trial("scan", strength, seed, OURS, score, (), 1000, 0, 5.0, per_second)


def of(*some: Trial) -> Summary:
    found = summary(some)
    assert found is not None
    return found


def test_seeds_of_tuning_and_of_scoring_are_never_the_same() -> None:
    assert not {*TUNING_SEEDS} & {*SCORING_SEEDS, *QUIET_SEEDS}
    assert not {*SCORING_SEEDS} & {*QUIET_SEEDS}


def test_every_attack_has_a_scene_that_it_fits_into() -> None:
    for name in ATTACKS:
        drill = drill_of(name, span_s=scene_of(name).span_s, events_per_second=1.0, at_s=(300,), honest=False)
        assert drill.hostile[0].stop_s <= drill.stop_s


def test_the_worst_seed_gives_the_word_and_the_median_the_seconds() -> None:
    assert summary([]) is None
    found = of(trial(mitigated=8), trial(mitigated=10, seed=2))
    assert (found.word, found.seconds, found.sources, found.covered) == ("found", 9.0, 0.9, 0.9)
    assert found.cell == "found 9.0 s, 90 %"
    assert of(trial(mitigated=8), trial(seed=2)).word == "missed"
    assert of(trial(alert_seconds=4.0)).cell == "alerted 4.0 s"
    few = trial(mitigated=1)
    few.score.sources, few.score.events_covered = 20, 5
    assert of(few).word == "barely"


def test_the_strength_at_a_recall_lies_on_a_line_over_the_logarithm_of_the_rate() -> None:
    three = [trial("weak", per_second=1.0), trial(mitigated=5, per_second=10.0), trial("loud", mitigated=10, per_second=100.0)]
    trials = Trials(three)
    assert strength_at(0.5, trials, "scan") == "1 ×"
    assert strength_at(0.25, trials, "scan") == "0.32 ×", "half way, in decades, between a tenth and once"
    assert strength_at(0.9, trials, "scan") == "6.3 ×"
    three[0].score.sources_mitigated = 10
    assert strength_at(0.5, trials, "scan") == "≤ 0.1 ×"
    three[0].score.sources_mitigated = three[2].score.sources_mitigated = 0
    assert strength_at(0.9, trials, "scan") == "> 10 ×"
    assert strength_at(0.9, Trials(three[:2]), "scan") == ""


def test_what_is_found_less_or_stops_more_honest_sources_is_told() -> None:
    before = kept.document(Trials([trial(mitigated=9)]), {})
    assert kept.regressions(before, before) == []
    assert kept.regressions(before, {"attacks": {}, "quiet": {}}) == []
    worse = kept.document(Trials([trial(alert_seconds=3.0)]), {})
    assert kept.regressions(worse, before) == ["scan was found and is alerted"]
    assert kept.regressions(before, worse) == []
    harmful = {"attacks": {"scan": {**before["attacks"]["scan"], "wronged": ["ip 1 by rate"]}}, "quiet": {}}
    assert kept.regressions(harmful, before) == ["scan: ip 1 by rate is honest and was mitigated"]
    assert kept.regressions(harmful, harmful) == []
    week = {"days": 7, "wronged": [], "service_alerts": 1, "learned": 7}
    now = {"attacks": {}, "quiet": {"weeks": {**week, "wronged": ["ip 2 by rate"], "service_alerts": 2}}}
    assert len(kept.regressions(now, {"attacks": {}, "quiet": {"weeks": week}})) == 2
    assert kept.regressions(now, {"attacks": {}, "quiet": {"weeks": {**week, "days": 28}}}) == [], "not to be compared"
    more = {"attacks": {}, "quiet": {"weeks": {**week, "learned": 8}}}
    assert kept.regressions(more, {"attacks": {}, "quiet": {}}) == ["weeks: 8 notices of learned detectors in 7 days"]
    assert kept.regressions(more, more) == []


def test_alarms_that_go_on_are_one() -> None:
    one = [mitigation("ip", BAD, issued, issued + 300) for issued in (100, 160, 220)]
    again = mitigation("ip", BAD, 4000, 4300)
    early = mitigation("ip", BAD, 2000, 2030, stage="early")
    note = mitigation("ip", BAD, 100, 400, action="notify")
    alarms = alarms_of([again, *one, early, note])
    assert [(alarm.since_s - START_S, alarm.enforced) for alarm in alarms] == [(99, True), (99, False), (3999, True)]


def test_quiet_time_counts_sources_of_each_day() -> None:
    plan = drill_of(span_s=600, events_per_second=5.0).plan
    found = quiet(plan)
    assert (found.events, found.days) == (len(events_of(Drill(plan))), 600 / 86_400)
    assert found.wronged == []
    assert found.source_days > 0


def test_limits_of_others_are_rules_on_addresses() -> None:
    assert list(peers()) == [CROWDSEC, AWS]
    rules = peers()[CROWDSEC].detectors["rate"]["rules"]
    assert [(rule["limit"], rule["window_s"]) for rule in rules] == [
        (6, 10), (10, 50), (15, 100), (11, 60), (20, 600), (30, 1200),
    ]  # fmt: skip


def test_honest_lines_on_a_stage_are_those_of_a_drill_with_the_attack() -> None:
    stage = Stage(SMALL, 3, ours())
    hostile, (record,) = stage.attack("scan", "ordinary")
    assert (record["name"], record["sources"]) == ("scan", 10)
    drill = drill_of(
        "scan", seed=3, span_s=SMALL.span_s, events_per_second=20.0, strength="ordinary", at_s=(BEFORE_S,), start_s=BEGIN_S
    )
    assert b"".join(merged(stage.honest, hostile)) == joined(drill, events_of(drill), "events")


def test_a_small_run_writes_its_page_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("drills.quality.trial.scene_of", lambda name: SMALL)  # in this process: others are handed the scene
    written, results = tmp_path / "page.md", tmp_path / "quality.json"
    words = ["--strength", "ordinary", "--seeds", "1", "--days", "0", "--out", str(written), "--kept", str(results)]
    assert quality.main(["--only", "scan", *words, "--accept"]) == 0
    assert "| `scan` | found |" in written.read_text()
    assert quality.main(["--only", "scan", *words]) == 0
    results.write_bytes(results.read_bytes().replace(b'"scan"', b'"botnet_mimic"'))
    assert quality.main(["--only", "botnet_mimic", *words]) == 1
    assert "worse: botnet_mimic was found and is missed" in capsys.readouterr().out
    with pytest.raises(UsageError, match="got 'scann'"):
        quality.main(["--only", "scann"])
