"""``floodwall feedback`` on a broker: what it publishes, and what it refuses to."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from broker.reading import read_values
from edge.feedback import given_on_topic
from engine.clock import SystemClock
from engine.policy import FOR_EVER
from schemas.feedback import Feedback, decode_feedback
from schemas.leaked import LeakLift, decode_leak
from schemas.topics import LEAKED_KEYS
from tests.kafka.edges import Deployment, deploy, floodwall, said


@pytest.fixture
def deployment(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> Deployment:
    return deploy(tmp_path, broker, unique("")[-60:] + ".", policy={"feedback_per_day_max": 3})


def give(deployment: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    return floodwall("feedback", *words, "--who", "ana", "--config", str(deployment.file))


def given(deployment: Deployment) -> list[Feedback]:
    return [decode_feedback(value) for value in given_on_topic(deployment.config, deployment.connection())]


def listed(deployment: Deployment) -> dict[str, tuple[str, str]]:
    done = floodwall("mitigations", "list", "--json", "--config", str(deployment.file))
    return {one["value"]: (one["action"], one["detector"]) for one in orjson.loads(done.stdout)}


def test_a_false_positive_is_published_and_edges_let_the_target_go_at_once(deployment: Deployment) -> None:
    deployment.say(
        said("203.0.113.1", id="a", finding="f1"), said("203.0.113.2", id="b"), said("203.0.113.3", id="c"),
        said("203.0.113.3", id="d", detector="operator"), said("203.0.113.4", id="e"),
    )  # fmt: skip
    now = SystemClock().now_ms() // 1000
    done = give(deployment, "a", "--false-positive", "--reason", "our load test")
    assert done.returncode == 0, done.stderr
    assert "edges let it pass at once" in done.stdout
    (record,) = given(deployment)
    assert (record.id, record.finding, record.verdict, record.who) == ("a", "f1", "false_positive", "ana")
    assert record.reason == "our load test"
    assert now + 15 <= record.tick <= now + 30
    assert listed(deployment)["203.0.113.1"] == ("allow", "operator")
    assert listed(deployment)["203.0.113.2"] == ("block", "rate")

    assert give(deployment, "b", "--confirmed").returncode == 0
    assert listed(deployment)["203.0.113.2"] == ("block", "rate")
    assert give(deployment, "c", "--false-positive").returncode == 0
    assert listed(deployment)["203.0.113.3"] == ("block", "operator"), "what an operator has said stands"
    done = give(deployment, "e", "--confirmed")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "at most 3 records of feedback a day of 'ana' (policy.feedback_per_day_max)" in done.stderr
    assert len(given(deployment)) == 3
    done = floodwall("feedback", "--list", "--config", str(deployment.file))
    assert [orjson.loads(line)["id"] for line in done.stdout.splitlines()] == ["a", "b", "c"]


def test_of_a_leaked_key_that_was_disabled_it_is_the_end_and_not_for_a_day_only(deployment: Deployment) -> None:
    disabled = said("fp:0123456789ab", id="a", kind="api_key", detector="leaked", action="disable_key", expires_at=FOR_EVER)
    deployment.say(disabled)
    done = give(deployment, "a", "--false-positive", "--reason", "a key of the documentation")
    assert done.returncode == 0, done.stderr
    assert "reports of it, old and new, count no more" in done.stdout
    (record,) = given(deployment)
    [value] = read_values(deployment.connection(), deployment.config.kafka.topic_prefix + LEAKED_KEYS)
    lift = decode_leak(value)
    assert isinstance(lift, LeakLift)
    assert (lift.fingerprint, lift.owner, lift.reason) == ("fp:0123456789ab", "ana", "a key of the documentation")
    assert lift.tick == record.tick, "judges lift it, and no report counts, from one second on"
    assert listed(deployment)["fp:0123456789ab"] == ("allow", "operator")


def test_an_id_that_nobody_has_decided_is_refused(deployment: Deployment) -> None:
    done = give(deployment, "nobody", "--false-positive")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert given(deployment) == []
