"""A leaked key on its whole way: GitHub's post, the topic, judges, the enforcement topic, and an operator who lifts it."""

from __future__ import annotations

import base64
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from engine.policy import FOR_EVER
from schemas.leaked import decode_leak, sha256_hex
from schemas.mitigation import Mitigation
from schemas.topics import LEAKED_KEYS
from tests.kafka.deployment import PROJECT, Deployment, deploy

TOKEN = "sk-live-5Kq0pX7vT2mB9zR4"
FINGERPRINT = sha256_hex(TOKEN.encode())
FLOODWALL = [sys.executable, "-m", "floodwall"]
LIMIT_S = 60.0


@contextmanager
def intake(folder: Path) -> Iterator[int]:
    """A running intake; its port."""
    log = folder / "intake.ndjson"
    words = [*FLOODWALL, "intake", "github", "--config", str(folder / "config.toml"), "--listen", "127.0.0.1:0", "--json"]
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=PROJECT)
    try:
        deadline = time.monotonic() + LIMIT_S
        while True:
            said = [orjson.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{")]
            ports = [line["port"] for line in said if line["event"] == "listening"]
            if ports:
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield ports[0]
    finally:
        process.terminate()
        process.wait(30)
    assert process.returncode == 0, log.read_text()
    assert TOKEN not in log.read_text()


def post(port: int, pen: ec.EllipticCurvePrivateKey) -> int:
    body = orjson.dumps([{"token": TOKEN, "type": "example", "url": "https://example.com/a", "source": "commit"}])
    signature = base64.b64encode(pen.sign(body, ec.ECDSA(SHA256()))).decode()
    headers = {"Github-Public-Key-Identifier": "a1", "Github-Public-Key-Signature": signature}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/github", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def of_leaked(deployment: Deployment, state: str) -> list[Mitigation]:
    found = [m for m in deployment.mitigations() if m.detector == "leaked" and m.action == "disable_key"]
    return [m for m in found if m.state == state]


def test_a_leaked_key_in_use_is_disabled_until_an_operator_lifts_it(
    broker: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    pen = ec.generate_private_key(ec.SECP256R1())
    pem = pen.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    (tmp_path / "github.json").write_bytes(orjson.dumps({"public_keys": [{"key_identifier": "a1", "key": pem}]}))
    with deploy(broker, tmp_path, unique("leaked"), 1) as deployment:
        with (tmp_path / "config.toml").open("a") as config:
            config.write(f'[intake]\npublic_keys = "{tmp_path / "github.json"}"\nforms = ["sha256"]\n')
            config.write("[detectors.leaked]\ndisable = true\n")
        with intake(tmp_path) as port:
            assert post(port, pen) == 200
            assert post(port, pen) == 200
        [message] = deployment.read(deployment.prefix + LEAKED_KEYS)
        report = decode_leak(message.value)
        assert (message.key, report.fingerprint) == (FINGERPRINT.encode(), FINGERPRINT)
        assert TOKEN.encode() not in message.value
        deployment.start("observe")
        deployment.start("judge")
        deployment.wait_joined()
        deployment.wait(lambda: time.time() > report.tick + 1, LIMIT_S, "the report to hold")
        used = {"path": "/v1/chat", "status": 200, "api_key_hash": FINGERPRINT}
        deployment.produce([[orjson.dumps({**used, "time": time.time_ns() // 1_000_000}) for _ in range(50)]])
        deployment.wait(lambda: bool(of_leaked(deployment, "active")), LIMIT_S, "the key to be disabled")
        [disabled] = of_leaked(deployment, "active")
        assert (disabled.target.value, disabled.expires_at, disabled.stage) == (FINGERPRINT, FOR_EVER, "final")
        words = ["mitigations", "lift", FINGERPRINT, "--type", "api_key", "--owner", "ana", "--reason", "ours"]
        lift = [*FLOODWALL, *words, "--config", str(tmp_path / "config.toml")]
        done = subprocess.run(lift, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        deployment.wait(lambda: bool(of_leaked(deployment, "lifted")), LIMIT_S, "the lift")
