"""The nft edge: runs nft, one process and one transaction per batch.

Timeouts live in the kernel: when this process dies, bans end on time without it. What a table holds that this process did
not put there is replaced as a whole at start, in one transaction, so that there is no moment without rules.
"""

from __future__ import annotations

import contextlib
import ipaddress
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import orjson
from prometheus_client.core import CounterMetricFamily, Metric

from edge import nft_rules
from edge.nft_rules import Element, Throttle
from edge.reader import Change, Standing
from edge.subject import Subject
from schemas.errors import EdgeError

NFT_S_MAX = 60
"""A million elements take 4 s; an nft that takes longer than this hangs."""
_HOW = {
    "nft": "install nftables (Debian, Ubuntu: apt-get install nftables; Fedora: dnf install nftables)",
    "ip": "install iproute2 (Debian, Ubuntu: apt-get install iproute2; Fedora: dnf install iproute)",
}


class NftTable:
    """One table of nftables that is ours.

    Args:
        table: its name, in the family ``inet``.
        core: the allowlist core; accepted before any other rule.
        throttle: what throttled sources may still send.
        service: the only one behind this table; None: many.
        netns: the name of a network namespace (``ip netns``) to work in; None: where this process is.
        show: a dry run: give it every batch instead of running nft.
    """

    def __init__(
        self,
        table: str,
        core: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network],
        throttle: Throttle,
        *,
        service: str | None = None,
        netns: str | None = None,
        show: Callable[[str], None] | None = None,
    ) -> None:
        self._table = nft_rules.check_table_name(table)
        self._structure = nft_rules.table_text(table, core, throttle, signatures=service is not None)
        self._command: tuple[str, ...] = ("nft",) if netns is None else ("ip", "netns", "exec", netns, "nft")
        self._netns = netns
        self._service = service
        self._show = show

    def supports(self, subject: Subject, action: str) -> bool:
        """Whether it can do this to such a subject."""
        return nft_rules.supports(subject, action, self._service)

    def metrics(self) -> Iterator[Metric]:
        """For a registry."""
        found = CounterMetricFamily("floodwall_nft_dropped_packets", "Since the table was put in place.", labels=["action"])
        if self._show is None:
            with contextlib.suppress(EdgeError):  # it is looked after elsewhere
                for counter, packets in self.dropped().items():
                    found.add_metric([counter], packets)
        yield found

    def open(self) -> set[Element]:
        """Check that nft is there, may be used, knows our rules, and that the table is ours or none; what it holds.

        Raises:
            EdgeError: which of these fails, and what to do.
        """
        if self._show is not None:
            return set()
        listed = orjson.loads(self._run(("-j", "list", "tables"), ""))["nftables"]
        names = [entry["table"]["name"] for entry in listed if entry.get("table", {}).get("family") == "inet"]
        if self._table in names:
            if not self.is_intact():
                raise EdgeError(
                    f"expected no table inet {self._table}, or ours, got one of somebody else: choose another with --table,"
                    f" or remove it: nft delete table inet {self._table}"
                )
            return self.elements()
        self._run(("-c", "-f", "-"), self._structure)
        return set()

    def elements(self) -> set[Element]:
        """What the kernel holds: (set, address) for every mitigation in force. About a second per 100,000."""
        listed = orjson.loads(self._run(("-j", "list", "table", "inet", self._table), ""))["nftables"]
        found = set()
        for entry in listed:
            one = entry.get("set")
            if one is None or one["name"].startswith("core_"):
                continue
            found |= {(one["name"], element["elem"]["val"]) for element in one.get("elem", ())}
        return found

    def dropped(self) -> dict[str, int]:
        """Packets that were dropped since the table was put in place, by counter: ``blocked`` and ``throttled``."""
        listed = orjson.loads(self._run(("-j", "list", "counters", "table", "inet", self._table), ""))["nftables"]
        return {entry["counter"]["name"]: entry["counter"]["packets"] for entry in listed if "counter" in entry}

    def is_intact(self) -> bool:
        """Whether the table is there: others may flush the whole ruleset, a reload of the host's firewall say."""
        if self._show is not None:
            return True
        try:
            self._run(("-c", "-f", "-"), nft_rules.probe_text(self._table))
        except EdgeError as error:
            if nft_rules.NO_TABLE.search(str(error)):
                return False
            raise
        return True

    def replace(self, standing: Mapping[Subject, Standing], now_ms: int) -> None:
        """Make the table hold exactly ``standing``, in one transaction.

        Raises:
            EdgeError: nft refuses; nothing was changed.
        """
        self._apply(nft_rules.replace_text(self._table, self._structure, standing, now_ms))

    def change(self, changes: Sequence[Change], now_ms: int) -> None:
        """Apply changes in one transaction.

        Raises:
            EdgeError: nft refuses; nothing was changed.
        """
        text = nft_rules.change_text(self._table, changes, now_ms)
        if text:
            self._apply(text)

    def remove(self) -> None:
        """Remove the table with everything in it.

        Raises:
            EdgeError: nft refuses.
        """
        self._apply(nft_rules.remove_text(self._table))

    def _apply(self, batch: str) -> None:
        if self._show is not None:
            self._show(batch)
        else:
            self._run(("-f", "-"), batch)

    def _run(self, arguments: tuple[str, ...], batch: str) -> bytes:
        try:
            done = subprocess.run(
                (*self._command, *arguments), input=batch.encode(), capture_output=True, check=False, timeout=NFT_S_MAX
            )
        except FileNotFoundError:
            program = self._command[0]
            raise EdgeError(f"expected the program {program}, found none on the path: {_HOW[program]}") from None
        except subprocess.TimeoutExpired:
            raise EdgeError(f"expected nft to be done within {NFT_S_MAX} s, it was not: does another hold the rules?") from None
        except OSError as error:
            raise EdgeError(f"expected to run {self._command[0]}, got: {error.strerror or error}") from None
        if done.returncode != 0:
            raise EdgeError(self._explain(done.stderr.decode("utf-8", "replace")))
        return done.stdout

    def _explain(self, complaint: str) -> str:
        """One line of what nft said, and what to do."""
        if "Operation not permitted" in complaint or "must be root" in complaint:
            return "expected the right to change nftables, got: Operation not permitted; run as root, or grant CAP_NET_ADMIN"
        if self._netns is not None and "Cannot open network namespace" in complaint:
            return f"expected the network namespace {self._netns}, found none: ip netns add {self._netns}"
        if self._netns is not None and "nft" in complaint and "exec of" in complaint:
            return f"expected the program nft, found none on the path: {_HOW['nft']}"
        first = next((line.strip() for line in complaint.splitlines() if "Error" in line), complaint.strip()[:200])
        return f"expected nft to take a batch for table inet {self._table}, got: {first[:300] or 'no message'}"
