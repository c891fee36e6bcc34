"""The webhook edge: an enforcement point made of gateways that are called, each by a courier of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence

import aiohttp
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edge.courier import Courier
from edge.enforce import Done
from edge.hook_book import HookBook
from edge.hooks import CallSigner, Hooks, serves
from edge.reader import ALLOW, Change, Standing
from edge.subject import Subject
from edge.topic import Tell
from engine.clock import Clock
from schemas.errors import EdgeError

STOP_S_MAX = 5.0


class WebhookPoint:
    """Gateways as an enforcement point; what they have been told is true once they have said so.

    Args:
        book: what they may hold.
        tell: told when one goes or comes back.
    """

    def __init__(self, hooks: Hooks, signer: CallSigner, book: HookBook, clock: Clock, tell: Tell) -> None:
        self._book = book
        self._tell = tell
        self.couriers = [Courier(hook, signer, book, clock, tell) for hook in hooks.hook]
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._has_begun = threading.Event()
        self._error: BaseException | None = None

    def supports(self, subject: Subject, action: str) -> bool:
        """Whether any gateway is called for this."""
        return any(serves(courier.hook, subject, action) for courier in self.couriers)

    def replace(self, standing: Mapping[Subject, Standing], now_ms: int) -> None:
        """Have gateways hold exactly this: everything is told again, and what they hold beside it is ended."""
        gone = self._book.hooks() - {courier.hook.name for courier in self.couriers}  # before any of them writes into it
        for courier in self.couriers:
            courier.want_exactly({subject: one for subject, one in standing.items() if _is_for(courier, subject, one)})
        if gone:
            self._tell("hooks_gone", {"hooks": sorted(gone), "then": "what they hold of ours is not ended"})

    def change(self, changes: Sequence[Change], now_ms: int) -> None:
        """Have gateways told of these."""
        for courier in self.couriers:
            courier.want(
                {
                    change.subject: change.after if change.after and _is_for(courier, change.subject, change.after) else None
                    for change in changes
                }
            )

    def is_intact(self) -> bool:
        """Nobody is asked what they hold."""
        return True

    def work(self) -> list[Done]:
        """What gateways have said by now.

        Raises:
            EdgeError: calls cannot go on: what was told cannot be written down.
        """
        if self._error is not None:
            if isinstance(self._error, EdgeError):
                raise self._error
            raise RuntimeError("a fault while calling gateways") from self._error
        return [done for courier in self.couriers for done in courier.take_done()]

    def start(self) -> None:
        """Call from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()
        self._has_begun.wait(STOP_S_MAX)

    def stop(self) -> None:
        """Call no longer. What was not told stands in no book, or is told again at the next start."""
        if self._loop is not None and self._stopping is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_S_MAX)

    def metrics(self) -> Iterator[Metric]:
        """For a registry; labels are names of hooks and words of a list."""
        calls = CounterMetricFamily("floodwall_hook_calls", "Calls, by outcome.", labels=["hook", "outcome"])
        waiting = GaugeMetricFamily("floodwall_hook_waiting", "Targets that a gateway has to be told of.", labels=["hook"])
        for courier in self.couriers:
            waiting.add_metric([courier.hook.name], courier.waiting)
            for outcome, count in sorted(dict(courier.calls).items()):
                calls.add_metric([courier.hook.name, outcome], count)
        yield calls
        yield waiting

    def _run(self) -> None:
        try:
            asyncio.run(self._call())
        except Exception as error:
            self._error = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        finally:
            self._has_begun.set()

    async def _call(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._has_begun.set()
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
            tasks = [asyncio.ensure_future(courier.run(session)) for courier in self.couriers]
            waiter = asyncio.ensure_future(self._stopping.wait())
            try:
                finished, _ = await asyncio.wait({*tasks, waiter}, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    task.result()
            finally:
                for task in (*tasks, waiter):
                    task.cancel()
                await asyncio.gather(*tasks, waiter, return_exceptions=True)


def _is_for(courier: Courier, subject: Subject, standing: Standing) -> bool:
    return standing.action != ALLOW and serves(courier.hook, subject, standing.action)
