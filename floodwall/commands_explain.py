"""``floodwall explain``: one mitigation on one screen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.guard import guarded, tell_of_compiling
from floodwall.options import Pseudonymise

if TYPE_CHECKING:
    from schemas.config import Config
    from schemas.mitigation import Mitigation


@guarded
def explain(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Of the mitigation.")],
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file; see `floodwall config schema`.")] = None,
    mitigations: Annotated[
        Path | None,
        typer.Option("--mitigations", help="Without Kafka: the file that replay or watch wrote with --out.", metavar="FILE"),
    ] = None,
    findings: Annotated[
        Path | None, typer.Option("--findings", help="With --mitigations: the file written with --findings.", metavar="FILE")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option("--log", help="The log that was decided about, where it is not where it was.", metavar="FILE"),
    ] = None,
    config_history: Annotated[
        Path | None,
        typer.Option("--config-history", help="With --mitigations: the changes of the configuration that the run was given."),
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="As it was decided with: web or api.")] = None,
    proxy_depth: Annotated[int | None, typer.Option("--proxy-depth", help="As it was decided with.")] = None,
    pseudonymise: Pseudonymise = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a screen.")] = False,
) -> int:
    """Say on one screen what happened, to whom, what is being done about it, what it looked like, and what to do next.

    The traffic is read again by the offsets in the evidence; of keys, names and query strings nothing is shown.

    Example:  floodwall explain 6f1c0d0e8a7b4c5d9e2f3a4b5c6d7e8f --config kafka.toml
    """
    from engine.clock import SystemClock
    from engine.config_chain import ConfigChain
    from engine.policy import FOR_EVER
    from floodwall.commands_run import chosen_config, chosen_history
    from floodwall.explain_screen import print_explanation
    from replay.advice import advise_feedback
    from replay.explain import explain_files, explain_topics
    from schemas.errors import UsageError
    from schemas.pseudonyms import read_pseudonyms

    if (findings is not None or config_history is not None) and mitigations is None:
        raise UsageError("expected --mitigations with --findings and --config-history: with Kafka the topics are read")
    pseudonyms = None if pseudonymise is None else read_pseudonyms(pseudonymise)
    tell_of_compiling()
    chosen = chosen_config(config, profile, proxy_depth).config
    now, logs = SystemClock().now_ms() // 1000, log or []

    def standing(records: list[Mitigation], at: int) -> Mitigation | None:
        return _standing(chosen, records, at)

    if mitigations is not None:
        history = chosen_history(chosen, config_history)
        chain = ConfigChain(chosen) if history is None else history.chain
        found = explain_files(chain, identifier, mitigations, findings, logs, now, standing, pseudonyms)
    else:
        found = explain_topics(chosen, identifier, logs, now, standing, pseudonyms)
        if _has_command("feedback") and pseudonyms is None:
            found.next += advise_feedback(identifier, found.status, for_good=found.until >= FOR_EVER)
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        print_explanation(found)
    return 0


def _has_command(name: str) -> bool:
    """What somebody is told to type has to be there."""
    from floodwall.cli import app

    return any(command.name == name for command in app.registered_commands)


def _standing(config: Config, records: list[Mitigation], now: int) -> Mitigation | None:
    """What is in force, by the one reader that edges have."""
    from edge.reader import Reader
    from schemas.config import parse_prefixes
    from schemas.prefixes import Prefixes

    core = Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core"))
    reader = Reader(core, lambda subject, action: True)
    reader.begin({})
    for one in records:
        reader.take_mitigation(one)
    reader.changes(1000 * now)
    for found in reader.table.values():
        return next(one for one in reversed(records) if one.id == found.record.id and one.detector == found.record.detector)
    return None
