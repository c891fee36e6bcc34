"""Pseudonyms: the same for one key, prefixes kept, and nothing of whom it is about in what is passed on."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from floodwall.cli import app
from schemas.errors import UsageError
from schemas.mitigation import Target
from schemas.pseudonyms import Pseudonyms, read_pseudonyms
from tests.mitigations import record

KEY, OTHER = Pseudonyms(b"k" * 32), Pseudonyms(b"o" * 32)
START = 1_795_000_020


def common(one: int, other: int, width: int) -> int:
    """How many first bits two numbers share."""
    return width - (one ^ other).bit_length()


def number(pseudonym: str) -> int:
    assert pseudonym.startswith("p-")
    return int(ipaddress.ip_address(pseudonym.removeprefix("p-")))


@given(st.ip_addresses(), st.integers(0, 127), st.integers(0, 2**128 - 1))
def test_two_addresses_share_as_many_first_bits_as_their_pseudonyms(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address, at: int, noise: int
) -> None:
    width = one.max_prefixlen
    kept = at % width
    other = type(one)(int(one) >> (width - kept) << (width - kept) | noise % (1 << (width - kept)))
    made, its = number(KEY.address(str(one))), number(KEY.address(str(other)))
    assert common(made, its, width) == common(int(one), int(other), width)
    prefix = ipaddress.ip_network(f"{one}/{kept}", strict=False)
    network = ipaddress.ip_network(KEY.address(str(prefix)).removeprefix("p-"))
    assert ipaddress.ip_address(made) in network
    assert network.prefixlen == kept


def test_no_two_are_one_and_another_key_gives_others() -> None:
    addresses = [str(one) for one in ipaddress.ip_network("198.51.100.0/22", strict=False)]
    made = {KEY.address(one) for one in addresses}
    assert len(made) == len(addresses)
    assert len(made & {OTHER.address(one) for one in addresses}) < 3
    assert KEY.address(addresses[0]) == Pseudonyms(b"k" * 32).address(addresses[0])
    assert KEY.name("account", "a") != KEY.name("api_key", "a")


@pytest.mark.parametrize(
    ("text", "gone", "stays"),
    [
        ("301 requests from address 203.0.113.7, where 300 are allowed", ["203.0.113.7"], ["301 requests", ", where 300"]),
        ("from 198.51.100.0/24.", ["198.51.100.0"], ["/24."]),
        ("client_ip=203.0.113.9 ip:203.0.113.8 http://203.0.113.6/x 203.0.113.5:443", ["203.0.113"], ["client_ip=", "ip:"]),
        ("[2001:db8::7] 2001:db8:1:2::/64 ::ffff:203.0.113.7", ["2001:db8", "203.0.113"], ["/64"]),
        ("Chrome/120.0.0.0 at 00:01:07, 2.5 times, 10.4%", ["never"], ["Chrome/120.0.0.0 at 00:01:07, 2.5 times, 10.4%"]),
        ("9 with mail domain evil.example, where 1.0 are usual", ["evil.example"], ["9 with mail domain p-", "1.0"]),
        ("7 requests from account 7", ["account 7"], ["requests from account p-"]),
    ],
)
def test_sentences_keep_their_numbers_and_lose_whom_they_name(text: str, gone: list[str], stays: list[str]) -> None:
    made = KEY.text(text, Target(type="account", value="7")) if "account" in text else KEY.text(text)
    assert not [one for one in gone if one in made], made
    assert not [one for one in stays if one not in made], made
    assert KEY.text(made) == made, "what is a pseudonym already stays one"


def test_a_record_keeps_what_it_says_and_loses_of_whom_and_who_signed() -> None:
    value = '{"net":"203.0.113.0/24","email_domain":"evil.example","country":"DE"}'
    told = record(
        value, kind="signature", id="abc", reason=f"9 requests of {value}", signature="s", key_id="k", sequence=3, finding="f"
    )
    made = KEY.mitigation(told)
    assert (made.observed, made.limit, made.tick, made.action) == (told.observed, told.limit, told.tick, told.action)
    assert (made.signature, made.key_id, made.sequence) == ("", "", 0)
    assert orjson.loads(made.target.value)["country"] == "DE"
    assert made.id == KEY.identifier("abc")
    assert not re.search("203.0|evil", repr(made))
    lifted = KEY.mitigation(record("203.0.113.7", state="lifted", reason="lifted: a false positive, says ana: Max Muster"))
    assert not re.search("ana|Muster", repr(lifted)), "what a person wrote may name anybody"


def test_a_key_that_is_no_secret_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a file with a secret at .*urandom"):
        read_pseudonyms(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"secret")
    with pytest.raises(UsageError, match=r"expected 32 to 4096 bytes of a secret in .*, got 6"):
        read_pseudonyms(tmp_path / "short")


WHOM = ("203.0.113.77", "2001:db8:aa:bb:", "sha256:feedbeef", "ana-4711", "ana-and-max.example", "Muster")
CONFIG = """
[engine]
seed = "pseudonyms"
[policy]
allow = [{ dimension = "ip", value = "192.0.2.1", owner = "Muster", reason = "ours" }]
[detectors.rate]
rules = [
  { dimension = "ip", window_s = 10, limit = 20 }, { dimension = "net", window_s = 10, limit = 20, action = "notify" },
  { dimension = "api_key", window_s = 10, limit = 20 }, { dimension = "account", window_s = 10, limit = 20 },
  { dimension = "email_domain", measure = "registrations", window_s = 10, limit = 5 },
]
"""


def lines() -> bytes:
    """Four who are over a limit, each in another way, and something that cannot be read."""
    four, six, key, account, domain, name = WHOM
    rows: list[dict[str, Any]] = []
    for at in range(40):
        base = {"time": 1000 * (START + at // 4), "status": 200, "path": f"/v1/chat?who={name}", "user_name": name}
        rows += [
            {**base, "client_ip": four}, {**base, "client_ip": f"{six}:{at + 1:x}"},
            {**base, "client_ip": f"198.51.{at}.1", "api_key_hash": key},
            {**base, "client_ip": f"198.51.{at}.2", "account": account},
            {**base, "client_ip": f"198.51.{at}.3", "path": "/register", "registration": True, "email": f"{name}{at}@{domain}"},
        ]  # fmt: skip
    return b"".join(orjson.dumps(row) + b"\n" for row in rows) + f"{four} {name} no log line\n".encode()


def test_nobody_is_named_in_what_is_passed_on(tmp_path: Path) -> None:
    log, config, key, out, found = (tmp_path / name for name in ("requests.ndjson", "f.toml", "key", "m.ndjson", "f.ndjson"))
    log.write_bytes(lines())
    config.write_text(CONFIG)
    key.write_bytes(b"k" * 32)
    files = ["--out", str(out), "--findings", str(found), "--config", str(config), "--profile", "api"]
    plain = CliRunner().invoke(app, ["replay", str(log), *files])
    assert plain.exit_code == 0, plain.output
    records = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert {one["target"]["type"] for one in records} >= {"ip", "net", "api_key", "account", "email_domain"}
    for whom in WHOM[:5]:
        assert whom.encode() in out.read_bytes()
    told = ["--mitigations", str(out), "--findings", str(found), "--config", str(config), "--log", str(log)]
    told += ["--profile", "api", "--pseudonymise", str(key)]
    texts = [
        CliRunner().invoke(app, ["explain", one["id"], *told, *more]).output for one in records for more in ([], ["--json"])
    ]
    assert all("in the window" in text for text in texts[::2]), texts[0]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(app, ["replay", str(log), *files, *more, "--pseudonymise", str(key)])
        assert done.exit_code == 0, done.output
        texts.append(done.output)
    passed = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    texts += [out.read_text(), found.read_text()]
    for text in texts:
        assert not [whom for whom in (*WHOM, "198.51.") if whom in text], text
        assert not [one for one in records if one["id"] in text], text
    counts = [(one["detector"], one["tick"], one["observed"], one["action"]) for one in records]
    assert counts == [(one["detector"], one["tick"], one["observed"], one["action"]) for one in passed]
