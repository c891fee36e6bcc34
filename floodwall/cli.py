"""The command line: one file per group of commands, no logic."""

from __future__ import annotations

import gc
import sys

import typer

from floodwall import (
    commands_broker,
    commands_compare,
    commands_config,
    commands_drill,
    commands_edge,
    commands_explain,
    commands_feedback,
    commands_intake,
    commands_keys,
    commands_mitigations,
    commands_models,
    commands_playbook,
    commands_produce,
    commands_run,
    commands_status,
    commands_topics,
    commands_verify,
    commands_worker,
)
from floodwall.guard import prepare_streams, run_guarded

app = typer.Typer(
    name="floodwall",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Finds floods, credential stuffing and abuse of API keys in access logs and event streams, and says whom to stop.\n\n"
    "Start with:  floodwall demo, floodwall doctor access.log, floodwall replay access.log, floodwall watch access.log",
    epilog="Exit codes: 0 fine, 1 a comparison exceeds its bound, 2 a setting or option is wrong, "
    "3 an input cannot be read or an output not written, "
    "4 a saved state cannot be used, 5 an input broke off early (all before it was decided), 6 Kafka cannot be used, "
    "7 a firewall cannot be used, 70 a fault of Floodwall, 130 interrupted.",
)
app.command("demo")(commands_run.demo)
app.command("replay")(commands_run.replay)
app.command("diff")(commands_compare.diff)
app.command("what-if")(commands_compare.what_if)
app.command("watch")(commands_run.watch)
app.command("doctor")(commands_run.doctor)
app.command("produce")(commands_produce.produce)
app.command("explain")(commands_explain.explain)
app.command("verify")(commands_verify.verify)
app.command("status")(commands_status.status)
app.command("worker")(commands_worker.worker)
app.command("feedback")(commands_feedback.feedback)
app.add_typer(commands_config.app, name="config")
app.add_typer(commands_broker.app, name="broker")
app.add_typer(commands_topics.app, name="topics")
app.add_typer(commands_mitigations.app, name="mitigations")
app.add_typer(commands_models.app, name="models")
app.add_typer(commands_playbook.app, name="playbook")
app.add_typer(commands_edge.app, name="edge")
app.add_typer(commands_intake.app, name="intake")
app.add_typer(commands_drill.app, name="drill")
app.add_typer(commands_keys.app, name="keys")


YOUNG_OBJECTS_MAX = 50_000
"""New objects before Python looks for cycles among them. With its own 700 that was a tenth of a start: modules and compiled
kernels are half a million objects, all of which stay."""


def main() -> None:
    """Entry point of the ``floodwall`` command."""
    gc.set_threshold(YOUNG_OBJECTS_MAX)
    prepare_streams()
    sys.exit(run_guarded(_run))


def _run() -> int:
    try:
        app()
    except SystemExit as ended:
        sys.stdout.flush()
        return ended.code if isinstance(ended.code, int) else 0
    return 0
