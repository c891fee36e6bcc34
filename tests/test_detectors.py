"""What holds of every detector: its recorded case, and the contract that no cut, order, partition or restart changes it.

A case is `tests/cases/NAME.json`: traffic as steps, and the findings that are to come of it. The reviewer reads it as the
specification. Each step is ``{"from": second, "to": second, "every_ms": n, "event": {...}}``; ``{n}`` in a text is the event's
number within its step, and ``{cases}`` the folder of cases.
"""

from __future__ import annotations

import inspect
import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from detectors.registry import modules, registered
from detectors.windowed import Detector
from engine.embedded import Embedded
from schemas.config import Config
from tests.engines import as_chunk, conclude, config_of, decide, feed, nothing_was_bounded, only

CASES = Path(__file__).parent / "cases"
START_S = 1_795_000_020
DETECTORS = [pytest.param(detector, id=detector.name) for detector in registered()]


def case_of(detector: Detector) -> dict[str, Any]:
    file = CASES / f"{detector.name}.json"
    assert file.exists(), f"expected a recorded case of {detector.name} in {file}"
    return dict(orjson.loads(file.read_text().replace("{cases}", str(CASES))))


def lines_of(case: dict[str, Any]) -> list[bytes]:
    events = []
    for step in case["traffic"]:
        for number, at_ms in enumerate(range(1000 * step["from"], 1000 * step["to"], step["every_ms"])):
            event = {k: v.replace("{n}", str(number)) if isinstance(v, str) else v for k, v in step["event"].items()}
            events.append((at_ms, orjson.dumps({"time": 1000 * START_S + at_ms, **event}) + b"\n"))
    return [line for _, line in sorted(events, key=lambda entry: entry[0])]


def config(detector: Detector, case: dict[str, Any], **engine: Any) -> Config:
    document = {"profile": case.get("profile", "web"), "detectors": only(detector.name, **case.get("config", {}))}
    return config_of({**document, "policy": {"allowlist_core": []}}, **engine)


def found(decided: Any) -> list[list[Any]]:
    return sorted(
        [
            f.target.type,
            f.target.value,
            f.measure,
            f.window.end - f.window.start,
            f.tick - START_S,
            f.observed,
            f.limit,
            f.action,
        ]
        for f in decided.findings
        if f.stage == "final"
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_recorded_case_is_found_as_it_says(detector: Detector) -> None:
    case = case_of(detector)
    decided = decide(b"".join(lines_of(case)), 1000 * (START_S + 100_000), config(detector, case))
    assert nothing_was_bounded(decided.account)
    assert found(decided) == sorted(case["found"])
    reasons = {f.reason for f in decided.findings if f.stage == "final"}
    assert set(case["reasons"]) <= reasons


@pytest.mark.parametrize("detector", DETECTORS)
def test_no_cut_order_partition_or_restart_changes_what_is_found(detector: Detector) -> None:
    case = case_of(detector)
    lines = lines_of(case)
    data, bound_ms = b"".join(lines), 1000 * (START_S + 100_000)
    expected = decide(data, bound_ms, config(detector, case)).final_finding_ids
    assert expected
    for piece in (1, 7, 1000):
        assert decide(data, bound_ms, config(detector, case), piece=piece).final_finding_ids == expected
    for partitions in (1, 4):
        assert decide(data, bound_ms, config(detector, case, judge_partitions=partitions)).final_finding_ids == expected
    assert decide(data, bound_ms, config(detector, case), early=True, piece=50).final_finding_ids == expected
    chance = random.Random(1)
    shuffled = sorted(range(len(lines)), key=lambda index: index + chance.randrange(20))
    assert decide(b"".join(lines[i] for i in shuffled), bound_ms, config(detector, case)).final_finding_ids == expected
    assert restarted(detector, case, lines, bound_ms) == expected


def restarted(detector: Detector, case: dict[str, Any], lines: list[bytes], bound_ms: int) -> list[str]:
    """Finals of one that saved its state in the middle and of another that went on from it."""
    half = len(lines) // 2
    first = Embedded(config(detector, case))
    first.open("log", bound_ms)
    base = feed(first, "log", b"".join(lines[:half]), 0)
    before = [f.id for f in first.take().findings]
    second = Embedded.restore(config(detector, case), first.snapshot())
    first.stop()
    second.open("log", bound_ms, base)
    feed(second, "log", b"".join(lines[half:]), base)
    second.close("log")
    return sorted(before + conclude(second).final_finding_ids)


@pytest.mark.parametrize("detector", DETECTORS)
def test_input_is_never_changed(detector: Detector) -> None:
    case = case_of(detector)
    data = b"".join(lines_of(case)[:2000])
    chunk = as_chunk(data)
    before = chunk.copy()
    engine = Embedded(config(detector, case))
    engine.open("log", 1000 * (START_S + 100_000))
    engine.feed("log", chunk, len(data), 0)
    engine.stop()
    np.testing.assert_array_equal(chunk, before)


def test_every_detector_says_how_it_decides_where_it_fails_what_it_costs_and_whether_it_can_be_forged() -> None:
    for name, module in modules().items():
        text = inspect.getdoc(module) or ""
        assert text.startswith(f"``{name}``: "), name
        for part in ("How it decides:", "Where it fails:", "Costs:", "Confidence:", "be forged?"):
            assert part in text, (name, part)
