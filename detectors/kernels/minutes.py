"""What rows of services say of minutes: added up before anything of it is a Python object."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.long_windows import MINUTE_S
from schemas.compiled import entry
from schemas.tally import C_KEY_A, C_KEY_B, C_TICK

M_MINUTE, M_A, M_B, M_ROW, M_SUMS = range(5)
"""Of a minute of a service: which, the words of its key, a row that has its name; then the sums."""
NEAR = 8
"""A row is looked for among so many of the last minutes: more services than that come one by one."""


@entry
def sum_minutes_kernel(records: Any, chosen: Any, columns: Any, minutes: Any) -> Any:
    """Add up the rows ``chosen[1:1 + chosen[0]]`` of a tally by minute and service; returns how many minutes there are.

    Args:
        columns: i64[k]: of a row, what is added.
        minutes: i64[n, M_SUMS + k] out, with a place for each row. Of one minute there may be several.
    """
    many: Any = np.int64(0)
    for index in range(1, chosen[0] + 1):
        row = chosen[index]
        minute, a, b = records[row, C_TICK] // MINUTE_S, records[row, C_KEY_A], records[row, C_KEY_B]
        at = many - 1
        while at >= max(many - NEAR, 0) and (
            minutes[at, M_MINUTE] != minute or minutes[at, M_A] != a or minutes[at, M_B] != b
        ):  # fmt: skip
            at -= 1
        if at < max(many - NEAR, 0):
            at = many
            minutes[at, M_MINUTE], minutes[at, M_A], minutes[at, M_B], minutes[at, M_ROW] = minute, a, b, row
            minutes[at, M_SUMS:] = 0
            many += 1
        for k in range(len(columns)):
            minutes[at, M_SUMS + k] += records[row, columns[k]]
    return many
