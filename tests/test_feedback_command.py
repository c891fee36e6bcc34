"""``floodwall feedback``, ``replay --feedback`` and ``models`` over files: no Kafka."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from edge.verdict import check_counts, decision_in, holds_from, make_feedback
from engine import learned
from engine.clock import SystemClock
from engine.embedded import Embedded
from replay.feedback import FeedbackFile, append_record, read_records
from replay.follow import watch
from replay.sink import Sink
from replay.state import read_saved_models, save_state
from schemas.errors import SourceError, StateError, UsageError
from schemas.feedback import encode_feedback
from schemas.mitigation import encode_line
from tests.engines import config_of, feed
from tests.learners import install
from tests.test_command_line import run
from tests.test_feedback import first_throttle, record_of
from tests.test_posts import CONFIG, bound_ms, traffic


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "access.log"
    path.write_bytes(traffic().data)
    os.utime(path, (bound_ms() / 1000, bound_ms() / 1000))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_a_verdict_on_a_recorded_decision_changes_the_next_replay(log: Path, tmp_path: Path) -> None:
    out, again, said = tmp_path / "m.ndjson", tmp_path / "again.ndjson", tmp_path / "feedback.ndjson"
    assert run("replay", str(log), "--out", str(out)).returncode == 0
    wrong = next(one for one in lines(out) if one["action"] == "throttle")
    at = datetime.fromtimestamp(wrong["tick"] + 3, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    words = ("feedback", wrong["id"], "--decisions", str(out), "--to", str(said), "--who", "ana", "--reason", "ours")
    done = run(*words, "--false-positive", "--at", at)
    assert done.returncode == 0, done.stderr
    assert b"was wrong; lifted" in done.stdout
    assert lines(said)[0]["tick"] == wrong["tick"] + 3
    twice = run(*words, "--false-positive")
    assert (twice.returncode, len(twice.stderr.splitlines()), len(lines(said))) == (2, 1, 1)
    done = run("replay", str(log), "--out", str(again), "--feedback", str(said))
    assert done.returncode == 0, done.stderr
    assert b"feedback: 1 taken" in done.stdout
    assert b"lifted: a false positive, says ana: ours" in done.stdout
    whom = wrong["target"], wrong["detector"]
    about = [one for one in lines(again) if (one["target"], one["detector"]) == whom]
    assert [one["state"] for one in about if one["tick"] >= wrong["tick"] + 3] == ["lifted"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("feedback", "x"), 2, b"one of --false-positive and --confirmed"),
        (("feedback", "x", "--confirmed", "--false-positive"), 2, b"one of"),
        (("feedback", "--confirmed"), 2, b"expected an ID"),
        (("feedback", "x", "--confirmed", "--to", "f"), 2, b"--decisions and --to together"),
        (("feedback", "x", "--confirmed", "--to", "f", "--decisions", "nowhere"), 3, b"nowhere"),
        (("models", "reset", "nobody", "--reason", "x", "--to", "f"), 2, b"expected a learned detector"),
        (("models", "list", "--state", "nowhere"), 4, b"got nothing there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_words_that_do_not_fit_are_one_line(words: tuple[str, ...], code: int, told: bytes) -> None:
    done = run(*words)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert told in done.stderr


def test_the_decision_is_the_last_one_of_its_id_that_is_no_operators() -> None:
    mitigation = orjson.loads(encode_line(first_throttle()))
    by_operator = {**mitigation, "detector": "operator"}
    some = [b"nonsense " + mitigation["id"].encode(), orjson.dumps(mitigation), orjson.dumps(by_operator), b"[]"]
    found = decision_in(some, mitigation["id"])
    assert found == mitigation
    assert decision_in(some, "another") is None
    record = make_feedback(found or {}, "confirmed", who="ana", reason="", when=5, tick=9)
    assert (record.finding, record.target) == (first_throttle().finding, first_throttle().target)


def test_a_finding_teaches_under_its_own_id() -> None:
    finding = {**orjson.loads(encode_line(first_throttle())), "id": "f"}
    del finding["finding"]
    assert make_feedback(finding, "confirmed", who="ana", reason="", when=5, tick=9).finding == "f"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, {"who": " "}), ({}, {"who": "x" * 129}), ({}, {"reason": "x" * 257}), ({"target": 7}, {}),
        ({"detector_version": "x"}, {}),
    ],
)  # fmt: skip
def test_what_makes_no_record_is_refused(changes: dict[str, Any], words: dict[str, str]) -> None:
    decision = {**orjson.loads(encode_line(first_throttle())), **changes}
    with pytest.raises(UsageError):
        make_feedback(decision, "confirmed", **{"who": "ana", "reason": "", **words}, when=5, tick=9)  # type: ignore[arg-type]


def test_past_the_cap_of_a_day_the_command_says_so() -> None:
    config = config_of({"policy": {"feedback_per_day_max": 2}})
    given = [encode_feedback(record_of(finding=name)) for name in "ab"]
    with pytest.raises(UsageError, match="at most 2 records of feedback a day of 'ana'"):
        check_counts(config, given, record_of(finding="c"))
    check_counts(config, given, record_of(finding="c", who="ben"))


def test_it_holds_once_every_judge_has_read_it() -> None:
    assert holds_from(config_of({"time": {"lateness_s": 30}}), 1000) == 1035


# A file of feedback.


def test_a_file_that_grows_is_read_as_far_as_whole_lines_go(tmp_path: Path) -> None:
    path = tmp_path / "feedback.ndjson"
    engine, file = Embedded(CONFIG), FeedbackFile(path, follow=True)
    assert file.give(engine) == 0
    append_record(path, record_of(finding="a"))
    line = encode_feedback(record_of(finding="b"))
    with path.open("ab") as half:
        half.write(line[:40])
    assert file.give(engine) == 1
    with path.open("ab") as rest:
        rest.write(line[40:] + b"\n")
    assert (file.give(engine), file.give(engine)) == (1, 0)
    path.write_bytes(line + b"\n")  # written anew: nothing counts twice
    file.give(engine)
    assert engine.feedback_counts()["taken"] == 2
    assert [record.finding for record in read_records(path)] == ["b"]
    engine.stop()


def test_a_file_that_is_not_there_or_holds_something_else_is_named(tmp_path: Path) -> None:
    engine = Embedded(CONFIG)
    with pytest.raises(SourceError, match="got nothing there"):
        FeedbackFile(tmp_path / "nowhere", follow=False).give(engine)
    (tmp_path / "other").write_bytes(b"not feedback\n")
    with pytest.raises(SourceError, match="line 1"):
        read_records(tmp_path / "other")
    FeedbackFile(tmp_path / "other", follow=False).give(engine)
    assert engine.feedback_counts()["malformed"] == 1
    engine.stop()


def test_watch_takes_what_is_said_meanwhile(log: Path, tmp_path: Path) -> None:
    said = tmp_path / "feedback.ndjson"
    append_record(said, record_of())
    sink, rounds = Sink(), iter([False, False, True])
    engine = watch(CONFIG, str(log), sink, SystemClock(), from_start=True, stop=lambda: next(rounds), feedback=said)
    assert engine.feedback_counts()["taken"] == 1


# Models in a saved state.


def test_models_of_a_saved_state_are_listed_shown_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "MAKERS", {})
    install()
    engine = Embedded(CONFIG)
    engine.open("log", bound_ms())
    feed(engine, "log", traffic().data, 0)
    state = tmp_path / "state"
    save_state(state, engine.snapshot())
    engine.stop()
    (place,) = read_saved_models(state)
    assert (place.model, place.partition, place.version, place.cold) == ("counter", None, 1, False)
    assert place.covered_tick
    listed = run("models", "list", "--state", str(state), "--json")
    assert [one["model"] for one in orjson.loads(listed.stdout)] == ["counter"]
    shown = run("models", "show", "counter", "--state", str(state)).stdout.decode()
    assert "services: 1" in shown
    assert "warm" in shown
    (exported,) = orjson.loads(run("models", "export", "counter", "--state", str(state)).stdout)
    assert exported["data"]["means"]["dtype"] == "<f8"
    assert exported["data"]["means"]["values"] == place.data["means"].ravel().tolist()
    assert run("models", "show", "nobody", "--state", str(state)).returncode == 1


def test_a_damaged_state_has_no_models_to_show(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"something else")
    with pytest.raises(StateError):
        read_saved_models(tmp_path / "state")
