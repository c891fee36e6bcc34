"""What is true of a drill: per event which attack it belongs to, per attack its sources, its time and its victims.

Beside each stream lies a file of one unsigned 16-bit number (little-endian) for each line: 0 is honest, else the attack's
label. ``labels.ndjson`` says the rest, one object a line: the drill, its attacks, their sources, the accounts they made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from drills.attacks.base import Hostile
from drills.attacks.catalogue import ATTACKS
from drills.columns import FLAG_NEW_ACCOUNT, I64, STREAMS, Events
from drills.render import in_stream
from drills.run import Drill
from drills.service import addresses
from drills.service.actors import address_target, network_target, new_account, new_key
from drills.service.words import DOMAIN_OF_CUSTOMER, DOMAINS_DISPOSABLE
from drills.service.world import CARRIER_ADDRESSES, OFFICES

LABELS_SCHEMA = 1
_NEVER = np.iinfo(np.int64).max


def labels_of(events: Events, stream: str) -> npt.NDArray[np.uint16]:
    """u16[lines]: the label of each line of a stream; ``events``: of every event."""
    labels: npt.NDArray[np.uint16] = events["attack"] if stream == "events" else events["attack"][in_stream(events, stream)]
    return labels.astype("<u2")


class Truth:
    """Gathers what happened, block by block. Its memory is the attackers' number."""

    def __init__(self, drill: Drill) -> None:
        self._drill = drill
        self._first = drill.world.honest_actors
        count = len(drill.world.actors) - self._first
        self.events: I64 = np.zeros(count, np.int64)
        """i64[hostile actors]: what each sent, and when it completed its first and last"""
        self.first_ms: I64 = np.full(count, _NEVER)
        self.last_ms: I64 = np.zeros(count, np.int64)
        self.streams: dict[str, I64] = {stream: np.zeros(len(drill.hostile) + 1, np.int64) for stream in STREAMS}
        """Stream -> i64[attacks + 1]: events by label"""
        self._accounts: dict[tuple[int, int], int] = {}

    def note(self, events: Events) -> None:
        """Take in a block."""
        for stream, counts in self.streams.items():
            counts += np.bincount(labels_of(events, stream), minlength=len(counts))
        hostile = events[events["attack"] > 0]
        if not len(hostile):
            return
        actor = hostile["actor"] - self._first
        self.events += np.bincount(actor, minlength=len(self.events))
        np.minimum.at(self.first_ms, actor, hostile["time_ms"])
        np.maximum.at(self.last_ms, actor, hostile["time_ms"])
        made = hostile[hostile["flags"] & FLAG_NEW_ACCOUNT > 0]
        for label in np.unique(made["attack"]).tolist():
            numbers, counts = np.unique(made["number"][made["attack"] == label], return_counts=True)
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                self._accounts[label, number] = self._accounts.get((label, number), 0) + count

    def actors_of(self, hostile: Hostile) -> I64:
        """The actors of an attack."""
        return np.unique(np.concatenate([wave.actors for wave in hostile.waves]))

    def summary(self) -> list[dict[str, Any]]:
        """The first of them: the drill, then each attack."""
        return [self._drill_record(), *(self._attack_record(hostile) for hostile in self._drill.hostile)]

    def records(self) -> Iterator[dict[str, Any]]:
        """The lines of ``labels.ndjson``."""
        yield from self.summary()
        actors = self._drill.world.actors
        for hostile in self._drill.hostile:
            for actor in self.actors_of(hostile).tolist():
                if not self.events[actor - self._first]:
                    continue
                address = actors.address[actor]
                record = {
                    "kind": "source", "attack": hostile.label, "ip": address_target(address), "net": network_target(address),
                    "api_key": actors.key[actor], "account": actors.account[actor],
                    "user_agent": actors.agent[actor], "events": int(self.events[actor - self._first]),
                    "first_ms": int(self.first_ms[actor - self._first]), "last_ms": int(self.last_ms[actor - self._first]),
                }  # fmt: skip
                yield {name: value for name, value in record.items() if value != ""}
        for (label, number), count in sorted(self._accounts.items()):
            yield {
                "kind": "account", "attack": label, "account": new_account(number), "api_key": new_key(number), "events": count,
            }  # fmt: skip

    def _drill_record(self) -> dict[str, Any]:
        plan = self._drill.plan
        return {
            "kind": "drill", "schema": LABELS_SCHEMA, "seed": plan.seed, "start": plan.start_s, "stop": self._drill.stop_s,
            "events_per_second": plan.events_per_second, "strength": plan.strength,
            "events": {stream: int(counts.sum()) for stream, counts in self.streams.items()},
            "honest": {stream: int(counts[0]) for stream, counts in self.streams.items()},
            "storms": [
                {"name": e.name, "start": e.start_s, "stop": e.stop_s} for e in self._drill.world.episodes if plan.honest
            ],
            "lists": known_lists(),
        }  # fmt: skip

    def _attack_record(self, hostile: Hostile) -> dict[str, Any]:
        attack = ATTACKS[hostile.name]
        mine = self.actors_of(hostile) - self._first
        sent = mine[self.events[mine] > 0]
        return {
            "kind": "attack", "label": hostile.label, "name": hostile.name, "strength": self._drill.plan.strength,
            "text": attack.text, "trap": attack.trap, "start": hostile.start_s, "stop": hostile.stop_s,
            "cut": hostile.stop_s > self._drill.stop_s,
            "first_ms": int(self.first_ms[sent].min()) if len(sent) else None,
            "last_ms": int(self.last_ms[sent].max()) if len(sent) else None,
            "sources": len(sent), "events": {stream: int(counts[hostile.label]) for stream, counts in self.streams.items()},
            "stops": list(attack.stops), "victims": hostile.victims,
        }  # fmt: skip


def known_lists() -> dict[str, list[Any]]:
    """What an operator of the service would have on lists."""
    return {
        "crawlers": [addresses.text_of(addresses.CRAWLERS + 1 + index) for index in range(8)],
        "shared_networks": [
            addresses.text_of(addresses.CARRIER) + f"/{32 - CARRIER_ADDRESSES.bit_length() + 1}",
            *(addresses.text_of(addresses.OFFICES + index) for index in range(OFFICES)),
        ],
        "hosting_asns": list(addresses.HOSTING_ASNS),
        "disposable_domains": list(DOMAINS_DISPOSABLE),
        "customer_domains": [DOMAIN_OF_CUSTOMER],
    }
