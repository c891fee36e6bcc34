"""A block of events: what each measures, against whom it may be held, and its key in each dimension."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.machine import allocate_lines, copy_bytes, equal_bytes
from detectors.kernels.memo import L_ROUTE, agent_kernel, route_start_kernel, text_key_kernel
from detectors.kernels.routes import ROUTE_BYTES_MAX, fold_route_kernel, path_end_kernel
from schemas.compiled import inlined
from schemas.decoding.machine import word_at
from schemas.fields import BUSY_MS_MAX, MEASURES, VALUES, Dimension, Flag, Item, Measure, Number, Text
from schemas.tally import NAME_BYTES_MAX

U64 = np.uint64
I64Array = npt.NDArray[np.int64]
ZERO = U64(0)

N_TIME, N_DURATION, N_STATUS = int(Number.TIME_MS), int(Number.DURATION_MS), int(Number.STATUS)
N_FLAGS, N_ASN = int(Number.FLAGS), int(Number.ASN)
N_BYTES, N_TOKENS_IN, N_TOKENS_OUT = int(Number.BYTES), int(Number.TOKENS_IN), int(Number.TOKENS_OUT)
N_MAX_TOKENS, N_COST = int(Number.MAX_TOKENS), int(Number.COST_MICRO)
T_METHOD, T_PATH, T_HOST = int(Text.METHOD), int(Text.PATH), int(Text.HOST)
T_COUNTRY, T_AGENT = int(Text.COUNTRY), int(Text.USER_AGENT)
T_ACCOUNT, T_API_KEY, T_MODEL = int(Text.ACCOUNT), int(Text.API_KEY), int(Text.MODEL)
M_REQUESTS, M_NON_ASSET, M_CLIENT_ERRORS = int(Measure.REQUESTS), int(Measure.NON_ASSET), int(Measure.CLIENT_ERRORS)
M_AUTH_FAILURES, M_SERVER_ERRORS = int(Measure.AUTH_FAILURES), int(Measure.SERVER_ERRORS)
M_OWN_DENIALS, M_CANCELLED, M_DURATION = int(Measure.OWN_DENIALS), int(Measure.CANCELLED), int(Measure.DURATION_MS)
M_BYTES, M_TOKENS_IN, M_TOKENS_OUT = int(Measure.BYTES), int(Measure.TOKENS_IN), int(Measure.TOKENS_OUT)
M_LOGIN_FAILURES, M_MAX_TOKENS, M_COST = int(Measure.LOGIN_FAILURES), int(Measure.MAX_TOKENS), int(Measure.COST_MICRO)
M_EVIDENCE, M_REGISTRATIONS = int(Measure.EVIDENCE), int(Measure.REGISTRATIONS)
M_BUSY, M_LISTED, M_WASTED = int(Measure.BUSY_MS), int(Measure.LISTED), int(Measure.WASTED_TOKENS)
F_HAS_IP, F_AUTHENTICATED, F_AUTH_FAILED = int(Flag.HAS_IP), int(Flag.AUTHENTICATED), int(Flag.AUTH_FAILED)
F_REGISTRATION, F_CANCELLED, F_OWN_DENIAL = int(Flag.REGISTRATION), int(Flag.CANCELLED), int(Flag.OWN_DENIAL)
F_VERIFICATION = int(Flag.VERIFICATION)
D_SERVICE, D_IP, D_NET, D_ASN = int(Dimension.SERVICE), int(Dimension.IP), int(Dimension.NET), int(Dimension.ASN)
D_ROUTE = int(Dimension.ROUTE)
D_API_KEY, D_ACCOUNT = int(Dimension.API_KEY), int(Dimension.ACCOUNT)
D_EMAIL_DOMAIN = int(Dimension.EMAIL_DOMAIN)

I_NET, I_COUNTRY, I_FAILED_ROUTE = int(Item.NET), int(Item.COUNTRY), int(Item.FAILED_ROUTE)
I_AGENT, I_ACCOUNT = int(Item.USER_AGENT), int(Item.ACCOUNT)
WANT_LISTED, WANT_REST, WANT_SAMPLE, WANT_MODELS, OF_KEYS = range(len(Item), len(Item) + 5)
"""Bits behind those of the items in what a configuration wants: listed agents, any value from `COMMON` on, the sample, the
models that API keys ask for; and from `OF_KEYS` on again one for each item: set where only rows of API keys want it."""

WANT_AGENTS = 1 << I_AGENT | 1 << WANT_LISTED
"""Any of these bits: user agents are looked up."""
WANT_ACCOUNTS = 1 << I_ACCOUNT | 1 << WANT_SAMPLE
"""Any of these: accounts are."""

TEXT_OF_DIMENSION = np.full(len(Dimension), -1, np.int64)
"""Which text column holds the key of a dimension; -1 where the key is made of something else."""
for _dimension, _text in (
    (Dimension.API_KEY, Text.API_KEY), (Dimension.ACCOUNT, Text.ACCOUNT), (Dimension.USER_AGENT, Text.USER_AGENT),
    (Dimension.FINGERPRINT, Text.FINGERPRINT), (Dimension.EMAIL_DOMAIN, Text.EMAIL_DOMAIN), (Dimension.SERVICE, Text.HOST),
    (Dimension.COUNTRY, Text.COUNTRY),
):  # fmt: skip
    TEXT_OF_DIMENSION[_dimension] = _text

AGAINST_ADDRESS, AGAINST_KEY = 0, 1
"""Columns of ``Block.evidence``: may the event be held against addresses, and against keys, accounts and routes."""
AGAINST = np.full(len(Dimension), AGAINST_ADDRESS, np.int64)
"""Which of the two counts for a dimension: what only says where a client comes from or what it runs is like its address."""
AGAINST[[D_SERVICE, D_API_KEY, D_ACCOUNT, D_ROUTE, D_EMAIL_DOMAIN]] = AGAINST_KEY
BLOCK = 256
"""Events whose rows are sought together: the index is asked for ahead, and each dimension has a loop of its own."""
NAME_LENGTH = int(NAME_BYTES_MAX)
_MODEL_MIX, _ODD = U64(0x9E3779B97F4A7C15), U64(1)
BUSY_MS = int(BUSY_MS_MAX)


class Block(NamedTuple):
    """What is known of up to `BLOCK` events before their rows are sought: scratch that the caller owns."""

    tick: I64Array  # i64[BLOCK]
    measures: I64Array  # i64[BLOCK, VALUES]: measures, of which evidence is added last, and sets
    evidence: I64Array  # i64[BLOCK, 2]: may it be held against addresses, and against keys, accounts and routes
    event: I64Array  # i64[BLOCK]: index in the batch
    route: I64Array  # i64[BLOCK]: entry of the memo of routes
    route_key: npt.NDArray[np.uint64]  # u64[BLOCK, 2]
    agent: npt.NDArray[np.uint64]  # u64[BLOCK]: first word of the user agent's key, where agents are wanted
    who: npt.NDArray[np.uint64]  # u64[BLOCK]: of the account or key, as are the next two where samples are wanted
    priority: npt.NDArray[np.uint64]  # u64[BLOCK]: in the sample
    stratum: I64Array  # i64[BLOCK]: `schemas.sample.Stratum`; -1: we denied it ourselves
    member: I64Array  # i64[BLOCK]: those that have a key of the dimension at hand
    key: npt.NDArray[np.uint64]  # u64[BLOCK, 3]: its words and its hash
    scratch: npt.NDArray[np.uint8]  # u8[ROUTE_BYTES_MAX + 64]


def allocate_block() -> Block:
    """Scratch for `group_kernel`: 63 kB, which stay in the nearest cache."""
    return Block(
        tick=np.zeros(BLOCK, np.int64),
        measures=allocate_lines((BLOCK, VALUES), np.int64),
        evidence=np.zeros((BLOCK, 2), np.int64),
        event=np.zeros(BLOCK, np.int64),
        route=np.zeros(BLOCK, np.int64),
        route_key=np.zeros((BLOCK, 2), np.uint64),
        agent=np.zeros(BLOCK, np.uint64),
        who=np.zeros(BLOCK, np.uint64),
        priority=np.zeros(BLOCK, np.uint64),
        stratum=np.zeros(BLOCK, np.int64),
        member=np.zeros(BLOCK, np.int64),
        key=np.zeros((BLOCK, 3), np.uint64),
        scratch=np.zeros(ROUTE_BYTES_MAX + 64, np.uint8),
    )


@inlined
def measure_kernel(numbers: Any, text_length: Any, i: Any, asset: Any, is_api: Any, block: Any, k: Any) -> None:
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
    row[k, M_CLIENT_ERRORS] = refused & ~(denied | auth_failed | cancelled | asset)
    failing = np.int64(status >= 500)
    row[k, M_SERVER_ERRORS] = failing & ~denied
    row[k, M_DURATION] = max(numbers[N_DURATION, i], 0)
    row[k, M_BYTES] = max(numbers[N_BYTES, i], 0)
    row[k, M_TOKENS_IN] = max(numbers[N_TOKENS_IN, i], 0)
    row[k, M_TOKENS_OUT] = max(numbers[N_TOKENS_OUT, i], 0)
    row[k, M_LOGIN_FAILURES] = row[k, M_AUTH_FAILURES] & ~asset & np.int64(text_length[T_API_KEY, i] == 0)
    row[k, M_MAX_TOKENS] = max(numbers[N_MAX_TOKENS, i], 0) * (1 - (failing | denied))
    row[k, M_COST] = max(numbers[N_COST, i], 0)
    row[k, M_EVIDENCE] = 0
    row[k, M_REGISTRATIONS] = np.int64((flags & F_REGISTRATION) != 0)
    row[k, M_BUSY] = min(row[k, M_DURATION], BUSY_MS)
    row[k, M_LISTED] = 0
    row[k, M_WASTED] = row[k, M_TOKENS_IN] * cancelled
    weighs = (1 - asset) & ~denied
    authenticated = np.int64((flags & F_AUTHENTICATED) != 0) & ~auth_failed
    block.evidence[k, AGAINST_KEY] = weighs
    block.evidence[k, AGAINST_ADDRESS] = weighs & ~(np.int64(is_api) & authenticated & ~refused)


@inlined
def items_kernel(
    wanted: Any, numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, i: Any, seeds: Any,
    texts: Any, agents: Any, words: Any, route_word: Any, block: Any, k: Any,
) -> None:  # fmt: skip
    """Write the sets that event ``i`` adds to: of each item one bin of 64, chosen under the secret seed.

    ``wanted`` has a bit for each item that some rule counts, and `WANT_LISTED`.
    """
    row = block.measures
    if wanted == 0:
        return
    for item in range(VALUES - MEASURES):
        row[k, MEASURES + item] = 0
    if wanted & (1 << I_NET) and numbers[N_FLAGS, i] & F_HAS_IP:
        a, b = ip_high[i], ip_low[i]
        if a == ZERO and (b >> U64(32)) == U64(0xFFFF):
            b = b & U64(0xFFFFFFFFFFFFFF00)
        else:
            a, b = a & U64(0xFFFFFFFFFFFF0000), ZERO
        row[k, MEASURES + I_NET] = _bin(hash_words_kernel(seeds, a, b, U64(D_NET)))
    if wanted & (1 << I_FAILED_ROUTE) and row[k, M_CLIENT_ERRORS] | row[k, M_AUTH_FAILURES] != 0:
        row[k, MEASURES + I_FAILED_ROUTE] = _bin(route_word)
    if wanted & (1 << I_COUNTRY) and text_length[T_COUNTRY, i] > 0:
        start, length = np.int64(text_start[T_COUNTRY, i]), np.int64(text_length[T_COUNTRY, i])
        row[k, MEASURES + I_COUNTRY] = _bin(text_key_kernel(texts, seeds, buffer, start, length)[0])
    block.agent[k] = ZERO
    if wanted & WANT_AGENTS and text_length[T_AGENT, i] > 0:
        start, length = np.int64(text_start[T_AGENT, i]), np.int64(text_length[T_AGENT, i])
        word, listed = agent_kernel(agents, seeds, words, buffer, start, length)
        block.agent[k] = word
        row[k, MEASURES + I_AGENT] = _bin(word)
        row[k, M_LISTED] = listed
    if wanted & (1 << I_ACCOUNT):
        text = T_ACCOUNT if text_length[T_ACCOUNT, i] > 0 else T_API_KEY
        length = np.int64(text_length[text, i])
        if length > 0:
            start = np.int64(text_start[text, i])
            row[k, MEASURES + I_ACCOUNT] = _bin(text_key_kernel(texts, seeds, buffer, start, length)[0])


@inlined
def _bin(word: Any) -> Any:
    """i64 with the bit set that the upper six bits of a hash say."""
    return np.int64(U64(1) << (word >> U64(58)))


@inlined
def model_bin_kernel(seeds: Any, buffer: Any, start: Any, length: Any) -> Any:
    """i64 with the bit of a model's name set: of 64, chosen under the secret seed.

    Names are short and few, so that hashing one, cheaply, costs less than remembering what it was hashed to: no branch, because
    their lengths come as they like, but four words that lie evenly from its beginning to its end. Names of more than 32 bytes
    that differ in none of them are taken for one.
    """
    told = ~U64(0) >> (U64(64) - (U64(min(length, 8)) << U64(3)))
    room = max(length - 8, 0)
    third_of = (room * 43 + 64) >> 7
    first, second = word_at(buffer, start) & told, word_at(buffer, start + third_of) & told
    third, last = word_at(buffer, start + room - third_of) & told, word_at(buffer, start + room) & told
    h = (first * (seeds[2] | _ODD) + second * (seeds[3] | _ODD)) + (third * (seeds[4] | _ODD) + last * (seeds[5] | _ODD))
    h += U64(length) * (seeds[6] | _ODD)
    return _bin((h ^ (h >> U64(32))) * _MODEL_MIX)


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
        if length == 0:  # no host is named, and where it would stand may lie outside of the buffer
            a, b, last_length = service_a, service_b, length
        elif length != last_length or not equal_bytes(buffer, start, buffer, last_start, length):
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
def route_name_kernel(
    routes: Any, block: Any, k: Any, buffer: Any, method_start: Any, method_length: Any, path_start: Any, path_length: Any
) -> Any:
    """Write the name of an event's route to ``block.scratch``; returns its length."""
    entry = block.route[k]
    if routes.key[entry, 0] == block.route_key[k, 0] and routes.key[entry, 1] == block.route_key[k, 1]:
        length: Any = routes.length[entry, L_ROUTE]
        copy_bytes(block.scratch, np.int64(0), routes.route, route_start_kernel(entry), length)
        return length
    # Another path has taken its place since.
    end = path_end_kernel(buffer, path_start, path_length)
    return fold_route_kernel(buffer, method_start, method_length, path_start, end, block.scratch, np.int64(0))


@inlined
def name_kernel(
    table: Any, names_at: Any, dimension: Any, i: Any, k: Any, text_start: Any, text_length: Any, buffer: Any, service: Any,
    service_length: Any, routes: Any, block: Any,
) -> Any:  # fmt: skip
    """Write the name of a new row's key to ``table.names``; returns its length."""
    if dimension == D_ROUTE:
        length: Any = route_name_kernel(
            routes, block, k, buffer, np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i]),
            np.int64(text_start[T_PATH, i]), np.int64(text_length[T_PATH, i]),
        )  # fmt: skip
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
