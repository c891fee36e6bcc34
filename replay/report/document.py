"""The report as data: what ``--report-json`` writes, and what the page is drawn from. Everything in it may be shown."""

from __future__ import annotations

from typing import Any

import msgspec

SCHEMA = 1


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the report. Times are Unix seconds (UTC)."""


class Fact(Part, frozen=True, kw_only=True):
    """A number of the first screen."""

    label: str
    value: str
    note: str = ""


class Summary(Part, frozen=True, kw_only=True):
    """What happened, in plain words."""

    verdict: str
    """``attack`` (somebody was to be stopped), ``noticed`` (only people were to be told), ``quiet`` or ``empty``."""
    headline: str
    sentences: list[str]
    facts: list[Fact]


class Phase(Part, frozen=True, kw_only=True):
    """A stretch of the incident that is told first."""

    name: str
    """``before``, ``onset``, ``attack``, ``mitigated`` or ``after``."""
    start: int
    end: int
    text: str


class Incident(Part, frozen=True, kw_only=True):
    """Mitigations that follow each other within a quarter of an hour."""

    number: int
    what: str
    began: int
    """The first sign: the earliest second of the first targets within the window that was counted."""
    crossed: int
    """The second in which the first limit was crossed."""
    decided: int | None
    """When the first mitigation that edges act on was issued; none: only people were told."""
    last: int
    """The last second in which a limit was crossed."""
    over: int
    """From when on nothing is in force any more."""
    targets: int
    stopped: int
    """Of the targets, those that edges would have acted on."""
    detectors: list[str]


class Series(Part, frozen=True, kw_only=True):
    """One line of the timeline, in units a second but for entropy."""

    name: str
    label: str
    unit: str
    total: float | None
    peak: float
    peak_at: int
    values: list[float | None]


class Timeline(Part, frozen=True, kw_only=True):
    """Everybody's traffic."""

    start: int
    step_s: int
    series: list[Series]
    begun: list[int]
    """Mitigations that began in each step."""
    in_force: list[int]
    """Targets that mitigations were in force on in each step."""


class TalkerRow(Part, frozen=True, kw_only=True):
    """One key."""

    value: str
    requests: int
    share: float
    before_per_s: float | None
    """As usual; none: there was no usual time."""
    during_per_s: float
    change: str
    errors: int | None
    """None: only estimated from a sample, which does not tell."""
    tokens: int | None
    stopped: str
    """The action of a mitigation on it; empty: none."""


class Talkers(Part, frozen=True, kw_only=True):
    """The busiest of a dimension."""

    dimension: str
    label: str
    is_estimate: bool
    keys: int
    rows: list[TalkerRow]


class Cohort(Part, frozen=True, kw_only=True):
    """Registrations that are alike."""

    alike: str
    registrations: int
    before_per_h: float | None
    during_per_h: float
    change: str


class Registrations(Part, frozen=True, kw_only=True):
    """Who signed up."""

    total: int
    cohorts: list[Cohort]
    networks: list[Cohort]
    findings: list[str]


class Line(Part, frozen=True, kw_only=True):
    """One record of traffic, redacted."""

    source: str
    offset: int
    text: str


class Detail(Part, frozen=True, kw_only=True):
    """The evidence of one target, read again."""

    events: int
    all_events: int
    start: int
    per_second: list[int | None]
    answers: dict[str, int]
    most: dict[str, list[tuple[str, int]]]
    distinct: dict[str, int]
    lines: list[Line]
    missing: list[str]


class TargetStory(Part, frozen=True, kw_only=True):
    """All mitigations of one target by one detector."""

    id: str
    """Of the most severe one, for ``floodwall explain``."""
    type: str
    whom: str
    action: str
    standing: str
    """``enforced``, ``notice``, ``dry_run``, ``held`` or ``lifted``."""
    detector: str
    reason: str
    severity: int
    confidence: float
    observed: int
    limit: int
    window_start: int
    window_end: int
    since: int
    last: int
    until: int
    count: int
    usual_requests: int | None
    """Of the target, as usual; none: not known."""
    offsets: dict[str, tuple[int, int]]
    features: dict[str, int | float | str | bool]
    detail: Detail | None = None


class Collateral(Part, frozen=True, kw_only=True):
    """How much of the usual traffic comes from whoever was to be stopped."""

    usual_s: int
    usual_requests: int
    touched: int
    share: float
    unknown: int
    """Targets whose usual traffic is not known."""
    exact: bool
    """No request is counted twice: all of those with usual traffic are of one type. Else an upper bound."""
    most: list[tuple[str, int]]
    text: str


class Times(Part, frozen=True, kw_only=True):
    """How long it took."""

    detect_s: int | None
    decide_s: int | None
    enforce_s: float | None
    enforced_by: int
    text: list[str]


class Choice(Part, frozen=True, kw_only=True):
    """Another limit."""

    times: float
    targets: int
    stopped: int


class WhatIf(Part, frozen=True, kw_only=True):
    """What higher limits would have done."""

    choices: list[Choice]
    text: str


class Quality(Part, frozen=True, kw_only=True):
    """What became of every record."""

    counts: dict[str, int]
    unreadable: dict[str, int]
    unreadable_at: list[str]
    broken: dict[str, str]
    fields: dict[str, float]
    notes: list[str]


class Reproduce(Part, frozen=True, kw_only=True):
    """How to get the same again."""

    command: str
    versions: dict[str, str]
    config_digest: str
    seed_fingerprint: str
    seed_is_kept: bool
    sources: list[tuple[str, int, str]]
    """(name, bytes or 0 where it is not a file, SHA-256 where all of the file was read)."""
    manifest: dict[str, Any] | None
    """What was read, of each source (`replay.manifest`)."""
    profile: str


class Report(Part, frozen=True, kw_only=True):
    """Everything."""

    schema: int = SCHEMA
    generated_at: int
    start: int
    end: int
    summary: Summary
    incidents: list[Incident]
    phases: list[Phase]
    timeline: Timeline
    talkers: list[Talkers]
    registrations: Registrations
    targets: list[TargetStory]
    targets_more: int
    mitigations: int
    findings: int
    collateral: Collateral
    times: Times
    what_if: WhatIf
    quality: Quality
    reproduce: Reproduce
