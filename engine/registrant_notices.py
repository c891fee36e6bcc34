"""What is told of a flood of registrations, and what may be done about it: notices, and targets for edges and playbooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from detectors.learning.calibration import Calibration
from detectors.learning.days import Day
from detectors.learning.floods import NAMES, FloodModel, Mark, Scored
from detectors.learning.marks import Attribute, Rows, Usual, joined
from detectors.registrations import DETECTOR, RegistrationsSection
from detectors.surplus import span_of
from detectors.windowed import WindowRule
from engine.crossing import Crossing, unsigned
from engine.naming import prefix_text
from schemas.config import Action
from schemas.fields import Dimension, Measure

TextOf = Callable[[int], bytes | None]
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


@dataclass(frozen=True, slots=True)
class LookedAt:
    """The last 24 hours, and the score from which on people are told of them."""

    day: Day
    limit: float


class Notices:
    """For one service.

    Args:
        key: the words of its key.
        service: its name.
        text_of: what a word stands for; None: not known any more.
    """

    def __init__(self, key: tuple[int, int], service: bytes, section: RegistrationsSection, text_of: TextOf) -> None:
        self.key, self.service, self._section, self._text_of = key, service, section, text_of

    @property
    def service_text(self) -> str:
        """For people."""
        return self.service.decode("utf-8", "backslashreplace")

    def cohorts(self, recent: Sequence[Rows], usual_of: Usual, scored: Scored) -> list[Cohort]:
        """What the last ten minutes have more than usual."""
        rows = [one for one in recent if len(one.step)]
        if not rows or not usual_of.is_known:
            return []
        together = joined(rows)
        made = together.take(~together.failed)
        expected = min(float(made.weight.sum()), float(scored.expected[0, -1]))
        found = []
        for attribute in Attribute:
            words, which = np.unique(made.words[:, attribute], return_inverse=True)
            observed = np.bincount(which, made.weight, len(words))
            shares = usual_of.of[attribute].shares(words)
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

    def notice(
        self, model: FloodModel, scored: Scored, tick: int, cohorts: list[Cohort], limits: Calibration, frozen_s: int,
        day: LookedAt | None = None,
    ) -> Crossing:  # fmt: skip
        """For people, about the service; ``day``: if that is what stands out, and not what was scored."""
        window = scored.window if day is None else len(model.config.windows) - 1
        observed, expected = float(scored.observed[0, window, 0]), float(scored.expected[0, window])
        window_s = model.config.step_s * model.config.windows[window]
        z = scored.z[0, window]
        high = [at for at in np.argsort(-z, kind="stable").tolist() if z[at] >= MARK_Z]
        marks = ", ".join(MARK_WORDS[NAMES[at]] for at in high[:TOLD_MAX]) or "a little more of everything"
        marks = marks if day is None else day.day.said
        named = [self._named(one) for one in cohorts[:TOLD_MAX]]
        reason = (
            f"{round(observed):,} registrations on service {self.service_text} in {_span_text(window_s)}, where about "
            f"{round(expected):,} are usual; what stands out: {marks}" + (f"; {', '.join(named)}" if named else "")
        )
        rule = self._rule(Dimension.SERVICE, "notify", window_s, expected, dry_run=False)
        score, limit = (float(scored.score[0]), limits.notify) if day is None else (day.day.score, day.limit)
        per_day = limits.per_day(score) if day is None else day.day.per_day
        features: list[tuple[str, int | float | str]] = [
            ("score", round(score, 2)), ("notify_limit", round(limit, 2)), ("cold", int(limits.cold)),
            ("model_version", DETECTOR.version),
        ]  # fmt: skip
        features += [(f"z {name}", round(one, 2)) for name, one in zip(NAMES, z.tolist(), strict=True)]
        features += [] if day is None else day.day.features
        if per_day is not None:
            features.append(("per_day", round(per_day, 5)))
        if frozen_s:
            features.append(("frozen_s", frozen_s))
        return Crossing(
            0, Dimension.SERVICE, *unsigned(self.key), self.service, rule, tick, round(observed), round(observed), 0, False,
            reason, tuple(features),
        )  # fmt: skip

    def actions(self, limits: Calibration, scored: Scored, tick: int, cohorts: list[Cohort], *, again: bool) -> list[Crossing]:
        """What may be done: of those cohorts that cost usual registrations the least, within the collateral."""
        budget, found = self._section.collateral_max, []
        for one in cohorts:
            restricts = one.attribute == Attribute.NETWORK or one.disposable
            if not restricts and one.attribute != Attribute.AGENT:
                continue
            if one.collateral > budget:
                continue
            text = self._text_of(one.word) if one.attribute in (Attribute.DOMAIN, Attribute.AGENT) else b""
            if text is None:
                continue
            budget -= one.collateral
            action: Action = "restrict_registration" if restricts and again else "challenge"
            rule = self._rule(TARGET_OF[one.attribute], action, 600, one.usual, dry_run=self._section.dry_run)
            reason = f"{self._named(one)} in a flood of registrations on service {self.service_text}"
            features = (
                ("service", self.service_text), ("score", round(float(scored.score[0]), 2)),
                ("act_limit", round(limits.act, 2)),
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

    def for_playbooks(self, scored: Scored, tick: int, cohorts: list[Cohort]) -> list[Crossing]:
        """What a flood has in common: nobody acts on most of it but an operator's playbook."""
        found = []
        for one in cohorts:
            dimension = NAMED.get(one.attribute)
            text = b"" if one.attribute in (Attribute.NETWORK, Attribute.ASN) else self._text_of(one.word)
            if dimension is None or text is None or self._is_customer(one.attribute, text):
                continue
            rule = self._rule(dimension, "notify", 600, one.usual, dry_run=True)
            reason = f"{self._named(one)} in a flood of registrations on service {self.service_text}"
            features = ("service", self.service_text), ("collateral", round(one.collateral, 5))
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
        text = self._text_of(one.word)
        if one.attribute == Attribute.NETWORK:
            value = prefix_text(one.word, wide=False)
        elif one.attribute == Attribute.ASN:
            value = str(one.word)
        else:
            value = "?" if text is None else text.decode("utf-8", "backslashreplace")[:80]
        what = "disposable mail domain" if one.disposable else NOUNS[one.attribute]
        return f"{round(one.observed):,} with {what} {value}, where {one.usual:.1f} are usual"


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
