"""``floodwall topics``: make the topics, compare them, and say who needs which right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.guard import guarded
from floodwall.options import ConfigFile

if TYPE_CHECKING:
    from broker.rights import Right
    from broker.topics import TopicReport

app = typer.Typer(
    no_args_is_help=True,
    help="Make Floodwall's topics where they are missing, and compare those that are there.\n\n"
    "Example:  floodwall topics create --config kafka.toml",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
EXIT_DIFFERS = 1


@app.command("create")
@guarded
def create(
    config: ConfigFile = None,
    raw_partitions: Annotated[
        int, typer.Option("--raw-partitions", min=1, max=10_000, help="Of raw topics that are not there yet.")
    ] = 4,
    replication: Annotated[
        int | None, typer.Option("--replication", min=1, max=100, help="Replicas of new topics; none: the cluster's default.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Make the topics that are missing. One that is there is never changed: differences are printed, and the exit code is 1.

    Then the access rights that each principal needs are printed, to be granted by whoever runs the brokers.

    Example:  floodwall topics create --config kafka.toml
    """
    from broker.connection import Connection
    from broker.rights import needed_rights
    from broker.topics import create_topics, wanted_topics
    from schemas.config import load_config

    chosen = load_config(config)
    reports = create_topics(chosen, Connection(chosen.kafka), raw_partitions=raw_partitions, replication=replication)
    _print(reports, needed_rights(chosen, wanted_topics(chosen)), as_json)
    return EXIT_DIFFERS if any(report.differences for report in reports) else 0


@app.command("describe")
@guarded
def describe(config: ConfigFile = None, as_json: Json = False) -> int:
    """Print each topic beside what it should be, and the access rights each principal needs.

    Example:  floodwall topics describe --config kafka.toml --json
    """
    from broker.connection import Connection
    from broker.rights import needed_rights
    from broker.topics import check_judge_partitions, describe_topics, wanted_topics
    from schemas.config import load_config

    chosen = load_config(config)
    connection = Connection(chosen.kafka)
    cluster = connection.check()
    reports = describe_topics(chosen, connection, cluster)
    _print(reports, needed_rights(chosen, wanted_topics(chosen)), as_json)
    check_judge_partitions(chosen, cluster)
    return EXIT_DIFFERS if any(report.state in ("missing", "differs") for report in reports) else 0


def _print(reports: list[TopicReport], rights: list[Right], as_json: bool) -> None:
    """The topics, then the rights; only those named there may write what others obey."""
    import msgspec

    from floodwall.tables import print_table

    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode({"topics": reports, "rights": rights}), indent=2).decode())
        return
    print_table(
        ("topic", "partitions", "settings", "keyed by", "state"),
        [
            (
                report.name,
                str(report.partitions),
                " ".join(f"{name}={value}" for name, value in report.settings.items()),
                report.key,
                "; ".join(report.differences) or report.state,
            )
            for report in reports
        ],
    )
    print_table(
        ("principal", "may", "on", "named"),
        [
            (
                right.principal,
                ", ".join(right.operations),
                right.resource,
                right.name + ("*" if right.pattern == "prefixed" else ""),
            )
            for right in rights
        ],
    )
