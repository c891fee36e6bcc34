"""Country and network (autonomous system) of events that do not say them, from files in MaxMind's format.

How it works: between decoding and counting, the addresses of events without a country or without a system of their own are
looked up, each once in a batch, and the answers written into the columns, as if the event had said them. What an event says
itself wins. Of several files the first that knows a country says the country, the first that knows a system the system. An
IPv4 address that is written as IPv6 is looked up as IPv4; other IPv6 addresses by their /64, as they are counted.

Where it fails: the files say where an address is registered or was last seen; whoever roams, or sits behind a satellite, a
proxy or a carrier's gateway, is elsewhere. Another file decides otherwise: a replay needs the same. A file that is damaged
where an answer lies is noticed when it is asked for that, and ends the work, rather than counting some and not others.

Costs: nothing where no file is configured, else see docs/formats.md. A file is held in memory as it was at start.

Source: https://maxmind.github.io/MaxMind-DB/
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.columns import COUNTRY_CODES, I64, Columns
from schemas.errors import ConfigError
from schemas.fields import MISSING, NUMBERS, Flag, Number, Text

if TYPE_CHECKING:
    from maxminddb import Reader

FILE_BYTES_MAX = 1 << 30
"""The largest that are sold, with cities and more, have half of it."""
MEMO_ADDRESSES = 1 << 16
"""Answers that are remembered, about 8 MB; all are forgotten when there are more."""
_MAPPED = 0xFFFF
"""The upper half of the lower word of an address of IPv4."""
_SHORT = 1 << 48
"""Below it as one word: IPv4 (`_MAPPED` above 32 bits), and nothing that an IPv6 address in use begins with."""
_SYSTEM = 0xFFFFFFFF
_CODES = {COUNTRY_CODES[at : at + 2].decode(): at for at in range(0, len(COUNTRY_CODES) - 2, 2)}
"""Where each lies; without the last, ``ZZ``, which some files say where they know none."""
_DIRTY = 1 << int(Number.ASN) | 1 << (NUMBERS + int(Text.COUNTRY))


class Geo:
    """Fills in what files know about addresses.

    Args:
        paths: the files.

    Raises:
        ConfigError: one cannot be read, or is no such file.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._readers = [(path, _open(path)) for path in paths]
        self._speaks_ipv6 = [reader.metadata().ip_version == 6 for _, reader in self._readers]
        self._memo: dict[int, int] = {}

    def fill(self, columns: Columns) -> None:
        """Write countries and systems where there are none, in a batch that a `Decoder` has just made.

        Raises:
            ConfigError: a file is damaged where the answer lies.
        """
        count = columns.n
        system, length = columns.number(Number.ASN), columns.text_length[Text.COUNTRY, :count]
        high, low = columns.ip_high[:count], columns.ip_low[:count]
        four = (high == 0) & (low >> np.uint64(32) == _MAPPED)
        asked = (system == MISSING) | (length == 0)
        asked &= (four | (high >= _SHORT)) & (columns.number(Number.FLAGS) & int(Flag.HAS_IP) != 0)
        rows = np.flatnonzero(asked)
        if not len(rows):
            return
        words, places = np.unique(np.where(four, low, high)[rows], return_inverse=True)
        answers = np.fromiter(map(self._answer, words.tolist()), np.int64, len(words))[places]
        _write(columns, rows, answers)

    def _answer(self, word: int) -> int:
        """What the files say about an address: its system in 32 bits, above them 1 + where its country lies in the codes."""
        found = self._memo.get(word)
        if found is None:
            if len(self._memo) >= MEMO_ADDRESSES:
                self._memo.clear()
            found = self._memo[word] = self._look_up(word)
        return found

    def _look_up(self, word: int) -> int:
        import maxminddb

        is_ipv4 = word < _SHORT
        address = ipaddress.IPv4Address(word & _SYSTEM) if is_ipv4 else ipaddress.IPv6Address(word << 64)
        country = system = 0
        for (path, reader), speaks_ipv6 in zip(self._readers, self._speaks_ipv6, strict=True):
            if not (is_ipv4 or speaks_ipv6) or (country and system):
                continue
            try:
                record = reader.get(address)
            except (maxminddb.InvalidDatabaseError, ValueError, UnicodeDecodeError) as error:
                raise ConfigError(f"expected an answer about {address} in {path}, got a damaged file: {error}") from None
            if isinstance(record, dict):
                country = country or country_of(record)
                system = system or system_of(record)
        return country << 32 | system


def make_geo(paths: Sequence[str]) -> Geo | None:
    """None where no files are configured.

    Raises:
        ConfigError: one cannot be read, or is no such file.
    """
    return Geo(paths) if paths else None


def country_of(record: dict[str, Any]) -> int:
    """1 + where the code of its country lies in `COUNTRY_CODES`; 0: it has none.

    >>> at = country_of({"country": {"iso_code": "NL"}}) - 1
    >>> COUNTRY_CODES[at : at + 2]
    b'NL'
    """
    for name in ("country", "country_code", "registered_country"):
        value = record.get(name)
        code = value.get("iso_code") if isinstance(value, dict) else value
        if isinstance(code, str) and code.upper() in _CODES:
            return 1 + _CODES[code.upper()]
    return 0


def system_of(record: dict[str, Any]) -> int:
    """The number of its autonomous system; 0: it has none.

    >>> system_of({"asn": "AS64500"}), system_of({"autonomous_system_number": 64501}), system_of({"asn": ""})
    (64500, 64501, 0)
    """
    traits = record.get("traits")
    for value in (
        record.get("autonomous_system_number"), record.get("asn"),
        traits.get("autonomous_system_number") if isinstance(traits, dict) else None,
    ):  # fmt: skip
        text = str(value).upper().removeprefix("AS") if type(value) in (int, str) else ""
        if text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= _SYSTEM:
            return int(text)
    return 0


def _write(columns: Columns, rows: I64, answers: I64) -> None:
    systems, countries = answers & _SYSTEM, answers >> 32
    chosen = (systems > 0) & (columns.numbers[Number.ASN, rows] == MISSING)
    columns.numbers[Number.ASN, rows[chosen]] = systems[chosen]
    chosen = (countries > 0) & (columns.text_length[Text.COUNTRY, rows] == 0)
    columns.buffer[columns.spare : columns.spare + len(COUNTRY_CODES)] = np.frombuffer(COUNTRY_CODES, np.uint8)
    columns.text_start[Text.COUNTRY, rows[chosen]] = columns.spare + countries[chosen] - 1
    columns.text_length[Text.COUNTRY, rows[chosen]] = 2
    columns.present |= _DIRTY


def _open(path: str) -> Reader:
    import maxminddb

    content = _content(path)
    try:
        if not hasattr(os, "memfd_create"):
            return maxminddb.open_database(path)
        # A copy in memory: the file itself is mapped, and whoever writes over it in place would end the process.
        with os.fdopen(os.memfd_create("geo"), "wb") as held:
            held.write(content)
            held.flush()
            return maxminddb.open_database(f"/proc/self/fd/{held.fileno()}")
    except (maxminddb.InvalidDatabaseError, ValueError, KeyError, TypeError):
        # What the reader says of it differs from one of its halves to the other, and says no more.
        raise ConfigError(
            f"expected a file in MaxMind's format (.mmdb) at {path}, got another or a damaged one, of {len(content):,} bytes"
        ) from None


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"expected a readable file in MaxMind's format (.mmdb) at {path}, got: {error.strerror or error}"
        ) from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"expected a file of at most {FILE_BYTES_MAX:,} bytes at {path}, got more")
    return content
