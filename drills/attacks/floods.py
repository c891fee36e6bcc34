"""Floods: more requests than there is room for, from one source or from many, alike or disguised."""

from __future__ import annotations

import numpy as np

from drills.attacks.base import Fill, Sent, Site
from drills.columns import Events, no_events, whole
from drills.honest.calls import answers, requests_of, take_time
from drills.honest.people import pages
from drills.service import addresses
from drills.service.actors import address_target
from drills.service.shapes import SHAPE_OF, SHAPES
from drills.service.words import BROWSERS

VICTIMS = 8
"""Customers whose addresses are forged: few, so that each would be far over every limit."""
_SERVED = ((0.9, 200), (0.05, 500), (0.05, 503))
"""A flood is answered until it is not; what was turned away is no evidence."""


def _asks_for(shape: str) -> Fill:
    """A fill: everybody wants the same."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = requests_of(shape, sent.actor, sent.start_ms, random)
        events["status"] = answers(random, _SERVED, len(events))
        return events

    return fill


def flood_one(site: Site) -> None:
    """One address asks for one page, as quickly as it can."""
    site.wave(site.few(), site.counts(), _asks_for("home"))


def flood_fifty(site: Site) -> None:
    """Fifty addresses ask for one page."""
    site.wave(site.few(), site.counts(), _asks_for("pricing"))


def stock_flood(site: Site) -> None:
    """Fifty sources, 200 requests a second each, one URL: stock rules that count per address and path see none of it."""
    site.wave(site.few(BROWSERS[:4]), site.counts(), _asks_for("models"))


def botnet(site: Site) -> None:
    """Thousands of homes ask for one page with one program; none of them is busy."""
    site.wave(site.homes(BROWSERS[4:6]), site.counts(), _asks_for("home"))


def botnet_mimic(site: Site) -> None:
    """Thousands of homes ask for what people ask for, with people's browsers; only their addresses are new."""

    site.wave(site.homes(), site.counts(), as_people)


def residential(site: Site) -> None:
    """A hundred thousand homes, one to three requests each."""
    counts = site.random.integers(1, 4, site.sources)
    # As many in all as the table says: two each on average, exactly.
    for index in range(0, site.sources - 1, 2):
        counts[index + 1] = 4 - counts[index]
    site.wave(site.homes(BROWSERS[2:10]), counts, _asks_for("pricing"))


def cache_busting(site: Site) -> None:
    """One page, each time with another query string, so that no cache answers."""

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = _asks_for("busting")(sent, random)
        take_time(events, whole(random.lognormal(5.2, 0.5, len(events)), 20, 20_000))
        return events

    site.wave(site.hosted(BROWSERS), site.counts(), fill)


def carpet_network(site: Site) -> None:
    """Most addresses of one /16, a few requests each: no address stands out, no /24 much."""
    hosts = site.random.permutation(65_536)
    hosts = hosts[((hosts & 255) > 0) & ((hosts & 255) < 255)][: site.sources]
    actors = site.add((addresses.CARPET + hosts).tolist(), BROWSERS)
    site.wave(actors, site.counts(), _asks_for("home"))


def carpet_routes(site: Site) -> None:
    """Every route of the service gets a little more."""
    shapes = np.array([index for index, shape in enumerate(SHAPES) if shape.name not in ("register", "scan", "busting")])

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = requests_of("home", sent.actor, sent.start_ms, random)
        events["shape"] = shapes[random.integers(0, len(shapes), len(events))]
        gateway = np.array([shape.streams & 2 > 0 for shape in SHAPES])[events["shape"]]
        events["status"] = np.where(gateway, 401, answers(random, _SERVED, len(events)))
        return events

    site.wave(site.hosted(BROWSERS), site.counts(), fill)


def as_people(sent: Sent, random: np.random.Generator) -> Events:
    """What people's browsers ask for, in any order: as many requests as were sent, drawn from whole pages."""
    count = len(sent)
    some = np.zeros(count // 30 + 1, np.int64)
    page = np.array([SHAPE_OF[name] for name in ("home", "guide", "guide", "project", "pricing")])
    drawn = pages(some, page[random.integers(0, len(page), len(some))], some, random)
    events = no_events(count)
    events[:] = drawn[random.permutation(len(drawn))[:count]]
    events["time_ms"] = sent.start_ms + events["duration_ms"]
    events["actor"] = sent.actor
    return events


def trap_spoofed(site: Site) -> None:
    """One real flood that names busy customers' addresses in X-Forwarded-For: whoever believes the client stops them."""
    group = site.world.groups["customers"]
    actors, weights = np.concatenate(group.actors), np.concatenate(group.weights)
    victims = actors[np.argsort(-weights, kind="stable")[:VICTIMS]]
    site.hostile.victims = {"ip": [address_target(site.world.actors.address[victim]) for victim in victims]}

    def fill(sent: Sent, random: np.random.Generator) -> Events:
        events = _asks_for("models")(sent, random)
        events["forged"] = victims[random.integers(0, len(victims), len(events))]
        return events

    site.wave(site.few(), site.counts(), fill)
