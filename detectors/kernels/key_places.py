"""Where keys have their places, looked up for all judge partitions at once; and when keys without one were used last."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.windows import NEVER
from schemas.compiled import entry, inlined

U64 = np.uint64
_FIRST, _SECOND, _S32 = U64(0x9E3779B97F4A7C15), U64(0xBF58476D1CE4E5B9), U64(32)


@inlined
def mix_key(a: Any, b: Any) -> Any:
    """A key's words in 32 bits; they are hashes under the secret seed already."""
    return np.int64(((U64(a) * _FIRST + U64(b)) * _SECOND) >> _S32)


@entry
def index_places_kernel(words: Any, used: Any, slots: Any) -> None:
    """Make the index of one partition's places again.

    Args:
        words: i64[room, 2]: of each place its key; used: so many have one.
        slots: i32[power of two, at least twice as many as there is room], out: 1 + the place; 0: free.
    """
    mask = len(slots) - 1
    slots[:] = 0
    for place in range(used):
        slot = mix_key(words[place, 0], words[place, 1]) & mask
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = np.int32(place + 1)


@entry
def find_places_kernel(
    partitions: Any, keys: Any, words: Any, slots: Any, bed_keys: Any, bed_lasts: Any, places: Any, lasts: Any
) -> Any:  # fmt: skip
    """Look keys up; returns how many have no place.

    Args:
        partitions: i64[n], of each key; keys: i64[n, 2].
        words, slots: i64[partitions, room, 2], i32[partitions, power of two]: as `index_places_kernel` has them.
        bed_keys, bed_lasts: i64[partitions, rows, beds, 2], i64[partitions, rows, beds]: of keys that lost their place, when
            they were used last; `NEVER`: nobody.
        places: i64[n], out; the room where a key has none.
        lasts: i64[n], out: when a key without a place was used last; `NEVER`: not known, or it has a place.
    """
    mask, room, without = slots.shape[1] - 1, words.shape[1], np.int64(0)
    for i in range(len(keys)):
        partition, a, b = partitions[i], keys[i, 0], keys[i, 1]
        mixed = mix_key(a, b)
        slot = mixed & mask
        places[i], lasts[i] = room, NEVER
        while slots[partition, slot] != 0:
            place = np.int64(slots[partition, slot]) - 1
            if words[partition, place, 0] == a and words[partition, place, 1] == b:
                places[i] = place
                break
            slot = (slot + 1) & mask
        if places[i] < room:
            continue
        without += 1
        row = mixed & (bed_lasts.shape[1] - 1)
        for bed in range(bed_lasts.shape[2]):
            if bed_keys[partition, row, bed, 0] == a and bed_keys[partition, row, bed, 1] == b:
                lasts[i] = max(lasts[i], bed_lasts[partition, row, bed])
    return without
