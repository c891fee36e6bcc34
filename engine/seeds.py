"""The secret seed: it keys the hashes of every table and the fingerprints of API keys."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, field

import numpy as np

from detectors.kernels.digests import DIGEST_KEY_WORDS
from detectors.kernels.hashing import HASH_SEED_WORDS
from schemas.columns import U64
from schemas.config import Config

VARIABLE = "FLOODWALL_SEED"


@dataclass(frozen=True, slots=True)
class Seeds:
    """What is derived from one secret."""

    secret: str = field(repr=False)
    configured: bool
    """Whether an operator set it; one that was drawn is kept in saved states, one that was set is not."""

    def _derive(self, purpose: str, size: int = 16) -> bytes:
        key = hashlib.sha256(self.secret.encode()).digest()
        return hashlib.blake2b(purpose.encode(), key=key, digest_size=size).digest()

    @property
    def hash(self) -> U64:
        """u64[HASH_SEED_WORDS]: for tables and partitions."""
        words = self._derive("hash") + self._derive("multipliers", 8 * (HASH_SEED_WORDS - 2))
        return np.frombuffer(words, "<u8").astype(np.uint64)

    @property
    def key(self) -> tuple[int, int]:
        """Two words: for fingerprints of API keys."""
        low, high = np.frombuffer(self._derive("key"), "<u8").tolist()
        return low, high

    @property
    def digest(self) -> U64:
        """u64[DIGEST_KEY_WORDS]: for digests of raw records. A seed that was drawn is gone tomorrow, so that without a
        configured one the key is the same for everybody: digests find damage then, and no forgery."""
        root = self._derive("digests", 32) if self.configured else b"no seed"
        words = hashlib.shake_256(root).digest(8 * DIGEST_KEY_WORDS)
        return np.frombuffer(words, "<u8").astype(np.uint64)

    @property
    def fingerprint(self) -> str:
        """Names the seed without giving it away; part of the evidence."""
        return self._derive("fingerprint").hex()[:12]


def make_seeds(config: Config) -> Seeds:
    """The configured seed, else the environment's, else a new one."""
    given = config.engine.seed or os.environ.get(VARIABLE)
    if given:
        return Seeds(given, configured=True)
    return Seeds(secrets.token_hex(16), configured=False)
