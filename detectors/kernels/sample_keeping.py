"""Put down what the candidates of `detectors.kernels.sampling` say that are kept, once their whole batch has been looked at."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.blocks import (
    F_AUTH_FAILED,
    F_REGISTRATION,
    N_ASN,
    N_FLAGS,
    T_AGENT,
    T_COUNTRY,
    T_METHOD,
    T_PATH,
    WANT_AGENTS,
)
from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.machine import leading_zeros, prefetch
from detectors.kernels.memo import L_ROUTE, route_entry_kernel, route_start_kernel
from detectors.kernels.names import RANK_MAX, notes_kernel
from detectors.kernels.sample_table import (
    AHEAD,
    G_COUNT,
    KEPT_MAX,
    O_AGENT,
    O_CELL,
    O_EVENT,
    O_PRIORITY,
    O_ROUTE,
    O_SEEN,
    O_WHO,
    Q_CANDIDATES,
    Q_ENTRIES,
    Q_FREE,
    SAYS,
    TEXTS,
    find_word_kernel,
    is_below_kernel,
    new_word_kernel,
    raise_level_kernel,
)
from detectors.kernels.sampling import ZERO, address_kernel, attribute_kernel
from schemas.compiled import inlined, part
from schemas.fields import Text
from schemas.sample import E_CELL, E_IP_HIGH, E_PRIORITY, E_WEIGHT, S_LEVEL, S_STRATUM, VERIFIED

U64 = np.uint64
T_FINGERPRINT, T_EMAIL_DOMAIN = int(Text.FINGERPRINT), int(Text.EMAIL_DOMAIN)
T_REFERRER, T_USER_NAME = int(Text.REFERRER), int(Text.USER_NAME)


@part
def keep_candidates_kernel(
    wanted: Any, numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any,
    texts: Any, routes: Any, sample: Any,
) -> None:  # fmt: skip
    """Put down those candidates of a batch whose priorities are low enough still."""
    candidates, says, left = sample.candidates, sample.says, sample.left
    count = np.int64(0)
    for c in range(sample.progress[Q_CANDIDATES]):
        left[count] = c
        count += np.int64(is_below_kernel(U64(candidates[c, O_PRIORITY]), sample.cells[candidates[c, O_CELL], S_LEVEL]))
    word_mask = np.int64(len(sample.word_slots) - 1)
    for index in range(count):
        if index + AHEAD < count:  # where its words are sought
            after = left[index + AHEAD]
            prefetch(sample.word_slots, candidates[after, O_ROUTE] & word_mask, 0)
            prefetch(sample.word_slots, candidates[after, O_AGENT] & word_mask, 0)
        c = left[index]
        cell, i, priority = candidates[c, O_CELL], candidates[c, O_EVENT], U64(candidates[c, O_PRIORITY])
        if not is_below_kernel(priority, sample.cells[cell, S_LEVEL]):
            continue  # more of them were equal to none than could be told
        if sample.cells[cell, S_STRATUM] == VERIFIED:  # nobody's request: only whose account it is
            says[:] = 0
            says[8] = candidates[c, O_WHO]
        else:
            describe_kernel(
                wanted, numbers, ip_high, ip_low, text_start, text_length, buffer, seeds, texts, candidates, c, i, says
            )
        keep_kernel(sample, cell, priority, candidates[c, O_SEEN] != 0, text_start, text_length, buffer, seeds, routes, i)
    sample.progress[Q_CANDIDATES] = 0


@inlined
def describe_kernel(
    wanted: Any, numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any,
    texts: Any, candidates: Any, c: Any, i: Any, says: Any,
) -> None:  # fmt: skip
    """Write what candidate ``c``, event ``i``, has to say into ``says``."""
    flags, who = numbers[N_FLAGS, i], candidates[c, O_WHO]
    high, low = address_kernel(flags, ip_high[i], ip_low[i])
    says[0], says[1] = np.int64(high), np.int64(low)
    says[2], says[8] = candidates[c, O_ROUTE], who
    if wanted & WANT_AGENTS:
        says[3] = candidates[c, O_AGENT]
    else:
        says[3] = np.int64(attribute_kernel(texts, seeds, text_start, text_length, buffer, T_AGENT, i))
    says[4] = np.int64(attribute_kernel(texts, seeds, text_start, text_length, buffer, T_FINGERPRINT, i))
    says[5] = np.int64(attribute_kernel(texts, seeds, text_start, text_length, buffer, T_COUNTRY, i))
    says[6] = np.int64(0)
    if flags & F_AUTH_FAILED == 0:
        says[6] = np.int64(attribute_kernel(texts, seeds, text_start, text_length, buffer, T_EMAIL_DOMAIN, i))
    says[7], says[9] = np.int64(0), np.int64(0)
    if flags & F_REGISTRATION != 0:
        says[7] = np.int64(attribute_kernel(texts, seeds, text_start, text_length, buffer, T_REFERRER, i))
        named_at, name = np.int64(text_start[T_USER_NAME, i]), np.int64(text_length[T_USER_NAME, i])
        rank = min(leading_zeros(hash_words_kernel(seeds, ZERO, ZERO, U64(who))), RANK_MAX) if who != 0 else np.int64(0)
        says[9] = notes_kernel(buffer, named_at, name, numbers[N_ASN, i], rank)


@inlined
def keep_kernel(
    sample: Any, cell: Any, priority: Any, was_seen: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any,
    routes: Any, i: Any,
) -> None:  # fmt: skip
    """Add an entry that says ``sample.says`` to a cell, or to its equal there; drop those that are too many then."""
    cells, entries, says = sample.cells, sample.entries, sample.says
    count, equal = cells[cell, G_COUNT], -1
    if was_seen:
        for at in range(count):  # without a way out, so that many are compared at once
            if sample.priority[cell, at] == priority:
                equal = at
    if equal >= 0:
        entry = np.int64(sample.place[cell, equal])
        entries[entry, E_WEIGHT] += 1
        column = np.int64(0)
        while column < SAYS and says[column] == entries[entry, E_IP_HIGH + column]:
            column += 1
        if column == SAYS or says[column] > entries[entry, E_IP_HIGH + column]:
            return
    else:
        entry = new_entry_kernel(sample)
        entries[entry, E_CELL], entries[entry, E_PRIORITY], entries[entry, E_WEIGHT] = cell, np.int64(priority), 1
        sample.priority[cell, count], sample.place[cell, count] = priority, np.int32(entry)
        cells[cell, G_COUNT] = count + 1
    say_kernel(sample, entry, text_start, text_length, buffer, seeds, routes, i)
    while cells[cell, G_COUNT] > KEPT_MAX:
        raise_level_kernel(sample, cell)


@inlined
def new_entry_kernel(sample: Any) -> Any:
    """i64: an entry that nobody has."""
    progress = sample.progress
    if progress[Q_FREE] > 0:
        progress[Q_FREE] -= 1
        return np.int64(sample.free[progress[Q_FREE]])
    progress[Q_ENTRIES] += 1
    return progress[Q_ENTRIES] - 1


@inlined
def say_kernel(
    sample: Any, entry: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any, routes: Any, i: Any
) -> None:
    """Write down what an entry says, and the texts that were not known."""
    says = sample.says
    for column in range(SAYS):
        sample.entries[entry, E_IP_HIGH + column] = says[column]
    known = sample.entry_text
    known[entry, 0] = -1
    if says[2] != 0:
        found = find_word_kernel(sample, says[2])
        known[entry, 0] = found
        if found < 0:
            known[entry, 0] = new_route_kernel(sample, says[2], -1 - found, text_start, text_length, buffer, seeds, routes, i)
    for attribute in range(1, TEXTS):
        text = ATTRIBUTE_TEXT[attribute]
        known[entry, attribute] = -1
        if says[2 + attribute] != 0:
            start, length = np.int64(text_start[text, i]), np.int64(text_length[text, i])
            found = find_word_kernel(sample, says[2 + attribute])
            known[entry, attribute] = found
            if found < 0:
                known[entry, attribute] = new_word_kernel(sample, says[2 + attribute], -1 - found, buffer, start, length)


ATTRIBUTE_TEXT = np.array([-1, T_AGENT, T_FINGERPRINT, T_COUNTRY, T_EMAIL_DOMAIN, T_REFERRER], np.int64)
"""Which text column says an attribute; a route is made of two."""


@part
def new_route_kernel(
    sample: Any, word: Any, slot: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any, routes: Any, i: Any
) -> Any:
    """i32: as `new_word_kernel`, of the route of event ``i``."""
    entry = route_entry_kernel(
        routes, seeds, buffer, np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i]),
        np.int64(text_start[T_PATH, i]), np.int64(text_length[T_PATH, i]),
    )  # fmt: skip
    return new_word_kernel(sample, word, slot, routes.route, route_start_kernel(entry), routes.length[entry, L_ROUTE])
