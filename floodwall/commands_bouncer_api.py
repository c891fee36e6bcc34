"""``floodwall edge bouncer-api``: the feed that CrowdSec's bouncers ask, and the keys that they ask with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodwall.guard import guarded, run_guarded
from floodwall.options import ConfigFile, EdgeId, HealthPort, JsonLines

app = typer.Typer(
    help="Serve what is in force to CrowdSec's bouncers, unmodified.\n\n"
    "Example:  floodwall edge bouncer-api --config kafka.toml --keys bouncer-keys.json",
)
keys = typer.Typer(
    no_args_is_help=True,
    help="Keys of bouncers; the file keeps their hashes only.\n\n"
    "Example:  floodwall edge bouncer-api keys add web-1 --keys bouncer-keys.json",
)
app.add_typer(keys, name="keys")

KeysFile = Annotated[Path, typer.Option("--keys", help="The file of hashed keys.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_KEYS = Path("bouncer-keys.json")


@app.callback(invoke_without_command=True)
def bouncer_api(
    context: typer.Context,
    config: ConfigFile = None,
    keys_file: KeysFile = DEFAULT_KEYS,
    listen: Annotated[str, typer.Option("--listen", help="Address and port for bouncers.")] = "127.0.0.1:8080",
    certificate: Annotated[Path | None, typer.Option("--certificate", help="PEM file: answer with TLS.")] = None,
    certificate_key: Annotated[Path | None, typer.Option("--certificate-key", help="PEM file of its key.")] = None,
    client_authority: Annotated[
        Path | None, typer.Option("--client-authority", help="PEM file: bouncers need a certificate of this authority too.")
    ] = None,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="Listen without TLS where others could listen in.")] = False,
    health_port: HealthPort = 0,
    drills: Annotated[bool, typer.Option("--drills", help="Serve drills too; for rehearsals.")] = False,
    edge_id: EdgeId = None,
    as_json: JsonLines = False,
) -> None:
    """Follow the enforcement topic and answer bouncers, in stream and in live mode."""
    if context.invoked_subcommand is not None:
        return
    files = certificate, certificate_key, client_authority
    raise typer.Exit(
        run_guarded(
            lambda: _serve(
                config, keys_file, listen, files, plaintext=plaintext, health_port=health_port, drills=drills, edge_id=edge_id,
                as_json=as_json,
            )
        )
    )  # fmt: skip


def _serve(
    config: Path | None, keys_file: Path, listen: str, files: tuple[Path | None, Path | None, Path | None], *, plaintext: bool,
    health_port: int, drills: bool, edge_id: str | None, as_json: bool,
) -> int:  # fmt: skip
    from edge.bouncer import BouncerEdge
    from edge.bouncer_server import parse_listen, refuse_plaintext, tls_of
    from floodwall.edge_host import edge_host
    from schemas.config import load_config

    chosen = load_config(config)
    where, tls = parse_listen(listen), tls_of(*files)
    refuse_plaintext(where[0], tls, plaintext)
    with edge_host(chosen, edge_id, as_json=as_json) as host:
        assert host.acknowledger is not None
        edge = BouncerEdge(
            host.name, host.topic, host.core, keys_file, host.acknowledger, host.clock, host.tell, drills=drills,
            verifier=host.verifier,
        )  # fmt: skip
        edge.run(where, health_port, host.is_stopping, tls=tls)
    host.tell("stopped", {"bouncers": "keep what they have until it ends"})
    return host.exit_code


@keys.command("add")
@guarded
def add(
    name: Annotated[str, typer.Argument(help="Of the bouncer, for people and metrics.")],
    keys_file: KeysFile = DEFAULT_KEYS,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="A decision it can carry out: ban, captcha, throttle. None: ban.")
    ] = None,
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="Whom it can tell apart beside single addresses: range, country, as.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Make a key and print it, once: the file keeps its hash.

    A bouncer is told only of what is said here that it can do: many take what they do not know for a ban.

    Example:  floodwall edge bouncer-api keys add web-1 --type ban --type captcha --scope range
    """
    import secrets

    from edge.bouncer_keys import add_key, make_key
    from engine.clock import SystemClock

    now = SystemClock().now_ms() // 1000
    secret, kept = make_key(name, types or ("ban",), scopes or (), now=now, draw=secrets.token_bytes)
    add_key(keys_file, kept)
    if as_json:
        import orjson

        typer.echo(orjson.dumps({"name": name, "key": secret, "types": kept.types, "scopes": kept.scopes}).decode())
    else:
        typer.echo(secret)
    return 0


@keys.command("list")
@guarded
def list_(keys_file: KeysFile = DEFAULT_KEYS, as_json: Json = False) -> int:
    """Print whose keys there are, and what each bouncer can do.

    Example:  floodwall edge bouncer-api keys list --keys bouncer-keys.json
    """
    from edge.bouncer_keys import load_keys
    from floodwall.show import moment
    from floodwall.tables import print_table

    found = load_keys(keys_file)
    if as_json:
        import orjson

        plain = [{"name": k.name, "types": k.types, "scopes": k.scopes, "created_at": k.created_at} for k in found]
        typer.echo(orjson.dumps(plain, option=orjson.OPT_INDENT_2).decode())
        return 0
    rows = [(key.name, ", ".join(key.types), ", ".join(key.scopes), moment(key.created_at)) for key in found]
    print_table(("name", "types", "scopes", "made (UTC)"), rows)
    return 0


@keys.command("revoke")
@guarded
def revoke(name: Annotated[str, typer.Argument()], keys_file: KeysFile = DEFAULT_KEYS) -> int:
    """Take a key away: a running edge refuses it from the next request on. What its bouncer has ends on time.

    Example:  floodwall edge bouncer-api keys revoke web-1 --keys bouncer-keys.json
    """
    from edge.bouncer_keys import revoke_key

    revoke_key(keys_file, name)
    return 0
