"""Calls one gateway until it is as it should be: what is wanted of it, what it has been told, and what to try again when.

There is no queue of calls. What is wanted replaces what was wanted before of the same target, so a gateway that is down
for an hour is then told what holds by then, and what waits is never more than what is in force. Nothing is given up, an end
least of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp

from edge.enforce import Done
from edge.hook_book import Held, HookBook
from edge.hooks import Call, CallSigner, Hook, Request, request_of, target_of
from edge.reader import Standing
from edge.subject import Subject, parse_subject
from edge.topic import Tell
from engine.clock import Clock

BATCH_MAX = 64
"""Calls between two looks at what is wanted."""
BACKOFF_MS_MIN, BACKOFF_MS_MAX = 1000, 60_000
RETRY_AFTER_MS_MAX = 300_000
"""The longest that a gateway can put us off."""
ANSWER_BYTES_MAX = 4096
"""Of an answer; only its status counts."""
_AGAIN = (408, 425, 429)
"""Statuses below 500 that say: not now."""


@dataclass(frozen=True, slots=True)
class _Job:
    subject: Subject
    held: Held
    """What the gateway holds when it has been begun, or what is ended."""
    standing: Standing | None
    """None: it is ended."""
    request: Request


class _Answer(NamedTuple):
    is_done: bool
    is_away: bool
    """Not about this call: the whole gateway is left alone for a while."""
    why: str
    after_ms: int = 0


class Courier:
    """One hook.

    Args:
        book: what hooks may hold, on disk.
        tell: told when the gateway goes and comes back.
    """

    def __init__(self, hook: Hook, signer: CallSigner, book: HookBook, clock: Clock, tell: Tell) -> None:
        self.hook = hook
        self._signer = signer
        self._book = book
        self._clock = clock
        self._tell = tell
        # Between the thread that reads the topic and the one that calls.
        self._lock = threading.Lock()
        self._wanted: dict[Subject, Standing] = {}
        self._open: dict[Subject, None] = {}
        self._must_reconcile = False
        self._done: list[Done] = []
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        # Of the thread that calls.
        self._confirmed: dict[Subject, tuple[str, str, int]] = {}
        self._tries: dict[Subject, tuple[int, int]] = {}
        """How often it has failed, and when it is tried again."""
        self._failures = 0
        self._not_before_ms = 0
        self._has_told_full = False
        self._refused: dict[Subject, str] = {}
        self.calls: Counter[str] = Counter()
        """By outcome: ``done``, ``refused``, ``away``."""

    @property
    def waiting(self) -> int:
        """Targets about which the gateway has to be told something."""
        return len(self._open)

    def want_exactly(self, wanted: Mapping[Subject, Standing]) -> None:
        """From now on this and nothing else: it is told all of it, and what it holds beside that is ended."""
        with self._lock:
            self._wanted = dict(wanted)
            self._must_reconcile = True
        self._rouse()

    def want(self, changes: Mapping[Subject, Standing | None]) -> None:
        """From now on these; None: nothing any longer."""
        with self._lock:
            for subject, standing in changes.items():
                if standing is None:
                    self._wanted.pop(subject, None)
                else:
                    self._wanted[subject] = standing
                self._open[subject] = None
        self._rouse()

    def take_done(self) -> list[Done]:
        """What has become of mitigations since the last call."""
        with self._lock:
            found, self._done = self._done, []
        return found

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Call for ever.

        Raises:
            EdgeError: the book cannot be written.
        """
        event = asyncio.Event()
        self._wake = asyncio.get_running_loop(), event
        while True:
            wait_ms = await self.round(session)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), None if wait_ms is None else wait_ms / 1000)
            event.clear()

    async def round(self, session: aiohttp.ClientSession) -> int | None:
        """Make the calls that are due; in how many milliseconds there are more, None: when something else is wanted."""
        jobs = self._due(self._clock.now_ms())
        self._book.write([job.held for job in jobs if job.standing is not None], [])
        gate = asyncio.Semaphore(self.hook.parallel_max)
        answers = await asyncio.gather(*(self._call(session, job, gate) for job in jobs))
        ended = []
        for job, answer in zip(jobs, answers, strict=True):
            if self._settle(job, answer):
                ended.append(job.held)
        self._book.write([], ended)
        return self._wait_ms()

    def _due(self, now_ms: int) -> list[_Job]:
        with self._lock:
            if self._must_reconcile:
                held = [parse_subject(one.target) for one in self._book.of(self.hook.name)]
                self._open |= dict.fromkeys([*self._wanted, *held])
                self._confirmed.clear()
                self._must_reconcile = False
            if now_ms < self._not_before_ms:
                return []
            # A gateway that was away is first asked about one target, and about another each time.
            room = 1 if self._failures else BATCH_MAX
            found: list[_Job] = []
            for subject in list(self._open):
                if len(found) >= room:
                    break
                if self._tries.get(subject, (0, 0))[1] > now_ms:
                    continue
                job = self._job(subject, now_ms)
                if job is not None:
                    found.append(job)
            return found

    def _job(self, subject: Subject, now_ms: int) -> _Job | None:
        """What has to be done about a subject; one about which nothing has is closed."""
        standing = self._wanted.get(subject)
        target = target_of(subject)
        held = self._book.get(self.hook.name, target)
        if standing is not None and standing.expires_at_ms > now_ms:
            record, until = standing.record, standing.expires_at_ms // 1000
            told = self._confirmed.get(subject)
            if told == (record.id, standing.action, until):
                self._close(subject)
                return None
            if told is not None and told[1] == standing.action and not self.hook.repeats:
                self._confirm(subject, standing)
                self._close(subject)
                return None
            if held is None and self._book.is_full:
                if not self._has_told_full:
                    self._has_told_full = True
                    self._tell("book_full", {"hook": self.hook.name, "then": "what is new waits until something has ended"})
                return None
            held = Held(self.hook.name, target, record.id, standing.action, record.detector, record.reason, record.issued_at,
                        until)  # fmt: skip
            return _Job(subject, held, standing, _request(self.hook.begin, held, "active"))
        if held is None:
            self._close(subject)
            return None
        if self.hook.end is None:
            self._book.write([], [held])
            self._confirmed.pop(subject, None)
            self._close(subject)
            return None
        return _Job(subject, held, None, _request(self.hook.end, held, "ended"))

    def _close(self, subject: Subject) -> None:
        for about in (self._open, self._tries, self._refused):
            about.pop(subject, None)

    def _confirm(self, subject: Subject, standing: Standing) -> None:
        before = self._confirmed.get(subject)
        record = standing.record
        self._confirmed[subject] = record.id, standing.action, standing.expires_at_ms // 1000
        if before is None or before[:2] != (record.id, standing.action):
            self._done.append(Done(record, "applied", ""))

    async def _call(self, session: aiohttp.ClientSession, job: _Job, gate: asyncio.Semaphore) -> _Answer:
        request = job.request
        call = self.hook.begin if job.standing is not None or self.hook.end is None else self.hook.end
        async with gate:
            headers = {
                "Content-Type": "application/json", "User-Agent": "floodwall", **self.hook.headers,
                **self._signer.headers(request.key, self._clock.now_ms() // 1000, request.body),
            }  # fmt: skip
            timeout = aiohttp.ClientTimeout(total=self.hook.timeout_s)
            try:
                async with session.request(
                    request.method, request.url, data=request.body, headers=headers, allow_redirects=False, timeout=timeout
                ) as response:
                    await response.content.read(ANSWER_BYTES_MAX)
                    return _answer(response, call)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                return _Answer(False, True, f"no answer: {type(error).__name__}")

    def _settle(self, job: _Job, answer: _Answer) -> bool:
        """What follows of an answer; true: what was held is held no longer."""
        now_ms = self._clock.now_ms()
        self.calls["done" if answer.is_done else "away" if answer.is_away else "refused"] += 1
        with self._lock:
            if answer.is_done:
                self._tries.pop(job.subject, None)
                self._refused.pop(job.subject, None)
                if self._failures:
                    self._failures, self._not_before_ms = 0, 0
                    self._tell("gateway_back", {"hook": self.hook.name})
                if job.standing is not None:
                    self._confirm(job.subject, job.standing)
                    return False
                self._confirmed.pop(job.subject, None)
                return True
            failed = self._tries.get(job.subject, (0, 0))[0] + 1
            self._tries[job.subject] = failed, now_ms + _backoff_ms(failed)
            self._open.pop(job.subject, None)
            self._open[job.subject] = None  # to the end: one that always fails must not be the one that is tried
            if answer.is_away:
                self._be_away(answer, now_ms)
            elif job.standing is not None and self._refused.get(job.subject) != job.standing.record.id:
                self._refused[job.subject] = job.standing.record.id
                self._done.append(Done(job.standing.record, "error", f"hook {self.hook.name}: {answer.why}; tried again"))
        return False

    def _be_away(self, answer: _Answer, now_ms: int) -> None:
        if now_ms < self._not_before_ms:
            return  # another call of the same batch has said so
        self._failures += 1
        self._not_before_ms = now_ms + max(_backoff_ms(self._failures), answer.after_ms)
        if self._failures == 1:
            self._tell("gateway_away", {"hook": self.hook.name, "why": answer.why, "then": "tried again, nothing is given up"})

    def _wait_ms(self) -> int | None:
        now_ms = self._clock.now_ms()
        with self._lock:
            if not self._open and not self._must_reconcile:
                return None
            next_ms = min((self._tries.get(subject, (0, 0))[1] for subject in self._open), default=0)
            if self._book.is_full:
                next_ms = max(next_ms, now_ms + BACKOFF_MS_MIN)
            return max(self._not_before_ms, next_ms) - now_ms if max(self._not_before_ms, next_ms) > now_ms else 0

    def _rouse(self) -> None:
        if self._wake is not None:
            loop, event = self._wake
            loop.call_soon_threadsafe(event.set)


def _request(call: Call, held: Held, state: str) -> Request:
    return request_of(
        call,
        {
            "id": held.id, "state": state, "action": held.action, "type": held.target.type, "target": held.target.value,
            "detector": held.detector, "reason": held.reason, "issued": held.issued_at, "until": held.until,
        },
    )  # fmt: skip


def _answer(response: aiohttp.ClientResponse, call: Call) -> _Answer:
    status = response.status
    if status // 100 == 2 or status in call.done_statuses:
        return _Answer(True, False, "")
    text = response.headers.get("Retry-After", "")
    after_ms = min(int(text) * 1000, RETRY_AFTER_MS_MAX) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    return _Answer(False, status >= 500 or status in _AGAIN, f"the gateway answered {status}", after_ms)


def _backoff_ms(failures: int) -> int:
    return min(BACKOFF_MS_MIN << min(failures - 1, 16), BACKOFF_MS_MAX)
