"""What replay reads: rotated files, Parquet, ranges; what it says about what it read; and what it says of what it could not."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drills.traffic import combined_lines, ndjson_lines
from engine.clock import SystemClock
from floodwall.show import print_outcome
from replay import reading
from replay.manifest import config_digest
from replay.moments import parse_moment, parse_offsets, parse_span
from replay.run import Outcome, Progress, replay
from replay.shown import Shown
from replay.sink import Sink
from schemas.errors import SourceError, UsageError
from tests.engines import config_of, nothing_was_bounded

CONFIG = config_of()
TRAFFIC = combined_lines(seed=31, events=20_000, attackers=3)
JSON = ndjson_lines(seed=32, events=20_000, attackers=3)


class Ids(Sink):
    def __init__(self) -> None:
        super().__init__()
        self.final: set[str] = set()

    def write(self, decisions: Any) -> None:
        super().write(decisions)
        self.final |= {m.id for m in decisions.mitigations if m.stage == "final"}


def decide(*paths: Path, **more: Any) -> tuple[set[str], Outcome]:
    sink = Ids()
    outcome = replay(more.pop("config", CONFIG), [str(path) for path in paths], sink, more.pop("clock", SystemClock()), **more)
    return sink.final, outcome


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    path = tmp_path_factory.mktemp("whole") / "access.log"
    path.write_bytes(TRAFFIC.data)
    final, outcome = decide(path)
    assert final
    assert nothing_was_bounded(outcome.account)
    return final


def pieces(lines: list[bytes], count: int) -> list[bytes]:
    size = -(-len(lines) // count)
    return [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]


@pytest.mark.parametrize("held", [128, 1])
def test_a_rotated_set_is_read_in_the_order_of_its_times_whatever_its_names(
    held: int, tmp_path: Path, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replay.run.HELD_MAX", held)
    parts = pieces(TRAFFIC.lines(), 12)
    for age, data in enumerate(reversed(parts)):
        name = tmp_path / ("access.log" if age == 0 else f"access.log.{age}")
        if age > 1:
            name.with_name(name.name + ".gz").write_bytes(gzip.compress(data))
        else:
            name.write_bytes(data)
    order: list[str] = []
    advance = reading.FileReading.advance

    def note(self: reading.FileReading, engine: Any) -> int:
        order.append(Path(self.name).name)
        return advance(self, engine)

    monkeypatch.setattr(reading.FileReading, "advance", note)
    final, outcome = decide(tmp_path)
    assert final == expected
    assert nothing_was_bounded(outcome.account)
    first_read = list(dict.fromkeys(order))
    assert first_read == [*(f"access.log.{age}.gz" for age in range(11, 1, -1)), "access.log.1", "access.log"]


def test_a_file_that_another_took_the_place_of_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.run.HELD_MAX", 1)
    first, second = pieces(TRAFFIC.lines(), 2)
    (tmp_path / "a").write_bytes(first)
    (tmp_path / "b").write_bytes(second)
    (tmp_path / "other").write_bytes(first)
    begins_ms = reading.FileReading.begins_ms

    def rotate(self: reading.FileReading) -> int | None:
        if self.name.endswith("b") and (tmp_path / "other").exists():
            (tmp_path / "other").rename(tmp_path / "b")
        return begins_ms(self)

    monkeypatch.setattr(reading.FileReading, "begins_ms", rotate)
    _, outcome = decide(tmp_path / "a", tmp_path / "b")
    assert outcome.ended_early == {str(tmp_path / "b"): "another file has taken its place since the run began"}
    assert outcome.account.events == first.count(b"\n")


def table_of(data: bytes) -> pa.Table:
    return pa.Table.from_pylist([orjson.loads(line) for line in data.splitlines()])


def test_parquet_decides_as_the_json_that_it_was_made_of(tmp_path: Path) -> None:
    log, lake = tmp_path / "events.ndjson", tmp_path / "events.parquet"
    log.write_bytes(JSON.data)
    table = table_of(JSON.data)
    times = pa.array([datetime.fromisoformat(text) for text in table["time"].to_pylist()], pa.timestamp("us", "UTC"))
    typed = table.set_column(table.column_names.index("time"), "time", times)
    for name in ("user_agent", "account"):
        typed = typed.set_column(typed.column_names.index(name), name, typed[name].dictionary_encode())
    typed = typed.append_column("not ours", pa.array([b"\xff"] * len(typed)))
    pq.write_table(typed, lake, row_group_size=3000)
    from_json, whole = decide(log)
    final, outcome = decide(lake, manifest=True)
    assert final == from_json != set()
    assert outcome.account.fields == whole.account.fields
    assert outcome.account.counted == whole.account.counted == JSON.events
    assert outcome.manifest is not None
    entry = outcome.manifest["sources"][0]
    assert (entry["kind"], entry["from"], entry["to"], entry["end"]) == ("parquet", 0, JSON.events, JSON.events)
    assert entry["sha256"] == hashlib.sha256(lake.read_bytes()).hexdigest()
    assert "not ours" not in entry["columns"]


def test_structs_are_the_nested_json_of_shippers(tmp_path: Path) -> None:
    rows = [{"@timestamp": "2026-11-18T11:07:00Z", "source": {"ip": "203.0.113.7"}, "url": {"path": "/a"}}, {"source": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "ecs.parquet")
    _, outcome = decide(tmp_path / "ecs.parquet")
    assert (outcome.account.events, outcome.account.fields["path"]) == (1, 1)
    assert [(sample.offset, sample.reason) for sample in outcome.account.poison_samples] == [(1, "not_an_event")]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"when": ["x"], "who": ["y"]}, "expected a column for the time .* in .*lake.parquet, got the columns when, who"),
        ({"time": [1], "status": [200]}, "expected a column to count by .* got the columns time, status"),
        ({"time": [True], "path": ["/"]}, "expected a time .* in the column `time` of .*lake.parquet, got bool"),
        ({"time": [1], "path": [[1]]}, "expected text in the column `path` .* got list<"),
        ({"time": [1], "path": ["/"], "status": [timedelta(1)]}, "expected a number in the column `status` .* got duration"),
    ],
)
def test_parquet_of_another_schema_is_refused_with_what_it_has(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "lake.parquet")
    with pytest.raises(SourceError, match=said):
        decide(tmp_path / "lake.parquet")


def test_parquet_that_is_cut_off_is_refused_and_none_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lake.parquet"
    pq.write_table(table_of(JSON.data), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="expected a whole Parquet file at"):
        decide(path)
    path.write_bytes(b"time,path\n")
    with pytest.raises(SourceError, match=r"expected Parquet data in .* begins with b'time'"):
        decide(path)


def test_a_damaged_part_of_parquet_leaves_what_was_before_it_and_is_said(tmp_path: Path) -> None:
    path = tmp_path / "lake.parquet"
    pq.write_table(table_of(JSON.data), path, row_group_size=8192, compression="zstd")
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[at : at + 400] = bytes(400)
    path.write_bytes(data)
    _, outcome = decide(path, manifest=True)
    assert outcome.account.events == 8192
    assert outcome.ended_early == {str(path): "what lies behind row 8192 of 20000 cannot be read"}
    assert outcome.missing == {str(path): ["rows 8192 to 19999"]}


def test_the_manifest_says_what_was_read_and_what_became_of_it(tmp_path: Path) -> None:
    lines = TRAFFIC.lines()
    late, archive = tmp_path / "late.log", tmp_path / "broken.log.gz"
    jump = combined_lines(seed=33, events=50, start_s=int(TRAFFIC.times_ms.max()) // 1000 + 3600)
    late.write_bytes(b"".join(lines[:9000]) + jump.data + b"".join(lines[9000:10_000]) + b"nonsense\n")
    packed = gzip.compress(b"".join(lines[10_000:]))
    archive.write_bytes(packed[: len(packed) // 2])
    _, outcome = decide(late, archive, manifest=True)
    found = outcome.manifest
    assert found is not None
    first, second = found["sources"]
    assert first["sha256"] == hashlib.sha256(late.read_bytes()).hexdigest()
    assert (first["to"], first["file_bytes"], first["file_bytes_read"]) == (late.stat().st_size,) * 3
    assert (first["records"], first["events"], first["unreadable"]) == (10_051, 10_050, {"not_a_record": 1})
    assert first["late"] == 1000  # the clock went an hour ahead and came back: said, not guessed
    assert first["counted"] == 9050
    assert first["unread"] == []
    assert second["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert "the gzip data has no end" in second["unread"][0]
    for name in ("records", "events", "counted", "late"):
        assert first[name] + second[name] == found["together"][name]
    assert (found["config_sha256"], found["interrupted"]) == (config_digest(CONFIG), False)


def test_the_digest_of_the_configuration_knows_what_decides_and_no_secret() -> None:
    assert config_digest(CONFIG) == config_digest(config_of({"kafka": {"development": True}}, seed="another"))
    assert config_digest(CONFIG) != config_digest(config_of({"policy": {"ttl_s": 610}}))


def test_an_interrupted_run_leaves_what_was_found_and_says_where_it_stopped(tmp_path: Path, expected: set[str]) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(TRAFFIC.data)
    chunks = iter(range(1 << 10))
    final, outcome = decide(path, chunk_bytes=1 << 16, manifest=True, stop=lambda: next(chunks) > 16)
    assert outcome.interrupted
    assert outcome.manifest is not None
    entry = outcome.manifest["sources"][0]
    assert 1 << 20 < entry["to"] < len(TRAFFIC.data)
    assert entry["unread"] == [f"what lies behind {entry['to']}: the run was interrupted"]
    assert final & expected


def test_what_is_not_known_stands_beside_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, sink = tmp_path / "events.ndjson", Sink()
    ahead = [86_400 * (20 <= second < 23) for second in range(60)]
    lines = [b'{"time": %d, "client_ip": "192.0.2.7"}\n' % (1_795_392_000 + at + jump) for at, jump in enumerate(ahead)]
    path.write_bytes(b"".join(line * 10 for line in lines))
    outcome = replay(CONFIG, [str(path)], sink, SystemClock())
    print_outcome(outcome, sink, Shown(""), as_json=False)
    said = capsys.readouterr()
    assert "% of the events are late, and were not looked at" in said.err
    assert "(the newest event says 2026-11-24" in said.err
    outcome.interrupted = True
    print_outcome(outcome, sink, Shown(""), as_json=False)
    said = capsys.readouterr()
    assert "floodwall: interrupted: only what was read until then up to 2026-11-24" in said.err
    assert "no limit was crossed until then." in said.out


def test_progress_tells_how_much_has_been_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.run.TELL_EVERY_S", 0.0)
    plain, packed = tmp_path / "a.log", tmp_path / "b.log.gz"
    first, second = pieces(TRAFFIC.lines(), 2)
    plain.write_bytes(first)
    packed.write_bytes(gzip.compress(second))
    told: list[Progress] = []
    decide(plain, packed, chunk_bytes=1 << 16, tell=told.append)
    shares = [now.share for now in told]
    assert None not in shares
    assert shares == sorted(shares)  # type: ignore[type-var]
    assert (told[-1].share, told[-1].events) == (1.0, TRAFFIC.events)


class Stepping:
    """A clock that only waiting moves on."""

    def __init__(self) -> None:
        self.ms, self.waited_s = 1_900_000_000_000, 0.0

    def now_ms(self) -> int:
        return self.ms

    def wait(self, seconds: float) -> None:
        self.waited_s += seconds
        self.ms += max(1, round(seconds * 1000))


def test_speed_keeps_pace_with_the_clock_and_changes_no_decision(tmp_path: Path, expected: set[str]) -> None:
    path, clock = tmp_path / "access.log", Stepping()
    path.write_bytes(TRAFFIC.data)
    span_s = (int(TRAFFIC.times_ms.max()) - int(TRAFFIC.times_ms.min())) / 1000
    final, _ = decide(path, clock=clock, speed=10.0)
    assert final == expected
    assert clock.waited_s == pytest.approx(span_s / 10, rel=0.1)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("-2h", 1_000_000_000_000 - 7_200_000),
        ("now", 1_000_000_000_000),
        ("@1795392000", 1_795_392_000_000),
        ("s@1795392000123", 1_795_392_000_123),
        ("e@1795392000123", 1_795_392_000_123),
        ("2026-11-23T00:00:00", 1_795_392_000_000),
        ("2026-11-23T01:00:00+01:00", 1_795_392_000_000),
    ],
)
def test_times_as_people_and_kcat_write_them(text: str, ms: int) -> None:
    assert parse_moment(text, 1_000_000_000_000) == ms


@pytest.mark.parametrize(
    "call",
    [
        lambda: parse_moment("s@now", 0),
        lambda: parse_moment("@12345678901", 0),
        lambda: parse_span("-1h", "-2h", 10**13),
        lambda: parse_offsets(["access-log=1..2"]),
        lambda: parse_offsets(["access-log-0=2..2"]),
        lambda: parse_offsets(["access-log-0=1..2", "access-log-0=3..4"]),
    ],
)
def test_times_and_offsets_that_are_none_are_one_line(call: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"^expected .* got .*$"):
        call()


def test_offsets_have_either_end_or_both() -> None:
    assert parse_offsets(["a-b-0=1..2", "a-b-1=..5", "c-0=7.."]) == {"a-b-0": (1, 2), "a-b-1": (None, 5), "c-0": (7, None)}


def test_offsets_of_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TRAFFIC.data[:1000])
    with pytest.raises(UsageError, match="expected a kafka:// source with --offsets"):
        decide(tmp_path / "a", offsets={"a-0": (1, 2)})


def test_times_of_events_are_utc_in_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(TRAFFIC.data)
    _, outcome = decide(path, manifest=True)
    assert outcome.manifest is not None
    entry = outcome.manifest["sources"][0]
    for name, ms in (("first_event", TRAFFIC.times_ms.min()), ("last_event", TRAFFIC.times_ms.max())):
        assert entry[name] == datetime.fromtimestamp(ms // 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
