"""One pass over a JSON object: the values at known paths land in slots, everything else is skipped.

Keys are not looked up but expected. Each key seen is remembered as an entry (its bytes from the quote to the colon, the
object it stood in, and what it meant) together with the entry that came after it last time. So a stream of records of one
shape costs one comparison of 32 bytes a key; only where the guess fails is the key hashed. What is remembered changes no
result, and it is bounded: when the entries run out they are forgotten.

The scanner does not recurse. It goes down only into objects that lead to a known path, and crosses all others counting
brackets. It reads a superset of JSON: inside what it crosses, only strings and the balance of brackets matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import inlined, part
from schemas.decoding.layout import (
    BARE,
    BUCKETS,
    BUCKETS_AT,
    EDGES_AT,
    EDGES_SIZE,
    ENTRIES,
    ENTRIES_AT,
    ENTRIES_MAX,
    ENTRY_WORDS,
    KEY_BYTES,
    KEY_LENGTH_MAX,
    LEVELS_MAX,
    NAMES_AT,
    NODES_AT,
    PRIORITY_SHIFT,
    SLOT_END,
    SLOT_INFO,
    SLOT_START,
    STACK,
    STOPPED_AT,
    STRING,
    UNIT_SHIFT,
)
from schemas.decoding.machine import BACKSLASH, QUOTE, byte_at, equals_masked, find_quote, find_structure, find_token_end, item
from schemas.decoding.paths import (
    EDGE_CHILD,
    EDGE_LENGTH,
    EDGE_PARENT,
    EDGE_START,
    EDGE_WORDS,
    NODE_CHILDREN,
    NODE_INFO,
    NODE_SLOT,
    NODE_WORDS,
    NONE,
    SEGMENT_BYTES_MAX,
)
from schemas.fields import Poison

OK, TRUNCATED, NOT_A_RECORD = int(Poison.OK), int(Poison.TRUNCATED), int(Poison.NOT_A_RECORD)
TOO_DEEP = int(Poison.TOO_DEEP)

# An entry begins at ENTRIES_AT + ENTRY_WORDS * number; these are the words of one, and two that are always there.
E_NODE, E_LENGTH, E_NEXT, E_CHILD, E_SLOT, E_INFO, E_DESCEND = range(7)
AT_START, UNLEARNT, FIRST_ENTRY = (np.int64(number) for number in range(3))
"""The entries before the first key and for keys that are not remembered (too long, escaped), and the first of the others."""

_PRIORITY_MASK = (1 << (UNIT_SHIFT - PRIORITY_SHIFT)) - 1
_MULTIPLY, _OFFSET, _PRIME = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_S32 = np.uint64(32)


@part
def forget_kernel(state: Any) -> None:
    """Empty the memory of keys."""
    state[ENTRIES] = FIRST_ENTRY
    state[BUCKETS_AT : BUCKETS_AT + BUCKETS] = -1
    state[ENTRIES_AT : ENTRIES_AT + FIRST_ENTRY * ENTRY_WORDS] = 0
    state[ENTRIES_AT + E_NODE] = NONE
    state[ENTRIES_AT + ENTRY_WORDS + E_NODE] = NONE


@part
def hash_kernel(parent: Any, buffer: Any, start: Any, end: Any) -> Any:
    """The hash of `schemas.decoding.paths.hash_segment`, as i64 >= 0."""
    value = np.uint64(parent) * _MULTIPLY + _OFFSET
    for at in range(start, end):
        value = (value ^ np.uint64(byte_at(buffer, at))) * _PRIME
    return np.int64(value >> _S32)


@part
def child_kernel(node: Any, buffer: Any, start: Any, end: Any, state: Any, texts: Any) -> Any:
    """The node at the path ``buffer[start:end]`` (dots part its names) below ``node``, or `NONE`."""
    size = state[EDGES_SIZE]
    first = start
    while True:
        last = first
        while last < end and byte_at(buffer, last) != 46:
            last += 1
        length = last - first
        if length == 0 or length > SEGMENT_BYTES_MAX:
            return np.int64(NONE)
        row = hash_kernel(node, buffer, first, last) & (size - 1)
        found = np.int64(NONE)
        edge = state[EDGES_AT] + row * EDGE_WORDS
        while state[edge + EDGE_PARENT] != NONE:
            if state[edge + EDGE_PARENT] == node and state[edge + EDGE_LENGTH] == length:
                name = NAMES_AT + state[edge + EDGE_START]
                index = 0
                while index < length and texts[name + index] == byte_at(buffer, first + index):
                    index += 1
                if index == length:
                    found = state[edge + EDGE_CHILD]
                    break
            row = (row + 1) & (size - 1)
            edge = state[EDGES_AT] + row * EDGE_WORDS
        if found == NONE or last >= end:
            return found
        node = found
        first = last + 1


@inlined
def entry_at(entry: Any) -> Any:
    """Where in the state an entry begins."""
    return ENTRIES_AT + entry * ENTRY_WORDS


@inlined
def is_key(buffer: Any, at: Any, entry: Any, state: Any, texts: Any) -> Any:
    """Does the key of ``entry`` stand at ``at``?"""
    if not equals_masked(buffer, at, texts, entry * KEY_BYTES):
        return False
    return item(state, entry_at(entry) + E_LENGTH) <= 32 or equals_masked(buffer, at + 32, texts, entry * KEY_BYTES + 64)


@part
def _describe_kernel(entry: Any, node: Any, child: Any, state: Any) -> None:
    base = entry_at(entry)
    at = NODES_AT + child * NODE_WORDS
    state[base + E_NODE] = node
    state[base + E_CHILD] = child
    state[base + E_SLOT] = state[at + NODE_SLOT] if child >= 0 else NONE
    state[base + E_INFO] = state[at + NODE_INFO] if child >= 0 else 0
    state[base + E_DESCEND] = state[at + NODE_CHILDREN] if child >= 0 else 0


@part
def learn_kernel(buffer: Any, at: Any, end: Any, node: Any, previous: Any, state: Any, texts: Any) -> Any:
    """Read the key at ``at`` (its quote) without a guess; (entry, position after the colon, reason).

    The entry is remembered as what follows ``previous``.
    """
    close = find_quote(buffer, at + 1, end)
    plain = True
    while close < end and byte_at(buffer, close) == BACKSLASH:
        plain = False
        close = find_quote(buffer, close + 2, end)
    colon = close + 1
    while colon < end and byte_at(buffer, colon) <= 32:
        colon += 1
    if colon >= end:
        return UNLEARNT, end, TRUNCATED
    if byte_at(buffer, colon) != 58:
        return UNLEARNT, colon, NOT_A_RECORD
    length = colon + 1 - at
    if not plain or length > KEY_LENGTH_MAX:
        child = child_kernel(node, buffer, at + 1, close, state, texts) if plain else np.int64(NONE)
        _describe_kernel(UNLEARNT, np.int64(NONE), child, state)
        return UNLEARNT, colon + 1, OK
    bucket = hash_kernel(node, buffer, at, colon + 1) & (BUCKETS - 1)
    while state[BUCKETS_AT + bucket] >= 0:
        entry = state[BUCKETS_AT + bucket]
        base = entry_at(entry)
        same = state[base + E_NODE] == node and state[base + E_LENGTH] == length
        if same and is_key(buffer, at, entry, state, texts):
            state[entry_at(previous) + E_NEXT] = entry
            return entry, colon + 1, OK
        bucket = (bucket + 1) & (BUCKETS - 1)
    if state[ENTRIES] >= ENTRIES_MAX:
        forget_kernel(state)
        previous = UNLEARNT
        bucket = hash_kernel(node, buffer, at, colon + 1) & (BUCKETS - 1)
    entry = state[ENTRIES]
    state[ENTRIES] = entry + 1
    state[BUCKETS_AT + bucket] = entry
    text = entry * KEY_BYTES
    texts[text : text + KEY_BYTES] = 0
    for index in range(length):
        to = text + index if index < 32 else text + 32 + index
        texts[to] = byte_at(buffer, at + index)
        texts[to + 32] = 255
    state[entry_at(entry) + E_LENGTH] = length
    state[entry_at(entry) + E_NEXT] = AT_START
    _describe_kernel(entry, node, child_kernel(node, buffer, at + 1, close, state, texts), state)
    state[entry_at(previous) + E_NEXT] = entry
    return entry, colon + 1, OK


@part
def skip_container_kernel(buffer: Any, at: Any, end: Any, levels: Any) -> Any:
    """Cross the object or array that opens at ``at``; (position after it, reason). ``levels`` may be open besides it."""
    depth = 0
    while True:
        at = find_structure(buffer, at, end)
        if at >= end:
            return end, TRUNCATED
        byte = byte_at(buffer, at)
        if byte == QUOTE:
            at = find_quote(buffer, at + 1, end)
            while at < end and byte_at(buffer, at) == BACKSLASH:
                at = find_quote(buffer, at + 2, end)
            at += 1
            continue
        at += 1
        if byte | 0x20 == 123:
            depth += 1
            if depth > levels:
                return at - 1, TOO_DEEP
        else:
            depth -= 1
            if depth == 0:
                return at, OK


@inlined
def skip_blanks(buffer: Any, at: Any, end: Any) -> Any:
    """The next position that is no white space (or control character)."""
    while at < end and byte_at(buffer, at) <= 32:
        at += 1
    return at


@inlined
def keep_value(state: Any, seen: Any, slot: Any, info: Any, start: Any, end: Any) -> Any:
    """Put a value into its slot unless a stronger or earlier one is there; was it put?"""
    if (seen >> slot) & 1 == 1:
        kept = (state[SLOT_INFO + slot] >> PRIORITY_SHIFT) & _PRIORITY_MASK
        if kept <= (info >> PRIORITY_SHIFT) & _PRIORITY_MASK:
            return False
    state[SLOT_START + slot] = start
    state[SLOT_END + slot] = end
    state[SLOT_INFO + slot] = info
    return True


@part
def scan_object_kernel(buffer: Any, at: Any, end: Any, state: Any, texts: Any) -> Any:
    """Read the object that opens at ``at``; (position after it, reason, slots seen as bits, those with escapes as bits).

    ``buffer`` u8[] with `SLACK` bytes behind ``end``. Values are spans of ``buffer`` in the slots of ``state``; null, "",
    and "-" are missing. On failure STOPPED_AT says where.
    """
    seen = np.int64(0)
    escaped = np.int64(0)
    node = np.int64(0)
    depth = 0
    previous = np.int64(AT_START)
    opened = True  # the last bracket opened an object, which may be empty
    at += 1
    while True:
        at = skip_blanks(buffer, at, end)
        if at >= end:
            state[STOPPED_AT] = end
            return at, TRUNCATED, seen, escaped
        byte = byte_at(buffer, at)
        if byte == QUOTE:
            opened = False
            entry = item(state, entry_at(previous) + E_NEXT)
            base = entry_at(entry)
            after = at + item(state, base + E_LENGTH)
            if item(state, base + E_NODE) != node or after > end or not is_key(buffer, at, entry, state, texts):
                entry, after, reason = learn_kernel(buffer, at, end, node, previous, state, texts)
                if reason != OK:
                    state[STOPPED_AT] = after
                    return at, reason, seen, escaped
                base = entry_at(entry)
            previous = entry
            at = skip_blanks(buffer, after, end)
            if at >= end:
                state[STOPPED_AT] = end
                return at, TRUNCATED, seen, escaped
            slot = item(state, base + E_SLOT)
            byte = byte_at(buffer, at)
            if byte == QUOTE:
                start = at + 1
                close = find_quote(buffer, start, end)
                escapes = False
                while close < end and byte_at(buffer, close) == BACKSLASH:
                    escapes = True
                    close = find_quote(buffer, close + 2, end)
                if close >= end:
                    state[STOPPED_AT] = end
                    return at, TRUNCATED, seen, escaped
                if slot >= 0 and close > start and (close > start + 1 or byte_at(buffer, start) != 45):
                    if keep_value(state, seen, slot, item(state, base + E_INFO) | STRING, start, close):
                        seen |= np.int64(1) << slot
                        bit = np.int64(1) << slot
                        escaped = (escaped | bit) if escapes else (escaped & ~bit)
                at = close + 1
            elif byte == 123 and item(state, base + E_DESCEND) != 0 and depth < LEVELS_MAX - 1:
                depth += 1
                state[STACK + depth] = node
                node = item(state, base + E_CHILD)
                opened = True
                at += 1
                continue
            elif byte == 123 or byte == 91:
                at, reason = skip_container_kernel(buffer, at, end, LEVELS_MAX - 1 - depth)
                if reason != OK:
                    state[STOPPED_AT] = at
                    return at, reason, seen, escaped
            else:
                stop = find_token_end(buffer, at, end)
                first = byte | 0x20
                known = 48 <= byte <= 57 or byte == 45 or first == 116 or first == 102 or first == 110 or first == 105
                if not known or stop == at:
                    state[STOPPED_AT] = at
                    return at, NOT_A_RECORD, seen, escaped
                if slot >= 0 and byte != 110:
                    if keep_value(state, seen, slot, item(state, base + E_INFO) | BARE, at, stop):
                        seen |= np.int64(1) << slot
                        escaped &= ~(np.int64(1) << slot)
                at = stop
        elif byte != 125 or not opened:
            state[STOPPED_AT] = at
            return at, NOT_A_RECORD, seen, escaped
        # After a value, or at the closing brace of an empty object.
        while True:
            at = skip_blanks(buffer, at, end)
            if at >= end:
                state[STOPPED_AT] = end
                return at, TRUNCATED, seen, escaped
            byte = byte_at(buffer, at)
            at += 1
            if byte == 44:
                break
            if byte != 125:
                state[STOPPED_AT] = at - 1
                return at, NOT_A_RECORD, seen, escaped
            opened = False
            if depth == 0:
                return at, OK, seen, escaped
            node = state[STACK + depth]
            depth -= 1
