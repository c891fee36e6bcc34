"""The table of docs/formats.md, held to its word: every form is read or refused as it says, and doctor calls it by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from schemas.config import Input
from schemas.decode import Decoder
from schemas.fields import Number, Poison, Text
from schemas.forms import form_of

DOCS = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ?([^|]*)\|$", re.MULTILINE)
TIME_MS = 1_796_040_000_000
COMMON = '198.51.100.23 - - [30/Nov/2026:12:00:00 +0000] "GET /v1/models?limit=5 HTTP/1.1" 200 734'
LINE = COMMON + ' "https://console.example/" "curl/8.9"'
NGINX: dict[str, Any] = {
    "time": "2026-11-30T12:00:00+00:00",
    "remote_addr": "198.51.100.23",
    "method": "GET",
    "uri": "/v1/models?limit=5",
    "status": 200,
    "bytes": 734,
    "user_agent": "curl/8.9",
}
ENVOY: dict[str, Any] = {
    "start_time": "2026-11-30T11:59:59.900Z",
    "method": "GET",
    "path": "/v1/models?limit=5",
    "response_code": "200",
    "response_flags": "-",
    "bytes_sent": "734",
    "duration": "100",
    "downstream_remote_address": "198.51.100.23:40123",
    "upstream_host": None,
    "authority": "api.example",
}
APISIX: dict[str, Any] = {
    "client_ip": "198.51.100.23",
    "start_time": TIME_MS - 100,
    "latency": 100,
    "service_id": "",
    "route_id": "7",
    "request": {
        "method": "GET",
        "uri": "/v1/models?limit=5",
        "headers": {"host": "api.example"},
        "querystring": {"limit": "5"},
    },
    "response": {"status": 200, "size": 734, "headers": {}},
    "server": {"hostname": "gw"},
}
ECS: dict[str, Any] = {
    "@timestamp": "2026-11-30T12:00:00.000Z",
    "source": {"ip": "198.51.100.23"},
    "url": {"original": "/v1/models?limit=5"},
    "http": {"request": {"method": "GET"}, "response": {"status_code": 200, "body": {"bytes": 734}}},
}
CASES: dict[str, list[Any]] = {
    "combined": [
        LINE,
        LINE.replace('"GET', '"GET').replace("curl/8.9", r"curl \"8.9\""),
        LINE.replace("https://console.example/", "-"),
    ],
    "common": [COMMON],
    "main": [LINE + ' "192.0.2.4"', LINE + ' "-"'],
    "combined after a virtual host": ["api.example:443 " + LINE],
    "combined after a prefix": [
        "2026-11-30T12:00:01.5Z edge-7 " + LINE,
        "<190>Nov 30 12:00:01 edge-7 nginx: " + LINE,
    ],
    "uvicorn": ['INFO:     198.51.100.23:40123 - "GET /v1/models?limit=5 HTTP/1.1" 200 OK'],
    "JSON": [
        NGINX,
        dict(reversed(NGINX.items())),
        {
            "client": "198.51.100.23",
            "request": "GET /v1/models?limit=5 HTTP/1.1",
            "status": 200,
            "timestamp": "2026-11-30T12:00:00Z",
        },
        {
            "@timestamp": TIME_MS / 1000,
            "remote": "198.51.100.23",
            "host": "-",
            "method": "GET",
            "path": "/v1/models?limit=5",
            "code": "200",
            "size": "734",
        },
        {"time": TIME_MS, "client_ip": "198.51.100.23", "method": "GET", "path": "/v1/models?limit=5", "status": 200},
    ],
    "envelope around combined": [
        {"@timestamp": "2026-11-30T12:00:03Z", "@metadata": {"beat": "filebeat"}, "message": LINE, "log": {"offset": 9}},
        {
            "file": "/var/log/a",
            "host": "edge-7",
            "message": LINE,
            "source_type": "file",
            "timestamp": "2026-11-30T12:00:03.1234Z",
        },
        {"@timestamp": 1796040003.25, "log": LINE},
        {"@version": "1", "@timestamp": "2026-11-30T12:00:03Z", "message": LINE, "event": {"original": LINE}},
    ],
    "envelope around JSON": [{"@timestamp": "2026-11-30T12:00:03Z", "message": orjson.dumps(NGINX).decode()}],
    "ECS": [
        ECS,
        {
            "@timestamp": "2026-11-30T12:00:00Z",
            "source.ip": "198.51.100.23",
            "url.original": "/v1/models?limit=5",
            "http.request.method": "GET",
            "http.response.status_code": 200,
        },
    ],
    "Envoy": [
        ENVOY,
        {
            ":authority": "api.example",
            "start_time": "2026-11-30T12:00:00Z",
            "duration": 0,
            "method": "GET",
            "response_code": 200,
            "response_flags": "-",
            "bytes_sent": 734,
            "downstream_remote_address": "198.51.100.23:1",
            "x-envoy-origin-path": "/v1/models?limit=5",
        },
    ],
    "Kong": [
        {
            "client_ip": "198.51.100.23",
            "started_at": TIME_MS - 100,
            "latencies": {"request": 100, "proxy": 90},
            "request": {"uri": "/v1/models?limit=5", "method": "GET", "headers": {"user-agent": "curl/8.9"}},
            "response": {"status": 200, "size": 734},
            "ai": {"proxy": {"usage": {"prompt_tokens": 30, "completion_tokens": 20}, "meta": {"request_model": "m"}}},
        }
    ],
    "APISIX": [[APISIX], APISIX],
    "Cloudflare Logpush": [
        {
            "ClientIP": "198.51.100.23",
            "ClientASN": 64501,
            "ClientCountry": "fr",
            "ClientRequestMethod": "GET",
            "ClientRequestURI": "/v1/models?limit=5",
            "EdgeEndTimestamp": "2026-11-30T12:00:00Z",
            "EdgeResponseStatus": 200,
            "EdgeResponseBytes": 734,
        }
    ],
    "LiteLLM": [
        {
            "id": "c-2",
            "call_type": "acompletion",
            "status": "success",
            "response_cost": 0.5,
            "prompt_tokens": 30,
            "completion_tokens": 20,
            "startTime": TIME_MS / 1000 - 2.5,
            "endTime": TIME_MS / 1000,
            "model": "m",
            "metadata": {"user_api_key_hash": "88dc", "user_api_key_team_id": "t-9", "requester_ip_address": "198.51.100.23"},
        }
    ],
    "array of JSON": [[NGINX], [NGINX, NGINX]],
    "several lines": [LINE + "\n" + LINE + "\n"],
    "GitHub secret scanning": [
        [{"token": "t0ken", "type": "our_api_token", "url": "https://code.example/a/b", "source": "content"}]
    ],
    "OpenC2 command": [{"action": "deny", "target": {"ipv4_net": "203.0.113.0/24"}, "args": {"duration": 1000}}],
    "vLLM engine line": ["INFO 11-30 12:00:00 [logger.py:49] Received request c-2: params: SamplingParams(n=1)."],
    "error log": ["2026/11/30 12:00:00 [error] 7#7: *1 open() failed (2: No such file), client: 198.51.100.23, server: a"],
    "XML, CSV, LEEF, CEF": [
        "<event><ip>198.51.100.23</ip></event>",
        "198.51.100.23,2026-11-30T12:00:00Z,GET,/v1/models,200",
        "LEEF:2.0|v|p|1|e|src=198.51.100.23",
        "CEF:0|v|p|1|100|name|5|src=198.51.100.23",
    ],
    "Parquet, Avro, Protobuf": [
        "PAR1\x15\x04\x15\x00\x15\x02L",
        "Obj\x01\x04\x16avro.schema\x00",
        "\x08\x96\x01\x12\x07testing",
    ],
}
LINES_OF_ONE_MESSAGE = "several lines"


def rows() -> dict[str, str]:
    """Form -> what the table says of reading it."""
    found = {form: read for form, read, _ in ROW.findall(DOCS.read_text(encoding="utf-8"))}
    return {form: read for form, read in found.items() if form not in ("form", "---")}


def decode(record: bytes) -> Decoder:
    """One message, as from Kafka."""
    decoder = Decoder(Input(), key_seed=(1, 2), ahead_ms=5000)
    buffer = np.zeros(2 * len(record) + 16384, np.uint8)
    buffer[: len(record)] = np.frombuffer(record, np.uint8)
    ends, times_ms = np.array([len(record)]), np.array([TIME_MS + 4000])
    decoder.decode_records(buffer, np.zeros(1, np.int64), ends, times_ms, 0, events_max=100)
    return decoder


def as_bytes(record: Any) -> bytes:
    return record.encode() if isinstance(record, str) else orjson.dumps(record)


def cases(*, read: bool) -> list[Any]:
    return [
        pytest.param(form, as_bytes(record), id=f"{form}-{index}")
        for form, said in rows().items()
        for index, record in enumerate(CASES.get(form, []))
        if (said == "yes") == read
    ]


def test_every_row_of_the_table_has_its_case() -> None:
    assert list(rows()) == list(CASES)


@pytest.mark.parametrize(("form", "record"), cases(read=True))
def test_what_the_table_says_is_read_is_read(form: str, record: bytes) -> None:
    decoder = decode(record)
    columns = decoder.columns
    assert (decoder.records, decoder.poison) == (1, 0), Poison(int(decoder.poison_reason[0])).name
    assert columns.n == max(1, record.count(b"2026-11-30T12:00:00+00:00") if form.startswith("array") else record.count(b"\n"))
    for event in range(columns.n):
        assert int(columns.ip_low[event]) == 0xFFFF_C633_6417
        assert int(columns.numbers[Number.STATUS, event]) == 200
        late_ms = int(columns.numbers[Number.TIME_MS, event]) - TIME_MS
        assert late_ms == (4000 if form == "uvicorn" else 0)
        if form != "LiteLLM":  # it names no path of its own
            assert columns.text(Text.METHOD, event) == b"GET"
            assert columns.text(Text.PATH, event) == b"/v1/models?limit=5"


@pytest.mark.parametrize(("form", "record"), cases(read=True))
def test_doctor_calls_a_form_by_its_name(form: str, record: bytes) -> None:
    if form != LINES_OF_ONE_MESSAGE:
        assert form_of(record) == form


@pytest.mark.parametrize(("form", "record"), cases(read=False))
def test_what_the_table_says_is_refused_is_refused_for_that_reason(form: str, record: bytes) -> None:
    decoder = decode(record)
    reason = Poison(int(decoder.poison_reason[0])).name.lower()
    assert (decoder.records, decoder.columns.n, decoder.poison) == (1, 0, 1)
    assert f"`{reason}`" in rows()[form]


def test_every_reason_of_poison_is_explained() -> None:
    text = DOCS.read_text(encoding="utf-8").partition("## Reasons of poison")[2]
    assert [reason.name for reason in Poison if reason > Poison.EMPTY and f"`{reason.name.lower()}`" not in text] == []
