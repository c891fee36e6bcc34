"""The outer loop: a chunk of lines, or a run of messages, becomes rows and counted poison.

A record (a line or a message) gives all of its events or none. What a record may write behind the chunk depends on its own
length only, so where a chunk is cut changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import entry, part
from schemas.decoding.escapes import JSON_ESCAPES
from schemas.decoding.json_fields import OWN_WORDS, S_START_TIME, S_TIME, finish_event_kernel
from schemas.decoding.json_scan import forget_kernel, scan_object_kernel, skip_blanks
from schemas.decoding.layout import (
    ADDRESS_SOURCE,
    ADDRESS_SOURCES,
    ARENA,
    ARENA_END,
    CELL_MASK,
    DIRTY,
    EMPTY,
    ENTRIES,
    ENVELOPES_MAX,
    FORMAT,
    FORMAT_COMBINED,
    FORMAT_JSON,
    POISONED,
    POSITION,
    RECORD_BYTES_MAX,
    RECORD_EVENTS_MAX,
    RECORDS,
    ROWS,
    SEEN,
    SEEN_WORDS,
    SLOT_END,
    SLOT_START,
    STOPPED_AT,
    TIME_REPLACED,
    Slot,
)
from schemas.decoding.machine import SLACK, byte_at, find_line_end, find_newline, find_zero
from schemas.decoding.rows import REPLACED_SHIFT, SOURCE_SHIFT, unescape_value_kernel
from schemas.decoding.text_line import decode_line_kernel, strip_prefix_kernel
from schemas.decoding.times import parse_time_kernel
from schemas.fields import MISSING, NUMBERS, TEXTS, Number, Poison

OK, TOO_LONG, NOT_A_RECORD = int(Poison.OK), int(Poison.TOO_LONG), int(Poison.NOT_A_RECORD)
TRUNCATED, NOT_AN_EVENT, BINARY = int(Poison.TRUNCATED), int(Poison.NOT_AN_EVENT), int(Poison.BINARY)
N_RECORD = int(Number.RECORD)
S_MESSAGE = np.int64(Slot.MESSAGE)
NO_ROOM = 100
"""No reason of poison: the record has more events than there is room for in this call."""
RECORD_ARENA_BYTES = 4096
"""Besides its own length, a record may write this much behind the chunk."""
_OPEN, _ELEMENT, _SEPARATOR = range(3)


@part
def decode_event(
    buffer: Any, at: Any, end: Any, row: Any, bound_ms: Any, state: Any,
    texts: Any, cells: Any, spans: Any,
) -> Any:  # fmt: skip
    """Decode the line or the JSON object at ``at`` into ``row``; (position after it, reason).

    A line reaches to ``end``. Envelopes are opened one after the other, the content's own words win.
    """
    given_ms = np.int64(MISSING)
    following = np.int64(-1)  # after the outermost object, once that is known
    outer = at
    envelopes = 0
    stripped = False
    while True:
        if byte_at(buffer, at) != 123:
            if not stripped:
                stripped = True
                line, moment = strip_prefix_kernel(buffer, at, end, state)
                if moment >= 0:
                    given_ms = moment
                if line > at and line < end and byte_at(buffer, line) == 123:
                    at = line
                    continue
                at = line
            reason = decode_line_kernel(buffer, at, end, row, given_ms, bound_ms, state, cells, spans)
            if envelopes > 0:
                state[STOPPED_AT] = outer
            return following if following >= 0 else end, reason
        after, reason, seen, escaped = scan_object_kernel(buffer, at, end, state, texts)
        if following < 0:
            following = after
        elif reason == OK and skip_blanks(buffer, after, end) < end:
            reason = NOT_A_RECORD
        if reason == OK:
            wrapped = (seen >> S_MESSAGE) & 1 == 1 and seen & OWN_WORDS == 0
            if not wrapped:
                keep = ~(np.int64(1) << S_MESSAGE)
                reason = finish_event_kernel(buffer, seen & keep, escaped & keep, row, given_ms, bound_ms, state, cells, spans)
            elif envelopes >= ENVELOPES_MAX:
                reason = NOT_A_RECORD
            else:
                start, stop = state[SLOT_START + S_MESSAGE], state[SLOT_END + S_MESSAGE]
                if seen & ((1 << S_TIME) | (1 << S_START_TIME)) != 0:
                    slot = S_TIME if (seen >> S_TIME) & 1 == 1 else S_START_TIME
                    moment = parse_time_kernel(buffer, state[SLOT_START + slot], state[SLOT_END + slot], state)
                    given_ms = moment if moment >= 0 else given_ms
                if (escaped >> S_MESSAGE) & 1 == 1:
                    start, stop, reason = unescape_value_kernel(buffer, start, stop, state, JSON_ESCAPES)
                if reason == OK:
                    at = skip_blanks(buffer, start, stop)
                    end = stop
                    while end > at and byte_at(buffer, end - 1) <= 32:
                        end -= 1
                    if envelopes == 0:
                        outer = state[SLOT_START + S_MESSAGE]
                    envelopes += 1
                    stripped = False
                    if at < end:
                        continue
                    reason = NOT_AN_EVENT
        if envelopes > 0:
            state[STOPPED_AT] = outer
        return following, reason


@part
def decode_record(
    buffer: Any, at: Any, stop: Any, single: Any, row: Any, row_end: Any, bound_ms: Any, state: Any,
    texts: Any, cells: Any, spans: Any,
) -> Any:  # fmt: skip
    """Decode all events of ``buffer[at:stop]`` into rows from ``row``; (row after the last, reason).

    ``single``: the record is known to be one line. `NO_ROOM` when ``row_end`` would be passed.
    """
    array = False
    expect = _OPEN
    elements = 0
    while True:
        at = skip_blanks(buffer, at, stop)
        if at >= stop:
            state[STOPPED_AT] = stop
            return row, TRUNCATED if array else OK
        byte = byte_at(buffer, at)
        if array:
            closes = byte == 93 and (expect == _SEPARATOR or elements == 0)
            if closes:
                if elements == 0:
                    state[STOPPED_AT] = at
                    return row, NOT_AN_EVENT
                array = False
                at += 1
                continue
            if expect == _SEPARATOR:
                if byte != 44:
                    state[STOPPED_AT] = at
                    return row, NOT_A_RECORD
                expect = _ELEMENT
                at += 1
                continue
        json = byte == 123 or byte == 91
        refused = (state[FORMAT] == FORMAT_COMBINED and json) or (state[FORMAT] == FORMAT_JSON and not json)
        if refused or (array and byte != 123):
            state[STOPPED_AT] = at
            return row, NOT_A_RECORD
        if byte == 91:
            array = True
            expect = _ELEMENT
            elements = 0
            at += 1
            continue
        if row >= row_end:
            state[STOPPED_AT] = at
            return row, NO_ROOM
        end = stop
        if not json and not single:
            end = find_newline(buffer, at, stop)
            while end > at and byte_at(buffer, end - 1) <= 32:
                end -= 1
        at, reason = decode_event(buffer, at, end, row, bound_ms, state, texts, cells, spans)
        if reason != OK:
            return row, reason
        row += 1
        elements += 1
        expect = _SEPARATOR


@part
def clear_rows_kernel(first: Any, last: Any, cells: Any, spans: Any) -> None:
    """Make rows ``first..last - 1`` empty again."""
    for row in range(first, min(last, cells.shape[1])):
        for column in range(NUMBERS):
            cells[column, row] = MISSING
        for column in range(TEXTS):
            spans[TEXTS + column, row] = 0


@part
def count_rows_kernel(state: Any, cells: Any, rows: Any) -> None:
    """Count what the rows carry, from their masks. Neighbours mostly carry the same, and are counted together."""
    state[ADDRESS_SOURCE : ADDRESS_SOURCE + ADDRESS_SOURCES] = 0
    state[SEEN : SEEN + SEEN_WORDS] = 0
    state[TIME_REPLACED] = 0
    at = 0
    while at < rows:
        mask = cells[CELL_MASK, at]
        first = at
        while at < rows and cells[CELL_MASK, at] == mask:
            at += 1
        run = at - first
        state[DIRTY] |= mask
        state[ADDRESS_SOURCE + ((mask >> SOURCE_SHIFT) & 7)] += run
        if (mask >> REPLACED_SHIFT) & 1 == 1:
            state[TIME_REPLACED] += run
        for column in range(SEEN_WORDS):
            if (mask >> column) & 1 == 1:
                state[SEEN + column] += run


@entry
def decode_kernel(
    lines: Any, buffer: Any, at: Any, length: Any, starts: Any, ends: Any, times_ms: Any, bound_ms: Any, events_max: Any,
    state: Any, texts: Any, cells: Any, spans: Any,
    poison_start: Any, poison_length: Any, poison_reason: Any, poison_at: Any,
) -> None:  # fmt: skip
    """Decode records until ``events_max`` events, the end, or no room; counts and the next position go into ``state``.

    ``lines``: records are the lines of ``buffer[at:length]``, bounded by ``bound_ms``. Else they are
    ``buffer[starts[i]:ends[i]]`` for i from ``at`` on, bounded by ``times_ms[i]``. ``buffer`` (u8[]) is free from ``length``.
    """
    if state[ENTRIES] == 0:
        forget_kernel(state)
    state[ARENA] = length
    room = len(buffer) - SLACK
    rows = np.int64(0)
    records = np.int64(0)
    empty = np.int64(0)
    poisoned = np.int64(0)
    last = length if lines else np.int64(len(starts))
    while at < last and rows < events_max and poisoned < len(poison_reason):
        binary = False
        if lines:
            start = at
            stop = find_line_end(buffer, at, length)
            if stop < length and byte_at(buffer, stop) == 0:
                binary = True
                stop = find_newline(buffer, stop, length)
            following = min(stop + 1, length)
        else:
            start, stop, bound_ms = starts[at], ends[at], times_ms[at]
            binary = find_zero(buffer, start, stop) < stop
            following = at + 1
        reason = OK
        after = rows
        arena = state[ARENA]
        need = stop - start + RECORD_ARENA_BYTES
        if records > 0 and arena + need > room:
            break
        state[ARENA_END] = min(arena + need, room)
        state[STOPPED_AT] = start
        first, end = skip_blanks(buffer, start, stop), stop
        while end > first and byte_at(buffer, end - 1) <= 32:
            end -= 1
        if stop - start > state[RECORD_BYTES_MAX]:
            state[STOPPED_AT] = start + state[RECORD_BYTES_MAX]
            reason = TOO_LONG
        elif binary:
            state[STOPPED_AT] = find_zero(buffer, start, stop)
            reason = BINARY
        elif first >= end:
            empty += 1
            records += 1
            at = following
            continue
        else:
            if byte_at(buffer, first) == 0xEF and byte_at(buffer, first + 1) == 0xBB and first + 3 < end:
                first += 3  # a byte order mark
            row_end = events_max if records > 0 else np.int64(RECORD_EVENTS_MAX)
            after, reason = decode_record(
                buffer, first, end, lines, rows, min(row_end, rows + RECORD_EVENTS_MAX), bound_ms, state,
                texts, cells, spans,
            )  # fmt: skip
        if reason != OK:
            clear_rows_kernel(rows, after + 1, cells, spans)
            state[ARENA] = arena
            if reason == NO_ROOM:
                if records > 0 and rows + RECORD_EVENTS_MAX > row_end:
                    break
                reason = TOO_LONG
            poison_start[poisoned] = start
            poison_length[poisoned] = stop - start
            poison_reason[poisoned] = reason
            stopped = state[STOPPED_AT] - start
            poison_at[poisoned] = stopped if 0 <= stopped <= stop - start else 0
            poisoned += 1
        else:
            for row in range(rows, after):
                cells[N_RECORD, row] = records
            rows = after
        records += 1
        at = following
    state[ROWS], state[RECORDS], state[EMPTY], state[POISONED], state[POSITION] = rows, records, empty, poisoned, at
    count_rows_kernel(state, cells, rows)
