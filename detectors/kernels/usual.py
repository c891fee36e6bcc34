"""What is usual in a series of strata, as the ten seconds that were learned say it: `detectors.kernels.strata` learns them."""

from __future__ import annotations

from math import log2, sqrt
from typing import Any

import numpy as np

from detectors.kernels.alike import MILLI
from schemas.compiled import inlined
from schemas.sample import Stratum

STRATA = len(Stratum)
ACCOUNTS = int(Stratum.ACCOUNTS)
STEPS = 30
WARM_STEPS = 12
"""Two minutes are learned from before any second is judged."""
HELD_STEPS_MAX = 360
SLUMP, SLUMP_FROM = 0.5, 30.0
"""Half of the usual, once that is so much in ten seconds."""
R_LEARNED, R_HELD, R_SUSPECT, R_TOTAL, R_LARGEST, R_NEWEST, REFERENCE_WORDS = range(7)
"""Of what is usual in a series: how many steps were ever learned and how many in a row were not, the last one with a surplus;
the sum of the steps that are kept, the largest one; and the step that began as the newest of them was learned."""
T_TOTAL, T_REPEATS, T_KEPT, T_ROUTES, STEP_WORDS = range(5)
"""Of a step that was learned: its total (of ACCOUNTS: how many), how often one came again (`detectors.entropy.repeats_of`),
the rows that stand for it, and the routes that are known of it."""
NOTHING = -(1 << 62)
"""In the place of a number that a step does not have."""


@inlined
def mean_kernel(learned: Any, s: Any) -> Any:
    """What ten seconds of a series usually bring."""
    return learned[s, R_TOTAL] / max(np.int64(1), min(learned[s, R_LEARNED], STEPS))


@inlined
def exceeds_kernel(learned: Any, s: Any, limits: Any, observed: Any) -> Any:
    """Whether so much is more than a series had lately, and too much for a section (`SurplusSection.exceeds`)."""
    if observed <= learned[s, R_LARGEST]:
        return False
    mean = mean_kernel(learned, s)
    for section in range(len(limits)):
        least = max(limits[section, 1 + s % STRATA], 4 * sqrt(mean))
        if observed > max(limits[section, 0] * mean, mean + least):
            return True
    return False


@inlined
def is_usual_kernel(learned: Any, s: Any, step: Any, came: Any, total: Any) -> Any:
    """Whether a step becomes part of what is usual: it does not after a surplus of its service, nor in a slump."""
    first, doubtful = s - s % STRATA, False
    for stratum in range(STRATA):
        doubtful |= learned[first + stratum, R_SUSPECT] >= step - 1
    mean = mean_kernel(learned, s)
    doubtful |= learned[s, R_LEARNED] >= WARM_STEPS and mean >= SLUMP_FROM and total < SLUMP * mean
    learned[s, R_HELD] = learned[s, R_HELD] + 1 if doubtful else 0
    if came == 0 and learned[s, R_LARGEST] == 0:
        return True
    return learned[s, R_HELD] == 0 or learned[s, R_HELD] > HELD_STEPS_MAX


@inlined
def repeats_kernel(stratum: Any, left: Any, alike: Any, events: Any, accounts: Any) -> Any:
    """As `detectors.entropy.repeats_of` has it, of so many rows in which so many ordered pairs are of one address."""
    if stratum == ACCOUNTS:
        return milli_bits_kernel(events / max(np.int64(1), accounts))
    return milli_bits_kernel(1 + (alike + 1) / (left * (left - 1) + 1) * events)


@inlined
def milli_bits_kernel(often: Any) -> Any:
    """A logarithm in thousandths of bits."""
    return np.int64(np.rint(MILLI * log2(often)))


@inlined
def sum_up_kernel(learned: Any, steps: Any, s: Any) -> None:
    """Say what the steps that are kept bring together, and what the largest does."""
    learned[s, R_TOTAL], learned[s, R_LARGEST] = 0, 0
    for at in range(min(learned[s, R_LEARNED], STEPS)):
        learned[s, R_TOTAL] += steps[s, at, T_TOTAL]
        learned[s, R_LARGEST] = max(learned[s, R_LARGEST], steps[s, at, T_TOTAL])
