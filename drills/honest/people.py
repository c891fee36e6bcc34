"""People with browsers, at home, in offices and behind a carrier's NAT; crawlers; a crowd that comes for one article."""

from __future__ import annotations

import numpy as np

from drills.columns import CELL_S, I64, Events, chosen, concatenated, whole
from drills.honest.calls import answers, fail, requests_of, take_time
from drills.service.season import REGIONS
from drills.service.shapes import SHAPE_OF
from drills.service.world import World

PEOPLE_SHARE, CARRIER_SHARE, OFFICES_SHARE, CRAWLERS_SHARE, CONSOLES_SHARE = 0.14, 0.07, 0.045, 0.02, 0.005
PAGE_REQUESTS = (30, 56)
"""Requests of one page, nearly all of them assets."""
_PAGE = sum(PAGE_REQUESTS) / 2
_PAGES_OF_VISIT = 2.5
_TABS_SHARE, _TABS_MAX = 0.03, 8
"""Visits that begin with a browser restoring its tabs, all at once."""
_LOGIN_SHARE, _LOGIN_FAILS = 0.15, 0.08
_PAGES = (("home", 25), ("pricing", 8), ("guide", 37), ("project", 25), ("search", 5))
_ASSETS = (("script", 40), ("style", 20), ("image", 36), ("icon", 4))
_FOUND = ((0.72, 200), (0.27, 304), (0.01, 404))
_SIZES = {"home": 15_000, "pricing": 12_000, "article": 22_000, "guide": 22_000, "project": 9000, "search": 7000, "usage": 1200,
          "script": 88_000, "style": 14_000, "image": 31_000, "icon": 1150}  # fmt: skip
_GUIDES, _ASSET_VERSIONS = 400, 64
FLASH_FACTOR = 6.0
"""A flash crowd brings so many times the usual number of people, to one page."""
CONSOLE_POSTS, CONSOLE_S = 139, 10.0
"""An operator's own console was seen to post so often."""


def pages(actor: I64, page: I64, start_ms: I64, random: np.random.Generator) -> Events:
    """One page each: the page, then what it needs, most of it within a second."""
    many = random.integers(PAGE_REQUESTS[0], PAGE_REQUESTS[1] + 1, len(actor))
    first = np.cumsum(many) - many
    which = np.repeat(np.arange(len(actor)), many)
    events = requests_of("home", actor[which], start_ms[which], random)
    assets = np.array([SHAPE_OF[name] for name, _ in _ASSETS])
    events["shape"] = assets[chosen(random, [weight for _, weight in _ASSETS], len(events))]
    events["path"] %= _ASSET_VERSIONS
    # The page itself, then up to two calls of the console's own, then files; a quick line gets all in a second.
    line = np.maximum(random.lognormal(-0.3, 0.8, len(actor)), 0.3)
    delay = 60 + random.exponential(1.0, len(events)) * line[which] * 800
    delay[first] = 0
    events["time_ms"] += np.minimum(delay, 20_000).astype(np.int64)
    events["shape"][first], events["path"][first] = page, random.integers(0, _GUIDES, len(first))
    console = first[page == SHAPE_OF["project"]]
    for behind in (1, 2):
        events["shape"][console + behind] = SHAPE_OF["usage"]
    sizes = np.zeros(max(SHAPE_OF.values()) + 1)
    for name, size in _SIZES.items():
        sizes[SHAPE_OF[name]] = size
    events["bytes"] = whole(sizes[events["shape"]] * random.lognormal(0, 0.3, len(events)))
    events["status"] = answers(random, _FOUND, len(events))
    events["status"][first] = 200
    events["status"][events["shape"] == SHAPE_OF["usage"]] = 200
    events["bytes"][events["status"] == 304] = 0
    take_time(events, whole(random.lognormal(1.9, 0.6, len(events)), 1, 20_000))
    return events


def _visits(world: World, group: str, share: float, cell: int, random: np.random.Generator) -> Events:
    """Visits of a few pages with time to read between; some begin with many tabs, some with a login."""
    regions = world.people.regions(cell)
    expected = world.events_per_second * share * CELL_S * float(regions.sum()) / _PAGE / _PAGES_OF_VISIT
    count = int(random.poisson(expected))
    actor = world.groups[group].pick(random, regions, count)
    begin_s = cell * CELL_S + random.random(count) * CELL_S
    tabs = random.random(count) < _TABS_SHARE
    many = np.where(tabs, random.integers(5, _TABS_MAX + 1, count), np.minimum(random.geometric(1 / 2.4, count), 12))
    which = np.repeat(np.arange(count), many)
    place = np.arange(len(which)) - np.repeat(np.cumsum(many) - many, many)
    gap = np.where(tabs[which], random.uniform(0.5, 2.0, len(which)), random.uniform(4, 40, len(which)))
    start_ms = ((begin_s[which] + place * gap) * 1000).astype(np.int64)
    names = np.array([SHAPE_OF[name] for name, _ in _PAGES])
    page = names[chosen(random, [weight for _, weight in _PAGES], len(which))]
    return concatenated([pages(actor[which], page, start_ms, random), _logins(actor, begin_s, random)])


def _logins(actor: I64, begin_s: np.ndarray, random: np.random.Generator) -> Events:
    """Some log in first; some of those mistype, once or a few times."""
    who = np.flatnonzero(random.random(len(actor)) < _LOGIN_SHARE)
    fails = np.where(random.random(len(who)) < _LOGIN_FAILS, random.geometric(0.5, len(who)), 0)
    which = np.repeat(np.arange(len(who)), fails + 1)
    place = np.arange(len(which)) - np.repeat(np.cumsum(fails + 1) - fails - 1, fails + 1)
    start_ms = ((begin_s[who][which] + 1 + place * random.uniform(3, 9, len(which))) * 1000).astype(np.int64)
    events = requests_of("login", actor[who][which], start_ms, random)
    events["status"] = np.where(place < fails[which], 401, 200)
    take_time(events, whole(random.lognormal(4.9, 0.3, len(events)), 40, 3000))
    return events


def people(world: World, cell: int, random: np.random.Generator) -> Events:
    """Visits from home."""
    return _visits(world, "people", PEOPLE_SHARE, cell, random)


def carrier(world: World, cell: int, random: np.random.Generator) -> Events:
    """Thousands of people behind 32 addresses."""
    return _visits(world, "carrier", CARRIER_SHARE, cell, random)


def offices(world: World, cell: int, random: np.random.Generator) -> Events:
    """Dozens of browsers behind each of a few addresses."""
    return _visits(world, "offices", OFFICES_SHARE, cell, random)


def crawlers(world: World, cell: int, random: np.random.Generator) -> Events:
    """Crawlers that answer for themselves: many distinct pages, quicker while they go through everything."""
    busy = any(e.start_s <= cell * CELL_S < e.stop_s for e in world.named("crawl"))
    expected = world.events_per_second * CRAWLERS_SHARE * CELL_S * 0.5 + (4.0 * CELL_S if busy else 0.0)
    count = int(random.poisson(expected))
    actor = world.groups["crawlers"].pick(random, np.ones(len(REGIONS)), count)
    start_ms = ((cell + random.random(count)) * CELL_S * 1000).astype(np.int64)
    events = requests_of("guide", actor, start_ms, random)
    events["path"] %= 4 * _GUIDES
    events["status"] = answers(random, ((0.8, 200), (0.14, 304), (0.06, 404)), count)
    fail(events, random)
    return events


def consoles(world: World, cell: int, random: np.random.Generator) -> Events:
    """Our own people's consoles, which now and then post 139 times in ten seconds."""
    count = int(random.poisson(world.events_per_second * CONSOLES_SHARE * CELL_S / CONSOLE_POSTS))
    group = world.groups["consoles"].actors[0]
    actor = np.repeat(group[random.integers(0, len(group), count)], CONSOLE_POSTS)
    begin = np.repeat(random.random(count) * CELL_S, CONSOLE_POSTS) + random.random(len(actor)) * CONSOLE_S
    return requests_of("usage", actor, ((cell * CELL_S + begin) * 1000).astype(np.int64), random)


def flash_crowd(world: World, cell: int, random: np.random.Generator) -> Events:
    """Everybody comes for one article, from addresses never seen before, for as long as it is talked about."""
    level = 0.0
    for episode in world.named("flash_crowd"):
        done = (cell * CELL_S - episode.start_s) / (episode.stop_s - episode.start_s)
        if -CELL_S / (episode.stop_s - episode.start_s) < done < 1:
            level = FLASH_FACTOR * min(1.0, 0.5 + 4 * max(done, 0.0)) * (1 - max(done, 0.0) ** 2)
    expected = world.events_per_second * PEOPLE_SHARE * CELL_S * level / _PAGE
    count = int(random.poisson(expected))
    actor = world.groups["crowd"].pick(random, world.people.regions(cell), count)
    start_ms = ((cell + random.random(count)) * CELL_S * 1000).astype(np.int64)
    return pages(actor, np.full(count, SHAPE_OF["article"]), start_ms, random)
