"""A run that is reported: what looks on while it replays, and what writes the report when it is over."""

from __future__ import annotations

import os
import platform
import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from engine.in_force import is_enforced
from engine.outbox import Decisions
from engine.seeds import Seeds, make_seeds
from replay.collected import MITIGATIONS_MAX, Collected
from replay.manifest import config_digest
from replay.report.build import Acknowledged, Ran, build
from replay.report.document import Report, Reproduce
from replay.report.evidence import EvidenceReader, acknowledgements
from replay.report.gather import Gathering
from replay.run import Outcome
from replay.shown import Shown
from replay.sink import Sink
from replay.sources import KAFKA_SCHEME
from schemas.config import Config
from schemas.errors import SourceError

SOURCES_MAX = 200
_USER = re.compile(r"(?<=://)[^/@\s]*@")
_PACKAGES = ("floodwall", "numba", "numpy", "jinja2", "vl-convert-python")


class Reporting(Sink):
    """A sink that also remembers what a report tells of.

    Args:
        out, findings: as of `Sink`.
        report: where the page goes; none: no page.
        report_json: where the same goes as JSON; none: nowhere.
    """

    def __init__(
        self, config: Config, out: Path | None, findings: Path | None, *, report: Path | None, report_json: Path | None
    ) -> None:
        super().__init__(out, findings)
        for path in (report, report_json):
            _check_writable(path)
        self._report, self._report_json = report, report_json
        self._seeds = make_seeds(config)
        self._was_configured = self._seeds.configured
        self.config = msgspec.structs.replace(
            config, engine=msgspec.structs.replace(config.engine, seed=self._seeds.secret)
        )  # fmt: skip
        """What to run with: the seed is fixed, so that fingerprints that are read again are the same."""
        self.collected = Collected()
        self._early: dict[str, int] = {}
        self.gathering = Gathering(config.time.lateness_s)

    def write(self, decisions: Decisions) -> None:
        """As `Sink.write`, and remember."""
        super().write(decisions)
        self.collected.write(decisions)
        for one in decisions.mitigations:
            if one.stage == "early" and is_enforced(one) and len(self._early) < MITIGATIONS_MAX:
                self._early.setdefault(one.id, one.issued_at)

    def finish(self, outcome: Outcome, sources: list[str], command: list[str], now_ms: int) -> Report:
        """Write the report.

        Raises:
            SourceError: a file cannot be written. UsageError: what draws the page is not installed.
        """
        self.gathering.finish()
        config, topics = self.config, [source for source in sources if source.startswith(KAFKA_SCHEME)]
        acknowledged = Acknowledged()
        if topics:
            from replay.kafka import split_url

            brokers, _ = split_url(topics[0])
            if brokers:
                config = msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, brokers=brokers))
            acknowledged = acknowledgements(config, self.collected.mitigations, self.gathering.span[0])
        shown = Shown(self._seeds.secret)
        reader = EvidenceReader(config, live=bool(topics))
        told = reproduce(
            self.config, sources, command, self._seeds, kept=self._was_configured, manifest=outcome.manifest
        )  # fmt: skip
        ran = Ran(
            self.config, outcome, self.collected, self.gathering, told, acknowledged, now_ms // 1000, self._early
        )  # fmt: skip
        report = build(ran, shown, reader.read)
        if self._report_json is not None:
            _write(self._report_json, msgspec.json.format(msgspec.json.encode(report), indent=1))
        if self._report is not None:
            from replay.report.page import render

            _write(self._report, render(report))
        return report


def reproduce(
    config: Config, sources: list[str], command: list[str], seeds: Seeds, *, kept: bool, manifest: dict[str, Any] | None
) -> Reproduce:
    """What it takes to get the same again."""
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    return Reproduce(
        command=_USER.sub("…@", shlex.join(command)), versions={**versions, "python": platform.python_version()},
        config_digest=config_digest(config),
        seed_fingerprint=seeds.fingerprint, seed_is_kept=kept, sources=_sources(sources, manifest), manifest=manifest,
        profile=config.profile,
    )  # fmt: skip


def _sources(sources: list[str], manifest: dict[str, Any] | None) -> list[tuple[str, int, str]]:
    """By what was read: a digest of the part of a file would be taken for that of the file."""
    if manifest is None:
        return [(_USER.sub("…@", name), 0, "") for name in sources[:SOURCES_MAX]]
    found: list[tuple[str, int, str]] = []
    for one in manifest["sources"][:SOURCES_MAX]:
        size = one.get("file_bytes", 0)
        whole = one["from"] == 0 and size == one.get("file_bytes_read", 0)
        found.append((_USER.sub("…@", one["source"]), size, (one.get("sha256") or "") if whole else ""))
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _check_writable(path: Path | None) -> None:
    """Nobody replays for an hour to learn that there is no such folder."""
    if path is not None and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
        raise SourceError(f"expected a writable file at {path}, got {'a folder' if path.is_dir() else 'none that can be made'}")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SourceError(f"expected a writable file at {path}, got: {error.strerror or error}") from None
