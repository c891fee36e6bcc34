"""A limit changed and a playbook armed on the topic while an attack goes on: two judges hold to it from one second on, as a
replay does; and what a run of the playbook has done is taken back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import orjson
from confluent_kafka import Producer
from typer.testing import CliRunner

from broker.config_topic import read_history, topic_of, write_change
from broker.connection import Connection
from engine.config_chain import ConfigChain
from floodwall.cli import app
from schemas.config_change import ConfigStatus, encode_change
from schemas.feedback import decode_feedback
from schemas.topics import CONFIG_STATUS, FEEDBACK
from tests.engines import decide
from tests.kafka.deployment import JUDGE_PARTITIONS, Deployment, deploy

ATTACKERS = 12
LATENESS_S = 3
AGAINST = "rules[1].limit"
"""Of 300 requests of one address in 10 seconds."""
PLAYBOOK = (
    'when={"detectors": ["rate"], "targets": ["ip"]}', 'owner="ana"',
    'steps=[{"action": "challenge", "target": "found", "types": ["ip"], "ttl_s": 300}]',
)  # fmt: skip


class Attack:
    """Ten requests a second of each attacker, in the present, until it is told to stop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment, self._stopped = deployment, threading.Event()
        self.lines: list[bytes] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        producer = Producer({"bootstrap.servers": self._deployment.bootstrap, "linger.ms": 5, "log_level": 0})
        while not self._stopped.wait(0.1):
            now = time.time()
            for n in range(ATTACKERS):
                line = b'{"time":%.3f,"client_ip":"203.0.113.%d","path":"/v1/%d","status":200}' % (now, n, len(self.lines) % 97)
                self.lines.append(line)
                producer.produce(self._deployment.raw, line, partition=n % 2)
            producer.poll(0)
        assert producer.flush(30) == 0

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def statuses(deployment: Deployment) -> list[ConfigStatus]:
    found = deployment.read(deployment.prefix + CONFIG_STATUS)
    return [msgspec.json.decode(message.value, type=ConfigStatus) for message in found]


def applied(deployment: Deployment, version: int) -> set[tuple[int | None, int]]:
    return {(s.partition, s.effective_tick) for s in statuses(deployment) if s.verdict == "applied" and s.version == version}


def test_a_limit_changed_during_an_attack_holds_on_two_judges_from_one_second_on(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    timing = {"lateness_s": LATENESS_S, "ahead_s": 2}
    with deploy(broker, tmp_path, unique("config")[-40:], 2, time=timing) as deployment:
        connection, file = Connection(deployment.config.kafka), str(tmp_path / "config.toml")
        deployment.start("observe")
        judges = [deployment.start("judge") for _ in range(2)]
        deployment.wait_joined()
        attack = Attack(deployment)
        try:
            deployment.wait(lambda: deployment.is_judged(int(time.time()) - 10), 60, "judges to follow")
            run(file, "config", "set", "playbooks.web", *PLAYBOOK, "--force")
            run(file, "playbook", "arm", "web", "--force")
            words = ["config", "set", "detectors.rate", f"{AGAINST}=50", "--base", "3", "--force", "--config", file]
            first = CliRunner().invoke(app, [*words, "--who", "one", "--why", "attack"])
            second = CliRunner().invoke(app, [*words, "--who", "two", "--why", "attack too"])
            assert (first.exit_code, second.exit_code) == (0, 2), (first.output, second.output)
            # Two at the same moment: both have looked at version 3, and the second one's record lies on the topic.
            chain, _ = read_history(deployment.config, connection)
            change = chain.accepted[-1].change
            stale = write_change(deployment.config, connection, msgspec.structs.replace(change, who="two"))
            garbage = Producer({"bootstrap.servers": broker, "log_level": 0})
            garbage.produce(topic_of(deployment.config), b"\x00 limit = 0")
            assert garbage.flush(30) == 0
            tick = change.effective_tick
            assert tick - change.at_ms // 1000 <= LATENESS_S + 6
            everywhere = {(partition, tick) for partition in range(JUDGE_PARTITIONS)}
            deployment.wait(lambda: applied(deployment, 4) == everywhere, 60, "every judge partition to hold to it")
            deployment.wait(lambda: deployment.is_judged(tick + 2), 60, "judges to go on")
            reverted, since = revert_one(deployment, file)
            deployment.wait(lambda: deployment.is_judged(since + 2), 60, "judges to hear of it")
        finally:
            attack.stop()
        deployment.wait_judged(int(time.time()) - 1)
        assert all("config_applied" in deployment.log_of(judge) for judge in judges)
        check_reverted(deployment, file, reverted, since)
        check_decisions(deployment, attack, read_history(deployment.config, connection)[0], tick)
        told = {(s.verdict, s.offset): s.why for s in statuses(deployment) if s.verdict != "applied"}
        assert told.keys() == {*(("accepted", offset) for offset in range(3)), ("refused", stale), ("refused", stale + 1)}
        assert "somebody else has changed it meanwhile" in told["refused", stale]
        assert not [s for s in statuses(deployment) if s.verdict == "late"]


def run(file: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--who", "ana", "--why", "attack", "--config", file])
    assert done.exit_code == 0, done.output
    return done.stdout


def runs(file: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["playbook", "runs", "--json", "--config", file])
    assert done.exit_code == 0, done.output
    return {one["steps"][0]["target"]["value"]: one for one in orjson.loads(done.stdout)}


def revert_one(deployment: Deployment, file: str) -> tuple[Any, int]:
    """(a run of the playbook, the second from which all it has done is taken back)."""
    listed = CliRunner().invoke(app, ["playbook", "list", "--config", file]).stdout
    assert "challenge (found)" in next(line for line in listed.splitlines() if " web " in line and " armed " in line)
    found = runs(file)
    assert found.keys() == {f"203.0.113.{n}" for n in range(ATTACKERS)}, "each address is a run of its own"
    one = found["203.0.113.7"]
    assert (one["state"], one["reverted"], one["playbook"]) == ("armed", False, "web")
    assert "challenge ip 203.0.113.7" in run(file, "playbook", "revert", one["run"])
    (said,) = [decode_feedback(message.value) for message in deployment.read(deployment.prefix + FEEDBACK)]
    return one, said.tick


def check_reverted(deployment: Deployment, file: str, reverted: Any, since: int) -> None:
    """It was lifted from one second on, no other run began while its condition lasted, and the others went on."""
    assert {value for value, one in runs(file).items() if one["reverted"]} == {"203.0.113.7"}
    steps = [m for m in deployment.mitigations() if m.stage == "final" and m.detector.startswith("playbook-web")]
    mine = [m for m in steps if m.target.value == "203.0.113.7"]
    assert {m.evidence.features.get("run") for m in mine if m.state == "active"} == {reverted["run"]}
    assert [m.tick for m in mine if m.state == "lifted"] == [since]
    assert max(m.tick for m in mine if m.state == "active") < since
    assert not [m for m in steps if m.target.value != "203.0.113.7" and m.state == "lifted"]


def check_decisions(deployment: Deployment, attack: Attack, chain: ConfigChain, tick: int) -> None:
    """Windows had kept their counts: all are found in the second that the limit holds from, and by a replay too."""
    made = [m for m in deployment.mitigations() if m.stage == "final" and m.detector == "rate"]
    assert {m.target.value for m in made} == {f"203.0.113.{n}" for n in range(ATTACKERS)}
    firsts = [m for m in made if m.tick == tick]
    assert len(firsts) == ATTACKERS
    assert {(m.limit, m.config_version) for m in firsts} == {(50, 4)}
    assert min(m.tick for m in made) == tick
    assert all(m.observed > 50 and m.window.start < tick for m in firsts)
    history = ConfigChain(deployment.config)
    for one in chain.accepted:
        history.offer(encode_change(one.change), offset=one.offset)
    ends = b"\n".join([*attack.lines, b""])
    replayed = decide(ends, 1000 * int(time.time() + 5), deployment.config, history=history)
    assert {m.id for m in made} == {m.id for m in replayed.mitigations if m.stage == "final" and m.detector == "rate"}
