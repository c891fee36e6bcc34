"""Keys, passwords, names and addresses of mail are planted everywhere in records; nothing of them may be shown."""

from __future__ import annotations

import gzip
import os
import random
import string
import subprocess
import sys
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.redact import Redaction, redact_agent, redact_log_line, redact_path, redact_request, redact_target
from schemas.decoding.layout import Slot

KEYS = ("sk-live-QUJDREVGR0hJSktMTU5PUFFSU1RVVg", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "AKIAIOSFODNN7EXAMPLE")
PASSWORD, MAIL, NAME = "Tr0ub4dor&3-hunter2", "alice.surname@example.org", "alice_surname"
SECRETS = (*KEYS, PASSWORD, MAIL, NAME)
EVERYTHING = Redaction({})


def hides(shown: str) -> bool:
    return not any(secret in shown for secret in SECRETS) and "hunter2" not in shown and "surname" not in shown


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "line",
    [
        '203.0.113.7 - {} [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8"',
        '203.0.113.7 {} - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8"',
        '{} - - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8"',
        '203.0.113.7 - - [{}] "GET / HTTP/1.1" 200 12 "-" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET /a?q={} HTTP/1.1" 200 12 "-" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET /a?{} HTTP/1.1" 200 12 "-" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET /a#{} HTTP/1.1" 200 12 "-" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET /reset/{} HTTP/1.1" 200 12 "-" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "{} /a HTTP/1.1" 200 12 "-" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "{}" 400 12 "-" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET / {}" 400 12 "-" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "https://u:{}@example.com/" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "https://example.com/?token={}" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "{}" "curl/8"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8 (password {})"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "-" "bot (+mailto:alice.surname@example.org)"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8" "{}"',
        '203.0.113.7 - - [27/Nov/2026:03:12:09 +0000] "GET / HTTP/1.1" 200 12 "-" "curl/8" key={}',
        "some other line {}",
        '{{"message": "{}"',
    ],
)
def test_no_secret_is_shown_of_a_log_line(line: str, secret: str) -> None:
    assert hides(EVERYTHING.line(line.format(secret).encode()))


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_shown_of_a_json_record_whatever_field_it_stands_in(secret: str) -> None:
    fields = [*EVERYTHING._slots, "password", "headers.cookie", "body", "whatever"]
    for path in fields:
        document: object = secret
        for name in reversed(path.split(".")):
            document = {name: document}
        record = orjson.dumps({"time": "2026-11-27T03:12:09Z", "status": 200, **document})  # type: ignore[dict-item]
        for data in (record, b"[" + record + b"]", orjson.dumps({"log": record.decode()}), orjson.dumps({secret: 1})):
            shown = EVERYTHING.line(data)
            if secret == NAME and EVERYTHING._slots.get(path) in (Slot.USER_AGENT, Slot.PATH, Slot.URL):
                continue  # a word like any other word there
            assert hides(shown), (path, shown)


def planted(folder: Path) -> list[str]:
    """Files with the secrets wherever traffic can carry them, and enough of it that some of it is mitigated."""
    lines, rows = [], []
    for number in range(400):
        secret = SECRETS[number % len(SECRETS)]
        moment = f"27/Nov/2026:03:12:{number % 60:02d} +0000"
        lines += [
            f'203.0.113.7 - {NAME} [{moment}] "GET /a?q={secret}&pw={PASSWORD} HTTP/1.1" 200 12 "https://u:{secret}@e/" "-"',
            f'203.0.113.7 - - [{moment}] "GET /reset/{KEYS[0]} HTTP/1.1" 404 12 "-" "curl/8"',
            f'{secret} {MAIL} [{moment}] "GET /',
            f'{{"email": "{MAIL}", "api_key": "{KEYS[0]}", "password": "{PASSWORD}"',
            orjson.dumps({"user": secret, "headers": {"authorization": f"Bearer {secret}"}, "note": secret}).decode(),
        ]
        rows.append(
            {
                "time": 1795749129 + number // 100, "client_ip": "203.0.113.8", "path": "/v1", "status": 401, "user_name": NAME,
                "api_key": KEYS[number % 3], "email": MAIL, "event": "registration", "headers": {"authorization": secret},
            }
        )  # fmt: skip
    (folder / "access.log").write_text("\n".join(sorted(lines, key=lambda line: line[-9:])) + "\n")
    (folder / "events.ndjson").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    pq.write_table(pa.Table.from_pylist([*rows, {"time": None, "email": MAIL}]), folder / "events.parquet")
    (folder / "half.log.gz").write_bytes(gzip.compress("\n".join(lines).encode())[:-20])
    return [str(folder / name) for name in ("access.log", "events.ndjson", "events.parquet", "half.log.gz")]


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_no_secret_is_in_anything_that_a_replay_prints_or_writes(words: list[str], tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    names = {name: tmp_path / name for name in ("out", "findings", "manifest", "state")}
    options = [word for name, path in names.items() for word in (f"--{name}", str(path))]
    command = [str(Path(sys.executable).parent / "floodwall"), "replay", *planted(sources), *options, *words]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "FLOODWALL_SEED": "for tests only"})
    assert done.returncode == 5, done.stderr
    outputs = {"stdout": done.stdout, "stderr": done.stderr} | {name: path.read_bytes() for name, path in names.items()}
    assert outputs["out"]
    assert b"truncated" in outputs["manifest"]
    assert b"unreadable" in outputs["stdout"] or words
    shown = {(name, secret) for name, data in outputs.items() for secret in (*KEYS, PASSWORD, MAIL) if secret.encode() in data}
    assert shown == set()


def test_what_helps_is_shown() -> None:
    line = (
        '203.0.113.7 - bob [27/Nov/2026:03:12:09 +0000] "POST /v1/users/8812/login?next=/home HTTP/1.1" 401 120 '
        '"https://example.com/start" "Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.0.0" rt=0.003'
    )
    assert redact_log_line(line) == (
        '203.0.113.7 - … [27/Nov/2026:03:12:09 +0000] "POST /v1/users/…/login?next=… HTTP/1.1" 401 120 '
        '"https://example.com/start" "Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.0.0" rt=0.003'
    )
    record = orjson.dumps(
        {"account": "acct_7", "time": 1795392407, "client_ip": "203.0.113.7", "status": 401, "email": "a@example.com", "x": 1}
    )
    assert Redaction({}).line(record) == (
        "time=1795392407 client_ip=203.0.113.7 status=401 email=…@example.com (2 more fields)"
    )
    assert "account=acct_7" in Redaction({}, "acct_7").line(record)


def test_paths_targets_and_agents_keep_their_words() -> None:
    assert redact_path("/.env/wp-login.php/12/a@b.c") == "/.env/wp-login.php/…/…"
    assert redact_target("https://u:p@example.com/x") == "https://example.com/x"
    assert redact_request("GET * HTTP/1.1") == "GET … HTTP/1.1"
    assert redact_agent("sqlmap/1.8#stable (https://sqlmap.org)") == "sqlmap/1.8#stable (https://sqlmap.org)"
    assert redact_agent("OpenAI/Python 1.68.2") == "OpenAI/Python 1.68.2"


@given(st.binary(max_size=400))
def test_any_bytes_become_one_short_printable_line(data: bytes) -> None:
    shown = EVERYTHING.line(data)
    assert shown.isprintable()
    assert len(shown) <= 170


def test_long_hostile_lines_take_no_longer_than_their_length() -> None:
    # A pattern that goes back would not come to an end within the test's time.
    chance = random.Random(1)
    for alphabet in ("a", "a-", "1.", "/", '"\\', "[", "a=&", string.printable):
        text = "".join(chance.choice(alphabet) for _ in range(1 << 18))
        for start in ("", "{", '"GET /', '1.2.3.4 - - [x] "GET / HTTP/1.1" 1 1 "-" "'):
            EVERYTHING.line((start + text).encode())
