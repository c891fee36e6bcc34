"""Who sends requests: an address with what it brings along. An event names its actor by number."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from drills.columns import I64
from drills.service.addresses import asns_of, countries_of, text_of
from drills.service.words import AGENTS, fingerprint_of

_FINGERPRINTS = tuple(fingerprint_of(agent) for agent in AGENTS)


@dataclass(slots=True)
class Actors:
    """Rows of all actors, honest ones first; attacks add theirs behind."""

    address: list[str] = field(default_factory=list)
    key: list[str] = field(default_factory=list)
    """The gateway's hash of the key; empty: none."""
    account: list[str] = field(default_factory=list)
    who_json: list[bytes] = field(default_factory=list)
    """The fields of our own schema that say who: address, country, network, program."""
    key_json: list[bytes] = field(default_factory=list)
    agent: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.address)

    def add(
        self,
        addresses: Sequence[int],
        agents: Sequence[int] | I64,
        keys: Sequence[str] | None = None,
        accounts: Sequence[str] | None = None,
    ) -> I64:
        """One actor per address, as numbers (`drills.service.addresses`), with indices into ``AGENTS``; their numbers."""
        first, count = len(self), len(addresses)
        numbers = np.asarray(addresses, np.int64)
        countries, asns = countries_of(numbers), asns_of(numbers).tolist()
        keys = keys or [""] * count
        accounts = accounts or [""] * count
        for index, (number, agent) in enumerate(zip(addresses, agents, strict=True)):
            text, name = text_of(number), AGENTS[agent]
            self.address.append(text)
            self.agent.append(name)
            self.key.append(keys[index])
            self.account.append(accounts[index])
            self.who_json.append(
                f'"client_ip":"{text}","country":"{countries[index]}","asn":{asns[index]},"user_agent":"{name}",'
                f'"fingerprint":"{_FINGERPRINTS[agent]}"'.encode()
            )
            self.key_json.append(identity_json(keys[index], accounts[index]))
        return np.arange(first, first + count, dtype=np.int64)


def identity_json(key: str, account: str) -> bytes:
    """The fields that name key and account, each with a comma before it; none for what is empty."""
    parts = [f',"api_key_hash":"{key}"'] if key else []
    parts += [f',"account":"{account}"'] if account else []
    return "".join(parts).encode()


# Multiplied by an odd number, different ones stay different and none says where it came from.
_SCRAMBLE = 0x5851F42D4C957F2D


def new_account(number: int) -> str:
    """The account that a registration made."""
    return f"acct_n{number * _SCRAMBLE % (1 << 48):012x}"


def new_key(number: int) -> str:
    """The hash of that account's first key."""
    return f"sha256:{(number + (1 << 60)) * _SCRAMBLE % (1 << 64):016x}"


def unknown_key(number: int) -> str:
    """The hash of a key that nobody has."""
    return f"sha256:{(number + (1 << 61)) * _SCRAMBLE % (1 << 64):016x}"


def request_number(number: int) -> int:
    """What stands in the request id of an event: 60 bits."""
    return number * _SCRAMBLE % (1 << 60)


def address_target(text: str) -> str:
    """An address as mitigations name it: IPv4 as it is, of IPv6 the /64."""
    return str(ipaddress.ip_network(f"{text}/64", strict=False)) if ":" in text else text


def network_target(text: str) -> str:
    """Its network as mitigations name it: /24 or /48."""
    return str(ipaddress.ip_network(f"{text}/{48 if ':' in text else 24}", strict=False))
