"""Accounts by the thousand: for the free credits, for later, or to hurt whoever's mail domain they name."""

from __future__ import annotations

import numpy as np

from drills.attacks.base import Fill, Sent, Site
from drills.columns import FLAG_AUTH_FAILED, FLAG_NEW_ACCOUNT, FLAG_REFUSED, Events, whole
from drills.honest.calls import requests_of, take_time, talk
from drills.honest.programs import first_calls
from drills.honest.signups import registrations
from drills.service.words import (
    BOT_TOOLS,
    BROWSERS,
    CUSTOMER,
    DOMAIN_OF_CUSTOMER,
    DOMAINS_DISPOSABLE,
    FIRST_BOT_NAME,
    FIRST_DISPOSABLE,
    NAMES_PER_KIND,
)

FREE_CALLS = 12
"""Calls that the credits of a new account pay for."""


def _obvious(site: Site) -> Fill:
    """Names by chance, disposable mail, a program."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = registrations(sent.actor, site.account(sent), sent.start_ms, random)
        count = len(events)
        events["name"] = FIRST_BOT_NAME + random.integers(0, NAMES_PER_KIND, count)
        events["domain"] = FIRST_DISPOSABLE + random.integers(0, len(DOMAINS_DISPOSABLE), count)
        return events

    return fill


def _mimicked(site: Site) -> Fill:
    """As people do it."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        return registrations(sent.actor, site.account(sent), sent.start_ms, random)

    return fill


def _used(site: Site) -> Fill:
    """As people use a new account."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        return first_calls(sent.actor, site.account(sent), sent.start_ms, random)

    return fill


def _spent(site: Site) -> Fill:
    """The free credits, to the last."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = requests_of("chat", sent.actor, sent.start_ms, random)
        count = len(events)
        events["number"], events["flags"] = site.account(sent), FLAG_NEW_ACCOUNT
        talk(events, random, np.ones(count, np.int64), np.full(count, 2500.0), np.full(count, 1500.0))
        return events

    return fill


def registrations_obvious(site: Site) -> None:
    """Registrations by a program from a few hosted addresses, with disposable mail and names by chance."""
    site.wave(site.hosted(BOT_TOOLS[:1], 4), site.counts(), _obvious(site))


def registrations_mimic(site: Site) -> None:
    """Registrations from homes with people's names, mail and browsers; some of the accounts are used as people do."""
    actors, counts = site.homes(), site.counts()
    site.wave(actors, counts, _mimicked(site))
    site.wave(actors, counts, _used(site), follow=2, follow_s=3600)


def registrations_slow(site: Site) -> None:
    """The same over days, a few an hour: no window of minutes sees it."""
    site.wave(site.homes(), site.counts(), _mimicked(site))


def stock_registrations(site: Site) -> None:
    """Two thousand sources try once every 30 s: below every stock limit on an address."""
    site.wave(site.homes(BROWSERS[:3]), site.counts(), _obvious(site))


def credit_farming(site: Site) -> None:
    """Account after account is registered, its free credits are used up, and it is thrown away."""
    actors, counts = site.hosted(BROWSERS, 48), site.counts()
    site.wave(actors, counts, _mimicked(site))
    site.wave(actors, counts, _spent(site), follow=FREE_CALLS, follow_s=900)


def trap_framed_domain(site: Site) -> None:
    """Registrations name a paying customer's mail domain and never confirm it, so that the domain is restricted."""
    site.hostile.victims = {"email_domain": [DOMAIN_OF_CUSTOMER]}

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = registrations(sent.actor, site.account(sent), sent.start_ms, random)
        events["domain"] = CUSTOMER
        events["flags"], events["status"] = FLAG_REFUSED | FLAG_AUTH_FAILED, 403
        take_time(events, whole(random.lognormal(5.0, 0.3, len(events)), 50, 4000))
        return events

    site.wave(site.few(), site.counts(), fill)
