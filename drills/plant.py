"""Attacks planted into a real access log: their lines between its own, in its time, at shares of its own rate."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from drills.attacks.catalogue import ATTACKS
from drills.attacks.strengths import StrengthName
from drills.columns import I64, Events, mixed
from drills.files import explained, write_labels, writing
from drills.labels import Truth, labels_of
from drills.render import combined_lines
from drills.run import PER_SECOND_MAX, PER_SECOND_MIN, Drill, Plan
from schemas.errors import SourceError, UsageError

Lines = Callable[[], Iterator[bytes]]
"""Reads a log from its beginning: whole lines, each with its newline except perhaps the last."""
TAILS_MAX = 4096
"""Lines of the log that attacks which mimic take theirs from."""
_TIME = re.compile(rb"\[(\d{2})/([A-Z][a-z]{2})/(\d{4}):(\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})\]")
_MONTHS = {name.encode(): index for index, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1)}  # fmt: skip


@dataclass(slots=True)
class Survey:
    """What a log is like."""

    lines: int = 0
    first_s: int = 0
    last_s: int = 0
    tails: list[bytes] = field(default_factory=list)
    """Of some of its lines, by chance: what stands behind the time."""


def second_of(line: bytes) -> int | None:
    """When a line says that it was, in Unix seconds; none: it does not say."""
    found = _TIME.search(line)
    if found is None or found[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(found[group]) for group in (1, 3, 4, 5, 6))
    offset = timedelta(hours=int(found[8]), minutes=int(found[9]))
    try:
        zone = timezone(offset if found[3 + 4] == b"+" else -offset)
        moment = datetime(year, _MONTHS[found[2]], day, hour, minute, min(second, 59), tzinfo=zone)
    except ValueError:
        return None
    return int(moment.astimezone(UTC).timestamp())


def survey(log: Lines, seed: int) -> Survey:
    """Read a log once.

    Raises:
        SourceError: no line of it has a time.
    """
    random = np.random.default_rng((seed, 9500))
    found = Survey()
    timed = 0
    for line in log():
        found.lines += 1
        second = second_of(line)
        if second is None:
            continue
        found.first_s = second if not timed else min(found.first_s, second)
        found.last_s = max(found.last_s, second)
        timed += 1
        tail = line[line.find(b"] ") + 2 :].rstrip(b"\r\n")
        if len(found.tails) < TAILS_MAX:
            found.tails.append(tail)
        elif (place := int(random.integers(0, timed))) < TAILS_MAX:
            found.tails[place] = tail
    if not timed:
        raise SourceError(
            f"expected lines of an access log with [day/month/year:hour:minute:second zone], got {found.lines} without"
        )
    return found


@dataclass(frozen=True, slots=True)
class Planted:
    """What came of it."""

    truth: Truth
    lines: int
    planted: int


def plant(
    log: Lines, names: Sequence[str], folder: Path, *, seed: int, strength: StrengthName, at_s: tuple[int, ...] = (),
    normal_per_second: float | None = None,
) -> Planted:  # fmt: skip
    """Write the log with the attacks in it as ``access.log``, every line of its own as it was, and the labels.

    Args:
        normal_per_second: what strengths that are shares are shares of; none: the log's own rate.
        at_s: seconds after the log's first at which each attack begins; none: spread over it.

    Raises:
        SourceError: the log has no times, or something cannot be written. UsageError: the attacks do not fit.
    """
    if not names:
        raise UsageError("expected attacks to plant into the log, got none: see `floodwall drill list`")
    found = survey(log, seed)
    span_s = found.last_s - found.first_s + 1
    own = min(max(found.lines / span_s, PER_SECOND_MIN), PER_SECOND_MAX)
    per_second = own if normal_per_second is None else normal_per_second
    drill = Drill(
        Plan(
            seed=seed, start_s=found.first_s, span_s=span_s, events_per_second=per_second, attacks=tuple(names),
            strength=strength, at_s=at_s, storms="none", honest=False,
        )
    )  # fmt: skip
    truth = Truth(drill)
    truth.streams["access-log"][0] = found.lines
    hostile = _hostile_lines(drill, truth, found.tails)
    count = 0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(writing(folder / "access.log"))
        labels = stack.enter_context(writing(folder / "access.log.labels"))
        with explained(folder):
            for line, label in _merged(log(), hostile):
                file.write(line)
                labels.write(label.to_bytes(2, "little"))
                count += 1
    write_labels(truth, folder)
    return Planted(truth, count, count - found.lines)


def _merged(log: Iterator[bytes], hostile: Iterator[tuple[int, int, bytes]]) -> Iterator[tuple[bytes, int]]:
    """(line, label): a planted line comes after the log's own of its second, and the log's own keep their order."""
    now_s = 0
    waiting = next(hostile, None)
    ends = True
    for line in log:
        now_s = max(now_s, second_of(line) or 0)
        while waiting is not None and waiting[0] < now_s * 1000:
            yield waiting[2], waiting[1]
            waiting = next(hostile, None)
        ends = line.endswith(b"\n")
        yield line, 0
    while waiting is not None:
        # The log's last line may lack its newline; the first that follows brings it.
        yield (waiting[2] if ends else b"\n" + waiting[2]), waiting[1]
        ends = True
        waiting = next(hostile, None)


def _hostile_lines(drill: Drill, truth: Truth, tails: list[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """(time in ms, label, line) of every hostile event, in order."""
    mimics = np.array([False] + [ATTACKS[hostile.name].mimics for hostile in drill.hostile])
    for events in drill.blocks():
        truth.note(events)
        which = _tails_for(events, mimics, len(tails), drill.plan.seed)
        written = combined_lines(events, drill.world.actors, tails, which)
        times = events["time_ms"].tolist()
        yield from zip(times, labels_of(events, "events").tolist(), written, strict=True)


def _tails_for(events: Events, mimics: np.ndarray, tails: int, seed: int) -> I64:
    drawn = (mixed(seed, 9501, events["id"]) % np.uint64(tails)).astype(np.int64)
    return np.where(mimics[events["attack"]], drawn, -1)
