"""What GitHub posts of leaked keys: what is taken, what is refused, and that no key comes out anywhere."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.connection import Connection
from edge.bouncer_api import Limits
from edge.bouncer_server import BouncerServer
from edge.github_keys import GithubKeys, _StaysHttps, parse_keys
from edge.intake import IDENTIFIER, SIGNATURE, IntakeApi, IntakeMetrics, fingerprints_of
from edge.known_keys import KnownKeys
from edge.leaks_topic import LeaksTopic, leak_lift
from engine.seeds import Seeds
from schemas.config import Intake, parse_config
from schemas.errors import BrokerError, ConfigError
from schemas.leaked import LeakRecord, LeakReport, encode_leak
from tests.edge_parts import HandClock

SEEDS = Seeds("for tests only", configured=True)
TOKEN, OTHER = "sk-live-5Kq0pX7vT2mB9zR4", "sk-live-Zz11Yy22Xx33Ww44"
PAGE = "https://github.com/octocat/example/blob/main/app.py"


def match(token: Any = TOKEN, **more: Any) -> dict[str, Any]:
    return {"token": token, "type": "example_api_key", "url": PAGE, "source": "content", **more}


@dataclass
class Scene:
    """An intake on a port of its own, whose topic is a list, and GitHub's pen."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    published: list[LeakRecord] = field(default_factory=list)
    told: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    is_away: bool = False
    port: int = 0
    health_port: int = 0
    raw: list[bytes] = field(default_factory=list)
    """Every answer."""

    def __post_init__(self) -> None:
        self.clock = HandClock()
        self.pens = {"a1": ec.generate_private_key(ec.SECP256R1())}
        self.write_keys()
        self.metrics = IntakeMetrics()

    def write_keys(self) -> None:
        entries = [
            {
                "key_identifier": name,
                "key": pen.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
                "is_current": True,
            }
            for name, pen in self.pens.items()
        ]
        (self.folder / "github.json").write_bytes(orjson.dumps({"public_keys": entries}))

    def publish(self, records: Sequence[LeakRecord]) -> None:
        if self.is_away:
            raise BrokerError("expected the brokers to answer, they do not")
        self.published += records

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        config = Intake(public_keys=str(self.folder / "github.json"), **self.settings)
        keys = GithubKeys(config.public_keys, config.refresh_s, self.clock, lambda *said: self.told.append(said))
        keys.refresh()
        self.keys = keys
        api = IntakeApi(
            config, keys, fingerprints_of(config, SEEDS.key), self.publish, self.metrics, self.clock, 10,
            lambda *said: self.told.append(said),
        )  # fmt: skip
        limits = Limits(body_bytes_max=config.body_bytes_max)
        server = BouncerServer(
            api, self.metrics, limits, lambda *said: self.told.append(said), listen=("127.0.0.1", 0), health_port=0
        )
        server.start()
        self.port, self.health_port = server.ports
        try:
            yield
        finally:
            server.stop()

    def sign(self, body: bytes, pen: str = "a1") -> dict[str, str]:
        signature = self.pens[pen].sign(body, ec.ECDSA(SHA256()))
        return {IDENTIFIER: pen, SIGNATURE: base64.b64encode(signature).decode(), "Content-Type": "application/json"}

    def send(self, body: bytes, headers: dict[str, str], *, path: str = "/github", method: str = "POST") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        self.raw.append(str(answer.headers).encode() + text)
        return answer.status, orjson.loads(text)

    def post(self, *matches: dict[str, Any], **more: Any) -> tuple[int, Any]:
        body = orjson.dumps(list(matches))
        return self.send(body, self.sign(body), **more)

    def posts(self, outcome: str) -> float:
        return self.metrics.posts.labels(outcome)._value.get()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with made.served():
        yield made


def test_a_post_becomes_fingerprints_in_every_form_and_no_key(scene: Scene) -> None:
    assert scene.post(match(), match(OTHER, source="Issue_Comment", url="")) == (200, [])
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    reports = [one for one in scene.published if isinstance(one, LeakReport)]
    assert [(one.form, one.also) for one in reports] == [("sha256", False), ("keyed", True)] * 2
    first, second = reports[0], reports[1]
    assert first.fingerprint == digest
    assert second.fingerprint.startswith("fp:")
    assert (first.provider, first.type, first.source, first.url) == ("github", "example_api_key", "content", PAGE)
    assert (reports[2].source, reports[2].url) == ("issue_comment", "")
    assert first.tick == scene.clock.ms // 1000 + 10 + 5
    assert first.reported_ms == scene.clock.ms
    assert len({one.report for one in reports}) == 1


def test_the_same_post_again_is_taken_and_changes_nothing(scene: Scene) -> None:
    body = orjson.dumps([match()])
    headers = scene.sign(body)
    assert scene.send(body, headers)[0] == 200
    before = list(scene.published)
    scene.clock.ms += 60_000
    assert scene.send(body, headers)[0] == 200
    assert scene.published == before
    assert scene.metrics.matches.labels("repeated")._value.get() == 1


def test_while_the_brokers_are_away_github_is_told_to_post_again(scene: Scene) -> None:
    scene.is_away = True
    assert scene.post(match())[0] == 503
    assert scene.post(match())[0] == 503
    assert [event for event, _ in scene.told].count("not_published") == 1
    scene.is_away = False
    assert scene.post(match())[0] == 200
    assert len(scene.published) == 2


def test_a_topic_without_brokers_says_so_in_bounded_time() -> None:
    kafka = parse_config({"kafka": {"brokers": ["127.0.0.1:1"], "development": True}}).kafka
    topic = LeaksTopic(Connection(kafka), "leaked-keys", publish_s_max=0.5)
    with pytest.raises(BrokerError) as refused:
        topic.publish([leak_lift("k", 0, 10, "ana", "ours")])
    assert "ours" not in str(refused.value)
    topic.publish([])
    topic.close()


def test_what_is_not_signed_by_github_is_refused(scene: Scene) -> None:
    body = orjson.dumps([match()])
    headers = scene.sign(body)
    forger = ec.generate_private_key(ec.SECP256R1()).sign(body, ec.ECDSA(SHA256()))
    refused = {
        "another pen": (body, {**headers, SIGNATURE: base64.b64encode(forger).decode()}, "forged"),
        "a changed body": (body.replace(b"content", b"commits"), headers, "forged"),
        "no base64": (body, {**headers, SIGNATURE: "?"}, "forged"),
        "no signature of any kind": (body, {**headers, SIGNATURE: "AAAA"}, "forged"),
        "a long signature": (body, {**headers, SIGNATURE: "A" * 400}, "forged"),
        "an unknown key": (body, {**headers, IDENTIFIER: "b2"}, "unknown_key"),
        "no identifier": (body, {SIGNATURE: headers[SIGNATURE]}, "unsigned"),
        "no name of a key": (body, {**headers, IDENTIFIER: "../a1"}, "unsigned"),
        "no headers": (body, {}, "unsigned"),
    }
    for what, (sent, with_headers, outcome) in refused.items():
        before = scene.posts(outcome)
        assert scene.send(sent, with_headers)[0] == 401, what
        assert scene.posts(outcome) == before + 1, what
    assert scene.published == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[", b"null", b"{}", b"[1]", b'[{"token":1,"type":"a"}]', b'[{"type":"a"}]', b'[{"token":"","type":"a"}]',
        orjson.dumps([match("x" * 5000)]), orjson.dumps([match()])[:-9], b"\xff\xfe", b"[" * 100_000,
        b'[{"token":"' + TOKEN.encode() + b'","type":"\xff"}]',
    ],
)  # fmt: skip
def test_a_signed_body_that_is_no_list_of_keys_is_refused_whole(scene: Scene, body: bytes) -> None:
    status, answer = scene.send(body, scene.sign(body))
    assert status == 400
    assert answer["message"].startswith("expected ")
    assert scene.posts("malformed") == 1
    assert scene.published == []


def test_what_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"body_bytes_max": 2048, "matches_max": 3})
    with scene.served():
        long = orjson.dumps([match(url="https://example.com/" + "a" * 3000)])
        assert scene.send(long, scene.sign(long))[0] == 413
        with socket.create_connection(("127.0.0.1", scene.port), timeout=10) as connection:  # chunked: no length is told
            head = "".join(f"{name}: {value}\r\n" for name, value in scene.sign(long).items())
            connection.sendall(f"POST /github HTTP/1.1\r\nHost: x\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            with contextlib.suppress(OSError):
                for _ in range(10):
                    connection.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
            assert b" 413 " in connection.recv(200)
        assert scene.post(*(match(f"{TOKEN}{index}") for index in range(4)))[0] == 413
        assert scene.published == []


def test_paths_methods_and_packed_bodies(scene: Scene) -> None:
    body = orjson.dumps([match()])
    assert scene.send(body, scene.sign(body), path="/elsewhere")[0] == 404
    assert scene.send(body, scene.sign(body), method="PUT")[0] == 405
    assert scene.send(body, {**scene.sign(body), "Content-Encoding": "gzip"})[0] == 415
    assert scene.send(b"", {}, path="/health", method="GET")[0] == 200
    assert scene.send(body, scene.sign(body), path="/")[0] == 200


def test_more_posts_than_allowed_are_told_to_come_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path, {"posts_per_minute_max": 2})
    with scene.served():
        assert [scene.post(match(f"{TOKEN}{index}"))[0] for index in range(3)] == [200, 200, 429]
        scene.clock.ms += 60_000
        assert scene.post(match())[0] == 200


def test_a_new_key_of_github_is_read_when_it_is_used_and_not_more_often_than_allowed(scene: Scene) -> None:
    scene.clock.ms += 300_000
    scene.pens["c3"] = ec.generate_private_key(ec.SECP256R1())
    scene.write_keys()
    body = orjson.dumps([match()])
    assert scene.send(body, scene.sign(body, "c3"))[0] == 200
    reads = scene.keys.reads
    for index in range(20):
        assert scene.send(body, {**scene.sign(body), IDENTIFIER: f"none-{index}"})[0] == 401
    assert scene.keys.reads == reads


def test_keys_that_cannot_be_read_again_stay_and_none_at_all_is_said(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "github.json").write_text("{}")
    scene.clock.ms += 86_400_000
    assert scene.post(match())[0] == 200
    assert "public_keys_not_read" in [event for event, _ in scene.told]
    with pytest.raises(ConfigError, match="https"):
        GithubKeys("http://example.com/keys", 60, scene.clock, lambda *said: None)
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(ValueError, match="none of them over P-256"):
        parse_keys(orjson.dumps({"public_keys": [{"key_identifier": "x", "key": pem}]}))


def test_an_address_that_leads_elsewhere_in_the_clear_is_not_followed() -> None:
    request = urllib.request.Request("https://example.com/keys")
    follow = _StaysHttps().redirect_request
    assert follow(request, io.BytesIO(), 302, "Found", HTTPMessage(), "http://example.com/keys") is None
    assert follow(request, io.BytesIO(), 302, "Found", HTTPMessage(), "https://example.com/others") is not None


def test_until_githubs_keys_are_known_it_is_told_to_post_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (tmp_path / "github.json").unlink()
    with scene.served():
        assert scene.post(match())[0] == 503
        assert scene.send(b"", {}, path="/health", method="GET")[0] == 503
        scene.write_keys()
        scene.clock.ms += 300_000
        assert scene.post(match())[0] == 200


def test_a_list_of_known_keys_gives_their_ids_and_tells_github_what_is_none(tmp_path: Path) -> None:
    digest, other = (hashlib.sha256(token.encode()).hexdigest() for token in (TOKEN, OTHER))
    known = tmp_path / "known.txt"
    known.write_text(f"# exported\n{digest.upper()} key_4711\n")
    scene = Scene(tmp_path, {"known_keys": str(known), "forms": ("sha256_prefixed",)})
    with scene.served():
        status, answer = scene.post(match(), match(OTHER))
        labels = [(digest, "true_positive"), (other, "false_positive")]
        kind = "example_api_key"
        assert status == 200
        assert answer == [{"token_hash": token, "token_type": kind, "label": label} for token, label in labels]
        found = [(one.fingerprint, one.form, one.also) for one in scene.published if isinstance(one, LeakReport)]
        assert found == [
            ("key_4711", "gateway", False), ("sha256:" + digest, "sha256_prefixed", True),
            ("sha256:" + other, "sha256_prefixed", False),
        ]  # fmt: skip
        known.write_text(f"{digest} key_4711\n{other}\n{TOKEN}\n")  # somebody has put a key where its hash belongs
        assert scene.post(match("another"))[0] == 200
        said = dict(scene.told)["known_keys_not_read"]
        assert "line 3" in str(said)
    with pytest.raises(ConfigError, match="line 3") as refused:
        KnownKeys(str(known))
    assert TOKEN not in str(refused.value)


def test_the_keyed_form_needs_a_seed() -> None:
    with pytest.raises(ConfigError, match=r"engine\.seed"):
        fingerprints_of(Intake(), None)


def test_no_key_comes_out_anywhere(scene: Scene, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    packed = "".join(f"%{byte:02x}" for byte in TOKEN.encode())
    planted = [
        match(), match(url=f"https://github.com/x?key={TOKEN}"), match(url=f"https://github.com/x?key={packed}"),
        match(OTHER, url=f"https://github.com/{TOKEN}"), match(type=TOKEN), match(source=TOKEN), match(type=f"a{TOKEN}"),
        match(url=TOKEN),
    ]  # fmt: skip
    for index, one in enumerate(planted):
        scene.post(match(f"fresh-{index}"), match(), one)
    scene.is_away = True
    scene.post(match(TOKEN + "x"))
    body = orjson.dumps([match()])
    scene.send(body, {**scene.sign(body), SIGNATURE: "AAAA"})
    for broken in (body[:-5], orjson.dumps([match([TOKEN])]), orjson.dumps({TOKEN: TOKEN}), body + body):
        scene.send(broken, scene.sign(broken))
    scene.is_away = False
    scene.publish = lambda records: (_ for _ in ()).throw(ValueError(TOKEN))  # type: ignore[method-assign, assignment]
    with scene.served():
        assert scene.post(match(TOKEN + "y"))[0] == 500
    connection = http.client.HTTPConnection("127.0.0.1", scene.health_port, timeout=10)
    with contextlib.suppress(OSError):
        connection.request("GET", "/metrics")
        scene.raw.append(connection.getresponse().read())
    written = capfd.readouterr()
    everything = b"\n".join(
        [
            *scene.raw, *map(encode_leak, scene.published), scene.metrics.text(), orjson.dumps(scene.told),
            written.out.encode(), written.err.encode(),
        ]
    )  # fmt: skip
    assert b"a fault of the intake" in everything
    assert scene.published
    for secret in (TOKEN, OTHER, packed):
        assert secret.encode() not in everything
