"""The accounting: every record that was read is counted, late, empty or poison, and can be asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SAMPLES_PER_REASON = 5
EXCERPT_BYTES = 120


@dataclass(slots=True)
class PoisonSample:
    """One record that could not be read."""

    source: str
    start: int
    length: int
    reason: str
    at: int
    """Bytes from the record's start to where reading stopped."""
    excerpt: str
    offset: int | None = None
    """Of the message that it is, on Kafka, where ``start`` is 0; none: ``start`` counts the bytes of the source."""
    redacted: bool = False
    """The excerpt has been made fit to be shown."""


@dataclass(slots=True)
class SourceCount:
    """What became of one source in this run. As in `Account`, but for what only the judge knows."""

    records: int = 0
    events: int = 0
    counted: int = 0
    late: int = 0
    outside: int = 0
    empty: int = 0
    time_replaced: int = 0
    poison: dict[str, int] = field(default_factory=dict)
    oldest_ms: int = 0
    """Of all its events, late ones included; of no meaning without events."""
    newest_ms: int = 0


@dataclass(slots=True)
class Account:
    """``records`` = those with events + ``empty`` + all ``poison``; ``events`` = ``counted`` + ``late`` + ``outside``."""

    records: int = 0
    events: int = 0
    counted: int = 0
    late: int = 0
    """Older than the newest of their source partition by more than the lateness."""
    outside: int = 0
    """Not within the range of time that was asked for."""
    stragglers: int = 0
    """Counted by observe, but their tick had been closed because other source partitions were further on."""
    truncated: int = 0
    """Rows that a bound left out."""
    aged_out: int = 0
    """Keys that a full table gave up."""
    held: int = 0
    """Mitigations held back by a budget."""
    left_behind: int = 0
    """Source partitions that others stopped waiting for."""
    duplicates: int = 0
    gaps: int = 0
    empty: int = 0
    time_replaced: int = 0
    poison: dict[str, int] = field(default_factory=dict)
    newest_ms: int = 0
    oldest_ms: int = 0
    addresses: dict[str, int] = field(default_factory=dict)
    """Where client addresses came from, and how many events."""
    fields: dict[str, int] = field(default_factory=dict)
    """How many events carried each field."""
    poison_samples: list[PoisonSample] = field(default_factory=list)

    def add_poison(self, sample: PoisonSample) -> None:
        """Count one poison record and keep it as an example while there are few."""
        seen = self.poison.get(sample.reason, 0)
        self.poison[sample.reason] = seen + 1
        if seen < SAMPLES_PER_REASON:
            self.poison_samples.append(sample)

    def save(self) -> dict[str, Any]:
        """Plain data for `Account.load`."""
        return asdict(self)

    @classmethod
    def load(cls, data: dict[str, Any]) -> Account:
        """What `save` gave."""
        account = cls(**{**data, "poison_samples": []})
        account.poison_samples = [PoisonSample(**sample) for sample in data["poison_samples"]]
        return account
