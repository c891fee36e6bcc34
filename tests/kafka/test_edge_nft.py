"""From a mitigation on a real broker's topic to a packet that the kernel drops, through ``floodwall edge nft``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from broker.signing import DELAY_MS_MAX
from edge.enforce import Enforcer
from edge.nft import NftTable
from edge.nft_rules import Throttle
from edge.reader import Reader
from engine.clock import SystemClock
from schemas.config import DEFAULT_ALLOWLIST_CORE, TrustedKey
from tests.edge_parts import HandClock
from tests.kafka.edges import FLOODWALL, Deployment, deploy, floodwall, running, said, wait_until
from tests.mitigations import CORE as CORE_PREFIXES
from tests.mitigations import on_topic
from tests.namespaces import Pair, pair_of_namespaces
from tests.signing import Keyholder

ALLOWLISTED = "192.0.2.1"
ADDRESSES = ("203.0.113.7", "203.0.113.8", ALLOWLISTED, "2001:db8:1:2::7", "2001:db8:1:3::7")
EDGE = "edge-under-test"
CORE = {"allowlist_core": [*DEFAULT_ALLOWLIST_CORE, f"{ALLOWLISTED}/32"]}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_namespaces(ADDRESSES) as made:
        yield made


@pytest.fixture
def deployment(pair: Pair, broker: str, tmp_path: Path, unique: Callable[[str], str]) -> Deployment:
    return deploy(tmp_path, broker, unique("")[-60:] + ".", policy=CORE)


class Edge:
    """``floodwall edge nft`` in the server's namespace."""

    def __init__(self, deployment: Deployment, pair: Pair, folder: Path) -> None:
        self.output = folder / "edge.log"
        self.table = NftTable("floodwall", (), Throttle(), netns=pair.server)
        self._words = (
            *FLOODWALL, "edge", "nft", "--config", str(deployment.file), "--netns", pair.server, "--edge-id", EDGE,
        )  # fmt: skip

    @contextlib.contextmanager
    def running(self, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        with running((*self._words, *more), self.output) as process:
            wait_until(lambda: "ready" in self.words() or process.poll() is not None, "the edge to be ready")
            assert process.poll() is None, self.words()
            yield process

    def words(self) -> str:
        return self.output.read_text()


@pytest.fixture
def edge(deployment: Deployment, pair: Pair, tmp_path: Path) -> Edge:
    return Edge(deployment, pair, tmp_path)


def stop(process: subprocess.Popen[bytes], number: signal.Signals) -> int:
    os.kill(process.pid, number)
    return process.wait(20)


def test_a_client_is_blocked_within_a_second_and_the_block_ends_by_itself(
    deployment: Deployment, pair: Pair, edge: Edge
) -> None:
    with edge.running():
        assert all(pair.is_served(address) for address in ADDRESSES)
        blocked = said("203.0.113.7", id="a", seconds=6)
        deployment.say(blocked, said(ALLOWLISTED, id="b"), said("2001:db8:1:2::/64", id="c"))
        began = time.monotonic()
        while pair.is_served("203.0.113.7", 0.1):
            assert time.monotonic() - began < 1.0
        print(f"blocked {time.monotonic() - began:.3f} s after the broker had it")
        assert not pair.is_served("2001:db8:1:2::7")
        assert pair.is_served("2001:db8:1:3::7")
        assert pair.is_served("203.0.113.8")
        assert pair.is_served(ALLOWLISTED)
        wait_until(lambda: pair.is_served("203.0.113.7", 0.1), "the block to end")
        assert SystemClock().now_ms() >= blocked.expires_at * 1000
        found = {one.id: one for one in deployment.acknowledgements(3)}
        assert {identifier: one.outcome for identifier, one in found.items()} == {"a": "applied", "b": "error", "c": "applied"}
        assert {one.edge for one in found.values()} == {EDGE}
        assert found["b"].why == "the target touches the allowlist core of this edge"


def test_after_kill_9_and_a_restart_the_kernels_table_is_the_topics(deployment: Deployment, pair: Pair, edge: Edge) -> None:
    with edge.running() as process:
        deployment.say(*(said(f"198.18.0.{last}", id=str(last)) for last in range(100)), said("203.0.113.7", id="x"))
        wait_until(lambda: len(edge.table.elements()) == 101, "the table")
        deployment.acknowledgements(101)  # what it has done and not yet said is lost with it
        stop(process, signal.SIGKILL)
    assert not pair.is_served("203.0.113.7")  # nobody is there, and it still holds
    later = SystemClock().now_ms() // 1000 + 1
    deployment.say(
        said("203.0.113.7", tick=later, state="lifted"), said("203.0.113.8", action="throttle", id="y"),
        said("198.18.0.1", tick=later, action="challenge", id="z"), said("198.18.0.2", tick=later, seconds=-1),
    )  # fmt: skip
    with edge.running():
        expected = {("block_ip4_32", f"198.18.0.{last}") for last in range(100)} - {
            ("block_ip4_32", "198.18.0.1"), ("block_ip4_32", "198.18.0.2"),
        }  # fmt: skip
        assert edge.table.elements() == expected | {("throttle_ip4_32", "203.0.113.8")}
        found = deployment.acknowledgements(103)
    assert sorted((one.id, one.outcome) for one in found[101:]) == [("y", "applied"), ("z", "unsupported")]


def test_nobody_but_who_is_trusted_moves_the_kernel_also_after_kill_9(
    deployment: Deployment, pair: Pair, edge: Edge, tmp_path: Path
) -> None:
    judge, ana, stranger = (Keyholder(name, tmp_path, deployment.topic, SystemClock()) for name in ("judge", "ana", "eve"))
    trust_in(deployment, judge.trusted("detectors"), ana.trusted("operators"), signs_with=ana.file)
    blocked = judge.says(said("203.0.113.7", id="a"))
    cut = judge.says(said("203.0.113.8", id="cut"))
    flipped = cut[1].replace(b"301 requests", b"201 requests")
    assert sum(bin(one ^ other).count("1") for one, other in zip(flipped, cut[1], strict=True)) == 1
    elsewhere = Keyholder("judge", tmp_path, "mitigations", SystemClock())
    held = Keyholder("judge", tmp_path, deployment.topic, HandClock(SystemClock().now_ms() - DELAY_MS_MAX - 60_000))
    refused = [
        on_topic(said("203.0.113.8", id="unsigned")), stranger.says(said("203.0.113.8", id="stranger")), (cut[0], flipped),
        elsewhere.says(said("203.0.113.8", id="elsewhere")), held.says(said("203.0.113.8", id="held")),
        judge.says(said("203.0.113.7", id="no", action="allow", detector="operator")), ana.says(said("203.0.113.8", id="ana")),
        (blocked[0].replace(b":rate", b":operator"), blocked[1]),
    ]  # fmt: skip
    with edge.running() as process:
        deployment.say_raw(blocked, *refused, judge.says(said("2001:db8:1:2::/64", id="b")))
        wait_until(lambda: len(edge.table.elements()) == 2, "the table")
        deployment.say_raw(judge.says(said("203.0.113.8", id="late", seconds=-5)))
        reasons = {one.id: one.why for one in deployment.acknowledgements(10)}
        assert {one for one in reasons if reasons[one]} == {
            "unsigned",
            "stranger",
            "cut",
            "elsewhere",
            "held",
            "no",
            "ana",
            "late",
        }
        metrics = urlopen(health_of(edge) + "metrics").read().decode()
        for reason, count in (("unsigned", 1), ("unknown_key", 1), ("forged", 2), ("out_of_scope", 2), ("replayed", 1)):
            assert f'floodwall_edge_records_total{{outcome="refused_{reason}"}} {count}.0' in metrics
        assert 'floodwall_edge_records_total{outcome="expired"} 1.0' in metrics
        stop(process, signal.SIGKILL)
    words = ("--owner", "ana", "--reason", "a customer", "--config", str(deployment.file))
    done = floodwall("mitigations", "lift", "203.0.113.7", *words)
    assert done.returncode == 0, done.stderr
    assert "signed by nobody" in floodwall("mitigations", "list", "--config", str(deployment.file)).stderr
    deployment.say_raw(blocked, on_topic(said("203.0.113.9")))
    with edge.running():
        assert edge.table.elements() == {("allow_ip4_32", "203.0.113.7"), ("block_ip6_64", "2001:db8:1:2::")}
        assert pair.is_served("203.0.113.7")


def trust_in(deployment: Deployment, *keys: TrustedKey, signs_with: Path) -> None:
    lines = ["[signing]", f'private_key_file = "{signs_with}"']
    for key in keys:
        lines += ["[[signing.public_keys]]", f'key = "{key.key}"', f'owner = "{key.owner}"', f'speaks_for = "{key.speaks_for}"']
    deployment.file.write_text(deployment.file.read_text() + "\n".join(lines) + "\n")


def health_of(edge: Edge) -> str:
    found = re.search(r"health=(http://[0-9.:]+/)health", edge.words())
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_a_hundred_thousand_mitigations_on_the_topic_stand_in_the_kernel(deployment: Deployment, edge: Edge) -> None:
    records = [said(f"198.{18 + last // 65536}.{last // 256 % 256}.{last % 256}", seconds=600) for last in range(100_000)]
    deployment.say(*records)
    reader = Reader(CORE_PREFIXES, edge.table.supports)
    source = deployment.source()
    edge.table.open()
    began = time.monotonic()
    try:
        enforcer = Enforcer(EDGE, source, reader, edge.table, None, SystemClock(), lambda event, fields: None)
        enforcer.run(lambda: len(reader.table) == len(records))
    finally:
        source.close()
    print(f"100,000 mitigations from the topic into the kernel in {time.monotonic() - began:.2f} s")
    assert edge.table.elements() == {("block_ip4_32", one.target.value) for one in records}


def test_stopped_it_leaves_bans_to_run_out_or_removes_the_table_when_told(
    deployment: Deployment, pair: Pair, edge: Edge
) -> None:
    deployment.say(said("203.0.113.7"))
    with edge.running() as process:
        assert stop(process, signal.SIGTERM) == 0
    assert "left: bans end on time" in edge.words()
    assert not pair.is_served("203.0.113.7")
    with edge.running("--flush-on-stop", "--json") as process:
        assert stop(process, signal.SIGTERM) == 0
    assert pair.is_served("203.0.113.7")
    assert '"event":"stopped"' in edge.words()


def test_a_table_that_somebody_flushed_is_put_back(deployment: Deployment, pair: Pair, edge: Edge) -> None:
    with edge.running():
        subprocess.run(("ip", "netns", "exec", pair.server, "nft", "flush", "ruleset"), check=True)
        deployment.say(said("203.0.113.7"))
        wait_until(lambda: not pair.is_served("203.0.113.7", 0.1), "the table to be restored")
        assert "table_restored" in edge.words()


def test_a_dry_run_prints_batches_and_changes_nothing(deployment: Deployment, pair: Pair, edge: Edge) -> None:
    deployment.say(said("203.0.113.7"))
    with edge.running("--dry-run") as process:
        assert "add element inet floodwall block_ip4_32 { 203.0.113.7 timeout" in edge.words()
        assert stop(process, signal.SIGINT) == 130
    assert pair.is_served("203.0.113.7")


def test_behind_a_proxy_it_refuses_to_start(tmp_path: Path) -> None:
    file = tmp_path / "proxied.toml"
    file.write_text("[input]\nproxy_depth = 1\n")
    done = floodwall("edge", "nft", "--config", str(file))
    assert done.returncode == 7
    assert done.stderr.startswith("floodwall: expected a host that clients connect to, got input.proxy_depth = 1")
    assert len(done.stderr.splitlines()) == 1


def test_without_nft_and_without_a_broker_it_is_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "nowhere.toml"
    file.write_text('[kafka]\nbrokers = ["127.0.0.1:1"]\ndevelopment = true\n')
    done = floodwall("edge", "nft", "--config", str(file), "--dry-run")
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)
    assert "expected a broker on 127.0.0.1:1" in done.stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    done = floodwall("edge", "nft", "--config", str(file))
    assert (done.returncode, len(done.stderr.splitlines())) == (7, 1)
    assert "install nftables" in done.stderr
