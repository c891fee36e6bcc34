"""Who sends requests: an address with what it brings along. An event names its actor by number."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from drills.columns import I64
from drills.service.addresses import asns_of, countries_of, text_of
from drills.service.newcomers import FIRST, Newcomers
from drills.service.words import AGENTS, fingerprint_of

T = TypeVar("T")

_FINGERPRINTS = tuple(fingerprint_of(agent) for agent in AGENTS)


@dataclass(slots=True)
class Actors:
    """Rows of all actors, honest ones first; attacks add theirs behind. Newcomers have numbers and no rows."""

    newcomers: Newcomers
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
            self.who_json.append(_who_json(text, countries[index], asns[index], agent))
            self.key_json.append(identity_json(keys[index], accounts[index]))
        return np.arange(first, first + count, dtype=np.int64)

    def addresses_of(self, numbers: I64) -> list[str]:
        """Of each of these actors (i64[n]), newcomers too."""
        return self._of(numbers, self.address, lambda new: [text_of(one) for one in self.newcomers.addresses_of(new).tolist()])

    def agents_of(self, numbers: I64) -> list[str]:
        """Of each its program's name."""
        return self._of(numbers, self.agent, lambda new: [AGENTS[one] for one in self.newcomers.agents_of(new).tolist()])

    def keys_of(self, numbers: I64) -> list[str]:
        """Of each its key's hash; newcomers have none."""
        return self._of(numbers, self.key, lambda new: [""] * len(new))

    def who_json_of(self, numbers: I64) -> list[bytes]:
        """Of each the fields that say who."""
        return self._of(numbers, self.who_json, self._who_json_of_new)

    def key_json_of(self, numbers: I64) -> list[bytes]:
        """Of each the fields that name key and account: of newcomers none, a new account is its event's."""
        return self._of(numbers, self.key_json, lambda new: [b""] * len(new))

    def _of(self, numbers: I64, column: list[T], make: Callable[[I64], list[T]]) -> list[T]:
        """A column of the table, with what newcomers would have in it."""
        if not len(numbers) or int(numbers.max()) < FIRST:
            return [column[number] for number in numbers.tolist()]
        new = np.unique(numbers[numbers >= FIRST]).astype(np.int64)
        made = dict(zip(new.tolist(), make(new), strict=True))
        return [made[number] if number >= FIRST else column[number] for number in numbers.tolist()]

    def _who_json_of_new(self, new: I64) -> list[bytes]:
        places, agents = self.newcomers.addresses_of(new), self.newcomers.agents_of(new).tolist()
        rows = zip(places.tolist(), countries_of(places), asns_of(places).tolist(), agents, strict=True)
        return [_who_json(text_of(place), country, asn, agent) for place, country, asn, agent in rows]


def _who_json(address: str, country: str, asn: int, agent: int) -> bytes:
    return (
        f'"client_ip":"{address}","country":"{country}","asn":{asn},"user_agent":"{AGENTS[agent]}",'
        f'"fingerprint":"{_FINGERPRINTS[agent]}"'
    ).encode()


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
