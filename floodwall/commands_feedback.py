"""``floodwall feedback``: what an operator says of a decision."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.guard import guarded
from floodwall.options import ConfigFile
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.config import Config
    from schemas.feedback import Feedback, Verdict
    from schemas.mitigation import Mitigation

EXIT_NOT_FOUND = 1
NO_REASON = "a false positive"
"""Of a leaked key's lift where nobody has said why: it wants one."""
Who = Annotated[str | None, typer.Option("--who", help="Who says so. [default: kafka.username, else who is logged in]")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in one sentence.")]
At = Annotated[
    str | None,
    typer.Option("--at", help="The second of event time from which it holds: 2026-11-18T11:07:00 (UTC). [default: soon]"),
]
To = Annotated[
    Path | None, typer.Option("--to", help="Append the record to this file, for `replay --feedback`, instead of publishing it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a sentence.")]


@guarded
def feedback(
    identifier: Annotated[str | None, typer.Argument(metavar="ID", help="Of a mitigation or a finding.")] = None,
    false_positive: Annotated[
        bool, typer.Option("--false-positive", help="It was wrong: lift it, do not mitigate it again for a day, learn.")
    ] = False,
    confirmed: Annotated[bool, typer.Option("--confirmed", help="It was right: learn.")] = False,
    who: Who = None,
    reason: Reason = "",
    at: At = None,
    decisions: Annotated[
        list[Path] | None, typer.Option("--decisions", help="With --to: files of `replay --out` and `--findings` with the ID.")
    ] = None,
    to: To = None,
    list_: Annotated[bool, typer.Option("--list", help="Print every record that was given, one JSON object per line.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> int:
    """Say that a decision was wrong or right: judges lift it and learned detectors learn, within a minute.

    Example:  floodwall feedback 6f1c0d0e8a7b4c5d9e2f3a4b5c6d7e8f --false-positive --reason "our load test"
    """
    from edge.verdict import decision_in_files, make_feedback
    from schemas.config import load_config

    chosen = load_config(config)
    if list_:
        return _list(chosen)
    if identifier is None or false_positive == confirmed:
        raise UsageError("expected an ID and one of --false-positive and --confirmed")
    if (to is None) != (decisions is None):
        raise UsageError("expected --decisions and --to together: where the decision is, and where the record goes")
    if to is None:
        from broker.connection import Connection
        from edge.feedback import decision_on_topics

        decision = decision_on_topics(chosen, Connection(chosen.kafka), identifier)
        place = f"on the topics mitigations and findings of {chosen.kafka.brokers[0]}"
    else:
        decision = decision_in_files(decisions or [], identifier)
        place = f"in {', '.join(map(str, decisions or []))}"
    if decision is None:
        from floodwall.tables import printable

        print(f"floodwall: expected a decision {printable(identifier[:64])} {place}, found none", file=sys.stderr)
        return EXIT_NOT_FOUND
    verdict: Verdict = "false_positive" if false_positive else "confirmed"
    when, tick = moments(chosen, at)
    record = make_feedback(decision, verdict, who=whose(chosen, who), reason=reason, when=when, tick=tick)
    give(chosen, record, to, as_json=as_json)
    return 0


def give(config: Config, record: Feedback, to: Path | None, *, as_json: bool) -> None:
    """Check that a record would count, write it down, and say so."""
    bridge: Mitigation | None = None
    if to is not None:
        append_feedback(config, record, to)
    else:
        publish_feedback(config, record)
        if record.verdict == "false_positive":
            from broker.connection import Connection
            from broker.signing import signer_of
            from detectors.leaked import NAME as LEAKED
            from edge.feedback import bridge_of
            from edge.leaks_topic import lift_leaked
            from edge.operator import publish
            from engine.clock import SystemClock
            from schemas.config import parse_prefixes
            from schemas.prefixes import Prefixes
            from schemas.topics import MITIGATIONS

            connection = Connection(config.kafka)
            core = Prefixes(parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core"))
            clock, topic = SystemClock(), config.kafka.topic_prefix + MITIGATIONS
            bridge = bridge_of(config, connection, core, clock, record)
            if bridge is not None:
                publish(connection, topic, bridge, signer_of(config, topic, clock))
            if record.detector == LEAKED:
                lift_leaked(config, connection, [record.target.value], record.who, record.reason or NO_REASON, record.when)
    _print(config, record, bridge, to, as_json=as_json)


def moments(config: Config, at: str | None) -> tuple[int, int]:
    """When it is given, and from which second of event time it holds."""
    from edge.verdict import holds_from
    from engine.clock import SystemClock

    now = SystemClock().now_ms() // 1000
    if at is None:
        return now, holds_from(config, now)
    from replay.moments import parse_moment

    return now, parse_moment(at, now * 1000) // 1000


def whose(config: Config, who: str | None) -> str:
    """Who gives a record."""
    import getpass

    return who if who is not None else config.kafka.username or getpass.getuser()


def _list(config: Config) -> int:
    from broker.connection import Connection
    from edge.feedback import given_on_topic

    for value in given_on_topic(config, Connection(config.kafka)):
        sys.stdout.buffer.write(value.replace(b"\n", b" ") + b"\n")
    sys.stdout.buffer.flush()
    return 0


def publish_feedback(config: Config, record: Feedback) -> None:
    """Check that a record would count, and write it to the topic."""
    from broker.connection import Connection
    from edge.feedback import given_on_topic
    from edge.operator import publish_value
    from edge.verdict import check_counts
    from schemas.feedback import encode_feedback
    from schemas.topics import FEEDBACK

    connection = Connection(config.kafka)
    check_counts(config, given_on_topic(config, connection), record)
    publish_value(connection, config.kafka.topic_prefix + FEEDBACK, record.id.encode(), encode_feedback(record))


def append_feedback(config: Config, record: Feedback, to: Path) -> None:
    """The same into a file."""
    from edge.verdict import check_counts
    from replay.feedback import append_record, read_records
    from schemas.feedback import encode_feedback

    check_counts(config, map(encode_feedback, read_records(to)), record)
    append_record(to, record)


def _print(config: Config, record: Feedback, bridge: Mitigation | None, to: Path | None, *, as_json: bool) -> None:
    from detectors.leaked import NAME as LEAKED
    from floodwall.show import moment
    from floodwall.tables import printable
    from replay.shown import shown_by

    if as_json:
        from schemas.feedback import encode_feedback

        typer.echo(encode_feedback(record).decode())
        return
    since = f"from {moment(record.tick)} UTC on"
    if record.verdict == "reset":
        print(f"model {record.detector}: begins anew {since}")
        return
    whom = printable(f"{record.target.type} {shown_by(config).value(record.target.type, record.target.value)}")
    if record.verdict == "confirmed":
        print(f"{whom}: {record.detector} was right; learned {since}")
        return
    if record.detector == LEAKED:
        _print_leaked(record, whom, since, to)
    else:
        until = moment(record.tick + config.policy.feedback_allow_s)
        print(f"{whom}: {record.detector} was wrong; lifted, and not mitigated for it again, {since} until {until} UTC")
    if bridge is not None:
        print(f"edges let it pass at once (an operator's allow until {moment(bridge.expires_at)} UTC)")


def _print_leaked(record: Feedback, whom: str, since: str, to: Path | None) -> None:
    """What was told of a leaked key has no end by itself, nor has the word that it may be used."""
    if to is None:
        print(f"{whom}: may be used, {since}; reports of it, old and new, count no more (a lift is on the topic leaked-keys)")
        return
    from schemas.leaked import LeakLift, encode_leak

    lift = LeakLift(
        fingerprint=record.target.value, tick=record.tick, owner=record.who[:128], reason=record.reason[:256] or NO_REASON
    )
    print(f"{whom}: leaked was wrong; written down. Its reports count until this stands in the file of --leaked:")
    print(encode_leak(lift).decode())
