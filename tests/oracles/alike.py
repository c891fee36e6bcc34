"""Which rows of a window are alike, as numpy says it."""

from __future__ import annotations

import numpy as np

from detectors.entropy import ADDRESSES_MIN, ROUTES_MAX, RouteWindow
from detectors.surplus import ADDRESS, F64, PRIORITY, ROUTE, WEIGHT
from schemas.columns import I64


def alike(words: I64) -> tuple[int, int]:
    """As `detectors.kernels.alike.alike_kernel` has it."""
    _, many = np.unique(words, return_counts=True)
    return int((many * (many - 1)).sum()), int((many * (many - 1) * (many - 2)).sum())


def lowest(even: I64, kept: int) -> I64:
    """The rows of lowest priority, or all where there are no more."""
    if len(even) <= kept:
        return even
    priorities = np.ascontiguousarray(even[:, PRIORITY]).view(np.uint64)
    return even[np.argsort(priorities, kind="stable")[:kept]]


def routes(rows: I64, weights: F64, share: float) -> list[RouteWindow]:
    """As `detectors.entropy.routes_of` has it."""
    distinct, which = np.unique(rows[:, ROUTE], return_inverse=True)
    addresses, whose = np.unique(rows[:, ADDRESS], return_inverse=True)
    _, pair = np.unique(which * len(addresses) + whose, return_inverse=True)

    def sums(values: F64) -> F64:
        return np.asarray(np.bincount(which, values, len(distinct)), np.float64)

    equal, total, left_out = rows[:, WEIGHT], sums(weights), 1 - rows[:, WEIGHT] / weights
    others, squares = (np.bincount(pair, own)[pair] - own for own in (weights, weights**2))
    again = sums(weights * (others + equal - 1)) / total
    spread = (2 * others + equal - 1 - again[which]) ** 2 - 2 * left_out * squares
    error = np.sqrt(sums(left_out * weights**2))
    often_error = np.sqrt(sums(left_out * weights**2 * np.maximum(0.0, spread))) / total
    enough = (total >= share * total.sum()) & (np.bincount(which) >= ADDRESSES_MIN) & (distinct != 0)
    return [
        RouteWindow(int(distinct[at]), float(total[at]), float(error[at]), 1 + float(again[at]), float(often_error[at]))
        for at in np.argsort(-total, kind="stable")[:ROUTES_MAX].tolist()
        if enough[at]
    ]
