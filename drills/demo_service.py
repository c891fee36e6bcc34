"""The demo's stage: a small HTTP service with 16 slots, its access log, honest clients and attackers.

Everything is real but the addresses, which are documentation addresses. How clients come to have them, by saying so or by
connecting from them, is the network's affair (`drills.demo_network`).
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

from drills.demo_network import ATTACKERS, HONEST, Network

SLOTS = 16
WORK_S = 0.035
"""With all slots taken 457 requests a second, which is more than the 100 from each attacker that one second allows."""
PATIENCE_S = 0.25
"""A request that gets no slot within this time is answered 503."""
IDLE_S_MAX = 5.0
"""A connection that asks nothing for so long is closed: its client may have been cut off."""
ANSWER_S_MAX = 2.0
"""Clients give up a connection that takes longer to be made, or to answer."""
HONEST_PAUSE_S = 0.5
CONNECTIONS_PER_ATTACKER = 90
BACKLOG = 1024
"""Connections that may wait to be accepted: more than all attackers open at once."""
THROTTLED_PER_SECOND = 2
_AGENT = "OpenAI/Python 1.68.2"

Admit = Callable[[str, int], str | None]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Second:
    """What happened in one second of the demo."""

    honest: int = 0
    honest_served: int = 0
    attack: int = 0
    attack_served: int = 0
    turned_away: int = 0
    """Requests that the service refused, or packets that the kernel dropped."""

    @property
    def success(self) -> float:
        """Share of the honest requests that were served."""
        return self.honest_served / self.honest if self.honest else 1.0


@dataclass(slots=True)
class Stage:
    """The service, its log and its numbers."""

    log_path: Path
    network: Network
    admit: Admit | None = None
    """What to do with an address; None: whatever comes as far as the service is let in."""
    began: float = field(default_factory=time.monotonic)
    seconds: dict[int, Second] = field(default_factory=dict)
    at: tuple[str, int] = ("", 0)
    """Where the service listens."""
    _lines: list[str] = field(default_factory=list)
    _tokens: dict[str, tuple[int, int]] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS))

    def now(self) -> Second:
        """This second's numbers."""
        return self.seconds.setdefault(int(time.monotonic() - self.began), Second())

    async def answer(self, address: str, path: str) -> int:
        """The status of one request: what the edge says, then a slot, or none in time."""
        action = None if self.admit is None else self.admit(address, time.time_ns() // 1_000_000)
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
        peer = writer.get_extra_info("peername")[0]
        # Cancelled only when the demo is over: there is nobody to tell then.
        with contextlib.suppress(
            ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError
        ):
            while True:
                async with asyncio.timeout(IDLE_S_MAX):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
                told = headers.get("X-Forwarded-For", "-")
                status = await self.answer(told, path)
                moment = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
                self._lines.append(f'{peer} - - [{moment}] "{method} {path} HTTP/1.1" {status} 2 "-" "{_AGENT}" "{told}"\n')
                denied = status in (403, 429)
                self.now().turned_away += denied
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


async def _connect(stage: Stage, address: str) -> Connection:
    """As the client with this address."""
    made = stage.network.socket_from(address)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, stage.at)
        return await asyncio.open_connection(sock=made)
    except BaseException:
        made.close()
        raise


async def _ask(stage: Stage, address: str, path: str, kept: list[Connection]) -> int:
    """One request over a kept connection; its status, 0 when there was no answer."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            if not kept:
                kept.append(await _connect(stage, address))
            reader, writer = kept[0]
            more = stage.network.headers(address)
            writer.write(f"POST {path} HTTP/1.1\r\nHost: demo\r\n{more}User-Agent: {_AGENT}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
        return int(head.split(b" ", 2)[1])
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        for _, writer in kept:
            writer.close()
        kept.clear()
        return 0


async def _honest(stage: Stage, address: str, chance: random.Random) -> None:
    kept: list[Connection] = []
    while True:
        await asyncio.sleep(chance.expovariate(1 / HONEST_PAUSE_S))
        status = await _ask(stage, address, "/v1/chat/completions", kept)
        second = stage.now()
        second.honest += 1
        second.honest_served += status == 200


async def _attack(stage: Stage, address: str, chance: random.Random) -> None:
    kept: list[Connection] = []
    await asyncio.sleep(chance.random() * 0.5)
    while True:
        status = await _ask(stage, address, "/v1/chat/completions", kept)
        second = stage.now()
        second.attack += 1
        second.attack_served += status == 200
        await asyncio.sleep(0.01)


async def play(stage: Stage, seconds: float, attack_at: float, seed: int, each_tick: Callable[[float], None]) -> None:
    """Run the service and its clients for so long; the attack goes on to the end."""
    listener = stage.network.listener()
    stage.at = listener.getsockname()
    server = await asyncio.start_server(stage.handle, sock=listener, backlog=BACKLOG)
    stage.began = time.monotonic()
    tasks = [asyncio.create_task(stage.write_log())]
    for client, address in enumerate(HONEST):
        chance = random.Random(seed * 1000 + client)
        tasks.append(asyncio.create_task(_honest(stage, address, chance)))
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
