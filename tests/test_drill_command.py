"""Drills as people meet them: files with labels, attacks planted into a log, and what is refused."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from drills.attacks.catalogue import ATTACKS
from drills.plant import plant, second_of
from drills.render import in_stream
from drills.traffic import combined_lines
from floodwall.cli import app
from replay.sources import lines_of
from schemas.config import parse_config
from schemas.errors import SourceError, UsageError
from tests.drills import decoded, drill_of, events_of, joined
from tests.test_command_line import run
from tests.test_policy import crossing, mitigated, policy_of

LOG = combined_lines(seed=3, events=3000, events_per_second=5)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "real.log"
    path.write_bytes(LOG.data)
    return path


def labels(path: Path) -> np.ndarray:
    return np.fromfile(path, "<u2")


def test_list_has_every_attack_with_three_strengths() -> None:
    listed = orjson.loads(CliRunner().invoke(app, ["drill", "list", "--json"]).stdout)
    assert [attack["name"] for attack in listed] == list(ATTACKS)
    assert all(set(attack["strengths"]) == {"weak", "ordinary", "loud"} for attack in listed)
    text = run("drill", "list").stdout.decode()
    assert all(name in text for name in ATTACKS)


def test_a_drill_is_written_with_its_labels(tmp_path: Path) -> None:
    words = ("--seed", "7", "--duration", "300", "--events-per-second", "20", "--storms", "none", "--strength", "weak")
    done = run("drill", "run", "scan", "registrations_obvious", *words, "--out", str(tmp_path), "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    drill = drill_of("scan", "registrations_obvious", span_s=300)
    events = events_of(drill)
    for stream, name in (
        ("requests", "requests.ndjson"), ("registrations", "registrations.ndjson"), ("access-log", "access.log"),
    ):  # fmt: skip
        data = (tmp_path / name).read_bytes()
        assert data == joined(drill, events, stream)
        assert len(labels(tmp_path / f"{name}.labels")) == len(data.splitlines())
    told = orjson.loads(done.stdout)
    written = [orjson.loads(line) for line in (tmp_path / "labels.ndjson").read_bytes().splitlines()]
    assert told == written[: len(told)]
    assert {record["kind"] for record in written} == {"drill", "attack", "source", "account"}
    people = run("drill", "run", "scan", *words, "--out", str(tmp_path), "--stream", "events").stdout.decode()
    assert "scan" in people
    assert "events" in people
    assert len(labels(tmp_path / "events.ndjson.labels")) == len((tmp_path / "events.ndjson").read_bytes().splitlines())


def test_a_planted_log_keeps_every_line_and_its_labels_say_which_were_planted(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "planted"
    done = run("drill", "run", "scan", "botnet_mimic", "--into", str(log), "--out", str(out))
    assert (done.returncode, done.stderr) == (0, b"")
    lines = (out / "access.log").read_bytes().splitlines(keepends=True)
    marks = labels(out / "access.log.labels")
    assert len(lines) == len(marks)
    assert b"".join(itertools.compress(lines, (marks == 0).tolist())) == LOG.data
    assert set(marks.tolist()) == {0, 1, 2}
    read = decoded(b"".join(lines))
    assert (np.diff(read["time_ms"]) >= 0).all()
    assert read["time_ms"][0] == LOG.times_ms[0] // 1000 * 1000
    # What mimics asks for what is asked for in this log; what does not, does not.
    tails = {line.partition(b"] ")[2] for line in LOG.lines()}
    assert all(lines[index].partition(b"] ")[2] in tails for index in np.flatnonzero(marks == 2))
    assert not any(lines[index].partition(b"] ")[2] in tails for index in np.flatnonzero(marks == 1))
    told = [orjson.loads(line) for line in (out / "labels.ndjson").read_bytes().splitlines()]
    assert told[0]["honest"]["access-log"] == 3000
    assert told[0]["events"]["access-log"] == len(lines)
    mimic = next(record for record in told if record.get("name") == "botnet_mimic")
    assert mimic["events"]["access-log"] == pytest.approx(600 * 5, rel=0.05), "as many as the log has of its own"


def test_planting_keeps_lines_without_a_time_and_a_last_line_without_its_newline(tmp_path: Path) -> None:
    own = [b"not a log line\n", *LOG.lines()[:500], b"\xff\xfe\r odd\n", LOG.lines()[500].rstrip(b"\n")]

    def read() -> Iterator[bytes]:
        return iter(own)

    planted = plant(read, ["flood_one"], tmp_path, seed=1, strength="weak", at_s=(95,))
    lines = (tmp_path / "access.log").read_bytes().splitlines(keepends=True)
    data = (tmp_path / "access.log").read_bytes()
    marks = labels(tmp_path / "access.log.labels")
    assert (planted.lines, planted.planted) == (len(marks), int((marks > 0).sum()))
    assert planted.planted > 50
    kept = data.split(b"\n")[:-1] if data.endswith(b"\n") else data.split(b"\n")
    assert [kept[index] for index in np.flatnonzero(marks == 0)] == [line.rstrip(b"\n") for line in own]
    assert lines
    twice = plant(read, ["botnet"], tmp_path, seed=1, strength="weak", normal_per_second=50.0)
    assert twice.planted == pytest.approx(50 * 0.1 * 100, rel=0.2), "of the hundred seconds that the log has"


def test_an_archive_is_planted_into_as_a_file_is(log: Path, tmp_path: Path) -> None:
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(LOG.data))
    assert list(lines_of(str(packed))) == list(lines_of(str(log))) == LOG.lines()
    packed.write_bytes(gzip.compress(LOG.data)[:-50])
    with pytest.raises(SourceError, match="to be whole"):
        list(lines_of(str(packed)))


def test_the_time_of_a_line_is_read_with_its_zone() -> None:
    line = b'203.0.113.7 - - [23/Nov/2026:18:29:55 %s] "GET / HTTP/1.1" 200 1 "-" "-"\n'
    assert second_of(line % b"+0000") == 1_795_458_595
    assert second_of(line % b"+0530") == 1_795_458_595 - 19_800
    assert second_of(line % b"-0100") == 1_795_458_595 + 3600
    assert second_of(b"[99/Nov/2026:18:29:55 +0000]") is None
    assert second_of(b"nothing") is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["bottnet", "--out", "{tmp}/x"], 2, "expected an attack of `floodwall drill list`"),
        (["scan"], 2, "expected --out FOLDER, --kafka HOST:PORT, or --into LOG"),
        (["scan", "--out", "{tmp}/x", "--stream", "flows"], 2, "expected --stream to be requests"),
        (["scan", "--hours", "nan", "--out", "{tmp}/x"], 2, "expected a number of hours"),
        (["scan", "--hours", "-1", "--out", "{tmp}/x"], 2, "expected a drill of 1 s to 366 days"),
        (["scan", "--events-per-second", "0", "--out", "{tmp}/x"], 2, "expected 0.01 to 20,000"),
        (["scan", "--out", "{tmp}/x", "--live"], 2, "expected --config and --live with --kafka"),
        (["scan", "--into", "{tmp}/real.log"], 2, "expected --out with --into"),
        (["--into", "{tmp}/real.log", "--out", "{tmp}/x"], 2, "expected attacks to plant into the log, got none"),
        (["scan", "--into", "{tmp}/nothing", "--out", "{tmp}/x"], 3, "expected a readable file at"),
        (["scan", "--into", "{tmp}/words", "--out", "{tmp}/x"], 3, "expected lines of an access log"),
        (["scan", "--duration", "60", "--out", "{tmp}/words/x"], 3, "expected to write the drill to"),
        (["scan", "--duration", "60", "--kafka", "127.0.0.1:1"], 2, "expected --config with `drill = true` under [policy]"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], code: int, said: str, log: Path, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("these are\nno log lines\n")
    done = CliRunner().invoke(app, ["drill", "run", *(word.replace("{tmp}", str(tmp_path)) for word in words)])
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_stream_goes_to_the_topic_that_has_its_name() -> None:
    from floodwall.drill_kafka import topics_of

    def config(**kafka: object) -> object:
        return parse_config({"policy": {"drill": True}, "kafka": kafka})

    streams = ("requests", "access-log")
    named = topics_of(config(), streams)  # type: ignore[arg-type]
    assert named == {"requests": "requests", "access-log": "access-log"}
    other = topics_of(config(topics=["drill.requests", "x-access-log", "more"]), streams)  # type: ignore[arg-type]
    assert other == {"requests": "drill.requests", "access-log": "x-access-log"}
    with pytest.raises(UsageError, match="to be requests or to end in"):
        topics_of(config(topics=["drill.other"]), streams)  # type: ignore[arg-type]


def test_what_is_decided_about_a_drill_is_marked_so_and_nothing_else_is() -> None:
    assert mitigated(policy_of(drill=True), crossing()).drill
    assert not mitigated(policy_of(), crossing()).drill


def test_a_live_drill_sends_no_second_before_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from floodwall import drill_kafka

    class Waiting:
        """A clock that is moved by whoever waits."""

        def __init__(self, now_ms: int) -> None:
            self.at_ms = now_ms

        def now_ms(self) -> int:
            return self.at_ms

        def wait(self, seconds: float) -> None:
            self.at_ms += round(seconds * 1000)

    drill = drill_of("scan", span_s=90, events_per_second=5)
    clock = Waiting(drill.plan.start_s * 1000)
    sent: list[tuple[int, bytes]] = []

    class Recorder:
        def __init__(self, *_: object) -> None:
            pass

        def add(self, line: bytes) -> None:
            sent.append((clock.at_ms, line))

        def send(self) -> None:
            pass

        finish = send

    monkeypatch.setattr(drill_kafka, "Shipper", Recorder)
    config = parse_config({"policy": {"drill": True}, "kafka": {"development": True}})
    drill_kafka.send_drill(drill, config, ("requests",), "combined", per_message=1, clock=clock)
    events = events_of(drill)
    assert [line + b"\n" for _, line in sent] == joined(drill, events, "requests").splitlines(keepends=True)
    over = (events["time_ms"][in_stream(events, "requests")] // 1000 + 1) * 1000
    assert [at_ms for at_ms, _ in sent] == over.tolist()
