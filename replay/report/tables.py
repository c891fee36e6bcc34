"""The tables of a report that come from what was gathered: the timeline, who talked most, who signed up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.collected import Collected
from replay.report.document import Cohort, Registrations, Series, TalkerRow, Talkers, Timeline
from replay.report.gather import Gathering, Talker
from replay.report.talking import (
    BLOCKS,
    BUCKETS,
    V_AUTH_FAILURES,
    V_CLIENT_ERRORS,
    V_COST_MICRO,
    V_DENIED,
    V_REGISTRATIONS,
    V_REQUESTS,
    V_SERVER_ERRORS,
    V_TOKENS,
)
from replay.shown import Shown
from schemas.fields import Dimension

ROWS = 10
STEPS_MAX = 720
"""Of the timeline: more cannot be told apart on a page."""
_LABELS = {
    Dimension.IP: "Addresses", Dimension.NET: "Networks", Dimension.API_KEY: "API keys (fingerprints)", Dimension.ROUTE:
    "Routes", Dimension.USER_AGENT: "User agents", Dimension.COUNTRY: "Countries", Dimension.EMAIL_DOMAIN: "Mail domains",
    Dimension.FINGERPRINT: "TLS fingerprints", Dimension.SERVICE: "Services",
}  # fmt: skip
_SAMPLED = (Dimension.USER_AGENT, Dimension.COUNTRY, Dimension.EMAIL_DOMAIN, Dimension.FINGERPRINT)


@dataclass(frozen=True, slots=True)
class Usual:
    """What is taken for usual."""

    blocks: npt.NDArray[np.bool_]
    """bool[BLOCKS]: in which everything was as usual …"""
    crossed: npt.NDArray[np.bool_]
    """… and in which a limit was crossed"""
    seconds: npt.NDArray[np.float64]
    """f64[BLOCKS]: that were read of each block"""
    text: str
    """Which time that is; empty: there was none."""

    @property
    def is_known(self) -> bool:
        """There was such a time."""
        return bool(self.blocks.any())

    @property
    def during(self) -> npt.NDArray[np.bool_]:
        """The time that is compared with it: where limits were crossed, else all of it."""
        return self.crossed if self.crossed.any() else self.seconds > 0

    def rates(self, blocks: npt.NDArray[np.uint32]) -> tuple[float | None, float]:
        """(a second as usual, a second during) of a key's blocks."""
        during = float(blocks[self.during].sum() / max(self.seconds[self.during].sum(), 1))
        if not self.is_known or not self.crossed.any():
            return None, during
        return float(blocks[self.blocks].sum() / max(self.seconds[self.blocks].sum(), 1)), during


def change_text(before: float | None, during: float) -> str:
    """How much more it was than usual."""
    if before is None:
        return "–"
    if before == 0:
        return "new" if during else "–"
    ratio = during / before
    return "about the same" if 0.8 <= ratio <= 1.25 else f"{ratio:,.1f} ×" if ratio < 100 else f"{ratio:,.0f} ×"


def timeline_of(gathering: Gathering, marks: tuple[list[int], list[tuple[int, int]]]) -> Timeline:
    """Rates over time, in at most `STEPS_MAX` steps."""
    first, end = gathering.span
    width = gathering.width_s
    low, high = (first - gathering.origin) // width, max((end - 1 - gathering.origin) // width + 1, 1)
    many = -(-(high - low) // STEPS_MAX)
    step, start = width * many, gathering.origin + low * width
    steps = -(-(high - low) // many)

    def added(values: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        padded = np.zeros(steps * many)
        part = values[low:high]
        padded[: len(part)] = part
        summed: npt.NDArray[np.float64] = padded.reshape(steps, many).sum(axis=1)
        return summed

    # The first and the last step may not have been read from end to end.
    edges = start + np.arange(steps) * step
    seconds = np.maximum(np.minimum(edges + step, end) - np.maximum(edges, first), 1)
    columns = gathering.series
    errors = columns[:, V_CLIENT_ERRORS] + columns[:, V_SERVER_ERRORS]
    kinds = [
        ("requests", "Requests", "a second", columns[:, V_REQUESTS], 1.0),
        ("errors", "Errors (other 4xx and 5xx)", "a second", errors, 1.0),
        ("auth_failures", "Failed log-ins and keys (401, 403)", "a second", columns[:, V_AUTH_FAILURES], 1.0),
        ("denied", "Refused by limits (429, 503)", "a second", columns[:, V_DENIED], 1.0),
        ("tokens", "Tokens", "a second", columns[:, V_TOKENS], 1.0),
        ("cost", "Cost", "a second, in units of the log's currency", columns[:, V_COST_MICRO], 1e6),
        ("registrations", "Registrations", "a minute", columns[:, V_REGISTRATIONS], 1 / 60),
    ]
    found = []
    for name, label, unit, values, divisor in kinds:
        sums = added(values)
        if sums.any() or name == "requests":
            rates = sums / seconds / divisor
            total = float(sums.sum()) / (1e6 if name == "cost" else 1)
            found.append(_series(name, label, unit, rates, edges, total))
    spread = gathering.entropy()
    padded = np.full(steps * many, np.nan)
    padded[: high - low] = spread[low:high]
    with np.errstate(all="ignore"):
        parts = padded.reshape(steps, many)
        counted = np.maximum((~np.isnan(parts)).sum(axis=1), 1)
        bits = np.where(np.isnan(parts).all(axis=1), np.nan, np.nansum(parts, axis=1) / counted)
    if not np.isnan(bits).all():
        found.append(_series("entropy", "Spread over addresses (entropy)", "bits", bits, edges, None))
    begun = np.bincount(np.clip((np.array(marks[0], np.int64) - start) // step, 0, steps - 1), minlength=steps)
    force = np.zeros(steps + 1, np.int64)
    for since, until in marks[1]:
        if since < end:
            force[max(0, (since - start) // step)] += 1
            force[min(steps, max(0, -(-(until - start) // step)))] -= 1
    return Timeline(
        start=int(start), step_s=int(step), series=found, begun=begun.tolist(), in_force=np.cumsum(force)[:steps].tolist()
    )


def _series(
    name: str, label: str, unit: str, values: npt.NDArray[np.float64], edges: npt.NDArray[np.int64], total: float | None
) -> Series:
    peak = int(np.nanargmax(values))
    return Series(
        name=name, label=label, unit=unit, total=total, peak=round(float(values[peak]), 3), peak_at=int(edges[peak]),
        values=[None if np.isnan(value) else round(float(value), 3) for value in values],
    )  # fmt: skip


def talkers_of(gathering: Gathering, usual: Usual, stopped: dict[tuple[str, str], str], shown: Shown) -> list[Talkers]:
    """The busiest of each dimension while limits were crossed, or of all the time where none was."""
    weights = usual.during.astype(np.float64)
    everybody = max(int(gathering.total_blocks()[usual.during].sum()), 1)
    found = []
    for dimension in gathering.dimensions():
        sampled = dimension in _SAMPLED
        rows = [
            _row(one, dimension, usual, everybody, sampled, stopped, shown)
            for one in gathering.talkers(dimension, weights, ROWS)
        ]
        if rows:
            found.append(
                Talkers(
                    dimension=dimension.label,
                    label=_LABELS[dimension],
                    is_estimate=sampled,
                    keys=gathering.count(dimension),
                    rows=rows,
                )
            )
    return found


def _row(
    one: Talker, dimension: Dimension, usual: Usual, everybody: int, sampled: bool, stopped: dict[tuple[str, str], str],
    shown: Shown,
) -> TalkerRow:  # fmt: skip
    before, during = usual.rates(one.blocks)
    requests = int(one.blocks[usual.during].sum())
    return TalkerRow(
        value=shown.value(dimension.label, one.value), requests=requests, share=requests / everybody,
        before_per_s=None if before is None else round(before, 4), during_per_s=round(during, 4),
        change=change_text(before, during), errors=None if sampled else one.errors,
        tokens=None if sampled or not one.tokens else one.tokens, stopped=stopped.get((dimension.label, one.value), ""),
    )  # fmt: skip


def registrations_of(gathering: Gathering, usual: Usual, collected: Collected, shown: Shown) -> Registrations:
    """Registrations that are alike, where they came from, and what was found of them."""
    total = int(gathering.series[:, V_REGISTRATIONS].sum())
    cohorts = []
    for common, one in gathering.cohorts(usual.during.astype(np.float64), ROWS):
        parts = [f"{_NOUNS[name]} {shown.value(name, value)}" for name, value in common.items() if value]
        cohorts.append(_cohort(", ".join(parts) or "nothing else is known of them", one, usual, one.registrations))
    networks = []
    for one in gathering.registering(Dimension.NET, ROWS):
        # When each network registered is not known apart from its other requests.
        hours = max(float(usual.seconds.sum()) / 3600, 1 / 60)
        rate = round(one.registrations / hours, 2)
        alike = shown.value("net", one.value)
        networks.append(Cohort(alike=alike, registrations=one.registrations, before_per_h=None, during_per_h=rate, change="–"))
    reasons: dict[tuple[str, str], str] = {}
    for finding in collected.findings:
        if finding.measure == "registrations" and len(reasons) < ROWS:
            reasons.setdefault((finding.target.type, finding.target.value), shown.reason(finding.reason, finding.target))
    return Registrations(total=total, cohorts=cohorts, networks=networks, findings=list(reasons.values()))


_NOUNS = {"email_domain": "mail at", "user_agent": "program", "country": "country"}


def _cohort(alike: str, one: Talker, usual: Usual, registrations: int) -> Cohort:
    before, during = usual.rates(one.blocks)
    return Cohort(
        alike=alike, registrations=registrations, before_per_h=None if before is None else round(before * 3600, 2),
        during_per_h=round(during * 3600, 2), change=change_text(before, during),
    )  # fmt: skip


assert BUCKETS % BLOCKS == 0
