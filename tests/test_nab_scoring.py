"""The scorer of Numenta's benchmark: what the paper says of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.nab import GAUSSIAN_DIGITS, GAUSSIAN_STEP, GAUSSIAN_WINDOW, Series, gaussian_scores, load
from benchmarks.nab_scoring import PROFILES, Floats, Profile, Truth, best_threshold, score, worth_of

STANDARD = PROFILES["standard"]
TRUTHS = {"a": Truth(1000, ((300, 399), (700, 749))), "b": Truth(400, ()), "c": Truth(20_000, ((9000, 9999),))}


def marked(*at: tuple[str, int]) -> dict[str, Floats]:
    """Scores of 1 at these rows, else 0."""
    scores = {name: np.zeros(truth.rows) for name, truth in TRUTHS.items()}
    for name, row in at:
        scores[name][row] = 1.0
    return scores


PERFECT = (("a", 300), ("a", 700), ("c", 9000))


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_the_perfect_detector_has_100_and_the_silent_one_0(profile: Profile) -> None:
    assert score(marked(*PERFECT), TRUTHS, profile).total == pytest.approx(100)
    assert score(marked(), TRUTHS, profile).total == 0
    assert score(marked(), TRUTHS, profile).threshold == math.inf


def test_an_earlier_detection_is_worth_more() -> None:
    totals = [score(marked(("c", row)), TRUTHS, STANDARD).total for row in (9000, 9250, 9500, 9900, 9999)]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)
    assert totals[-1] > 0


def test_a_window_counts_once_by_its_earliest_detection() -> None:
    once = score(marked(("a", 320)), TRUTHS, STANDARD)
    often = score(marked(*(("a", row) for row in range(320, 400))), TRUTHS, STANDARD)
    assert often.raw == once.raw
    assert often.found == {"a": 1, "b": 0, "c": 0}


def test_a_false_alarm_costs_its_weight_and_less_just_past_a_window() -> None:
    clean = score(marked(*PERFECT), TRUTHS, STANDARD, 1.0)
    far = score(marked(*PERFECT, ("b", 200)), TRUTHS, STANDARD, 1.0)
    near = score(marked(*PERFECT, ("a", 401)), TRUTHS, STANDARD, 1.0)
    before = score(marked(*PERFECT, ("a", 299)), TRUTHS, STANDARD, 1.0)
    assert far.raw["b"] == pytest.approx(-0.11)
    assert clean.raw["a"] - before.raw["a"] == pytest.approx(0.11)
    assert 0 < clean.raw["a"] - near.raw["a"] < 0.02
    assert far.false == {"a": 0, "b": 1, "c": 0}


def test_false_alarms_weigh_double_where_few_are_wanted_and_misses_where_none_are() -> None:
    scores = marked(*PERFECT[:2], ("b", 200))
    raw = {name: sum(score(scores, TRUTHS, profile, 1.0).raw.values()) for name, profile in PROFILES.items()}
    assert raw["standard"] == pytest.approx(2 - 1 - 0.11)
    assert raw["reward_low_FP"] == pytest.approx(2 - 1 - 0.22)
    assert raw["reward_low_FN"] == pytest.approx(2 - 2 - 0.11)


def test_probation_is_15_percent_of_at_most_5000_rows_and_nothing_counts_there() -> None:
    assert [truth.probation for truth in TRUTHS.values()] == [150, 60, 750]
    assert score(marked(*PERFECT, ("a", 149), ("b", 59), ("c", 749)), TRUTHS, STANDARD, 1.0).total == pytest.approx(100)
    assert score(marked(*PERFECT, ("b", 60)), TRUTHS, STANDARD, 1.0).total < 100


def test_worth_falls_through_a_window_and_on_behind_it() -> None:
    worth, window = worth_of(TRUTHS["a"])
    assert worth[300] == pytest.approx(1)
    assert worth[350] == pytest.approx(0.8482836 / 0.9866143, rel=1e-6)  # the paper's values at half and at the left edge
    assert (np.diff(worth[300:400]) < 0).all()
    assert (np.diff(worth[400:500]) < 0).all()
    assert worth[299] == worth[699] == -1
    assert window[299] == window[400] == -1
    assert set(window[300:400]) == {0}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.sampled_from(sorted(PROFILES)))
def test_no_threshold_does_better_than_the_best(seed: int, values: int, profile: str) -> None:
    random = np.random.default_rng(seed)
    scores = {name: random.integers(0, values, truth.rows) / values for name, truth in TRUTHS.items()}
    best = best_threshold(scores, TRUTHS, PROFILES[profile])
    totals = [score(scores, TRUTHS, PROFILES[profile], threshold).total for threshold in [*np.unique(scores["a"]), 2.0]]
    assert score(scores, TRUTHS, PROFILES[profile], best).total == pytest.approx(max(totals))


def test_the_windowed_gaussian_looks_back_and_moves_in_steps() -> None:
    values = np.random.default_rng(1).normal(5, 2, GAUSSIAN_WINDOW + 250)
    scores = gaussian_scores(Series(np.arange(len(values)), values, Truth(len(values), ())))
    assert scores[0] == 0
    for i in (10, GAUSSIAN_WINDOW - 1, GAUSSIAN_WINDOW + 120, GAUSSIAN_WINDOW + 249):
        end = i if i <= GAUSSIAN_WINDOW else GAUSSIAN_WINDOW + (i - GAUSSIAN_WINDOW) // GAUSSIAN_STEP * GAUSSIAN_STEP
        window = values[max(0, end - GAUSSIAN_WINDOW) : end]
        tail = 0.5 * math.erfc(abs(values[i] - window.mean()) / window.std() / math.sqrt(2))
        assert scores[i] == pytest.approx(1 - tail, abs=10.0**-GAUSSIAN_DIGITS)


def test_a_folder_of_series_is_read_with_its_windows(tmp_path: Path) -> None:
    (tmp_path / "data/kind").mkdir(parents=True)
    rows = "".join(f"2014-04-01 00:{minute:02}:00,{minute}.5\n" for minute in range(30))
    (tmp_path / "data/kind/one.csv").write_text("timestamp,value\n" + rows)
    (tmp_path / "windows.json").write_text('{"kind/one.csv": [["2014-04-01 00:10:00.000000", "2014-04-01 00:12:00.000000"]]}')
    series = load(tmp_path)["kind/one.csv"]
    assert series.truth == Truth(30, ((10, 12),))
    assert series.times_s[1] - series.times_s[0] == 60
    assert series.values[3] == 3.5


def test_a_folder_without_series_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected a folder with windows\.json"):
        load(tmp_path)
