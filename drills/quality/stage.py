"""Honest traffic made once, and any attack set into it: its bytes are the same whatever the attack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from drills.attacks.strengths import StrengthName
from drills.columns import I64, Events, concatenated
from drills.labels import Truth
from drills.quality.scenes import BEFORE_S, BEGIN_S, Scene
from drills.render import Pieces, lines
from drills.run import Drill, Plan
from drills.scoring.exposure import Exposure, ExposureReader
from schemas.config import Config

_BLOCK_LINES = 10_000
BLOCK_S = 600
"""Made at a time: of a small service, minutes are too little to be worth a call."""
STREAM = "events"


class Lines:
    """Events as lines, with what puts them in order."""

    def __init__(self, drill: Drill, config: Config, truth: Truth | None = None) -> None:
        parts: list[Events] = []
        texts: list[list[bytes]] = []
        reader = ExposureReader(config)
        for events in drill.blocks(BLOCK_S):
            if truth is not None:
                truth.note(events)
            written = lines(events, drill.world.actors, STREAM)
            reader.take(written, events["attack"].astype(np.int64))
            parts.append(events[["time_ms", "id"]].copy())
            texts.append(written)
        together = concatenated(parts)
        self.time_ms: I64 = together["time_ms"]
        self.ids: I64 = together["id"]
        self.texts: Pieces = np.empty(len(self.time_ms), object)
        self.texts[:] = [text for part in texts for text in part]
        self.exposure: Exposure = reader.finish()

    def __len__(self) -> int:
        return len(self.time_ms)


def merged(honest: Lines, hostile: Lines | None) -> Iterator[bytes]:
    """Blocks of the lines of both, in order of time."""
    if hostile is None:
        texts = honest.texts
    else:
        times, ids = (np.concatenate(pair) for pair in ((honest.time_ms, hostile.time_ms), (honest.ids, hostile.ids)))
        texts = np.concatenate((honest.texts, hostile.texts))[np.lexsort((ids, times))]
    for first in range(0, len(texts), _BLOCK_LINES):
        yield b"".join(texts[first : first + _BLOCK_LINES].tolist())


class Stage:
    """One scene under one seed.

    Args:
        config: how lines are read.
    """

    def __init__(self, scene: Scene, seed: int, config: Config) -> None:
        self.scene, self._seed, self._config = scene, seed, config
        self.honest = Lines(Drill(self._plan()), config)

    def attack(self, name: str, strength: StrengthName) -> tuple[Lines, list[dict[str, Any]]]:
        """An attack's lines, and its record as in labels.ndjson."""
        drill = Drill(self._plan(attacks=(name,), strength=strength, at_s=(BEFORE_S,), honest=False))
        truth = Truth(drill)
        made = Lines(drill, self._config, truth)
        return made, truth.summary()[1:]

    def _plan(self, **more: Any) -> Plan:
        return Plan(
            seed=self._seed, start_s=BEGIN_S, span_s=self.scene.span_s, events_per_second=self.scene.events_per_second,
            storms="none", **more,
        )  # fmt: skip
