"""Workers as child processes, started again when they end, with a growing pause between attempts."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

from streams.logs import say

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 30.0
STEADY_S = 60.0
"""After so long without an end, the pause is short again."""
STOP_S_MAX = 20.0
LOOK_S = 0.05


@dataclass(slots=True)
class _Child:
    """One worker."""

    role: str
    arguments: list[str]
    process: subprocess.Popen[bytes]
    started_s: float
    backoff_s: float = BACKOFF_FIRST_S
    again_s: float | None = None


class Supervisor:
    """Runs one worker per role.

    Args:
        commands: the command line of each role.
        restart: start them again when they end; without it the first that ends ends the others.
    """

    def __init__(self, commands: dict[str, list[str]], *, restart: bool) -> None:
        self._commands, self._restart = commands, restart
        self._stop = threading.Event()
        self._waited_s = 0.0

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or (without restart) until one ends; the exit code of the first that failed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda came, frame: self._stop.set())
        children = [_Child(role, words, _start(words), 0.0) for role, words in self._commands.items()]
        code = 0
        while not self._stop.wait(LOOK_S):
            self._waited_s += LOOK_S
            for child in children:
                ended = self._look_after(child)
                if ended is not None and not self._restart:
                    code = ended
                    self._stop.set()
        self._end(children)
        return code

    def _look_after(self, child: _Child) -> int | None:
        """The exit code, if it has just ended."""
        if child.again_s is not None:
            if self._waited_s >= child.again_s:
                child.process, child.started_s, child.again_s = _start(child.arguments), self._waited_s, None
            return None
        code = child.process.poll()
        if code is None:
            if self._waited_s - child.started_s > STEADY_S:
                child.backoff_s = BACKOFF_FIRST_S
            return None
        child.again_s = self._waited_s + child.backoff_s
        say("worker_ended", role=child.role, exit_code=code, again_in_s=child.backoff_s if self._restart else "never")
        child.backoff_s = min(BACKOFF_MAX_S, 2 * child.backoff_s)
        return code if code >= 0 else 128 - code

    @staticmethod
    def _end(children: list[_Child]) -> None:
        alive = [child.process for child in children if child.process.poll() is None]
        for process in alive:
            process.terminate()
        for process in alive:
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "floodwall", *words], stdin=subprocess.DEVNULL)
