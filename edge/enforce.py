"""The loop of every edge that is a process of its own: topic, reader, enforcement point, acknowledgements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from edge.reader import Change, Reader, Record, Refusal, Standing
from edge.subject import Subject
from edge.topic import Tell
from engine.clock import Clock
from schemas.acknowledgement import Acknowledgement, Outcome
from schemas.errors import EdgeError

WAIT_S = 0.1
"""How long the loop waits for a record; a ban that ends is noticed this late at most (the kernel's own timer is on time)."""
CHECK_S = 10
"""How often the enforcement point is looked at, in case somebody else has emptied it."""
_NOT_TAKEN = ("malformed", "refused")
"""Beginnings of the reader's counts that are told of while they grow."""
_WHY = {
    "unsupported": "this edge cannot do that to such a target, and does nothing harsher",
    "allowlisted": "the target touches the allowlist core of this edge",
    "full": "this edge holds as many keys as it may",
    "expired": "it had ended before it came",
    "unsigned": "it has no signature, and this edge wants one",
    "unknown_key": "it was signed with a key that this edge does not trust",
    "forged": "its signature is not of these bytes on this topic",
    "out_of_scope": "its key may not sign for this detector",
    "replayed": "it was signed before what this edge has, or long before the brokers took it in",
}


def refuse_behind_proxy(proxy_depth: int, told: bool, what: str = "nftables") -> None:
    """Behind a proxy one sees only the proxy's address: blocking would shut out everybody.

    Raises:
        EdgeError: the configuration names proxies, and nobody said that this host sees the clients.
    """
    if proxy_depth > 0 and not told:
        raise EdgeError(
            f"expected a host that clients connect to, got input.proxy_depth = {proxy_depth}: behind a proxy or CDN {what}"
            " sees only its addresses; run this edge on the outermost proxy itself and say --behind-proxy there"
        )


class Point(Protocol):
    """Something that can enforce."""

    def replace(self, standing: Mapping[Subject, Standing], now_ms: int) -> None:
        """Hold exactly this."""
        ...

    def change(self, changes: Sequence[Change], now_ms: int) -> None:
        """Take these steps, all or none."""
        ...

    def is_intact(self) -> bool:
        """False: what it held is gone."""
        ...


class Source(Protocol):
    """Where records come from."""

    def open(self, reader: Reader) -> None:
        """Begin at the beginning."""
        ...

    def feed(self, reader: Reader, wait_s: float) -> int:
        """Hand over what has arrived; how many records."""
        ...


class Acknowledges(Protocol):
    """Where acknowledgements go."""

    def send(self, acknowledgements: list[Acknowledgement]) -> None:
        """Without waiting."""
        ...


class Done(NamedTuple):
    """What became of a record at a point that says so itself."""

    record: Record
    outcome: Outcome
    why: str


class Enforcer:
    """Keeps an enforcement point in step with the enforcement topic.

    Args:
        name: of this edge, in its acknowledgements.
        acknowledger: None: acknowledge nothing.
        known: whether a standing was in force here before this process began; it is not acknowledged again.
        later: asked in every round of a point where being told is not yet being done: does what is due, and says what is
            done by now; None: what a point was told is done.
    """

    def __init__(
        self,
        name: str,
        topic: Source,
        reader: Reader,
        point: Point,
        acknowledger: Acknowledges | None,
        clock: Clock,
        tell: Tell,
        known: Callable[[Subject, Standing], bool] = lambda subject, standing: False,
        later: Callable[[], list[Done]] | None = None,
    ) -> None:
        self._name = name
        self._topic = topic
        self._reader = reader
        self._point = point
        self._acknowledger = acknowledger
        self._clock = clock
        self._tell = tell
        self._known = known
        self._later = later
        self._is_filled = False
        self._checked_at_ms = 0
        self._told: dict[str, int] = dict.fromkeys(_NOT_TAKEN, 0)

    def run(self, stop: Callable[[], bool]) -> None:
        """Follow the topic until told to stop.

        Raises:
            BrokerError: the topic cannot be read at the start, or may not be read any longer; brokers may come and go.
            EdgeError: the enforcement point refuses even a whole new table.
        """
        self._topic.open(self._reader)
        while not stop():
            self.step()

    def step(self) -> None:
        """Read what has arrived, and bring the enforcement point up to it."""
        self._topic.feed(self._reader, WAIT_S)
        if not self._reader.ready:
            return
        now_ms = self._clock.now_ms()
        changes = self._reader.changes(now_ms)
        if not self._is_filled:
            self._fill(now_ms)
        elif changes:
            self._change(changes, now_ms)
        self._acknowledge(changes)
        if now_ms - self._checked_at_ms >= CHECK_S * 1000:
            self._look_after()

    def _fill(self, now_ms: int) -> None:
        table = self._reader.table
        self._point.replace(table, now_ms)
        self._is_filled = True
        self._checked_at_ms = now_ms
        self._tell("ready", {"in_force": len(table), **self._reader.counts})

    def _change(self, changes: Sequence[Change], now_ms: int) -> None:
        try:
            self._point.change(changes, now_ms)
        except EdgeError as error:
            self._tell("table_restored", {"why": str(error)[:300]})
            self._point.replace(self._reader.table, now_ms)

    def _look_after(self) -> None:
        if not self._point.is_intact():
            self._tell("table_restored", {"why": "somebody else has removed it"})
            self._point.replace(self._reader.table, self._clock.now_ms())
        for kind in _NOT_TAKEN:
            count = sum(count for reason, count in self._reader.counts.items() if reason.startswith(f"{kind}_"))
            if count > self._told[kind]:
                self._told[kind] = count
                self._tell(f"records_{kind}", dict(self._reader.counts))
        self._checked_at_ms = self._clock.now_ms()

    def _acknowledge(self, changes: Sequence[Change]) -> None:
        now_ms = self._clock.now_ms()
        done = [self._refused(refusal) for refusal in self._reader.refusals(now_ms)]
        done += self._later() if self._later is not None else self._applied(changes)
        if self._acknowledger is None:
            return
        self._acknowledger.send(
            [
                Acknowledgement(
                    edge=self._name, id=record.id, target=record.target, action=record.action, outcome=outcome,
                    applied_at_ms=now_ms, why=why,
                )
                for record, outcome, why in done
            ]
        )  # fmt: skip

    def _applied(self, changes: Sequence[Change]) -> list[Done]:
        found = []
        for change in changes:
            standing = change.after
            if standing is None or self._known(change.subject, standing):
                continue
            record = standing.record
            if change.before is not None and (change.before.record.id, change.before.action) == (record.id, record.action):
                continue  # the final of an early record that was acknowledged
            found.append(Done(record, "applied", ""))
        self._known = lambda subject, standing: False
        return found

    @staticmethod
    def _refused(refusal: Refusal) -> Done:
        return Done(refusal.record, "unsupported" if refusal.reason == "unsupported" else "error", _WHY[refusal.reason])
