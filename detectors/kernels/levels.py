"""The loops of `detectors.learning.levels`: how far off values are, and what is learned of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.compiled import entry, inlined

F64 = npt.NDArray[np.float64]

OVERALL = 0
"""The place of a series' level over all seasons; those of seasons follow."""

VARIANCE_SLOWER = 0.1
"""A variance may change by so much less: else whoever pushes the mean widens what is usual, and is let further."""


class Tables(NamedTuple):
    """What is known of series, and how it is read: the arguments of `score_kernel`."""

    mean: F64
    variance: F64
    counts: F64
    within: F64
    seen: float
    shared: int
    floor: F64
    shrink: float
    shrink_season: float


@inlined
def tables_of(tables: Any, group: Any) -> Any:
    """Of several groups' `Tables`, with one more dimension in front, those of one."""
    return Tables(
        tables.mean[group], tables.variance[group], tables.counts[group], tables.within[group], tables.seen, tables.shared,
        tables.floor, tables.shrink, tables.shrink_season,
    )  # fmt: skip


@inlined
def usual_kernel(
    mean: Any, variance: Any, count: Any, within: Any, seen: Any, shared: Any, floor: Any, shrink: Any, shrink_season: Any,
    series: Any, season: Any, f: Any
) -> Any:  # fmt: skip
    """(mean, variance) of the next value of a series, as in `score_kernel`; the variance is -1 where nothing is known."""
    common, n = count[shared, OVERALL, f], count[series, OVERALL, f]
    m, v = mean[series, OVERALL, f], variance[series, OVERALL, f]
    least = floor[f] * floor[f]
    if common >= seen:
        inside = within[0, f] if within[1, f] >= seen else variance[shared, OVERALL, f]
        between = max(variance[shared, OVERALL, f] - inside, 0.0)
        # Spreads differ by orders of magnitude: in their logarithms they are what their mean says.
        v = max(np.exp((n * np.log(v + least) + shrink * np.log(inside + least)) / (n + shrink)) - least, 0.0)
        apart = m - mean[shared, OVERALL, f]
        # That it lies apart says as well that series differ.
        evidence = n * max(between, apart * apart)
        own = evidence / (evidence + v + least)
        m = mean[shared, OVERALL, f] + own * apart
        v += (1.0 - own) * between
    elif n < seen:
        return 0.0, -1.0
    if season >= 0:
        n = count[series, 1 + season, f]
        own = n / (n + shrink_season)
        shift = mean[series, 1 + season, f] - m
        v = own * variance[series, 1 + season, f] + (1.0 - own) * (v + own * shift * shift)
        m += own * shift
    return m, v


@inlined
def distance_kernel(levels: Any, series: Any, season: Any, f: Any, value: Any) -> Any:
    """How many standard deviations a value is from what its series leads to expect: `score_kernel`."""
    if not np.isfinite(value):
        return 0.0
    m, v = usual_kernel(
        levels.mean, levels.variance, levels.counts, levels.within, levels.seen, levels.shared, levels.floor, levels.shrink,
        levels.shrink_season, series, season, f,
    )  # fmt: skip
    if v < 0.0:
        return 0.0
    return (value - m) / np.sqrt(v + levels.floor[f] * levels.floor[f])


@entry
def score_kernel(
    mean: Any, variance: Any, count: Any, within: Any, seen: Any, shared: Any, floor: Any, shrink: Any, shrink_season: Any,
    ids: Any, season: Any, values: Any, z: Any
) -> None:  # fmt: skip
    """Write how many standard deviations each value is from what its series leads to expect.

    Args:
        mean, variance: f64[series + 1, 1 + seasons, features]; the last series is the shared one.
        count: f64[series + 1, 1 + seasons, features], values that were learned.
        within: f64[2, features]: the variance that series have within themselves, and how many steps it was learned from.
        seen: the least count of a level that says something.
        shared: the place of the shared series.
        floor: f64[features], added to the variance as its square.
        shrink, shrink_season: a level of so many values counts for a half beside the wider one.
        ids: i64[n]; season: i64, -1 for none; values: f64[n, features], NaN where nothing was seen.
        z: f64[n, features], out; 0 where nothing was seen, or nothing is known.
    """
    levels = Tables(mean, variance, count, within, seen, shared, floor, shrink, shrink_season)
    for i in range(len(ids)):
        for f in range(values.shape[1]):
            z[i, f] = distance_kernel(levels, ids[i], season, f, values[i, f])


@inlined
def move_kernel(
    mean: Any, variance: Any, count: Any, anchor_mean: Any, anchor_variance: Any, series: Any, place: Any, f: Any, value: Any,
    weight: Any, fading: Any, young: Any, floor: Any, change: Any, settled: Any
) -> None:  # fmt: skip
    """Learn one value: mean and variance fade exponentially; a settled level moves ``change`` an hour at most."""
    n = count[series, place, f] + weight
    factor = weight * (1.0 / n if n < young else fading)
    if count[series, place, f] == 0.0:
        factor = 1.0
    difference = value - mean[series, place, f]
    m = mean[series, place, f] + factor * difference
    v = (1.0 - factor) * (variance[series, place, f] + factor * difference * difference)
    if change > 0.0 and count[series, place, f] >= settled:
        start, spread = anchor_mean[series, place, f], anchor_variance[series, place, f]
        reach = change * np.sqrt(spread + floor * floor)
        m = min(max(m, start - reach), start + reach)
        slower = VARIANCE_SLOWER * change
        v = min(max(v, spread * (1.0 - slower)), spread + (spread + floor * floor) * slower)
    mean[series, place, f], variance[series, place, f], count[series, place, f] = m, v, n


@inlined
def learn_step_kernel(
    mean: Any, variance: Any, count: Any, within: Any, anchor_mean: Any, anchor_variance: Any, seen: Any, shared: Any,
    fading: Any, fading_season: Any, young: Any, young_season: Any, floor: Any, change: Any, change_season: Any, settled: Any,
    settled_season: Any, ids: Any, season: Any, values: Any, weights: Any
) -> None:  # fmt: skip
    """Learn a step of one group of series: each value in its series, overall and in its season, and all of them together in
    the shared series.

    Args:
        change, change_season: f64[features].
        weights: f64[n]; 0: nothing is learned of this series now. Others as in `score_kernel` and `Levels`.
    """
    for f in range(values.shape[1]):
        total, sum_of, squares, known, inside = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(len(ids)):
            value, weight = values[i, f], weights[i]
            if weight <= 0.0 or not np.isfinite(value):
                continue
            if count[ids[i], OVERALL, f] >= seen:
                difference = value - mean[ids[i], OVERALL, f]
                inside += weight * difference * difference
                known += weight
            move_kernel(
                mean, variance, count, anchor_mean, anchor_variance, ids[i], OVERALL, f, value, weight, fading, young, floor[f],
                change[f], settled,
            )  # fmt: skip
            if season >= 0:
                move_kernel(
                    mean, variance, count, anchor_mean, anchor_variance, ids[i], 1 + season, f, value, weight, fading_season,
                    young_season, floor[f], change_season[f], settled_season,
                )  # fmt: skip
            total += weight
            sum_of += weight * value
            squares += weight * value * value
        if total > 0.0:
            step_mean = sum_of / total
            n = count[shared, OVERALL, f] + 1.0
            factor = 1.0 / n if n < young else fading
            apart = step_mean - mean[shared, OVERALL, f]
            spread = max(0.0, squares / total - step_mean * step_mean)
            # What differs within a step and what the steps' means differ by are both usual.
            mean[shared, OVERALL, f] += factor * apart
            variance[shared, OVERALL, f] = (1.0 - factor) * (
                variance[shared, OVERALL, f] + factor * apart * apart
            ) + factor * spread
            count[shared, OVERALL, f] = n
        if known > 0.0:
            within[1, f] += 1.0
            within[0, f] += max(1.0 / within[1, f] if within[1, f] < young else 0.0, fading) * (inside / known - within[0, f])


@entry
def learn_kernel(
    mean: Any, variance: Any, count: Any, within: Any, anchor_mean: Any, anchor_variance: Any, seen: Any, shared: Any,
    fading: Any, fading_season: Any, young: Any, young_season: Any, floor: Any, change: Any, change_season: Any, settled: Any,
    settled_season: Any, groups: Any, ids: Any, season: Any, values: Any, weights: Any
) -> None:  # fmt: skip
    """Learn a step of several groups, which have nothing in common: see `learn_step_kernel`, with one more dimension in front
    of the tables.

    Args:
        groups: i64[n], rising: in which group each series is.
    """
    low = 0
    while low < len(ids):
        group, high = groups[low], low + 1
        while high < len(ids) and groups[high] == group:
            high += 1
        learn_step_kernel(
            mean[group], variance[group], count[group], within[group], anchor_mean[group], anchor_variance[group], seen, shared,
            fading, fading_season, young, young_season, floor, change, change_season, settled, settled_season, ids[low:high],
            season, values[low:high], weights[low:high],
        )  # fmt: skip
        low = high
