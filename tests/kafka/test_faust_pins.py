"""Source text of Faust and aiokafka that `streams/transport.py` rests on and that no test can provoke in reasonable time.

What can be provoked is in the other files beside this one whose names begin with test_faust. A test that fails here after an
upgrade is the reason to read `streams/transport.py` again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from typing import Any

import aiokafka
import pytest
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import TopicPartitionState
from faust.app.base import App
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

PINS = {
    # Between draining records and returning them nothing may be awaited: the epoch of a chunk is read afterwards, and a seek in
    # between would give it the wrong one. The race is a matter of microseconds.
    "aiokafka.fetcher": (Fetcher, "be4348896b9b", ("fetched_records",)),
    "faust.thread": (AIOKafkaConsumerThread, "39a2c6c79fc1", ("_fetch_records",)),
    # `ChunkThread.place` reads what these write: a position at its end must be one for which the broker has nothing more, at
    # every moment in which another thread may look.
    "aiokafka.fetcher.answers": (Fetcher, "588c8add4072", ("_get_actions_per_node", "_proc_fetch_request")),
    # Flow is stopped and queues are cleared before anything is awaited, so that no chunk reaches an agent after `revoke`.
    "faust.app": (App, "d5c895bbe57d", ("_on_partitions_revoked",)),
}  # fmt: skip


def fingerprint(owner: Any, names: tuple[str, ...]) -> str:
    """Of the source text of methods."""
    text = "".join(inspect.getsource(getattr(owner, name)) for name in names)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", PINS)
def test_what_we_rest_on_is_as_it_was(name: str) -> None:
    owner, expected, names = PINS[name]
    assert fingerprint(owner, names) == expected, f"{names} of {owner.__name__} have changed: read streams/transport.py again"


def test_the_versions_are_those_that_were_measured() -> None:
    found = {name: importlib.metadata.version(name) for name in ("faust-streaming", "aiokafka")}
    assert found == {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}


def test_the_plain_attributes_that_are_read_exist() -> None:
    """What they mean is shown by every test in which a partition falls silent; a missing one would be silence too early."""
    source = inspect.getsource(TopicPartitionState.__init__)
    assert all(f"self.{name} =" in source for name in ("lso", "timestamp", "_position"))
    assert "self._prefetch_backoff = prefetch_backoff" in inspect.getsource(Fetcher.__init__)
    assert "prefetch_backoff=" not in inspect.getsource(aiokafka.AIOKafkaConsumer.start), "it takes an argument for it now"
