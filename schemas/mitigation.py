"""Findings and mitigations: what detection concluded, and the only thing an edge acts on."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Stage = Literal["early", "final"]
State = Literal["active", "held", "lifted", "expired"]
Distrust = Literal["unsigned", "unknown_key", "forged", "out_of_scope", "replayed"]
"""Why an edge that trusts certain keys does not believe a record."""
MITIGATION_SCHEMA = 1
OPERATOR = "operator"
"""The detector of an operator's records."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an action is for."""

    type: str  # ip, net, asn, country, api_key, account, email_domain, route, user_agent, signature, service
    value: str


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Ticks (Unix seconds), ``start`` inclusive, ``end`` exclusive."""

    start: int
    end: int


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Where the numbers can be recomputed from."""

    offsets: dict[str, tuple[int, int]] = {}
    """Per source partition the whole segments ``[from, to)`` that the window touches; a superset, filter by time."""
    samples: tuple[str, ...] = ()
    """Kept free of lines of traffic, which hold what must not travel: ``floodwall explain`` fetches them by the offsets, from
    where whoever asks may read them. An edge may be told single addresses of an IPv6 prefix here."""
    features: dict[str, int | float | str | bool] = {}
    digests: dict[str, tuple[tuple[int, str], ...]] = {}
    """What the bytes of the offsets were, in mitigations: per source partition pieces ``[to, digest]`` that make up its
    range, each from where the last one ended. `floodwall verify` computes them again."""
    digested: Literal["", "seeded", "unseeded"] = ""
    """Whether the digests are under the secret seed."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector concluded about one key at one tick, with its numbers."""

    id: str
    tick: int
    stage: Stage
    detector: str
    detector_version: int
    target: Target
    measure: str
    window: Window
    observed: int
    limit: int
    severity: int
    confidence: float
    action: str
    reason: str
    dry_run: bool
    outcome: str
    """What the policy made of it: ``mitigated``, ``renewed``, ``notified``, ``merged``, ``allowlisted``, ``held``,
    ``lifted``, ``dry_run``, or ``false_positive``: an operator has said so of the target lately, and nothing was done."""
    evidence: Evidence
    config_version: int


class Mitigation(msgspec.Struct, frozen=True, kw_only=True):
    """An action on a target, with a time to live and its evidence."""

    id: str
    schema: int = MITIGATION_SCHEMA
    tick: int
    stage: Stage
    state: State
    action: str
    target: Target
    detector: str
    detector_version: int
    reason: str
    severity: int
    confidence: float
    window: Window
    observed: int
    limit: int
    issued_at: int
    expires_at: int
    dry_run: bool = False
    drill: bool = False
    config_version: int = 1
    evidence: Evidence
    finding: str = ""
    """The id of the finding that it was made of."""
    key_id: str = ""
    """Whose signature it has: the first 16 hexadecimal digits of the SHA-256 of the public key; empty: none."""
    sequence: int = 0
    """Unix microseconds when it was signed; rises with every record of a signer."""
    signature: str = ""
    """Ed25519 in base64, over the topic's name and the record's bytes up to here. It stays the last field."""


_encoder = msgspec.json.Encoder()


def encode_line(record: Finding | Mitigation) -> bytes:
    """One line of newline-delimited JSON."""
    return _encoder.encode(record) + b"\n"


def decode_mitigation(data: bytes) -> Mitigation:
    """Read a mitigation; unknown fields are ignored. Raises `msgspec.ValidationError` or `msgspec.DecodeError`."""
    return msgspec.json.decode(data, type=Mitigation)


def topic_key(target: Target, detector: str) -> bytes:
    """What a mitigation is keyed by on the enforcement topic: one writer, and after compaction one record, per key."""
    return f"{target.type}:{target.value}:{detector}".encode("utf-8", "backslashreplace")


def json_schemas() -> dict[str, Any]:
    """The JSON Schemas of what is published."""
    return {"mitigation": msgspec.json.schema(Mitigation), "finding": msgspec.json.schema(Finding)}
