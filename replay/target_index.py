"""Which of many targets each event of a batch falls under, found without asking target by target.

Addresses are cut to the lengths of the prefixes that there are, texts are hashed, and either is looked up among the sorted
targets. Only signatures, of which there are few, are asked one by one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.kernels.folding import ROUTE_ROOM, hash_texts_kernel
from engine.in_force import Named
from replay.matching import TEXT_OF, Matcher, name_bytes, routes_of
from schemas.columns import I64, U8, U64, Columns
from schemas.errors import SourceError
from schemas.fields import Flag, Number
from schemas.mitigation import Target
from schemas.tally import NAME_BYTES_MAX

Pairs = tuple[I64, I64]
"""(rows of the batch, numbers of targets), i64[pairs] each."""
_MAPPED = 0xFFFF << 32
_HALF = (1 << 64) - 1


class TargetIndex:
    """The targets, by number.

    Args:
        targets: (type, value) of each.
        service: what an event without a host is for.
        hash_seeds: u64[HASH_SEED_WORDS], secret, so that nobody can choose texts that collide.
    """

    def __init__(self, targets: Sequence[Named], service: str, hash_seeds: U64) -> None:
        self._service, self._seeds = service.encode(), hash_seeds
        self.unknown: list[int] = []
        """Targets that no event can be seen to fall under: their type is not known here, or their value is none."""
        prefixes: dict[tuple[int, int], list[tuple[int, int]]] = {}
        texts: dict[str, list[tuple[bytes, int]]] = {}
        self._numbers: list[tuple[int, int]] = []
        self._signatures: list[tuple[int, Matcher]] = []
        for number, (kind, value) in enumerate(targets):
            if kind in ("ip", "net") and (network := _network(value)) is not None:
                address, length = network
                # What is longer than half is looked up by its lower half, among those of the same upper one.
                upper = address >> 64 if length > 64 else -1
                prefixes.setdefault((length, upper), []).append((address & _HALF if length > 64 else address >> 64, number))
            elif kind == "route" or kind in TEXT_OF:
                texts.setdefault(kind, []).append((name_bytes(value), number))
            elif kind == "asn" and value.isdecimal() and len(value) < 12:
                self._numbers.append((int(value), number))
            elif kind != "signature" or not self._add_signature(value, number):
                self.unknown.append(number)
        self._prefixes = [(length, upper, *_sorted(pairs)) for (length, upper), pairs in sorted(prefixes.items())]
        self._texts = {kind: self._hashed(pairs) for kind, pairs in texts.items()}
        self._asn = _sorted(self._numbers)

    def _add_signature(self, value: str, number: int) -> bool:
        try:
            self._signatures.append((number, Matcher(Target(type="signature", value=value), self._service.decode())))
        except SourceError:
            return False
        return True

    def _hashed(self, pairs: list[tuple[bytes, int]]) -> tuple[U64, U64, I64]:
        names = [name[:NAME_BYTES_MAX] for name, _ in pairs]
        lengths = np.array([len(name) for name in names], np.int64)
        buffer = np.frombuffer(b"".join(names) + bytes(16), np.uint8)
        first, second = self._hash(np.cumsum(lengths) - lengths, lengths, buffer)
        order = np.argsort(first, kind="stable")
        return first[order], second[order], np.array([number for _, number in pairs], np.int64)[order]

    def _hash(self, starts: I64, lengths: I64, buffer: U8) -> tuple[U64, U64]:
        first, second = np.zeros(len(starts), np.uint64), np.zeros(len(starts), np.uint64)
        hash_texts_kernel(self._seeds, starts, lengths, np.int64(NAME_BYTES_MAX), buffer, first, second)
        return first, second

    def pairs_of(self, columns: Columns) -> Pairs:
        """Every event with every target that it falls under."""
        found: list[Pairs] = []
        self._by_address(columns, found)
        for kind in self._texts:
            found.append(self._by_text(columns, kind))
        if self._numbers:
            sorted_asn, numbers = self._asn
            asn = columns.number(Number.ASN)
            rows = np.flatnonzero(asn >= 0)
            found.append(_looked_up(rows, asn[rows].astype(np.uint64), sorted_asn, numbers))
        everybody = np.arange(columns.n, dtype=np.int64) if self._signatures else np.zeros(0, np.int64)
        for number, matcher in self._signatures:
            rows = matcher.rows(columns, everybody)
            found.append((rows, np.full(len(rows), number, np.int64)))
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        rows, numbers = (np.concatenate(some) for some in zip(*found, strict=True))
        counted = columns.are_requests(rows)
        return rows[counted], numbers[counted]

    def _by_address(self, columns: Columns, found: list[Pairs]) -> None:
        if not self._prefixes:
            return
        named = np.flatnonzero(columns.number(Number.FLAGS) & Flag.HAS_IP)
        high, low = columns.ip_high[named], columns.ip_low[named]
        for length, upper, values, numbers in self._prefixes:
            if upper < 0:
                found.append(_looked_up(named, high & _mask(length), values, numbers))
            else:
                same = high == np.uint64(upper)
                found.append(_looked_up(named[same], low[same] & _mask(length - 64), values, numbers))

    def _by_text(self, columns: Columns, kind: str) -> Pairs:
        first_sorted, second_sorted, numbers = self._texts[kind]
        rows = np.arange(columns.n, dtype=np.int64)
        if kind == "route":
            buffer, lengths = routes_of(columns, rows)
            starts = rows * ROUTE_ROOM
        else:
            buffer = columns.buffer
            starts = columns.text_start[TEXT_OF[kind], : columns.n].astype(np.int64)
            lengths = columns.text_length[TEXT_OF[kind], : columns.n].astype(np.int64)
        named = np.flatnonzero(lengths)
        first, second = self._hash(starts[named], lengths[named], buffer)
        if kind == "service" and len(named) < columns.n:
            mine = np.frombuffer(self._service + bytes(16), np.uint8)
            one, two = self._hash(np.zeros(1, np.int64), np.full(1, len(self._service), np.int64), mine)
            bare = np.flatnonzero(lengths == 0)
            named = np.concatenate([named, bare])
            first = np.concatenate([first, np.repeat(one, len(bare))])
            second = np.concatenate([second, np.repeat(two, len(bare))])
        at = np.minimum(np.searchsorted(first_sorted, first), len(first_sorted) - 1)
        hit = np.flatnonzero((first_sorted[at] == first) & (second_sorted[at] == second))
        return named[hit], numbers[at[hit]]


def _network(value: str) -> tuple[int, int] | None:
    """(first address, length of the prefix), IPv4 mapped into IPv6; none: it is no address or prefix."""
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None
    if network.version == 4:
        return _MAPPED + int(network.network_address), 96 + network.prefixlen
    return int(network.network_address), network.prefixlen


def _mask(length: int) -> np.uint64:
    return np.uint64(_HALF ^ (_HALF >> length))


def _sorted(pairs: list[tuple[int, int]]) -> tuple[U64, I64]:
    ordered = sorted(pairs)
    return np.array([value for value, _ in ordered], np.uint64), np.array([number for _, number in ordered], np.int64)


def _looked_up(rows: I64, values: U64, wanted: U64, numbers: npt.NDArray[np.int64]) -> Pairs:
    """Rows whose value is wanted, by whom; two may want the same (an address and a network of one address)."""
    first, last = np.searchsorted(wanted, values, "left"), np.searchsorted(wanted, values, "right")
    many = last - first
    hit = np.flatnonzero(many)
    many = many[hit]
    offsets = np.arange(int(many.sum()), dtype=np.int64) - np.repeat(np.cumsum(many) - many, many)
    return np.repeat(rows[hit], many), numbers[np.repeat(first[hit], many) + offsets]
