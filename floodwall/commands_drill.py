"""``floodwall drill``: seeded traffic with labelled attacks, into files, a log, or Kafka."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from floodwall.guard import guarded
from schemas.errors import UsageError

if TYPE_CHECKING:
    from drills.labels import Truth

app = typer.Typer(
    no_args_is_help=True,
    help="Make traffic of a service under attack, with labels that say what is true of it.\n\n"
    "Example:  floodwall drill run botnet stuffing_slow --hours 2 --out drill",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
HOUR_S = 3600
STREAMS = ("requests", "registrations", "access-log")


@app.command("list")
@guarded
def list_attacks(as_json: Json = False) -> int:
    """Print every attack with its three strengths, at 350 honest events a second.

    Example:  floodwall drill list
    """
    import msgspec

    from drills.attacks.catalogue import ATTACKS
    from drills.attacks.strengths import STRENGTH_NAMES, STRENGTHS
    from drills.reference import strength_text
    from floodwall.tables import print_table

    if as_json:
        document = [
            {
                "name": name, "text": attack.text, "trap": attack.trap, "stops": attack.stops, "share_of":
                "registrations" if attack.registers else "events",
                "strengths": dict(zip(STRENGTH_NAMES, map(_plain, STRENGTHS[name]), strict=True)),
            }
            for name, attack in ATTACKS.items()
        ]  # fmt: skip
        typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return 0
    rows = [
        (name, attack.text, *(strength_text(attack, strength) for strength in STRENGTHS[name]))
        for name, attack in ATTACKS.items()
    ]
    print_table(("attack", "what it is", *STRENGTH_NAMES), rows)
    return 0


def _plain(strength: Any) -> dict[str, Any]:
    return {
        "sources": strength.sources, "duration_s": strength.duration_s, "share": strength.share,
        "per_source_per_second": strength.per_source,
    }  # fmt: skip


@app.command("run")
@guarded
def run(
    names: Annotated[
        list[str] | None, typer.Argument(help="Attacks of `floodwall drill list`; none: honest traffic.", metavar="NAME...")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same bytes.")] = 1,
    strength: Annotated[Literal["weak", "ordinary", "loud"], typer.Option("--strength", help="Of all attacks.")] = "ordinary",
    hours: Annotated[float, typer.Option("--hours", help="How long the drill is.")] = 1.0,
    duration: Annotated[int | None, typer.Option("--duration", min=1, help="The same in seconds.")] = None,
    events_per_second: Annotated[
        float | None,
        typer.Option(
            "--events-per-second",
            help="Honest events, on average over a week: 350. With --into: what shares are of, instead of the log's own rate.",
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--start", help="When it begins: 2026-11-23T00:00:00 (UTC), or -2h.")
    ] = None,
    at: Annotated[list[int] | None, typer.Option("--at", min=0, help="Second at which an attack begins, for each.")] = None,
    storms: Annotated[
        Literal["calendar", "all", "none"],
        typer.Option("--storms", help="Honest storms: at their hours of the week, each once in the drill, or none."),
    ] = "calendar",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the streams and their labels.")] = None,
    streams: Annotated[
        list[str] | None,
        typer.Option(
            "--stream",
            help="Only these: requests, registrations, access-log, or events: every event once, as the stream that knows "
            "most of it has it. None: the first three.",
        ),
    ] = None,
    access_format: Annotated[
        Literal["combined", "json"], typer.Option("--access-format", help="Of the access log: combined, or our own schema.")
    ] = "combined",
    into: Annotated[
        str | None, typer.Option("--into", help="Plant the attacks into this access log (.gz and .zst too) instead.")
    ] = None,
    kafka: Annotated[str | None, typer.Option("--kafka", help="Send to these brokers; --out then gets the labels.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="With --kafka: its topics, and policy.drill = true.")] = None,
    per_message: Annotated[int, typer.Option("--lines", min=1, max=10_000, help="With --kafka: lines in a message.")] = 1,
    live: Annotated[bool, typer.Option("--live", help="With --kafka: begin now, send each second when it is over.")] = False,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Make the traffic, and say what is true of it in labels.ndjson. Nothing is enforced.

    Example:  floodwall drill run flood_fifty --strength loud --duration 600 --out drill
    """
    chosen = tuple(dict.fromkeys(streams or STREAMS))
    _check_together(chosen, streams is not None, config is not None or live, into, kafka, out)
    if into is not None and out is not None:
        return _plant(names or [], into, out, seed, strength, tuple(at or ()), events_per_second, as_json)
    from drills.run import START_S, Drill, Plan
    from drills.service.world import NORMAL_PER_SECOND
    from engine.clock import SystemClock
    from replay.moments import parse_moment

    clock = SystemClock()
    now_ms = clock.now_ms()
    rate = NORMAL_PER_SECOND if events_per_second is None else events_per_second
    if not math.isfinite(hours):
        raise UsageError(f"expected a number of hours, got {hours}")
    span_s = duration if duration is not None else round(hours * HOUR_S)
    if start is not None:
        start_s = parse_moment(start, now_ms) // 1000
    elif kafka is None:
        start_s = START_S
    else:
        start_s = now_ms // 1000 + (0 if live else -span_s)
    drill = Drill(
        Plan(
            seed=seed, start_s=start_s, span_s=span_s, events_per_second=rate, attacks=tuple(names or ()),
            strength=strength, at_s=tuple(at or ()), storms=storms,
        )
    )  # fmt: skip
    if kafka is not None:
        return _send(drill, kafka, config, chosen, access_format, per_message, clock if live else None, out, as_json)
    assert out is not None
    from drills.files import write_drill
    from floodwall.show import counting

    with counting("making events") as advance:
        truth = write_drill(drill, out, chosen, access_format, advance)
    _tell(truth, f"into {out}", as_json)
    return 0


def _check_together(
    chosen: tuple[str, ...], some: bool, for_kafka: bool, into: str | None, kafka: str | None, out: Path | None
) -> None:  # fmt: skip
    unknown = [name for name in chosen if name not in (*STREAMS, "events")]
    if unknown:
        raise UsageError(f"expected --stream to be {', '.join(STREAMS)} or events, got {unknown[0][:60]!r}")
    if into is not None and (kafka is not None or out is None or some):
        raise UsageError("expected --out with --into, and neither --kafka nor --stream")
    if out is None and kafka is None:
        raise UsageError("expected --out FOLDER, --kafka HOST:PORT, or --into LOG")
    if kafka is None and for_kafka:
        raise UsageError("expected --config and --live with --kafka HOST:PORT")
    if kafka is not None and "events" in chosen:
        raise UsageError(f"expected streams that have a topic ({', '.join(STREAMS)}) with --kafka, got events")


def _plant(
    names: list[str], into: str, out: Path, seed: int, strength: Any, at: tuple[int, ...], per_second: float | None,
    as_json: bool,
) -> int:  # fmt: skip
    from drills.plant import plant
    from replay.sources import lines_of

    planted = plant(
        lambda: lines_of(into), names, out, seed=seed, strength=strength, at_s=at, normal_per_second=per_second
    )  # fmt: skip
    _tell(planted.truth, f"{planted.planted:,} planted between those of {into}, into {out}", as_json)
    return 0


def _send(
    drill: Any, kafka: str, config: Path | None, streams: tuple[str, ...], access_format: str, per_message: int, clock: Any,
    out: Path | None, as_json: bool,
) -> int:  # fmt: skip
    import msgspec

    from drills.files import write_labels
    from floodwall.drill_kafka import send_drill
    from floodwall.show import counting
    from schemas.config import load_config

    settings = load_config(config)
    brokers = tuple(part.strip() for part in kafka.split(","))
    settings = msgspec.structs.replace(settings, kafka=msgspec.structs.replace(settings.kafka, brokers=brokers))
    with counting("sending events") as advance:
        truth, shipped = send_drill(
            drill, settings, streams, access_format, per_message=per_message, clock=clock, progress=advance
        )
    if out is not None:
        write_labels(truth, out)
    _tell(truth, ", ".join(f"{part.records:,} lines into {topic}" for topic, part in shipped.items()), as_json)
    if not as_json:
        typer.echo("Marked as a drill by workers that run with the same --config: floodwall worker all --config FILE")
    return 0


def _tell(truth: Truth, where: str, as_json: bool) -> None:
    """What happened."""
    import msgspec

    from floodwall.tables import print_table

    records = truth.summary()
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(records), indent=2).decode())
        return
    drill, *attacks = records
    print_table(
        ("label", "attack", "sources", "requests", "registrations", "access-log", "begins (UTC)", "lasts"),
        [
            (
                str(attack["label"]), attack["name"] + (" (trap)" if attack["trap"] else ""), f"{attack['sources']:,}",
                *(f"{attack['events'][stream]:,}" for stream in STREAMS), _moment(attack["start"]),
                f"{attack['stop'] - attack['start']:,} s" + (", cut by the end" if attack["cut"] else ""),
            )
            for attack in attacks
        ],
    )  # fmt: skip
    events = drill["events"]["access-log"]
    typer.echo(f"{events:,} events, {drill['honest']['access-log']:,} of them honest, {where}")


def _moment(second: int) -> str:
    from floodwall.show import moment

    return moment(second)


@app.command("score")
@guarded
def score(
    folder: Annotated[Path, typer.Argument(help="A folder that `floodwall drill run --out` wrote.", metavar="FOLDER")],
    decisions: Annotated[
        Path | None,
        typer.Option(
            "--decisions",
            help="Mitigations that `floodwall replay --out` wrote (with --early as a live run decides); none: they are made "
            "here, early ones too.",
        ),
    ] = None,
    findings: Annotated[
        Path | None, typer.Option("--findings", help="With --decisions: what `floodwall replay --findings` wrote.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file; without, profile api.")] = None,
    as_json: Json = False,
) -> int:
    """Say of each attack whether it was found, how soon, how much of it was covered, and what honest traffic paid for it.

    Example:  floodwall drill score drill, after floodwall drill run scan --stream events --out drill
    """
    import msgspec

    from drills.scoring import tell
    from drills.scoring.folder import score_folder
    from floodwall.guard import tell_of_compiling
    from floodwall.show import counting
    from floodwall.tables import print_table, printable
    from schemas.config import Config, load_config

    if findings is not None and decisions is None:
        raise UsageError("expected --decisions with --findings: without, both are made here")
    chosen = Config(profile="api") if config is None else load_config(config)
    tell_of_compiling()
    with counting("scoring events") as advance:
        scored = score_folder(folder, chosen, decisions, findings, advance)
    card = scored.card
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(tell.plain(card)), indent=2).decode())
        return 0
    print_table(tell.COLUMNS, [tell.row(attack) for attack in card.attacks])
    how = "decided here" if scored.decided_here else f"read from {decisions}"
    typer.echo(f"{scored.mitigations:,} mitigations, {how}, about the events of {scored.events_file}")
    covered = tell.share_text(card.honest_covered / card.honest_events if card.honest_events else 0.0)
    typer.echo(f"honest events covered: {card.honest_covered:,} of {card.honest_events:,} ({covered})")
    typer.echo(f"honest addresses, keys and accounts mitigated: {card.false_blocks}")
    for line in tell.wronged_lines(card):
        typer.echo(f"  wronged: {printable(line)}")
    for kind, count in card.unknown.items():
        typer.echo(f"  {count:,} targets of type {printable(kind)} are not scored: what they cover is not known here")
    return 0
