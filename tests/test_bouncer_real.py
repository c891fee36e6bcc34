"""CrowdSec's own firewall bouncer, unmodified, in a network namespace: it bans and releases real packets by our feed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from benchmarks.bouncer import HOW_TO_GET, PATIENCE_S, PROGRAM, running_bouncer
from edge.bouncer_api import Limits
from engine.clock import SystemClock
from schemas.mitigation import Mitigation
from tests.bouncers import Stage
from tests.mitigations import record
from tests.namespaces import Pair, pair_of_namespaces

REQUIRED = "FLOODWALL_REQUIRE_BOUNCER"
ADDRESSES = ("203.0.113.7", "203.0.113.8", "198.51.100.77", "2001:db8:1:2::7", "2001:db8:1:3::7")


def said(value: str, *, seconds: int = 600, **changes: object) -> Mitigation:
    """A final block from now on."""
    now = SystemClock().now_ms() // 1000
    return record(value, **{"tick": now, "stage": "final", "action": "block", "expires_at": now + seconds, **changes})


@dataclass
class Scene:
    """A feed that listens in the server's namespace, and the bouncer there."""

    pair: Pair
    stage: Stage
    folder: Path
    listener: socket.socket

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    @contextlib.contextmanager
    def bouncer(self, port: int | None = None, every: str = "1s", level: str = "debug") -> Iterator[subprocess.Popen[bytes]]:
        """Debian's, with its own configuration file, pointed at us."""
        key = self.stage.secrets["web-1"]
        with running_bouncer(self.pair.server, self.folder, port or self.port, key, every=every, level=level) as process:
            yield process

    def held(self) -> dict[str, int]:
        """What the kernel holds of the bouncer's: seconds left by address."""
        words = ("ip", "netns", "exec", self.pair.server, "nft", "-j", "list", "ruleset")
        listed = orjson.loads(subprocess.run(words, capture_output=True, check=True).stdout)["nftables"]
        elements = [element["elem"] for entry in listed for element in entry.get("set", {}).get("elem", ())]
        return {element["val"]: element.get("expires", -1) for element in elements}

    def log(self) -> str:
        return (self.folder / f"{PROGRAM}.log").read_text()

    def wait(self, is_so: Callable[[], bool], what: str) -> float:
        """Until it is so, while the feed goes on."""
        began = time.monotonic()
        while not is_so():
            assert time.monotonic() - began < PATIENCE_S, f"expected {what} within {PATIENCE_S} s: {self.log()[-2000:]}"
            self.stage.step()
            time.sleep(0.05)
        return time.monotonic() - began


def need_bouncer() -> None:
    if shutil.which(PROGRAM) is None:
        why = f"needs {PROGRAM} ({HOW_TO_GET})"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, and it {why}")
        pytest.skip(why)


def listen(pair: Pair, port: int) -> socket.socket:
    """A socket in the server's namespace; 0: any port."""
    made = pair.cable.server.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    need_bouncer()
    with pair_of_namespaces(ADDRESSES) as pair:
        listener = listen(pair, 0)
        made = Scene(pair, Stage(tmp_path, clock=SystemClock(), limits=Limits(answer_s=PATIENCE_S)), tmp_path, listener)
        yield made


def test_it_bans_and_releases_real_traffic_of_both_families(scene: Scene) -> None:
    pair, stage = scene.pair, scene.stage
    stage.say(said("203.0.113.7", id="a"), said("10.0.0.1", id="core"), said("203.0.113.8", id="dry", dry_run=True))
    with stage.served(scene.listener), scene.bouncer():
        scene.wait(lambda: "203.0.113.7" in scene.held(), "the first ban")
        assert not pair.is_served("203.0.113.7")
        assert all(pair.is_served(address) for address in ADDRESSES[1:])
        stage.say(
            said("2001:db8:1:2::7", id="b"), said("198.51.100.0/24", id="c", seconds=8), said("203.0.113.8", id="d", drill=True)
        )
        scene.wait(lambda: len(scene.held()) == 258, "an IPv6 address, and every address of a network")
        assert not pair.is_served("2001:db8:1:2::7")
        assert not pair.is_served("198.51.100.77")
        assert pair.is_served("2001:db8:1:3::7")
        assert pair.is_served("203.0.113.8")
        later = SystemClock().now_ms() // 1000 + 1
        stage.say(
            said("203.0.113.7", id="a", tick=later, state="lifted"), said("2001:db8:1:2::7", id="b", tick=later, state="lifted")
        )
        scene.wait(lambda: pair.is_served("203.0.113.7", 0.1), "the lift")
        assert pair.is_served("2001:db8:1:2::7")
        scene.wait(lambda: pair.is_served("198.51.100.77", 0.1), "the end of the ban, by the kernel's own timer")
    assert "level=error" not in scene.log()
    assert sorted(stage.heard.take()) == [("a", "applied"), ("b", "applied"), ("c", "applied"), ("core", "error")]


class CuttingProxy:
    """Stands between a bouncer and the feed, takes whole answers, and passes on only the beginning of those it is told to cut.

    The feed cannot know: its bytes were all acknowledged.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._listener = listen(scene.pair, 0)
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self.to_cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        feed = self._scene.pair.cable.server.socket(socket.AF_INET, socket.SOCK_STREAM)
        with contextlib.suppress(OSError), client, feed:
            feed.connect(("127.0.0.1", self._scene.port))
            while request := client.recv(65536):
                feed.sendall(request)
                answer = feed.recv(65536)
                head, _, body = answer.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                while len(body) < length:
                    body += feed.recv(65536)
                if self.to_cut:
                    self.to_cut -= 1
                    client.sendall(head + b"\r\n\r\n" + body[: length // 2])
                    return
                client.sendall(head + b"\r\n\r\n" + body)


def test_a_poll_that_failed_loses_nothing_even_where_a_proxy_took_the_answer(scene: Scene) -> None:
    stage = scene.stage
    stage.say(said("203.0.113.7", id="a"), said("203.0.113.8", id="b"))
    proxy = CuttingProxy(scene)
    with contextlib.closing(proxy), stage.served(scene.listener), scene.bouncer(proxy.port):
        scene.wait(lambda: len(scene.held()) == 2, "the first bans")
        later = SystemClock().now_ms() // 1000 + 1
        proxy.to_cut = 1
        stage.say(said("2001:db8:1:2::7", id="c"), said("203.0.113.7", id="a", tick=later, state="lifted"))
        scene.wait(lambda: not proxy.to_cut, "the answer to be cut")
        scene.wait(lambda: scene.held().keys() == {"203.0.113.8", "2001:db8:1:2::7"}, "the next poll to make up for it")
    assert "unexpected EOF" in scene.log()


def test_a_longer_ban_replaces_the_one_that_it_has(scene: Scene) -> None:
    stage = scene.stage
    stage.say(said("203.0.113.7", id="a", seconds=30), said("2001:db8:1:2::7", id="b", seconds=30))
    with stage.served(scene.listener), scene.bouncer():
        scene.wait(lambda: len(scene.held()) == 2, "the bans")
        assert max(scene.held().values()) <= 30
        later = SystemClock().now_ms() // 1000 + 1
        stage.say(
            *(said(one, id=name, tick=later, seconds=900) for one, name in (("203.0.113.7", "a"), ("2001:db8:1:2::7", "b")))
        )
        scene.wait(lambda: len(scene.held()) == 2 and min(scene.held().values()) > 800, "both to be longer")
    assert "level=error" not in scene.log()


def test_while_the_feed_is_down_bans_hold_and_after_it_what_was_lifted_meanwhile_is_released(scene: Scene) -> None:
    pair, stage = scene.pair, scene.stage
    port = scene.port
    first = (said("203.0.113.7", id="a"), said("203.0.113.8", id="b"))
    stage.say(*first)
    with contextlib.ExitStack() as ended:
        with stage.served(scene.listener):
            ended.enter_context(scene.bouncer())
            scene.wait(lambda: len(scene.held()) == 2, "the bans")
        scene.wait(lambda: "level=error" in scene.log(), "the bouncer to miss us")
        assert not pair.is_served("203.0.113.7")
        later = SystemClock().now_ms() // 1000 + 1
        stage.begin()
        stage.say(first[1], said("203.0.113.7", id="a", tick=later, state="lifted"), said("2001:db8:1:2::7", id="c"))
        with stage.served(listen(pair, port)):
            scene.wait(lambda: scene.held().keys() == {"203.0.113.8", "2001:db8:1:2::7"}, "what the topic says now")
    assert pair.is_served("203.0.113.7")


@pytest.mark.slow
def test_ten_thousand_decisions_stand_in_the_kernel_and_stay_current(scene: Scene) -> None:
    stage = scene.stage
    four = [f"198.18.{number // 250}.{number % 250 + 1}" for number in range(5000)]
    six = [f"2001:db8:5::{number + 1:x}" for number in range(5000)]
    stage.say(*(said(value, id=value, seconds=900) for value in (*four, *six)))
    with stage.served(scene.listener), scene.bouncer(every="2s", level="info"):
        began = scene.wait(lambda: len(scene.held()) == 10_000, "all of them")
        later = SystemClock().now_ms() // 1000 + 1
        stage.say(
            *(said(value, id=value, tick=later, seconds=1800) for value in (*four[:500], *six[:500])),
            *(said(value, id=value, tick=later, state="lifted") for value in (*four[-500:], *six[-500:])),
        )

        def is_current() -> bool:
            left = scene.held().values()
            return (len(left), sum(one > 900 for one in left)) == (9000, 1000)

        after = scene.wait(is_current, "the changes")
        print(f"10,000 decisions in the kernel after {began:.1f} s, 2,000 changes of them after {after:.1f} s")
    assert "level=error" not in scene.log()
