"""``floodwall mitigations``: what is in force, what comes, and what an operator says."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from engine.clock import SystemClock
from floodwall.cli import app
from schemas.acknowledgement import Acknowledgement, encode_acknowledgement
from schemas.mitigation import Evidence, Window
from schemas.topics import DEAD_LETTERS, ENFORCEMENT_ACKS, FEEDBACK, FINDINGS
from tests.kafka.edges import FLOODWALL, Deployment, deploy, floodwall, running, said, wait_until
from tests.test_secrets import KEY, MAIL, ON_KAFKA, PASSWORD, found_in

FINGERPRINT = "fp:0123456789ab"
WHO = ("--owner", "ana", "--reason", "a customer's office")


@pytest.fixture
def deployment(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> Deployment:
    return deploy(tmp_path, broker, unique("")[-60:] + ".")


@pytest.fixture
def mitigations(deployment: Deployment) -> Callable[..., str]:
    """Runs a command that succeeds; its output."""

    def run(*words: str) -> str:
        done = floodwall("mitigations", *words, "--config", str(deployment.file))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def listed(mitigations: Callable[..., str]) -> dict[str, tuple[str, str]]:
    return {one["value"]: (one["action"], one["detector"]) for one in orjson.loads(mitigations("list", "--json"))}


def test_list_has_what_is_in_force_now(deployment: Deployment, mitigations: Callable[..., str], tmp_path: Path) -> None:
    assert mitigations("list") == "Nothing is in force.\n"
    deployment.say(
        said("203.0.113.1", action="throttle"), said("203.0.113.1", detector="other"), said("203.0.113.2", seconds=-1),
        said("203.0.113.3", dry_run=True), said("203.0.113.4", state="lifted"),
        said(FINGERPRINT, kind="api_key", action="throttle"), said("203.0.113.5", reason="\x1b[31mred"),
    )  # fmt: skip
    deployment.say_raw((b"k", b"nonsense"))
    assert listed(mitigations) == {
        "203.0.113.1": ("block", "other"), FINGERPRINT: ("throttle", "rate"), "203.0.113.5": ("block", "rate"),
    }  # fmt: skip
    shown = mitigations("list")
    assert f"api_key {FINGERPRINT}" in shown
    assert "\x1b[31m" not in shown
    (tmp_path / "key").write_bytes(b"k" * 32)
    passed_on = mitigations("list", "--json", "--pseudonymise", str(tmp_path / "key"))
    assert sorted(one["action"] for one in orjson.loads(passed_on)) == ["block", "block", "throttle"]
    assert "203.0.113." not in passed_on
    assert FINGERPRINT not in passed_on


def test_show_has_every_record_of_one_mitigation(deployment: Deployment, mitigations: Callable[..., str]) -> None:
    deployment.say(said("203.0.113.1", id="a", stage="early"), said("203.0.113.1", id="a"), said("203.0.113.2", id="b"))
    assert [one["stage"] for one in orjson.loads(mitigations("show", "a"))] == ["early", "final"]
    done = floodwall("mitigations", "show", "c", "--config", str(deployment.file))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_follow_prints_each_record_as_it_comes(deployment: Deployment, tmp_path: Path) -> None:
    deployment.say(said("203.0.113.1"))
    output = tmp_path / "followed"
    words = (*FLOODWALL, "mitigations", "follow", "--from-start", "--config", str(deployment.file))
    with running(words, output):
        wait_until(lambda: "203.0.113.1" in output.read_text(), "the first record")
        deployment.say(said("203.0.113.2", state="lifted", stage="early"))
        wait_until(lambda: "block (early, lifted)  ip 203.0.113.2" in output.read_text(), "the second record")


def test_an_operator_blocks_allows_and_takes_it_back(deployment: Deployment, mitigations: Callable[..., str]) -> None:
    assert "block until" in mitigations("add", "203.0.113.7", *WHO)
    assert listed(mitigations) == {"203.0.113.7": ("block", "operator")}
    now = SystemClock().now_ms() // 1000
    deployment.say(said("203.0.113.7", action="throttle", tick=now))
    text = mitigations("lift", "203.0.113.7", *WHO)
    assert "lifted" in text
    assert "still in force: throttle by rate" in text
    assert listed(mitigations) == {"203.0.113.7": ("throttle", "rate")}
    assert "allow until" in mitigations("lift", "203.0.113.7", *WHO)
    deployment.say(said("203.0.113.7", tick=now + 60))  # a detector's renewal does not end an operator's allow
    assert listed(mitigations) == {"203.0.113.7": ("allow", "operator")}
    assert "lifted" in mitigations("lift", "203.0.113.7", *WHO)
    assert listed(mitigations) == {"203.0.113.7": ("block", "rate")}


def test_the_record_names_its_owner_and_spells_its_target_as_edges_do(mitigations: Callable[..., str]) -> None:
    written = orjson.loads(mitigations("add", "2001:DB8:0:0::/64", *WHO, "--ttl", "60", "--json"))
    assert written["target"] == {"type": "ip", "value": "2001:db8::/64"}
    assert written["evidence"]["features"] == {"owner": "ana"}
    assert written["expires_at"] == written["issued_at"] + 60


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("add", "nonsense", *WHO), 2, "expected an address or prefix, got 'nonsense'"),
        (("add", "203.0.0.0/16", *WHO), 2, "expected a prefix length that edges look up (/32, /24), got 203.0.0.0/16"),
        (("add", "203.0.113.7", *WHO, "--ttl", "99999"), 2, "expected a TTL of 1 to 3600 s (policy.ttl_s_max"),
        (("add", "203.0.113.7", *WHO, "--action", "throttle"), 2, "expected one of allow, block, got 'throttle'"),
        (("add", "203.0.113.7", "--owner", " ", "--reason", "x"), 2, "expected an owner and a reason"),
        (("lift", "203.0.113.7", *WHO), 1, "expected a mitigation in force on 203.0.113.7, found none"),
    ],
)
def test_what_an_operator_gets_wrong_is_one_line(
    deployment: Deployment, words: tuple[str, ...], code: int, expected: str
) -> None:
    done = floodwall("mitigations", *words, "--config", str(deployment.file))
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)
    assert expected in done.stderr


def test_explain_reads_topics_by_the_offsets_of_the_evidence(deployment: Deployment) -> None:
    now = SystemClock().now_ms() // 1000
    raw, prefix = deployment.config.kafka.topics[0], deployment.config.kafka.topic_prefix
    events = [
        orjson.dumps(
            {"time": now - 30 + at // 10, "client_ip": "203.0.113.7", "path": "/v1/login?token=hunter2", "status": 401}
        )
        for at in range(200)
    ]
    producer = Producer(deployment.connection().settings(acks="all"))
    for event in events:
        producer.produce(raw, event, partition=0)
    assert producer.flush(20) == 0
    window, evidence = Window(start=now - 20, end=now - 10), Evidence(offsets={f"{raw}-0": (100, 200)})
    told = said("203.0.113.7", id="a", action="throttle", tick=now - 11, window=window, evidence=evidence, issued_at=now)
    deployment.say(told, said("203.0.113.7", id="b", detector="other"))
    acknowledgement = Acknowledgement(
        edge="web-1", id="a", target=told.target, action="throttle", outcome="applied", applied_at_ms=1000 * now
    )
    finding = {"target": {"type": "ip", "value": "203.0.113.7"}, "unknown": "skipped"}
    producer.produce(prefix + ENFORCEMENT_ACKS, encode_acknowledgement(acknowledgement), key=b"web-1")
    producer.produce(prefix + FINDINGS, orjson.dumps(finding), key=b"ip:203.0.113.7")
    assert producer.flush(20) == 0
    words = ("config", "set", "detectors.rate", "dry_run=true", "--who", "ben", "--why", "a quiet night")
    assert floodwall(*words, "--config", str(deployment.file)).returncode == 0
    done = floodwall("explain", "a", "--config", str(deployment.file), "--json")
    assert done.returncode == 0, done.stderr
    found = orjson.loads(done.stdout)
    assert (found["status"], found["traffic"]["events"], found["edges"][0]["edge"]) == ("in_force", 100, "web-1")
    assert sum(count or 0 for count in found["traffic"]["per_second"]) == 200
    assert (found["now_action"], found["now_by"]) == ("block", "other")
    assert f"{raw} @" not in done.stdout
    assert "hunter2" not in done.stdout
    assert found["traffic"]["samples"][0]["offset"] == 100
    shown = floodwall("explain", "a", "--config", str(deployment.file))
    assert "IN FORCE: throttle" in shown.stdout
    assert "since then ben changed detectors.rate" in shown.stdout
    assert "done by edge web-1, 0 s after it was found" in shown.stdout
    assert found["detect_s"] >= 11
    assert floodwall("explain", "c", "--config", str(deployment.file)).returncode == 3


def test_what_is_held_and_which_edges_answer_is_told(
    deployment: Deployment, mitigations: Callable[..., str], tmp_path: Path
) -> None:
    now = SystemClock().now_ms() // 1000
    held = Evidence(features={"held": "share_max"})
    done = said("203.0.113.1", id="a", tick=now, action="block")
    deployment.say(done, said("203.0.113.2", id="b", state="held", evidence=held), said("203.0.113.3", id="c", dry_run=True))
    answer = Acknowledgement(
        edge="web-1", id="a", target=done.target, action="block", outcome="applied", applied_at_ms=SystemClock().now_ms()
    )
    producer = Producer(deployment.connection().settings(acks="all"))
    producer.produce(deployment.config.kafka.topic_prefix + ENFORCEMENT_ACKS, encode_acknowledgement(answer), key=b"web-1")
    assert producer.flush(20) == 0
    listed = orjson.loads(mitigations("list", "--json"))
    assert [(one["id"], list(one["applied_s"])) for one in listed] == [("a", ["web-1"])]
    assert [(one["id"], one["why"]) for one in orjson.loads(mitigations("list", "--held", "--json"))] == [("b", "share_max")]
    assert "policy.share_max" in mitigations("list", "--held")
    shown = floodwall("status", "--config", str(deployment.file)).stdout
    assert "In force: 1 block. Reported only: 1 (dry run), 0 (drills)." in shown
    assert "Held back: 1 by policy.share_max." in shown
    assert "to enforce: first record, edge web-1" in shown
    found = orjson.loads(floodwall("status", "--json", "--config", str(deployment.file)).stdout)["mitigations"]
    assert found["edges"][0]["outcomes"] == {"applied": 1}
    output = tmp_path / "served"
    with running((*FLOODWALL, "status", "--serve", "0", "--config", str(deployment.file)), output):
        wait_until(lambda: "listening metrics=" in output.read_text(), "the address of the metrics")
        url = output.read_text().split("metrics=")[1].split()[0]
        wait_until(lambda: 'floodwall_held{budget="share_max"} 1.0' in fetched(url), "what is held")
        deployment.say(said("203.0.113.9", id="d", tick=SystemClock().now_ms() // 1000))
        wait_until(lambda: "floodwall_time_to_detect_seconds_count 1.0" in fetched(url), "a time")


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read()).decode()


def test_no_secret_of_the_topics_is_shown(deployment: Deployment, tmp_path: Path) -> None:
    """Secrets are targets, stand in records that cannot be read, and in the traffic that evidence names."""
    now, prefix, raw = SystemClock().now_ms() // 1000, deployment.config.kafka.topic_prefix, deployment.config.kafka.topics[0]
    log, file = tmp_path / "planted.ndjson", str(deployment.file)
    line = {"time": now - 15, "client_ip": "203.0.113.7", "status": 200, "account": MAIL, "path": f"/{PASSWORD}?k={KEY}",
            "api_key": KEY, "user_agent": PASSWORD, "email": MAIL}  # fmt: skip
    log.write_bytes((orjson.dumps(line) + b"\n") * 40 + KEY.encode() + b" garbage\n")
    of_run = {"playbook": "web", "run": "0123456789abcdef", "playbook_state": "armed", "run_since": now}
    window, at = Window(start=now - 20, end=now), Evidence(offsets={f"{raw}-0": (0, 41)})
    deployment.say(
        said(MAIL, kind="account", id="a" * 32, reason=f"40 requests of account {MAIL}", window=window, evidence=at),
        said(KEY, kind="service", id="b", state="held", reason=f"9 requests on service {KEY}"),
        said(PASSWORD, kind="user_agent", id="c", detector="playbook-web-block", evidence=Evidence(features=of_run)),
    )  # fmt: skip
    deployment.say_raw((MAIL.encode(), f"nonsense {KEY} {PASSWORD}".encode()))
    producer = Producer(deployment.connection().settings(acks="all"))
    for topic in (FINDINGS, ENFORCEMENT_ACKS, FEEDBACK, DEAD_LETTERS):
        producer.produce(prefix + topic, log.read_bytes())
    assert producer.flush(20) == 0
    who, say = ["--who", "ana", "--why", f"ask {MAIL}"], ["--owner", "ana", "--reason", f"ask {MAIL}"]
    url = f"kafka:///{raw}"
    commands = [
        ["produce", str(log), "--topic", raw], ["topics", "create"], ["topics", "describe"], ["mitigations", "list"],
        ["mitigations", "list", "--json"], ["mitigations", "list", "--held"], ["mitigations", "list", "--held", "--json"],
        ["explain", "a" * 32], ["explain", "a" * 32, "--json"], ["verify", "a" * 32], ["status"], ["status", "--json"],
        ["feedback", "a" * 32, "--false-positive", "--reason", f"ask {MAIL}"], ["feedback", "c", "--confirmed"],
        ["playbook", "runs"], ["playbook", "revert", "0123456789abcdef", *who], ["models", "reset", "keys", "--reason", "w"],
        ["mitigations", "add", MAIL, "--type", "account", *say], ["mitigations", "lift", MAIL, "--type", "account", *say],
        ["mitigations", "lift", KEY, "--type", "account", *say], ["doctor", url], ["doctor", url, "--json"], ["replay", url],
    ]  # fmt: skip
    shown, told = {}, ""
    for words in commands:
        done = CliRunner().invoke(app, [*words, "--config", file])
        assert done.exit_code in (0, 1, 3), (words, done.output, done.exception)
        told += done.output
        if found_in(done.output):
            shown[" ".join(words)] = [text for text in done.output.splitlines() if found_in(text)]
    output = tmp_path / "followed"
    with running((*FLOODWALL, "mitigations", "follow", "--from-start", "--config", file), output):
        wait_until(lambda: "user_agent … (#" in output.read_text(), "the last record")
    assert found_in(output.read_text()) == set()
    assert shown == {}
    assert "account … (#" in told
    assert {" ".join(words[:2]) for words in commands} | {words[0] for words in commands} >= ON_KAFKA - {"mitigations follow"}
