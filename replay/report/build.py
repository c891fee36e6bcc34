"""The report of a run: what was gathered, decided and read again, put together. Nothing of it is drawn here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.in_force import InForce, in_force_of, is_enforced
from replay.collected import Collected
from replay.coverage import SOMEBODY, merged
from replay.report import words
from replay.report.document import (
    Choice,
    Collateral,
    Detail,
    Incident,
    Quality,
    Report,
    Reproduce,
    TargetStory,
    Times,
    WhatIf,
)
from replay.report.gather import Gathering
from replay.report.incidents import SIGNS_S, Group, Told, began, by_target, first_ones, first_seen, incidents_of, phases_of
from replay.report.tables import Usual, registrations_of, talkers_of, timeline_of
from replay.report.talking import BLOCKS, PER_BLOCK
from replay.run import Outcome
from replay.shown import Shown
from schemas.config import Config
from schemas.fields import Dimension
from schemas.mitigation import Mitigation

TARGETS_MAX = 5000
"""Told of one by one; a page with as many still opens at once."""
DETAILS_MAX = 10
"""Targets whose traffic is read again."""
INCIDENTS_MAX = 50
INCIDENTS_READ = 5
"""Of which the first target is read again, to see when it began."""
CHOICES = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_DIMENSIONS = {one.label: one for one in Dimension}
Reader = Callable[[Mitigation], Detail | None]
"""Reads the evidence of a mitigation again; none: that cannot be done, or would be too much."""


@dataclass(slots=True)
class Acknowledged:
    """What edges said of the mitigations: by id, the seconds from its publication until the first of them had applied it."""

    seconds: dict[str, float] = field(default_factory=dict)
    edges: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run left behind."""

    config: Config
    outcome: Outcome
    collected: Collected
    gathering: Gathering
    reproduce: Reproduce
    acknowledged: Acknowledged
    now: int
    early: dict[str, int] = field(default_factory=dict)
    """By id, when the early record of a mitigation was issued, where early ones were asked for."""


def build(ran: Ran, shown: Shown, read: Reader) -> Report:
    """The report as data."""
    told = by_target(ran.collected.mitigations)
    span = ran.gathering.span
    usual = _usual(ran)
    details = _details(told, read)
    groups = _groups(ran.collected, told)
    incidents = _incidents(groups, _first_seen(groups, details, read), ran.early, span, shown)
    force = in_force_of(ran.collected.mitigations)
    stopped = {(one.best.target.type, one.best.target.value): one.best.action for one in told if is_enforced(one.best)}
    timeline = timeline_of(ran.gathering, _marks(ran.collected, force, told))
    collateral = _collateral(ran.gathering, usual, stopped, shown)
    usuals = _usual_requests(ran.gathering, usual)
    targets = [_story(one, details.get(one.best.id), usuals, shown) for one in told[:TARGETS_MAX]]
    main = words.main_of(incidents)
    phases = [] if main is None else phases_of(span, main.began, main.crossed, main.decided, main.last)
    times = _times(main, told, ran.acknowledged)
    registrations = registrations_of(ran.gathering, usual, ran.collected, shown)
    quality = _quality(ran)
    summary = words.summarise(
        ran.outcome.account.counted, span, incidents, targets, collateral, times, quality, registrations, timeline
    )
    return Report(
        generated_at=ran.now, start=span[0], end=span[1], summary=summary, incidents=incidents, phases=phases,
        timeline=timeline, talkers=talkers_of(ran.gathering, usual, stopped, shown), registrations=registrations,
        targets=targets, targets_more=max(0, len(told) - TARGETS_MAX),
        mitigations=len(ran.collected.mitigations), findings=len(ran.collected.findings) + ran.collected.findings_missed,
        collateral=collateral, times=times, what_if=_what_if(ran.collected, told), quality=quality, reproduce=ran.reproduce,
    )  # fmt: skip


def _usual(ran: Ran) -> Usual:
    """The blocks of time before the first limit was crossed; where there is none, those without a crossing."""
    gathering = ran.gathering
    block_s = PER_BLOCK * gathering.width_s
    first, end = gathering.span
    blocks = np.arange(BLOCKS)
    starts = gathering.origin + blocks * block_s
    seconds = np.clip(np.minimum(starts + block_s, end) - np.maximum(starts, first), 0, None).astype(np.float64)
    found = [one for one in ran.collected.mitigations if one.state != "lifted"]
    if not found:
        return Usual(seconds > 0, np.zeros(BLOCKS, np.bool_), seconds, "all of it: no limit was crossed")
    renew_s = ran.config.policy.renew_s
    crossed, busy = np.zeros(BLOCKS, np.bool_), np.zeros(BLOCKS, np.bool_)
    spans = {
        tuple(
            min(max((tick - gathering.origin) // block_s, 0), BLOCKS - 1)
            # A window of an hour reaches far back into what was usual: only its last minutes are held against it. What lasts is
            # told once in each cell of renewal: it may go on to the end of that.
            for tick in (max(one.window.start, one.tick - SIGNS_S), one.tick + renew_s - 1, one.expires_at)
        )
        for one in found
    }
    for first_block, last_block, over in spans:
        crossed[first_block : last_block + 1] = True
        busy[first_block : over + 1] = True
    crossed &= seconds > 0
    before = (seconds > 0) & (blocks < min(first_block for first_block, _, _ in spans))
    if before.any():
        return Usual(before, crossed, seconds, "before the first limit was crossed")
    quiet = (seconds > 0) & ~busy
    return Usual(quiet, crossed, seconds, "the time in which nothing was in force" if quiet.any() else "")


def _groups(collected: Collected, told: list[Told]) -> list[Group]:
    place = {(one.best.target.type, one.best.target.value, one.best.detector): number for number, one in enumerate(told)}
    ticks: dict[int, list[int]] = {}
    for one in collected.mitigations:
        if one.state != "lifted":
            ticks.setdefault(place[one.target.type, one.target.value, one.detector], []).append(one.tick)
    return incidents_of(told, ticks)


def _details(told: list[Told], read: Reader) -> dict[str, Detail]:
    """The evidence of some targets: one of each kind first, then the most severe."""
    kinds: set[tuple[str, str]] = set()
    first: list[Told] = []
    rest: list[Told] = []
    for one in told:
        kind = one.best.target.type, words.kind_of(one)
        (rest if kind in kinds else first).append(one)
        kinds.add(kind)
    found: dict[str, Detail] = {}
    for one in (*first, *rest)[:DETAILS_MAX]:
        detail = read(one.best)
        if detail is not None:
            found[one.best.id] = detail
    return found


def _first_seen(groups: list[Group], details: dict[str, Detail], read: Reader) -> dict[str, int]:
    """By the id of a target's first mitigation when it began, for the first target of some incidents."""
    seen: dict[str, int] = {}
    for group in sorted(groups, key=lambda group: -len(group.told))[:INCIDENTS_READ]:
        one = first_ones(group)[0].first
        if one.target.type in SOMEBODY and one.window.end - one.window.start <= SIGNS_S:
            detail = details.get(one.id) or read(one)
            since = None if detail is None else first_seen(detail.per_second, detail.start)
            if since is not None:
                seen[one.id] = since
    return seen


def _incidents(
    groups: list[Group], seen: dict[str, int], early: dict[str, int], span: tuple[int, int], shown: Shown
) -> list[Incident]:  # fmt: skip
    found = []
    for number, group in enumerate(groups[:INCIDENTS_MAX], 1):
        enforced = [one for one in group.told if is_enforced(one.best)]
        issued = [early.get(one.first.id, one.first.issued_at) for one in group.told if is_enforced(one.first)]
        found.append(
            Incident(
                number=number,
                what=words.what_happened(group.told, shown),
                began=began(group, seen, span[0]),
                crossed=group.crossed,
                decided=max(min(issued), group.crossed) if issued else None,
                last=group.last,
                over=max(one.until for one in group.told),
                targets=len({one.best.target for one in group.told}),
                stopped=len({one.best.target for one in enforced}),
                detectors=sorted({one.best.detector for one in group.told}),
            )
        )
    return found


def _marks(collected: Collected, force: InForce, told: list[Told]) -> tuple[list[int], list[tuple[int, int]]]:
    """(the seconds at which a target's mitigation began, spans in force in seconds)."""
    spans = [(since // 1000, until // 1000) for together in force.enforced.values() for since, until in merged(together)]
    return [one.first.tick for one in told], spans


def _usual_requests(gathering: Gathering, usual: Usual) -> Callable[[str, str], int | None]:
    tables: dict[str, dict[str, npt.NDArray[np.int64]]] = {}

    def find(kind: str, value: str) -> int | None:
        dimension = _DIMENSIONS.get(kind)
        if dimension is None or not usual.is_known or dimension not in gathering.dimensions():
            return None
        if kind not in tables:
            tables[kind] = gathering.keys(dimension)
        blocks = tables[kind].get(value)
        if blocks is None:
            return None if gathering.pruned else 0
        return int(blocks[usual.blocks].sum())

    return find


def _collateral(gathering: Gathering, usual: Usual, stopped: dict[tuple[str, str], str], shown: Shown) -> Collateral:
    find = _usual_requests(gathering, usual)
    requests = int(gathering.total_blocks()[usual.blocks].sum()) if usual.is_known else 0
    touched, unknown, most, kinds = 0, 0, [], set()
    for kind, value in stopped:
        count = find(kind, value)
        if count is None:
            unknown += 1
        elif count:
            touched += count
            kinds.add(kind)
            most.append((f"{shown.value(kind, value)}", count))
    # A request has one address, one account, one route: only by two types of targets may it be counted twice.
    touched, exact = min(touched, requests), len(kinds) <= 1
    most.sort(key=lambda pair: (-pair[1], pair[0]))
    return Collateral(
        usual_s=int(usual.seconds[usual.blocks].sum()), usual_requests=requests, touched=touched,
        share=touched / requests if requests else 0.0, unknown=unknown, most=most[:10],
        text=words.collateral_text(requests, touched, unknown, len(stopped), exact=exact), exact=exact,
    )  # fmt: skip


def _story(told: Told, detail: Detail | None, usual: Callable[[str, str], int | None], shown: Shown) -> TargetStory:
    best = told.best
    return TargetStory(
        id=best.id, type=best.target.type, whom=shown.target(best.target), action=best.action, standing=told.standing,
        detector=best.detector, reason=shown.reason(best.reason, best.target), severity=best.severity,
        confidence=best.confidence, observed=best.observed, limit=best.limit, window_start=best.window.start,
        window_end=best.window.end, since=told.first.tick, last=told.last, until=told.until, count=told.count,
        usual_requests=usual(best.target.type, best.target.value),
        offsets=best.evidence.offsets if detail is not None else {},
        features=words.safe_features(best.evidence.features) if detail is not None else {}, detail=detail,
    )  # fmt: skip


def _times(main: Incident | None, told: Sequence[Told], acknowledged: Acknowledged) -> Times:
    first = sorted(acknowledged.seconds.values())
    enforce = first[len(first) // 2] if first else None
    detect = None if main is None else main.crossed - main.began
    decide = None if main is None or main.decided is None else main.decided - main.crossed
    return Times(
        detect_s=detect, decide_s=decide, enforce_s=enforce, enforced_by=acknowledged.edges,
        text=words.times_text(detect, decide, enforce, acknowledged.edges, acknowledged.note),
    )  # fmt: skip


def _what_if(collected: Collected, told: list[Told]) -> WhatIf:
    """Whom limits so many times as high would have found all the same, by the numbers of these findings."""
    ratios: dict[tuple[str, str], tuple[float, bool]] = {}
    without = 0
    for one in collected.mitigations:
        if one.state == "lifted":
            continue
        if one.limit <= 0 or one.observed < one.limit:
            without += 1
            continue
        key = one.target.type, one.target.value
        ratio, enforced = ratios.get(key, (0.0, False))
        ratios[key] = max(ratio, one.observed / one.limit), enforced or is_enforced(one)
    choices = [
        Choice(
            times=times,
            targets=sum(ratio >= times for ratio, _ in ratios.values()),
            stopped=sum(ratio >= times and enforced for ratio, enforced in ratios.values()),
        )
        for times in CHOICES
    ]
    return WhatIf(choices=choices if ratios else [], text=words.what_if_text(without))


def _quality(ran: Ran) -> Quality:
    account, gathering = ran.outcome.account, ran.gathering
    names = (
        "records", "events", "counted", "late", "outside", "empty", "stragglers", "time_replaced", "truncated", "aged_out",
        "held", "left_behind", "gaps", "duplicates",
    )  # fmt: skip
    notes = list(ran.collected.said())
    if gathering.pruned:
        notes.append(
            f"There were more keys than the table of talkers holds; the least busy were forgotten {gathering.pruned:,} times, "
            "so that counts of quiet keys may be too low, never too high."
        )
    if gathering.unplaced:
        notes.append(f"{gathering.unplaced:,} rows have a time that nothing else confirmed: they are not in the timeline.")
    if ran.outcome.interrupted:
        notes.append("The replay was interrupted: what came after is not in this report.")
    for name, gone in ran.outcome.missing.items():
        notes += [f"{name}: {text}." for text in gone]
    if (missing := account.counted - int(gathering.series[:, 0].sum())) > 0:
        notes.append(f"{missing:,} events were counted but are not in the timeline (before a resumed run began, say).")
    return Quality(
        counts={name: int(getattr(account, name)) for name in names},
        unreadable=dict(sorted(account.poison.items(), key=lambda pair: -pair[1])),
        # Excerpts of what could not be read are not shown: nobody knows what is in them.
        unreadable_at=[
            f"{one.source} {'byte' if one.offset is None else 'offset'} "
            f"{one.start + one.at if one.offset is None else one.offset}: {one.reason.replace('_', ' ')}"
            for one in account.poison_samples[:10]
        ],
        broken=dict(ran.outcome.ended_early),
        fields={name: count / account.events for name, count in account.fields.items()} if account.events else {},
        notes=notes,
    )  # fmt: skip
