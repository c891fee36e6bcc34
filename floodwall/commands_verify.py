"""``floodwall verify``: decisions derived again from the raw records, and compared."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.commands_run import ConfigFile, ConfigHistory, FeedbackFile, Json, Leaked, ProfileName, ProxyDepth
from floodwall.guard import guarded, tell_of_compiling
from schemas.errors import SourceError, UsageError

if TYPE_CHECKING:
    from engine.config_chain import ConfigChain
    from replay.verify import Place, Report, Verified
    from replay.verify_reading import Source
    from replay.verify_records import Found, Wanted
    from schemas.config import Config

EXIT_DIFFERS = 1
_ID = re.compile(r"[0-9a-f]{32}")
_PLACES_SHOWN = 3


@guarded
def verify(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="The id of a mitigation, unless --all, --from or --to say which; then where the traffic is, if it is not "
            "where it was: log files, or kafka://host:port/topic for a copy of a topic.",
            metavar="[ID] [SOURCE...]",
        ),
    ] = None,
    config: ConfigFile = None,
    mitigations: Annotated[
        Path | None,
        typer.Option("--mitigations", help="Without Kafka: the file that replay or watch wrote with --out.", metavar="FILE"),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every mitigation there is.")] = False,
    since: Annotated[
        str | None, typer.Option("--from", help="Mitigations from this time on: 2026-11-18T11:07:00 (UTC), or -2h.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only those before this time.")] = None,
    original: Annotated[
        list[str] | None,
        typer.Option(
            "--original", help="With a copy as SOURCE: what it was copied from, so that the first record that differs is named."
        ),
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Read all that is kept, also where the evidence would do.")] = False,
    profile: ProfileName = None,
    proxy_depth: ProxyDepth = None,
    leaked: Leaked = None,
    feedback: FeedbackFile = None,
    config_history: ConfigHistory = None,
    as_json: Json = False,
) -> int:
    """Derive a decision once more from the records that its evidence names: equal, or where it differs. Nothing is enforced.

    Exit codes: 0 all are equal, 1 one differs, 3 none differs, but of some it cannot be said.

    Example:  floodwall verify 6f1c0d0e8a7b4c5d9e2f3a4b5c6d7e8f --config kafka.toml
    """
    from floodwall.commands_run import chosen_config
    from floodwall.show import counting
    from replay import verify as run
    from replay.verify_compare import narrow
    from replay.verify_reading import open_sources

    wanted, given = _wanted(words or [], everything, since, until)
    if original and not given:
        raise UsageError("expected a copy as SOURCE with --original")
    tell_of_compiling()
    chosen = chosen_config(config, profile, proxy_depth, leaked).config
    found, history = _read(chosen, wanted, mitigations, feedback, config_history)
    live = mitigations is None
    sources, absent = open_sources(chosen, found.sources, given, live=live)
    with counting("bytes read again") as tell:
        report = run.verify(
            chosen, found.records, sources, absent, whole=whole or everything, history=history, feedback=found.feedback,
            progress=tell,
        )  # fmt: skip
    narrow(report)
    originals = open_sources(chosen, found.sources, original, live=live)[0] if original else {}
    _print(report, found, _Differences(originals, sources), as_json=as_json)
    counts = report.counts
    return EXIT_DIFFERS if counts["differs"] else SourceError.exit_code if counts["cannot"] else 0


def _wanted(words: list[str], everything: bool, since: str | None, until: str | None) -> tuple[Wanted, list[str]]:
    from engine.clock import SystemClock
    from replay.moments import parse_moment
    from replay.verify_records import Wanted

    if everything or since is not None or until is not None:
        if words and _ID.fullmatch(words[0]):
            raise UsageError("expected an id, or --all, --from or --to, got both")
        now_ms = SystemClock().now_ms()
        from_ms, to_ms = (None if moment is None else parse_moment(moment, now_ms) for moment in (since, until))
        return Wanted(None, from_ms, to_ms), words
    if not words or not _ID.fullmatch(words[0]):
        got = ascii(words[0])[:66] if words else "nothing"
        raise UsageError(f"expected the id of a mitigation (32 hexadecimal digits), or --all, --from or --to, got {got}")
    return Wanted(words[0]), words[1:]


def _read(
    config: Config, wanted: Wanted, mitigations: Path | None, feedback: Path | None, config_history: Path | None
) -> tuple[Found, ConfigChain | None]:
    """The records, and the configuration as it was."""
    from floodwall.commands_run import chosen_history
    from replay.feedback import feedback_lines
    from replay.verify_records import records_of_file, records_of_topic

    found = records_of_topic(config, wanted) if mitigations is None else records_of_file(mitigations, wanted)
    if feedback is not None:
        found.feedback = feedback_lines(feedback)
    history = chosen_history(config, config_history)
    if history is not None:
        return found, history.chain
    if mitigations is not None or config_history is not None:  # none: the given configuration alone
        return found, None
    from broker.config_topic import read_history
    from broker.connection import Connection
    from schemas.errors import BrokerError

    try:
        return found, read_history(config, Connection(config.kafka))[0]
    except BrokerError as error:  # whoever may not read it verifies what was decided under the file
        found.missing.append(f"the history of the configuration was not read: {error}")
        return found, None


class _Differences:
    """The first record that differs, where there is an original to compare with."""

    def __init__(self, originals: dict[str, Source], copies: dict[str, Source]) -> None:
        self._originals, self._copies = originals, copies
        self._known: dict[Place, tuple[int, str] | None] = {}

    def of(self, place: Place) -> tuple[int, str] | None:
        """(offset, how)."""
        from replay.verify_compare import first_difference

        if place.source not in self._originals:
            return None
        if place not in self._known:
            self._known[place] = first_difference(self._originals[place.source], self._copies[place.source], place)
        return self._known[place]


def _print(report: Report, found: Found, differences: _Differences, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        rows = []
        for one in report.verified:
            row = msgspec.to_builtins(one)
            del row["equal"]
            for place, plain in zip(one.places, row["places"], strict=True):
                if (at := differences.of(place)) is not None:
                    plain["offset"], plain["what"] = at
            rows.append(row)
        document = {
            **report.counts, "records": report.records, "bytes_read": report.bytes_read, "from_the_beginning": report.complete,
            "late": report.late, "missing": found.missing, "verified": rows,
        }  # fmt: skip
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
        return
    from floodwall.tables import printable

    for one in report.verified:
        print(printable(_line(one, differences)))
    for sentence in found.missing:
        print(printable(f"floodwall: {sentence}"), file=sys.stderr)
    counts = report.counts
    parts = [f"{counts['equal']} equal", f"{counts['differs']} differ", f"{counts['cannot']} cannot be said"]
    parts += [f"{counts['said']} said by operators"] if counts["said"] else []
    late = f"; {report.late} events are late in this reading, which other cuts of it may count" if report.late else ""
    print(f"{len(report.verified)} mitigations: {', '.join(parts)}; {report.bytes_read:,} bytes read again{late}")


def _line(one: Verified, differences: _Differences) -> str:
    """Of one mitigation; its target is not named."""
    from floodwall.show import moment

    head = f"{one.outcome:<8} {one.id}  {one.detector} of {one.target_type} at {moment(one.tick)}"
    parts = [_place(place, differences) for place in one.places[:_PLACES_SHOWN]]
    parts += [f"and {len(one.places) - _PLACES_SHOWN} more places"] if len(one.places) > _PLACES_SHOWN else []
    parts += [f"{name}: recorded {was}, derived {now}" for name, (was, now) in one.numbers.items()]
    if one.places and not one.numbers and not one.missing:
        parts.append("no number differs")
    parts += one.missing + one.notes
    return f"{head}: {'; '.join(parts)}" if parts else head


def _place(place: Place, differences: _Differences) -> str:
    text = f"other bytes in {place.source} [{place.start}, {place.end})"
    at = differences.of(place)
    return text if at is None else f"{text}, the first at offset {at[0]}: {at[1]}"
