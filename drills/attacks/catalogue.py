"""Every attack by its name, with what may be stopped for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from drills.attacks import floods, logins, signups, usage
from drills.attacks.base import Hostile, Site
from drills.attacks.strengths import STRENGTHS, StrengthName, strength_of
from drills.service.world import World
from schemas.errors import UsageError

Kind = Literal["flood", "botnet", "entry", "cost", "accounts", "key"]
"""What there is to be seen: busy sources, many quiet ones, ways in, what answers cost, registrations, one key."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of attack."""

    number: int
    """Its chance hangs on it: never reused."""
    build: Callable[[Site], None]
    kind: Kind
    stops: tuple[str, ...]
    """Dimensions in which its sources may be stopped; a signature always may."""
    registers: bool = False
    """Its rate is a share of registrations."""
    trap: bool = False
    """The attacker wants somebody else stopped."""
    mimics: bool = False
    """Planted into a log, it asks for what that log's own people ask for."""
    learned: str = ""
    """Why only a model that has learned could tell its sources from honest ones; empty: limits and levels do."""

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
_LIKE_PEOPLE = "each registration is like an honest one, and a campaign brings as many: what they do later has to be linked"
_LIKE_THE_OWNER = "the owner's own models, sizes and rate: only the networks are new to this key, and there are few"

_ALL = (
    Attack(1, floods.flood_one, "flood", _ADDRESS),
    Attack(2, floods.flood_fifty, "flood", _ADDRESS),
    Attack(3, floods.botnet, "botnet", _ADDRESS),
    Attack(4, floods.botnet_mimic, "botnet", _ADDRESS, mimics=True),
    Attack(5, floods.residential, "botnet", _ADDRESS),
    Attack(6, floods.cache_busting, "botnet", _ADDRESS),
    Attack(7, floods.carpet_network, "botnet", _ADDRESS),
    Attack(8, floods.carpet_routes, "botnet", _ADDRESS),
    Attack(9, floods.stock_flood, "flood", _ADDRESS),
    Attack(20, logins.scan, "entry", _ADDRESS),
    Attack(21, logins.scanner_agents, "entry", (*_ADDRESS, "user_agent")),
    Attack(22, logins.invalid_keys, "entry", _ADDRESS),
    Attack(23, logins.stuffing_loud, "entry", _ADDRESS),
    Attack(24, logins.stuffing_slow, "entry", _ADDRESS),
    Attack(25, logins.stock_login, "entry", _ADDRESS),
    Attack(40, usage.stream_exhaustion, "cost", _CUSTOMER),
    Attack(41, usage.slow_requests, "cost", _ADDRESS),
    Attack(42, usage.cancelled_prompts, "cost", _CUSTOMER),
    Attack(43, usage.max_tokens, "cost", _CUSTOMER),
    Attack(44, usage.denial_of_wallet, "cost", _CUSTOMER),
    Attack(45, usage.distillation, "cost", _CUSTOMER),
    Attack(46, usage.embedding_scraping, "cost", _CUSTOMER),
    Attack(60, signups.credit_farming, "accounts", _SIGN_UP, registers=True),
    Attack(61, signups.registrations_obvious, "accounts", _SIGN_UP, registers=True),
    Attack(62, signups.registrations_mimic, "accounts", _CUSTOMER, registers=True, learned=_LIKE_PEOPLE),
    Attack(63, signups.registrations_slow, "accounts", _CUSTOMER, registers=True, learned=_LIKE_PEOPLE),
    Attack(64, signups.stock_registrations, "accounts", _SIGN_UP),
    Attack(70, usage.leaked_key_loud, "key", ("ip", "net", "api_key")),
    Attack(71, usage.leaked_key_quiet, "key", ("ip", "net", "api_key"), learned=_LIKE_THE_OWNER),
    Attack(72, usage.key_shared, "key", _CUSTOMER),
    Attack(73, usage.stock_key, "key", _CUSTOMER),
    Attack(80, floods.trap_spoofed, "flood", _ADDRESS, trap=True),
    Attack(81, usage.trap_framed_key, "entry", _ADDRESS, trap=True),
    Attack(82, signups.trap_framed_domain, "accounts", _ADDRESS, registers=True, trap=True),
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
