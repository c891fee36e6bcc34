"""What the nft edge says to ``nft -f -``: the table and the batches that change it, as text. Runs nothing.

A plain hash set per action, kind and prefix length; a prefix is looked up with a mask. Sets of intervals would cost 61 ms
for each update with 20,000 present, these 3 ms.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from edge.reader import ALLOW, Change, Standing
from edge.subject import Subject, parse_prefix
from schemas.errors import UsageError

ACTIONS = (ALLOW, "block", "throttle")
"""In the order of their rules in the chain."""
LENGTHS = {"ip4": (32, 24), "ip6": (128, 64, 48)}
"""Prefix lengths that have a set. Detectors act on IPv4 /32 and /24, IPv6 /64 and /48; operators also on one IPv6 address."""
SIGNATURE_LENGTHS = {"ip4": (24, 16), "ip6": (48, 32)}
"""Prefix lengths that a signature names. They have sets of their own: the same prefix may be mitigated for itself."""
SET_SIZE_MAX = 1_100_000
"""Elements of each set: more than the reader holds keys, so that a full set is never met."""
TIMEOUT_MS_MAX = 8 * 86_400_000
"""The longest time to live that a configuration allows is seven days; what is longer is cut, and lasts to the next renewal."""
TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
NO_TABLE = re.compile(r"No such file or directory")
_FAMILY = {"ip4": "ip", "ip6": "ip6"}
_TYPE = {"ip4": "ipv4_addr", "ip6": "ipv6_addr"}
_VERDICT = {ALLOW: "accept", "block": "counter name blocked drop", "throttle": "counter name throttled drop"}

_SETS = {
    (action, kind, length): f"{action}_{kind}_{length}" for action in ACTIONS for kind in LENGTHS for length in LENGTHS[kind]
}
_SIGNATURE_SETS = {
    (action, kind, length): f"{action}_signature_{kind}_{length}"
    for action in ACTIONS
    for kind in SIGNATURE_LENGTHS
    for length in SIGNATURE_LENGTHS[kind]
}
Element = tuple[str, str]
"""(set, address)"""


@dataclass(frozen=True, slots=True)
class Throttle:
    """How many packets in a second a throttled address or prefix may send, and how many at once."""

    packets_per_second: int = 20
    burst_packets: int = 40


def check_table_name(name: str) -> str:
    """The name, if nft takes it without quotes.

    Raises:
        UsageError: it does not.
    """
    if TABLE_NAME.fullmatch(name) is None:
        raise UsageError(f"expected a table name of letters, digits and _ (at most 32), got {name[:64]!r}")
    return name


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One that a packet filter can express: a network, on a service. Any other attribute is one that no packet shows."""

    net: str
    service: str


def supports(subject: Subject, action: str, service: str | None = None) -> bool:
    """Whether this edge can do an action to a subject.

    Args:
        service: the only one that this host serves. Then a signature of it that names a network and nothing else is that
            network; without it others would pay too.
    """
    if action not in ACTIONS:
        return False
    if subject.kind == "signature":
        found = _signature(subject)
        return found is not None and service is not None and found[1] == service
    return subject.length in LENGTHS.get(subject.kind, ())


def element_of(subject: Subject, action: str) -> Element:
    """Where in the table a subject that is supported stands for an action."""
    if subject.kind == "signature":
        found = _signature(subject)
        assert found is not None
        return _SIGNATURE_SETS[action, found[0].kind, found[0].length], found[0].value
    return _SETS[action, subject.kind, subject.length], subject.value


def _signature(subject: Subject) -> tuple[Subject, str] | None:
    """The network and the service of a signature; None: it names more or less."""
    try:
        found = msgspec.json.decode(subject.value, type=_Signature)
        prefix = parse_prefix(found.net)
    except (msgspec.MsgspecError, ValueError):
        return None
    return (prefix, found.service) if prefix.length in SIGNATURE_LENGTHS[prefix.kind] else None


def table_text(
    table: str, core: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network], throttle: Throttle, *, signatures: bool = False
) -> str:
    """The table without mitigations: sets, counters and the one chain.

    The chain sees packets as they come in, before connections are tracked, whether they are for this host or for one
    behind it. Accepting there ends only this chain: other rules of the host still see the packet.

    Args:
        signatures: with sets for signatures.
    """
    networks = list(core)
    lines = [f"table inet {table} {{", "counter blocked { }", "counter throttled { }"]
    rules = ['iifname "lo" accept']
    for kind, version in (("ip4", 4), ("ip6", 6)):
        prefixes = ", ".join(sorted(str(network) for network in networks if network.version == version))
        elements = f" elements = {{ {prefixes} }};" if prefixes else ""
        lines.append(f"set core_{kind} {{ type {_TYPE[kind]}; flags interval; auto-merge;{elements} }}")
        rules.append(f"{_FAMILY[kind]} saddr @core_{kind} accept")
    limit = f" limit rate over {throttle.packets_per_second}/second burst {throttle.burst_packets} packets;"
    sets = [*_SETS.items(), *(_SIGNATURE_SETS.items() if signatures else ())]
    for (action, kind, length), name in sorted(sets, key=lambda one: ACTIONS.index(one[0][0])):
        statement = limit if action == "throttle" else ""
        lines.append(f"set {name} {{ type {_TYPE[kind]}; size {SET_SIZE_MAX}; flags timeout;{statement} }}")
        rules.append(f"{_FAMILY[kind]} saddr{_mask(kind, length)} @{name} {_VERDICT[action]}")
    lines += ["chain edge {", "type filter hook prerouting priority raw; policy accept;", *rules, "}", "}"]
    return "\n".join(lines) + "\n"


def replace_text(table: str, structure: str, standing: Mapping[Subject, Standing], now_ms: int) -> str:
    """One transaction that puts the whole table in the place of whatever was there."""
    added: defaultdict[str, list[str]] = defaultdict(list)
    for subject, one in standing.items():
        _add(added, subject, one, now_ms)
    return f"add table inet {table}\ndelete table inet {table}\n{structure}{_adds(table, added)}"


def change_text(table: str, changes: Iterable[Change], now_ms: int) -> str:
    """One transaction for many changes. What leaves is added first: deleting what its timer has removed would fail it all."""
    gone: defaultdict[str, list[str]] = defaultdict(list)
    added: defaultdict[str, list[str]] = defaultdict(list)
    for change in changes:
        if change.before is not None:
            name, address = element_of(change.subject, change.before.action)
            gone[name].append(address)
        if change.after is not None:
            _add(added, change.subject, change.after, now_ms)
    lines = []
    for name, addresses in gone.items():
        listed = ", ".join(addresses)
        lines.append(f"add element inet {table} {name} {{ {listed} }}")
        lines.append(f"delete element inet {table} {name} {{ {listed} }}")
    return "".join(line + "\n" for line in lines) + _adds(table, added)


def remove_text(table: str) -> str:
    """Removes the table, if it is there."""
    return f"add table inet {table}\ndelete table inet {table}\n"


def probe_text(table: str) -> str:
    """Checked, never applied: nft refuses it when the table, or a set of ours in it, is missing."""
    return f"add element inet {table} block_ip4_32 {{ 192.0.2.1 }}\n"


def _mask(kind: str, length: int) -> str:
    whole = ipaddress.ip_network(f"0.0.0.0/{length}" if kind == "ip4" else f"::/{length}")
    return "" if whole.prefixlen == whole.max_prefixlen else f" & {whole.netmask}"


def _add(added: defaultdict[str, list[str]], subject: Subject, standing: Standing, now_ms: int) -> None:
    name, address = element_of(subject, standing.action)
    left_ms = min(standing.expires_at_ms - now_ms, TIMEOUT_MS_MAX)
    if left_ms > 0:  # nft takes a timeout of nothing for one that never ends
        added[name].append(f"{address} timeout {left_ms}ms")


def _adds(table: str, added: Mapping[str, list[str]]) -> str:
    return "".join(f"add element inet {table} {name} {{ {', '.join(elements)} }}\n" for name, elements in added.items())
