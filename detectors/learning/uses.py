"""Whether new accounts are used, and verified: of those that became an hour and six hours old, how many were not since.

People register to use something; whoever makes accounts to sell them, or for later, does not. A campaign that mimics people in
everything else shows in this, hours later.

Accounts that registered wait here until they are six hours old, and samples of requests (`schemas.sample`, ACCOUNTS) say
which of them did anything. A sample is not every request: of a busy second it has the accounts whose *rank* is at least its
level, the same ones in every second. So only accounts count whose rank is at least the level that nine of ten seconds of the
last hours stayed within: of those nearly every request is seen, of the others few, and what share they are changes nothing
about what they do. Where that leaves too many to remember, the lowest ranks are left out, which again is a choice that has
nothing to do with use.

Seen is who asks for anything that succeeds and names the account, `GRACE_S` after the registration or later: what comes at
once is the registration itself, in another log. An hour with less than half of the usual seconds with requests is an outage,
or its log is missing: what grows old then is not counted.

Of accounts that became six hours old, how many nobody verified is counted where a service says who is verified
(`detectors.learning.verifications`). The same six hours, because a campaign's accounts cannot be a day old on its first day.

Costs: a look-up for each account of a second's sample; 250 bytes for each account that waits, 8,192 of them at most.

>>> uses = Uses()
>>> events = [(t, 1, 0) for t in range(9 * 3600)] + [(3600, 7, registered(5)), (3600, 8, registered(5)), (4000, 8, 0)]
>>> uses.take(np.array(sorted(events), np.int64))
>>> [uses.aged(step) for step in range(9 * 360)][720]
(2.0, 1.0, 0.0, 0.0, 0.0, 0.0)
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from detectors.learning.verifications import Verifications
from schemas.columns import I64
from schemas.errors import StateError

STEP_S = 10
HOUR_STEPS, LONG_STEPS = 360, 6 * 360
VERIFY_STEPS = LONG_STEPS
"""Most are verified within minutes; and six hours later it is known whether verifications came as usual then."""
GRACE_S = 5
ACCOUNTS_MAX = 8192
HOURS, LEVELS = 7, 64
FOLLOWED_SHARE = 0.9
U_TICK, U_WHO, U_SAYS, USE_WORDS = range(4)
"""Columns of what is taken in: when, whose, and the level of the second's sample, or of a registration `registered`, of a
verification `verified`."""
NO_USES = np.zeros((0, USE_WORDS), np.int64)
Aged = tuple[float, float, float, float, float, float]
WAITING_WORDS = 5


def registered(rank: Any) -> Any:
    """What stands in the last column for a registration by an account of this rank (numbers or arrays of them)."""
    return -1 - rank


def verified(level: Any) -> Any:
    """What stands there for a verification that a second's sample of this level has."""
    return LEVELS + level


class Uses:
    """The accounts of one service that registered lately."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[int]] = {}
        """Account -> [second of its registration, rank, the second in which it was seen first or -1, whether it was verified],
        by time"""
        self._verifications = Verifications()
        self._young: deque[int] = deque()
        """Those of them that are not an hour old, by time"""
        self._least = 0
        """Lower ranks are left out: there were too many"""
        self._seconds: I64 = np.zeros((HOURS, LEVELS), np.int64)
        """Of each hour, how many seconds had a sample of which level; the first is this hour"""
        self._hour = -1
        self._followed = 0
        self._heard = False

    def take(self, events: I64) -> None:
        """Take in registrations, verifications and what samples saw of accounts: i64[n, USE_WORDS], in the order of time."""
        waiting, before = self._waiting, -1
        for tick, who, says in events.tolist():
            if says < 0:
                rank = -1 - says
                if who not in waiting and rank >= self._least:
                    waiting[who] = [tick, rank, -1, 0]
                    self._young.append(who)
                    if len(waiting) > ACCOUNTS_MAX:
                        self._thin()
                        waiting = self._waiting
                continue
            if says >= LEVELS:
                self._verifications.note(tick, says - LEVELS)
                if (one := waiting.get(who)) is not None:
                    one[3] = 1
                continue
            if tick != before:
                before = tick
                self._turn(tick // 3600)
                self._seconds[0, min(says, LEVELS - 1)] += 1
            one = waiting.get(who)
            if one is not None and one[2] < 0 and tick >= one[0] + GRACE_S:
                one[2] = tick

    def aged(self, step: int) -> Aged:
        """After everything up to a step has been taken: how many became an hour old in it, how many of those nobody saw; the
        same of six hours; and of these, how many should have been verified, and were not. To be asked for every step."""
        end = STEP_S * (step + 1)
        self._turn((end - 1) // 3600)
        self._verifications.turn((end - 1) // 3600)
        hour = [self._waiting[who] for who in self._due(self._young, end - STEP_S * HOUR_STEPS)]
        long = [self._waiting.pop(who) for who in self._due_long(end - STEP_S * LONG_STEPS)]
        asked = [one for one in long if one[1] >= self._least and self._verifications.covers(one[0], one[1])]
        unverified = float(sum(not one[3] for one in asked))
        least = max(self._followed, self._least)
        hour, long = ([one for one in some if one[1] >= least] if self._heard else [] for some in (hour, long))
        return (
            float(len(hour)), _unseen(hour, HOUR_STEPS), float(len(long)), _unseen(long, LONG_STEPS),
            float(len(asked)), unverified,
        )  # fmt: skip

    def _due(self, young: deque[int], end: int) -> list[int]:
        found = []
        while young and self._waiting[young[0]][0] < end:
            found.append(young.popleft())
        return found

    def _due_long(self, end: int) -> list[int]:
        found = []
        for who, one in self._waiting.items():
            if one[0] >= end:
                break
            found.append(who)
        return found

    def _thin(self) -> None:
        self._least = 1 + min(one[1] for one in self._waiting.values())
        self._waiting = {who: one for who, one in self._waiting.items() if one[1] >= self._least}
        self._young = deque(who for who in self._young if who in self._waiting)

    def _turn(self, hour: int) -> None:
        """A new hour begins: what level was usual, and whether there was anything to see."""
        if hour <= self._hour:
            return
        if self._hour >= 0:
            self._read_off()
            passed = min(hour - self._hour, HOURS)
            self._seconds[passed:] = self._seconds[:-passed].copy()
            self._seconds[:passed] = 0
            self._heard &= passed == 1
        if self._least and len(self._waiting) < ACCOUNTS_MAX // 4:
            self._least -= 1
        self._hour = hour

    def _read_off(self) -> None:
        of_level = self._seconds.sum(axis=0)
        share = np.cumsum(of_level) / max(1, int(of_level.sum()))
        self._followed = int(np.searchsorted(share, FOLLOWED_SHARE))
        of_hour = self._seconds.sum(axis=1)
        known = of_hour[of_hour > 0]
        self._heard = bool(len(known)) and bool(2 * of_hour[0] >= known.mean())

    def save(self) -> list[Any]:
        """Arrays for `load`."""
        waiting = np.array([[who, *one] for who, one in self._waiting.items()], np.int64).reshape(-1, WAITING_WORDS)
        said = [len(self._young), self._least, self._hour, self._followed, int(self._heard)]
        return [waiting, self._seconds.copy(), np.array(said, np.int64), *self._verifications.save()]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is of other columns, or does not fit together.
        """
        waiting, seconds, said, *verifications = data
        shapes = (HOURS, LEVELS), (5,)
        if waiting.shape[1:] != (WAITING_WORDS,) or (seconds.shape, said.shape) != shapes or not 0 <= said[0] <= len(waiting):
            raise StateError(
                f"expected accounts of {WAITING_WORDS} columns and seconds of {shapes[0]}, got {waiting.shape}, {seconds.shape}"
            )
        self._waiting = {who: one for who, *one in waiting.tolist()}
        young, self._least, self._hour, self._followed, heard = said.tolist()
        self._young = deque(waiting[len(waiting) - young :, 0].tolist())
        self._seconds, self._heard = seconds.copy(), bool(heard)
        self._verifications.load(verifications)


def _unseen(accounts: list[list[int]], age_steps: int) -> float:
    """How many of them nobody saw before they were so old."""
    return float(sum(not 0 <= seen < made + STEP_S * age_steps for made, _, seen, _ in accounts))
