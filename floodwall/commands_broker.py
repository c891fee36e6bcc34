"""``floodwall broker``: a real local Kafka for trying things and for tests, without Docker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.guard import EXIT_INTERRUPTED, guarded

if TYPE_CHECKING:
    from broker.local import LocalBroker

app = typer.Typer(
    no_args_is_help=True,
    help="Run a real Kafka on this machine, without Docker. For development: one node, plaintext.\n\n"
    "Example:  floodwall broker up",
)
Folder = Annotated[
    Path | None, typer.Option("--folder", help="Where it keeps its data; none: floodwall/broker in the user's cache folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EXIT_DOWN = 1


@app.command("up")
@guarded
def up(
    port: Annotated[int, typer.Option("--kafka-port", min=0, max=65535, help="On 127.0.0.1; 0: any that is free.")] = 9092,
    folder: Folder = None,
    foreground: Annotated[
        bool, typer.Option("--foreground/--detach", "-f/-d", help="Stay until interrupted, then stop the broker.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Start it, and return when it answers. The first time fetches Kafka with Maven.

    Example:  floodwall broker up
    """
    import signal
    import threading

    stopping = threading.Event()
    if foreground:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda came, _: stopping.set())
    broker = _broker(folder, port)
    if broker.pid is None:
        broker.start()
        print(f"floodwall: a broker runs on {broker.bootstrap}; its log is {broker.log_file}", file=sys.stderr)
    else:
        print("floodwall: it was up already", file=sys.stderr)
    _print(broker, as_json)
    if foreground:
        while broker.pid is not None and not stopping.wait(1.0):
            pass
        return EXIT_INTERRUPTED if broker.stop() else EXIT_DOWN
    return 0


@app.command("down")
@guarded
def down(folder: Folder = None, as_json: Json = False) -> int:
    """Stop it; its data stay. Only the process that `up` started is ended.

    Example:  floodwall broker down
    """
    broker = _broker(folder)
    stopped = broker.stop()
    print(f"floodwall: {'stopped' if stopped else 'there was none'}", file=sys.stderr)
    _print(broker, as_json, stopped=stopped)
    return 0


@app.command("reset")
@guarded
def reset(
    folder: Folder = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> int:
    """Stop it and throw away its topics and everything in them.

    Example:  floodwall broker reset --yes
    """
    broker = _broker(folder)
    if not yes and not typer.confirm(f"Throw away the topics in {broker.folder}?", err=True):
        return EXIT_DOWN
    broker.reset()
    _print(broker, as_json)
    return 0


@app.command("status")
@guarded
def status(folder: Folder = None, as_json: Json = False) -> int:
    """Say whether it runs and where; exits 1 when it does not.

    Example:  floodwall broker status
    """
    broker = _broker(folder)
    _print(broker, as_json)
    return 0 if broker.pid is not None else EXIT_DOWN


def _broker(folder: Path | None, port: int = 0) -> LocalBroker:
    from broker.local import LocalBroker, default_folder

    return LocalBroker(folder or default_folder(), port, say=lambda text: print(f"floodwall: {text}", file=sys.stderr))


def _print(broker: LocalBroker, as_json: bool, *, stopped: bool = False) -> None:
    import msgspec

    found = broker.status()
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    elif found.running:
        typer.echo(f"{found.bootstrap} is up as process {found.pid}, {found.bytes / 1e6:,.1f} MB in {found.folder}")
    elif stopped:
        typer.echo(f"the broker in {found.folder} is down, {found.bytes / 1e6:,.1f} MB of data stay")
    else:
        typer.echo(f"no broker runs in {found.folder} ({found.bytes / 1e6:,.1f} MB of data)")
