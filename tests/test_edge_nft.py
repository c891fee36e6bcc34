"""The nft edge against the kernel, in network namespaces of the test's own, and what it says when nft fails it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.enforce import refuse_behind_proxy
from edge.nft import NftTable
from edge.nft_rules import Throttle, element_of, supports
from edge.reader import Reader
from engine.clock import SystemClock
from schemas.config import DEFAULT_ALLOWLIST_CORE, parse_prefixes
from schemas.errors import EdgeError, UsageError
from schemas.mitigation import Mitigation
from tests.mitigations import on_topic, ready_reader, record
from tests.namespaces import Pair, pair_of_namespaces

CORE = parse_prefixes((*DEFAULT_ALLOWLIST_CORE, "192.0.2.0/24"), "policy.allowlist_core")
ADDRESSES = (
    "203.0.113.7", "203.0.113.8", "198.51.100.77", "192.0.2.1", "2001:db8:1:2::7", "2001:db8:1:2::8", "2001:db8:1:3::7",
    "2001:db8:2::7",
)  # fmt: skip


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_namespaces(ADDRESSES) as made:
        yield made


@pytest.fixture
def table(pair: Pair) -> NftTable:
    """An open, empty table of the server's."""
    made = table_in(pair)
    assert made.open() == set()
    made.replace({}, now_ms())
    return made


def table_in(pair: Pair, name: str = "floodwall", throttle: Throttle | None = None) -> NftTable:
    return NftTable(name, CORE, throttle or Throttle(), netns=pair.server)


def now_ms() -> int:
    return SystemClock().now_ms()


def said(value: str, *, seconds: int = 60, **changes: object) -> Mitigation:
    now = now_ms() // 1000
    return record(value, **{"tick": now, "stage": "final", "action": "block", "expires_at": now + seconds, **changes})


def apply(table: NftTable, reader: Reader, *records: Mitigation) -> None:
    for one in records:
        reader.take(*on_topic(one))
    table.change(reader.changes(now_ms()), now_ms())


def nft_reader() -> Reader:
    return ready_reader(supports=supports)


def served(pair: Pair) -> set[str]:
    return {address for address in ADDRESSES if pair.is_served(address, 0.15)}


def list_rules(pair: Pair) -> str:
    done = subprocess.run(("ip", "netns", "exec", pair.server, "nft", "list", "ruleset"), capture_output=True, check=True)
    return done.stdout.decode()


def test_addresses_and_prefixes_by_mask_are_blocked_and_their_neighbours_served(pair: Pair, table: NftTable) -> None:
    assert served(pair) == set(ADDRESSES)
    reader = nft_reader()
    apply(table, reader, said("203.0.113.7"), said("2001:db8:1:2::/64"))
    assert served(pair) == set(ADDRESSES) - {"203.0.113.7", "2001:db8:1:2::7", "2001:db8:1:2::8"}
    apply(table, reader, said("203.0.113.0/24"), said("2001:db8:2::/48"))
    assert served(pair) == {"198.51.100.77", "192.0.2.1", "2001:db8:1:3::7"}


def test_the_core_is_served_even_if_the_table_says_block(pair: Pair, table: NftTable) -> None:
    apply(table, ready_reader(supports=supports), said("192.0.2.0/24"))  # this reader's core does not have it
    assert "192.0.2.1" in served(pair)


def test_an_operators_allow_holds_inside_a_blocked_network_until_it_is_lifted(pair: Pair, table: NftTable) -> None:
    reader = nft_reader()
    apply(table, reader, said("203.0.113.0/24"), said("203.0.113.7", action="allow", detector="operator"))
    assert served(pair) == set(ADDRESSES) - {"203.0.113.8"}
    apply(table, reader, said("203.0.113.7", action="allow", detector="operator", state="lifted"))
    assert served(pair) == set(ADDRESSES) - {"203.0.113.7", "203.0.113.8"}


def test_a_block_ends_by_itself_when_nobody_is_there_to_end_it(pair: Pair, table: NftTable) -> None:
    began = time.monotonic()
    blocked = said("203.0.113.7", seconds=3)
    apply(table, nft_reader(), blocked)
    assert not pair.is_served("203.0.113.7", 0.1)
    while not pair.is_served("203.0.113.7", 0.1):
        assert time.monotonic() - began < 20
    assert now_ms() >= blocked.expires_at * 1000 - 10, "the kernel's timers and the clock are a few milliseconds apart"


def test_extending_and_lifting_are_one_transaction_each(pair: Pair, table: NftTable) -> None:
    reader = nft_reader()
    apply(table, reader, said("203.0.113.7", seconds=2))
    apply(table, reader, said("203.0.113.7", seconds=600, tick=now_ms() // 1000 + 1))
    assert "timeout 9m5" in list_rules(pair) or "timeout 10m" in list_rules(pair)
    apply(table, reader, said("203.0.113.7", seconds=600, tick=now_ms() // 1000 + 2, state="lifted"))
    assert table.elements() == set()
    assert pair.is_served("203.0.113.7")


def test_what_the_kernel_has_ended_already_can_be_lifted(table: NftTable) -> None:
    reader = nft_reader()
    reader.take(*on_topic(said("203.0.113.7")))
    changes = reader.changes(now_ms())
    reader.take(*on_topic(said("203.0.113.7", state="lifted")))
    table.change(reader.changes(now_ms()), now_ms())  # its block was never told to the kernel
    table.change(changes, now_ms())
    table.change(changes, now_ms())  # and a block that is there already is no error
    assert table.elements() == {("block_ip4_32", "203.0.113.7")}


def test_a_throttled_address_sends_no_more_than_its_packets(pair: Pair) -> None:
    table = table_in(pair, throttle=Throttle(packets_per_second=5, burst_packets=10))
    table.replace({}, now_ms())
    assert pair.datagrams_through("203.0.113.7", 200) == 200
    apply(table, nft_reader(), said("203.0.113.7", action="throttle"))
    passed = pair.datagrams_through("203.0.113.7", 200)
    assert 10 <= passed <= 15
    assert pair.datagrams_through("203.0.113.8", 200) == 200
    assert table.dropped() == {"blocked": 0, "throttled": 200 - passed}


def test_a_signature_that_names_a_network_of_the_only_service_is_that_network(pair: Pair) -> None:
    table = NftTable("floodwall", CORE, Throttle(5, 10), service="api.example", netns=pair.server)
    table.replace({}, now_ms())
    reader = ready_reader(supports=table.supports)
    wide = '{"net":"203.0.0.0/16","service":"api.example"}'
    core = '{"net":"192.0.2.0/24","service":"api.example"}'
    apply(table, reader, said(wide, kind="signature", action="throttle"), said(core, kind="signature", action="throttle"))
    assert table.elements() == {("throttle_signature_ip4_16", "203.0.0.0"), ("throttle_signature_ip4_24", "192.0.2.0")}
    assert 10 <= pair.datagrams_through("203.0.113.7", 100) <= 15
    assert pair.datagrams_through("198.51.100.77", 100) == pair.datagrams_through("192.0.2.1", 100) == 100
    assert {sample.labels["action"] for metric in table.metrics() for sample in metric.samples} == {"blocked", "throttled"}
    apply(table, reader, said(wide, kind="signature", action="throttle", state="lifted"))
    assert pair.datagrams_through("203.0.113.7", 100) == 100


@pytest.mark.parametrize(
    "value",
    [
        '{"net":"203.0.113.0/24","service":"www.example"}', '{"net":"203.0.113.0/24"}', '{"service":"api.example"}',
        '{"net":"203.0.113.0/24","service":"api.example","user_agent":"x"}', '{"net":"203.0.0.0/8","service":"api.example"}',
        '{"net":"nonsense","service":"api.example"}', "nonsense",
    ],
)  # fmt: skip
def test_a_signature_with_what_no_packet_shows_is_unsupported(value: str) -> None:
    table = NftTable("floodwall", CORE, Throttle(), service="api.example")
    reader = ready_reader(supports=table.supports)
    reader.take(*on_topic(said(value, kind="signature", action="throttle")))
    assert [refusal.reason for refusal in reader.refusals(now_ms())] == ["unsupported"]
    fine = said('{"net":"203.0.113.0/24","service":"api.example"}', kind="signature", action="throttle")
    reader.take(*on_topic(fine))
    nowhere = ready_reader(supports=supports)
    nowhere.take(*on_topic(fine))
    assert [refusal.reason for refusal in reader.refusals(now_ms())] == []
    assert [refusal.reason for refusal in nowhere.refusals(now_ms())] == ["unsupported"]


def test_a_weaker_record_takes_over_when_the_stronger_one_ends(pair: Pair, table: NftTable) -> None:
    reader = nft_reader()
    apply(table, reader, said("203.0.113.7", seconds=100), said("203.0.113.7", action="throttle", detector="b", seconds=200))
    assert table.elements() == {("block_ip4_32", "203.0.113.7")}
    later = now_ms() + 150_000
    table.change(reader.changes(later), later)
    assert table.elements() == {("throttle_ip4_32", "203.0.113.7")}


def test_replacing_leaves_exactly_what_should_stand(pair: Pair, table: NftTable) -> None:
    before = nft_reader()
    apply(table, before, said("203.0.113.7"), said("203.0.113.8", action="throttle"), said("2001:db8:2::/48"))
    after = ready_reader(said("203.0.113.8"), said("2001:db8:1:2::/64"), said("198.51.100.1", seconds=-5), supports=supports)
    after.changes(now_ms())
    again = table_in(pair)
    assert len(again.open()) == 3
    again.replace(after.table, now_ms())
    assert again.elements() == {element_of(subject, one.action) for subject, one in after.table.items()}
    assert again.elements() == {("block_ip4_32", "203.0.113.8"), ("block_ip6_64", "2001:db8:1:2::")}


def test_a_table_that_is_gone_is_noticed(pair: Pair, table: NftTable) -> None:
    assert table.is_intact()
    subprocess.run(("ip", "netns", "exec", pair.server, "nft", "flush", "ruleset"), check=True)
    assert not table.is_intact()
    with pytest.raises(EdgeError, match="No such file"):
        apply(table, nft_reader(), said("203.0.113.7"))
    table.remove()  # removing what is not there is no error
    assert list_rules(pair) == ""


def test_a_table_of_somebody_else_is_left_alone(pair: Pair) -> None:
    subprocess.run(("ip", "netns", "exec", pair.server, "nft", "add", "table", "inet", "filter"), check=True)
    with pytest.raises(EdgeError, match="somebody else"):
        table_in(pair, "filter").open()
    assert "table inet filter" in list_rules(pair)


def test_a_namespace_that_is_not_there_is_named(pair: Pair) -> None:
    with pytest.raises(EdgeError, match="network namespace fw-nowhere, found none"):
        NftTable("floodwall", CORE, Throttle(), netns="fw-nowhere").open()


def test_a_dry_run_shows_what_nft_would_be_told_and_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    shown: list[str] = []
    table = NftTable("floodwall", CORE, Throttle(), show=shown.append)
    assert table.open() == set()
    apply(table, nft_reader(), said("203.0.113.7"))
    assert "add element inet floodwall block_ip4_32 { 203.0.113.7 timeout " in shown[0]


def test_without_nft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgeError, match="expected the program nft, found none on the path: install nftables"):
        NftTable("floodwall", CORE, Throttle()).open()
    with pytest.raises(EdgeError, match="expected the program ip, found none on the path: install iproute2"):
        NftTable("floodwall", CORE, Throttle(), netns="x").open()


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        ("Operation not permitted (you must be root)", "run as root, or grant CAP_NET_ADMIN"),
        ("netlink: Error: cache initialization failed: Operation not permitted", "run as root, or grant CAP_NET_ADMIN"),
        ("/dev/stdin:1:1-9: Error: Could not process rule: Protocol not supported", "Protocol not supported"),
        ("", "no message"),
    ],
)
def test_a_refusal_of_nft_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, complaint: str, expected: str) -> None:
    program = tmp_path / "nft"
    program.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(EdgeError) as caught:
        NftTable("floodwall", CORE, Throttle()).open()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "x;flush ruleset", "-f", "ä", "a" * 33])
def test_a_table_name_that_needs_quotes_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="table name"):
        NftTable(name, CORE, Throttle())


def test_behind_a_proxy_it_starts_only_when_told() -> None:
    refuse_behind_proxy(0, told=False)
    refuse_behind_proxy(2, told=True)
    with pytest.raises(EdgeError, match=r"proxy_depth = 2.*--behind-proxy"):
        refuse_behind_proxy(2, told=False)
