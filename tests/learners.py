"""A small learned detector for tests: services that are asked for far more than they usually are in ten seconds."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from detectors.surge import DETECTOR, SurgeSection
from detectors.windowed import WindowRule
from engine import learned
from engine.crossing import Crossing, finding_id, target_value, unsigned
from engine.suspicions import NOTHING, Suspicions
from schemas.config import Config
from schemas.fields import Dimension, Measure
from schemas.tally import C_DIMENSION, C_KEY_A, C_KEY_B, C_MEASURES, C_NAME, C_NAME_LENGTH, C_TICK, Tally

STEP_S = 10
WARM = 3
FACTOR = 2.0
KEPT_MAX = 50


class Counter:
    """Learns a mean, and from each false positive that more is usual than it thought."""

    name = "counter"
    version = 1

    def __init__(self, config: Config, owned: int) -> None:
        self._renew_s = config.policy.renew_s
        self._waiting: dict[tuple[int, int, int], int] = {}
        self._names: dict[tuple[int, int], bytes] = {}
        self.reset()

    def reset(self) -> None:
        # What waits is of windows that are not over: how much of it has come depends on the cut, and nothing may.
        self._means: dict[tuple[int, int], list[float]] = {}
        self._closed = -1
        self._found: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._verdicts = self._frozen = 0

    def add(self, tally: Tally) -> None:
        for row in np.flatnonzero(tally.records[:, C_DIMENSION] == Dimension.SERVICE).tolist():
            record = tally.records[row]
            key = int(record[C_KEY_A]), int(record[C_KEY_B])
            start = int(record[C_NAME])
            self._names[key] = tally.names[start : start + int(record[C_NAME_LENGTH])].tobytes()
            step = int(record[C_TICK]) // STEP_S, *key
            self._waiting[step] = self._waiting.get(step, 0) + int(record[C_MEASURES + Measure.REQUESTS])

    def close(self, closed: int, muted: int, suspicions: Suspicions = NOTHING) -> list[Crossing]:
        found = []
        over = (closed + 1) // STEP_S
        for step in sorted(one for one in self._waiting if one[0] < over):
            observed, key = self._waiting.pop(step), step[1:]
            mean, heard, factor = self._means.setdefault(key, [0.0, 0.0, FACTOR])
            tick = (step[0] + 1) * STEP_S - 1
            if heard >= WARM and observed > factor * mean:
                found.append(self._crossing(key, tick, observed, mean))
            elif suspicions.has_service(key, tick + 1 - STEP_S, tick + 1):
                self._frozen += 1
            else:
                mean += (observed - mean) / min(heard + 1, 20.0)
            self._means[key] = [mean, heard + 1, factor]
        self._closed = max(self._closed, closed)
        return found

    def _crossing(self, key: tuple[int, int], tick: int, observed: int, mean: float) -> Crossing:
        rule = WindowRule(
            DETECTOR, SurgeSection(), False, Dimension.SERVICE, Measure.REQUESTS, STEP_S, round(mean), "challenge", 5, 0.9
        )  # fmt: skip
        name = self._names[key]
        crossing = Crossing(
            0, Dimension.SERVICE, *unsigned(key), name, rule, tick, observed, observed, 1, False,
            f"{observed} requests in {STEP_S} seconds, usually {mean:.1f}", (("mean", mean),),
        )  # fmt: skip
        self._found[finding_id(crossing, target_value(Dimension.SERVICE, *unsigned(key), name))] = key
        if len(self._found) > KEPT_MAX:
            self._found.popitem(last=False)
        return crossing

    def feedback(self, finding_id: str, confirmed: bool) -> bool:
        key = self._found.get(finding_id)
        if key is None:
            return False
        self._verdicts += 1
        self._means[key][2] *= 0.9 if confirmed else 10.0
        return True

    def save(self) -> dict[str, Any]:
        keys = sorted(self._means)
        return {
            "waiting": [[*step, count] for step, count in sorted(self._waiting.items())],
            "names": [[*key, name] for key, name in sorted(self._names.items())],
            "keys": np.array(keys, np.int64).reshape(-1, 2),
            "means": np.array([self._means[key] for key in keys], np.float64).reshape(-1, 3),
            "found": [[name, *key] for name, key in self._found.items()],
            "counts": [self._closed, self._verdicts, self._frozen],
        }

    def load(self, data: dict[str, Any]) -> None:
        self._waiting = {(step, a, b): count for step, a, b, count in data["waiting"]}
        self._names = {(a, b): name for a, b, name in data["names"]}
        means = data["means"].tolist()
        self._means = {(a, b): means[index] for index, (a, b) in enumerate(data["keys"].tolist())}
        self._found = OrderedDict((name, (a, b)) for name, a, b in data["found"])
        self._closed, self._verdicts, self._frozen = data["counts"]

    def describe(self) -> dict[str, Any]:
        warm = sum(heard >= WARM for _, heard, _ in self._means.values())
        return {"cold": warm == 0, "services": len(self._means), "verdicts": self._verdicts, "frozen": self._frozen}


def install() -> None:
    """From here on judges have it."""
    learned.MAKERS["counter"] = Counter
