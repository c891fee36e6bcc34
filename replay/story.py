"""What became of a target, told from the records about it: since when, until when, what changed it, who agrees, what to do.

Pure: records in, an `Explanation` out. Where they come from is `replay.explain`'s business.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from engine.not_counted import LEFT_OUT, NOT_COUNTED, TOO_LATE
from engine.policy import FOR_EVER
from replay.advice import OPERATOR, Advice, Status, advise, length
from replay.reread import Reread
from replay.rules_then import RulesThen
from schemas.acknowledgement import Acknowledgement
from schemas.mitigation import Finding, Mitigation, Target

STEPS_MAX = 8
OTHERS_MAX = 5
EDGES_MAX = 5
_RANK = {"notify": 0, "challenge": 1, "throttle": 2, "restrict_registration": 3, "block": 4, "disable_key": 5, "allow": 6}
OF_PLAYBOOKS = ("playbook", "run", "run_since", "step", "playbook_state", "playbook_owner", "condition", "targets_left_out")
_NO_MODEL = ("requests", "seed", "aged_out", *NOT_COUNTED, "held", "owner", "finding", "cold", *OF_PLAYBOOKS)
"""Features that are no model's."""
_DIGEST = re.compile(r"[0-9a-f]{12,64}\Z")
"""Of a list: for whoever replays."""
_BUDGETS = {
    "active_max": "as many are stopped at once as policy.active_max allows",
    "new_per_minute_max": "as many were stopped in this minute as policy.new_per_minute_max allows",
    "share_max": "more of all who are active would be stopped than policy.share_max allows",
}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator has said of a mitigation on the feedback topic; its other fields are not needed here."""

    id: str
    verdict: str
    who: str = ""
    reason: str = ""
    when: int = 0


class Records(msgspec.Struct, kw_only=True):
    """Everything that is known about one target."""

    mitigations: list[Mitigation]
    """By every detector and by operators, in the order in which they were published."""
    findings: list[Finding] = []
    acknowledgements: list[Acknowledgement] = []
    feedback: list[Verdict] = []
    published: dict[str, tuple[int, int | None]] = {}
    """By id, in milliseconds: when the first and the final record came to the topic."""


class Step(msgspec.Struct, frozen=True):
    """Something that changed it."""

    at: int
    text: str


class Voice(msgspec.Struct, frozen=True):
    """Another detector about the same target."""

    detector: str
    findings: int
    first: int
    last: int
    reason: str


class AtEdge(msgspec.Struct, frozen=True):
    """What an edge has said."""

    edge: str
    outcome: str
    action: str
    at_ms: int
    seconds: float
    """From the first record on the topic to the firewall; where that is not known, from the second of the crossing."""
    why: str


class Explanation(msgspec.Struct, kw_only=True):
    """One mitigation, explained."""

    id: str
    target: Target
    detector: str
    action: str
    status: Status
    what: str
    """The sentence with the observed number, the limit and the window."""
    observed: int
    limit: int
    times: float | None
    """How many times the limit; None: there is none."""
    severity: int
    confidence: float
    since: int
    last_seen: int
    until: int
    returns: int
    """How often the target had been stopped before and came back."""
    now: int
    now_action: str
    """What is in force on the target now, by any detector or operator; empty: nothing."""
    now_by: str
    now_until: int
    steps: list[Step]
    """What renewed, escalated or lifted it, the oldest first."""
    others: list[Voice]
    detect_s: float | None
    """From the second in which the limit was crossed to the first record on the topic …"""
    decide_s: float | None
    """… and to the final one; None: not known."""
    edges: list[AtEdge]
    model: dict[str, Any]
    """What a model or a comparison contributed."""
    playbook: dict[str, Any]
    """Of a playbook's step: which one, of which run, on what condition; else empty."""
    caveats: list[str]
    next: list[Advice]
    window_start: int
    window_end: int
    evidence: dict[str, tuple[int, int]]
    traffic: Reread | None = None
    rules: RulesThen | None = None
    """The change of the configuration that decided, and those since; None: the deployment's file, unchanged since."""


def tell(records: Records, identifier: str, standing: Mitigation | None, now: int, *, live: bool) -> Explanation:
    """The story of a mitigation.

    Args:
        standing: what is in force on the target at ``now``, by the rules of edges; None: nothing.
        live: the records are of an enforcement topic that can be written to.

    Raises:
        KeyError: there is no record of it.
    """
    own = newest([one for one in records.mitigations if one.id == identifier])
    mine = [one for one in records.mitigations if one.detector == own.detector]
    episode, returns = _episode([one for one in mine if one.state != "lifted"], own)
    latest = newest([*episode, *(one for one in mine if one.state == "lifted" and one.tick >= own.tick)])
    until = max(one.expires_at for one in episode)
    if latest.state == "lifted":
        until = min(until, latest.issued_at)
    ids = {one.id for one in episode}
    verdicts = [one for one in records.feedback if one.id in ids]
    first_ms, final_ms = records.published.get(identifier, (None, None))
    crossed = min(one.tick for one in episode if one.id == identifier)
    told = Explanation(
        id=identifier, target=own.target, detector=own.detector, action=own.action,
        status=_status(own, latest, standing, until, now), what=own.reason, observed=own.observed, limit=own.limit,
        times=own.observed / own.limit if own.limit > 0 else None, severity=own.severity, confidence=own.confidence,
        since=min(one.tick for one in episode),
        last_seen=max(one.tick for one in episode), until=until, returns=returns, now=now,
        now_action="" if standing is None else standing.action, now_by="" if standing is None else standing.detector,
        now_until=0 if standing is None else standing.expires_at,
        steps=_steps(episode, records, verdicts, own), others=_others(records.findings, own),
        detect_s=None if first_ms is None else max(0.0, first_ms / 1000 - crossed),
        decide_s=None if final_ms is None else max(0.0, final_ms / 1000 - crossed), edges=_edges(records, ids, episode),
        model=_model(own),
        playbook={name: own.evidence.features[name] for name in OF_PLAYBOOKS if name in own.evidence.features},
        caveats=_caveats(own), next=[], window_start=own.window.start, window_end=own.window.end, evidence=own.evidence.offsets,
    )  # fmt: skip
    told.next = advise(own, told.status, max(0, told.until - told.now), live=live)
    return told


def newest(records: list[Mitigation]) -> Mitigation:
    """The latest of them: of the latest second, final before early, and of these the last that was published.

    Raises:
        KeyError: there are none.
    """
    if not records:
        raise KeyError("no record")
    return max(enumerate(records), key=lambda pair: (pair[1].tick, pair[1].stage == "final", pair[0]))[1]


def _episode(mine: list[Mitigation], own: Mitigation) -> tuple[list[Mitigation], int]:
    """(what hangs together with a record because each was renewed before it ended, how many such there were before)."""
    episodes: list[list[Mitigation]] = []
    ends = -1
    for one in sorted(mine, key=lambda one: (one.tick, one.stage == "final")):
        if one.tick >= ends:
            episodes.append([])
        episodes[-1].append(one)
        ends = max(ends, one.expires_at)
    for number, episode in enumerate(episodes):
        if any(one.id == own.id for one in episode):
            return episode, number
    return [own], 0


def _status(own: Mitigation, latest: Mitigation, standing: Mitigation | None, until: int, now: int) -> Status:
    if own.drill:
        return "drill"
    if latest.state == "lifted":
        return "lifted"
    if own.dry_run:
        return "dry_run"
    if own.action == "notify":
        return "notice"
    if standing is not None and standing.action == "allow" and own.detector != OPERATOR:
        return "allowed"
    if until <= now:
        return "over"
    if own.state == "held":
        return "held"
    return "early" if own.stage == "early" else "in_force"


def _steps(episode: list[Mitigation], records: Records, verdicts: list[Verdict], own: Mitigation) -> list[Step]:
    steps: list[Step] = []
    action, renewed = "", []
    for one in episode:
        if one.stage == "early":
            continue
        if one.action != action:
            words = "began" if not action else "made harsher" if _RANK[one.action] > _RANK[action] else "made milder"
            span = "until lifted" if one.expires_at >= FOR_EVER else f"for {length(one.expires_at - one.issued_at)}"
            text = f"{words}: {one.action.replace('_', ' ')} {span}"
            only = (
                "notify" if one.action == "notify" else "dry run" if one.dry_run else "held back" if one.state == "held" else ""
            )
            what = "" if one.action == "notify" else f": {one.action.replace('_', ' ')}"
            steps.append(Step(one.tick, f"reported only ({only}){what}" if only else text))
        else:
            renewed.append(one)
        action = one.action
    if renewed:
        times, last = "once" if len(renewed) == 1 else f"{len(renewed)} times", renewed[-1]
        text = f"renewed {times}, because it went on; the last time for {length(last.expires_at - last.issued_at)}"
        steps.append(Step(last.tick, f"told again {times}: it does not end by itself" if last.expires_at >= FOR_EVER else text))
    first = episode[0].tick
    for one in records.mitigations:
        if one.tick < first or (one.detector != OPERATOR and one.state != "lifted"):
            continue
        if one is own or (one.detector != OPERATOR and one.detector != own.detector):
            continue
        owner = one.evidence.features.get("owner")
        who = f" by {owner}" if owner else ""
        verb = "lifted" if one.state == "lifted" else f"{one.action} for {length(one.expires_at - one.issued_at)}"
        steps.append(Step(one.tick, f"{verb}{who}: {one.reason}"))
    steps += [Step(one.when, f"said to be {one.verdict.replace('_', ' ')} by {one.who}: {one.reason}") for one in verdicts]
    return sorted(steps, key=lambda step: step.at)[-STEPS_MAX:]


def _others(findings: list[Finding], own: Mitigation) -> list[Voice]:
    voices: dict[str, list[Finding]] = {}
    for one in findings:
        if one.detector != own.detector and one.stage == "final":
            voices.setdefault(one.detector, []).append(one)
    found = [
        Voice(
            name,
            len(told),
            min(one.tick for one in told),
            max(one.tick for one in told),
            max(told, key=lambda one: one.severity).reason,
        )
        for name, told in voices.items()
    ]
    return sorted(found, key=lambda voice: -voice.findings)[:OTHERS_MAX]


def _edges(records: Records, ids: set[str], episode: list[Mitigation]) -> list[AtEdge]:
    """The first word of each edge about each outcome."""
    began = {one.id: float(one.tick) for one in reversed(episode)}
    began |= {name: first / 1000 for name, (first, _) in records.published.items()}
    found: dict[tuple[str, str], AtEdge] = {}
    for one in sorted(records.acknowledgements, key=lambda one: one.applied_at_ms):
        if one.id in ids:
            seconds = max(0.0, one.applied_at_ms / 1000 - began[one.id])
            found.setdefault(
                (one.edge, one.outcome),
                AtEdge(one.edge, one.outcome, one.action, one.applied_at_ms, round(seconds, 3), one.why),
            )
    return list(found.values())[:EDGES_MAX]


def _model(own: Mitigation) -> dict[str, Any]:
    features = own.evidence.features.items()
    return {name: value for name, value in features if name not in _NO_MODEL and not _DIGEST.match(str(value))}


def _caveats(own: Mitigation) -> list[str]:
    features, found = own.evidence.features, []
    if own.stage == "early":
        found.append(
            "This is the first word, said before the second was over. It is confirmed within seconds, or ends by itself."
        )
    if features.get("aged_out"):
        found.append("A table was full, and some of the counts were given up: the true number may be higher, never lower.")
    if late := features.get(TOO_LATE):
        found.append(f"Up to {late} events came when their seconds had been decided: the counts may be higher, never lower.")
    if left_out := features.get(LEFT_OUT):
        found.append(f"A bound left out up to {left_out} rows and events: the counts may be higher, never lower.")
    if features.get("cold"):
        found.append("The model has not learned enough yet to be sure.")
    if features.get("targets_left_out"):
        found.append(f"{features['targets_left_out']} more targets were left alone: the playbook's targets_max.")
    if own.state == "held":
        budget = str(features.get("held", ""))
        if budget.endswith(".collateral_max"):
            found.append(f"Held back: it would hit more of the usual traffic than {budget} allows, or nobody knows how much.")
            return found
        found.append(f"Held back: {_BUDGETS.get(budget, 'a budget of the policy is used up')}.")
    return found
