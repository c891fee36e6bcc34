"""An operator's verdict on a decision: found among decisions, made into a record, and asked whether it would count."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from edge.reader import OPERATOR
from engine.feedback import Admission
from schemas.config import Config
from schemas.errors import SourceError, UsageError
from schemas.feedback import FEEDBACK_BYTES_MAX, SETTLE_S, Feedback, Verdict, encode_feedback
from schemas.mitigation import Target


def decision_in(lines: Iterable[bytes], identifier: str) -> dict[str, object] | None:
    """The last mitigation or finding of this id among lines of JSON."""
    wanted, found = identifier.encode(), None
    for line in lines:
        if wanted not in line:
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(record, dict) and record.get("id") == identifier and record.get("detector") != OPERATOR:
            found = record
    return found


def decision_in_files(files: list[Path], identifier: str) -> dict[str, object] | None:
    """The same in files that ``replay`` or ``watch`` have written.

    Raises:
        SourceError: one cannot be read.
    """
    for path in files:
        try:
            with path.open("rb") as file:
                found = decision_in(file, identifier)
        except OSError as error:
            raise SourceError(f"expected decisions in {path}, got: {error.strerror or error}") from None
        if found is not None:
            return found
    return None


def make_feedback(
    decision: dict[str, object], verdict: Verdict, *, who: str, reason: str, when: int, tick: int
) -> Feedback:  # fmt: skip
    """The record of a verdict.

    Raises:
        UsageError: a word is missing or too long, or the decision is none.
    """
    if not who.strip() or len(who) > 128:
        raise UsageError(f"expected who says so, in 1 to 128 characters, got {who[:64]!r}")
    if len(reason) > 256:
        raise UsageError(f"expected a reason of at most 256 characters, got {len(reason)}")
    try:
        target = decision["target"]
        assert isinstance(target, dict)
        record = Feedback(
            id=str(decision["id"]), verdict=verdict, detector=str(decision["detector"]),
            detector_version=int(str(decision["detector_version"])),
            target=Target(type=str(target["type"]), value=str(target["value"])),
            finding=str(decision.get("finding", decision["id"])), who=who, reason=reason, when=when, tick=tick,
        )  # fmt: skip
    except (AssertionError, KeyError, ValueError):
        raise UsageError(f"expected a mitigation or finding, got {str(decision)[:80]!r}") from None
    if len(encode_feedback(record)) >= FEEDBACK_BYTES_MAX:
        raise UsageError(f"expected a record of at most {FEEDBACK_BYTES_MAX} bytes, got a longer one")
    return record


def holds_from(config: Config, now: int) -> int:
    """The second from which what is said now holds: every judge has read it before it decides that one."""
    return now + config.time.lateness_s + SETTLE_S


def check_counts(config: Config, given: Iterable[bytes], record: Feedback) -> None:
    """Ask whether a record would count beside those that were given before.

    Raises:
        UsageError: there are too many of the same who or day, or it has been said.
    """
    admission = Admission(config.policy)
    for value in given:
        admission.read(value)
    why = admission.why_not(record)
    if why == "over_cap":
        most = config.policy.feedback_per_day_max
        raise UsageError(
            f"expected at most {most} records of feedback a day of {record.who[:64]!r} (policy.feedback_per_day_max), this is "
            "one more; judges would ignore it"
        )
    if why == "repeated":
        raise UsageError(f"expected a verdict that has not been given, {record.id} was called {record.verdict} before")
