"""``floodwall edge webhook``: gateways that are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from floodwall.guard import guarded
from floodwall.options import ConfigFile, Drills, EdgeId, HealthPort, JsonLines


@guarded
def webhook(
    hooks: Annotated[Path, typer.Option("--hooks", help="A TOML file: whom to call for what; see docs/edge-webhook.md.")],
    config: ConfigFile = None,
    book: Annotated[
        Path, typer.Option("--book", help="Where it is written down what gateways may hold; keep it over restarts.")
    ] = Path("webhook-book.ndjson"),
    drills: Drills = False,
    health_port: HealthPort = 0,
    edge_id: EdgeId = None,
    as_json: JsonLines = False,
) -> int:
    """Follow the enforcement topic and call gateways when something begins, lasts longer, or has ended.

    Example:  floodwall edge webhook --config kafka.toml --hooks hooks.toml --book /var/lib/floodwall/webhook-book.ndjson
    """
    from edge.enforce import Enforcer
    from edge.hook_book import HookBook
    from edge.hooks import CallSigner, load_hooks
    from edge.webhook import WebhookPoint
    from floodwall.edge_host import edge_host
    from schemas.config import load_config

    chosen = load_config(config)
    called = load_hooks(hooks, os.environ)
    signer, held = CallSigner(called.signing), HookBook(book)
    with edge_host(chosen, edge_id, as_json=as_json) as host:
        point = WebhookPoint(called, signer, held, host.clock, host.tell)
        reader = host.reader(point.supports, health_port, drills=drills, more=point.metrics)
        point.start()
        try:
            Enforcer(
                host.name, host.topic, reader, point, host.acknowledger, host.clock, host.tell, later=point.work
            ).run(host.is_stopping)  # fmt: skip
        finally:
            point.stop()
    host.tell("stopped", {"gateways": "keep what they have: start it again, nothing else ends it"})
    return host.exit_code
