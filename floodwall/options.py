"""Options that several commands have, each with one text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file; see `floodwall config schema`.")]

Pseudonymise = Annotated[
    Path | None,
    typer.Option(
        "--pseudonymise", metavar="KEYFILE",
        help="For whoever it is passed on to: pseudonyms in place of addresses, keys, accounts, mail domains and names.",
    ),
]  # fmt: skip

# Of edges.
HealthPort = Annotated[
    int, typer.Option("--health-port", min=0, max=65535, help="Health and metrics on 127.0.0.1; 0: any free port.")
]
Drills = Annotated[bool, typer.Option("--drills", help="Enforce drills too; for rehearsals.")]
EdgeId = Annotated[str | None, typer.Option("--edge-id", help="In acknowledgements; none: the host's name.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print what happens as JSON, one object per line.")]
