"""Feedback in a judge: which records wait for their second, and which targets are not to be mitigated again.

A record holds from the second of event time that it names, so that every judge, and a replay, takes it in between the same
two seconds, whenever it arrives. One whose second has been decided by then holds from the next second that is closed; it is
counted, because a replay would take it in earlier.
"""

from __future__ import annotations

import bisect
from collections import Counter, OrderedDict
from typing import Any

import msgspec

from detectors.kernels.windows import NEVER
from schemas.config import Policy as PolicyConfig
from schemas.feedback import Feedback, decode_feedback

DAY_S = 86_400
DAY_RECORDS_MAX = 10_000
"""Records that take effect in one day, whoever gives them: 4 MB. Names are easily invented."""
SAID_MAX = 20_000
"""Decisions whose verdicts are remembered, so that none is learned from twice."""
KEPT_DAYS = 14
"""Of whose records the number is known, once so many have given some: records hold at most a week after they were given."""
Whom = tuple[str, str, str]
"""(detector, type of target, its value)"""


class Admission:
    """Decides which records count, in the order in which they lie on the topic: the same for all who read it.

    Args:
        config: with ``feedback_per_day_max``.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._per_day_max = config.feedback_per_day_max
        self._given: Counter[tuple[str, int]] = Counter()
        self._days: Counter[int] = Counter()
        self._said: OrderedDict[tuple[str, str, int], None] = OrderedDict()
        self.refused: Counter[str] = Counter()
        """By reason: ``malformed``, ``over_cap``, ``repeated``."""

    def read(self, data: bytes) -> Feedback | None:
        """The record, if it counts."""
        try:
            record = decode_feedback(data)
        except ValueError:
            self.refused["malformed"] += 1
            return None
        reason = self.why_not(record)
        if reason is not None:
            self.refused[reason] += 1
            return None
        day = record.tick // DAY_S
        self._given[record.who, day] += 1
        self._days[day] += 1
        if len(self._given) > SAID_MAX:
            last = max(self._days)
            self._given = Counter({one: many for one, many in self._given.items() if one[1] > last - KEPT_DAYS})
            self._days = Counter({one: many for one, many in self._days.items() if one > last - KEPT_DAYS})
        self._said[_said(record)] = None
        if len(self._said) > SAID_MAX:
            self._said.popitem(last=False)
        return record

    def why_not(self, record: Feedback) -> str | None:
        """Why a record would not count now; None: it would."""
        if _said(record) in self._said:
            return "repeated"
        day = record.tick // DAY_S
        full = self._given[record.who, day] >= self._per_day_max or self._days[day] >= DAY_RECORDS_MAX
        return "over_cap" if full else None

    def save(self) -> list[Any]:
        """Plain data for `load`."""
        return [[[*key, many] for key, many in self._given.items()], list(self._days.items()), list(self._said)]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave."""
        given, days, said = data
        self._given = Counter({(who, day): many for who, day, many in given})
        self._days = Counter(dict(days))
        self._said = OrderedDict(((finding, verdict, tick), None) for finding, verdict, tick in said)


def _said(record: Feedback) -> tuple[str, str, int]:
    # A model may be reset again and again, a verdict is given once.
    return record.finding or record.id, record.verdict, record.tick if record.verdict == "reset" else 0


class FeedbackRecords:
    """The records of one judge.

    Args:
        allow_s: how long a false positive keeps its target from being mitigated again.
    """

    def __init__(self, allow_s: int) -> None:
        self._allow_s = allow_s
        self._records: list[tuple[int, Feedback]] = []
        """With the second from which each holds, in that order: those that wait, and those after the last snapshot."""
        self._rejected: dict[Whom, list[Feedback]] = {}
        self.next = 0
        """The offset of the topic that follows the last record received; without a topic, nought."""
        self.late = 0
        """Records that arrived after their second."""
        self.learned = 0
        """Records that a learned detector took as its own."""

    def receive(self, record: Feedback, closed: int) -> None:
        """A record has come, after ``closed`` was decided."""
        tick = record.tick
        if closed != NEVER and tick <= closed:
            self.late += 1
            tick = closed + 1
        bisect.insort(self._records, (tick, record), key=_order)
        self.remember(record)

    def remember(self, record: Feedback) -> None:
        """Only whom it keeps from being mitigated: what else it does has been done."""
        if record.verdict != "false_positive":
            return
        said = self._rejected.setdefault((record.detector, record.target.type, record.target.value), [])
        if record not in said:
            said.append(record)

    def next_tick(self, closed: int) -> int | None:
        """The second from which the first record holds that is not in force when ``closed`` is decided."""
        at = bisect.bisect_right(self._records, closed, key=lambda one: one[0])
        return self._records[at][0] if at < len(self._records) else None

    def waiting(self, closed: int) -> int:
        """Records whose second has not been decided."""
        return sum(tick > closed for tick, _ in self._records)

    def due(self, after: int, upto: int) -> list[tuple[int, Feedback]]:
        """The records that hold from a second on with ``after`` < second ≤ ``upto``, in their order."""
        return [one for one in self._records if after < one[0] <= upto]

    def rejection(self, detector: str, kind: str, value: str, tick: int) -> Feedback | None:
        """What keeps a target from being mitigated for what a detector says of this second."""
        if not self._rejected:
            return None
        for record in self._rejected.get((detector, kind, value), ()):
            if record.tick <= tick < record.tick + self._allow_s:
                return record
        return None

    def forget(self, closed: int, covered: int) -> None:
        """Snapshots of models cover the seconds up to ``covered``: no record before is needed to make them again."""
        first = bisect.bisect_right(self._records, min(closed, covered), key=lambda one: one[0])
        if first:
            del self._records[:first]
        for whom, said in list(self._rejected.items()):
            if all(record.tick + self._allow_s <= closed for record in said):
                del self._rejected[whom]

    def save(self, *, rejected: bool) -> dict[str, Any]:
        """Plain data for `load`; without ``rejected`` the topic is read from its beginning, and `remember` told of it."""
        return {
            "next": self.next,
            "late": self.late,
            "learned": self.learned,
            "records": [[tick, msgspec.to_builtins(record)] for tick, record in self._records],
            "rejected": [
                msgspec.to_builtins(record) for said in (self._rejected.values() if rejected else ()) for record in said
            ],
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        self.next, self.late, self.learned = data["next"], data["late"], data["learned"]
        self._records = [(tick, msgspec.convert(record, Feedback)) for tick, record in data["records"]]
        for plain in data["rejected"]:
            self.remember(msgspec.convert(plain, Feedback))


def _order(one: tuple[int, Feedback]) -> tuple[int, str, str, str]:
    tick, record = one
    return tick, record.id, record.verdict, record.who
