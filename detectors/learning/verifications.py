"""Whether a service says who is verified, and in which hours that comes as usual: the others say nothing of anybody.

People confirm a mail address, a phone or a means of payment; whoever makes accounts by the thousand mostly does not. But when
the mail provider or the log fails, nobody seems to be verified. So an account is only asked about
(`detectors.learning.uses`) if the hour in which it registered and the one after it were as usual: with at least half as many
verifications as at that hour of the last day that was, or a week before, whichever had fewer, and without a silence that
chance does not make of so many. Registrations are no measure of that: a flood of accounts that nobody verifies is what is
sought. A service that never says who is verified has no usual hour, and is asked about nobody.

Where it fails: an outage that leaves more than half of the verifications, and no silence, looks like a campaign as large as
what is missing. Hours with few verifications are left out now and then by chance, which has nothing to do with who registers.

Costs: a look-up for each account that is verified; 4 kB.

>>> hours = Verifications()
>>> for tick in range(0, 10 * 3600, 60):
...     if not 4 * 3600 <= tick < 5 * 3600:
...         hours.note(tick, 0)
>>> hours.turn(10)
>>> [hours.covers(3600 * hour, 0) for hour in range(9)]
[True, True, True, False, False, True, True, True, True]
"""

from __future__ import annotations

import numpy as np

from detectors.learning.levels import HOUR_S
from schemas.columns import I64
from schemas.errors import StateError

HOURS = 7 * 24
SILENCE = 12.0
"""Chance makes no pause in which so many are usual: one of 160,000 is so long."""
COUNT, USUAL, LEVEL, COLUMNS = 0, 1, 2, 3


class Verifications:
    """Those of one service, hour by hour."""

    def __init__(self) -> None:
        self._hours: I64 = np.zeros((HOURS, COLUMNS), np.int64)
        """Of each hour that is over, the last one first: how many there were, whether that was as usual, and the highest level
        of a second's sample"""
        self._here: I64 = np.zeros(COLUMNS, np.int64)
        """The same of this hour …"""
        self._hour, self._last, self._silence = -1, -1, 0
        """… which one it is, the last second with one, and the longest pause of it so far"""

    def note(self, tick: int, level: int) -> None:
        """Somebody was verified, whom a sample of this level has: times come in order."""
        self.turn(tick // HOUR_S)
        self._silence = max(self._silence, tick - max(self._last, HOUR_S * self._hour))
        self._last = tick
        self._here[COUNT] += 1 << level
        self._here[LEVEL] = max(int(self._here[LEVEL]), level)

    def turn(self, hour: int) -> None:
        """What was before an hour is over."""
        if self._hour < 0:
            self._hour = hour
        for ended in range(max(self._hour, hour - HOURS), hour):
            self._here[USUAL] = self._is_usual(HOUR_S * (ended + 1))
            self._hours[1:] = self._hours[:-1].copy()
            self._hours[0], self._here, self._silence = self._here, np.zeros(COLUMNS, np.int64), 0
        self._hour = max(hour, self._hour)

    def covers(self, tick: int, rank: int) -> bool:
        """Whether the verification of an account of this rank that registered then would have been seen, two hours later."""
        at = self._hour - 1 - tick // HOUR_S
        if not 1 <= at < HOURS:
            return False
        both = self._hours[at - 1 : at + 1]
        return bool(both[:, USUAL].all() and rank >= both[:, LEVEL].max())

    def _is_usual(self, end: int) -> bool:
        """Whether the hour that ends here was like others."""
        many = int(self._here[COUNT])
        days = self._hours[23::24]
        lately = days[days[:, USUAL] > 0, COUNT][:1]
        before = [*lately.tolist(), *days[-1:, COUNT][days[-1:, COUNT] > 0].tolist()]
        usual = min(before, default=many)
        silence = max(self._silence, end - max(self._last, end - HOUR_S))
        return many > 0 and usual <= 2 * many and bool(silence * usual <= SILENCE * HOUR_S)

    def save(self) -> list[I64]:
        """Arrays for `load`."""
        return [self._hours.copy(), self._here.copy(), np.array([self._hour, self._last, self._silence], np.int64)]

    def load(self, data: list[I64]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is of other hours.
        """
        hours, here, said = data
        if (hours.shape, here.shape, said.shape) != (self._hours.shape, (COLUMNS,), (3,)):
            raise StateError(f"expected verifications of {HOURS} hours, got {hours.shape}")
        self._hours, self._here = hours.copy(), here.copy()
        self._hour, self._last, self._silence = said.tolist()
