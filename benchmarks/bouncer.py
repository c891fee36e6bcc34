"""CrowdSec's own firewall bouncer, unmodified, as Debian has it: where it is, and what it is told."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

PROGRAM = "crowdsec-firewall-bouncer"
HOW_TO_GET = f"Debian, Ubuntu: apt-get install --no-install-recommends {PROGRAM}"
PATIENCE_S = 30.0
_CONFIGURATION = """
mode: nftables
update_frequency: {every}
log_mode: file
log_dir: {folder}/
log_level: {level}
api_url: http://127.0.0.1:{port}/
api_key: {key}
disable_ipv6: false
deny_action: DROP
supported_decisions_types: [ban]
blacklists_ipv4: crowdsec-blacklists
blacklists_ipv6: crowdsec6-blacklists
nftables:
  ipv4: {{enabled: true, set-only: false, table: crowdsec, chain: crowdsec-chain}}
  ipv6: {{enabled: true, set-only: false, table: crowdsec6, chain: crowdsec6-chain}}
prometheus: {{enabled: false}}
"""


@contextlib.contextmanager
def running_bouncer(
    netns: str, folder: Path, port: int, key: str, *, every: str, level: str = "info"
) -> Iterator[subprocess.Popen[bytes]]:
    """The bouncer in a network namespace, asking at a port there; its log is in ``folder``, under its own name."""
    file = folder / "bouncer.yaml"
    file.write_text(_CONFIGURATION.format(folder=folder, port=port, key=key, every=every, level=level))
    words = ("ip", "netns", "exec", netns, PROGRAM, "-c", str(file))
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(PATIENCE_S)
