"""One service's registrations: the models that judge each step, their limits, and what is told of a flood."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detectors.learning.calibration import Calibration, CalibrationConfig
from detectors.learning.floods import BASES, FEATURES, MARKS, NAMES, STEP_S, Base, FloodConfig, FloodModel, Mark, Scored
from detectors.learning.hours import Hours
from detectors.learning.levels import F64
from detectors.learning.marks import Attribute, Rows, Usual, joined, sums_of
from detectors.learning.unused_days import Day, UnusedDays, day_limit
from detectors.learning.uses import HOUR_STEPS, LONG_STEPS, NO_USES, VERIFY_STEPS, Aged, Uses
from detectors.learning.verdicts import Verdicts
from detectors.registrations import DETECTOR, RegistrationsSection
from detectors.surplus import span_of
from detectors.windowed import WindowRule
from engine.crossing import Crossing, unsigned
from engine.naming import prefix_text
from schemas.columns import I64
from schemas.config import Action
from schemas.fields import Dimension, Measure

TextOf = Callable[[int], bytes | None]
HOUR_S = 3600
WINDOW_STEPS = 60
SLOW_STEPS = 60
"""Steps of the fast model in one of the slow one: ten minutes."""
SLOW_WINDOWS = (1, 6, 144)
"""Ten minutes, an hour, a day."""
SLOW_SHARE = 0.25
"""Of the alarms that are allowed, so many are of hours and days …"""
DAY_SHARE = SLOW_SHARE * 2 / 3
"""… and two thirds of those of the day's share of unused accounts alone, once it is known what that usually is."""
SUSPECT = 0.8
"""Of the limit: from there on nothing is learned."""
EPISODE_STEPS = 360
"""An hour without a score at the limit ends an episode."""
COHORT_LEAST, COHORT_Z = 5.0, 5.0
"""So many more registrations than usual, and more than chance makes of few, have a value that is named."""
LIFT_MIN = 5.0
"""A value's share of registrations is so many times its usual one: what grows in proportion is a campaign's."""
COHORTS_MAX = 32
TOLD_MAX = 4
"""Values that a sentence names."""
TARGET_OF = {
    Attribute.NETWORK: Dimension.NET, Attribute.DOMAIN: Dimension.EMAIL_DOMAIN, Attribute.AGENT: Dimension.USER_AGENT,
}  # fmt: skip
NAMED = {**TARGET_OF, Attribute.COUNTRY: Dimension.COUNTRY, Attribute.ASN: Dimension.ASN}
"""What playbooks can act on."""
NOUNS = {
    Attribute.AGENT: "user agent", Attribute.COUNTRY: "country", Attribute.DOMAIN: "mail domain", Attribute.NETWORK: "network",
    Attribute.ASN: "autonomous system", Attribute.REFERRER: "referrer",
}  # fmt: skip
MARK_WORDS = {
    "count": "more than usual", "new_agent": "user agents that are new here", "hosted": "hosting networks",
    "disposable": "disposable mail domains", "foreign": "unusual countries", "surprise": "unlikely names",
    "digits": "digits in names", "rare_domain": "rare mail domains", "same_network": "networks that come again",
    "failed": "failures",
    "unused": "accounts that nobody uses within an hour", "idle": "accounts that nobody uses within six hours",
    "unverified": "accounts that are not verified",
}  # fmt: skip
MARK_Z = 3.0
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
    """Of the alarms that are allowed, so many are the slow model's."""
    return SLOW_SHARE - DAY_SHARE * days_known


@dataclass(frozen=True, slots=True)
class Cohort:
    """Registrations that have a value in common, more of them than usual."""

    attribute: Attribute
    word: int
    observed: float
    usual: float
    collateral: float
    """Share of usual registrations"""
    disposable: bool

    @property
    def surplus(self) -> float:
        """What it has more than usual."""
        return self.observed - self.usual


class Registrants:
    """The stream of one service, from a step on."""

    def __init__(
        self, key: tuple[int, int], service: bytes, section: RegistrationsSection, renew_s: int, step: int
    ) -> None:  # fmt: skip
        self.key, self.service, self._section, self._renew_s = key, service, section, renew_s
        self.step = self.heard = step
        """The step to be judged next, and the last in which anybody registered."""
        self.text_of: TextOf = lambda word: None
        self.fast = FloodModel(FloodConfig(1, change_max=section.change_max))
        self.slow = FloodModel(slow_config(section.change_max))
        self.limits = [self._calibration(1 - SLOW_SHARE), self._calibration(slow_share(False))]
        """Of the fast model and of the slow one"""
        self._hours = Hours(2)
        self._peak_of: dict[int, list[float]] = {}
        """Hour -> the same, of the last four weeks"""
        self.usual, self.uses, self.days = Usual(), Uses(), UnusedDays()
        self._day_last = -1
        """The last step at whose end the day's share of unused accounts was at its limit"""
        self.verdicts = Verdicts(2 * FEATURES)
        self.recent: deque[Rows] = deque(maxlen=WINDOW_STEPS)
        self._hour: list[Rows] = []
        self._slow_sums: F64 = np.zeros_like(self.fast.running[0, :, :-1])
        self._slow_frozen = False
        self._left_out: dict[int, int] = {}
        """Hour -> steps of which nothing was learned, of the last day"""
        self._since, self._last, self._acted, self._acts_since = [-1, -1], [-1, -1], [-1, -1], [-1, -1]
        """Of both models: the step in which an episode began, its last one, the cell that was acted in last, the first one"""
        self.going_on: list[Crossing] = []
        """For playbooks, since somebody looked: what goes on, and everything that a flood has in common, countries too"""
        self.last_score = 0.0
        self.last_z: F64 = np.zeros(2 * FEATURES)

    def _calibration(self, share: float) -> Calibration:
        section = self._section
        return Calibration(
            CalibrationConfig(share * section.notify_per_day, share * min(section.act_per_day, section.notify_per_day),
                              section.start_score)
        )  # fmt: skip

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
                more += self._decide_day(scored, tick)
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
        begins = self._last[which] < self.step - EPISODE_STEPS * (6 if which else 1)
        self._last[which] = self.step
        cell = tick // self._renew_s
        if begins:
            self._since[which] = self.step
            self._acts_since[which] = -1
        acts = score >= limits.act and self._acted[which] != cell
        cohorts = self._cohorts(scored) if which == 0 else []
        told = [self._notice(which, model, scored, tick, cohorts)]
        self.going_on += [replace(told[0], goes_on=True), *self._named_for_playbooks(scored, tick, cohorts)]
        if not begins and not acts:
            return suspicious, []
        if acts:
            self._acted[which] = cell
            if self._acts_since[which] < 0:
                self._acts_since[which] = cell
            told += self._actions(which, scored, tick, cohorts, again=cell > self._acts_since[which])
        return suspicious, told if begins else told[1:]

    def _decide_day(self, scored: Scored, tick: int) -> list[Crossing]:
        """At the end of an hour: what is told of the last 24 hours' share of unused accounts."""
        self.days.end_hour()
        day = self.days.judge(tick)
        self._share_out(day)
        if day is None or day.score < self._day_limit:
            return []
        z = np.zeros(2 * FEATURES)
        z[FEATURES + 1 + Mark.UNUSED] = day.score
        if self.verdicts.mutes(z, day.score):
            return []
        begins = self._day_last < self.step - 6 * EPISODE_STEPS
        self._day_last = self.step
        if self._last[1] == self.step:
            return []  # the slow model tells of this step already
        notice = self._notice(1, self.slow, scored, tick, [], day)
        self.going_on.append(replace(notice, goes_on=True))
        if not begins:
            return []
        self.last_score, self.last_z = day.score, z
        return [notice]

    def _share_out(self, day: Day | None) -> None:
        """What the slow model may tell of, from its next limits on."""
        self.limits[1].config = self._calibration(slow_share(day is not None)).config

    @property
    def _day_limit(self) -> float:
        return day_limit(DAY_SHARE * self._section.notify_per_day)

    def _cohorts(self, scored: Scored) -> list[Cohort]:
        """What the last ten minutes have more than usual."""
        rows = [one for one in self.recent if len(one.step)]
        if not rows or not self.usual.is_known:
            return []
        together = joined(rows)
        made = together.take(~together.failed)
        expected = min(float(made.weight.sum()), float(scored.expected[0, -1]))
        found = []
        for attribute in Attribute:
            words, which = np.unique(made.words[:, attribute], return_inverse=True)
            observed = np.bincount(which, made.weight, len(words))
            shares = self.usual.of[attribute].shares(words)
            usual = shares * expected
            least = np.maximum(COHORT_LEAST, COHORT_Z * np.sqrt(usual + 0.5))
            lifted = observed >= LIFT_MIN * shares * float(made.weight.sum())
            stands_out = (observed - usual >= least) & lifted & (words != 0)
            throw_away = np.bincount(which, made.disposable, len(words)) > 0
            if attribute == Attribute.DOMAIN and float(scored.z[0, -1, 1 + Mark.DISPOSABLE]) >= MARK_Z:
                stands_out |= throw_away & (observed >= 2)
            for at in np.flatnonzero(stands_out).tolist():
                disposable = attribute == Attribute.DOMAIN and bool(throw_away[at])
                found.append(
                    Cohort(attribute, int(words[at]), float(observed[at]), float(usual[at]), float(shares[at]), disposable)
                )
        return sorted(found, key=lambda one: (-one.surplus, one.attribute, one.word))[:COHORTS_MAX]

    def _notice(
        self, which: int, model: FloodModel, scored: Scored, tick: int, cohorts: list[Cohort], day: Day | None = None
    ) -> Crossing:  # fmt: skip
        """For people, about the service; ``day``: if that is what stands out, and not what was scored."""
        window = scored.window if day is None else len(model.config.windows) - 1
        observed, expected = float(scored.observed[0, window, 0]), float(scored.expected[0, window])
        window_s = model.config.step_s * model.config.windows[window]
        z = scored.z[0, window]
        high = [at for at in np.argsort(-z, kind="stable").tolist() if z[at] >= MARK_Z]
        marks = ", ".join(MARK_WORDS[NAMES[at]] for at in high[:TOLD_MAX]) or "a little more of everything"
        marks = marks if day is None else day.said
        named = [self._named(one) for one in cohorts[:TOLD_MAX]]
        reason = (
            f"{round(observed):,} registrations on service {self._service_text} in {_span_text(window_s)}, where about "
            f"{round(expected):,} are usual; what stands out: {marks}" + (f"; {', '.join(named)}" if named else "")
        )
        rule = self._rule(Dimension.SERVICE, "notify", window_s, expected, dry_run=False)
        limits = self.limits[which]
        score, limit = (float(scored.score[0]), limits.notify) if day is None else (day.score, self._day_limit)
        per_day = limits.per_day(score) if day is None else day.per_day
        features: list[tuple[str, int | float | str]] = [
            ("score", round(score, 2)), ("notify_limit", round(limit, 2)), ("cold", int(limits.cold)),
            ("model_version", DETECTOR.version),
        ]  # fmt: skip
        features += [(f"z {name}", round(one, 2)) for name, one in zip(NAMES, z.tolist(), strict=True)]
        if day is not None:
            features += [("day_unused", round(day.share, 4)), ("day_unused_usual", round(day.usual, 4))]
        if per_day is not None:
            features.append(("per_day", round(per_day, 5)))
        if frozen_s := self._frozen_s():
            features.append(("frozen_s", frozen_s))
        return Crossing(
            0, Dimension.SERVICE, *unsigned(self.key), self.service, rule, tick, round(observed), round(observed), 0, False,
            reason, tuple(features),
        )  # fmt: skip

    def _actions(self, which: int, scored: Scored, tick: int, cohorts: list[Cohort], *, again: bool) -> list[Crossing]:
        """What may be done: of those cohorts that cost usual registrations the least, within the collateral."""
        budget, found = self._section.collateral_max, []
        for one in cohorts:
            restricts = one.attribute == Attribute.NETWORK or one.disposable
            if not restricts and one.attribute != Attribute.AGENT:
                continue
            if one.collateral > budget:
                continue
            text = self.text_of(one.word) if one.attribute in (Attribute.DOMAIN, Attribute.AGENT) else b""
            if text is None:
                continue
            budget -= one.collateral
            action: Action = "restrict_registration" if restricts and again else "challenge"
            rule = self._rule(TARGET_OF[one.attribute], action, 600, one.usual, dry_run=self._section.dry_run)
            reason = f"{self._named(one)} in a flood of registrations on service {self._service_text}"
            features = (
                ("service", self._service_text), ("score", round(float(scored.score[0]), 2)),
                ("act_limit", round(self.limits[which].act, 2)),
                ("collateral", round(one.collateral, 5)), ("model_version", DETECTOR.version),
            )  # fmt: skip
            key = _key_of(one)
            observed = round(one.observed)
            spans = (span_of(one.word),) if one.attribute == Attribute.NETWORK else ()
            found.append(
                Crossing(
                    0, TARGET_OF[one.attribute], *key, text, rule, tick, observed, observed, 0, False, reason, features, spans
                )
            )
        return found

    def _named_for_playbooks(self, scored: Scored, tick: int, cohorts: list[Cohort]) -> list[Crossing]:
        """What a flood has in common: nobody acts on most of it but an operator's playbook."""
        found = []
        for one in cohorts:
            dimension = NAMED.get(one.attribute)
            text = b"" if one.attribute in (Attribute.NETWORK, Attribute.ASN) else self.text_of(one.word)
            if dimension is None or text is None or self._is_customer(one.attribute, text):
                continue
            rule = self._rule(dimension, "notify", 600, one.usual, dry_run=True)
            reason = f"{self._named(one)} in a flood of registrations on service {self._service_text}"
            features = ("service", self._service_text), ("collateral", round(one.collateral, 5))
            observed = round(one.observed)
            spans = (span_of(one.word),) if one.attribute == Attribute.NETWORK else ()
            found.append(
                Crossing(
                    0, dimension, *_key_of(one), text, rule, tick, observed, observed, 0, False, reason, features, spans,
                    goes_on=True,
                )
            )  # fmt: skip
        return found

    def _is_customer(self, attribute: Attribute, text: bytes) -> bool:
        """Whether a mail domain is one of those that only an operator's own list may name."""
        domains = self._section.customer_domains
        return attribute == Attribute.DOMAIN and text.decode("utf-8", "backslashreplace").lower() in map(str.lower, domains)

    def _rule(self, dimension: Dimension, action: Action, window_s: int, expected: float, *, dry_run: bool) -> WindowRule:
        section = self._section
        return WindowRule(
            DETECTOR, section, dry_run, dimension, Measure.REGISTRATIONS, window_s, round(expected), action, section.severity,
            section.confidence, ttl_s=section.restrict_ttl_s if action == "restrict_registration" else None,
            alone=True,
        )  # fmt: skip

    def _named(self, one: Cohort) -> str:
        text = self.text_of(one.word)
        if one.attribute == Attribute.NETWORK:
            value = prefix_text(one.word, wide=False)
        elif one.attribute == Attribute.ASN:
            value = str(one.word)
        else:
            value = "?" if text is None else text.decode("utf-8", "backslashreplace")[:80]
        what = "disposable mail domain" if one.disposable else NOUNS[one.attribute]
        return f"{round(one.observed):,} with {what} {value}, where {one.usual:.1f} are usual"

    @property
    def _service_text(self) -> str:
        return self.service.decode("utf-8", "backslashreplace")

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
            "service": self._service_text, "cold": self.is_cold, "days": round(self.limits[0].days, 2),
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
            "usual": self.usual.save(), "uses": self.uses.save(), "days": [self._day_last, *self.days.save()],
            "verdicts": self.verdicts.save(), "recent": [rows.columns() for rows in self.recent],
            "hour": joined(self._hour).columns() if self._hour else [], "slow_sums": self._slow_sums.copy(),
            "episodes": [list(some) for some in (self._since, self._last, self._acted, self._acts_since)],
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
        self._day_last, *days = data["days"]
        self.days.load(days)
        self._share_out(self.days.judge(0))
        self.verdicts.load(data["verdicts"])
        self.recent = deque((Rows(*columns) for columns in data["recent"]), maxlen=WINDOW_STEPS)
        self._hour = [Rows(*data["hour"])] if data["hour"] else []
        self._slow_sums = data["slow_sums"].copy()
        self._since, self._last, self._acted, self._acts_since = (list(some) for some in data["episodes"])
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


def add_day(days: UnusedDays, sums: F64, *, learned: bool) -> None:
    """Add accounts that became an hour old in a step of the slow model to their hour."""
    days.add(float(sums[0, Base.AGED_HOUR]), float(sums[0, BASES + Mark.UNUSED]), learned=learned)


def _key_of(one: Cohort) -> tuple[int, int]:
    """The key of a target: of a network as rows have it, of a number itself, else of the word."""
    if one.attribute == Attribute.NETWORK:
        word = one.word & (1 << 64) - 1
        return (0, word) if word < 1 << 48 else (word, 0)
    return one.word & (1 << 64) - 1, 0


def _span_text(window_s: int) -> str:
    if window_s <= 120:
        return f"{window_s} seconds"
    return f"{window_s // 60} minutes" if window_s <= 3600 else f"{window_s // 3600} hours"


_EMPTY = np.zeros(0, np.int64)
_NOBODY = Rows(
    _EMPTY, _EMPTY.astype(np.float64), np.zeros((0, len(Attribute)), np.int64), _EMPTY.astype(np.float64),
    _EMPTY.astype(np.float64), _EMPTY.astype(np.bool_), _EMPTY.astype(np.bool_), _EMPTY.astype(np.bool_),
)  # fmt: skip
