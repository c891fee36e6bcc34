"""``surge``: a series of counts does what it has not done before: of the whole service, or of one busy route.

How it decides: it learns what the series does at this time of the day and of the week and how far it strays from that, and
turns each closed step into a *score*: roughly, the number of noughts in the chance of a step like this one. Five views give
a chance each: the error of the best forecast; the drift from the settled level; both once more smoothed, which finds what is
small and steady; and the drift's CUSUM. The score is the mean of their -log10: the geometric mean of chances is a chance but
for a factor e, however they hang together (Vovk and Wang). Chances are shares of this series' own past on that side, surges
and drops apart, continued as a power law past its largest; no distribution is assumed and no unit matters. A step is an
alarm when its score reaches ``alarm_at``: an episode is told once, and again only when it becomes ten times rarer.

Where it fails: a slow rise is normal to it (to the double within four hours it finds less than half the time, within a day
hardly ever), and so is what comes every day at the same time. What lasts is learned, though slowly, and its end may be told
as a drop. A surge hides in a series that surges by itself: where the rate wanders by 20 %, a doubling is not found and five
times as much is. In its first two days it knows the recent level only, and the week from the third week on: a first weekend,
a holiday, a launch may be told. A step that nobody reports is not seen, so silence must be reported as nought. In steps much
shorter than a minute, bursts of machines look like surges. Days are those of UTC. It says when and how much, not who:
signatures and counts per key say that.

Costs: 2 to 3 µs per step and series, no allocation; `memory_bytes` of state (35 kB), whatever the series does.

Confidence: none of its own; the score is the evidence. At the default alarm, 216 simulated honest weeks of six kinds of
series had none (docs/benchmarks.md). Can its evidence be forged? Whoever sends requests raises a count, and whoever
does so a little more each day teaches it: it notifies, and stops nobody.

Key: whatever the caller counts, a series for each: services (`engine/service.py`), busy routes (`engine/busy.py`).
Quiet time: ``quiet_steps``.

Parameters: `SurgeConfig`.

>>> import numpy as np
>>> random = np.random.default_rng(7)
>>> minutes = np.arange(3 * 7 * 1440)
>>> counts = random.poisson(600 + 400 * np.sin(minutes / 1440 * 2 * np.pi)).astype(np.float64)
>>> counts[-10:] += 300
>>> outcome = Surge(SurgeConfig()).observe(1_700_000_000 + 60 * minutes, counts)
>>> [int(minute) for minute in np.flatnonzero(outcome.alarm)]
[30230]
>>> describe(counts[-10], outcome.expected[-10], outcome.score[-10], 60, "requests to the service")
'894 requests to the service in 60 seconds, where about 594 were expected (1 step in 10^4.9 is so far off)'

References: Siffer et al., Anomaly Detection in Streams with Extreme Value Theory (KDD 2017); Hill, A Simple General Approach
to Inference about the Tail of a Distribution (1975); Page, Continuous Inspection Schemes (1954); Vovk and Wang, Combining
p-values via averaging (2020); Ahmad et al., Unsupervised real-time anomaly detection for streaming data (2017).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.kernels.surging import (
    ALARM_STEP,
    BASES,
    BINS,
    DAY_S,
    DRIFT_SMOOTH,
    ERROR_SMOOTH,
    INCREMENT,
    LATEST,
    O_ALARM,
    O_EXPECTED,
    O_FRESH,
    O_SCORE,
    O_SIDE,
    OUTCOMES,
    PEAK_STEP,
    SCALARS,
    SLOT,
    SLOT_WORDS,
    SPEEDS,
    STEPS,
    VIEWS,
    SurgePlan,
    SurgeState,
    surge_kernel,
)
from detectors.windowed import NOUNS, Detector, DetectorSection, Profile, WindowRule, seconds_of, whom_of
from schemas.config import MeasureName
from schemas.errors import ConfigError, StateError
from schemas.fields import Measure

NAME = "surge"
VERSION = 1

F64Array = npt.NDArray[np.float64]
I64Array = npt.NDArray[np.int64]

SLOT_S_MIN = 300
DELAY_STEPS_MAX = 1_440
NEVER = -(2.0**53)


@dataclass(frozen=True, slots=True)
class SurgeConfig:
    """The ``surge`` detector. A step is what the caller closes: a minute, say."""

    alarm_at: float = 4.0
    """A score from here on is worth telling people. One more is ten times rarer."""
    quiet_steps: int = 120
    """An episode is over when no step of it reached the alarm for so many. Until then it is told again only if it becomes worse
    by a score of one."""
    warmup_steps: int = 120
    """So many steps are learned from before any is judged."""
    slot_s: int = 900
    """Times of day and of week are told apart to so many seconds; it divides a day."""
    change_min: float = 0.01
    """Less than this share of the level is never odd, however steady the series."""
    speed_fast: float = 0.6
    """The share of its error by which the fastest forecast follows at each step."""
    speed_middle: float = 0.1
    """The same of the middle one."""
    speed_slow: float = 0.005
    """The same of the slowest, whose error is the drift: half of a lasting change is normal after 140 steps. Its record of 500
    steps bounds how slow it can be."""
    smoothing_error: float = 0.3
    """A smoothed error is of the last three steps or so."""
    smoothing_drift: float = 0.1
    """A smoothed drift is of the last ten steps or so."""
    sharpness: float = 3.0
    """How much better forecasts outweigh worse ones: weights are the inverse errors to this power."""
    memory_steps: float = 4000.0
    """What is rare is judged by a past that counts half after so many steps."""
    tail_rows: float = 10.0
    """Chances below so many rows of the past are extrapolated."""
    tail_index: float = 0.2
    """The tail's index before there are rows to learn it from; 0.5 would be a tail without a variance."""
    tail_index_rows: float = 3.0
    """What that prior weighs, in rows."""
    delay_steps: int = 20
    """A step becomes part of the past that others are judged by only after so many more."""
    suspect: float = 3.5
    """From this score on, a step hardly becomes part of the past that others are judged by."""
    suspect_weight: float = 0.02
    """What such a step weighs in the past: half an hour at several times the rate is told four times in a day."""

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "alarm_at": (0.0, 300.0), "quiet_steps": (1, 1 << 30), "warmup_steps": (1, 1 << 30),
            "slot_s": (SLOT_S_MIN, DAY_S), "change_min": (0.0, 1.0), "speed_fast": (0.0, 1.0), "speed_middle": (0.0, 1.0),
            "speed_slow": (0.002, 1.0), "smoothing_error": (0.0, 1.0), "smoothing_drift": (0.0, 1.0),
            "sharpness": (0.0, 16.0), "memory_steps": (10.0, 1e9), "tail_rows": (1.0, 1e6), "tail_index": (0.01, 2.0),
            "tail_index_rows": (0.1, 1e6), "delay_steps": (1, DELAY_STEPS_MAX), "suspect": (0.0, 300.0),
            "suspect_weight": (0.0, 1.0),
        }  # fmt: skip
        for field in fields(self):
            low, high = bounds[field.name]
            value = getattr(self, field.name)
            if not low <= value <= high:
                raise ConfigError(f"expected {low} to {high}, got {value} in detectors.surge.{field.name}")
        if DAY_S % self.slot_s:
            raise ConfigError(f"expected a divisor of {DAY_S}, got {self.slot_s} in detectors.surge.slot_s")


class Outcome(NamedTuple):
    """What became of each step, in the order given."""

    score: F64Array  # f64[n]: how improbable, as -log10 of a chance
    fresh: F64Array  # f64[n]: the score where it is the highest of the quiet time, else 0
    alarm: npt.NDArray[np.bool_]  # bool[n]: it begins an episode, or makes it worse
    expected: F64Array  # f64[n]: the settled level for this time of the week, in the series' unit
    side: F64Array  # f64[n]: 1: more than expected, -1: less, 0: nothing odd


def plan_surge(config: SurgeConfig) -> SurgePlan:
    """Lay a configuration out for the kernel."""
    smoothing = np.zeros(VIEWS)
    smoothing[ERROR_SMOOTH], smoothing[DRIFT_SMOOTH] = config.smoothing_error, config.smoothing_drift
    return SurgePlan(
        slot_s=config.slot_s,
        alarm_at=float(config.alarm_at),
        warmup_steps=config.warmup_steps,
        quiet_steps=config.quiet_steps,
        speeds=np.array([config.speed_fast, config.speed_middle, config.speed_slow]),
        smoothing=smoothing,
        change_min=config.change_min / 2.0,
        sharpness=float(config.sharpness),
        growth=2.0 ** (1.0 / config.memory_steps),
        tail_rows=float(config.tail_rows),
        tail_index=float(config.tail_index),
        tail_index_rows=float(config.tail_index_rows),
        suspect=float(config.suspect),
        suspect_weight=float(config.suspect_weight),
    )


def new_state(config: SurgeConfig, series: int) -> SurgeState:
    """What so many series start from."""
    slots = 8 * (DAY_S // config.slot_s)
    state = SurgeState(
        profile=np.zeros((series, slots)),
        visits=np.zeros((series, slots)),
        slots=np.zeros((series, 2, SLOT_WORDS)),
        levels=np.zeros((series, BASES, SPEEDS)),
        records=np.zeros((series, BASES, SPEEDS)),
        record_steps=np.zeros((series, BASES)),
        views=np.zeros((series, VIEWS)),
        tails=np.zeros((series, VIEWS, 2, BINS)),
        waiting=np.zeros((series, config.delay_steps, VIEWS + 1)),
        scalars=np.zeros((series, SCALARS)),
    )
    state.slots[:, :, SLOT] = -1.0
    state.scalars[:, INCREMENT] = 1.0
    state.scalars[:, [PEAK_STEP, ALARM_STEP, LATEST]] = NEVER
    return state


class Surge:
    """Series that are judged together, for a call costs as much as several steps. How steps are cut into calls changes nothing.

    Args:
        config: of all of them.
        series: how many there are.
    """

    def __init__(self, config: SurgeConfig, series: int = 1) -> None:
        self.config = config
        self._state = new_state(config, series)
        self._parts = tuple(self._state), tuple(plan_surge(config))

    @property
    def memory_bytes(self) -> int:
        """What the state takes; it never grows."""
        return sum(array.nbytes for array in self._state)

    def steps(self, series: int = 0) -> int:
        """How many of one series were observed."""
        return int(self._state.scalars[series, STEPS])

    def forget(self, series: int) -> None:
        """One series knows nothing any more."""
        for array, blank in zip(self._state, new_state(self.config, 1), strict=True):
            array[series] = blank[0]

    def observe(self, times_s: I64Array, values: F64Array, series: I64Array | None = None) -> Outcome:
        """Judge closed steps in the order of their times, then learn from them.

        Args:
            times_s: i64[n], Unix seconds of event time; none before the one ahead of it.
            values: f64[n], what was counted.
            series: i64[n], of which one each step is; those of one lie together. None: all are of the first.

        Raises:
            ValueError: times go back, a value is not finite, or the lengths differ; nothing was learned.
        """
        which = np.zeros(values.shape, np.int64) if series is None else series
        if not times_s.shape == values.shape == which.shape or values.ndim != 1:
            shapes = f"{times_s.shape}, {values.shape} and {which.shape}"
            raise ValueError(f"surge: expected as many times as values, and a series of each, got {shapes}")
        times_s, values = times_s.astype(np.int64, copy=False), values.astype(np.float64, copy=False)
        out = np.zeros((len(values), OUTCOMES))
        learned = surge_kernel(*self._parts, which, times_s, values, out)
        if learned < len(values):
            if not np.isfinite(values[learned]):
                raise ValueError(f"surge: expected finite values, got {values[learned]} at {times_s[learned]} s")
            raise ValueError(f"surge: expected times that do not go back, got {times_s[learned]} s after a later one")
        return Outcome(out[:, O_SCORE], out[:, O_FRESH], out[:, O_ALARM] > 0.0, out[:, O_EXPECTED], out[:, O_SIDE])

    def snapshot(self, series: int = 0) -> dict[str, Any]:
        """Everything that the next step of a series depends on, as numbers, strings, lists and dictionaries."""
        arrays = {name: array[series].tolist() for name, array in self._state._asdict().items()}
        return {"detector": NAME, "version": VERSION, "config": asdict(self.config), "state": arrays}

    def restore(self, snapshot: dict[str, Any], series: int = 0) -> None:
        """Go on from a snapshot of a series.

        Raises:
            StateError: it is of another detector, version or configuration, or damaged; nothing of it was taken.
        """
        expected = {"detector": NAME, "version": VERSION, "config": asdict(self.config)}
        for name, value in expected.items():
            if snapshot.get(name) != value:
                raise StateError(f"surge: expected a snapshot with {name} {value}, got {snapshot.get(name)}")
        restored = []
        for name, arrays in self._state._asdict().items():
            array = arrays[series]
            try:
                values = np.array(snapshot["state"][name], np.float64)
            except (KeyError, TypeError, ValueError):
                raise StateError(f"surge: expected numbers of shape {array.shape} in a snapshot's {name}, got none") from None
            if values.shape != array.shape:
                raise StateError(f"surge: expected shape {array.shape} of a snapshot's {name}, got {values.shape}")
            restored.append((array, values))
        for array, values in restored:
            array[...] = values


def describe(observed: float, expected: float, score: float, step_s: int, what: str) -> str:
    """The one sentence that says what was observed, in how long, and what was expected."""
    return (
        f"{observed:,.0f} {what} in {step_s} seconds, where about {expected:,.0f} were expected "
        f"(1 step in 10^{score:.1f} is so far off)"
    )


class SurgeSection(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``surge`` detector. It looks at each service as a whole and at busy routes, once a minute, and notifies."""

    measures: tuple[MeasureName, ...] = ("requests", "registrations", "auth_failures")
    """A series for each, and each service."""
    alarm_at: Annotated[float, msgspec.Meta(ge=1, le=300)] = 4.0
    """A score from here on is told: roughly, the number of noughts in the chance of such a minute. One more is ten times
    rarer."""
    least: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] = 30
    """Fewer events a minute more or less than usual are not worth telling, however rare: one failed login where there never was
    one."""
    route_least: Annotated[int, msgspec.Meta(ge=60, le=1_000_000_000)] = 600
    """A route is busy that was asked for so often in a minute. The requests of the two busiest of each judge partition are
    looked at too, as long as some rule counts by route."""
    route_warmup_minutes: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1440
    """A route is known for so long before more requests than usual are told of it: a day has most of its batch jobs …"""
    route_growth: Annotated[float, msgspec.Meta(ge=1, le=1000)] = 1.5
    """… and then only a minute with so many times the requests of its largest one in about a week."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 5
    """10 is the worst."""


def _no_rules(section: SurgeSection, profile: Profile) -> list[WindowRule]:
    """It compares with what it has learned (`engine.service`), and not in the windows."""
    return []


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    assert isinstance(rule.value, Measure)
    where = f"{NOUNS[rule.value]} in {seconds_of(rule)} {whom_of(rule, target)}"
    return f"{observed:,} {where}, where about {rule.limit:,} are usual at this time"


DETECTOR = Detector(NAME, VERSION, SurgeSection, _no_rules, _describe)
