"""Attacks planted into a real day: what is found of them between people who never heard of an API, and who of those pays.

The folder holds ``nasa_ksc_19950801.tsv.gz``, half a day of a space agency's site with no attack in it. Nothing of it is kept.
Its clients are mostly host names, which no rule counts by: each becomes an address of its own network.
"""

from __future__ import annotations

import gzip
import ipaddress
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from drills.attacks.catalogue import ATTACKS
from drills.attacks.strengths import strength_of
from drills.plant import plant
from drills.reference import strength_text
from drills.scoring import tell
from drills.scoring.decide import decided
from drills.scoring.folder import score_folder
from drills.service.world import NORMAL_PER_SECOND
from engine.in_force import is_enforced
from schemas.config import Config, parse_config

FILE = "nasa_ksc_19950801.tsv.gz"
SEED = 7001
AT_S = 4 * 3600
"""Each attack begins so long after the first line."""
CLIENTS = ipaddress.IPv4Address("21.0.0.7")
"""The first client that is a host name; each next one lies in the next /24."""
BLIND = {
    "slow_requests": "durations", "stream_exhaustion": "durations", "cancelled_prompts": "tokens", "max_tokens": "tokens",
    "denial_of_wallet": "cost", "distillation": "keys", "embedding_scraping": "keys", "credit_farming": "accounts",
    "registrations_obvious": "mail domains", "registrations_mimic": "mail domains", "registrations_slow": "mail domains",
    "stock_registrations": "accounts", "leaked_key_loud": "keys", "leaked_key_quiet": "keys", "key_shared": "keys",
    "stock_key": "keys", "trap_framed_key": "keys", "trap_framed_domain": "mail domains",
}  # fmt: skip
"""What an access log lacks to show an attack by."""


def log_lines(path: Path) -> Iterator[bytes]:
    """The day as combined lines, in its order."""
    clients: dict[str, str] = {}
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as rows:
        next(rows)
        for row in rows:
            host, _, epoch, method, url, status, size = row.rstrip("\n").split("\t")[:7]
            moment = datetime.fromtimestamp(int(epoch), UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
            target = url.replace("\\", "\\\\").replace('"', '\\"')
            line = f'{_address(clients, host)} - - [{moment}] "{method} {target} HTTP/1.0" {status} {size or "-"} "-" "-"\n'
            yield line.encode()


def _address(clients: dict[str, str], host: str) -> str:
    if host not in clients:
        try:
            clients[host] = str(ipaddress.IPv4Address(host))
        except ValueError:
            clients[host] = str(CLIENTS + 256 * len(clients))
    return clients[host]


def run(folder: Path) -> None:
    """Print what is found of each attack.

    Raises:
        SystemExit: the folder does not hold the day.
    """
    source = folder / FILE
    if not source.is_file():
        raise SystemExit(f"expected a folder with {FILE} in --data, got {folder}")
    config = parse_config({"profile": "web", "engine": {"seed": "planted"}})
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "day.log"
        log.write_bytes(b"".join(log_lines(source)))
        records = decided(config, [log.read_bytes()]).mitigations
        enforced = {(one.target.type, one.target.value) for one in records if is_enforced(one)}
        print(f"\nthe day alone: {len(records)} mitigations, {len(enforced)} targets in force")
        heads = (
            "attack", "strength", "found", "after", "sources", "events covered", "by", "people told after", "honest covered",
            "wronged",
        )  # fmt: skip
        print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
        for name in ATTACKS:
            if name not in BLIND:
                print(f"| {' | '.join(_score(name, log, config, Path(place)))} |", flush=True)
    print("\nnot planted, for want of: " + ", ".join(f"{name} ({what})" for name, what in BLIND.items()))


def _score(name: str, log: Path, config: Config, place: Path) -> tuple[str, ...]:
    """A row of the table: `floodwall drill run NAME --into`, then `floodwall drill score`."""

    def lines() -> Iterator[bytes]:
        with log.open("rb") as file:
            yield from file

    plant(lines, [name], place, seed=SEED, strength="ordinary", at_s=(AT_S,), normal_per_second=NORMAL_PER_SECOND)
    card = score_folder(place, config).card
    found = card.attacks[0]
    attack, _, *cells = tell.row(found)
    cells.pop()  # victims
    honest = tell.share_text(card.honest_covered / card.honest_events)
    strength = strength_text(ATTACKS[name], strength_of(name, "ordinary"))
    told = "" if found.alert_seconds is None else tell.seconds_text(found.alert_seconds)
    return attack, strength, *cells, told, honest, str(len(card.honest_sources))
