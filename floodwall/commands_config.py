"""``floodwall config``: check a configuration, print its schema; what judges decide by is changed in the commands beside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodwall import commands_config_live
from floodwall import gate as gates
from floodwall.guard import guarded
from schemas.errors import ConfigError, UsageError

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
    backtest: gates.Backtest = None,
    max_collateral: gates.MaxCollateral = None,
    source: gates.BacktestSource = None,
    feedback: gates.BacktestFeedback = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="With --backtest: what is in force now; without, all that FILE mitigates is new."),
    ] = None,
) -> int:
    """Say whether a configuration is right; a wrong one is refused with its path, the bound and what came.

    With --backtest it is tried on recorded traffic, and refused if it mitigates too much of what is normal: docs/diff.md.

    Example:  floodwall config check floodwall.toml
    """
    import msgspec

    from detectors.registry import playbooks, settings, window_rules
    from engine.geo import make_geo
    from schemas.config import load_config

    gate = gates.gate_of(backtest, max_collateral, source, feedback)
    if against is not None and gate is None:
        raise UsageError("expected --backtest with --against, as --backtest 24h")
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
    if gate is not None:
        gates.tell(gate.judge(None if against is None else load_config(against), config), gate.share_max)
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
