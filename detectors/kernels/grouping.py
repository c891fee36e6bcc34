"""Group a batch of events by (tick, dimension, key): the inner loop of observe.

`group_kernel` walks the events once, in offset order and in blocks. It decides whether each is late and writes down what
it measures; then, dimension by dimension, it adds that into one row per (tick, dimension, key), found through an
open-addressing index. `detectors.kernels.ordering`
then orders the rows by judge partition, and by tick within one, which is how a judge takes them in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.blocks import (
    AGAINST,
    BLOCK,
    D_API_KEY,
    D_ASN,
    D_IP,
    D_NET,
    D_ROUTE,
    D_SERVICE,
    F_VERIFICATION,
    M_EVIDENCE,
    N_FLAGS,
    N_TIME,
    OF_KEYS,
    T_ACCOUNT,
    T_AGENT,
    T_API_KEY,
    T_HOST,
    T_METHOD,
    T_MODEL,
    T_PATH,
    TEXT_OF_DIMENSION,
    WANT_ACCOUNTS,
    WANT_AGENTS,
    WANT_MODELS,
    WANT_REST,
    WANT_SAMPLE,
    Block,
    address_keys_kernel,
    items_kernel,
    measure_kernel,
    model_bin_kernel,
    name_kernel,
    other_keys_kernel,
    service_keys_kernel,
    text_keys_kernel,
)
from detectors.kernels.clock import advance_clock_kernel
from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.listed import Words
from detectors.kernels.machine import add_measures, add_rest, prefetch, set_measures, set_rest
from detectors.kernels.memo import (
    L_ASSET,
    Memo,
    fetch_route_kernel,
    fetch_text_kernel,
    route_entry_kernel,
    text_key_kernel,
)
from detectors.kernels.sample_keeping import keep_candidates_kernel
from detectors.kernels.sample_table import SampleTable
from detectors.kernels.sampling import sample_block_kernel
from detectors.kernels.verified import sample_verified_kernel
from schemas.compiled import entry, inlined, part
from schemas.fields import COMMON, NUMBERS, VALUES
from schemas.tally import (
    C_DIMENSION,
    C_HASH,
    C_KEY_A,
    C_KEY_B,
    C_MEASURES,
    C_MODELS,
    C_NAME,
    C_NAME_LENGTH,
    C_TICK,
    RECORD_WORDS,
    TICK_MAX,
)

U64 = np.uint64
C_REST = C_MEASURES + COMMON
I64Array = npt.NDArray[np.int64]
ZERO = U64(0)
LOW = U64(0xFFFFFFFF)
TICK_MIX = U64(0x9E3779B97F4A7C15)
P_ROWS, P_NAMES, P_MASK, P_LATE, P_OUTSIDE, P_TICK_MIN, P_TICK_MAX, P_OLDEST, P_NEWEST, PROGRESS = range(10)
"""How far a tally has been made: its rows, the bytes of their names, the mask of the index (``slots[:mask + 1]`` is used), the
events that were late or outside the range, the least and greatest tick counted and time (milliseconds) seen."""
MASK_START = 2**12 - 1
AHEAD = 8
"""So many events ahead, what is known of an event's texts is fetched."""


class Table(NamedTuple):
    """Rows in order of first appearance, and the index that finds them."""

    slots: npt.NDArray[np.uint64]  # u64[power of two]: 32 bits of the hash over the row's number + 1; 0 is empty
    records: I64Array  # i64[rows, RECORD_WORDS]: as in `schemas.tally`
    names: npt.NDArray[np.uint8]


def start_progress(progress: I64Array, mask: int = MASK_START) -> None:
    """Begin a tally."""
    progress[:] = 0
    progress[P_MASK] = mask
    progress[[P_TICK_MIN, P_OLDEST]] = TICK_MAX
    progress[[P_TICK_MAX, P_NEWEST]] = -TICK_MAX


@entry
def group_kernel(
    dimensions: Any, numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, n: Any,
    present: Any, is_api: Any, lateness_ms: Any, from_ms: Any, to_ms: Any, clock: Any, seeds: Any, service: Any,
    wanted: Any, words_parts: Any, block_parts: Any, texts_parts: Any, agents_parts: Any, routes_parts: Any,
    table_parts: Any, progress: Any, sample_parts: Any,
) -> Any:  # fmt: skip
    """Add the events of a batch to the rows of a tally in the making.

    Args:
        dimensions: i64[d], which ones to group by, ascending.
        numbers, ip_*, text_*, buffer, n: the columns of a batch (`schemas.columns`).
        present: bits of the columns that have values, as in `Columns`.
        from_ms, to_ms: events outside ``from_ms <= time < to_ms`` move the clock and are left out.
        clock: i64[CLOCK_WORDS], the source partition's, advanced.
        seeds: u64[HASH_SEED_WORDS].
        service: u8[length + 64], the service of events that name no host.
        wanted: which sets are kept, see `items_kernel`.
        words_parts: `Words` of listed agents; like the next ones as a plain tuple (see `detectors.kernels.judging`).
        block_parts: a `Block`, scratch.
        texts_parts, agents_parts, routes_parts: each a `Memo`, brought up to date.
        table_parts: a `Table` with room for d rows per event, out.
        progress: i64[PROGRESS]: the columns P_…, advanced.
        sample_parts: a `SampleTable`, brought up to date where `WANT_SAMPLE` says so.
    """
    block, table = Block(*block_parts), Table(*table_parts)
    texts, agents, routes = Memo(*texts_parts), Memo(*agents_parts), Memo(*routes_parts)
    words, sample = Words(*words_parts), SampleTable(*sample_parts)
    rows, names_at, mask = progress[P_ROWS], progress[P_NAMES], U64(progress[P_MASK])
    tick_min, tick_max = progress[P_TICK_MIN], progress[P_TICK_MAX]
    oldest, newest = progress[P_OLDEST], progress[P_NEWEST]
    service_length = np.int64(len(service) - 64)
    service_a, service_b = text_key_kernel(texts, seeds, service, np.int64(0), service_length)
    if (present >> (NUMBERS + T_API_KEY)) & 1 == 0:
        wanted &= ~(wanted >> OF_KEYS)  # of nobody here
    rolls_up, rest = rolls_up_kernel(dimensions), wanted & (1 << WANT_REST) != 0
    samples = wanted & (1 << WANT_SAMPLE) != 0
    models = wanted & (1 << WANT_MODELS) != 0 and (present >> (NUMBERS + T_MODEL)) & 1 != 0
    at = np.int64(0)
    while at < n:
        count, verified = np.int64(0), np.int64(0)
        while at < n and count + verified < BLOCK:
            i = at
            at += 1
            if i + AHEAD < n:
                fetch_texts_kernel(i + AHEAD, wanted, text_start, text_length, buffer, texts, agents, routes)
            time_ms = numbers[N_TIME, i]
            oldest, newest = min(oldest, time_ms), max(newest, time_ms)
            if advance_clock_kernel(clock, time_ms, lateness_ms):
                progress[P_LATE] += 1
                continue
            if not from_ms <= time_ms < to_ms:
                progress[P_OUTSIDE] += 1
                continue
            t = time_ms // 1000
            tick_min, tick_max = min(tick_min, t), max(tick_max, t)
            if numbers[N_FLAGS, i] & F_VERIFICATION != 0:
                verified += 1
                block.event[BLOCK - verified] = i  # no request: what follows is not for it
                continue
            k = count
            count += 1
            entry = route_entry_kernel(
                routes, seeds, buffer, np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i]),
                np.int64(text_start[T_PATH, i]), np.int64(text_length[T_PATH, i]),
            )  # fmt: skip
            block.tick[k] = t
            block.event[k] = i
            block.route[k] = entry
            block.route_key[k, 0], block.route_key[k, 1] = routes.key[entry, 0], routes.key[entry, 1]
            measure_kernel(numbers, text_length, i, routes.length[entry, L_ASSET], is_api, block, k)
            items_kernel(
                wanted, numbers, ip_high, ip_low, text_start, text_length, buffer, i, seeds, texts, agents, words,
                routes.key[entry, 0], block, k,
            )  # fmt: skip
        if samples and verified > 0:
            rows, names_at, mask = verify_kernel(
                verified, tick_max - tick_min + 1, numbers, text_start, text_length, buffer, seeds, service, service_a,
                service_b, texts, routes, block, table, rows, names_at, mask, sample,
            )  # fmt: skip
        mask = make_room_kernel(table, mask, rows, rows + 2 * len(dimensions) * count)
        for d in range(len(dimensions)):
            dimension = dimensions[d]
            by_address = dimension == D_IP or dimension == D_NET
            if by_address:
                if rolls_up and dimension == D_NET:
                    continue
                members = address_keys_kernel(dimension, numbers, ip_high, ip_low, block, count)
            elif dimension == D_ASN or dimension == D_ROUTE:
                members = other_keys_kernel(dimension, numbers, text_length, block, count)
            elif dimension == D_SERVICE:
                members = service_keys_kernel(text_start, text_length, buffer, service_a, service_b, texts, seeds, block, count)
                if samples:
                    sample_block_kernel(
                        numbers, ip_high, ip_low, text_start, text_length, buffer, seeds, service, texts, block, count,
                        tick_max - tick_min + 1, sample,
                    )  # fmt: skip
            elif (present >> (NUMBERS + TEXT_OF_DIMENSION[dimension])) & 1 == 0:
                continue
            else:
                members = text_keys_kernel(dimension, numbers, text_start, text_length, buffer, texts, seeds, block, count)
            h, last_a, last_b = hash_words_kernel(seeds, ZERO, ZERO, U64(dimension)), ZERO, ZERO
            for m in range(members):
                a, b = block.key[m, 0], block.key[m, 1]
                if a != last_a or b != last_b:
                    h = hash_words_kernel(seeds, a, b, U64(dimension))
                    last_a, last_b = a, b
                block.key[m, 2] = h
                prefetch(table.slots, np.int64((h ^ (U64(block.tick[block.member[m]]) * TICK_MIX)) & mask), 0)
            against, of_models = AGAINST[dimension], models and dimension == D_API_KEY
            last_row, last_a, last_b, last_tick = np.int64(-1), ZERO, ZERO, np.int64(-1)
            for m in range(members):
                k = block.member[m]
                t = block.tick[k]
                a, b, h = block.key[m, 0], block.key[m, 1], block.key[m, 2]
                evidence = block.evidence[k, against]
                if a != last_a or b != last_b or t != last_tick:  # else it is the row of the event before
                    last_row, slot = find_row_kernel(table, mask, h, a, b, t, dimension)
                    last_a, last_b, last_tick = a, b, t
                    if last_row < 0:
                        length = name_kernel(
                            table, names_at, dimension, block.event[k], k, text_start, text_length, buffer, service,
                            service_length, routes, block,
                        )  # fmt: skip
                        put_row_kernel(table, slot, rows, h, a, b, t, dimension, names_at, length)
                        set_measures(table.records, rows * RECORD_WORDS + C_MEASURES, block.measures, k * VALUES, evidence)
                        if rest:
                            set_rest(table.records, rows * RECORD_WORDS + C_REST, block.measures, k * VALUES + COMMON)
                        if of_models:
                            add_model_kernel(table.records, rows, seeds, text_start, text_length, buffer, block.event[k])
                        last_row = rows
                        rows += 1
                        names_at += length
                        continue
                add_measures(table.records, last_row * RECORD_WORDS + C_MEASURES, block.measures, k * VALUES, evidence)
                if rest:
                    add_rest(table.records, last_row * RECORD_WORDS + C_REST, block.measures, k * VALUES + COMMON)
                if of_models:
                    add_model_kernel(table.records, last_row, seeds, text_start, text_length, buffer, block.event[k])
    if samples:
        keep_candidates_kernel(
            wanted, numbers, ip_high, ip_low, text_start, text_length, buffer, seeds, texts, routes, sample
        )
    progress[P_ROWS], progress[P_NAMES], progress[P_MASK] = rows, names_at, np.int64(mask)
    progress[P_TICK_MIN], progress[P_TICK_MAX] = tick_min, tick_max
    progress[P_OLDEST], progress[P_NEWEST] = oldest, newest


@part
def verify_kernel(
    verified: Any, seconds: Any, numbers: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any, service: Any,
    service_a: Any, service_b: Any, texts: Any, routes: Any, block: Any, table: Any, rows: Any, names_at: Any, mask: Any,
    sample: Any,
) -> Any:  # fmt: skip
    """Take in the verifications of a block, which no measure counts: the last ``verified`` of its events. Their service has a
    row at that tick, which says where its sample goes, be it one of zeros. Returns ``rows``, ``names_at`` and ``mask`` then."""
    mask = make_room_kernel(table, mask, rows, rows + verified)
    for k in range(BLOCK - verified, BLOCK):
        i = block.event[k]
        a, b, t, length = service_a, service_b, numbers[N_TIME, i] // 1000, np.int64(text_length[T_HOST, i])
        if length > 0:
            a, b = text_key_kernel(texts, seeds, buffer, np.int64(text_start[T_HOST, i]), length)
        sample_verified_kernel(
            sample, t, np.int64(a), np.int64(b), seconds, text_start, text_length, buffer, seeds, service, texts, i
        )
        h = hash_words_kernel(seeds, a, b, U64(D_SERVICE))
        row, slot = find_row_kernel(table, mask, h, a, b, t, D_SERVICE)
        if row < 0:
            length = name_kernel(
                table, names_at, np.int64(D_SERVICE), i, k, text_start, text_length, buffer, service,
                np.int64(len(service) - 64), routes, block,
            )  # fmt: skip
            put_row_kernel(table, slot, rows, h, a, b, t, D_SERVICE, names_at, length)
            for column in range(C_MEASURES, RECORD_WORDS):
                table.records[rows, column] = 0
            rows += 1
            names_at += length
    return rows, names_at, mask


@inlined
def fetch_texts_kernel(
    i: Any, wanted: Any, text_start: Any, text_length: Any, buffer: Any, texts: Any, agents: Any, routes: Any
) -> None:
    """Begin to bring what is known of the texts of an event that comes soon."""
    fetch_route_kernel(
        routes, buffer, np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i]),
        np.int64(text_start[T_PATH, i]), np.int64(text_length[T_PATH, i]),
    )  # fmt: skip
    if wanted & WANT_AGENTS:
        fetch_text_kernel(agents, buffer, np.int64(text_start[T_AGENT, i]), np.int64(text_length[T_AGENT, i]))
    if wanted & WANT_ACCOUNTS:
        text = T_ACCOUNT if text_length[T_ACCOUNT, i] > 0 else T_API_KEY
        fetch_text_kernel(texts, buffer, np.int64(text_start[text, i]), np.int64(text_length[text, i]))


@entry
def finish_rows_kernel(dimensions: Any, seeds: Any, wanted: Any, table_parts: Any, progress: Any) -> None:
    """Complete the rows of a tally: those of networks are made of their addresses' rows. The index is empty afterwards."""
    table = Table(*table_parts)
    rows, mask = progress[P_ROWS], U64(progress[P_MASK])
    if rolls_up_kernel(dimensions):
        mask = make_room_kernel(table, mask, rows, 2 * rows)
        rows = roll_up_kernel(table, mask, seeds, rows, wanted & (1 << WANT_REST) != 0)
    clear_index_kernel(table, mask, rows)
    progress[P_ROWS], progress[P_MASK] = rows, np.int64(mask)


@inlined
def rolls_up_kernel(dimensions: Any) -> Any:
    """Are there both addresses and networks, so that these can be summed up from those?"""
    for d in range(1, len(dimensions)):
        if dimensions[d - 1] == D_IP and dimensions[d] == D_NET:
            return True
    return False


@inlined
def make_room_kernel(table: Any, mask: Any, rows: Any, wanted: Any) -> Any:
    """Make the index large enough for ``wanted`` rows at half its load; returns its mask."""
    if U64(2 * wanted) <= mask + U64(1):
        return mask
    clear_index_kernel(table, mask, rows)
    while U64(2 * wanted) > mask + U64(1):
        mask = mask * U64(2) + U64(1)
    for r in range(rows):
        mixed = U64(table.records[r, C_HASH]) ^ (U64(table.records[r, C_TICK]) * TICK_MIX)
        slot = mixed & mask
        while table.slots[slot] != ZERO:
            slot = (slot + U64(1)) & mask
        table.slots[slot] = (mixed & ~LOW) | U64(r + 1)
    return mask


@inlined
def find_row_kernel(table: Any, mask: Any, h: Any, a: Any, b: Any, tick: Any, dimension: Any) -> Any:
    """(the row of a key at a tick, its slot); the row is -1 and the slot free where there is none."""
    mixed = h ^ (U64(tick) * TICK_MIX)
    slot = mixed & mask
    while True:
        entry = table.slots[slot]
        if entry == ZERO:
            return np.int64(-1), slot
        if entry >> U64(32) == mixed >> U64(32):
            row = np.int64(entry & LOW) - 1
            record = table.records
            same = record[row, C_KEY_A] == np.int64(a) and record[row, C_KEY_B] == np.int64(b)
            if same and record[row, C_TICK] == tick and record[row, C_DIMENSION] == dimension:
                return row, slot
        slot = (slot + U64(1)) & mask


@inlined
def put_row_kernel(
    table: Any, slot: Any, row: Any, h: Any, a: Any, b: Any, tick: Any, dimension: Any, name_start: Any, name_length: Any
) -> None:
    """Write a new row down, except for its measures, and where it is found."""
    table.slots[slot] = ((h ^ (U64(tick) * TICK_MIX)) & ~LOW) | U64(row + 1)
    records = table.records
    records[row, C_HASH], records[row, C_KEY_A], records[row, C_KEY_B] = np.int64(h), np.int64(a), np.int64(b)
    records[row, C_TICK], records[row, C_DIMENSION] = tick, dimension
    records[row, C_NAME], records[row, C_NAME_LENGTH], records[row, C_MODELS] = name_start, name_length, 0


@inlined
def add_model_kernel(
    records: Any, row: Any, seeds: Any, text_start: Any, text_length: Any, buffer: Any, i: Any
) -> None:  # fmt: skip
    """Put the model that event ``i`` asks for into the set of a key's row."""
    length = np.int64(text_length[T_MODEL, i])
    if length > 0:
        records[row, C_MODELS] |= model_bin_kernel(seeds, buffer, np.int64(text_start[T_MODEL, i]), length)


@inlined
def roll_up_kernel(table: Any, mask: Any, seeds: Any, rows: Any, rest: Any) -> Any:
    """Add the rows of networks: the sums of their addresses' rows. Returns how many rows there are then."""
    records = table.records
    addresses = rows
    for r in range(addresses):
        if records[r, C_DIMENSION] != D_IP:
            continue
        t = records[r, C_TICK]
        a, b = U64(records[r, C_KEY_A]), U64(records[r, C_KEY_B])
        if a == ZERO and (b >> U64(32)) == U64(0xFFFF):
            b &= U64(0xFFFFFFFFFFFFFF00)
        else:
            a &= U64(0xFFFFFFFFFFFF0000)
        h = hash_words_kernel(seeds, a, b, U64(D_NET))
        row, slot = find_row_kernel(table, mask, h, a, b, t, D_NET)
        source = r * RECORD_WORDS + C_MEASURES
        evidence = records[r, C_MEASURES + M_EVIDENCE]
        if row < 0:
            put_row_kernel(table, slot, rows, h, a, b, t, D_NET, np.int64(0), np.int64(0))
            set_measures(records, rows * RECORD_WORDS + C_MEASURES, records, source, evidence)
            if rest:
                set_rest(records, rows * RECORD_WORDS + C_REST, records, source + COMMON)
            rows += 1
        else:
            add_measures(records, row * RECORD_WORDS + C_MEASURES, records, source, evidence)
            if rest:
                add_rest(records, row * RECORD_WORDS + C_REST, records, source + COMMON)
    return rows


@inlined
def clear_index_kernel(table: Any, mask: Any, rows: Any) -> None:
    """Empty the index again: all of it, or only where rows were put when those are few."""
    if U64(rows) * U64(8) > mask:
        table.slots[: np.int64(mask) + 1] = ZERO
        return
    for r in range(rows):
        slot = (U64(table.records[r, C_HASH]) ^ (U64(table.records[r, C_TICK]) * TICK_MIX)) & mask
        while table.slots[slot] != ZERO:
            table.slots[slot] = ZERO
            slot = (slot + U64(1)) & mask
