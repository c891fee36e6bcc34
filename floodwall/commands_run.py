"""``floodwall replay``, ``watch``, ``doctor`` and ``demo``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from floodwall.guard import EXIT_ENDED_EARLY, EXIT_INTERRUPTED, guarded, tell_of_compiling
from floodwall.options import Pseudonymise
from schemas.errors import SourceError, UsageError

if TYPE_CHECKING:
    from replay.history import HistoryFile
    from replay.report.write import Reporting
    from schemas.config import Config, Loaded
    from schemas.pseudonyms import Pseudonyms

ConfigFile = Annotated[
    Path | None, typer.Option("--config", readable=False, help="A TOML file; docs/configuration.md has every setting.")
]
ProfileName = Annotated[
    str | None, typer.Option("--profile", help="web: browsers. api: programs with keys, judged by their keys.")
]
ProxyDepth = Annotated[
    int | None,
    typer.Option("--proxy-depth", help="Trusted proxies before the service: which entry of X-Forwarded-For counts."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write mitigations here, one JSON object per line.")]
Findings = Annotated[Path | None, typer.Option("--findings", help="Write everything that was found here, the same way.")]
StateFile = Annotated[
    Path | None, typer.Option("--state", help="Save the state here when interrupted, and go on from it next time.")
]
Leaked = Annotated[
    Path | None,
    typer.Option("--leaked", help="Leaked keys that were reported, one JSON object per line, as on the topic leaked-keys."),
]
FeedbackFile = Annotated[
    Path | None,
    typer.Option("--feedback", help="Records of `floodwall feedback --to` or `--list`: each holds from the second it names."),
]
ConfigHistory = Annotated[
    Path | None,
    typer.Option(
        "--config-history",
        help="Changes of the configuration, each from its second on: one a line, as `floodwall config history --json` prints. "
        "none: --config decides alone. [default: of topics, the topic config, if --config names brokers]",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", help="Write what happened here, for people: one HTML file that opens offline (.json: as data)."),
]
ReportJson = Annotated[Path | None, typer.Option("--report-json", help="Write the same here as JSON.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
ReplayThreads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=2, help="2: judge in a thread of its own. [default: 2 where there are cores]"),
]
Threads = Annotated[int, typer.Option("--threads", min=1, max=2, help="2: judge in a thread of its own.")]


@guarded
def replay(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Log files, folders, .gz, .zst, Parquet, kafka://host:port/topic; - is standard input.", metavar="SOURCE..."
        ),
    ],
    config: ConfigFile = None,
    profile: ProfileName = None,
    proxy_depth: ProxyDepth = None,
    out: Out = None,
    findings: Findings = None,
    state: StateFile = None,
    since: Annotated[
        str | None,
        typer.Option("--from", help="Only events from this time on: 2026-11-18T11:07:00 (UTC), @1795392000, or -2h."),
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only events before this time.")] = None,
    offsets: Annotated[
        list[str] | None,
        typer.Option("--offsets", help="Of a topic, only this: access-log-0=1000..2000; either end may be left out."),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option("--speed", min=0.001, help="10: ten seconds of events in one of the clock. None: as fast as it goes."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="Write here what was read: ranges, digests, times, what is missing.")
    ] = None,
    early: Annotated[bool, typer.Option("--early", help="Write early records too, as a live run does.")] = False,
    leaked: Leaked = None,
    feedback: FeedbackFile = None,
    config_history: ConfigHistory = None,
    pseudonymise: Pseudonymise = None,
    report: Report = None,
    report_json: ReportJson = None,
    threads: ReplayThreads = None,
    as_json: Json = False,
) -> int:
    """Decide over recorded traffic: whom to stop, why, since when and until when. Nothing is enforced.

    Example:  floodwall replay /var/log/nginx/access.log* --report incident.html
    """
    from engine.clock import SystemClock
    from floodwall import show
    from floodwall.config_then import config_then
    from replay.moments import parse_offsets, parse_span
    from replay.run import replay as run
    from replay.shown import shown_by
    from replay.sink import Sink

    tell_of_compiling()
    loaded = chosen_config(config, profile, proxy_depth, leaked)
    chosen, clock = loaded.config, SystemClock()
    now_ms = clock.now_ms()
    between_ms = parse_span(since, until, now_ms)
    then = config_then(loaded, config_history, sources)
    if pseudonymise is not None and (report is not None or report_json is not None):
        raise UsageError("expected --report without --pseudonymise: a report masks, and names addresses as they are")
    reporting = _reporting(chosen, out, findings, report, report_json, state)
    sink = Sink(out, findings, _pseudonyms(pseudonymise)) if reporting is None else reporting
    with show.progress_of_run() as tell, _interrupted_between_chunks(sources) as stop:
        outcome = run(
            chosen if reporting is None else reporting.config, sources, sink, clock, between_ms=between_ms, state=state,
            early=early, threads=threads or min(2, os.cpu_count() or 1), feedback=feedback,
            history=then.chain, offsets=parse_offsets(offsets or []), speed=speed,
            manifest=manifest is not None or reporting is not None, stop=stop, tell=tell,
            onlooker=None if reporting is None else reporting.gathering.see,
        )  # fmt: skip
    outcome.config_history = then.plain()
    if outcome.manifest is not None:
        outcome.manifest["config_history"] = outcome.config_history
    if manifest is not None and outcome.manifest is not None:
        from replay.manifest import write_manifest

        write_manifest(manifest, outcome.manifest)
    sink.close()
    if pseudonymise is not None:
        outcome.account.poison_samples.clear()  # the first bytes of what could not be read: of whom, nobody knows
    if reporting is not None:
        reporting.finish(outcome, sources, ["floodwall", *sys.argv[1:]], now_ms)
    show.print_outcome(outcome, sink, shown_by(chosen, pseudonyms=pseudonymise is not None), as_json=as_json)
    if outcome.interrupted:
        return EXIT_INTERRUPTED
    if (why := show.nothing_read(outcome.account)) is not None:
        raise SourceError(why)
    asked = since is not None or bool(offsets)
    return EXIT_ENDED_EARLY if outcome.ended_early or (outcome.missing and asked) else 0


@contextlib.contextmanager
def _interrupted_between_chunks(sources: list[str]) -> Iterator[Callable[[], bool]]:
    """The first signal ends the run where it can be ended, the second at once.

    Whoever waits for standard input or a pipe is ended at once: nothing may ever come.
    """
    import signal

    came: list[int] = []

    def note(number: int, frame: object) -> None:
        if came or not waits_never:
            raise KeyboardInterrupt
        came.append(number)

    waits_never = all("://" in name or os.path.isfile(name) or os.path.isdir(name) for name in sources)
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@guarded
def watch(
    source: Annotated[str, typer.Argument(help="A growing log file, followed through rotation; - is standard input.")],
    config: ConfigFile = None,
    profile: ProfileName = None,
    proxy_depth: ProxyDepth = None,
    out: Out = None,
    findings: Findings = None,
    state: StateFile = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with what the file holds already.")] = False,
    leaked: Leaked = None,
    feedback: FeedbackFile = None,
    config_history: ConfigHistory = None,
    pseudonymise: Pseudonymise = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> int:
    """Follow a log and decide within the second. Prints each mitigation as it is made; enforces nothing by itself.

    Example:  floodwall watch /var/log/nginx/access.log --out mitigations.ndjson
    """
    import signal

    from engine.clock import SystemClock
    from floodwall import show
    from replay.follow import watch as run
    from replay.shown import shown_by

    tell_of_compiling()
    chosen = chosen_config(config, profile, proxy_depth, leaked).config
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda came, _: stopping.append(came))
    whom = shown_by(chosen, pseudonyms=pseudonymise is not None)
    sink = show.LiveSink(out, findings, whom, as_json=as_json, pseudonyms=_pseudonyms(pseudonymise))
    engine = run(
        chosen, source, sink, SystemClock(), from_start=from_start, state=state, threads=threads, feedback=feedback,
        history=chosen_history(chosen, config_history, may_come=True), stop=lambda: bool(stopping),
    )  # fmt: skip
    sink.close()
    account = engine.account()
    if pseudonymise is not None:
        account.poison_samples.clear()
    show.print_account(account, as_json=as_json)
    if (why := show.nothing_read(account)) is not None and signal.SIGINT not in stopping:
        raise SourceError(why)
    return EXIT_INTERRUPTED if signal.SIGINT in stopping else 0


@guarded
def doctor(
    sources: Annotated[list[str], typer.Argument(help="Log files, folders, kafka://host:port/topic.", metavar="SOURCE...")],
    config: ConfigFile = None,
    profile: ProfileName = None,
    proxy_depth: ProxyDepth = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Records to look at in each file.")] = 1000,
    as_json: Json = False,
) -> int:
    """Say per file what format it has, which fields were found, where the address comes from, and what cannot be detected.

    Of a topic also: whether brokers, credentials, topics, lag and clocks are as they should be.

    Example:  floodwall doctor /var/log/nginx/access.log
    """
    from engine.clock import SystemClock
    from floodwall import show
    from replay.doctor import examine
    from replay.sources import KAFKA_SCHEME, expand

    tell_of_compiling()
    chosen, clock = chosen_config(config, profile, proxy_depth).config, SystemClock()
    diagnoses = [
        examine(chosen, name, clock, sample=sample)
        for name in expand([name for name in sources if not name.startswith(KAFKA_SCHEME)])
    ]
    clusters = []
    for url in (name for name in sources if name.startswith(KAFKA_SCHEME)):
        from replay.doctor_kafka import examine_kafka

        clusters.append(examine_kafka(chosen, url, clock, sample=sample))
    show.print_diagnoses(diagnoses, clusters, as_json=as_json)
    return 0


@guarded
def demo(
    seconds: Annotated[float, typer.Option("--seconds", min=12, max=300, help="How long it runs.")] = 36.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the traffic.")] = 1,
    kafka: Annotated[
        bool, typer.Option("--kafka", help="Through a real local broker and workers, all stopped at the end; needs Java.")
    ] = False,
    nft: Annotated[
        bool | None,
        typer.Option(
            "--nft/--no-nft",
            help="With --kafka: nftables enforces, in network namespaces made for it, or not. [default: where it may, as root]",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """A small LLM API, attacked before your eyes and rescued. No root, only loopback, and no Kafka unless asked for.

    Example:  floodwall demo --seconds 36, or through a real broker:  floodwall demo --kafka
    """
    if nft is not None and not kafka:
        raise UsageError(f"expected --kafka with --{'' if nft else 'no-'}nft: without Kafka the service itself enforces")
    tell_of_compiling()
    if kafka:
        from floodwall.demo_kafka import run as run_with_kafka

        return run_with_kafka(seconds, seed, as_json, nft)
    from floodwall.commands_demo import run

    return run(seconds, seed, as_json)


def _pseudonyms(path: Path | None) -> Pseudonyms | None:
    from schemas.pseudonyms import read_pseudonyms

    return None if path is None else read_pseudonyms(path)


def _reporting(
    config: Config, out: Path | None, findings: Path | None, report: Path | None, report_json: Path | None, state: Path | None
) -> Reporting | None:
    """What remembers for a report; none: no report is wanted."""
    if report is None and report_json is None:
        return None
    if state is not None:
        raise UsageError("expected --report without --state: a report is about one run from its beginning")
    if report is not None and report.suffix == ".json":
        if report_json is not None:
            raise UsageError("expected --report FILE.html beside --report-json, got two files for JSON")
        report, report_json = None, report
    from replay.report.write import Reporting

    return Reporting(config, out, findings, report=report, report_json=report_json)


def chosen_history(config: Config, path: Path | None, *, may_come: bool = False) -> HistoryFile | None:
    """The changes so far of ``--config-history``; none: the configuration decides alone."""
    from floodwall.config_then import ALONE, file_history

    return None if path is None or str(path) == ALONE else file_history(config, path, may_come=may_come)


def chosen_config(file: Path | None, profile: str | None, proxy_depth: int | None, leaked: Path | None = None) -> Loaded:
    """The file's settings under those of the command line."""
    import msgspec

    from schemas.config import load_file, parse_config

    loaded = load_file(file)
    document: dict[str, Any] = msgspec.to_builtins(loaded.config)
    if profile is not None:
        document["profile"] = profile
    if proxy_depth is not None:
        document["input"]["proxy_depth"] = proxy_depth
    if leaked is not None:
        document["detectors"].setdefault("leaked", {})["reports"] = str(leaked)
    return loaded._replace(config=parse_config(document, "options"))
