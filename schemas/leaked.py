"""Reports of leaked keys, as they lie on the topic ``leaked-keys``: fingerprints, and never a key.

Two kinds of records share the topic, with keys of their own so that neither replaces the other when the topic is compacted:
a report, keyed by the fingerprint, and an operator's word that one is lifted, keyed by ``operator:`` and the fingerprint.
A report that comes again after it was lifted changes nothing.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

Form = Literal["sha256", "sha256_prefixed", "keyed", "gateway"]
"""How a fingerprint was made of a key: LiteLLM's SHA-256 in hexadecimal, the same after ``sha256:``, our own keyed hash (of
what comes in the clear), or a gateway's own id for the key, which it has told us."""
LEAKED_SCHEMA = 1
FINGERPRINT_BYTES_MAX = 96
"""As names of keys in tallies."""
RECORD_BYTES_MAX = 8192
TICK_MAX = 1 << 40
_LIFT = "operator:"

Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.\-]{1,100}$")]
Fingerprint = Annotated[str, msgspec.Meta(min_length=1, max_length=FINGERPRINT_BYTES_MAX, pattern=r"^[!-~]+$")]
Tick = Annotated[int, msgspec.Meta(ge=0, le=TICK_MAX)]


class LeakReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="report"):
    """Somebody has found a key where everybody can read it."""

    schema: int = LEAKED_SCHEMA
    fingerprint: Fingerprint
    """Of the key, as traffic names it."""
    form: Form
    """How it was made of the key."""
    also: bool = False
    """Another form of a key that has been told of under its first one."""
    provider: Word
    """Who says so: ``github``."""
    type: Word
    """What kind of key it is, in the provider's word for our pattern; ``other`` where it is no plain word."""
    source: Word
    """Where it was found: ``content``, ``commit``, ``issue_comment``, …, or ``unknown``."""
    url: Annotated[str, msgspec.Meta(max_length=2048)] = ""
    """The page on which it was found; empty where none was named, or where it would have named the key."""
    tick: Tick
    """Unix seconds of event time from which the report holds: on every judge the same."""
    reported_ms: int
    """When it came, Unix milliseconds."""
    report: Word
    """The post that it came with: the same post again has the same."""


class LeakLift(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="lift"):
    """An operator says that a key may be used after all. It holds for every report of that fingerprint, before and after."""

    schema: int = LEAKED_SCHEMA
    fingerprint: Fingerprint
    """Of the key."""
    tick: Tick
    """Unix seconds of event time from which it holds."""
    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """Who says so."""
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    """Why, for whoever reads it in a year."""


LeakRecord = LeakReport | LeakLift
_decoder: msgspec.json.Decoder[LeakReport | LeakLift] = msgspec.json.Decoder(LeakReport | LeakLift)
_encoder = msgspec.json.Encoder()


def encode_leak(record: LeakRecord) -> bytes:
    """As it lies on the topic, and as one line of a file (without its end)."""
    return _encoder.encode(record)


def decode_leak(value: bytes) -> LeakRecord:
    """Read one; unknown fields are ignored.

    Raises:
        ValueError: it is none. What stands there is not repeated: it might be a key.
    """
    if len(value) > RECORD_BYTES_MAX:
        raise ValueError(f"longer than {RECORD_BYTES_MAX} bytes")
    try:
        return _decoder.decode(value)
    except msgspec.ValidationError as error:
        at = str(error).rpartition(" - at ")[2]
        raise ValueError(f"a wrong or missing field{f' at {at}' if at.startswith('`$') else ''}") from None
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("no JSON") from None


def leak_key(record: LeakRecord) -> bytes:
    """What a record is keyed by on the topic."""
    return ((_LIFT if isinstance(record, LeakLift) else "") + record.fingerprint).encode()


def sha256_hex(key: bytes) -> str:
    """The fingerprint that LiteLLM logs for a key."""
    return hashlib.sha256(key).hexdigest()
