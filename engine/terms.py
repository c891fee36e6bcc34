"""What the policy goes by from one second on: its section, laid out for looking up, and the versions that ids are made of."""

from __future__ import annotations

from engine.standing import Standing
from schemas.config import Policy, parse_prefixes
from schemas.prefixes import Prefixes


class Terms:
    """The terms of a standing."""

    def __init__(self, standing: Standing) -> None:
        self.section: Policy = standing.config.policy
        self.version, self.kept_s = standing.version, standing.kept_s
        self._standing = standing
        core = list(parse_prefixes(self.section.allowlist_core, "policy.allowlist_core"))
        self._passing: list[tuple[int, Prefixes]] = []
        self._names: dict[tuple[str, str], int | None] = {}
        for allow in self.section.allow:
            if allow.dimension not in ("ip", "net"):
                self._names[allow.dimension, allow.value] = allow.expires_tick
                continue
            networks = parse_prefixes((allow.value,), "policy.allow")
            if allow.expires_tick is None:
                core += networks
            else:
                self._passing.append((allow.expires_tick, Prefixes(networks)))
        self._allowed = Prefixes(core)
        self.shared = Prefixes(parse_prefixes(self.section.shared_networks, "policy.shared_networks"))

    def version_of(self, detector: str) -> int:
        """The version of a detector's section, which is part of its ids."""
        return self._standing.version_of(detector)

    def allows(self, low: int, high: int, tick: int) -> bool:
        """Whether one of these addresses may not be mitigated at ``tick``."""
        return self._allowed.touches(low, high) or any(
            tick < until and prefixes.touches(low, high) for until, prefixes in self._passing
        )

    def allows_name(self, dimension: str, value: str, tick: int) -> bool:
        """The same of a key, an account."""
        if (dimension, value) not in self._names:
            return False
        until = self._names[dimension, value]
        return until is None or tick < until
