"""One worker process: check, compile, join, work, and stop when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import Literal

from broker.connection import Connection
from broker.topics import check_topics
from engine.clock import Clock
from engine.post import JudgePost
from engine.seeds import VARIABLE, Seeds, make_seeds
from engine.shipping import receive_tally
from engine.source_post import Bench, Messages, SourcePost
from schemas.compiled import tell_compiling
from schemas.config import Config
from schemas.errors import ConfigError
from streams.failpoints import failpoints_of_environment
from streams.health import Health
from streams.judges import Judges, build_judge_app
from streams.leaving import leave
from streams.logs import say, set_up_logs
from streams.metrics import Metrics
from streams.observers import Observers, build_observer_app
from streams.transport import WorkerApp

Role = Literal["observe", "judge"]
STOP_S_MAX = 10.0
"""How long Faust may take to end in an orderly way; then the process ends anyway, which loses nothing."""


YOUNG_OBJECTS_MAX = 100_000
"""New objects before Python looks for cycles among them. A fetch of 4 MiB brings 40,000 small records, which reference counts
free; with Python's 700 the collector walked them again and again, and took more processor time than reading them."""


def warm_up(config: Config, seeds: Seeds) -> None:
    """Compile or load every kernel: a compiler holds the GIL, and heartbeats with it."""
    source = SourcePost("warm-up-0", 0, "", Bench(config, seeds))
    lines = [f'192.0.2.1 - - [01/Jan/2026:00:00:{s:02} +0000] "GET / HTTP/1.1" 200 1 "-" "-"'.encode() for s in range(30)]
    messages = Messages()
    messages.add([*lines, b'{"a":1}'], list(range(31)), [0] * 31, 0)
    shipment = source.ship(messages, 0, 0)
    for partition, part in enumerate(shipment.parts):
        if receive_tally(part[0], seeds.hash, partition, config.engine.judge_partitions).rows:
            judge = JudgePost(config, seeds, partition, [source.name], early=True)
            judge.accept(0, part[0])
            judge.judge.finish()
            return


def run_worker(config: Config, role: Role, clock: Clock, *, instance: str | None = None) -> int:
    """Work until SIGTERM or SIGINT.

    Raises:
        BrokerError: no broker, a topic is missing, or the judge partitions do not fit.
        ConfigError: without a seed, workers would not agree on who judges what.
    """
    set_up_logs(clock)
    seeds = make_seeds(config)
    if not seeds.configured:
        raise ConfigError(f"expected a seed that all workers share, in `$.engine.seed` or {VARIABLE}, got none")
    check_topics(config, Connection(config.kafka).check())
    # Else a first start looks hung. Nothing is lost meanwhile: the group is joined afterwards.
    tell_compiling(lambda: say("compiling_kernels", then="later starts load them", takes="up to two minutes"))
    warm_up(config, seeds)
    gc.collect()
    gc.freeze()  # what has been loaded stays, and need not be walked
    gc.set_threshold(YOUNG_OBJECTS_MAX)
    asyncio.run(_run(config, role, clock, seeds, instance))
    return 0


async def _run(config: Config, role: Role, clock: Clock, seeds: Seeds, instance: str | None) -> None:
    metrics, failpoints = Metrics(), failpoints_of_environment()
    station: Observers | Judges
    app: WorkerApp
    if role == "observe":
        station = Observers(config, clock, seeds, metrics, failpoints)
        app = build_observer_app(config, station, instance)
    else:
        station = Judges(config, clock, seeds, metrics, failpoints)
        app = build_judge_app(config, station, instance)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health(role, station, metrics, clock)
    await health.serve(config.kafka.health_port)
    app.in_worker = True
    app.finalize()
    try:
        await app.start()
    except Exception as error:
        leave(error, "starting")
    tasks = [asyncio.ensure_future(station.run()), asyncio.ensure_future(health.watch())]
    say("started", role=role, group=app.conf.id, instance=instance or "none")
    await stop.wait()
    say("stopping", role=role)
    station.revoke()
    for task in tasks:
        task.cancel()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app.stop(), STOP_S_MAX)
        await asyncio.wait_for(station.close(), STOP_S_MAX)
    say("stopped", role=role)
