"""The webhook edge against a real HTTP server on loopback: told, told again, ended, and never twice what is one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.signing import make_key, save_private_key
from edge.courier import BACKOFF_MS_MAX, BACKOFF_MS_MIN, BATCH_MAX, Courier
from edge.hook_book import Held, HookBook
from edge.hooks import CallSigner, Hooks, HookSigning, load_hooks
from edge.reader import OPERATOR, Reader
from edge.webhook import WebhookPoint
from engine.clock import SystemClock
from schemas.errors import ConfigError, StateError
from schemas.mitigation import Mitigation, Target
from tests.edge_parts import HandClock
from tests.mitigations import CORE, on_topic, record

KEY = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"
LITELLM = """
[[hook]]
name = "litellm"
actions = ["disable_key"]
targets = ["api_key"]
repeats = false
headers = {{ Authorization = "Bearer ${{LITELLM_MASTER_KEY}}" }}
[hook.begin]
url = "{url}/key/block"
body = {{ key = "{{target}}" }}
[hook.end]
url = "{url}/key/unblock"
body = {{ key = "{{target}}" }}
done_statuses = [404]
"""
PLAIN = """
[[hook]]
name = "gateway"
actions = ["restrict_registration", "challenge"]
targets = ["ip", "net", "email_domain"]
begin = {{ url = "{url}/told" }}
end = {{ url = "{url}/told" }}
"""
ENVIRONMENT = {"LITELLM_MASTER_KEY": "sk-master"}


@dataclass
class Gateway:
    """What it was told, and how it answers: by a status, after a header, or not at all."""

    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    refuses: Callable[[str, dict[str, Any]], int] = lambda path, body: 200
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        data = await request.read()
        body = orjson.loads(data)
        self.calls.append((request.path, body))
        self.seen.append(request.headers)
        self.bodies.append(data)
        if self.statuses:
            status = self.statuses.pop(0)
            if status == 0:
                assert request.transport is not None
                request.transport.close()
        else:
            status = self.refuses(request.path, body)
        return web.Response(status=status or 200, headers=self.headers)

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        found, self.calls = self.calls, []
        return found

    def told(self) -> list[tuple[str, str, int]]:
        """(state, target, until) of our own documents."""
        return [(body["state"], body["target"], body["until"]) for _, body in self.take()]


class Stage:
    """A reader, a gateway, and a courier that is moved by hand."""

    def __init__(self, folder: Path, gateway: Gateway, session: aiohttp.ClientSession, hooks: str = PLAIN) -> None:
        self.folder, self.gateway, self.session = folder, gateway, session
        (folder / "hooks.toml").write_text(hooks.format(url=gateway.url))
        self.hooks = load_hooks(folder / "hooks.toml", ENVIRONMENT)
        self.clock = HandClock()
        self.told: list[str] = []
        self.start()
        self.reader = Reader(CORE, self.point.supports)
        self.reader.begin({})

    def start(self, hooks: Hooks | None = None) -> None:
        """Also again: with what is on the disk, and nothing else."""
        self.book = HookBook(self.folder / "book.ndjson")
        hooks = hooks or self.hooks
        self.point = WebhookPoint(hooks, CallSigner(hooks.signing), self.book, self.clock, lambda e, f: self.told.append(e))
        self.courier: Courier = self.point.couriers[0]

    async def hear(self, *records: Mitigation, ms: int = 0) -> list[tuple[str, str]]:
        """After so much time, with these records; what it acknowledges."""
        self.clock.ms += ms
        for one in records:
            self.reader.take(*on_topic(one))
        self.point.change(self.reader.changes(self.clock.ms), self.clock.ms)
        await self.courier.round(self.session)
        return [(done.record.id, done.outcome) for done in self.point.work()]

    async def restart(self) -> None:
        self.start()
        self.reader.changes(self.clock.ms)
        self.point.replace(self.reader.table, self.clock.ms)
        await self.courier.round(self.session)


def play(folder: Path, body: Callable[[Stage, Gateway], Awaitable[None]], hooks: str = PLAIN) -> None:
    """Run a scene beside a real server."""

    async def scene() -> None:
        gateway = Gateway()
        server = web.Server(gateway.answer, access_log=None)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        gateway.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            async with aiohttp.ClientSession() as session:
                await body(Stage(folder, gateway, session, hooks), gateway)
        finally:
            listening.close()
            await server.shutdown(0)

    asyncio.run(scene())


def restrict(value: str = "203.0.113.0/24", **changes: Any) -> Mitigation:
    return record(value, **{"action": "restrict_registration", **changes})


def test_litellm_is_told_to_block_a_key_and_to_let_it_go_when_the_time_is_over(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        leaked = record(KEY, kind="api_key", action="disable_key", id="a", detector="leaked")
        assert await stage.hear(leaked, record("203.0.113.7", id="b")) == [("a", "applied")]
        assert gateway.take() == [("/key/block", {"key": KEY})]
        assert gateway.seen[0]["Authorization"] == "Bearer sk-master"
        longer = record(KEY, kind="api_key", action="disable_key", id="c", detector="leaked", tick=1050, expires_at=1200)
        assert await stage.hear(longer) == [("c", "applied")]
        assert gateway.take() == [], "it knows of no end, so there is nothing to tell"
        assert await stage.hear(ms=199_000) == []
        assert gateway.take() == []
        gateway.statuses = [404]
        await stage.hear(ms=1000)
        assert gateway.take() == [("/key/unblock", {"key": KEY})]
        await stage.hear(ms=600_000)
        assert gateway.take() == []
        assert [refusal.record.id for refusal in stage.reader.refusals(1_000_000)] == ["b"]

    play(tmp_path, scene, LITELLM)


def test_a_gateway_is_told_who_why_and_until_when(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        said = restrict(id="a", reason='2,000 "new" accounts\n')
        assert await stage.hear(said) == [("a", "applied")]
        assert gateway.take() == [
            ("/told", {
                "id": "a", "state": "active", "action": "restrict_registration", "type": "net", "target": "203.0.113.0/24",
                "detector": "rate", "reason": '2,000 "new" accounts\n', "issued": 991, "until": 1100,
            })
        ]  # fmt: skip
        await stage.hear(restrict(id="b", tick=1050, expires_at=1200))
        assert gateway.told() == [("active", "203.0.113.0/24", 1200)]
        await stage.hear(restrict(id="b", tick=1051, state="lifted"))
        assert gateway.told() == [("ended", "203.0.113.0/24", 1200)]
        assert [headers["webhook-id"] for headers in gateway.seen] == ["a.active.1100", "b.active.1200", "b.ended.1200"]

    play(tmp_path, scene)


def test_a_call_that_fails_is_repeated_with_growing_pauses_under_the_same_id(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        gateway.statuses = [500, 503, 0]
        assert await stage.hear(restrict(id="a")) == []
        for wait_ms, calls in ((999, 1), (1, 2), (1999, 2), (1, 3), (3999, 3), (1, 4)):
            acknowledged = await stage.hear(ms=wait_ms)
            assert len(gateway.calls) == calls
        assert acknowledged == [("a", "applied")]
        assert len({headers["Idempotency-Key"] for headers in gateway.seen}) == 1
        assert len({headers["webhook-timestamp"] for headers in gateway.seen}) > 1
        assert stage.told == ["gateway_away", "gateway_back"]

    play(tmp_path, scene)


def test_a_gateway_that_is_down_delays_and_loses_nothing_and_is_told_only_what_holds_by_then(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        many = [restrict(f"198.51.{number}.0/24", id=str(number), expires_at=5000) for number in range(BATCH_MAX + 30)]
        gateway.refuses = lambda path, body: 503
        assert await stage.hear(*many, restrict("203.0.113.0/24", id="short", expires_at=1100)) == []
        first = len(gateway.take())
        assert first == BATCH_MAX
        for _ in range(12):
            assert await stage.hear(ms=BACKOFF_MS_MAX) == []
        assert len(gateway.take()) == 12, "one call at a time finds out whether it is back"
        gateway.refuses = lambda path, body: 200
        await stage.hear(restrict("198.51.0.0/24", id="0", tick=1500, state="lifted", expires_at=5000))
        acknowledged = []
        for _ in range(5):
            acknowledged += await stage.hear(ms=BACKOFF_MS_MAX)
        assert sorted(acknowledged) == sorted((str(number), "applied") for number in range(1, len(many)))
        assert stage.courier.waiting == 0
        now_held = {body["target"] for _, body in gateway.calls if body["state"] == "active"}
        assert "203.0.113.0/24" not in now_held, "what has ended meanwhile is not begun"
        kept = {one.target.value for one in stage.book.of("gateway")}
        assert kept == {one.target.value for one in many[1:]}

    play(tmp_path, scene)


def test_an_end_is_repeated_until_it_is_answered(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        await stage.hear(restrict(id="a"))
        gateway.take()
        gateway.refuses = lambda path, body: 500
        await stage.hear(ms=100_000)
        for _ in range(20):
            await stage.hear(ms=BACKOFF_MS_MAX)
        assert {state for state, _, _ in gateway.told()} == {"ended"}
        gateway.refuses = lambda path, body: 204
        await stage.hear(ms=BACKOFF_MS_MAX)
        assert gateway.told() == [("ended", "203.0.113.0/24", 1100)]
        assert list(stage.book.of("gateway")) == []
        await stage.hear(ms=BACKOFF_MS_MAX)
        assert gateway.told() == []

    play(tmp_path, scene)


def test_one_target_that_is_always_refused_holds_up_no_other(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        gateway.refuses = lambda path, body: 500 if body["target"] == "198.51.100.0/24" else 200
        await stage.hear(restrict("198.51.100.0/24", id="bad", expires_at=9000))
        acknowledged = []
        for number in range(5):
            acknowledged += await stage.hear(restrict(id=str(number), tick=1000 + number, expires_at=9000 + number), ms=1000)
            acknowledged += await stage.hear(ms=BACKOFF_MS_MAX)
        assert acknowledged[-1] == ("4", "applied")
        gateway.refuses = lambda path, body: 403 if body["target"] == "198.51.101.0/24" else 200
        await stage.hear(ms=BACKOFF_MS_MAX)
        found = await stage.hear(restrict("198.51.101.0/24", id="no", expires_at=9000), restrict("198.51.102.0/24", id="yes"))
        found += await stage.hear(ms=BACKOFF_MS_MAX)
        assert ("no", "error") in found
        assert found.count(("no", "error")) == 1, "said once, and tried again"
        gateway.refuses = lambda path, body: 200
        assert ("no", "applied") in await stage.hear(ms=BACKOFF_MS_MAX)

    play(tmp_path, scene)


def test_it_waits_as_long_as_the_gateway_asks_within_reason(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        gateway.statuses, gateway.headers = [429], {"Retry-After": "30"}
        await stage.hear(restrict())
        await stage.hear(ms=29_999)
        assert len(gateway.calls) == 1
        await stage.hear(ms=1)
        assert len(gateway.calls) == 2
        gateway.statuses, gateway.headers = [503], {"Retry-After": "99999999"}
        await stage.hear(restrict(tick=1050, expires_at=3000))
        await stage.hear(ms=300_000)
        assert len(gateway.calls) == 4

    play(tmp_path, scene)


def test_after_a_death_what_holds_is_told_again_and_what_ended_meanwhile_is_ended(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        await stage.hear(
            restrict("198.51.100.0/24", id="a", expires_at=5000), restrict("198.51.101.0/24", id="b", expires_at=1050),
            restrict("198.51.102.0/24", id="c", expires_at=5000),
        )  # fmt: skip
        gateway.take()
        stage.clock.ms += 4_500_000 - 1_000_000  # dead until long after the topic's reader has forgotten b
        stage.reader.take(*on_topic(restrict("198.51.102.0/24", id="c", tick=2000, state="lifted", expires_at=5000)))
        await stage.restart()
        assert sorted(gateway.told()) == [
            ("active", "198.51.100.0/24", 5000), ("ended", "198.51.101.0/24", 1050), ("ended", "198.51.102.0/24", 5000),
        ]  # fmt: skip
        await stage.restart()
        assert gateway.told() == [("active", "198.51.100.0/24", 5000)], "and what it has not done it never undoes"

    play(tmp_path, scene)


def test_a_call_whose_answer_was_lost_is_ended_too(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        gateway.statuses = [0]  # it was told, and the edge dies before it knows
        await stage.hear(restrict(id="a"))
        assert gateway.told() == [("active", "203.0.113.0/24", 1100)]
        stage.clock.ms += 200_000
        await stage.restart()
        assert gateway.told() == [("ended", "203.0.113.0/24", 1100)]

    play(tmp_path, scene)


def test_an_operators_allow_ends_what_a_detector_began(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        await stage.hear(restrict(id="a"))
        await stage.hear(restrict(id="op", action="allow", detector=OPERATOR))
        assert [state for state, _, _ in gateway.told()] == ["active", "ended"]
        await stage.hear(restrict(id="op", action="allow", detector=OPERATOR, tick=1000, state="lifted"))
        assert [state for state, _, _ in gateway.told()] == ["active"]
        assert stage.reader.counts["unsupported"] == 0

    play(tmp_path, scene)


def test_another_action_of_the_same_hook_takes_the_first_ones_place(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        await stage.hear(record("203.0.113.7", id="a", action="challenge"))
        await stage.hear(record("203.0.113.7", id="b", action="restrict_registration", detector="other"))
        assert [(body["action"], body["state"]) for _, body in gateway.take()] == [
            ("challenge", "active"), ("restrict_registration", "active"),
        ]  # fmt: skip

    play(tmp_path, scene)


def test_a_hook_without_an_end_is_told_the_beginning_only(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        await stage.hear(restrict(id="a"))
        await stage.hear(ms=100_000)
        assert gateway.told() == [("active", "203.0.113.0/24", 1100)]
        assert list(stage.book.of("gateway")) == []

    play(tmp_path, scene, PLAIN.replace("end = ", "# end = "))


def test_calls_are_signed_by_secret_and_by_key_over_id_time_and_body(tmp_path: Path) -> None:
    secret = b"s" * 32
    (tmp_path / "secret").write_text(f"whsec_{base64.b64encode(secret).decode()}\n")
    pem, public = make_key(lambda count: b"k" * count)
    save_private_key(tmp_path / "key.pem", pem)
    hooks = f'[signing]\nsecret_file = "{tmp_path}/secret"\nprivate_key_file = "{tmp_path}/key.pem"\n' + PLAIN

    async def scene(stage: Stage, gateway: Gateway) -> None:
        await stage.hear(restrict(id="a"))
        [headers], [body] = gateway.seen, gateway.bodies
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        assert headers["webhook-timestamp"] == "1000"
        symmetric, asymmetric = headers["webhook-signature"].split(" ")
        expected = base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
        assert symmetric == f"v1,{expected}"
        signature = base64.b64decode(asymmetric.removeprefix("v1a,"))
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public)).verify(signature, content)

    play(tmp_path, scene, hooks)


def test_nothing_in_a_record_breaks_out_of_a_url_a_body_or_a_header(tmp_path: Path) -> None:
    hooks = PLAIN.replace("{url}/told", "{url}/told/{{target}}?why={{reason}}", 1).replace('"net"', '"account"')

    async def scene(stage: Stage, gateway: Gateway) -> None:
        hostile = '../../admin?x=1#"},\r\nX-Evil: {id}'
        await stage.hear(restrict(hostile, kind="account", id="a\r\nX-Evil: 1", reason=hostile))
        [(path, body)] = gateway.take()
        assert path == "/told/" + hostile, "one segment, as the server unquotes it"
        assert (body["target"], body["reason"], body["id"]) == (hostile, hostile, "a\r\nX-Evil: 1")
        assert "X-Evil" not in gateway.seen[0]
        assert gateway.seen[0]["webhook-id"] == "a--X-Evil--1.active.1100"

    play(tmp_path, scene, hooks)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async def scene(stage: Stage, gateway: Gateway) -> None:
        gateway.statuses, gateway.headers = [307], {"Location": gateway.url + "/elsewhere"}
        assert await stage.hear(restrict(id="a")) == [("a", "error")]
        assert [path for path, _ in gateway.take()] == ["/told"]

    play(tmp_path, scene)


def test_a_book_that_is_full_makes_what_is_new_wait_until_something_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.hook_book.HELD_MAX", 1)

    async def scene(stage: Stage, gateway: Gateway) -> None:
        assert await stage.hear(restrict("198.51.100.0/24", id="a")) == [("a", "applied")]
        assert await stage.hear(restrict("198.51.101.0/24", id="b", expires_at=9000)) == []
        assert stage.told == ["book_full"]
        await stage.hear(ms=100_000)
        assert await stage.hear(ms=BACKOFF_MS_MIN) == [("b", "applied")]

    play(tmp_path, scene)


def test_in_its_own_thread_it_calls_at_once_and_a_hook_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    """The real clock, and a gateway that never answers the first hook."""
    called = threading.Event()

    async def serve(started: threading.Event, port: list[int], stop: threading.Event) -> None:
        over = asyncio.Event()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            await request.read()
            if request.path == "/hangs":
                await over.wait()
            called.set()
            return web.Response()

        server = web.Server(answer, access_log=None)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        port.append(listening.sockets[0].getsockname()[1])
        started.set()
        await asyncio.get_running_loop().run_in_executor(None, stop.wait)
        over.set()
        listening.close()
        await server.shutdown(0)

    started, stop, port = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=lambda: asyncio.run(serve(started, port, stop)))
    thread.start()
    started.wait()
    url = f"http://127.0.0.1:{port[0]}"
    second = PLAIN.replace('"gateway"', '"hangs"').replace("/told", "/hangs").replace("[[hook]]", "[[hook]]\ntimeout_s = 50")
    (tmp_path / "hooks.toml").write_text((second + PLAIN).format(url=url))
    hooks, clock = load_hooks(tmp_path / "hooks.toml", {}), SystemClock()
    point = WebhookPoint(hooks, CallSigner(hooks.signing), HookBook(tmp_path / "book"), clock, lambda event, fields: None)
    now = clock.now_ms() // 1000
    reader = Reader(CORE, point.supports)
    reader.begin({})
    point.start()
    try:
        reader.take(*on_topic(restrict(tick=now, expires_at=now + 60)))
        reader.changes(now * 1000)
        point.replace(reader.table, now * 1000)
        assert called.wait(20)
        done = []
        while not done:
            done = point.work()
        assert [one.outcome for one in done] == ["applied"]
        [calls, waiting] = list(point.metrics())
        assert {sample.labels["hook"]: sample.value for sample in waiting.samples} == {"hangs": 1, "gateway": 0}
        assert [(s.labels["hook"], s.labels["outcome"], s.value) for s in calls.samples] == [("gateway", "done", 1)]
    finally:
        point.stop()
        stop.set()
        thread.join()


def held(value: str, until: int = 1100) -> Held:
    return Held("gateway", Target(type="account", value=value), "a", "challenge", "rate", "why", 1000, until)


def test_the_book_is_what_was_written_whatever_was_cut_off_its_end(tmp_path: Path) -> None:
    path = tmp_path / "book"
    book = HookBook(path)
    book.write([held("a"), held("b")], [])
    book.write([held("b", 1200)], [held("a")])
    assert list(HookBook(path).of("gateway")) == [held("b", 1200)]
    book = HookBook(path)
    book.write([held("c")], [])
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert list(HookBook(path).of("gateway")) == [held("b", 1200)]
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(StateError, match="in line 1"):
        HookBook(path)


def test_a_book_does_not_grow_with_what_has_been(tmp_path: Path) -> None:
    path = tmp_path / "book"
    book = HookBook(path)
    for _ in range(30):
        book.write([held(str(one)) for one in range(100)], [])
        book.write([], [held(str(one)) for one in range(100)])
    assert path.stat().st_size < 400_000
    assert list(HookBook(path).of("gateway")) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("url = ", "uri = "), "unknown field `uri`"),
        (("/told", "/told/{who}"), r"\$\.hook\[0\]\.begin: expected placeholders of id, .*, got \{who\}"),
        (("http://127.0.0.1", "http://gateway.example"), "expected https://, or plaintext = true"),
        (("http://127.0.0.1", "ftp://127.0.0.1"), "expected an http:// or https:// URL"),
        (('"ip", ', '"ips", '), r"\$\.hook\[0\]\.targets\[0\]"),
        (("[[hook]]", '[[hook]]\nheaders = { X = "${NOWHERE}" }'), "expected the variable NOWHERE in the environment"),
        (("[[hook]]", '[[hook]]\nheaders = { X = "a\\nb" }'), "expected a header of printable text"),
        (("[[hook]]", "[[hook"), "expected TOML in"),
    ],
)
def test_a_file_of_hooks_that_is_wrong_is_one_line(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    path = tmp_path / "hooks.toml"
    path.write_text(PLAIN.format(url="http://127.0.0.1:1").replace(*change, 1))
    with pytest.raises(ConfigError, match=expected) as caught:
        load_hooks(path, {})
    assert "\n" not in str(caught.value)


def test_the_example_in_deploy_is_right(tmp_path: Path) -> None:
    hooks = load_hooks(Path(__file__).parent.parent / "deploy" / "hooks.toml", ENVIRONMENT)
    assert [hook.name for hook in hooks.hook] == ["litellm", "sign-up"]
    assert hooks.hook[0].headers == {"Authorization": "Bearer sk-master"}


def test_hooks_have_names_of_their_own_and_secrets_a_length(tmp_path: Path) -> None:
    path = tmp_path / "hooks.toml"
    path.write_text((PLAIN + PLAIN).format(url="http://127.0.0.1:1"))
    with pytest.raises(ConfigError, match="got one twice: gateway"):
        load_hooks(path, {})
    with pytest.raises(ConfigError, match="expected a TOML file of hooks at"):
        load_hooks(tmp_path / "none", {})
    for text, expected in (("whsec_!", "openssl rand"), ("whsec_c2hvcnQ=", "at least 24 bytes")):
        (tmp_path / "secret").write_text(text)
        with pytest.raises(ConfigError, match=expected):
            CallSigner(HookSigning(secret_file=str(tmp_path / "secret")))
