"""Group a batch of events by (tick, dimension, key): the inner loop of observe.

`group_kernel` walks the events once, in offset order. It decides whether each is late, writes down what it measures, and
adds that into one row per (tick, dimension, key) through an open-addressing index. `order_kernel` then orders the rows by
judge partition, and by tick within one, which is how a judge takes them in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.hashing import hash_bytes_kernel, hash_words_kernel
from detectors.kernels.routes import fold_route_kernel, is_asset_kernel, path_end_kernel
from schemas.compiled import inlined, kernel
from schemas.decoding.machine import byte_at
from schemas.fields import Dimension, Flag, Measure, Number, Text
from schemas.tally import NAME_BYTES_MAX, UNKNOWN_MS

U64 = np.uint64

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

ADDRESS_EVIDENCE, KEY_EVIDENCE = 1, 2
"""Bits of ``evidence``: may the event be held against addresses, and against keys, accounts and routes."""
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


@inlined
def measure_kernel(numbers: Any, i: Any, asset: Any, row: Any) -> None:
    """Write what event ``i`` adds to every row it belongs to into ``row`` (i64[MEASURES]); evidence is left 0."""
    status = numbers[N_STATUS, i]
    flags = numbers[N_FLAGS, i]
    denied = (flags & F_OWN_DENIAL) != 0
    auth_failed = (flags & F_AUTH_FAILED) != 0
    cancelled = (flags & F_CANCELLED) != 0
    row[M_REQUESTS] = 1
    row[M_NON_ASSET] = 0 if asset else 1
    row[M_AUTH_FAILURES] = 1 if auth_failed and not denied else 0
    row[M_OWN_DENIALS] = 1 if denied else 0
    row[M_CANCELLED] = 1 if cancelled else 0
    row[M_CLIENT_ERRORS] = 1 if 400 <= status < 500 and not (denied or auth_failed or cancelled) else 0
    row[M_SERVER_ERRORS] = 1 if status >= 500 and not denied else 0
    row[M_DURATION] = max(numbers[N_DURATION, i], 0)
    row[M_BYTES] = max(numbers[N_BYTES, i], 0)
    row[M_TOKENS_IN] = max(numbers[N_TOKENS_IN, i], 0)
    row[M_TOKENS_OUT] = max(numbers[N_TOKENS_OUT, i], 0)
    row[M_TOKENS_CACHED] = max(numbers[N_TOKENS_CACHED, i], 0)
    row[M_MAX_TOKENS] = max(numbers[N_MAX_TOKENS, i], 0)
    row[M_COST] = max(numbers[N_COST, i], 0)
    row[M_EVIDENCE] = 0
    row[M_REGISTRATIONS] = 1 if flags & F_REGISTRATION else 0


@inlined
def evidence_kernel(flags: Any, status: Any, asset: Any, is_api: Any) -> Any:
    """Against whom the event may be held: bits of ADDRESS_EVIDENCE and KEY_EVIDENCE.

    Our own denials and static assets weigh nothing. In the ``api`` profile a successful authenticated request says
    something about its key and account, and nothing about its address.
    """
    if asset or flags & F_OWN_DENIAL:
        return 0
    authenticated = (flags & F_AUTHENTICATED) != 0 and (flags & F_AUTH_FAILED) == 0
    if is_api and authenticated and not 400 <= status < 500:
        return KEY_EVIDENCE
    return ADDRESS_EVIDENCE | KEY_EVIDENCE


@kernel
def group_kernel(
    dimensions: Any, numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, n: Any,
    is_api: Any, lateness_ms: Any, from_ms: Any, to_ms: Any, clock: Any, seeds: Any, service: Any, index: Any,
    row_hash: Any, row_dimension: Any, row_a: Any, row_b: Any, row_tick: Any, row_measures: Any, name_start: Any,
    name_length: Any, names: Any, scratch: Any, measures: Any,
) -> Any:  # fmt: skip
    """Add the events of a batch into rows.

    Args:
        dimensions: i64[d], the dimensions that are counted.
        numbers: i64[NUMBERS, capacity].
        from_ms, to_ms: events outside ``from_ms <= time < to_ms`` move the clock and are left out.
        clock: i64[CLOCK_WORDS], the source partition's, advanced.
        seeds: u64[2].
        service: u8[length + 64], the service of events that name no host.
        index: i32[power of two >= 2 * n * d], all -1; left so.
        row_*: out, one row per (tick, dimension, key), in order of first appearance.
        names: u8[...] out, the names of text keys; ``name_start`` and ``name_length`` are spans of it.
        scratch: u8[>= ROUTE_BYTES_MAX + 64] for the folded route.
        measures: i64[MEASURES], scratch.

    Returns:
        (rows, bytes of names, late events, events outside, least tick, greatest tick).
    """
    mask = U64(len(index) - 1)
    rows = 0
    names_at: Any = 0
    late = 0
    outside = 0
    tick_min, tick_max = np.int64(2**62), np.int64(-(2**62))
    seed_0, seed_1 = seeds[0], seeds[1]
    zero = U64(0)
    service_length = np.int64(len(service) - 64)
    service_a, service_b = hash_bytes_kernel(seed_0, seed_1, service, np.int64(0), service_length)
    for i in range(n):
        time_ms = numbers[N_TIME, i]
        if advance_clock_kernel(clock, time_ms, lateness_ms):
            late += 1
            continue
        if time_ms < from_ms or time_ms >= to_ms:
            outside += 1
            continue
        t = time_ms // 1000
        tick_min = min(tick_min, t)
        tick_max = max(tick_max, t)
        flags = numbers[N_FLAGS, i]
        path_start = np.int64(text_start[T_PATH, i])
        path_end = path_end_kernel(buffer, path_start, np.int64(text_length[T_PATH, i]))
        asset = is_asset_kernel(buffer, path_start, path_end)
        measure_kernel(numbers, i, asset, measures)
        evidence = evidence_kernel(flags, numbers[N_STATUS, i], asset, is_api)
        for d in range(len(dimensions)):
            dimension = dimensions[d]
            source = buffer
            start = np.int64(0)
            length = np.int64(0)
            wanted = ADDRESS_EVIDENCE
            if dimension == D_IP or dimension == D_NET:
                if flags & F_HAS_IP == 0:
                    continue
                a, b = ip_high[i], ip_low[i]
                if a == zero and (b >> U64(32)) == U64(0xFFFF):
                    if dimension == D_NET:
                        b = b & U64(0xFFFFFFFFFFFFFF00)
                else:
                    b = zero
                    if dimension == D_NET:
                        a = a & U64(0xFFFFFFFFFFFF0000)
            elif dimension == D_ASN:
                if numbers[N_ASN, i] < 0:
                    continue
                a, b = U64(numbers[N_ASN, i]), zero
            elif dimension == D_ROUTE:
                if text_length[T_PATH, i] == 0:
                    continue
                wanted = KEY_EVIDENCE
                source = scratch
                length = fold_route_kernel(
                    buffer, np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i]), path_start, path_end, scratch
                )
                a, b = hash_bytes_kernel(seed_0, seed_1, scratch, np.int64(0), length)
            else:
                if dimension == D_API_KEY or dimension == D_ACCOUNT or dimension == D_EMAIL_DOMAIN:
                    if flags & F_AUTH_FAILED:
                        continue  # a failed authentication is no state for whom it names
                    wanted = KEY_EVIDENCE
                elif dimension == D_SERVICE:
                    wanted = KEY_EVIDENCE
                text = TEXT_OF_DIMENSION[dimension]
                start = np.int64(text_start[text, i])
                length = np.int64(text_length[text, i])
                if length > 0:
                    a, b = hash_bytes_kernel(seed_0, seed_1, buffer, start, length)
                elif dimension == D_SERVICE:
                    source, length = service, service_length
                    a, b = service_a, service_b
                else:
                    continue
            h = hash_words_kernel(seed_0, seed_1, a, b, U64(dimension))
            slot = (h ^ (U64(t) * U64(0x9E3779B97F4A7C15))) & mask
            row = index[slot]
            while row >= 0:
                if row_hash[row] == h and row_tick[row] == t and row_a[row] == a and row_b[row] == b:
                    if row_dimension[row] == dimension:
                        break
                slot = (slot + U64(1)) & mask
                row = index[slot]
            if row < 0:
                row = rows
                rows += 1
                index[slot] = row
                row_hash[row] = h
                row_dimension[row] = dimension
                row_a[row] = a
                row_b[row] = b
                row_tick[row] = t
                name_start[row] = names_at
                kept: Any = length if length < NAME_LENGTH else NAME_LENGTH
                name_length[row] = kept
                for k in range(kept):
                    names[names_at + k] = byte_at(source, start + k)
                names_at += kept
                for m in range(16):
                    row_measures[row, m] = measures[m]
            else:
                for m in range(16):
                    row_measures[row, m] += measures[m]
            if evidence & wanted:
                row_measures[row, M_EVIDENCE] += 1
    clear_index_kernel(index, mask, row_hash, row_tick, rows)
    return rows, names_at, late, outside, tick_min, tick_max


@kernel
def clear_index_kernel(index: Any, mask: Any, row_hash: Any, row_tick: Any, rows: Any) -> None:
    """Empty the index again: all of it, or only where rows were put when those are few."""
    if rows * 8 > len(index):
        index[:] = -1
        return
    for r in range(rows):
        slot = (row_hash[r] ^ (U64(row_tick[r]) * U64(0x9E3779B97F4A7C15))) & mask
        while index[slot] >= 0:
            index[slot] = -1
            slot = (slot + U64(1)) & mask


@kernel
def order_kernel(
    row_hash: Any, row_tick: Any, rows: Any, by_tick: Any, partitions: Any, order: Any, starts: Any, cursor: Any
) -> None:
    """Order rows by judge partition, keeping the order of ``by_tick`` within one (stable counting sort).

    Args:
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
        starts[np.int64((row_hash[r] >> U64(32)) % many) + 1] += 1
    for p in range(partitions):
        starts[p + 1] += starts[p]
        cursor[p] = starts[p]
    for k in range(count):
        r = by_tick[k] if len(by_tick) > 0 else k
        q = np.int64((row_hash[r] >> U64(32)) % many)
        order[cursor[q]] = r
        cursor[q] += 1


@kernel
def is_ordered_kernel(row_tick: Any, rows: Any) -> Any:
    """True when ticks never go down from row to row."""
    for r in range(1, rows):
        if row_tick[r] < row_tick[r - 1]:
            return False
    return True
