"""Keys and signers for tests of signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from broker.signing import Signer, Verifier, load_private_key, make_key, public_text, save_private_key
from engine.clock import Clock
from schemas.config import Signing, TrustedKey
from schemas.mitigation import Mitigation, topic_key
from tests.edge_parts import HandClock

TOPIC = "mitigations"


class Keyholder:
    """Somebody who signs, at 1000 s after the beginning of time."""

    def __init__(self, name: str, folder: Path, topic: str = TOPIC, clock: Clock | None = None) -> None:
        self.file = folder / f"{name}.pem"
        pem, self.public = make_key(lambda count: name.encode().ljust(count, b"."))
        if not self.file.exists():
            save_private_key(self.file, pem)
        self.clock = clock if isinstance(clock, HandClock) else HandClock()
        self.private = load_private_key(self.file)
        self.signer = Signer(topic, self.private, clock or self.clock)
        assert public_text(self.private) == self.public

    def says(self, mitigation: Mitigation) -> tuple[bytes, bytes]:
        """Key and value on the topic."""
        return topic_key(mitigation.target, mitigation.detector), self.signer.value(mitigation)

    def trusted(self, speaks_for: Literal["detectors", "operators", "both"] = "both") -> TrustedKey:
        return TrustedKey(key=self.public, owner="a test", speaks_for=speaks_for)


def trusting(*keys: TrustedKey, topic: str = TOPIC) -> Verifier:
    return Verifier(topic, Signing(public_keys=keys))
