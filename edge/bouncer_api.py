"""The part of CrowdSec's local API that bouncers use, as they use it: paths, words and failures. It opens no sockets.

An answer to a stream counts when the bouncer's machine has acknowledged every byte of it. Before that its place does not move,
so that a poll that failed is answered again.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import orjson
from aiohttp import web
from aiohttp.web_request import BaseRequest

from edge.bouncer_keys import BouncerKey, Keyring
from edge.bouncer_metrics import FeedMetrics, UsageReport
from edge.decisions import TYPE_OF, Place, decision, duration_text
from edge.delivery import Delivery
from edge.feed import Feed, Told
from edge.offers import Asks
from edge.topic import Tell
from engine.clock import Clock

KEY_HEADER = "X-Api-Key"
SERVER = "floodwall"
FIREWALLS = ("crowdsec-firewall-bouncer", "cs-firewall-bouncer")
"""How the user agents of CrowdSec's firewall bouncers begin."""
SCOPES_ASKED = "ip,range"
"""What a bouncer that names no scopes asks for."""
GZIP_BYTES_MIN = 1024
GZIP_LEVEL = 1
"""100,000 decisions: 20 MB become 3 MB in 0.2 s; the next levels save little and cost twice that."""
TEXT_MAX = 256
"""Characters of a parameter."""
_GONE_FOR = "1s"
"""The duration of what is deleted: it is not looked at, and must be one that nobody reads as for ever."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side may cost the others."""

    connections_max: int = 1024
    connections_of_address_max: int = 64
    idle_s: float = 75.0
    """Until a connection without a whole request is closed: bouncers ask every 10 to 60 seconds on the same one."""
    answer_s: float = 30.0
    """How long a bouncer may take to receive an answer, or to send what it posts."""
    body_bytes_max: int = 1 << 20
    """Of what is posted, after decompression."""
    header_bytes_max: int = 4096
    """Of one line of a request's head."""
    headers_max: int = 48


class Prepared(NamedTuple):
    """An answer in bytes."""

    told: Told
    body: bytes
    headers: dict[str, str]


class BouncerApi:
    """Answers bouncers.

    Args:
        feed: what they are told.
        keyring: who they are.
        stale_since_ms: since when the brokers are away; None: they are there.
        tell: told of faults.
    """

    def __init__(
        self, feed: Feed, keyring: Keyring, metrics: FeedMetrics, clock: Clock, limits: Limits,
        stale_since_ms: Callable[[], int | None], tell: Tell,
    ) -> None:  # fmt: skip
        self._feed = feed
        self._keyring = keyring
        self._metrics = metrics
        self._clock = clock
        self._limits = limits
        self._stale_since_ms = stale_since_ms
        self._tell = tell
        self._paths = {
            "/v1/decisions/stream": (("GET", "HEAD"), self._stream),
            "/v1/decisions": (("GET", "HEAD"), self._live),
            "/v1/usage-metrics": (("POST",), self._usage),
        }

    async def answer(self, request: BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.path
        try:
            response = await self._answer(request)
        except web.HTTPRequestEntityTooLarge:
            response = _message(f"expected at most {self._limits.body_bytes_max} bytes", 413)
            response.force_close()
        except (web.RequestPayloadError, ConnectionError):  # what it sent cannot be unpacked, or it has gone
            response = _message("expected a whole body", 400)
            response.force_close()
        except Exception as error:
            # A fault of ours: who asked is told that it failed, and asks again; whoever runs us is told where to look.
            self._tell("request_failed", {"path": path if path in self._paths else "other", "why": repr(error)[:TEXT_MAX]})
            response = _message("a fault of the feed", 500)
        if not response.prepared:
            response.headers["Server"] = SERVER
        known = path if path in self._paths or path == "/health" else "other"
        self._metrics.requests.labels(known, str(response.status)).inc()
        return response

    def health(self) -> dict[str, object]:
        """How it is: ``up`` once the topic has been read to its end, and since when it hears nothing new."""
        stale_since_ms = self._stale_since_ms()
        return {
            "status": "up" if self._feed.is_filled else "starting",
            "stale": stale_since_ms is not None,
            "stale_since": None if stale_since_ms is None else stale_since_ms // 1000,
        }

    async def _answer(self, request: BaseRequest) -> web.StreamResponse:
        if request.path == "/health" and request.method in ("GET", "HEAD"):
            return _plain(self.health(), 200 if self._feed.is_filled else 503)
        key = self._keyring.find(request.headers.get(KEY_HEADER, ""))
        if key is None:
            self._metrics.refused_keys.inc()
            refused = _message("access forbidden", 403)
            refused.force_close()  # what comes behind it, a body say, is not read
            return refused
        methods, answer = self._paths.get(request.path, ((), None))
        if answer is None:
            return _message("no such path", 404)
        if request.method not in methods:
            return _message("method not allowed", 405)
        if request.method == "HEAD":
            return web.Response(headers=self._marks())
        return await answer(request, key)

    async def _stream(self, request: BaseRequest, key: BouncerKey) -> web.StreamResponse:
        if not self._feed.is_filled:
            return _message("the enforcement topic has not been read to its end yet", 503)
        asks = Asks(
            key,
            frozenset(_text(request.query, "scopes", SCOPES_ASKED).lower().split(",")),
            request.headers.get("User-Agent", "").startswith(FIREWALLS),
        )
        is_startup = request.query.get("startup", "") == "true"
        packs = "gzip" in request.headers.get("Accept-Encoding", "")
        loop = asyncio.get_running_loop()
        # Not in the loop: a hundred thousand decisions would make all others wait for half a second.
        prepared = await loop.run_in_executor(None, self._prepare, asks, request.remote or "", is_startup, packs)
        response = web.StreamResponse(headers=prepared.headers | self._marks())
        response.content_length = len(prepared.body)
        has_arrived = await self._send(request, response, prepared.body)
        if has_arrived:
            await loop.run_in_executor(None, self._feed.arrived, prepared.told)
            answer = prepared.told.answer
            self._metrics.arrived(key.name, len(answer.new), len(answer.deleted), self._clock.now_ms())
        else:
            self._metrics.answers.labels(key.name, "lost").inc()
        return response

    async def _send(self, request: BaseRequest, response: web.StreamResponse, body: bytes) -> bool:
        """Whether all of it was received."""
        transport = request.transport
        if transport is None:
            return False
        with Delivery(transport) as delivery:
            try:
                async with asyncio.timeout(self._limits.answer_s):
                    await response.prepare(request)
                    await response.write(body)
                    await response.write_eof()
                    return await delivery.arrived()
            except (TimeoutError, ConnectionError):
                transport.abort()
                return False

    def _prepare(self, asks: Asks, address: str, is_startup: bool, packs: bool) -> Prepared:
        now_ms = self._clock.now_ms()
        told = self._feed.tell(asks, address, is_startup=is_startup, now_ms=now_ms)
        new = []
        for place, offer in told.answer.new:
            duration = duration_text(offer.until_ms - now_ms)
            if duration is not None:
                new.append(decision(place, offer.kind, duration, offer.standing.record))
        deleted = [decision(place, kind, _GONE_FOR, None) for place, kind in told.answer.deleted]
        body = orjson.dumps({"new": new, "deleted": deleted})
        headers = {"Content-Type": "application/json", "Server": SERVER}
        if packs and len(body) >= GZIP_BYTES_MIN:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Prepared(told, body, headers)

    async def _live(self, request: BaseRequest, key: BouncerKey) -> web.StreamResponse:
        if not self._feed.is_filled:
            return _message("the enforcement topic has not been read to its end yet", 503)
        now_ms = self._clock.now_ms()
        try:
            found = self._asked(request.query, key, now_ms)
        except ValueError as error:
            return _message(str(error), 400)
        kind = _text(request.query, "type", "")
        decisions = [one for one in found if not kind or one["type"] == kind]
        # What is empty is null: nginx-lua would fall over an empty array.
        response = web.Response(body=orjson.dumps(decisions or None), content_type="application/json")
        response.headers.update(self._marks())
        return response

    def _asked(self, query: Mapping[str, str], key: BouncerKey, now_ms: int) -> list[dict[str, object]]:
        """Decisions about whom it asks for. Nobody is given a list of everything this way.

        Raises:
            ValueError: it asks for nobody, or for what is no address.
        """
        scope, value = _text(query, "scope", "ip").lower(), _text(query, "value", "")
        whom = _text(query, "ip", "") or _text(query, "range", "") or (value if scope in ("ip", "range") else "")
        found = []
        if whom:
            for place, standing in self._feed.about(whom, key, now_ms):
                kind, until_ms, record = TYPE_OF[standing.action], standing.expires_at_ms, standing.record
                found.append((place, kind, until_ms, record))
        elif value:
            names = {"country": ("Country", value.upper()), "as": ("AS", value.upper().removeprefix("AS"))}
            place = Place(*names.get(scope, ("", "")))
            offer = self._feed.named(place, key)
            if offer is not None:
                found.append((place, offer.kind, offer.until_ms, offer.standing.record))
        else:
            raise ValueError("expected one of ip, range, or scope with value, got none")
        decisions = []
        for place, kind, until_ms, record in found:
            duration = duration_text(until_ms - now_ms)
            if duration is not None:
                decisions.append(decision(place, kind, duration, record))
        return decisions

    async def _usage(self, request: BaseRequest, key: BouncerKey) -> web.StreamResponse:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                body = await request.read()
        except TimeoutError:
            return _message("expected the whole body sooner", 408)
        try:
            report = msgspec.json.decode(body, type=UsageReport)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return _message(f"expected usage metrics, got: {error}"[:TEXT_MAX], 400)
        self._metrics.reported(key.name, report)
        return web.Response(status=201)

    def _marks(self) -> dict[str, str]:
        """Says in every answer since when it has heard nothing new."""
        stale_since_ms = self._stale_since_ms()
        return {} if stale_since_ms is None else {"X-Floodwall-Stale-Since": str(stale_since_ms // 1000)}


def _text(query: Mapping[str, str], name: str, otherwise: str) -> str:
    found = query.get(name, otherwise)
    return found if len(found) <= TEXT_MAX else ""


def _plain(document: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def _message(text: str, status: int) -> web.Response:
    return _plain({"message": text}, status)
