"""`floodwall config` on a history in a file, and the runs that read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from floodwall.cli import app
from replay.follow import watch
from replay.history import HistoryFile
from replay.sink import Sink
from schemas.config_change import encode_change
from schemas.mitigation import decode_mitigation
from tests.engines import Decided, config_of
from tests.histories import change_of
from tests.test_config_history import ATTACKER, START, TICK, TRAFFIC, about, config, history, lines_before, rule, run

FILE = """
[engine]
seed = "for tests only"
[policy]
allowlist_core = []
[[policy.allow]]
dimension = "ip"
value = "192.0.2.1"
owner = "me"
reason = "test"
[time]
lateness_s = 3
ahead_s = 2
[detectors.rate]
rules = [{dimension = "ip", window_s = 10, limit = 1000}]
"""


class Operator:
    """Somebody at a terminal."""

    def __init__(self, folder: Path) -> None:
        self.file, self.history = folder / "floodwall.toml", folder / "history.ndjson"
        self.file.write_text(FILE)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["config", *words, "--config", str(self.file), "--history", str(self.history)])

    def set(self, *words: str, exit_code: int = 0) -> str:
        done = self.run("set", *words, "--why", "because")
        assert done.exit_code == exit_code, done.output
        return done.output

    def get(self, section: str) -> Any:
        return orjson.loads(self.run("get", section).stdout)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_a_setting_is_changed_seen_and_undone(operator: Operator) -> None:
    assert "version 2 of detectors.rate holds from" in operator.set("detectors.rate", "rules[0].limit=2000", "--who", "ops")
    assert operator.get("detectors.rate")["rules"][0]["limit"] == 2000
    listed = orjson.loads(operator.run("list", "--json").stdout)
    (row,) = [row for row in listed["sections"] if row["section"] == "detectors.rate"]
    assert (listed["version"], row["version"], row["who"], row["why"]) == (2, 2, "ops", "because")
    told = operator.run("history").output
    assert "rules[0].limit: 1000 → 2000" in told
    done = operator.run("rollback", "--why", "typo", "--force")
    assert "version 3 of detectors.rate holds from" in done.output
    assert operator.get("detectors.rate")["rules"][0]["limit"] == 1000


def test_of_two_operators_one_is_told(operator: Operator) -> None:
    operator.set("policy", "ttl_s=200", "--base", "1")
    told = operator.set("policy", "ttl_s=250", "--base", "1", exit_code=2)
    assert "expected `$.base` 2, the version in force, got 1: somebody else has changed it meanwhile: look again" in told
    assert operator.get("policy")["ttl_s"] == 200


def test_what_widens_is_tried_by_itself_and_armed_by_another_word(operator: Operator) -> None:
    told = operator.set("detectors.rate", "rules[0].limit=50")
    assert "It may mitigate more than before (detectors.rate: throttle for more than 50" in told
    assert "It is tried as rate-trial" in told
    assert operator.get("detectors.rate")["rules"][0]["limit"] == 1000
    assert "when the trial of 600 s is over" in operator.set("detectors.rate", "--arm", exit_code=2)
    operator.set("detectors.rate", "--arm", "--force")
    assert operator.get("detectors.rate")["rules"][0]["limit"] == 50
    assert "may mitigate more (policy.ttl_s from 300 to 301)" in operator.set("policy", "ttl_s=301", exit_code=2)
    assert operator.set("policy", "--remove", "allow[0]", "--force")
    assert operator.get("policy")["allow"] == []


def test_an_exception_is_added_with_its_owner_its_reason_and_its_end(operator: Operator) -> None:
    operator.set("policy", 'allow[+]={"dimension":"ip","value":"192.0.2.7","owner":"web","reason":"x","expires_tick":9}')
    assert [entry["value"] for entry in operator.get("policy")["allow"]] == ["192.0.2.1", "192.0.2.7"]
    without = 'allow[+]={"dimension":"ip","value":"192.0.2.7","reason":"x"}'
    assert "missing required field `owner`" in operator.set("policy", without, exit_code=2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["detectors.rate", "rules[0].limit=0"], "expected `int` >= 1 at `$.detectors.rate.rules[0].limit`, got 0"),
        (["detectors.rate", "rules[7].limit=9"], "expected a setting that is there, got 'rules[7].limit': no 7"),
        (["detectors.rate", "rules"], "expected SETTING=VALUE, got 'rules'"),
        (["detectors.rate", "[0]=1"], "expected a setting, as ttl_s, rules[0].limit or allow[+], got '[0]'"),
        (["detectors.rate", "--remove", "dry_run"], "expected an entry of a list, as rules[2], got 'dry_run'"),
        (["engine", "keys_max=1"], "expected policy, playbooks.NAME or detectors.NAME"),
        (["policy", "allowlist_core=[]"], "allowlist_core: it stands in the deployment's file alone"),
        (["policy"], "expected something in `$.values` or `$.unset`, got nothing"),
        (["detectors.rate", "--arm", "dry_run=true"], "expected nothing to change beside --arm"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_and_not_written(operator: Operator, words: list[str], told: str) -> None:
    assert told in operator.set(*words, "--force", exit_code=2)
    assert not operator.history.exists()


def test_what_would_become_of_a_change_is_told_without_writing_it(operator: Operator) -> None:
    assert "would hold from" in operator.set("detectors.rate", "rules[0].limit=2000", "--check")
    assert not operator.history.exists()


def test_rolling_back_goes_over_several_sections_and_nothing_is_taken_out(operator: Operator) -> None:
    operator.set("policy", "ttl_s=200")
    operator.set("detectors.rate", "dry_run=true")
    operator.set("detectors.known", "enabled=false")
    done = operator.run("rollback", "1", "--why", "all of it", "--force")
    assert done.output.count("holds from") == 3
    assert operator.get("policy")["ttl_s"] == 300
    assert not operator.get("detectors.rate")["dry_run"]
    assert len(operator.history.read_bytes().splitlines()) == 6
    assert "expected a version that is different" in operator.run("rollback", "1", "--why", "again").output
    assert "expected a version from 1 to 7, got 70" in operator.run("rollback", "70", "--why", "again").output


def test_a_changed_file_says_which_changes_do_not_fit_any_more(operator: Operator) -> None:
    operator.set("policy", "ttl_s=200")
    check = ["config", "check", str(operator.file), "--history", str(operator.history)]
    assert CliRunner().invoke(app, check).exit_code == 0
    operator.file.write_text(FILE.replace("lateness_s = 3", "lateness_s = 300").replace("[policy]", "[policy]\nttl_s = 400"))
    done = CliRunner().invoke(app, check)
    assert (done.exit_code, "1 changes of " in done.output) == (2, True)


def test_a_replay_goes_through_the_history_of_a_file(operator: Operator, tmp_path: Path) -> None:
    log, out = tmp_path / "access.ndjson", tmp_path / "out.ndjson"
    log.write_bytes(TRAFFIC)
    configuration = config_of({"detectors": {"rate": {"rules": [rule()]}}, "time": {"lateness_s": 3, "ahead_s": 2}})
    change = change_of(configuration, "detectors.rate", {"rules": [rule(50)]}, TICK, 1, forced=True)
    operator.history.write_bytes(b"nonsense\n" + encode_change(change) + b"\n")
    words = ["replay", str(log), "--config", str(operator.file), "--config-history", str(operator.history), "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "line 1 of" in done.output
    made = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    mine = sorted((m["tick"], m["observed"], m["config_version"]) for m in made if m["detector"] == "rate")
    assert mine[0] == (TICK, 80, 2)
    missing = CliRunner().invoke(app, [*words[:4], "--config-history", str(tmp_path / "none")])
    assert (missing.exit_code, "expected a history of the configuration at" in missing.output) == (3, True)


class Clock:
    """Seconds pass while lines come; a change is written on the way."""

    def __init__(self, log: Path, changes: Path, change: bytes) -> None:
        self.log, self.changes, self.change = log, changes, change
        self.second, self.lines, self.done = 0, TRAFFIC.splitlines(keepends=True), False

    def now_ms(self) -> int:
        return 1000 * (START + self.second)

    def wait(self, seconds: float) -> None:
        with self.log.open("ab") as file:
            file.write(b"".join(self.lines[lines_before(self.second) : lines_before(self.second + 1)]))
        self.second += 1
        if START + self.second == TICK - 8:
            self.changes.write_bytes(self.change)
        self.done = self.second > 230


def test_watching_follows_a_history_that_grows_and_decides_what_a_replay_does(tmp_path: Path) -> None:
    configuration = config()
    chain = history(configuration, ("detectors.rate", {"rules": [rule(50)]}, TICK))
    log, changes = tmp_path / "access.log", tmp_path / "history.ndjson"
    log.touch()
    clock = Clock(log, changes, encode_change(chain.accepted[0].change) + b"\n")
    out = tmp_path / "out.ndjson"
    sink = Sink(out)
    followed = HistoryFile(configuration, changes)
    engine = watch(configuration, str(log), sink, clock, stop=lambda: clock.done, history=followed)
    sink.close()
    made = [decode_mitigation(line) for line in out.read_bytes().splitlines()]
    decided = about(Decided(made, [], engine.account()), ATTACKER)
    expected = about(run(configuration, chain))
    assert [(m.id, m.tick, m.config_version) for m in decided] == [(m.id, m.tick, m.config_version) for m in expected]
