"""The feed over HTTP: what bouncers ask and how they are answered, and what hostile clients cannot do."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from edge.bouncer_api import Limits
from edge.bouncer_keys import revoke_key
from edge.bouncer_server import Tls, parse_listen, refuse_plaintext, tls_of
from schemas.errors import EdgeError, UsageError
from tests.bouncers import STREAM, Client, Stage
from tests.mitigations import on_topic, record

FORBIDDEN = (403, b'{"message":"access forbidden"}')
PATHS = (
    STREAM,
    STREAM + "?startup=true",
    "/v1/decisions",
    "/v1/decisions?ip=203.0.113.7",
    "/v1/usage-metrics",
    "/v1/alerts",
    "/",
)


def block(value: str = "203.0.113.7", **changes: object) -> object:
    return record(value, **{"stage": "final", "action": "block", "id": value, **changes})


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def port(stage: Stage) -> Iterator[int]:
    stage.say(block())
    with stage.served() as port:
        yield port


@pytest.fixture
def client(stage: Stage, port: int) -> Iterator[Client]:
    made = Client(port, stage.secrets["web-1"])
    yield made
    made.close()


ARRIVED = 'floodwall_feed_answers_total{bouncer="web-1",outcome="arrived"}'


def metric(stage: Stage, line: str) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{stage.health_port}/metrics", timeout=5).read().decode()
    found = [float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line)]
    return found[0] if found else 0.0


def wait_until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_spellings_of_every_bouncer_are_understood_on_one_connection(client: Client) -> None:
    assert client.poll("?startup=true")[0].keys() == {"203.0.113.7"}
    for query in ("?", "", "?additional_pull=false&community_pull=false", "?startup=false", "?startup=False&scopes=ip"):
        assert client.poll(query) == ({}, [])
    assert client.response.headers["Connection"] is None
    assert client.response.headers["Content-Type"] == "application/json"


def test_a_bouncer_that_closes_its_connection_each_time_has_its_place_too(stage: Stage, client: Client) -> None:
    client.headers["Connection"] = "close"
    assert client.startup()[0].keys() == {"203.0.113.7"}
    for arrived in (1, 2):
        client.close()
        # That it closed is how we know that an answer arrived; until then the same would be told again.
        wait_until(lambda least=arrived: metric(stage, ARRIVED) >= least)
        assert client.poll() == ({}, [])


def test_big_answers_are_packed_for_who_can_unpack_them(stage: Stage, client: Client) -> None:
    stage.say(*(block(f"198.51.100.{last}") for last in range(100)))
    assert len(client.startup()[0]) == 101
    assert client.response.headers["Content-Encoding"] == "gzip"
    client.headers["Accept-Encoding"] = "identity"
    assert len(client.startup()[0]) == 101
    assert client.response.headers["Content-Encoding"] is None


@pytest.mark.slow
def test_a_startup_of_a_hundred_thousand_is_whole(tmp_path: Path) -> None:
    stage = Stage(tmp_path, limits=Limits(answer_s=60))
    key, value = on_topic(record("198.18.0.1", stage="final", action="block", expires_at=5000))
    addresses = [f"198.{18 + last // 65536}.{last // 256 % 256}.{last % 256}" for last in range(100_000)]
    stage.topic.waiting += [
        (key.replace(b"198.18.0.1", one), value.replace(b"198.18.0.1", one)) for one in map(str.encode, addresses)
    ]
    stage.step()
    with stage.served() as port:
        asking = Client(port, stage.secrets["web-1"], connection=http.client.HTTPConnection("127.0.0.1", port, timeout=60))
        new, gone = asking.startup()
        asking.close()
    assert (new.keys(), gone) == (set(addresses), [])


def test_live_mode_answers_an_array_or_null(stage: Stage, client: Client) -> None:
    stage.say(block("198.51.100.0/24"), block("2001:db8::/64"))
    for banned in ("203.0.113.7", "198.51.100.9"):
        status, body = client.ask(f"/v1/decisions?ip={banned}&banned=true")
        assert status == 200
        assert [(one["scope"], one["value"], one["type"]) for one in orjson.loads(body)] == [("Ip", banned, "ban")]
    for free in ("203.0.113.8", "2001:db8:1::1", "10.0.0.1"):
        assert client.ask(f"/v1/decisions?ip={free}") == (200, b"null")
    assert client.ask("/v1/decisions?ip=203.0.113.7&type=captcha") == (200, b"null")
    assert [one["value"] for one in orjson.loads(client.ask("/v1/decisions?scope=Ip&value=203.0.113.7")[1])] == ["203.0.113.7"]
    # Asked about one address of a prefix, it can say so of that address even to who knows no ranges.
    assert [one["value"] for one in orjson.loads(client.ask("/v1/decisions?ip=2001:db8::5")[1])] == ["2001:db8::5"]


def test_live_mode_names_ranges_countries_and_networks_to_who_knows_them(stage: Stage, client: Client) -> None:
    client.key = stage.add("plugin", scopes=("range", "country", "as"))
    stage.say(block("198.51.100.0/24"), record("DE", kind="country", action="block", id="c"))
    stage.say(record("64500", kind="asn", action="block", id="n"))
    asked = ("ip=198.51.100.9", "range=198.51.100.0/24", "scope=country&value=de", "scope=AS&value=AS64500")
    for query, value in zip(asked, ("198.51.100.0/24", "198.51.100.0/24", "DE", "64500"), strict=True):
        assert [one["value"] for one in orjson.loads(client.ask(f"/v1/decisions?{query}")[1])] == [value]
    assert client.ask("/v1/decisions?range=198.51.0.0/16") == (200, b"null")
    assert client.ask("/v1/decisions?scope=session&value=x") == (200, b"null")


@pytest.mark.parametrize(
    "query", ["", "?", "?ip=", "?ip=all", "?ip=203.0.113.7/33", "?ip=" + "1" * 5000, "?limit=100", "?type=ban"]
)
def test_live_mode_gives_nobody_a_list_of_everything(client: Client, query: str) -> None:
    status, body = client.ask("/v1/decisions" + query)
    assert status == 400
    assert b'203.0.113.7"' not in body


def test_an_expired_decision_is_none_although_no_record_has_come(stage: Stage, client: Client) -> None:
    stage.clock.ms += 100_500  # type: ignore[union-attr]
    assert client.ask("/v1/decisions?ip=203.0.113.7") == (200, b"null")
    assert client.startup()[0] == {}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PROPFIND"])
def test_nothing_but_health_is_answered_without_a_key(client: Client, path: str, method: str) -> None:
    for wrong in ("", "x", client.key[:-1], client.key + "0", client.key.upper(), "é" * 300):
        client.key = wrong
        client.headers = {"X-Api-Key": wrong.encode("utf-8").decode("latin-1")}
        status, body = client.ask(path, method)
        assert status == 403
        assert body in (b"", FORBIDDEN[1])
        client.close()


def test_without_any_key_it_is_the_same_answer_and_the_refusals_are_counted(stage: Stage, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /v1/decisions/stream?startup=true HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 403 ")
    assert metric(stage, "floodwall_feed_refused_keys_total") == 1


def test_other_paths_and_methods_are_refused(client: Client) -> None:
    assert client.ask("/v1/alerts")[0] == 404
    assert client.ask("/v1/decisions/1", "DELETE")[0] == 404
    assert client.ask(STREAM, "DELETE")[0] == 405
    assert client.ask("/v1/usage-metrics")[0] == 405
    assert client.ask(STREAM, "HEAD") == (200, b"")
    assert client.poll()[0].keys() == {"203.0.113.7"}  # a HEAD is no poll


def test_a_revoked_key_is_refused_at_once_and_a_new_one_taken(stage: Stage, client: Client) -> None:
    client.startup()
    revoke_key(stage.file, "web-1")
    assert client.ask(STREAM) == FORBIDDEN
    client.close()
    client.key = stage.add("web-9")
    assert client.startup()[0].keys() == {"203.0.113.7"}


def test_a_file_of_keys_that_was_broken_leaves_the_last_good_keys(stage: Stage, client: Client) -> None:
    client.startup()
    for broken in (b"{", b"{}", b'{"schema":2,"keys":[]}', b'{"schema":1,"keys":[{"name":"x"}]}'):
        stage.file.write_bytes(broken)
        assert client.poll() == ({}, [])
    stage.file.unlink()
    assert client.poll() == ({}, [])
    assert [event for event, _ in stage.told].count("keys_unreadable") == 5


def test_before_the_topic_has_been_read_it_says_so_and_says_nothing_else(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with stage.served() as port:
        client = Client(port, stage.secrets["web-1"])
        assert client.ask(STREAM)[0] == 503
        assert client.ask("/v1/decisions?ip=203.0.113.7")[0] == 503
        assert client.ask("/health") == (503, b'{"status":"starting","stale":false,"stale_since":null}')
        stage.say(block())
        assert client.startup()[0].keys() == {"203.0.113.7"}
        client.close()


def test_while_the_brokers_are_away_it_serves_what_it_has_and_says_since_when(stage: Stage, client: Client) -> None:
    stage.topic.stale_since_ms = 990_000
    assert client.startup()[0].keys() == {"203.0.113.7"}
    assert client.response.headers["X-Floodwall-Stale-Since"] == "990"
    assert client.ask("/health") == (200, b'{"status":"up","stale":true,"stale_since":990}')
    assert metric(stage, "floodwall_feed_stale_seconds") == 10.0
    stage.topic.stale_since_ms = None
    client.poll()
    assert client.response.headers["X-Floodwall-Stale-Since"] is None
    assert metric(stage, "floodwall_feed_stale_seconds") == 0.0


USAGE = {
    "remediation_components": [
        {
            "type": "crowdsec-firewall-bouncer", "version": "v0.0.31", "os": {"name": "debian", "version": "12"},
            "features": [], "utc_startup_timestamp": 1,
            "metrics": [
                {
                    "meta": {"window_size_seconds": 900, "utc_now_timestamp": 1},
                    "items": [
                        {"name": "active_decisions", "unit": "ip", "value": 7, "labels": {"origin": "floodwall"}},
                        {"name": "dropped", "unit": "packet", "value": 4, "labels": {"origin": "floodwall", "ip_type": "ipv4"}},
                        {"name": "dropped", "unit": "packet", "value": 5, "labels": {"origin": "floodwall", "ip_type": "ipv6"}},
                        {"name": "x\"} 1\nevil", "unit": "\n", "value": 1},
                    ],
                }
            ],
        }
    ],
    "log_processors": [],
}  # fmt: skip


def test_usage_metrics_are_taken_and_none_of_their_words_is_a_label(stage: Stage, client: Client) -> None:
    packed = gzip.compress(orjson.dumps(USAGE))
    assert client.ask("/v1/usage-metrics", "POST", orjson.dumps(USAGE)) == (201, b"")
    client.headers["Content-Encoding"] = "gzip"
    assert client.ask("/v1/usage-metrics", "POST", packed) == (201, b"")
    assert metric(stage, 'floodwall_bouncer_usage{bouncer="web-1",name="dropped",unit="packet"}') == 18
    assert metric(stage, 'floodwall_bouncer_usage{bouncer="web-1",name="active_decisions",unit="ip"}') == 7
    assert metric(stage, 'floodwall_bouncer_usage{bouncer="web-1",name="other",unit="other"}') == 1


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nonsense", b"\xff", b'{"remediation_components":' + b"[" * 100_000])
def test_other_bodies_are_refused_and_the_connection_goes_on(client: Client, body: bytes) -> None:
    assert client.ask("/v1/usage-metrics", "POST", body)[0] == 400
    assert client.startup()[0].keys() == {"203.0.113.7"}


def test_a_body_is_bounded_as_sent_and_as_unpacked(client: Client) -> None:
    assert client.ask("/v1/usage-metrics", "POST", b" " * (2 << 20))[0] == 413
    client.close()
    client.headers["Content-Encoding"] = "gzip"
    assert client.ask("/v1/usage-metrics", "POST", gzip.compress(b" " * (100 << 20)))[0] == 413


@pytest.mark.parametrize(
    "request_",
    [
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 1000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00" * 1000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["line", "field", "fields", "TLS", "zeros", "HTTP/2"],
)  # fmt: skip
def test_a_head_that_is_none_or_too_long_is_answered_or_cut_off_and_others_go_on(
    port: int, client: Client, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(5)
        try:
            connection.sendall(request_)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(100)
        except TimeoutError:
            raise
        except OSError:  # reset, or so long ago that there is nothing to shut down
            answer = b""
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert client.startup()[0].keys() == {"203.0.113.7"}
    assert caplog.text == ""


def test_a_body_that_cannot_be_unpacked_is_refused(stage: Stage, client: Client) -> None:
    client.headers["Content-Encoding"] = "gzip"
    assert client.ask("/v1/usage-metrics", "POST", gzip.compress(b"{}")[:-9] + b"nonsense")[0] == 400
    assert "request_failed" not in [event for event, _ in stage.told]


def test_a_fault_of_ours_is_told_and_the_place_of_the_bouncer_stays(
    stage: Stage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.startup()
    stage.say(block("203.0.113.8"))
    with monkeypatch.context() as patch:
        patch.setattr("edge.bouncer_api.decision", lambda *words: 1 / 0)
        assert client.ask(STREAM + "?") == (500, b'{"message":"a fault of the feed"}')
    assert ("request_failed", {"path": STREAM, "why": "ZeroDivisionError('division by zero')"}) in stage.told
    assert client.poll()[0].keys() == {"203.0.113.8"}


def test_too_many_connections_are_closed_and_those_that_were_there_go_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, limits=Limits(connections_max=6, connections_of_address_max=4))
    stage.say(block())
    with stage.served() as port:
        client = Client(port, stage.secrets["web-1"])
        client.startup()
        crowd = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(10)]
        wait_until(lambda: metric(stage, 'floodwall_feed_refused_connections_total{bound="address"}') == 7)
        assert client.poll() == ({}, [])
        for one in crowd:
            one.close()
        wait_until(lambda: metric(stage, "floodwall_feed_connections") == 1)
        client.close()
        assert client.poll() == ({}, [])
        client.close()


def test_who_sends_nothing_or_never_ends_its_request_is_cut_off(tmp_path: Path) -> None:
    stage = Stage(tmp_path, limits=Limits(idle_s=0.2, answer_s=0.2))
    stage.say(block())
    head = f"POST /v1/usage-metrics HTTP/1.1\r\nHost: x\r\nX-Api-Key: {stage.secrets['web-1']}\r\nContent-Length: 10\r\n\r\n"
    with stage.served() as port:
        for begin in (b"", b"GET / HTTP/1.1\r\nX: ", head.encode() + b"{"):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.settimeout(10)
                connection.sendall(begin)
                while connection.recv(1000):
                    pass


def test_who_does_not_read_its_answer_is_cut_off_and_gets_it_at_the_next_poll(tmp_path: Path) -> None:
    stage = Stage(tmp_path, limits=Limits(answer_s=0.3))
    stage.say(*(block(f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}") for n in range(20_000)))
    head = f"GET {STREAM} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {stage.secrets['web-1']}\r\n\r\n"
    with stage.served() as port:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", port))
            slow.sendall(head.encode())
            wait_until(lambda: metric(stage, 'floodwall_feed_answers_total{bouncer="web-1",outcome="lost"}') == 1)
        with socket.socket() as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            gone.connect(("127.0.0.1", port))
            gone.sendall(head.encode())
            gone.recv(100)
        wait_until(lambda: metric(stage, 'floodwall_feed_answers_total{bouncer="web-1",outcome="lost"}') == 2)
        stage.step()
        assert stage.heard.take() == []


def test_with_tls_bouncers_of_the_authority_are_answered_and_nobody_else(stage: Stage, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "feed")
    mine, my_key = self_signed(tmp_path, "bouncer")
    stage.say(block())
    request = urllib.request.Request("https://localhost:1/", headers={"X-Api-Key": stage.secrets["web-1"]})
    with stage.served(tls=Tls(certificate, key, client_authority=mine)) as port:
        request.full_url = f"https://localhost:{port}{STREAM}?startup=true"
        context = ssl.create_default_context(cafile=str(certificate))
        with pytest.raises((ssl.SSLError, ConnectionError, urllib.error.URLError)):
            urllib.request.urlopen(request, context=context, timeout=5).read()
        context.load_cert_chain(mine, my_key)
        # Bouncers keep their connection. One that closes with the server's session tickets unread resets it, as if it had lost
        # the answer.
        kept = http.client.HTTPSConnection("localhost", port, context=context, timeout=5)
        kept.request("GET", f"{STREAM}?startup=true", headers={"X-Api-Key": stage.secrets["web-1"]})
        found = json.loads(kept.getresponse().read())
        assert [one["value"] for one in found["new"]] == ["203.0.113.7"]
        wait_until(lambda: metric(stage, 'floodwall_feed_answers_total{bouncer="web-1",outcome="arrived"}') == 1)
        kept.close()
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.settimeout(5)
            plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP")


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    words = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    try:
        subprocess.run(
            (*words, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-out", certificate, "-keyout", key),
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("expected openssl to make certificates, got none on the path")
    return certificate, key


def test_plaintext_where_others_can_listen_is_refused_unless_told() -> None:
    for host in ("127.0.0.1", "::1", "127.9.9.9", "localhost"):
        refuse_plaintext(host, None, False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "feed.example.com", ""):
        with pytest.raises(EdgeError, match="expected TLS where others can listen"):
            refuse_plaintext(host, None, False)
        refuse_plaintext(host, None, True)


@pytest.mark.parametrize("text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "a:-1"])
def test_an_address_to_listen_on_has_a_host_and_a_port(text: str) -> None:
    with pytest.raises(UsageError, match="expected an address and port"):
        parse_listen(text)
    assert parse_listen("[::1]:8080") == ("::1", 8080)


def test_certificates_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="expected a certificate with its key"):
        Tls(tmp_path / "none.pem", tmp_path / "none.key").context()
    with pytest.raises(UsageError, match="together"):
        tls_of(tmp_path / "a", None, None)
    with pytest.raises(UsageError, match="--client-authority alone"):
        tls_of(None, None, tmp_path / "a")
    assert tls_of(None, None, None) is None


def test_a_port_that_is_taken_is_one_line(stage: Stage, port: int) -> None:
    with (
        pytest.raises(EdgeError, match=f"expected port {port} on 127.0.0.1 to be free for us, got: "),
        stage.served(("127.0.0.1", port)),
    ):
        pass
