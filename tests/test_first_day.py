"""What docs/first-day.md promises of its files and its nginx format."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
from typer.main import get_command

from detectors.registry import settings, window_rules
from floodwall.cli import app
from replay.doctor import examine_lines
from schemas.config import DEFAULT_ALLOWLIST_CORE, Config, load_config, parse_config

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "first-day.md").read_text()
FILE = ROOT / "deploy" / "first-day.toml"
TOLD_ONLY = {"surge", "entropy", "leaked"}
"""Detectors that stop nobody: they only notify."""


def test_on_the_first_day_nobody_is_stopped() -> None:
    config = load_config(FILE)
    armed = {name for name, section in settings(config).items() if section.enabled and not section.dry_run}
    assert armed <= TOLD_ONLY
    assert all(rule.dry_run for rule in window_rules(config))
    assert config.policy.allowlist_core == DEFAULT_ALLOWLIST_CORE


def nginx_line(**more: object) -> bytes:
    """The format of the page, filled in as nginx does."""
    block = PAGE.split("log_format floodwall escape=json\n")[1].split(";\n")[0]
    line = "".join(re.findall(r"'(.*)'", block))
    values = {
        "msec": "1795767773.738", "remote_addr": "192.0.2.10", "http_x_forwarded_for": "9.9.9.9, 203.0.113.7",
        "host": "www.example.com", "request_method": "GET", "request_uri": "/shop/item?id=1", "status": "200",
        "body_bytes_sent": "2", "request_time": "0.012", "http_user_agent": '\\"odd\\" agent', "request_id": "606e366c",
    }  # fmt: skip
    return re.sub(r"\$(\w+)", lambda found: str(more.get(found[1], values[found[1]])), line).encode() + b"\n"


def test_the_nginx_format_has_what_detectors_want() -> None:
    line = nginx_line()
    assert orjson.loads(line)["user_agent"] == '"odd" agent'
    config = parse_config({"input": {"proxy_depth": 1}})
    found = examine_lines(config, "log", line + nginx_line(http_x_forwarded_for="", http_user_agent=""), 1_795_767_780_000)
    assert (found.events, found.poison) == (2, {})
    assert found.addresses == {"x_forwarded_for": 0.5, "none": 0.5}
    wanted = {"time_ms", "duration_ms", "status", "bytes", "method", "path", "user_agent", "host"}
    assert wanted <= found.fields.keys()
    assert found.fields["duration_ms"] == 1.0
    alone = examine_lines(Config(), "log", line, 1_795_767_780_000)
    assert alone.addresses == {"connection": 1.0}
    assert not [
        text for text in found.blind if "per api_key" not in text and "per account" not in text and "registrations" not in text
    ]


def test_every_command_of_the_page_exists_with_its_options() -> None:
    told = [line.split("#")[0] for page in ("first-day", "explain", "monitoring", "privacy", "sizing")
            for line in (ROOT / "docs" / f"{page}.md").read_text().splitlines() if line.startswith("floodwall ")]  # fmt: skip
    assert len(told) >= 10
    for line in told:
        command = get_command(app)
        words = line.split()[1:]
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
