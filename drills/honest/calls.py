"""How a call to a model looks: tokens, durations, sizes and answers, for honest clients and for whoever mimics them."""

from __future__ import annotations

import numpy as np

from drills.columns import F64, I64, Events, chosen, no_events, whole
from drills.service.shapes import EMBED, MODELS, SHAPE_OF, SHAPES
from drills.service.world import ASSISTANT, CHAT, EMBEDDINGS, MIXED, World

_SPEED: F64 = np.array([model.tokens_per_second for model in MODELS])
_HAS_TOKENS = np.array([shape.has_tokens for shape in SHAPES])
USUAL = ((0.957, 200), (0.011, 400), (0.003, 401), (0.008, 404), (0.010, 429), (0.006, 500), (0.005, 499))
"""Answers to working programs, by weight."""
STREAM_S = (420.0, 660.0)
"""Long streams: agents that think, documents that are written at length; around ten minutes."""
STREAM_SHARE = 0.004
_HABITS = {
    CHAT: (("chat", 92), ("models", 3), ("moderations", 5)),
    EMBEDDINGS: (("embeddings", 97), ("models", 3)),
    ASSISTANT: (("messages", 30), ("run", 45), ("responses", 20), ("file", 5)),
    MIXED: (("chat", 55), ("responses", 15), ("embeddings", 12), ("file", 8), ("batch", 7), ("delete_file", 3)),
}
_MAX_TOKENS = np.array([0, 0, 512, 1024, 1024, 2048, 4096, 4096])


def answers(random: np.random.Generator, mix: tuple[tuple[float, int], ...], count: int) -> I64:
    """Statuses, as often as the mix says."""
    statuses = np.array([status for _, status in mix])
    return statuses[chosen(random, [weight for weight, _ in mix], count)]


def requests_of(shape: str, actor: I64, start_ms: I64, random: np.random.Generator) -> Events:
    """One request of each actor at its time, all of one shape, answered 200 after some milliseconds."""
    events = no_events(len(actor))
    events["shape"] = SHAPE_OF[shape]
    events["actor"], events["time_ms"], events["status"] = actor, start_ms, 200
    events["path"] = random.integers(0, 1 << 62, len(actor))
    events["bytes"] = whole(random.lognormal(6.8, 0.5, len(actor)))
    take_time(events, whole(random.lognormal(3.4, 0.6, len(actor)), 1, 60_000))
    return events


def take_time(events: Events, duration_ms: I64) -> None:
    """Completed so long after it began, instead of when it was said to before."""
    events["time_ms"] += duration_ms - events["duration_ms"]
    events["duration_ms"] = duration_ms


def talk(
    events: Events, random: np.random.Generator, model: I64, tokens_in: F64, tokens_out: F64, max_tokens: I64 | None = None
) -> None:
    """Give calls to models their tokens (around the given, by chance), and the time and bytes that go with them."""
    count = len(events)
    events["model"] = model
    events["tokens_in"] = whole(tokens_in * random.lognormal(0, 0.9, count), 1, 400_000)
    out = whole(tokens_out * random.lognormal(0, 0.8, count), 1, 60_000)
    out[model == EMBED] = 0
    cached = random.random(count) < 0.3
    cached &= model != EMBED
    events["tokens_cached"] = np.where(cached, events["tokens_in"] * random.random(count), 0)
    events["max_tokens"] = _MAX_TOKENS[random.integers(0, 8, count)] if max_tokens is None else max_tokens
    events["max_tokens"][model == EMBED] = 0
    bound = events["max_tokens"]
    events["tokens_out"] = np.where(bound > 0, np.minimum(out, bound), out)
    pace = random.lognormal(0, 0.2, count)
    wait = 180 + events["tokens_in"] / 40 + events["tokens_out"] / _SPEED[model] * 1000
    take_time(events, whole(wait * pace, 20, 660_000))
    events["bytes"] = whole(380 + events["tokens_out"] * 4.6 + np.where(model == EMBED, 6200, 0))


def fail(events: Events, random: np.random.Generator) -> None:
    """What was answered with an error used nothing and took no time; one that was cancelled used its prompt."""
    bad = (events["status"] >= 400) & (events["status"] != 499)
    if bad.any():
        broken = events[bad]
        for name in ("tokens_in", "tokens_out", "tokens_cached"):
            broken[name] = 0
        broken["bytes"] = random.integers(90, 320, len(broken))
        take_time(broken, whole(random.lognormal(2.3, 0.7, len(broken)), 1, 5000))
        events[bad] = broken
    gone = events["status"] == 499
    if gone.any():
        left = events[gone]
        part = random.random(len(left))
        left["tokens_out"] = left["tokens_out"] * part
        left["bytes"] = left["bytes"] * part
        take_time(left, whole(left["duration_ms"] * part, 1))
        events[gone] = left


def usual_calls(world: World, actor: I64, start_ms: I64, random: np.random.Generator) -> Events:
    """What working programs ask for, each by its key's habit, answered as usual."""
    count = len(actor)
    events = requests_of("chat", actor, start_ms, random)
    habit = world.habit[actor]
    for kind, mix in _HABITS.items():
        here = np.flatnonzero(habit == kind)
        names = np.array([SHAPE_OF[name] for name, _ in mix])
        events["shape"][here] = names[chosen(random, [weight for _, weight in mix], len(here))]
    talking = np.flatnonzero(_HAS_TOKENS[events["shape"]])
    talks = events[talking]
    model = np.where(talks["shape"] == SHAPE_OF["embeddings"], EMBED, world.model[talks["actor"]])
    model[(model == EMBED) & (talks["shape"] != SHAPE_OF["embeddings"])] = 0
    scale = world.scale[talks["actor"]]
    talk(talks, random, model, 520 * scale, 190 * scale)
    long = (random.random(len(talks)) < STREAM_SHARE) & (model != EMBED)
    streams = talks[long]
    take_time(streams, whole(random.uniform(*STREAM_S, len(streams)) * 1000))
    streams["tokens_out"] = streams["duration_ms"] / 1000 * _SPEED[streams["model"]]
    streams["max_tokens"], streams["bytes"] = 0, streams["tokens_out"] * 5
    talks[long] = streams
    events[talking] = talks
    events["status"] = answers(random, USUAL, count)
    fail(events, random)
    return events
