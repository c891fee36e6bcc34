"""The manifest of a replay: what was read, from where to where, with digests, and what was not: for whoever repeats it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from engine.account import SourceCount
from engine.embedded import Embedded
from replay.reading import Reading
from schemas.config import Config
from schemas.errors import SourceError

if TYPE_CHECKING:
    from engine.config_chain import ConfigChain

SCHEMA = 1


def engine_version() -> str:
    """Of this package; ``unknown`` where it runs without having been installed."""
    try:
        return version("floodwall")
    except PackageNotFoundError:
        return "unknown"


def config_digest(config: Config) -> str:
    """SHA-256 of everything that decides, as canonical JSON, without the seed, which is secret, and how Kafka is reached."""
    document: dict[str, Any] = msgspec.to_builtins(config)
    document.pop("kafka", None)
    document["engine"].pop("seed", None)
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)).hexdigest()


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _source(reading: Reading, count: SourceCount, position: int) -> dict[str, Any]:
    """One entry of ``sources``."""
    missing = list(reading.missing)
    if reading.error is not None:
        missing.append(f"what lies behind {position}: {reading.error}")
    elif not reading.ended:
        missing.append(f"what lies behind {position}: the run was interrupted")
    return {
        "source": reading.name, **reading.origin(), "to": position,
        "records": count.records, "events": count.events, "counted": count.counted, "late": count.late,
        "outside": count.outside, "empty": count.empty, "unreadable": count.poison, "time_replaced": count.time_replaced,
        "first_event": _moment(count.oldest_ms) if count.events else None,
        "last_event": _moment(count.newest_ms) if count.events else None,
        "unread": missing,
    }  # fmt: skip


def make_manifest(
    config: Config, engine: Embedded, readings: Sequence[Reading], between_ms: tuple[int | None, int | None],
    history: ConfigChain | None, *, interrupted: bool,
) -> dict[str, Any]:  # fmt: skip
    """What `Outcome.manifest` holds: plain data. Nothing in it was taken from traffic but times and counts."""
    counts, positions = engine.source_counts(), engine.positions()
    account = engine.account().save()
    account.pop("poison_samples")
    account["unreadable"] = account.pop("poison")
    return {
        "schema": SCHEMA,
        "engine": engine_version(),
        "config_sha256": config_digest(config),
        "config_changes": [] if history is None else [_change(accepted) for accepted in history.accepted],
        "seed_fingerprint": engine.seeds.fingerprint,
        "from": None if between_ms[0] is None else _moment(between_ms[0]),
        "to": None if between_ms[1] is None else _moment(between_ms[1]),
        "interrupted": interrupted,
        "sources": [_source(reading, counts[reading.name], positions[reading.name]) for reading in readings],
        "together": account,
    }


def _change(accepted: Any) -> dict[str, Any]:
    return {"from_tick": accepted.change.effective_tick, "config_sha256": config_digest(accepted.standing.config)}


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Replace the file at once.

    Raises:
        SourceError: it cannot be written.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
        os.replace(fresh, path)
    except OSError as error:
        raise SourceError(f"expected a writable file for the manifest at {path}, got: {error.strerror or error}") from None
