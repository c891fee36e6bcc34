"""The decoders against their plain-Python twins, on inputs that nobody would think of.

All through `Decoder`, so that nothing is compiled for the tests alone.
"""

from __future__ import annotations

import json
import string
from datetime import datetime, timedelta, timezone

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import Input
from schemas.decode import Decoder
from schemas.fields import Flag, Number, Poison, Text
from tests.oracles import decoding as oracle

TIME = "2026-11-23T18:29:55Z"
DECODER = Decoder(Input(), key_seed=(1, 2), ahead_ms=5000)
EXAMPLES = settings(max_examples=300, deadline=None)

addresses = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: address.exploded.upper()),
    st.builds("[{}]:{}".format, st.ip_addresses(v=6), st.integers(0, 65535)),
    st.builds("{}:{}".format, st.ip_addresses(v=4), st.integers(0, 65535)),
    st.builds("::ffff:{}".format, st.ip_addresses(v=4)),
    st.builds("{}%eth{}".format, st.ip_addresses(v=6), st.integers(0, 9)),
)
damaged_addresses = st.one_of(
    st.text("0123456789abcf:.", max_size=24),
    st.builds(lambda text, at, byte: text[:at] + byte + text[at:], addresses, st.integers(0, 40), st.sampled_from("0.:[]%g ")),
    st.builds(lambda text, at: text[:at] + text[at + 1 :], addresses, st.integers(0, 40)),
)
moments = st.datetimes(datetime(1970, 1, 2), datetime(2199, 12, 30))
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
numbers = st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,12})?(e-?[0-9])?", fullmatch=True)
words = st.text(string.ascii_letters + string.digits + "/._-?=&%", min_size=1, max_size=70)
phrases = st.text(string.ascii_letters + string.digits + " /.;:()[]{},-", min_size=2, max_size=90)
methods = st.text("ABCXYZ_-", min_size=1, max_size=24).filter(lambda method: method != "-")


def decoded(*lines: bytes) -> Decoder:
    data = b"\n".join(lines)
    # What lies behind a chunk is another one's bytes: it must not matter.
    chunk = np.full(2 * len(data) + 16384, ord("7"), np.uint8)
    chunk[: len(data)] = np.frombuffer(data, np.uint8)
    assert DECODER.decode_lines(chunk, len(data), 0, bound_ms=0, events_max=20_000) == len(data)
    return DECODER


def json_number(name: str, text: str, column: Number) -> int | Poison:
    decoder = decoded(f'{{"time":"{TIME}","path":"/","{name}":{text}}}'.encode())
    return Poison(int(decoder.poison_reason[0])) if decoder.poison else int(decoder.columns.numbers[column, 0])


def event(decoder: Decoder, row: int) -> oracle.Event:
    columns = decoder.columns
    has_ip = int(columns.numbers[Number.FLAGS, row]) & Flag.HAS_IP
    return oracle.Event(
        int(columns.numbers[Number.TIME_MS, row]),
        int(columns.ip_high[row]) << 64 | int(columns.ip_low[row]) if has_ip else None,
        int(columns.numbers[Number.STATUS, row]),
        int(columns.numbers[Number.BYTES, row]),
        *(columns.text(text, row) for text in (Text.METHOD, Text.PATH, Text.REFERRER, Text.USER_AGENT, Text.USER_NAME)),
    )


@EXAMPLES
@given(st.one_of(addresses, damaged_addresses))
def test_addresses_are_what_ipaddress_says(text: str) -> None:
    decoder = decoded(orjson.dumps({"time": TIME, "path": "/", "client_ip": text}))
    found = event(decoder, 0).address if decoder.columns.n else None
    assert found == oracle.address(text)


@EXAMPLES
@given(moments, zones, st.sampled_from("T "), st.sampled_from(["", ".", ","]), st.text(string.digits, min_size=1, max_size=12))
def test_iso_times_are_what_datetime_says(moment: datetime, zone: timezone, between: str, point: str, fraction: str) -> None:
    moment = moment.replace(microsecond=0, tzinfo=zone)
    expected = oracle.milliseconds(moment) + (int(fraction.ljust(3, "0")[:3]) if point else 0)
    for offset in {moment.strftime("%z"), moment.isoformat()[-6:]} | ({"Z", ""} if not zone.utcoffset(None) else set()):
        text = moment.strftime(f"%Y-%m-%d{between}%H:%M:%S") + (point + fraction if point else "") + offset
        decoder = decoded(orjson.dumps({"time": text, "path": "/"}))
        assert int(decoder.columns.numbers[Number.TIME_MS, 0]) == expected, text


@EXAMPLES
@given(st.lists(moments, min_size=1, max_size=6), zones)
def test_times_of_log_lines_are_what_datetime_says(stamps: list[datetime], zone: timezone) -> None:
    # Several in one chunk, each twice: the last second is remembered.
    times = [moment.replace(tzinfo=zone) for moment in stamps for _ in range(2)]
    lines = [f'192.0.2.1 - - [{moment.strftime("%d/%b/%Y:%H:%M:%S %z")}] "GET / HTTP/1.1" 200 1'.encode() for moment in times]
    decoder = decoded(*lines)
    assert decoder.columns.number(Number.TIME_MS).tolist() == [oracle.milliseconds(moment) // 1000 * 1000 for moment in times]


@EXAMPLES
@given(st.integers(10**8, 7 * 10**9), st.text(string.digits, max_size=9))
def test_unix_times_may_have_any_unit(seconds: int, fraction: str) -> None:
    expected = seconds * 1000 + int(fraction.ljust(3, "0")[:3])
    digits = fraction.ljust(9, "0")
    texts = [f"{seconds}.{fraction}" if fraction else f"{seconds}"]
    texts += [f"{seconds}{digits[:width]}" for width in (3, 6, 9)]
    for text in texts:
        decoder = decoded(f'{{"time":{text},"path":"/"}}'.encode())
        assert int(decoder.columns.numbers[Number.TIME_MS, 0]) == expected, text


@EXAMPLES
@given(numbers)
def test_numbers_are_what_decimal_says(text: str) -> None:
    expected = oracle.number(text)
    assert json_number("bytes", text, Number.BYTES) == (expected if expected >= 0 else Poison.BAD_NUMBER)
    duration = oracle.number(text, power=3)
    assert json_number("duration_s", text, Number.DURATION_MS) == (duration if duration <= oracle.DURATION_MS_MAX else -1)


@EXAMPLES
@given(st.text(min_size=1, max_size=80).filter(lambda text: text != "-"), st.booleans())
def test_strings_are_what_json_says(text: str, ascii_only: bool) -> None:
    quoted = json.dumps(text, ensure_ascii=ascii_only)
    decoder = decoded(f'{{"time":"{TIME}","path":"/","user_agent":{quoted}}}'.encode())
    assert decoder.columns.text(Text.USER_AGENT, 0) == text.encode()


@st.composite
def combined_line(draw: st.DrawFn) -> bytes:
    moment = draw(moments).replace(tzinfo=draw(zones))
    host = draw(st.one_of(st.ip_addresses().map(str), st.builds("{}:{}".format, st.ip_addresses(v=4), st.integers(0, 65535))))
    status = draw(st.one_of(st.integers(100, 599).map(str), st.just("-")))
    size = draw(st.one_of(st.integers(0, 10**12).map(str), st.just("-")))
    version = draw(st.sampled_from(["", " HTTP/1.1", " HTTP/2"]))
    user, referrer = draw(st.one_of(st.just("-"), words)), draw(st.one_of(st.just("-"), phrases))
    request = f"{draw(methods)} /{draw(words)}{version}"
    stamp = moment.strftime("%d/%b/%Y:%H:%M:%S %z")
    return f'{host} - {user} [{stamp}] "{request}" {status} {size} "{referrer}" "{draw(phrases)}"'.encode()


@EXAMPLES
@given(st.lists(combined_line(), min_size=1, max_size=5))
def test_combined_lines_are_what_re_says(lines: list[bytes]) -> None:
    decoder = decoded(*lines)
    assert decoder.poison == 0
    assert [event(decoder, row) for row in range(len(lines))] == [oracle.combined(line) for line in lines]


json_values = st.recursive(
    st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
json_objects = st.fixed_dictionaries(
    {
        "time": st.builds(lambda moment, zone: moment.replace(tzinfo=zone).isoformat(), moments, zones),
        "client_ip": st.ip_addresses().map(str),
        "path": words.map(lambda path: "/" + path),
    },
    optional={
        "method": methods,
        "status": st.integers(100, 599),
        "bytes": st.integers(0, 2**53),
        "user_agent": st.text(min_size=2, max_size=90),
        "referrer": phrases,
        "user_name": words,
        "unknown": json_values,
    },
)
shuffled_objects = json_objects.flatmap(lambda record: st.permutations(list(record.items())))


@EXAMPLES
@given(st.lists(shuffled_objects, min_size=1, max_size=4), st.booleans())
def test_json_objects_are_what_orjson_says(records: list[list[tuple[str, object]]], spaced: bool) -> None:
    lines = [json.dumps(dict(record), separators=None if spaced else (",", ":")).encode() for record in records]
    decoder = decoded(*lines)
    assert decoder.poison == 0
    assert [event(decoder, row) for row in range(len(lines))] == [oracle.json_event(line) for line in lines]
