"""Killed while it learns: findings and the bytes of models are those of judges that nobody killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from broker.connection import Connection
from broker.models import read_models
from engine import learned
from engine.model_state import read_snapshot
from engine.post import JudgePost
from engine.seeds import make_seeds
from schemas.feedback import encode_feedback
from schemas.topics import FEEDBACK, MODEL_STATE, tallies_topic
from tests.kafka.deployment import JUDGE_PARTITIONS, Deployment, deploy
from tests.kafka.test_workers import last_tick, split
from tests.learners import install
from tests.test_model_state import is_ours, verdicts

LEARNER = "tests.learning_worker"


def uninterrupted(deployment: Deployment, partition: int, upto: int) -> tuple[set[str], bool, int]:
    """(ids of what is found, whether a false positive was lifted, the model's digest) after the tallies before an offset."""
    config = deployment.config
    tallies = tallies_topic(JUDGE_PARTITIONS, deployment.prefix)
    names = [f"{deployment.raw}-{number}" for number in range(deployment.partitions)]
    post = JudgePost(config, make_seeds(config), partition, names, early=True)
    for record in verdicts():
        post.judge.receive(record)
    found, lifted = set(), False
    for message in deployment.read(tallies):
        if message.partition == partition and message.offset < upto:
            post.accept(message.offset, message.value)
            taken = post.take()
            found |= {f.id for f in taken.findings if is_ours(f)}
            lifted |= any(m.state == "lifted" for m in taken.mitigations)
    (fresh,) = post.models_due()
    return found, lifted, fresh.digest


def test_a_judge_killed_while_it_learns_knows_what_it_would_have_known(
    broker: str, tmp_path: Path, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "MAKERS", {})
    install()
    with deploy(broker, tmp_path, unique("models")[-40:], 2, time={"lateness_s": 10, "ahead_s": 2}) as deployment:
        producer = Producer({"bootstrap.servers": broker})
        for record in verdicts():
            producer.produce(deployment.prefix + FEEDBACK, encode_feedback(record), key=record.id)
        producer.flush()
        deployment.start("observe")
        # It dies when a snapshot has been written that no record names yet; the next one somewhere in the middle.
        judges = [deployment.start("judge", module=LEARNER, failpoint="judge.after_model:6")]
        deployment.wait_joined()

        def kill(share: float) -> None:
            if share > 0.7 and len(judges) == 2:
                judges[-1].kill()
            if judges[-1].poll() is not None:
                judges.append(deployment.start("judge", module=LEARNER))

        deployment.produce(split(2), seconds=15.0, on_share=kill)
        deployment.wait_judged(last_tick(), 90)
        records = deployment.records()
        assert len(judges) == 3, deployment.logs()
        places = read_models(deployment.config, Connection(deployment.config.kafka))

    found, lifts = set(), []
    messages = {(m.partition, m.offset): m.value for m in deployment.read(deployment.prefix + MODEL_STATE)}
    for partition, record in records.items():
        models = record.state["models"]
        assert not models["refused"]
        ids, lifted, digest = uninterrupted(deployment, partition, models["position"])
        found |= ids
        lifts.append(lifted)
        named = models["named"]["counter"]
        assert named["digest"] == digest
        assert read_snapshot(b"".join(messages[partition, offset] for offset in named["offsets"]))["digest"] == digest
    assert found
    assert {f.id for f in deployment.findings() if is_ours(f)} == found
    assert {m.id for m in deployment.mitigations() if m.state == "lifted"} == {
        m.id for m in deployment.mitigations() if m.finding == verdicts()[0].finding
    }
    assert any(lifts)
    ours = [place for place in places if place.model == "counter"]
    assert [place.partition for place in ours] == list(range(JUDGE_PARTITIONS))
    assert sum(place.about["services"] for place in ours) == 1
