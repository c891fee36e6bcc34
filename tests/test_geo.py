"""Countries and autonomous systems from files in MaxMind's format: what is filled in, what is not, and what is decided."""

from __future__ import annotations

import ipaddress
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from drills.scoring.exposure import ExposureReader
from engine import geo as module
from engine.embedded import Embedded
from engine.geo import Geo, country_of, system_of
from engine.seeds import make_seeds
from engine.source_post import Bench, Messages, SourcePost
from schemas.config import Config, parse_config
from schemas.decode import Decoder
from schemas.errors import ConfigError
from schemas.fields import MISSING, Number, Text
from schemas.mitigation import Evidence, Window
from schemas.tally import NO_DIGEST, decode_tally, encode_tally
from tests.engines import as_chunk, config_of, decide, only
from tests.mitigations import record
from tests.mmdb import MARKER, build, written
from tests.test_command_line import run
from tests.test_explain import explained

START_S = 1_795_000_020
BOUND_MS = 1000 * (START_S + 10_000)
COUNTRIES = {
    "203.0.113.0/25": {"country": {"iso_code": "NL", "names": {"en": "Netherlands"}}, "registered_country": {"iso_code": "US"}},
    "203.0.113.128/25": {"registered_country": {"iso_code": "JP"}},
    "198.51.100.0/24": {"country_code": "br", "asn": "AS64510"},
    "2001:db8::/32": {"country": {"iso_code": "SE"}},
}
SYSTEMS = {
    "203.0.113.0/24": {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"},
    "198.51.100.0/24": {"autonomous_system_number": 64511},
    "2001:db8::/32": {"autonomous_system_number": 4_294_967_295},
}


def files(folder: Path) -> list[str]:
    return [written(folder, "country.mmdb", COUNTRIES), written(folder, "asn.mmdb", SYSTEMS)]


def event(address: str | None, **more: Any) -> bytes:
    said = {} if address is None else {"client_ip": address}
    return orjson.dumps({"time": START_S, "path": "/", "account": "a", **said, **more}) + b"\n"


def filled(paths: Sequence[str], lines: list[bytes], geo: Geo | None = None) -> list[tuple[str, int]]:
    """(country, system) of each event; no country is "", no system `MISSING`."""
    decoder = Decoder(parse_config({"input": {"geo": list(paths)}}).input, key_seed=(1, 2), ahead_ms=0)
    data = b"".join(lines)
    assert decoder.decode_lines(as_chunk(data), len(data), 0, bound_ms=BOUND_MS, events_max=20_000) == len(data)
    (geo or Geo(paths)).fill(decoder.columns)
    columns = decoder.columns
    return [
        (columns.text(Text.COUNTRY, row).decode(), int(columns.numbers[Number.ASN, row])) for row in range(columns.n)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", ("NL", 64500)),
        ("203.0.113.200", ("JP", 64500)),
        ("198.51.100.1", ("BR", 64510)),
        ("::ffff:203.0.113.7", ("NL", 64500)),
        ("[2001:db8:1:2::3]:443", ("SE", 4_294_967_295)),
        ("10.0.0.1", ("", MISSING)),
        ("fe80::1", ("", MISSING)),
        ("::1", ("", MISSING)),
        # Its upper half is the number of an IPv4 address, which is not what it is.
        ("0:0:cb00:7107::", ("", MISSING)),
        ("0:ffff:cb00:7107::", ("", MISSING)),
        (None, ("", MISSING)),
    ],
)
def test_an_event_that_says_neither_gets_both(tmp_path: Path, address: str | None, expected: tuple[str, int]) -> None:
    assert filled(files(tmp_path), [event(address)]) == [expected]


def test_the_events_own_word_wins(tmp_path: Path) -> None:
    lines = [
        event("203.0.113.7", country="de", asn=1), event("203.0.113.7", country="de"), event("203.0.113.7", asn=1),
        event("203.0.113.7"),
    ]  # fmt: skip
    assert filled(files(tmp_path), lines) == [("DE", 1), ("DE", 64500), ("NL", 1), ("NL", 64500)]


def test_the_first_file_that_knows_says_it(tmp_path: Path) -> None:
    other = written(tmp_path, "other.mmdb", {"203.0.113.0/24": {"country": "FR"}, "192.0.2.0/24": {"country": "IT"}})
    lines = [event("203.0.113.7"), event("192.0.2.1")]
    assert filled([*files(tmp_path), other], lines) == [("NL", 64500), ("IT", MISSING)]
    assert filled([other, *files(tmp_path)], lines) == [("FR", 64500), ("IT", MISSING)]


def test_a_file_of_ipv4_is_not_asked_about_ipv6(tmp_path: Path) -> None:
    path = written(tmp_path, "four.mmdb", {"203.0.113.0/24": {"country_code": "NL"}}, ip_version=4)
    assert filled([path], [event("203.0.113.7"), event("2001:db8::1")]) == [("NL", MISSING), ("", MISSING)]


@pytest.mark.parametrize(
    ("record", "country", "system"),
    [
        ({"country": {}, "registered_country": {"iso_code": "NL"}}, "NL", 0),
        ({"country": "NL", "asn": 64500}, "NL", 64500),
        ({"country_code": "ZZ", "asn": "as64500"}, "", 64500),
        ({"country_code": "zz", "country": "zy"}, "ZY", 0),
        ({"country_code": "A1", "asn": ""}, "", 0),
        ({"country": ["NL"], "asn": True}, "", 0),
        ({"country_code": "Ñ!", "asn": "AS4294967296"}, "", 0),
        ({"traits": {"autonomous_system_number": 64500}}, "", 64500),
        ({"traits": "none", "asn": "AS-1", "country": {"iso_code": 7}}, "", 0),
    ],
)
def test_the_layouts_that_are_understood(record: dict[str, Any], country: str, system: int) -> None:
    at = country_of(record)
    assert (module.COUNTRY_CODES[at - 1 : at + 1].decode() if at else "", system_of(record)) == (country, system)


def test_what_was_filled_in_is_gone_from_the_next_batch(tmp_path: Path) -> None:
    paths = files(tmp_path)
    decoder, geo = Decoder(parse_config({"input": {"geo": paths}}).input, key_seed=(1, 2), ahead_ms=0), Geo(paths)
    columns = decoder.columns
    for address, expected in (("203.0.113.7", (b"NL", 64500)), ("10.0.0.1", (b"", MISSING))):
        data = event(address)
        decoder.decode_lines(as_chunk(data), len(data), 0, bound_ms=BOUND_MS, events_max=10)
        geo.fill(columns)
        assert (columns.text(Text.COUNTRY, 0), columns.numbers[Number.ASN, 0]) == expected


def test_text_that_was_rewritten_is_not_written_over(tmp_path: Path) -> None:
    paths = files(tmp_path)
    decoder = Decoder(parse_config({"input": {"geo": paths}}).input, key_seed=(1, 2), ahead_ms=0)
    line = event("203.0.113.7", user_agent="é\n" * 1000).replace("é".encode(), b"\\u00e9")
    # As little room as can be: the decoder has to copy, or to leave room for the countries.
    for room in (0, 4096, len(line) + 4096, len(line) + 4096 + 64, 2 * len(line) + 8192):
        chunk = np.zeros(len(line) + room, np.uint8)
        chunk[: len(line)] = np.frombuffer(line, np.uint8)
        decoder.decode_lines(chunk, len(line), 0, bound_ms=BOUND_MS, events_max=10)
        Geo(paths).fill(decoder.columns)
        assert decoder.columns.text(Text.USER_AGENT, 0).decode() == "é\n" * 1000
        assert decoder.columns.text(Text.COUNTRY, 0) == b"NL"


def test_a_memo_that_is_full_changes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMO_ADDRESSES", 7)
    chance, paths = random.Random(1), files(tmp_path)
    chosen = [f"203.0.113.{chance.randrange(256)}" for _ in range(500)]
    geo = Geo(paths)
    expected = [("NL" if int(address.rpartition(".")[2]) < 128 else "JP", 64500) for address in chosen]
    assert filled(paths, [event(address) for address in chosen], geo) == expected
    assert len(geo._memo) <= 7


def damaged(folder: Path) -> dict[str, Path]:
    whole = build(COUNTRIES)
    contents = {
        "empty": b"", "text": b"203.0.113.0/24,NL\n", "no-metadata": whole[: whole.index(MARKER)],
        "half": whole[whole.index(MARKER) - 40 :], "cut": whole[:-60], "only-marker": MARKER,
        "metadata-is-text": MARKER + b"\x42no",
    }  # fmt: skip
    found = {}
    for name, content in contents.items():
        found[name] = folder / f"{name}.mmdb"
        found[name].write_bytes(content)
    return {**found, "missing": folder / "missing.mmdb", "folder": folder}


def test_a_missing_or_broken_file_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in damaged(tmp_path).values():
        with pytest.raises(ConfigError, match=r"expected a (readable )?file in MaxMind's format") as caught:
            Embedded(config_of({"input": {"geo": [str(path)]}}))
        told = str(caught.value)
        assert str(path) in told
        assert "got" in told
        assert "\n" not in told
        assert "/proc" not in told


def test_a_file_that_is_damaged_inside_is_told_with_the_address(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mmdb"
    path.write_bytes(build(COUNTRIES).replace(b"iso_code", b"\xff\xff\xff\xff\xff\xff\xff\xff"))
    with pytest.raises(ConfigError, match=r"about 203\.0\.113\.7 in .*damaged\.mmdb"):
        filled([str(path)], [event("203.0.113.7")])


def test_a_file_that_is_written_over_is_read_as_it_was(tmp_path: Path) -> None:
    paths = files(tmp_path)
    geo = Geo(paths)
    for path in paths:
        Path(path).write_bytes(b"")
    assert filled(paths, [event("203.0.113.7")], geo) == [("NL", 64500)]


def test_the_command_line_checks_the_files(tmp_path: Path) -> None:
    settings = tmp_path / "floodwall.toml"
    settings.write_text(f"[input]\ngeo = {files(tmp_path)!r}\n")
    done = run("config", "check", str(settings))
    assert (done.returncode, done.stderr) == (0, b"")
    settings.write_text('[input]\ngeo = ["/nowhere/country.mmdb"]\n')
    for words in (("config", "check", str(settings)), ("replay", "--config", str(settings), str(settings))):
        done = run(*words)
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1
        assert (
            b"expected a readable file in MaxMind's format (.mmdb) at /nowhere/country.mmdb, got: No such file" in done.stderr
        )


def limited(dimension: str, paths: Sequence[str] = ()) -> Config:
    rule = {"dimension": dimension, "measure": "requests", "window_s": 10, "limit": 200, "action": "throttle"}
    return config_of({"input": {"geo": list(paths)}, "detectors": only("rate", rules=[rule])})


def crowd(known: bool) -> bytes:
    """A flood from one country and one system among visitors from elsewhere; ``known``: events say what the files would."""
    chance, lines = random.Random(3), []
    for second in range(60):
        for place in range(40):
            base, country, asn = ("203.0.113.0", "NL", 64500) if place < 30 else ("198.51.100.0", "BR", 64510)
            address = str(ipaddress.ip_address(base) + chance.randrange(1, 120))
            said = {"country": country, "asn": asn} if known else {}
            lines.append(event(address, time=START_S + second, **said))
    return b"".join(lines)


@pytest.mark.parametrize(("dimension", "target"), [("country", "NL"), ("asn", "64500")])
def test_decisions_are_those_about_events_that_say_it_themselves(tmp_path: Path, dimension: str, target: str) -> None:
    config = limited(dimension, files(tmp_path))
    told = decide(crowd(True), BOUND_MS, limited(dimension))
    assert {finding.target.value for finding in told.findings} == {target}
    assert not decide(crowd(False), BOUND_MS, limited(dimension)).findings
    for piece in (None, 100):
        looked_up = decide(crowd(False), BOUND_MS, config, piece=piece)
        assert looked_up.final_ids == told.final_ids
        assert looked_up.final_finding_ids == told.final_finding_ids


def test_a_worker_sees_what_a_replay_sees(tmp_path: Path) -> None:
    def parts(config: Config, data: bytes) -> list[list[bytes]]:
        """Without digests of the records, which differ in who names the country."""
        bench = Bench(config, make_seeds(config))
        lines = data.splitlines()
        messages = Messages()
        messages.add(lines, list(range(len(lines))), [0] * len(lines), len(data))
        shipped = SourcePost("requests-0", 0, "", bench).ship(messages, BOUND_MS, 0).parts
        tallies = [[decode_tally(one) for one in part] for part in shipped]
        return [[encode_tally(replace(tally, digest=NO_DIGEST), 0) for tally in part] for part in tallies]

    assert parts(limited("country", files(tmp_path)), crowd(False)) == parts(limited("country"), crowd(True))
    assert parts(limited("country"), crowd(False)) != parts(limited("country"), crowd(True))


def test_events_are_found_again_and_scored_by_the_country_of_their_address(tmp_path: Path) -> None:
    config, log, data = config_of({"input": {"geo": files(tmp_path)}}), tmp_path / "log", crowd(False)
    log.write_bytes(data)
    asked = record(
        "BR", kind="country", stage="final", tick=START_S + 49, window=Window(start=START_S + 40, end=START_S + 50),
        issued_at=START_S + 50, expires_at=START_S + 350, evidence=Evidence(offsets={str(log): (len(data) // 2, len(data))}),
    )  # fmt: skip
    told = explained(config, tmp_path, [asked])
    assert told.traffic is not None
    assert [count or 0 for count in told.traffic.per_second[-10:]] == [10] * 10

    reader = ExposureReader(config)
    lines = data.splitlines(keepends=True)
    reader.take(lines, np.zeros(len(lines), np.int64))
    exposure = reader.finish()
    counted = np.bincount(exposure.columns["country"].codes)
    assert {name: int(counted[code]) for name, code in exposure.names["country"].items() if name} == {"NL": 1800, "BR": 600}
    assert set(exposure.names["asn"]) == {"64500", "64510"}


def test_nobody_who_names_no_file_needs_the_package() -> None:
    script = (
        "import sys; from engine.embedded import Embedded; from schemas.config import parse_config;"
        "Embedded(parse_config({'engine': {'seed': 'a'}})); sys.exit('maxminddb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode == 0
