"""Bytes to columns: every form that is read gives the same event, and what cannot be read says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.traffic import combined_lines, main_lines, ndjson_lines
from schemas.config import Input
from schemas.decode import Decoder
from schemas.errors import ConfigError
from schemas.fields import Flag, Number, Poison, Text

LATER = 4_102_444_800_000
TIME_MS = 1_795_458_595_000
LINE = '203.0.113.7 - - [23/Nov/2026:18:29:55 +0000] "POST /v1/chat/completions HTTP/1.1" 200 512 "-" "python-httpx/0.28.1"'
NGINX_JSON = {
    "time": "2026-11-23T18:29:55+00:00", "remote_addr": "203.0.113.7", "host": "api.example.com", "method": "POST",
    "uri": "/v1/chat/completions", "status": 200, "bytes": 512, "user_agent": "python-httpx/0.28.1",
}  # fmt: skip
ECS = {
    "@timestamp": "2026-11-23T18:29:55.000Z", "source": {"ip": "203.0.113.7"},
    "http": {"request": {"method": "POST"}, "response": {"status_code": 200, "body": {"bytes": 512}}},
    "url": {"original": "/v1/chat/completions"}, "user_agent": {"original": "python-httpx/0.28.1"},
}  # fmt: skip


def decoder_of(**settings: Any) -> Decoder:
    return Decoder(Input(**settings), key_seed=(1, 2), ahead_ms=5000)


def decode(data: bytes, decoder: Decoder | None = None, *, bound_ms: int = LATER) -> Decoder:
    decoder = decoder or decoder_of()
    chunk = np.zeros(2 * len(data) + 16384, np.uint8)
    chunk[: len(data)] = np.frombuffer(data, np.uint8)
    at = decoder.decode_lines(chunk, len(data), 0, bound_ms=bound_ms, events_max=20_000)
    assert at == len(data)
    return decoder


def row(decoder: Decoder, index: int = 0) -> tuple[Any, ...]:
    columns = decoder.columns
    numbers = (Number.TIME_MS, Number.STATUS, Number.BYTES)
    texts = (Text.METHOD, Text.PATH, Text.USER_AGENT)
    return (
        *(int(columns.numbers[n, index]) for n in numbers), int(columns.ip_high[index]), int(columns.ip_low[index]),
        *(columns.text(t, index) for t in texts),
    )  # fmt: skip


EXPECTED = (
    TIME_MS, 200, 512, 0, 0xFFFF_CB00_7107, b"POST", b"/v1/chat/completions", b"python-httpx/0.28.1",
)  # fmt: skip

FORMS: dict[str, Any] = {
    "combined": LINE,
    "combined with microseconds of the first proxy": LINE + ' "-"',
    "filebeat": {"@timestamp": "2026-11-23T18:30:01.1Z", "message": LINE, "log": {"file": {"path": "/a"}, "offset": 5}},
    "filebeat, JSON within": {"@timestamp": "2026-11-23T18:30:01.1Z", "message": orjson.dumps(NGINX_JSON).decode()},
    "vector": {"file": "/var/log/nginx/access.log", "host": "edge-1", "message": LINE, "source_type": "file"},
    "fluent bit": {"@timestamp": "2026-11-23T18:30:01.1Z", "log": LINE},
    "logstash": {"@timestamp": "2026-11-23T18:30:01.1Z", "@version": "1", "message": LINE, "event": {"original": LINE}},
    "logstash, plain": "2026-11-23T18:30:01.123Z edge-1 " + LINE,
    "nginx JSON": NGINX_JSON,
    "nginx JSON, numbers as strings": {**NGINX_JSON, "status": "200", "bytes": "512"},
    "nginx JSON, any order": dict(reversed(NGINX_JSON.items())),
    "nginx JSON, address with port": {**NGINX_JSON, "remote_addr": "203.0.113.7:50312"},
    "nginx JSON, mapped address": {**NGINX_JSON, "remote_addr": "::ffff:203.0.113.7"},
    "nginx JSON, epoch": {**NGINX_JSON, "time": 1795458595},
    "nginx JSON, epoch as text with fraction": {**NGINX_JSON, "time": "1795458595.000"},
    "nginx JSON, epoch in milliseconds": {**NGINX_JSON, "time": 1795458595000},
    "ECS": ECS,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_event(form: str) -> None:
    value = FORMS[form]
    data = value.encode() if isinstance(value, str) else orjson.dumps(value)
    decoder = decode(data + b"\n")
    assert (decoder.columns.n, decoder.poison) == (1, 0), Poison(int(decoder.poison_reason[0]))
    assert row(decoder) == EXPECTED


def test_many_events_in_one_message() -> None:
    data = orjson.dumps([NGINX_JSON, {"message": LINE}, ECS]) + b"\n" + LINE.encode() + b"\n\n"
    decoder = decode(data)
    assert (decoder.records, decoder.columns.n, decoder.empty, decoder.poison) == (3, 4, 1, 0)
    assert [row(decoder, k) for k in range(4)] == [EXPECTED] * 4
    message = LINE.encode() + b"\n" + orjson.dumps(NGINX_JSON) + b"\n" + LINE.encode()
    buffer = np.zeros(2 * len(message) + 16384, np.uint8)
    buffer[: len(message)] = np.frombuffer(message, np.uint8)
    ends = np.array([len(message)], np.int64)
    after = decoder.decode_records(buffer, np.zeros(1, np.int64), ends, np.array([LATER]), 0, events_max=100)
    assert (after, decoder.records, decoder.columns.n) == (1, 1, 3)


@pytest.mark.parametrize(
    ("address", "high", "low"),
    [
        ("2001:db8:1:2::7", 0x2001_0DB8_0001_0002, 7),
        ("[2001:db8:1:2::7]:443", 0x2001_0DB8_0001_0002, 7),
        ("2001:DB8::", 0x2001_0DB8_0000_0000, 0),
        ("192.0.2.1", 0, 0xFFFF_C000_0201),
    ],
)
def test_addresses(address: str, high: int, low: int) -> None:
    decoder = decode(orjson.dumps({**NGINX_JSON, "remote_addr": address}) + b"\n")
    assert (int(decoder.columns.ip_high[0]), int(decoder.columns.ip_low[0])) == (high, low)


@pytest.mark.parametrize(("depth", "last"), [(0, 9), (1, 3), (2, 2), (3, 1)])
def test_the_proxy_depth_says_which_address_counts(depth: int, last: int) -> None:
    forwarded = '"192.0.2.1, 192.0.2.2, 192.0.2.3"'
    line = LINE.replace("203.0.113.7", "192.0.2.9") + " " + forwarded
    decoder = decode(line.encode() + b"\n", decoder_of(proxy_depth=depth))
    assert int(decoder.columns.ip_low[0]) & 255 == last
    values = {**NGINX_JSON, "remote_addr": "192.0.2.9", "x_forwarded_for": forwarded.strip('"')}
    decoder = decode(orjson.dumps(values) + b"\n", decoder_of(proxy_depth=depth))
    assert int(decoder.columns.ip_low[0]) & 255 == last


def test_escapes_and_missing_fields() -> None:
    line = r'203.0.113.7 - - [23/Nov/2026:18:29:55 +0000] "GET /a\x22b HTTP/1.1" 404 - "-" "say \"hi\""'
    decoder = decode(line.encode() + b"\n")
    assert decoder.columns.text(Text.PATH, 0) == b'/a"b'
    assert decoder.columns.text(Text.USER_AGENT, 0) == b'say "hi"'
    assert decoder.columns.text(Text.REFERRER, 0) == b""
    decoder = decode(orjson.dumps({**NGINX_JSON, "uri": 'é\n"\\'}) + b"\n")
    assert decoder.columns.text(Text.PATH, 0) == 'é\n"\\'.encode()


def test_statuses_set_flags() -> None:
    for status, flag in ((401, Flag.AUTH_FAILED), (429, Flag.OWN_DENIAL), (503, Flag.OWN_DENIAL), (499, Flag.CANCELLED)):
        decoder = decode(LINE.replace('" 200 ', f'" {status} ').encode() + b"\n")
        assert int(decoder.columns.numbers[Number.FLAGS, 0]) & flag


def test_keys_in_the_clear_become_fingerprints() -> None:
    secret = "sk-test-0123456789abcdef0123456789abcdef"
    decoder = decode(orjson.dumps({**NGINX_JSON, "api_key": secret}) + b"\n")
    fingerprint = decoder.columns.text(Text.API_KEY, 0)
    assert fingerprint
    assert secret.encode() not in fingerprint
    other = decode(orjson.dumps({**NGINX_JSON, "api_key": secret}) + b"\n", Decoder(Input(), key_seed=(3, 4), ahead_ms=0))
    assert other.columns.text(Text.API_KEY, 0) != fingerprint


def test_fields_can_be_mapped() -> None:
    record = {"req": {"client": "203.0.113.7"}, "when": TIME_MS, "path": "/x"}
    decoder = decode(orjson.dumps(record) + b"\n", decoder_of(fields={"req.client": "client_ip", "when": "time"}))
    assert (decoder.columns.n, int(decoder.columns.ip_low[0])) == (1, 0xFFFF_CB00_7107)
    with pytest.raises(ConfigError, match="nonsense"):
        decoder_of(fields={"req.client": "nonsense"})


def test_times_ahead_of_the_bound_are_replaced() -> None:
    decoder = decode(LINE.encode() + b"\n", bound_ms=TIME_MS - 60_000)
    assert int(decoder.columns.numbers[Number.TIME_MS, 0]) == TIME_MS - 60_000
    assert decoder.time_replaced == 1
    decoder = decode(LINE.encode() + b"\n", bound_ms=TIME_MS - 4000)
    assert int(decoder.columns.numbers[Number.TIME_MS, 0]) == TIME_MS


BAD: list[tuple[bytes, Poison]] = [
    (b"hello", Poison.NOT_A_RECORD),
    (b"\0" * 200, Poison.BINARY),
    (LINE.encode().replace(b" 200 ", b" 999 "), Poison.BAD_STATUS),
    (LINE.encode().replace(b"18:29:55", b"18:99:55"), Poison.BAD_TIME),
    (LINE.encode().replace(b"2026", b"9999"), Poison.BAD_TIME),
    (LINE.encode()[:-5], Poison.TRUNCATED),
    (b'{"time": 1795458595, "status": 200', Poison.TRUNCATED),
    (b'{"a": 1}', Poison.NOT_AN_EVENT),
    (b'{"a":' * 100_000, Poison.TOO_DEEP),
    (b"[" * 100_000, Poison.NOT_A_RECORD),
    (orjson.dumps({**NGINX_JSON, "remote_addr": "300.1.1.1"}), Poison.BAD_ADDRESS),
    (orjson.dumps({**NGINX_JSON, "status": 42}), Poison.BAD_STATUS),
    (orjson.dumps({**NGINX_JSON, "bytes": -5}), Poison.BAD_NUMBER),
    (orjson.dumps(NGINX_JSON).replace(b"512", b"NaN"), Poison.BAD_NUMBER),
    (b"x" * 2_000_000, Poison.TOO_LONG),
]


@pytest.mark.parametrize(("data", "reason"), BAD, ids=[f"{reason.name}-{k}" for k, (_, reason) in enumerate(BAD)])
def test_what_cannot_be_read_says_why(data: bytes, reason: Poison) -> None:
    decoder = decode(LINE.encode() + b"\n" + data + b"\n" + LINE.encode() + b"\n")
    assert (decoder.records, decoder.columns.n, decoder.poison) == (3, 2, 1)
    assert Poison(int(decoder.poison_reason[0])) == reason
    assert int(decoder.poison_start[0]) == len(LINE) + 1
    assert int(decoder.poison_length[0]) == len(data)
    assert 0 <= int(decoder.poison_at[0]) <= len(data)


def test_invalid_utf8_is_kept_as_bytes() -> None:
    decoder = decode(LINE.encode().replace(b"/v1/", b"/\xff\xfe/") + b"\n")
    assert decoder.columns.text(Text.PATH, 0) == b"/\xff\xfe/chat/completions"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_break_it(data: bytes) -> None:
    decoder = decode(data + b"\n" if data else b"")
    assert decoder.records == decoder.columns.n + decoder.empty + decoder.poison


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(FORMS)), st.integers(0, 400), st.binary(max_size=3))
def test_no_damage_breaks_it(form: str, at: int, bad: bytes) -> None:
    value = FORMS[form]
    data = value.encode() if isinstance(value, str) else orjson.dumps(value)
    damaged = (data[:at] + bad + data[at + len(bad) :]).replace(b"\n", b" ")
    decoder = decode(damaged + b"\n" + LINE.encode() + b"\n")
    assert row(decoder, decoder.columns.n - 1) == EXPECTED
    assert decoder.records == 2


@pytest.mark.parametrize("make", [combined_lines, main_lines, ndjson_lines])
def test_cuts_change_no_row(make: Any) -> None:
    traffic = make(seed=4, events=3000)
    whole = [row(decode(traffic.data), k) for k in range(3000)]
    assert [r[0] // 1000 for r in whole] == (traffic.times_ms // 1000).tolist()
    lines = traffic.lines()
    decoder = decoder_of()
    for size in (1, 7, 640):
        got = []
        for first in range(0, len(lines), size):
            decode(b"".join(lines[first : first + size]), decoder)
            got += [row(decoder, k) for k in range(decoder.columns.n)]
        assert got == whole
