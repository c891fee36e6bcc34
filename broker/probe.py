"""Why a broker cannot be reached, found out by hand: client libraries only say that it did not work."""

from __future__ import annotations

import contextlib
import socket
import ssl

from broker.settings import Access
from schemas.errors import BrokerError

PROBE_S_MAX = 5.0
_EXPIRED, _NOT_YET, _HOST_MISMATCH, _ADDRESS_MISMATCH = 10, 9, 62, 64
"""OpenSSL's numbers for what is wrong with a certificate (X509_V_ERR_…)."""


def split_address(address: str, port: int = 9092) -> tuple[str, int]:
    """``host:port``, ``[v6]:port`` or ``host``.

    Raises:
        ValueError: the port is no number.
    """
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, int(rest[1:]) if rest.startswith(":") else port
    host, colon, rest = address.rpartition(":")
    return (host, int(rest)) if colon else (address, port)


def probe(access: Access) -> BrokerError | None:
    """Connect to each broker, and shake hands where TLS is spoken; None: one of them can be reached."""
    first: BrokerError | None = None
    for broker in access.brokers:
        error = _probe_one(access, broker)
        if error is None:
            return None
        first = first or error
    return first


def speaks_tls(broker: str) -> bool:
    """Whether a TLS handshake works there, whoever it is. Nothing is sent and nothing trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError, ValueError), _connect(broker) as plain, context.wrap_socket(plain):
        return True
    return False


def _connect(broker: str) -> socket.socket:
    return socket.create_connection(split_address(broker), timeout=PROBE_S_MAX)


def _probe_one(access: Access, broker: str) -> BrokerError | None:
    try:
        with _connect(broker) as plain:
            context = access.ssl_context()
            if context is None:
                return None
            with context.wrap_socket(plain, server_hostname=split_address(broker)[0]):
                return None
    except ssl.SSLCertVerificationError as error:
        return BrokerError(_certificate_text(access, broker, error))
    except socket.gaierror as error:
        host = split_address(broker)[0]
        return BrokerError(f"expected the name {host} of a broker to resolve, got: {error.strerror}; see kafka.brokers")
    except ConnectionRefusedError:
        return BrokerError(
            f"expected a broker on {broker}, nothing listens there; start one (on this machine: floodwall broker up), or name "
            "another in kafka.brokers"
        )
    except TimeoutError:
        return BrokerError(f"expected a broker on {broker}, nothing answered within {PROBE_S_MAX:.0f} s; see kafka.brokers")
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
        reason = getattr(error, "reason", None) or str(error)
        return BrokerError(
            f"expected {broker} to speak TLS, it hung up or spoke something else ({reason}); plaintext needs "
            "kafka.development = true"
        )
    except ValueError:
        return BrokerError(f"expected host:port in kafka.brokers, got {broker!r}")
    except OSError as error:
        return BrokerError(f"expected a broker on {broker}, got: {error.strerror or error}; see kafka.brokers")


def _certificate_text(access: Access, broker: str, error: ssl.SSLCertVerificationError) -> str:
    why = error.verify_message
    if error.verify_code in (_HOST_MISMATCH, _ADDRESS_MISMATCH):
        host = split_address(broker)[0]
        return (
            f"expected the certificate of the broker on {broker} to be for {host}, it is not: use the name it is for in "
            "kafka.brokers, or have one issued for this one"
        )
    if error.verify_code in (_EXPIRED, _NOT_YET):
        return f"expected a certificate in force on {broker}: {why}; renew the broker's, and check this machine's clock"
    by = access.ca_file or "an authority that this system trusts"
    return f"expected the certificate of the broker on {broker} to be signed by {by}, got: {why}; see kafka.ca_file"
