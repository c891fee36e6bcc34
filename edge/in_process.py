"""An edge inside a service: asked about every request, answers from the mitigations that it was given.

It keeps the rules that every reader of mitigations keeps: per target and detector a lower (tick, stage) is ignored, the
strongest record that has not expired counts, dry runs and drills are not enforced, and the allowlist core is checked again.
"""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import dataclass

from schemas.config import DEFAULT_ALLOWLIST_CORE, parse_prefixes
from schemas.mitigation import Mitigation

STRENGTH = {"challenge": 1, "throttle": 2, "block": 3}
"""What this edge can do, weakest first."""
_STAGES = {"early": 0, "final": 1}


@dataclass(slots=True)
class _Record:
    tick: int
    stage: int
    action: str
    expires_at_ms: int


class InProcessEdge:
    """Decides about addresses. Safe to use from several threads."""

    def __init__(self, allowlist_core: tuple[str, ...] = DEFAULT_ALLOWLIST_CORE) -> None:
        self._core = parse_prefixes(allowlist_core, "policy.allowlist_core")
        self._records: dict[str, dict[str, _Record]] = {}
        self._lock = threading.Lock()
        self.unsupported = 0
        """Records whose action or target it cannot enforce; never replaced by a harsher one."""

    def apply(self, mitigation: Mitigation) -> None:
        """Take in one record."""
        if mitigation.dry_run or mitigation.drill:
            return
        if mitigation.target.type not in ("ip", "net") or mitigation.action not in STRENGTH:
            self.unsupported += mitigation.action != "notify"
            return
        fresh = _Record(mitigation.tick, _STAGES[mitigation.stage], mitigation.action, mitigation.expires_at * 1000)
        with self._lock:
            known = self._records.setdefault(mitigation.target.value, {})
            old = known.get(mitigation.detector)
            if old is not None and (fresh.tick, fresh.stage) < (old.tick, old.stage):
                return
            if mitigation.state == "active":
                known[mitigation.detector] = fresh
            else:
                known.pop(mitigation.detector, None)
                if not known:
                    del self._records[mitigation.target.value]

    def decide(self, address: str, now_ms: int) -> str | None:
        """The action on an address now; None: let it pass.

        Raises:
            ValueError: ``address`` is none.
        """
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        if any(parsed.version == network.version and parsed in network for network in self._core):
            return None
        strongest: str | None = None
        with self._lock:
            for target in _targets(parsed):
                records = self._records.get(target)
                if records is None:
                    continue
                for detector in [name for name, record in records.items() if record.expires_at_ms <= now_ms]:
                    del records[detector]
                for record in records.values():
                    if strongest is None or STRENGTH[record.action] > STRENGTH[strongest]:
                        strongest = record.action
                if not records:
                    del self._records[target]
        return strongest


def _targets(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[str, ...]:
    if address.version == 4:
        return str(address), str(ipaddress.ip_network(f"{address}/24", strict=False))
    prefixes = (64, 48)
    return tuple(str(ipaddress.ip_network(f"{address}/{length}", strict=False)) for length in prefixes)
