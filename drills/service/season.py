"""When people and their programs are busy: hours of the day in three parts of the world, working days, and slow drift."""

from __future__ import annotations

import functools

import numpy as np

from drills.columns import CELL_S, F64, generator

REGIONS = ("americas", "europe", "asia")
_SHARES = (0.42, 0.33, 0.25)
_BUSIEST_HOUR = (19.0, 12.0, 5.0)
"""In UTC."""
_NIGHT = 0.3
"""Of the busiest hour's traffic is left at night."""
_WEEKEND = {"programs": 0.75, "people": 0.6}
_DRIFT = 0.08
"""The standard deviation from one hour to others that has no reason."""
_CELLS_OF_WEEK = 7 * 86400 // CELL_S
_MONDAY_S = 4 * 86400
"""1970-01-05 was a Monday."""


class Season:
    """How busy each region is in a cell; over a week it is 1 on average, all regions together.

    Args:
        kind: ``people`` or ``programs``.
    """

    def __init__(self, seed: int, kind: str) -> None:
        self._seed = seed
        hours = (np.arange(_CELLS_OF_WEEK) * CELL_S / 3600)[:, None]
        swing = np.clip(np.cos((hours - np.array(_BUSIEST_HOUR)) * (2 * np.pi / 24)) * 0.75 + 0.25, 0, None)
        # The weekend begins where the region is, half a day before or after Greenwich.
        day = np.floor((hours + 12 - np.array(_BUSIEST_HOUR)) / 24) % 7
        levels = (_NIGHT + (1 - _NIGHT) * swing) * np.where(day >= 5, _WEEKEND[kind], 1.0) * np.array(_SHARES)
        self._levels: F64 = levels / levels.sum(axis=1).mean()

    def regions(self, cell: int) -> F64:
        """f64[regions]: their shares of the average, whose sum is how busy the whole is."""
        level: F64 = self._levels[(cell - _MONDAY_S // CELL_S) % _CELLS_OF_WEEK]
        return level * self._drift(cell)

    def level(self, cell: int) -> float:
        """How busy the whole is; 1 is the average."""
        return float(self.regions(cell).sum())

    def _drift(self, cell: int) -> float:
        """Around 1: a number drawn for every hour, and straight lines between them."""
        hour, minute = divmod(cell * CELL_S, 3600)
        here, there = _chance_of_hour(self._seed, hour), _chance_of_hour(self._seed, hour + 1)
        part = minute / 3600
        return float(np.exp(_DRIFT * (here * (1 - part) + there * part)))


@functools.lru_cache(64)
def _chance_of_hour(seed: int, hour: int) -> float:
    return float(generator(seed, 9000, hour).standard_normal())
