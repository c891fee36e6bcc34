"""The sentences of a report. Those of the first screen use no word that somebody outside the trade would have to look up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from replay.redact import is_secret
from replay.report.document import (
    Collateral,
    Fact,
    Incident,
    Quality,
    Registrations,
    Summary,
    TargetStory,
    Timeline,
    Times,
)
from replay.report.incidents import Told
from replay.report.shown import Shown

_WHAT = {
    "rate": "far more requests than one sender should make", "ratio": "mostly failing requests, as when passwords or pages are guessed",
    "distinct": "one sender or key used in unusually many ways", "signature": "many senders that act alike",
    "entropy": "traffic that is made up unusually", "spend": "unusual spending", "surge": "more traffic than is usual",
    "known": "programs that are known for attacks", "leaked": "keys that have been made public",
    "registrations": "many sign-ups that look alike", "slow": "requests that hold places without using them",
    "keys": "keys used as never before",
}  # fmt: skip
_PLURALS = {
    "ip": ("address", "addresses"), "net": ("network", "networks"), "api_key": ("key", "keys"), "account": ("account", "accounts"),
    "email_domain": ("mail domain", "mail domains"), "route": ("page", "pages"), "signature": ("kind of request", "kinds of requests"),
    "service": ("service", "services"), "country": ("country", "countries"), "asn": ("network operator", "network operators"),
    "user_agent": ("program", "programs"), "fingerprint": ("kind of client", "kinds of clients"),
}  # fmt: skip


def moment(tick: int) -> str:
    """A tick as UTC time."""
    return datetime.fromtimestamp(tick, UTC).strftime("%Y-%m-%d %H:%M:%S")


def clock(tick: int) -> str:
    """Its time of day."""
    return datetime.fromtimestamp(tick, UTC).strftime("%H:%M:%S")


def length(seconds: float) -> str:
    """How long that is: ``1 hour 5 minutes``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole:,} second{'' if whole == 1 else 's'}"
    if whole < 7200:
        return _two(whole, 60, "minute", "second") if whole < 600 else f"{round(whole / 60)} minutes"
    return _two(whole, 3600, "hour", "minute") if whole < 172_800 else f"{whole / 86_400:,.1f} days"


def _two(whole: int, unit: int, name: str, below: str) -> str:
    first, rest = divmod(whole, unit)
    rest = rest * 60 // unit
    text = f"{first} {name}{'' if first == 1 else 's'}"
    return text if not rest else f"{text} {rest} {below}{'' if rest == 1 else 's'}"


def many(count: int, kind: str) -> str:
    """``3 addresses``."""
    one, more = _PLURALS.get(kind, ("target", "targets"))
    return f"{count:,} {one if count == 1 else more}"


def share_text(share: float) -> str:
    """A share of something, never rounded to nothing."""
    return "none" if share == 0 else "less than 0.01 %" if share < 0.0001 else f"{share:.2%}".replace("%", " %")


def what_happened(told: Sequence[Told], shown: Shown) -> str:
    """What an incident is, by whoever has most targets in it."""
    detectors = Counter(one.best.detector for one in told)
    found = []
    for detector, _ in detectors.most_common(2):
        kinds = Counter(one.best.target.type for one in told if one.best.detector == detector)
        kind, count = kinds.most_common(1)[0]
        whom = shown.target(next(one.best.target for one in told if one.best.detector == detector))
        whom = whom if count == 1 and kind != "signature" else many(count, kind)
        found.append(f"{_what(detector, told)}: {whom}")
    more = len(detectors) - 2
    return "; ".join(found) + (f"; and {more} more kind{'s' if more > 1 else ''} of findings" if more > 0 else "")


def _what(detector: str, told: Sequence[Told]) -> str:
    reasons = [one.best.reason for one in told if one.best.detector == detector]
    if detector == "rate" and sum("failed authentication" in reason for reason in reasons) * 2 > len(reasons):
        return "log-ins or keys that were tried and failed"
    return _WHAT.get(detector, f"what the detector “{detector}” looks for")


def main_of(incidents: Sequence[Incident]) -> Incident | None:
    """The incident that is told first: the one that most was stopped for."""
    return max(incidents, key=lambda one: (one.stopped, one.targets, -one.number), default=None)


def summarise(
    counted: int, span: tuple[int, int], incidents: list[Incident], targets: list[TargetStory], collateral: Collateral,
    times: Times, quality: Quality, registrations: Registrations, timeline: Timeline,
) -> Summary:  # fmt: skip
    """The first screen."""
    if not counted:
        return Summary(
            verdict="empty", headline="There was nothing to look at",
            sentences=["No request could be read, so nothing can be said about the time in question."], facts=[],
        )  # fmt: skip
    period = f"between {moment(span[0])} and {_until(span)} UTC"
    unread = sum(quality.unreadable.values())
    main = main_of(incidents)
    facts = [Fact(label="Requests looked at", value=f"{counted:,}", note=f"in {length(span[1] - span[0])}")]
    quality_word = "all that was recorded could be read" if not unread else f"{unread:,} records could not be read"
    if main is None:
        facts += [
            Fact(label="Senders to stop", value="none"),
            Fact(label="Busiest moment", value=f"{timeline.series[0].peak:,.1f}", note="requests a second"),
            Fact(label="Records that could not be read", value=f"{unread:,}"),
        ]
        sentences = [
            f"{counted:,} requests were looked at {period}.",
            "Nothing in them went over any limit, so nobody would have been stopped.",
            f"The busiest moment was at {clock(timeline.series[0].peak_at)}, and {quality_word}.",
        ]
        return Summary(verdict="quiet", headline="Nothing unusual happened", sentences=sentences, facts=facts)
    enforced = [one for one in targets if one.standing == "enforced"]
    others = len(incidents) - 1
    rest = "" if not others else f" {others} more incident{'s' if others > 1 else ''} of the same time can be found below."
    peak = _peak(timeline, main)
    first = f"On {moment(main.began)[:10]} at {clock(main.began)} UTC it began: {_plain(main.what)}."
    if enforced:
        kinds = Counter(kind for kind, _ in {(one.type, one.whom) for one in enforced})
        whom = " and ".join(many(count, kind) for kind, count in kinds.most_common(2))
        whom += " and others" if len(kinds) > 2 else ""
        after = "" if times.detect_s is None or main.decided is None else (
            f" {length(max(main.decided - main.began, 0))} after the first sign")  # fmt: skip
        second = f"It lasted {length(max(main.last - main.began, 1))}{peak}; Floodwall decided{after} whom to stop: {whom}."
        third = f"{collateral.text}{rest}"
        headline = f"An attack, with {many(sum(kinds.values()), next(iter(kinds)) if len(kinds) == 1 else '')} to stop"
        verdict = "attack"
    else:
        second = f"It lasted {length(max(main.last - main.began, 1))}{peak}; people were to be told, nobody was to be stopped."
        third = f"So no usual request would have been refused.{rest}"
        headline, verdict = "Something unusual happened, and nobody had to be stopped", "noticed"
    facts += _facts(len({(one.type, one.whom) for one in enforced}), collateral, times, main, registrations)
    return Summary(verdict=verdict, headline=headline, sentences=[first, second, third], facts=facts)


def _plain(what: str) -> str:
    return what.rstrip(".")


def _until(span: tuple[int, int]) -> str:
    return clock(span[1]) if span[1] // 86_400 == span[0] // 86_400 else moment(span[1])


def _peak(timeline: Timeline, main: Incident) -> str:
    values = timeline.series[0].values
    low = max(0, (main.began - timeline.start) // timeline.step_s)
    high = min(len(values), (main.last - timeline.start) // timeline.step_s + 1)
    during = max((value or 0 for value in values[low:high]), default=0.0)
    usual = sorted(value or 0 for value in values[:low])
    middle = usual[len(usual) // 2] if usual else 0
    if middle <= 0 or during < 1.5 * middle:
        return ""
    return f", with up to {during / middle:,.1f} times the usual number of requests"


def _facts(
    stopped: int, collateral: Collateral, times: Times, main: Incident, registrations: Registrations
) -> list[Fact]:  # fmt: skip
    found = [Fact(label="Senders to stop", value=f"{stopped:,}", note="in all incidents")]
    known = collateral.usual_requests > 0
    value = share_text(collateral.share) if known else "not known"
    note = "of the requests of quiet times come from them" if known else "there was no quiet time to compare with"
    found.append(Fact(label="Usual traffic touched", value=value, note=note))
    if main.decided is not None:
        took = length(max(main.decided - main.began, 0))
        found.append(Fact(label="From first sign to decision", value=took))
    if times.enforce_s is not None:
        found.append(Fact(label="Then until it was stopped", value=length(times.enforce_s)))
    if registrations.total:
        found.append(Fact(label="Sign-ups in this time", value=f"{registrations.total:,}"))
    return found


def collateral_text(usual: str, requests: int, touched: int, unknown: int, stopped: int) -> str:
    """What usual traffic would have noticed."""
    if not stopped:
        return "Nobody was to be stopped, so no usual traffic is touched."
    if not requests:
        return "How much usual traffic that touches cannot be said: there was no quiet time to compare with."
    if not touched:
        text = "None of the requests of quiet times came from them, so usual traffic is not touched"
    else:
        text = f"At most {share_text(touched / requests)} of the requests of quiet times came from them"
    more = f" (for {unknown:,} of them that is not known)" if unknown else ""
    return f"{text}{more}."


def times_text(detect: int | None, decide: int | None, enforce: float | None, edges: int, note: str) -> list[str]:
    """How long it took, a sentence each."""
    if detect is None:
        return ["Nothing was found, so there is nothing to time."]
    found = [f"Detect: {length(detect)} from the first sign until a limit was crossed."]
    if decide is None:
        found.append("Decide: nothing was decided that edges act on.")
    else:
        found.append(
            f"Decide: {length(decide)} from the crossing until the final record: one second, and the time that late events are "
            "waited for. A live run publishes an early record within the second."
        )
    if enforce is None:
        found.append(f"Enforce: not known. {note or 'A replay enforces nothing, and files hold no acknowledgements of edges.'}")
    else:
        found.append(f"Enforce: {enforce:,.1f} seconds in the median from publication until the first of {edges} edges had it.")
    return found


def what_if_text(without: int) -> str:
    """What the table of other limits says, and does not."""
    text = (
        "At least so many targets would have been found with limits so many times as high, by the numbers of these mitigations "
        "(each says what was counted when it was issued or renewed; between those, more may have been counted). Whom lower limits "
        "would have found cannot be seen from here: `floodwall what-if` reads the traffic again for that."
    )
    return text if not without else f"{text} {without:,} mitigations go by no such limit and are left out."


def safe_features(features: dict[str, int | float | str | bool]) -> dict[str, int | float | str | bool]:
    """Of the evidence what cannot be somebody's secret: numbers, and short words."""
    found: dict[str, int | float | str | bool] = {}
    for name, value in features.items():
        if is_secret(name) or not name.replace("_", "").replace(".", "").isalnum() or "@" in name:
            continue
        if isinstance(value, str):
            if len(value) <= 24 and not is_secret(value) and all(c.isalnum() or c in " _-." for c in value):
                found[name] = value
        else:
            found[name] = round(value, 6) if isinstance(value, float) else value
    return found


