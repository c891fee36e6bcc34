"""From the ``kafka`` section of the configuration to what each client library wants to be told.

What cannot be is refused here, before anything connects: plaintext outside a development profile, a user without a
password, a file that is not there. A setting that would do nothing is refused too.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from schemas.config import Kafka
from schemas.errors import ConfigError

PASSWORD = "FLOODWALL_KAFKA_PASSWORD"
"""The environment variable that holds the password: not the configuration, which people paste into tickets."""
CLIENT_ID = "floodwall"
Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the brokers, checked."""

    brokers: tuple[str, ...]
    protocol: Protocol
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def encrypted(self) -> bool:
        """TLS is spoken."""
        return self.protocol in ("SSL", "SASL_SSL")

    def ssl_context(self) -> ssl.SSLContext | None:
        """For clients that take one of Python's; None without TLS.

        Raises:
            ConfigError: a file holds no certificate or key, or they do not belong together.
        """
        if not self.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"expected certificates in PEM form in `$.kafka.ca_file` ({self.ca_file}), got: {error}"
            ) from None
        if self.certificate_file is not None:
            try:
                # The empty password is asked for, so that an encrypted key is an error and not a question on a terminal.
                context.load_cert_chain(self.certificate_file, self.key_file, password="")
            except (ssl.SSLError, OSError) as error:
                files = f"{self.certificate_file}, {self.key_file}"
                raise ConfigError(
                    f"expected a certificate and its unencrypted key in `$.kafka.certificate_file` and `key_file` ({files}), "
                    f"got: {error}"
                ) from None
        return context


def access_of(kafka: Kafka, environment: Mapping[str, str] = os.environ) -> Access:
    """Check the section, and add the password from the environment.

    Raises:
        ConfigError: settings that do not fit together, or would be unsafe; the message names the path.
    """
    with_files = kafka.ca_file is not None or kafka.certificate_file is not None
    encrypted = kafka.tls if kafka.tls is not None else (with_files or not kafka.development)
    if not encrypted and not kafka.development:
        raise ConfigError(
            "expected TLS, got `$.kafka.tls` = false: plaintext is for a machine of your own, and needs "
            "`$.kafka.development` = true"
        )
    if not encrypted and with_files:
        raise ConfigError(
            "expected no certificates without TLS, got `$.kafka.ca_file` or `certificate_file` beside `tls` = false"
        )
    if (kafka.certificate_file is None) != (kafka.key_file is None):
        raise ConfigError("expected `$.kafka.certificate_file` and `$.kafka.key_file` together, got one of them")
    if kafka.sasl_mechanism is None and kafka.certificate_file is None and not kafka.development:
        raise ConfigError(
            "expected `$.kafka.sasl_mechanism` or `$.kafka.certificate_file`, so that the brokers know us, got neither; "
            "`$.kafka.development` = true allows plaintext without a password, on a machine of your own"
        )
    for name in ("ca_file", "certificate_file", "key_file"):
        path = getattr(kafka, name)
        if path is not None and not (Path(path).is_file() and os.access(path, os.R_OK)):
            raise ConfigError(f"expected a readable file at `$.kafka.{name}`, got {path}")
    password = _password(kafka, environment)
    protocols: dict[tuple[bool, bool], Protocol] = {
        (False, False): "PLAINTEXT", (False, True): "SASL_PLAINTEXT", (True, False): "SSL", (True, True): "SASL_SSL",
    }  # fmt: skip
    protocol = protocols[encrypted, kafka.sasl_mechanism is not None]
    return Access(
        kafka.brokers, protocol, kafka.ca_file, kafka.certificate_file, kafka.key_file, kafka.sasl_mechanism,
        kafka.username, password,
    )  # fmt: skip


def _password(kafka: Kafka, environment: Mapping[str, str]) -> str | None:
    if kafka.sasl_mechanism is None:
        if kafka.username is not None:
            raise ConfigError("expected `$.kafka.sasl_mechanism` beside `$.kafka.username`, got none")
        return None
    if kafka.username is None:
        raise ConfigError(f"expected `$.kafka.username` for {kafka.sasl_mechanism}, got none")
    password = environment.get(PASSWORD, "")
    if not password:
        raise ConfigError(f"expected the password of {kafka.username} in the environment variable {PASSWORD}, got none")
    return password


def confluent_settings(kafka: Kafka, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """For confluent-kafka's clients: where, how and as whom. It holds the password: never print it.

    Raises:
        ConfigError: as `access_of`.
    """
    access = access_of(kafka, environment)
    settings: dict[str, Any] = {
        "bootstrap.servers": ",".join(access.brokers),
        "security.protocol": access.protocol,
        "client.id": CLIENT_ID,
    }
    optional = {
        "ssl.ca.location": access.ca_file,
        "ssl.certificate.location": access.certificate_file,
        "ssl.key.location": access.key_file,
        "sasl.mechanism": access.mechanism,
        "sasl.username": access.username,
        "sasl.password": access.password,
    }
    return settings | {name: value for name, value in optional.items() if value is not None}


def aiokafka_settings(kafka: Kafka, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The same for aiokafka's clients. It holds the password: never print it.

    Raises:
        ConfigError: as `access_of`, or a certificate cannot be loaded.
    """
    access = access_of(kafka, environment)
    settings: dict[str, Any] = {
        "bootstrap_servers": list(access.brokers),
        "security_protocol": access.protocol,
        "ssl_context": access.ssl_context(),
        "client_id": CLIENT_ID,
    }
    if access.mechanism is not None:
        settings |= {
            "sasl_mechanism": access.mechanism,
            "sasl_plain_username": access.username,
            "sasl_plain_password": access.password,
        }
    return settings
