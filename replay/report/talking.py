"""Who talked when: rows and samples of tallies added to a bounded table of keys, and to the series of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import entry, part
from schemas.fields import Dimension, Measure
from schemas.sample import (
    E_ATTRIBUTES,
    E_CELL,
    E_WEIGHT,
    S_LEVEL,
    S_STRATUM,
    S_TICK,
    Attribute,
    Stratum,
)
from schemas.tally import C_DIMENSION, C_HASH, C_KEY_A, C_KEY_B, C_MEASURES, C_NAME, C_NAME_LENGTH, C_TICK, NAME_BYTES_MAX

BUCKETS = 2048
"""Of the series: 34 minutes by the second, 34 hours by the minute."""
BLOCKS = 64
"""Of the time of each key: a mark is 32 buckets long."""
PER_BLOCK = BUCKETS // BLOCKS
BINS = 1024
"""That addresses fall into, in each bucket, for how evenly requests are spread over them: ten bits at most."""

(
    V_REQUESTS, V_CLIENT_ERRORS, V_AUTH_FAILURES, V_SERVER_ERRORS, V_DENIED, V_TOKENS, V_COST_MICRO, V_REGISTRATIONS, V_BYTES,
    SERIES,
) = range(10)  # fmt: skip
"""Columns of the series."""

(
    T_HASH, T_DIMENSION, T_A, T_B, T_C, T_NAME_LENGTH, T_REQUESTS, T_ERRORS, T_TOKENS, T_COST_MICRO, T_REGISTRATIONS,
) = range(11)  # fmt: skip
TALKER_WORDS = 16
"""Columns of a key's record, two cache lines."""

COHORT = 20
"""As a dimension: registrations alike in mail domain, or in user agent and country; ``T_A``, ``T_B``, ``T_C`` are the words of
these, 0 for what does not count."""
FULL = -1

_SAMPLED = np.array(
    [
        [Attribute.USER_AGENT, Dimension.USER_AGENT],
        [Attribute.COUNTRY, Dimension.COUNTRY],
        [Attribute.EMAIL_DOMAIN, Dimension.EMAIL_DOMAIN],
        [Attribute.FINGERPRINT, Dimension.FINGERPRINT],
    ],
    np.int64,
)
"""What rows are not kept for is estimated from the samples."""
_SOURCES = np.array(
    [
        Measure.REQUESTS, Measure.CLIENT_ERRORS, Measure.AUTH_FAILURES, Measure.SERVER_ERRORS, Measure.OWN_DENIALS,
        Measure.TOKENS_IN, Measure.COST_MICRO, Measure.REGISTRATIONS, Measure.BYTES,
    ],
    np.int64,
)  # fmt: skip
_TOKENS_OUT = C_MEASURES + int(Measure.TOKENS_OUT)
_REQUESTS = C_MEASURES + int(Measure.REQUESTS)
_TOKENS_IN = C_MEASURES + int(Measure.TOKENS_IN)
_COST = C_MEASURES + int(Measure.COST_MICRO)
_REGISTERED = C_MEASURES + int(Measure.REGISTRATIONS)
_ERRORS = (
    C_MEASURES + int(Measure.CLIENT_ERRORS), C_MEASURES + int(Measure.AUTH_FAILURES), C_MEASURES + int(Measure.SERVER_ERRORS),
)  # fmt: skip
_ERROR_0, _ERROR_1, _ERROR_2 = _ERRORS
_SERVICE, _IP = int(Dimension.SERVICE), int(Dimension.IP)
_IS_REGISTERED = int(Stratum.REGISTERED)
_MAIL, _AGENT, _COUNTRY = (
    E_ATTRIBUTES + int(one) for one in (Attribute.EMAIL_DOMAIN, Attribute.USER_AGENT, Attribute.COUNTRY)
)  # fmt: skip
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_FIRST_ATTRIBUTE = E_ATTRIBUTES


@part
def _mixed_kernel(word: Any, more: Any) -> Any:
    """i64: one word of two; the words are keyed hashes themselves."""
    mixed = (np.uint64(word) + np.uint64(more) * _MULTIPLIER) * _MULTIPLIER
    return np.int64(mixed ^ (mixed >> _SHIFT))


@part
def _find_kernel(key: Any, dimension: Any, slots: Any, talkers: Any, used: Any) -> Any:
    """The index of a key's record, made where there is none; `FULL`: there is no room for another."""
    mask = len(slots) - 1
    at = np.int64(np.uint64(key) & np.uint64(mask))
    while True:
        index = np.int64(slots[at]) - 1
        if index < 0:
            if used[0] >= len(talkers):
                return FULL
            index = used[0]
            used[0] += 1
            slots[at] = index + 1
            for k in range(TALKER_WORDS):
                talkers[index, k] = 0
            talkers[index, T_HASH], talkers[index, T_DIMENSION] = key, dimension
            talkers[index, T_NAME_LENGTH] = -1
            return index
        if talkers[index, T_HASH] == key and talkers[index, T_DIMENSION] == dimension:
            return index
        at = (at + 1) & mask


@entry
def add_rows_kernel(
    records: Any, names: Any, first: Any, origin: Any, width: Any, series: Any, bins: Any, slots: Any, talkers: Any,
    talker_names: Any, blocks: Any, used: Any,
) -> Any:  # fmt: skip
    """Add the rows of a tally from ``first`` on; returns the row that had no room, or how many there are.

    Args:
        records, names: of a tally; all ticks lie within ``origin <= tick < origin + BUCKETS * width``.
        series: i64[BUCKETS, SERIES]; bins: u32[BUCKETS, BINS], by the address.
        slots: i32[power of two], more than there are talkers; talkers: i64[t, TALKER_WORDS], by order of appearance;
            talker_names: u8[t, NAME_BYTES_MAX]; blocks: u32[t, BLOCKS], zeros from ``used`` on; used: i64[1].
    """
    for r in range(first, len(records)):
        bucket = (records[r, C_TICK] - origin) // width
        dimension, key, requests = records[r, C_DIMENSION], records[r, C_HASH], records[r, _REQUESTS]
        index = _find_kernel(key, dimension, slots, talkers, used)
        if index == FULL:
            return r
        if talkers[index, T_NAME_LENGTH] < 0:
            talkers[index, T_A], talkers[index, T_B] = records[r, C_KEY_A], records[r, C_KEY_B]
            length = min(records[r, C_NAME_LENGTH], NAME_BYTES_MAX)
            talkers[index, T_NAME_LENGTH] = length
            for k in range(length):
                talker_names[index, k] = names[records[r, C_NAME] + k]
        talkers[index, T_REQUESTS] += requests
        talkers[index, T_ERRORS] += records[r, _ERROR_0] + records[r, _ERROR_1] + records[r, _ERROR_2]
        talkers[index, T_TOKENS] += records[r, _TOKENS_IN] + records[r, _TOKENS_OUT]
        talkers[index, T_COST_MICRO] += records[r, _COST]
        talkers[index, T_REGISTRATIONS] += records[r, _REGISTERED]
        blocks[index, bucket // PER_BLOCK] += requests
        if dimension == _SERVICE:
            for k in range(SERIES):
                series[bucket, k] += records[r, C_MEASURES + _SOURCES[k]]
            series[bucket, V_TOKENS] += records[r, _TOKENS_OUT]
        elif dimension == _IP:
            bins[bucket, np.int64(np.uint64(key) >> np.uint64(40)) & (BINS - 1)] += requests
    return len(records)


@part
def _name_kernel(word: Any, words: Any, text_start: Any, text: Any, out: Any) -> Any:
    """Write the text of a word; returns its length."""
    low, high = 0, len(words)
    while low < high:
        middle = (low + high) // 2
        if words[middle] < word:
            low = middle + 1
        else:
            high = middle
    if low == len(words) or words[low] != word:
        return 0
    start = text_start[low]
    length = min(text_start[low + 1] - start, len(out))
    for k in range(length):
        out[k] = text[start + k]
    return length


@entry
def add_sample_kernel(
    cells: Any, entries: Any, words: Any, text_start: Any, text: Any, first: Any, origin: Any, width: Any, slots: Any,
    talkers: Any, talker_names: Any, blocks: Any, used: Any,
) -> Any:  # fmt: skip
    """Add what a tally's sample says of keys that rows are not kept for; returns as `add_rows_kernel`.

    Each entry counts for as many as it stands for. What lies outside the series is left out. Whether the same key is offered
    twice because the table was full in the middle of an entry is answered by ``used``: nothing is counted before all have room.
    """
    for e in range(first, len(entries)):
        cell = entries[e, E_CELL]
        bucket = (cells[cell, S_TICK] - origin) // width
        if bucket < 0 or bucket >= BUCKETS:
            continue
        if used[0] + len(_SAMPLED) + 2 > len(talkers):
            return e
        count = entries[e, E_WEIGHT] << cells[cell, S_LEVEL]
        for k in range(len(_SAMPLED)):
            word = entries[e, _FIRST_ATTRIBUTE + _SAMPLED[k, 0]]
            if word == 0:
                continue
            index = _find_kernel(word, _SAMPLED[k, 1], slots, talkers, used)
            if talkers[index, T_NAME_LENGTH] < 0:
                talkers[index, T_NAME_LENGTH] = _name_kernel(word, words, text_start, text, talker_names[index])
            talkers[index, T_REQUESTS] += count
            blocks[index, bucket // PER_BLOCK] += count
        if cells[cell, S_STRATUM] == _IS_REGISTERED:
            for k in range(2):
                mail = entries[e, _MAIL] if k == 0 else 0
                agent, country = (entries[e, _AGENT], entries[e, _COUNTRY]) if k == 1 else (0, 0)
                if mail == 0 and agent == 0 and country == 0:
                    continue
                index = _find_kernel(_mixed_kernel(_mixed_kernel(mail, agent), country), COHORT, slots, talkers, used)
                talkers[index, T_NAME_LENGTH] = 0
                talkers[index, T_A], talkers[index, T_B], talkers[index, T_C] = mail, agent, country
                talkers[index, T_REQUESTS] += count
                talkers[index, T_REGISTRATIONS] += count
                blocks[index, bucket // PER_BLOCK] += count
    return len(entries)


@entry
def index_kernel(talkers: Any, used: Any, slots: Any) -> None:
    """Write the index of the first ``used`` talkers again; the slots are empty."""
    mask = len(slots) - 1
    for index in range(used):
        at = np.int64(np.uint64(talkers[index, T_HASH]) & np.uint64(mask))
        while slots[at] != 0:
            at = (at + 1) & mask
        slots[at] = index + 1
