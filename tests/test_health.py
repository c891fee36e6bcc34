"""When a worker is held to make no progress."""

from __future__ import annotations

from faust.types import TP

from streams.health import STALL_S, Health
from streams.metrics import Metrics
from streams.transport import Place

PARTITION = TP("tallies", 0)


class StandingClock:
    """Wall time, which stays where it is."""

    def now_ms(self) -> int:
        return 0

    def wait(self, seconds: float) -> None:
        raise AssertionError("nobody waits")


class Station:
    """One partition with something to read, whose broker answers."""

    def __init__(self) -> None:
        self.position = 5

    def place(self, tp: TP) -> Place:
        return Place(self.position, 9, 0)

    def held(self) -> dict[TP, bool]:
        return {PARTITION: True}

    def settled(self) -> bool:
        return True


def test_time_in_which_the_loop_stood_still_is_no_time_without_progress() -> None:
    health = Health("judge", station := Station(), Metrics(), StandingClock())
    assert health.look(0.0) == {}
    assert health.look(STALL_S) == {"tallies-0": STALL_S}
    health.excuse(STALL_S - 1)
    assert health.look(STALL_S) == {}
    assert health.look(2 * STALL_S) == {"tallies-0": STALL_S + 1}
    station.position += 1
    assert health.look(2 * STALL_S) == {}
