"""A drill that was written into a folder, scored against decisions that were written down, or made here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from drills.columns import I64
from drills.scoring.decide import Decider
from drills.scoring.exposure import ExposureReader
from drills.scoring.score import Scorecard, Scorer
from schemas.config import Config
from schemas.errors import SourceError
from schemas.labels import LABELS, read_attacks
from schemas.mitigation import Finding, Mitigation

EVENT_FILES = ("events.ndjson", "access.ndjson", "access.log", "requests.ndjson")
"""In which of a drill's files its events are looked for: the first that is there, the one that knows most first."""
_BLOCK_BYTES = 1 << 20
_Record = TypeVar("_Record", Mitigation, Finding)


@dataclass(frozen=True, slots=True)
class Scored:
    """A folder's score."""

    card: Scorecard
    events_file: str
    decided_here: bool
    mitigations: int


def score_folder(
    folder: Path, config: Config, decisions: Path | None = None, findings: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scored:  # fmt: skip
    """Score what was decided about a drill; without ``decisions`` the engine decides here, with early records.

    Raises:
        SourceError: the folder is no drill, or a file of it or of decisions cannot be read.
    """
    attacks = read_attacks(folder / LABELS)
    name = next((name for name in EVENT_FILES if (folder / name).is_file()), None)
    if name is None:
        raise SourceError(f"expected one of {', '.join(EVENT_FILES)} in {folder}, got none: `floodwall drill run` writes them")
    # As the file is read for its names it is decided on, too: both in one pass.
    reader, decider = ExposureReader(config), Decider(config) if decisions is None else None
    for lines, labels in _blocks(folder / name):
        reader.take(lines, labels)
        if decider is not None:
            decider.take(b"".join(lines))
        if progress is not None:
            progress(len(lines))
    exposure = reader.finish()
    if decider is not None:
        decided = decider.finish()
        mitigations, found = decided.mitigations, decided.findings
    else:
        assert decisions is not None
        mitigations = _records(decisions, Mitigation)
        found = [] if findings is None else _records(findings, Finding)
    return Scored(Scorer([exposure], attacks).score(mitigations, found), name, decider is not None, len(mitigations))


def _blocks(path: Path) -> Iterator[tuple[list[bytes], I64]]:
    """Lines with their labels, about a megabyte at a time."""
    beside = path.with_name(f"{path.name}.labels")
    try:
        labels = np.fromfile(beside, "<u2").astype(np.int64)
        at = 0
        with path.open("rb") as file:
            while lines := file.readlines(_BLOCK_BYTES):
                if at + len(lines) > len(labels):
                    break
                yield lines, labels[at : at + len(lines)]
                at += len(lines)
    except OSError as error:
        raise SourceError(f"expected lines in {path} and their labels in {beside}, got: {error.strerror or error}") from None
    if at != len(labels) or lines:
        came = f"more than {at:,}" if lines else f"{at:,}"
        raise SourceError(f"expected a line in {path} for each of the {len(labels):,} labels in {beside}, got {came}")


def _records(path: Path, kind: type[_Record]) -> list[_Record]:
    decoder = msgspec.json.Decoder(kind)
    found: list[_Record] = []
    try:
        with path.open("rb") as file:
            for line in file:
                found.append(decoder.decode(line))
    except OSError as error:
        raise SourceError(f"expected {kind.__name__.lower()}s at {path}, got: {error.strerror or error}") from None
    except msgspec.DecodeError as error:
        raise SourceError(
            f"expected one {kind.__name__.lower()} a line in {path}, got in line {len(found) + 1}: {error}"
        ) from None
    return found
