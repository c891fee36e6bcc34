"""One service's registrations: the models that judge each step, their limits, and what is told of a flood."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np

from detectors.learning.calibration import Calibration, CalibrationConfig
from detectors.learning.days import Day, Days, day_limit
from detectors.learning.episodes import Episode
from detectors.learning.floods import BASES, FEATURES, MARKS, STEP_S, Base, FloodConfig, FloodModel, Mark, Scored
from detectors.learning.hours import Hours
from detectors.learning.levels import F64
from detectors.learning.marks import Attribute, Rows, Usual, joined, sums_of
from detectors.learning.uses import HOUR_STEPS, LONG_STEPS, NO_USES, VERIFY_STEPS, Aged, Uses
from detectors.learning.verdicts import Verdicts
from detectors.registrations import RegistrationsSection
from engine.crossing import Crossing
from engine.registrant_notices import LookedAt, Notices
from schemas.columns import I64

HOUR_S = 3600
WINDOW_STEPS = 60
SLOW_STEPS = 60
"""Steps of the fast model in one of the slow one: ten minutes."""
SLOW_WINDOWS = (1, 6, 144)
"""Ten minutes, an hour, a day."""
SLOW_SHARE = 0.25
"""Of the alarms that are allowed, so many are of hours and days …"""
DAY_SHARE = SLOW_SHARE * 3 / 4
"""… and three quarters of those of what days are like, once it is known what they usually are."""
SUSPECT = 0.8
"""Of the limit: from there on nothing is learned."""
EPISODE_STEPS, SLOW_EPISODE_STEPS = 360, 6 * 360
"""An hour without a score at the limit ends an episode, of what lasts for hours six of them."""
AGED = (Base.AGED_HOUR, Mark.UNUSED, HOUR_STEPS), (Base.AGED_LONG, Mark.IDLE, LONG_STEPS)
"""Of accounts that grew old: how many there are, how many of them nobody used, and the steps that it took them."""
VERIFIED = (Base.ASKED, Mark.UNVERIFIED, VERIFY_STEPS)
"""The same of those that should have been verified by then, and were not."""


def slow_config(change_max: float) -> FloodConfig:
    """Of the model of hours and days: what it judges is not followed by its own trend."""
    return FloodConfig(
        1, 600, 1, SLOW_WINDOWS, trend_steps=0.0, held_steps_max=3 * SLOW_WINDOWS[-1], change_max=change_max, cusums=False
    )  # fmt: skip


def slow_share(days_known: bool) -> float:
    """Of the alarms that are allowed, so many are asked of the slow model: half of what days leave, of which it makes twice as
    many (docs/models-registrations.md)."""
    return (SLOW_SHARE - DAY_SHARE) / 2 if days_known else SLOW_SHARE


def limits_of(section: RegistrationsSection, share: float) -> CalibrationConfig:
    """For a model that has such a share of the alarms."""
    acts = min(section.act_per_day, section.notify_per_day)
    return CalibrationConfig(share * section.notify_per_day, share * acts, section.start_score)


def share_out(section: RegistrationsSection, limits: Calibration, day: Day | None) -> None:
    """Say what the slow model may tell of, from its next limits on."""
    limits.config = limits_of(section, slow_share(day is not None))


def end_hour(section: RegistrationsSection, days: Days, limits: Calibration, tick: int) -> LookedAt | None:
    """Look at the last 24 hours: what is at its limit in them. The limits of the slow model leave them their alarms."""
    days.end_hour()
    day, limit = days.judge(tick), day_limit(DAY_SHARE * section.notify_per_day)
    share_out(section, limits, day)
    return None if day is None or day.score < limit else LookedAt(day, limit)


class Registrants:
    """The stream of one service, from a step on.

    Args:
        notices: what is told of it.
    """

    def __init__(self, notices: Notices, section: RegistrationsSection, renew_s: int, step: int) -> None:
        self.notices, self._section, self._renew_s = notices, section, renew_s
        self.step = self.heard = step
        """The step to be judged next, and the last in which anybody registered."""
        self.fast = FloodModel(FloodConfig(1, change_max=section.change_max))
        self.slow = FloodModel(slow_config(section.change_max))
        self.limits = [Calibration(limits_of(section, share)) for share in (1 - SLOW_SHARE, slow_share(False))]
        """Of the fast model and of the slow one"""
        self._hours = Hours(2)
        self._peak_of: dict[int, list[float]] = {}
        """Hour -> the same, of the last four weeks"""
        self.usual, self.uses, self.days = Usual(), Uses(), Days()
        self.verdicts = Verdicts(2 * FEATURES)
        self.recent: deque[Rows] = deque(maxlen=WINDOW_STEPS)
        self._hour: list[Rows] = []
        self._slow_sums: F64 = np.zeros_like(self.fast.running[0, :, :-1])
        self._slow_frozen = False
        self._left_out: dict[int, int] = {}
        """Hour -> steps of which nothing was learned, of the last day"""
        self._episodes = Episode(EPISODE_STEPS, again=False), Episode(SLOW_EPISODE_STEPS), Episode(SLOW_EPISODE_STEPS)
        """Of the fast model, of the slow one, and of what days are like"""
        self._acted, self._acts_since = [-1, -1], [-1, -1]
        """Of both models: the cell that was acted in last, the first one of the episode"""
        self.going_on: list[Crossing] = []
        """For playbooks, since somebody looked: what goes on, and everything that a flood has in common, countries too"""
        self.last_score = 0.0
        self.last_z: F64 = np.zeros(2 * FEATURES)

    @property
    def is_cold(self) -> bool:
        """It does not know a day yet."""
        return self.limits[0].cold

    def judge(self, rows: Rows | None, uses: I64 = NO_USES, *, frozen: bool = False) -> list[Crossing]:
        """The step that is over: who registered, and what accounts did (`detectors.learning.uses`).

        ``frozen``: others found something of the service in it, and nothing is learned of it; of minutes, as of suspicious
        ones, nothing of ten before and after either.
        """
        step, tick = self.step, STEP_S * (self.step + 1) - 1
        known = self.usual.is_known
        if rows is None:
            sums = np.zeros_like(self._slow_sums)
        else:
            self.heard = step
            sums = sums_of(rows, self.usual.marks(rows), step, 1, known=known)
        self.recent.append(rows if rows is not None else _NOBODY)
        scored = self.fast.step(tick, sums)
        suspicious, found = self._decide(0, self.fast, scored, tick)
        suspicious |= frozen
        self._note_left_out(tick, int(self.fast.learn(np.array([suspicious]), np.array([frozen]))[0]))
        if rows is not None and not suspicious:
            self._hour.append(rows)
        self._slow_frozen |= frozen
        self._slow_sums += sums
        self.uses.take(uses)
        add_aged(self._slow_sums, self.uses.aged(step))
        if step % SLOW_STEPS == SLOW_STEPS - 1:
            scored = self.slow.step(tick, self._slow_sums)
            suspicious, more = self._decide(1, self.slow, scored, tick)
            self.slow.learn(np.array([suspicious]), np.array([self._slow_frozen]))
            add_day(self.days, self._slow_sums, learned=not self._slow_frozen)
            if (tick + 1) % HOUR_S == 0:
                more += self._decide_day(scored, tick, said=bool(more))
            self._slow_frozen = False
            found += more
            self._slow_sums = np.zeros_like(self._slow_sums)
        if (tick + 1) % HOUR_S == 0:
            self._end_hour(tick)
        elif not known and (tick + 1) % 600 == 0:
            self._learn_words(600 / HOUR_S)
        self.step += 1
        return found

    def _note_left_out(self, tick: int, steps: int) -> None:
        """Of minutes that would have been learned now so many steps were left out."""
        if steps:
            hour = tick // HOUR_S
            self._left_out[hour] = self._left_out.get(hour, 0) + steps
            self._left_out = {one: many for one, many in self._left_out.items() if one > hour - 24}

    def _frozen_s(self) -> int:
        """Seconds of the last day that were left out of what is learned of minutes."""
        hour = STEP_S * self.step // HOUR_S
        return STEP_S * sum(many for one, many in self._left_out.items() if one > hour - 24)

    def _end_hour(self, tick: int) -> None:
        self._learn_words(1.0)
        hour = tick // HOUR_S
        self._peak_of[hour] = self._hours.peaks.tolist()
        self._peak_of.pop(hour - 28 * 24, None)
        self._hours.end(tick, self.limits)

    def _learn_words(self, hours: float) -> None:
        if self._hour:
            self.usual.learn(joined(self._hour), hours)
            self._hour.clear()

    def _decide(self, which: int, model: FloodModel, scored: Scored, tick: int) -> tuple[bool, list[Crossing]]:
        """Whether a step is suspicious, and what is told of it."""
        limits, score = self.limits[which], float(scored.score[0])
        limits.begin(tick)
        self._hours.see(which, score, limits.notify)
        suspicious = score >= SUSPECT * limits.notify
        if score < limits.notify:
            return suspicious, []
        z = np.concatenate([scored.z[0, -2], scored.z[0, -1]])
        if self.verdicts.mutes(z, score):
            return suspicious, []
        self.last_score, self.last_z = score, z
        episode = self._episodes[which]
        tells = episode.tells(self.step, limits.per_day(score))
        cell = tick // self._renew_s
        if episode.since == self.step:
            self._acts_since[which] = -1
        acts = score >= limits.act and self._acted[which] != cell
        cohorts = self.notices.cohorts(self.recent, self.usual, scored) if which == 0 else []
        told = [self.notices.notice(model, scored, tick, cohorts, limits, self._frozen_s())]
        self.going_on += [replace(told[0], goes_on=True), *self.notices.for_playbooks(scored, tick, cohorts)]
        if not tells and not acts:
            return suspicious, []
        if acts:
            self._acted[which] = cell
            if self._acts_since[which] < 0:
                self._acts_since[which] = cell
            told += self.notices.actions(limits, scored, tick, cohorts, again=cell > self._acts_since[which])
        return suspicious, told if tells else told[1:]

    def _decide_day(self, scored: Scored, tick: int, *, said: bool) -> list[Crossing]:
        """At the end of an hour: what is told of the last 24; ``said``: the slow model tells of this step already."""
        looked_at = end_hour(self._section, self.days, self.limits[1], tick)
        if looked_at is None:
            return []
        day = looked_at.day
        z = np.zeros(2 * FEATURES)
        z[FEATURES] = 0.0 if day.number is None else day.number.z
        z[FEATURES + 1 + Mark.UNUSED] = 0.0 if day.unused is None else day.unused.z
        if self.verdicts.mutes(z, day.score):
            return []
        tells = self._episodes[2].tells(self.step, day.per_day)
        notice = self.notices.notice(self.slow, scored, tick, [], self.limits[1], self._frozen_s(), looked_at)
        self.going_on.append(replace(notice, goes_on=True))
        if not tells or said:
            return []
        self.last_score, self.last_z = day.score, z
        return [notice]

    def hear(self, z: F64, score: float, hour: int, *, confirmed: bool) -> None:
        """A verdict on a finding."""
        self.verdicts.add(z, score, confirmed=confirmed)
        if confirmed:
            for which, limits in enumerate(self.limits):
                if hour in self._peak_of:
                    limits.withdraw(self._peak_of[hour][which])

    def describe(self) -> dict[str, Any]:
        """What people may want to know."""
        return {
            "service": self.notices.service_text, "cold": self.is_cold, "days": round(self.limits[0].days, 2),
            "notify_limit": round(self.limits[0].notify, 2), "act_limit": round(self.limits[0].act, 2),
            "registrations_an_hour": round(float(self.fast.rates.mean[0, 0, 0]) * HOUR_S / STEP_S, 1),
            "frozen_s": self._frozen_s(), "verdicts": len(self.verdicts.scores), **self._used(),
        }  # fmt: skip

    def _used(self) -> dict[str, Any]:
        """Of the accounts that grew an hour and six hours old within the last day, how many there are and are not used."""
        slow, found = self.slow, dict[str, Any]()
        day = slow.running[-1, 0] - slow.running[-1 - min(slow.steps, SLOW_WINDOWS[-1]), 0]
        for name, (base, mark, _) in zip(("hour", "six_hours"), AGED, strict=True):
            found[f"accounts_aged_{name}"] = int(day[base])
            found[f"unused_{name}"] = round(float(day[BASES + mark] / max(1.0, day[base])), 3)
        if day[Base.ASKED]:
            found["unverified"] = round(float(day[BASES + Mark.UNVERIFIED] / day[Base.ASKED]), 3)
        return found

    def save(self) -> dict[str, Any]:
        """Plain data and arrays for `load`."""
        return {
            "steps": [self.step, self.heard], "models": [self.fast.save(), self.slow.save()],
            "limits": [limits.save() for limits in self.limits], "hours": self._hours.save(),
            "peak_of": [[hour, *peaks] for hour, peaks in sorted(self._peak_of.items())],
            "usual": self.usual.save(), "uses": self.uses.save(), "days": self.days.save(),
            "verdicts": self.verdicts.save(), "recent": [rows.columns() for rows in self.recent],
            "hour": joined(self._hour).columns() if self._hour else [], "slow_sums": self._slow_sums.copy(),
            "episodes": [one.save() for one in self._episodes], "acts": [list(self._acted), list(self._acts_since)],
            "last": [self.last_score, self.last_z.copy()],
            "frozen": [self._slow_frozen, sorted(self._left_out.items())],
        }  # fmt: skip

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        self.step, self.heard = data["steps"]
        for model, saved in zip((self.fast, self.slow), data["models"], strict=True):
            model.load(saved)
        for limits, saved in zip(self.limits, data["limits"], strict=True):
            limits.load(saved)
        self._hours.load(data["hours"])
        self._peak_of = {hour: peaks for hour, *peaks in data["peak_of"]}
        self.usual.load(data["usual"])
        self.uses.load(data["uses"])
        self.days.load(data["days"])
        share_out(self._section, self.limits[1], self.days.judge(0))
        self.verdicts.load(data["verdicts"])
        self.recent = deque((Rows(*columns) for columns in data["recent"]), maxlen=WINDOW_STEPS)
        self._hour = [Rows(*data["hour"])] if data["hour"] else []
        self._slow_sums = data["slow_sums"].copy()
        for episode, saved in zip(self._episodes, data["episodes"], strict=True):
            episode.load(saved)
        self._acted, self._acts_since = (list(some) for some in data["acts"])
        self.last_score, self.last_z = data["last"]
        self._slow_frozen, left_out = data["frozen"]
        self._left_out = dict(left_out)


def add_aged(sums: F64, aged: Aged) -> None:
    """Add accounts that grew old to the sums of a step of the slow model: hours later than their registrations, so that the
    model of minutes has no use for them."""
    for (base, mark, _), (many, unseen) in zip((*AGED, VERIFIED), (aged[:2], aged[2:4], aged[4:]), strict=True):
        sums[0, base] += many
        sums[0, BASES + mark] += unseen
        sums[0, BASES + MARKS + mark] += unseen


def add_day(days: Days, sums: F64, *, learned: bool) -> None:
    """Add what a step of the slow model had to its hour."""
    days.add(float(sums[0, Base.MADE]), float(sums[0, Base.AGED_HOUR]), float(sums[0, BASES + Mark.UNUSED]), learned=learned)


_EMPTY = np.zeros(0, np.int64)
_NOBODY = Rows(
    _EMPTY, _EMPTY.astype(np.float64), np.zeros((0, len(Attribute)), np.int64), _EMPTY.astype(np.float64),
    _EMPTY.astype(np.float64), _EMPTY.astype(np.bool_), _EMPTY.astype(np.bool_), _EMPTY.astype(np.bool_),
)  # fmt: skip
