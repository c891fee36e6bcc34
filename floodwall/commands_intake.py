"""``floodwall intake``: what others report to us."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodwall.guard import guarded

app = typer.Typer(
    no_args_is_help=True,
    help="Receive what others report: leaked keys, from GitHub.\n\n"
    "Example:  floodwall intake github --config kafka.toml --listen 127.0.0.1:8081",
)


@app.callback()
def intake() -> None:
    """Without this, Typer would take a single command for the whole group."""


@app.command("github")
@guarded
def github(
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file; see `floodwall config schema`.")] = None,
    listen: Annotated[str, typer.Option("--listen", help="Address and port for GitHub.")] = "127.0.0.1:8081",
    certificate: Annotated[Path | None, typer.Option("--certificate", help="PEM file: answer with TLS.")] = None,
    certificate_key: Annotated[Path | None, typer.Option("--certificate-key", help="PEM file of its key.")] = None,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="Listen without TLS where others could listen in.")] = False,
    health_port: Annotated[
        int, typer.Option("--health-port", min=0, max=65535, help="Health and metrics on 127.0.0.1; 0: any free port.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what happens as JSON, one object per line.")] = False,
) -> int:
    """Receive what GitHub's secret scanning partner programme posts, and publish fingerprints to the topic leaked-keys.

    Example:  floodwall intake github --config kafka.toml --certificate cert.pem --certificate-key key.pem --listen 0.0.0.0:8443
    """
    import signal

    from edge.bouncer_server import parse_listen, refuse_plaintext, tls_of
    from edge.intake_server import run_intake
    from engine.clock import SystemClock
    from engine.seeds import make_seeds
    from floodwall.guard import EXIT_INTERRUPTED
    from floodwall.notices import teller
    from schemas.config import load_config

    chosen = load_config(config)
    where, tls = parse_listen(listen), tls_of(certificate, certificate_key, None)
    refuse_plaintext(where[0], tls, plaintext)
    seeds, tell = make_seeds(chosen), teller("intake", as_json=as_json)
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda came, _: signals.append(came))
    run_intake(
        chosen, seeds.key if seeds.configured else None, SystemClock(), tell, lambda: bool(signals), listen=where, tls=tls,
        health_port=health_port,
    )  # fmt: skip
    tell("stopped", {})
    return EXIT_INTERRUPTED if signal.SIGINT in signals else 0
