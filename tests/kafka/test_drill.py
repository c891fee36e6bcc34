"""A drill sent into Kafka is decided like anything else, and every mitigation says that it is a drill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson

from tests.kafka.deployment import deploy

FLOODWALL = [str(Path(sys.executable).parent / "floodwall")]


def test_workers_with_the_setting_mark_what_they_decide_about_a_drill(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    with deploy(broker, tmp_path, unique("drill")[-40:], 2, policy={"drill": True}) as deployment:
        words = ("--duration", "120", "--events-per-second", "10", "--strength", "ordinary", "--at", "30", "--storms", "none")
        done = subprocess.run(
            [*FLOODWALL, "drill", "run", "trap_spoofed", *words, "--stream", "requests", "--kafka", broker, "--config",
             str(tmp_path / "config.toml"), "--out", str(tmp_path), "--start", "2026-11-23T10:00:00"],
            capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told = [orjson.loads(line) for line in (tmp_path / "labels.ndjson").read_bytes().splitlines()]
        sent = told[0]["events"]["requests"]
        assert sum(len(message.value.splitlines()) for message in deployment.read(deployment.raw)) == sent
        deployment.start("observe")
        deployment.start("judge")
        deployment.wait(lambda: any(m.stage == "final" for m in deployment.mitigations()), 120, "a mitigation")
        deployment.wait_judged(told[1]["last_ms"] // 1000 - 5, 120)
        mitigations = deployment.mitigations()
    (attacker,) = [record["ip"] for record in told if record["kind"] == "source"]
    assert {m.target.value for m in mitigations if m.action != "notify"} == {attacker}
    assert all(m.drill for m in mitigations)
    assert attacker not in told[1]["victims"]["ip"]
