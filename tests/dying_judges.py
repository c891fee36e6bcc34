"""Judges of one learned detector that may die anywhere: what they find and know in the end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from engine.post import JudgePost
from schemas.config import Config
from tests.test_model_state import Topics, recover
from tests.test_posts import SEEDS, Log, observe

WRITES = 0.1
"""How often a judge's record is written, of the tallies that it reads."""


class Hasty(random.Random):
    """Observers that flush often."""

    def randint(self, a: int, b: int) -> int:
        return super().randint(a, min(b, 25))


def dealt(topic: str, lines: Sequence[bytes], config: Config) -> tuple[Log, tuple[str, ...]]:
    """(what observers say of lines that are dealt out to two partitions of a topic, the names of these)."""
    names = (f"{topic}-0", f"{topic}-1")
    parts = {name: list(lines[number :: len(names)]) for number, name in enumerate(names)}
    return observe(parts, config, Hasty(1)), names


def judged(
    log: tuple[Log, tuple[str, ...]], config: Config, detector: str, seed: int, dies: float
) -> tuple[set[str], list[dict[str, Any]], int]:
    """(ids of findings, the saved model of each partition, how many judges died)."""
    chance, ids, models, deaths = random.Random(seed), set[str](), list[dict[str, Any]](), 0
    made, names = log
    for partition, tallies in enumerate(made.tallies):
        post, topics = JudgePost(config, SEEDS, partition, list(names), early=False), Topics()
        while post.position < len(tallies):
            post.accept(post.position, tallies[post.position])
            ids |= {f.id for f in post.take().findings}
            if chance.random() < WRITES:
                topics.write(post)
            if topics.record is not None and chance.random() < dies:
                deaths += 1
                post = recover(topics, tallies, partition, list(names), (), config)
        assert not post.judge.learned.refused
        models.append(post.judge.learned.save_one(detector))
    return ids, models, deaths
