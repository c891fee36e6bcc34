"""``floodwall diff`` and ``floodwall what-if``: what another configuration would have decided about the same traffic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from floodwall.guard import EXIT_ENDED_EARLY, EXIT_EXCEEDED, guarded, tell_of_compiling
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.clock import Clock
    from replay.diff import Difference
    from replay.runs import Run
    from replay.shown import Shown
    from schemas.config import Config

Sources = Annotated[
    list[str],
    typer.Argument(
        help="Log files, folders, .gz, .zst, kafka://host:port/topic; each is read several times.", metavar="SOURCE..."
    ),
]
Profile = Annotated[str | None, typer.Option("--profile", help="web or api, whatever the configurations say.")]
Since = Annotated[str | None, typer.Option("--from", help="Only events from this time on: 2026-11-18T11:07:00 (UTC), or -2h.")]
Until = Annotated[str | None, typer.Option("--to", help="Only events before this time.")]
Feedback = Annotated[
    Path | None,
    typer.Option("--feedback", help="What operators said (`floodwall feedback --list`): which targets are right, which wrong."),
]
UseLabels = Annotated[
    bool, typer.Option("--labels/--no-labels", help="Use the labels that a drill wrote beside its files, if there are any.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=16, help="Runs at a time, each in a process of up to 2 GB.")]
Json = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
FAIL_ON = ("new", "released", "changed", "wronged", "missed", "any")


@guarded
def diff(
    before: Annotated[
        str,
        typer.Argument(
            help="A TOML file; or what was decided live: a file of mitigations, or kafka://host:port/mitigations.",
            metavar="CONFIG_A",
        ),
    ],
    after: Annotated[Path, typer.Argument(help="A TOML file.", metavar="CONFIG_B")],
    sources: Sources,
    profile: Profile = None,
    since: Since = None,
    until: Until = None,
    feedback: Feedback = None,
    config_history: Annotated[
        Path | None,
        typer.Option(
            "--config-history",
            help="With live decisions: the changes that held then, for the replay; none: CONFIG_B decides alone. [default: of "
            "topics, the topic config, if CONFIG_B names brokers]",
        ),
    ] = None,
    use_labels: UseLabels = True,
    max_collateral: Annotated[
        str | None,
        typer.Option("--max-collateral", help="Exit with 1 if B newly mitigates more of normal traffic: 0.1% or 0.001."),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            "--fail-on",
            help="Exit with 1 on any of these: new, released, changed targets; wronged: new ones that are honest; "
            "missed: attacks that only A stops; any.",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Print every target, not only those that matter most.")] = False,
    jobs: Jobs = 2,
    as_json: Json = False,
) -> int:
    """Compare two configurations, or live decisions and a replay, over the same traffic: who, when, and at what cost.

    Exit code 1: --max-collateral or --fail-on says so.

    Example:  floodwall diff floodwall.toml stricter.toml /var/log/nginx/access.log --max-collateral 0.1%
    """
    from dataclasses import asdict

    from engine.clock import SystemClock
    from floodwall import compare_screen, show
    from replay.backtest import share_of
    from replay.diff import difference
    from replay.runs import check_sources
    from replay.shown import shown_by
    from replay.truth import truth_of

    wanted = _wanted(fail_on)
    share_max = None if max_collateral is None else share_of(max_collateral)
    is_live = not before.endswith(".toml")
    if config_history is not None and not is_live:
        raise UsageError("expected --config-history with live decisions as CONFIG_A, got two configurations")
    check_sources(sources)
    tell_of_compiling()
    clock = SystemClock()
    between_ms = _between(since, until, clock)
    truth = truth_of(sources, feedback, use_labels=use_labels)
    if is_live:
        config, runs, names = _live_and_replay(before, after, sources, profile, between_ms, config_history, feedback, clock)
    else:
        config, runs, names = _two_runs(Path(before), after, sources, profile, between_ms, jobs, clock)
    with show.progress_of(sources) as advance:
        found = difference(config, sources, clock, runs, names, truth, between_ms=between_ms, progress=advance)
    shown = shown_by(config)
    why = _exceeded(found, wanted, share_max, shown)
    if as_json:
        compare_screen.print_json({**compare_screen.plain(asdict(found), shown), "exceeded": why})
    else:
        compare_screen.print_difference(found, shown, every=every)
    for text in why:
        print(f"floodwall: {text}", file=sys.stderr)
    if why:
        return EXIT_EXCEEDED
    return EXIT_ENDED_EARLY if any(run.ended_early for run in runs) else 0


@guarded
def what_if(
    sources: Sources,
    limits: Annotated[
        list[str],
        typer.Option("--limit", help="A setting and its values: 'detectors.rate.rules[0].limit=50,100,200'."),
    ],
    windows: Annotated[
        list[str] | None,
        typer.Option("--window", help="Another, for every value of the first: 'detectors.rate.rules[0].window_s=10,60'."),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", readable=False, help="A TOML file, as things are.")] = None,
    profile: Profile = None,
    since: Since = None,
    until: Until = None,
    feedback: Feedback = None,
    use_labels: UseLabels = True,
    jobs: Jobs = 2,
    as_json: Json = False,
) -> int:
    """Say who would be mitigated, and how much of normal traffic hit, for each value of a limit and a window.

    Every cell is a run of its own over all of the traffic. `floodwall config get detectors.rate` numbers the rules.

    Example:  floodwall what-if access.log --limit 'detectors.rate.rules[0].limit=50,100,200'
    """
    from dataclasses import asdict

    from engine.clock import SystemClock
    from floodwall import compare_screen, show
    from floodwall.commands_run import chosen_config
    from floodwall.config_then import config_then
    from replay.runs import check_sources, made_alike
    from replay.truth import truth_of
    from replay.what_if import axis_of
    from replay.what_if import what_if as run

    axes = [axis_of(words) for words in (*limits, *(windows or ()))]
    check_sources(sources)
    tell_of_compiling()
    clock = SystemClock()
    given = chosen_config(config, profile, None)
    then = config_then(given, None, sources)
    # As it is, and not as it was: each cell is what a change would make of what stands now.
    (chosen,) = made_alike([given.config if then.chain is None else then.chain.last.config]).configs
    with show.progress_of(sources) as advance:
        grid = run(
            chosen, axes, sources, clock, truth_of(sources, feedback, use_labels=use_labels),
            between_ms=_between(since, until, clock), jobs=jobs, progress=advance,
        )  # fmt: skip
    if then.chain is not None:
        grid.said.append(f"as it is: version {then.chain.last.version}, by {then.source}")
    if as_json:
        compare_screen.print_json(asdict(grid))
    else:
        compare_screen.print_grid(grid)
    return 0


def _wanted(fail_on: str | None) -> tuple[str, ...]:
    words = tuple(word.strip() for word in (fail_on or "").split(",") if word.strip())
    for word in words:
        if word not in FAIL_ON:
            raise UsageError(f"expected --fail-on to be of {', '.join(FAIL_ON)}, got {word[:40]!r}")
    return FAIL_ON[:3] if "any" in words else words


def _between(since: str | None, until: str | None, clock: Clock) -> tuple[int | None, int | None]:
    from replay.moments import parse_moment

    now_ms = clock.now_ms()
    return None if since is None else parse_moment(since, now_ms), None if until is None else parse_moment(until, now_ms)


def _two_runs(
    before: Path, after: Path, sources: Sequence[str], profile: str | None, between_ms: tuple[int | None, int | None],
    jobs: int, clock: Clock,
) -> tuple[Config, tuple[Run, Run], tuple[str, str]]:  # fmt: skip
    from floodwall.commands_run import chosen_config
    from replay.runs import Task, made_alike, run_all

    alike = made_alike([chosen_config(path, profile, None).config for path in (before, after)]).configs
    tasks = [Task(config=config, paths=list(sources), between_ms=between_ms) for config in alike]
    first, second = run_all(tasks, clock, jobs)
    return alike[1], (first, second), (str(before), str(after))


def _live_and_replay(
    decisions: str, file: Path, sources: Sequence[str], profile: str | None, between_ms: tuple[int | None, int | None],
    history: Path | None, feedback: Path | None, clock: Clock,
) -> tuple[Config, tuple[Run, Run], tuple[str, str]]:  # fmt: skip
    from floodwall.commands_run import chosen_config
    from floodwall.config_then import config_then
    from replay.decided import decided
    from replay.runs import Task, made_alike, run_one

    loaded = chosen_config(file, profile, None)
    alike = made_alike([loaded.config])
    (config,) = alike.configs
    then = config_then(loaded._replace(config=config), history, list(sources))
    task = Task(
        config=config, paths=list(sources), between_ms=between_ms, history=then.lines(),
        feedback=None if feedback is None else str(feedback),
    )  # fmt: skip
    replayed = run_one(task, clock)
    live = decided(config, decisions, (replayed.oldest_s, replayed.newest_s + 1))
    if then.not_read:
        live.said.append(f"the history of the configuration was not read: {then.not_read}")
    if alike.seed_was_drawn:
        live.said.append("no engine.seed is set: fingerprints of keys and numbers of distinct items differ from the live run's")
    return config, (live, replayed), (decisions, str(file))


def _exceeded(found: Difference, wanted: tuple[str, ...], share_max: float | None, shown: Shown) -> list[str]:
    """What was asked to fail on and has come, a sentence each."""
    from replay.backtest import percent, refusal

    why = []
    if share_max is not None and (text := refusal(found, share_max, shown)) is not None:
        why.append(text)
    elif wanted and not found.is_whole:
        why.append(f"expected runs that were kept whole, got: {'; '.join(found.said)}")
    for word in wanted:
        if word == "wronged" and found.newly_wronged:
            why.append(f"expected no new target that is honest (--fail-on wronged), got {found.newly_wronged:,}")
        elif word == "missed" and (missed := found.missed(shown)):
            why.append(f"expected no attack that only A stops (--fail-on missed), got {', '.join(missed[:5])}")
        elif word in FAIL_ON[:3] and (rows := found.of(word)):
            most = percent(sum(row.kind == word for row in rows) / max(len(found.rows) + found.same, 1))
            why.append(f"expected no {word} target (--fail-on {word}), got {len(rows):,} ({most} of all)")
    return why
