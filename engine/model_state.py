"""Snapshots of learned models beside the records of a judge: written less often, named by them, alternating between two slots.

A record names, of each model, where its snapshot lies on the topic `model-state` and what it is told apart by, and of all of
them together the offset of the tallies and the closed second that they cover. Tallies from that offset on are learned from
again. The slot that the record in force names is never the one that is written next, so that compaction keeps what it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from detectors.kernels.windows import NEVER
from engine.learned import Learned, digest_of
from engine.seeds import Seeds
from engine.snapshot import pack, unpack
from schemas.errors import StateError

SNAPSHOT_S = 30
"""Of event time between two snapshots of a model: what a judge that takes over learns again takes a second."""
PIECE_BYTES_MAX = 8 << 20
"""A snapshot is sent in pieces of so much: half of what the topic takes in one message."""


@dataclass(slots=True)
class Named:
    """A snapshot as a record names it."""

    slot: int
    digest: int
    offsets: list[int] = field(default_factory=list)
    """Of its pieces, in the partition of the judge."""


@dataclass(slots=True)
class Fresh:
    """A snapshot that is to be written before the record that names it."""

    model: str
    slot: int
    digest: int
    pieces: list[tuple[bytes, bytes]]
    """Key and value of each message."""


class Snapshots:
    """Those of one judge partition.

    Args:
        learned: the judge's detectors.
        place: the judge partition, and of how many.
    """

    def __init__(self, learned: Learned, seeds: Seeds, place: tuple[int, int]) -> None:
        self._learned, self._seed, self._place = learned, seeds.fingerprint, place
        self.named: dict[str, Named] = {}
        self.position: int | None = None
        """The first offset of the tallies that no snapshot holds; None: there is none yet."""
        self.covered = NEVER

    def due(self, position: int, closed: int) -> list[Fresh]:
        """What has changed, when it is time; `cover` when it has arrived.

        Args:
            position: the next offset of the tallies.
            closed: the last closed second.
        """
        if not self.is_due(closed):
            return []
        found = []
        for name in self._learned.detectors:
            model = self._learned.save_one(name)
            body = pack(model)
            digest, known = digest_of(body), self.named.get(name)
            if known is not None and known.digest == digest:
                continue
            slot = 0 if known is None else 1 - known.slot
            whole = pack({
                "model": name, "seed": self._seed, "place": list(self._place), "slot": slot, "position": position,
                "closed": closed, "digest": digest, "body": body,
            })  # fmt: skip
            parts = [whole[at : at + PIECE_BYTES_MAX] for at in range(0, len(whole), PIECE_BYTES_MAX)]
            pieces = [(model_key(name, self._place[0], slot, index), part) for index, part in enumerate(parts)]
            found.append(Fresh(name, slot, digest, pieces))
        return found

    def is_due(self, closed: int) -> bool:
        """Whether `due` would look."""
        return bool(self._learned.detectors) and closed != NEVER and closed - self.covered >= SNAPSHOT_S

    def cover(self, fresh: Sequence[tuple[Fresh, list[int]]], position: int, closed: int) -> None:
        """They have arrived at these offsets, and all models are covered so far."""
        for one, offsets in fresh:
            self.named[one.model] = Named(one.slot, one.digest, offsets)
        self.position, self.covered = position, closed

    def save(self) -> dict[str, Any]:
        """For the record."""
        return {
            "position": self.position,
            "covered": self.covered,
            "named": {name: msgspec.to_builtins(one) for name, one in self.named.items()},
            "refused": dict(self._learned.refused),
        }

    def load(self, data: Mapping[str, Any]) -> None:
        """Take over what a record names; then `restore` each."""
        self.position, self.covered = data["position"], data["covered"]
        self.named = {
            name: msgspec.convert(one, Named) for name, one in data["named"].items() if name in self._learned.detectors
        }

    def restore(self, name: str, pieces: Sequence[bytes | None]) -> None:
        """Take a model over from the messages at the offsets that the record names; None: there is none any more."""
        try:
            if not pieces or any(piece is None for piece in pieces):
                raise StateError("expected the snapshot that the record names, it is not there any more")
            model = read_snapshot(b"".join(piece for piece in pieces if piece is not None))
            expected = [name, self._seed, list(self._place), self.named[name].digest]
            came = [model.get("model"), model.get("seed"), model.get("place"), model.get("digest")]
            if came != expected:
                raise StateError(f"expected a snapshot of [model, seed, place, digest] {expected}, got one of {came}")
            saved = model["saved"]
        except (StateError, KeyError, TypeError) as error:
            self._learned.refuse(name, str(error))
            del self.named[name]
        else:
            if not self._learned.load_one(name, saved):
                del self.named[name]


def model_key(name: str, partition: int, slot: int, piece: int = 0) -> bytes:
    """What messages are keyed by: model, judge partition and slot, and from the second piece on its number."""
    return f"{name}:{partition}:{slot}{f':{piece}' if piece else ''}".encode()


def read_snapshot(data: bytes) -> dict[str, Any]:
    """A snapshot whose pieces have been put together, and in ``saved`` what `Learned.load_one` takes.

    Raises:
        StateError: it is damaged, or of another schema.
    """
    found = unpack(data)
    body = found.get("body")
    if not isinstance(body, bytes) or digest_of(body) != found.get("digest"):
        raise StateError("expected a snapshot with the model whose digest it names, got another")
    return {**found, "saved": unpack(body)}


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """A learned detector of one judge partition, or of all of them in one process."""

    model: str
    partition: int | None
    """None: all of them, in an embedded state."""
    version: int | None
    covered_tick: int | None
    """The last second that it has learned from, as far as it was written down."""
    bytes: int
    cold: bool
    """It does not know enough yet."""
    refused: str
    """Why an earlier snapshot could not be used, until it is warm again."""
    about: dict[str, Any]
    """What the detector says of itself."""
    data: dict[str, Any] = field(repr=False)
    """Everything it knows, as plain data and arrays."""


def place_of(model: str, partition: int | None, saved: dict[str, Any], covered: int | None, size: int) -> ModelPlace:
    """A saved model, as `engine.learned.Learned.save_one` has it.

    Raises:
        StateError: it has other parts.
    """
    try:
        about = dict(saved["about"])
        return ModelPlace(
            model, partition, int(saved["version"]), covered, size, bool(about.get("cold")), str(saved["refused"]), about,
            dict(saved["data"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"expected a saved model of {model}, got one with other parts ({error})") from None
