"""The screen of ``floodwall explain``: for somebody who has just been woken, so short sentences and no words of ours."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from datetime import UTC, datetime

import orjson

from detectors.leaked import NAME as LEAKED
from engine.policy import FOR_EVER
from floodwall.show import moment
from floodwall.tables import printable
from replay.advice import OPERATOR, length
from replay.reread import Reread
from replay.rules_then import Changed, RulesThen
from replay.story import Explanation
from schemas.mitigation import Target

WIDTH_MAX = 120
WIDTH_IN_FILES = 110
_LABEL = 10
_BARS = "▁▂▃▄▅▆▇█"
_MARKS_MAX = 60
_HEADS = {
    "in_force": "IN FORCE", "early": "IN FORCE (first word, not confirmed yet)", "lifted": "LIFTED", "over": "OVER",
    "allowed": "NOT IN FORCE (an operator allows it)", "held": "NOT IN FORCE (held back by a budget)",
    "dry_run": "NOT IN FORCE (dry run: only reported)", "drill": "NOT IN FORCE (a rehearsal)",
    "notice": "NOTHING IN FORCE (a notice for people)",
}  # fmt: skip
_ACTIONS = {
    "notify": "notify", "challenge": "challenge", "throttle": "throttle", "block": "block", "disable_key": "disable the key",
    "restrict_registration": "no registrations", "allow": "allow",
}  # fmt: skip
_WHOM = {
    "ip": "address {}", "net": "network {}", "asn": "network operator AS{}", "country": "country {}",
    "api_key": "API key {} (a fingerprint; the key itself is never kept)", "account": "account {}",
    "email_domain": "mail domain {}", "route": "everybody who asks for {}", "user_agent": "user agent {}",
    "fingerprint": "clients with TLS fingerprint {}", "service": "the whole service {}",
}  # fmt: skip
_ATTRIBUTES = {"net": "network", "asn": "network operator", "email_domain": "mail domain", "fingerprint": "TLS fingerprint"}
_NAMES = {
    "stratum": "kind of request", "explained": "share of the surplus that these requests are",
    "collateral": "share of usual requests that would be hit too", "surplus": "more than usual",
    "load_requests_per_s": "requests a second", "load_usual_per_s": "usually", "load_times_usual": "times usual",
    "load_most_before_per_s": "most in the hour before", "load_tokens_per_s": "tokens a second",
    "load_tokens_p95_per_s": "95 % of minutes have up to",
}  # fmt: skip
_SHARES = ("explained", "collateral")


def print_explanation(told: Explanation) -> None:
    """One screen."""
    width = min(shutil.get_terminal_size().columns, WIDTH_MAX) if sys.stdout.isatty() else WIDTH_IN_FILES
    for line in screen(told, width):
        print(line)


def screen(told: Explanation, width: int) -> list[str]:
    """Its lines."""
    until = f", until {_at(told.until, told.now)}" if told.status in ("in_force", "early") else ""
    shown = _Screen(width)
    shown.lines.append(f"{_HEADS[told.status]}: {_ACTIONS[told.action]}{until}")
    shown.add("Whom", _whom(told.target))
    shown.add("What", told.what, *_sureness(told))
    if told.playbook:
        shown.add("Playbook", *_playbook(told.playbook))
    shown.add("When", _when(told))
    if told.rules is not None:
        shown.add("Rules", *_rules(told.rules, told.now))
    shown.add("Now", _now(told), *_enforced(told))
    if told.traffic is not None:
        shown.lines.append("")
        _add_traffic(shown, told, told.traffic)
        shown.lines.append("")
    if told.detector == LEAKED:
        shown.add("Reported", *_reported(told))
    elif told.model:
        shown.add("Compared", "; ".join(_feature(name, value) for name, value in list(told.model.items())[:8]))
    shown.add(
        "Agree", *(f"{one.detector}, {_times(one.findings)} since {_clock(one.first)}: {one.reason}" for one in told.others)
    )
    if len(told.steps) > 1 or told.returns:
        before = [f"and {_times(told.returns)} before that"] if told.returns else []
        shown.add("History", *(f"{_clock(step.at)}  {step.text}" for step in told.steps), *before)
    shown.add("Careful", *told.caveats)
    shown.lines.append("")
    for number, advice in enumerate(told.next):
        shown.add("Next" if number == 0 else "", advice.text)
        if advice.command:  # never folded: it is to be copied
            shown.lines.append(f"{'':<{_LABEL}}  {printable(advice.command)}")
    shown.add("", f"(id {told.id}, decided by {told.detector})")
    return shown.lines


class _Screen:
    """Labelled paragraphs."""

    def __init__(self, width: int) -> None:
        self.width, self.lines = width, list[str]()

    def add(self, label: str, *texts: str) -> None:
        """One paragraph for each text; the label stands before the first."""
        for text in texts:
            for part in textwrap.wrap(printable(text), self.width - _LABEL, break_on_hyphens=False):
                self.lines.append(f"{label:<{_LABEL}}{part}")
                label = ""


def _add_traffic(shown: _Screen, told: Explanation, traffic: Reread) -> None:
    if traffic.events:
        _add_marks(shown, told, traffic)
        answers = ", ".join(f"{_answer(status)}: {count:,}" for status, count in list(traffic.answers.items())[:5])
        share = traffic.events / max(traffic.all_events, 1)
        share_text = f"{share:.1%} of everybody's {traffic.all_events:,}"
        shown.add("", f"{traffic.events:,} in the window ({share_text}), answered {answers}")
        shown.add("From", *_from(told.target, traffic))
        asked = [f"{name} ({count:,})" for name, count in traffic.most.get("routes", [])]
        if asked and told.target.type != "route":
            shown.add("Asked for", _more(asked, traffic.distinct.get("routes", 0)))
        shown.add("Samples", *(f"{os.path.basename(one.source)} @ {one.offset}: {one.text}" for one in traffic.samples))
    elif not traffic.missing:
        shown.add("Requests", "none of this target was found again: was it decided with other settings (--profile, --config)?")
    if traffic.cut:
        shown.add("", "There was more than is read again for this screen.")
    shown.add("Missing", *traffic.missing[:4])


def _add_marks(shown: _Screen, told: Explanation, traffic: Reread) -> None:
    bars, seconds = sparkline(traffic.per_second)
    peak = max((count for count in traffic.per_second if count is not None), default=0)
    mark = "" if seconds == 1 else f", one mark is {length(seconds)}"
    from_to = f"{_clock(traffic.start)} to {_clock(traffic.end)} UTC"
    shown.add("Requests", f"of {_short(told.target)} a second, {from_to}{mark}; at most {peak:,}")
    shown.lines.append(f"{'':<{_LABEL}}{bars}")
    first = (told.window_start - traffic.start) // seconds
    many = -(-(told.window_end - told.window_start) // seconds)
    if many < len(bars):
        below = " " * first + ("└" + "─" * (many - 2) + "┘" if many > 1 else "↑")
        what = f"the {length(told.window_end - told.window_start)} that were counted"
        after = f"{below} {what}" if len(below) + len(what) < shown.width - _LABEL else f"{what:>{first - 1}} {below.strip()}"
        shown.lines.append(f"{'':<{_LABEL}}{after}")


def sparkline(per_second: list[int | None]) -> tuple[str, int]:
    """(marks, seconds of each): the busiest second of each mark; ``·``: not known.

    >>> sparkline([None, 0, 1, 4, 8])
    ('·▁▂▅█', 1)
    """
    seconds = max(1, -(-len(per_second) // _MARKS_MAX))
    groups = [per_second[at : at + seconds] for at in range(0, len(per_second), seconds)]
    peaks = [max((count for count in group if count is not None), default=None) for group in groups]
    most = max((peak for peak in peaks if peak is not None), default=0)
    marks = ["·" if peak is None else _BARS[0] if peak == 0 else _BARS[max(1, round(7 * peak / most))] for peak in peaks]
    return "".join(marks), seconds


def _whom(target: Target) -> str:
    if target.type == "signature":
        return f"{_words(target.value)}: all requests that are like this, whoever sends them"
    if target.type == "ip" and target.value.endswith("/64"):
        return f"address {target.value} (one home or server, as IPv6 gives them out)"
    return _WHOM.get(target.type, "{}").format(target.value)


def _words(value: str) -> str:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    return (
        ", ".join(f"{_ATTRIBUTES.get(name, name.replace('_', ' '))} {text}" for name, text in sorted(found.items()))
        if isinstance(found, dict)
        else value
    )


def _short(target: Target) -> str:
    return "these" if target.type == "signature" else target.value if len(target.value) <= 40 else "this target"


def _sureness(told: Explanation) -> tuple[str, ...]:
    if told.detector == OPERATOR:
        return ()
    # A limit that is none, and what is usual where nothing is, have no multiple that says anything.
    of_what = next((word for word in ("allowed", "usual") if re.search(rf"\b(?:is|are) {word}", told.what)), None)
    over = f"{told.times:,.1f} times what is {of_what}; " if told.times is not None and told.times >= 1.05 and of_what else ""
    return (f"{over}severity {told.severity} of 10; right in about {min(told.confidence, 0.99):.0%} of such cases",)


def _playbook(about: dict[str, object]) -> list[str]:
    owner = f" by {about['playbook_owner']}" if about.get("playbook_owner") else ""
    since = about.get("run_since")
    begun = f", begun {_clock(since)}" if isinstance(since, int) else ""
    return [
        f"{about['playbook']} ({about.get('playbook_state', '')}{owner}), step {about.get('step', '')} of run "
        f"{about.get('run', '')}{begun}",
        f"it runs on: {about.get('condition', '')}",
    ]


def _when(told: Explanation) -> str:
    ended = "until" if told.until >= FOR_EVER else "ends" if told.until > told.now else "ended"
    return f"since {_at(told.since, told.now)}, last seen {_clock(told.last_seen)}, {ended} {_at(told.until, told.now)}"


def _now(told: Explanation) -> str:
    if not told.now_action:
        return "nothing is in force on it"
    action = _ACTIONS.get(told.now_action, told.now_action)
    who = "an operator" if told.now_by == OPERATOR else told.now_by
    return f"in force on it: {action}, by {who}, until {_at(told.now_until, told.now)}"


def _rules(rules: RulesThen, now: int) -> list[str]:
    """Whose change of the configuration decided, and what has been changed since."""
    found = [f"of the configuration's version {rules.version}" + ("" if rules.made_by else ", as in the deployment's file")]
    if rules.made_by is not None:
        found = [f"{found[0]}: {_change(rules.made_by, now)}"]
    return [*found, *(f"since then {_change(one, now)}" for one in rules.since)]


def _change(one: Changed, now: int) -> str:
    verb = "tries" if one.tried else "changed"
    return f"{one.who} {verb} {one.section} from {_at(one.at, now)} on: {one.why}"


def _enforced(told: Explanation) -> list[str]:
    found = []
    if told.detect_s is not None:
        sure = f", and for sure after {length(told.decide_s)}" if told.decide_s is not None else ""
        found.append(f"found {length(told.detect_s)} after the second in which the limit was crossed{sure}")
    for one in told.edges:
        why = f": {one.why}" if one.why else ""
        if one.outcome == "applied":
            found.append(f"done by edge {one.edge}, {length(one.seconds)} after it was found")
        else:
            found.append(f"NOT done by edge {one.edge} ({one.outcome}){why}")
    return found


def _from(target: Target, traffic: Reread) -> list[str]:
    parts = []
    for name in ("addresses", "networks", "countries", "accounts", "API keys", "mail domains"):
        many = traffic.distinct.get(name, 0)
        if many > 1 or (many and name in ("accounts", "API keys")):
            parts.append(f"{many:,} {name if many > 1 else _singular(name)}")
    found = [", ".join(parts)] if parts else []
    if target.type != "ip" and traffic.distinct.get("addresses", 0) > 1:
        found.append(_more([f"{name} ({count:,})" for name, count in traffic.most["addresses"]], traffic.distinct["addresses"]))
    agents = [f"{name} ({count:,})" for name, count in traffic.most.get("user agents", [])]
    if agents and target.type != "user_agent":
        found.append("with " + _more(agents[:2], traffic.distinct["user agents"]))
    return found


def _singular(name: str) -> str:
    return {"accounts": "account", "API keys": "API key"}[name]


def _more(shown: list[str], many: int) -> str:
    return ", ".join(shown) + (f" and {many - len(shown):,} more" if many > len(shown) else "")


def _answer(status: str) -> str:
    return {"none": "not said", "401": "401 (not logged in)", "403": "403 (refused)", "429": "429 (our limit)"}.get(
        status, status
    )


def _feature(name: str, value: object) -> str:
    label = _NAMES.get(name, name.replace("_", " "))
    if isinstance(value, float):
        return f"{label} {min(value, 1.0):.1%}" if name in _SHARES else f"{label} {value:,.3g}"
    return f"{label} {value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{label} {value}"


def _reported(told: Explanation) -> list[str]:
    """Who found a leaked key, and where."""
    by, where, kind, at = (told.model.get(name) for name in ("provider", "source", "type", "reported"))
    if by is None:
        return []
    when = f", known since {_at(at, told.now)}" if isinstance(at, int) else ""
    return [f"by {by}: found in {where}, as a key of the kind {kind}{when}"]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _clock(tick: int) -> str:
    return datetime.fromtimestamp(tick, UTC).strftime("%H:%M:%S")


def _at(tick: int, now: int) -> str:
    """A time, and how far that is from now."""
    if tick >= FOR_EVER:
        return "an operator lifts it"
    text = _clock(tick) if abs(tick - now) < 43_200 else moment(tick)
    if abs(tick - now) >= 43_200:
        return f"{text} UTC"
    return f"{text} UTC (in {length(tick - now)})" if tick > now else f"{text} UTC ({length(now - tick)} ago)"
