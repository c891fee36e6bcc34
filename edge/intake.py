"""What GitHub's secret scanning partner programme posts, received: verified, fingerprinted, and passed on. It opens no sockets.

A post is a JSON array of ``{token, type, url, source}``, signed. Nothing of it is looked at before its signature has been
checked, and no key goes anywhere: fingerprints are made of it, and what is told, counted or answered holds none. GitHub is
answered 200 when the brokers have acknowledged every record, else 503, so that it posts again. The same post again changes
nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web
from aiohttp.web_request import BaseRequest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from edge.github_keys import GithubKeys, is_identifier, is_signed
from edge.known_keys import KnownKeys
from edge.leaks_topic import holds_from
from edge.topic import Tell
from engine.clock import Clock
from schemas.config import Intake
from schemas.decoding.fingerprint import keyed_fingerprint
from schemas.errors import BrokerError, ConfigError
from schemas.leaked import Form, LeakRecord, LeakReport

PATHS = ("/", "/github")
IDENTIFIER, SIGNATURE = "Github-Public-Key-Identifier", "Github-Public-Key-Signature"
PROVIDER = "github"
TOKEN_CHARACTERS_MAX = 4096
URL_CHARACTERS_MAX = 2048
BODY_S_MAX = 10.0
REMEMBERED_MAX = 100_000
"""Fingerprints that are not published again: 150 bytes each."""
RETRY_AFTER_S = 30
SOURCES = frozenset((
    "content", "commit", "pull_request_title", "pull_request_description", "pull_request_comment", "issue_title",
    "issue_description", "issue_comment", "discussion_title", "discussion_body", "discussion_comment", "commit_comment",
    "gist_content", "gist_comment", "npm",
))  # fmt: skip
"""As GitHub documents them, whatever their case."""
_BETWEEN = re.compile(r"[^A-Za-z0-9_.\-]+")
_WORD = re.compile(r"[A-Za-z0-9_.\-]{1,100}")


class _Match(msgspec.Struct):
    """One leaked key. Never print it."""

    token: str
    type: str
    url: str = ""
    source: str = ""


class IntakeMetrics:
    """All metrics of an intake. No label comes from a post."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.posts = Counter("floodwall_intake_posts", "Posts, by what became of them.", ["outcome"], registry=self.registry)
        self.matches = Counter(
            "floodwall_intake_matches", "Leaked keys in posts that were taken.", ["outcome"], registry=self.registry
        )
        self.refused_connections = Counter(
            "floodwall_intake_refused_connections", "Past the bounds.", ["bound"], registry=self.registry
        )
        self.connections = Gauge("floodwall_intake_connections", "Open now.", registry=self.registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _Refused(Exception):
    """A post that is not taken; the text is one of ours, and holds nothing of the post."""

    def __init__(self, outcome: str, status: int, text: str) -> None:
        super().__init__(text)
        self.outcome, self.status, self.text = outcome, status, text


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """How fingerprints are made.

    Args:
        key_seed: of our keyed hash; None: it is not among the forms.
    """

    forms: tuple[Form, ...]
    key_seed: tuple[int, int] | None
    known: KnownKeys | None

    def of(self, token: bytes, digest: bytes) -> list[tuple[Form, str]]:
        """Of one key, the gateway's own id first."""
        gateway = self.known.find(digest) if self.known is not None else None
        found: list[tuple[Form, str]] = [("gateway", gateway)] if gateway else []
        for form in self.forms:
            if form == "keyed":
                assert self.key_seed is not None
                found.append((form, keyed_fingerprint(self.key_seed, token)))
            else:
                found.append((form, ("sha256:" if form == "sha256_prefixed" else "") + digest.hex()))
        return found


def fingerprints_of(config: Intake, key_seed: tuple[int, int] | None) -> Fingerprints:
    """As configured; the kernel is compiled here.

    Raises:
        ConfigError: the keyed hash is wanted, and there is no seed that the workers share; or the file of known keys is none.
    """
    if "keyed" in config.forms and key_seed is None:
        raise ConfigError(
            "expected a seed that the workers share, in `$.engine.seed` or FLOODWALL_SEED, since `$.intake.forms` has keyed;"
            " got none"
        )
    known = KnownKeys(config.known_keys) if config.known_keys is not None else None
    made = Fingerprints(config.forms, key_seed, known)
    made.of(b"warm-up", bytes(32))
    return made


class IntakeApi:
    """Answers GitHub.

    Args:
        publish: writes records and waits until the brokers have them; raises `BrokerError`. Called in a thread.
        lateness_s: of the judges' event time.
        tell: told of faults; nothing that it is told comes from a post.
    """

    def __init__(
        self, config: Intake, keys: GithubKeys, fingerprints: Fingerprints, publish: Callable[[Sequence[LeakRecord]], None],
        metrics: IntakeMetrics, clock: Clock, lateness_s: int, tell: Tell,
    ) -> None:  # fmt: skip
        self._config, self._keys, self._fingerprints, self._publish = config, keys, fingerprints, publish
        self._metrics, self._clock, self._lateness_s, self._tell = metrics, clock, lateness_s, tell
        self._busy = 0
        self._minute, self._in_minute = -1, 0
        self._published: OrderedDict[bytes, None] = OrderedDict()
        self._is_away = False

    def health(self) -> dict[str, object]:
        """How it is: ``up`` once GitHub's keys are known; and whether the brokers took what came last."""
        return {"status": "up" if self._keys.is_loaded else "starting", "brokers_away": self._is_away}

    async def answer(self, request: BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.path == "/health" and request.method in ("GET", "HEAD"):
            health = self.health()
            return _json(health, 200 if health["status"] == "up" else 503)
        try:
            response, outcome = await self._take(request), "taken"
        except _Refused as refused:
            response, outcome = _json({"message": refused.text}, refused.status), refused.outcome
            if refused.status in (429, 503):
                response.headers["Retry-After"] = str(RETRY_AFTER_S)
            response.force_close()  # what of the body was not read is not read
        except web.HTTPRequestEntityTooLarge:
            response, outcome = _json({"message": self._too_long}, 413), "too_long"
            response.force_close()
        except (web.RequestPayloadError, ConnectionError):
            response, outcome = _json({"message": "expected a whole body"}, 400), "broken"
            response.force_close()
        except Exception as error:
            # Its text may hold what was posted: the name of its class has to do.
            self._tell("post_failed", {"fault": type(error).__name__})
            response, outcome = _json({"message": "a fault of the intake"}, 500), "fault"
            response.force_close()
        self._metrics.posts.labels(outcome).inc()
        response.headers["Server"] = "floodwall"
        return response

    @property
    def _too_long(self) -> str:
        return f"expected at most {self._config.body_bytes_max} bytes"

    async def _take(self, request: BaseRequest) -> web.Response:
        identifier, signature = self._check_head(request)
        loop = asyncio.get_running_loop()
        key = self._keys.find(identifier)
        if (key is None and self._keys.may_refresh) or self._keys.is_stale:
            await loop.run_in_executor(None, self._keys.refresh)
            key = self._keys.find(identifier)
        if key is None:
            if not self._keys.is_loaded:
                raise _Refused("no_public_keys", 503, "the public keys could not be read yet")
            raise _Refused("unknown_key", 401, f"expected the identifier of a public key of GitHub's in {IDENTIFIER}")
        self._check_rate()
        if self._busy >= self._config.posts_at_once:
            raise _Refused("busy", 503, f"expected at most {self._config.posts_at_once} posts at once")
        self._busy += 1
        try:
            try:
                async with asyncio.timeout(BODY_S_MAX):
                    body = await request.read()
            except TimeoutError:
                raise _Refused("slow", 408, "expected the whole body sooner") from None
            if not is_signed(key, signature, body):
                raise _Refused("forged", 401, f"expected {SIGNATURE} to be the signature of the body, it is not")
            report = hashlib.sha256(signature.encode()).hexdigest()[:32]
            return await loop.run_in_executor(None, self._take_signed, body, report)
        finally:
            self._busy -= 1

    def _check_head(self, request: BaseRequest) -> tuple[str, str]:
        """Identifier and signature. Whatever can be refused without the body is."""
        if request.path not in PATHS:
            raise _Refused("no_such_path", 404, "no such path")
        if request.method != "POST":
            raise _Refused("not_posted", 405, "expected a POST")
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Refused("packed", 415, "expected a body as it was signed, not a packed one")
        identifier, signature = request.headers.get(IDENTIFIER, ""), request.headers.get(SIGNATURE, "")
        if not is_identifier(identifier) or not signature:
            raise _Refused("unsigned", 401, f"expected the headers {IDENTIFIER} and {SIGNATURE}")
        if (request.content_length or 0) > self._config.body_bytes_max:
            raise _Refused("too_long", 413, self._too_long)
        return identifier, signature

    def _check_rate(self) -> None:
        minute = self._clock.now_ms() // 60_000
        if minute != self._minute:
            self._minute, self._in_minute = minute, 0
        self._in_minute += 1
        if self._in_minute > self._config.posts_per_minute_max:
            raise _Refused("too_many", 429, f"expected at most {self._config.posts_per_minute_max} posts a minute")

    def _take_signed(self, body: bytes, report: str) -> web.Response:
        """In a thread: make records, publish them, and say what GitHub wants to know."""
        matches = self._parse(body)
        tokens = frozenset(token.decode() for _, token in matches)
        self._refresh_known()
        records, digests, repeated = list[LeakRecord](), list[bytes](), 0
        for match, token in matches:
            digest = hashlib.sha256(token).digest()
            digests.append(digest)
            if digest in self._published:
                repeated += 1
                continue
            records += self._records(match, token.decode(), digest, report, tokens)
        try:
            self._publish(records)
        except BrokerError as error:
            if not self._is_away:
                self._tell("not_published", {"why": str(error)[:300], "then": "GitHub is told to post again"})
            self._is_away = True
            raise _Refused("not_published", 503, "the report could not be stored: post it again") from None
        self._is_away = False
        for digest in digests:
            self._published[digest] = None
            if len(self._published) > REMEMBERED_MAX:
                self._published.popitem(last=False)
        self._metrics.matches.labels("published").inc(len(matches) - repeated)
        self._metrics.matches.labels("repeated").inc(repeated)
        return _json(self._feedback(matches, digests), 200)

    def _refresh_known(self) -> None:
        """A file that is being written, or is wrong now, must not keep reports away: what is known of it stays."""
        if self._fingerprints.known is not None:
            try:
                self._fingerprints.known.refresh()
            except ConfigError as error:
                self._tell("known_keys_not_read", {"why": str(error)[:300]})

    def _parse(self, body: bytes) -> list[tuple[_Match, bytes]]:
        try:
            matches = msgspec.json.decode(body, type=list[_Match])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise _Refused("malformed", 400, "expected a JSON array of {token, type, url, source}") from None
        if len(matches) > self._config.matches_max:
            raise _Refused("too_many_matches", 413, f"expected at most {self._config.matches_max} matches")
        found = []
        for match in matches:
            token = match.token.strip()
            if not token or len(token) > TOKEN_CHARACTERS_MAX:
                raise _Refused("malformed", 400, f"expected tokens of 1 to {TOKEN_CHARACTERS_MAX} characters")
            found.append((match, token.encode()))
        return found

    def _records(self, match: _Match, token: str, digest: bytes, report: str, tokens: frozenset[str]) -> list[LeakRecord]:
        now_ms, source = self._clock.now_ms(), match.source.lower()
        is_word = _WORD.fullmatch(match.type) is not None and not _names_key(match.type, token, tokens)
        made: list[LeakRecord] = []
        for form, fingerprint in self._fingerprints.of(token.encode(), digest):
            made.append(
                LeakReport(
                    fingerprint=fingerprint,
                    form=form,
                    also=bool(made),
                    provider=PROVIDER,
                    type=match.type if is_word else "other",
                    source=source if source in SOURCES else "unknown",
                    url=match.url if _is_page(match.url) and not _names_key(match.url, token, tokens) else "",
                    tick=holds_from(now_ms // 1000, self._lateness_s),
                    reported_ms=now_ms,
                    report=report,
                )
            )
        return made

    def _feedback(self, matches: Sequence[tuple[_Match, bytes]], digests: Sequence[bytes]) -> list[dict[str, str]]:
        """Which reports were of keys of ours; nothing where we do not know which keys there are."""
        known = self._fingerprints.known
        if known is None:
            return []
        return [
            {
                "token_hash": digest.hex(),
                "token_type": match.type,
                "label": "false_positive" if known.find(digest) is None else "true_positive",
            }
            for (match, _), digest in zip(matches, digests, strict=True)
        ]  # fmt: skip


def _is_page(url: str) -> bool:
    """An address that people can open."""
    return url.startswith(("https://", "http://")) and len(url) <= URL_CHARACTERS_MAX and url.isprintable()


def _names_key(text: str, token: str, tokens: frozenset[str]) -> bool:
    """Whether a text holds its own key, or as a word of its own any key of the same post."""
    for spelt in (text, unquote(text), unquote(unquote(text))):
        if token in spelt or not tokens.isdisjoint(_BETWEEN.split(spelt)):
            return True
    return False


def _json(document: Any, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=status, content_type="application/json")
