"""``floodwall produce``: recorded lines into a topic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodwall.guard import guarded


@guarded
def produce(
    sources: Annotated[
        list[str], typer.Argument(help="Log files, folders, .gz, .zst; - is standard input.", metavar="SOURCE...")
    ],
    topic: Annotated[str, typer.Option("--topic", help="A raw topic that is there.")],
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file; see `floodwall config schema`.")] = None,
    lines: Annotated[int, typer.Option("--lines", min=1, max=10_000, help="Lines in one message.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Send every line as a message, as a log shipper would. For trying things: shippers do it better.

    Example:  floodwall produce access.log --topic access-log --config kafka.toml
    """
    import msgspec

    from floodwall.show import progress_of
    from replay.produce import produce as run
    from schemas.config import load_config

    with progress_of(sources) as advance:
        shipped = run(load_config(config), sources, topic, lines=lines, progress=advance)
    if as_json:
        typer.echo(msgspec.json.encode(shipped).decode())
    else:
        typer.echo(f"{shipped.records:,} lines in {shipped.messages:,} messages, {shipped.bytes:,} bytes, into {topic}")
        if shipped.refused:
            typer.echo(f"{shipped.refused:,} stretches that are no lines were left out")
    return 0
