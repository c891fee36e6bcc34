"""The loop of an edge: the table in step with the reader, put back when it is gone, everything acknowledged once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from edge.enforce import CHECK_S, Enforcer
from edge.nft_rules import supports
from edge.reader import Change, Reader, Standing
from edge.subject import Subject
from schemas.errors import EdgeError
from schemas.mitigation import Mitigation
from tests.edge_parts import HandClock, Heard
from tests.mitigations import CORE, on_topic, record


@dataclass
class FakeTopic:
    """Records that wait to be fed; the end at the start is ``end``."""

    end: int
    waiting: list[Mitigation] = field(default_factory=list)
    position: int = 0

    def open(self, reader: Reader) -> None:
        reader.begin({0: self.end})

    def feed(self, reader: Reader, wait_s: float) -> int:
        for one in self.waiting:
            reader.take(*on_topic(one))
        self.position += len(self.waiting)
        self.waiting.clear()
        reader.reached(0, self.position)
        return 0


@dataclass
class FakePoint:
    """A firewall that remembers, and refuses when told to."""

    table: dict[str, str] = field(default_factory=dict)
    intact: bool = True
    refuses: tuple[str, ...] = ()
    calls: list[str] = field(default_factory=list)

    def replace(self, standing: Mapping[Subject, Standing], now_ms: int) -> None:
        self._call("replace")
        self.table = {subject.text: one.action for subject, one in standing.items()}
        self.intact = True

    def change(self, changes: Sequence[Change], now_ms: int) -> None:
        self._call("change")
        for change in changes:
            self.table.pop(change.subject.text, None)
            if change.after is not None:
                self.table[change.subject.text] = change.after.action

    def is_intact(self) -> bool:
        return self.intact

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuses:
            raise EdgeError("refused")


class Stage:
    """An enforcer among fakes."""

    def __init__(self, *records: Mitigation, end: int, known: Callable[[Subject, Standing], bool] | None = None) -> None:
        self.topic, self.point, self.acknowledger, self.clock = FakeTopic(end), FakePoint(), Heard(), HandClock()
        self.told: list[str] = []
        self.reader = Reader(CORE, supports)
        self.enforcer = Enforcer(
            "here", self.topic, self.reader, self.point, self.acknowledger, self.clock,
            lambda event, fields: self.told.append(event), *([known] if known else []),
        )  # fmt: skip
        self.topic.open(self.reader)
        self.step(*records)

    def step(self, *records: Mitigation) -> None:
        self.topic.waiting += records
        self.enforcer.step()


def test_the_point_is_not_touched_before_the_end_and_filled_as_a_whole_then() -> None:
    stage = Stage(record(action="block"), end=2)
    assert stage.point.calls == []
    stage.step(record("203.0.113.8"))
    assert stage.point.calls == ["replace"]
    assert stage.point.table == {"203.0.113.7": "block", "203.0.113.8": "throttle"}
    stage.step(record("203.0.113.9"))
    stage.step()
    assert stage.point.calls == ["replace", "change"]


def test_each_mitigation_is_acknowledged_once_early_or_final_and_refusals_too() -> None:
    stage = Stage(record(id="a"), record("10.0.0.1", id="b"), end=2)
    assert stage.acknowledger.take() == [("a", "applied"), ("b", "error")]
    stage.step(record(id="a", stage="final", expires_at=1200), record("abc", kind="api_key", id="c"))
    assert stage.acknowledger.take() == [("c", "unsupported")]
    stage.step(record(id="a", stage="final", action="block"), record(id="d", tick=1000, detector="other", expires_at=1300))
    assert stage.acknowledger.take() == [("a", "applied")]
    stage.clock.ms = 1_100_000
    stage.step()
    assert stage.acknowledger.take() == [("d", "applied")]


def test_what_was_in_force_before_the_start_is_not_acknowledged_again() -> None:
    stage = Stage(
        record(id="a"), record("203.0.113.8", id="b"), end=2, known=lambda subject, standing: subject.text == "203.0.113.7"
    )
    assert stage.acknowledger.take() == [("b", "applied")]
    stage.step(record(id="c", tick=1050, action="block"))
    assert stage.acknowledger.take() == [("c", "applied")]


def test_a_refused_batch_is_answered_with_the_whole_table_and_a_refused_table_is_the_end() -> None:
    stage = Stage(record(), end=1)
    stage.point.refuses = ("change",)
    stage.step(record("203.0.113.8"))
    assert stage.point.table == {"203.0.113.7": "throttle", "203.0.113.8": "throttle"}
    assert stage.told == ["ready", "table_restored"]
    stage.point.refuses = ("change", "replace")
    with pytest.raises(EdgeError, match="refused"):
        stage.step(record("203.0.113.9"))


def test_a_table_that_is_gone_is_put_back_though_nothing_comes() -> None:
    stage = Stage(record(expires_at=5000), end=1)
    stage.point.table, stage.point.intact = {}, False
    stage.step()
    assert stage.point.table == {}
    stage.clock.ms += CHECK_S * 1000
    stage.step()
    assert stage.point.table == {"203.0.113.7": "throttle"}
    assert stage.told == ["ready", "table_restored"]


def test_starting_over_changes_nothing_until_the_end_is_reached_again() -> None:
    stage = Stage(record(), record("203.0.113.8"), end=2)
    stage.reader.begin({0: 4})
    stage.step(record("203.0.113.8", action="block", stage="final"))
    assert stage.point.calls == ["replace"]
    stage.step(record("203.0.113.9"))
    assert stage.point.calls == ["replace", "change"]
    assert stage.point.table == {"203.0.113.8": "block", "203.0.113.9": "throttle"}


def test_malformed_records_are_told_of_when_there_are_new_ones() -> None:
    stage = Stage(end=0)
    stage.reader.take(b"k", b"nonsense")
    for _ in range(3):
        stage.clock.ms += CHECK_S * 1000
        stage.step()
    assert stage.told == ["ready", "records_malformed"]
