"""The charts of the timeline: Vega-Lite, drawn to SVG while the report is written, so that the page holds no script.

Colours are marks of the page's own style sheet (`var(--…)`), so that a chart is light or dark with the page, and on paper.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from replay.report.document import Phase, Report, Series, Timeline
from replay.report.words import clock, moment
from schemas.errors import UsageError

WIDTH, HEIGHT = 860, 120
_COLOURS = {
    "#010101": "var(--line)", "#020202": "var(--area)", "#030303": "var(--grid)", "#040404": "var(--text)",
    "#050505": "var(--mark)", "#060606": "var(--band-onset)", "#070707": "var(--band-attack)", "#080808":
    "var(--band-mitigated)", "#090909": "var(--force)",
}  # fmt: skip
_LINE, _AREA, _GRID, _TEXT, _MARK = "#010101", "#020202", "#030303", "#040404", "#050505"
_BANDS = {"onset": "#060606", "attack": "#070707", "mitigated": "#080808"}
_ROLES = re.compile(r' role="graphics-[a-z]+"| aria-roledescription="[^"]*"| aria-label="[^"]*"| pointer-events="none"')
"""A chart is one picture with one description; its numbers are in the table below it."""


def draw(report: Report) -> dict[str, str]:
    """SVG by the name of the series, and ``mitigations``."""
    found = {one.name: _svg(_chart(report, one)) for one in report.timeline.series}
    if any(report.timeline.begun) or any(report.timeline.in_force):
        found["mitigations"] = _svg(_mitigations(report))
    return found


def alternative(series: Series, timeline: Timeline) -> str:
    """A chart in a sentence, for whoever does not see it."""
    known = sorted(value for value in series.values if value is not None)
    middle = known[len(known) // 2] if known else 0.0
    unit = f" {series.unit}" if series.unit else ""
    return (
        f"{series.label} from {moment(timeline.start)} UTC: {middle:,.4g}{unit} in the median, at most {series.peak:,.4g} at "
        f"{clock(series.peak_at)}. The numbers are in the table below the charts."
    )


def _chart(report: Report, series: Series) -> dict[str, Any]:
    timeline = report.timeline
    rows = [
        {"t": 1000 * (timeline.start + at * timeline.step_s), "v": value} for at, value in enumerate(series.values)
    ]  # fmt: skip
    is_spread = series.name == "entropy"
    mark: dict[str, Any] = (
        {"type": "line", "color": _LINE, "strokeWidth": 1.3, "interpolate": "step-after"}
        if is_spread
        else {
            "type": "area", "color": _AREA, "interpolate": "step-after",
            "line": {"color": _LINE, "strokeWidth": 1.3, "interpolate": "step-after"},
        }
    )  # fmt: skip
    begun = [
        {"t": 1000 * (timeline.start + at * timeline.step_s), "n": count} for at, count in enumerate(timeline.begun) if count
    ]  # fmt: skip
    layers = [
        *_bands(report.phases),
        {"data": {"values": rows}, "mark": mark, "encoding": {"x": _x(report), "y": _y("v", series.peak)}},
    ]
    if begun and series.name == "requests":
        layers.append(
            {
                "data": {"values": begun},
                "mark": {"type": "point", "shape": "triangle-down", "filled": True, "color": _MARK, "size": 45, "opacity": 1},
                "encoding": {"x": _x(report), "y": {"value": 5}},
            }
        )  # fmt: skip
    return _whole(layers)


def _mitigations(report: Report) -> dict[str, Any]:
    timeline = report.timeline
    rows = [
        {"t": 1000 * (timeline.start + at * timeline.step_s), "v": count} for at, count in enumerate(timeline.in_force)
    ]  # fmt: skip
    mark = {"type": "area", "color": "#090909", "interpolate": "step-after"}
    return _whole(
        [
            *_bands(report.phases),
            {
                "data": {"values": rows},
                "mark": mark,
                "encoding": {"x": _x(report), "y": _y("v", max(timeline.in_force, default=0), whole=True)},
            },
        ]
    )


def _bands(phases: list[Phase]) -> list[dict[str, Any]]:
    return [
        {
            "data": {"values": [{"a": 1000 * one.start, "b": 1000 * one.end}]},
            "mark": {"type": "rect", "color": _BANDS[one.name]},
            "encoding": {"x": {"field": "a", "type": "temporal"}, "x2": {"field": "b"}},
        }
        for one in phases
        if one.name in _BANDS
    ]


def _x(report: Report) -> dict[str, Any]:
    seconds = report.end - report.start
    form = "%H:%M:%S" if seconds < 1200 else "%H:%M" if seconds < 129_600 else "%-d %b %H:%M" if seconds < 864_000 else "%-d %b"
    axis = {"title": None, "format": form, "tickCount": 8, "grid": False}
    domain = [1000 * report.start, 1000 * max(report.end, report.start + 1)]
    return {"field": "t", "type": "temporal", "axis": axis, "scale": {"type": "utc", "domain": domain, "nice": False}}


def _y(field: str, most: float, *, whole: bool = False) -> dict[str, Any]:
    form = "~s" if most >= 10_000 else ",.4~r" if most >= 1 else "~g"
    axis: dict[str, Any] = {
        "title": None,
        "tickCount": 4,
        "format": form,
        "labelExpr": "datum.value == 0 ? '0' : datum.label",
        "minExtent": 44,
        "maxExtent": 44,
    }
    if whole:
        axis |= {"tickMinStep": 1}
    return {"field": field, "type": "quantitative", "axis": axis, "scale": {"domainMin": 0, "nice": True}}


def _whole(layers: list[dict[str, Any]]) -> dict[str, Any]:
    text = {"labelColor": _TEXT, "labelFontSize": 12, "domainColor": _GRID, "tickColor": _GRID, "gridColor": _GRID}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json", "width": WIDTH, "height": HEIGHT, "layer": layers,
        "config": {"background": None, "view": {"stroke": None}, "axis": text, "font": "sans-serif"},
        "resolve": {"scale": {"x": "shared", "y": "shared"}},
    }  # fmt: skip


def _svg(spec: dict[str, Any]) -> str:
    try:
        import vl_convert
    except ModuleNotFoundError:
        raise UsageError(
            "expected the package vl-convert-python for --report, got none: pip install 'floodwall[report]'"
        ) from None
    svg = str(vl_convert.vegalite_to_svg(orjson.dumps(spec).decode()))
    for colour, name in _COLOURS.items():
        svg = svg.replace(f'"{colour}"', f'"{name}"')
    svg = _ROLES.sub("", svg)
    # Read as one picture: the figure around it has the words.
    return re.sub(
        r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>",
        r'<svg xmlns="http://www.w3.org/2000/svg" \1 aria-hidden="true" focusable="false">',
        svg,
        count=1,
    )
