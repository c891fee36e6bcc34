"""`surge` on the Numenta Anomaly Benchmark, beside the windowed Gaussian detector that shows the scorer to be right.

The folder holds the series, as ``nab_data.tar.gz`` or as CSV files below ``data/``, and their windows in ``windows.json``.
Nothing of it is kept. The windowed Gaussian is the benchmark's own baseline, written anew from its description.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.nab_scoring import PROFILES, Floats, Scored, Truth, best_threshold, score
from detectors.surge import Surge, SurgeConfig

ARCHIVE, FOLDER, WINDOWS = "nab_data.tar.gz", "data", "windows.json"
GAUSSIAN_WINDOW, GAUSSIAN_STEP = 6_400, 100
GAUSSIAN_DIGITS = 12
"""The benchmark keeps scores in files with so many digits: a chance below 5e-13 is as good as nought."""


@dataclass(frozen=True, slots=True)
class Series:
    """One file."""

    times_s: npt.NDArray[np.int64]
    values: Floats
    truth: Truth


def load(folder: Path) -> dict[str, Series]:
    """Every series that has windows, by name, in the order of names.

    Raises:
        SystemExit: the folder does not hold what is needed.
    """
    if not (folder / WINDOWS).is_file():
        raise SystemExit(f"expected a folder with {WINDOWS} and {ARCHIVE} or {FOLDER}/ in --data, got {folder}")
    windows = json.loads((folder / WINDOWS).read_text())
    found = {}
    for name, text in _files(folder):
        rows = list(csv.reader(io.StringIO(text)))[1:]
        times = np.array([_seconds(row[0]) for row in rows], np.int64)
        spans = [np.flatnonzero((times >= _seconds(first)) & (times <= _seconds(last))) for first, last in windows[name]]
        truth = Truth(len(rows), tuple((int(span[0]), int(span[-1])) for span in spans))
        found[name] = Series(times, np.array([float(row[1]) for row in rows]), truth)
    if not found:
        raise SystemExit(f"expected {ARCHIVE} or CSV files in {FOLDER}/ in --data, got neither in {folder}")
    return dict(sorted(found.items()))


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    if (folder / ARCHIVE).is_file():
        with tarfile.open(folder / ARCHIVE) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(".csv") else None
                if content is not None:
                    yield member.name.removeprefix(f"{FOLDER}/"), content.read().decode()
        return
    for path in sorted((folder / FOLDER).rglob("*.csv")):
        yield path.relative_to(folder / FOLDER).as_posix(), path.read_text()


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def surge_scores(series: Series) -> Floats:
    """The fresh scores under the defaults."""
    return Surge(SurgeConfig()).observe(series.times_s, series.values).fresh


def gaussian_scores(series: Series) -> Floats:
    """One less the chance of a value so far from the mean of a window that moves in steps, if it were normal."""
    values = series.values
    scores = np.zeros(len(values))
    window_end, mean, deviation = 0, 0.0, 1.0
    for i, value in enumerate(values):
        if i:
            chance = 0.5 * math.erfc(abs(value - mean) / deviation / math.sqrt(2))
            scores[i] = round(1.0 - chance, GAUSSIAN_DIGITS)
        filled = i + 1
        if filled <= GAUSSIAN_WINDOW or (filled - GAUSSIAN_WINDOW) % GAUSSIAN_STEP == 0:
            window_end = filled
            window = values[max(0, window_end - GAUSSIAN_WINDOW) : window_end]
            mean, deviation = float(window.mean()), float(window.std()) or 1e-6
    return scores


def silent_scores(series: Series) -> Floats:
    """Never anything: scores 0."""
    return np.zeros(len(series.values))


DETECTORS: dict[str, Callable[[Series], Floats]] = {
    "surge": surge_scores, "windowed Gaussian": gaussian_scores, "null": silent_scores,
}  # fmt: skip


def run(folder: Path) -> None:
    """Run every detector over every series and print what the scorer makes of it."""
    corpus = load(folder)
    truths = {name: series.truth for name, series in corpus.items()}
    windows = sum(len(truth.windows) for truth in truths.values())
    rows = sum(truth.rows for truth in truths.values())
    print(f"\n{len(corpus)} series, {rows:,} rows, {windows} windows")
    for label, detect in DETECTORS.items():
        detect(next(iter(corpus.values())))  # compiles, which is no part of the time
        began = time.perf_counter()
        scores = {name: detect(series) for name, series in corpus.items()}
        print(f"\n{label}, {time.perf_counter() - began:.1f} s")
        if label == "surge":
            _print_files(score(scores, truths, PROFILES["standard"]), truths)
        for name, profile in PROFILES.items():
            _print_total(name, score(scores, truths, profile))
        if label == "surge":
            _print_halves(scores, truths)


def _print_files(scored: Scored, truths: dict[str, Truth]) -> None:
    for name, truth in truths.items():
        found = f"{scored.found[name]} of {len(truth.windows)} windows"
        print(f"  {name:54} {found}, {scored.false[name]:3} false, raw {scored.raw[name]:6.2f}")


def _print_total(name: str, scored: Scored) -> None:
    found, false = sum(scored.found.values()), sum(scored.false.values())
    print(f"  {name:14} {scored.total:6.1f}   threshold {scored.threshold:.4f}, {found} windows found, {false} rows false")


def _print_halves(scores: dict[str, Floats], truths: dict[str, Truth]) -> None:
    """The threshold is the only thing that is fitted here: how a half does under that of the other half."""
    profile, names = PROFILES["standard"], list(truths)
    config = SurgeConfig()
    halves = {"even": names[0::2], "odd": names[1::2]}
    for label, other in (("even", "odd"), ("odd", "even")):
        part = {name: truths[name] for name in halves[label]}
        own = score(scores, part, profile)
        threshold = best_threshold(scores, {name: truths[name] for name in halves[other]}, profile)
        lent = score(scores, part, profile, threshold)
        totals = f"{own.total:.1f} with their own threshold, {lent.total:.1f} with that of the {other} ones"
        print(f"  {label} files: {totals} ({threshold:.2f})")
    _print_total("at alarm_at", score(scores, truths, profile, config.alarm_at))
