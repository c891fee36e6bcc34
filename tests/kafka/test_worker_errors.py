"""What keeps a worker from working is one line that says what to do, and an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from schemas.errors import BrokerError
from streams.failpoints import Failpoints
from streams.leaving import leave
from tests.kafka.deployment import PROJECT, deploy


def run(config: str, folder: Path, *words: str, seed: str | None = "for tests only") -> tuple[int, str]:
    (folder / "worker.toml").write_text(config)
    environment = {name: value for name, value in os.environ.items() if name != "FLOODWALL_SEED"}
    if seed is not None:
        environment["FLOODWALL_SEED"] = seed
    command = [sys.executable, "-m", "floodwall", "worker", *words, "--config", str(folder / "worker.toml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=PROJECT, timeout=60, check=False)
    return done.returncode, done.stderr


def test_no_broker(tmp_path: Path) -> None:
    code, said = run('[kafka]\ndevelopment = true\nbrokers = ["127.0.0.1:1"]\n', tmp_path, "observe")
    assert code == 6
    assert "127.0.0.1:1" in said
    assert "Traceback" not in said


def test_no_topic(broker: str, tmp_path: Path) -> None:
    config = f'[kafka]\ndevelopment = true\nbrokers = ["{broker}"]\ntopic_prefix = "nobody-made-these."\n'
    code, said = run(config, tmp_path, "judge")
    assert code == 6
    assert "floodwall topics create" in said
    assert "Traceback" not in said


def test_another_number_of_judge_partitions(broker: str, tmp_path: Path, unique: Callable[[str], str]) -> None:
    with deploy(broker, tmp_path, unique("mismatch")[-40:], 1) as deployment:
        config = (tmp_path / "config.toml").read_text().replace("judge_partitions = 4", "judge_partitions = 8")
        code, said = run(config, tmp_path, "judge")
        assert code == 6, said
        assert "judge_partitions" in said
        assert deployment.prefix in said


def test_no_seed(broker: str, tmp_path: Path) -> None:
    config = f'[kafka]\ndevelopment = true\nbrokers = ["{broker}"]\n'
    code, said = run(config, tmp_path, "observe", seed=None)
    assert code == 2
    assert "FLOODWALL_SEED" in said


def test_health_says_what_is_held_and_a_worker_stops_when_asked(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    with deploy(broker, tmp_path, unique("health")[-40:], 2) as deployment:
        worker = deployment.start("observe")
        deployment.wait_joined()
        log = next(tmp_path.glob("observe-*.log")).read_text()
        address = log.split("health=", 1)[1].split()[0]
        assert address.startswith("http://127.0.0.1:")

        def healthy() -> bool:
            with urllib.request.urlopen(address) as answer:
                said = msgspec.json.decode(answer.read())
            return bool(said["healthy"]) and len(said["partitions"]) == 2

        deployment.wait(healthy, 20, "the worker to be healthy")
        with urllib.request.urlopen(address.replace("/health", "/metrics")) as answer:
            assert b"floodwall_take_over_seconds_count 1.0" in answer.read()
        began = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0, deployment.logs()
        assert time.monotonic() - began < 15


def test_leaving_says_why_in_one_line_with_the_exit_code_of_the_error() -> None:
    code = "from schemas.errors import BrokerError; from streams.leaving import leave; leave(BrokerError('expected this'), 'x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == BrokerError.exit_code
    assert done.stderr.splitlines()[-1] == "floodwall: expected this"
    assert callable(leave)


def test_failpoints_are_off_unless_asked_for_by_a_name_that_there_is() -> None:
    Failpoints(None).passing("observe.sent")
    Failpoints("observe.sent:2").passing("observe.sent")
    with pytest.raises(ValueError, match="expected FLOODWALL_FAILPOINT to name one of"):
        Failpoints("nowhere:1")
