"""From a mitigation on a real broker's topic to a bouncer's poll, through ``floodwall edge bouncer-api``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from broker.local import LocalBroker
from engine.clock import SystemClock
from tests.bouncers import Client
from tests.kafka.edges import FLOODWALL, Deployment, deploy, floodwall, running, said, wait_until

EDGE = "feed-under-test"


@pytest.fixture
def deployment(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> Deployment:
    return deploy(tmp_path, broker, unique("")[-60:] + ".")


class Feed:
    """The command, and a bouncer that has a key."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.keys, self.output = folder / "keys.json", folder / "feed.log"
        self.key = self.run_keys("add", "web-1")
        self._words = (
            *FLOODWALL, "edge", "bouncer-api", "--config", str(deployment.file), "--keys", str(self.keys), "--edge-id", EDGE,
            "--listen", "127.0.0.1:0", "--json",
        )  # fmt: skip

    def run_keys(self, *words: str) -> str:
        done = floodwall("edge", "bouncer-api", "keys", *words, "--keys", str(self.keys))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def said(self, event: str) -> list[dict[str, object]]:
        """What it has told of this kind."""
        lines = [orjson.loads(line) for line in self.output.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in lines if line["event"] == event]

    @contextlib.contextmanager
    def running(self) -> Iterator[tuple[subprocess.Popen[bytes], Client]]:
        with running(self._words, self.output) as process:
            wait_until(lambda: bool(self.said("ready")) or process.poll() is not None, "the feed to be ready")
            assert process.poll() is None, self.output.read_text()
            port = self.said("listening")[0]["port"]
            assert isinstance(port, int)
            with contextlib.closing(Client(port, self.key)) as client:
                yield process, client


@pytest.fixture
def feed(deployment: Deployment, tmp_path: Path) -> Feed:
    return Feed(deployment, tmp_path)


def test_what_is_on_the_topic_is_told_and_acknowledged_when_it_has_arrived(deployment: Deployment, feed: Feed) -> None:
    deployment.say(said("203.0.113.7", id="a"), said("203.0.113.8", id="b", dry_run=True), said("10.0.0.1", id="c"))
    with feed.running() as (process, client):
        assert client.startup()[0].keys() == {"203.0.113.7"}
        deployment.say(said("2001:db8::7", id="d"), said("203.0.113.9", id="e", action="challenge"))
        wait_until(lambda: client.poll()[0].keys() == {"2001:db8::7"}, "the next one")
        found = {one.id: one.outcome for one in deployment.acknowledgements(4)}
        assert found == {"a": "applied", "c": "error", "d": "applied", "e": "unsupported"}
        later = SystemClock().now_ms() // 1000 + 1
        deployment.say(said("203.0.113.7", id="a", tick=later, state="lifted"))
        wait_until(lambda: client.poll()[1] == ["203.0.113.7"], "the lift")
        feed.run_keys("revoke", "web-1")
        assert client.ask("/v1/decisions/stream?")[0] == 403
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0
    assert feed.said("stopped")


def test_while_the_broker_is_away_it_serves_what_it_has_and_says_that_it_is_stale(
    deployment: Deployment, feed: Feed, local_broker: LocalBroker
) -> None:
    deployment.say(said("203.0.113.7", seconds=600))
    with feed.running() as (_, client):
        try:
            local_broker.kill()
            wait_until(lambda: b'"stale":true' in client.ask("/health")[1], "the feed to notice")
            assert client.startup()[0].keys() == {"203.0.113.7"}
            assert client.response.headers["X-Floodwall-Stale-Since"] is not None
        finally:
            local_broker.start()
        deployment.say(said("203.0.113.8"))
        wait_until(lambda: "203.0.113.8" in client.poll()[0], "what came when it was back")
        wait_until(lambda: b'"stale":false' in client.ask("/health")[1], "the feed to say so")


def test_after_kill_9_a_bouncer_that_goes_on_gets_what_it_missed(deployment: Deployment, feed: Feed) -> None:
    deployment.say(said("203.0.113.7", id="a"), said("203.0.113.8", id="b"))
    with feed.running() as (process, client):
        assert len(client.startup()[0]) == 2
        process.kill()
    later = SystemClock().now_ms() // 1000 + 1
    deployment.say(said("203.0.113.7", id="a", tick=later, state="lifted"), said("203.0.113.9", id="c"))
    with feed.running() as (_, client):
        new, gone = client.poll()
        assert (new.keys(), gone) == ({"203.0.113.8", "203.0.113.9"}, ["203.0.113.7"])


def test_what_keeps_it_from_starting_is_one_line(tmp_path: Path) -> None:
    file, keys = tmp_path / "nowhere.toml", tmp_path / "keys.json"
    file.write_text('[kafka]\nbrokers = ["127.0.0.1:1"]\ndevelopment = true\n')
    words = ("edge", "bouncer-api", "--config", str(file), "--keys", str(keys))
    expected = [(2, f"expected a file of keys at {keys}, got none there"), (7, "expected TLS where others can listen")]
    for (code, text), more in zip(expected, ((), ("--listen", "0.0.0.0:0")), strict=True):
        done = floodwall(*words, *more)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)
        assert text in done.stderr
    made = floodwall("edge", "bouncer-api", "keys", "add", "web-1", "--scope", "range", "--json", "--keys", str(keys))
    assert orjson.loads(made.stdout).keys() == {"name", "key", "types", "scopes"}
    assert "web-1" in floodwall("edge", "bouncer-api", "keys", "list", "--keys", str(keys)).stdout
    listed = floodwall("edge", "bouncer-api", "keys", "list", "--json", "--keys", str(keys)).stdout
    assert [(one["name"], one["scopes"]) for one in orjson.loads(listed)] == [("web-1", ["Ip", "Range"])]
    done = floodwall(*words, "--listen", "127.0.0.1:0")
    assert done.returncode == 6
    assert "expected a broker on 127.0.0.1:1" in done.stderr.splitlines()[-1]
