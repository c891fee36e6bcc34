"""``floodwall edge``: enforcement points that follow the enforcement topic."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from floodwall import commands_bouncer_api, commands_nginx, commands_webhook
from floodwall.guard import guarded
from floodwall.options import ConfigFile, Drills, EdgeId, HealthPort, JsonLines

app = typer.Typer(
    no_args_is_help=True,
    help="Enforce what is on the enforcement topic; one command for each kind of firewall.\n\n"
    "Example:  floodwall edge nft --config kafka.toml --dry-run",
)


app.add_typer(commands_bouncer_api.app, name="bouncer-api")
app.command("nginx")(commands_nginx.nginx)
app.command("webhook")(commands_webhook.webhook)


@app.callback()
def edge() -> None:
    """Without this, Typer would take a single command for the whole group."""


@app.command("nft")
@guarded
def nft(
    config: ConfigFile = None,
    table: Annotated[str, typer.Option("--table", help="Our table, in the family inet.")] = "floodwall",
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Start although input.proxy_depth > 0: this host sees the clients.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what nft would be told; nothing is changed.")] = False,
    drills: Drills = False,
    flush_on_stop: Annotated[
        bool, typer.Option("--flush-on-stop", help="Remove the table when stopped; without it bans run out by themselves.")
    ] = False,
    throttle_packets: Annotated[
        int, typer.Option("--throttle-packets", min=1, max=1_000_000, help="Packets a second that a throttled target may send.")
    ] = 20,
    service: Annotated[
        str | None, typer.Option("--service", help="The only service behind this host: its signatures that name a network.")
    ] = None,
    netns: Annotated[str | None, typer.Option("--netns", help="Work in this network namespace (ip netns).")] = None,
    health_port: HealthPort = 0,
    edge_id: EdgeId = None,
    as_json: JsonLines = False,
) -> int:
    """Follow the enforcement topic and keep a table of nftables in step with it.

    Example:  floodwall edge nft --config kafka.toml --dry-run
    """
    from edge.enforce import Enforcer, refuse_behind_proxy
    from edge.nft import NftTable
    from edge.nft_rules import Throttle, element_of
    from floodwall.edge_host import edge_host
    from schemas.config import load_config, parse_prefixes

    chosen = load_config(config)
    refuse_behind_proxy(chosen.input.proxy_depth, behind_proxy)
    core = parse_prefixes(chosen.policy.allowlist_core, "policy.allowlist_core")
    point = NftTable(
        table,
        core,
        Throttle(throttle_packets, 2 * throttle_packets),
        service=service,
        netns=netns,
        show=_print_batch if dry_run else None,
    )
    standing = point.open()
    with edge_host(chosen, edge_id, as_json=as_json, acknowledges=not dry_run) as host:
        reader = host.reader(point.supports, health_port, drills=drills, more=point.metrics)
        Enforcer(
            host.name, host.topic, reader, point, host.acknowledger, host.clock, host.tell,
            known=lambda subject, one: element_of(subject, one.action) in standing,
        ).run(host.is_stopping)  # fmt: skip
    if flush_on_stop:
        point.remove()
    host.tell("stopped", {"table": "removed" if flush_on_stop else "left: bans end on time by themselves"})
    return host.exit_code


def _print_batch(batch: str) -> None:
    sys.stdout.write(batch)
    sys.stdout.flush()
