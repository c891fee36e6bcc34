"""Where two copies of a source partition differ: record by record, so that the first offset can be named."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from replay.verify import Place, Report
from replay.verify_reading import Source


def narrow(report: Report) -> None:
    """Pieces of several mitigations overlap: what lies in one that is equal is equal in the others too, and is left out."""
    equal: dict[str, list[tuple[int, int]]] = {}
    for one in report.verified:
        for place in one.equal:
            equal.setdefault(place.source, []).append((place.start, place.end))
    for one in report.verified:
        one.places = [_without(place, sorted(set(equal.get(place.source, ())))) for place in one.places]


def _without(place: Place, equal: list[tuple[int, int]]) -> Place:
    """What is left of its beginning and its end; equal pieces within leave a place that says too much, and not too little."""
    start, end = place.start, place.end
    for low, high in equal:
        if low <= start < high:
            start = high
    for low, high in reversed(equal):
        if low < end <= high:
            end = low
    return Place(place.source, start, end) if start < end else place


def first_difference(original: Source, copy: Source, place: Place) -> tuple[int, str] | None:
    """(the first offset in a place where two sources differ, how); None: they hold the same there."""
    pairs = zip_longest(_records(original, place), _records(copy, place))
    for ours, theirs in pairs:
        if ours is None or theirs is None:
            one = ours or theirs
            assert one is not None
            return one[0], "only the original has it" if theirs is None else "only the copy has it"
        if ours != theirs:
            at = min(ours[0], theirs[0])
            if ours[0] != theirs[0]:
                return at, "only one of them has it"
            if ours[2] != theirs[2]:
                return at, f"byte {_first_byte(ours[2], theirs[2])} of the record"
            return at, "its time"
    return None


def _first_byte(ours: bytes, theirs: bytes) -> int:
    return next((k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))


def _records(source: Source, place: Place) -> Iterator[tuple[int, int, bytes]]:
    for portion in source.portions(place.start, place.end):
        yield from portion.records(place.start, place.end)
