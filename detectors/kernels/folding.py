"""The route of each event of a batch as text, for whoever looks at single events again."""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.kernels.blocks import T_METHOD, T_PATH
from detectors.kernels.hashing import hash_bytes_kernel
from detectors.kernels.routes import ROUTE_BYTES_MAX, fold_route_kernel, path_end_kernel
from schemas.compiled import entry

ROUTE_ROOM = ROUTE_BYTES_MAX + 64
"""Bytes that a route is given to be written to."""


@entry
def fold_routes_kernel(rows: Any, text_start: Any, text_length: Any, buffer: Any, out: Any, lengths: Any) -> None:
    """Write the routes of some events down.

    Args:
        rows: i64[n], which events of the batch.
        text_start, text_length, buffer: of the batch (`schemas.columns`).
        out: u8[n * ROUTE_ROOM], out: route i begins at ``i * ROUTE_ROOM``.
        lengths: i64[n], out; 0: the event names no path.
    """
    for k in range(len(rows)):
        i = rows[k]
        start, length = np.int64(text_start[T_PATH, i]), np.int64(text_length[T_PATH, i])
        lengths[k] = 0
        if length == 0:
            continue
        end = path_end_kernel(buffer, start, length)
        lengths[k] = fold_route_kernel(
            buffer, np.int64(text_start[T_METHOD, i]), np.int64(text_length[T_METHOD, i]), start, end, out,
            np.int64(k * ROUTE_ROOM),
        )  # fmt: skip


@entry
def hash_texts_kernel(seeds: Any, starts: Any, lengths: Any, most: Any, buffer: Any, first: Any, second: Any) -> None:
    """Hash a text of each event.

    Args:
        seeds: u64[HASH_SEED_WORDS].
        starts, lengths: i64[n], where the texts lie in ``buffer`` (u8[], eight bytes and more behind the last of them).
        most: i64, of each text only so many bytes count.
        first, second: u64[n], out: the halves of SipHash-1-3-128.
    """
    for k in range(len(starts)):
        first[k], second[k] = hash_bytes_kernel(seeds, buffer, starts[k], min(lengths[k], most))
