"""``floodwall worker``: the Faust workers that observe and judge."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from floodwall.guard import guarded


class Which(StrEnum):
    """What a worker does."""

    OBSERVE = "observe"
    JUDGE = "judge"
    ALL = "all"


@guarded
def worker(
    which: Annotated[Which, typer.Argument(help="observe, judge, or all: one of each, as processes of their own.")] = Which.ALL,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file; see `floodwall config schema`.")] = None,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start them again when they end, with a growing pause.")
    ] = False,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance", help="The id of a static member, unique: restarted within the session, it gets its own back."
        ),
    ] = None,
    health_port: Annotated[
        int | None, typer.Option("--health-port", min=0, max=65535, help="Instead of kafka.health_port; with `all`: any free.")
    ] = None,
) -> int:
    """Work on Kafka until interrupted. As many as there are partitions can share the work: start more of them.

    Example:  floodwall worker all --config kafka.toml --supervise
    """
    from schemas.config import load_config

    chosen = load_config(config)
    if which is not Which.ALL and not supervise:
        import msgspec

        from engine.clock import SystemClock
        from streams.worker import Role, run_worker

        if health_port is not None:
            chosen = msgspec.structs.replace(chosen, kafka=msgspec.structs.replace(chosen.kafka, health_port=health_port))
        role: Role = "observe" if which is Which.OBSERVE else "judge"
        return run_worker(chosen, role, SystemClock(), instance=instance)
    return _supervise(which, config, supervise, instance, health_port)


def _supervise(which: Which, config: Path | None, restart: bool, instance: str | None, health_port: int | None) -> int:
    from engine.clock import SystemClock
    from streams.logs import set_up_logs
    from streams.supervisor import Supervisor

    set_up_logs(SystemClock())
    roles = ["observe", "judge"] if which is Which.ALL else [which.value]
    commands = {}
    for role in roles:
        words = ["worker", role]
        words += [] if config is None else ["--config", str(config)]
        words += [] if instance is None else ["--instance", f"{instance}-{role}" if len(roles) > 1 else instance]
        if len(roles) > 1 or health_port is not None:
            words += ["--health-port", str(health_port if health_port is not None and len(roles) == 1 else 0)]
        commands[role] = words
    return Supervisor(commands, restart=restart).run()
