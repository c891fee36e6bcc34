"""What one series is expected to do at its next step, and how improbable is what came instead.

Values are taken as their roots: counts vary as the root of their level, so errors by night and by day become comparable.
Nine forecasts compete: three baselines (none, time of day, time of week), each corrected by its own recent error at three
speeds; they are weighed by how well they did of late. What came is looked at in five *views*: the error of the forecast; the
drift, which is the error without the fast corrections; each smoothed; and the drift's cumulative sum (CUSUM).

How far a view is from nought is compared with how far it has been, above and below nought apart, in a histogram over its
logarithm that forgets. Past the largest that it knows, the tail is continued as a power law (Hill's estimator). A step is
learned only ``delay`` steps later, and hardly at all if it was suspect, so that an attack does not at once become normal.
"""

from __future__ import annotations

from math import isfinite, log, log2, log10, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled import entry, inlined, part

F64Array = npt.NDArray[np.float64]

DAY_S = 86_400
BASES, SPEEDS = 3, 3
DAY, WEEK = 1, 2
"""The baselines that are learned; the first is nought."""
SLOW = 2
"""The speed whose error is the drift."""
ERROR, ERROR_SMOOTH, DRIFT, DRIFT_SMOOTH, CUSUM, VIEWS = range(6)
"""From DRIFT on, the views are of the drift."""
BINS, BINS_PER_OCTAVE, BIN_OF_ONE = 256, 4, 128
"""Of a histogram of magnitudes: 2^-32 to 2^32, four bins to a doubling; what is outside falls into the first or the last."""
STEPS, INCREMENT, TOTAL, SPREAD, DRIFT_SPREAD, SPREAD_STEPS, RISE, FALL, FIRST, LATEST = range(10)
"""INCREMENT: what one count weighs now. TOTAL: the decayed number of steps in the histograms. The SPREADs: decayed sums over
SPREAD_STEPS. FIRST, LATEST: times."""
PEAK, PEAK_STEP, ALARM, ALARM_STEP, SCALARS = range(10, 15)
"""The highest score of late and its step; the score of the latest alarm, 0 when its episode is over, and the latest step that
reached one."""
SLOT, SLOT_SUM, SLOT_STEPS, SLOT_WORDS = range(4)
O_SCORE, O_FRESH, O_ALARM, O_EXPECTED, O_SIDE, OUTCOMES = range(6)
WORSE = 1.0
"""An episode is told again when its score is higher by this: ten times rarer."""
INCREMENT_MAX = 1e100
"""Instead of letting every bin decay, new counts grow; past this, all are scaled down."""
SPREAD_KEEP = 0.998
"""Per step, of spreads and of the forecasts' records: a memory of about 500 steps."""
VISITS_MIN = 2.0
"""A baseline of a slot takes part from its third visit on."""
VISIT_RATE_MIN = 0.15
"""A slot's baseline follows its last six or seven visits."""
CLIP_VISIT, CLIP_SPREAD, CLIP_RECORD, CLIP_LEVEL = 4.0, 6.0, 8.0, 6.0
"""No single error moves these by more than so many spreads."""
CLIP_STEPS = 50.0
"""Before so many steps the spread is not known well enough to clip by."""
CUSUM_SLACK, CUSUM_CLIP, CUSUM_MAX = 1.0, 4.0, 50.0
"""In spreads: a drift up to the slack adds nothing, a single step adds no more than the clip, and the sum ends at its most."""
WEIGHT_UNKNOWN = 1e-6
"""Of a forecast that has no record yet."""
ERROR_MIN = 1e-12
"""Added to errors before they are compared, so that a series without any can be forecast too."""


class SurgePlan(NamedTuple):
    """The configuration as the kernel takes it."""

    slot_s: int
    alarm_at: float
    warmup_steps: int
    quiet_steps: int
    speeds: F64Array  # f64[SPEEDS]: share of an error by which a level follows, per step
    smoothing: F64Array  # f64[VIEWS]: the same of the smoothed views; 0 for the others
    change_min: float  # share of a root, which is half of that of the value
    sharpness: float
    growth: float  # of the increment, per step
    tail_rows: float
    tail_index: float
    tail_index_rows: float
    suspect: float
    suspect_weight: float


class SurgeState(NamedTuple):
    """What a series needs to go on, or several with an axis for them in front. Everything is f64, so that a snapshot is lists
    of numbers."""

    profile: F64Array  # f64[week slots + day slots]: the learned baselines
    visits: F64Array  # f64[week slots + day slots]: how often each slot was visited
    slots: F64Array  # f64[2, SLOT_WORDS]: the slot of the week and of the day that is being visited
    levels: F64Array  # f64[BASES, SPEEDS]: recent error of each baseline
    records: F64Array  # f64[BASES, SPEEDS]: decayed sum of absolute errors of each forecast
    record_steps: F64Array  # f64[BASES]: decayed number of the steps in it
    views: F64Array  # f64[VIEWS]: the latest
    tails: F64Array  # f64[VIEWS, 2, BINS]: histograms of magnitudes above and below nought
    waiting: F64Array  # f64[delay, VIEWS + 1]: views that are not learned yet, and with what weight they will be
    scalars: F64Array  # f64[SCALARS]


@inlined
def clip_kernel(value: Any, limit: Any) -> Any:
    """The value, or the limit that it exceeds on either side."""
    return min(max(value, -limit), limit)


@inlined
def root_kernel(value: Any) -> Any:
    """The root of its magnitude, with its sign."""
    return sqrt(value) if value >= 0.0 else -sqrt(-value)


@inlined
def position_kernel(magnitude: Any) -> Any:
    """Where a magnitude lies in a histogram, in bins."""
    if magnitude <= 0.0:
        return 0.0
    return min(max(log2(magnitude) * BINS_PER_OCTAVE + BIN_OF_ONE, 0.0), BINS - 0.001)


@part
def surprise_kernel(counts: Any, increment: Any, total: Any, magnitude: Any, plan: Any) -> Any:
    """-log10 of the chance that this side (f64[BINS]) reaches at least this magnitude.

    The tail begins where ``tail_rows`` counts lie above: below, the chance is the share that was seen; from there on it
    falls as a power of the magnitude, with an index that starts from a prior.
    """
    if magnitude <= 0.0:
        return 0.0
    at = position_kernel(magnitude)
    above, moment, k = 0.0, 0.0, BINS - 1
    while k > 0 and above + counts[k] / increment < plan.tail_rows:
        above += counts[k] / increment
        moment += counts[k] / increment * (k + 0.5)
        k -= 1
    count = counts[k] / increment
    taken = min(count, plan.tail_rows - above)
    start = k + 1.0 - (taken / count if count > 0.0 else 0.0)
    if at < start:
        own = int(at)
        reached = counts[own] / increment * (own + 1 - at)
        for j in range(own + 1, BINS):
            reached += counts[j] / increment
        return max(0.0, -log10((reached + 0.5) / (total + 1.0)))
    above += taken
    moment += taken * (start + k + 1.0) / 2.0
    bin_width = log(2.0) / BINS_PER_OCTAVE
    index = ((moment - above * start) * bin_width + plan.tail_index * plan.tail_index_rows) / (above + plan.tail_index_rows)
    return max(0.0, -log10((above + 0.5) / (total + 1.0)) + (at - start) * bin_width / index / log(10.0))


@part
def visit_slots_kernel(state: Any, plan: Any, time_s: Any, spread: Any) -> Any:
    """Move on to the slots of this time; a slot that is left teaches its baseline the mean of the visit."""
    day_slots = DAY_S // plan.slot_s
    number = time_s // plan.slot_s
    for which in range(2):
        now = number % (7 * day_slots) if which == 0 else 7 * day_slots + number % day_slots
        if state.slots[which, SLOT] == now:
            continue
        if state.slots[which, SLOT_STEPS] > 0.0:
            at = int(state.slots[which, SLOT])
            error = state.slots[which, SLOT_SUM] / state.slots[which, SLOT_STEPS] - state.profile[at]
            if state.visits[at] > VISITS_MIN:
                error = clip_kernel(error, CLIP_VISIT * spread)
            state.profile[at] += max(1.0 / (state.visits[at] + 1.0), VISIT_RATE_MIN) * error
            state.visits[at] += 1.0
        state.slots[which, SLOT] = now
        state.slots[which, SLOT_SUM] = 0.0
        state.slots[which, SLOT_STEPS] = 0.0


@inlined
def base_slot_kernel(state: Any, base: Any) -> Any:
    """The slot that a learned baseline is in."""
    return int(state.slots[0, SLOT]) if base == WEEK else int(state.slots[1, SLOT])


@inlined
def takes_part_kernel(state: Any, base: Any) -> Any:
    """Whether a baseline knows this slot."""
    return base == 0 or state.visits[base_slot_kernel(state, base)] >= VISITS_MIN


@inlined
def baseline_kernel(state: Any, base: Any) -> Any:
    """What a baseline says of this slot."""
    return 0.0 if base == 0 else state.profile[base_slot_kernel(state, base)]


@part
def forecast_kernel(state: Any, plan: Any, speed_first: Any) -> Any:
    """The weighted mean of the forecasts whose speed is at least this slow; weights fall with a forecast's error."""
    best = -1.0
    for base in range(BASES):
        if takes_part_kernel(state, base) and state.record_steps[base] > 0.0:
            for speed in range(SPEEDS):
                error = state.records[base, speed] / state.record_steps[base]
                if best < 0.0 or error < best:
                    best = error
    total, weights = 0.0, 0.0
    for base in range(BASES):
        if not takes_part_kernel(state, base):
            continue
        baseline = baseline_kernel(state, base)
        for speed in range(speed_first, SPEEDS):
            weight = WEIGHT_UNKNOWN
            if state.record_steps[base] >= 1.0:
                error = state.records[base, speed] / state.record_steps[base]
                weight = ((best + ERROR_MIN) / (error + ERROR_MIN)) ** plan.sharpness
            total += weight * (baseline + state.levels[base, speed])
            weights += weight
    return total / weights


@part
def see_kernel(state: Any, plan: Any, error: Any, drift: Any) -> Any:
    """Bring the views up to date."""
    scalars = state.scalars
    deviation = 0.0
    if scalars[DRIFT_SPREAD] > 0.0:
        deviation = clip_kernel(drift * scalars[SPREAD_STEPS] / scalars[DRIFT_SPREAD], CUSUM_CLIP)
    scalars[RISE] = min(max(0.0, scalars[RISE] + deviation - CUSUM_SLACK), CUSUM_MAX)
    scalars[FALL] = min(max(0.0, scalars[FALL] - deviation - CUSUM_SLACK), CUSUM_MAX)
    state.views[ERROR] = error
    state.views[ERROR_SMOOTH] += plan.smoothing[ERROR_SMOOTH] * (error - state.views[ERROR_SMOOTH])
    state.views[DRIFT] = drift
    state.views[DRIFT_SMOOTH] += plan.smoothing[DRIFT_SMOOTH] * (drift - state.views[DRIFT_SMOOTH])
    state.views[CUSUM] = scalars[RISE] if scalars[RISE] > scalars[FALL] else -scalars[FALL]


@part
def learn_tails_kernel(state: Any, plan: Any, weight: Any) -> Any:
    """Let the views that have waited long enough into their histograms, and these wait in their place."""
    scalars = state.scalars
    delay = len(state.waiting)
    steps = int(scalars[STEPS])
    waiting = state.waiting[steps % delay]
    if steps >= delay:
        scalars[INCREMENT] *= plan.growth
        scalars[TOTAL] = scalars[TOTAL] / plan.growth + waiting[VIEWS]
        for view in range(VIEWS):
            side = 0 if waiting[view] > 0.0 else 1
            at = int(position_kernel(abs(waiting[view])))
            state.tails[view, side, at] += scalars[INCREMENT] * waiting[VIEWS]
        if scalars[INCREMENT] > INCREMENT_MAX:
            for view in range(VIEWS):
                for side in range(2):
                    for at in range(BINS):
                        state.tails[view, side, at] /= scalars[INCREMENT]
            scalars[INCREMENT] = 1.0
    for view in range(VIEWS):
        waiting[view] = state.views[view]
    waiting[VIEWS] = weight


@part
def learn_levels_kernel(state: Any, plan: Any, root: Any, error: Any, drift: Any) -> Any:
    """Let every forecast that took part learn from what came."""
    scalars = state.scalars
    known = scalars[SPREAD_STEPS] > CLIP_STEPS
    spread = scalars[SPREAD] / max(scalars[SPREAD_STEPS], 1.0)
    drift_spread = scalars[DRIFT_SPREAD] / max(scalars[SPREAD_STEPS], 1.0)
    size = min(abs(error), CLIP_SPREAD * spread) if known else abs(error)
    drift_size = min(abs(drift), CLIP_SPREAD * drift_spread) if known else abs(drift)
    scalars[SPREAD] = SPREAD_KEEP * scalars[SPREAD] + size
    scalars[DRIFT_SPREAD] = SPREAD_KEEP * scalars[DRIFT_SPREAD] + drift_size
    scalars[SPREAD_STEPS] = SPREAD_KEEP * scalars[SPREAD_STEPS] + 1.0
    for base in range(BASES):
        if not takes_part_kernel(state, base):
            continue
        baseline = baseline_kernel(state, base)
        state.record_steps[base] = SPREAD_KEEP * state.record_steps[base] + 1.0
        for speed in range(SPEEDS):
            off = root - baseline - state.levels[base, speed]
            record = min(abs(off), CLIP_RECORD * spread) if known else abs(off)
            state.records[base, speed] = SPREAD_KEEP * state.records[base, speed] + record
            if known and speed == SLOW:
                off = clip_kernel(off, CLIP_LEVEL * spread)
            state.levels[base, speed] += max(plan.speeds[speed], 1.0 / state.record_steps[base]) * off
    for which in range(2):
        state.slots[which, SLOT_SUM] += root
        state.slots[which, SLOT_STEPS] += 1.0


@part
def tell_kernel(state: Any, plan: Any, score: Any, out: Any) -> Any:
    """Write whether this score is the highest of the quiet time, and whether it begins an episode or makes it worse."""
    scalars = state.scalars
    steps = scalars[STEPS]
    if steps - scalars[PEAK_STEP] >= plan.quiet_steps:
        scalars[PEAK] = 0.0
    if steps - scalars[ALARM_STEP] >= plan.quiet_steps:
        scalars[ALARM] = 0.0
    out[O_SCORE], out[O_FRESH], out[O_ALARM] = score, 0.0, 0.0
    if score > scalars[PEAK]:
        out[O_FRESH] = score
        scalars[PEAK], scalars[PEAK_STEP] = score, steps
    if score >= plan.alarm_at:
        if scalars[ALARM] == 0.0 or score >= scalars[ALARM] + WORSE:
            out[O_ALARM] = 1.0
            scalars[ALARM] = score
        scalars[ALARM_STEP] = steps


@part
def judge_kernel(state: Any, plan: Any, time_s: Any, change_min: Any, out: Any) -> Any:
    """Write this step's score into ``out`` (f64[OUTCOMES]); gives the weight with which the step is to be learned.

    A view below ``change_min`` (of a root) counts as nothing odd, and the CUSUM of such a drift does. So do all views of the
    drift before the first day is over: nobody knows yet what a day brings.
    """
    scalars = state.scalars
    score, side = 0.0, 0.0
    for view in range(VIEWS if time_s - scalars[FIRST] >= DAY_S else DRIFT):
        value = state.views[view]
        counts = state.tails[view, 0] if value > 0.0 else state.tails[view, 1]
        change = abs(state.views[DRIFT_SMOOTH] if view == CUSUM else value)
        if change < change_min:
            continue
        surprise = surprise_kernel(counts, scalars[INCREMENT], scalars[TOTAL], abs(value), plan)
        score += surprise / VIEWS
        side += surprise if value > 0.0 else -surprise
    out[O_SIDE] = 1.0 if side > 0.0 else (-1.0 if side < 0.0 else 0.0)
    tell_kernel(state, plan, score if scalars[STEPS] >= plan.warmup_steps else 0.0, out)
    return plan.suspect_weight if score >= plan.suspect else 1.0


@inlined
def series_kernel(states: Any, at: Any) -> Any:
    """What one of several series needs."""
    return SurgeState(
        states.profile[at], states.visits[at], states.slots[at], states.levels[at], states.records[at], states.record_steps[at],
        states.views[at], states.tails[at], states.waiting[at], states.scalars[at],
    )  # fmt: skip


@inlined
def first_wrong_kernel(states: Any, series: Any, times_s: Any, values: Any) -> Any:
    """Which step is the first that is no number or goes back in time; as many as there are: none."""
    for i in range(len(values)):
        goes_on = i > 0 and series[i] == series[i - 1]
        latest = times_s[i - 1] if goes_on else states.scalars[series[i], LATEST]
        if not isfinite(values[i]) or times_s[i] < latest:
            return i
    return len(values)


@entry
def surge_kernel(state_parts: Any, plan_parts: Any, series: Any, times_s: Any, values: Any, out: Any) -> Any:
    """Judge and then learn ``values`` (f64[n]) of closed steps at ``times_s`` (i64[n]); ``out`` is f64[n, OUTCOMES].

    ``series`` (i64[n]) says of which one each step is; those of one lie together. ``state_parts`` and ``plan_parts`` are
    `SurgeState`, of several, and `SurgePlan` as plain tuples (see `detectors.kernels.judging`).
    Returns n; or which step is wrong, and then nothing was learned.
    """
    states, plan = SurgeState(*state_parts), SurgePlan(*plan_parts)
    wrong = first_wrong_kernel(states, series, times_s, values)
    if wrong < len(values):
        return wrong
    for i in range(len(values)):
        state = series_kernel(states, series[i])
        scalars = state.scalars
        root = root_kernel(values[i])
        visit_slots_kernel(state, plan, times_s[i], scalars[SPREAD] / max(scalars[SPREAD_STEPS], 1.0))
        expected, settled = root, root
        if scalars[STEPS] == 0.0:
            scalars[FIRST] = times_s[i]
        else:
            expected = forecast_kernel(state, plan, 0)
            settled = forecast_kernel(state, plan, SLOW)
        see_kernel(state, plan, root - expected, root - settled)
        weight = judge_kernel(state, plan, times_s[i], plan.change_min * abs(settled), out[i])
        out[i, O_EXPECTED] = settled * abs(settled)
        learn_tails_kernel(state, plan, weight)
        learn_levels_kernel(state, plan, root, root - expected, root - settled)
        scalars[STEPS] += 1.0
        scalars[LATEST] = times_s[i]
    return wrong
