"""``floodwall config``: check a configuration, print its schema; what judges decide by is changed in the commands beside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodwall import commands_config_live
from floodwall.guard import guarded
from schemas.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    help="Check a configuration file, see what judges decide by, and change it while they run.\n\n"
    "Example:  floodwall config list --config kafka.toml",
)
app.command("list")(commands_config_live.list_)
app.command("get")(commands_config_live.get)
app.command("set")(commands_config_live.set_)
app.command("history")(commands_config_live.history_)
app.command("rollback")(commands_config_live.rollback)


@app.command("check")
@guarded
def check(
    file: Annotated[Path, typer.Argument(help="A TOML file.", readable=False)],
    history: Annotated[
        Path | None, typer.Option("--history", help="Also say which changes of this history would not fit the file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole configuration, defaults included, as JSON.")] = False,
) -> int:
    """Say whether a configuration is right; a wrong one is refused with its path, the bound and what came.

    Example:  floodwall config check floodwall.toml
    """
    import msgspec

    from detectors.registry import playbooks, settings, window_rules
    from engine.geo import make_geo
    from schemas.config import load_config

    config = load_config(file)
    window_rules(config)  # reads the lists that it names
    make_geo(config.input.geo)  # and these files
    if history is not None:
        from replay.history import HistoryFile

        changes = HistoryFile(config, history)
        changes.read()
        if changes.refused:
            line, why = changes.refused[0]
            raise ConfigError(f"{len(changes.refused)} changes of {history} do not fit, the first in line {line}: {why}")
    config = msgspec.structs.replace(
        config, detectors=msgspec.to_builtins(settings(config)), playbooks=msgspec.to_builtins(playbooks(config))
    )
    typer.echo(msgspec.json.encode(config).decode() if as_json else f"{file}: fine (profile {config.profile})")
    return 0


@app.command("schema")
@guarded
def schema() -> int:
    """Print the JSON Schema of the configuration.

    Example:  floodwall config schema > floodwall.schema.json
    """
    from floodwall.reference import config_schema, pretty

    typer.echo(pretty(config_schema()), nl=False)
    return 0
