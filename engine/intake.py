"""What a judge has accepted: segments of source partitions, their watermark, and where ticks lie in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.digesting import digest_between
from schemas.tally import NO_DIGEST, SILENT_MS, UNKNOWN_MS, Digest, Tally

ANY_OFFSET = -1
"""Expected of a source partition whose first segment may begin anywhere."""
COARSE_S = 600
"""Of seconds that only long windows reach, segments are kept together by so many: evidence is a superset all the same."""
SILENT_REACH_MS = 3000
"""So far, and no further than the lateness, a source partition that has never held anything lets time go on past where the
others were at its last word but one: two such words, a second apart each, and a flush, so that it holds nobody back who
keeps pace with the clock. Its first events may be late by that much less."""
PIECES_MAX = 32
"""Digests in the evidence of one mitigation, over all its source partitions; each partition has one at least …"""
PIECES_OF_SOURCE_MAX = 8
"""… and at most so many: 30 bytes each, and what does not agree is known to an eighth of the evidence."""
Segment = tuple[int, int, int, int, Digest]
"""(from, to, least tick, greatest tick, digest)"""


@dataclass(slots=True)
class SourceState:
    """One source partition as the judge sees it."""

    expected: int
    newest_ms: int = UNKNOWN_MS
    open: bool = True
    left_behind: bool = False
    silent_ms: tuple[int, int] = (UNKNOWN_MS, UNKNOWN_MS)
    """Of one that has never held anything: how far the others were when it said so last but one, and last."""
    segments: deque[Segment] = field(default_factory=deque)
    old: deque[Segment] = field(default_factory=deque)
    """Those before, put together."""

    def put_away(self, segment: Segment) -> None:
        """Add a segment to the old ones."""
        if self.old and self.old[-1][2] // COARSE_S == segment[2] // COARSE_S:
            start, end, low, high, digest = self.old.pop()
            segment = (
                min(start, segment[0]), max(end, segment[1]), min(low, segment[2]), max(high, segment[3]),
                digest.joined(segment[4]),
            )  # fmt: skip
        self.old.append(segment)


class Intake:
    """Accepts the segment it expects next, drops what it has seen, counts a gap, and stops on an overlap."""

    def __init__(self, lateness_ms: int) -> None:
        self._lateness_ms = lateness_ms
        self.sources: dict[str, SourceState] = {}
        self.duplicates = 0
        self.gaps = 0
        self.left_behind = 0
        self.tick_max: int | None = None
        self._target: int | None = None

    def open(self, name: str, start: int) -> None:
        """A source partition begins, or begins again, at ``start``."""
        state = self.sources.get(name)
        if state is None:
            self.sources[name] = SourceState(start)
        else:
            state.expected, state.open = start, True

    def close(self, name: str) -> None:
        """A source partition has ended and holds the watermark back no more."""
        self.sources[name].open = False

    def accept(self, tally: Tally) -> tuple[bool, bool]:
        """(take the tally, there is a gap before it).

        Raises:
            RuntimeError: the segment overlaps what was accepted, which no correct observer sends.
        """
        state = self.sources[tally.source]
        if state.expected == ANY_OFFSET:
            state.expected = tally.start
        if tally.end <= state.expected and tally.end > tally.start:
            self.duplicates += 1
            return False, False
        if tally.start < state.expected:
            came = f"[{tally.start}, {tally.end})"
            raise RuntimeError(f"expected the segment of {tally.source} that begins at {state.expected}, got {came}")
        gap = tally.start > state.expected
        self.gaps += gap
        state.expected = tally.end
        if tally.newest_ms > state.newest_ms:
            state.newest_ms = tally.newest_ms
        elif state.newest_ms == SILENT_MS and tally.end > tally.start:
            state.newest_ms = UNKNOWN_MS  # it has begun to speak, of a time that is not confirmed yet
        if state.newest_ms == SILENT_MS:
            state.silent_ms = state.silent_ms[1], self._spoken_ms()
        if state.left_behind and self._target is not None and (state.newest_ms - self._lateness_ms) // 1000 > self._target:
            state.left_behind = False  # it has caught up, and counts again
        if tally.rows:
            self.remember(tally)
            self.tick_max = tally.tick_max if self.tick_max is None else max(self.tick_max, tally.tick_max)
        return True, gap

    def remember(self, tally: Tally) -> None:
        """Keep where the ticks of a tally lie in its source partition."""
        segments = self.sources[tally.source].segments
        new = (tally.start, tally.end, tally.tick_min, tally.tick_max, tally.digest)
        if segments:
            start, end, low, high, digest = segments[-1]
            if end == new[0] and (low, high) == (new[2], new[3]):
                segments[-1] = (start, new[1], low, high, digest.joined(new[4]))
                return
        segments.append(new)

    def target(self) -> int | None:
        """The last tick that no open source partition can add to; None while one of them has not said its time."""
        reached = min(map(self._reached_ms, self._counting()), default=UNKNOWN_MS)
        if reached != UNKNOWN_MS:
            tick = (reached - self._lateness_ms) // 1000 - 1
            self._target = tick if self._target is None else max(self._target, tick)
        return self._target

    def _reached_ms(self, state: SourceState) -> int:
        """Up to when a source partition has said everything, were nothing late; `UNKNOWN_MS`: it has yet to say.

        A silent one is behind the others by as much as they may have gone on in event time while it was found to be so. Of a
        log that is sent faster than it was recorded that is minutes, and its first events may be on their way: so its word
        counts for where they were one word before, which was a second ago.
        """
        if state.newest_ms != SILENT_MS:
            return state.newest_ms
        before = state.silent_ms[0]
        return before if before == UNKNOWN_MS else before + min(SILENT_REACH_MS, self._lateness_ms)

    def _counting(self) -> list[SourceState]:
        return [state for state in self.sources.values() if state.open and not state.left_behind]

    def _spoken_ms(self) -> int:
        """How far those are that have ever said anything; `UNKNOWN_MS`: there are none, or one has yet to say."""
        return min((state.newest_ms for state in self._counting() if state.newest_ms != SILENT_MS), default=UNKNOWN_MS)

    def leave_slowest(self) -> bool:
        """Let the slowest open source partition leave the minimum, because too much waits for it; False: none is left."""
        waiting = self._counting()
        if len(waiting) < 2:
            return False
        slowest = min(waiting, key=self._reached_ms)
        slowest.left_behind = True
        self.left_behind += 1
        return True

    def finish(self) -> int | None:
        """Close every source partition; the last tick of all."""
        for state in self.sources.values():
            state.open = False
        if self.tick_max is not None:
            self._target = self.tick_max if self._target is None else max(self._target, self.tick_max)
        return self._target

    def forget(self, before: int, long_before: int) -> None:
        """Ticks below ``long_before`` are in no window any more, those below ``before`` in long windows only."""
        for state in self.sources.values():
            while state.segments and state.segments[0][3] < before:
                segment = state.segments.popleft()
                if segment[3] >= long_before:
                    state.put_away(segment)
            while state.old and state.old[0][3] < long_before:
                state.old.popleft()

    def offsets(self, start: int, end: int) -> dict[str, tuple[int, int]]:
        """Per source partition the whole segments that touch ticks ``start <= t < end``, as one range."""
        return {
            name: (min(segment[0] for segment in touching), max(segment[1] for segment in touching))
            for name, touching in self._touching(start, end).items()
        }

    def digests(self, start: int, end: int) -> dict[str, tuple[tuple[int, str], ...]]:
        """Per source partition of `offsets`, (to, digest) of pieces that make up its range; none where a chain broke off."""
        touching = self._touching(start, end)
        most = max(1, min(PIECES_OF_SOURCE_MAX, PIECES_MAX // max(len(touching), 1)))
        return {name: pieces for name, segments in touching.items() if (pieces := _pieces(segments, most))}

    def _touching(self, start: int, end: int) -> dict[str, list[Segment]]:
        found = {}
        for name, state in self.sources.items():
            touching = [seg for part in (state.old, state.segments) for seg in part if seg[2] < end and seg[3] >= start]
            if touching:
                found[name] = touching
        return found

    def save(self, *, segments: bool = True) -> dict[str, Any]:
        """Plain data for `load`; without ``segments`` where they are remembered again from the tallies, but for old ones."""
        return {
            "sources": {
                name: [
                    state.expected,
                    state.newest_ms,
                    state.open,
                    state.left_behind,
                    list(state.segments) if segments else [],
                    list(state.old),
                    list(state.silent_ms),
                ]
                for name, state in self.sources.items()
            },
            "counts": [self.duplicates, self.gaps, self.left_behind],
            "tick_max": self.tick_max,
            "target": self._target,
        }

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        for name, (expected, newest_ms, is_open, left_behind, segments, old, silent) in data["sources"].items():
            entries, put_away = (deque(map(_segment, some)) for some in (segments, old))
            said = silent[0], silent[1]
            self.sources[name] = SourceState(expected, newest_ms, is_open, left_behind, said, entries, put_away)
        self.duplicates, self.gaps, self.left_behind = data["counts"]
        self.tick_max, self._target = data["tick_max"], data["target"]


def _segment(saved: Sequence[Any]) -> Segment:
    """One that was saved, be it before there were digests."""
    return saved[0], saved[1], saved[2], saved[3], Digest(*saved[4]) if len(saved) > 4 else NO_DIGEST


def _pieces(segments: list[Segment], most: int) -> tuple[tuple[int, str], ...]:
    """At most ``most`` pieces of about as many offsets each. A sum runs on through what lies between segments."""
    chain = segments[0][4].chain
    if chain == NO_DIGEST.chain or any(segment[4].chain != chain for segment in segments):
        return ()
    first, last = segments[0][0], segments[-1][1]
    before, pieces = segments[0][4].before, list[tuple[int, str]]()
    for segment in segments:
        whole = (segment[1] - first) * most // max(last - first, 1) > len(pieces)
        if whole or segment is segments[-1]:
            pieces.append((segment[1], digest_between(before, segment[4].after)))
            before = segment[4].after
    return tuple(pieces)
