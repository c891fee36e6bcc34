"""Comparisons as people see them, and as JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import orjson

from floodwall.show import moment
from floodwall.tables import print_table, printable
from replay.backtest import percent
from replay.diff import CHANGED, NEW, RELEASED
from schemas.mitigation import Target

if TYPE_CHECKING:
    from replay.diff import Difference, Row, Side, Stretch
    from replay.shown import Shown
    from replay.what_if import Grid

ROWS_SHOWN = 15
OTHERS = "attack events"
_TITLES = {NEW: "newly mitigated", RELEASED: "released", CHANGED: "mitigated in both, but not alike"}


def print_json(document: Any) -> None:
    """On standard output."""
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


def plain(document: dict[str, Any], shown: Shown) -> dict[str, Any]:
    """A difference or grid as JSON: targets and reasons as they may be shown."""
    for row in document.get("rows", ()):
        target = Target(type=row["type"], value=row["value"])
        row["value"] = shown.value(target.type, target.value)
        before, after = row["before"], row["after"]
        for side in (before, after):
            if side is not None:
                side["reason"] = shown.reason(side["reason"], target)
        row["later_s"] = after["since"] - before["since"] if before and after else None
    return document


def print_difference(found: Difference, shown: Shown, *, every: bool) -> None:
    """What a comparison comes to: first what it costs, then who."""
    normal = "honest events, by labels" if found.labelled else "events taken for normal (of nobody whom A mitigates)"
    print(f"{found.events:,} events, {found.normal_events:,} of them {normal}")
    _print_sides(found)
    _print_cost(found)
    for kind in (NEW, RELEASED, CHANGED):
        rows = found.of(kind)
        print(f"{_TITLES[kind]}: {len(rows):,}" + (f", {_of_types(rows)}" if rows else ""))
        if rows:
            some = rows if every else rows[:ROWS_SHOWN]
            heads = [OTHERS if head == "others" and found.labelled else head for head in _HEADS[kind]]
            print_table(heads, [_cells(row, shown) for row in some])
            if len(rows) > len(some):
                print(f"… and {len(rows) - len(some):,} more; --all prints all of them, --json too")
    print(f"mitigated alike: {found.same:,}")
    for kind, count in found.unknown_targets.items():
        print(f"{count:,} targets of type {printable(kind)}: what they cover is not known here")
    for text in found.said:
        print(f"note: {printable(text)}")


def _print_sides(found: Difference) -> None:
    names = ["", "A", "B"]
    sides = (found.before, found.after)
    rows = [["", *(side.name for side in sides)], ["targets mitigated", *(_mitigated(side) for side in sides)]]
    for text, field in (("held by a budget", "held"), ("in dry run only", "dry_run"), ("only told of", "notified")):
        if any(getattr(side, field) for side in sides):
            rows.append([text, *(f"{getattr(side, field):,}" for side in sides)])
    rows.append(["normal events covered", *(f"{side.normal_covered:,} ({percent(side.normal_share)})" for side in sides)])
    rows.append(
        [
            f"{OTHERS if found.labelled else 'other events'} covered",
            *(f"{side.events_covered - side.normal_covered:,}" for side in sides),
        ]
    )
    if found.labelled:
        rows.append(["attacks stopped", *(", ".join(side.attacks) or "none" for side in sides)])
    if found.before.wronged is not None:
        rows.append(["targets that are honest or false positives", *(f"{side.wronged or 0:,}" for side in sides)])
    print_table(names, rows)


def _mitigated(side: Side) -> str:
    parts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(side.mitigated.items()))
    return f"{sum(side.mitigated.values()):,}" + (f" ({parts})" if parts else "")


def _print_cost(found: Difference) -> None:
    other = "of attacks" if found.labelled else "others"
    print(
        f"B newly covers {found.newly_normal:,} normal events ({percent(found.newly_normal_share)}) and {found.newly_other:,} "
        f"{other}; it no longer covers {found.no_longer_normal:,} normal events and {found.no_longer_other:,} {other}"
    )


def _of_types(rows: list[Row]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        word = row.type if row.verdict is None else f"{row.type} ({row.verdict})"
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{count:,} {word}" for word, count in sorted(counts.items()))


_ONE = ("who", "is", "action", "by", "since (UTC)", "for", "normal events", "others", "why")
_HEADS = {
    NEW: _ONE, RELEASED: _ONE,
    CHANGED: ("who", "is", "action", "by", "since in A (UTC)", "begins", "ends", "normal events", "others"),
}  # fmt: skip


def _cells(row: Row, shown: Shown) -> list[str]:
    who = f"{row.type} {shown.value(row.type, row.value)}"
    verdict = ", ".join(row.attacks) or row.verdict or "not known"
    if row.before is not None and row.after is not None:
        before, after = row.before, row.after
        return [
            who, verdict, _change("/".join(before.actions), "/".join(after.actions)),
            _change("/".join(before.detectors), "/".join(after.detectors)), moment(before.since),
            _shift(after.since - before.since), _shift(after.until - before.until),
            _change(f"{before.normal_events:,}", f"{after.normal_events:,}"),
            _change(f"{before.other_events:,}", f"{after.other_events:,}"),
        ]  # fmt: skip
    one = row.before if row.after is None else row.after
    assert one is not None
    return [
        who, verdict, "/".join(one.actions), "/".join(one.detectors), moment(one.since), _lasting(one),
        f"{one.normal_events:,}", f"{one.other_events:,}", shown.reason(one.reason, Target(type=row.type, value=row.value)),
    ]  # fmt: skip


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _shift(seconds: int) -> str:
    return "same" if not seconds else f"{abs(seconds):,} s {'later' if seconds > 0 else 'earlier'}"


def _lasting(one: Stretch) -> str:
    return f"{one.seconds:,} s"


def print_grid(grid: Grid) -> None:
    """One row for each cell."""
    normal = "honest events, by labels" if grid.labelled else "events taken for normal (of nobody mitigated as it is)"
    print(f"{grid.events:,} events, {grid.normal_events:,} of them {normal}")
    names = [*(axis.path.rpartition(".")[0] + " " + axis.path.rpartition(".")[2] for axis in grid.axes)]
    heads = [
        *names,
        "mitigated",
        "of them sources",
        "new",
        "released",
        "held",
        "normal events hit",
        f"{OTHERS if grid.labelled else 'others'} hit",
    ]
    rows = []
    for cell in grid.cells:
        values = cell.values or ("as it is", *[""] * (len(names) - 1))
        rows.append([
            *values, f"{cell.mitigated:,}", f"{cell.sources:,}", f"{cell.newly:,}", f"{cell.released:,}", f"{cell.held:,}",
            f"{cell.normal_covered:,} ({percent(cell.normal_share)})", f"{cell.other_covered:,}",
            *([", ".join(cell.attacks) or "none"] if grid.labelled else ()),
        ])  # fmt: skip
    print_table([*heads, *(["attacks stopped"] if grid.labelled else ())], rows)
    for text in grid.said:
        print(f"note: {printable(text)}")
