"""The intake put together: GitHub's keys, the topic, and the server."""

from __future__ import annotations

import socket
from collections.abc import Callable

from broker.connection import Connection
from edge.bouncer_api import Limits
from edge.bouncer_server import BouncerServer, Tls
from edge.github_keys import GithubKeys
from edge.intake import IntakeApi, IntakeMetrics, fingerprints_of
from edge.leaks_topic import LeaksTopic
from edge.topic import Tell
from engine.clock import Clock
from schemas.config import Config
from schemas.errors import BrokerError
from schemas.topics import LEAKED_KEYS

WAIT_S = 0.2


def run_intake(
    config: Config, key_seed: tuple[int, int] | None, clock: Clock, tell: Tell, stop: Callable[[], bool], *,
    listen: tuple[str, int] | socket.socket, tls: Tls | None, health_port: int,
) -> None:  # fmt: skip
    """Receive posts until told to stop.

    Args:
        key_seed: of fingerprints of keys that come in the clear; None: no seed is configured.

    Raises:
        ConfigError: fingerprints cannot be made as configured. BrokerError: no brokers, or no topic.
        EdgeError: the port is taken.
    """
    intake, topic_name = config.intake, config.kafka.topic_prefix + LEAKED_KEYS
    fingerprints = fingerprints_of(intake, key_seed)
    keys = GithubKeys(intake.public_keys, intake.refresh_s, clock, tell)
    connection = Connection(config.kafka)
    if topic_name not in connection.check().topics:
        raise BrokerError(f"expected the topic {topic_name}, got nothing of that name; make it: floodwall topics create")
    keys.refresh()
    topic, metrics = LeaksTopic(connection, topic_name), IntakeMetrics()
    api = IntakeApi(intake, keys, fingerprints, topic.publish, metrics, clock, config.time.lateness_s, tell)
    limits = Limits(body_bytes_max=intake.body_bytes_max, headers_max=64, header_bytes_max=8192)
    server = BouncerServer(api, metrics, limits, tell, listen=listen, health_port=health_port, tls=tls)
    server.start()
    try:
        while not stop():
            server.check()
            clock.wait(WAIT_S)
    finally:
        server.stop()
        topic.close()
