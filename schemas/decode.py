"""Bytes to columns: log lines and JSON in every form docs/formats.md names, decoded by compiled kernels.

A record is a line or a message. It yields all of its events, or it is poison, with a reason and the place where reading
stopped, and yields none. There is no second parser behind the kernels: what they refuse is refused. So what a record means
never depends on which of two parsers saw it, and a flood of bad records costs no more than one of good ones.
"""

from __future__ import annotations

import numpy as np

from schemas.columns import COUNTRY_CODES, I64, U8, Columns
from schemas.config import Input
from schemas.decoding.layout import (
    ADDRESS_SOURCE,
    ADDRESS_SOURCES,
    AHEAD_MS,
    CELL_HIGH,
    CELL_LOW,
    CELLS,
    CLF_A,
    DIRTY,
    EDGES_AT,
    EDGES_SIZE,
    EMPTY,
    FORMAT,
    FORMAT_AUTO,
    FORMAT_COMBINED,
    FORMAT_JSON,
    ISO_TEXT_MS,
    NAMES_AT,
    NODES_AT,
    POISONED,
    POSITION,
    PROXY_DEPTH,
    RECORD_BYTES_MAX,
    RECORD_EVENTS_MAX,
    RECORDS,
    ROWS,
    SEED_0,
    SEED_1,
    SEEN,
    SEEN_WORDS,
    TIME_REPLACED,
)
from schemas.decoding.machine import SLACK
from schemas.decoding.paths import build_trie, meanings
from schemas.decoding.records import RECORD_ARENA_BYTES, decode_kernel
from schemas.fields import MISSING, NUMBERS, TEXTS, Number, Text
from schemas.hosts import Hosts

FIELD_NAMES: tuple[str, ...] = tuple(column.name.lower() for column in (*Number, *Text))
"""The columns as `Decoder.field_seen` counts them."""
ADDRESS_SOURCE_NAMES: tuple[str, ...] = (
    "none", "connection", "x_forwarded_for", "x_real_ip", "cf_connecting_ip", "resolved",
)  # fmt: skip
"""Where addresses came from, as `Decoder.address_source` counts them."""
POISON_MAX = 20_000
"""A call ends after so many poison records: their list is bounded however bad the input is."""
_FORMATS = {"auto": FORMAT_AUTO, "combined": FORMAT_COMBINED, "json": FORMAT_JSON}
_NOTHING = np.zeros(0, np.int64)


class Decoder:
    """Turns bytes into columns, call by call. It holds no events: the same bytes give the same rows wherever they are cut.

    Costs per event, on the machine of docs/benchmarks.md: see there. Memory: about 4 MB at 20,000 events a call.

    Args:
        config: formats, proxies and field paths.
        key_seed: two 64-bit words that key the fingerprints of API keys that come in the clear.
        ahead_ms: an event time further after its record's bound is replaced by the bound.
        events_max: the most events one call is asked for.

    Raises:
        ConfigError: ``config.fields`` names a path or field that cannot be.
    """

    def __init__(self, config: Input, *, key_seed: tuple[int, int], ahead_ms: int, events_max: int = 20_000) -> None:
        self.capacity = max(events_max, RECORD_EVENTS_MAX)
        self._cells: I64 = np.full((CELLS, self.capacity), MISSING, np.int64)
        self._spans = np.zeros((2 * TEXTS, self.capacity), np.int32)
        self.columns = Columns(
            capacity=self.capacity,
            n=0,
            numbers=self._cells[:NUMBERS],
            ip_high=self._cells[CELL_HIGH].view(np.uint64),
            ip_low=self._cells[CELL_LOW].view(np.uint64),
            text_start=self._spans[:TEXTS],
            text_length=self._spans[TEXTS:],
            buffer=np.zeros(0, np.uint8),
        )
        self.records = 0
        self.empty = 0
        self.poison = 0
        self.poison_start: I64 = np.zeros(POISON_MAX, np.int64)
        self.poison_length: I64 = np.zeros(POISON_MAX, np.int64)
        self.poison_reason: U8 = np.zeros(POISON_MAX, np.uint8)
        self.poison_at: I64 = np.zeros(POISON_MAX, np.int64)
        self.time_replaced = 0
        trie = build_trie(meanings(config.fields))
        state = np.concatenate([np.zeros(NODES_AT, np.int64), trie.nodes.ravel(), trie.edges.ravel()])
        state[EDGES_AT], state[EDGES_SIZE] = NODES_AT + trie.nodes.size, len(trie.edges)
        self._texts: U8 = np.concatenate([np.zeros(NAMES_AT, np.uint8), trie.names])
        state[CLF_A : ISO_TEXT_MS + 1] = -1
        state[PROXY_DEPTH] = config.proxy_depth
        state[AHEAD_MS] = ahead_ms
        state[RECORD_BYTES_MAX] = config.record_bytes_max
        state[FORMAT] = _FORMATS[config.format]
        seeds = np.array([word & (2**64 - 1) for word in key_seed], np.uint64).view(np.int64)
        state[SEED_0], state[SEED_1] = seeds[0], seeds[1]
        self._state: I64 = state
        self.address_source: I64 = state[ADDRESS_SOURCE : ADDRESS_SOURCE + ADDRESS_SOURCES]
        self.field_seen: I64 = state[SEEN : SEEN + SEEN_WORDS]
        self._own_buffer: U8 = np.zeros(0, np.uint8)
        codes = len(COUNTRY_CODES) if config.geo else 0
        self._hosts = Hosts(config.services) if config.services else None
        self._hosts_at = codes
        names = 0 if self._hosts is None else len(self._hosts.names)
        self._spare_bytes = codes + names + SLACK if codes or names else 0

    def decode_lines(self, chunk: U8, length: int, at: int, *, bound_ms: int, events_max: int) -> int:
        """Decode whole lines of ``chunk[at:length]`` until ``events_max`` events; returns the next position.

        At least one record is consumed, if there is one. The last line may lack its newline. ``chunk`` (u8[]) should hold
        2 * length + 4096 bytes: text that had to be rewritten goes behind ``length``. A smaller one is copied first.
        ``bound_ms`` is the time that no event may be ahead of (0: none).
        """
        if not 0 <= at <= length <= len(chunk):
            raise ValueError(f"expected 0 <= at <= length <= {len(chunk)}, got at={at}, length={length}")
        buffer = self._with_room(chunk, length)
        return self._decode(True, buffer, at, length, _NOTHING, _NOTHING, _NOTHING, bound_ms, events_max)

    def decode_records(self, buffer: U8, starts: I64, ends: I64, record_times_ms: I64, first: int, *, events_max: int) -> int:
        """Decode messages ``buffer[starts[i]:ends[i]]`` from i = ``first`` on; returns the index of the next one.

        A message may hold several lines or a JSON array; all their events carry its index within the call. The room behind
        the last message is used as in `decode_lines`.
        """
        count = len(starts)
        if not (0 <= first <= count == len(ends) == len(record_times_ms)):
            raise ValueError(f"expected first <= {count} and arrays of one length, got first={first}")
        if count == 0:
            length = 0
        else:
            length = int(ends.max())
            if int(starts.min()) < 0 or length > len(buffer) or bool((ends < starts).any()):
                raise ValueError(f"expected spans within {len(buffer)} bytes")
        return self._decode(False, self._with_room(buffer, length), first, length, starts, ends, record_times_ms, 0, events_max)

    def _with_room(self, chunk: U8, length: int) -> U8:
        need = 2 * length + RECORD_ARENA_BYTES + self._spare_bytes
        if len(chunk) >= need + SLACK or (len(chunk) >= need and length > SLACK):
            return chunk
        if len(self._own_buffer) < need + SLACK:
            self._own_buffer = np.zeros(need + SLACK, np.uint8)
        self._own_buffer[:length] = chunk[:length]
        return self._own_buffer

    def _decode(
        self, lines: bool, buffer: U8, at: int, length: int, starts: I64, ends: I64, times_ms: I64, bound_ms: int,
        events_max: int,
    ) -> int:  # fmt: skip
        if not 0 < events_max <= self.capacity:
            raise ValueError(f"expected 0 < events_max <= {self.capacity}, got {events_max}")
        self._clear()
        columns, state = self.columns, self._state
        columns.spare = len(buffer) - self._spare_bytes
        decode_kernel(
            lines, buffer[: columns.spare], at, length, starts, ends, times_ms, bound_ms, events_max,
            state, self._texts, self._cells, self._spans,
            self.poison_start, self.poison_length, self.poison_reason, self.poison_at,
        )  # fmt: skip
        columns.n = int(state[ROWS])
        columns.buffer = buffer
        columns.present = int(state[DIRTY])
        self.records = int(state[RECORDS])
        self.empty = int(state[EMPTY])
        self.poison = int(state[POISONED])
        self.time_replaced = int(state[TIME_REPLACED])
        if self._hosts is not None:
            self._hosts.fill(buffer, columns.spare + self._hosts_at, columns.text_start, columns.text_length, columns.n)
        return int(state[POSITION])

    def _clear(self) -> None:
        """Empty the columns that the last call wrote, and `engine.geo` since: kernels write only the cells that are there."""
        columns, dirty = self.columns, self.columns.present
        for column in range(NUMBERS):
            if dirty >> column & 1:
                columns.numbers[column, : columns.n] = MISSING
        for column in range(TEXTS):
            if dirty >> (NUMBERS + column) & 1:
                columns.text_length[column, : columns.n] = 0
        self._state[DIRTY] = 0
        columns.n = 0
