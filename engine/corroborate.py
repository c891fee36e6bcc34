"""Corroboration: weak findings about one key add up, and strong ones shorten the way.

Each detector has one voice about a key, that of its most confident rule lately. Voices are taken as independent: together
they are mistaken as often as all are at once. So two detectors of 0.7 are right in 91 of 100 cases, and that they look at
the same requests is why raising an action needs more than two halves. Only finals are heard, so what follows is the same
for any cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.config import Policy as PolicyConfig
from schemas.fields import Dimension

WEAK = ("notify", "challenge")
"""Actions that another detector's agreement can make a throttle."""
RAISED_TO = "throttle"
HEARD_MAX = 100_000
"""Keys remembered by one judge partition: some 200 bytes each."""
Whom = tuple[int, int, int]
"""(dimension, first word, second word)"""


@dataclass(frozen=True, slots=True)
class Together:
    """What the detectors say of one key together."""

    others: tuple[str, ...]
    """Those that have spoken beside the one that speaks, in alphabetical order."""
    confidence: float

    @property
    def sentence(self) -> str:
        """To be appended to a reason; empty when nobody else has spoken."""
        return f"; {' and '.join(self.others)} agree{'s' if len(self.others) == 1 else ''}" if self.others else ""


_EVERYBODY = (Dimension.SERVICE, Dimension.ROUTE)
"""Detectors that agree about these do not make it right to stop all who use them."""


class Corroboration:
    """Who has said what about whom lately, in one judge partition."""

    def __init__(self, config: PolicyConfig) -> None:
        self.take(config)
        self._heard: dict[Whom, dict[str, tuple[int, float]]] = {}
        self._pruned = 0

    def take(self, config: PolicyConfig) -> None:
        """Go by another section from here on; what was heard stays so."""
        self._memory_s = config.corroborate_s
        self._address, self._customer, self._sure = config.raise_address_at, config.raise_customer_at, config.shorten_at

    def hear(self, whom: Whom, detector: str, tick: int, confidence: float) -> None:
        """A final finding of a detector."""
        if self._memory_s == 0:
            return
        voices = self._heard.setdefault(whom, {})
        before = voices.get(detector)
        if before is not None and tick - before[0] < self._memory_s:
            confidence = max(confidence, before[1])
        voices[detector] = tick, confidence
        if len(self._heard) > HEARD_MAX or tick - self._pruned > self._memory_s:
            self._forget(tick)

    def forget(self, whom: Whom, detector: str) -> None:
        """What a detector said of somebody was wrong."""
        voices = self._heard.get(whom)
        if voices is not None and voices.pop(detector, None) is not None and not voices:
            del self._heard[whom]

    def _forget(self, tick: int) -> None:
        """Drop what is too old to count; when too much is left, all that was heard longest ago."""
        self._pruned = tick
        fresh = {
            whom: voices for whom, voices in self._heard.items() if max(at for at, _ in voices.values()) > tick - self._memory_s
        }
        if len(fresh) > HEARD_MAX:
            latest = sorted(fresh, key=lambda whom: (max(at for at, _ in fresh[whom].values()), whom))
            fresh = {whom: fresh[whom] for whom in latest[-HEARD_MAX // 2 :]}
        self._heard = fresh

    def together(self, whom: Whom, detector: str, tick: int, confidence: float) -> Together:
        """What one detector's finding amounts to, with what the others have said in the last ``corroborate_s``."""
        wrong, others = 1 - confidence, []
        for name, (at, voice) in sorted(self._heard.get(whom, {}).items()):
            if name != detector and tick - at < self._memory_s:
                others.append(name)
                wrong *= 1 - voice
        return Together(tuple(others), 1 - wrong)

    def raised(self, action: str, dimension: Dimension, together: Together, *, shared: bool) -> str:
        """The action after all have spoken. Shared addresses and what all use are not; a customer needs more."""
        if action not in WEAK or not together.others or shared or dimension in _EVERYBODY:
            return action
        needed = self._address if dimension == Dimension.IP else self._customer
        return RAISED_TO if together.confidence >= needed else action

    def shortens(self, together: Together) -> bool:
        """Whether the next step of an escalation is taken at once."""
        return bool(together.others) and together.confidence >= self._sure

    def save(self) -> list[list[Any]]:
        """Plain data for `load`."""
        return [
            [*whom, [[name, at, voice] for name, (at, voice) in sorted(voices.items())]] for whom, voices in self._heard.items()
        ]

    def load(self, data: list[list[Any]]) -> None:
        """Take over what `save` gave."""
        self._heard = {(dimension, a, b): {name: (at, voice) for name, at, voice in voices} for dimension, a, b, voices in data}
