"""What is compared: our defaults, and plain thresholds that others publish, as far as they can be said as our rules.

A leaky bucket of capacity C that leaks one in L seconds overflows when, in some span of W seconds, more than C + W / L come.
As rules that is asked of three spans: L, C * L and twice that. What they find, the bucket finds; a rate so little above one in
L seconds that the bucket needs longer to run over is missed here.
"""

from __future__ import annotations

from typing import Any

from detectors.registry import registered
from drills.quality.scenes import ENGINE_SEED
from schemas.config import Config, parse_config
from schemas.playbooks import SHIPPED

OURS = "all"
CROWDSEC, AWS = "CrowdSec's limits", "AWS's limits"
LEFT_OUT = (
    "CrowdSec: crawl (40 distinct files, 0.5 s) and random URI (30, 1 s) count distinct paths of one address, which none of "
    "our items is; AWS: limits per browser session, per telephone number and per token, which no record here has"
)
_BAN_S = 4 * 3600
"""CrowdSec's default."""


def ours() -> Config:
    """The defaults of profile ``api``, with signatures armed: they ship dry, and what they would do is to be measured.

    Without playbooks: they rest on what detectors say, and would have each alarm counted twice.
    """
    armed, off = {"signature": {"dry_run": False}}, {name: {"state": "off"} for name in SHIPPED}
    document = {"profile": "api", "engine": {"seed": ENGINE_SEED}, "detectors": armed, "playbooks": off}
    return parse_config(document, "quality")


def _plain(detectors: dict[str, Any], policy: dict[str, Any]) -> Config:
    off = {detector.name: {"enabled": False} for detector in registered()}
    document = {"profile": "web", "engine": {"seed": ENGINE_SEED}, "detectors": {**off, **detectors}, "policy": policy}
    return parse_config(document, "quality")


def _bucket(capacity: int, leak_s: int, **rule: Any) -> list[dict[str, Any]]:
    spans = (leak_s, capacity * leak_s, 2 * capacity * leak_s)
    return [
        {"dimension": "ip", "limit": capacity + span // leak_s, "window_s": span, "action": "block", **rule} for span in spans
    ]


def peers() -> dict[str, Config]:
    """By name: thresholds on addresses, which is all that others publish."""
    crowdsec = {
        "rate": {"rules": [*_bucket(5, 10, measure="auth_failures"), *_bucket(10, 60, measure="auth_failures")]},
        "distinct": {"rules": [*_bucket(10, 10, items="failed_route"), *_bucket(10, 8, items="user_agent")]},
    }
    aws = {"rate": {"rules": [
        {"dimension": "ip", "measure": "registrations", "window_s": 600, "limit": 20, "action": "block"},
    ]}}  # fmt: skip
    return {CROWDSEC: _plain(crowdsec, {"ttl_s": _BAN_S, "ttl_s_max": _BAN_S}), AWS: _plain(aws, {})}
