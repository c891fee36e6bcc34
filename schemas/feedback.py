"""What an operator says of a decision: that it was wrong, or right; and that a model is to forget what it has learned."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from schemas.mitigation import Target

FEEDBACK_SCHEMA = 1
FEEDBACK_BYTES_MAX = 1 << 14
"""Of one record. Targets are 256 bytes and less, but for signatures."""
SETTLE_S = 5
"""A record holds from so long after the lateness on: every judge has read it by then."""
AHEAD_S_MAX = 7 * 86_400
"""How far a record's tick may lie after the time at which it was given."""
NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,63}$"
"""Of a detector, or of one whose section is tried (`engine.standing`)."""
_SECONDS_MAX = 1 << 40

Verdict = Literal["false_positive", "confirmed", "reset", "reverted"]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=_SECONDS_MAX)]


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """One record of the feedback topic, or one line of a file of them."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """Of the mitigation or finding that it is about; of a reset, the model's name; of a playbook's run, its own."""
    schema: Annotated[int, msgspec.Meta(ge=1)] = FEEDBACK_SCHEMA
    """The version of this schema."""
    verdict: Verdict
    """``false_positive``: lifted, and not mitigated again for ``policy.feedback_allow_s``; learned detectors learn from it.
    ``confirmed``: only learned from. ``reset``: the learned detector named begins anew. ``reverted``: all that a run of a
    playbook has published is lifted, and no other begins while its condition lasts."""
    detector: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    """Who decided."""
    detector_version: Annotated[int, msgspec.Meta(ge=0)] = 0
    """In which version; 0: of a reset, or of a run."""
    target: Target
    """Whom it was decided about."""
    finding: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """The finding behind the mitigation, which is what learned detectors know it by; none: the decision led to no learning."""
    who: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """Who says so. Each may give ``policy.feedback_per_day_max`` records a day."""
    reason: Annotated[str, msgspec.Meta(max_length=256)] = ""
    """Why, for whoever reads it in a year."""
    when: Seconds
    """When it was given, Unix seconds."""
    tick: Seconds
    """The second of event time from which it holds, on every judge the same."""


_encoder, _decoder = msgspec.json.Encoder(), msgspec.json.Decoder(Feedback)


def encode_feedback(record: Feedback) -> bytes:
    """As it lies on the topic, without a line's end."""
    return _encoder.encode(record)


def decode_feedback(data: bytes) -> Feedback:
    """Read a record; unknown fields are ignored.

    Raises:
        ValueError: it is none, too long, of a later schema, or holds from a time that it cannot hold from.
    """
    if len(data) > FEEDBACK_BYTES_MAX:
        raise ValueError(f"expected at most {FEEDBACK_BYTES_MAX} bytes, got {len(data)}")
    try:
        record = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if record.schema != FEEDBACK_SCHEMA:
        raise ValueError(f"expected schema {FEEDBACK_SCHEMA}, got {record.schema}")
    if record.tick > record.when + AHEAD_S_MAX:
        raise ValueError(f"expected a tick at most {AHEAD_S_MAX} s after `when` ({record.when}), got {record.tick}")
    return record


def revert_record(run: str, playbook: str, *, who: str, reason: str, when: int, tick: int) -> Feedback:
    """What ends a run of a playbook: ``playbook`` as its steps are known."""
    return Feedback(
        id=run, verdict="reverted", detector=playbook, target=Target(type="run", value=run), who=who, reason=reason, when=when,
        tick=tick,
    )  # fmt: skip


def reset_record(model: str, *, who: str, reason: str, when: int, tick: int) -> Feedback:
    """What makes a learned detector begin anew."""
    return Feedback(
        id=model, verdict="reset", detector=model, target=Target(type="model", value=model), who=who, reason=reason, when=when,
        tick=tick,
    )  # fmt: skip
