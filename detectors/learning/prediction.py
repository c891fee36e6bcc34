"""What a new day is expected to be like after few days, and how rare one is that is not like that. Pure arithmetic.

The distance of a day from what is usual is that of a *new* value in the spread of so few (Student's t, and from there to the z
that is as rare). Days are alike but for weekends, of whose own level is believed what they show and no more (a ridge).

References: Patel, Prediction intervals – a review (1989); Wallace, Bounds on normal approximations to Student's and the
chi-square distributions (1959); Hampel, The influence curve and its role in robust estimation (1974).

>>> usual = predicted(np.array([0.36, 0.38, 0.37, 0.36, 0.38]), np.zeros(5), 0.0, Believed(0.03, 0.05))
>>> round(usual.mean, 2), round(usual.z(0.38), 1), round(usual.z(0.43), 1)
(0.37, 0.4, 2.1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.learning.levels import F64

SPREAD_DAYS = 3.0
"""What is believed of the spread counts as if so many days had shown it."""
_NORMAL_MAD = 1.4826


@dataclass(frozen=True, slots=True)
class Believed:
    """Of a number that each day has, before days were seen."""

    spread: float
    """The standard deviation from day to day"""
    weekend: float
    """The standard deviation of how much weekends of services differ from their working days"""
    weekday: float = 0.0
    """The standard deviation of what a day of the week has for itself beside that, Saturdays as they begin in Asia say"""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a new day is expected to be like."""

    mean: float
    variance: float
    freedom: float

    def z(self, value: float, more: float = 0.0) -> float:
        """How far a day is from that, as the z that is as rare; ``more``: variance that only this day has."""
        distance = (value - self.mean) / math.sqrt(self.variance + more)
        root = math.sqrt(self.freedom * math.log1p(distance * distance / self.freedom))
        return math.copysign(root * (8 * self.freedom + 1) / (8 * self.freedom + 3), distance)


def within(values: F64, far: float, least: float) -> F64:
    """What is further from the median than ``far`` spreads (none is less than ``least``) counts as so far."""
    middle = float(np.median(values))
    spread = max(_NORMAL_MAD * float(np.median(np.abs(values - middle))), least)
    return np.clip(values, middle - far * spread, middle + far * spread)


def predicted(
    values: F64, off: F64, off_now: float, believed: Believed, same: npt.NDArray[np.bool_] | None = None
) -> Predicted:  # fmt: skip
    """What the next day is expected to be like.

    Args:
        values: f64[days]
        off: f64[days], how much of each was weekend.
        off_now: the same of the new one.
        same: bool[days], which are of its day of the week; None: that does not matter.
    """
    days = len(values)
    middle, mean = float(off.mean()), float(values.mean())
    apart, spread = off - middle, believed.spread**2
    freedom = days - 1 + SPREAD_DAYS
    # How far weekends are believed hangs on the spread, and the spread on that; it settles at once.
    for _ in range(3):
        precision = float((apart * apart).sum()) + spread / believed.weekend**2
        slope = float((apart * (values - mean)).sum()) / precision
        left = values - mean - slope * apart
        spread = (float((left * left).sum()) + SPREAD_DAYS * believed.spread**2) / freedom
    variance = spread * (1 + 1 / days + (off_now - middle) ** 2 / precision)
    expected = mean + slope * (off_now - middle)
    if same is not None and same.any():
        expected += float(left[same].sum()) / (float(same.sum()) + spread / believed.weekday**2)
    return Predicted(expected, variance, freedom)
