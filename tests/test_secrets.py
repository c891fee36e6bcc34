"""Keys, passwords and addresses of mail stand in every field of every format; no command prints or writes any of them.

What an edge acts on has to have its target's value: the records that ``--out`` and ``--findings`` write, as topics have them,
name it. There they may stand in the target and in the sentence that quotes it, and nowhere else.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from floodwall.cli import app
from schemas.decoding.paths import meanings
from schemas.mitigation import Mitigation, decode_mitigation

T0 = 1_795_392_000
KEY, TOKEN = "sk-live-QUJDREVGR0hJSktMTU5PUFFSU1RVVg", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
PASSWORD, MAIL = "Tr0ub4dor&3-hunter2", "alice.surname@example.org"
PLANTED = (KEY, TOKEN, PASSWORD, MAIL)
NEEDLES = ("QUJDREVGR0hJ", "16C7e42F292c", "hunter2", "Tr0ub4", "alice.surname", "surname@")
"""Parts of them that are as bad as the whole."""
SEED, BROKER_PASSWORD = "a-seed-that-nobody-may-see", "a-word-for-the-broker"
OURS = (SEED, BROKER_PASSWORD)
DIMENSIONS = ("ip", "account", "api_key", "user_agent", "route", "service", "fingerprint", "country", "email_domain")

EXCUSED = {
    "demo": "makes its own traffic",
    "drill list": "reads no traffic", "drill run": "makes its own traffic",
    "config schema": "reads nothing", "config get": "prints what operators wrote, on request",
    "broker up": "reads no traffic", "broker down": "reads no traffic", "broker reset": "reads no traffic",
    "broker status": "reads no traffic", "keys make": "prints a public key", "keys show": "prints a public key",
    "edge nft": "enforces, and prints counts", "edge bouncer-api": "enforces: its feed is records",
    "edge bouncer-api keys add": "prints a key of ours, once, to whoever makes it",
    "edge bouncer-api keys list": "reads no traffic", "edge bouncer-api keys revoke": "reads no traffic",
    "edge nginx": "enforces: its files are records", "edge webhook": "enforces: its calls are records",
    "intake github": "tests/test_leaked.py: what comes in is a key, and what it logs is not",
    "drill score": "needs labels of a drill; it prints attacks and numbers",
    "worker": "tests/kafka/test_poison.py",
    "mitigations show": "prints records, on request",
}  # fmt: skip
ON_KAFKA = {
    "status", "feedback", "topics create", "topics describe", "mitigations list", "mitigations follow", "mitigations add",
    "mitigations lift", "produce", "playbook revert", "models reset",
}  # fmt: skip
"""tests/kafka/test_mitigations_command.py runs these."""


def leaves(app: typer.Typer) -> Iterator[str]:
    """Every command there is, from the parser itself."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[str]:
        inner = getattr(command, "commands", None)
        if inner is None or command.invoke_without_command:
            yield " ".join(words)
        for name in inner or ():
            yield from walk(inner[name], (*words, name))

    yield from walk(typer.main.get_command(app), ())


def found_in(data: bytes | str) -> set[str]:
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    return {needle for needle in (*NEEDLES, *OURS) if needle in text}


def _nested(path: str, value: str) -> dict[str, Any]:
    inner: Any = value
    for name in reversed(path.split(".")):
        inner = {name: inner}
    return inner  # type: ignore[no-any-return]


BASE = {"client_ip": "203.0.113.7", "method": "POST", "path": "/v1/chat", "host": "api.example.com"}


def events() -> list[dict[str, Any]]:
    """Each field that means something holds each secret, in requests that succeed and in requests that fail."""
    found: list[dict[str, Any]] = []
    for second in range(12):
        for number, path in enumerate(meanings({})):
            secret = PLANTED[(number + second) % len(PLANTED)]
            for status in (200, 401):
                event = {"time": T0 + second, "status": status, **BASE}
                event |= _nested(path, f"/x/{secret}?q={secret}#{secret}" if path in ("path", "uri", "url") else secret)
                event |= {"event": "registration"} if "email" in path else {}
                found.append(event)
        for secret in PLANTED:
            known = {"time": T0 + second, "status": 200, **BASE, "account": secret, "user_agent": f"tool {secret}"}
            known |= {secret: 1, "note": [secret], "in": {secret: {secret: secret}}}
            found += [{**known, "client_ip": f"198.51.100.{number}"} for number in range(4)]
    return found


def text_lines() -> list[str]:
    found = []
    for second in range(12):
        stamp = f"23/Nov/2026:00:00:{second:02d} +0000"
        for secret in PLANTED:
            for asked in (f"GET /reset/{secret}?a={secret} HTTP/1.1", f"{secret} / HTTP/1.1", secret):
                found += [f'203.0.113.8 {secret} {secret} [{stamp}] "{asked}" 401 9 "https://u:{secret}@e/" "{secret}"']
            found += [f'{{"time": "{secret}", "account": "{secret}"', f"{secret} garbage {secret}", f"\0\x01{secret}"]
    return found


class Planted:
    """Files, a configuration, and a run over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events = self._write("events.ndjson", b"\n".join(map(orjson.dumps, events())))
        lines = "\n".join(text_lines()).encode()
        self.text = self._write("access.log", lines)
        self.broken = self._write("half.log.gz", gzip.compress(lines)[:-20])
        self.parquet = str(folder / "events.parquet")
        rows = [{"time": T0 + at // 9, "client_ip": "203.0.113.9", "account": MAIL, "api_key": KEY, "path": f"/{PASSWORD}",
                 "status": 401, "user_agent": TOKEN} for at in range(60)]  # fmt: skip
        pq.write_table(pa.Table.from_pylist([*rows, {"time": None, "account": MAIL}]), self.parquet)
        rules = "\n".join(
            f'[[detectors.rate.rules]]\ndimension = "{dimension}"\nmeasure = "requests"\nwindow_s = 10\nlimit = LIMIT\n'
            'action = "throttle"' for dimension in DIMENSIONS
        )  # fmt: skip
        text = f'profile = "api"\n[engine]\nseed = "{SEED}"\n[policy]\nshare_max = 1.0\n[kafka]\ndevelopment = true\n' \
               f'brokers = ["127.0.0.1:1"]\n{rules}\n'  # fmt: skip
        self.low, self.high = (self._write(f"{limit}.toml", text.replace("LIMIT", str(limit)).encode()) for limit in (3, 10**6))
        self.out, self.findings = folder / "out.ndjson", folder / "findings.ndjson"
        self.history, self.state = str(folder / "history.ndjson"), str(folder / "state")

    def _write(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data + b"\n")
        return str(self.folder / name)

    def records(self) -> list[Mitigation]:
        return [decode_mitigation(line) for line in self.out.read_bytes().splitlines()]

    def commands(self) -> dict[str, list[list[str]]]:
        """What is run of each command: with every form of output that it has."""
        sources, low = [self.events, self.text, self.parquet, self.broken], ["--config", self.low]
        decided = ["--out", str(self.out), "--findings", str(self.findings)]
        folder, some = self.folder, {one.target.type: one.id for one in self.records()} if self.out.exists() else {}
        gate = ["--backtest", "1h", "--max-collateral", "0%", "--source", self.events]
        changed = ["config", "set", "detectors.rate", "rules[1].limit=2", "--why", "w", "--config", self.high]
        history = ["--history", self.history]
        files = ["--mitigations", str(self.out), "--findings", str(self.findings), *low]
        runs = ["--decisions", str(self.out), *low]
        return {
            "replay": [
                ["replay", *sources, *low, *decided, "--manifest", str(folder / "manifest"), "--report",
                 str(folder / "report.json")],
                ["replay", *sources, *low, "--json", "--state", self.state],
                ["replay", self.text, "--leaked", self.events],
                ["replay", f"kafka://ana:{BROKER_PASSWORD}@127.0.0.1:1/requests", *low],
            ],
            "watch": [["watch", "-", *low]],
            "doctor": [["doctor", *sources[:3], *low], ["doctor", *sources, *low, "--json"]],
            "diff": [
                ["diff", self.high, self.low, self.events, self.text, "--all", "--max-collateral", "0%", "--fail-on", "any"],
                ["diff", self.high, self.low, self.events, "--json"],
                ["diff", str(self.out), self.low, self.events, "--all"],
            ],
            "what-if": [
                ["what-if", self.events, *low, "--limit", "detectors.rate.rules[0].limit=9", *words]
                for words in ([], ["--json"])
            ],
            "explain": [["explain", one, *files, "--json"] for one in some.values()]
            + [["explain", some[kind], *files] for kind in ("account", "user_agent", "route") if kind in some],
            "verify": [["verify", "--all", "--mitigations", str(self.out), *low, *words] for words in ([], ["--json"])],
            "config check": [
                ["config", "check", self.low, "--against", self.high, *gate], ["config", "check", self.low],
                ["config", "check", self._write("wrong.toml", f'[kafka]\npasword = "{BROKER_PASSWORD}"'.encode())],
                ["config", "check", self._write("type.toml", f'[engine]\nseed = ["{SEED}"]'.encode())],
            ],
            "config set": [[*changed, *history, *gate, *words] for words in ([], ["--check"], ["--json"])]
            + [[*changed, *history, "--force"]],
            "config list": [["config", "list", "--config", self.high, *history]],
            "config history": [["config", "history", "--config", self.high, *history, *words] for words in ([], ["--json"])],
            "config rollback": [["config", "rollback", "--why", "w", "--config", self.high, *history, "--force"]],
            "models list": [["models", "list", "--state", self.state, *low, *words] for words in ([], ["--json"])],
            **{f"models {name}": [["models", name, model, "--state", self.state, *low] for model in ("keys", "registrations")]
               for name in ("show", "export")},
            "playbook list": [["playbook", "list", "--config", self.high, *history]],
            "playbook runs": [["playbook", "runs", *runs, *words] for words in ([], ["--json"])],
            "playbook show": [["playbook", "show", "leaked-key", "--config", self.high, *history]],
            **{f"playbook {name}": [["playbook", name, "leaked-key", "--why", "w", "--config", self.high, *history]]
               for name in ("arm", "simulate", "off")},
        }  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("planted"))


def test_every_command_is_looked_at_or_excused_with_a_reason(planted: Planted) -> None:
    assert sorted([*planted.commands(), *EXCUSED, *ON_KAFKA]) == sorted(leaves(app))


def run(planted: Planted, words: list[str]) -> tuple[int, str]:
    if words[0] != "watch":
        done = CliRunner().invoke(app, words)
        return done.exit_code, done.output
    with open(planted.events, "rb") as lines:  # standard input has to be a file
        ended = subprocess.run(
            [sys.executable, "-m", "floodwall", *words], stdin=lines, capture_output=True, check=False
        )  # fmt: skip
    return ended.returncode, (ended.stdout + ended.stderr).decode()


def test_no_command_prints_or_writes_a_secret(planted: Planted) -> None:
    shown: dict[str, set[str]] = {}
    said = ""
    for name in planted.commands():
        before = set(planted.folder.iterdir())
        for words in planted.commands()[name]:  # after a replay: of what it has decided
            code, output = run(planted, words)
            assert code in (0, 1, 2, 5), (words, output)
            assert output, words
            said += f"{name}: {output}\n"
            if found := found_in(output):
                shown[" ".join(words[:3])] = found | {line for line in output.splitlines() if found_in(line)}
        for path in set(planted.folder.iterdir()) - before - {planted.out, planted.findings, Path(planted.state)}:
            if not path.name.endswith(".toml") and (found := found_in(path.read_bytes())):
                shown[path.name] = found
    assert shown == {}
    # It was put to the test: secrets were there to be shown.
    for text in ("account … (#", "user_agent … (#", "most by account … (#", "service … (#", "differs "):
        assert text in said, text


def test_records_name_their_target_and_nothing_else(planted: Planted) -> None:
    if not planted.out.exists():
        CliRunner().invoke(app, planted.commands()["replay"][0])
    kinds = set()
    for one in planted.records():
        kinds.add(one.target.type)
        document = msgspec.to_builtins(one)
        del document["target"]
        quoted = str(document.pop("reason")).replace(one.target.value, "")
        assert found_in(orjson.dumps(document)) == set()
        assert found_in(quoted) == set() or one.target.type == "signature"
    assert kinds >= set(DIMENSIONS) - {"country"}
