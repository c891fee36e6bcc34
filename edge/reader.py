"""The one reader of the enforcement topic: what every edge makes of the records on it. It knows no Kafka and no firewall.

The rules, and why:

* Nothing is applied before the topic has been read to the end that it had at the start, or an old block would come back
  for the moment until its lift is read.
* Per key (target and detector) a lower (tick, stage) is ignored: a judge that crashed says again what it has said.
* Per target the strongest record counts that is active, has not expired, is no dry run and no drill, and that this edge
  supports. An edge never substitutes a harsher action: what it cannot do it refuses, and says so.
* An operator's record wins over every other of its target: a block, or an allow that keeps the others away.
* A target that touches the allowlist core is never acted on, whoever says so.
* A later record of a key replaces an earlier one whatever it says, a dry run too: compaction leaves only the later one,
  and a reader that starts then must come to the same table.
* Where keys are trusted, a record that none of them has signed for this topic, or that somebody kept and wrote again, changes
  nothing; it is counted and refused, with the reason.
* A record that cannot be read is counted and skipped: whoever broke one record must not stop the others.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Protocol

import msgspec

from edge.subject import Subject, parse_subject
from schemas.mitigation import OPERATOR, Distrust, Mitigation, Stage, State, Target, topic_key
from schemas.prefixes import Prefixes

ALLOW = "allow"
STRENGTH = {
    "notify": 0, "challenge": 1, "throttle": 2, "restrict_registration": 3, "block": 4, "disable_key": 5, ALLOW: 6,
}  # fmt: skip
"""Actions, weakest first. ``allow`` counts in an operator's record only."""
RECORD_BYTES_MAX = 1 << 20
"""Larger values are not decoded. A mitigation with all its evidence has a few kilobytes."""
TIME_MAX = 1 << 40
"""Seconds; later times are nonsense and would overflow the timers of firewalls."""
KEYS_MAX = 1_000_000
"""Keys of detectors held at once: five times the default of ``policy.active_max``, about 700 bytes each."""
OPERATOR_KEYS_MAX = 10_000
"""Keys of operators, held beside those, so that a flood of mitigations cannot crowd out an allow."""
REFUSALS_MAX = 100_000
"""Refusals that wait to be acknowledged; older ones are dropped and counted."""
_STAGES = {"early": 0, "final": 1}
_DUE_SLACK = 1024


Name = Annotated[str, msgspec.Meta(max_length=128)]
Sentence = Annotated[str, msgspec.Meta(max_length=4096)]
"""Bounds of what is kept of a record, so that ``keys_max`` bounds bytes and not only keys."""


# The structs here hold no cycles. Hidden from the garbage collector, a hundred thousand of them cost it nothing.
class Record(msgspec.Struct, frozen=True, gc=False):
    """What a reader needs of a mitigation; every other field is skipped while decoding."""

    id: Name
    tick: int
    stage: Stage
    state: State
    action: Name
    target: Target
    detector: Name
    reason: Sentence
    issued_at: int
    expires_at: int
    dry_run: bool = False
    drill: bool = False
    key_id: Name = ""
    sequence: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """What is compared within a key."""
        return self.tick, _STAGES[self.stage]


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What is in force on a subject."""

    action: str
    expires_at_ms: int
    record: Record


class Change(msgspec.Struct, frozen=True, gc=False):
    """One step for an enforcement point: make ``after`` true where ``before`` was."""

    kind: Literal["apply", "extend", "lift", "expire"]
    """``extend``: the same action until another time. ``expire``: as lift, but a firewall with timers of its own has
    done it already."""
    subject: Subject
    before: Standing | None
    after: Standing | None


RefusalReason = Literal["unsupported", "allowlisted", "full", "expired"] | Distrust


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A record that should be enforced and is not."""

    record: Record
    reason: RefusalReason


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """The latest record of a key."""

    record: Record
    remember_until: int
    """Seconds. Longer than the record lives when an earlier one lived longer: that one must not come back."""
    counts: bool
    """It is meant to be enforced, and this edge can: only its expiry may still speak against it."""


Supports = Callable[[Subject, str], bool]


class Verifies(Protocol):
    """Says who is believed: `broker.signing.Verifier`, which those who read no topic need not have installed."""

    def distrust(self, value: bytes, record: Record, taken_in_at_ms: int | None) -> Distrust | None:
        """Why a record is not believed; None: it is."""
        ...


class Reader:
    """Takes records in, keeps the latest of each key, and says what changes for an enforcement point.

    Args:
        core: the allowlist core.
        supports: whether the enforcement point can do an action to a subject.
        drills: also enforce drills; for rehearsals on a firewall of their own.
        keys_max: keys of detectors held at once; more are refused until some expire.
        verifier: says who is believed; None: everybody who can write to the topic.
    """

    def __init__(
        self, core: Prefixes, supports: Supports, *, drills: bool = False, keys_max: int = KEYS_MAX,
        verifier: Verifies | None = None,
    ) -> None:  # fmt: skip
        self._core = core
        self._supports = supports
        self._verifier = verifier
        self._drills = drills
        # Both by whether they are an operator's.
        self._keys_max = {False: keys_max, True: OPERATOR_KEYS_MAX}
        self._keys = {False: 0, True: 0}
        self._decoder = msgspec.json.Decoder(Record)
        self._kept: dict[Subject, dict[str, _Kept]] = {}
        self._table: dict[Subject, Standing] = {}
        self._dirty: set[Subject] = set()
        self._due: dict[int, set[Subject]] = {}
        self._seconds: list[int] = []
        self._due_entries = 0
        self._refusals: deque[Refusal] = deque(maxlen=REFUSALS_MAX)
        self._ends: dict[int, int] | None = None
        self._now_ms = 0
        """As of the last `changes`."""
        self.counts: Counter[str] = Counter()
        """``taken``, ``older``, and by reason what was not taken or is not enforced: ``malformed_…``,
        ``refused_…`` (its signature), ``allowlisted``, ``full``, ``unsupported``, ``expired`` (before it came)."""

    @property
    def ready(self) -> bool:
        """The topic has been read to the end that it had at the start."""
        return self._ends is not None and not self._ends

    @property
    def table(self) -> Mapping[Subject, Standing]:
        """What is in force, as of the last `changes`."""
        return MappingProxyType(self._table)

    def begin(self, ends: Mapping[int, int]) -> None:
        """Start, or start over after an absence longer than the topic keeps.

        What was in force stays so until the topic has been read to ``ends`` (end offset per partition); then `changes`
        gives the difference.
        """
        self._ends = {partition: end for partition, end in ends.items() if end > 0}
        self._kept.clear()
        self._due.clear()
        self._seconds.clear()
        self._due_entries = 0
        self._keys = {False: 0, True: 0}
        self._dirty = set(self._table)

    def reached(self, partition: int, position: int) -> None:
        """Every record of ``partition`` below ``position`` has been taken."""
        if self._ends and position >= self._ends.get(partition, position + 1):
            del self._ends[partition]

    def take(self, key: bytes | None, value: bytes | None, taken_in_at_ms: int | None = None) -> Record | None:
        """Take in one record as it lies on the topic; None: it is malformed or not believed, and counted by reason.

        Args:
            taken_in_at_ms: when the brokers took it in, by their own clock; None: they do not say.
        """
        if value is None:
            return self._malformed("no_value")
        if len(value) > RECORD_BYTES_MAX:
            return self._malformed("too_long")
        try:
            record = self._decoder.decode(value)
        except msgspec.ValidationError:
            return self._malformed("wrong_shape")
        except (msgspec.DecodeError, ValueError, RecursionError):
            return self._malformed("no_json")
        if key != topic_key(record.target, record.detector):
            return self._malformed("wrong_key")
        if self._verifier is not None:
            distrust = self._verifier.distrust(value, record, taken_in_at_ms)
            if distrust is not None:
                self._distrust(record, distrust)
                return None
        return self.take_record(record)

    def take_mitigation(self, mitigation: Mitigation) -> Record | None:
        """Take in a mitigation of this process."""
        return self.take_record(msgspec.convert(mitigation, Record, from_attributes=True))

    def take_record(self, record: Record) -> Record | None:
        """Take in one decoded record; None: its target or a time is nonsense."""
        if not (0 <= record.tick < TIME_MAX and 0 <= record.expires_at < TIME_MAX):
            return self._malformed("time")
        try:
            subject = parse_subject(record.target)
        except ValueError:
            return self._malformed("target")
        self.counts["taken"] += 1
        if self._core.touches(subject.low, subject.high):
            self._refuse(record, None, "allowlisted")
            return record
        of_subject = self._kept.get(subject)
        old = of_subject.get(record.detector) if of_subject is not None else None
        remember_until = record.expires_at
        if old is None:
            by_operator = record.detector == OPERATOR
            if self._keys[by_operator] >= self._keys_max[by_operator]:
                self._refuse(record, None, "full")
                return record
            self._keys[by_operator] += 1
        else:
            if self._is_older(record, old.record):
                return record
            remember_until = max(remember_until, old.remember_until)
        if of_subject is None:
            of_subject = self._kept[subject] = {}
        can = self._can(subject, record)
        of_subject[record.detector] = _Kept(record, remember_until, can and self._is_meant(record))
        self._dirty.add(subject)
        self._remind(record.expires_at, subject)
        if not can:
            self._refuse(record, old.record if old is not None else None, "unsupported")
        elif self.ready and record.expires_at * 1000 <= self._now_ms:
            self._refuse(record, None, "expired")
        return record

    def changes(self, now_ms: int) -> list[Change]:
        """What has to change at the enforcement point to be right at ``now_ms``; nothing before the reader is ready."""
        if not self.ready:
            return []
        self._now_ms = now_ms
        self._forget_expired(now_ms)
        found = []
        for subject in self._dirty:
            before, after = self._table.get(subject), self._winner(subject, now_ms)
            if after is None:
                if before is not None:
                    del self._table[subject]
                    found.append(Change("expire" if before.expires_at_ms <= now_ms else "lift", subject, before, None))
                continue
            self._table[subject] = after
            if before is None or before.action != after.action:
                found.append(Change("apply", subject, before, after))
            elif before.expires_at_ms != after.expires_at_ms:
                found.append(Change("extend", subject, before, after))
        self._dirty.clear()
        return found

    def refusals(self, now_ms: int) -> list[Refusal]:
        """What was refused since the last call and would still be in force, or had ended before it came."""
        found = [one for one in self._refusals if one.record.expires_at * 1000 > now_ms or one.reason == "expired"]
        self._refusals.clear()
        return found

    def standing(self, subject: Subject, now_ms: int) -> list[Record]:
        """Every record of a subject that is in force or would be, were it not for a stronger one."""
        kept = self._kept.get(subject, {}).values()
        return [one.record for one in kept if one.counts and one.record.expires_at * 1000 > now_ms]

    def resting(self, now_ms: int) -> list[tuple[Subject, int]]:
        """Subjects with records of which none is in force, and until when (ms) something was or could have been.

        Whoever held something about them before it read the topic has to let go of it.
        """
        found = []
        for subject, of_subject in self._kept.items():
            until_ms = 1000 * max((kept.remember_until for kept in of_subject.values()), default=0)
            if subject not in self._table and until_ms > now_ms:
                found.append((subject, until_ms))
        return found

    def _winner(self, subject: Subject, now_ms: int) -> Standing | None:
        of_subject = self._kept.get(subject)
        if of_subject is None:
            return None
        best: Record | None = None
        for kept in of_subject.values():
            record = kept.record
            if not kept.counts or record.expires_at * 1000 <= now_ms:
                continue
            if record.detector == OPERATOR:
                best = record
                break
            if best is None or _strength(record) > _strength(best):
                best = record
        return None if best is None else Standing(best.action, best.expires_at * 1000, best)

    def _is_meant(self, record: Record) -> bool:
        meant = record.state == "active" and not record.dry_run and (self._drills or not record.drill)
        return meant and record.action != "notify"

    def _can(self, subject: Subject, record: Record) -> bool:
        if record.action == ALLOW and record.detector != OPERATOR:
            return False
        return record.action in STRENGTH and self._supports(subject, record.action)

    def _is_older(self, record: Record, old: Record) -> bool:
        """Whether it comes after what it comes before; counts which of two reasons that has.

        A judge that crashed says again what it has said, signed anew: by another machine's clock perhaps earlier. Anything else
        that was signed before what we have was kept by somebody and written again.
        """
        is_older = record.order < old.order
        if self._verifier is None:
            self.counts["older"] += is_older
            return is_older
        if record.order > old.order or (record.order == old.order and record.sequence >= old.sequence):
            return False
        repeated = msgspec.structs.replace(record, key_id=old.key_id, sequence=old.sequence) == old
        if repeated or record.sequence > old.sequence:
            self.counts["older"] += 1
        else:
            self._distrust(record, "replayed")
        return True

    def _distrust(self, record: Record, reason: Distrust) -> None:
        """Count it, and have it acknowledged if it asks for anything."""
        self.counts[f"refused_{reason}"] += 1
        if self._is_meant(record):
            self._wait_to_tell(record, reason)

    def _refuse(self, record: Record, old: Record | None, reason: RefusalReason) -> None:
        if not self._is_meant(record) or (old is not None and (old.id, old.action) == (record.id, record.action)):
            return
        self.counts[reason] += 1
        self._wait_to_tell(record, reason)

    def _wait_to_tell(self, record: Record, reason: RefusalReason) -> None:
        self.counts["refusals_dropped"] += len(self._refusals) == REFUSALS_MAX
        self._refusals.append(Refusal(record, reason))

    def _malformed(self, reason: str) -> Record | None:
        """Count it; gives what `take` then returns: no record."""
        self.counts[f"malformed_{reason}"] += 1
        return None

    def _remind(self, second: int, subject: Subject) -> None:
        """Look at the subject again when a record expires; one entry per subject and second."""
        due = self._due.get(second)
        if due is None:
            due = self._due[second] = set()
            heapq.heappush(self._seconds, second)
        if subject not in due:
            due.add(subject)
            self._due_entries += 1
        if self._due_entries > 4 * (self._keys[False] + self._keys[True]) + _DUE_SLACK:
            self._remind_anew()

    def _remind_anew(self) -> None:
        """Renewals have left reminders behind that nobody needs: keep two per key."""
        self._due.clear()
        for subject, of_subject in self._kept.items():
            for kept in of_subject.values():
                for second in (kept.record.expires_at, kept.remember_until):
                    self._due.setdefault(second, set()).add(subject)
        self._seconds = sorted(self._due)
        self._due_entries = sum(map(len, self._due.values()))

    def _forget_expired(self, now_ms: int) -> None:
        while self._seconds and self._seconds[0] * 1000 <= now_ms:
            second = heapq.heappop(self._seconds)
            subjects = self._due.pop(second)
            self._due_entries -= len(subjects)
            for subject in subjects:
                self._dirty.add(subject)
                self._forget(subject, second, now_ms)

    def _forget(self, subject: Subject, second: int, now_ms: int) -> None:
        of_subject = self._kept.get(subject, {})
        for detector, kept in list(of_subject.items()):
            if kept.remember_until * 1000 <= now_ms:
                del of_subject[detector]
                self._keys[detector == OPERATOR] -= 1
            elif kept.record.expires_at == second:
                self._remind(kept.remember_until, subject)
        if not of_subject:
            self._kept.pop(subject, None)


def _strength(record: Record) -> tuple[int, int]:
    return STRENGTH[record.action], record.expires_at
