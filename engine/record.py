"""The record of one judge partition: what a judge writes down so that another can go on, without the rows.

Rows are read again from the tallies that begin at ``rebuild_from``; the record holds what they do not say: long windows, what
has been decided, what the policy remembers, and where every source partition stands. The record is the truth, not the offset
that the judge's consumer group has committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.kernels.hashing import hash_keys
from detectors.kernels.windows import (
    AGED_OUT,
    AGED_TICK,
    K_A,
    K_B,
    K_DIMENSION,
    MUTED,
    STRAGGLERS,
    TOMBSTONE,
    all_find_kernel,
    remember_cells,
)
from engine.judge import Judge
from engine.long_state import load_long, save_long
from engine.seeds import Seeds
from engine.snapshot import pack, refuse_mixing, unpack
from schemas.config import Config
from schemas.errors import StateError

_KEPT = (AGED_OUT, AGED_TICK, STRAGGLERS, MUTED)


@dataclass(slots=True)
class Record:
    """A record as read; `begin_judge` and `end_judge` make a judge of it."""

    position: int
    """The next offset of the tallies partition."""
    rebuild_from: int
    """The first offset whose rows are in a window, or wait."""
    closed: int
    state: dict[str, Any]


def encode_record(
    judge: Judge, config: Config, seeds: Seeds, partition: int, position: int, rebuild_from: int, models: dict[str, Any]
) -> bytes:  # fmt: skip
    """What is true once every tally before ``position`` has been judged; ``models`` names their snapshots."""
    w = judge.windows
    cells = w.cells[0, :, : w.cells.shape[2] // 2]
    cell = judge.closed // config.policy.renew_s + 1
    decided = np.flatnonzero((w.tag[0, :-1] > TOMBSTONE) & (cells >= cell).any(axis=1))
    return pack(
        {
            "seed": seeds.fingerprint,
            "partition": [partition, config.engine.judge_partitions],
            "drill": config.policy.drill,
            "position": position,
            "rebuild_from": rebuild_from,
            "closed": judge.closed,
            "scalars": [int(w.scalars[0, index]) for index in _KEPT],
            "intake": judge.intake.save(segments=False),
            "policy": judge.policy.save(),
            "services": judge.services.save(),
            "distributed": judge.distributed.save(cells=False),
            "routes": judge.routes.save(),
            "leaked": judge.leaked.save(),
            "feedback": judge.feedback.save(rejected=False),
            "playbooks": judge.playbooks.save(),
            "models": models,
            "suspicions": judge.learned.suspicions.save(),
            "truncated": judge.truncated,
            "not_counted": judge.not_counted.save(),
            "long": save_long(judge),
            "rules": judge.plan.plain(),
            "decided": {
                "a": w.keys[0, decided, K_A].view(np.uint64), "b": w.keys[0, decided, K_B].view(np.uint64),
                "dimension": w.keys[0, decided, K_DIMENSION].astype(np.uint8), "cells": cells[decided],
            },
        }
    )  # fmt: skip


def decode_record(data: bytes, config: Config, seeds: Seeds, partition: int) -> Record:
    """Read what `encode_record` wrote.

    Raises:
        StateError: damaged, of another schema, seed, partition or number of partitions, or a drill's where this is none.
    """
    state = unpack(data)
    expected = [seeds.fingerprint, [partition, config.engine.judge_partitions]]
    came = [state.get("seed"), state.get("partition")]
    if came != expected:
        raise StateError(f"expected a record of [seed, [judge partition, of]] {expected}, got one of {came}")
    refuse_mixing(config, drill=bool(state.get("drill")))
    return Record(state["position"], state["rebuild_from"], state["closed"], state)


def begin_judge(judge: Judge, record: Record) -> None:
    """Before the tallies of [rebuild_from, position) are given to `Judge.rebuild_from`."""
    state = record.state
    judge.intake.load(state["intake"])
    judge.policy.load(state["policy"])
    judge.services.load(state["services"])
    judge.distributed.load(state["distributed"])
    judge.routes.load(state["routes"])
    judge.leaked.load(state["leaked"])
    judge.feedback.load(state["feedback"])
    judge.playbooks.load(state["playbooks"])
    judge.learned.suspicions.load(state["suspicions"])
    judge.truncated = state["truncated"]
    judge.not_counted.load(state["not_counted"])
    judge.windows.scalars[0, list(_KEPT)] = state["scalars"]
    judge.begin_rebuild(record.closed)


def end_judge(judge: Judge, record: Record, seeds: Seeds) -> None:
    """After them. Under other rules, a cell that has begun is not decided again."""
    state, w = record.state, judge.windows
    judge.end_rebuild(record.closed)
    same_rules = state["rules"] == judge.plan.plain()
    load_long(judge, state["long"], seeds.hash, 1, same_rules=same_rules)
    w.scalars[0, list(_KEPT)] = state["scalars"]
    if not same_rules:
        return
    w.cells[w.tag[:, :-1] > TOMBSTONE] = 0  # rows that were judged by other rules, before a change, may cross these
    decided = state["decided"]
    hashes = hash_keys(seeds.hash, decided["a"], decided["b"], decided["dimension"])
    for h, a, b, dimension, cells in zip(
        hashes, decided["a"], decided["b"], decided["dimension"], decided["cells"], strict=True
    ):
        slot = all_find_kernel(tuple(w), 0, h, np.int64(a), np.int64(b), int(dimension))
        if slot >= 0:
            remember_cells(w, 0, slot, cells)
