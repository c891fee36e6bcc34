"""Which events of a batch are about a mitigation's target: the same question that observe answers when it groups them."""

from __future__ import annotations

import ipaddress
import re

import numpy as np
import numpy.typing as npt
import orjson

from detectors.kernels.folding import ROUTE_ROOM, fold_routes_kernel
from schemas.columns import I64, U64, Columns
from schemas.errors import SourceError
from schemas.fields import Flag, Number, Text
from schemas.mitigation import Target
from schemas.tally import NAME_BYTES_MAX

Mask = npt.NDArray[np.bool_]
TEXT_OF = {
    "service": Text.HOST, "api_key": Text.API_KEY, "account": Text.ACCOUNT, "country": Text.COUNTRY,
    "user_agent": Text.USER_AGENT, "fingerprint": Text.FINGERPRINT, "email_domain": Text.EMAIL_DOMAIN,
}  # fmt: skip
_PROVEN = ("api_key", "account", "email_domain")
"""A request that failed authentication says nothing about the one that it names."""
_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")


class Matcher:
    """Finds the events of one target.

    Args:
        target: whom.
        service: what events without a host belong to.

    Raises:
        SourceError: events do not say this about themselves.
    """

    def __init__(self, target: Target, service: str) -> None:
        self._service = service
        if target.type == "signature":
            try:
                wanted = orjson.loads(target.value)
            except orjson.JSONDecodeError:
                wanted = None
            if not isinstance(wanted, dict):
                raise SourceError(f"expected a signature as JSON, got {target.value!r:.80}")
            self._whole = True
            self._wanted = [(str(kind), str(value)) for kind, value in wanted.items()]
        else:
            self._whole = False
            self._wanted = [(target.type, target.value)]
        known = {"ip", "net", "asn", "route", *TEXT_OF}
        for kind, _ in self._wanted:
            if kind not in known:
                raise SourceError(f"expected a target that events name ({', '.join(sorted(known))}), got {kind!r:.40}")
        # A route is dearest to compare: last, when few are left.
        self._wanted.sort(key=lambda pair: pair[0] == "route")

    def rows(self, columns: Columns, among: I64) -> I64:
        """Which of the events ``among`` (i64[n], rows of the batch) are of the target."""
        found: I64 = among[columns.are_requests(among)]
        for kind, value in self._wanted:
            if len(found):
                found = found[self._matches(columns, found, kind, value)]
        return found

    def _matches(self, columns: Columns, rows: I64, kind: str, value: str) -> Mask:
        found: Mask
        flags: I64 = columns.numbers[Number.FLAGS, rows]
        if kind in ("ip", "net"):
            found = _within(columns.ip_high[rows], columns.ip_low[rows], value)
            found &= flags & Flag.HAS_IP != 0
            return found
        if kind == "asn":
            found = columns.numbers[Number.ASN, rows] == (int(value) if value.isdecimal() else -2)
            return found
        wanted = name_bytes(value)
        if kind == "route":
            out, lengths = routes_of(columns, rows)
            return _equal(out, np.arange(len(rows), dtype=np.int64) * ROUTE_ROOM, lengths, wanted, whole=self._whole)
        column = TEXT_OF[kind]
        lengths = columns.text_length[column, rows].astype(np.int64)
        starts = columns.text_start[column, rows].astype(np.int64)
        found = _equal(columns.buffer, starts, lengths, wanted, whole=self._whole)
        if kind == "service" and wanted == self._service.encode():
            found |= lengths == 0
        if kind in _PROVEN and not self._whole:
            found &= flags & Flag.AUTH_FAILED == 0
        return found


def name_bytes(value: str) -> bytes:
    """The bytes of a name as traffic has them; a target's value writes what is no UTF-8 as ``\\xff``."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), value.encode("utf-8", "backslashreplace"))


def routes_of(columns: Columns, rows: I64) -> tuple[npt.NDArray[np.uint8], I64]:
    """(u8[n * ROUTE_ROOM], lengths i64[n]): the routes of some events."""
    out = np.zeros(max(len(rows), 1) * ROUTE_ROOM, np.uint8)
    lengths = np.zeros(len(rows), np.int64)
    fold_routes_kernel(rows, columns.text_start, columns.text_length, columns.buffer, out, lengths)
    return out, lengths


def _within(high: U64, low: U64, value: str) -> Mask:
    """Addresses (IPv4 mapped into IPv6) within an address or prefix."""
    found: Mask = np.zeros(len(high), np.bool_)
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        return found
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 4:
        first, last = (0xFFFF << 32) + first, (0xFFFF << 32) + last
    half = (1 << 64) - 1
    found = (high >= np.uint64(first >> 64)) & (high <= np.uint64(last >> 64))
    if first >> 64 == last >> 64:
        found = found & (low >= np.uint64(first & half)) & (low <= np.uint64(last & half))
    return found


def _equal(buffer: npt.NDArray[np.uint8], starts: I64, lengths: I64, wanted: bytes, *, whole: bool) -> Mask:
    """Texts that are ``wanted``; as the name of a row only their beginning is kept."""
    if not wanted:
        return np.zeros(len(starts), np.bool_)
    if not whole:
        lengths = np.minimum(lengths, NAME_BYTES_MAX)
        wanted = wanted[:NAME_BYTES_MAX]
    found: Mask = lengths == len(wanted)
    some = np.flatnonzero(found)
    if len(some):
        at = starts[some, None] + np.arange(len(wanted))
        found[some] = (buffer[at] == np.frombuffer(wanted, np.uint8)).all(axis=1)
    return found
