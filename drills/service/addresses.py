"""From where: which addresses belong to whom, and in which country and autonomous system.

Single parties have addresses of the documentation ranges. Those hold 768 IPv4 addresses, and a drill needs hundreds of
thousands in as many networks, honest and hostile among each other, as in life. So households, offices and bots have theirs
in 240.0.0.0/4, which is reserved and routed nowhere, clouds in 198.18.0.0/15 (benchmarks), IPv6 in 2001:db8::/32.
100.64.0.0/10 is not used although carrier NAT is part of the traffic: it is the inside of such a NAT, a service sees the
outside, and the allowlist's core holds it, so nothing from there would ever be found.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from drills.columns import I64, mixed

SERVERLESS = (198 << 24) | (51 << 16) | (100 << 8)
"""198.51.100.0/24: a thousand customers' functions."""
CRAWLERS = (192 << 24) | (0 << 16) | (2 << 8)
"""192.0.2.0/28: crawlers that answer for themselves."""
BATCH = CRAWLERS + 64
"""192.0.2.64/28: customers' batch machines."""
CARRIER = CRAWLERS + 128
"""192.0.2.128/27: the outside of a carrier's NAT."""
OFFICES = CRAWLERS + 192
"""192.0.2.192/27: offices behind one address each."""
HOSTILE = (203 << 24) | (113 << 8)
"""203.0.113.0/24: attackers of few addresses."""
RESERVED_FIRST, RESERVED_LAST = 240 << 24, (255 << 24) - 1
CLOUD_FIRST = (198 << 24) | (18 << 16)
CLOUD_ADDRESSES = 1 << 17
CARPET = (250 << 24) | (77 << 16)
"""250.77.0.0/16: the network that one attack spreads over; nobody honest lives there."""

_COUNTRIES = (
    "US", "DE", "GB", "FR", "IN", "JP", "BR", "NL", "CA", "KR", "ES", "PL", "SG", "AU", "IT", "SE", "TR", "VN", "ID", "MX",
)  # fmt: skip
COUNTRIES_OF_REGION = {
    "americas": ("US", "US", "US", "CA", "BR", "MX"),
    "europe": ("DE", "GB", "FR", "NL", "ES", "PL", "IT", "SE", "TR"),
    "asia": ("IN", "JP", "KR", "SG", "AU", "VN", "ID"),
}
HOSTING_ASNS = tuple(range(4_200_000_000, 4_200_000_040))
"""Clouds and hosters, of the private range."""
_HOME_ASN, _HOME_ASNS = 64_512, 400
_COUNTRY_OF: I64 = (mixed(21, np.arange(1 << 16)) % np.uint64(len(_COUNTRIES))).astype(np.int64)


def text_of(address: int) -> str:
    """IPv4 below 2^32; above, the number of an IPv6 /64 in 2001:db8::/32 plus one bit."""
    if address < 1 << 32:
        return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"
    number = address - (1 << 32)
    return f"2001:db8:{number >> 16 & 0xFFFF:x}:{number & 0xFFFF:x}::{number % 9 + 1:x}"


def countries_of(addresses: I64) -> list[str]:
    """Always the same: by IPv4 /16 or IPv6 /48, of clouds by /20."""
    places = np.where(_in_clouds(addresses), addresses >> 12, addresses >> 16) & 0xFFFF
    return [_COUNTRIES[index] for index in _COUNTRY_OF[places].tolist()]


def asns_of(addresses: I64) -> I64:
    """Hosters' for the clouds, providers' for the rest; several /16s share one."""
    hosters = HOSTING_ASNS[0] + (mixed(22, addresses >> 12) % np.uint64(len(HOSTING_ASNS))).astype(np.int64)
    homes = _HOME_ASN + (mixed(23, addresses >> 16) % np.uint64(_HOME_ASNS)).astype(np.int64)
    return np.where(_in_clouds(addresses), hosters, homes)


def _in_clouds(addresses: I64) -> npt.NDArray[np.bool_]:
    return (addresses >= CLOUD_FIRST) & (addresses < CLOUD_FIRST + CLOUD_ADDRESSES)


def is_in(places: I64, countries: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """bool[n]: which of these IPv4 /16s or IPv6 /48s (16 bits each) are in one of the countries."""
    return np.isin(_COUNTRY_OF[places], [_COUNTRIES.index(country) for country in set(countries)])


def households(random: np.random.Generator, count: int, countries: tuple[str, ...] | None, taken: set[int]) -> list[int]:
    """``count`` new addresses in networks all over 240.0.0.0/4 (one in four IPv6), in these countries; noted in ``taken``."""
    wanted = None if countries is None else is_in(np.arange(1 << 16), countries)
    found: list[int] = []
    while len(found) < count:
        need = 8 * (count - len(found)) + 64
        addresses = random.integers(RESERVED_FIRST, RESERVED_LAST, need)
        addresses[addresses >> 16 == CARPET >> 16] += 1 << 16
        six = random.random(need) < 0.25
        addresses[six] = (1 << 32) + random.integers(0, 1 << 32, int(six.sum()))
        # The last bytes of a network are no hosts'.
        addresses = addresses[six | (((addresses & 255) > 0) & ((addresses & 255) < 255))]
        if wanted is not None:
            addresses = addresses[wanted[addresses >> 16 & 0xFFFF]]
        for address in addresses.tolist():
            if address not in taken:
                taken.add(address)
                found.append(address)
                if len(found) == count:
                    break
    return found


def clouds(random: np.random.Generator, count: int, taken: set[int], networks: int = 512) -> list[int]:
    """``count`` new addresses of hosters, within the first so many of 512 /24s drawn by chance; noted in ``taken``."""
    allowed = random.permutation(512)[: max(networks, -(-count // 200))]
    found: list[int] = []
    while len(found) < count:
        hosts: I64 = allowed[random.integers(0, len(allowed), count)] * 256 + random.integers(1, 255, count)
        for host in hosts.tolist():
            address = CLOUD_FIRST + host
            if address not in taken and len(found) < count:
                taken.add(address)
                found.append(address)
    return found
