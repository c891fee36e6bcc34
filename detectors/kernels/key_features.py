"""What a key did in a window, as the numbers that its levels are kept of."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.levels import OVERALL, Tables, distance_kernel, tables_of
from detectors.kernels.machine import count_bits
from detectors.kernels.windows import NEVER
from schemas.compiled import entry, inlined

V_REQUESTS, V_ERRORS, V_TOKENS_IN, V_TOKENS_OUT, V_NETS, V_COUNTRIES, V_AGENTS, V_MODELS, VALUES = range(9)
"""What is gathered of a key: sums, then sets as words of 64 bins."""
ITEMS = VALUES - V_NETS
S_OLD, S_THIS, SETS = range(3)
"""Of each item, the bins that a key was seen with: in the last generation, and in this one."""
(
    F_REQUESTS, F_NEW_NETS, F_NEW_COUNTRIES, F_NEW_AGENTS, F_NEW_MODELS, F_HOUR, F_ERRORS, F_TOKENS_IN, F_TOKENS_OUT, F_NETS,
    F_BUSY, FEATURES,
) = range(12)  # fmt: skip
HOUR_DOUBT = 0.02
"""A share of windows below this is as rare as this."""
TOKEN_UNIT = 100.0
WILD, WILD_ERRORS = 0.25, 0.5
"""Counts wander by chance, as their root, and by so much of themselves, whichever is more: what they are turned into has a
standard deviation of about one however many they are."""


@entry
def judge_keys_kernel(
    ids: Any, values: Any, whole: Any, window: Any, keys: Any, seen: Any, hours: Any, busy: Any, last: Any, woke: Any,
    held: Any, young: Any, slot: Any, z_most: Any, leak: Any, reference: Any, wakes: Any, woken: Any, woken_windows: Any,
    levels_parts: Any, totals_parts: Any, known: Any, features: Any, z: Any, total: Any, score: Any, held_now: Any, slept: Any,
) -> None:  # fmt: skip
    """Compare what keys did in a window with what is usual of them; see `detectors.learning.key_state`.

    Args:
        ids: i64[n], rising: places, so many (``keys``) of each partition; values: i64[n, VALUES]: what each did.
        whole: whether the window is over.
        seen, hours, young, slot: as in `features_kernel`.
        busy, last, woke, held: f64[places], i64[places], i64[places, 2], f64[places]: the share of windows with anything,
            the last one, when a key woke last and how long it had slept, the sum of scores.
        wakes, woken, woken_windows: from so many silent windows on a key wakes, which counts for so much for so long.
        levels_parts, totals_parts: `Tables` of the features, and of the sum of their distances, as plain tuples, with a
            dimension of partitions in front.
        known: i64[n]: in which window each was used last, if the place does not know; `NEVER`.
        features, z: f64[n, FEATURES]; total, score, held_now: f64[n]; slept: i64[n]: all out.
    """
    every_level, every_total = Tables(*levels_parts), Tables(*totals_parts)
    i = 0
    while i < len(ids):
        partition = ids[i] // keys
        levels, totals = tables_of(every_level, partition), tables_of(every_total, partition)
        while i < len(ids) and ids[i] // keys == partition:
            place = ids[i]
            key = place - partition * keys
            silent = max(window - last[place] - 1, 0)
            busy_now = busy[place] * (11 / 12) ** min(silent, 1000) * (11 / 12) + 1 / 12
            grown = levels.counts[key, OVERALL, 0] >= young
            features_kernel(i, place, values, seen, hours, busy_now, grown, slot, features)
            if not whole:
                features[i, F_TOKENS_IN] = features[i, F_TOKENS_OUT] = np.nan
            slept[i] = slept_kernel(window, max(last[place], known[i]), woke, place, wakes, woken_windows)
            together = woken if slept[i] > 0 else 0.0
            for f in range(FEATURES):
                z[i, f] = distance_kernel(levels, key, -1, f, features[i, f])
                together += min(max(z[i, f], 0.0), z_most)
            total[i], score[i] = together, distance_kernel(totals, key, -1, 0, together)
            held_now[i] = max(held[place] * leak**silent * leak + score[i] - reference, 0.0)
            i += 1


@inlined
def slept_kernel(window: Any, last: Any, woke: Any, place: Any, wakes: Any, woken_windows: Any) -> Any:
    """How many windows a key slept that wakes in this one, or did within so many; else 0."""
    if last != NEVER and window - last >= wakes:
        return window - last
    if window - woke[place, 0] < woken_windows:
        return woke[place, 1]
    return np.int64(0)


@inlined
def features_kernel(
    i: Any, key: Any, values: Any, seen: Any, hours: Any, busy: Any, known: Any, slot: Any, features: Any
) -> None:  # fmt: skip
    """Write the features of a key that did anything.

    Args:
        i, key: its row in ``values`` and ``features``, and its place.
        values: i64[n, VALUES]: what each did.
        seen: i64[keys, ITEMS, SETS]; hours: f64[keys, slots + 1]: shares of windows with anything, by the hour, then overall.
        busy: the share of its last windows, this one included, in which it did anything.
        known: enough was learned: before, nothing is new, as everything is.
        slot: i64, the hour.
        features: f64[n, FEATURES], out; NaN: not known.
    """
    requests = np.float64(values[i, V_REQUESTS])
    features[i, F_REQUESTS] = 2.0 / WILD * np.arcsinh(WILD * np.sqrt(requests))
    for item in range(ITEMS):
        before = seen[key, item, S_OLD] | seen[key, item, S_THIS]
        new = values[i, V_NETS + item] & ~before
        features[i, F_NEW_NETS + item] = np.float64(count_bits(new)) if known else np.nan
    usual = hours[key, hours.shape[1] - 1]
    rare = np.log2((usual + HOUR_DOUBT) / (hours[key, slot] + HOUR_DOUBT))
    features[i, F_HOUR] = max(rare, 0.0) if known else np.nan
    features[i, F_ERRORS] = 2.0 / WILD_ERRORS * np.arcsinh(WILD_ERRORS * np.sqrt(np.float64(values[i, V_ERRORS])))
    features[i, F_TOKENS_IN] = np.log((values[i, V_TOKENS_IN] + TOKEN_UNIT) / requests) if requests > 0.0 else np.nan
    features[i, F_TOKENS_OUT] = np.log((values[i, V_TOKENS_OUT] + TOKEN_UNIT) / requests) if requests > 0.0 else np.nan
    features[i, F_NETS] = np.log1p(np.float64(count_bits(values[i, V_NETS])))
    features[i, F_BUSY] = busy
