"""``floodwall status``, and what ``floodwall doctor`` prints about Kafka."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.guard import guarded

if TYPE_CHECKING:
    from broker.status import DeploymentStatus, GroupStatus


@guarded
def status(
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file; see `floodwall config schema`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> int:
    """Show where everything stands on Kafka: brokers, topics, how far observers and judges are behind, and what is decided.

    Example:  floodwall status --config kafka.toml
    """
    import msgspec

    from broker.connection import Connection
    from broker.status import take_status
    from schemas.config import load_config

    chosen = load_config(config)
    found = take_status(chosen, Connection(chosen.kafka))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _print_status(found)
    return 0


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
