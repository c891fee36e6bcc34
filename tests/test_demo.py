"""The demo as CI can run it: without a terminal, a little shorter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from drills.demo_network import Loopback
from drills.demo_service import Second, Stage
from floodwall.demo_screen import SERVICE, Plan, Story, conclude
from schemas.mitigation import Evidence, Mitigation, Target, Window

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


PLAN = Plan(seconds=30.0, seed=1, as_json=False, title="demo", try_next="the next thing", enforced_by=SERVICE)
MITIGATION = Mitigation(
    id="x", tick=1_795_000_010, stage="early", state="active", action="throttle", target=Target(type="ip", value="203.0.113.7"),
    detector="rate", detector_version=1, reason="180 requests in 1 second", severity=8, confidence=0.9,
    window=Window(start=1, end=2), observed=180, limit=100, issued_at=1, expires_at=40, evidence=Evidence(),
)  # fmt: skip


@pytest.mark.parametrize(
    ("worst", "last", "mitigated", "code", "said"),
    [
        (0.2, 1.0, True, 0, "first mitigation 1.5 s after the attack began"),
        (0.2, 0.3, True, 1, "nothing recovered"),
        (0.2, 1.0, False, 1, "nothing recovered"),
        (1.0, 1.0, True, 1, "the attack did no harm"),
    ],
)
def test_it_ends_by_saying_what_happened_and_what_to_try_next(
    worst: float, last: float, mitigated: bool, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(tmp_path / "log", Loopback())
    for at in range(30):
        share = 1.0 if at < 10 else worst if at < 13 else last
        stage.seconds[at] = Second(honest=100, honest_served=int(100 * share))
    story = Story()
    if mitigated:
        story.first, story.first_at, story.targets = MITIGATION, 11.5, {"203.0.113.7": MITIGATION}
    assert conclude(stage, story, PLAN) == code
    out, err = capsys.readouterr()
    assert said in out + err
    assert out.splitlines()[-1] == "Try next:  the next thing"
