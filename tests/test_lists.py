"""Lists of addresses against plain Python, how files of them are refused, and what is decided about who is on one."""

from __future__ import annotations

import gzip
import ipaddress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detectors.kernels.listed import holds_address_kernel
from detectors.lists import Addresses, lay_out_lists, read_addresses, read_words
from engine.embedded import Embedded
from schemas.compiled import entry
from schemas.config import Config
from schemas.errors import ConfigError
from tests.engines import Decided, conclude, config_of, decide, feed, only
from tests.oracles import lists as oracle

START_S = 1_795_000_020
BOUND_MS = 1000 * (START_S + 10_000)


@entry
def is_on_kernel(start: Any, low: Any, high: Any, which: Any, a: Any, b: Any) -> Any:
    return holds_address_kernel(start, low, high, which, a, b)


def is_on(lists: tuple[Addresses, ...], which: int, address: str) -> bool:
    asked = ipaddress.ip_address(address)
    value = int(asked) | 0xFFFF << 32 if asked.version == 4 else int(asked) >> 64 << 64  # as keys of `ip` are
    ranges = lay_out_lists(lists)
    a, b = np.uint64(value >> 64), np.uint64(value & 0xFFFFFFFFFFFFFFFF)
    return bool(is_on_kernel(ranges.start, ranges.low, ranges.high, which, a, b))


def written(folder: Path, name: str, lines: list[str]) -> str:
    path = folder / name
    path.write_text("\n".join(lines))
    return str(path)


# Few values, so that prefixes overlap, touch and nest, and addresses lie at their ends.
IPV4 = st.builds(
    lambda top, low: ipaddress.IPv4Address(top << 24 | low), st.sampled_from([0, 10, 203, 255]), st.integers(0, 40)
)
IPV6 = st.builds(
    lambda top, low, rest: ipaddress.IPv6Address(top << 112 | low << 64 | rest),
    st.sampled_from([0, 0x2001, 0xFFFF]), st.integers(0, 40), st.sampled_from([0, 1, 2**64 - 1]),
).filter(lambda address: int(address) >> 32 != 0xFFFF)  # fmt: skip
ADDRESS = st.one_of(IPV4, IPV6).map(str)


def prefix_of(address: str, bits: int) -> str:
    return str(ipaddress.ip_network(f"{address}/{min(bits, ipaddress.ip_address(address).max_prefixlen)}", strict=False))


LINE = st.one_of(
    ADDRESS, st.builds(prefix_of, ADDRESS, st.sampled_from([0, 8, 26, 27, 28, 30, 31, 32, 48, 60, 62, 63, 64, 65, 127, 128])),
    st.builds(lambda address, end: f"  {address} {end}\r", ADDRESS, st.sampled_from(["# what", "; SBL1", ""])),
    st.sampled_from(["", "# nothing", " ; nothing"]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(lists=st.lists(st.lists(LINE, max_size=12), min_size=1, max_size=3), asked=st.lists(ADDRESS, min_size=1, max_size=12))
@example(lists=[["0.0.0.0/0", "::/0"], ["255.255.255.255", "0.0.0.0"]], asked=["0.0.0.0", "255.255.255.255", "::", "ffff::"])
def test_who_is_on_a_list_is_who_plain_python_says(
    tmp_path_factory: pytest.TempPathFactory, lists: list[list[str]], asked: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    read = tuple(read_addresses(written(folder, f"{number}", lines)) for number, lines in enumerate(lists))
    for which, lines in enumerate(lists):
        for address in asked:
            assert is_on(read, which, address) == oracle.holds(lines, address), (lines, address)


@settings(max_examples=300, deadline=None)
@given(line=st.one_of(st.text("0123456789abcdef.:/%# ", max_size=24), LINE))
def test_a_line_is_refused_exactly_when_it_is_no_address_and_no_prefix(
    tmp_path_factory: pytest.TempPathFactory, line: str
) -> None:
    path = written(tmp_path_factory.mktemp("lists"), "one", ["192.0.2.1", line])
    unlike = ("/" in line and line.partition("/")[2].strip().count(".") == 3) or "%" in line  # netmasks and zones
    if oracle.is_refused(line):
        with pytest.raises(ConfigError, match="line 2 of"):
            read_addresses(path)
    elif not unlike:
        read_addresses(path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("192.0.2.256", "'192.0.2.256'"),
        ("192.0.2.1/24", "bits set behind its prefix"),
        ("192.0.2.0/33", "not a length from 0 to 32"),
        ("2001:db8::/129", "not a length from 0 to 128"),
        ("fe80::1%eth0", "zone"),
        ("AS64500", "'AS64500'"),
    ],
)
def test_what_is_refused_is_named_with_file_line_and_what_came(tmp_path: Path, line: str, why: str) -> None:
    path = written(tmp_path, "bad.txt", ["# a list", "192.0.2.0/24", line])
    with pytest.raises(ConfigError) as raised:
        read_addresses(path)
    text = str(raised.value)
    assert text.startswith(f"expected an address or a prefix in line 3 of {path}, got ")
    assert why in text
    assert "\n" not in text


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "half.gz").write_bytes(gzip.compress(b"192.0.2.1\n" * 1000)[:20])
    for name in ("missing.txt", "half.gz", "."):
        with pytest.raises(ConfigError, match="expected a readable list at"):
            read_addresses(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"expected a word of 3 to 64 bytes in line 2 of .*, got 'ab'"):
        read_words(written(tmp_path, "words", ["nikto", "ab"]))


def test_a_list_may_be_gzipped_and_the_digest_is_of_what_it_holds(tmp_path: Path) -> None:
    plain = read_addresses(written(tmp_path, "plain", ["192.0.2.0/25", "192.0.2.128/25", "# more", "2001:db8::1"]))
    (tmp_path / "packed").write_bytes(gzip.compress(b"2001:db8::2\r\n192.0.2.7\n192.0.2.0/24"))
    packed = read_addresses(str(tmp_path / "packed"))
    assert (len(plain), plain.digest) == (2, packed.digest)
    assert read_addresses(written(tmp_path, "other", ["192.0.2.0/24"])).digest != plain.digest


def test_a_list_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    first = read_addresses(written(tmp_path, "list", ["192.0.2.0/24"]))
    assert read_addresses(str(tmp_path / "list")) is first
    assert read_addresses(written(tmp_path, "list", ["192.0.2.0/24", "198.51.100.0/24"])).digest != first.digest


def lines_of(clients: dict[str, int], **more: Any) -> list[bytes]:
    """So many requests of each client, one each 100 ms."""
    return [
        orjson.dumps({"time": 1000 * START_S + 100 * n, "client_ip": client, "path": "/x", "status": 200, **more}) + b"\n"
        for n in range(max(clients.values()))
        for client, count in clients.items()
        if n < count
    ]


def listing(lists: list[dict[str, Any]], **more: Any) -> Config:
    return config_of({"detectors": only("known", lists=lists), "policy": {"allowlist_core": []}, **more})


def told(decided: Decided) -> set[tuple[str, str, str]]:
    return {(f.target.value, f.measure, f.action) for f in decided.findings if f.stage == "final"}


def test_each_list_means_what_it_says_about_those_on_it(tmp_path: Path) -> None:
    lists = [
        {"name": "attackers", "path": written(tmp_path, "a", ["192.0.2.0/24"]), "limit": 5, "action": "throttle"},
        {"name": "tor", "path": written(tmp_path, "t", ["192.0.2.7", "198.51.100.0/24"]), "limit": 20, "action": "challenge"},
        {"name": "hosting", "path": written(tmp_path, "h", ["198.51.100.0/24"]), "limit": 60, "action": "notify"},
    ]
    clients = {"192.0.2.7": 30, "192.0.2.8": 30, "198.51.100.9": 30, "203.0.113.9": 300}
    decided = decide(b"".join(lines_of(clients)), BOUND_MS, listing(lists))
    assert told(decided) == {
        ("192.0.2.7", "listed_attackers", "throttle"), ("192.0.2.8", "listed_attackers", "throttle"),
        ("192.0.2.7", "listed_tor", "challenge"), ("198.51.100.9", "listed_tor", "challenge"),
    }  # fmt: skip
    actions = {(m.target.value, m.action) for m in decided.mitigations}
    assert actions == {("192.0.2.7", "throttle"), ("192.0.2.8", "throttle"), ("198.51.100.9", "challenge")}


def test_in_the_api_profile_success_with_a_key_is_nothing_against_who_is_on_a_list(tmp_path: Path) -> None:
    lists = [{"name": "tor", "path": written(tmp_path, "t", ["192.0.2.7"]), "limit": 5}]
    data = b"".join(lines_of({"192.0.2.7": 50}, api_key_hash="k1"))
    assert told(decide(data, BOUND_MS, listing(lists, profile="web")))
    assert not told(decide(data, BOUND_MS, listing(lists, profile="api")))


def test_a_finding_says_which_list_it_was_and_a_replay_under_another_shows_another(tmp_path: Path) -> None:
    data = b"".join(lines_of({"192.0.2.7": 50}))
    seen = []
    for lines in (["192.0.2.7"], ["192.0.2.7", "192.0.2.9"]):
        lists = [{"name": "tor", "path": written(tmp_path, str(len(lines)), lines), "limit": 5}]
        decided = decide(data, BOUND_MS, listing(lists))
        seen.append([record.evidence.features for record in (decided.findings[0], decided.mitigations[0])])
        assert all(features["list"] == "tor" for features in seen[-1])
    assert seen[0][0]["list_digest"] == seen[0][1]["list_digest"] != seen[1][0]["list_digest"]


def test_early_records_are_about_those_on_the_list_only(tmp_path: Path) -> None:
    lists = [{"name": "tor", "path": written(tmp_path, "t", ["192.0.2.7"]), "limit": 5}]
    data = b"".join(lines_of({"192.0.2.7": 50, "203.0.113.9": 50}))
    decided = decide(data, BOUND_MS, listing(lists), early=True, piece=10)
    assert {(m.target.value, m.stage) for m in decided.mitigations} == {("192.0.2.7", "early"), ("192.0.2.7", "final")}


def test_a_saved_state_goes_on_under_a_refreshed_list(tmp_path: Path) -> None:
    lines = lines_of({"192.0.2.7": 1500, "198.51.100.7": 1500})
    half = len(lines) // 2

    def of(listed: str) -> Config:
        return listing([{"name": "tor", "path": written(tmp_path, listed, [listed]), "limit": 5}])

    first = Embedded(of("192.0.2.7"))
    first.open("log", BOUND_MS)
    base = feed(first, "log", b"".join(lines[:half]), 0)
    before = {f.target.value for f in first.take().findings}
    second = Embedded.restore(of("198.51.100.7"), first.snapshot())
    first.stop()
    second.open("log", BOUND_MS, base)
    feed(second, "log", b"".join(lines[half:]), base)
    second.close("log")
    assert (before, {f.target.value for f in conclude(second).findings}) == ({"192.0.2.7"}, {"198.51.100.7"})


def test_words_of_a_file_are_listed_agents_too(tmp_path: Path) -> None:
    files = [written(tmp_path, "agents", ["# ours", "EvilCrawl", "grabber ; of pictures"])]
    config = config_of({"detectors": only("known", agents_files=files), "policy": {"allowlist_core": []}})
    agents = ("Mozilla/5.0 evilcrawl/2", "GRABBER", "sqlmap", "of pictures")
    data = b"".join(
        b"".join(lines_of({f"192.0.2.{number}": 9}, user_agent=agent)) for number, agent in enumerate(agents)
    )  # fmt: skip
    assert {f.target.value for f in decide(data, BOUND_MS, config).findings} == {"192.0.2.0", "192.0.2.1", "192.0.2.2"}


def test_two_lists_of_one_name_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "t", ["192.0.2.7"])
    with pytest.raises(
        ConfigError, match=r"expected lists of different names, got 'tor' again at `\$.detectors.known.lists\[1\]"
    ):
        Embedded(listing([{"name": "tor", "path": path}, {"name": "tor", "path": path}]))
