"""CrowdSec's own test cases: whom it raises, and whom the same limits raise here.

The folder holds ``crowdsec_hub_cases.jsonl.gz``: a case a line, with its log lines and what CrowdSec raises on them. Nothing
of it is kept. A scenario is *said* here by what it counts for an address and by its bucket; which paths or words an event must
have to be counted cannot be said, so that our rules count more than its bucket does.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectors.kernels.long_windows import MINUTE_S, SECONDS_MIN
from detectors.registry import registered
from drills.scoring.decide import decided
from schemas.config import Config, parse_config

FILE = "crowdsec_hub_cases.jsonl.gz"
SEEDS = 16
"""A set of 64 bins depends on the secret seed, so each case is decided under so many."""
LATENESS_S = 120
"""Lines of a case are not in order."""
BINS_FILL_FROM, BINS_SHARED = 9, 2
"""Of so many items two fall into one bin more often than not. A limit from there on is lower by two: of the items of one
address that is just over it, no more than that are lost in 98 of 100 seeds."""
NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True)
class Scenario:
    """A leaky bucket of CrowdSec, as our rules say it."""

    kind: str
    """What it is in our words."""
    capacity: int
    leak_s: float
    counts: str
    """The measure or the items that we count for it."""
    beyond: str
    """What its filter asks for that our rule does not."""
    or_share: str = ""
    """A measure of which as many are enough where nearly all requests of the address are such."""


_ARGUMENTS = "distinct query strings: none of our items, so requests are summed"
SCENARIOS = {
    "http-apiscp-bf": Scenario("rate", 5, 10, "requests", "POST to one path, answered with 200"),
    "http-bf-wordpress_bf": Scenario("rate", 5, 10, "requests", "one path, answered with 200"),
    "http-bf-wordpress_bf_xmlrpc": Scenario("rate", 5, 120, "requests", "POST to one path"),
    "http-generic-bf": Scenario("rate", 5, 10, "auth_failures", "nothing"),
    "http-generic-401-bf": Scenario("rate", 5, 10, "auth_failures", "401 alone"),
    "http-generic-403-bf": Scenario("rate", 5, 10, "auth_failures", "403 alone"),
    "CVE-2022-46169-bf": Scenario("rate", 5, 10, "requests", "one path with two arguments"),
    "zoneminder_cve-2022-39291": Scenario("rate", 10, 10, "requests", "POST with certain arguments"),
    "http-dos-random-uri": Scenario("rate", 30, 1, "non_asset", "file names of six capitals"),
    "http-crawl-non_statics": Scenario("rate", 40, 0.5, "non_asset", "nothing"),
    "http-dos-swithcing-ua": Scenario("distinct", 10, 8, "user_agent", "nothing"),
    "http-probing": Scenario(
        "distinct",
        10,
        10,
        "failed_route",
        "paths as they are: ours fold ids, and lines that are no HTTP have none",
        "client_errors",
    ),
    "http-sensitive-files": Scenario("distinct", 4, 5, "failed_route", "endings on a list, whatever the answer"),
    "http-path-traversal-probing": Scenario("distinct", 3, 10, "failed_route", "paths that match a list, whatever the answer"),
    "http-wordpress-scan": Scenario("distinct", 3, 10, "failed_route", "paths of one product"),
    "http-admin-interface-probing": Scenario("distinct", 4, 10, "failed_route", "paths on a list"),
    "http-backdoors-attempts": Scenario("distinct", 1, 5, "failed_route", "paths on a list"),
    "CVE-2024-38475": Scenario("distinct", 3, 10, "failed_route", "paths that end in an encoded question mark"),
    "http-wordpress_user-enum": Scenario("distinct", 5, 10, "requests", _ARGUMENTS),
    "http-sqli-probbing-detection": Scenario("distinct", 10, 1, "client_errors", _ARGUMENTS),
    "http-xss-probbing": Scenario("distinct", 5, 1, "client_errors", _ARGUMENTS),
    "http-dos-bypass-cache": Scenario("distinct", 30, 1, "requests", _ARGUMENTS),
}
"""By the scenario's name without its author's. All that is not here looks at one request and what is in it."""
PAYLOAD = "payload"
_ITEMS = ("failed_route", "user_agent")


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario that CrowdSec raises on one case, and what is raised here."""

    case: str
    lines: int
    scenario: str
    kind: str
    theirs: frozenset[str]
    defaults: frozenset[str]
    """Whom our defaults raise."""
    limits: Sequence[frozenset[str]] = ()
    """Under each seed, whom its limits raise."""
    why: str = ""

    @property
    def equal(self) -> int:
        """Under how many seeds the same sources are raised."""
        return sum(found == self.theirs for found in self.limits)


def bucket_rules(scenario: Scenario) -> dict[str, Any]:
    """Our sections for a leaky bucket of capacity C that leaks one in L seconds.

    It runs over when, within some span of W seconds, more than C + W / L come. A window of W whole seconds spans less than W,
    so whoever crosses one of these rules makes the bucket run over. All spans up to twice that in which it leaks dry are asked,
    of sums over two minutes in whole ones, as windows have them.
    """
    detector, word = ("distinct", "items") if scenario.counts in _ITEMS else ("rate", "measure")
    spans = {
        max(1, int((step + 1) * scenario.leak_s) - 1) if scenario.leak_s >= 1 else step + 1
        for step in range(2 * scenario.capacity + 1)
    }
    if detector == "rate":
        spans = {span if span <= SECONDS_MIN else span - span % MINUTE_S for span in spans}
    rules = []
    for window_s in sorted(spans):
        limit = int(scenario.capacity + window_s / scenario.leak_s)
        if scenario.counts in _ITEMS:
            limit -= BINS_SHARED * (limit >= BINS_FILL_FROM)
        rules.append({"dimension": "ip", word: scenario.counts, "window_s": window_s, "limit": limit, "action": "block"})
    sections: dict[str, Any] = {detector: {"rules": rules}}
    if scenario.or_share:
        window_s, limit = int(scenario.leak_s) - 1, scenario.capacity
        share = {"measure": scenario.or_share, "share": NEARLY_ALL, "window_s": window_s, "limit": limit, "action": "block"}
        sections["ratio"] = {"rules": [{"dimension": "ip", **share}]}
    return sections


def _config(seed: str, detectors: dict[str, Any] | None) -> Config:
    off = {detector.name: {"enabled": False} for detector in registered()}
    return parse_config({
        "engine": {"seed": seed}, "time": {"lateness_s": LATENESS_S},
        "policy": {"allowlist_core": [], "ttl_s": 4 * 3600, "ttl_s_max": 4 * 3600},
        "detectors": {} if detectors is None else {**off, **detectors},
    })  # fmt: skip


def _raised(config: Config, data: bytes) -> frozenset[str]:
    return frozenset(one.target.value for one in decided(config, [data]).mitigations if one.target.type == "ip")


def load(folder: Path) -> list[dict[str, Any]]:
    """The cases.

    Raises:
        SystemExit: the folder does not hold them.
    """
    path = folder / FILE
    if not path.is_file():
        raise SystemExit(f"expected a folder with {FILE} in --data, got {folder}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def compare(case: dict[str, Any]) -> list[Row]:
    """A row for each scenario that CrowdSec raises on a case."""
    data = b"".join(line.encode() + b"\n" for line in case["lines"])
    theirs: dict[str, set[str]] = {}
    for alert in case["expected"]:
        theirs.setdefault(alert["scenario"].rpartition("/")[2], set()).update(alert["sources"])
    defaults = _raised(_config("crowdsec", None), data)
    rows = []
    for name, sources in sorted(theirs.items()):
        said = SCENARIOS.get(name)
        if said is None:
            rows.append(Row(case["test"], len(case["lines"]), name, PAYLOAD, frozenset(sources), defaults))
            continue
        limits = [_raised(_config(f"crowdsec {seed}", bucket_rules(said)), data) for seed in range(SEEDS)]
        rows.append(
            Row(case["test"], len(case["lines"]), name, said.kind, frozenset(sources), defaults, limits, said.beyond)
        )  # fmt: skip
    return rows


def _names(sources: frozenset[str]) -> str:
    return ", ".join(sorted(sources)) or "–"


def _verdict(row: Row) -> str:
    if row.kind == PAYLOAD:
        return "no: one request tells it"
    if row.equal == len(row.limits):
        return "yes"
    if any(found > row.theirs for found in row.limits):
        return "no: others too"
    return f"under {row.equal} of {len(row.limits)} seeds" if row.equal else "no"


def run(folder: Path) -> None:
    """Print the table, and how many of each kind are equal."""
    rows = [row for case in load(folder) for row in compare(case)]
    heads = ("case", "lines", "scenario", "kind", "CrowdSec raises", "our defaults", "its limits", "the same", "not said")
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in sorted(rows, key=lambda row: (row.kind == PAYLOAD, row.kind, row.case)):
        limits = _names(frozenset[str]().union(*row.limits)) if row.limits else ""
        cells = (
            row.case, str(row.lines), row.scenario, row.kind, _names(row.theirs), _names(row.defaults), limits, _verdict(row),
            row.why,
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    print()
    for kind in ("rate", "distinct", "ratio", PAYLOAD):
        mine = [row for row in rows if row.kind == kind]
        same = [row for row in mine if row.limits and row.equal == len(row.limits)]
        print(f"{kind}: {len(mine)} raised by CrowdSec, {len(same)} with the same sources here under every seed")
