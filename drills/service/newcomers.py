"""Who was never here before: homes, and people in networks that many share, made from a number when somebody asks for them.

Hardly anybody signs up twice. Of a service with ten thousand new accounts a day every home that could ever come would have to
be in the table of actors, so none is: a newcomer's number says the region and which of its homes (or which of its shared
networks, and who there), and everything else about it follows from the number and the seed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from drills.columns import F64, I64, between, chosen, mixed
from drills.service import addresses
from drills.service.season import REGIONS
from drills.service.words import AGENT_OF, BROWSERS

U64 = npt.NDArray[np.uint64]

FIRST = 1 << 30
"""Actors from this number on are newcomers; below are rows of the table."""
SHARED_NETWORKS = 3000
"""Of a region: carriers' gateways, universities, firms, as busy as Zipf has it. The busiest has one in nine of those who come
from any."""
_REGION, _SHARED = 28, 27
"""Bits of a number: what is above is the region, and whether the network is shared."""
_PEOPLE = 15
"""Bits of a person in a shared network"""
_IPV6_SHARE = 4
"""One home in so many"""


class Newcomers:
    """Those of one world."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._places = [_places(addresses.COUNTRIES_OF_REGION[name]) for name in REGIONS]
        """Of each region the /16s and the parts of 2001:db8::/32 that are in its countries"""
        self._networks: F64 = np.cumsum(1 / np.arange(1, SHARED_NETWORKS + 1))
        self._agents: F64 = np.cumsum(1 / np.arange(1, len(BROWSERS) + 1))
        self._agent_of = np.array([AGENT_OF[agent] for agent in BROWSERS])

    def homes(self, words: U64, regions: F64) -> I64:
        """An actor at home for each of these words (u64[n], as `drills.columns.mixed` makes them): a region as busy as it is,
        then any of its homes."""
        edges = np.cumsum(regions)
        place = (words >> np.uint64(32)).astype(np.float64) / float(1 << 32)
        region = np.minimum(np.searchsorted(edges, place * edges[-1], "right"), len(edges) - 1)
        found: I64 = FIRST + (region << _REGION) + (words & np.uint64((1 << _SHARED) - 1)).astype(np.int64)
        return found

    def sharing(self, random: np.random.Generator, regions: F64, count: int) -> I64:
        """The same in networks that many share."""
        network, who = between(random, self._networks, count), random.integers(0, 1 << _PEOPLE, count)
        return FIRST + (chosen(random, regions.tolist(), count) << _REGION) + (1 << _SHARED) + (network << _PEOPLE) + who

    def addresses_of(self, numbers: I64) -> I64:
        """Where they are (`drills.service.addresses`)."""
        found = np.zeros(len(numbers), np.int64)
        region, shared = (numbers - FIRST) >> _REGION, (numbers >> _SHARED & 1) > 0
        # What makes the network is the same for all of a shared one, what makes the host is each one's own.
        network = mixed(self._seed, 9510, np.where(shared, numbers >> _PEOPLE, numbers))
        host = (mixed(self._seed, 9511, numbers) % np.uint64(254)).astype(np.int64) + 1
        six = ~shared & (network % np.uint64(_IPV6_SHARE) == 0)
        which = (network >> np.uint64(8) & np.uint64(0xFFFFFF)).astype(np.int64)
        low = (network >> np.uint64(48)).astype(np.int64)
        for index, (four_places, six_places) in enumerate(self._places):
            four_here, six_here = (region == index) & ~six, (region == index) & six
            of_network = four_places[which[four_here] % len(four_places)] << 16
            found[four_here] = of_network | (low[four_here] & 0xFF00) | host[four_here]
            found[six_here] = (1 << 32) | six_places[which[six_here] % len(six_places)] << 16 | low[six_here]
        return found

    def agents_of(self, numbers: I64) -> I64:
        """Their browsers, as indices into `drills.service.words.AGENTS`."""
        place = (mixed(self._seed, 9512, numbers) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
        at = np.searchsorted(self._agents, place * self._agents[-1], "right")
        found: I64 = self._agent_of[np.minimum(at, len(self._agents) - 1)]
        return found


def _places(countries: tuple[str, ...]) -> tuple[I64, I64]:
    """(i64[n] of IPv4, i64[m] of IPv6): the upper 16 bits of networks in these countries."""
    four = np.arange(addresses.RESERVED_FIRST >> 16, (addresses.RESERVED_LAST >> 16) + 1)
    four = four[four != addresses.CARPET >> 16]
    return four[addresses.is_in(four, countries)], np.flatnonzero(addresses.is_in(np.arange(1 << 16), countries))
