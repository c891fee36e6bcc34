"""Looking for a way in: paths that should not be there, keys that nobody has, passwords of others."""

from __future__ import annotations

import numpy as np

from drills.attacks.base import Fill, Sent, Site
from drills.columns import FLAG_NO_SUCH_KEY, Events, whole
from drills.honest.calls import answers, fail, requests_of, take_time
from drills.service.words import BROWSERS, SCANNERS, SDKS

_GUESSED_SHARE = 0.012
"""Of stolen passwords still fit."""


def _scan(sent: Sent, random: np.random.Generator) -> Events:
    events = requests_of("scan", sent.actor, sent.start_ms, random)
    events["path"] = sent.slot * 7 + sent.source
    events["status"] = answers(random, ((0.93, 404), (0.05, 403), (0.02, 200)), len(events))
    fail(events, random)
    return events


def scan(site: Site) -> None:
    """A list of paths is tried from several addresses, with a browser's name."""
    site.wave(site.few(BROWSERS), site.counts(), _scan)


def scanner_agents(site: Site) -> None:
    """The same by tools that say their names, in their own spelling."""
    site.wave(site.few(SCANNERS), site.counts(), _scan)


def invalid_keys(site: Site) -> None:
    """Keys by chance, each tried once."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = requests_of("models", sent.actor, sent.start_ms, random)
        events["number"] = random.integers(0, 1 << 60, len(events))
        events["flags"] = FLAG_NO_SUCH_KEY
        events["status"] = 401
        fail(events, random)
        return events

    site.wave(site.few(SDKS), site.counts(), fill)


def _logins(guessed: float) -> Fill:
    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = requests_of("login", sent.actor, sent.start_ms, random)
        events["status"] = answers(random, ((1 - guessed, 401), (guessed, 200)), len(events))
        take_time(events, whole(random.lognormal(4.8, 0.2, len(events)), 40, 2000))
        return events

    return fill


def stuffing_loud(site: Site) -> None:
    """Stolen passwords, from a few addresses at once."""
    site.wave(site.few(), site.counts(), _logins(_GUESSED_SHARE))


def stuffing_slow(site: Site) -> None:
    """Stolen passwords, from hundreds of homes, one every now and then."""
    site.wave(site.homes(), site.counts(), _logins(_GUESSED_SHARE))


def stock_login(site: Site) -> None:
    """One login a minute from each of 300 sources: below every stock limit on an address."""
    site.wave(site.hosted(BROWSERS[:2]), site.counts(), _logins(0.0))
