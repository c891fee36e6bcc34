"""People who sign up: a visit, a registration, and then, for many, first calls with the key that it gave them.

Hardly anybody signs up twice. Most come from homes that nobody signed up from before, a fifth from networks that many share,
a few from where somebody has an account, and of a few homes two sign up on the same day.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from drills.columns import (
    CELL_S,
    F64,
    FLAG_NEW_ACCOUNT,
    FLAG_REFUSED,
    I64,
    Events,
    chosen,
    concatenated,
    generator,
    mixed,
    whole,
)
from drills.honest.calls import requests_of, take_time
from drills.honest.people import pages
from drills.honest.programs import first_calls
from drills.service.shapes import SHAPE_OF
from drills.service.words import DOMAINS_DISPOSABLE, DOMAINS_FIRMS, DOMAINS_USUAL, FIRST_DISPOSABLE, FIRST_FIRM, NAMES_PER_KIND
from drills.service.world import World

REGISTRATIONS_SHARE = 0.0015
"""Of all events: at 350 a second, 1,900 an hour."""
MARKETING_FACTOR = 12.0
"""A campaign brings so many times the usual number."""
REFUSED_SHARE = 0.07
"""A name that is taken, a mistyped address; most try again."""
USED_SHARE, USED_SPREAD = 0.62, 0.03
"""New accounts that ever call anything, and the standard deviation of that from day to day."""
SHARED_SHARE, SHARED_SPREAD = 0.22, 0.02
"""New accounts from networks that many share, and the standard deviation of that from day to day …"""
CARRIER_SHARE, OFFICES_SHARE = 0.15, 0.1
"""… of them those from the carrier and the offices that are in our lists; the others are on nobody's"""
RETURNING_SHARE, TWICE_SHARE = 0.04, 0.04
"""From a home that has an account (an agency's, a school's, a tester's), and from one that got its first some hours ago: a
couple, or the same person with another mail address (some of those find nobody, so that it is three in a hundred)"""
TWICE_CELLS, TWICE_CELLS_MAX = 180.0, 1380
"""Minutes between the two, on average and at most: within a day."""
USED_CAMPAIGN = 0.12
"""So many fewer of those whom a campaign brings."""
REMEMBERED_CELLS = 24 * 3600 // CELL_S
"""First calls come within a day."""
REGISTRATION_MS_MAX = 9000
LAG_S_MAX = 85_000
"""So that with everything before and after it they do."""
_DOMAIN_KINDS = (0.71, 0.26, 0.03)


def usual_domains(random: np.random.Generator, count: int) -> I64:
    """Mail hosts as people have them."""
    kind = chosen(random, _DOMAIN_KINDS, count)
    usual = chosen(random, (1 / np.arange(1, len(DOMAINS_USUAL) + 1)).tolist(), count)
    firm = FIRST_FIRM + random.integers(0, len(DOMAINS_FIRMS), count)
    disposable = FIRST_DISPOSABLE + random.integers(0, len(DOMAINS_DISPOSABLE), count)
    return np.choose(kind, [usual, firm, disposable])


def registrations(actor: I64, number: I64, start_ms: I64, random: np.random.Generator) -> Events:
    """One registration each, as people make them; ``number`` is the account that each makes."""
    events = requests_of("register", actor, start_ms, random)
    count = len(events)
    events["number"], events["flags"], events["status"] = number, FLAG_NEW_ACCOUNT, 201
    events["name"] = random.integers(0, NAMES_PER_KIND, count)
    events["domain"] = usual_domains(random, count)
    take_time(events, whole(random.lognormal(5.5, 0.4, count), 60, REGISTRATION_MS_MAX))
    return events


def refuse(events: Events, random: np.random.Generator) -> None:
    """These made no account."""
    events["flags"] = FLAG_REFUSED
    events["status"] = np.where(random.random(len(events)) < 0.7, 409, 400)


@dataclass(frozen=True, slots=True)
class _Planned:
    """Who signs up in one cell, and when."""

    actor: I64
    number: I64
    visit_ms: I64
    form_ms: I64
    again_ms: I64
    """How long after the first attempt the second comes; 0: the first was enough"""


class SignUps:
    """Registrations and what follows from them. It remembers a day of them, and makes that day again where it begins."""

    def __init__(self, world: World, source: int) -> None:
        self._world, self._source = world, source
        self._drawn = range(0)
        self._later: dict[int, list[tuple[I64, I64, I64]]] = defaultdict(list)

    def draw(self, cell: int, random: np.random.Generator) -> Events:
        """What begins in this cell; who registers is drawn by a chance of its own, so that it can be drawn again."""
        if not self._drawn or cell != self._drawn.stop:
            self._later.clear()
            for earlier in range(cell - REMEMBERED_CELLS, cell):
                self._plan(earlier)
            for earlier in [known for known in self._later if known < cell]:
                del self._later[earlier]
        parts = self._register(self._plan(cell), random)
        self._drawn = range(cell - REMEMBERED_CELLS, cell + 1)
        for actor, number, start_ms in self._later.pop(cell, []):
            parts.append(first_calls(actor, number, start_ms, random))
        return concatenated(parts)

    def _plan(self, cell: int) -> _Planned:
        """Who registers in a cell; their later calls are noted under the cells in which those begin."""
        world = self._world
        random = generator(world.seed, self._source + 500, cell)
        regions = world.people.regions(cell)
        factor = MARKETING_FACTOR if any(e.start_s <= cell * CELL_S < e.stop_s for e in world.named("marketing")) else 1.0
        count = int(random.poisson(world.events_per_second * REGISTRATIONS_SHARE * CELL_S * float(regions.sum()) * factor))
        visit_ms = ((cell + random.random(count)) * CELL_S * 1000).astype(np.int64)
        form_ms = visit_ms + random.integers(2000, 40_000, count)
        again_ms = np.where(random.random(count) < REFUSED_SHARE, random.integers(12_000, 60_000, count), 0)
        planned = _Planned(self._who(cell, regions, count), (cell << 12) + np.arange(count), visit_ms, form_ms, again_ms)
        if count:
            self._use(planned, self._share_used(cell) - USED_CAMPAIGN * (factor > 1), random)
        return planned

    def _who(self, cell: int, regions: F64, count: int) -> I64:
        """Who signs up in a cell."""
        world, random = self._world, generator(self._world.seed, self._source + 502, cell)
        found = self._homes(cell, regions, np.arange(count))
        shared = SHARED_SHARE + SHARED_SPREAD * self._of_day(cell, 503)
        kinds = (1 - shared - RETURNING_SHARE - TWICE_SHARE, shared, RETURNING_SHARE, TWICE_SHARE)
        kind, more = chosen(random, kinds, count), random.random(count)
        carrier, offices = CARRIER_SHARE, CARRIER_SHARE + OFFICES_SHARE
        for here, pick in (
            ((kind == 1) & (more < carrier), world.groups["carrier"].pick),
            ((kind == 1) & (more >= carrier) & (more < offices), world.groups["offices"].pick),
            ((kind == 1) & (more >= offices), world.actors.newcomers.sharing),
            (kind == 2, world.groups["prospects"].pick),
        ):
            found[here] = pick(random, regions, int(here.sum()))
        for index in np.flatnonzero(kind == 3).tolist():
            before = cell - 1 - min(int(random.exponential(TWICE_CELLS)), TWICE_CELLS_MAX)
            found[index] = self._homes(before, world.people.regions(before), np.zeros(1, np.int64))[0]
        return found

    def _homes(self, cell: int, regions: F64, places: I64) -> I64:
        """Whose home is the first, second … of a cell, if it is anybody's: the same for whoever asks later."""
        return self._world.actors.newcomers.homes(mixed(self._world.seed, self._source + 502, cell, places), regions)

    def _share_used(self, cell: int) -> float:
        """Of the accounts of this day so many are ever used."""
        return USED_SHARE + USED_SPREAD * self._of_day(cell, 501)

    def _of_day(self, cell: int, source: int) -> float:
        """How much a day differs from others, in standard deviations."""
        chance = generator(self._world.seed, self._source + source, cell // (24 * 3600 // CELL_S))
        return float(np.clip(chance.standard_normal(), -2.3, 2.3))

    def _register(self, planned: _Planned, random: np.random.Generator) -> list[Events]:
        """The visits and registrations of a cell."""
        actor, again = planned.actor, planned.again_ms > 0
        if not len(actor):
            return []
        refused = registrations(actor[again], planned.number[again], planned.form_ms[again], random)
        refuse(refused, random)
        # Whoever was refused tries again after a while; until then there is no account.
        made = registrations(actor, planned.number, planned.form_ms + planned.again_ms, random)
        page = np.full(len(actor), SHAPE_OF["pricing"])
        return [pages(actor, page, planned.visit_ms, random), refused, made]

    def _use(self, planned: _Planned, share: float, random: np.random.Generator) -> None:
        who = np.flatnonzero(random.random(len(planned.actor)) < share)
        sessions = random.integers(1, 5, len(who))
        calls = random.geometric(0.25, int(sessions.sum()))
        session = np.repeat(np.arange(len(calls)), calls)
        owner = np.repeat(who, sessions)[session]
        lag_s = np.minimum(random.lognormal(6.2, 1.3, len(calls)), LAG_S_MAX)
        within_s = np.minimum(random.exponential(40, len(session)), 300)
        made_ms = planned.form_ms[owner] + planned.again_ms[owner] + REGISTRATION_MS_MAX
        start_ms = made_ms + 1 + ((lag_s[session] + within_s) * 1000).astype(np.int64)
        cells = start_ms // (CELL_S * 1000)
        for cell in np.unique(cells).tolist():
            here = cells == cell
            self._later[cell].append((planned.actor[owner[here]], planned.number[owner[here]], start_ms[here]))
