"""The command line as people meet it: exit codes, one-line errors, files that hold what they should."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import zstandard
from typer.main import get_command

from drills.traffic import combined_lines
from floodwall.cli import app
from schemas.config import Config, load_file

FLOODWALL = [str(Path(sys.executable).parent / "floodwall")]
TRAFFIC = combined_lines(seed=21, events=30_000, attackers=3)


def run(*words: str, data: bytes | None = None, seed: bool = True) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "COLUMNS": "160"}
    if seed:
        environment["FLOODWALL_SEED"] = "for tests only"
    return subprocess.run([*FLOODWALL, *words], input=data, capture_output=True, check=False, env=environment, timeout=120)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "access.log"
    path.write_bytes(TRAFFIC.data)
    return path


def ids(path: Path) -> list[str]:
    return sorted(orjson.loads(line)["id"] for line in path.read_bytes().splitlines())


def test_replay_writes_mitigations_and_findings(log: Path, tmp_path: Path) -> None:
    out, findings = tmp_path / "m.ndjson", tmp_path / "f.ndjson"
    done = run("replay", str(log), "--out", str(out), "--findings", str(findings))
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    for address in TRAFFIC.labels:
        assert address in done.stdout.decode()
    assert "30,000 records: 30,000 events, 0 empty, 0 unreadable" in done.stdout.decode()
    stopped = {orjson.loads(line)["target"]["value"] for line in out.read_bytes().splitlines()}
    assert stopped >= set(TRAFFIC.labels)
    assert len(findings.read_bytes().splitlines()) >= len(out.read_bytes().splitlines())


def test_archives_folders_and_standard_input_decide_the_same(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("replay", str(log), "--out", str(out))
    expected = ids(out)
    folder = tmp_path / "logs"
    folder.mkdir()
    half = TRAFFIC.data.index(b"\n", len(TRAFFIC.data) // 2) + 1
    members = gzip.compress(TRAFFIC.data[: half // 2]) + gzip.compress(TRAFFIC.data[half // 2 : half])
    (folder / "a.log.gz").write_bytes(members)
    frames = zstandard.ZstdCompressor().compress(TRAFFIC.data[half:-9]), zstandard.ZstdCompressor().compress(TRAFFIC.data[-9:])
    (folder / "b.log.zst").write_bytes(b"".join(frames))
    assert run("replay", str(folder), "--out", str(out)).returncode == 0
    assert ids(out) == expected
    assert run("replay", "-", "--out", str(out), data=TRAFFIC.data).returncode == 0
    assert ids(out) == expected
    assert run("replay", str(log), "--threads", "2", "--out", str(out)).returncode == 0
    assert ids(out) == expected


def test_only_a_range_of_time(log: Path) -> None:
    done = orjson.loads(
        run("replay", str(log), "--json", "--from", "2026-11-18T11:07:00", "--to", "2026-11-18T11:07:10").stdout
    )
    account = done["account"]
    assert account["events"] == 30_000 == account["counted"] + account["outside"]
    assert 2000 < account["counted"] < 5000


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["replay", "/does/not/exist"], 3, "expected a file or folder at /does/not/exist"),
        (["replay", "{tmp}/empty"], 3, "expected log files in the folder"),
        (["replay", "{tmp}/liar.gz"], 3, "expected gzip data in"),
        (["replay", "{log}", "--config", "{tmp}/unknown.toml"], 2, "`lateness`"),
        (["replay", "{log}", "--config", "{tmp}/zero.toml"], 2, "$.detectors.rate.rules[0].limit"),
        (["replay", "{log}", "--config", "{tmp}/nan.toml"], 2, "share_max"),
        (["replay", "{log}", "--config", "{tmp}/minus.toml"], 2, "ttl_s"),
        (["replay", "{log}", "--config", "{tmp}/none.toml"], 2, "none.toml"),
        (["replay", "{log}", "--profile", "mail"], 2, "profile"),
        (["replay", "{log}", "--state", "{tmp}/liar.gz"], 4, "expected a saved state"),
        (["config", "check", "{tmp}/zero.toml"], 2, "$.detectors.rate.rules[0].limit"),
        (["watch", "/does/not/exist"], 3, "expected a file to follow"),
        (["watch", "{tmp}/empty"], 3, "expected a file to follow"),
        (["config", "check", "{tmp}/minus_limit.toml"], 2, "`int` >= 1 at `$.detectors.rate.rules[0].limit`, got -1"),
        (["config", "check", "{tmp}/nan_limit.toml"], 2, "a finite number at `$.detectors.rate.rules[0].limit`, got nan"),
        (["config", "check", "{tmp}/empty"], 2, "expected a readable TOML file"),
        (["config", "check", "{tmp}/liar.gz"], 2, "expected TOML in"),
        (["config", "check", "{tmp}/latin.toml"], 2, "expected UTF-8 text in"),
        (["replay", "{log}", "--out", "{tmp}/nowhere/out"], 3, "expected a writable file at"),
        (["replay", "{log}", "--out", "{tmp}/empty"], 3, "Is a directory"),
        (["replay", "{log}", "--out", "/dev/full"], 3, "decisions to /dev/full, got: No space left on device"),
        (["replay", "{log}", "--findings", "/dev/full"], 3, "No space left on device"),
        (["replay", "{log}", "--state", "{tmp}/nowhere/state"], 4, "expected a place to write the state to"),
        (["replay", "{log}", "{log}"], 3, "expected every source once"),
        (["replay", "{tmp}/zeros"], 3, "1 records that cannot be read and none that can"),
        (["watch", "-"], 3, "1 records that cannot be read and none that can"),
    ],
)  # fmt: skip
def test_errors_are_one_line(words: list[str], code: int, said: str, log: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "liar.gz").write_bytes(b"not gzip at all")
    (tmp_path / "unknown.toml").write_text("[time]\nlateness = 3\n")
    (tmp_path / "zero.toml").write_text('[[detectors.rate.rules]]\ndimension = "ip"\nwindow_s = 1\nlimit = 0\n')
    (tmp_path / "nan.toml").write_text("[policy]\nshare_max = nan\n")
    (tmp_path / "minus.toml").write_text("[policy]\nttl_s = -1\n")
    (tmp_path / "zeros").write_bytes(bytes(100_000))
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe")
    for name, limit in (("minus_limit", "-1"), ("nan_limit", "nan")):
        (tmp_path / f"{name}.toml").write_text(f'[[detectors.rate.rules]]\ndimension = "ip"\nwindow_s = 1\nlimit = {limit}\n')
    done = run(*(word.format(log=log, tmp=tmp_path) for word in words), data=b"nothing that we read\n")
    assert done.returncode == code, done.stderr
    assert said in done.stderr.decode()
    assert len(done.stderr.decode().strip().splitlines()) == 1


def test_bad_bytes_are_counted_and_nothing_hangs(tmp_path: Path) -> None:
    path = tmp_path / "bad.log"
    lines = TRAFFIC.lines()
    path.write_bytes(
        lines[0] + b"\0" * 100_000 + b"\n" + b"y" * 10_000_000 + b"\n" + lines[1] + b"[" * 100_000 + b"\n" + lines[2]
    )
    done = orjson.loads(run("replay", str(path), "--json").stdout)
    account = done["account"]
    assert (account["records"], account["events"]) == (6, 3)
    assert account["poison"] == {"binary": 1, "too_long": 1, "not_a_record": 1}
    starts = {sample["reason"]: sample["start"] for sample in account["poison_samples"]}
    assert starts["too_long"] == len(lines[0]) + 100_001


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_half_written_archive_is_decided_as_far_as_it_goes(pack: object, tmp_path: Path) -> None:
    packed = pack(TRAFFIC.data)  # type: ignore[operator]
    path = tmp_path / "half.log"
    path.write_bytes(packed[: len(packed) // 2])
    done = run("replay", str(path), "--json")
    assert done.returncode == 5
    document = orjson.loads(done.stdout)
    assert str(path) in document["ended_early"]
    assert document["account"]["events"] > 5000
    assert document["account"]["poison"] in ({"truncated": 1}, {})


def test_doctor_says_what_it_sees(log: Path, tmp_path: Path) -> None:
    done = run("doctor", str(log), "--sample", "500", "--json")
    found = orjson.loads(done.stdout)[0]
    assert (found["records"], found["formats"]) == (500, {"combined": 500})
    assert found["addresses"] == {"connection": 1.0}
    assert any("api_key" in text for text in found["blind"])
    assert any("--proxy-depth" in text for text in found["advice"])
    words = run("doctor", str(log)).stdout.decode()
    assert "blind:" in words


def test_doctor_says_when_there_is_nothing_or_half_of_it(tmp_path: Path) -> None:
    (tmp_path / "empty.log").write_bytes(b"")
    (tmp_path / "half.gz").write_bytes(gzip.compress(TRAFFIC.data[:50_000])[:-100])
    (tmp_path / "hosts.log").write_bytes(b"".join(b"www.example " + line.split(b" ", 1)[1] for line in TRAFFIC.lines()[:20]))
    empty, half, hosts = orjson.loads(run("doctor", "--json", *(str(p) for p in sorted(tmp_path.iterdir()))).stdout)
    assert empty["advice"] == ["There is nothing in it."]
    assert half["broke_off"] == "the gzip data has no end"
    assert half["events"] > 200
    assert any("100% of the events have no address" in text for text in hosts["advice"])


def shell(script: str, **names: object) -> subprocess.CompletedProcess[bytes]:
    """A line of shell in which $F is floodwall."""
    environment = {**os.environ, "FLOODWALL_SEED": "for tests only", "F": FLOODWALL[0]}
    environment |= {name: str(value) for name, value in names.items()}
    return subprocess.run(["bash", "-c", script], capture_output=True, check=False, env=environment, timeout=120)


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("$F replay $LOG > /dev/full", 3, "expected to write to standard output, got: No space left on device"),
        ("$F replay $LOG --json > /dev/full", 3, "expected to write to standard output"),
        ("$F --help > /dev/full", 3, "expected to write to standard output"),
        ("$F replay - <&-", 3, "expected an open standard input for -, got a closed one"),
        ("$F watch - <&-", 3, "expected an open standard input for -"),
        ("$F replay /does/not/exist 2>&-", 3, ""),
        ("$F replay $LOG --json | head -1; exit ${PIPESTATUS[0]}", 0, ""),
        ("$F replay $LOG >&-", 0, ""),
    ],
)
def test_streams_that_fail_are_one_line(script: str, code: int, said: str, log: Path) -> None:
    done = shell(script, LOG=log)
    assert done.returncode == code, done.stderr
    assert said in done.stderr.decode()
    assert len(done.stderr.decode().strip().splitlines()) <= 1


def test_a_closed_output_is_not_taken_for_the_next_file(log: Path, tmp_path: Path) -> None:
    out, piped = tmp_path / "out", tmp_path / "piped"
    assert shell("$F replay $LOG --out $OUT", LOG=log, OUT=piped).returncode == 0
    assert shell("$F replay $LOG --out $OUT >&- 2>&-", LOG=log, OUT=out).returncode == 0
    assert ids(out) == ids(piped)


def test_an_empty_input_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.log").write_bytes(b"")
    done = run("replay", str(tmp_path / "empty.log"))
    assert done.returncode == 0
    assert b"0 records: there was nothing to read" in done.stdout
    assert b"Nobody to stop" not in done.stdout


def test_the_first_run_says_that_it_compiles_and_the_second_does_not(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from schemas.compiled import entry, tell_compiling\n"
        "tell_compiling(lambda: print('told'))\n"
        "@entry\ndef double_kernel(x):\n    return 2 * x\n"
        "print(double_kernel(1), double_kernel(2))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    words = [sys.executable, str(program)]
    said = [subprocess.run(words, capture_output=True, check=True, env=environment).stdout for _ in range(2)]
    assert said == [b"told\n2 4\n", b"2 4\n"]


def test_config_check_and_schema(tmp_path: Path) -> None:
    path = tmp_path / "fine.toml"
    path.write_text('profile = "api"\n')
    assert b"fine (profile api)" in run("config", "check", str(path)).stdout
    assert orjson.loads(run("config", "schema").stdout)["$defs"]["Config"]


def test_a_loaded_configuration_knows_what_its_file_says_be_it_a_default(tmp_path: Path) -> None:
    file = tmp_path / "floodwall.toml"
    file.write_text('[kafka]\nbrokers = ["127.0.0.1:9092"]\n')
    loaded = load_file(file)
    assert loaded.config == Config()
    asked = ("kafka", "brokers"), ("kafka", "topics"), ("time", "lateness_s")
    assert [loaded.says(*one) for one in asked] == [True, False, False]
    assert not load_file(None).says("kafka", "brokers")


def test_a_terminal_obeys_nothing_from_the_traffic(tmp_path: Path) -> None:
    path = tmp_path / "evil.log"
    lines = [line.replace(b"GET /", b"GET /\x1b[31m") for line in TRAFFIC.lines()[:50]]
    path.write_bytes(b"".join(lines) + b"\x1b]0;owned\x07 nonsense\n")
    assert b"\x1b" not in run("replay", str(path)).stdout


def test_interrupted_and_resumed_from_its_state(log: Path, tmp_path: Path) -> None:
    expected = tmp_path / "whole"
    run("replay", str(log), "--out", str(expected))
    state, first, second = tmp_path / "state", tmp_path / "first", tmp_path / "second"
    half = TRAFFIC.data.index(b"\n", len(TRAFFIC.data) // 2) + 1
    watched = tmp_path / "growing.log"
    watched.write_bytes(b"")
    environment = {**os.environ, "FLOODWALL_SEED": "for tests only"}

    def follow(out: Path, data: bytes) -> None:
        words = [*FLOODWALL, "watch", str(watched), "--from-start", "--state", str(state), "--out", str(out), "--json"]
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE)
        try:
            with watched.open("ab") as file:
                for at in range(0, len(data), 200_000):
                    file.write(data[at : at + 200_000])
                    file.flush()
                    time.sleep(0.05)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and b'"final"' not in out.read_bytes() if out.exists() else True:
                time.sleep(0.1)
            time.sleep(1.5)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 0

    follow(first, TRAFFIC.data[:half])
    assert state.stat().st_mode & 0o077 == 0
    follow(second, TRAFFIC.data[half:])
    finals = set()
    for path in (first, second):
        finals |= {m["id"] for m in map(orjson.loads, path.read_bytes().splitlines()) if m["stage"] == "final"}
    assert finals <= set(ids(expected))
    assert finals


def test_help_comes_at_once() -> None:
    code = "import sys; import floodwall.cli; sys.exit(any(m in sys.modules for m in ('numba', 'numpy', 'msgspec')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for words in (["config"], ["replay"], ["config", "check"]):
        assert f"Usage: floodwall {' '.join(words)}" in run(*words, "--help").stdout.decode()


def commands() -> dict[tuple[str, ...], str]:
    """The help of every command and group of commands, by its words."""
    found: dict[tuple[str, ...], str] = {}
    waiting: list[tuple[tuple[str, ...], object]] = [((), get_command(app))]
    while waiting:
        words, command = waiting.pop()
        found[words] = str(getattr(command, "help", ""))
        waiting += [((*words, name), one) for name, one in getattr(command, "commands", {}).items()]
    del found[()]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_help_of_every_command_has_an_example_of_it(words: tuple[str, ...]) -> None:
    assert f"Example:  floodwall {' '.join(words)}" in commands()[words]


def test_the_page_about_the_command_line_lists_every_command_and_no_other() -> None:
    page = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text()
    # The first cell of each row: `floodwall topics create`, `describe`.
    cells = re.findall(r"^\| `floodwall (.*?) \|", page, re.MULTILINE)
    missing = []
    for first, *rest in commands():
        # A group by itself does nothing, so that its commands are enough.
        pattern = rf"{first}\b.*[` ]{rest[0]}\b" if rest else rf"{first}\b"
        if not any(re.match(pattern, cell) for cell in cells):
            missing.append(" ".join((first, *rest)))
    assert missing == []
    assert {cell.split()[0].rstrip("`") for cell in cells} <= {words[0] for words in commands()}
