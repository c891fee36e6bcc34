"""``floodwall playbook``: what is done while a condition holds, what has been done, and how all of a run is taken back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodwall.commands_config_live import ConfigFile, Force, HistoryPath, Json, Who, Why, change_section
from floodwall.guard import guarded
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge.runs import Run
    from engine.config_chain import ConfigChain
    from replay.shown import Shown
    from schemas.config import Config
    from schemas.mitigation import Mitigation

app = typer.Typer(
    no_args_is_help=True,
    help="Sets of steps that are taken while a condition holds, and reverted as one.\n\n"
    "Example:  floodwall playbook list --config kafka.toml",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a playbook; see `floodwall playbook list`.")]
Decisions = Annotated[
    list[Path] | None,
    typer.Option("--decisions", help="Files that `replay --out` or `watch --out` has written; none: the enforcement topic."),
]
EXIT_NOT_FOUND = 1


@app.command("list")
@guarded
def list_(config: ConfigFile = None, history: HistoryPath = None, as_json: Json = False) -> int:
    """Print the playbooks: which are armed, by whom, on what condition they do what.

    Example:  floodwall playbook list --config kafka.toml
    """
    import msgspec

    from detectors.registry import playbooks
    from engine.playbook_parts import condition_text
    from floodwall.tables import print_table

    known = playbooks(_chain(config, history).last.config)
    if as_json:
        _print_json(msgspec.to_builtins(known))
        return 0
    print_table(
        ("name", "state", "owner", "when", "then"),
        [
            (name, one.state, one.owner, condition_text(one), ", ".join(f"{s.action} ({s.target})" for s in one.steps))
            for name, one in known.items()
        ],
    )
    return 0


@app.command("show")
@guarded
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|RUN", help="A playbook, or a run of one.")],
    decisions: Decisions = None,
    config: ConfigFile = None,
    history: HistoryPath = None,
) -> int:
    """Print a playbook as it stands, as JSON, or all that a run has published.

    Example:  floodwall playbook show registration-flood --config kafka.toml
    """
    import msgspec

    from detectors.registry import playbooks

    known = playbooks(_load(config) if decisions else _chain(config, history).last.config)
    if name in known:
        _print_json(msgspec.to_builtins(known[name]))
        return 0
    run = _find(_load(config), name, decisions)
    if run is None:
        return EXIT_NOT_FOUND
    _print_json(msgspec.to_builtins(run))
    return 0


@app.command("runs")
@guarded
def runs(decisions: Decisions = None, config: ConfigFile = None, as_json: Json = False) -> int:
    """Print the runs that are known: since when, until when, what they have published.

    Example:  floodwall playbook runs --config kafka.toml
    """
    import msgspec

    from edge.runs import runs_of
    from floodwall.show import moment
    from floodwall.tables import print_table
    from replay.shown import shown_by

    chosen = _load(config)
    found, shown = runs_of(_values(chosen, decisions)), shown_by(chosen)
    if as_json:
        _print_json(msgspec.to_builtins(found))
        return 0
    if not found:
        print("No playbook has run.")
        return 0
    print_table(
        ("run", "playbook", "state", "since (UTC)", "last seen", "until", "what"),
        [
            (
                one.run, one.playbook, "reverted" if one.reverted else one.state, moment(one.since), moment(one.last),
                moment(one.until), ", ".join(sorted({_step_text(step, shown) for step in one.steps})),
            )
            for one in found
        ],
    )  # fmt: skip
    return 0


@app.command("arm")
@guarded
def arm(
    name: Name, why: Why, who: Who = None, force: Force = False, config: ConfigFile = None, history: HistoryPath = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """From soon on what it says is done. It has to have stood simulated for ten minutes, unless forced.

    Example:  floodwall playbook arm registration-flood --why "seen simulated for a week" --config kafka.toml
    """
    return _switch(name, "armed", why, who, force, config, history, as_json)


@app.command("simulate")
@guarded
def simulate(
    name: Name, why: Why, who: Who = None, config: ConfigFile = None, history: HistoryPath = None, as_json: Json = False
) -> int:
    """From soon on what it would do is published in dry run, and nothing is done; runs that are under way end by themselves.

    Example:  floodwall playbook simulate registration-flood --why "too many challenges" --config kafka.toml
    """
    return _switch(name, "simulated", why, who, False, config, history, as_json)


@app.command("off")
@guarded
def off(
    name: Name, why: Why, who: Who = None, config: ConfigFile = None, history: HistoryPath = None, as_json: Json = False
) -> int:
    """From soon on it is not looked at; runs that are under way end by themselves, or with `revert`.

    Example:  floodwall playbook off leaked-key --why "the gateway does that now" --config kafka.toml
    """
    return _switch(name, "off", why, who, False, config, history, as_json)


@app.command("revert")
@guarded
def revert(
    identifier: Annotated[str, typer.Argument(metavar="RUN", help="Of a run; `floodwall playbook runs` has them.")],
    why: Why,
    who: Who = None,
    decisions: Decisions = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="With --decisions: append the record to this file, for `replay --feedback`.")
    ] = None,
    config: ConfigFile = None,
) -> int:
    """Lift everything that a run has published, and begin no other while its condition lasts.

    A key that was disabled as leaked is so no longer, whatever is reported of it later.

    Example:  floodwall playbook revert 1f0c9a77d2e4b608 --why "that is our own launch" --config kafka.toml
    """
    from floodwall.commands_feedback import append_feedback, moments, whose
    from replay.shown import shown_by
    from schemas.feedback import revert_record
    from schemas.playbooks import PREFIX

    if (to is None) != (decisions is None):
        raise UsageError("expected --decisions and --to together: where the run is, and where the record goes")
    chosen = _load(config)
    run = _find(chosen, identifier, decisions)
    if run is None:
        return EXIT_NOT_FOUND
    when, tick = moments(chosen, None)
    disabled = [step for step in run.steps if step.action == "disable_key" and not step.dry_run]
    name = whose(chosen, who)
    record = revert_record(run.run, PREFIX + run.playbook, who=name, reason=why[:256], when=when, tick=tick)
    if to is not None:
        if disabled:
            raise UsageError(
                "expected a run that a file of feedback can end, got a disabled key: lift it in the file of reports"
            )
        record = revert_record(run.run, record.detector, who=name, reason=why[:256], when=when, tick=run.last + 1)
        append_feedback(chosen, record, to)
    elif disabled:
        _lift_keys(chosen, disabled, name, why, when)
    else:
        _revert_on_topics(chosen, run, record)
    _print_reverted(run, record.tick, shown_by(chosen))
    return 0


def _revert_on_topics(config: Config, run: Run, record: Any) -> None:
    from broker.connection import Connection
    from broker.signing import signer_of
    from edge.operator import publish
    from edge.runs import bridges_of
    from engine.clock import SystemClock
    from floodwall.commands_feedback import publish_feedback
    from schemas.config import parse_prefixes
    from schemas.prefixes import Prefixes
    from schemas.topics import MITIGATIONS

    publish_feedback(config, record)
    clock, connection, topic = SystemClock(), Connection(config.kafka), config.kafka.topic_prefix + MITIGATIONS
    core = Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core"))
    signer = signer_of(config, topic, clock)
    for bridge in bridges_of(config, connection, core, clock, record, run):
        publish(connection, topic, bridge, signer)


def _lift_keys(config: Config, disabled: list[Mitigation], who: str, why: str, now: int) -> None:
    """As `floodwall mitigations lift` does: an allow for a while, and judges are told on the topic leaked-keys."""
    from broker.connection import Connection
    from broker.signing import signer_of
    from edge.leaks_topic import LeaksTopic, leak_lift
    from edge.operator import operator_record, publish
    from edge.reader import ALLOW
    from engine.clock import SystemClock
    from schemas.topics import LEAKED_KEYS, MITIGATIONS

    connection, prefix, longest = Connection(config.kafka), config.kafka.topic_prefix, config.policy.ttl_s_max
    signer = signer_of(config, prefix + MITIGATIONS, SystemClock())
    for step in disabled:
        allow = operator_record(
            step.target, ALLOW, now=now, ttl_s=min(600, longest), ttl_s_max=longest, owner=who, reason=why
        )  # fmt: skip
        publish(connection, prefix + MITIGATIONS, allow, signer)
    topic = LeaksTopic(connection, prefix + LEAKED_KEYS)
    try:
        topic.publish([leak_lift(step.target.value, now, config.time.lateness_s, who, why) for step in disabled])
    finally:
        topic.close()


def _switch(
    name: str, state: str, why: str, who: str | None, force: bool, config: Path | None, history: Path | None, as_json: bool
) -> int:  # fmt: skip
    import getpass

    from detectors.registry import playbooks
    from schemas.playbooks import SECTION

    known = playbooks(_chain(config, history).last.config)
    if name not in known:
        raise UsageError(f"expected a playbook ({', '.join(known)}), got {name[:64]!r}")
    assignments = [f'state="{state}"']
    if state == "armed" and not known[name].owner:
        import msgspec

        assignments.append(f"owner={msgspec.json.encode(who or getpass.getuser()).decode()}")
    return change_section(SECTION + name, assignments, why=why, who=who, force=force, config=config, history=history,
                          as_json=as_json)  # fmt: skip


def _load(config: Path | None) -> Config:
    from schemas.config import load_config

    return load_config(config)


def _chain(config: Path | None, history: Path | None) -> ConfigChain:
    """What stands, by the history where there is one; without Kafka and without a file, the configuration alone."""
    from engine.config_chain import ConfigChain
    from floodwall.config_store import Store

    chosen = _load(config)
    return ConfigChain(chosen) if config is None and history is None else Store(chosen, history).chain


def _values(config: Config, decisions: list[Path] | None) -> Iterable[bytes]:
    if decisions:
        from replay.sources import lines_of

        for path in decisions:
            yield from lines_of(str(path))
        return
    from broker.connection import Connection
    from broker.reading import read_values
    from schemas.topics import MITIGATIONS

    yield from read_values(Connection(config.kafka), config.kafka.topic_prefix + MITIGATIONS)


def _find(config: Config, identifier: str, decisions: list[Path] | None) -> Run | None:
    """The run of that id; else it is said that there is none."""
    from edge.runs import runs_of
    from floodwall.tables import printable

    for run in runs_of(_values(config, decisions)):
        if run.run == identifier:
            return run
    print(f"floodwall: expected a playbook or a run, found none of {printable(identifier[:64])}", file=sys.stderr)
    return None


def _step_text(step: Mitigation, shown: Shown) -> str:
    mark = " (dry run)" if step.dry_run else f" ({step.state})" if step.state != "active" else ""
    return f"{step.action} {step.target.type} {shown.value(step.target.type, step.target.value)}{mark}"


def _print_reverted(run: Run, tick: int, shown: Shown) -> None:
    from floodwall.show import moment
    from floodwall.tables import printable

    enforced = [step for step in run.steps if not step.dry_run and step.action != "notify"]
    print(f"run {run.run} of {run.playbook} is reverted: lifted from {moment(tick)} UTC on, at edges within a second")
    for step in enforced:
        print(printable(f"  {_step_text(step, shown)}"))


def _print_json(document: object) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
