"""Programs with keys: customers' services, functions behind one network, a key that expired, and their storms."""

from __future__ import annotations

import numpy as np

from drills.columns import CELL_S, I64, Events, concatenated, no_events
from drills.honest.calls import answers, fail, requests_of, talk, usual_calls
from drills.service.calendar import BATCH_PER_SECOND
from drills.service.world import World

CUSTOMERS_SHARE, SERVERLESS_SHARE, MIGRATING_SHARE, FORGOTTEN_SHARE = 0.52, 0.07, 0.01, 0.002
_BURST = 4.0
"""Requests that a program sends in one go, on average."""
_BURST_MAX = 60


def _bursts(random: np.random.Generator, cell: int, expected: float) -> tuple[I64, I64]:
    """(burst, start in ms) of requests that come in goes, about ``expected`` of them."""
    count = int(random.poisson(expected / _BURST))
    sizes = np.minimum(random.geometric(1 / _BURST, count), _BURST_MAX)
    burst = np.repeat(np.arange(count), sizes)
    gaps = random.exponential(random.choice([0.15, 1.0, 4.0], count)[burst])
    gaps[np.cumsum(sizes) - sizes] = 0  # a burst begins with its first
    total = np.cumsum(gaps)
    offset = total - total[np.cumsum(sizes) - sizes][burst] if len(burst) else total
    begin = random.uniform(0, CELL_S, count)
    return burst, ((cell * CELL_S + begin[burst] + np.minimum(offset, 300)) * 1000).astype(np.int64)


def _during_outages(world: World, events: Events, random: np.random.Generator) -> None:
    """What begins while the gateway is out is answered 503, at once."""
    second = (events["time_ms"] - events["duration_ms"]) // 1000
    out = np.zeros(len(events), bool)
    for episode in world.named("outage"):
        out |= (second >= episode.start_s) & (second < episode.stop_s)
    if out.any():
        refused = events[out]
        refused["status"] = 503
        fail(refused, random)
        events[out] = refused


def customers(world: World, cell: int, random: np.random.Generator) -> Events:
    """Services that call the API: in bursts, few busy and many quiet, more of it while and after the gateway is out."""
    _, factor = world.outage_at(cell)
    regions = world.programs.regions(cell)
    expected = world.events_per_second * CUSTOMERS_SHARE * CELL_S * float(regions.sum()) * factor
    burst, start_ms = _bursts(random, cell, expected)
    actors = world.groups["customers"].pick(random, regions, int(burst[-1]) + 1 if len(burst) else 0)
    events = usual_calls(world, actors[burst], start_ms, random)
    _during_outages(world, events, random)
    return events


def serverless(world: World, cell: int, random: np.random.Generator) -> Events:
    """A thousand customers' functions behind one /24: any of their addresses, any of the keys."""
    _, factor = world.outage_at(cell)
    regions = world.people.regions(cell)
    count = int(random.poisson(world.events_per_second * SERVERLESS_SHARE * CELL_S * float(regions.sum()) * factor))
    actor = world.groups["serverless"].pick(random, regions, count)
    start_ms = ((cell + random.random(count)) * CELL_S * 1000).astype(np.int64)
    events = usual_calls(world, actor, start_ms, random)
    _during_outages(world, events, random)
    return events


def batch(world: World, cell: int, random: np.random.Generator) -> Events:
    """One customer's job: 300 requests a second under one key from a few machines, until it is done."""
    parts = []
    machines = world.groups["batch"].actors[0]
    for episode in world.named("batch"):
        low, high = max(episode.start_s, cell * CELL_S), min(episode.stop_s, (cell + 1) * CELL_S)
        if low >= high:
            continue
        count = int((high - low) * BATCH_PER_SECOND)
        start_ms = (low * 1000 + np.sort(random.random(count)) * (high - low) * 1000).astype(np.int64)
        events = requests_of("chat", machines[random.integers(0, len(machines), count)], start_ms, random)
        talk(events, random, np.zeros(count, np.int64), np.full(count, 900.0), np.full(count, 60.0), np.full(count, 256))
        events["status"] = answers(random, ((0.985, 200), (0.005, 400), (0.01, 429)), count)
        fail(events, random)
        _during_outages(world, events, random)
        parts.append(events)
    return concatenated(parts)


def migrating(world: World, cell: int, random: np.random.Generator) -> Events:
    """One customer's keys, which move from old networks to ones never seen before, more of them each hour."""
    regions = world.programs.regions(cell)
    count = int(random.poisson(world.events_per_second * MIGRATING_SHARE * CELL_S * float(regions.sum())))
    start_ms = ((cell + random.random(count)) * CELL_S * 1000).astype(np.int64)
    old, new = (world.groups[name].actors[0] for name in ("migrating_old", "migrating_new"))
    moved = 0.0
    for episode in world.named("migration"):
        done = (cell * CELL_S - episode.start_s) / (episode.stop_s - episode.start_s)
        moved = max(moved, min(max(done, 0.0), 1.0))
    key = random.integers(0, len(old), count)
    return usual_calls(world, np.where(random.random(count) < moved, new[key], old[key]), start_ms, random)


def forgotten(world: World, cell: int, random: np.random.Generator) -> Events:
    """Jobs that somebody forgot, each with a key that expired: they fail for years, a few times a minute."""
    count = int(random.poisson(world.events_per_second * FORGOTTEN_SHARE * CELL_S))
    start_ms = ((cell + random.random(count)) * CELL_S * 1000).astype(np.int64)
    actor = world.groups["forgotten"].pick(random, world.programs.regions(cell), count)
    events = requests_of("models", actor, start_ms, random)
    events["status"] = 401
    fail(events, random)
    return events


def first_calls(actor: I64, number: I64, start_ms: I64, random: np.random.Generator) -> Events:
    """What new accounts try: small questions, now and then with the key mistyped."""
    count = len(actor)
    if not count:
        return no_events()
    events = requests_of("chat", actor, start_ms, random)
    events["number"] = number
    events["flags"] = 1
    talk(events, random, np.zeros(count, np.int64), np.full(count, 150.0), np.full(count, 180.0))
    events["status"] = answers(random, ((0.93, 200), (0.04, 401), (0.03, 400)), count)
    fail(events, random)
    return events
