"""Several configurations over the same traffic: each a run of its own by the same engine, side by side in processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from engine.clock import Clock, SystemClock
from engine.config_chain import ConfigChain
from engine.seeds import make_seeds
from replay.collected import MITIGATIONS_MAX, Collected
from replay.run import Outcome, replay
from replay.sources import STDIN
from schemas.config import Config, parse_config
from schemas.errors import UsageError
from schemas.mitigation import Mitigation

RUNS_MAX = 64
"""Of one command; each is the whole engine over all of the traffic."""
JOBS_MAX = 16
"""Each process takes up to 2 GB."""
MUCH_BYTES = 64 << 20
"""What one process reads within a few seconds."""
Progress = Callable[[int], None] | None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be decided."""

    config: Config
    paths: list[str]
    between_ms: tuple[int | None, int | None] = (None, None)
    history: list[str] | None = None
    """Changes of the configuration, as they were accepted, each from its second on."""
    feedback: str | None = None
    """A file of what operators said, each from its second on."""
    mitigations_max: int = MITIGATIONS_MAX
    """So many are kept."""


class Run(msgspec.Struct, kw_only=True):
    """What was decided."""

    mitigations: list[Mitigation]
    events: int = 0
    """That were counted"""
    oldest_s: int = 0
    """Unix seconds of the first of them …"""
    newest_s: int = 0
    """… and of the last"""
    said: list[str] = []
    """Why it may not be whole, a sentence each."""
    ended_early: dict[str, str] = {}
    is_whole: bool = True


def run_all(tasks: Sequence[Task], clock: Clock, jobs: int, done: Callable[[], None] | None = None) -> list[Run]:
    """Decide all of them, in their order; the result does not depend on ``jobs``.

    Raises:
        SourceError, BrokerError: as `replay.run.replay`. KeyboardInterrupt: half a comparison is none.
    """
    found: list[Run | None] = [None] * len(tasks)
    if jobs < 2 or len(tasks) < 2 or not _is_much(tasks[0].paths):
        for number, task in enumerate(tasks):
            found[number] = run_one(task, clock)
            if done is not None:
                done()
    else:
        with ProcessPoolExecutor(min(jobs, len(tasks), JOBS_MAX), multiprocessing.get_context("spawn")) as pool:
            with _deaf_children():
                numbers = {pool.submit(_run_packed, msgspec.json.encode(task)): number for number, task in enumerate(tasks)}
            try:
                for future in as_completed(numbers):
                    found[numbers[future]] = msgspec.msgpack.decode(future.result(), type=Run)
                    if done is not None:
                        done()
            except KeyboardInterrupt:  # half a comparison is none: nobody waits for the rest of it
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
    return [run for run in found if run is not None]


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that begin here hear no Ctrl-C, which a terminal sends to all: each would print where it was. We end them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_much(paths: Sequence[str]) -> bool:
    """Whether processes of their own, which take three seconds to begin, are worth it."""
    return sum(os.path.getsize(path) if os.path.isfile(path) else MUCH_BYTES for path in paths) >= MUCH_BYTES


def run_one(task: Task, clock: Clock) -> Run:
    """Decide one, here."""
    collected = Collected(task.mitigations_max, findings_max=0, evidence=False)
    chain = None
    if task.history is not None:
        chain = ConfigChain(task.config)
        for number, change in enumerate(task.history):
            chain.offer(change.encode(), offset=number)
    feedback = None if task.feedback is None else Path(task.feedback)
    outcome = replay(
        task.config, task.paths, collected, clock, between_ms=task.between_ms, history=chain, feedback=feedback
    )  # fmt: skip
    if outcome.interrupted:
        raise KeyboardInterrupt
    said = [*collected.said(), *_bounds(outcome)]
    return Run(
        mitigations=collected.mitigations, events=outcome.account.counted, said=said, ended_early=outcome.ended_early,
        oldest_s=outcome.account.oldest_ms // 1000, newest_s=outcome.account.newest_ms // 1000,
        is_whole=collected.is_whole,
    )  # fmt: skip


def _run_packed(data: bytes) -> bytes:
    """In a process of its own: plain bytes in, plain bytes out."""
    task = msgspec.json.decode(data, type=Task)
    return msgspec.msgpack.encode(run_one(task, SystemClock()))


def _bounds(outcome: Outcome) -> list[str]:
    account = outcome.account
    texts = {
        "late": "events were late and not counted", "stragglers": "events came when their second had been decided",
        "truncated": "rows or samples were left out by a bound", "aged_out": "keys were given up by a full table",
        "gaps": "gaps lie between segments",
    }  # fmt: skip
    found = [f"{count:,} {text}" for name, text in texts.items() if (count := getattr(account, name))]
    return [*found, *(f"{name} broke off: {why}" for name, why in outcome.ended_early.items())]


@dataclass(frozen=True, slots=True)
class Alike:
    """Configurations that read alike and share one seed, so that whatever differs in what they decide is their doing."""

    configs: list[Config] = field(default_factory=list)
    seed_was_drawn: bool = False


def made_alike(configs: Sequence[Config]) -> Alike:
    """One seed for all.

    Raises:
        UsageError: they read events in different ways, so that names in one are not those in the other.
    """
    first = configs[0]
    seeds = make_seeds(next((config for config in configs if config.engine.seed), first))
    for config in configs[1:]:
        if config.input != first.input or config.engine.judge_partitions != first.engine.judge_partitions:
            raise UsageError(
                "expected configurations that read alike, got different sections `input` or `engine.judge_partitions`: the "
                "same event would have different names, and nothing could be compared"
            )
        if config.engine.seed and config.engine.seed != seeds.secret:
            raise UsageError("expected configurations of one `engine.seed`, got two: keys would have different fingerprints")
    replace = msgspec.structs.replace
    alike = [parse_config(msgspec.to_builtins(replace(one, engine=replace(one.engine, seed=seeds.secret))), "options")
             for one in configs]  # fmt: skip
    return Alike(alike, not seeds.configured)


def check_sources(paths: Sequence[str]) -> None:
    """Raises `UsageError` for standard input, which can be read only once."""
    if STDIN in paths:
        raise UsageError("expected files or topics, which can be read again, got - (standard input)")
