"""The demo's stage: a small HTTP service on loopback with 16 slots, its access log, honest clients and attackers.

Everything is real but the addresses: clients say theirs in X-Forwarded-For, as a trusted proxy would, and they are
documentation addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

SLOTS = 16
WORK_S = 0.04
PATIENCE_S = 0.25
"""A request that gets no slot within this time is answered 503."""
HONEST_CLIENTS = 40
HONEST_PAUSE_S = 0.5
ATTACKERS = tuple(f"203.0.113.{last}" for last in (7, 66, 99, 142))
CONNECTIONS_PER_ATTACKER = 90
THROTTLED_PER_SECOND = 2
_AGENT = "OpenAI/Python 1.68.2"

Admit = Callable[[str, int], str | None]


@dataclass(slots=True)
class Second:
    """What happened in one second of the demo."""

    honest: int = 0
    honest_served: int = 0
    attack: int = 0
    attack_served: int = 0
    denied: int = 0

    @property
    def success(self) -> float:
        """Share of the honest requests that were served."""
        return self.honest_served / self.honest if self.honest else 1.0


@dataclass(slots=True)
class Stage:
    """The service, its log and its numbers."""

    log_path: Path
    admit: Admit
    began: float = field(default_factory=time.monotonic)
    seconds: dict[int, Second] = field(default_factory=dict)
    port: int = 0
    _lines: list[str] = field(default_factory=list)
    _tokens: dict[str, tuple[int, int]] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS))

    def now(self) -> Second:
        """This second's numbers."""
        return self.seconds.setdefault(int(time.monotonic() - self.began), Second())

    async def answer(self, address: str, path: str) -> int:
        """The status of one request: what the edge says, then a slot, or none in time."""
        action = self.admit(address, time.time_ns() // 1_000_000)
        if action == "block":
            return 403
        if action is not None and not self._has_token(address):
            return 429
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._slots.acquire()
        except TimeoutError:
            return 503
        try:
            await asyncio.sleep(WORK_S)
        finally:
            self._slots.release()
        return 200

    def _has_token(self, address: str) -> bool:
        second = int(time.monotonic())
        since, used = self._tokens.get(address, (second, 0))
        if since != second:
            since, used = second, 0
        self._tokens[address] = (since, used + 1)
        return used < THROTTLED_PER_SECOND

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        # Cancelled only when the demo is over: there is nobody to tell then.
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError
        ):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
                address = headers.get("X-Forwarded-For", "-")
                status = await self.answer(address, path)
                moment = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
                line = f'127.0.0.1 - - [{moment}] "{method} {path} HTTP/1.1" {status} 2 "-" "{_AGENT}" "{address}"\n'
                self._lines.append(line)
                denied = status in (403, 429)
                self.now().denied += denied
                writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: 2\r\n\r\nok".encode())
                await writer.drain()
                if denied:
                    await asyncio.sleep(0.05)
        writer.close()

    async def write_log(self) -> None:
        """Append what was answered, twenty times a second, as a server with a small log buffer does."""
        with self.log_path.open("a") as file:
            while True:
                lines, self._lines = self._lines, []
                file.write("".join(lines))
                file.flush()
                await asyncio.sleep(0.05)


async def _ask(port: int, address: str, path: str, kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> int:
    """One request over a kept connection; its status, 0 when there was no answer."""
    try:
        if not kept:
            kept.append(await asyncio.open_connection("127.0.0.1", port))
        reader, writer = kept[0]
        request = f"POST {path} HTTP/1.1\r\nHost: demo\r\nX-Forwarded-For: {address}\r\nUser-Agent: {_AGENT}\r\n\r\n"
        writer.write(request.encode())
        async with asyncio.timeout(2.0):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
        return int(head.split(b" ", 2)[1])
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        for _, writer in kept:
            writer.close()
        kept.clear()
        return 0


async def _honest(stage: Stage, address: str, chance: random.Random) -> None:
    kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    while True:
        await asyncio.sleep(chance.expovariate(1 / HONEST_PAUSE_S))
        status = await _ask(stage.port, address, "/v1/chat/completions", kept)
        second = stage.now()
        second.honest += 1
        second.honest_served += status == 200


async def _attack(stage: Stage, address: str, chance: random.Random) -> None:
    kept: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    await asyncio.sleep(chance.random() * 0.5)
    while True:
        status = await _ask(stage.port, address, "/v1/chat/completions", kept)
        second = stage.now()
        second.attack += 1
        second.attack_served += status == 200
        await asyncio.sleep(0.01)


async def play(stage: Stage, seconds: float, attack_at: float, seed: int, each_tick: Callable[[float], None]) -> None:
    """Run the service and its clients for so long; the attack goes on to the end."""
    server = await asyncio.start_server(stage.handle, "127.0.0.1", 0)
    stage.port = server.sockets[0].getsockname()[1]
    stage.began = time.monotonic()
    tasks = [asyncio.create_task(stage.write_log())]
    for client in range(HONEST_CLIENTS):
        chance = random.Random(seed * 1000 + client)
        tasks.append(asyncio.create_task(_honest(stage, f"198.51.100.{client + 1}", chance)))
    attacking = False
    try:
        while (passed := time.monotonic() - stage.began) < seconds:
            if passed >= attack_at and not attacking:
                attacking = True
                for index in range(len(ATTACKERS) * CONNECTIONS_PER_ATTACKER):
                    chance = random.Random(seed * 1000 + 500 + index)
                    tasks.append(asyncio.create_task(_attack(stage, ATTACKERS[index % len(ATTACKERS)], chance)))
            each_tick(passed)
            await asyncio.sleep(0.2)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=5)
        server.close()
