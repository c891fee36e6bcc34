"""``floodwall status``, and what ``floodwall doctor`` prints about Kafka."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.guard import guarded

if TYPE_CHECKING:
    from broker.connection import Connection
    from broker.status import DeploymentStatus, GroupStatus
    from edge.overview import Summary
    from schemas.config import Config
    from schemas.prefixes import Prefixes

SERVE_HOST = "127.0.0.1"
_OUTCOMES = ("applied", "partial", "unsupported", "error")


@guarded
def status(
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file; see `floodwall config schema`.")] = None,
    serve: Annotated[
        int | None,
        typer.Option("--serve", min=0, max=65535, help="Stay, and serve what is in force and how long it took as metrics."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> int:
    """Show where everything stands: brokers, topics, workers; what is in force or held, how long it took, and the edges.

    With --serve it goes on following the enforcement topic and the edges' acknowledgements, for Prometheus (127.0.0.1 only).

    Example:  floodwall status --config kafka.toml
    """
    import msgspec

    from broker.connection import Connection
    from broker.signing import verifier_of
    from broker.status import take_status
    from edge.overview import read_overview
    from engine.clock import SystemClock
    from replay.shown import shown_by
    from schemas.config import load_config
    from schemas.errors import BrokerError

    chosen = load_config(config)
    connection, clock = Connection(chosen.kafka), SystemClock()
    if serve is not None:
        return _serve(chosen, connection, serve)
    found = take_status(chosen, connection)
    summary, why = None, ""
    try:
        mitigations, acknowledgements = _topics(chosen)
        verifier = verifier_of(chosen, mitigations)
        overview = read_overview(connection, mitigations, acknowledgements, _core(chosen), clock, verifier)
        summary = overview.summary(clock.now_ms())
    except BrokerError as error:  # the topics may not be there yet: that is what status is there to say
        why = str(error)
    if as_json:
        document = {**msgspec.to_builtins(found), "mitigations": msgspec.to_builtins(summary)}
        whom = shown_by(chosen)
        for held in [] if summary is None else document["mitigations"]["held_shown"]:
            held["value"] = whom.value(held["type"], held["value"])
        typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return 0
    _print_status(found)
    if summary is None:
        typer.echo(f"What is in force cannot be told: {why}")
    else:
        _print_summary(summary, clock.now_ms())
    return 0


def _serve(config: Config, connection: Connection, port: int) -> int:
    import signal

    from prometheus_client import start_http_server

    from broker.signing import verifier_of
    from edge.overview import Overview, OverviewTopics
    from edge.overview_metrics import OverviewMetrics
    from engine.clock import SystemClock
    from floodwall.guard import EXIT_INTERRUPTED
    from floodwall.notices import teller
    from schemas.errors import UsageError

    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda came, _: stopping.append(came))
    clock, metrics = SystemClock(), OverviewMetrics()
    overview = Overview(_core(config), clock.now_ms(), metrics.heard, verifier_of(config, _topics(config)[0]))
    topics = OverviewTopics(connection, *_topics(config), clock)
    try:
        topics.open(overview)
        server, _ = start_http_server(port, SERVE_HOST, metrics.registry)
        teller("status", as_json=False)("listening", {"metrics": f"http://{SERVE_HOST}:{server.server_port}/metrics"})
        while not stopping:
            topics.feed(overview, 1.0)
            if topics.is_read:
                metrics.show(overview.summary(clock.now_ms()), overview, topics.heard_ms)
        server.shutdown()
    except OSError as error:
        raise UsageError(f"expected port {port} on {SERVE_HOST} to be free, got: {error.strerror or error}") from None
    finally:
        topics.close()
    return EXIT_INTERRUPTED if signal.SIGINT in stopping else 0


def _topics(config: Config) -> tuple[str, str]:
    from schemas.topics import ENFORCEMENT_ACKS, MITIGATIONS

    return config.kafka.topic_prefix + MITIGATIONS, config.kafka.topic_prefix + ENFORCEMENT_ACKS


def _core(config: Config) -> Prefixes:
    from schemas.config import parse_prefixes
    from schemas.prefixes import Prefixes

    return Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core"))


def _print_summary(summary: Summary, now_ms: int) -> None:
    from floodwall.tables import print_table

    in_force = ", ".join(f"{count:,} {action}" for action, count in summary.in_force.items()) or "nothing"
    typer.echo(f"In force: {in_force}. Reported only: {summary.dry_run:,} (dry run), {summary.drills:,} (drills).")
    if summary.held:
        reasons = ", ".join(f"{count:,} by policy.{why}" for why, count in summary.held.items())
        typer.echo(f"Held back: {reasons}. See them: floodwall mitigations list --held")
    rows = [
        (name, f"{one.count:,}", f"{one.median_s:.2f} s", f"{one.p99_s:.2f} s", f"{one.most_s:.2f} s")
        for name, one in (
            ("to detect: limit crossed, first record", summary.detect),
            ("to decide: limit crossed, final record", summary.decide),
            *((f"to enforce: first record, edge {edge.edge}", edge.enforce) for edge in summary.edges),
        )
        if one is not None
    ]  # fmt: skip
    if rows:
        print_table(("time, in the last hour", "mitigations", "median", "99 %", "most"), rows)
    if not summary.edges:
        typer.echo("No edge has acknowledged anything in the last day: nothing is enforced, or nothing had to be.")
        return
    edges = [
        (
            one.edge, _moment(one.last_ms), *(f"{one.outcomes.get(outcome, 0):,}" for outcome in _OUTCOMES),
            f"silent about {one.unanswered:,} that are in force" if one.unanswered else "answers",
        )
        for one in summary.edges
    ]  # fmt: skip
    print_table(("edge", "last word", *_OUTCOMES, "state"), edges)


def _print_status(found: DeploymentStatus) -> None:
    from floodwall.tables import print_table, printable

    print_table(("broker", "state"), [(broker.address, broker.error or "reachable") for broker in found.brokers])
    topics = [(topic.name, str(topic.partitions), "; ".join(topic.differences) or topic.state) for topic in found.topics]
    print_table(("topic", "partitions", "state"), topics)
    print_table(("group", "state", "members", "behind", "most in"), [_group_row(group) for group in found.groups])
    if found.judges:
        rows = [
            (
                str(judge.partition), _moment(judge.written_ms), f"{judge.behind:,}",
                "" if judge.closed_tick is None else _moment(judge.closed_tick * 1000),
                "" if judge.newest_ms is None else _moment(judge.newest_ms), str(len(judge.sources)),
            )
            for judge in found.judges
        ]  # fmt: skip
        for judge in found.judges:
            for model, why in judge.models_refused.items():
                typer.echo(printable(f"judge partition {judge.partition}: {model} began anew and is cold: {why}"))
        print_table(("judge partition", "written", "tallies behind", "decided until", "slowest source", "sources"), rows)
    else:
        typer.echo("No judge has written down where it stands.")


def _group_row(group: GroupStatus) -> tuple[str, ...]:
    worst = max(group.partitions, key=lambda lag: lag.lag, default=None)
    where = "" if worst is None or worst.lag == 0 else f"{worst.topic}-{worst.partition} ({worst.lag:,})"
    return group.name, group.state, str(group.members), f"{group.lag:,}", where


def _moment(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):  # a time from traffic may be any number
        return str(ms)
