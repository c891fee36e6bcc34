"""What an edge says about a mitigation: how the time to enforce is known, and what was not enforced and why."""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.mitigation import Target

Outcome = Literal["applied", "partial", "unsupported", "error"]


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """One edge about one mitigation. The topic is keyed by ``edge``."""

    edge: str
    id: str
    """Of the mitigation."""
    target: Target
    action: str
    outcome: Outcome
    applied_at_ms: int
    """Unix milliseconds by the edge's clock; for what was not applied, when that was decided."""
    why: str = ""
    """One sentence; empty when applied."""


def encode_acknowledgement(acknowledgement: Acknowledgement) -> bytes:
    """As JSON."""
    return msgspec.json.encode(acknowledgement)
