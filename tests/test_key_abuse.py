"""What is learned of keys: slow poison, what an attack adds, who is new, and that the study runs the product's own class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detectors.kernels.key_features import F_NEW_NETS, F_REQUESTS, V_MODELS, VALUES
from detectors.keys import KeysSection
from detectors.learning.key_abuse import KeyAbuse
from detectors.learning.key_state import WINDOW_S, WOKEN, KeyAbuseConfig
from drills.quality import study_key_models
from drills.quality.key_world import CATALOGUE, DAY, LAUNCHES, START, KeyAttack, KeyWorld, attacks
from drills.quality.study_keys import differences, interval, run, table
from schemas.errors import StateError

CONFIG = KeyAbuseConfig(keys=3, notify_per_day=1.0, act_per_day=1 / 90)


def doings(requests: int, nets: int = 1) -> np.ndarray:
    values = np.zeros((1, VALUES), np.int64)
    values[0] = requests, requests // 100, 500 * requests, 300 * requests, (1 << nets) - 1, 1, 1, 1
    return values


def live(model: KeyAbuse, window: int, values: np.ndarray, key: int = 0) -> bool:
    """One window of a key; whether people are told."""
    model.begin(window)
    judged = model.judge(window, np.array([key]), values)
    model.note_peaks(judged)
    model.learn(window, values, judged, model.weights(window, judged))
    told, _ = model.decide(window, judged)
    return bool(told[0])


def poisoned(change_max: float) -> float:
    """The score of an attack at the end of eight months in which somebody taught the key one percent a day."""
    config = replace(CONFIG, change_max=change_max, memory_windows=168.0, young_windows=3, start=1e9, start_sum=1e9)
    model, chance = KeyAbuse(config), np.random.default_rng(3)
    every = 12  # one window of an hour: eight months are 5,600 steps
    for step in range(24 * (14 + 232)):
        rate = 300 * 1.01 ** max(0.0, step / 24 - 14)
        live(model, every * step, doings(int(chance.poisson(rate))))
    return float(model.judge(every * step + 1, np.array([0]), doings(3000 + 300)).score[0])


def test_who_teaches_a_key_by_one_percent_a_day_is_found_with_the_cap_and_not_without() -> None:
    assert poisoned(0.0) < 2
    assert poisoned(KeysSection().change_max) > 4.5


def test_of_windows_in_which_others_found_something_of_a_key_nothing_is_learned_however_long_that_lasts() -> None:
    seen, unseen = KeyAbuse(CONFIG), KeyAbuse(CONFIG)
    for window in range(400):
        live(seen, window, doings(30))
        live(unseen, window, doings(30))
    before = seen.levels.mean[0, 0].copy()
    for step in range(24 * 12 * 3):  # three days of a little more each hour, which another detector tells of all the time
        window, values = 400 + step, doings(30 + step // 12)
        for model in (seen, unseen):
            model.begin(window)
            judged = model.judge(window, np.array([0]), values)
            model.learn(window, values, judged, model.weights(window, judged, np.array([model is seen])))
    assert (seen.levels.mean[0, 0] == before).all()
    assert (seen.frozen.sum(), unseen.frozen.sum()) == (23 * 12 + 4, 0)  # of 24 hours, the one at hand among them
    scores = [float(model.judge(window + 1, np.array([0]), doings(300)).z[0, F_REQUESTS]) for model in (seen, unseen)]
    assert scores[0] > scores[1] + 1


def test_what_is_learned_under_suspicion_is_nothing_until_it_has_lasted() -> None:
    model = KeyAbuse(replace(CONFIG, suspect_s=10 * WINDOW_S))
    for window in range(100):
        live(model, window, doings(30))
    seen = []
    for window in range(100, 130):
        model.begin(window)
        seen.append(float(model.judge(window, np.array([0]), doings(300, nets=20)).features[0, F_NEW_NETS]))
        live(model, window, doings(300, nets=20))
    assert seen[:10] == [19.0] * 10
    assert seen[-1] == 0.0


def test_of_a_key_people_are_told_once_in_its_quiet_time() -> None:
    model = KeyAbuse(replace(CONFIG, start=5.0, quiet_s=6 * WINDOW_S))
    for window in range(100):
        live(model, window, doings(30))
    told = [window for window in range(100, 113) if live(model, window, doings(3000, nets=30))]
    assert told == [100, 106, 112]


def test_a_window_that_is_not_over_never_says_more_than_the_whole_will() -> None:
    model, chance = KeyAbuse(CONFIG), np.random.default_rng(8)
    for window in range(200):
        live(model, window, doings(int(chance.poisson(50))))
    whole = doings(400, nets=9)
    score = model.judge(200, np.array([0]), whole).score[0]
    for part in (1, 40, 399):
        some = doings(part, nets=1 + part * 8 // 400)
        assert model.judge(200, np.array([0]), some, whole=False).score[0] <= score


def test_a_place_that_is_given_away_begins_anew_and_what_is_saved_goes_on_as_it_was() -> None:
    model, chance = KeyAbuse(CONFIG), np.random.default_rng(4)
    for window in range(400):
        for key in (0, 1):
            live(model, window, doings(int(chance.poisson(20 + 30 * key))), key)
    other = KeyAbuse(CONFIG)
    ids = np.array([1, 0])
    other.load(model.save(ids), ids)
    for window in range(400, 500):
        values = doings(int(chance.poisson(50)))
        for one in (model, other):
            live(one, window, values, 1)
    assert repr(model.save(ids)) == repr(other.save(ids))
    model.forget([1])
    assert model.levels.steps(np.array([0, 1])).tolist() == [400.0, 0.0]
    with pytest.raises(StateError, match=r"saved levels|saved seen|shape"):
        other.load({**model.save(ids), "seen": np.zeros((1, 1), np.int64)}, ids)


def test_a_key_that_wakes_is_odder_for_an_hour_but_no_alarm_alone_and_comes_from_where_it_always_did() -> None:
    model, month = KeyAbuse(CONFIG), 30 * DAY
    for window in range(3 * DAY):
        live(model, window, doings(30))
    before = model.judge(3 * DAY, np.array([0]), doings(30))
    for away in (month - 1, month):
        other = KeyAbuse(CONFIG)
        other.load(model.save(np.arange(3)), np.arange(3))
        woken = 3 * DAY - 1 + away
        other.begin(woken)
        judged = other.judge(woken, np.array([0]), doings(30))
        assert judged.features[0, F_NEW_NETS] == 0
        assert judged.slept[0] == (away if away == month else 0)
        assert judged.total[0] - before.total[0] == pytest.approx(WOKEN if away == month else 0.0, abs=0.3)
        said = [live(other, woken + n, doings(30)) for n in range(13)]
        assert not any(said)
        slept = [int(other.judge(woken + n, np.array([0]), doings(30)).slept[0]) for n in (11, 12)]
        assert slept == ([month, 0] if away == month else [0, 0])


def test_what_was_confirmed_as_an_attack_is_no_part_of_the_past() -> None:
    model, chance = KeyAbuse(replace(CONFIG, start=5.0)), np.random.default_rng(5)
    for window in range(3 * DAY):
        for key in range(3):
            live(model, window, doings(int(chance.poisson(30))), key)
    live(model, 3 * DAY, doings(5000, nets=40))
    live(model, 4 * DAY, doings(30))
    high = model.by_score.save()["scores"].max()
    assert high > 5
    model.disown(0)
    assert model.by_score.save()["scores"].max() < high


def test_honest_keys_are_the_same_for_a_seed_and_attacks_add_to_what_they_do() -> None:
    one, other = KeyWorld(3, 50, 12), KeyWorld(3, 50, 12)
    for window in range(30):
        for a, b in zip(one.draw(window), other.draw(window), strict=True):
            np.testing.assert_array_equal(a, b)
    chosen = attacks(one, 3, 24, 8)
    assert [attack.begin for attack in chosen] == sorted(attack.begin for attack in chosen)
    assert all(8 * DAY <= attack.begin < attack.end <= 12 * DAY for attack in chosen)
    values = np.zeros(VALUES, np.int64)
    KeyAttack("shared", 2, 1, 0, 1, 5).add(one, 3000, values, 3)
    assert values[0] > 100
    assert bin(int(values[4]) & (1 << 64) - 1).count("1") > 20
    assert START % (7 * DAY) == 4 * DAY


def test_owners_ask_for_few_models_go_over_to_new_ones_and_thieves_take_what_they_like() -> None:
    world = KeyWorld(5, 80, 14)
    asked = np.zeros((80, 3), np.int64)
    for window in range(14 * DAY):
        if window % 12:
            world.pass_by(window)
            continue
        ids, values = world.draw(window)
        since = 0 if window < 3 * DAY else 1 if window < LAUNCHES[0] * DAY else 2
        asked[ids, since] |= values[:, V_MODELS]
    many = [[bin(word & (1 << 64) - 1).count("1") for word in column] for column in asked.T.tolist()]
    assert 1 <= np.median(many[0]) <= 2
    launched = int(world.model_bins(np.array([CATALOGUE]))[0])
    assert not (asked[:, 0] & launched).any()
    assert (asked[:, 2] & launched != 0).mean() > 0.4
    row = np.zeros(VALUES, np.int64)
    KeyAttack("probing", 2, 1, 0, 1, 5).add(world, 14 * DAY - 1, row, 5)
    assert bin(int(row[V_MODELS]) & (1 << 64) - 1).count("1") > 3


@pytest.mark.slow
def test_what_looking_at_models_adds_is_measured_on_the_same_attacks() -> None:
    seen, blind = study_key_models.run(1, 30, days=12)
    assert seen.attacks == blind.attacks
    mean, low, high = study_key_models.gain([(seen, blind)], "keys")
    assert low <= mean <= high
    assert "| 30 | keys |" in study_key_models.table([(seen, blind)])


@pytest.mark.slow
def test_the_study_finds_more_than_volume_does_and_says_how_sure_it_is() -> None:
    study = run(1, 30, many=16, days=12)
    gain, low, high = interval(differences([study], "keys", "volume"))
    assert low <= gain <= high
    assert study.recall("keys") > study.recall("volume")
    assert "| 30 | keys over volume |" in table([study])
    assert F_REQUESTS == 0
