"""Sockets of the feed and the intake: TLS, bounds on connections, and a thread of its own, since whoever uses Kafka waits."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from prometheus_client import Counter as Count
from prometheus_client import Gauge

from edge.bouncer_api import Limits
from edge.topic import Tell
from schemas.errors import EdgeError, UsageError

_SILENT = logging.getLogger("floodwall.bouncer-api.silent")
"""aiohttp would log every request that is none, with what was sent and a stack trace. Faults of ours the API tells itself."""
_SILENT.disabled = True
START_S_MAX = 10.0
STOP_S_MAX = 5.0
HEALTH_HOST = "127.0.0.1"
HANDSHAKE_S = 10.0
BACKLOG = 256


class Api(Protocol):
    """Answers requests."""

    async def answer(self, request: BaseRequest) -> web.StreamResponse:
        """Answer one; whatever is raised is a fault."""
        ...

    def health(self) -> dict[str, object]:
        """How it is; ``status`` is ``up``, or something else."""
        ...


class ServerMetrics(Protocol):
    """What is counted of connections, and all that is counted."""

    refused_connections: Count
    connections: Gauge

    def text(self) -> bytes:
        """The exposition format."""
        ...


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: what we show, and who signed what clients have to show."""

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For a server.

        Raises:
            EdgeError: a file cannot be read, or they do not fit together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.client_authority is not None:
                context.load_verify_locations(self.client_authority)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(file) for file in (self.certificate, self.key, self.client_authority) if file is not None)
            raise EdgeError(f"expected a certificate with its key in PEM files ({files}), got: {error}") from None
        return context


def tls_of(certificate: Path | None, key: Path | None, client_authority: Path | None) -> Tls | None:
    """What these files make; None: plaintext.

    Raises:
        UsageError: one needs another that is missing.
    """
    if (certificate is None) != (key is None):
        raise UsageError("expected --certificate and --certificate-key together, got one of them")
    if certificate is None or key is None:
        if client_authority is not None:
            raise UsageError("expected --certificate where bouncers have to show one, got --client-authority alone")
        return None
    return Tls(certificate, key, client_authority)


def parse_listen(text: str) -> tuple[str, int]:
    """``host:port``, or ``[address]:port``.

    Raises:
        UsageError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(f"expected an address and port to listen on, 127.0.0.1:8080 say, got {text[:80]!r}")
    return host, int(port)


def refuse_plaintext(host: str, tls: Tls | None, told: bool) -> None:
    """Keys, those of bouncers and those that were leaked, must not cross a network in the clear.

    Raises:
        EdgeError: the address can be reached from elsewhere, there is no TLS, and nobody said that this is right.
    """
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if tls is None and not is_loopback and not told:
        raise EdgeError(
            f"expected TLS where others can listen, got plaintext on {host}: give --certificate and --certificate-key,"
            " listen on 127.0.0.1, or say --plaintext (a proxy before it has TLS, say)"
        )


class _Bounded(web.Server):
    """Closes connections that are too many."""

    def __init__(self, api: Api, limits: Limits, metrics: ServerMetrics) -> None:
        super().__init__(
            api.answer, request_factory=self._make, access_log=None, logger=_SILENT, keepalive_timeout=limits.idle_s,
            lingering_time=1.0,
            max_line_size=limits.header_bytes_max, max_field_size=limits.header_bytes_max, max_headers=limits.headers_max,
        )  # fmt: skip
        self._limits = limits
        self._metrics = metrics
        self._addresses: Counter[str] = Counter()
        self._open: dict[RequestHandler, str] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        address = str((transport.get_extra_info("peername") or ("",))[0])
        for bound, is_passed in (
            ("all", len(self._open) >= self._limits.connections_max),
            ("address", self._addresses[address] >= self._limits.connections_of_address_max),
        ):
            if is_passed:
                self._metrics.refused_connections.labels(bound).inc()
                # Not now: who handles it has not begun, and would begin without a connection.
                self._loop.call_soon(transport.abort)
                return
        self._open[handler] = address
        self._addresses[address] += 1
        self._metrics.connections.set(len(self._open))

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        address = self._open.pop(handler, None)
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
            self._metrics.connections.set(len(self._open))

    def _make(
        self, message: RawRequestMessage, payload: StreamReader, protocol: RequestHandler, writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> BaseRequest:  # fmt: skip
        bytes_max = self._limits.body_bytes_max
        return BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=bytes_max)


class BouncerServer:
    """Serves clients, and health and metrics on 127.0.0.1.

    Args:
        listen: host and port; or a socket that is bound already.
        health_port: 0: any free one, which is told.
    """

    def __init__(
        self, api: Api, metrics: ServerMetrics, limits: Limits, tell: Tell, *, listen: tuple[str, int] | socket.socket,
        health_port: int, tls: Tls | None = None,
    ) -> None:  # fmt: skip
        self._api = api
        self._metrics = metrics
        self._limits = limits
        self._tell = tell
        self._listen = listen
        self._health_port = health_port
        self._context = tls.context() if tls is not None else None
        self._thread = threading.Thread(target=self._run, name="bouncer-api", daemon=True)
        self._begun = threading.Event()
        self._error: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self.ports = (0, 0)
        """Where bouncers and where health are answered."""

    def start(self) -> None:
        """Begin to answer.

        Raises:
            EdgeError: a port is taken, or may not be listened on.
        """
        self._thread.start()
        if not self._begun.wait(START_S_MAX) or self._error is not None:
            raise self._error or EdgeError(f"expected to listen within {START_S_MAX:.0f} s, it took longer")

    def check(self) -> None:
        """Raises: whatever has ended it."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop answering, and close every connection."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_S_MAX)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._error = error
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        bounded = _Bounded(self._api, self._limits, self._metrics)
        health = web.Server(self._answer_health, access_log=None, logger=_SILENT)
        servers = [
            await self._open(bounded, self._listen, self._context),
            await self._open(health, (HEALTH_HOST, self._health_port), None),
        ]
        self.ports = servers[0].sockets[0].getsockname()[1], servers[1].sockets[0].getsockname()[1]
        self._tell("listening", {"port": self.ports[0], "health": f"http://{HEALTH_HOST}:{self.ports[1]}/health"})
        self._begun.set()
        try:
            await self._stopping.wait()
        finally:
            for server in servers:
                server.close()
            for one in (bounded, health):
                await one.shutdown(STOP_S_MAX / 2)

    async def _open(
        self, server: web.Server, listen: tuple[str, int] | socket.socket, context: ssl.SSLContext | None
    ) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        patience = HANDSHAKE_S if context is not None else None
        if isinstance(listen, socket.socket):
            return await loop.create_server(server, sock=listen, ssl=context, ssl_handshake_timeout=patience, backlog=BACKLOG)
        host, port = listen
        try:
            return await loop.create_server(server, host, port, ssl=context, ssl_handshake_timeout=patience, backlog=BACKLOG)
        except OSError as error:
            raise EdgeError(f"expected port {port} on {host} to be free for us, got: {error.strerror or error}") from None

    async def _answer_health(self, request: BaseRequest) -> web.StreamResponse:
        if request.path == "/health":
            health = self._api.health()
            return web.json_response(health, status=200 if health["status"] == "up" else 503)
        if request.path == "/metrics":
            return web.Response(body=self._metrics.text(), content_type="text/plain")
        return web.Response(status=404)
