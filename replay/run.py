"""replay: recorded traffic through the engine, as fast as it goes, in step of event time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine.account import Account
from engine.clock import Clock
from engine.embedded import Embedded
from replay.sink import Sink
from replay.sources import STDIN, LineSource, bound_of, expand, make_buffer, open_source
from replay.state import load_state, save_state
from schemas.config import Config
from schemas.tally import UNKNOWN_MS

Progress = Callable[[int, Account | None], None]
"""Called with the bytes read since the last call, compressed or not."""


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    account: Account
    seconds: float
    sources: int
    bytes: int
    interrupted: bool = False
    ended_early: dict[str, str] = field(default_factory=dict)
    """Sources that broke off, and why."""


def replay(
    config: Config,
    paths: list[str],
    sink: Sink,
    clock: Clock,
    *,
    between_ms: tuple[int | None, int | None] = (None, None),
    state: Path | None = None,
    early: bool = False,
    threads: int = 1,
    chunk_bytes: int = 1 << 20,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Read all sources to their end and decide.

    With ``state``, an interrupted run leaves one, and a run that finds one goes on from it.

    Raises:
        SourceError: a source cannot be opened. StateError: the state cannot be used.
    """
    names = expand(paths)
    began = time.perf_counter()
    saved = load_state(state)
    if saved is None:
        engine = Embedded(config, early=early, threads=threads, between_ms=between_ms)
    else:
        engine = Embedded.restore(config, saved, early=early, threads=threads, between_ms=between_ms)
    known = engine.positions()
    line_max = config.input.record_bytes_max
    buffer = make_buffer(line_max, chunk_bytes)
    outcome = Outcome(Account(), 0.0, len(names), 0)
    sources: list[LineSource] = []
    for name in names:
        start = 0 if name == STDIN else known.get(name, 0)
        sources.append(open_source(name, start=start, line_max=line_max, chunk_bytes=chunk_bytes))
        engine.open(name, bound_of(name, clock.now_ms()), start)
    try:
        while sources:
            source = min(sources, key=lambda s: _order(engine.newest_ms(s.name)))
            length = source.read(buffer)
            if source.name == STDIN:
                engine.set_bound(STDIN, clock.now_ms())
            if source.refusal is not None:
                refused = source.refusal
                engine.refuse(source.name, refused.start, refused.length, refused.reason, excerpt=refused.excerpt)
            if length:
                engine.feed(source.name, buffer, length, source.base)
                outcome.bytes += length
            if source.ended:
                if source.error is not None:
                    outcome.ended_early[source.name] = source.error
                engine.close(source.name)
                sources.remove(source)
            sink.write(engine.take())
            if progress is not None:
                progress(length)
        engine.finish()
    except KeyboardInterrupt:
        outcome.interrupted = True
        if state is not None:
            engine.account()
            sink.write(engine.take())
            save_state(state, engine.snapshot())
        else:
            engine.finish()
    outcome.account = engine.account()
    sink.write(engine.take())
    engine.stop()
    if not outcome.interrupted and state is not None:
        save_state(state, engine.snapshot())
    outcome.seconds = time.perf_counter() - began
    return outcome


def _order(newest_ms: int) -> int:
    return newest_ms if newest_ms != UNKNOWN_MS else -(2**63)
