"""Is an address on a list, in plain Python: every line is asked, one after the other."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence


def says(line: str) -> str:
    """Without its comment."""
    return re.split("[#;]", line, maxsplit=1)[0].strip()


def holds(lines: Sequence[str], address: str) -> bool:
    """IPv6 is counted by /64: an address is on a list if any of its /64 is."""
    asked = ipaddress.ip_address(address)
    for line in filter(None, map(says, lines)):
        network = ipaddress.ip_network(line)
        if isinstance(asked, ipaddress.IPv4Address) != isinstance(network, ipaddress.IPv4Network):
            continue
        whole = asked if asked.version == 4 else ipaddress.ip_network(f"{address}/64", strict=False)
        if ipaddress.ip_network(whole).overlaps(network):  # type: ignore[arg-type]
            return True
    return False


def is_refused(line: str) -> bool:
    """Does a line say something that is no address and no prefix?"""
    try:
        if says(line):
            ipaddress.ip_network(says(line))
    except ValueError:
        return True
    return False
