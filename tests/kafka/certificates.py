"""An authority and certificates for 127.0.0.1, made with openssl for one session of tests."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_LEAF = (
    "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n"
    "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
)


@dataclass(frozen=True)
class Certificates:
    """PEM files."""

    ca: Path
    other_ca: Path
    broker: Path
    """The key and the certificate in one file, as Kafka wants them."""
    expired: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Raises `FileNotFoundError` without openssl."""
    (folder / "leaf.ext").write_text(_LEAF)
    for name in ("ca", "other"):
        openssl(folder, "req", "-x509", *_KEY, "-subj", f"/CN=tests {name}", "-days", "2",
                "-addext", "keyUsage=critical,keyCertSign", "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    openssl(folder, "req", "-new", *_KEY, "-subj", "/CN=broker", "-keyout", "broker.key", "-out", "broker.csr")
    for name, days in (("broker", "2"), ("expired", "-1")):
        openssl(folder, "x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", days, "-extfile", "leaf.ext", "-out", f"{name}.crt")  # fmt: skip
    key = (folder / "broker.key").read_text()
    (folder / "broker.pem").write_text(key + (folder / "broker.crt").read_text())
    names = ("ca.pem", "other.pem", "broker.pem", "expired.crt", "broker.key")
    return Certificates(*(folder / name for name in names))


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
