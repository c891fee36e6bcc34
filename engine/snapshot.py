"""A saved state: everything that decides what comes next, as plain arrays, with a checksum and a schema.

It holds the log of rows, not the sums, and which cells were decided. So it can be read under other rules, and nothing that
is a cache is trusted. It may hold a drawn seed: files of it are for their owner only.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.kernels.hashing import hash_keys, partitions_of
from detectors.kernels.windows import (
    AGED_OUT,
    AGED_TICK,
    FRESH,
    K_A,
    K_B,
    K_DIMENSION,
    L_SLOT,
    LENGTH_MASK,
    MUTED,
    R_TICK,
    R_VALUES,
    STRAGGLERS,
    TOMBSTONE,
    all_find_kernel,
    remember_cells,
)
from engine.long_state import load_long, save_long
from schemas.columns import I64, U64
from schemas.config import Config
from schemas.errors import StateError
from schemas.fields import DIMENSIONS, MEASURES, VALUES
from schemas.tally import (
    C_DIMENSION,
    C_HASH,
    C_KEY_A,
    C_KEY_B,
    C_MEASURES,
    C_NAME,
    C_NAME_LENGTH,
    C_TICK,
    NAME_BYTES_MAX,
    RECORD_WORDS,
    TICK_MAX,
    Tally,
)

if TYPE_CHECKING:
    from engine.judge import Judge

MAGIC = b"FLOODWALL-STATE\n"
SCHEMA = 10
_ROWS: dict[str, tuple[type[Any], tuple[int, ...]]] = {
    "a": (np.uint64, ()), "b": (np.uint64, ()), "dimension": (np.uint8, ()), "tick": (np.int64, ()),
    "values": (np.int64, (VALUES,)), "name_length": (np.uint8, ()), "names": (np.uint8, (NAME_BYTES_MAX,)),
}  # fmt: skip
_DECIDED: dict[str, tuple[type[Any], tuple[int, ...]]] = {
    "a": (np.uint64, ()),
    "b": (np.uint64, ()),
    "dimension": (np.uint8, ()),
    "cells": (np.int32, ()),
}


def pack(state: dict[str, Any]) -> bytes:
    """Plain data and arrays as bytes."""
    body = msgspec.msgpack.encode({**state, "schema": SCHEMA}, enc_hook=_encode_array)
    return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` was given.

    Raises:
        StateError: the bytes are no saved state, damaged, or of another schema.
    """
    if not data.startswith(MAGIC):
        raise StateError(f"expected a saved state (it begins with {MAGIC[:15]!r}), got {data[:16]!r}")
    body = data[len(MAGIC) + 4 :]
    if zlib.crc32(body) != int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "little"):
        raise StateError(f"expected a whole saved state, got {len(data)} bytes whose checksum does not hold")
    try:
        state = msgspec.msgpack.decode(body, type=dict[str, Any])
        if state.get("schema") != SCHEMA:
            raise StateError(f"expected a saved state of schema {SCHEMA}, got schema {state.get('schema')!r:.80}")
        restored: dict[str, Any] = _restore_arrays(state)
    except (msgspec.DecodeError, zlib.error, ValueError, TypeError) as error:
        raise StateError(f"expected a saved state, got something else with its checksum: {error}") from None
    return restored


def refuse_mixing(config: Config, *, drill: bool) -> None:
    """What is learned in a drill is never gone on from outside of one, nor the other way round.

    Raises:
        StateError: the one that saved a state was in a drill and this one is not, or the other way round.
    """
    if drill != config.policy.drill:
        said = {True: "a drill (policy.drill)", False: "no drill"}
        raise StateError(
            f"expected a state of {said[config.policy.drill]}, got one of {said[drill]}: "
            "a drill needs a state of its own, on Kafka a kafka.topic_prefix of its own"
        )


@contextlib.contextmanager
def refusing_misfits() -> Iterator[None]:
    """Around what takes a state over: what does not fit is the state's fault, and the half-made object is dropped."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise StateError(f"expected a saved state of this version, got one with other parts ({what:.120})") from None


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": list(value.shape), "data": zlib.compress(value.tobytes(), 1)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected plain data or an array, got {type(value).__name__}")


def _restore_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"dtype", "shape", "data"}:
            dtype = np.dtype(str(value["dtype"]))
            if dtype.kind not in "iuf":
                raise TypeError(f"an array of {dtype}")
            size = math.prod(value["shape"]) * dtype.itemsize
            flat = np.frombuffer(zlib.decompressobj().decompress(value["data"], size + 1), dtype)  # no more than it says
            return flat.reshape(value["shape"]).copy()
        return {key: _restore_arrays(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_restore_arrays(inner) for inner in value]
    return value


def rows_of(judge: Judge) -> dict[str, npt.NDArray[Any]]:
    """The log of a judge."""
    w = judge.windows
    slots = w.keys.shape[1]
    used = np.arange(w.rows.shape[1]) < w.scalars[:, FRESH][:, None]
    partition, row = np.nonzero(used & (w.links[:, :, L_SLOT] >= 0))
    slot = w.links[partition, row, L_SLOT]
    a, b, dimension = (w.keys[partition, slot, column] for column in (K_A, K_B, K_DIMENSION))
    values = np.zeros((len(row), VALUES), np.int64)
    rules = judge.plan.arrays
    for column in range(rules.tracked.shape[1]):
        held = np.flatnonzero(column < rules.column_count[dimension])
        values[held, rules.tracked[dimension[held], column]] = w.rows[partition[held], row[held], R_VALUES + column]
    lengths = w.name_length[partition, slot] & LENGTH_MASK
    tick = w.rows[partition, row, R_TICK]
    names = w.names[:, : slots * NAME_BYTES_MAX].reshape(len(w.tag), slots, NAME_BYTES_MAX)[partition, slot]
    return _part(a.view(np.uint64), b.view(np.uint64), dimension, tick, values, lengths, names)


def save_judge(judge: Judge) -> dict[str, Any]:
    """All rows, what was decided about their keys, and the plain data of its parts."""
    w = judge.windows
    parts = [rows_of(judge)]
    for waiting in judge.waiting:
        kept = waiting.keep().tally
        names = np.zeros((kept.rows, NAME_BYTES_MAX), np.uint8)
        lengths = kept.column(C_NAME_LENGTH)
        at = np.repeat(np.arange(kept.rows), lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        names[at, within] = kept.names[np.repeat(kept.column(C_NAME), lengths) + within]
        a, b, dimension, tick = (kept.column(index) for index in (C_KEY_A, C_KEY_B, C_DIMENSION, C_TICK))
        parts.append(
            _part(a.astype(np.uint64), b.astype(np.uint64), dimension, tick, kept.records[:, C_MEASURES:], lengths, names)
        )
    known, key = np.nonzero(w.tag[:, :-1] > TOMBSTONE)
    return {
        **judge.save(),
        "rows": {name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        "long": save_long(judge),
        "rules": judge.plan.plain(),
        "partitions": len(w.tag),
        "decided": {
            "a": w.keys[known, key, K_A].view(np.uint64), "b": w.keys[known, key, K_B].view(np.uint64),
            "dimension": w.keys[known, key, K_DIMENSION].astype(np.uint8), "cells": w.cells[known, key],
        },
    }  # fmt: skip


def _part(a: U64, b: U64, dimension: Any, tick: I64, values: I64, lengths: Any, names: Any) -> dict[str, npt.NDArray[Any]]:
    return {
        "a": a, "b": b, "dimension": dimension.astype(np.uint8), "tick": tick, "values": values,
        "name_length": lengths.astype(np.uint8), "names": names,
    }  # fmt: skip


def load_judge(judge: Judge, state: dict[str, Any], seeds: U64) -> None:
    """Make a fresh judge what the saved one was. Under other rules, a cell that has begun is not decided again.

    Raises:
        StateError: it has another number of judge partitions.
    """
    partitions = len(judge.windows.tag)
    if state["partitions"] != partitions:
        came = state["partitions"]
        raise StateError(f"expected a state of {partitions} judge partitions (engine.judge_partitions), got {came}")
    _check_rows(state["rows"])
    _check(state["decided"], _DECIDED)
    judge.intake.load(state["intake"])
    judge.policy.load(state["policy"])
    judge.services.load(state["services"])
    judge.distributed.load(state["distributed"])
    judge.routes.load(state["routes"])
    judge.leaked.load(state["leaked"])
    judge.feedback.load(state["feedback"])
    judge.learned.load(state["learned"])
    judge.learned.suspicions.load(state["suspicions"])
    judge.playbooks.load(state["playbooks"])
    judge.truncated = state["truncated"]
    judge.not_counted.load(state["not_counted"])
    judge.rebuild(tally_of(state["rows"], seeds, partitions), state["closed"])
    same_rules = state["rules"] == judge.plan.plain()
    load_long(judge, state["long"], seeds, partitions, same_rules=same_rules)
    judge.distributed.resume()
    w = judge.windows
    for p, scalars in enumerate(state["scalars"]):
        for index in (AGED_OUT, AGED_TICK, STRAGGLERS, MUTED):
            w.scalars[p, index] = scalars[index]
    if not same_rules:
        return
    decided = state["decided"]
    hashes = hash_keys(seeds, decided["a"], decided["b"], decided["dimension"])
    keys = zip(decided["a"], decided["b"], decided["dimension"], decided["cells"], strict=True)
    for p, h, (a, b, dimension, cells) in zip(partitions_of(hashes, partitions).tolist(), hashes, keys, strict=True):
        slot = all_find_kernel(tuple(w), p, h, np.int64(a), np.int64(b), int(dimension))
        if slot >= 0:
            remember_cells(w, p, slot, cells)


def _check(arrays: dict[str, Any], kinds: dict[str, tuple[type[Any], tuple[int, ...]]]) -> None:
    """Kernels trust their arrays, so that what comes from a file is looked at before. Raises `TypeError`, `ValueError`."""
    count = len(arrays["a"])
    for name, (dtype, shape) in kinds.items():
        array = arrays[name]
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            raise TypeError(f"{name} is no array of {dtype.__name__}")
        if len(array) != count or (shape and array.shape[1:] != shape):
            raise ValueError(f"{name} has the shape {list(array.shape)}")
    if (arrays["dimension"] >= DIMENSIONS).any():
        raise ValueError("there are unknown dimensions")


def _check_rows(rows: dict[str, npt.NDArray[Any]]) -> None:
    _check(rows, _ROWS)
    if (rows["name_length"] > NAME_BYTES_MAX).any():
        raise ValueError("there are longer names than may be")
    if (rows["tick"] < 0).any() or (rows["tick"] > TICK_MAX).any() or (rows["values"][:, :MEASURES] < 0).any():
        raise ValueError("there are rows of no time, or that measure less than nothing")


def tally_of(rows: dict[str, npt.NDArray[Any]], seeds: U64, partitions: int) -> Tally:
    """Rows of a log as if they had just come."""
    by_tick = np.argsort(rows["tick"], kind="stable")
    records = np.zeros((len(by_tick), RECORD_WORDS), np.int64)
    a, b, dimension, tick = rows["a"][by_tick], rows["b"][by_tick], rows["dimension"][by_tick], rows["tick"][by_tick]
    hashes = hash_keys(seeds, a, b, dimension)
    width = rows["names"].shape[1]
    records[:, C_HASH], records[:, C_KEY_A], records[:, C_KEY_B] = hashes.view(np.int64), a.view(np.int64), b.view(np.int64)
    records[:, C_TICK], records[:, C_DIMENSION] = tick, dimension
    records[:, C_NAME], records[:, C_NAME_LENGTH] = np.arange(len(a)) * width, rows["name_length"][by_tick]
    records[:, C_MEASURES:] = rows["values"][by_tick]
    partition = partitions_of(hashes, partitions)
    return Tally(
        "", 0, 0, 0, int(tick.min(initial=0)), int(tick.max(initial=0)), 0, records, rows["names"][by_tick].ravel(),
        np.argsort(partition, kind="stable"),
        np.concatenate([[0], np.cumsum(np.bincount(partition, minlength=partitions))]).astype(np.int64),
    )  # fmt: skip
