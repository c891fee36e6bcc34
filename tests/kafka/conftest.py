"""One real broker for the whole session. Without Java and Maven these tests are skipped, unless they are required."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from broker.local import LocalBroker
from schemas.errors import BrokerError

REQUIRED = "FLOODWALL_REQUIRE_BROKER"


@pytest.fixture(scope="session")
def local_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """The session's broker itself, for tests that stop it or kill it: they leave it running."""
    broker = LocalBroker(tmp_path_factory.mktemp("kafka"), say=print)
    try:
        broker.start()
    except BrokerError as error:
        broker.kill()
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1 and there is no broker: {error}")
        pytest.skip(str(error))
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture(scope="session")
def broker(local_broker: LocalBroker) -> str:
    """The bootstrap address, host:port."""
    return local_broker.bootstrap


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Names that no other test uses: ``unique("requests")``. Topics, groups and transactional ids outlive a test."""
    base = "".join(c if c.isalnum() else "-" for c in request.node.nodeid.split("/")[-1])

    return lambda name: f"{name}-{base}"[:200]
