"""Choose a few of each second's events while they are grouped: the sample (`schemas.sample`) in the making.

`sample_block_kernel` looks at the events of a block after their services are known. Most events of a busy cell are turned
away by their priority, before anything is written; the others become candidates. What a candidate says is only put down once
the whole batch has been looked at (`keep_candidates_kernel`): until then half of them are turned away, too, because the level
of their cell has risen. `detectors.kernels.sample_order` makes a `Sample` of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.kernels.blocks import (
    F_AUTH_FAILED,
    F_CANCELLED,
    F_HAS_IP,
    F_REGISTRATION,
    M_NON_ASSET,
    M_OWN_DENIALS,
    N_ASN,
    N_FLAGS,
    N_STATUS,
    N_TIME,
    T_ACCOUNT,
    T_AGENT,
    T_API_KEY,
    T_COUNTRY,
    T_HOST,
    T_METHOD,
    T_PATH,
    WANT_AGENTS,
)
from detectors.kernels.hashing import hash_words_kernel
from detectors.kernels.machine import copy_bytes, leading_zeros, prefetch
from detectors.kernels.memo import L_ROUTE, mark_kernel, route_entry_kernel, route_start_kernel, text_key_kernel
from detectors.kernels.names import RANK_MAX, notes_kernel
from schemas.compiled import inlined, part
from schemas.fields import Text
from schemas.sample import (
    CELL_WORDS,
    E_CELL,
    E_IP_HIGH,
    E_PRIORITY,
    E_WEIGHT,
    ENTRY_WORDS,
    KEPT,
    S_LEVEL,
    S_SERVICE_A,
    S_SERVICE_B,
    S_STRATUM,
    S_TICK,
    S_TOTAL,
    TEXT_BYTES_MAX,
    Attribute,
    Stratum,
)
from schemas.sample import VERIFIED as _VERIFIED

U64 = np.uint64
I64Array = npt.NDArray[np.int64]
I32Array = npt.NDArray[np.int32]
ZERO = U64(0)
TICK_MIX, _STRATUM_MIX, _S32 = U64(0x9E3779B97F4A7C15), U64(0xC2B2AE3D27D4EB4F), U64(32)
T_FINGERPRINT, T_EMAIL_DOMAIN = int(Text.FINGERPRINT), int(Text.EMAIL_DOMAIN)
T_REFERRER, T_USER_NAME = int(Text.REFERRER), int(Text.USER_NAME)
REGISTERED, FAILED, ACCOUNTS = int(Stratum.REGISTERED), int(Stratum.FAILED), int(Stratum.ACCOUNTS)
ASSETS, PAGES, VERIFIED = int(Stratum.ASSETS), int(Stratum.PAGES), int(_VERIFIED)
KEPT_MAX, TEXT_MAX = int(KEPT), int(TEXT_BYTES_MAX)
CELLS_PER_SECOND = 64 * len(Stratum)
"""64 services in each second that a tally spans: whoever invents more with Host headers of his own gets no cell for them."""
TEXT_ROOM_BYTES = 2 << 20
"""All texts of a tally together: 50,000 of 40 bytes. So its part for one judge partition stays far below the 16 MiB that a
broker takes, even if every event had five texts that nobody else has."""

SEEN_WORDS, RANKS = 8, 32
G_COUNT, G_TEXT, G_SEEN = range(CELL_WORDS, CELL_WORDS + 3)
G_BELOW = G_SEEN + SEEN_WORDS
G_RANKS = G_BELOW + 1
CELL_COLUMNS = G_RANKS + RANKS
"""Behind the columns of a cell: how many entries it has, the text of its service, and bits of the priorities of its candidates:
one whose bit was not set has no equal there, and nobody looks for it. Those are counted: how many are below the bound of the
cell's level, and of each level those that are below no higher one's. So many entries at least there will be, and the level
rises before any of them is put down."""
AHEAD = 8
"""So many events ahead, what is sought in memory is fetched."""
ROOM = KEPT + 1
"""Entries of a cell before the one too many has gone."""
TEXTS = int(Attribute.WHO)
SAYS = ENTRY_WORDS - E_IP_HIGH
W_WORD, W_START, W_LENGTH, WORD_COLUMNS = range(4)
O_CELL, O_EVENT, O_PRIORITY, O_SEEN, O_WHO, O_ROUTE, O_AGENT, CANDIDATE = range(8)
"""Of an event that was offered and became a candidate: its cell, its index in the batch, its priority, whether the bit of that
was set, and the first words of its account, its route and (where agents are wanted) its user agent."""
Q_CELLS, Q_ENTRIES, Q_FREE, Q_WORDS, Q_TEXT, Q_LEFT_OUT, Q_CANDIDATES, Q_LAST = range(8)
"""How far a sample has come: cells, entries, how many of those are free again, words, bytes of text, what did not fit, the
candidates of the batch; then each stratum's last cell."""
SAMPLE_PROGRESS = Q_LAST + len(Stratum)


class SampleTable(NamedTuple):
    """A sample in the making. Slots hold a number + 1; 0 is empty."""

    progress: I64Array  # i64[SAMPLE_PROGRESS]
    cells: I64Array  # i64[events, CELL_COLUMNS]
    cell_slots: I32Array  # i32[power of two]
    priority: npt.NDArray[np.uint64]  # u64[events, ROOM]: of the entries of each cell, in any order …
    place: I32Array  # i32[events, ROOM]: … and where those entries are
    candidates: I64Array  # i64[events + 1, CANDIDATE], scratch of a batch: the columns O_…
    left: I64Array  # i64[events + 1], scratch: candidates that are left when the batch has been looked at
    entries: I64Array  # i64[events, ENTRY_WORDS]
    entry_text: I32Array  # i32[events, TEXTS]: which of the words each attribute is; -1: none
    free: I32Array  # i32[events]: entries that were dropped, the last one first to be taken
    words: I64Array  # i64[2 * events, WORD_COLUMNS]
    word_slots: I32Array
    text: npt.NDArray[np.uint8]
    says: I64Array  # i64[SAYS], scratch: the columns of an entry from E_IP_HIGH on …
    says_text: I32Array  # i32[TEXTS], … and their texts


def allocate_sample(events: int) -> SampleTable:
    """Room for the sample of so many events; memory is only touched as far as entries come."""
    slots = 1 << (2 * max(events, 1)).bit_length()
    table = SampleTable(
        progress=np.zeros(SAMPLE_PROGRESS, np.int64),
        cells=np.zeros((events, CELL_COLUMNS), np.int64),
        cell_slots=np.zeros(slots, np.int32),
        priority=np.zeros((events, ROOM), np.uint64),
        place=np.zeros((events, ROOM), np.int32),
        candidates=np.zeros((events + 1, CANDIDATE), np.int64),
        left=np.zeros(events + 1, np.int64),
        entries=np.zeros((events, ENTRY_WORDS), np.int64),
        entry_text=np.zeros((events, TEXTS), np.int32),
        free=np.zeros(events, np.int32),
        words=np.zeros((2 * events, WORD_COLUMNS), np.int64),
        word_slots=np.zeros(2 * slots, np.int32),
        text=np.zeros(TEXT_ROOM_BYTES if events else 0, np.uint8),
        says=np.zeros(SAYS, np.int64),
        says_text=np.zeros(TEXTS, np.int32),
    )
    start_sample(table)
    return table


def start_sample(table: SampleTable) -> None:
    """Begin a tally's; the slots are empty already."""
    table.progress[:Q_LAST] = 0
    table.progress[Q_LAST:] = -1


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
        rank = rank_kernel(hash_words_kernel(seeds, ZERO, ZERO, U64(who))) if who != 0 else np.int64(0)
        says[9] = notes_kernel(buffer, named_at, name, numbers[N_ASN, i], rank)


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
def is_below_kernel(priority: Any, level: Any) -> Any:
    """Is a priority below 2^64 / 2^level?"""
    return leading_zeros(priority) >= level


@inlined
def rank_kernel(priority: Any) -> Any:
    """i64: the highest level up to which a priority is below the bound."""
    return min(leading_zeros(priority), RANK_MAX)


@inlined
def attribute_kernel(texts: Any, seeds: Any, text_start: Any, text_length: Any, buffer: Any, text: Any, i: Any) -> Any:
    """u64: the first word of a text's key; 0 where there is none."""
    length = np.int64(text_length[text, i])
    if length == 0:
        return ZERO
    return text_key_kernel(texts, seeds, buffer, np.int64(text_start[text, i]), length)[0]


@part
def cell_kernel(
    sample: Any, t: Any, a: Any, b: Any, stratum: Any, seconds: Any, text_start: Any, text_length: Any, buffer: Any,
    service: Any, i: Any,
) -> Any:  # fmt: skip
    """The cell of a tick, service and stratum, found or made; -1: there are too many already."""
    cells, slots = sample.cells, sample.cell_slots
    slot = cell_slot_kernel(t, a, stratum, len(slots))
    while slots[slot] != 0:
        cell = np.int64(slots[slot]) - 1
        if cells[cell, S_TICK] == t and cells[cell, S_SERVICE_A] == a:
            if cells[cell, S_SERVICE_B] == b and cells[cell, S_STRATUM] == stratum:
                return cell
        slot = (slot + 1) & (len(slots) - 1)
    cell = sample.progress[Q_CELLS]
    if cell >= CELLS_PER_SECOND * seconds:
        return np.int64(-1)
    sample.progress[Q_CELLS] += 1
    slots[slot] = np.int32(cell + 1)
    cells[cell, S_TICK], cells[cell, S_SERVICE_A], cells[cell, S_SERVICE_B] = t, a, b
    cells[cell, S_STRATUM], cells[cell, S_LEVEL], cells[cell, S_TOTAL] = stratum, 0, 0
    cells[cell, G_COUNT] = 0
    cells[cell, G_SEEN:] = 0
    found, length = find_word_kernel(sample, a), np.int64(text_length[T_HOST, i])
    cells[cell, G_TEXT] = found
    if found < 0 and length > 0:
        cells[cell, G_TEXT] = new_word_kernel(sample, a, -1 - found, buffer, np.int64(text_start[T_HOST, i]), length)
    elif found < 0:
        cells[cell, G_TEXT] = new_word_kernel(sample, a, -1 - found, service, np.int64(0), np.int64(len(service) - 64))
    return cell


@inlined
def cell_slot_kernel(t: Any, a: Any, stratum: Any, slots: Any) -> Any:
    """Where a cell is sought first."""
    mixed = U64(a) ^ (U64(t) * TICK_MIX) ^ (U64(stratum) * _STRATUM_MIX)
    return np.int64((mixed ^ (mixed >> _S32)) & U64(slots - 1))


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
def raise_level_kernel(sample: Any, cell: Any) -> None:
    """Halve what a cell keeps: entries that are not below its bound any more are left out."""
    cells, priority, place, free = sample.cells, sample.priority, sample.place, sample.free
    cells[cell, G_BELOW] -= cells[cell, G_RANKS + min(cells[cell, S_LEVEL], RANKS - 1)]
    cells[cell, S_LEVEL] += 1
    level, kept, freed = cells[cell, S_LEVEL], np.int64(0), sample.progress[Q_FREE]
    for at in range(cells[cell, G_COUNT]):
        stays, entry = np.int64(is_below_kernel(priority[cell, at], level)), place[cell, at]
        priority[cell, kept], place[cell, kept], free[freed] = priority[cell, at], entry, entry
        kept += stays
        freed += 1 - stays
    cells[cell, G_COUNT], sample.progress[Q_FREE] = kept, freed


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
            known[entry, 0] = new_route_kernel(
                sample, says[2], -1 - found, text_start, text_length, buffer, seeds, routes, i
            )
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


@inlined
def find_word_kernel(sample: Any, word: Any) -> Any:
    """i64: which of the sample's words this is, else -1 - the slot where it belongs."""
    words, slots = sample.words, sample.word_slots
    slot = word & (len(slots) - 1)
    while slots[slot] != 0:
        known = np.int64(slots[slot]) - 1
        if words[known, W_WORD] == word:
            return known
        slot = (slot + 1) & (len(slots) - 1)
    return -1 - slot


@part
def new_word_kernel(sample: Any, word: Any, slot: Any, buffer: Any, start: Any, length: Any) -> Any:
    """i32: the number of a new word, which is put down with its text; -1: there is no room for it, which is counted."""
    progress, words = sample.progress, sample.words
    known, at = progress[Q_WORDS], progress[Q_TEXT]
    length = min(length, TEXT_MAX)
    if known >= len(words) or at + length + 8 > len(sample.text):
        progress[Q_LEFT_OUT] += 1
        return np.int32(-1)
    sample.word_slots[slot] = np.int32(known + 1)
    words[known, W_WORD], words[known, W_START], words[known, W_LENGTH] = word, at, length
    copy_bytes(sample.text, at, buffer, start, length)
    progress[Q_WORDS], progress[Q_TEXT] = known + 1, at + length
    return np.int32(known)
