"""The learned detectors of a judge: what they are given, what they say, and what is kept of them.

A learned detector decides at the close of windows of its own, final stage only. It takes in tallies as the judge does, is told
which second has been closed, and everything that it knows is plain data, so that it can be written down and gone on from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from engine.cohorts import make_registrations
from engine.crossing import Crossing
from engine.keys import make_keys
from engine.suspicions import NOTHING, Suspicions
from schemas.config import Config
from schemas.errors import StateError
from schemas.feedback import Feedback
from schemas.tally import Tally


class LearnedDetector(Protocol):
    """What the engine asks of one. The same events give the same crossings and the same `save`, for any cut."""

    @property
    def name(self) -> str:
        """Of the detector; its section of the configuration has it too."""
        ...

    @property
    def version(self) -> int:
        """Of the model: one that learned as another version is not gone on from."""
        ...

    def add(self, tally: Tally) -> None:
        """Take in a tally. Its arrays may be used again when this returns."""
        ...

    def close(self, closed: int, muted: int, suspicions: Suspicions = NOTHING) -> list[Crossing]:
        """Decide and learn up to a second; of what touches a second up to ``muted`` something is missing.

        ``suspicions``: what others found up to that second, which is decided upon but not learned.
        """
        ...

    def feedback(self, finding_id: str, confirmed: bool) -> bool:
        """Learn from a verdict; whether the finding was its own and is still known."""
        ...

    def save(self) -> dict[str, Any]:
        """Plain data and arrays for `load`."""
        ...

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave."""
        ...

    def describe(self) -> dict[str, Any]:
        """What people may want to know; ``cold``: it does not know enough yet."""
        ...

    def reset(self) -> None:
        """Forget what was learned. What was taken in of windows that are not over stays: how much it is, the cut decides."""
        ...


MAKERS: dict[str, Callable[[Config, int], LearnedDetector | None]] = {
    "keys": make_keys,
    "registrations": make_registrations,
}
"""Name -> what makes a detector for so many judge partitions; None where it is off."""


class Learned:
    """All of a judge's.

    Args:
        config: with their sections.
        owned: judge partitions of the judge.
    """

    def __init__(self, config: Config, owned: int) -> None:
        self._config, self._owned = config, owned
        made = {name: make(config, owned) for name, make in sorted(MAKERS.items())}
        self.detectors = {name: detector for name, detector in made.items() if detector is not None}
        self.suspicions = Suspicions()
        """What others found. It is no part of what `save` gives: whoever saves a judge saves it once."""
        self.refused: dict[str, str] = {}
        """Detectors whose saved models could not be used, and why, until they are warm again."""
        self._schemas = {name: schema_hash(detector) for name, detector in self.detectors.items()}

    def add(self, tally: Tally) -> None:
        """A tally that the judge has taken."""
        for detector in self.detectors.values():
            detector.add(tally)

    def note(self, crossings: list[Crossing]) -> None:
        """What has been decided finally, before the seconds that it is about are closed here."""
        if self.detectors:
            self.suspicions.note(crossings, self.detectors)

    def close(self, closed: int, muted: int) -> list[Crossing]:
        """What they say once a second has been closed."""
        found: list[Crossing] = []
        for name, detector in self.detectors.items():
            told = detector.close(closed, muted, self.suspicions)
            if told and name in self.refused:
                told = self._marked(name, told)
            found += told
        return found

    def _marked(self, name: str, told: list[Crossing]) -> list[Crossing]:
        """Whoever reads the finding is to know that the model began anew."""
        if not self.detectors[name].describe().get("cold", False):
            del self.refused[name]
            return told
        return [dataclasses.replace(one, features=(*one.features, ("model_refused", self.refused[name]))) for one in told]

    def feedback(self, record: Feedback) -> bool:
        """A record holds from now on; whether a detector learned from it."""
        if record.verdict == "reset":
            detector = self.detectors.get(record.detector)
            if detector is not None:
                detector.reset()
                self.refused.pop(record.detector, None)
            return detector is not None
        finding = record.finding or record.id
        confirmed = record.verdict == "confirmed"
        return sum(detector.feedback(finding, confirmed) for detector in self.detectors.values()) > 0

    def save(self) -> dict[str, dict[str, Any]]:
        """Each by its name, as plain data and arrays."""
        return {name: self.save_one(name) for name in self.detectors}

    def save_one(self, name: str) -> dict[str, Any]:
        """One of them, with what tells whether it can be gone on from."""
        detector = self.detectors[name]
        return {
            "version": detector.version, "schema_hash": self._schemas[name], "data": detector.save(),
            "about": detector.describe(), "refused": self.refused.get(name, ""),
        }  # fmt: skip

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over what `save` gave. A model that does not fit is left cold, and says so; one that is not there is new."""
        for name in self.detectors:
            if name in saved:
                self.load_one(name, saved[name])

    def load_one(self, name: str, saved: Any) -> bool:
        """Take over one model, or refuse it; whether it was taken."""
        detector = self.detectors[name]
        try:
            came = saved["version"], saved["schema_hash"]
            expected = detector.version, self._schemas[name]
            if came != expected:
                raise StateError(f"expected a model of [version, schema] {list(expected)}, got one of {list(came)}")
            detector.load(saved["data"])
            if saved["refused"]:
                self.refused[name] = saved["refused"]
        except (StateError, AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            self.refuse(name, str(error))
            return False
        return True

    def refuse(self, name: str, why: str) -> None:
        """A saved model cannot be used: the detector begins anew, and says so; of what it has taken nothing stays."""
        made = MAKERS[name](self._config, self._owned)
        assert made is not None
        self.detectors[name] = made
        self.refused[name] = why[:256]


def schema_hash(detector: LearnedDetector) -> str:
    """Of the parts that a model which knows nothing is made of: their names, and what arrays hold."""
    words = f"{detector.name}|{detector.version}|{_shape_of(detector.save())}"
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


def _shape_of(value: Any) -> str:
    if isinstance(value, dict):
        parts = sorted(value.items(), key=lambda one: str(one[0]))
        return "{" + ",".join(f"{key}:{_shape_of(inner)}" for key, inner in parts) + "}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}[{value.ndim}]"
    return "list" if isinstance(value, list | tuple) else "plain"


def digest_of(body: bytes) -> int:
    """What a snapshot is told apart by from others of its model."""
    return zlib.crc32(body)
