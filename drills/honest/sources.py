"""All sources of honest traffic, each with the number that its chance is drawn by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from drills.columns import Events
from drills.honest import people, programs
from drills.honest.signups import SignUps
from drills.service.world import World

Draw = Callable[[int, np.random.Generator], Events]
SIGN_UPS = 50
# A number is never reused: it is part of the chance of whatever was drawn before.
_SOURCES: dict[int, Callable[[World, int, np.random.Generator], Events]] = {
    1: programs.customers,
    2: programs.serverless,
    3: programs.batch,
    4: programs.migrating,
    5: programs.forgotten,
    10: people.people,
    11: people.carrier,
    12: people.offices,
    13: people.crawlers,
    14: people.consoles,
    15: people.flash_crowd,
}
NAMES = {number: source.__name__ for number, source in _SOURCES.items()} | {SIGN_UPS: "sign_ups"}


def honest_sources(world: World, only: frozenset[str] = frozenset()) -> dict[int, Draw]:
    """Number -> what draws a cell; ``only`` names of `NAMES` (none: all). For one pass over the time: some remember."""

    def bound(source: Callable[[World, int, np.random.Generator], Events]) -> Draw:
        return lambda cell, random: source(world, cell, random)

    sources: dict[int, Draw] = {number: bound(source) for number, source in _SOURCES.items()}
    sources[SIGN_UPS] = SignUps(world, SIGN_UPS).draw
    return {number: draw for number, draw in sources.items() if not only or NAMES[number] in only}
