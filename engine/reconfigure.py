"""What a judge does at the second from which other rules hold: limits are exchanged under the windows, which keep their counts.

Where only limits, shares, actions and the like differ, nothing moves. Where there are other windows or measures, the sums are
made again from the rows, as after a restart; a window that reaches further back than rows are kept waits until it is whole
(`engine.standing`). What fired in the cell at hand stays decided, unless its rule has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from detectors.entropy import NAME as ENTROPY
from detectors.kernels.hashing import hash_keys, partitions_of
from detectors.kernels.long_windows import E_CELLS, E_DIMENSION
from detectors.kernels.windows import (
    AGED_OUT,
    AGED_TICK,
    DISTINCT,
    K_A,
    K_B,
    K_DIMENSION,
    MUTED,
    NEVER,
    STRAGGLERS,
    TOMBSTONE,
    all_find_kernel,
    remember_cells,
)
from detectors.registry import settings
from detectors.signature import NAME as SIGNATURE
from detectors.surge import NAME as SURGE
from detectors.windowed import WindowPlan, WindowRule
from engine.long_state import load_long, save_long
from engine.snapshot import rows_of, tally_of
from schemas.config import Config

if TYPE_CHECKING:
    from engine.judge import Judge

_EXCHANGED = (
    "rule_limit", "rule_items", "spec_least", "tick_least", "union_limit", "rule_share", "rule_list", "list_start", "list_low",
    "list_high", "busy_least",
)  # fmt: skip
"""What of a plan may differ without windows that are laid out otherwise."""


def is_laid_out_alike(plan: WindowPlan, other: WindowPlan) -> bool:
    """Do rows, sums and rules of both stand in the same places?"""
    pairs: list[tuple[str, Any, Any]] = list(zip(plan.arrays._fields, plan.arrays, other.arrays, strict=True))
    pairs += zip(plan.long._fields, plan.long, other.long, strict=True)
    return all(name in _EXCHANGED or np.array_equal(one, two) for name, one, two in pairs)


def exchange_rules(judge: Judge, plan: WindowPlan) -> None:
    """Take over a plan that is laid out as the one in force."""
    w, before, cells = judge.windows, judge.plan, judge.windows.cells.shape[2] // 2
    used = w.tag[:, :-1] > TOMBSTONE
    for dimension, (rules, others) in enumerate(zip(before.rules, plan.rules, strict=True)):
        many_short = int(plan.arrays.rule_count[dimension])
        new = [index for index, pair in enumerate(zip(rules, others, strict=True)) if _mark(pair[0]) != _mark(pair[1])]
        if not new:
            continue
        mine = used & (w.keys[:, :, K_DIMENSION] == dimension)
        for index in new:
            if index < many_short:
                w.cells[mine, index] = 0
                w.cells[mine, cells + index] = 0
            else:
                judge.long.entries[judge.long.entries[:, :, E_DIMENSION] == dimension, E_CELLS + index - many_short] = 0
    if (plan.arrays.rule_kind == DISTINCT).any():
        w.keys[used, w.union_at :] = -1  # to be united again
    judge.take_plan(plan)


def lay_out_again(judge: Judge, plan: WindowPlan) -> None:
    """Take over any plan: other windows, filled from the rows of those before."""
    old, before, closed = judge.windows, judge.plan, judge.closed
    partitions, routes = len(old.tag), judge.routes.save()
    rows, long, marks = rows_of(judge), save_long(judge), _decided(judge)
    judge.allocate(plan)
    if closed == NEVER:
        return
    judge.routes.load(routes)
    judge.rebuild(tally_of(rows, judge.seeds.hash, partitions), closed)
    w = judge.windows
    aged = w.scalars[:, [AGED_OUT, AGED_TICK]]
    w.scalars[:, AGED_OUT] = old.scalars[:, AGED_OUT] + aged[:, 0]
    w.scalars[:, AGED_TICK] = np.maximum(old.scalars[:, AGED_TICK], aged[:, 1])
    w.scalars[:, [STRAGGLERS, MUTED]] = old.scalars[:, [STRAGGLERS, MUTED]]
    places = _places(before.rules, plan.rules)
    _mark_again(judge, marks, before, places)
    _load_long_again(judge, long, before, places, partitions)


def _decided(judge: Judge) -> dict[str, Any]:
    """Keys of which some rule has fired, lately or long ago."""
    w = judge.windows
    partition, slot = np.nonzero(w.tag[:, :-1] > TOMBSTONE)
    fired = w.cells[partition, slot].any(axis=1)
    partition, slot = partition[fired], slot[fired]
    return {
        "a": w.keys[partition, slot, K_A].view(np.uint64), "b": w.keys[partition, slot, K_B].view(np.uint64),
        "dimension": w.keys[partition, slot, K_DIMENSION].astype(np.uint8), "cells": w.cells[partition, slot].copy(),
    }  # fmt: skip


def _mark_again(judge: Judge, marks: dict[str, Any], before: WindowPlan, places: list[list[int]]) -> None:
    """Rules that stay keep what they have fired for; the others have fired for nobody."""
    w, old_half, half = judge.windows, before.arrays.rule_column.shape[1], judge.windows.cells.shape[2] // 2
    w.cells[w.tag[:, :-1] > TOMBSTONE] = 0
    hashes = hash_keys(judge.seeds.hash, marks["a"], marks["b"], marks["dimension"])
    partitions = partitions_of(hashes, len(w.tag)).tolist()
    keys = zip(marks["a"], marks["b"], marks["dimension"].tolist(), marks["cells"], strict=True)
    for p, h, (a, b, dimension, cells) in zip(partitions, hashes, keys, strict=True):
        slot = all_find_kernel(tuple(w), p, h, np.int64(a), np.int64(b), dimension)
        if slot < 0:
            continue
        kept = np.zeros(2 * half, np.int32)
        for index, at in enumerate(places[dimension][: int(judge.plan.arrays.rule_count[dimension])]):
            if at >= 0:
                kept[index], kept[half + index] = cells[at], cells[old_half + at]
        remember_cells(w, p, slot, kept)


def _load_long_again(judge: Judge, long: dict[str, Any], before: WindowPlan, places: list[list[int]], partitions: int) -> None:
    cells = np.zeros((len(long["a"]), judge.plan.long.rule_part.shape[1]), np.int32)
    for dimension, from_old in enumerate(places):
        first, old_first = int(judge.plan.arrays.rule_count[dimension]), int(before.arrays.rule_count[dimension])
        mine = long["dimension"] == dimension
        for index, at in enumerate(from_old[first:]):
            if at >= 0:
                cells[mine, index] = long["cells"][mine, at - old_first]
    load_long(judge, {**long, "cells": cells}, judge.seeds.hash, partitions, same_rules=True)


def _places(before: Sequence[Sequence[WindowRule]], after: Sequence[Sequence[WindowRule]]) -> list[list[int]]:
    """By dimension, where each rule stood before; -1: it is new."""
    found = []
    for old, new in zip(before, after, strict=True):
        known = {_mark(rule): index for index, rule in reversed(list(enumerate(old)))}
        found.append([known.get(_mark(rule), -1) for rule in new])
    return found


def _mark(rule: WindowRule) -> tuple[Any, ...]:
    """Two rules fire for the same if this is the same."""
    return (*rule.plain(), rule.label, rule.action, rule.dry_run)


def carry_over(judge: Judge, before: Config, after: Config) -> None:
    """Detectors without windows of rules go on under their new sections, as after a restart."""
    old, new = settings(before), settings(after)
    if old[SURGE] != new[SURGE]:
        services, routes = judge.services.save(), judge.routes.save()
        judge.make_surge(after)
        judge.services.load(services)
        judge.routes.load(routes)
    if (old[SIGNATURE], old[ENTROPY]) != (new[SIGNATURE], new[ENTROPY]):
        was_on = old[SIGNATURE].enabled or old[ENTROPY].enabled
        saved = judge.distributed.save(cells=True)
        judge.make_distributed(after)
        if was_on and (new[SIGNATURE].enabled or new[ENTROPY].enabled):
            judge.distributed.load(saved)
            judge.distributed.resume()
