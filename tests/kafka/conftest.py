"""One real broker for the whole session. Without Java and Maven these tests are skipped, unless they are required."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator

import pytest

from broker.java import fetch_jars, find_java
from broker.local import LocalBroker
from schemas.errors import BrokerError
from tests.kafka.certificates import Certificates, make_certificates

REQUIRED = "FLOODWALL_REQUIRE_BROKER"


def _missing(why: str) -> None:
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1 and there is no broker: {why}")
    pytest.skip(why)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and what the session's broker shows on its secured listener."""
    try:
        return make_certificates(tmp_path_factory.mktemp("certificates"))
    except FileNotFoundError:
        _missing("expected openssl to make certificates, got none on the path")
        raise


@pytest.fixture(scope="session")
def local_broker(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[LocalBroker]:
    """The session's broker itself, for tests that stop it or kill it: they leave it running.

    On its plaintext listener anyone may do anything. Its secured one asks for a password and obeys access rights.
    """
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.name.secured.ssl.keystore.type": "PEM",
        "listener.name.secured.ssl.keystore.location": str(certificates.broker),
        "listener.name.secured.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.secured.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    try:
        fetch_jars(find_java(), print)
    except BrokerError as error:  # what is there and does not start is a failure, not a reason to skip
        _missing(str(error))
    broker = LocalBroker(tmp_path_factory.mktemp("kafka"), secured=True, settings=settings, say=print)
    try:
        broker.start()
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
    base = zlib.crc32(request.node.nodeid.encode())

    return lambda name: f"{name}-{base:08x}"
