"""What was found once has to be found again: the results at ordinary strength, kept in quality.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from drills.quality.quiet import Quiet
from drills.quality.summary import RANKS, summary
from drills.quality.trial import Trials
from schemas.errors import SourceError

KEPT = Path(__file__).with_name("quality.json")
LEARNED_PER_DAY = 1.0
"""What learned detectors may tell of honest traffic, each day."""


def document(trials: Trials, quiet: dict[str, Quiet]) -> dict[str, Any]:
    """What is kept of a run."""
    attacks: dict[str, Any] = {}
    for attack in dict.fromkeys(trial.attack for trial in trials.found):
        found = summary(trials.of(attack))
        if found is None:
            continue
        attacks[attack] = {
            "word": found.word, "seconds": None if found.seconds is None else round(found.seconds, 1),
            "sources": round(found.sources, 4), "covered": round(found.covered, 4),
            "wronged": sorted({f"{one.type} {one.value} by {one.detector}" for one in found.wronged}),
            "victims": sorted(set(found.victims)),
        }  # fmt: skip
    rest = {
        name: {
            "days": one.days, "wronged": sorted({f"{alarm.type} {alarm.value} by {alarm.detector}" for alarm in one.wronged}),
            "service_alerts": one.service_alerts, "learned": one.learned,
        }
        for name, one in quiet.items()
    }  # fmt: skip
    return {"attacks": attacks, "quiet": rest}


def regressions(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """In sentences: which attacks are found less than before, and which honest sources were not stopped before.

    Only what was run is compared, and quiet time only with as many days.
    """
    found = []
    for name, one in now["attacks"].items():
        old = before["attacks"].get(name)
        if old is not None and RANKS.index(one["word"]) < RANKS.index(old["word"]):
            found.append(f"{name} was {old['word']} and is {one['word']}")
        for whom in ("wronged", "victims"):
            more = set(one[whom]) - set([] if old is None else old[whom])
            found += [f"{name}: {who} is honest and was mitigated" for who in sorted(more)]
    for name, one in now["quiet"].items():
        old = before["quiet"].get(name)
        if old is not None and old["days"] != one["days"]:
            continue
        more = set(one["wronged"]) - set([] if old is None else old["wronged"])
        found += [f"{name}: {who} is honest and was mitigated" for who in sorted(more)]
        if old is not None and one["service_alerts"] > old["service_alerts"]:
            found.append(f"{name}: {one['service_alerts']} service alerts, {old['service_alerts']} before")
        if one["learned"] > max(LEARNED_PER_DAY * one["days"], 0 if old is None else old.get("learned", 0)):
            found.append(f"{name}: {one['learned']} notices of learned detectors in {one['days']:.3g} days")
    return found


def load(path: Path) -> dict[str, Any]:
    """What was kept; nothing, if nothing was.

    Raises:
        SourceError: it cannot be read.
    """
    if not path.exists():
        return {"attacks": {}, "quiet": {}}
    try:
        kept: dict[str, Any] = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise SourceError(f"expected the kept results at {path}, got: {error}") from None
    return kept


def save(now: dict[str, Any], path: Path) -> None:
    """Keep these."""
    path.write_bytes(orjson.dumps(now, option=orjson.OPT_INDENT_2) + b"\n")
