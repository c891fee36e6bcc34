"""What people see: tables, progress and accounts. Data goes to standard output, the rest to standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from replay.sink import Sink
from schemas.mitigation import Mitigation, Target, encode_line

if TYPE_CHECKING:
    from engine.account import Account
    from engine.outbox import Decisions
    from replay.doctor import Diagnosis
    from replay.doctor_kafka import KafkaDiagnosis
    from replay.run import Outcome, Progress
    from replay.shown import Shown
    from schemas.pseudonyms import Pseudonyms

ROWS_SHOWN = 40
_NAMES = {
    "counted": "counted", "late": "late (older than the newest by more than the lateness)",
    "outside": "outside the time that was asked for", "empty": "empty lines",
}  # fmt: skip
_BOUNDS = {
    "stragglers": "events whose second had been decided already", "truncated": "rows or samples left out by a bound",
    "aged_out": "keys given up by a full table", "held": "mitigations held by a budget",
    "left_behind": "sources that the others stopped waiting for", "gaps": "gaps between segments",
    "duplicates": "segments that came twice", "time_replaced": "events whose clock was ahead and was replaced",
}  # fmt: skip


def moment(tick: int) -> str:
    """A tick as UTC time."""
    return datetime.fromtimestamp(tick, UTC).strftime("%Y-%m-%d %H:%M:%S")


@contextlib.contextmanager
def progress_of(sources: list[str]) -> Iterator[Callable[[int], None] | None]:
    """A progress bar on standard error, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    plain = [name for name in sources if os.path.isfile(name) and not name.endswith((".gz", ".zst"))]
    total = sum(os.path.getsize(name) for name in plain) if len(plain) == len(sources) else None
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=total)
        yield lambda done: progress.update(task, advance=done)


@contextlib.contextmanager
def progress_of_run() -> Iterator[Callable[[Progress], None] | None]:
    """Share, rate, event time and the time that is left, on standard error, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.description}"), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def tell(now: Progress) -> None:
            at = "" if now.newest_ms < 0 else f"  at {moment(now.newest_ms // 1000)}"
            text = f"{now.events:,} events  {now.events / now.seconds:,.0f}/s{at}"
            total = None if now.share is None else 1.0
            bar.update(task, total=total, completed=now.share or 0.0, description=text)

        yield tell


@contextlib.contextmanager
def counting(text: str) -> Iterator[Callable[[int], None] | None]:
    """A running number on standard error, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(text), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done: progress.update(task, advance=done)


class LiveSink(Sink):
    """Also prints each mitigation as it comes: the first word of each, early or final."""

    def __init__(
        self, out: Path | None, findings: Path | None, whom: Shown, *, as_json: bool, pseudonyms: Pseudonyms | None = None
    ) -> None:  # fmt: skip
        super().__init__(out, findings, pseudonyms)
        self._whom = whom
        self._as_json = as_json
        self._shown: dict[str, str] = {}

    def _take(self, decisions: Decisions) -> None:
        """Write, summarise and print."""
        super()._take(decisions)
        for mitigation in decisions.mitigations:
            if self._as_json:
                sys.stdout.buffer.write(encode_line(mitigation))
                sys.stdout.buffer.flush()
            elif self._shown.get(mitigation.id) != (word := f"{mitigation.action} {mitigation.state}"):
                self._shown[mitigation.id] = word
                print(_line(mitigation, self._whom), flush=True)
        if len(self._shown) > 100_000:
            self._shown.clear()


def _line(mitigation: Mitigation, shown: Shown) -> str:
    state = "" if mitigation.state == "active" else f" ({mitigation.state})"
    target = mitigation.target
    whom, reason = f"{target.type} {_safe(shown.value(target.type, target.value))}", shown.reason(mitigation.reason, target)
    return f"{moment(mitigation.tick)}  {mitigation.action}{state}  {whom}  {_safe(reason)}"


def _safe(text: str) -> str:
    """Text from traffic, without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_outcome(outcome: Outcome, sink: Sink, shown: Shown, *, as_json: bool) -> None:
    """Who, why, since when and until when; then where every record went."""
    targets = sink.summary()
    if outcome.interrupted:
        upto = f" up to {moment(outcome.account.newest_ms // 1000)} UTC" if outcome.account.events else ""
        print(f"floodwall: interrupted: only what was read until then{upto} is decided; the rest is not known", file=sys.stderr)
    for one in targets:
        target = Target(type=one["type"], value=one["value"])
        one["value"], one["reason"] = shown.value(target.type, target.value), shown.reason(one["reason"], target)
    if as_json:
        document = {
            "mitigations": sink.mitigations, "findings": sink.findings, "targets": targets,
            "more_targets": sink.more_targets, "account": asdict(outcome.account), "seconds": round(outcome.seconds, 3),
            "bytes": outcome.bytes, "sources": outcome.sources, "ended_early": outcome.ended_early,
            "interrupted": outcome.interrupted, "feedback": outcome.feedback, "missing": outcome.missing,
            "config_history": outcome.config_history,
        }  # fmt: skip
        _print_json(document)
        return
    account = outcome.account
    if account.late * 100 >= account.events > 0:
        share, newest = account.late / account.events, moment(account.newest_ms // 1000)
        print(
            f"floodwall: {share:.0%} of the events are late, and were not looked at: a clock jumped ahead (the newest event "
            f"says {newest} UTC), or a source is not in the order of time",
            file=sys.stderr,
        )
    _print_targets(targets, sink)
    if not targets and outcome.account.counted:
        print("Nobody to stop: no limit was crossed" + (" until then." if outcome.interrupted else "."))
    print_account(outcome.account, as_json=False)
    rate = outcome.account.events / outcome.seconds if outcome.seconds else 0
    where = "1 source" if outcome.sources == 1 else f"{outcome.sources:,} sources"
    print(f"{outcome.account.events:,} events from {where} in {outcome.seconds:.2f} s: {rate:,.0f} per second")
    if (then := outcome.config_history) is not None and not then["not_read"]:
        many = "1 change" if then["changes"] == 1 else f"{then['changes']:,} changes"
        print(f"configuration: as it was, by {many} of {then['source']}")
    if outcome.feedback is not None:
        told = [f"{count:,} {name.replace('_', ' ')}" for name, count in outcome.feedback.items() if count]
        print("feedback: " + (", ".join(told) or "nothing to learn from"))
    for name, lacks in outcome.missing.items():
        for text in lacks:
            print(f"floodwall: not read of {name}: {text}", file=sys.stderr)
    for name, why in outcome.ended_early.items():
        print(f"floodwall: expected {name} to be whole, it broke off: {why}; all before that was decided", file=sys.stderr)


def _print_targets(targets: list[dict[str, Any]], sink: Sink) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not targets:
        return
    table = Table(box=box.SIMPLE_HEAD, title=None)
    for name in ("who", "action", "why", "since (UTC)", "until (UTC)"):
        table.add_column(name, overflow="fold", no_wrap=name == "action")
    for target in targets[:ROWS_SHOWN]:
        action = target["action"] + ("" if target["state"] == "active" else f" ({target['state']})")
        action += " (dry run)" if target["dry_run"] else ""
        cells = (
            f"{target['type']} {target['value']}",
            action,
            target["reason"],
            moment(target["since"]),
            moment(target["until"]),
        )
        table.add_row(*(Text(_safe(cell)) for cell in cells))
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)
    more = len(targets) - ROWS_SHOWN + sink.more_targets
    if more > 0:
        print(f"… and {more:,} more; --out FILE writes all of them")


def nothing_read(account: Account) -> str | None:
    """Why a run had nothing to decide about, when something was there; else none."""
    poison = sum(account.poison.values())
    if account.events or not poison:
        return None
    return (
        f"expected log lines or JSON events, got {poison:,} records that cannot be read and none that can: "
        "try `floodwall doctor FILE`"
    )


def print_account(account: Account, *, as_json: bool) -> None:
    """Where every record went."""
    if as_json:
        _print_json({"account": asdict(account)})
        return
    poison = sum(account.poison.values())
    if not account.records:
        print("0 records: there was nothing to read")
        return
    print(f"{account.records:,} records: {account.events:,} events, {account.empty:,} empty, {poison:,} unreadable")
    parts = [
        f"{getattr(account, name):,} {text}" for name, text in _NAMES.items() if name != "empty" and getattr(account, name)
    ]
    print("events: " + (", ".join(parts) or "none"))
    for name, text in _BOUNDS.items():
        if getattr(account, name):
            print(f"  {getattr(account, name):,} {text}")
    for reason, count in sorted(account.poison.items(), key=lambda item: -item[1]):
        print(f"unreadable, {reason.replace('_', ' ')}: {count:,}")
        for sample in account.poison_samples:
            if sample.reason == reason:
                place = "" if sample.offset is None else f" offset {sample.offset},"
                print(f"  {sample.source} at{place} byte {sample.start + sample.at}: {sample.excerpt[:100]}")
                break


def print_diagnoses(diagnoses: list[Diagnosis], clusters: list[KafkaDiagnosis], *, as_json: bool) -> None:
    """One paragraph per source."""
    if as_json:
        _print_json([*(asdict(found) for found in diagnoses), *(asdict(found) for found in clusters)])
        return
    for cluster in clusters:
        print(f"{_safe(cluster.source)}:")
        for check in cluster.checks:
            print(f"  {check.verdict}: {_safe(check.name)}: {_safe(check.text)}")
    for found in [*diagnoses, *(topic for cluster in clusters for topic in cluster.topics)]:
        print(f"{found.source}: {found.records:,} records looked at, {found.events:,} events, {found.empty:,} empty")
        for title, parts in (("format", found.formats), ("unreadable", found.poison)):
            if parts:
                print(f"  {title}: " + ", ".join(f"{name.replace('_', ' ')} ({count:,})" for name, count in parts.items()))
        for title, shares in (("fields", found.fields), ("address from", found.addresses)):
            if shares:
                print(f"  {title}: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
        for text in found.blind:
            print(f"  blind: {text}")
        for text in found.advice:
            print(f"  advice: {text}")


def _print_json(document: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()
