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

from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.machine import add_measures, copy_bytes, equal_bytes, prefetch, set_measures
from detectors.kernels.memo import L_ASSET, L_ROUTE, Memo, route_entry_kernel, route_start_kernel, text_key_kernel
from detectors.kernels.routes import ROUTE_BYTES_MAX, fold_route_kernel, path_end_kernel
from schemas.compiled import entry, inlined
from schemas.fields import MEASURES, NUMBERS, Dimension, Flag, Measure, Number, Text
from schemas.tally import (
    C_DIMENSION,
    C_HASH,
    C_KEY_A,
    C_KEY_B,
    C_MEASURES,
    C_NAME,
    C_NAME_LENGTH,
    C_TICK,
    NAME_BYTES_MAX,
    RECORD_WORDS,
    TICK_MAX,
    UNKNOWN_MS,
)

U64 = np.uint64
I64Array = npt.NDArray[np.int64]
ZERO = U64(0)
LOW = U64(0xFFFFFFFF)
TICK_MIX = U64(0x9E3779B97F4A7C15)

N_TIME, N_DURATION, N_STATUS = int(Number.TIME_MS), int(Number.DURATION_MS), int(Number.STATUS)
N_FLAGS, N_ASN = int(Number.FLAGS), int(Number.ASN)
N_BYTES, N_TOKENS_IN, N_TOKENS_OUT = int(Number.BYTES), int(Number.TOKENS_IN), int(Number.TOKENS_OUT)
N_TOKENS_CACHED, N_MAX_TOKENS, N_COST = int(Number.TOKENS_CACHED), int(Number.MAX_TOKENS), int(Number.COST_MICRO)
T_METHOD, T_PATH, T_HOST = int(Text.METHOD), int(Text.PATH), int(Text.HOST)
M_REQUESTS, M_NON_ASSET, M_CLIENT_ERRORS = int(Measure.REQUESTS), int(Measure.NON_ASSET), int(Measure.CLIENT_ERRORS)
M_AUTH_FAILURES, M_SERVER_ERRORS = int(Measure.AUTH_FAILURES), int(Measure.SERVER_ERRORS)
M_OWN_DENIALS, M_CANCELLED, M_DURATION = int(Measure.OWN_DENIALS), int(Measure.CANCELLED), int(Measure.DURATION_MS)
M_BYTES, M_TOKENS_IN, M_TOKENS_OUT = int(Measure.BYTES), int(Measure.TOKENS_IN), int(Measure.TOKENS_OUT)
M_TOKENS_CACHED, M_MAX_TOKENS, M_COST = int(Measure.TOKENS_CACHED), int(Measure.MAX_TOKENS), int(Measure.COST_MICRO)
M_EVIDENCE, M_REGISTRATIONS = int(Measure.EVIDENCE), int(Measure.REGISTRATIONS)
F_HAS_IP, F_AUTHENTICATED, F_AUTH_FAILED = int(Flag.HAS_IP), int(Flag.AUTHENTICATED), int(Flag.AUTH_FAILED)
F_REGISTRATION, F_CANCELLED, F_OWN_DENIAL = int(Flag.REGISTRATION), int(Flag.CANCELLED), int(Flag.OWN_DENIAL)
D_SERVICE, D_IP, D_NET, D_ASN = int(Dimension.SERVICE), int(Dimension.IP), int(Dimension.NET), int(Dimension.ASN)
D_ROUTE = int(Dimension.ROUTE)
D_API_KEY, D_ACCOUNT = int(Dimension.API_KEY), int(Dimension.ACCOUNT)
D_EMAIL_DOMAIN = int(Dimension.EMAIL_DOMAIN)

TEXT_OF_DIMENSION = np.full(len(Dimension), -1, np.int64)
"""Which text column holds the key of a dimension; -1 where the key is made of something else."""
for _dimension, _text in (
    (Dimension.API_KEY, Text.API_KEY), (Dimension.ACCOUNT, Text.ACCOUNT), (Dimension.USER_AGENT, Text.USER_AGENT),
    (Dimension.FINGERPRINT, Text.FINGERPRINT), (Dimension.EMAIL_DOMAIN, Text.EMAIL_DOMAIN), (Dimension.SERVICE, Text.HOST),
    (Dimension.COUNTRY, Text.COUNTRY),
):  # fmt: skip
    TEXT_OF_DIMENSION[_dimension] = _text

CLOCK_NEWEST, CLOCK_CANDIDATE, CLOCK_CONFIRMED = 0, 1, 2
CLOCK_WORDS = 3
CONFIRMATIONS = 8
"""So many records in a row must agree before the newest time jumps by more than the lateness: a clock that is wrong in
one record of many never moves it, and after a real gap it follows at once."""

AGAINST_ADDRESS, AGAINST_KEY = 0, 1
"""Columns of ``Block.evidence``: may the event be held against addresses, and against keys, accounts and routes."""
AGAINST = np.full(len(Dimension), AGAINST_ADDRESS, np.int64)
"""Which of the two counts for a dimension: what only says where a client comes from or what it runs is like its address."""
AGAINST[[D_SERVICE, D_API_KEY, D_ACCOUNT, D_ROUTE, D_EMAIL_DOMAIN]] = AGAINST_KEY
P_ROWS, P_NAMES, P_MASK, P_LATE, P_OUTSIDE, P_TICK_MIN, P_TICK_MAX, P_OLDEST, P_NEWEST, PROGRESS = range(10)
"""How far a tally has been made: its rows, the bytes of their names, the mask of the index (``slots[:mask + 1]`` is used), the
events that were late or outside the range, the least and greatest tick counted and time (milliseconds) seen."""
MASK_START = 2**12 - 1
BLOCK = 256
"""Events whose rows are sought together: the index is asked for ahead, and each dimension has a loop of its own."""
NAME_LENGTH = int(NAME_BYTES_MAX)
UNKNOWN = int(UNKNOWN_MS)


@inlined
def advance_clock_kernel(clock: Any, time_ms: Any, lateness_ms: Any) -> Any:
    """Let one record move a source partition's newest time; True when the record is late.

    ``clock`` is i64[3]: newest, candidate, confirmations. Lateness is decided against the newest time before it.
    """
    newest = clock[CLOCK_NEWEST]
    if newest != UNKNOWN and time_ms <= newest:
        clock[CLOCK_CONFIRMED] = 0
        return time_ms < newest - lateness_ms
    jump_ms = max(lateness_ms, 1000)
    if newest != UNKNOWN and time_ms - newest <= jump_ms:
        clock[CLOCK_NEWEST] = time_ms
        clock[CLOCK_CONFIRMED] = 0
        return False
    candidate = clock[CLOCK_CANDIDATE]
    if clock[CLOCK_CONFIRMED] > 0 and candidate - jump_ms <= time_ms <= candidate + 16 * jump_ms:
        clock[CLOCK_CONFIRMED] += 1
        clock[CLOCK_CANDIDATE] = min(candidate, time_ms)
        if clock[CLOCK_CONFIRMED] >= CONFIRMATIONS:
            clock[CLOCK_NEWEST] = clock[CLOCK_CANDIDATE]
            clock[CLOCK_CONFIRMED] = 0
        return False
    clock[CLOCK_CANDIDATE] = time_ms
    clock[CLOCK_CONFIRMED] = 1
    return False


class Block(NamedTuple):
    """What is known of up to `BLOCK` events before their rows are sought: scratch that the caller owns."""

    tick: I64Array  # i64[BLOCK]
    measures: I64Array  # i64[BLOCK, MEASURES]; evidence is added last
    evidence: I64Array  # i64[BLOCK, 2]: may it be held against addresses, and against keys, accounts and routes
    event: I64Array  # i64[BLOCK]: index in the batch
    route: I64Array  # i64[BLOCK]: entry of the memo of routes
    route_key: npt.NDArray[np.uint64]  # u64[BLOCK, 2]
    member: I64Array  # i64[BLOCK]: those that have a key of the dimension at hand
    key: npt.NDArray[np.uint64]  # u64[BLOCK, 3]: its words and its hash
    scratch: npt.NDArray[np.uint8]  # u8[ROUTE_BYTES_MAX + 64]


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


def allocate_block() -> Block:
    """Scratch for `group_kernel`: 45 kB, which stay in the nearest cache."""
    return Block(
        tick=np.zeros(BLOCK, np.int64),
        measures=np.zeros((BLOCK, MEASURES), np.int64),
        evidence=np.zeros((BLOCK, 2), np.int64),
        event=np.zeros(BLOCK, np.int64),
        route=np.zeros(BLOCK, np.int64),
        route_key=np.zeros((BLOCK, 2), np.uint64),
        member=np.zeros(BLOCK, np.int64),
        key=np.zeros((BLOCK, 3), np.uint64),
        scratch=np.zeros(ROUTE_BYTES_MAX + 64, np.uint8),
    )


@inlined
def measure_kernel(numbers: Any, i: Any, asset: Any, is_api: Any, block: Any, k: Any) -> None:
    """Write what event ``i`` adds to every row it belongs to, and against whom it may be held.

    Our own denials and static assets weigh nothing. In the ``api`` profile a successful authenticated request says
    something about its key and account, and nothing about its address.
    """
    row = block.measures
    status = numbers[N_STATUS, i]
    flags = numbers[N_FLAGS, i]
    denied = np.int64((flags & F_OWN_DENIAL) != 0)
    auth_failed = np.int64((flags & F_AUTH_FAILED) != 0)
    cancelled = np.int64((flags & F_CANCELLED) != 0)
    refused = np.int64(status >= 400) & np.int64(status < 500)
    row[k, M_REQUESTS] = 1
    row[k, M_NON_ASSET] = 1 - asset
    row[k, M_AUTH_FAILURES] = auth_failed & ~denied
    row[k, M_OWN_DENIALS] = denied
    row[k, M_CANCELLED] = cancelled
    row[k, M_CLIENT_ERRORS] = refused & ~(denied | auth_failed | cancelled)
    row[k, M_SERVER_ERRORS] = np.int64(status >= 500) & ~denied
    row[k, M_DURATION] = max(numbers[N_DURATION, i], 0)
    row[k, M_BYTES] = max(numbers[N_BYTES, i], 0)
    row[k, M_TOKENS_IN] = max(numbers[N_TOKENS_IN, i], 0)
    row[k, M_TOKENS_OUT] = max(numbers[N_TOKENS_OUT, i], 0)
    row[k, M_TOKENS_CACHED] = max(numbers[N_TOKENS_CACHED, i], 0)
    row[k, M_MAX_TOKENS] = max(numbers[N_MAX_TOKENS, i], 0)
    row[k, M_COST] = max(numbers[N_COST, i], 0)
    row[k, M_EVIDENCE] = 0
    row[k, M_REGISTRATIONS] = np.int64((flags & F_REGISTRATION) != 0)
    weighs = (1 - asset) & ~denied
    authenticated = np.int64((flags & F_AUTHENTICATED) != 0) & ~auth_failed
    block.evidence[k, AGAINST_KEY] = weighs
    block.evidence[k, AGAINST_ADDRESS] = weighs & ~(np.int64(is_api) & authenticated & ~refused)


@inlined
def address_keys_kernel(dimension: Any, numbers: Any, ip_high: Any, ip_low: Any, block: Any, count: Any) -> Any:
    """Write the keys of `ip` or `net` down; returns how many members the block has."""
    members = 0
    is_net = dimension == D_NET
    for k in range(count):
        i = block.event[k]
        if numbers[N_FLAGS, i] & F_HAS_IP == 0:
            continue
        a, b = ip_high[i], ip_low[i]
        if a == ZERO and (b >> U64(32)) == U64(0xFFFF):
            b = b & U64(0xFFFFFFFFFFFFFF00) if is_net else b
        else:
            a = a & U64(0xFFFFFFFFFFFF0000) if is_net else a
            b = ZERO
        block.member[members] = k
        block.key[members, 0], block.key[members, 1] = a, b
        members += 1
    return members


@inlined
def service_keys_kernel(
    text_start: Any, text_length: Any, buffer: Any, service_a: Any, service_b: Any, memo: Any, seeds: Any, block: Any,
    count: Any,
) -> Any:  # fmt: skip
    """Write the keys of `service` down: the host, mostly that of the event before; the configured one where none is named."""
    a, b = service_a, service_b
    last_start, last_length = np.int64(0), np.int64(0)
    for k in range(count):
        i = block.event[k]
        start, length = np.int64(text_start[T_HOST, i]), np.int64(text_length[T_HOST, i])
        if length != last_length or not equal_bytes(buffer, start, buffer, last_start, length):
            a, b = service_a, service_b
            if length > 0:
                a, b = text_key_kernel(memo, seeds, buffer, start, length)
            last_start, last_length = start, length
        block.member[k] = k
        block.key[k, 0], block.key[k, 1] = a, b
    return count


@inlined
def text_keys_kernel(
    dimension: Any, numbers: Any, text_start: Any, text_length: Any, buffer: Any, memo: Any, seeds: Any, block: Any, count: Any
) -> Any:
    """Write the keys of a dimension that is a text down; returns how many members the block has.

    A request that failed authentication is no state for the key, account or mail domain that it names.
    """
    text = TEXT_OF_DIMENSION[dimension]
    refused = F_AUTH_FAILED if dimension == D_API_KEY or dimension == D_ACCOUNT or dimension == D_EMAIL_DOMAIN else 0
    members = 0
    for k in range(count):
        i = block.event[k]
        length = np.int64(text_length[text, i])
        if length == 0 or numbers[N_FLAGS, i] & refused:
            continue
        a, b = text_key_kernel(memo, seeds, buffer, np.int64(text_start[text, i]), length)
        block.member[members] = k
        block.key[members, 0], block.key[members, 1] = a, b
        members += 1
    return members


@inlined
def other_keys_kernel(dimension: Any, numbers: Any, text_length: Any, block: Any, count: Any) -> Any:
    """Write the keys of `asn` or `route` down; returns how many members the block has."""
    members = 0
    for k in range(count):
        i = block.event[k]
        if dimension == D_ASN:
            if numbers[N_ASN, i] < 0:
                continue
            block.key[members, 0], block.key[members, 1] = U64(numbers[N_ASN, i]), ZERO
        else:
            if text_length[T_PATH, i] == 0:
                continue
            block.key[members, 0], block.key[members, 1] = block.route_key[k, 0], block.route_key[k, 1]
        block.member[members] = k
        members += 1
    return members


@inlined
def name_kernel(
    table: Any, names_at: Any, dimension: Any, i: Any, k: Any, text_start: Any, text_length: Any, buffer: Any, service: Any,
    service_length: Any, routes: Any, block: Any,
) -> Any:  # fmt: skip
    """Write the name of a new row's key to ``table.names``; returns its length."""
    if dimension == D_ROUTE:
        entry = block.route[k]
        if routes.key[entry, 0] == block.route_key[k, 0] and routes.key[entry, 1] == block.route_key[k, 1]:
            length: Any = min(routes.length[entry, L_ROUTE], NAME_LENGTH)
            copy_bytes(table.names, names_at, routes.route, route_start_kernel(entry), length)
        else:  # another path has taken its place since
            path_start = np.int64(text_start[T_PATH, i])
            end = path_end_kernel(buffer, path_start, np.int64(text_length[T_PATH, i]))
            method_start, method_length = np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i])
            length = fold_route_kernel(buffer, method_start, method_length, path_start, end, block.scratch, np.int64(0))
            length = min(length, NAME_LENGTH)
            copy_bytes(table.names, names_at, block.scratch, np.int64(0), length)
        return length
    text = TEXT_OF_DIMENSION[dimension]
    if text < 0:
        return np.int64(0)
    length = min(np.int64(text_length[text, i]), NAME_LENGTH)
    if length > 0:
        copy_bytes(table.names, names_at, buffer, np.int64(text_start[text, i]), length)
    elif dimension == D_SERVICE:
        length = min(service_length, NAME_LENGTH)
        copy_bytes(table.names, names_at, service, np.int64(0), length)
    return length


@entry
def group_kernel(
    dimensions: Any, numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, n: Any,
    present: Any, is_api: Any, lateness_ms: Any, from_ms: Any, to_ms: Any, clock: Any, seeds: Any, service: Any,
    block_parts: Any, texts_parts: Any, routes_parts: Any, table_parts: Any, progress: Any,
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
        block_parts: a `Block`, scratch; like the next ones as a plain tuple (see `detectors.kernels.windows`).
        texts_parts, routes_parts: each a `Memo`, brought up to date.
        table_parts: a `Table` with room for d rows per event, out.
        progress: i64[PROGRESS]: the columns P_…, advanced.
    """
    block, table = Block(*block_parts), Table(*table_parts)
    texts, routes = Memo(*texts_parts), Memo(*routes_parts)
    rows, names_at, mask = progress[P_ROWS], progress[P_NAMES], U64(progress[P_MASK])
    tick_min, tick_max = progress[P_TICK_MIN], progress[P_TICK_MAX]
    oldest, newest = progress[P_OLDEST], progress[P_NEWEST]
    service_length = np.int64(len(service) - 64)
    service_a, service_b = text_key_kernel(texts, seeds, service, np.int64(0), service_length)
    rolls_up = rolls_up_kernel(dimensions)
    at = np.int64(0)
    while at < n:
        count = np.int64(0)
        while at < n and count < BLOCK:
            i = at
            at += 1
            time_ms = numbers[N_TIME, i]
            oldest, newest = min(oldest, time_ms), max(newest, time_ms)
            if advance_clock_kernel(clock, time_ms, lateness_ms):
                progress[P_LATE] += 1
                continue
            if not from_ms <= time_ms < to_ms:
                progress[P_OUTSIDE] += 1
                continue
            k = count
            count += 1
            t = time_ms // 1000
            tick_min, tick_max = min(tick_min, t), max(tick_max, t)
            entry = route_entry_kernel(
                routes, seeds, buffer, np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i]),
                np.int64(text_start[T_PATH, i]), np.int64(text_length[T_PATH, i]),
            )  # fmt: skip
            block.tick[k] = t
            block.event[k] = i
            block.route[k] = entry
            block.route_key[k, 0], block.route_key[k, 1] = routes.key[entry, 0], routes.key[entry, 1]
            measure_kernel(numbers, i, routes.length[entry, L_ASSET], is_api, block, k)
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
            against = AGAINST[dimension]
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
                        set_measures(table.records, rows * RECORD_WORDS + C_MEASURES, block.measures, k * MEASURES, evidence)
                        last_row = rows
                        rows += 1
                        names_at += length
                        continue
                add_measures(table.records, last_row * RECORD_WORDS + C_MEASURES, block.measures, k * MEASURES, evidence)
    progress[P_ROWS], progress[P_NAMES], progress[P_MASK] = rows, names_at, np.int64(mask)
    progress[P_TICK_MIN], progress[P_TICK_MAX] = tick_min, tick_max
    progress[P_OLDEST], progress[P_NEWEST] = oldest, newest


@entry
def finish_rows_kernel(dimensions: Any, seeds: Any, table_parts: Any, progress: Any) -> None:
    """Complete the rows of a tally: those of networks are made of their addresses' rows. The index is empty afterwards."""
    table = Table(*table_parts)
    rows, mask = progress[P_ROWS], U64(progress[P_MASK])
    if rolls_up_kernel(dimensions):
        mask = make_room_kernel(table, mask, rows, 2 * rows)
        rows = roll_up_kernel(table, mask, seeds, rows)
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
    records[row, C_NAME], records[row, C_NAME_LENGTH] = name_start, name_length


@inlined
def roll_up_kernel(table: Any, mask: Any, seeds: Any, rows: Any) -> Any:
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
            rows += 1
        else:
            add_measures(records, row * RECORD_WORDS + C_MEASURES, records, source, evidence)
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
