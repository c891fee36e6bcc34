"""The gate on what the topics hold, and what was decided live beside a replay of it, through a real broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from broker.config_topic import read_history
from broker.connection import Connection
from engine.clock import SystemClock
from engine.outbox import Decisions
from floodwall.cli import app
from replay.run import replay
from schemas.config import load_config
from schemas.mitigation import encode_line
from schemas.topics import CONFIG


class Lines:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, decisions: Decisions) -> None:
        self.lines += [encode_line(record) for record in decisions.mitigations]


def test_the_last_hour_of_the_topics_refuses_a_change(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    requests, mitigations, prefix = unique("requests"), unique("mitigations"), unique("gate")[-60:] + "."
    admin = AdminClient({"bootstrap.servers": broker, "log_level": 0})
    for created in admin.create_topics(
        [NewTopic(requests, 2), NewTopic(mitigations, 1), NewTopic(prefix + CONFIG, 1)]
    ).values():
        created.result(timeout=10)
    first_s = SystemClock().now_ms() // 1000 - 600
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "log_level": 0})
    for second in range(60):
        for number in range(40):  # each of two busy customers, 20 a second
            event = {
                "time": first_s + second + number / 100, "client_ip": f"198.51.100.{number % 2}", "method": "POST",
                "path": "/v1/chat", "status": 200, "account": f"acct_{number % 2}",
            }  # fmt: skip
            moment_ms = (first_s + second) * 1000
            producer.produce(requests, orjson.dumps(event), partition=number % 2, timestamp=moment_ms)
    producer.flush(10)
    file, lower = tmp_path / "now.toml", tmp_path / "lower.toml"
    for path, limit in ((file, 10_000), (lower, 50)):
        path.write_text(
            f'profile = "api"\n[engine]\nseed = "for tests only"\n[policy]\nshare_max = 1.0\n[kafka]\nbrokers = ["{broker}"]\n'
            f'development = true\ntopic_prefix = "{prefix}"\ntopics = ["{requests}"]\n'
            f'[[detectors.rate.rules]]\ndimension = "account"\n'
            f'measure = "requests"\nwindow_s = 10\nlimit = {limit}\naction = "throttle"\n'
        )
    runner = CliRunner()
    gate = ["--backtest", "1h", "--max-collateral", "1%", "--against", str(file)]
    refused = runner.invoke(app, ["config", "check", str(lower), *gate])
    assert refused.exit_code == 2
    assert "got " in refused.stderr
    assert "of 2,400 events, most by account acct_" in refused.stderr

    # The same gate before the topic: what it refuses is not written, what passes is what judges read.
    config = load_config(file)
    change = ["config", "set", "detectors.rate", "--why", "w", "--force", "--config", str(file), *gate[:4]]
    refused = runner.invoke(app, [*change, "rules[0].limit=50"])
    assert refused.exit_code == 2
    assert "of 2,400 events, most by account acct_" in refused.stderr
    assert read_history(config, Connection(config.kafka))[1] == []
    passed = runner.invoke(app, [*change, "rules[0].limit=9000"])
    assert passed.exit_code == 0, passed.output
    assert "tried on 2,400 events: newly mitigates 0 of 2,400 taken for normal" in passed.stderr
    chain, written = read_history(config, Connection(config.kafka))
    assert [one.accepted for one in written] == chain.accepted
    [accepted] = chain.accepted
    assert accepted.standing.config.detectors["rate"]["rules"][0]["limit"] == 9000
    assert accepted.change.effective_tick > SystemClock().now_ms() // 1000, "judges have the time to hear of it"

    words = ["what-if", f"kafka:///{requests}", "--config", str(file), "--limit", "detectors.rate.rules[0].limit=50"]
    grid = runner.invoke(app, [*words, "--jobs", "1", "--json"])
    assert grid.exit_code == 0, grid.output
    assert [cell["mitigated"] for cell in orjson.loads(grid.stdout)["cells"]] == [0, 2]
    assert f"as it is: version 2, by the topic {prefix}{CONFIG}" in orjson.loads(grid.stdout)["said"]

    live = Lines()
    replay(load_config(lower), [f"kafka://{broker}/{requests}"], live, SystemClock())
    for line in live.lines:
        producer.produce(mitigations, line)
    producer.flush(10)
    words = ["diff", f"kafka:///{mitigations}", str(lower), f"kafka:///{requests}", "--json", "--fail-on", "any"]
    same = runner.invoke(app, words)
    assert same.exit_code == 0, same.output
    assert (orjson.loads(same.stdout)["rows"], orjson.loads(same.stdout)["same"]) == ([], 2)
