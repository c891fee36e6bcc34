"""Group a batch of events by (tick, dimension, key): the inner loop of observe.

`group_kernel` walks the events once, in offset order and in blocks. It decides whether each is late and writes down what
it measures; then, dimension by dimension, it adds that into one row per (tick, dimension, key), found through an
open-addressing index. `order_kernel` then orders the rows by
judge partition, and by tick within one, which is how a judge takes them in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.machine import add_measures, copy_bytes, prefetch, set_measures
from detectors.kernels.memo import L_ASSET, L_ROUTE, route_entry_kernel, route_start_kernel, text_key_kernel
from detectors.kernels.routes import ROUTE_BYTES_MAX, fold_route_kernel, path_end_kernel
from schemas.compiled import inlined, kernel
from schemas.fields import MEASURES, Dimension, Flag, Measure, Number, Text
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
T_METHOD, T_PATH = int(Text.METHOD), int(Text.PATH)
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
def text_keys_kernel(
    dimension: Any, numbers: Any, text_start: Any, text_length: Any, buffer: Any, service: Any, service_length: Any,
    memo: Any, seeds: Any, block: Any, count: Any,
) -> Any:  # fmt: skip
    """Write the keys of a dimension that is a text down; returns how many members the block has.

    A request that failed authentication is no state for the key, account or mail domain that it names. Events that name
    no host belong to the configured service.
    """
    text = TEXT_OF_DIMENSION[dimension]
    named = dimension == D_API_KEY or dimension == D_ACCOUNT or dimension == D_EMAIL_DOMAIN
    members = 0
    for k in range(count):
        i = block.event[k]
        if named and numbers[N_FLAGS, i] & F_AUTH_FAILED:
            continue
        length = np.int64(text_length[text, i])
        if length > 0:
            a, b = text_key_kernel(memo, seeds, buffer, np.int64(text_start[text, i]), length)
        elif dimension == D_SERVICE:
            a, b = text_key_kernel(memo, seeds, service, np.int64(0), service_length)
        else:
            continue
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


@kernel
def group_kernel(
    dimensions: Any, numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, n: Any,
    is_api: Any, lateness_ms: Any, from_ms: Any, to_ms: Any, clock: Any, seeds: Any, service: Any, mask: Any, block: Any,
    texts: Any, routes: Any, table: Any,
) -> Any:  # fmt: skip
    """Add the events of a batch into rows.

    Args:
        dimensions: i64[d], which ones to group by, ascending.
        numbers, ip_*, text_*, buffer, n: the columns of a batch (`schemas.columns`).
        from_ms, to_ms: events outside ``from_ms <= time < to_ms`` move the clock and are left out.
        clock: i64[CLOCK_WORDS], the source partition's, advanced.
        seeds: u64[HASH_SEED_WORDS].
        service: u8[length + 64], the service of events that name no host.
        mask: ``table.slots[:mask + 1]`` is used: a power of two >= 2 * n * d of zeros; left so.
        block: scratch.
        texts, routes: memos, brought up to date.
        table: out.

    Returns:
        (rows, bytes of names, late events, events outside, least tick, greatest tick).
    """
    rows = np.int64(0)
    names_at = np.int64(0)
    late = 0
    outside = 0
    tick_min, tick_max = np.int64(2**62), np.int64(-(2**62))
    service_length = np.int64(len(service) - 64)
    records = table.records
    at = np.int64(0)
    while at < n:
        count = np.int64(0)
        while at < n and count < BLOCK:
            i = at
            at += 1
            time_ms = numbers[N_TIME, i]
            if advance_clock_kernel(clock, time_ms, lateness_ms):
                late += 1
                continue
            if not from_ms <= time_ms < to_ms:
                outside += 1
                continue
            k = count
            count += 1
            t = time_ms // 1000
            tick_min = min(tick_min, t)
            tick_max = max(tick_max, t)
            entry = route_entry_kernel(
                routes, seeds, buffer, np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i]),
                np.int64(text_start[T_PATH, i]), np.int64(text_length[T_PATH, i]),
            )  # fmt: skip
            block.tick[k] = t
            block.event[k] = i
            block.route[k] = entry
            block.route_key[k, 0], block.route_key[k, 1] = routes.key[entry, 0], routes.key[entry, 1]
            measure_kernel(numbers, i, routes.length[entry, L_ASSET], is_api, block, k)
        for d in range(len(dimensions)):
            dimension = dimensions[d]
            if dimension == D_IP or dimension == D_NET:
                members = address_keys_kernel(dimension, numbers, ip_high, ip_low, block, count)
            elif dimension == D_ASN or dimension == D_ROUTE:
                members = other_keys_kernel(dimension, numbers, text_length, block, count)
            else:
                members = text_keys_kernel(
                    dimension, numbers, text_start, text_length, buffer, service, service_length, texts, seeds, block, count
                )
            for m in range(members):
                h = hash_words_kernel(seeds, block.key[m, 0], block.key[m, 1], U64(dimension))
                block.key[m, 2] = h
                prefetch(table.slots, np.int64((h ^ (U64(block.tick[block.member[m]]) * TICK_MIX)) & mask), 0)
            against = AGAINST_ADDRESS if dimension == D_IP or dimension == D_NET or dimension == D_ASN else AGAINST_KEY
            for m in range(members):
                k = block.member[m]
                t = block.tick[k]
                a, b, h = block.key[m, 0], block.key[m, 1], block.key[m, 2]
                mixed = h ^ (U64(t) * TICK_MIX)
                slot = mixed & mask
                found = np.int64(-1)
                while table.slots[slot] != ZERO:
                    if table.slots[slot] >> U64(32) == mixed >> U64(32):
                        row = np.int64(table.slots[slot] & LOW) - 1
                        same = records[row, C_KEY_A] == np.int64(a) and records[row, C_KEY_B] == np.int64(b)
                        if same and records[row, C_TICK] == t and records[row, C_DIMENSION] == dimension:
                            found = row
                            break
                    slot = (slot + U64(1)) & mask
                if found >= 0:
                    add_measures(
                        records, found * RECORD_WORDS + C_MEASURES, block.measures, k * MEASURES, block.evidence[k, against]
                    )
                else:
                    found = rows
                    rows += 1
                    table.slots[slot] = (mixed & ~LOW) | U64(rows)
                    length = name_kernel(
                        table, names_at, dimension, block.event[k], k, text_start, text_length, buffer, service,
                        service_length, routes, block,
                    )  # fmt: skip
                    records[found, C_HASH], records[found, C_KEY_A] = np.int64(h), np.int64(a)
                    records[found, C_KEY_B], records[found, C_TICK] = np.int64(b), t
                    records[found, C_DIMENSION], records[found, C_NAME] = dimension, names_at
                    records[found, C_NAME_LENGTH] = length
                    set_measures(
                        records, found * RECORD_WORDS + C_MEASURES, block.measures, k * MEASURES, block.evidence[k, against]
                    )
                    names_at += length
    clear_index_kernel(table, mask, rows)
    return rows, names_at, late, outside, tick_min, tick_max


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


@kernel
def order_kernel(records: Any, rows: Any, by_tick: Any, partitions: Any, order: Any, starts: Any, cursor: Any) -> None:
    """Order rows by judge partition, keeping the order of ``by_tick`` within one (stable counting sort).

    Args:
        records: i64[rows or more, RECORD_WORDS].
        by_tick: i64[kept]: indices of the rows that are kept, by tick; empty: all rows, which are in tick order already.
        order: i64[kept] out.
        starts: i64[partitions + 1] out.
        cursor: i64[partitions], scratch.
    """
    for p in range(partitions + 1):
        starts[p] = 0
    many = U64(partitions)
    count = len(by_tick) if len(by_tick) > 0 else rows
    for k in range(count):
        r = by_tick[k] if len(by_tick) > 0 else k
        starts[np.int64((U64(records[r, C_HASH]) >> U64(32)) % many) + 1] += 1
    for p in range(partitions):
        starts[p + 1] += starts[p]
        cursor[p] = starts[p]
    for k in range(count):
        r = by_tick[k] if len(by_tick) > 0 else k
        q = np.int64((U64(records[r, C_HASH]) >> U64(32)) % many)
        order[cursor[q]] = r
        cursor[q] += 1


@kernel
def is_ordered_kernel(records: Any, rows: Any) -> Any:
    """True when ticks never go down from row to row."""
    for r in range(1, rows):
        if records[r, C_TICK] < records[r - 1, C_TICK]:
            return False
    return True
