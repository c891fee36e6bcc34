"""``floodwall keys``: key pairs to sign mitigations with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floodwall.guard import guarded

app = typer.Typer(
    no_args_is_help=True,
    help="Keys that mitigations are signed with (Ed25519), and that edges trust.\n\nExample:  floodwall keys make judges.pem",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The private key, as PEM.")]


@app.command("make")
@guarded
def make(file: File, as_json: Json = False) -> int:
    """Make a key pair: the private key goes into FILE, which only you can read, and what edges need is printed.

    Example:  floodwall keys make judges.pem
    """
    import secrets

    from broker.signing import make_key, save_private_key

    pem, public = make_key(secrets.token_bytes)
    save_private_key(file, pem)
    _print(public, as_json)
    return 0


@app.command("show")
@guarded
def show(file: File, as_json: Json = False) -> int:
    """Print the public key of a private one.

    Example:  floodwall keys show judges.pem
    """
    from broker.signing import load_private_key, public_text

    _print(public_text(load_private_key(file)), as_json)
    return 0


def _print(public: str, as_json: bool) -> None:
    import base64

    from broker.signing import key_id_of

    key_id = key_id_of(base64.b64decode(public))
    if as_json:
        import orjson

        typer.echo(orjson.dumps({"key_id": key_id, "key": public}).decode())
        return
    typer.echo(f"# In the configuration of every edge; in records it is called {key_id}.")
    typer.echo("[[signing.public_keys]]")
    typer.echo(f'key = "{public}"')
    typer.echo('owner = "who holds the private key"')
    typer.echo('speaks_for = "detectors"  # or "operators"')
