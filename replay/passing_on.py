"""What explain tells: with pseudonyms, for whoever it is passed on to, or with what may be shown of whom it is about."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import msgspec

from replay.reread import Reread
from replay.rules_then import Changed, RulesThen
from replay.shown import Shown
from replay.story import Explanation, Records, Verdict
from schemas.acknowledgement import Acknowledgement
from schemas.mitigation import Target
from schemas.pseudonyms import Pseudonyms

_KINDS = {"addresses": "ip", "networks": "net", "mail domains": "email_domain"}
"""Of the most frequent values of traffic, those that are about somebody."""


def passed_on(records: Records, pseudonyms: Pseudonyms) -> Records:
    """Everything that is known about one target, about a pseudonym."""

    def acknowledgement(one: Acknowledgement) -> Acknowledgement:
        return msgspec.structs.replace(
            one,
            id=pseudonyms.identifier(one.id),
            target=pseudonyms.target(one.target),
            why=pseudonyms.text(one.why, one.target),
        )

    def verdict(one: Verdict) -> Verdict:
        return msgspec.structs.replace(
            one, id=pseudonyms.identifier(one.id), who=pseudonyms.name("person", one.who), reason=pseudonyms.said(one.reason)
        )

    return Records(
        mitigations=[pseudonyms.mitigation(one) for one in records.mitigations],
        findings=[pseudonyms.finding(one) for one in records.findings],
        acknowledgements=[acknowledgement(one) for one in records.acknowledgements],
        feedback=[verdict(one) for one in records.feedback],
        published={pseudonyms.identifier(name): times for name, times in records.published.items()},
    )


def traffic_passed_on(traffic: Reread | None, target: Target, pseudonyms: Pseudonyms) -> Reread | None:
    """What was found again of it; records are redacted already, and what names the target in them goes too."""
    if traffic is None:
        return None
    most = {
        name: [(pseudonyms.value(_KINDS[name], value) if name in _KINDS else value, count) for value, count in found]
        for name, found in traffic.most.items()
    }
    samples = [dataclasses.replace(one, text=pseudonyms.text(one.text, target)) for one in traffic.samples]
    return dataclasses.replace(traffic, most=most, samples=samples)


def rules_passed_on(rules: RulesThen | None, pseudonyms: Pseudonyms) -> RulesThen | None:
    """Whose change it was, without the name and without what they wrote."""

    def changed(one: Changed) -> Changed:
        return msgspec.structs.replace(one, who=pseudonyms.name("person", one.who), why=pseudonyms.said(one.why))

    if rules is None:
        return None
    made_by = None if rules.made_by is None else changed(rules.made_by)
    return msgspec.structs.replace(rules, made_by=made_by, since=[changed(one) for one in rules.since])


def as_shown(told: Explanation, shown: Shown) -> Explanation:
    """Without a target that looks like an address of mail or a secret, wherever it is named; all else stays as it is."""
    target = told.target
    hidden = shown.hides(target)
    told.what = shown.reason(told.what, target)
    told.steps = [msgspec.structs.replace(one, text=shown.reason(one.text, target)) for one in told.steps]
    told.others = [msgspec.structs.replace(one, reason=shown.reason(one.reason, target)) for one in told.others]
    if not hidden:
        return told
    told.target = shown.masked(target)
    # What to type names whom it is about, and would not be true of a mask.
    told.next = [one for one in told.next if not any(text in one.command for text, _ in hidden)]
    parts = dict(hidden)
    whole = re.compile("|".join(rf"(?<!\w){re.escape(text)}(?!\w)" for text in sorted(parts, key=len, reverse=True)))

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return whole.sub(lambda found: parts[found[0]], value)
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items()}
        return [plain(one) for one in value] if isinstance(value, list) else value

    document = msgspec.to_builtins(told)
    return msgspec.convert({name: one if name == "target" else plain(one) for name, one in document.items()}, Explanation)
