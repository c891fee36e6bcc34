"""The nginx edge: writes a file that nginx includes, checks it with nginx itself, and has it read by a signal.

A reload leaves old workers behind until their last connection ends, and answers of LLMs take minutes. So nginx is told
only when the file has changed, and at most once in some seconds: the first change after a quiet time at once, those after it
together. What is only extended waits until its end as nginx knows it is near.
What ends needs no reload (`edge.nginx_rules`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.enforce import Done
from edge.files import put_whole
from edge.nginx_rules import NginxSettings, choose, http_text, server_text, supports
from edge.reader import Change, Record, Standing
from edge.subject import Subject
from edge.topic import Tell
from engine.clock import Clock
from schemas.errors import EdgeError

HTTP_FILE, SERVER_FILE = "http.conf", "server.conf"
NGINX_S_MAX = 60
EXTEND_MS = 30_000
"""So long before an entry ends its extension is written. Renewals come every minute, of everything that is in force."""
RETRY_S = 10
"""How long after a failure nginx is asked again."""
_NOT_INSTALLED = "install nginx (Debian, Ubuntu: apt-get install nginx-light), or name it with --nginx"
_FULL = "this edge holds as many targets of this kind as it may"


@dataclass(frozen=True, slots=True)
class Nginx:
    """How to run nginx: the words before ``-t`` and ``-s reload``."""

    words: tuple[str, ...] = ("nginx",)

    def complaint(self, *arguments: str) -> str | None:
        """What nginx says against it, in one line; None: nothing.

        Raises:
            EdgeError: there is no nginx, or it hangs.
        """
        done = self._run(arguments)
        if done.returncode == 0:
            return None
        lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines()]
        worst = [line for line in lines if "[emerg]" in line or "[error]" in line]
        return (worst or lines or ["no message"])[0][:300]

    def includes(self, file: Path) -> bool:
        """Whether its configuration includes a file.

        Raises:
            EdgeError: there is no nginx, or its configuration is wrong.
        """
        done = self._run(("-T",))
        if done.returncode != 0:
            raise EdgeError(f"expected a configuration that nginx takes, got: {self.complaint('-t')}")
        return f"# configuration file {file}:".encode() in done.stdout

    def _run(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run((*self.words, *arguments), capture_output=True, check=False, timeout=NGINX_S_MAX)
        except FileNotFoundError:
            raise EdgeError(f"expected the program {self.words[0]}, found none on the path: {_NOT_INSTALLED}") from None
        except subprocess.TimeoutExpired:
            raise EdgeError(f"expected nginx to be done within {NGINX_S_MAX} s, it was not") from None
        except OSError as error:
            raise EdgeError(f"expected to run {self.words[0]}, got: {error.strerror or error}") from None


class NginxFiles:
    """Two files that nginx includes, as an enforcement point.

    Args:
        folder: where they lie; nobody else writes there.
        reload_s: nginx is told at most once in so many seconds.
        tell: told what nginx says against a file, and when it is away.
        show: a dry run: give it every file instead of writing it.
    """

    def __init__(
        self, folder: Path, settings: NginxSettings, nginx: Nginx, reload_s: float, clock: Clock, tell: Tell,
        *, show: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self._file = folder / HTTP_FILE
        self._server_file = folder / SERVER_FILE
        self._settings = settings
        self._nginx = nginx
        self._reload_ms = int(reload_s * 1000)
        self._clock = clock
        self._tell = tell
        self._show = show
        self._table: dict[Subject, Standing] = {}
        self._written = b""
        self._must_write = False
        self._must_reload = False
        self._write_at_ms: int | None = None
        """When something that was extended would end if nothing were written."""
        self._not_before_ms = 0
        self._trouble = ""
        self._waiting: dict[Subject, Record] = {}
        """What is acknowledged when nginx has been told."""
        self._extended: list[Done] = []
        self._said: dict[Subject, tuple[str, str]] = {}
        """(id, action) of what has been acknowledged and is in force."""
        self.reloads = 0

    def supports(self, subject: Subject, action: str) -> bool:
        """Whether nginx can do this to such a subject."""
        return supports(self._settings, subject, action)

    def open(self) -> None:
        """Check that nginx is there and includes our file; one that is not there yet is made, empty.

        Raises:
            EdgeError: which of these fails, and what to do.
        """
        if self._show is not None:
            return
        try:
            is_included = self._open_files()
            self._written = self._file.read_bytes()
        except OSError as error:
            raise EdgeError(f"expected to write to {self._file.parent}, got: {error.strerror or error}") from None
        if not is_included:
            raise EdgeError(
                f"expected nginx to include {self._file}, it does not: put `include {self._file};` into http {{ }} and"
                f" `include {self._server_file};` into each server or location to protect, and start again"
            )

    def _open_files(self) -> bool:
        """Make the files fit the options; whether nginx includes them. Nothing is reloaded yet."""
        empty = http_text(self._settings, {}).encode()
        if not self._file.exists():
            self._put(self._file, empty)
        server_before = self._server_file.read_bytes() if self._server_file.exists() else b""
        http_before = self._file.read_bytes()
        self._put(self._server_file, server_text(self._settings).encode())
        try:
            return self._nginx.includes(self._file)
        except EdgeError:
            # Perhaps what is there was written under other options. What nginx has in memory stays until it is told.
            self._put(self._file, empty)
            try:
                return self._nginx.includes(self._file)
            except EdgeError:
                self._put(self._server_file, server_before)
                self._put(self._file, http_before)
                raise

    def replace(self, standing: Mapping[Subject, Standing], now_ms: int) -> None:
        """Hold exactly this, once nginx has been told."""
        self._table = dict(standing)
        self._must_write = self._must_reload = True
        self._waiting = {subject: one.record for subject, one in standing.items() if not self._is_said(subject, one)}

    def change(self, changes: Sequence[Change], now_ms: int) -> None:
        """Take these steps, once nginx has been told. What has ended needs no telling."""
        for change in changes:
            subject, before, after = change.subject, change.before, change.after
            if after is None:
                self._must_write = self._must_write or change.kind == "lift"
                for forgotten in (self._table, self._waiting, self._said):
                    forgotten.pop(subject, None)
                continue
            self._table[subject] = after
            if change.kind == "extend" and before is not None and after.expires_at_ms > before.expires_at_ms:
                self._extend(subject, before, after)
            else:
                self._must_write = True
                if not self._is_said(subject, after):
                    self._waiting[subject] = after.record

    def is_intact(self) -> bool:
        """Whether the file is as it was written."""
        return self._show is not None or self._must_write or self._is_as_written()

    def work(self) -> list[Done]:
        """Write, check and tell nginx, if there is something to tell and it is time; what is in force by now."""
        now_ms = self._clock.now_ms()
        extended, self._extended = self._extended, []
        if self._write_at_ms is not None and now_ms >= self._write_at_ms:
            self._must_write = True
        if not (self._must_write or self._must_reload) or now_ms < self._not_before_ms:
            return extended
        room, left = choose({subject: one for subject, one in self._table.items() if one.expires_at_ms > now_ms})
        text = http_text(self._settings, room)
        if self._show is not None:
            self._show(text)
            self._must_write = self._must_reload = False
            self._write_at_ms = None
            return []
        try:
            trouble = self._write(text.encode()) if self._must_write else None
            if trouble is None and self._must_reload:
                trouble = self._reload()
        except EdgeError as error:  # the program has gone: packages are being upgraded, say
            trouble = self._fail("nginx_away", str(error))
        self._not_before_ms = now_ms + (self._reload_ms if trouble is None else RETRY_S * 1000)
        return extended + (self._done(room, left) if trouble is None else [])

    def empty(self) -> None:
        """Let everything pass.

        Raises:
            EdgeError: nginx does not take it.
        """
        self._table = {}
        trouble = self._write(http_text(self._settings, {}).encode()) or self._reload()
        if trouble is not None:
            raise EdgeError(f"expected nginx to take an empty {self._file}, got: {trouble}")

    def _write(self, data: bytes) -> str | None:
        """Put the file in place if nginx takes it; what is wrong, if not."""
        before = self._written
        if data == before and self._is_as_written():
            self._must_write, self._write_at_ms = False, None
            return None
        try:
            self._put(self._file, data)
            complaint = self._nginx.complaint("-t")
            if complaint is not None:
                self._put(self._file, before)
                return self._fail("nginx_refuses", complaint)
        except OSError as error:
            return self._fail("file_not_written", error.strerror or str(error))
        self._written = data
        self._must_write, self._must_reload, self._write_at_ms = False, True, None
        return None

    def _is_as_written(self) -> bool:
        try:
            return self._file.read_bytes() == self._written
        except OSError:
            return False

    def _reload(self) -> str | None:
        complaint = self._nginx.complaint("-s", "reload")
        if complaint is not None:
            return self._fail("nginx_away", complaint)
        self._must_reload = False
        self.reloads += 1
        if self._trouble:
            self._tell("nginx_back", {"reloads": self.reloads})
            self._trouble = ""
        return None

    def _fail(self, event: str, why: str) -> str:
        """Told once for as long as it is the same."""
        if self._trouble != event:
            self._trouble = event
            self._tell(event, {"why": why, "then": f"what nginx has stays, and ends on time; again every {RETRY_S} s"})
        return why

    def _done(self, room: Mapping[Subject, Standing], left: Mapping[Subject, Standing]) -> list[Done]:
        found = []
        for subject, record in self._waiting.items():
            if subject in room:
                found.append(Done(record, "applied", ""))
                self._said[subject] = record.id, record.action
            elif subject in left:
                found.append(Done(record, "error", _FULL))
        self._waiting.clear()
        return found

    def _extend(self, subject: Subject, before: Standing, after: Standing) -> None:
        """It is in force already: that is acknowledged at once, and written when it has to be."""
        at_ms = before.expires_at_ms - EXTEND_MS
        self._write_at_ms = at_ms if self._write_at_ms is None else min(self._write_at_ms, at_ms)
        if subject in self._waiting or subject not in self._said:
            self._waiting[subject] = after.record
        elif not self._is_said(subject, after):
            self._extended.append(Done(after.record, "applied", ""))
            self._said[subject] = after.record.id, after.record.action

    def _is_said(self, subject: Subject, standing: Standing) -> bool:
        return self._said.get(subject) == (standing.record.id, standing.record.action)

    @staticmethod
    def _put(file: Path, data: bytes) -> None:
        if not file.exists() or file.read_bytes() != data:
            put_whole(file, data, 0o644)
