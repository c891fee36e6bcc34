"""``floodwall config``: check a configuration, print its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodwall.guard import guarded

app = typer.Typer(
    no_args_is_help=True,
    help="Check a configuration file, or print what one may hold.\n\nExample:  floodwall config check floodwall.toml",
)


@app.command("check")
@guarded
def check(
    file: Annotated[Path, typer.Argument(help="A TOML file.", readable=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole configuration, defaults included, as JSON.")] = False,
) -> int:
    """Say whether a configuration is right; a wrong one is refused with its path, the bound and what came.

    Example:  floodwall config check floodwall.toml
    """
    import msgspec

    from detectors.registry import settings, window_rules
    from engine.geo import make_geo
    from schemas.config import load_config

    config = load_config(file)
    window_rules(config)  # reads the lists that it names
    make_geo(config.input.geo)  # and these files
    config = msgspec.structs.replace(config, detectors=msgspec.to_builtins(settings(config)))
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
