"""Lists that an operator refreshes: addresses and prefixes, or words of user agents, one a line.

A file is read once however many judges ask for it. IPv4 lies beside IPv6 as two runs of sorted ranges that do not touch, so
that a list of a million prefixes is 32 MB and is asked in twenty steps (`detectors.kernels.listed.holds_address_kernel`).
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import ipaddress
import os
import socket
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

U64Array = npt.NDArray[np.uint64]
FILE_BYTES_MAX = 256 << 20
"""Of a list, unpacked: eight million lines of the longest addresses."""
WORD_BYTES_MIN, WORD_BYTES_MAX = 3, 64
_MAPPED = 0xFFFF
"""The upper 96 bits of an IPv6 address that stands for one of IPv4."""


@dataclass(frozen=True, slots=True, eq=False)
class Addresses:
    """A list of addresses, as ranges."""

    low: tuple[U64Array, U64Array]
    """Of IPv4 addresses, and of the upper halves of IPv6 addresses: those are counted by their /64."""
    high: tuple[U64Array, U64Array]
    """The last of each range."""
    digest: str
    """Of the ranges, so that a replay under another list is told."""

    def __len__(self) -> int:
        return len(self.low[0]) + len(self.low[1])


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """Several lists for the kernels."""

    start: npt.NDArray[np.int64]
    """i64[2 * lists + 1]: list n has IPv4 ranges from ``start[2 * n]`` on, and those of IPv6 from ``start[2 * n + 1]`` on."""
    low: U64Array
    high: U64Array


def read_addresses(path: str) -> Addresses:
    """A file of addresses and prefixes.

    Raises:
        ConfigError: it cannot be read, or a line is neither; with its number and what stands there.
    """
    return _addresses(path, *_stamp(path))


def read_words(path: str) -> tuple[str, ...]:
    """A file of words that user agents hold.

    Raises:
        ConfigError: it cannot be read, or a word is too short or too long.
    """
    return _words(path, *_stamp(path))


def read_names(path: str) -> frozenset[bytes]:
    """A file of names (mail domains, numbers of autonomous systems), one a line; what stands behind a comma is not read.

    Raises:
        ConfigError: it cannot be read.
    """
    return _names(path, *_stamp(path))


@functools.lru_cache(maxsize=64)
def _names(path: str, changed_ns: int, size: int) -> frozenset[bytes]:
    lines = (line.partition(b",")[0].strip().lower() for _, line in _lines(path))
    return frozenset(line for line in lines if line)


def holds(addresses: Addresses, words: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool[n]: which addresses are on a list; each as one word, as rows of a sample have it (`detectors.surplus`)."""
    found = np.zeros(len(words), np.bool_)
    four = (words >= 0) & (words < 1 << 48)
    for family, chosen in ((0, four), (1, ~four)):
        low, high = addresses.low[family], addresses.high[family]
        if not len(low):
            continue
        asked = words[chosen].astype(np.uint64)
        asked = asked & np.uint64(0xFFFFFFFF) if family == 0 else asked
        at = np.searchsorted(low, asked, "right")
        found[chosen] = (at > 0) & (asked <= high[np.maximum(at - 1, 0)])
    return found


def digest_of(words: Sequence[str]) -> str:
    """Of words, whatever their order."""
    return hashlib.blake2b("\n".join(sorted(set(words))).encode(), digest_size=8).hexdigest()


@functools.lru_cache(maxsize=8)
def lay_out_lists(lists: tuple[Addresses, ...]) -> Ranges:
    """One after the other. Judges of one process share what comes of the same lists."""
    parts = [(held.low[family], held.high[family]) for held in lists for family in (0, 1)]
    start = np.cumsum([0, *(len(low) for low, _ in parts)]).astype(np.int64)
    nothing = np.zeros(1, np.uint64)  # kernels are given at least one element
    return Ranges(
        start, np.concatenate([*(low for low, _ in parts), nothing]), np.concatenate([*(high for _, high in parts), nothing])
    )  # fmt: skip


def _stamp(path: str) -> tuple[int, int]:
    """What a file is known by as long as nobody writes to it."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise ConfigError(f"expected a readable list at {path}, got: {error.strerror or error}") from None
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=64)
def _words(path: str, changed_ns: int, size: int) -> tuple[str, ...]:
    found = []
    for number, line in _lines(path):
        if not WORD_BYTES_MIN <= len(line) <= WORD_BYTES_MAX:
            raise ConfigError(
                f"expected a word of {WORD_BYTES_MIN} to {WORD_BYTES_MAX} bytes in line {number} of {path}, got {_shown(line)}"
            )
        found.append(line.decode("utf-8", "replace"))
    return tuple(found)


@functools.lru_cache(maxsize=64)
def _addresses(path: str, changed_ns: int, size: int) -> Addresses:
    low, high = (array("Q"), array("Q")), (array("Q"), array("Q"))
    for number, line in _lines(path):
        try:
            family, first, last = parse_range(line.decode("ascii"))
        except ValueError as error:
            raise ConfigError(
                f"expected an address or a prefix in line {number} of {path}, got {_shown(line)}: {error!s:.120}"
            ) from None
        low[family].append(first)
        high[family].append(last)
    merged = [_merged(*(np.frombuffer(side[family], np.uint64) for side in (low, high))) for family in (0, 1)]
    digest = hashlib.blake2b(digest_size=8)
    for side in (bound for pair in merged for bound in pair):
        digest.update(len(side).to_bytes(8, "little") + side.tobytes())
    return Addresses((merged[0][0], merged[1][0]), (merged[0][1], merged[1][1]), digest.hexdigest())


def parse_range(text: str) -> tuple[int, int, int]:
    """(0 for IPv4 or 1 for IPv6, first, last) of an address or prefix; IPv6 by the upper half of the address.

    A million lines are read at start, so that `ipaddress`, which takes ten times as long, is asked only for what is wrong.

    Raises:
        ValueError: it is neither, or bits are set behind the prefix.

    >>> parse_range("192.0.2.0/24")
    (0, 3221225984, 3221226239)
    >>> parse_range("2001:db8::/48") == (1, 0x20010DB8_00000000, 0x20010DB8_0000FFFF)
    True
    """
    address, slash, length = text.partition("/")
    is_ipv6 = ":" in address
    width = 128 if is_ipv6 else 32
    try:
        value = int.from_bytes(socket.inet_pton(socket.AF_INET6 if is_ipv6 else socket.AF_INET, address), "big")
    except (OSError, ValueError):
        ipaddress.ip_network(text)
        raise ValueError("it has a zone, which no source address has") from None
    bits = width
    if slash:
        if not (length.isascii() and length.isdigit()) or int(length) > width:
            raise ValueError(f"its prefix is not a length from 0 to {width}")
        bits = int(length)
    behind = (1 << (width - bits)) - 1
    if value & behind:
        raise ValueError("it has bits set behind its prefix")
    if not is_ipv6:
        return 0, value, value | behind
    if value >> 32 == _MAPPED and bits >= 96:
        return 0, value & 0xFFFFFFFF, (value | behind) & 0xFFFFFFFF
    return 1, value >> 64, (value | behind) >> 64


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """(number, what it says) of each line that says something; comments begin with ``#`` or ``;``."""
    for number, line in enumerate(io.BytesIO(_content(path)), start=1):
        if b"#" in line or b";" in line:
            line = line.partition(b"#")[0].partition(b";")[0]
        line = line.strip()
        if line:
            yield number, line


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else Path(path).open("rb") as content:
            data: bytes = content.read(FILE_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"expected a readable list at {path}, got: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"expected a list of at most {FILE_BYTES_MAX:,} bytes at {path}, got more")
    return data


def _shown(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))


def _merged(low: U64Array, high: U64Array) -> tuple[U64Array, U64Array]:
    """Ranges that neither overlap nor touch, in order, with the same members."""
    if not len(low):
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    order = np.argsort(low, kind="stable")
    low, reach = low[order], np.maximum.accumulate(high[order])
    begins = np.concatenate([[True], (low[1:] > reach[:-1]) & (low[1:] - np.uint64(1) > reach[:-1])])
    first = np.flatnonzero(begins)
    return low[first].copy(), reach[np.concatenate([first[1:] - 1, [len(low) - 1]])].copy()
