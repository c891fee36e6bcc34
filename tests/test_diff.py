"""What two configurations do with the same traffic, against two runs that are compared and counted by hand."""

from __future__ import annotations

import functools
import ipaddress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from typer.testing import CliRunner, Result

from drills.files import write_drill
from engine.clock import SystemClock
from engine.outbox import Decisions
from floodwall.cli import app
from replay.backtest import backtest, refusal
from replay.run import replay
from replay.runs import Task, made_alike, run_all
from replay.shown import Shown
from replay.truth import truth_of
from schemas.config import Config, load_config
from schemas.mitigation import Mitigation, encode_line
from tests.drills import drill_of

SEED = "for tests only"
BEFORE = f"""
profile = "api"
[engine]
seed = "{SEED}"
[policy]
share_max = 1.0
[detectors.rate]
rules = [
    {{dimension = "ip", measure = "evidence", window_s = 10, limit = 60, action = "throttle"}},
    {{dimension = "account", measure = "requests", window_s = 10, limit = 60, action = "throttle"}},
]
"""
AFTER = BEFORE.replace('"evidence", window_s = 10, limit = 60', '"requests", window_s = 10, limit = 15').replace(
    "window_s = 10, limit = 60, action", "window_s = 60, limit = 100, action"
)
MAIL, RAW_KEY, PASSWORD = "eve@victim.example", "sk-live-0123456789abcdefABCDEF", "correct horse"


class Recorded:
    """A labelled drill in a folder, and two configurations."""

    def __init__(self, folder: Path) -> None:
        drill = drill_of("scan", "invalid_keys", strength="ordinary", at_s=(60, 150), span_s=300)
        write_drill(drill, folder, ["events"], "json")
        self.events = folder / "events.ndjson"
        self.before, self.after = folder / "before.toml", folder / "after.toml"
        self.before.write_text(BEFORE)
        self.after.write_text(AFTER)

    def diff(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["diff", str(self.before), str(self.after), str(self.events), *words])

    def found(self, *words: str) -> Any:
        return orjson.loads(self.diff("--json", *words).stdout)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("drill"))


@functools.cache
def finals(config: Path, events: Path) -> Finals:
    return Finals(config, events)


class Finals:
    """All that was decided."""

    def __init__(self, config: Path, events: Path) -> None:
        self.records: list[Mitigation] = []
        replay(load_config(config), [str(events)], self, SystemClock())

    def write(self, decisions: Decisions) -> None:
        self.records += [record for record in decisions.mitigations if record.stage == "final"]

    def spans(self) -> dict[tuple[str, str], list[tuple[int, int]]]:
        """By target when an edge would enforce something, worked out from the records alone, in seconds."""
        keys: dict[tuple[str, str, str], list[Mitigation]] = {}
        for record in self.records:
            keys.setdefault((record.target.type, record.target.value, record.detector), []).append(record)
        found: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for (kind, value, _), records in keys.items():
            for at, record in enumerate(records):
                until = min([record.expires_at, *(later.issued_at for later in records[at + 1 : at + 2])])
                if record.state == "active" and not record.dry_run and record.action != "notify" and until > record.issued_at:
                    found.setdefault((kind, value), []).append((record.issued_at, until))
        return found


@functools.cache
def events_by_hand(recorded: Recorded) -> list[tuple[float, dict[str, str], int]]:
    """(second, names, label) of each line, read as JSON and nothing else."""
    labels = recorded.events.with_name("events.ndjson.labels").read_bytes()
    found = []
    for number, line in enumerate(recorded.events.read_bytes().splitlines()):
        event = orjson.loads(line)
        found.append(
            (datetime.fromisoformat(event["time"]).timestamp(), event, labels[2 * number] + 256 * labels[2 * number + 1])
        )
    return found


def falls_under(event: dict[str, Any], target: tuple[str, str]) -> bool:
    kind, value = target
    if kind == "ip":
        address = event.get("client_ip", "")
        if "/" not in value or ":" not in address:
            return bool(address == value)
        return ipaddress.ip_address(address) in ipaddress.ip_network(value)
    if kind == "account":
        return bool(event.get("account") == value)
    raise AssertionError(f"these configurations have no target of type {kind}")


def counted_by_hand(events: Any, target: tuple[str, str], spans: list[tuple[int, int]]) -> set[int]:
    """The numbers of the lines that come while a target is in force."""
    return {
        number for number, (second, event, _) in enumerate(events)
        if falls_under(event, target) and any(since <= second < until for since, until in spans)
    }  # fmt: skip


def test_the_list_is_that_of_two_runs_compared_by_hand(recorded: Recorded) -> None:
    found = recorded.found()
    spans = [finals(config, recorded.events).spans() for config in (recorded.before, recorded.after)]
    events = events_by_hand(recorded)
    rows: dict[str, dict[tuple[str, str], Any]] = {"new": {}, "released": {}, "changed": {}}
    for one in found["rows"]:
        rows[one["kind"]][one["type"], one["value"]] = one
    assert rows["new"].keys() == spans[1].keys() - spans[0].keys()
    assert rows["released"].keys() == spans[0].keys() - spans[1].keys()
    both = spans[0].keys() & spans[1].keys()
    assert rows["changed"].keys() <= both
    assert {target for target in both if sorted(spans[0][target]) != sorted(spans[1][target])} >= rows["changed"].keys()
    assert min(len(rows["new"]), len(rows["changed"])) > 3, "there is something to compare"
    covered: list[set[int]] = [set(), set()]
    for side, name in enumerate(("before", "after")):
        for target, mine in spans[side].items():
            lines = counted_by_hand(events, target, mine)
            covered[side] |= lines
            row = next((one[target] for one in rows.values() if target in one), None)
            if row is None:
                continue
            stretch = row[name]
            assert stretch["since"] == min(since for since, _ in mine)
            assert stretch["until"] == max(until for _, until in mine)
            honest = sum(events[line][2] == 0 for line in lines)
            assert (stretch["normal_events"], stretch["other_events"]) == (honest, len(lines) - honest)
    for target, row in rows["changed"].items():
        assert row["later_s"] == min(spans[1][target])[0] - min(spans[0][target])[0]
    newly = covered[1] - covered[0]
    honest_events = sum(label == 0 for _, _, label in events)
    assert (found["events"], found["normal_events"]) == (len(events), honest_events)
    assert found["newly_normal"] == sum(events[line][2] == 0 for line in newly) > 0
    assert found["newly_other"] == sum(events[line][2] > 0 for line in newly)
    assert found["no_longer_normal"] == sum(events[line][2] == 0 for line in covered[0] - covered[1])
    assert found["newly_normal_share"] == pytest.approx(found["newly_normal"] / honest_events)
    for target, row in {**rows["new"], **rows["changed"]}.items():
        attacks = {label for _, event, label in events if label and falls_under(event, target)}
        assert (row["verdict"] == "attack") == bool(attacks), "these attacks may all be stopped by address"


def test_a_configuration_beside_itself_is_the_same(recorded: Recorded) -> None:
    done = CliRunner().invoke(app, ["diff", *[str(recorded.before)] * 2, str(recorded.events), "--json", "--fail-on", "any"])
    found = orjson.loads(done.stdout)
    assert (done.exit_code, found["rows"], found["exceeded"]) == (0, [], [])
    assert found["same"] > 3


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--max-collateral", "100%"), 0, ""),
        (("--max-collateral", "0.1%"), 1, "expected at most 0.1 % of normal traffic to be newly mitigated"),
        (("--fail-on", "wronged"), 1, "expected no new target that is honest (--fail-on wronged)"),
        (("--fail-on", "missed"), 0, ""),
        (("--fail-on", "new,released"), 1, "expected no new target (--fail-on new)"),
        (("--fail-on", "nothing"), 2, "expected --fail-on to be of new, released, changed, wronged, missed, any"),
        (("--max-collateral", "many"), 2, "expected a share from 0% to 100%"),
    ],
)
def test_the_exit_code_says_what_was_asked_for(recorded: Recorded, words: tuple[str, ...], code: int, told: str) -> None:
    done = recorded.diff(*words)
    assert done.exit_code == code, done.output
    assert told in done.stderr


def test_what_was_decided_live_is_compared_with_a_replay(recorded: Recorded, tmp_path: Path) -> None:
    records = finals(recorded.before, recorded.events).records
    decided = tmp_path / "mitigations.ndjson"
    left_out = records[0].target
    operator = encode_line(msgspec.structs.replace(records[0], detector="operator"))
    decided.write_bytes(b"".join(encode_line(record) for record in records if record.target != left_out) + operator)
    words = ["diff", str(decided), str(recorded.before), str(recorded.events), "--json"]
    found = orjson.loads(CliRunner().invoke(app, words).stdout)
    assert [(row["kind"], row["type"], row["value"]) for row in found["rows"]] == [("new", left_out.type, left_out.value)]
    assert any("1 records of operators are left out" in text for text in found["said"])


def test_what_operators_said_counts_where_there_are_no_labels(recorded: Recorded, tmp_path: Path) -> None:
    before, after = (finals(config, recorded.events).spans().keys() for config in (recorded.before, recorded.after))
    wrong = sorted(after - before)[0]
    feedback = tmp_path / "feedback.ndjson"
    said = {
        "id": "x", "verdict": "false_positive", "detector": "rate", "target": {"type": wrong[0], "value": wrong[1]},
        "who": "me", "when": 1, "tick": 1,
    }  # fmt: skip
    feedback.write_bytes(orjson.dumps(said) + b"\n")
    found = recorded.found("--no-labels", "--feedback", str(feedback), "--fail-on", "wronged")
    assert not found["labelled"]
    assert {row["value"] for row in found["rows"] if row["verdict"] == "false positive"} == {wrong[1]}
    assert found["exceeded"] == ["expected no new target that is honest (--fail-on wronged), got 1"]
    assert found["events"] > found["normal_events"], "of those whom A mitigates none is taken for normal"


def test_every_cell_of_a_grid_is_a_run_of_its_own(recorded: Recorded, tmp_path: Path) -> None:
    words = [
        "what-if", str(recorded.events), "--config", str(recorded.before), "--json", "--limit",
        "detectors.rate.rules[0].limit=15,60", "--window", "detectors.rate.rules[0].window_s=10,30",
    ]  # fmt: skip
    grid = orjson.loads(CliRunner().invoke(app, words).stdout)
    assert [cell["values"] for cell in grid["cells"]] == [[], ["15", "10"], ["15", "30"], ["60", "10"], ["60", "30"]]
    first, *_, same, _ = grid["cells"]
    assert {**same, "values": []} == first, "60 in 10 s is as it is"
    events = events_by_hand(recorded)
    other = tmp_path / "other.toml"
    other.write_text(BEFORE.replace("window_s = 10, limit = 60, action", "window_s = 30, limit = 15, action", 1))
    spans = finals(other, recorded.events).spans()
    lines = set().union(*(counted_by_hand(events, target, mine) for target, mine in spans.items()))
    cell = grid["cells"][2]
    assert cell["mitigated"] == len(spans)
    assert cell["normal_covered"] == sum(events[line][2] == 0 for line in lines)
    assert cell["other_covered"] == sum(events[line][2] > 0 for line in lines)


def test_runs_in_processes_decide_the_same(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("replay.runs.MUCH_BYTES", 1)
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"".join(recorded.events.read_bytes().splitlines(keepends=True)[:6000]))
    configs = made_alike([load_config(recorded.before), load_config(recorded.after)]).configs
    tasks = [Task(config=config, paths=[str(events)]) for config in configs]
    assert run_all(tasks, SystemClock(), 2) == run_all(tasks, SystemClock(), 1)


def test_no_key_address_of_mail_or_password_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "requests.ndjson"
    with log.open("wb") as file:
        for second in range(60):
            for number in range(20):
                event = {
                    "time": f"2026-11-23T00:00:{second:02d}.{number:03d}Z", "client_ip": "198.51.100.7", "method": "POST",
                    "path": f"/v1/login?email={MAIL}&password={PASSWORD}", "status": 200, "account": MAIL, "api_key": RAW_KEY,
                    "user_agent": f"tool {MAIL}",
                }  # fmt: skip
                file.write(orjson.dumps(event) + b"\n")
    configs = []
    for limit in (5, 10_000):
        rules = "\n".join(
            f'[[detectors.rate.rules]]\ndimension = "{dimension}"\nmeasure = "requests"\nwindow_s = 10\nlimit = {limit}\n'
            'action = "throttle"'
            for dimension in ("ip", "account", "api_key", "user_agent", "route")
        )
        path = tmp_path / f"{limit}.toml"
        path.write_text(f'profile = "api"\n[policy]\nshare_max = 1.0\n{rules}\n')
        configs.append(str(path))
    for words in (["--json"], ["--all"], ["--max-collateral", "0%"]):
        done = CliRunner().invoke(app, ["diff", configs[1], configs[0], str(log), *words])
        assert "account" in done.output
        assert "api_key" in done.output
        for secret in (MAIL, RAW_KEY, PASSWORD, "victim"):
            assert secret not in done.output


def test_configurations_that_read_differently_are_not_compared(recorded: Recorded, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(BEFORE + "[input]\nproxy_depth = 2\n")
    done = CliRunner().invoke(app, ["diff", str(recorded.before), str(other), str(recorded.events)])
    assert done.exit_code == 2
    assert "expected configurations that read alike" in done.output
    done = CliRunner().invoke(app, ["diff", str(recorded.before), str(other), "-"])
    assert "expected files or topics, which can be read again, got -" in done.output


def test_labels_that_are_not_those_of_the_lines_are_refused(recorded: Recorded, tmp_path: Path) -> None:
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"".join(recorded.events.read_bytes().splitlines(keepends=True)[:1000]))
    for name in ("events.ndjson.labels", "labels.ndjson"):
        (tmp_path / name).write_bytes(recorded.events.with_name(name).read_bytes())
    done = CliRunner().invoke(app, ["diff", str(recorded.before), str(recorded.after), str(events)])
    assert done.exit_code == 3
    assert "expected a label for each line" in done.output


class Operator:
    """Somebody who changes the configuration of judges."""

    def __init__(self, recorded: Recorded, folder: Path) -> None:
        self.recorded, self.history = recorded, folder / "history.ndjson"

    def set(self, assignment: str, *words: str) -> Result:
        return CliRunner().invoke(
            app,
            ["config", "set", "detectors.rate", assignment, "--why", "because", "--config", str(self.recorded.before),
             "--history", str(self.history), "--source", str(self.recorded.events), *words],
        )  # fmt: skip


def test_the_gate_refuses_what_costs_too_much_and_writes_nothing(recorded: Recorded, tmp_path: Path) -> None:
    operator = Operator(recorded, tmp_path)
    done = operator.set("rules[1].limit=5", "--backtest", "24h", "--max-collateral", "0.1%")
    assert done.exit_code == 2
    assert "expected at most 0.1 % of normal traffic to be newly mitigated (--max-collateral), got " in done.stderr
    assert " events, most by account " in done.stderr
    assert not operator.history.exists()
    # The number is that of two runs compared by hand.
    lower = tmp_path / "lower.toml"
    lower.write_text(BEFORE.replace('limit = 60, action = "throttle"},\n]', 'limit = 5, action = "throttle"},\n]'))
    events = events_by_hand(recorded)
    covered = [
        set().union(*(counted_by_hand(events, target, mine) for target, mine in finals(path, recorded.events).spans().items()))
        for path in (recorded.before, lower)
    ]
    newly = sum(events[line][2] == 0 for line in covered[1] - covered[0])
    assert f"{newly:,} of {sum(label == 0 for *_, label in events):,} events" in done.stderr


def test_the_gate_lets_pass_what_costs_little(recorded: Recorded, tmp_path: Path) -> None:
    operator = Operator(recorded, tmp_path)
    done = operator.set("rules[0].limit=40", "--backtest", "24h", "--force")
    assert done.exit_code == 0, done.output
    assert "floodwall: tried on " in done.stderr
    assert "0 % , at most" not in done.stderr
    assert "version 2 of detectors.rate holds from" in done.stdout
    assert operator.history.exists()
    done = operator.set("rules[1].limit=5", "--backtest", "1d", "--max-collateral", "100%", "--check")
    assert done.exit_code == 0, done.output
    assert len(operator.history.read_bytes().splitlines()) == 1, "it was only looked at"


def test_what_a_budget_holds_does_not_pass_the_gate(recorded: Recorded) -> None:
    """A limit of 1 would stop everybody; that the budget holds it is no reason to arm it."""
    held = BEFORE.replace("share_max = 1.0", "share_max = 0.05").replace(
        "window_s = 10, limit = 60", "window_s = 10, limit = 1"
    )
    path = recorded.events.with_name("held.toml")
    path.write_text(held)
    paths = [str(recorded.events)]
    found = backtest(load_config(recorded.before), load_config(path), paths, SystemClock(), truth_of(paths, None))
    assert (refusal(found, 0.001, Shown("")) or "").startswith("expected at most 0.1 % of normal traffic")


def test_a_file_is_tried_before_it_is_rolled_out(recorded: Recorded) -> None:
    words = ["--backtest", "24h", "--source", str(recorded.events)]
    runner = CliRunner()
    fine = runner.invoke(app, ["config", "check", str(recorded.before), *words, "--against", str(recorded.before)])
    assert (fine.exit_code, fine.stdout) == (0, f"{recorded.before}: fine (profile api)\n")
    refused = runner.invoke(app, ["config", "check", str(recorded.after), *words, "--against", str(recorded.before)])
    assert refused.exit_code == 2
    assert "newly mitigated (--max-collateral)" in refused.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--max-collateral", "1%"), "expected --backtest with --max-collateral"),
        (("--backtest", "soon"), "expected --backtest to be a span of time as 24h, 30m or 2d, got 'soon'"),
        (("--backtest", "24h", "--max-collateral", "101%"), "expected a share from 0% to 100%"),
    ],
)
def test_a_gate_that_is_not_one_is_refused(recorded: Recorded, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = Operator(recorded, tmp_path).set("rules[0].limit=40", *words)
    assert done.exit_code == 2
    assert told in done.output


def test_nothing_to_try_it_on_is_no_reason_to_pass(tmp_path: Path) -> None:
    empty = tmp_path / "empty.ndjson"
    empty.write_bytes(b"")
    paths = [str(empty)]
    found = backtest(None, Config(), paths, SystemClock(), truth_of(paths, None))
    why = refusal(found, 1.0, Shown(""))
    assert (why or "").startswith("expected traffic to try it on, got no event that counts as normal")
