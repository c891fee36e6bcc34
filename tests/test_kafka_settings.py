"""The kafka section: what is unsafe or would do nothing is refused before anything connects."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from broker.settings import PASSWORD, access_of, aiokafka_settings, confluent_settings
from schemas.config import Kafka, parse_config
from schemas.errors import ConfigError

SECRET = {PASSWORD: "hunter2"}
SCRAM = {"sasl_mechanism": "SCRAM-SHA-512", "username": "observer"}


def kafka_of(**settings: Any) -> Kafka:
    return parse_config({"kafka": settings}).kafka


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, r"\$.kafka.sasl_mechanism` or .*development"),
        ({"tls": False}, r"plaintext is for a machine of your own, and needs `\$.kafka.development` = true"),
        ({"tls": False, **SCRAM}, r"needs `\$.kafka.development` = true"),
        ({"development": True, "tls": False, "ca_file": "ca.pem"}, "expected no certificates without TLS"),
        ({"certificate_file": "c.pem"}, r"`\$.kafka.key_file` together"),
        ({"ca_file": "/does/not/exist.pem", **SCRAM}, r"readable file at `\$.kafka.ca_file`, got /does/not/exist.pem"),
        ({"sasl_mechanism": "PLAIN"}, r"expected `\$.kafka.username` for PLAIN"),
        ({"development": True, "username": "observer"}, r"expected `\$.kafka.sasl_mechanism` beside"),
        (SCRAM, f"in the environment variable {PASSWORD}"),
    ],
)
def test_what_is_unsafe_or_does_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        access_of(kafka_of(**settings), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "protocol"),
    [
        ({"development": True}, "PLAINTEXT"),
        ({"development": True, "tls": True}, "SSL"),
        ({"development": True, **SCRAM}, "SASL_PLAINTEXT"),
        (SCRAM, "SASL_SSL"),
        ({"tls": True, **SCRAM}, "SASL_SSL"),
    ],
)
def test_plaintext_only_in_development(settings: dict[str, Any], protocol: str) -> None:
    kafka = kafka_of(**settings)
    assert confluent_settings(kafka, SECRET)["security.protocol"] == protocol
    given = aiokafka_settings(kafka, SECRET)
    assert given["security_protocol"] == protocol
    assert isinstance(given["ssl_context"], ssl.SSLContext) == protocol.endswith("SSL")


def test_host_names_and_certificates_are_checked() -> None:
    context = access_of(kafka_of(**SCRAM), SECRET).ssl_context()
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_the_password_is_in_no_representation() -> None:
    access = access_of(kafka_of(**SCRAM), SECRET)
    assert access.password == "hunter2"
    assert "hunter2" not in repr(access)


def test_a_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    access = access_of(kafka_of(ca_file=str(path), **SCRAM), SECRET)
    with pytest.raises(ConfigError, match=r"\$.kafka.ca_file"):
        access.ssl_context()
