"""Mitigations put together: by target and detector, and in time as incidents with their phases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.in_force import is_enforced
from replay.coverage import SOMEBODY
from replay.report.document import Phase
from schemas.mitigation import Mitigation

QUIET_S = 900
"""After so long without a crossing, the next one is another incident."""
SIGNS_S = 120
"""Windows up to this long say about when something began; in longer ones honest traffic lies, too."""
FIRST_S = 10
"""Targets whose limits were crossed so soon after the first are an incident's first ones."""
PAUSE_S = 30
"""Before a silence this long, a target's requests are not held to belong to what followed."""


@dataclass(slots=True)
class Told:
    """Everything by one detector about one target."""

    best: Mitigation
    """What says most: enforced rather than not, then the most severe, then the furthest over its limit."""
    first: Mitigation
    count: int
    last: int
    until: int
    lifted: int | None = None

    @property
    def standing(self) -> str:
        """As in `replay.report.document.TargetStory`."""
        if self.lifted is not None and not is_enforced(self.best):
            return "lifted"
        if is_enforced(self.best):
            return "enforced"
        if self.best.dry_run:
            return "dry_run"
        return "held" if self.best.state == "held" else "notice"


@dataclass(slots=True)
class Group:
    """An incident in the making."""

    told: list[Told]
    crossed: int
    last: int


def by_target(mitigations: Iterable[Mitigation]) -> list[Told]:
    """Final records of each target and detector together, those to be told of first in front."""
    found: dict[tuple[str, str, str], Told] = {}
    lifted: dict[tuple[str, str, str], int] = {}
    for one in mitigations:
        key = one.target.type, one.target.value, one.detector
        if one.state == "lifted":
            lifted[key] = one.tick
            continue
        told = found.get(key)
        if told is None:
            found[key] = Told(one, one, 1, one.tick, one.expires_at)
            continue
        told.count += 1
        told.last, told.until = max(told.last, one.tick), max(told.until, one.expires_at)
        if one.tick < told.first.tick:
            told.first = one
        if weight(one) > weight(told.best):
            told.best = one
    for key, tick in lifted.items():
        if key in found:
            found[key].lifted = tick
            found[key].until = min(found[key].until, tick) if tick > found[key].last else found[key].until
    return sorted(found.values(), key=lambda told: (*(-part for part in weight(told.best)), told.first.tick, told.best.id))


def weight(one: Mitigation) -> tuple[int, int, float]:
    """How much a record has to say."""
    return int(is_enforced(one)), one.severity, one.observed / max(one.limit, 1)


def incidents_of(told: Sequence[Told], ticks: dict[int, list[int]]) -> list[Group]:
    """Told in time; ``ticks``: by place in ``told``, the seconds of all its mitigations."""
    crossings = sorted((tick, place) for place, all_ticks in ticks.items() for tick in all_ticks)
    groups: list[Group] = []
    places: set[int] = set()
    for tick, place in crossings:
        if not groups or tick - groups[-1].last > QUIET_S:
            groups.append(Group([], tick, tick))
            places = set()
        groups[-1].last = tick
        if place not in places:
            places.add(place)
            groups[-1].told.append(told[place])
    return groups


def first_ones(group: Group) -> list[Told]:
    """The first targets of an incident, those that are one party in front: what many share is never silent."""
    found = [told for told in group.told if told.first.tick - group.crossed <= FIRST_S]
    return sorted(found, key=lambda told: (told.best.target.type not in SOMEBODY, told.first.tick, told.first.id))


def began(group: Group, seen: dict[str, int], start: int) -> int:
    """The first sign of an incident.

    ``seen``: by the id of a target's first mitigation, when it was first seen, where its traffic was read again. Where none
    was, the window that was counted begins with the first sign at the earliest.
    """
    known = [seen[told.first.id] for told in first_ones(group) if told.first.id in seen]
    if known:
        return max(min(*known, group.crossed), start)
    windows = [told.first.window for told in first_ones(group)]
    return max(min([one.start for one in windows if one.end - one.start <= SIGNS_S] + [group.crossed]), start)


def first_seen(per_second: Sequence[int | None], start: int) -> int | None:
    """When a target began what its last requests belong to."""
    found, silent = None, 0
    for place in range(len(per_second) - 1, -1, -1):
        if per_second[place]:
            found, silent = start + place, 0
        else:
            silent += 1
            if found is not None and silent >= PAUSE_S:
                break
    return found


def phases_of(span: tuple[int, int], signs: int, crossed: int, decided: int | None, last: int) -> list[Phase]:
    """Before, onset, attack, mitigated, after; those that there were."""
    edges = [
        ("before", span[0], signs, "as usual"),
        ("onset", signs, crossed, "first signs, below every limit"),
    ]
    if decided is None:
        edges += [("attack", crossed, last + 1, "over a limit; only people were to be told")]
    else:
        edges += [
            ("attack", crossed, min(decided, last + 1), "over a limit, nothing in force yet"),
            ("mitigated", decided, last + 1, "going on, mitigations in force"),
        ]
    edges += [("after", max(last + 1, decided or 0), span[1], "nothing is found any more")]
    return [Phase(name=name, start=start, end=end, text=text) for name, start, end, text in edges if end > start]
