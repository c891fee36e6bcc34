"""The demo as CI can run it: without a terminal, a little shorter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson

FLOODWALL = str(Path(sys.executable).parent / "floodwall")


def test_the_demo_recovers_and_says_so() -> None:
    done = subprocess.run([FLOODWALL, "demo", "--seconds", "18", "--json"], capture_output=True, check=False, timeout=150)
    document = orjson.loads(done.stdout)
    assert done.returncode == 0, document
    assert document["success_before"] > 0.95
    assert document["success_lowest"] < 0.9
    assert document["success_after"] >= 0.95
    assert set(document["targets"]) == {f"203.0.113.{last}" for last in (7, 66, 99, 142)}
    assert done.stderr == b""
