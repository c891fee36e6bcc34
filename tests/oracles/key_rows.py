"""What keys did, step by step, in plain Python."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.kernels.key_rows import STEP_S

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
