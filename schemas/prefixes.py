"""Address prefixes as ranges, for allowlists: checked where a mitigation is issued, and again at every edge."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right


class Prefixes:
    """A set of address prefixes that answers whether a range touches one of them, in logarithmic time."""

    def __init__(self, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        spans = sorted(self._span(network) for network in networks)
        merged: list[tuple[int, int]] = []
        for low, high in spans:
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], high))
            else:
                merged.append((low, high))
        self._low = [low for low, _ in merged]
        self._high = [high for _, high in merged]

    @staticmethod
    def _span(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int]:
        first, last = int(network.network_address), int(network.broadcast_address)
        if network.version == 4:
            return (0xFFFF << 32) + first, (0xFFFF << 32) + last
        return first, last

    def touches(self, low: int, high: int) -> bool:
        """Does any prefix have an address in common with ``low..high``?"""
        at = bisect_right(self._low, high) - 1
        return at >= 0 and self._high[at] >= low
