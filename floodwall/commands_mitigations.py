"""``floodwall mitigations``: what is in force, what comes, and an operator's own records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.guard import EXIT_INTERRUPTED, guarded
from floodwall.options import ConfigFile, Pseudonymise

if TYPE_CHECKING:
    from broker.connection import Connection
    from broker.signing import Verifier
    from edge.overview import Held, Overview
    from edge.reader import Record, Standing
    from replay.shown import Shown
    from schemas.config import Config
    from schemas.mitigation import Mitigation
    from schemas.prefixes import Prefixes
    from schemas.pseudonyms import Pseudonyms

app = typer.Typer(
    no_args_is_help=True,
    help="What is in force on the enforcement topic, and an operator's own records.\n\n"
    "Example:  floodwall mitigations list --config kafka.toml",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Target = Annotated[str, typer.Argument(help="An address, a prefix (/24, /64, /48), or a value of --type.", metavar="TARGET")]
Kind = Annotated[str | None, typer.Option("--type", help="api_key, account, …; none: TARGET is an address or prefix.")]
Owner = Annotated[str, typer.Option("--owner", help="Who says so.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in one sentence.")]
Ttl = Annotated[int, typer.Option("--ttl", min=1, help="Seconds; at most policy.ttl_s_max.")]
EXIT_NOT_FOUND = 1


@app.command("list")
@guarded
def list_(
    config: ConfigFile = None,
    held: Annotated[bool, typer.Option("--held", help="What a budget holds back instead, and which.")] = False,
    pseudonymise: Pseudonymise = None,
    as_json: Json = False,
) -> int:
    """Print what is in force now: per target the strongest mitigation that has not expired, and which edges have applied it.

    Example:  floodwall mitigations list --config kafka.toml
    """
    from edge.overview import read_overview
    from engine.clock import SystemClock
    from replay.shown import shown_by
    from schemas.pseudonyms import read_pseudonyms
    from schemas.topics import ENFORCEMENT_ACKS

    pseudonyms = None if pseudonymise is None else read_pseudonyms(pseudonymise)
    chosen, connection, topic, core, verifier = _open(config)
    clock = SystemClock()
    overview = read_overview(connection, topic, chosen.kafka.topic_prefix + ENFORCEMENT_ACKS, core, clock, verifier)
    summary = overview.summary(clock.now_ms())
    standing = sorted(overview.reader.table.values(), key=lambda one: (one.expires_at_ms, one.record.target.value))
    applied = {one.record.id: _applied(overview, one.record.id) for one in standing}
    shown = summary.held_shown
    if pseudonyms is not None:
        applied = {pseudonyms.identifier(name): edges for name, edges in applied.items()}
        standing = [_passed_on(one, pseudonyms) for one in standing]
        shown = [_held_passed_on(one, pseudonyms) for one in shown]
    whom = shown_by(chosen, pseudonyms=pseudonyms is not None)
    if held:
        _print_held(shown, whom, as_json)
    elif as_json:
        _print_json([{**_plain(one, whom), "applied_s": applied[one.record.id]} for one in standing])
    else:
        _print_standing(standing, whom, applied)
    for beginning, what in (("malformed_", "could not be read"), ("refused_", "are signed by nobody whom we trust")):
        count = sum(count for reason, count in overview.reader.counts.items() if reason.startswith(beginning))
        if count:
            print(f"floodwall: {count} records {what} and were skipped", file=sys.stderr)
    return 0


def _applied(overview: Overview, identifier: str) -> dict[str, float]:
    """Edge -> seconds from the first record to it, of mitigations of the last hour."""
    times = overview.timings.known.get(identifier)
    if times is None:
        return {}
    return {edge: seconds for edge in times.answers if (seconds := times.enforce_s(edge)) is not None}


def _passed_on(standing: Standing, pseudonyms: Pseudonyms) -> Standing:
    """The same about a pseudonym."""
    import msgspec

    from schemas.mitigation import OPERATOR

    one = standing.record
    by_operator = one.detector == OPERATOR
    reason = pseudonyms.said(one.reason) if by_operator else pseudonyms.text(one.reason, one.target)
    record = msgspec.structs.replace(
        one, id=pseudonyms.identifier(one.id), target=pseudonyms.target(one.target), reason=reason
    )  # fmt: skip
    return msgspec.structs.replace(standing, record=record)


def _held_passed_on(one: Held, pseudonyms: Pseudonyms) -> Held:
    import msgspec

    return msgspec.structs.replace(one, id=pseudonyms.identifier(one.id), value=pseudonyms.value(one.type, one.value))


def _print_held(found: list[Held], whom: Shown, as_json: bool) -> None:
    import msgspec

    from floodwall.show import moment
    from floodwall.tables import print_table

    shown = [msgspec.structs.replace(one, value=whom.value(one.type, one.value)) for one in found]
    if as_json:
        _print_json(msgspec.to_builtins(shown))
    elif not shown:
        print("Nothing is held back.")
    else:
        rows = [
            (
                f"{one.type} {one.value}",
                one.action,
                one.detector,
                f"policy.{one.why}" if one.why else "",
                moment(one.until),
                one.id,
            )
            for one in shown
        ]
        print_table(("who", "action", "by", "held by", "until (UTC)", "id"), rows)
        print(
            "To stop one all the same: floodwall mitigations add TARGET --action block; to find out more: floodwall explain ID"
        )


@app.command("follow")
@guarded
def follow(
    config: ConfigFile = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with what the topic holds already.")] = False,
    as_json: Json = False,
) -> int:
    """Print every record as it comes: early and final, dry runs and lifts too.

    Example:  floodwall mitigations follow --config kafka.toml --json
    """
    import signal

    from edge.overview import why_held
    from edge.snapshot import follow_topic
    from engine.clock import SystemClock
    from floodwall.notices import teller
    from replay.shown import shown_by

    chosen, connection, topic, core, verifier = _open(config)
    whom = shown_by(chosen)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda came, _: stopping.append(came))

    def heard(record: Record, value: bytes) -> None:
        if as_json:
            sys.stdout.buffer.write(value + b"\n")
            sys.stdout.buffer.flush()
        else:
            print(_line(record, whom, why_held(value) if record.state == "held" else ""), flush=True)

    tell = teller("mitigations", as_json=False)
    follow_topic(
        connection, topic, core, SystemClock(), heard, lambda: bool(stopping), tell, from_start=from_start, verifier=verifier
    )
    return EXIT_INTERRUPTED if signal.SIGINT in stopping else 0


@app.command("show")
@guarded
def show(identifier: Annotated[str, typer.Argument(metavar="ID")], config: ConfigFile = None) -> int:
    """Print every record that the topic still has of one mitigation, as JSON, the oldest first.

    Example:  floodwall mitigations show 6f1c0d0e8a7b4c5d9e2f3a4b5c6d7e8f --config kafka.toml
    """
    from edge.snapshot import records_of
    from engine.clock import SystemClock
    from floodwall.tables import printable

    _, connection, topic, core, verifier = _open(config)
    found = records_of(connection, topic, core, SystemClock(), identifier, verifier)
    if not found:
        print(f"floodwall: expected a mitigation {printable(identifier[:64])} on {topic}, found none", file=sys.stderr)
        return EXIT_NOT_FOUND
    _print_json(found)
    return 0


@app.command("add")
@guarded
def add(
    target: Target,
    owner: Owner,
    reason: Reason,
    action: Annotated[str, typer.Option("--action", help="block, or allow: keep every detector away.")] = "block",
    ttl: Ttl = 600,
    kind: Kind = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> int:
    """Write an operator's record, which wins over every detector's on the same target.

    Example:  floodwall mitigations add 203.0.113.7 --owner ana --reason "scraper, ticket 4711" --ttl 1800
    """
    from broker.signing import signer_of
    from edge.operator import operator_record, publish, target_of
    from engine.clock import SystemClock
    from replay.shown import shown_by

    chosen, connection, topic, _, _ = _open(config)
    clock = SystemClock()
    signer = signer_of(chosen, topic, clock)
    record = operator_record(
        target_of(target, kind), action, now=clock.now_ms() // 1000, ttl_s=ttl, ttl_s_max=chosen.policy.ttl_s_max,
        owner=owner, reason=reason,
    )  # fmt: skip
    publish(connection, topic, record, signer)
    _print_written(record, shown_by(chosen), as_json)
    return 0


@app.command("lift")
@guarded
def lift(
    target: Target,
    owner: Owner,
    reason: Reason,
    ttl: Ttl = 600,
    kind: Kind = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> int:
    """End what is in force on a target: an operator's record is lifted, a detector's is kept away by an allow for --ttl.

    A leaked key that was disabled is so no longer, also after that: judges are told on the topic leaked-keys.

    Example:  floodwall mitigations lift 203.0.113.7 --owner ana --reason "a customer's office" --ttl 3600
    """
    from broker.signing import signer_of
    from detectors.leaked import NAME as LEAKED
    from edge.leaks_topic import lift_leaked
    from edge.operator import lift_record, publish, target_of
    from edge.snapshot import read_topic
    from edge.subject import parse_subject
    from engine.clock import SystemClock
    from replay.shown import shown_by

    chosen, connection, topic, core, verifier = _open(config)
    clock, whom, shown = SystemClock(), target_of(target, kind), shown_by(chosen)
    signer = signer_of(chosen, topic, clock)
    reader = read_topic(connection, topic, core, clock, lambda record, value: None, verifier)
    standing = reader.standing(parse_subject(whom), clock.now_ms())
    if not standing:
        print(f"floodwall: expected a mitigation in force on {shown.value(whom.type, whom.value)}, found none", file=sys.stderr)
        return EXIT_NOT_FOUND
    record = lift_record(
        whom, standing, now=clock.now_ms() // 1000, ttl_s=ttl, ttl_s_max=chosen.policy.ttl_s_max, owner=owner, reason=reason
    )
    publish(connection, topic, record, signer)
    disabled = [one.target.value for one in standing if one.detector == LEAKED and one.action == "disable_key"]
    lift_leaked(chosen, connection, disabled, owner, reason, clock.now_ms() // 1000)
    _print_written(record, shown_by(chosen), as_json)
    others = [one for one in standing if one.detector != record.detector]
    if record.state == "lifted" and others and not as_json:
        print(f"still in force: {', '.join(f'{one.action} by {one.detector}' for one in others)}; lift again to allow it")
    return 0


def _open(file: Path | None) -> tuple[Config, Connection, str, Prefixes, Verifier | None]:
    from broker.connection import Connection
    from broker.signing import verifier_of
    from schemas.config import load_config, parse_prefixes
    from schemas.prefixes import Prefixes
    from schemas.topics import MITIGATIONS

    config = load_config(file)
    core = Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core"))
    topic = config.kafka.topic_prefix + MITIGATIONS
    return config, Connection(config.kafka), topic, core, verifier_of(config, topic)


def _plain(standing: Standing, whom: Shown) -> dict[str, object]:
    record, target = standing.record, standing.record.target
    return {
        "id": record.id, "type": target.type, "value": whom.value(target.type, target.value), "action": record.action,
        "detector": record.detector, "reason": whom.reason(record.reason, target), "since": record.tick,
        "until": record.expires_at, "stage": record.stage,
    }  # fmt: skip


def _print_standing(standing: list[Standing], whom: Shown, applied: dict[str, dict[str, float]]) -> None:
    from floodwall.show import moment
    from floodwall.tables import print_table

    if not standing:
        print("Nothing is in force.")
        return
    rows = [
        (
            f"{one.record.target.type} {whom.value(one.record.target.type, one.record.target.value)}", one.action,
            one.record.detector, whom.reason(one.record.reason, one.record.target),
            moment(one.record.tick), moment(one.record.expires_at),
            ", ".join(f"{edge} ({seconds:.1f} s)" for edge, seconds in applied[one.record.id].items()), one.record.id,
        )
        for one in standing
    ]  # fmt: skip
    print_table(("who", "action", "by", "why", "since (UTC)", "until (UTC)", "applied by", "id"), rows)


def _line(record: Record, whom: Shown, held_by: str) -> str:
    from floodwall.show import moment
    from floodwall.tables import printable

    state = f"held by policy.{held_by}" if held_by else record.state
    marks: list[str] = [record.stage, state] if record.state != "active" else [record.stage]
    marks += [name for name, is_so in (("dry run", record.dry_run), ("drill", record.drill)) if is_so]
    words = f"{record.action} ({', '.join(marks)})  {record.target.type} {whom.value(record.target.type, record.target.value)}"
    reason = whom.reason(record.reason, record.target)
    return f"{moment(record.tick)}  {printable(words)}  until {moment(record.expires_at)}  {printable(reason)}"


def _print_written(record: Mitigation, whom: Shown, as_json: bool) -> None:
    from floodwall.show import moment

    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(record).decode())
        return
    verb = "lifted" if record.state == "lifted" else f"{record.action} until {moment(record.expires_at)} UTC"
    print(f"{record.target.type} {whom.value(record.target.type, record.target.value)}: {verb} (id {record.id})")


def _print_json(document: object) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()
