"""What a key did in a window, as the numbers that its levels are kept of."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.machine import count_bits
from schemas.compiled import entry

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
def features_kernel(
    ids: Any, values: Any, seen: Any, hours: Any, busy: Any, steps: Any, young: Any, slot: Any, features: Any
) -> None:  # fmt: skip
    """Write the features of keys that did anything.

    Args:
        ids: i64[n]; values: i64[n, VALUES]: what each did.
        seen: i64[keys, ITEMS, SETS]; hours: f64[keys, slots + 1]: shares of windows with anything, by the hour, then overall.
        busy: f64[n]: the share of its last windows, this one included, in which each did anything.
        steps: f64[n]: windows that were learned; before ``young`` nothing is new, as everything is.
        slot: i64, the hour.
        features: f64[n, FEATURES], out; NaN: not known.
    """
    for i in range(len(ids)):
        key = ids[i]
        requests = np.float64(values[i, V_REQUESTS])
        known = steps[i] >= young
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
        features[i, F_BUSY] = busy[i]
