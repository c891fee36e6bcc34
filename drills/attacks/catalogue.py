"""Every attack by its name, with what may be stopped for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drills.attacks import floods, logins, signups, usage
from drills.attacks.base import Hostile, Site
from drills.attacks.strengths import STRENGTHS, StrengthName, strength_of
from drills.service.world import World
from schemas.errors import UsageError


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of attack."""

    number: int
    """Its chance hangs on it: never reused."""
    build: Callable[[Site], None]
    stops: tuple[str, ...]
    """Dimensions in which its sources may be stopped; a signature always may."""
    registers: bool = False
    """Its rate is a share of registrations."""
    trap: bool = False
    """The attacker wants somebody else stopped."""
    mimics: bool = False
    """Planted into a log, it asks for what that log's own people ask for."""

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.build.__name__

    @property
    def text(self) -> str:
        """What it is, in a sentence."""
        return " ".join((self.build.__doc__ or "").split())


_ADDRESS = ("ip", "net")
_CUSTOMER = ("ip", "net", "api_key", "account")
_SIGN_UP = ("ip", "net", "account", "api_key", "email_domain")

_ALL = (
    Attack(1, floods.flood_one, _ADDRESS),
    Attack(2, floods.flood_fifty, _ADDRESS),
    Attack(3, floods.botnet, _ADDRESS),
    Attack(4, floods.botnet_mimic, _ADDRESS, mimics=True),
    Attack(5, floods.residential, _ADDRESS),
    Attack(6, floods.cache_busting, _ADDRESS),
    Attack(7, floods.carpet_network, _ADDRESS),
    Attack(8, floods.carpet_routes, _ADDRESS),
    Attack(9, floods.stock_flood, _ADDRESS),
    Attack(20, logins.scan, _ADDRESS),
    Attack(21, logins.scanner_agents, (*_ADDRESS, "user_agent")),
    Attack(22, logins.invalid_keys, _ADDRESS),
    Attack(23, logins.stuffing_loud, _ADDRESS),
    Attack(24, logins.stuffing_slow, _ADDRESS),
    Attack(25, logins.stock_login, _ADDRESS),
    Attack(40, usage.stream_exhaustion, _CUSTOMER),
    Attack(41, usage.slow_requests, _ADDRESS),
    Attack(42, usage.cancelled_prompts, _CUSTOMER),
    Attack(43, usage.max_tokens, _CUSTOMER),
    Attack(44, usage.denial_of_wallet, _CUSTOMER),
    Attack(45, usage.distillation, _CUSTOMER),
    Attack(46, usage.embedding_scraping, _CUSTOMER),
    Attack(60, signups.credit_farming, _SIGN_UP, registers=True),
    Attack(61, signups.registrations_obvious, _SIGN_UP, registers=True),
    Attack(62, signups.registrations_mimic, _CUSTOMER, registers=True),
    Attack(63, signups.registrations_slow, _CUSTOMER, registers=True),
    Attack(64, signups.stock_registrations, _SIGN_UP),
    Attack(70, usage.leaked_key_loud, ("ip", "net", "api_key")),
    Attack(71, usage.leaked_key_quiet, ("ip", "net", "api_key")),
    Attack(72, usage.key_shared, _CUSTOMER),
    Attack(73, usage.stock_key, _CUSTOMER),
    Attack(80, floods.trap_spoofed, _ADDRESS, trap=True),
    Attack(81, usage.trap_framed_key, _ADDRESS, trap=True),
    Attack(82, signups.trap_framed_domain, _ADDRESS, registers=True, trap=True),
)
ATTACKS = {attack.name: attack for attack in _ALL}
assert ATTACKS.keys() == STRENGTHS.keys()
assert len({attack.number for attack in _ALL}) == len(_ALL)


def prepared(world: World, name: str, strength: StrengthName, start_s: int, label: int) -> Hostile:
    """An attack on this world, with its sources.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in ATTACKS:
        near = [known for known in ATTACKS if any(part in known for part in name.split("_") if len(part) > 3)]
        like = f", like {near[0]}" if near else ""
        raise UsageError(f"expected an attack of `floodwall drill list`{like}, got {name[:60]!r}")
    attack = ATTACKS[name]
    site = Site(world, name, attack.number, label, strength_of(name, strength), start_s, registers=attack.registers)
    attack.build(site)
    return site.hostile
