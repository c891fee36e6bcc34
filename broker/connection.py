"""A way to the brokers whose failures are one line each: what was expected, what came, and what to do.

librdkafka retries for ever and prints what went wrong on standard error, again and again. Here it prints nothing; what it
reports is kept, and `Connection.explain` says what it means.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from broker.probe import probe, speaks_tls
from broker.settings import access_of, confluent_settings
from schemas.config import Kafka
from schemas.errors import BrokerError

CHECK_S_MAX = 10.0
_ROUND_S = 1.0
_REFUSED = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM)
_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_AWAY = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE, KafkaError._SSL)
_NO_RIGHT = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional id",
}
_TELLING = (*_REFUSED, KafkaError._SSL)
"""What does not get better by waiting."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is there, as far as we may see it."""

    brokers: tuple[str, ...]
    """``host:port`` as the brokers call themselves."""
    topics: dict[str, int]
    """Partitions of each topic, without Kafka's internal ones."""


class Connection:
    """The settings of one client, and what it reported.

    Raises:
        ConfigError: the settings do not fit together (`broker.settings.access_of`).
    """

    def __init__(self, kafka: Kafka, environment: Mapping[str, str] = os.environ) -> None:
        self.access = access_of(kafka, environment)
        self._settings = confluent_settings(kafka, environment)
        self._noted: KafkaError | None = None
        self._admin: AdminClient | None = None

    def settings(self, **more: Any) -> dict[str, Any]:
        """For a confluent-kafka client, with ``_`` for ``.`` in the names of ``more``. Never print them."""
        given = {name.replace("_", "."): value for name, value in more.items()}
        return self._settings | {"log_level": 0, "error_cb": self._note} | given

    def admin(self) -> AdminClient:
        """The client for topics, groups and offsets. It is kept: what it was asked dies with it."""
        if self._admin is None:
            self._admin = AdminClient(self.settings())
        return self._admin

    def check(self, timeout_s: float = CHECK_S_MAX) -> Cluster:
        """Connect, prove who we are, and return what is there.

        Raises:
            BrokerError: none can be reached, or they do not let us in.
        """
        error = probe(self.access)
        if error is not None:
            raise error
        # Made last: a client that is asked at once connects at once, one that is asked a little later waits for 50 ms.
        admin = self.admin()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = admin.list_topics(timeout=_ROUND_S)
            except KafkaException as came:
                admin.poll(0)
                over = time.monotonic() >= deadline or (not self.access.encrypted and speaks_tls(self.access.brokers[0]))
                if over or (self._noted is not None and self._noted.code() in _TELLING):
                    raise self.explain(came) from None
            else:
                brokers = tuple(f"{broker.host}:{broker.port}" for broker in found.brokers.values())
                names = sorted(name for name in found.topics if not name.startswith("__"))
                return Cluster(brokers, {name: len(found.topics[name].partitions) for name in names})

    def explain(self, came: KafkaError | KafkaException, subject: str = "") -> BrokerError:
        """What a client's error means; ``subject`` is the topic or group that it is about."""
        error: KafkaError = came.args[0] if isinstance(came, KafkaException) else came
        if error.code() in _AWAY and self._noted is not None and self._noted.code() in _TELLING:
            error = self._noted
        code, brokers = error.code(), ", ".join(self.access.brokers)
        if code in _REFUSED:
            return BrokerError(self._refused_text(error, brokers))
        if code in _NO_TOPIC:
            return BrokerError(
                f"expected the topic {subject or _text(error)} on {brokers}, there is none; floodwall topics create makes ours"
            )
        if code in _NO_RIGHT:
            user = self.access.username or "this client"
            what = f"the {_NO_RIGHT[code]} {subject}".rstrip()
            return BrokerError(
                f"expected {user} to have its right to {what} on {brokers}, it was refused ({error.name()}); "
                "floodwall topics describe prints which rights are needed"
            )
        if code in _AWAY:
            found = probe(self.access)
            if found is not None:
                return found
            if not self.access.encrypted and speaks_tls(self.access.brokers[0]):
                return BrokerError(
                    f"expected plaintext on {self.access.brokers[0]}, it speaks TLS; see kafka.tls and kafka.ca_file"
                )
        about = f" for {subject}" if subject else ""
        return BrokerError(f"expected an answer{about} from {brokers}, got: {error.name()}: {_text(error)}")

    def _refused_text(self, error: KafkaError, brokers: str) -> str:
        access = self.access
        if access.mechanism is None:
            return f"expected {brokers} to let us in without a password, they do not; see kafka.sasl_mechanism and username"
        if "mechanism" in _text(error).lower() and "invalid credentials" not in _text(error).lower():
            return f"expected {brokers} to take {access.mechanism}, they do not: {_text(error)}; see kafka.sasl_mechanism"
        return (
            f"expected {brokers} to take the password of {access.username} ({access.mechanism}), they refused it; see "
            "kafka.username and the environment variable FLOODWALL_KAFKA_PASSWORD"
        )

    def _note(self, error: KafkaError) -> None:
        """Called by the client from within its own calls. What tells the reason outlives what merely follows from it."""
        if self._noted is None or self._noted.code() not in _TELLING:
            self._noted = error


def is_about_no_group(error: KafkaError) -> bool:
    """Whether a consumer that reads by assignment may go on: it asks its group for nothing and needs no right to it.

    librdkafka looks for the group's coordinator all the same, and hands on that it was refused
    (tests/kafka/test_refusals.py, the rights of replay).
    """
    return error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def _text(error: KafkaError) -> str:
    """One bounded line, printable: part of it comes from the other side."""
    line = " ".join(error.str().split())[:300]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
