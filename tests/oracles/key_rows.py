"""What keys did, step by step, in plain Python."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.kernels.key_rows import STEP_S

SUMS = 4
Row = tuple[int, int, int, tuple[int, ...], tuple[int, ...], int]
"""(second, first word, second word, sums of which evidence is the first, sets, our own denials)"""


def gathered(rows: Sequence[Row], closed: int) -> dict[tuple[int, int, int], tuple[int, ...]]:
    """(step, first word, second word) -> sums, then sets."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for second, a, b, sums, sets, denied in rows:
        if second <= closed or sums[0] == 0:
            continue
        entry = found.setdefault((second // STEP_S, a, b), [0] * (len(sums) + len(sets)))
        for index, value in enumerate(sums if not denied else sums[:2]):
            entry[index] += value
        for index, value in enumerate(sets if not denied else ()):
            entry[len(sums) + index] |= value
    return {key: tuple(entry) for key, entry in found.items()}


def summed(
    gathered: dict[tuple[int, int, int], tuple[int, ...]], first: int, last: int
) -> dict[tuple[int, int], tuple[int, ...]]:
    """(first word, second word) -> sums, then sets, of some steps of what `gathered` returned."""
    found: dict[tuple[int, int], list[int]] = {}
    for (step, a, b), values in gathered.items():
        if first <= step <= last:
            one = found.setdefault((a, b), [0] * len(values))
            for index, value in enumerate(values):
                one[index] = one[index] + value if index < SUMS else one[index] | value
    return {key: tuple(one) for key, one in found.items()}


def model_bin(seeds: Sequence[int], name: bytes) -> int:
    """The bit of 64 that stands for a model's name."""
    room, mixed = max(len(name) - 8, 0), len(name) * (seeds[6] | 1)
    third = (43 * room + 64) // 128
    for at, seed in zip((0, third, room - third, room), seeds[2:6], strict=True):
        mixed += int.from_bytes(name[at : at + 8], "little") * (seed | 1)
    mixed %= 2**64
    return 1 << ((mixed ^ mixed >> 32) * 0x9E3779B97F4A7C15 % 2**64 >> 58)
