"""``leaked``: an API key that somebody has found where everybody can read it, and that is in use.

How it decides: reports come on the topic ``leaked-keys`` (`floodwall intake github` writes it), or from the file ``reports``;
they hold fingerprints and never a key. A second in which a key with a reported fingerprint made a request that did not fail
is told, once in ``again_s`` as long as that lasts; a report alone is told once, without waiting for traffic
(``tell_unseen``). What is told is a notice, unless an operator has armed ``disable``: then a reported key is disabled when it
is first seen in use (with ``disable_unseen`` as soon as it is reported). That does not end by itself: it is told again every
twelve hours, because the enforcement topic forgets, until an operator lifts it (`floodwall mitigations lift`), which holds
for later reports of the key too. A report holds from the tick that it says, so that a replay with the same reports decides
the same.

Where it fails: fingerprints match only if they are made as traffic has them: LiteLLM's SHA-256, the gateway's own id where a
file says which key that is, or our keyed hash under the same seed (``intake.forms``). A key that is never used is only
reported. A request counts as use if it was answered without an error and was not denied; on a route that asks for no key that
is so for a revoked one too. What only looks like a key of ours is reported as well: it is never seen, so that
``disable_unseen`` disables nothing that exists. It needs requests that name their key.

Costs: nothing while nothing is reported, else one look into a table for each row of a key, 15 ns; 200 bytes for each report.

Confidence: as high as can be: the report is signed, and the key was used. Can its evidence be forged? A report only by whom
GitHub's signature, or the right to write the topic, can be had. Whoever publishes a key of his own has it reported, and
whoever has somebody else's key can have it disabled by publishing it, which is what should happen to it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from detectors.windowed import Detector, DetectorSection, Profile, WindowRule
from schemas.fields import Dimension, Measure

NAME = "leaked"
SEEN, REPORTED, KEPT = "leaked_key_used", "leaked_key_reported", "leaked_key_disabled"
"""What a finding is about: a use, a report alone, a key that stays disabled."""


class Leaked(DetectorSection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``leaked`` detector."""

    disable: bool = False
    """A reported key that is seen in use is disabled, and does not come back by itself: the older word for arming the playbook
    ``leaked-key``, which does the same and can be armed on the way. Where that says its own ``state``, this is not heard."""
    disable_unseen: bool = False
    """… and so is one that is only reported. Needs ``disable``."""
    tell_unseen: bool = True
    """A report is told of by itself."""
    again_s: Annotated[int, msgspec.Meta(ge=60, le=86400)] = 3600
    """A key that stays in use is told again once in each cell of this length."""
    reports: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    """A file of reports beside the topic, an object a line as on the topic (docs/leaked-keys.md). None: only the topic."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=10)] = 9
    """10 is the worst."""
    confidence: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.99
    """How often a key that is told is really in the hands of others."""


def leaked_rule(section: Leaked, what: str, *, disables: bool) -> WindowRule:
    """What a finding is told by. It speaks for itself: a report needs nobody to agree, and raises nobody else's doubts."""
    return WindowRule(
        DETECTOR, section, section.dry_run, Dimension.API_KEY, Measure.REQUESTS, 1, 0,
        "disable_key" if disables else "notify", section.severity, section.confidence, label=what, alone=True,
        for_ever=disables,
    )  # fmt: skip


def _no_rules(section: Leaked, profile: Profile) -> list[WindowRule]:
    """It asks a list (`engine.leaked`), and not the windows."""
    return []


def _describe(rule: WindowRule, target: str, observed: int) -> str:
    if rule.label == SEEN:
        return f"API key {target} is reported as leaked, and {observed:,} of its requests were answered in 1 second"
    if rule.label == KEPT:
        return f"API key {target} was disabled as leaked, and stays so until an operator lifts it"
    return f"API key {target} is reported as leaked"


DETECTOR = Detector(NAME, 1, Leaked, _no_rules, _describe, dimensions=(Dimension.API_KEY,))
