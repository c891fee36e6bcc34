"""Where the demo through Kafka is played: its stage over the cable with the kernel enforcing, or on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drills.demo_network import ATTACKERS, HONEST, Loopback, cabled
from drills.demo_service import Stage, play
from edge.in_process import InProcessPoint
from edge.nft_rules import supports
from engine.clock import SystemClock
from floodwall.demo_scene import Scene, count_drops, set_up
from floodwall.demo_screen import NFTABLES, SERVICE, Plan, Story, perform, settings_at
from schemas.config import parse_config
from schemas.errors import EdgeError
from tests.mitigations import CORE, on_topic, ready_reader, record
from tests.namespaces import namespaces_of, need_namespaces

FLOODWALL = str(Path(sys.executable).parent / "floodwall")
CONFIG = parse_config(settings_at(0))


@pytest.fixture
def scene() -> Iterator[Scene]:
    """With nftables in it."""
    need_namespaces()
    with contextlib.ExitStack() as stack:
        made, said = set_up(stack, True, CONFIG)
        assert said == f"nftables enforces, in the network namespace {namespaces_of(os.getpid())[-1]}"
        yield made
    assert namespaces_of(os.getpid()) == []


def columns(log: Path) -> tuple[set[str], set[str]]:
    """Who the service's log says connected, and who it says was told by a proxy."""
    lines = log.read_text().splitlines()
    return {line.split(" ", 1)[0] for line in lines}, {line.rsplit(" ", 1)[1] for line in lines}


def test_over_the_cable_the_log_has_the_addresses_that_really_connected(tmp_path: Path) -> None:
    need_namespaces()
    with cabled() as network:
        asyncio.run(play(Stage(tmp_path / "log", network), 2.5, 1.0, 1, lambda passed: None))
    connected, told = columns(tmp_path / "log")
    assert connected <= {*HONEST, *ATTACKERS}
    assert set(ATTACKERS) < connected
    assert told == {'"-"'}


def test_on_loopback_the_log_has_the_addresses_that_clients_say(tmp_path: Path) -> None:
    asyncio.run(play(Stage(tmp_path / "log", Loopback()), 1.5, 0.5, 1, lambda passed: None))
    connected, told = columns(tmp_path / "log")
    assert connected == {"127.0.0.1"}
    assert {f'"{address}"' for address in ATTACKERS} < told <= {f'"{address}"' for address in (*HONEST, *ATTACKERS)}


def test_what_the_kernel_drops_is_counted_into_the_seconds_of_the_play(scene: Scene, tmp_path: Path) -> None:
    blocked, throttled, *_ = ATTACKERS
    now_ms = SystemClock().now_ms()
    until = {"tick": now_ms // 1000, "stage": "final", "expires_at": now_ms // 1000 + 60}
    reader = ready_reader(supports=supports)
    for one in (record(blocked, action="block", **until), record(throttled, action="throttle", **until)):
        reader.take(*on_topic(one))
    scene.point.change(reader.changes(now_ms), now_ms)
    stage, story = Stage(tmp_path / "log", scene.network, scene.admit), Story()
    plan = Plan(3.0, 1, True, "demo", "the next thing", scene.enforced_by)
    perform(plan, stage, story, lambda stop: count_drops(scene, stage, story, SystemClock(), stop))
    connected, _ = columns(tmp_path / "log")
    assert blocked not in connected
    assert {*ATTACKERS} - {blocked} < connected
    assert set(story.dropped) == {"blocked", "throttled"}
    assert all(packets > 0 for packets in story.dropped.values())
    assert sum(second.turned_away for second in stage.seconds.values()) == sum(story.dropped.values())
    assert stage.seconds[0].turned_away == 0  # nobody attacks yet


def test_counters_that_began_again_are_added_to_what_was_counted(tmp_path: Path) -> None:
    counted = iter([{"blocked": 5}, {"blocked": 7}, {"blocked": 3}])
    asked: list[None] = []
    scene = Scene(NFTABLES, Loopback(), InProcessPoint(CORE), dropped=lambda: next(counted))
    stage, story = Stage(tmp_path / "log", Loopback()), Story()

    def stop() -> bool:
        asked.append(None)
        return len(asked) == 3

    count_drops(scene, stage, story, SystemClock(), stop)
    assert story.dropped == {"blocked": 10}
    assert sum(second.turned_away for second in stage.seconds.values()) == 10


def test_where_it_may_not_the_service_enforces_and_one_sentence_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with contextlib.ExitStack() as stack:
        made, said = set_up(stack, None, CONFIG)
        assert (made.enforced_by, made.network.proxy_depth, made.dropped) == (SERVICE, 1, None)
        assert said.startswith("on loopback, where the service itself enforces: nftables cannot: expected the program ip")
        with pytest.raises(EdgeError, match="expected the program ip"):
            set_up(stack, True, CONFIG)
        assert set_up(stack, False, CONFIG)[1] == ""


def test_a_kernel_without_nftables_is_why_and_leaves_no_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need_namespaces()
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\necho 'Error: Could not process rule: Protocol not supported' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with contextlib.ExitStack() as stack:
        made, said = set_up(stack, None, CONFIG)
        assert made.enforced_by == SERVICE
        assert "Protocol not supported" in said
        assert namespaces_of(os.getpid()) == []


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--kafka", "--nft"), 7, "floodwall: expected the program ip, found none on the path: install iproute2\n"),
        (("--nft",), 2, "floodwall: expected --kafka with --nft: without Kafka the service itself enforces\n"),
        (("--no-nft",), 2, "floodwall: expected --kafka with --no-nft: without Kafka the service itself enforces\n"),
    ],
)
def test_nftables_that_was_asked_for_and_may_not_is_one_line(
    words: tuple[str, ...], code: int, line: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([FLOODWALL, "demo", *words], capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", line)
