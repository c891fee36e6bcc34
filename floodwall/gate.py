"""``--backtest`` of `floodwall config`: a change is tried on recorded traffic before it is written."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from replay.diff import Difference
    from schemas.config import Config

Backtest = Annotated[
    str | None,
    typer.Option("--backtest", help="Try it on the traffic of so long (24h, 30m, 2d), and refuse it if it costs too much."),
]
MaxCollateral = Annotated[
    str | None,
    typer.Option(
        "--max-collateral", help="With --backtest: how much of normal traffic may be newly mitigated. [default: 0.1%]"
    ),
]
BacktestSource = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="With --backtest: traffic to try it on; the span ends where it ends. [default: the topics, now]",
    ),
]
BacktestFeedback = Annotated[
    Path | None, typer.Option("--feedback", help="With --backtest: what operators said, for what counts as normal.")
]
_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Gate:
    """What a change has to pass."""

    span_ms: int
    share_max: float
    sources: list[str]
    feedback: Path | None

    def judge(self, before: Config | None, after: Config) -> Difference:
        """Try a change; without ``before`` everything that ``after`` does is new.

        Raises:
            ConfigError: it is refused, with the number, the bound and what causes it.
        """
        from engine.clock import SystemClock
        from floodwall.guard import tell_of_compiling
        from replay.backtest import backtest, refusal
        from replay.newest import newest_ms
        from replay.runs import check_sources
        from replay.shown import shown_by
        from replay.truth import truth_of

        tell_of_compiling()
        check_sources(self.sources)
        clock = SystemClock()
        sources, until_ms = self.sources, None
        if sources:
            end_ms = newest_ms(after, sources, clock)
        else:
            sources = ["kafka:///" + ",".join(after.kafka.topics)]
            until_ms = end_ms = clock.now_ms()
        found = backtest(
            before, after, sources, clock, truth_of(sources, self.feedback),
            between_ms=(end_ms - self.span_ms, until_ms), jobs=2,
        )  # fmt: skip
        if (why := refusal(found, self.share_max, shown_by(after))) is not None:
            raise ConfigError(why)
        return found


def gate_of(
    backtest: str | None, max_collateral: str | None, sources: list[str] | None, feedback: Path | None
) -> Gate | None:  # fmt: skip
    """The gate that options ask for.

    Raises:
        UsageError: they do not go together, or have another form.
    """
    from replay.backtest import COLLATERAL_MAX, share_of

    if backtest is None:
        if max_collateral is not None or sources or feedback is not None:
            raise UsageError("expected --backtest with --max-collateral, --source and --feedback, as --backtest 24h")
        return None
    span = _SPAN.fullmatch(backtest)
    if span is None or int(span[1]) == 0:
        raise UsageError(f"expected --backtest to be a span of time as 24h, 30m or 2d, got {backtest[:40]!r}")
    share = COLLATERAL_MAX if max_collateral is None else share_of(max_collateral)
    return Gate(int(span[1]) * _UNITS_MS[span[2]], share, list(sources or ()), feedback)


def tell(found: Difference, share_max: float) -> None:
    """What the traffic says of a change that passed, on standard error: standard output is the command's own."""
    from replay.backtest import percent

    how = "honest by labels" if found.labelled else "taken for normal"
    print(
        f"floodwall: tried on {found.events:,} events: newly mitigates {found.newly_normal:,} of {found.normal_events:,} {how} "
        f"({percent(found.newly_normal_share)}, at most {percent(share_max)} allowed); {len(found.of('new')):,} targets new, "
        f"{len(found.of('released')):,} released, {len(found.of('changed')):,} changed",
        file=sys.stderr,
    )
    for text in found.said:
        print(f"floodwall: {text}", file=sys.stderr)
