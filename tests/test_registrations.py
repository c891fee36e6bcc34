"""Floods of registrations: what is told and done, that what is learned outlives the process, and that it cannot be poisoned."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest

from detectors.kernels.names import digits_of, length_of, make_notes, registers, surprise_of
from detectors.learning.calibration import Calibration, CalibrationConfig
from detectors.learning.floods import BASES, COLUMNS, MARKS, STEP_S, Base, FloodConfig, FloodModel, Mark
from detectors.learning.levels import F64
from detectors.learning.marks import Attribute, Rows, Usual, joined, sums_of
from detectors.learning.verdicts import ALIKE, Verdicts
from detectors.registrations import RegistrationsSection
from drills.render import lines
from drills.run import START_S, Drill, Plan
from engine import registrants
from engine.crossing import Crossing
from engine.embedded import Embedded
from engine.registered import Lists
from engine.registrant_notices import Notices
from engine.registrants import Registrants
from schemas.errors import StateError
from tests.engines import Decided, conclude, config_of, feed, only
from tests.oracles.sampling import notes_of

NOON_STEP = (START_S + 12 * 3600) // STEP_S
DISPOSABLE_WORD, HOSTER, AGENT = 77, 0xFFFF_C633_6400, 9000


def people(random: np.random.Generator, step: int, count: int) -> Rows:
    """Registrations as people make them, in one step."""
    words = np.stack(
        [
            random.integers(1, 12, count), random.integers(1, 9, count), random.integers(1, 40, count),
            0xFFFF_0000_0000 + 256 * random.integers(1, 1 << 20, count), random.integers(1, 200, count), np.zeros(count),
        ], axis=1,
    ).astype(np.int64)  # fmt: skip
    none = np.zeros(count, np.bool_)
    return Rows(
        np.full(count, step), np.ones(count), words, random.normal(4.2, 0.5, count), random.uniform(0, 0.3, count), none,
        random.random(count) < 0.02, random.random(count) < 0.05,
    )  # fmt: skip


def flood(random: np.random.Generator, step: int, count: int) -> Rows:
    """By a program, from one network, with one disposable mail domain."""
    rows = people(random, step, count)
    rows.words[:, Attribute.AGENT], rows.words[:, Attribute.DOMAIN] = AGENT, DISPOSABLE_WORD
    rows.words[:, Attribute.NETWORK], rows.disposable = HOSTER, np.ones(count, np.bool_)
    rows.failed = np.zeros(count, np.bool_)
    return rows


def stream(**section: Any) -> Registrants:
    """Of one service, from noon on."""
    settings = RegistrationsSection(**section)
    notices = Notices(
        (1, 2), b"www.example", settings, lambda word: b"ten.example" if word == DISPOSABLE_WORD else b"Browser/1"
    )
    return Registrants(notices, settings, 60, NOON_STEP)


def play(one: Registrants, random: np.random.Generator, steps: int, hostile: int = 0) -> list[Crossing]:
    """Steps of five registrations each, and so many hostile ones."""
    told: list[Crossing] = []
    for _ in range(steps):
        rows = people(random, one.step, int(random.poisson(5)))
        told += one.judge(joined([rows, flood(random, one.step, hostile)]) if hostile else rows)
    return told


class Known(Calibration):
    """Limits that stay."""

    def begin(self, tick: int) -> None:
        """They are not read off again."""


def known(notify: float, act: float) -> Known:
    limits = Known(CalibrationConfig(1.0, 1 / 90, notify))
    limits.act = act
    return limits


def arm(one: Registrants) -> None:
    """As if its limits were known for a week."""
    one.limits = [known(7.0, 9.0), known(7.0, 9.0)]


def test_a_flood_is_told_within_a_minute_and_what_it_is_made_of_is_named() -> None:
    one, random = stream(), np.random.default_rng(1)
    assert play(one, random, 400) == []
    first = one.step
    [notice] = play(one, random, 6, 15)
    assert notice.tick - STEP_S * first < 60
    assert notice.rule.action == "notify"
    assert not notice.rule.dry_run
    assert "disposable mail domain ten.example" in notice.reason
    assert "198.51.100.0/24" in notice.reason
    features = dict(notice.features)
    assert features["cold"] == 1
    assert float(features["z disposable"]) > 3


def test_networks_and_disposable_domains_are_challenged_first_and_then_restricted_and_nobody_else_is() -> None:
    one, random = stream(dry_run=False), np.random.default_rng(2)
    play(one, random, 400)
    arm(one)
    told = play(one, random, 24, 15)
    acted = [(c.dimension.label, c.rule.action) for c in told if c.rule.action != "notify"]
    by_cell = {cell: {c.dimension.label: c.rule.action for c in some if c.rule.action != "notify"}
               for cell, some in itertools.groupby(told, key=lambda c: c.tick // 60)}  # fmt: skip
    first, second = [one for one in by_cell.values() if one][:2]
    assert first == {"net": "challenge", "email_domain": "challenge", "user_agent": "challenge"}
    assert second == {"net": "restrict_registration", "email_domain": "restrict_registration", "user_agent": "challenge"}
    assert {dimension for dimension, _ in acted} == {"net", "email_domain", "user_agent"}
    restricted = next(c for c in told if c.rule.action == "restrict_registration")
    assert restricted.rule.ttl_s == RegistrationsSection().restrict_ttl_s
    assert float(dict(restricted.features)["collateral"]) <= RegistrationsSection().collateral_max


def test_a_crowd_of_people_is_told_and_nothing_is_done() -> None:
    one, random = stream(dry_run=False), np.random.default_rng(3)
    play(one, random, 400)
    arm(one)
    told = []
    for _ in range(24):
        told += one.judge(people(random, one.step, 50))
    assert [(c.dimension.label, c.rule.action) for c in told] == [("service", "notify")]


def test_what_was_learned_is_gone_on_from_exactly() -> None:
    one, random = stream(), np.random.default_rng(4)
    play(one, random, 500)
    other = stream()
    other.load(one.save())
    again = np.random.default_rng(5)
    told = play(one, again, 200, 0) + play(one, again, 20, 15)
    again = np.random.default_rng(5)
    assert play(other, again, 200, 0) + play(other, again, 20, 15) == told
    assert told
    same = flat(one.save()), flat(other.save())
    assert same[0] == same[1]


def flat(value: Any) -> Any:
    """Plain data that compares."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: flat(inner) for key, inner in value.items()}
    return [flat(inner) for inner in value] if isinstance(value, list | tuple) else value


def test_a_model_of_other_windows_is_refused() -> None:
    with pytest.raises(StateError, match="expected numbers of the shape"):
        FloodModel(FloodConfig(1)).load(FloodModel(FloodConfig(2)).save())


def test_what_people_often_called_false_is_told_no_more_and_an_attack_still_is() -> None:
    campaign, attack = np.zeros(22), np.zeros(22)
    campaign[[0, 11]], attack[[0, 3, 11, 14]] = 9.0, (4.0, 8.0, 5.0, 9.0)
    random, verdicts = np.random.default_rng(6), Verdicts(22)
    for number in range(20):
        assert verdicts.mutes(campaign, 10.0) == (number >= ALIKE)
        verdicts.add(campaign + random.normal(0, 0.5, 22), 10.0, confirmed=False)
    assert not verdicts.mutes(attack, 10.0)
    assert not verdicts.mutes(campaign, 100.0)
    for _ in range(30):
        verdicts.add(campaign, 10.0, confirmed=True)
    assert not verdicts.mutes(campaign, 10.0)


def ramp(change_max: float, *, seen: bool = False) -> bool:
    """Whether an attack of 0.4 times the usual is found after sixty days that each brought one percent more of its kind.

    ``seen``: from the first week on, when it is a twentieth of what is usual, another detector tells of it.
    """
    model, random = FloodModel(FloodConfig(1, 600, 1, (1, 6, 144), 0.0, 432, change_max)), np.random.default_rng(7)

    def step(number: int, hostile: float) -> float:
        count, bad = random.poisson(60), random.poisson(hostile)
        marks = np.zeros((2, MARKS))
        marks[:, Mark.DISPOSABLE] = random.binomial(count, 0.03) + bad
        marks[:, Mark.SURPRISE] = 4.2 * count + 5.5 * bad, 17.8 * count + 30.5 * bad
        sums = np.zeros((1, COLUMNS))
        sums[0, [Base.MADE, Base.TRIED, Base.NAMED, Base.KNOWN, Base.KNOWN_MAILED]] = count + bad
        sums[0, BASES:] = marks.ravel()
        score = float(model.step(START_S + 600 * number + 599, sums).score[0])
        model.learn(np.array([score >= 6.0]), np.array([seen and hostile > 3.0]))
        return score

    quiet, days = 8 * 144, 60
    for number in range(quiet):
        step(number, 0.0)
    for number in range(quiet, quiet + 144 * days):
        step(number, 0.6 * (number - quiet) / 144)
    return max(step(quiet + 144 * days + n, 0.6 * days + 24.0) for n in range(3)) >= RegistrationsSection().start_score


def test_a_slow_ramp_does_not_teach_that_an_attack_is_usual_and_without_the_cap_it_would() -> None:
    assert ramp(RegistrationsSection().change_max)
    assert not ramp(0.0)
    assert ramp(0.0, seen=True)


def test_sums_of_a_step_are_those_of_its_rows() -> None:
    random, usual = np.random.default_rng(8), Usual()
    rows = joined([people(random, step, 7) for step in range(40)])
    usual.learn(rows, 1.0)
    together = Usual()
    together.load(usual.save())
    whole = sums_of(rows, together.marks(rows), 0, 40, known=True)
    for step in range(40):
        some = rows.take(rows.step == step)
        assert np.allclose(sums_of(some, usual.marks(some), step, 1, known=True)[0], whole[step], rtol=1e-12)
    made = ~rows.failed
    assert whole[:, Base.MADE].sum() == made.sum()
    assert whole[:, BASES + Mark.DISPOSABLE].sum() == (rows.disposable & made).sum()


def test_notes_say_what_a_name_is_like() -> None:
    notes = np.array([notes_of(b"anna.meyer84", 64500), notes_of(b"q7xk2zzp1v", 0), notes_of(b"", 0)], np.int64)
    assert registers(notes).all()
    assert length_of(notes).tolist() == [12, 10, 0]
    assert digits_of(notes).tolist() == [2, 3, 0]
    assert surprise_of(notes)[1] > surprise_of(notes)[0] + 1
    assert (make_notes(surprise_of(notes), length_of(notes), digits_of(notes), np.array([64500, 0, 0])) == notes).all()


def test_a_subdomain_of_a_disposable_domain_is_disposable_and_a_customer_never_is() -> None:
    lists = Lists(frozenset([b"ten.example", b"firm.example"]), frozenset([b"firm.example"]))
    assert lists.is_disposable(b"Ten.Example")
    assert lists.is_disposable(b"x7.ten.example")
    assert not lists.is_disposable(b"often.example")
    assert not lists.is_disposable(b"mail.firm.example")


def drilled(*attacks: str, span_s: int, at_s: int, **plan: Any) -> Decided:
    """What registrations of a drill lead to, armed and as if limits were known."""
    begin = plan.pop("start_s", START_S + 12 * 3600)
    drill = Drill(
        Plan(
            seed=11, start_s=begin, span_s=span_s, attacks=attacks, at_s=(at_s,) * len(attacks), only=frozenset({"sign_ups"}),
            **plan,
        )
    )  # fmt: skip
    engine = Embedded(config_of({"profile": "api", "detectors": only("registrations", dry_run=False)}))
    engine.open("log", 1000 * (begin + span_s + 60))
    base = 0
    for events in drill.blocks(600):
        written = lines(events, drill.world.actors, "registrations")
        base = feed(engine, "log", b"".join(written), base) if written else base
    engine.close("log")
    return conclude(engine)


@pytest.fixture
def known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model acts from the score on that it would notify from."""
    start = RegistrationsSection().start_score
    monkeypatch.setattr(registrants, "Calibration", lambda config: known(start, start))


@functools.cache
def begins() -> int:
    return START_S + 12 * 3600 + 2400


def test_a_loud_registration_flood_is_told_within_twenty_seconds_and_an_ordinary_one_within_a_minute() -> None:
    for strength, within_s in (("loud", 20), ("ordinary", 60)):
        decided = drilled("registrations_obvious", span_s=2700, at_s=2400, strength=strength, storms="none")
        first = min(f.tick for f in decided.findings if f.detector == "registrations")
        assert 0 <= first - begins() < within_s, strength


@pytest.mark.usefixtures("known_limits")
def test_a_marketing_campaign_restricts_nobody() -> None:
    tuesday = START_S + 86_400 + 32_400
    decided = drilled(span_s=4200, at_s=0, start_s=tuesday - 3000, events_per_second=150.0, storms="calendar")
    told = [f for f in decided.findings if f.detector == "registrations"]
    assert told
    assert {(f.target.type, f.action) for f in told} == {("service", "notify")}


@pytest.mark.usefixtures("known_limits")
def test_a_framed_customer_domain_is_never_a_target() -> None:
    decided = drilled("trap_framed_domain", span_s=3000, at_s=2400, storms="none")
    assert not [f for f in decided.findings if f.target.type in ("email_domain", "country")]


def test_before_a_week_is_known_nothing_acts() -> None:
    one, random = stream(dry_run=False), np.random.default_rng(9)
    play(one, random, 400)
    assert math.isinf(one.limits[0].act)
    assert {c.rule.action for c in play(one, random, 30, 30)} == {"notify"}


def levels_of(one: Registrants) -> F64:
    return one.fast.marks.mean[0, 0].copy()


def test_nothing_is_learned_from_a_flood() -> None:
    one, random = stream(), np.random.default_rng(10)
    play(one, random, 400)
    play(one, random, 6, 40)
    before = levels_of(one)
    play(one, random, 60, 40)
    np.testing.assert_array_equal(levels_of(one)[Mark.DISPOSABLE], before[Mark.DISPOSABLE])
