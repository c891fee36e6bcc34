"""Accounts that are verified: who says it, that nobody counts it, and what it tells of a service's registrations."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest

from detectors.learning.floods import BASES, COLUMNS, MARKS, FloodConfig, FloodModel, Mark
from detectors.learning.uses import HOUR_STEPS, STEP_S, VERIFY_STEPS, Uses, registered, verified
from detectors.learning.verifications import Verifications
from drills.run import START_S
from replay.matching import Matcher
from schemas.config import Input
from schemas.decode import Decoder
from schemas.fields import Flag, Number, Poison, Text
from schemas.mitigation import Target
from schemas.sample import S_STRATUM, VERIFIED, of_strata
from tests.engines import as_chunk, config_of, decide, only
from tests.test_registrations import flat
from tests.test_sampling import Observing, events_of
from tests.test_uses import BUSY, SERVICES, shop, told

HOUR = 3600
PLAIN: dict[str, Any] = {"time": START_S, "host": "www.example.com", "account": "acct_1"}


def decoded(event: dict[str, Any]) -> Decoder:
    data = orjson.dumps(event) + b"\n"
    decoder = Decoder(Input(), key_seed=(1, 2), ahead_ms=0)
    decoder.decode_lines(as_chunk(data), len(data), 0, bound_ms=0, events_max=10)
    return decoder


def flags_of(**event: Any) -> int:
    """Of one event that can be read."""
    decoder = decoded({**PLAIN, **event})
    assert (decoder.columns.n, decoder.poison) == (1, 0)
    return int(decoder.columns.numbers[Number.FLAGS, 0]) & (Flag.VERIFICATION | Flag.REGISTRATION)


@pytest.mark.parametrize("word", ["verification", "verified", "user.verified", "email_verified", "payment_verified"])
def test_an_event_says_that_an_account_was_verified(word: str) -> None:
    assert flags_of(event=word) == Flag.VERIFICATION
    assert flags_of(event={"action": word}, status=200, registration=True) == Flag.VERIFICATION
    assert decoded({**PLAIN, "type": word}).columns.text(Text.ACCOUNT, 0) == b"acct_1"


@pytest.mark.parametrize("failed", [{"status": 400}, {"status": 429}, {"auth_failed": True}, {"denied": True}, {"status": 499}])
def test_what_failed_is_a_request_like_any_other(failed: dict[str, Any]) -> None:
    assert flags_of(event="verification", **failed) == 0


def test_other_words_stay_what_they_were() -> None:
    for word in ("verify", "verifications", "verification_sent", "email_verified2", "", "x" * 40, None, 7):
        assert flags_of(event=word) == 0
    assert flags_of(event="registration", outcome="verified") == Flag.REGISTRATION


@pytest.mark.parametrize("account", [None, "", True, {}])
def test_a_verification_of_nobody_is_refused_with_its_place(account: Any) -> None:
    event = {"event": "verification", **PLAIN, "client_ip": "192.0.2.1", "account": account}
    decoder = decoded(event)
    assert (decoder.columns.n, decoder.poison) == (0, 1)
    assert Poison(int(decoder.poison_reason[0])) == Poison.NOT_AN_EVENT
    assert int(decoder.poison_at[0]) == orjson.dumps(event).index(b"verification")


def test_no_measure_counts_it() -> None:
    rules = [
        {"dimension": dimension, "measure": measure, "window_s": 1, "limit": 1}
        for dimension in ("service", "ip", "account", "route") for measure in ("requests", "registrations", "evidence")
    ]  # fmt: skip
    config = config_of({"detectors": only("rate", rules=rules)})
    event = {**PLAIN, "client_ip": "198.51.100.7", "method": "POST", "path": "/verify", "status": 200}
    for word, counts in (("verification", False), ("other", True)):
        decided = decide((orjson.dumps({**event, "event": word}) + b"\n") * 50, 1000 * (START_S + 60), config)
        assert (decided.account.counted, decided.account.poison) == (50, {})
        assert bool(decided.findings) == counts


def test_detectors_of_floods_do_not_see_it() -> None:
    tally = Observing().tally(events_of(random.Random(4), 600))
    cells = tally.sample.cells
    kept = of_strata(tally.sample)
    assert (cells[:, S_STRATUM] == VERIFIED).any()
    assert kept.cells.tolist() == cells[cells[:, S_STRATUM] != VERIFIED].tolist()
    assert of_strata(kept) is kept
    other = tally.sample.entries[cells[tally.sample.entries[:, 0], S_STRATUM] != VERIFIED]
    assert kept.entries[:, 1:].tolist() == other[:, 1:].tolist()


def service(hours: int, share: float, silent: tuple[int, int] = (-1, -1), *, more: int = 0, seed: int = 1) -> list[list[int]]:
    """A registration a minute, verified within minutes as often as ``share`` says but not in the hours ``silent``; in the last
    ten hours ``more`` others besides, that nobody verifies."""
    chance, found = np.random.default_rng(seed), [[tick, BUSY, 0] for tick in range(0, HOUR * hours, STEP_S)]
    for number, at in enumerate(range(0, HOUR * hours, 60)):
        found.append([at, 10_000 + number, registered(9)])
        then = at + int(chance.integers(5, 600))
        if chance.random() < share and not silent[0] <= then // HOUR < silent[1]:
            found.append([then, 10_000 + number, verified(0)])
        extra = range(more if at >= HOUR * (hours - 10) else 0)
        found += [[at, 1_000_000 + 10 * number + which, registered(9)] for which in extra]
    return sorted(found)


def asked(events: list[list[int]], hours: int) -> tuple[list[float], list[float]]:
    """(of each hour how many accounts were asked about, how many of them nobody had verified)"""
    uses, rows = Uses(), np.array(events, np.int64)
    found = np.zeros((hours, 2))
    edges = np.searchsorted(rows[:, 0], STEP_S * np.arange(hours * HOUR_STEPS + 1))
    for step in range(hours * HOUR_STEPS):
        uses.take(rows[edges[step] : edges[step + 1]])
        found[step // HOUR_STEPS] += uses.aged(step)[4:]
    return found[:, 0].tolist(), found[:, 1].tolist()


def test_what_is_read_again_for_a_mitigation_leaves_it_out() -> None:
    for word, rows in (("verification", []), ("other", [0])):
        columns = decoded({**PLAIN, "event": word}).columns
        assert Matcher(Target(type="account", value="acct_1"), "default").rows(columns, np.arange(columns.n)).tolist() == rows


AGE = VERIFY_STEPS // HOUR_STEPS


def test_of_accounts_that_grew_old_who_was_verified_is_counted() -> None:
    many, unverified = asked(service(20, 0.8), 20)
    assert many[:AGE] == [0.0] * AGE
    assert many[AGE:] == [60.0] * (20 - AGE)
    assert sum(unverified) == pytest.approx(0.2 * sum(many), rel=0.25)


def test_a_service_that_says_nobody_was_verified_is_asked_about_nobody() -> None:
    many, unverified = asked(service(20, 0.0), 20)
    assert (sum(many), sum(unverified)) == (0.0, 0.0)


@pytest.mark.parametrize("until", [24, 60])
def test_an_outage_makes_nobody_look_unverified(until: int) -> None:
    many, unverified = asked(service(60, 0.8, (20, until)), 60)
    assert many[20 + AGE] == many[20 + AGE - 1] == 0.0, "those of the last hour before it could not be verified either"
    assert max(many[20 + AGE : until + AGE]) == 0.0
    shares = [one / other for one, other in zip(unverified, many, strict=True) if other]
    assert max(shares) < 0.5
    assert (many[-1] > 0) == (until == 24)


def test_a_flood_is_no_outage() -> None:
    many, unverified = asked(service(40, 0.8, more=9), 40)
    assert many[-1] == 600.0
    assert unverified[-1] / many[-1] > 0.9


def test_half_an_hour_without_verifications_is_a_silence_that_chance_does_not_make() -> None:
    hours = Verifications()
    for tick in range(0, 48 * HOUR, 60):
        if not 30 * HOUR + 600 <= tick < 30 * HOUR + 2100:
            hours.note(tick, 0)
    hours.turn(48)
    assert [hour for hour in range(46) if not hours.covers(hour * HOUR, 0)] == [29, 30]


def test_weekends_with_a_fifth_are_usual_from_the_second_on() -> None:
    hours, missed = Verifications(), []
    for day in range(21):
        for tick in range(day * 24 * HOUR, (day + 1) * 24 * HOUR, 600 if day % 7 >= 5 else 120):
            hours.note(tick, 0)
        hours.turn(24 * (day + 1))
        missed += [day] * (not hours.covers((24 * day + 12) * HOUR, 0))
    assert set(missed) <= {5, 6}


def test_accounts_that_a_busy_seconds_sample_leaves_out_are_not_asked_about() -> None:
    hours = Verifications()
    for tick in range(0, 10 * HOUR, 30):
        hours.note(tick, 3 if tick == 5 * HOUR + 60 else 0)
    hours.turn(10)
    assert [hours.covers(hour * HOUR, 2) for hour in (3, 4, 5, 6)] == [True, False, False, True]
    assert all(hours.covers(hour * HOUR, 3) for hour in (3, 4, 5, 6))


def test_a_model_that_hears_of_no_verification_is_as_it_was() -> None:
    chance = np.random.default_rng(6)
    marks = tuple(mark != Mark.UNVERIFIED for mark in Mark)
    one, other = FloodModel(FloodConfig(1)), FloodModel(FloodConfig(1, marks=marks))
    for step in range(600):
        sums = np.zeros((1, COLUMNS))
        sums[0, : BASES - 1] = chance.poisson(9, BASES - 1)
        sums[0, BASES : BASES + MARKS - 1] = chance.poisson(3, MARKS - 1)
        sums[0, BASES + MARKS : COLUMNS - 1] = sums[0, BASES : BASES + MARKS - 1]
        scores = [model.step(STEP_S * (step + 1) - 1, sums).score[0] for model in (one, other)]
        assert scores[0] == scores[1]
        for model in (one, other):
            model.learn(np.array([False]))


def verifying(hours: int) -> bytes:
    """A shop that says who was verified: three in four."""
    events = [orjson.loads(line) for line in shop(hours).splitlines()]
    for number, at in enumerate(range(0, HOUR * hours, 30)):
        if number % 4:
            events.append({"time": 1000 * (START_S + at + 100), "event": "verification", "host": "www.example.com",
                           "account": f"acct_{number}"})  # fmt: skip
    return b"".join(orjson.dumps(event) + b"\n" for event in sorted(events, key=lambda event: int(event["time"])))


def test_from_events_to_the_model_and_wherever_it_is_cut() -> None:
    log = verifying(7)
    about, saved = told(SERVICES, None, log)
    assert "unverified" not in told(SERVICES, None)[0]
    assert about["unverified"] == 0.25
    assert flat(told(SERVICES, 501, log)[1]) == flat(saved)
