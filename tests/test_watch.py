"""Following a file through rotation: every line once, whatever is done to the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drills.traffic import combined_lines
from engine.embedded import Embedded
from engine.outbox import Decisions
from replay.follow import watch
from replay.sink import Sink
from schemas.errors import SourceError
from tests.engines import config_of

LINES = combined_lines(seed=31, events=4000, attackers=1).lines()


class Script:
    """A clock whose every wait plays the next step; the last one stops."""

    def __init__(self, *steps: object) -> None:
        self.steps, self.now, self.done, self.calm = list(steps), 1_795_000_100_000, False, 0

    def now_ms(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * 1000)
        if self.steps:
            self.steps.pop(0)()  # type: ignore[operator]
        else:
            self.calm += 1
            self.done = self.calm > 30


class Memory(Sink):
    def __init__(self) -> None:
        super().__init__()
        self.early = 0

    def write(self, decisions: Decisions) -> None:
        super().write(decisions)
        self.early += sum(m.stage == "early" for m in decisions.mitigations)


def append(path: Path, lines: list[bytes]) -> None:
    with path.open("ab") as file:
        file.write(b"".join(lines))


def follow(path: Path, *steps: object, state: Path | None = None) -> tuple[Embedded, Memory]:
    script, sink = Script(*steps), Memory()
    engine = watch(config_of(), str(path), sink, script, from_start=True, state=state, stop=lambda: script.done)
    return engine, sink


def test_rotated_by_rename(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    append(path, LINES[:1000])

    def rotate() -> None:
        append(path, LINES[1000:1500])
        path.rename(tmp_path / "access.log.1")
        append(path, LINES[1500:2500])

    engine, _ = follow(path, rotate, lambda: append(path, LINES[2500:]))
    account = engine.account()
    assert (account.records, account.events, account.poison) == (4000, 4000, {})


def test_rotated_while_the_last_line_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    append(path, [*LINES[:10], LINES[10][:-1]])
    engine, _ = follow(path, lambda: (path.rename(tmp_path / "old"), append(path, LINES[11:20])))
    assert engine.account().events == 20


def test_a_line_in_two_halves_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    append(path, [LINES[0], LINES[1][:40]])
    engine, _ = follow(path, lambda: append(path, [LINES[1][40:], LINES[2]]))
    assert (engine.account().records, engine.account().events) == (3, 3)


def test_truncated_in_place(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    append(path, LINES[:100])

    def truncate() -> None:
        os.truncate(path, 0)

    engine, _ = follow(path, truncate, lambda: append(path, LINES[100:150]))
    assert engine.account().events == 150


def test_restarted_it_goes_on_where_it_stood_also_in_a_file_that_was_moved_away(tmp_path: Path) -> None:
    path, state = tmp_path / "access.log", tmp_path / "state"
    append(path, LINES[:1000])
    follow(path, state=state)
    append(path, LINES[1000:1200])
    path.rename(tmp_path / "access.log.1")
    append(path, LINES[1200:1500])
    engine, _ = follow(path, state=state)
    assert engine.account().events == 1500
    assert engine.account().gaps == 0


def test_silence_closes_ticks_and_early_records_come_first(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    append(path, LINES)
    script, sink = Script(), Memory()
    script.calm = -600
    watch(config_of(), str(path), sink, script, from_start=True, stop=lambda: script.done)
    assert sink.early > 0
    assert sink.mitigations > 0


def test_what_cannot_be_followed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a file to follow"):
        follow(tmp_path)
