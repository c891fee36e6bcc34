"""The private parts of Faust and aiokafka that the transport overrides or rests on are as they were.

Source text is pinned here because streams/transport.py *replaces* these methods, or reads attributes that have no other
door: a change of theirs may leave every behaviour that we can provoke as it is, and still leave our copy behind. What can
be shown by behaviour is shown in test_faust_faults.py and test_faust_on_a_broker.py.

A test that fails here after an upgrade is the reason to read `streams/transport.py` again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from typing import Any

import aiokafka
import pytest
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.producer.sender import Sender
from faust.app.base import App
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, ConsumerRebalanceListener

PINS = {
    "faust.transport.consumer": (
        Consumer, "868622e091f8", ("getmany", "perform_seek", "ack", "_add_gap", "_drain_messages", "on_partitions_revoked")
    ),
    "faust.tables": (TableManager, "3572e6faf27e", ("on_start", "_update_channels")),
    "faust.recovery": (Recovery, "d986a6710c1a", ("_resume_streams",)),
    "faust.app": (App, "8e73826da1c5", ("_on_partitions_revoked", "_on_partitions_assigned", "_new_transport")),
    "faust.thread": (
        AIOKafkaConsumerThread, "001b05435938",
        ("_fetch_records", "_seek_wait", "_create_worker_consumer", "on_start", "getmany"),
    ),
    "faust.listener": (ConsumerRebalanceListener, "d442302833f5", ("on_partitions_revoked", "on_partitions_assigned")),
    "aiokafka.fetcher": (Fetcher, "76010ff9e26f", ("fetched_records", "_get_actions_per_node", "_proc_fetch_request")),
    "aiokafka.records": (PartitionRecords, "a643fa5a721b", ("_unpack_records", "_consumer_record")),
    "aiokafka.coordinator": (
        GroupCoordinator, "72be5b5cead6", ("fetch_committed_offsets", "_do_heartbeat", "reset_generation")
    ),
    "aiokafka.sender": (Sender, "6f352c523882", ("start", "_maybe_wait_for_pid")),
}  # fmt: skip


def fingerprint(owner: Any, names: tuple[str, ...]) -> str:
    """Of the source text of methods."""
    text = "".join(inspect.getsource(getattr(owner, name)) for name in names)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", PINS)
def test_what_we_override_or_rest_on_is_as_it_was(name: str) -> None:
    owner, expected, names = PINS[name]
    assert fingerprint(owner, names) == expected, f"{names} of {owner.__name__} have changed: read streams/transport.py again"


def test_the_versions_are_those_that_were_measured() -> None:
    found = {name: importlib.metadata.version(name) for name in ("faust-streaming", "aiokafka")}
    assert found == {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}


def test_the_plain_attributes_that_are_read_exist() -> None:
    source = inspect.getsource(TopicPartitionState.__init__)
    assert all(f"self.{name} =" in source for name in ("lso", "timestamp", "_position"))
    assert "self._prefetch_backoff = prefetch_backoff" in inspect.getsource(Fetcher.__init__)
    assert "prefetch_backoff=" not in inspect.getsource(aiokafka.AIOKafkaConsumer.start), "it takes an argument for it now"
