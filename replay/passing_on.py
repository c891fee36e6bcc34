"""What explain tells, with pseudonyms in place of whom it is about: for whoever it is passed on to."""

from __future__ import annotations

import dataclasses

import msgspec

from replay.reread import Reread
from replay.rules_then import Changed, RulesThen
from replay.story import Records, Verdict
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
