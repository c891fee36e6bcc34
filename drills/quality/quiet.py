"""Quiet weeks with every honest storm in them: whoever is stopped is wronged, and every alarm is a false one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from drills.attacks.strengths import DAY_S, HOUR_S
from drills.columns import I64
from drills.quality.scenes import BEGIN_S, BUSY_HOURS, BUSY_PER_SECOND, BUSY_S, QUIET_PER_SECOND, QUIET_SEEDS
from drills.quality.stage import BLOCK_S, STREAM
from drills.quality.systems import ours
from drills.render import lines
from drills.run import START_S, Drill, Plan
from drills.scoring.decide import Decider
from drills.scoring.score import SOURCES
from drills.service.newcomers import FIRST as NEWCOMERS
from engine.in_force import is_enforced
from schemas.mitigation import Mitigation

ALARM_GAP_S = 600
"""What comes again within so many seconds is the same alarm."""
WIDE = ("service", "route", "asn", "country", "user_agent", "fingerprint", "signature")
"""Types of targets that are about the service as a whole."""
LEARNED = ("registrations", "keys")
"""What these tell has a rate of its own, in a judge partition: `notify` at one a day."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Once that somebody was told, or stopped."""

    detector: str
    type: str
    value: str
    action: str
    reason: str
    enforced: bool
    since_s: int


@dataclass(slots=True)
class Quiet:
    """What came of honest traffic alone."""

    days: float = 0.0
    events: int = 0
    source_days: float = 0.0
    alarms: list[Alarm] = field(default_factory=list)

    @property
    def wronged(self) -> list[Alarm]:
        """Each time that an honest source was stopped."""
        return [alarm for alarm in self.alarms if alarm.enforced and alarm.type in SOURCES]

    @property
    def told(self) -> Counter[str]:
        """Detector and type of target -> alarms"""
        return Counter(f"{alarm.detector} {alarm.type}" for alarm in self.alarms)

    @property
    def service_alerts(self) -> int:
        """About the service as a whole, a route or a network, by what does not learn who is who."""
        return sum(alarm.type in WIDE and alarm.detector not in LEARNED for alarm in self.alarms)

    @property
    def learned(self) -> int:
        """Notices of the learned detectors."""
        return sum(alarm.detector in LEARNED for alarm in self.alarms)

    def add(self, other: Quiet) -> None:
        """Together."""
        self.days += other.days
        self.events += other.events
        self.source_days += other.source_days
        self.alarms += other.alarms


def alarms_of(mitigations: Sequence[Mitigation]) -> list[Alarm]:
    """Each time that a detector has begun to say something about a target, from final records."""
    last: dict[tuple[str, str, str, bool], int] = {}
    found = []
    for record in sorted((one for one in mitigations if one.stage == "final"), key=lambda one: one.tick):
        enforced = is_enforced(record)
        key = record.detector, record.target.type, record.target.value, enforced
        if record.tick - last.get(key, -ALARM_GAP_S - 1) > ALARM_GAP_S:
            found.append(Alarm(*key[:3], record.action, record.reason, enforced, record.tick))
        last[key] = max(record.tick, record.expires_at)
    return found


def quiet(plan: Plan) -> Quiet:
    """Honest traffic through our defaults, in bounded memory."""
    drill = Drill(plan)
    decider = Decider(ours(), early=False)
    actors = drill.world.actors
    names: list[I64] = [_numbered(column) for column in (actors.address, actors.key, actors.account)]
    found = Quiet(days=plan.span_s / DAY_S)
    day, seen, new = -1, np.zeros(len(actors), np.bool_), [np.zeros(0, np.int64)]

    def close_day() -> None:
        share = min(1.0, plan.span_s / DAY_S)
        for numbers in names:
            present = np.unique(numbers[seen])
            found.source_days += share * int((present >= 0).sum())
        found.source_days += share * len(np.unique(actors.newcomers.addresses_of(np.unique(np.concatenate(new)))))
        seen[:], new[:] = False, [np.zeros(0, np.int64)]

    for events in drill.blocks(BLOCK_S):
        if not len(events):
            continue
        today = int(events["time_ms"][0]) // (1000 * DAY_S)
        if day not in (-1, today):
            close_day()
        day = today
        seen[events["actor"][events["actor"] < NEWCOMERS]] = True
        new.append(np.unique(events["actor"][events["actor"] >= NEWCOMERS]).astype(np.int64))
        found.events += len(events)
        decider.take(b"".join(lines(events, actors, STREAM)))
    close_day()
    found.alarms = alarms_of(decider.finish().mitigations)
    return found


def _numbered(names: list[str]) -> I64:
    """i64[n]: a number for each distinct name; -1 for none."""
    known: dict[str, int] = {"": -1}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)


def quiet_weeks(days: int) -> list[Plan]:
    """So many days, each week under a seed of its own, storms at their hours."""
    plans = []
    for week, seed in zip(range(-(-days // 7)), QUIET_SEEDS * 99, strict=False):
        span_s = min(7, days - 7 * week) * DAY_S
        plans.append(Plan(seed=seed, start_s=START_S, span_s=span_s, events_per_second=QUIET_PER_SECOND))
    return plans


def busy_hours() -> list[Plan]:
    """Hours of full traffic, each with every storm in it."""
    start_s = BEGIN_S - BEGIN_S % HOUR_S
    return [
        Plan(seed=seed, start_s=start_s, span_s=BUSY_S, events_per_second=BUSY_PER_SECOND, storms="all")
        for seed in QUIET_SEEDS[:BUSY_HOURS]
    ]
