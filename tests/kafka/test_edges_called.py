"""``floodwall edge nginx`` and ``webhook`` as processes, from a real broker to a real nginx and a real gateway."""

from __future__ import annotations

import http.server
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from tests.kafka.edges import FLOODWALL, Deployment, deploy, floodwall, running, said, wait_until
from tests.test_edge_nginx import HEADERS, Site, free_port, needs_nginx
from tests.test_edge_webhook import KEY, LITELLM


@pytest.fixture
def deployment(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> Deployment:
    return deploy(tmp_path, broker, unique("")[-60:] + ".")


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Its address, and what it was told: path and key."""
    told: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((self.path, orjson.loads(body)["key"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", told
    server.shutdown()
    server.server_close()


def test_a_key_is_blocked_at_the_gateway_and_let_go_though_the_edge_was_killed_in_between(
    deployment: Deployment, gateway: tuple[str, list[tuple[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, told = gateway
    (tmp_path / "hooks.toml").write_text(LITELLM.format(url=url))
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-master")
    words = (
        *FLOODWALL, "edge", "webhook", "--config", str(deployment.file), "--hooks", str(tmp_path / "hooks.toml"), "--book",
        str(tmp_path / "book"),
    )  # fmt: skip
    with running(words, tmp_path / "edge.log") as process:
        deployment.say(said(KEY, kind="api_key", action="disable_key", id="a", seconds=300), said("203.0.113.7", id="b"))
        found = {one.id: one.outcome for one in deployment.acknowledgements(2)}
        assert found == {"a": "applied", "b": "unsupported"}
        assert told == [("/key/block", KEY)]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = floodwall(
        "mitigations", "lift", KEY, "--type", "api_key", "--owner", "ana", "--reason", "her own key", "--config",
        str(deployment.file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with running(words, tmp_path / "edge.log") as process:
        wait_until(lambda: len(told) > 1, "the key to be let go")
        assert told[1:] == [("/key/unblock", KEY)]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0


@needs_nginx
def test_a_request_is_denied_by_nginx_once_the_broker_has_the_mitigation(deployment: Deployment, tmp_path: Path) -> None:
    site = Site(tmp_path, free_port())
    words = (
        *FLOODWALL, "edge", "nginx", "--config", str(deployment.file), "--folder", str(tmp_path / "rules"), "--nginx",
        " ".join(site.nginx.words), "--match", f"ip=$http_{HEADERS['ip'].lower().replace('-', '_')}", "--challenge",
        "--reload-seconds", "1",
    )  # fmt: skip
    site.point.open()
    site.start()
    try:
        with running(words, tmp_path / "edge.log") as process:
            deployment.say(said("203.0.113.7", id="a"), said("10.0.0.7", id="core"))
            assert {one.id: one.outcome for one in deployment.acknowledgements(2)} == {"a": "applied", "core": "error"}
            site.wait_for("403")
            assert site.ask("10.0.0.7") == site.ask("203.0.113.8") == "served"
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(20) == 0
            assert site.ask() == "403"
    finally:
        site.stop()
