"""Choose a few of each second's events while they are grouped: the sample (`schemas.sample`) in the making.

`sample_block_kernel` looks at the events of a block after their services are known. Most events of a busy cell are turned
away by their priority, before anything is written; the others become candidates. What a candidate says is only put down once
the whole batch has been looked at (`detectors.kernels.sample_keeping`): until then half of them are turned away, too, because
the level of their cell has risen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.blocks import (
    F_AUTH_FAILED,
    F_CANCELLED,
    F_HAS_IP,
    F_REGISTRATION,
    M_NON_ASSET,
    M_OWN_DENIALS,
    N_FLAGS,
    N_STATUS,
    N_TIME,
    T_ACCOUNT,
    T_AGENT,
    T_API_KEY,
    T_PATH,
)
from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.machine import leading_zeros
from detectors.kernels.memo import mark_kernel, text_key_kernel
from detectors.kernels.sample_table import (
    G_BELOW,
    G_RANKS,
    G_SEEN,
    KEPT_MAX,
    O_AGENT,
    O_CELL,
    O_EVENT,
    O_PRIORITY,
    O_ROUTE,
    O_SEEN,
    O_WHO,
    Q_CANDIDATES,
    Q_LAST,
    Q_LEFT_OUT,
    RANKS,
    SEEN_WORDS,
    cell_kernel,
    raise_level_kernel,
)
from schemas.compiled import inlined, part
from schemas.sample import S_LEVEL, S_SERVICE_A, S_SERVICE_B, S_TICK, S_TOTAL, Stratum

U64 = np.uint64
ZERO, _S32 = U64(0), U64(32)
REGISTERED, FAILED, ACCOUNTS = int(Stratum.REGISTERED), int(Stratum.FAILED), int(Stratum.ACCOUNTS)
ASSETS, PAGES = int(Stratum.ASSETS), int(Stratum.PAGES)


@part
def sample_block_kernel(
    numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any, service: Any,
    texts: Any, block: Any, count: Any, seconds: Any, sample: Any,
) -> None:  # fmt: skip
    """Offer the events of a block to the sample. Their services are the keys of the block.

    ``seconds`` is how many the tally spans until now.
    """
    cells, progress = sample.cells, sample.progress
    prioritise_kernel(numbers, ip_high, ip_low, text_start, text_length, buffer, seeds, texts, block, count)
    for k in range(count):
        stratum = block.stratum[k]
        if stratum < 0:
            continue
        i = block.event[k]
        a, b, t = np.int64(block.key[k, 0]), np.int64(block.key[k, 1]), block.tick[k]
        cell = progress[Q_LAST + stratum]
        if cell < 0 or cells[cell, S_TICK] != t or cells[cell, S_SERVICE_A] != a or cells[cell, S_SERVICE_B] != b:
            cell = cell_kernel(sample, t, a, b, stratum, seconds, text_start, text_length, buffer, service, i)
            if cell < 0:
                progress[Q_LEFT_OUT] += 1
                continue
            progress[Q_LAST + stratum] = cell
        route = np.int64(block.route_key[k, 0]) if text_length[T_PATH, i] > 0 else np.int64(0)
        offer_kernel(sample, cell, block.priority[k], i, np.int64(block.who[k]), route, np.int64(block.agent[k]))


@inlined
def offer_kernel(sample: Any, cell: Any, priority: Any, i: Any, who: Any, route: Any, agent: Any) -> None:
    """Count event ``i`` in its cell, of which it becomes a candidate if its priority is low enough."""
    cells, progress, candidates = sample.cells, sample.progress, sample.candidates
    rank, c = leading_zeros(priority), progress[Q_CANDIDATES]
    seen, bit = G_SEEN + np.int64(priority & U64(SEEN_WORDS - 1)), np.int64(U64(1) << (priority >> U64(3) & U64(63)))
    was_seen, is_below = np.int64(cells[cell, seen] & bit != 0), np.int64(rank >= cells[cell, S_LEVEL])
    # Without a branch, because none of this can be foretold; what is no candidate is written over by the next one.
    candidates[c, O_CELL], candidates[c, O_EVENT], candidates[c, O_PRIORITY] = cell, i, np.int64(priority)
    candidates[c, O_SEEN], candidates[c, O_WHO] = was_seen, who
    candidates[c, O_ROUTE], candidates[c, O_AGENT] = route, agent
    progress[Q_CANDIDATES] = c + is_below
    is_first = is_below & ~was_seen
    cells[cell, S_TOTAL] += 1
    cells[cell, seen] |= bit * is_below
    cells[cell, G_RANKS + min(rank, RANKS - 1)] += is_first
    cells[cell, G_BELOW] += is_first
    while cells[cell, G_BELOW] > KEPT_MAX:
        raise_level_kernel(sample, cell)


@inlined
def prioritise_kernel(
    numbers: Any, ip_high: Any, ip_low: Any, text_start: Any, text_length: Any, buffer: Any, seeds: Any, texts: Any, block: Any,
    count: Any,
) -> None:  # fmt: skip
    """Write down of the events of a block which stratum each is of, whose it is, and its priority.

    Before any of them is turned away: whether one is cannot be foretold, and all that is begun of the next ones is lost then.
    """
    for k in range(count):
        i = block.event[k]
        flags = numbers[N_FLAGS, i]
        who_text = T_ACCOUNT if text_length[T_ACCOUNT, i] > 0 else T_API_KEY
        stratum = stratum_kernel(flags, numbers[N_STATUS, i], text_length[who_text, i] > 0, block.measures[k, M_NON_ASSET])
        who = attribute_kernel(texts, seeds, text_start, text_length, buffer, who_text, i)
        route = block.route_key[k, 0] if text_length[T_PATH, i] > 0 else ZERO
        high, low = address_kernel(flags, ip_high[i], ip_low[i])
        length = np.int64(text_length[T_AGENT, i])
        mark = mark_kernel(buffer, np.int64(text_start[T_AGENT, i]) if length > 0 else np.int64(0), length)
        # Routes and accounts are words under the secret seed: nobody can choose what meets them so that two events are one.
        counts = U64(stratum != ACCOUNTS)
        time_and_route, address = (route ^ U64(numbers[N_TIME, i])) * counts, (high ^ low) * counts
        block.priority[k] = hash_words_kernel(seeds, time_and_route, address, who ^ (mark * counts))
        block.who[k], block.stratum[k] = who, np.int64(-1) if block.measures[k, M_OWN_DENIALS] != 0 else stratum


@inlined
def address_kernel(flags: Any, high: Any, low: Any) -> Any:
    """(u64, u64): the words of an event's address as the sample has them: of IPv6 the /64, zeros where there is none."""
    named = flags & F_HAS_IP != 0
    is_v4 = (high == ZERO) & (low >> _S32 == U64(0xFFFF))
    return high if named else ZERO, low if named & is_v4 else ZERO


@inlined
def stratum_kernel(flags: Any, status: Any, named: Any, non_asset: Any) -> Any:
    """Which `Stratum` an event belongs to: the first that fits. Chosen without branches, which nobody could foretell."""
    auth_failed = flags & F_AUTH_FAILED != 0
    registered = (flags & F_REGISTRATION != 0) & (not auth_failed) & (status < 400)
    failed = auth_failed | ((status >= 400) & (status < 500) & (flags & F_CANCELLED == 0))
    stratum = ASSETS + (PAGES - ASSETS) * non_asset
    stratum = ACCOUNTS if named else stratum
    stratum = FAILED if failed else stratum
    return np.int64(REGISTERED) if registered else np.int64(stratum)


@inlined
def attribute_kernel(texts: Any, seeds: Any, text_start: Any, text_length: Any, buffer: Any, text: Any, i: Any) -> Any:
    """u64: the first word of a text's key; 0 where there is none."""
    length = np.int64(text_length[text, i])
    if length == 0:
        return ZERO
    return text_key_kernel(texts, seeds, buffer, np.int64(text_start[text, i]), length)[0]
