"""Parts of an edge that tests move by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.acknowledgement import Acknowledgement


@dataclass
class Heard:
    """Acknowledgements."""

    said: list[Acknowledgement] = field(default_factory=list)

    def send(self, acknowledgements: list[Acknowledgement]) -> None:
        self.said += acknowledgements

    def take(self) -> list[tuple[str, str]]:
        found = sorted((one.id, one.outcome) for one in self.said)
        self.said.clear()
        return found


class HandClock:
    """At 1000 s after the beginning of time, until told otherwise."""

    def __init__(self, ms: int = 1_000_000) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def wait(self, seconds: float) -> None:
        raise AssertionError("an edge waits for its topic only")
