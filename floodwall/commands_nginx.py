"""``floodwall edge nginx``: files that nginx includes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from floodwall.guard import guarded
from floodwall.options import ConfigFile, Drills, EdgeId, HealthPort, JsonLines

DEFAULT_FOLDER = Path("/etc/nginx/floodwall")


@guarded
def nginx(
    config: ConfigFile = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where the two files are written; it has to be there.")] = (
        DEFAULT_FOLDER
    ),
    program: Annotated[str, typer.Option("--nginx", help="How nginx is run; options may follow.")] = "nginx",
    match: Annotated[
        list[str] | None,
        typer.Option("--match", help="KIND=$variable: where nginx has the client's ip, api_key, account, country, …"),
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", help="The only service behind this nginx; none: the host of a request tells.")
    ] = None,
    throttle_requests: Annotated[
        int,
        typer.Option("--throttle-requests", min=1, max=1_000_000, help="What a throttled target may make in a second."),
    ] = 5,
    challenge: Annotated[
        bool, typer.Option("--challenge", help="There is a location @floodwall_challenge that shows one.")
    ] = False,
    challenge_passed: Annotated[
        str | None, typer.Option("--challenge-passed", help="A $variable that is not empty for whoever has passed it.")
    ] = None,
    reload_seconds: Annotated[
        float, typer.Option("--reload-seconds", min=1, max=3600, help="nginx is told at most once in so many seconds.")
    ] = 10,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Start although input.proxy_depth > 0: this nginx sees the clients.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written; nothing is changed.")] = False,
    drills: Drills = False,
    flush_on_stop: Annotated[
        bool, typer.Option("--flush-on-stop", help="Let everything pass when stopped; without it bans run out by themselves.")
    ] = False,
    health_port: HealthPort = 0,
    edge_id: EdgeId = None,
    as_json: JsonLines = False,
) -> int:
    """Follow the enforcement topic and keep files in step with it that nginx includes.

    Example:  floodwall edge nginx --config kafka.toml --folder /etc/nginx/floodwall
    """
    from edge.enforce import Enforcer, refuse_behind_proxy
    from edge.nginx import Nginx, NginxFiles
    from edge.nginx_rules import settings_of
    from engine.clock import SystemClock
    from floodwall.edge_host import edge_host
    from floodwall.notices import teller
    from schemas.config import load_config, parse_prefixes

    chosen = load_config(config)
    refuse_behind_proxy(chosen.input.proxy_depth, behind_proxy, "nginx")
    core = map(str, parse_prefixes(chosen.policy.allowlist_core, "policy.allowlist_core"))
    settings = settings_of(
        match or (), throttle_requests, 2 * throttle_requests, has_challenge=challenge, passed=challenge_passed, core=core,
        own_service=chosen.input.service, only_service=service,
    )  # fmt: skip
    point = NginxFiles(
        folder.absolute(), settings, Nginx(tuple(shlex.split(program))), reload_seconds, SystemClock(),
        teller("edge", as_json=as_json), show=_print_file if dry_run else None,
    )  # fmt: skip
    point.open()
    with edge_host(chosen, edge_id, as_json=as_json, acknowledges=not dry_run) as host:
        reader = host.reader(point.supports, health_port, drills=drills)
        Enforcer(
            host.name, host.topic, reader, point, host.acknowledger, host.clock, host.tell, later=point.work
        ).run(host.is_stopping)  # fmt: skip
    if flush_on_stop and not dry_run:
        point.empty()
    host.tell("stopped", {"files": "emptied" if flush_on_stop else "left: bans end on time by themselves"})
    return host.exit_code


def _print_file(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
