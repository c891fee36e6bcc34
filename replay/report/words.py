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
from replay.report.incidents import Told, weight
from replay.shown import Shown
from schemas.mitigation import Target

CLAUSES_MAX = 3
_DID = {
    "sign-ups": "registered far more accounts than is usual", "failing": "kept trying log-ins, keys or pages that failed",
    "rate": "sent far more requests than one sender should",
    "ratio": "sent mostly requests that failed, as when passwords or pages are guessed",
    "distinct": "did unusually many different things", "signature": "stood for many senders that acted alike",
    "entropy": "had traffic of an unusual make-up", "spend": "spent unusually much", "surge": "had more traffic than is usual",
    "known": "used programs that are known from attacks", "leaked": "had been made public",
    "registrations": "had sign-ups that look like one another", "slow": "held places without using them",
    "keys": "acted as never before",
}  # fmt: skip
_PLURALS = {
    "ip": ("address", "addresses"), "net": ("network", "networks"), "api_key": ("key", "keys"),
    "account": ("account", "accounts"),
    "email_domain": ("mail domain", "mail domains"), "route": ("page", "pages"),
    "signature": ("kind of request", "kinds of requests"),
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


LEAST_S = 120
"""What lasts is told once a minute: a short incident may have been twice as long."""
WORRYING = 0.01
"""Of the records: if more could not be looked at, the first screen says so."""


def many(count: int, kind: str) -> str:
    """``3 addresses``."""
    one, more = _PLURALS.get(kind, ("target", "targets"))
    return f"{count:,} {one if count == 1 else more}"


def share_text(share: float) -> str:
    """A share of something, never rounded to nothing."""
    return "none" if share == 0 else "less than 0.01 %" if share < 0.0001 else f"{share:.2%}".replace("%", " %")


def kind_of(told: Told) -> str:
    """What kind of thing somebody did: a key of `_DID`, or a detector that is not in it."""
    if "registration" in told.best.reason:
        return "sign-ups"
    if "failed" in told.best.reason or "failing" in told.best.reason:
        return "failing"
    return told.best.detector


def what_happened(told: Sequence[Told], shown: Shown) -> str:
    """What an incident is, by whoever was to be stopped, or else by what people were told; clauses of a sentence.

    Each target counts once, for what it is most severe in.
    """
    enforced = [one for one in told if one.standing == "enforced"]
    did: dict[str, dict[Target, None]] = {}
    known: set[Target] = set()
    for one in sorted(enforced or told, key=lambda one: tuple(-part for part in weight(one.best))):
        if one.best.target not in known:
            known.add(one.best.target)
            did.setdefault(kind_of(one), {})[one.best.target] = None
    ordered = sorted(did.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    found = []
    for kind, targets in ordered[:CLAUSES_MAX]:
        first, count = Counter(target.type for target in targets).most_common(1)[0]
        one_target = next(target for target in targets if target.type == first)
        whom = many(count, first) if count > 1 or first == "signature" else f"the {shown.target(one_target)}"
        found.append(f"{whom} {_DID.get(kind, f'did what the detector “{kind}” looks for')}")
    more = len(ordered) - CLAUSES_MAX
    others = (
        f", and {'one more kind of thing was' if more == 1 else f'{more} more kinds of things were'} found" if more > 0 else ""
    )
    joined = found[0] if len(found) == 1 else f"{', '.join(found[:-1])}{' and' if more <= 0 else ','} {found[-1]}"
    return joined + others


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
    main = main_of(incidents)
    facts = [Fact(label="Requests looked at", value=f"{counted:,}", note=f"in {length(span[1] - span[0])}")]
    if main is None:
        return _quiet(counted, span, facts, quality, timeline)
    stopped = Counter(kind for kind, _ in {(one.type, one.whom) for one in targets if one.standing == "enforced"})
    day = datetime.fromtimestamp(main.began, UTC)
    first = f"From {clock(main.began)} UTC on {day.day} {day:%B %Y}, {main.what}."
    seconds = max(main.last - main.began, 1)
    least = "at least " if seconds < LEAST_S else ""
    lasted = f"This went on for {least}{length(seconds)}{_peak(timeline, main)}"
    others = len(incidents) - 1
    rest = (
        ""
        if not others
        else f" Besides, there {'was 1 smaller incident' if others == 1 else f'were {others} smaller incidents'}."
    )
    if main.decided is None:
        second = f"{lasted}; it was something to tell people of, and nobody was to be stopped."
    else:
        after = length(max(main.decided - main.began, 0))
        second = f"{lasted}; {after} after the first sign it was decided for certain whom to stop."
    facts += _facts(sum(stopped.values()), collateral, times, main, registrations) + _missing(quality)
    if stopped:
        kinds = [many(count, kind) for kind, count in stopped.most_common(2)]
        whom = " and ".join(kinds) + (" and others" if len(stopped) > 2 else "")
        verdict, headline = "attack", f"An attack: {whom} to be stopped"
        third = f"{collateral.text}{rest}"
    else:
        verdict, headline = "noticed", "Something unusual happened; nobody had to be stopped"
        third = f"So nobody’s requests would have been refused.{rest}"
    return Summary(verdict=verdict, headline=headline, sentences=[first, second, third + _warning(quality)], facts=facts)


def _quiet(counted: int, span: tuple[int, int], facts: list[Fact], quality: Quality, timeline: Timeline) -> Summary:
    busiest = timeline.series[0]
    unread = sum(quality.unreadable.values())
    read = "all that was recorded could be read" if not unread else f"{unread:,} records could not be read"
    facts = [
        *facts, Fact(label="Senders to stop", value="none"),
        Fact(label="Busiest moment", value=f"{busiest.peak:,.1f}", note="requests a second"), *_missing(quality),
    ]  # fmt: skip
    sentences = [
        f"{counted:,} requests were looked at, from {moment(span[0])} to {_until(span)} UTC.",
        "Nothing in them went over any limit, so nobody would have been stopped.",
        f"The busiest moment was at {clock(busiest.peak_at)}, and {read}.{_warning(quality)}",
    ]
    return Summary(verdict="quiet", headline="Nothing unusual was found", sentences=sentences, facts=facts)


def _warning(quality: Quality) -> str:
    """Said where so much was not looked at that the rest may mislead."""
    late = quality.counts.get("late", 0) + quality.counts.get("stragglers", 0)
    left_out = sum(quality.unreadable.values()) + late
    of_all = max(quality.counts.get("records", 0), left_out, 1)
    if left_out / of_all < WORRYING:
        return ""
    why = "were written too far out of order to be looked at" if late * 2 > left_out else "could not be read"
    return f" But {share_text(left_out / of_all)} of the records {why}, so this may not be all."


def _missing(quality: Quality) -> list[Fact]:
    unread, late = sum(quality.unreadable.values()), quality.counts.get("late", 0)
    found = [Fact(label="Records that could not be read", value=f"{unread:,}")] if unread else []
    return found + ([Fact(label="Records out of order", value=f"{late:,}", note="too late to be looked at")] if late else [])


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
    found = [Fact(label="Senders to stop", value=f"{stopped:,}" if stopped else "none")]
    known = collateral.usual_requests > 0
    value = share_text(collateral.share) if known else "not known"
    note = "of the requests of quiet times come from them" if known else "there was no quiet time to compare with"
    if collateral.touched and not collateral.exact:
        value, note = f"at most {value}", f"{note}; one by an address and an account of them counts twice"
    if stopped:
        found.append(Fact(label="Usual traffic touched", value=value, note=note))
    if main.decided is not None:
        took = length(max(main.decided - main.began, 0))
        found.append(Fact(label="From first sign to decision", value=took, note="for certain; the first word may come sooner"))
    if times.enforce_s is not None:
        found.append(Fact(label="Then until it was stopped", value=length(times.enforce_s)))
    if registrations.total:
        found.append(Fact(label="Sign-ups in this time", value=f"{registrations.total:,}"))
    return found


def collateral_text(requests: int, touched: int, unknown: int, stopped: int, *, exact: bool) -> str:
    """What usual traffic would have noticed."""
    if not stopped:
        return "Nobody was to be stopped, so no usual traffic is touched."
    if not requests:
        return "How much usual traffic that touches cannot be said: there was no quiet time to compare with."
    if not touched:
        text = "Stopping them touches no ordinary traffic: none of the requests of quiet times came from them"
    else:
        share = share_text(touched / requests)
        text = f"Stopping them touches {'' if exact else 'at most '}{share} of ordinary traffic, by the requests of quiet times"
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
            f"Decide: {length(decide)} from the first crossing of any limit until the first mitigation that edges act on. Each "
            "is issued when its second is over and late events have been waited for; a live run also issues counts early, "
            "within the second (`--early` does the same here)."
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
        "(each says what was counted when it was issued or renewed; between those, more may have been counted). Whom lower "
        "limits would have found cannot be seen from here: `floodwall what-if` reads the traffic again for that."
    )
    return text if not without else f"{text} {without:,} mitigations go by no such limit and are left out."


def safe_features(features: dict[str, int | float | str | bool]) -> dict[str, int | float | str | bool]:
    """Of the evidence what cannot be somebody's secret: numbers, and short words."""
    found: dict[str, int | float | str | bool] = {}
    for name, value in features.items():
        if name == "seed":
            continue
        if is_secret(name) or not name.replace("_", "").replace(".", "").isalnum() or "@" in name:
            continue
        if isinstance(value, str):
            if len(value) <= 24 and not is_secret(value) and all(c.isalnum() or c in " _-." for c in value):
                found[name] = value
        else:
            found[name] = round(value, 6) if isinstance(value, float) else value
    return found
