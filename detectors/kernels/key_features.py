"""What a key did in a window, as the numbers that its levels are kept of."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.levels import OVERALL, Tables, distance_kernel
from detectors.kernels.machine import count_bits
from schemas.compiled import entry, inlined

V_REQUESTS, V_ERRORS, V_TOKENS_IN, V_TOKENS_OUT, V_NETS, V_COUNTRIES, V_AGENTS, VALUES = range(8)
"""What is gathered of a key: sums, then sets as words of 64 bins."""
ITEMS = VALUES - V_NETS
S_OLD, S_THIS, SETS = range(3)
"""Of each item, the bins that a key was seen with: in the last generation, and in this one."""
(
    F_REQUESTS, F_NEW_NETS, F_NEW_COUNTRIES, F_NEW_AGENTS, F_HOUR, F_ERRORS, F_TOKENS_IN, F_TOKENS_OUT, F_NETS, F_BUSY,
    FEATURES,
) = range(11)  # fmt: skip
HOUR_DOUBT = 0.02
"""A share of windows below this is as rare as this."""
TOKEN_UNIT = 100.0
WILD, WILD_ERRORS = 0.25, 0.5
"""Counts wander by chance, as their root, and by so much of themselves, whichever is more: what they are turned into has a
standard deviation of about one however many they are."""


@entry
def judge_keys_kernel(
    ids: Any, values: Any, whole: Any, window: Any, seen: Any, hours: Any, busy: Any, last: Any, held: Any, young: Any,
    slot: Any, z_most: Any, leak: Any, reference: Any, levels_parts: Any, totals_parts: Any, more: Any, features: Any, z: Any,
    total: Any, score: Any, held_now: Any,
) -> None:  # fmt: skip
    """Compare what keys did in a window with what is usual of them; see `detectors.learning.key_abuse`.

    Args:
        ids: i64[n]; values: i64[n, VALUES]: what each did.
        whole: whether the window is over.
        seen, hours, young, slot: as in `features_kernel`.
        busy, last, held: f64[keys], i64[keys], f64[keys]: the share of windows with anything, the last one, the sum of scores.
        levels_parts, totals_parts: `Tables` of the features, and of the sum of their distances, as plain tuples.
        more: f64[n]: standard deviations that speak against a key beside its features.
        features, z: f64[n, FEATURES]; total, score, held_now: f64[n]: all out.
    """
    levels, totals = Tables(*levels_parts), Tables(*totals_parts)
    for i in range(len(ids)):
        key = ids[i]
        silent = max(window - last[key] - 1, 0)
        busy_now = busy[key] * (11 / 12) ** min(silent, 1000) * (11 / 12) + 1 / 12
        features_kernel(i, key, values, seen, hours, busy_now, levels.counts[key, OVERALL, 0] >= young, slot, features)
        if not whole:
            features[i, F_TOKENS_IN] = features[i, F_TOKENS_OUT] = np.nan
        together = more[i]
        for f in range(FEATURES):
            z[i, f] = distance_kernel(levels, key, -1, f, features[i, f])
            together += min(max(z[i, f], 0.0), z_most)
        total[i], score[i] = together, distance_kernel(totals, key, -1, 0, together)
        held_now[i] = max(held[key] * leak**silent * leak + score[i] - reference, 0.0)


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
