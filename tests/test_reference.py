"""docs/ say what the structs say, and what docs/ say of our own events is what the decoders read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from detectors.registry import registered
from floodwall.reference import config_schema, documents, field_texts, write
from schemas.config import Config, Section, parse_config
from schemas.decode import Decoder
from schemas.events import KINDS, AccessLogRecord, Event, Registration, Request, Verification
from schemas.fields import Flag, Number, Text

DOCS = Path(__file__).resolve().parent.parent / "docs"
TIME_MS = 1_795_458_595_250
SECRET = "sk-live-0123456789abcdef"


@pytest.mark.parametrize("name", documents())
def test_what_is_generated_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == documents()[name], "run `make schemas`"


def test_what_is_generated_is_written_once(tmp_path: Path) -> None:
    assert sorted(write(tmp_path)) == sorted(documents())
    assert write(tmp_path) == []


def sections(struct: Any = Config) -> list[Any]:
    found = [struct]
    for inner in (msgspec.inspect.type_info(field.type) for field in msgspec.structs.fields(struct)):
        for part in [inner, *getattr(inner, "types", ())]:
            part = getattr(part, "item_type", part)
            if isinstance(part, msgspec.inspect.StructType) and issubclass(part.cls, Section):
                found += sections(part.cls)
    return found


def test_every_setting_is_explained() -> None:
    found = [*sections(), *(part for detector in registered() for part in sections(detector.section))]
    assert len(found) > 7 + len(registered())
    for section in found:
        fields = {field.name for field in msgspec.structs.fields(section)}
        nested = (
            {name for name in fields if isinstance(getattr(section(), name, None), Section)} if section is Config else set()
        )
        silent = fields - field_texts(section).keys() - nested
        assert section.__doc__
        assert not silent, f"{section.__name__}: {sorted(silent)}"


def test_a_schema_refuses_what_the_struct_refuses() -> None:
    rule = config_schema()["$defs"]["RateRule"]
    assert rule["properties"]["limit"]["minimum"] == 1
    assert rule["additionalProperties"] is False
    assert rule["required"] == ["dimension", "window_s", "limit"]
    assert parse_config({"policy": {"ttl_s": 400}}).policy.ttl_s == 400


COMMON: dict[str, Any] = {
    "time": TIME_MS, "client_ip": "203.0.113.7", "host": "api.example.com", "method": "POST", "path": "/v1/chat?x=1",
    "status": 200, "bytes": 512, "duration_ms": 1250.0, "user_agent": "curl/8", "request_id": "r-1", "country": "de",
    "asn": 64500, "fingerprint": "t13d1516h2",
}  # fmt: skip
COMMON_NUMBERS = {
    Number.TIME_MS: TIME_MS, Number.STATUS: 200, Number.BYTES: 512, Number.DURATION_MS: 1250, Number.ASN: 64500,
}  # fmt: skip
COMMON_TEXTS = {
    Text.HOST: b"api.example.com", Text.METHOD: b"POST", Text.PATH: b"/v1/chat?x=1", Text.USER_AGENT: b"curl/8",
    Text.REQUEST_ID: b"r-1", Text.COUNTRY: b"DE", Text.FINGERPRINT: b"t13d1516h2",
}  # fmt: skip
RECORDS: list[tuple[Event, dict[Number, int], dict[Text, bytes], int]] = [
    (
        Request(
            **COMMON, api_key_hash="sha256:4be1", account="acct_1", model="small", tokens_in=300, tokens_out=200,
            tokens_cached=100, max_tokens=1000, cost=0.0123,
        ),
        {
            Number.TOKENS_IN: 300, Number.TOKENS_OUT: 200, Number.TOKENS_CACHED: 100, Number.MAX_TOKENS: 1000,
            Number.COST_MICRO: 12300,
        },
        {Text.API_KEY: b"sha256:4be1", Text.ACCOUNT: b"acct_1", Text.MODEL: b"small"},
        Flag.HAS_IP | Flag.AUTHENTICATED,
    ),
    (
        AccessLogRecord(**COMMON, referrer="https://example.com/", user_name="alice", account="acct_1", api_key_hash="k1"),
        {},
        {Text.REFERRER: b"https://example.com/", Text.USER_NAME: b"alice", Text.ACCOUNT: b"acct_1", Text.API_KEY: b"k1"},
        Flag.HAS_IP | Flag.AUTHENTICATED,
    ),
    (
        Registration(**COMMON, email_domain="Example.org", user_name="bob", account="acct_2"),
        {},
        {Text.EMAIL_DOMAIN: b"example.org", Text.USER_NAME: b"bob", Text.ACCOUNT: b"acct_2"},
        Flag.HAS_IP | Flag.AUTHENTICATED | Flag.REGISTRATION,
    ),
    (
        Registration(time="2026-11-23T18:29:55.25Z", client_ip="203.0.113.7", email="Carol+x@Mail.Example.org"),
        {},
        {Text.EMAIL_DOMAIN: b"mail.example.org"},
        Flag.HAS_IP | Flag.REGISTRATION,
    ),
    (
        Verification(**COMMON, account="acct_2"),
        {},
        {Text.ACCOUNT: b"acct_2"},
        Flag.HAS_IP | Flag.AUTHENTICATED | Flag.VERIFICATION,
    ),
]  # fmt: skip


def decode(record: Event | dict[str, Any], **settings: Any) -> Decoder:
    config = parse_config({"input": settings})
    decoder = Decoder(config.input, key_seed=(1, 2), ahead_ms=5000)
    data = orjson.dumps(record) if isinstance(record, dict) else msgspec.json.encode(record)
    chunk = np.zeros(2 * len(data) + 16384, np.uint8)
    chunk[: len(data)] = np.frombuffer(data, np.uint8)
    decoder.decode_lines(chunk, len(data), 0, bound_ms=4_102_444_800_000, events_max=10)
    assert (decoder.columns.n, decoder.poison) == (1, 0)
    return decoder


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: type(case[0]).__name__)
def test_records_of_each_kind_decode_as_documented(case: tuple[Event, dict[Number, int], dict[Text, bytes], int]) -> None:
    record, numbers, texts, flags = case
    columns = decode(record).columns
    whole = isinstance(record.time, int)
    for number, value in {Number.TIME_MS: TIME_MS, **(COMMON_NUMBERS if whole else {}), **numbers}.items():
        assert int(columns.numbers[number, 0]) == value, number.name
    for text in Text:
        assert columns.text(text, 0) == {**(COMMON_TEXTS if whole else {}), **texts}.get(text, b""), text.name
    assert int(columns.ip_low[0]) == 0xFFFF_CB00_7107
    assert int(columns.numbers[Number.FLAGS, 0]) == flags


def test_every_field_of_every_kind_is_in_a_case() -> None:
    said = {name for record, *_ in RECORDS for name in msgspec.to_builtins(record)}
    others = {"remote_addr", "x_forwarded_for", "auth_failed", "denied", "cancelled", "api_key"}  # below
    for kind in KINDS.values():
        assert {field.name for field in msgspec.structs.fields(kind)} <= said | others


@pytest.mark.parametrize(
    ("word", "flag"), [("auth_failed", Flag.AUTH_FAILED), ("denied", Flag.OWN_DENIAL), ("cancelled", Flag.CANCELLED)]
)
def test_words_of_flags(word: str, flag: Flag) -> None:
    for value in (True, False):
        columns = decode(Request(**COMMON, **{word: value})).columns
        assert bool(int(columns.numbers[Number.FLAGS, 0]) & flag) == value


def test_a_key_in_the_clear_is_nowhere_in_the_columns() -> None:
    columns = decode(Request(**COMMON, api_key=SECRET)).columns
    assert columns.text(Text.API_KEY, 0).startswith(b"fp:")
    assert SECRET.encode() not in b"".join(columns.text(text, 0) for text in Text)


def test_which_address_counts() -> None:
    without = {name: value for name, value in COMMON.items() if name != "client_ip"}
    both = Request(**without, remote_addr="192.0.2.9", x_forwarded_for="192.0.2.1, 192.0.2.2")
    assert int(decode(both).columns.ip_low[0]) & 255 == 9
    assert int(decode(both, proxy_depth=1).columns.ip_low[0]) & 255 == 2
    resolved = Request(**COMMON, remote_addr="192.0.2.9", x_forwarded_for="192.0.2.1")
    for depth in (0, 1, 2):
        assert int(decode(resolved, proxy_depth=depth).columns.ip_low[0]) & 255 == 7


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_of_each_kind_names_every_field_and_what_is_required(kind: str) -> None:
    name = KINDS[kind].__name__
    definition = orjson.loads((DOCS / f"schemas/{kind}.json").read_bytes())["$defs"][name]
    assert definition["properties"].keys() == {field.name for field in msgspec.structs.fields(KINDS[kind])}
    assert "time" in definition["required"]
