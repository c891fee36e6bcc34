"""The page: the report as one file of HTML without a script, that opens anywhere and asks nobody for anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.report.charts import alternative, draw
from replay.report.document import Report, Timeline
from replay.report.words import clock, length, moment
from schemas.errors import UsageError

BYTES_MAX = 3_000_000
"""Of a page."""
ROWS_BYTES_MAX = 2_000_000
"""Of it, for the list of mitigations: charts, tables and evidence have the rest."""
FIRST_ROWS = 50
FOLDED_ROWS = 500
COARSE_ROWS = 60
_HERE = Path(__file__).parent
_ACTIONS = {
    "notify": "tell people", "challenge": "challenge", "throttle": "slow down", "block": "block", "disable_key":
    "disable the key", "restrict_registration": "no registrations",
}  # fmt: skip
_STANDING = {
    "enforced": "", "notice": "", "dry_run": " (dry run: reported only)", "held": " (held back by a budget)",
    "lifted": " (lifted)",
}  # fmt: skip
_COUNTS = {
    "records": "records read", "empty": "empty lines", "events": "requests and registrations in them",
    "counted": "of them counted",
    "late": "of them late: older than the newest by more than is waited for, not counted",
    "outside": "of them outside the time that was asked for", "stragglers": "whose second had been decided already",
    "time_replaced": "whose clock was ahead and was replaced", "truncated": "rows or samples left out by a bound",
    "aged_out": "keys given up by a full table", "held": "mitigations held back by a budget",
    "left_behind": "sources that the others stopped waiting for", "gaps": "gaps between segments", "duplicates":
    "segments that came twice",
}  # fmt: skip
_ALWAYS = ("records", "events", "counted", "late")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the charts' table."""

    at: int
    values: list[float | None]


@dataclass(frozen=True, slots=True)
class Coarse:
    """The charts in few rows."""

    step_s: int
    labels: list[str]
    rows: list[Row]


def render(report: Report) -> bytes:
    """The page. Raises `UsageError` when what draws it is not installed."""
    try:
        import jinja2
        from markupsafe import Markup
    except ModuleNotFoundError:
        raise UsageError("expected the package jinja2 for --report, got none: pip install 'floodwall[report]'") from None
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, loader=jinja2.FileSystemLoader(_HERE)
    )
    environment.filters |= {
        "moment": moment, "clock": clock, "length_of": length, "number": number, "share": _share, "heights": _heights,
        "highest": lambda values: max((value or 0 for value in values), default=0),
        "action": lambda name: _ACTIONS.get(name, name),
        "standing": lambda name: _STANDING.get(name, ""), "short": _short(report),
        "counted": _counted,
        "alternative": lambda series: alternative(series, report.timeline),
    }  # fmt: skip
    shown, cut = _rows_shown(report)
    charts = {name: Markup(svg) for name, svg in draw(report).items()} if report.timeline.series else {}
    css = Markup((_HERE / "page.css").read_text())
    page = environment.get_template("page.html").render(
        report=report, css=css, charts=charts, sections=_sections(report), coarse=coarse(report.timeline),
        talkers_note=_talkers_note(report), quality_rows=_quality(report), first_rows=FIRST_ROWS, cut_rows=cut,
        folded=[(low, min(low + FOLDED_ROWS, shown)) for low in range(FIRST_ROWS, shown, FOLDED_ROWS)],
    )  # fmt: skip
    return page.encode()


def _rows_shown(report: Report) -> tuple[int, int]:
    """(how many mitigations are listed, how many are not)."""
    size = 0
    for at, one in enumerate(report.targets):
        size += 220 + len((one.whom + one.reason).encode())
        if size > ROWS_BYTES_MAX:
            return at, len(report.targets) - at
    return len(report.targets), 0


def number(value: float | None) -> str:
    """A number as people read it; none: a dash."""
    if value is None:
        return "–"
    if value == int(value):
        return f"{int(value):,}"
    size = abs(value)
    return (
        f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.4f}"
    )


def _share(value: float) -> str:
    return (
        "0 %"
        if value == 0
        else "< 0.01 %"
        if value < 0.0001
        else f"{100 * value:.2f} %"
        if value < 0.1
        else f"{100 * value:.1f} %"
    )


def _short(report: Report) -> Any:
    """Times of day alone where the report is about one day."""
    one_day = report.start // 86_400 == max(report.end - 1, report.start) // 86_400
    return lambda tick: clock(tick) if one_day and tick // 86_400 == report.start // 86_400 else moment(tick)


def _counted(name: str, count: int) -> str:
    """``3 addresses``, and of one its name alone."""
    if count != 1:
        return f"{count:,} {name}"
    return "country" if name == "countries" else "address" if name == "addresses" else name.removesuffix("s")


def _heights(values: list[int | None]) -> list[int]:
    most = max((value or 0 for value in values), default=0) or 1
    return [round(48 * (value or 0) / most) for value in values]


def _sections(report: Report) -> list[tuple[str, str]]:
    found = [("timeline", "Over time")] if report.timeline.series else []
    found += [("incidents", "Incidents")] if report.incidents else []
    found += [("talkers", "Who was busiest")]
    found += [("registrations", "Who signed up")] if report.registrations.total else []
    found += [("mitigations", "Mitigations"), ("evidence", "Evidence")] if report.targets else []
    found += [("what-if", "What if")] if report.targets and report.what_if.choices else []
    return [*found, ("quality", "Data"), ("reproduce", "How to get the same again")]


def _talkers_note(report: Report) -> str:
    if not report.incidents:
        return "Over all the time, because no limit was crossed."
    return (
        "While limits were crossed, against the usual: the time before the first limit was crossed, or the quiet time where it "
        "began with a crossing. Time is counted in parts of "
        f"{length(max(1, report.timeline.step_s))} or more, so that the edges of an attack may lie in the usual time."
    )


def _quality(report: Report) -> list[tuple[str, int]]:
    found = [
        (text, report.quality.counts[name])
        for name, text in _COUNTS.items()
        if name in _ALWAYS or report.quality.counts.get(name)
    ]
    unreadable = report.quality.unreadable
    found.insert(1, ("records that could not be read", sum(unreadable.values())))
    found[2:2] = [(f"because of: {name.replace('_', ' ')}", count) for name, count in unreadable.items()]
    return found


def coarse(timeline: Timeline) -> Coarse:
    """The charts in at most `COARSE_ROWS` rows."""
    steps = len(timeline.begun)
    many = max(1, -(-steps // COARSE_ROWS))
    rows = []
    for low in range(0, steps, many):
        values: list[float | None] = []
        for series in timeline.series:
            part = [value for value in series.values[low : low + many] if value is not None]
            values.append(sum(part) / len(part) if part else None)
        values += [sum(timeline.begun[low : low + many]), max(timeline.in_force[low : low + many])]
        rows.append(Row(timeline.start + low * timeline.step_s, values))
    labels = [f"{series.label}, {series.unit}" for series in timeline.series]
    return Coarse(timeline.step_s * many, [*labels, "Mitigations begun", "Targets with one in force"], rows)
