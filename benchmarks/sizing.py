"""How much the topics grow: bytes of tallies, of judges' records, of mitigations and findings, by kind of traffic.

No broker is needed: the same messages are made, and counted instead of sent. Flushes hold 100 ms of event time, as live ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from drills.render import lines
from drills.run import Drill, Plan
from engine.post import JudgePost
from engine.seeds import make_seeds
from engine.source_post import Bench, Messages, SourcePost
from schemas.config import parse_config
from schemas.mitigation import encode_line

SECONDS = 180
PARTITIONS = 16
TRAFFIC: dict[str, Plan] = {
    "an API in its week, 350 events/s": Plan(span_s=SECONDS, events_per_second=350, storms="none"),
    "the same, 3,500 events/s": Plan(span_s=SECONDS, events_per_second=3500, storms="none"),
    "350 events/s under a botnet of 5,000": Plan(
        span_s=SECONDS, events_per_second=350, storms="none", attacks=("botnet",), strength="loud", at_s=(30,)
    ),
    "350 events/s under fifty sources": Plan(
        span_s=SECONDS, events_per_second=350, storms="none", attacks=("flood_fifty",), strength="loud", at_s=(30,)
    ),
}


def flushes(plan: Plan) -> Iterator[list[bytes]]:
    """Records of 100 ms each, whole events as the stream has them that knows most."""
    drill = Drill(plan)
    for block in drill.blocks():
        made = lines(block, drill.world.actors, "events")
        ends = np.searchsorted(block["time_ms"], np.arange(block["time_ms"][0], block["time_ms"][-1] + 101, 100))
        for low, high in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            if high > low:
                yield [line.rstrip() for line in made[low:high]]


def measure(plan: Plan) -> dict[str, float]:
    """Totals of one kind of traffic."""
    config = parse_config({"profile": "api", "engine": {"seed": "benchmark", "judge_partitions": PARTITIONS}})
    seeds = make_seeds(config)
    post = SourcePost("requests-0", 0, "", Bench(config, seeds))
    judges = [JudgePost(config, seeds, partition, ["requests-0"], early=True) for partition in range(PARTITIONS)]
    total = dict.fromkeys(
        ("events", "raw", "tallies", "mitigations", "findings", "mitigation_bytes", "finding_bytes", "observe_s", "judge_s"),
        0.0,
    )
    offset = 0
    for values in flushes(plan):
        messages = Messages()
        size = sum(map(len, values))
        messages.add(values, range(offset, offset + len(values)), [0] * len(values), size)
        began = time.process_time()
        shipment = post.ship(messages, 0, 0)
        total["observe_s"] += time.process_time() - began
        total["events"] += len(values)
        total["raw"] += size
        began = time.process_time()
        for judge, tallies in zip(judges, shipment.parts, strict=True):
            for tally in tallies:
                total["tallies"] += len(tally)
                judge.accept(offset, tally)
            decided = judge.take()
            for name, records in (("mitigation", decided.mitigations), ("finding", decided.findings)):
                total[f"{name}s"] += len(records)
                total[f"{name}_bytes"] += sum(len(encode_line(record)) for record in records)
        total["judge_s"] += time.process_time() - began
        offset += len(values)
    total["record"] = sum(len(judge.record()) for judge in judges)
    return total


def run() -> None:
    """Print a table."""
    measure(Plan(span_s=5, storms="none"))  # compiled, or loaded
    print("\n| traffic | raw, bytes an event | tallies, bytes an event | all judges' records, kB | mitigations, findings a "
          "minute | bytes each | observe, judge: ns an event |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for name, plan in TRAFFIC.items():
        one = measure(plan)
        events, minutes = max(one["events"], 1), SECONDS / 60
        each = ", ".join(f"{one[f'{what}_bytes'] / max(one[f'{what}s'], 1):,.0f}" for what in ("mitigation", "finding"))
        print(
            f"| {name} ({one['events']:,.0f} events) | {one['raw'] / events:,.0f} | {one['tallies'] / events:,.0f} | "
            f"{one['record'] / 1000:,.0f} | {one['mitigations'] / minutes:,.0f}, {one['findings'] / minutes:,.0f} | {each} | "
            f"{1e9 * one['observe_s'] / events:,.0f}, {1e9 * one['judge_s'] / events:,.0f} |"
        )
